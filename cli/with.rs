//! `argent plan --with`: a plan for each of several values of params, side by side.

use std::collections::BTreeSet;
use std::ops::Range;
use std::process::ExitCode;

use argent_engine::Pipeline;
use argent_engine::canary::{Canary, Found};
use argent_engine::plan::PlannedStep;
use argent_engine::spec::Compared;
use serde_json::{Map, Value, json};

use crate::args::{Arguments, PlanArguments, SpecArguments};
use crate::canary::{self, bounds, difference, heading, interval, number};
use crate::plan::Planning;
use crate::session::{WRONG, told};
use crate::table::{aligned, dollars};
use crate::trial::{cost_interval, ended};

/// One value for each param that is compared.
type Values = Vec<Compared>;

/// What is planned with some values.
struct Variant {
    values: Values,
    steps: Vec<PlannedStep>,
    canaries: Option<Vec<Canary>>,
}

/// Plans once for each combination of values.
pub(crate) fn plan(arguments: &Arguments, plan: &PlanArguments) -> anyhow::Result<ExitCode> {
    let combinations = match combinations(plan) {
        Ok(combinations) => combinations,
        Err(mistake) => {
            eprintln!("error: {mistake}");
            return Ok(ExitCode::from(WRONG));
        }
    };
    let Some(pipelines) = pipelines(arguments, plan, &combinations) else { return Ok(ExitCode::from(WRONG)) };
    let planning = Planning::new(arguments, plan)?;
    let (mut variants, mut left_usd) = (Vec::new(), plan.work.max_usd);
    for (values, pipeline) in combinations.into_iter().zip(&pipelines) {
        let (steps, canaries) = planning.of(pipeline, left_usd, &|_| {})?;
        let found = canaries.iter().flatten().filter_map(|canary| canary.found.as_ref());
        let spent_usd: f64 = found.filter_map(|found| found.trial.tried.usd).sum();
        left_usd = left_usd.map(|usd| (usd - spent_usd).max(0.0));
        let is_stopped = canaries.iter().flatten().any(|canary| canary.stopped().is_some());
        variants.push(Variant { values, steps, canaries });
        if is_stopped {
            break;
        }
    }
    match plan.work.json {
        true => println!("{}", as_json(&pipelines[0].name, &variants)),
        false => print!("{}", as_text(&variants)),
    }
    let stopped = variants.iter().filter_map(|variant| variant.canaries.as_ref()).flatten();
    Ok(ended(stopped.into_iter().find_map(Canary::stopped)))
}

/// The pipelines of all combinations; where one is wrong, the mistakes of all are shown, each once.
fn pipelines(arguments: &Arguments, plan: &PlanArguments, combinations: &[Values]) -> Option<Vec<Pipeline>> {
    let (mut pipelines, mut shown) = (Vec::new(), BTreeSet::new());
    for values in combinations {
        let (pipeline, mistakes) =
            told(arguments, &SpecArguments { with: values.clone(), ..plan.spec.clone() });
        if let Some(mistakes) = mistakes.filter(|mistakes| shown.insert(mistakes.clone())) {
            eprintln!("{mistakes}");
        }
        pipelines.push(pipeline);
    }
    pipelines.into_iter().collect()
}

/// All combinations of the values that are compared, those of the last param changing first.
fn combinations(plan: &PlanArguments) -> Result<Vec<Values>, String> {
    let mut all: Vec<Values> = vec![Vec::new()];
    for (name, values) in &plan.with {
        let param = name.strip_prefix("params.").unwrap_or(name);
        if all[0].iter().any(|other| other.param == param) {
            return Err(format!(
                "--with gives `{param}` twice; give all of its values together, with commas"
            ));
        }
        if plan.spec.set.iter().any(|(set, _)| set == param) {
            return Err(format!("--set and --with both give `{param}`; leave one of them out"));
        }
        let compared = |place| Compared { param: param.to_owned(), values: values.clone(), place };
        let further = |so_far: &Values| {
            let places = separated(values).into_iter();
            let longer = places.map(|place| so_far.iter().cloned().chain([compared(place)]).collect());
            longer.collect::<Vec<Values>>()
        };
        all = all.iter().flat_map(further).collect();
    }
    Ok(all)
}

