//! What a run would do, step by step.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use argent_cache::Manifest;
use serde::Serialize;

use crate::contract::{breach, holds};
use crate::decide::{Decider, Decision, Work};
use crate::engine::{Engine, main_rows};
use crate::execute::{Made, Terms};
use crate::operator::Price;
use crate::pipeline::{ContractOf, Node};
use crate::pools::Slot;
use crate::schedule::lost_blob;
use crate::select::{Selection, Stale, WrongSelection};
use crate::table::Table;
use crate::trial::WrongTrial;

/// What a plan says of one step.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedStep {
    /// The step.
    pub step: String,
    /// Its operator.
    pub r#use: String,
    /// `run`, `reuse`, or `maybe` where it depends on values that are not known yet.
    pub action: &'static str,
    /// Input rows of a row operator.
    pub rows: PlannedRows,
    /// Why it runs: how its recipe differs from the last one.
    pub why: Vec<String>,
    /// What it would cost.
    pub cost: PlannedCost,
    /// Whether the plan itself ran it, because it is local, free and quick.
    pub made: bool,
}

/// Row counts of a planned step; bounds where the input is not known yet.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct PlannedRows {
    /// All rows; none where they are not known.
    pub total: Option<u64>,
    /// Rows whose answer is there.
    pub reuse: u64,
    /// The fewest rows that would run.
    pub run_min: u64,
    /// The most rows that would run: where the input is not known yet, the rows of the last result, or none
    /// where there was none.
    pub run: Option<u64>,
}

/// What a planned step would cost.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PlannedCost {
    /// Distinct requests.
    pub requests: u64,
    /// The least, in US dollars; none where the price is not known.
    pub usd_min: Option<f64>,
    /// The most, in US dollars; none where the price is not known.
    pub usd: Option<f64>,
    /// Input tokens, estimated.
    pub tokens_in: u64,
    /// Output tokens, estimated.
    pub tokens_out: u64,
    /// Seconds, from the last time; none where there was none.
    pub seconds: Option<f64>,
}

/// Plans the selected steps of a pipeline, and makes those that are quick.
pub(crate) fn plan(engine: &Engine, selection: &Selection) -> anyhow::Result<Vec<PlannedStep>> {
    let (_, planned) = walk(engine, selection, true)?;
    Ok(planned)
}

/// Plans the selected steps, and makes those that are quick. Costs are worked out where they are wanted.
pub(crate) fn walk<'a>(
    engine: &'a Engine<'a>,
    selection: &Selection,
    priced: bool,
) -> anyhow::Result<(Planner<'a>, Vec<PlannedStep>)> {
    let mut planner = Planner { priced, ..Planner::new(engine)? };
    let mut planned = Vec::new();
    let mut stale = Vec::new();
    for (place, node) in engine.pipeline.nodes.iter().enumerate() {
        let named = || format!("step `{}`", node.name);
        if !selection.needs(place) {
            planner.results.push(None);
            continue;
        }
        if !selection.runs(place) && node.contract.is_none() {
            let result = planner.held(node).with_context(named)?;
            stale.extend(result.as_ref().err().map(|why| planner.stale(selection, place, why)));
            planner.results.push(result.ok().flatten());
            continue;
        }
        let (step, result) = planner.step(node).with_context(named)?;
        planner.results.push(result);
        match &node.contract {
            None => planned.push(step),
            Some(contract) => planner.check_contract(node, contract).with_context(named)?,
        }
    }
    none_stale(stale)?;
    Ok((planner, planned))
}

/// The results that a step reads, made where they are local, free and quick.
///
/// # Errors
/// A [`WrongTrial`] when one is missing that takes more than that.
pub(crate) fn upstream<'a>(
    engine: &'a Engine<'a>,
    step: &Node,
) -> anyhow::Result<(Decider<'a>, Vec<Arc<Manifest>>)> {
    let selection = Selection::parse(engine.pipeline, std::slice::from_ref(&step.name))?;
    let mut planner = Planner::new(engine)?;
    let mut missing = Vec::new();
    for (place, node) in engine.pipeline.nodes.iter().enumerate() {
        let is_above = selection.needs(place) && !selection.runs(place);
        if !is_above {
            planner.results.push(None);
            continue;
        }
        let named = || format!("step `{}`", node.name);
        let (planned, result) = planner.step(node).with_context(named)?;
        if planned.action == "run" && result.is_none() && node.contract.is_none() {
            missing.push((node.name.clone(), planned.why));
        }
        planner.results.push(result);
        if let Some(contract) = &node.contract {
            planner.check_contract(node, contract).with_context(named)?;
        }
    }
    if let Some(upstream) = planner.upstream(step) {
        return Ok((planner.decider, upstream));
    }
    Err(WrongTrial(match missing.first() {
        Some((name, why)) => format!(
            "`{}` reads what `{name}` makes, and that takes a run ({}); run it with --select +{name}",
            step.name,
            why.join("; ")
        ),
        None => format!("`{}`: {}", step.name, planner.unknown_inputs(step).join("; ")),
    })
    .into())
}

