//! What happened: the engine tells events, the program draws them.

use serde::Serialize;

use argent_cache::Stats;

/// Something that happened during a plan or a run. Never holds cell text.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run has begun.
    Started {
        /// The run's name.
        run: String,
        /// How many steps there are.
        steps: usize,
    },
    /// A step's stored result is used as it is.
    Reused {
        /// The step.
        step: String,
        /// Rows of its main table.
        rows: u64,
    },
    /// A step's stored result is used though its input changed, because its `rerun` accepts that.
    Accepted {
        /// The step.
        step: String,
        /// Rows of its main table.
        rows: u64,
        /// The share of its joined input rows that changed since the result was made.
        changed_rows: f64,
        /// The same in words, with the condition.
        why: String,
    },
    /// A step waits, because another run is making the same result.
    Waiting {
        /// The step.
        step: String,
    },
    /// A part of a step's stored result was found missing or damaged, so it is made again.
    Damaged {
        /// The step.
        step: String,
    },
    /// A step has begun.
    Running {
        /// The step.
        step: String,
        /// Rows (or distinct requests) that are to be made; none for a whole-table operator.
        rows: Option<u64>,
        /// Why: how its recipe differs from the last one.
        why: Vec<String>,
    },
    /// A step found something that the user should know; it goes on.
    Warned {
        /// The step.
        step: String,
        /// What it found.
        message: String,
    },
    /// A step has come this far.
    Progress {
        /// The step.
        step: String,
        /// How much is done.
        done: u64,
        /// Of how much.
        total: u64,
        /// Words beside it, such as a loss.
        note: String,
    },
    /// A step's result is stored.
    Made {
        /// The step.
        step: String,
        /// Rows of its main table.
        rows: u64,
        /// What it took.
        stats: Stats,
    },
    /// A step failed.
    Failed {
        /// The step.
        step: String,
        /// Why.
        error: String,
    },
    /// A step was stopped by a budget or an interrupt; what it has is stored as a partial result.
    Partial {
        /// The step.
        step: String,
        /// Rows that are stored.
        rows: u64,
        /// Rows still to do.
        pending: u64,
        /// Why it stopped.
        reason: String,
    },
    /// The user ended the run before the step had a result.
    Interrupted {
        /// The step.
        step: String,
        /// What it was doing.
        message: String,
    },
    /// A step does not run because one that it reads did not end well.
    Blocked {
        /// The step.
        step: String,
        /// The step that it waits for.
        by: String,
    },
    /// A step is not selected, and its result, which a selected one needs, does not hold.
    Stale {
        /// The step.
        step: String,
        /// The selected step.
        reader: String,
        /// Why it does not hold.
        why: Vec<String>,
    },
    /// A contract does not hold.
    Breached {
        /// The step whose result it is about.
        step: String,
        /// The predicate.
        contract: String,
        /// Whether that only tells.
        warn: bool,
    },
}
