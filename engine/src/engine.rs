//! Plan and run: one function, `Walk::decide`, says what becomes of a step; `plan` shows what it says and
//! `run` does it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use argent_cache::{Digest, Head, Manifest, RunRecord, Stats, StepRecord, Store, TableRecord};
use arrow::array::{AsArray, RecordBatch};
use serde::Serialize;
use serde_json::Value;

use crate::event::Event;
use crate::io::{Io, Pending, fault_batch};
use crate::operator::{FILES, Kind, Price};
use crate::pipeline::{Node, Pipeline};
use crate::recipe;
use crate::rows::{RowWork, keyed_columns};
use crate::table::{self, Table};

/// What the user asked of a run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Stop before more than this is spent, in US dollars.
    pub max_usd: Option<f64>,
    /// Try rows again whose failure is remembered.
    pub retry_errors: bool,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the run saw and made, as it is stored.
    pub record: RunRecord,
    /// How it ended.
    pub end: End,
}

/// How a run ended; each has its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every step has its result.
    Done,
    /// A step failed.
    Failed,
    /// A budget stopped it.
    Stopped,
    /// A contract does not hold.
    Breached,
    /// The user stopped it.
    Interrupted,
}

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
    /// The most rows that would run.
    pub run: u64,
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

/// What becomes of a step.
enum Decision {
    /// Its stored result holds.
    Reuse(Digest, Box<Manifest>),
    /// It has work to do.
    Run(Box<Work>),
    /// It depends on values that are not known yet.
    Unknown,
}

struct Work {
    key: Digest,
    recipe: Value,
    inputs: BTreeMap<String, Table>,
    rows: Option<RowWork>,
    why: Vec<String>,
    last: Option<Manifest>,
}

/// A step's place in a walk through the pipeline.
enum State {
    /// It has a result that steps below may read.
    Known(Box<Manifest>),
    /// It has none.
    Without,
}

/// Plans and runs one pipeline on one store.
pub struct Engine<'a> {
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// The store.
    pub store: &'a Store,
    /// What the user asked.
    pub options: Options,
    /// Where events go.
    pub events: &'a (dyn Fn(Event) + Sync),
    /// Set from outside when the user wants the run to end.
    pub cancelled: &'a AtomicBool,
}

impl Engine<'_> {
    /// Runs the pipeline: does what [`Engine::plan`] says, publishes each result, and records the run.
    ///
    /// # Errors
    /// When the store itself fails; a step that fails is part of the outcome.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        let mut record = self.new_record();
        (self.events)(Event::Started { run: record.run.clone(), steps: self.steps() });
        let mut walk = Walk::new(self)?;
        for place in 0..self.pipeline.nodes.len() {
            let step = walk.step(place)?;
            if self.pipeline.nodes[place].contract.is_none() {
                record.steps.push(step);
            }
            walk.settle(place, &mut record)?;
        }
        record.finished = Some(now());
        let end = walk.end();
        record.ok = end == End::Done;
        walk.publish_names(&record)?;
        self.store.write_run(&record)?;
        self.keep_caches()?;
        Ok(Outcome { record, end })
    }

    /// What a run would do. Steps that are local, free and quick are done here and published, so that the
    /// steps below show exact rows.
    ///
    /// # Errors
    /// When the store fails, or a quick step does.
    pub fn plan(&self) -> anyhow::Result<Vec<PlannedStep>> {
        let mut walk = Walk::new(self)?;
        let mut planned = Vec::new();
        for (place, node) in self.pipeline.nodes.iter().enumerate() {
            let step = walk.plan(place).with_context(|| format!("step `{}`", node.name))?;
            if node.contract.is_none() {
                planned.push(step);
            }
        }
        self.keep_caches()?;
        Ok(planned)
    }

    /// Keeps what makes the next plan quick.
    fn keep_caches(&self) -> anyhow::Result<()> {
        self.store.save_stat_cache()?;
        self.pipeline.statics.keep(self.store, &self.pipeline.name)
    }

    /// Tells an event about a step; contracts are told of only when they do not hold.
    fn tell(&self, node: &Node, event: Event) {
        if node.contract.is_none() {
            (self.events)(event);
        }
    }

    fn steps(&self) -> usize {
        self.pipeline.nodes.iter().filter(|n| n.contract.is_none()).count()
    }

    fn new_record(&self) -> RunRecord {
        RunRecord {
            run: argent_cache::runs::new_run_id(),
            pipeline: self.pipeline.name.clone(),
            spec: Some(self.pipeline.spec.to_string_lossy().into_owned()),
            started: now(),
            finished: None,
            ok: false,
            steps: Vec::new(),
        }
    }
}