/// Finds, without running anything, whether selected steps stand on stale results of others.
pub(crate) fn check_selection(engine: &Engine, selection: &Selection) -> anyhow::Result<()> {
    let mut planner = Planner::new(engine)?;
    let mut stale = Vec::new();
    for (place, node) in engine.pipeline.nodes.iter().enumerate() {
        if !selection.needs(place) || node.contract.is_some() {
            planner.results.push(None);
            continue;
        }
        // What is wrong with a step that is to run is told when it runs.
        let result = match planner.held(node) {
            Err(_) if selection.runs(place) => Ok(None),
            held => held?,
        };
        if !selection.runs(place) {
            stale.extend(result.as_ref().err().map(|why| planner.stale(selection, place, why)));
        }
        planner.results.push(result.ok().flatten());
    }
    none_stale(stale)
}

fn none_stale(stale: Vec<Stale>) -> anyhow::Result<()> {
    let lines: Vec<String> = stale.iter().map(Stale::to_string).collect();
    if lines.is_empty() { Ok(()) } else { Err(WrongSelection(lines).into()) }
}

/// What is known of the steps as they are planned one after the other.
pub(crate) struct Planner<'a> {
    engine: &'a Engine<'a>,
    pub(crate) decider: Decider<'a>,
    /// Whether costs are worked out, which looks at every pending row.
    priced: bool,
    /// By place: the result that steps below may read, where it is known.
    pub(crate) results: Vec<Option<Arc<Manifest>>>,
    /// By place of a step whose contract does not hold: the contract.
    breaches: BTreeMap<usize, String>,
}

