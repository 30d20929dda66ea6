//! A run: steps that do not wait for each other work at the same time, each with what it needs to itself.
//!
//! One thread, the scheduler's, holds what is known of every step; a step works on a thread of its own and
//! sends back what became of it. A result that can be reused at once is found without a thread.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use anyhow::{Context, anyhow};
use argent_cache::{BlobError, Digest, Head, Manifest, RunRecord, Stats, StepRecord};

use crate::contract::{breach, holds};
use crate::decide::{Decider, Decision, Result};
use crate::engine::{End, Engine, Outcome, main_rows};
use crate::event::Event;
use crate::execute::{Failure, Interrupted, Made, Terms};
use crate::pipeline::{ContractOf, Node};
use crate::plan::accepted;
use crate::pools::{Demand, Pools, Slot};
use crate::select::Selection;

/// How often a result that was found damaged is made again in one run: a disk that ruins what was just
/// written ends in an error, not in a loop.
const REMAKES: u32 = 2;

/// How often a step is put back in one run because an input was found damaged: each input can be, twice.
const RETRIES: u32 = 16;

/// Runs a pipeline and records the run.
pub(crate) fn run(engine: &Engine, selection: &Selection) -> anyhow::Result<Outcome> {
    let decider = Decider::new(engine)?;
    let mut record = new_record(engine);
    let nodes = engine.pipeline.nodes.iter().enumerate();
    let steps = nodes.filter(|(place, node)| node.contract.is_none() && selection.runs(*place)).count();
    (engine.events)(Event::Started { run: record.run.clone(), steps });
    let mut schedule = Schedule::new(engine, &decider, selection);
    std::thread::scope(|scope| schedule.work(scope))?;
    let end = schedule.end();
    record.steps = schedule.records.into_values().collect();
    record.finished = Some(argent_cache::time::timestamp());
    record.ok = end == End::Done;
    publish_names(engine, &decider.head, &record)?;
    engine.store.write_run(&record)?;
    Ok(Outcome { record, end })
}

fn new_record(engine: &Engine) -> RunRecord {
    RunRecord {
        run: argent_cache::runs::new_run_id(),
        pipeline: engine.pipeline.name.clone(),
        name: engine.options.name.clone(),
        spec: Some(engine.pipeline.spec.to_string_lossy().into_owned()),
        started: argent_cache::time::timestamp(),
        finished: None,
        ok: false,
        steps: Vec::new(),
    }
}

/// What is known of a step.
enum State {
    /// It has not been looked at.
    Waiting,
    /// It works.
    Working,
    /// It has a result that steps below may read.
    Known(Arc<Manifest>),
    /// It has none.
    Without,
}

struct Schedule<'a> {
    engine: &'a Engine<'a>,
    decider: &'a Decider<'a>,
    selection: &'a Selection,
    /// By place.
    states: Vec<State>,
    /// By place: the places that must be settled before.
    after: Vec<Vec<usize>>,
    /// By place: how often it was made again because its result was damaged.
    remakes: Vec<u32>,
    /// By place: how often it was put back because an input of it was damaged.
    retries: Vec<u32>,
    /// By place: the result that was found damaged.
    lost: BTreeMap<usize, Arc<Manifest>>,
    /// By place, of steps that are no contracts.
    records: BTreeMap<usize, StepRecord>,
    pools: Pools,
    /// How many steps work.
    working: usize,
    spent_usd: f64,
    ends: Vec<End>,
}

/// What a working step sends back.
struct Report {
    place: usize,
    slot: Slot,
    made: std::result::Result<Made, Failure>,
}

impl<'a> Schedule<'a> {
    fn new(engine: &'a Engine<'a>, decider: &'a Decider<'a>, selection: &'a Selection) -> Schedule<'a> {
        let nodes = &engine.pipeline.nodes;
        // Nothing that runs depends on the rest.
        let state = |place| if selection.needs(place) { State::Waiting } else { State::Without };
        Schedule {
            engine,
            decider,
            selection,
            states: (0..nodes.len()).map(state).collect(),
            after: prerequisites(nodes),
            remakes: vec![0; nodes.len()],
            retries: vec![0; nodes.len()],
            lost: BTreeMap::new(),
            records: BTreeMap::new(),
            pools: Pools::new(&engine.options.resources),
            working: 0,
            spent_usd: 0.0,
            ends: Vec::new(),
        }
    }

    fn work<'s>(&mut self, scope: &'s Scope<'s, 'a>) -> anyhow::Result<()>
    where
        'a: 's,
    {
        let (sender, receiver): (Sender<Report>, Receiver<Report>) = channel();
        loop {
            self.start_what_can(scope, &sender)?;
            if self.working == 0 {
                return Ok(());
            }
            let report = receiver.recv().context("a step ended without a word")?;
            self.working -= 1;
            self.pools.give(report.slot);
            self.settle(report.place, report.made)?;
        }
    }

