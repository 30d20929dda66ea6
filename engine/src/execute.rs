//! A step's work: the operator's window on the world, the work itself, its result published.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::bail;
use argent_cache::lock::Lock;
use argent_cache::{Digest, Manifest, Stats, Store, TableRecord};
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use crate::decide::{Decider, Decision, Result, Work};
use crate::engine::{End, main_rows};
use crate::event::Event;
use crate::forgotten::storable;
use crate::io::{Damage, Io, Share, fault_batch};
use crate::operator::{Kind, Price};
use crate::pipeline::Node;
use crate::pools::Slot;
use crate::recipe;
use crate::rows::RowWork;
use crate::table::{self, Rows};

/// What became of a step.
pub(crate) enum Made {
    /// Its stored result holds.
    Reused(Result),
    /// Its last result holds, though this share of its input rows changed.
    Accepted(Result, f64),
    /// It has a new result.
    Whole(Result),
    /// It was stopped; what it has is stored.
    Part(Result, String, End),
}

/// Why a step has no result.
pub(crate) struct Failure {
    pub(crate) error: anyhow::Error,
    /// What it had cost until then.
    pub(crate) stats: Stats,
}

/// The user ended the run before the step had a result.
#[derive(Debug)]
pub(crate) struct Interrupted(pub(crate) &'static str);

impl fmt::Display for Interrupted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0)
    }
}

impl Error for Interrupted {}

/// What is said of a whole-table step that was interrupted at work.
const CUT_OFF: &str = "interrupted before it had a result";

/// How a step is run.
pub(crate) struct Terms<'a> {
    /// What it holds while it runs.
    pub(crate) slot: &'a Slot,
    /// What it may spend, in US dollars; none: no limit.
    pub(crate) max_usd: Option<f64>,
    /// Its stored result, where that was found damaged: making it again must not cost money without leave.
    pub(crate) lost: Option<Arc<Manifest>>,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure { error, stats: Stats::default() }
    }
}

impl<'a> Decider<'a> {
    /// Does what [`Decider::decide`] says. Where another run is making the same result, waits for it and
    /// decides again.
    pub(crate) fn make(
        &self,
        node: &Node,
        upstream: &[Arc<Manifest>],
        terms: &Terms,
    ) -> std::result::Result<Made, Failure> {
        // Readers meet one damaged file at a time; all of them are to be made again at once.
        for table in terms.lost.iter().flat_map(|lost| lost.outputs.values()) {
            self.engine.store.check_table(table);
        }
        let mut held: Option<(Digest, Lock)> = None;
        loop {
            let work = match self.decide(node, upstream)? {
                Decision::Reuse(result) => return Ok(Made::Reused(result)),
                Decision::Accept(result, drift) => return Ok(Made::Accepted(result, drift)),
                Decision::Run(work) => work,
            };
            if held.as_ref().is_some_and(|(key, _)| *key == work.key) {
                return self.execute(node, &work, terms);
            }
            let store = self.engine.store;
            let name = work.key.to_string();
            held = match store.try_lock(&name)? {
                Some(_lock) => return self.execute(node, &work, terms),
                None => Some((work.key, self.wait(node, &name)?)),
            };
        }
    }