/// One pass through the nodes, in order.
struct Walk<'a> {
    engine: &'a Engine<'a>,
    states: Vec<State>,
    head: BTreeMap<String, Digest>,
    spent_usd: f64,
    /// What a step that failed had cost until then.
    lost: Stats,
    ends: Vec<End>,
    breached: Vec<usize>,
}

impl<'a> Walk<'a> {
    fn new(engine: &'a Engine<'a>) -> anyhow::Result<Walk<'a>> {
        let head = engine.store.head(&engine.pipeline.name)?.map(|h| h.steps).unwrap_or_default();
        Ok(Walk {
            engine,
            states: Vec::new(),
            head,
            spent_usd: 0.0,
            lost: Stats::default(),
            ends: Vec::new(),
            breached: Vec::new(),
        })
    }

    /// Says what becomes of a node, from the values of its inputs and nothing else.
    fn decide(&self, node: &Node) -> anyhow::Result<Decision> {
        let store = self.engine.store;
        let Some(inputs) = self.inputs(node)? else { return Ok(Decision::Unknown) };
        let mut ports = BTreeMap::new();
        for (port, table) in &inputs {
            ports.insert(port.clone(), table.digests(store, &self.decisive_columns(node, port))?);
        }
        let recipe = recipe::step_recipe(node, &ports);
        let key = recipe::key(&recipe, store.secret());
        let stored = store.action_record(&key)?;
        if let Some((digest, manifest)) = stored {
            let again = self.engine.options.retry_errors && manifest.stats.failed > 0;
            if manifest.complete && manifest.stats.retryable == 0 && !again {
                return Ok(Decision::Reuse(digest, Box::new(manifest)));
            }
        }
        let last = self.last(&node.name)?;
        let why = match &last {
            Some(last) => recipe::difference(&last.recipe, &recipe, &node.file_paths),
            None => vec!["there is no result yet".to_owned()],
        };
        let why = if why.is_empty() { vec![unfinished(last.as_ref())] } else { why };
        let rows = match node.kind {
            Kind::Row(port) => {
                let operator = recipe::row_operator(node, port, &ports, store.secret());
                let retry = self.engine.options.retry_errors;
                Some(RowWork::find(node, port, &inputs[port], &operator, store, retry)?)
            }
            Kind::Table => None,
        };
        Ok(Decision::Run(Box::new(Work { key, recipe, inputs, rows, why, last })))
    }

    /// The columns of a port whose digests enter the step's key.
    fn decisive_columns(&self, node: &Node, port: &str) -> Vec<String> {
        match node.kind {
            Kind::Row(row_port) if row_port == port => keyed_columns(node, port),
            _ => node.signature.reads.get(port).cloned().unwrap_or_default(),
        }
    }

    /// The tables that fill the node's ports; none where one of them is not known.
    fn inputs(&self, node: &Node) -> anyhow::Result<Option<BTreeMap<String, Table>>> {
        let store = self.engine.store;
        let mut inputs = BTreeMap::new();
        let patterns = node.operator.patterns();
        for input in &node.inputs {
            let State::Known(manifest) = &self.states[input.node] else { return Ok(None) };
            let record = manifest.outputs.get(&input.output);
            let record =
                record.with_context(|| format!("`{}` has no output `{}`", node.name, input.output))?;
            let mut table = Table::Stored(record.clone());
            if input.port == FILES {
                table = Table::Listed(table::files_of_table(store, &table, &patterns)?);
            }
            inputs.insert(input.port.clone(), table);
        }
        if !patterns.is_empty() && !inputs.contains_key(FILES) {
            let files = table::files_on_disk(store, &self.engine.pipeline.folder, &patterns)?;
            if files.num_rows() == 0 {
                bail!("no file matches {}", patterns.join(", "));
            }
            inputs.insert(FILES.to_owned(), Table::Listed(files));
        }
        Ok(Some(inputs))
    }

    fn last(&self, step: &str) -> anyhow::Result<Option<Manifest>> {
        match self.head.get(step) {
            Some(digest) => Ok(self.engine.store.manifest(digest).ok()),
            None => Ok(None),
        }
    }

    /// Runs or reuses one node and records its state.
    fn step(&mut self, place: usize) -> anyhow::Result<StepRecord> {
        let node = &self.engine.pipeline.nodes[place];
        if self.engine.cancelled.load(Ordering::Relaxed) {
            self.ends.push(End::Interrupted);
            return Ok(self.without(node, "pending", "interrupted before it began"));
        }
        if let Some(by) = self.blocker(node) {
            self.engine.tell(node, Event::Blocked { step: node.name.clone(), by: by.clone() });
            return Ok(self.without(node, "blocked", &format!("waits for `{by}`")));
        }
        let done = match self.decide(node) {
            Ok(Decision::Reuse(digest, manifest)) => {
                let rows = main_rows(&manifest);
                self.engine.tell(node, Event::Reused { step: node.name.clone(), rows });
                Ok(self.known(node, "reused", digest, *manifest))
            }
            Ok(Decision::Run(work)) => self.execute(node, &work).map(|made| self.record(node, made)),
            Ok(Decision::Unknown) => Err(anyhow!("an input has no result")),
            Err(error) => Err(error),
        };
        done.or_else(|error| {
            let message = format!("{error:#}");
            (self.engine.events)(Event::Failed { step: node.name.clone(), error: message.clone() });
            self.ends.push(End::Failed);
            let stats = std::mem::take(&mut self.lost);
            Ok(StepRecord { stats, ..self.without(node, "failed", &message) })
        })
    }

    /// Plans one node; runs it when it is quick.
    fn plan(&mut self, place: usize) -> anyhow::Result<PlannedStep> {
        let node = &self.engine.pipeline.nodes[place];
        let mut planned = PlannedStep {
            step: node.name.clone(),
            r#use: node.operator_name.to_owned(),
            action: "maybe",
            rows: PlannedRows::default(),
            why: Vec::new(),
            cost: PlannedCost::default(),
            made: false,
        };
        match self.decide(node)? {
            Decision::Reuse(_, manifest) => {
                planned.action = "reuse";
                let rows = main_rows(&manifest);
                planned.rows = PlannedRows { total: Some(rows), reuse: rows, run_min: 0, run: 0 };
                self.states.push(State::Known(manifest));
            }
            Decision::Unknown => {
                let last = self.last(&node.name)?;
                planned.why = vec![format!("depends on {}", self.unknown_inputs(node).join(", "))];
                planned.rows.run = last.as_ref().map_or(0, main_rows);
                planned.cost.seconds = last.map(|l| l.stats.seconds);
                self.states.push(State::Without);
            }
            Decision::Run(work) => {
                planned.action = "run";
                planned.why.clone_from(&work.why);
                planned.rows = planned_rows(&work);
                planned.cost = self.cost(node, &work)?;
                self.plan_work(node, &work, &mut planned)?;
            }
        }
        Ok(planned)
    }

    fn plan_work(&mut self, node: &Node, work: &Work, planned: &mut PlannedStep) -> anyhow::Result<()> {
        if !node.quick {
            self.states.push(State::Without);
            return Ok(());
        }
        let made = self.execute(node, work)?;
        planned.made = true;
        self.states.push(match made {
            Made::Whole(_, manifest) => State::Known(manifest),
            Made::Part(..) => State::Without,
        });
        Ok(())
    }

    fn cost(&self, node: &Node, work: &Work) -> anyhow::Result<PlannedCost> {
        let mut cost =
            PlannedCost { seconds: work.last.as_ref().map(|l| l.stats.seconds), ..PlannedCost::default() };
        if let Some(rows) = &work.rows {
            let io = self.window(node, work)?;
            let price = node.operator.price(&rows.pending_rows()?, &io)?;
            let Price { requests, tokens_in, tokens_out, usd_min, usd } =
                price.unwrap_or(Price { usd_min: Some(0.0), usd: Some(0.0), ..Price::default() });
            cost = PlannedCost { requests, tokens_in, tokens_out, usd_min, usd, ..cost };
        } else {
            (cost.usd_min, cost.usd) = (Some(0.0), Some(0.0));
        }
        Ok(cost)
    }

    /// Does a node's work and publishes its result.
    fn execute(&mut self, node: &Node, work: &Work) -> anyhow::Result<Made> {
        let started = Instant::now();
        self.check_needs(node)?;
        let rows = work.rows.as_ref().map(|r| r.counts().1);
        self.engine.tell(node, Event::Running { step: node.name.clone(), rows, why: work.why.clone() });
        let _alone = self.engine.store.lock(&work.key.to_string())?;
        let mut io = self.window(node, work)?;
        if work.rows.as_ref().is_none_or(|r| !r.pending.is_empty()) {
            let result = node.operator.run(&mut io);
            self.spent_usd += io.stats.usd.unwrap_or(0.0);
            if result.is_err() {
                self.lost = io.stats.clone();
            }
            result?;
        }
        let (outputs, pending) = self.tables(node, work, &mut io)?;
        let mut stats = io.stats.clone();
        stats.seconds = started.elapsed().as_secs_f64();
        let complete = pending == 0 && io.stopped.is_none() && !(io.cancelled() && work.rows.is_none());
        if !complete && work.rows.is_none() {
            bail!("interrupted before it had a result");
        }
        let manifest = Manifest {
            key_schema: recipe::KEY_SCHEMA,
            key: work.key,
            operator: node.operator_name.to_owned(),
            recipe: work.recipe.clone(),
            outputs,
            stats,
            complete,
            created: now(),
        };
        let (digest, manifest) = self.engine.store.publish(&manifest)?;
        if complete {
            let (step, rows, stats) = (node.name.clone(), main_rows(&manifest), manifest.stats.clone());
            self.engine.tell(node, Event::Made { step, rows, stats });
            return Ok(Made::Whole(digest, Box::new(manifest)));
        }
        let reason = io.stopped.clone().unwrap_or_else(|| "interrupted".to_owned());
        let step = node.name.clone();
        self.engine
            .tell(node, Event::Partial { step, rows: main_rows(&manifest), pending, reason: reason.clone() });
        self.ends.push(if io.stopped.is_some() { End::Stopped } else { End::Interrupted });
        Ok(Made::Part(digest, Box::new(manifest), reason))
    }

    /// Stores a node's tables; tells how many rows still have no answer.
    fn tables(
        &self,
        node: &Node,
        work: &Work,
        io: &mut Io,
    ) -> anyhow::Result<(BTreeMap<String, TableRecord>, u64)> {
        let store = self.engine.store;
        let mut outputs = BTreeMap::new();
        let mut put = |name: &str, batch: RecordBatch, keys: &[String]| -> anyhow::Result<()> {
            outputs.insert(name.to_owned(), store.put_table(&batch, keys)?);
            Ok(())
        };
        let mut pending = 0;
        let main_keys = &node.signature.main().keys;
        if let Some(rows) = &work.rows {
            let window = io.pending.take().context("a row operator has a window")?;
            window.memo.sync()?;
            let table = rows.assemble(node, &window)?;
            pending = table.pending;
            io.stats.failed = table.failed;
            io.stats.retryable = table.retryable;
            io.stats.made = rows.counts().1 - pending;
            io.stats.reused = rows.counts().0 - rows.counts().1;
            node.operator.finish(&table.main, io)?;
            put("", table.main, main_keys)?;
            put("errors", table.errors, &[])?;
            window.memo.seal()?;
        } else {
            let main = io.emitted("")?;
            io.stats.made = main.num_rows() as u64;
            put("", main, main_keys)?;
            let faults = fault_batch(&mut io.faults)?;
            io.stats.failed = faults.num_rows() as u64;
            put("errors", faults, &[])?;
        }
        for (name, output) in node.signature.outputs.iter().filter(|(name, _)| !name.is_empty()) {
            put(name, io.emitted(name)?, &output.keys)?;
        }
        Ok((outputs, pending))
    }

    /// The operator's window.
    fn window(&self, node: &Node, work: &Work) -> anyhow::Result<Io<'a>> {
        let store = self.engine.store;
        let mut inputs = BTreeMap::new();
        for (port, table) in &work.inputs {
            let is_row_port = matches!(node.kind, Kind::Row(row_port) if row_port == port);
            if !is_row_port {
                inputs.insert(port.clone(), table.read(store, &seen_columns(node, port))?);
            }
        }
        let pending: Option<Pending> = work.rows.as_ref().map(RowWork::window).transpose()?;
        let left = self.engine.options.max_usd.map(|max| (max - self.spent_usd).max(0.0));
        Ok(Io {
            step: node.name.clone(),
            store,
            folder: self.engine.pipeline.folder.clone(),
            inputs,
            on: node.inputs.iter().map(|i| (i.port.clone(), i.on.clone())).collect(),
            schemas: node.signature.outputs.iter().map(|(n, o)| (n.clone(), o.schema.clone())).collect(),
            emitted: BTreeMap::new(),
            pending,
            faults: Vec::new(),
            stats: Stats::default(),
            stopped: None,
            events: self.engine.events,
            cancelled: self.engine.cancelled,
            max_usd: left,
            retry_errors: self.engine.options.retry_errors,
        })
    }

    fn check_needs(&self, node: &Node) -> anyhow::Result<()> {
        match node.needs.iter().find(|(_, count)| **count > 0) {
            Some((what, count)) => {
                bail!(
                    "the step needs {count} {what}, and this argent was built without; it does not fall back to the CPU"
                )
            }
            None => Ok(()),
        }
    }

    /// Looks at a contract's answer once its node has run, and marks the watched step where it is breached.
    fn settle(&mut self, place: usize, record: &mut RunRecord) -> anyhow::Result<()> {
        let node = &self.engine.pipeline.nodes[place];
        let Some(contract) = &node.contract else { return Ok(()) };
        let State::Known(manifest) = &self.states[place] else { return Ok(()) };
        let answer = self.engine.store.read_table(&manifest.outputs[""], None)?;
        let holds = answer
            .column(0)
            .as_boolean_opt()
            .is_some_and(|a| a.len() == 1 && a.iter().all(|v| v == Some(true)));
        if holds {
            return Ok(());
        }
        let step = self.engine.pipeline.nodes[contract.node].name.clone();
        (self.engine.events)(Event::Breached {
            step: step.clone(),
            contract: contract.sql.clone(),
            warn: contract.warn,
        });
        if !contract.warn {
            self.ends.push(End::Breached);
            self.breached.push(contract.node);
            self.states[contract.node] = State::Without;
            if let Some(step) = record.steps.iter_mut().find(|s| s.step == step) {
                step.action = "rejected".to_owned();
                step.error = Some(format!("the contract does not hold: {}", contract.sql));
            }
        }
        Ok(())
    }

    /// Lets the pipeline's names point at this run's results; a rejected result is kept under another name.
    fn publish_names(&self, record: &RunRecord) -> anyhow::Result<()> {
        let mut steps = self.head.clone();
        steps.retain(|name, _| {
            let name = name.strip_suffix(".rejected").unwrap_or(name);
            self.engine.pipeline.node(name).is_some()
        });
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
        if steps == self.head {
            return Ok(());
        }
        let head = Head { pipeline: record.pipeline.clone(), run: record.run.clone(), steps };
        self.engine.store.set_head(&head)
    }

    fn end(&self) -> End {
        let order = [End::Interrupted, End::Failed, End::Stopped, End::Breached];
        order.into_iter().find(|end| self.ends.contains(end)).unwrap_or(End::Done)
    }

    fn blocker(&self, node: &Node) -> Option<String> {
        let input = node.inputs.iter().find(|i| matches!(self.states[i.node], State::Without))?;
        Some(self.engine.pipeline.nodes[input.node].name.clone())
    }

    fn unknown_inputs(&self, node: &Node) -> Vec<String> {
        let unknown = node.inputs.iter().filter(|i| matches!(self.states[i.node], State::Without));
        unknown.map(|i| format!("`{}`", self.engine.pipeline.nodes[i.node].name)).collect()
    }

    fn known(&mut self, node: &Node, action: &str, digest: Digest, manifest: Manifest) -> StepRecord {
        let mut stats = manifest.stats.clone();
        if action == "reused" {
            let rows = main_rows(&manifest);
            stats = Stats { reused: rows, failed: stats.failed, ..Stats::default() };
        }
        let record = step_record(node, action, Some(manifest.key), Some(digest), stats, None);
        self.states.push(State::Known(Box::new(manifest)));
        record
    }

    fn record(&mut self, node: &Node, made: Made) -> StepRecord {
        match made {
            Made::Whole(digest, manifest) => self.known(node, "made", digest, *manifest),
            Made::Part(digest, manifest, reason) => {
                self.states.push(State::Without);
                step_record(
                    node,
                    "partial",
                    Some(manifest.key),
                    Some(digest),
                    manifest.stats.clone(),
                    Some(reason),
                )
            }
        }
    }

    fn without(&mut self, node: &Node, action: &str, error: &str) -> StepRecord {
        self.states.push(State::Without);
        step_record(node, action, None, None, Stats::default(), Some(error.to_owned()))
    }
}

