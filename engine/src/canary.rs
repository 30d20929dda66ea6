//! A few rows before all of them: each step of a plan that would ask a server is tried on the same rows, its new labels
//! beside those that there are, and both beside the truth where the pipeline has one for these rows.

mod gold;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use arrow::array::RecordBatch;
use serde::Serialize;

use crate::engine::Engine;
use crate::operator::{Change, Kind};
use crate::pipeline::Node;
use crate::plan::{self, PlannedStep};
use crate::rows::RowWork;
use crate::select::Selection;
use crate::trial::{Stopped, Subject, Trial};
use gold::Truths;

/// What a step that would ask a server does to a few rows.
#[derive(Debug)]
pub struct Canary {
    /// The step.
    pub step: String,
    /// What came of it; none where the step cannot be tried before others have run.
    pub found: Option<Found>,
    /// Why nothing was tried.
    pub why: Option<String>,
}

/// What the rows of a canary tell.
#[derive(Debug)]
pub struct Found {
    /// The trial of the rows.
    pub trial: Trial,
    /// How labels changed, by finding.
    pub flips: Vec<FindingFlips>,
    /// What the labels are worth by a truth.
    pub gold: Gold,
}

/// How the labels of a finding changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FindingFlips {
    /// The finding.
    pub finding: String,
    /// Labels that there are before and after.
    pub n: u64,
    /// Those of them that are other ones.
    pub flips: u64,
    /// Which label became which, the most frequent change first.
    pub ways: Vec<Way>,
}

/// How often a label became another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Way {
    /// The label before.
    pub from: String,
    /// The label after.
    pub to: String,
    /// How often.
    pub rows: u64,
}

/// What labels are worth on the rows whose truth is known.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Gold {
    /// The step that makes the truth, and the one that measures by it.
    pub truth: Option<String>,
    /// The step that measures by it, whose rules hold here too.
    pub measured_by: Option<String>,
    /// The part that is left out, because it is for that step's own score.
    pub held_out: Option<String>,
    /// How many of the tried rows have a known truth.
    pub rows: u64,
    /// The measures per finding, then the mean.
    pub changes: Vec<Change>,
    /// Why there is no truth for these rows.
    pub why: Option<String>,
}

/// Tries each selected step that would ask a server.
pub(crate) fn canaries(engine: &Engine, selection: &Selection, rows: usize) -> anyhow::Result<Vec<Canary>> {
    let (planner, planned) = plan::walk(engine, selection, false)?;
    let planned: BTreeMap<&str, &PlannedStep> =
        planned.iter().map(|step| (step.step.as_str(), step)).collect();
    let (mut canaries, mut spent_usd) = (Vec::new(), 0.0);
    for (place, node) in engine.pipeline.nodes.iter().enumerate() {
        let Some(step) = planned.get(node.name.as_str()).filter(|_| node.contract.is_none()) else {
            continue;
        };
        if node.operator.endpoints().is_empty() || step.action == "reuse" {
            continue;
        }
        let without = |why: String| Canary { step: node.name.clone(), found: None, why: Some(why) };
        if node.kind == Kind::Table {
            canaries.push(without(format!("`{}` asks about whole tables", node.operator_name)));
            continue;
        }
        let Some(upstream) = planner.upstream(node) else {
            canaries.push(without(step.why.join("; ")));
            continue;
        };
        let subject = Subject { decider: &planner.decider, node, upstream: &upstream };
        let truths = Truths::find(engine, place, &planner.results);
        let max_usd = engine.options.max_usd.map(|usd| (usd - spent_usd).max(0.0));
        let trial = subject.trial(&|work, names| choose(work, names, rows, &truths), max_usd);
        let trial = trial.with_context(|| format!("step `{}`", node.name))?;
        spent_usd += trial.tried.usd.unwrap_or(0.0);
        let is_stopped = trial.stopped.is_some();
        canaries.push(Canary { step: node.name.clone(), found: Some(found(trial, &truths)?), why: None });
        if is_stopped {
            break;
        }
    }
    Ok(canaries)
}

impl Canary {
    /// Why it ended before its last row.
    pub fn stopped(&self) -> Option<&Stopped> {
        self.found.as_ref()?.trial.stopped.as_ref()
    }
}

/// At least half of the rows from those with a known truth, as far as there are so many; the others from all. A larger
/// choice holds a smaller one.
fn choose(
    work: &RowWork,
    names: &RecordBatch,
    count: usize,
    truths: &Result<Truths, String>,
) -> anyhow::Result<Vec<usize>> {
    let ranked = work.ranked(names)?;
    let known = match truths {
        Ok(truths) => truths.known_rows(&work.cells(&truths.columns())?)?,
        Err(_) => BTreeSet::new(),
    };
    let golden: Vec<usize> =
        ranked.iter().copied().filter(|row| known.contains(row)).take(count.div_ceil(2)).collect();
    let others = ranked.iter().copied().filter(|row| !golden.contains(row)).take(count - golden.len());
    Ok(golden.iter().copied().chain(others).collect())
}

fn found(trial: Trial, truths: &Result<Truths, String>) -> anyhow::Result<Found> {
    let gold = match truths {
        Ok(truths) => truths.gold(&trial.tables)?,
        Err(why) => Gold { why: Some(why.clone()), ..Gold::default() },
    };
    Ok(Found { flips: flips(&trial), gold, trial })
}

/// By label before and after: how often.
type Ways = BTreeMap<(String, String), u64>;

/// How labels changed, by finding in their order; empty for a table without labels.
fn flips(trial: &Trial) -> Vec<FindingFlips> {
    let Some(label) = trial.label else { return Vec::new() };
    let mut counts: BTreeMap<&str, (u64, Ways)> = BTreeMap::new();
    for output in trial.rows.iter().flat_map(|row| &row.outputs) {
        let (Some(finding), Some(after), Some(before)) = (&output.finding, &output.after, &output.before)
        else {
            continue;
        };
        let (n, ways) = counts.entry(finding).or_default();
        *n += 1;
        if output.flipped {
            let text = |cells: &BTreeMap<String, Option<String>>| {
                cells.get(label).cloned().flatten().unwrap_or_else(|| "null".to_owned())
            };
            *ways.entry((text(before), text(after))).or_default() += 1;
        }
    }
    let of = |(finding, (n, ways)): (&str, (u64, Ways))| {
        let mut ways: Vec<Way> = ways.into_iter().map(|((from, to), rows)| Way { from, to, rows }).collect();
        ways.sort_by_key(|way| std::cmp::Reverse(way.rows));
        let flips = ways.iter().map(|way| way.rows).sum();
        FindingFlips { finding: finding.to_owned(), n, flips, ways }
    };
    counts.into_iter().map(of).collect()
}

/// Whether a node makes labels: a table of findings with states.
fn makes_labels(node: &Node) -> bool {
    let shape = node.outputs.get("").map(|output| output.schema.clone());
    shape.is_some_and(|schema| ["id", "finding", "state"].iter().all(|name| schema.index_of(name).is_ok()))
}
