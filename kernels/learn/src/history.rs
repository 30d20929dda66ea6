//! The course of a training, as its observer hears it and as it is kept.

use serde::{Deserialize, Serialize};

/// What a sample is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Fitted to.
    Train,
    /// Its loss is reported after each epoch.
    Validation,
    /// Neither; never loaded.
    Unused,
}

/// What the observer of a training hears.
#[derive(Clone, Debug)]
pub enum Progress {
    /// An optimiser step was done.
    Step {
        /// What came of it.
        record: StepRecord,
        /// Steps in the whole training.
        steps: usize,
    },
    /// An epoch and its validation were done.
    Epoch(EpochRecord),
    /// The state after the last step, which was asked for by [`Answer::Keep`]; for `resume`.
    Checkpoint(Vec<u8>),
}

/// What the observer of a training wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The next step.
    GoOn,
    /// A [`Progress::Checkpoint`] of where the training is, and then the next step.
    Keep,
    /// The end, with [`Error::Stopped`](crate::Error::Stopped).
    Stop,
}

/// Who hears of every step, epoch and checkpoint, on the thread that trains.
pub type Observer<'a> = dyn FnMut(Progress) -> Answer + 'a;

/// One optimiser step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Counted from 1 over the whole training.
    pub step: usize,
    /// Counted from 1.
    pub epoch: usize,
    /// Loss of the batch before the step, in nats.
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Euclidean norm of the whole gradient before it was clipped; none where nothing is clipped.
    pub gradient_norm: Option<f64>,
    /// Wall time of the step, with the wait for its batch.
    pub seconds: f64,
}

/// One pass over the training part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Counted from 1.
    pub epoch: usize,
    /// Mean loss of the steps, each before its update, in nats.
    pub train_loss: f64,
    /// Loss over the validation part, in nats; none where that part is empty or has no weight.
    pub validation_loss: Option<f64>,
    /// What the weights are chosen by, where they are: the higher, the better.
    pub validation_score: Option<f64>,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Wall time of the steps and the validation.
    pub seconds: f64,
}

/// The course of a training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// In order.
    pub steps: Vec<StepRecord>,
    /// In order.
    pub epochs: Vec<EpochRecord>,
    /// The epoch whose weights were the best by then, counted from 1, where weights are chosen.
    pub best_epoch: Option<usize>,
}
