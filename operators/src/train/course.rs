//! How a training runs inside a step: progress, checkpoints in the store, and what is said when it fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use argent_engine::{Io, column};
use argent_learn::Error;
use argent_learn::history::{Answer, EpochRecord, History, Observer, Progress, StepRecord};
use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::datatypes::Field;

use crate::plot;

/// Trains, going on from the state that an earlier run left. It is kept every `every` and when the run is interrupted.
///
/// `train` trains from a checkpoint and tells an observer; `digests` are those of the samples' side files.
pub(crate) fn train<T>(
    io: &mut Io,
    every: Duration,
    digests: &[String],
    train: impl Fn(Option<&[u8]>, &mut Observer) -> Result<T, Error>,
) -> anyhow::Result<T> {
    let mut left = io.checkpoint()?;
    loop {
        let (mut kept, mut failed, mut kept_step, mut step) = (Instant::now(), None, None, 0);
        let io = &*io;
        let result = train(left.as_deref(), &mut |progress| {
            match progress {
                Progress::Step { record, steps } => {
                    if step == 0 && record.step > 1 {
                        let before = record.step - 1;
                        io.warn(format!("an earlier run kept the state after step {before} of {steps}; it goes on from there"));
                    }
                    step = record.step;
                    io.progress(step as u64, steps as u64, format!("loss {:.3}", record.loss));
                }
                Progress::Epoch(_) => {}
                Progress::Checkpoint(bytes) => {
                    // A checkpoint that cannot be kept is found out now, not after the kill.
                    if let Err(error) = io.keep_checkpoint(&bytes) {
                        failed = Some(error);
                        return Answer::Stop;
                    }
                    (kept, kept_step) = (Instant::now(), Some(step));
                    return Answer::GoOn;
                }
            }
            match (io.cancelled(), kept.elapsed() >= every) {
                (true, _) => Answer::Stop,
                (false, true) => Answer::Keep,
                (false, false) => Answer::GoOn,
            }
        });
        match result {
            Ok(trained) => return Ok(trained),
            Err(Error::Checkpoint(message)) if left.is_some() => {
                io.warn(format!("{message}; the step begins anew"));
                left = None;
            }
            Err(Error::Stopped { step, checkpoint }) => {
                if let Some(error) = failed {
                    return Err(error);
                }
                io.keep_checkpoint(&checkpoint)?;
                // The engine says of an interrupted step only that it has no result.
                io.warn(format!("the state after step {step} is kept; the next run goes on from there"));
                bail!("interrupted after step {step}");
            }
            Err(Error::NotFinite { what, samples }) => {
                return Err(not_finite(&what, &samples, digests, kept_step));
            }
            Err(Error::Volume { sample, message }) => {
                bail!("the side file {} cannot be trained on: {message}", short(&digests[sample]))
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Names the batch by the digests of its side files, which tell nothing of a patient, and can be asked for.
fn not_finite(what: &str, samples: &[usize], digests: &[String], kept_step: Option<usize>) -> anyhow::Error {
    let mut message = format!("{what} is not a finite number");
    if !samples.is_empty() {
        let names: Vec<String> = samples.iter().map(|sample| short(&digests[*sample])).collect();
        message.push_str(&format!("; the batch was of the side files {}", names.join(", ")));
    }
    if let Some(step) = kept_step {
        message.push_str(&format!("; the state after step {step} is kept"));
    }
    message.push_str("; try a lower learning rate, or a warm-up");
    anyhow!(message)
}

/// The beginning of a digest, enough to find it with `like`.
fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

/// Draws the course of a training, as the step's plots.
///
/// # Errors
/// When the store does not take the picture.
pub(crate) fn emit_plots(io: &mut Io, history: &History) -> anyhow::Result<()> {
    let val_loss = |at: usize| {
        let is_last = history.steps.get(at + 1).is_none_or(|next| next.epoch != history.steps[at].epoch);
        let epoch = history.epochs.iter().find(|epoch| epoch.epoch == history.steps[at].epoch);
        epoch.filter(|_| is_last)?.validation_loss
    };
    let step = |(at, record): (usize, &StepRecord)| plot::training::Step {
        step: record.step as u64,
        lr: record.lr,
        train_loss: record.loss,
        val_loss: val_loss(at),
    };
    let steps: Vec<plot::training::Step> = history.steps.iter().enumerate().map(step).collect();
    let picture = plot::training::figure("training", &steps).svg();
    let digest = io.keep(picture.as_bytes())?;
    let plots = plot::stored::batch(io.schema(plot::stored::OUTPUT)?, &[("training", digest)])?;
    io.emit(plot::stored::OUTPUT, plots)
}

/// The columns of a history: a row per step.
pub(crate) fn history_fields() -> Vec<Field> {
    vec![
        column::whole("epoch"),
        column::whole("step"),
        column::number("lr"),
        column::number("train_loss"),
        column::number("gradient_norm"),
        column::number("val_loss"),
        column::number("val_score"),
    ]
}

/// A row per step; what the validation after an epoch says stands in its last step.
pub(crate) fn history_columns(history: &History) -> Vec<ArrayRef> {
    let steps = &history.steps;
    let last = |place: usize| steps.get(place + 1).is_none_or(|next| next.epoch != steps[place].epoch);
    let epoch = |(place, step): (usize, &StepRecord)| {
        history.epochs.iter().find(|e| e.epoch == step.epoch).filter(|_| last(place))
    };
    let of_epochs = |value: fn(&EpochRecord) -> Option<f64>| -> Float64Array {
        steps.iter().enumerate().map(|step| epoch(step).and_then(value)).collect()
    };
    vec![
        Arc::new(Int64Array::from_iter_values(steps.iter().map(|s| s.epoch as i64))),
        Arc::new(Int64Array::from_iter_values(steps.iter().map(|s| s.step as i64))),
        Arc::new(Float64Array::from_iter_values(steps.iter().map(|s| s.lr))),
        Arc::new(Float64Array::from_iter_values(steps.iter().map(|s| s.loss))),
        Arc::new(steps.iter().map(|s| s.gradient_norm).collect::<Float64Array>()),
        Arc::new(of_epochs(|epoch| epoch.validation_loss)),
        Arc::new(of_epochs(|epoch| epoch.validation_score)),
    ]
}
