//! What two versions of labels are worth by a truth: F1 per finding and on average, and the difference with an interval.

use std::collections::BTreeMap;

use argent_engine::joining::texts;
use argent_engine::operator::{Change, Versions};
use argent_stats::{Bootstrap, Confusion, PairedBootstrap, mcnemar, paired_cluster_bootstrap};

use crate::eval::agreement::Draws;
use crate::eval::agreement::cases::{Labeling, known_truth};
use crate::eval::agreement::measures::{Joint, counted};
use crate::eval::cohort::LEVEL;
use crate::label::targets::Targets;

/// How states become yes or no.
pub(super) struct Policies<'a> {
    /// Those of both versions.
    pub(super) labels: &'a Targets<'a>,
    /// Those of the truth.
    pub(super) truth: &'a Targets<'a>,
}

/// A label whose truth is known and that the version after decides.
#[derive(Clone, Copy)]
struct Decided {
    cluster: u32,
    target: bool,
    after: bool,
    /// None where the version before does not decide it.
    before: Option<bool>,
}

/// The changes per finding, then that of the mean. Labels of one `group` stay together in a draw, where the labels have
/// that column.
///
/// # Errors
/// When a table lacks a column, or a state is unknown.
pub(super) fn compare(
    versions: &Versions,
    policies: &Policies,
    draws: &Draws,
    group: &str,
) -> anyhow::Result<Vec<Change>> {
    let by_finding = decided(versions, policies, group)?;
    let mut changes = Vec::new();
    for (finding, rows) in &by_finding {
        changes.push(change_of(finding, rows, draws)?);
    }
    if !by_finding.is_empty() {
        changes.push(change_of_mean(&by_finding, draws)?);
    }
    Ok(changes)
}

fn decided(
    versions: &Versions,
    policies: &Policies,
    group: &str,
) -> anyhow::Result<BTreeMap<String, Vec<Decided>>> {
    let (truth, _) = known_truth(policies.truth, versions.truth, versions.on)?;
    let after = Labeling::new(versions.after, policies.labels)?;
    let before = versions.before.map(|before| Labeling::new(before, policies.labels)).transpose()?;
    let before_rows = before.as_ref().map(|before| before.rows_by("id")).transpose()?;
    let by_truth = texts(versions.after, versions.on)?;
    let by_group = texts(versions.after, group).or_else(|_| texts(versions.after, "id"))?;
    let mut clusters: BTreeMap<&str, u32> = BTreeMap::new();
    let mut by_finding: BTreeMap<String, Vec<Decided>> = BTreeMap::new();
    for row in 0..versions.after.num_rows() {
        let finding = after.finding.value(row);
        let Some((_, Some(target))) = truth.get(&(by_truth.value(row), finding)) else { continue };
        let Some(decision) = after.label(row)?.decision else { continue };
        let earlier = before_rows.as_ref().and_then(|rows| rows.get(&(after.id.value(row), finding)));
        let earlier = match (&before, earlier) {
            (Some(before), Some(place)) => before.label(*place)?.decision,
            _ => None,
        };
        let next = u32::try_from(clusters.len())?;
        by_finding.entry(finding.to_owned()).or_default().push(Decided {
            cluster: *clusters.entry(by_group.value(row)).or_insert(next),
            target: *target,
            after: decision,
            before: earlier,
        });
    }
    Ok(by_finding)
}

fn change_of(finding: &str, rows: &[Decided], draws: &Draws) -> anyhow::Result<Change> {
    let f1 = |drawn: &[usize]| counted(drawn.iter().map(|row| (rows[*row].target, rows[*row].after))).f1();
    let alone = draws.interval(&clusters(rows), f1)?;
    let both: Vec<(Decided, bool)> = rows.iter().filter_map(|row| Some((*row, row.before?))).collect();
    let places: Vec<u32> = both.iter().map(|(row, _)| row.cluster).collect();
    let before = |drawn: &[usize]| counted(drawn.iter().map(|row| (both[*row].0.target, both[*row].1))).f1();
    let after =
        |drawn: &[usize]| counted(drawn.iter().map(|row| (both[*row].0.target, both[*row].0.after))).f1();
    let paired = paired_cluster_bootstrap(&places, draws.draws, draws.seed, LEVEL, after, before)?;
    let only = |is_after: bool| {
        let right = |(row, before): &&(Decided, bool)| {
            (row.after == row.target) == is_after && (*before == row.target) != is_after
        };
        both.iter().filter(right).count() as u64
    };
    let all: Vec<usize> = (0..rows.len()).collect();
    let everything: Vec<usize> = (0..both.len()).collect();
    let change = Change {
        finding: finding.to_owned(),
        before: before(&everything),
        after: f1(&all),
        p_value: (!both.is_empty()).then(|| mcnemar(only(true), only(false)).mid_p),
        ..counts(rows)
    };
    Ok(with_intervals(change, alone, paired))
}

fn change_of_mean(by_finding: &BTreeMap<String, Vec<Decided>>, draws: &Draws) -> anyhow::Result<Change> {
    let rows: Vec<(usize, Decided)> = by_finding
        .values()
        .enumerate()
        .flat_map(|(place, rows)| rows.iter().map(move |row| (place, *row)))
        .collect();
    let joint = |pick: fn(&Decided) -> Option<bool>, among: fn(&Decided) -> bool| {
        let rows = rows.iter().filter(|(_, row)| among(row));
        let picked = rows.filter_map(|(place, row)| Some((row.cluster, *place, row.target, pick(row)?)));
        Joint::new(by_finding.len(), picked)
    };
    let alone = joint(|row| Some(row.after), |_| true);
    let (after, before) = (
        joint(|row| Some(row.after), |row| row.before.is_some()),
        joint(|row| row.before, |row| row.before.is_some()),
    );
    let mean = |joint: &Joint, rows: &[usize]| joint.macro_average(Confusion::f1, rows);
    let interval = draws.interval(&alone.clusters, |rows| mean(&alone, rows))?;
    let (first, second) = (|rows: &[usize]| mean(&after, rows), |rows: &[usize]| mean(&before, rows));
    let paired = paired_cluster_bootstrap(&after.clusters, draws.draws, draws.seed, LEVEL, first, second)?;
    let all: Vec<Decided> = rows.iter().map(|(_, row)| *row).collect();
    let change = Change {
        finding: "macro".to_owned(),
        before: mean(&before, &before.all()),
        after: mean(&alone, &alone.all()),
        ..counts(&all)
    };
    Ok(with_intervals(change, interval, paired))
}

fn clusters(rows: &[Decided]) -> Vec<u32> {
    rows.iter().map(|row| row.cluster).collect()
}

/// A change with nothing measured.
fn counts(rows: &[Decided]) -> Change {
    Change {
        finding: String::new(),
        measure: "f1",
        n: rows.len() as u64,
        positives: rows.iter().filter(|row| row.target).count() as u64,
        before: None,
        after: None,
        after_low: None,
        after_high: None,
        difference: None,
        low: None,
        high: None,
        p_value: None,
    }
}

fn with_intervals(change: Change, alone: Option<Bootstrap>, paired: Option<PairedBootstrap>) -> Change {
    let alone = alone.map(|drawn| drawn.interval);
    let interval = paired.map(|paired| paired.bootstrap.interval);
    Change {
        after_low: alone.map(|interval| interval.low),
        after_high: alone.map(|interval| interval.high),
        difference: paired.map(|paired| paired.difference),
        low: interval.map(|interval| interval.low),
        high: interval.map(|interval| interval.high),
        ..change
    }
}