    /// Settles every step that needs no work, and starts those whose turn it is, as far as the pools reach.
    fn start_what_can<'s>(&mut self, scope: &'s Scope<'s, 'a>, sender: &Sender<Report>) -> anyhow::Result<()>
    where
        'a: 's,
    {
        for place in 0..self.states.len() {
            let settled = |p: &usize| matches!(self.states[*p], State::Known(_) | State::Without);
            if !matches!(self.states[place], State::Waiting) || !self.after[place].iter().all(settled) {
                continue;
            }
            let node = &self.engine.pipeline.nodes[place];
            if self.engine.cancelled.load(Ordering::Relaxed) {
                self.ends.push(End::Interrupted);
                self.without(place, "pending", Stats::default(), "interrupted before it began");
                continue;
            }
            let selected = self.selection.runs(place) || node.contract.is_some();
            let Some(upstream) = self.upstream(node) else {
                if !selected {
                    self.states[place] = State::Without;
                    continue;
                }
                let by = self.blocker(node);
                self.engine.tell(node, Event::Blocked { step: node.name.clone(), by: by.clone() });
                self.without(place, "blocked", Stats::default(), &format!("waits for `{by}`"));
                continue;
            };
            if !selected {
                self.hold(place, &upstream)?;
                continue;
            }
            match self.decider.at_once(node, &upstream) {
                Ok(Some(result)) => self.settle(place, Ok(Made::Reused(result)))?,
                // Whatever is wrong shows again, and is told, where the step works.
                Ok(None) | Err(_) => self.start(scope, sender, place, upstream)?,
            }
        }
        Ok(())
    }

    /// Takes the stored result of a step that is not selected, if it holds.
    fn hold(&mut self, place: usize, upstream: &[Arc<Manifest>]) -> anyhow::Result<()> {
        let node = &self.engine.pipeline.nodes[place];
        match self.decider.decide(node, upstream).with_context(|| format!("step `{}`", node.name))? {
            Decision::Reuse(result) | Decision::Accept(result, _) => {
                self.states[place] = State::Known(result.manifest);
            }
            Decision::Run(work) => {
                let reader = self.selection.reader(self.engine.pipeline, place);
                (self.engine.events)(Event::Stale { step: node.name.clone(), reader, why: work.why });
                self.ends.push(End::Stale);
                self.states[place] = State::Without;
            }
        }
        Ok(())
    }

    /// Lets a step work on a thread of its own, unless what it needs is taken.
    fn start<'s>(
        &mut self,
        scope: &'s Scope<'s, 'a>,
        sender: &Sender<Report>,
        place: usize,
        upstream: Vec<Arc<Manifest>>,
    ) -> anyhow::Result<()>
    where
        'a: 's,
    {
        let (engine, decider) = (self.engine, self.decider);
        let node = &engine.pipeline.nodes[place];
        let demand = self.demand(node);
        if let Some(refusal) = self.pools.refusal(&demand) {
            return self.settle(place, Err(anyhow!(refusal).into()));
        }
        let Some(slot) = self.pools.take(&demand) else { return Ok(()) };
        self.states[place] = State::Working;
        self.working += 1;
        let max_usd = engine.options.max_usd.map(|max| (max - self.spent_usd).max(0.0));
        let lost = self.lost.get(&place).cloned();
        let sender = sender.clone();
        scope.spawn(move || {
            let mut made = None;
            (engine.on_thread)(&mut || {
                let terms = Terms { slot: &slot, max_usd, lost: lost.clone() };
                let work = AssertUnwindSafe(|| decider.make(node, &upstream, &terms));
                made = Some(catch_unwind(work).unwrap_or_else(|panic| Err(panicked(&*panic).into())));
            });
            let made = made.unwrap_or_else(|| Err(anyhow!("the step was not started").into()));
            // The scheduler outlives its scope's threads; it is gone only when it has failed itself.
            let _ = sender.send(Report { place, slot, made });
        });
        Ok(())
    }

    /// What a step needs to itself. Under a spending limit, one step spends at a time, so that together they
    /// stay below it.
    fn demand(&self, node: &Node) -> Demand {
        let mut alone = node.operator.endpoints();
        if !alone.is_empty() && self.engine.options.max_usd.is_some() {
            alone = vec!["money".to_owned()];
        }
        Demand::new(&node.needs, alone)
    }

    /// Takes note of what became of a step.
    fn settle(&mut self, place: usize, made: std::result::Result<Made, Failure>) -> anyhow::Result<()> {
        let node = &self.engine.pipeline.nodes[place];
        match made {
            Ok(Made::Reused(result)) => {
                let rows = main_rows(&result.manifest);
                self.engine.tell(node, Event::Reused { step: node.name.clone(), rows });
                self.known(place, "reused", &result, None);
            }
            Ok(Made::Accepted(result, drift)) => {
                let (step, rows) = (node.name.clone(), main_rows(&result.manifest));
                let why = accepted(node, drift);
                self.engine.tell(node, Event::Accepted { step, rows, changed_rows: drift, why });
                self.known(place, "accepted", &result, Some(drift));
            }
            Ok(Made::Whole(result)) => self.known(place, "made", &result, None),
            Ok(Made::Part(result, reason, end)) => {
                self.ends.push(end);
                let stats = result.manifest.stats.clone();
                self.without(place, "partial", stats, &reason);
                self.name_result(place, &result);
            }
            Err(failure) => self.failed(place, failure)?,
        }
        self.check_contract(place)
    }

    fn known(&mut self, place: usize, action: &str, result: &Result, drift: Option<f64>) {
        let manifest = &result.manifest;
        let mut stats = manifest.stats.clone();
        if action == "made" {
            self.spent_usd += stats.usd.unwrap_or(0.0);
        } else {
            stats = Stats { reused: main_rows(manifest), failed: stats.failed, ..Stats::default() };
        }
        self.states[place] = State::Known(Arc::clone(manifest));
        self.record(place, action, stats, None);
        self.name_result(place, result);
        if let Some(record) = self.records.get_mut(&place) {
            record.drift = drift;
        }
    }

    fn without(&mut self, place: usize, action: &str, stats: Stats, error: &str) {
        self.spent_usd += stats.usd.unwrap_or(0.0);
        self.states[place] = State::Without;
        self.record(place, action, stats, Some(error.to_owned()));
    }

    fn record(&mut self, place: usize, action: &str, stats: Stats, error: Option<String>) {
        let node = &self.engine.pipeline.nodes[place];
        if node.contract.is_some() {
            return;
        }
        let record = StepRecord {
            step: node.name.clone(),
            operator: node.operator_name.to_owned(),
            key: None,
            manifest: None,
            action: action.to_owned(),
            collected: false,
            stats,
            drift: None,
            error,
        };
        self.records.insert(place, record);
    }

    fn name_result(&mut self, place: usize, result: &Result) {
        if let Some(record) = self.records.get_mut(&place) {
            record.key = Some(result.manifest.key);
            record.manifest = Some(result.digest);
        }
    }

    /// A step that failed; where a stored input of it was found damaged, that is made again first.
    fn failed(&mut self, place: usize, failure: Failure) -> anyhow::Result<()> {
        let node = &self.engine.pipeline.nodes[place];
        if lost_blob(&failure.error) && self.rewind(place)? {
            self.spent_usd += failure.stats.usd.unwrap_or(0.0);
            return Ok(());
        }
        let message = format!("{:#}", failure.error);
        if failure.error.is::<Interrupted>() {
            self.engine.tell(node, Event::Interrupted { step: node.name.clone(), message: message.clone() });
            self.ends.push(End::Interrupted);
            self.without(place, "pending", failure.stats, &message);
            return Ok(());
        }
        if let Some(contract) = node.contract.clone() {
            let unchecked = format!("the contract could not be checked: {}: {message}", contract.sql);
            self.reject(&contract, &unchecked, End::Failed);
            (self.engine.events)(Event::Failed { step: node.name.clone(), error: message });
            self.states[place] = State::Without;
            return Ok(());
        }
        (self.engine.events)(Event::Failed { step: node.name.clone(), error: message.clone() });
        self.ends.push(End::Failed);
        self.without(place, "failed", failure.stats, &message);
        Ok(())
    }

    /// Puts the steps whose stored results no longer stand, and this one, back to be made again; tells whether
    /// there were any.
    fn rewind(&mut self, place: usize) -> anyhow::Result<bool> {
        let node = &self.engine.pipeline.nodes[place];
        let mut lost = Vec::new();
        for input in &node.inputs {
            let State::Known(manifest) = &self.states[input.node] else { continue };
            if self.engine.store.action(&manifest.key)?.is_none() && self.remakes[input.node] < REMAKES {
                lost.push((input.node, Arc::clone(manifest)));
            }
        }
        lost.sort_by_key(|(input, _)| *input);
        lost.dedup_by_key(|(input, _)| *input);
        // Another step may have found the damage first.
        let under_way = |input: usize| matches!(self.states[input], State::Waiting | State::Working);
        let found = !lost.is_empty() || node.inputs.iter().any(|input| under_way(input.node));
        if !found || self.retries[place] >= RETRIES {
            return Ok(false);
        }
        for (input, manifest) in lost {
            let step = self.engine.pipeline.nodes[input].name.clone();
            (self.engine.events)(Event::Damaged { step });
            self.remakes[input] += 1;
            self.lost.insert(input, manifest);
            self.states[input] = State::Waiting;
        }
        self.retries[place] += 1;
        self.states[place] = State::Waiting;
        Ok(true)
    }

    /// Looks at a contract's answer once its node has run, and rejects the watched result where it is breached.
    fn check_contract(&mut self, place: usize) -> anyhow::Result<()> {
        let Some(contract) = self.engine.pipeline.nodes[place].contract.clone() else { return Ok(()) };
        let State::Known(manifest) = &self.states[place] else { return Ok(()) };
        let holds = match holds(self.engine.store, manifest) {
            Ok(holds) => holds,
            Err(error) => {
                // Its own answer is damaged: it is asked again.
                if lost_blob(&error) && self.remakes[place] < REMAKES {
                    self.remakes[place] += 1;
                    self.states[place] = State::Waiting;
                    return Ok(());
                }
                return Err(error);
            }
        };
        if holds {
            return Ok(());
        }
        let step = self.engine.pipeline.nodes[contract.node].name.clone();
        let (sql, warn) = (contract.sql.clone(), contract.warn);
        (self.engine.events)(Event::Breached { step, contract: sql, warn });
        if !contract.warn {
            self.reject(&contract, &breach(&contract.sql), End::Breached);
        }
        Ok(())
    }

    /// Keeps the steps below from a result, which stays stored under another name.
    fn reject(&mut self, contract: &ContractOf, message: &str, end: End) {
        self.ends.push(end);
        self.states[contract.node] = State::Without;
        if let Some(record) = self.records.get_mut(&contract.node) {
            record.action = "rejected".to_owned();
            record.error = Some(message.to_owned());
        }
    }

    /// The results that a node reads; none where one of them has none.
    fn upstream(&self, node: &Node) -> Option<Vec<Arc<Manifest>>> {
        let results = node.inputs.iter().map(|input| match &self.states[input.node] {
            State::Known(manifest) => Some(Arc::clone(manifest)),
            _ => None,
        });
        results.collect()
    }

    fn blocker(&self, node: &Node) -> String {
        let input = node.inputs.iter().find(|input| !matches!(self.states[input.node], State::Known(_)));
        input.map_or(String::new(), |input| self.engine.pipeline.nodes[input.node].name.clone())
    }

    fn end(&self) -> End {
        let order = [End::Interrupted, End::Failed, End::Stopped, End::Breached, End::Stale];
        order.into_iter().find(|end| self.ends.contains(end)).unwrap_or(End::Done)
    }
}