impl<'a> Planner<'a> {
    fn new(engine: &'a Engine<'a>) -> anyhow::Result<Planner<'a>> {
        let decider = Decider::new(engine)?;
        Ok(Planner { engine, decider, priced: false, results: Vec::new(), breaches: BTreeMap::new() })
    }

    /// The results that a node reads, where all of them are known.
    pub(crate) fn upstream(&self, node: &Node) -> Option<Vec<Arc<Manifest>>> {
        node.inputs.iter().map(|input| self.results[input.node].clone()).collect()
    }

    /// The result of a node that is not to run: none where it depends on values that are not known yet, or why
    /// the stored one does not hold.
    fn held(&self, node: &Node) -> anyhow::Result<std::result::Result<Option<Arc<Manifest>>, Vec<String>>> {
        let Some(upstream) = self.upstream(node) else { return Ok(Ok(None)) };
        Ok(match self.decider.decide(node, &upstream)? {
            Decision::Reuse(result) | Decision::Accept(result, _) => Ok(Some(result.manifest)),
            Decision::Run(work) => Err(work.why),
        })
    }

    fn stale(&self, selection: &Selection, place: usize, why: &[String]) -> Stale {
        let pipeline = self.engine.pipeline;
        Stale {
            step: pipeline.nodes[place].name.clone(),
            reader: selection.reader(pipeline, place),
            why: why.to_vec(),
        }
    }

    fn step(&self, node: &Node) -> anyhow::Result<(PlannedStep, Option<Arc<Manifest>>)> {
        let mut planned = PlannedStep {
            step: node.name.clone(),
            r#use: node.operator_name.to_owned(),
            action: "maybe",
            rows: PlannedRows::default(),
            why: Vec::new(),
            cost: PlannedCost::default(),
            made: false,
        };
        let Some(upstream) = self.upstream(node) else {
            let last = self.decider.last(&node.name)?.map(|(_, last)| last);
            planned.why = self.unknown_inputs(node);
            planned.rows.run = last.as_ref().map(main_rows);
            planned.cost.seconds = last.map(|l| l.stats.seconds);
            return Ok((planned, None));
        };
        let result = match self.decider.decide(node, &upstream)? {
            Decision::Reuse(result) => {
                planned.reuses(main_rows(&result.manifest));
                Some(result.manifest)
            }
            Decision::Accept(result, drift) => {
                planned.reuses(main_rows(&result.manifest));
                planned.why = vec![accepted(node, drift)];
                Some(result.manifest)
            }
            Decision::Run(work) => {
                planned.action = "run";
                planned.why.clone_from(&work.why);
                planned.rows = rows(&work);
                if self.priced {
                    planned.cost = self.cost(node, &work)?;
                }
                let made = self.make(node, &upstream)?;
                planned.made = made.is_some();
                made.flatten()
            }
        };
        Ok((planned, result))
    }

    /// Makes a quick step; the outer option says whether it was made, the inner one holds a whole result.
    fn make(&self, node: &Node, upstream: &[Arc<Manifest>]) -> anyhow::Result<Option<Option<Arc<Manifest>>>> {
        if !node.quick {
            return Ok(None);
        }
        let terms = Terms { slot: &Slot::default(), max_usd: self.engine.options.max_usd, lost: None };
        let made = self.decider.make(node, upstream, &terms).map_err(|failure| failure.error)?;
        Ok(Some(match made {
            Made::Whole(result) | Made::Reused(result) | Made::Accepted(result, _) => Some(result.manifest),
            Made::Part(..) => None,
        }))
    }

    fn cost(&self, node: &Node, work: &Work) -> anyhow::Result<PlannedCost> {
        let free = Price { usd_min: Some(0.0), usd: Some(0.0), ..Price::default() };
        let Price { requests, tokens_in, tokens_out, usd_min, usd } =
            self.decider.price(node, work)?.unwrap_or(free);
        Ok(PlannedCost { requests, tokens_in, tokens_out, usd_min, usd, seconds: seconds(work) })
    }

    /// Keeps the steps below from a result whose contract, the last node, does not hold, as a run does.
    fn check_contract(&mut self, node: &Node, contract: &ContractOf) -> anyhow::Result<()> {
        let Some(answer) = self.results.last().cloned().flatten() else { return Ok(()) };
        let holds = match holds(self.engine.store, &answer) {
            // The answer was damaged and is gone now: it is asked again.
            Err(error) if lost_blob(&error) => match self.step(node)?.1 {
                Some(answer) => holds(self.engine.store, &answer)?,
                None => true,
            },
            told => told?,
        };
        if !holds && !contract.warn {
            self.results[contract.node] = None;
            self.breaches.insert(contract.node, contract.sql.clone());
        }
        Ok(())
    }

    /// Why a node's inputs are not known.
    fn unknown_inputs(&self, node: &Node) -> Vec<String> {
        let unknown = node.inputs.iter().map(|i| i.node).filter(|place| self.results[*place].is_none());
        let name = |place: usize| format!("`{}`", self.engine.pipeline.nodes[place].name);
        let (breached, open): (Vec<usize>, Vec<usize>) =
            unknown.partition(|place| self.breaches.contains_key(place));
        let mut why: Vec<String> = breached
            .into_iter()
            .map(|place| format!("waits for {}: {}", name(place), breach(&self.breaches[&place])))
            .collect();
        if !open.is_empty() {
            why.push(format!("depends on {}", open.into_iter().map(name).collect::<Vec<_>>().join(", ")));
        }
        why
    }
}

impl PlannedStep {
    fn reuses(&mut self, rows: u64) {
        self.action = "reuse";
        self.rows = PlannedRows { total: Some(rows), reuse: rows, run_min: 0, run: Some(0) };
    }
}

/// Why a changed input is accepted, in words.
pub(crate) fn accepted(node: &Node, drift: f64) -> String {
    let rule = node.rerun.as_ref().map_or(String::new(), |rerun| rerun.to_string());
    format!("accepted: changed_rows is {}, and it runs again if {rule}", share(drift))
}

/// A share in at most four digits behind the point, or its order of magnitude where it is smaller.
fn share(share: f64) -> String {
    if share > 0.0 && share < 0.0001 {
        return format!("{share:.1e}");
    }
    format!("{}", (share * 1e4).round() / 1e4)
}

fn rows(work: &Work) -> PlannedRows {
    match &work.rows {
        Some(rows) => {
            let (total, run) = rows.counts();
            PlannedRows { total: Some(total), reuse: total - run, run_min: run, run: Some(run) }
        }
        None => {
            let total = work.inputs.values().map(Table::rows).max().unwrap_or(0);
            PlannedRows { total: Some(total), reuse: 0, run_min: total, run: Some(total) }
        }
    }
}

/// The seconds that the work will take, from the last time: of a row operator by row.
fn seconds(work: &Work) -> Option<f64> {
    let stats = &work.last.as_ref()?.stats;
    match &work.rows {
        Some(rows) if stats.made > 0 => Some(stats.seconds / stats.made as f64 * rows.counts().1 as f64),
        Some(_) => None,
        None => Some(stats.seconds),
    }
}