/// What execution gave.
enum Made {
    Whole(Digest, Box<Manifest>),
    Part(Digest, Box<Manifest>, String),
}

fn step_record(
    node: &Node,
    action: &str,
    key: Option<Digest>,
    manifest: Option<Digest>,
    stats: Stats,
    error: Option<String>,
) -> StepRecord {
    StepRecord {
        step: node.name.clone(),
        operator: node.operator_name.to_owned(),
        key,
        manifest,
        action: action.to_owned(),
        stats,
        error,
    }
}

fn planned_rows(work: &Work) -> PlannedRows {
    match &work.rows {
        Some(rows) => {
            let (total, run) = rows.counts();
            PlannedRows { total: Some(total), reuse: total - run, run_min: run, run }
        }
        None => {
            let total = work.inputs.values().map(Table::rows).max().unwrap_or(0);
            PlannedRows { total: Some(total), reuse: 0, run_min: total, run: total }
        }
    }
}

fn unfinished(last: Option<&Manifest>) -> String {
    match last {
        Some(last) if !last.complete => "the last result is not complete".to_owned(),
        Some(last) if last.stats.retryable > 0 => format!("{} rows failed for now", last.stats.retryable),
        Some(last) if last.stats.failed > 0 => format!("{} rows failed", last.stats.failed),
        _ => "the stored result is gone".to_owned(),
    }
}

fn seen_columns(node: &Node, port: &str) -> Vec<String> {
    let none = Vec::new();
    let read = node.signature.reads.get(port).unwrap_or(&none);
    let seen = node.signature.sees.get(port).unwrap_or(&none);
    let mut all = read.clone();
    all.extend(seen.iter().filter(|name| !read.contains(name)).cloned());
    all
}

fn main_rows(manifest: &Manifest) -> u64 {
    manifest.outputs.get("").map_or(0, |table| table.rows)
}

fn now() -> String {
    argent_cache::time::timestamp()
}