/// By place: the steps that a node reads, and the contracts on them. A contract waits for its step alone.
fn prerequisites(nodes: &[Node]) -> Vec<Vec<usize>> {
    let mut contracts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (place, node) in nodes.iter().enumerate() {
        if let Some(contract) = &node.contract {
            contracts.entry(contract.node).or_default().push(place);
        }
    }
    let of = |node: &Node| {
        let read = node.inputs.iter().map(|input| input.node);
        let mut places: Vec<usize> = read.clone().collect();
        if node.contract.is_none() {
            places.extend(read.filter_map(|place| contracts.get(&place)).flatten());
        }
        places
    };
    nodes.iter().map(of).collect()
}

/// Whether an error comes from a blob that is missing or damaged.
pub(crate) fn lost_blob(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref::<BlobError>(), Some(BlobError::Missing(_) | BlobError::Damaged(_)))
    })
}

fn panicked(panic: &(dyn Any + Send)) -> anyhow::Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    anyhow!("the operator broke down ({text}); this is a mistake in argent")
}

/// Lets the pipeline's names point at this run's results; a rejected result is kept under another name.
fn publish_names(engine: &Engine, head: &BTreeMap<String, Digest>, record: &RunRecord) -> anyhow::Result<()> {
    let names: BTreeSet<&str> = engine.pipeline.nodes.iter().map(|node| node.name.as_str()).collect();
    let mut steps = head.clone();
    steps.retain(|name, _| names.contains(name.strip_suffix(".rejected").unwrap_or(name)));
    for step in &record.steps {
        match (step.manifest, step.action.as_str()) {
            (Some(digest), "rejected") => drop(steps.insert(format!("{}.rejected", step.step), digest)),
            (Some(digest), _) => {
                steps.remove(&format!("{}.rejected", step.step));
                steps.insert(step.step.clone(), digest);
            }
            (None, _) => {}
        }
    }
    // Names that stay where they are need no new record, and no wait for the disk.
    if steps == *head {
        return Ok(());
    }
    engine.store.set_head(&Head { pipeline: record.pipeline.clone(), run: record.run.clone(), steps })
}