/// The places of the values between commas, without the blanks around them. Commas inside brackets part nothing: a list
/// has commas of its own.
fn separated(text: &str) -> Vec<Range<usize>> {
    let (mut places, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (at, character) in text.char_indices().chain([(text.len(), ',')]) {
        match character {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 || at == text.len() => {
                let value = &text[start..at];
                let first = start + value.len() - value.trim_start().len();
                places.push(first..first + value.trim().len());
                start = at + 1;
            }
            _ => {}
        }
    }
    places
}

fn as_json(pipeline: &str, variants: &[Variant]) -> Value {
    let variant = |variant: &Variant| {
        let values: Map<String, Value> =
            variant.values.iter().map(|of| (of.param.clone(), json!(of.value()))).collect();
        let mut told = json!({ "values": values, "steps": variant.steps });
        if let Some(canaries) = &variant.canaries {
            told["canary"] = canary::as_json(canaries);
        }
        told
    };
    json!({ "pipeline": pipeline, "with": variants.iter().map(variant).collect::<Vec<_>>() })
}

fn as_text(variants: &[Variant]) -> String {
    let mut text = aligned(
        &header(variants, &["steps to run", "rows", "requests", "tokens in", "tokens out", "cost"]),
        &variants.iter().map(planned).collect::<Vec<_>>(),
    );
    for step in canary_steps(variants) {
        text.push_str(&compared(&step, variants));
    }
    text
}

fn header<'a>(variants: &'a [Variant], columns: &[&'a str]) -> Vec<&'a str> {
    let names = variants.iter().take(1).flat_map(|variant| &variant.values).map(|of| of.param.as_str());
    names.chain(columns.iter().copied()).collect()
}

fn named(variant: &Variant, cells: impl IntoIterator<Item = String>) -> Vec<String> {
    variant.values.iter().map(|of| of.value().to_owned()).chain(cells).collect()
}

/// What a run with these values would do, in numbers. What planning has made is left to no run.
fn planned(variant: &Variant) -> Vec<String> {
    let is_left = |step: &&PlannedStep| step.action != "reuse" && !step.made;
    let steps: Vec<&PlannedStep> = variant.steps.iter().filter(is_left).collect();
    let between = |least: u64, most: Option<u64>| match most {
        Some(most) if most == least => most.to_string(),
        Some(most) => format!("{least}-{most}"),
        None => format!("{least}-?"),
    };
    let sure = steps.iter().filter(|step| step.action == "run").count() as u64;
    let least = steps.iter().filter(|step| step.action == "run").map(|step| step.rows.run_min).sum();
    let most: Option<u64> = steps.iter().map(|step| step.rows.run).sum();
    let sum = |f: fn(&PlannedStep) -> u64| steps.iter().map(|step| f(step)).sum::<u64>().to_string();
    let asking = || steps.iter().filter(|step| step.cost.requests > 0);
    let low: Option<f64> = asking().map(|step| step.cost.usd_min).sum();
    let high: Option<f64> = asking().map(|step| step.cost.usd).sum();
    let cost = match (low, high) {
        _ if asking().next().is_none() => "-".to_owned(),
        (Some(low), Some(high)) => format!("{}-{}", dollars(low), dollars(high).trim_start_matches('$')),
        _ => "price unknown".to_owned(),
    };
    named(
        variant,
        [
            between(sure, Some(steps.len() as u64)),
            between(least, most),
            sum(|step| step.cost.requests),
            sum(|step| step.cost.tokens_in),
            sum(|step| step.cost.tokens_out),
            cost,
        ],
    )
}

/// The steps that were tried with any of the values, in the plan's order.
fn canary_steps(variants: &[Variant]) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    for canary in variants.iter().filter_map(|variant| variant.canaries.as_ref()).flatten() {
        if !steps.contains(&canary.step) {
            steps.push(canary.step.clone());
        }
    }
    steps
}

/// A step's labels with each of the values, side by side.
fn compared(step: &str, variants: &[Variant]) -> String {
    let found: Vec<(&Variant, &Found)> = variants
        .iter()
        .filter_map(|variant| {
            let canary = variant.canaries.iter().flatten().find(|canary| canary.step == step)?;
            Some((variant, canary.found.as_ref()?))
        })
        .collect();
    let Some((_, first)) = found.first() else {
        return format!("\ncanary {step}: not tried with any of these values\n");
    };
    let columns = [
        "flips",
        "F1",
        "95% interval",
        "difference",
        "95% interval",
        "requests left",
        "cost",
        "95% interval",
    ];
    let rows: Vec<Vec<String>> = found.iter().map(|(variant, found)| tried(variant, found)).collect();
    let mut text = format!("\n{}\n{}", heading(step, first), aligned(&header(variants, &columns), &rows));
    if !first.gold.changes.is_empty() {
        text.push_str(&format!("\n{}", by_finding(&found)));
    }
    text
}

fn tried(variant: &Variant, found: &Found) -> Vec<String> {
    let (n, flips) = found.flips.iter().fold((0, 0), |sum, of| (sum.0 + of.n, sum.1 + of.flips));
    let mean = found.gold.changes.iter().find(|change| change.finding == "macro");
    let rest = found.trial.rest.as_ref();
    named(
        variant,
        [
            if n == 0 { "-".to_owned() } else { format!("{flips} of {n}") },
            number(mean.and_then(|mean| mean.after)),
            mean.map_or("-".to_owned(), |mean| interval(mean.after_low, mean.after_high)),
            difference(mean.and_then(|mean| mean.difference)),
            mean.map_or("-".to_owned(), bounds),
            rest.map_or("-".to_owned(), |rest| rest.requests.to_string()),
            rest.and_then(|rest| rest.usd).map_or("-".to_owned(), dollars),
            rest.and_then(cost_interval).unwrap_or("-".to_owned()),
        ],
    )
}

/// F1 by finding: as it is, and with each of the values.
fn by_finding(found: &[(&Variant, &Found)]) -> String {
    let names: Vec<String> = found
        .iter()
        .map(|(variant, _)| variant.values.iter().map(Compared::value).collect::<Vec<_>>().join(", "))
        .collect();
    let header: Vec<&str> =
        ["F1", "n", "before"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let rows: Vec<Vec<String>> = found[0]
        .1
        .gold
        .changes
        .iter()
        .map(|first| {
            let with = |found: &Found| {
                let change = found.gold.changes.iter().find(|change| change.finding == first.finding);
                number(change.and_then(|change| change.after))
            };
            let before = [first.finding.clone(), first.n.to_string(), number(first.before)];
            before.into_iter().chain(found.iter().map(|(_, found)| with(found))).collect()
        })
        .collect();
    aligned(&header, &rows)
}

#[cfg(test)]
mod tests {
    use super::separated;

    #[test]
    fn commas_part_values_and_not_the_members_of_a_list() {
        let values = |text: &'static str| -> Vec<&str> {
            separated(text).into_iter().map(|place| &text[place]).collect()
        };
        assert_eq!(values("a, b"), ["a", "b"]);
        assert_eq!(values("[1, 2],[3]"), ["[1, 2]", "[3]"]);
        assert_eq!(values("it's, a]"), ["it's", "a]"]);
        assert_eq!(values("[open, b"), ["[open, b"]);
        assert_eq!(values(""), [""]);
    }
}