    /// Waits until the other holder of a lock is done, unless the user wants the run to end.
    fn wait(&self, node: &Node, name: &str) -> anyhow::Result<Lock> {
        self.engine.tell(node, Event::Waiting { step: node.name.clone() });
        loop {
            if let Some(lock) = self.engine.store.try_lock(name)? {
                return Ok(lock);
            }
            if self.engine.cancelled.load(Ordering::Relaxed) {
                return Err(Interrupted("interrupted while another run was making the same result").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Does a node's work and publishes its result.
    pub(crate) fn execute(
        &self,
        node: &Node,
        work: &Work,
        terms: &Terms,
    ) -> std::result::Result<Made, Failure> {
        let started = Instant::now();
        if terms.lost.is_some() {
            self.check_price(node, work)?;
        }
        let rows = work.rows.as_ref().map(|r| r.counts().1);
        self.engine.tell(node, Event::Running { step: node.name.clone(), rows, why: work.why.clone() });
        let mut io = self.window(node, work, terms)?;
        let made =
            self.operate(node, work, &mut io).and_then(|()| self.publish(node, work, &mut io, started));
        made.map_err(|error| Failure { error, stats: io.stats.clone() })
    }

    /// Has the operator do its work: of a row operator window by window.
    pub(crate) fn operate(&self, node: &Node, work: &Work, io: &mut Io) -> anyhow::Result<()> {
        let operate = |io: &mut Io| {
            let done = node.operator.run(io);
            // Whatever the operator made of it: rows that met a damaged file are to be done again.
            io.damage.found().map_or(done, |damaged| Err(damaged.into()))
        };
        let Some(rows) = &work.rows else {
            // A mistake that an interruption hides shows again when the step is not interrupted.
            return operate(io)
                .map_err(|error| if io.cancelled() { Interrupted(CUT_OFF).into() } else { error });
        };
        for window in rows.windows() {
            io.open(window?, rows.pending() as u64);
            operate(io)?;
            if io.stopped.is_some() || io.cancelled() {
                break;
            }
        }
        Ok(())
    }

    fn publish(&self, node: &Node, work: &Work, io: &mut Io, started: Instant) -> anyhow::Result<Made> {
        let (outputs, pending) = self.tables(node, work, io)?;
        let mut stats = io.stats.clone();
        stats.seconds = started.elapsed().as_secs_f64();
        let complete = pending == 0 && io.stopped.is_none() && !(io.cancelled() && work.rows.is_none());
        if !complete && work.rows.is_none() && io.stopped.is_none() {
            return Err(Interrupted(CUT_OFF).into());
        }
        let manifest = Manifest {
            key_schema: recipe::KEY_SCHEMA,
            key: work.key,
            operator: node.operator_name.to_owned(),
            recipe: work.recipe.clone(),
            outputs,
            inputs: table::stored(&work.inputs),
            memo: work.rows.as_ref().map(RowWork::memo_record),
            stats,
            complete,
            created: argent_cache::time::timestamp(),
        };
        let (digest, manifest) = self.engine.store.publish(&manifest)?;
        if complete {
            // Behind the result: a kill between the two leaves a state that nobody asks for, and `gc` takes it.
            self.engine.store.drop_checkpoint(&work.key)?;
        }
        let (step, rows, stats) = (node.name.clone(), main_rows(&manifest), manifest.stats.clone());
        let result = Result { digest, manifest: Arc::new(manifest) };
        if complete {
            self.engine.tell(node, Event::Made { step, rows, stats });
            return Ok(Made::Whole(result));
        }
        let end = if io.stopped.is_some() { End::Stopped } else { End::Interrupted };
        let reason = io.stopped.clone().unwrap_or_else(|| "interrupted".to_owned());
        self.engine.tell(node, Event::Partial { step, rows, pending, reason: reason.clone() });
        Ok(Made::Part(result, reason, end))
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
        let mut pending = 0;
        if let Some(rows) = &work.rows {
            rows.sync()?;
            let made = rows.assemble(node, store, &io.take_failed())?;
            pending = made.counts.pending;
            io.stats.failed = made.counts.failed;
            io.stats.retryable = made.counts.retryable;
            io.stats.made = rows.counts().1 - pending;
            io.stats.reused = rows.counts().0 - rows.counts().1;
            let (main, errors) = (made.main.finish()?, made.errors.finish()?);
            node.operator.finish(&Rows::new(store, &main), &Rows::new(store, &errors), io)?;
            outputs.insert(String::new(), main);
            outputs.insert("errors".to_owned(), errors);
            rows.seal()?;
        } else {
            let main = io.emitted("")?;
            io.stats.made = main.rows();
            outputs.insert(String::new(), main.finish()?);
            let faults = storable(store, "errors", fault_batch(io)?)?;
            io.stats.failed = faults.num_rows() as u64;
            outputs.insert("errors".to_owned(), store.put_table(&faults, &[])?);
        }
        for name in node.signature.outputs.keys().filter(|name| !name.is_empty()) {
            outputs.insert(name.clone(), io.emitted(name)?.finish()?);
        }
        Ok((outputs, pending))
    }

    /// The operator's window.
    pub(crate) fn window<'s>(&'s self, node: &Node, work: &Work, terms: &Terms) -> anyhow::Result<Io<'s>> {
        let engine = self.engine;
        let store: &Store = engine.store;
        let mut inputs = BTreeMap::new();
        for (port, table) in &work.inputs {
            let is_row_port = matches!(node.kind, Kind::Row(row_port) if row_port == port);
            if !is_row_port {
                inputs.insert(port.clone(), table.read(store, &seen_columns(node, port))?);
            }
        }
        let outputs = node.signature.outputs.iter();
        Ok(Io {
            step: node.name.clone(),
            key: work.key,
            store,
            folder: engine.pipeline.folder.clone(),
            inputs,
            on: node.inputs.iter().map(|i| (i.port.clone(), i.on.clone())).collect(),
            outputs: outputs.map(|(name, output)| (name.clone(), output.clone())).collect(),
            emitted: BTreeMap::new(),
            left_out: 0,
            pending: None,
            share: Share::default(),
            faults: Vec::new(),
            stats: Stats::default(),
            stopped: None,
            damage: Damage::default(),
            events: engine.events,
            cancelled: engine.cancelled,
            max_usd: terms.max_usd,
            retry_errors: engine.options.retry_errors,
            gpus: terms.slot.gpus.clone(),
            memos: Mutex::default(),
        })
    }

    /// What the pending rows, or the whole tables, would cost; none for an operator without prices.
    pub(crate) fn price(&self, node: &Node, work: &Work) -> anyhow::Result<Option<Price>> {
        // What sends no requests costs nothing, and its tables need not be read for that.
        if work.rows.is_none() && node.operator.endpoints().is_empty() {
            return Ok(None);
        }
        let terms = Terms { slot: &Slot::default(), max_usd: self.engine.options.max_usd, lost: None };
        let io = self.window(node, work, &terms)?;
        let Some(rows) = &work.rows else {
            return node.operator.price(&RecordBatch::new_empty(Arc::new(Schema::empty())), &io);
        };
        if rows.pending() == 0 {
            return node.operator.price(&rows.nothing()?, &io);
        }
        let mut all: Option<Price> = None;
        for window in rows.windows() {
            let price = node.operator.price(&window?.rows, &io)?;
            all = match (all, price) {
                (Some(one), Some(other)) => Some(one.and(&other)),
                (one, other) => one.or(other),
            };
        }
        Ok(all)
    }

    /// Lets a lost result be made again only where that costs nothing, or a limit allows it to.
    fn check_price(&self, node: &Node, work: &Work) -> anyhow::Result<()> {
        let Some(price) = self.price(node, work)? else { return Ok(()) };
        if price.requests == 0 || self.engine.options.max_usd.is_some() {
            return Ok(());
        }
        let usd = price.usd.map_or("a price that is not known".to_owned(), |usd| format!("up to ${usd:.2}"));
        bail!(
            "its stored result is damaged, and making it again sends {} requests for {usd}; \
             allow that with --max-usd",
            price.requests
        )
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
