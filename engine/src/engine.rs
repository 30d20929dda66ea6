//! The engine's front: a pipeline, a store and what the user asked, to be planned or run.

use std::sync::atomic::AtomicBool;

use argent_cache::{Manifest, RunRecord, Store};

use crate::canary::{self, Canary};
use crate::event::Event;
use crate::pipeline::{Node, Pipeline};
use crate::plan::{self, PlannedStep};
use crate::pools::Resources;
use crate::schedule;
use crate::select::Selection;
use crate::trial::{self, Choice, Trial};

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
    /// Called on each thread that steps work on, around their work: the program's runtime is entered here.
    pub on_thread: &'a OnThread<'a>,
    /// Set from outside when the user wants the run to end.
    pub cancelled: &'a AtomicBool,
}

/// Runs what it is given, in surroundings of the program's choice.
pub type OnThread<'a> = dyn Fn(&mut dyn FnMut()) + Sync + 'a;

/// What the user asked of a run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Stop before more than this is spent, in US dollars.
    pub max_usd: Option<f64>,
    /// Try rows again whose failure is remembered.
    pub retry_errors: bool,
    /// Run steps whose inputs changed, whatever their `rerun` accepts.
    pub strict: bool,
    /// What the user calls the run; the results of a named run are kept.
    pub name: Option<String>,
    /// What steps may use at the same time.
    pub resources: Resources,
    /// Which steps may be run (see [`crate::select`]); none: all of them.
    pub select: Vec<String>,
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
    /// A selected step needs a result that does not hold, of a step that is not selected.
    Stale,
    /// The user stopped it.
    Interrupted,
}

impl Engine<'_> {
    /// Runs the pipeline: does what [`Engine::plan`] says, publishes each result, and records the run.
    /// Steps that do not wait for each other run at the same time, as far as their needs allow.
    ///
    /// # Errors
    /// When the store itself fails; a step that fails is part of the outcome. A selection that names nothing, or
    /// stands on stale results, is a [`crate::select::WrongSelection`]; nothing has run then.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        let selection = Selection::parse(self.pipeline, &self.options.select)?;
        if !self.options.select.is_empty() {
            plan::check_selection(self, &selection)?;
        }
        let outcome = schedule::run(self, &selection)?;
        self.keep_caches()?;
        Ok(outcome)
    }

    /// What a run would do. Steps that are local, free and quick are done here and published, so that the
    /// steps below show exact rows.
    ///
    /// # Errors
    /// When the store fails, or a quick step does; or as [`Engine::run`] about the selection.
    pub fn plan(&self) -> anyhow::Result<Vec<PlannedStep>> {
        let planned = plan::plan(self, &Selection::parse(self.pipeline, &self.options.select)?)?;
        self.keep_caches()?;
        Ok(planned)
    }

    /// Tries a step on a few rows (see [`crate::trial`]). What it reads is taken from the store, or made here where it
    /// is local, free and quick.
    ///
    /// # Errors
    /// A [`trial::WrongTrial`] when the step cannot be tried so; else as the step would fail in a run.
    pub fn attempt(&self, step: &str, choice: &Choice) -> anyhow::Result<Trial> {
        let trial = trial::attempt(self, step, choice)?;
        self.keep_caches()?;
        Ok(trial)
    }

    /// Tries each selected step that would ask a server on so many rows, the new labels beside those that there are. Their
    /// answers are remembered, so that a run does not pay for them again.
    ///
    /// # Errors
    /// As [`Engine::plan`], and as a step would fail in a run.
    pub fn canary(&self, rows: usize) -> anyhow::Result<Vec<Canary>> {
        let canaries = canary::canaries(self, &Selection::parse(self.pipeline, &self.options.select)?, rows)?;
        self.keep_caches()?;
        Ok(canaries)
    }

    /// Tells an event about a step; contracts are told of only when they do not hold.
    pub(crate) fn tell(&self, node: &Node, event: Event) {
        if node.contract.is_none() {
            (self.events)(event);
        }
    }

    /// Keeps what makes the next plan quick.
    fn keep_caches(&self) -> anyhow::Result<()> {
        self.store.save_stat_cache()?;
        self.pipeline.statics.keep(self.store, &self.pipeline.name)
    }
}

/// The rows of a result's main table.
pub(crate) fn main_rows(manifest: &Manifest) -> u64 {
    manifest.outputs.get("").map_or(0, |table| table.rows)
}
