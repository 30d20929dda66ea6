//! What `argent plan --canary` shows: how labels change on a few rows, and what they are worth there.

use argent_engine::canary::{Canary, FindingFlips, Found, Gold};
use argent_engine::operator::Change;
use serde_json::{Value, json};

use crate::table::{aligned, count};
use crate::trial::{remaining, tried};

/// Canaries as text, each under its step's name.
pub(crate) fn shown(canaries: &[Canary]) -> String {
    if canaries.is_empty() {
        return "\ncanary: no step would ask a server\n".to_owned();
    }
    canaries.iter().map(|canary| format!("\n{}", one(canary))).collect()
}

fn one(canary: &Canary) -> String {
    let Some(found) = &canary.found else {
        let why = canary.why.as_deref().unwrap_or_default();
        return format!("canary {}: not tried: {why}\n", canary.step);
    };
    let mut text = heading(&canary.step, found);
    if found.trial.before.is_none() {
        text.push_str("there is no result to compare with yet\n");
    } else if !found.flips.is_empty() {
        text.push_str(&format!("\n{}", flips(&found.flips)));
    }
    if !found.gold.changes.is_empty() {
        text.push_str(&format!("\n{}", changes(&found.gold.changes)));
    }
    text.push_str(&format!("\ntried  {}\n", tried(&found.trial)));
    if let Some(rest) = &found.trial.rest {
        text.push_str(&format!("rest   {}\n", remaining(found.trial.rest_rows, rest)));
    }
    text
}

/// Which rows were tried, and where their truth is from.
pub(crate) fn heading(step: &str, found: &Found) -> String {
    let trial = &found.trial;
    let rows = format!("canary {step}: {} of {}", trial.rows.len(), count(trial.total, "row"));
    format!("{rows}, {}\n", truth(&found.gold))
}

fn truth(gold: &Gold) -> String {
    let held_out =
        gold.held_out.as_ref().map_or(String::new(), |part| format!("; part `{part}` is left out"));
    match (&gold.truth, &gold.measured_by, &gold.why) {
        (_, _, Some(why)) => format!("no gold among these rows: {why}{held_out}"),
        (Some(truth), Some(measure), None) => {
            format!("{} with gold from `{truth}` by the rules of `{measure}`{held_out}", gold.rows)
        }
        _ => "no gold among these rows".to_owned(),
    }
}

fn flips(flips: &[FindingFlips]) -> String {
    let row = |of: &FindingFlips| {
        let ways = of.ways.iter().map(|way| format!("{} -> {} {}", way.from, way.to, way.rows));
        vec![of.finding.clone(), of.n.to_string(), of.flips.to_string(), ways.collect::<Vec<_>>().join(", ")]
    };
    aligned(&["finding", "n", "flips", "from -> to"], &flips.iter().map(row).collect::<Vec<_>>())
}

fn changes(changes: &[Change]) -> String {
    let header =
        ["gold", "n", "positives", "F1 before", "after", "95% interval", "difference", "95% interval"];
    let row = |change: &Change| {
        vec![
            change.finding.clone(),
            change.n.to_string(),
            change.positives.to_string(),
            number(change.before),
            number(change.after),
            interval(change.after_low, change.after_high),
            difference(change.difference),
            bounds(change),
        ]
    };
    aligned(&header, &changes.iter().map(row).collect::<Vec<_>>())
}

/// A measure, or a dash where the rows do not define it.
pub(crate) fn number(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.3}"))
}

/// A difference, with its sign.
pub(crate) fn difference(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:+.3}"))
}

/// The interval of a measure.
pub(crate) fn interval(low: Option<f64>, high: Option<f64>) -> String {
    low.zip(high).map_or("-".to_owned(), |(low, high)| format!("{low:.3}-{high:.3}"))
}

/// The interval of a difference; none where every draw gives the same, because that tells nothing of how sure it is.
pub(crate) fn bounds(change: &Change) -> String {
    let bounds = change.low.zip(change.high).filter(|(low, high)| low < high);
    bounds.map_or("-".to_owned(), |(low, high)| format!("{low:+.3} to {high:+.3}"))
}

/// Canaries as JSON. Nothing of single rows is in it.
pub(crate) fn as_json(canaries: &[Canary]) -> Value {
    let one = |canary: &Canary| match &canary.found {
        None => json!({ "step": canary.step, "why": canary.why }),
        Some(found) => json!({
            "step": canary.step,
            "rows": { "total": found.trial.total, "tried": found.trial.rows.len(), "rest": found.trial.rest_rows },
            "before": found.trial.before,
            "tried": found.trial.tried,
            "rest": found.trial.rest,
            "flips": found.flips,
            "gold": found.gold,
            "stopped": found.trial.stopped,
        }),
    };
    canaries.iter().map(one).collect()
}
