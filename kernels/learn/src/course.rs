//! The course of a training: steps, validations, checkpoints and the choice of weights, whatever is learned.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use candle_core::Var;

use crate::batches::{Batch, LoadVoxels, Plan, Purpose, prepare_ahead};
use crate::checkpoint::Checkpoint;
use crate::device::is_out_of_memory;
use crate::error::Error;
use crate::gradients::Gradients;
use crate::history::{Answer, EpochRecord, History, Observer, Progress, StepRecord};
use crate::optimiser::Optimiser;
use crate::parameters::{Arrays, Parameters};
use crate::settings::{Select, Settings};

/// What is trained: a network with its loss.
pub(crate) trait Learner {
    /// All variables.
    fn parameters(&self) -> &Parameters;

    /// The loss of a training batch, in nats, and its gradient by variable. Running statistics move.
    fn gradients(&mut self, batch: &Batch) -> Result<(f64, Gradients), Error>;

    /// Whether a variable's gradient may be zero in truth.
    fn may_have_no_gradient(&self, name: &str) -> bool;

    /// Takes a validation batch in.
    fn validate(&mut self, batch: &Batch) -> Result<(), Error>;

    /// What came of the validation batches since the last call.
    fn validated(&mut self) -> Validation;
}

/// What came of the validation part after an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Validation {
    /// In nats; none where there is nothing to validate on.
    pub(crate) loss: Option<f64>,
    /// The higher, the better; none where the part does not define it.
    pub(crate) mcc: Option<f64>,
}

/// The result of a course.
pub(crate) struct Finished {
    pub(crate) arrays: Arrays,
    pub(crate) history: History,
}

/// Trains to the end, or until the observer stops it.
///
/// `digest` stands for everything that the result depends on; a checkpoint only goes on with the same one.
pub(crate) fn train(
    settings: &Settings,
    plan: &Plan,
    load: &LoadVoxels,
    learner: &mut dyn Learner,
    digest: &str,
    resume: Option<Checkpoint>,
    observer: &mut Observer,
) -> Result<Finished, Error> {
    let mut course = Course::start(settings, plan, learner, digest, resume)?;
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(BATCHES_AHEAD);
        let epoch = course.history.epochs.len();
        let jobs = plan.jobs(epoch, course.optimiser.steps_done() - epoch * plan.steps_per_epoch());
        scope.spawn(|| prepare_ahead(jobs, settings, load, sender));
        for batch in receiver {
            course.batch(&batch?, observer)?;
        }
        course.finish()
    })
}

/// Batches that wait for the step; each is as large as the network's input.
const BATCHES_AHEAD: usize = 2;

/// Reads a checkpoint and holds it against what is to be trained.
pub(crate) fn resumed(bytes: Option<&[u8]>, digest: &str) -> Result<Option<Checkpoint>, Error> {
    let Some(bytes) = bytes else { return Ok(None) };
    let checkpoint = Checkpoint::from_bytes(bytes).map_err(|error| Error::Checkpoint(error.to_string()))?;
    match checkpoint.run == digest {
        true => Ok(Some(checkpoint)),
        false => Err(Error::Checkpoint(
            "the checkpoint is of other settings, targets, parts or weights to start from, expected the same"
                .into(),
        )),
    }
}

/// A training under way.
struct Course<'a> {
    settings: &'a Settings,
    plan: &'a Plan,
    learner: &'a mut dyn Learner,
    digest: &'a str,
    optimiser: Optimiser,
    history: History,
    /// The weights that are the best so far, and how good they are.
    best: Option<(f64, Arrays)>,
    /// Whether every variable was seen to get a gradient, in this process.
    gradients_checked: bool,
    validated: usize,
    /// When the last batch was done.
    clock: Instant,
    validation_seconds: f64,
}

impl<'a> Course<'a> {
    fn start(
        settings: &'a Settings,
        plan: &'a Plan,
        learner: &'a mut dyn Learner,
        digest: &'a str,
        resume: Option<Checkpoint>,
    ) -> Result<Self, Error> {
        let mut optimiser = settings.optimiser(&learner.parameters().trainable);
        let (mut history, mut best) = (History::default(), None);
        if let Some(checkpoint) = resume {
            let unfit = |error: Error| Error::Checkpoint(error.to_string());
            learner.parameters().set(checkpoint.weights).map_err(unfit)?;
            optimiser.resume(checkpoint.optimiser).map_err(unfit)?;
            (history, best) = (checkpoint.history, checkpoint.best);
        }
        Ok(Self {
            settings,
            plan,
            learner,
            digest,
            optimiser,
            history,
            best,
            gradients_checked: false,
            validated: 0,
            clock: Instant::now(),
            validation_seconds: 0.0,
        })
    }

    /// Does what a batch is for, and closes the epoch behind its last one.
    fn batch(&mut self, batch: &Batch, observer: &mut Observer) -> Result<(), Error> {
        match batch.job.purpose {
            Purpose::Train => self.step(batch, observer)?,
            Purpose::Validate => {
                self.learner.validate(batch)?;
                self.validated += batch.job.samples.len();
                self.validation_seconds += self.lap();
            }
        }
        let epoch = self.history.epochs.len();
        let stepped = self.optimiser.steps_done() == self.plan.steps_until(epoch);
        if stepped && self.validated == self.plan.validation.len() {
            self.end_epoch(epoch, observer)?;
        }
        Ok(())
    }

    fn step(&mut self, batch: &Batch, observer: &mut Observer) -> Result<(), Error> {
        let step = self.optimiser.steps_done() + 1;
        let found = self.learner.gradients(batch);
        let (loss, mut gradients) = found.map_err(|error| self.with_what_fits(error, batch))?;
        if !loss.is_finite() {
            return Err(Error::NotFinite {
                what: format!("the loss at step {step}"),
                samples: batch.job.samples.clone(),
            });
        }
        let trainable = &self.learner.parameters().trainable;
        // Where there is no loss, as in a batch of pairs that all have one text, there is no gradient to look for.
        if !self.gradients_checked && loss != 0.0 {
            let exempt = |name: &str| self.learner.may_have_no_gradient(name);
            check_gradients(trainable, &gradients, &batch.job.samples, exempt)?;
            self.gradients_checked = true;
        }
        let gradient_norm = match self.settings.clip_norm {
            Some(largest) => {
                let clipped = gradients.clip(largest);
                Some(clipped.map_err(|error| in_batch(error, &batch.job.samples))?)
            }
            None => None,
        };
        let steps = self.plan.steps();
        let rates = self.settings.schedule.rates(self.settings.lr, step - 1, steps);
        self.optimiser.step(trainable, &gradients, rates)?;
        let (lr, seconds) = (rates.lr, self.lap());
        let record = StepRecord { step, epoch: batch.job.epoch + 1, loss, lr, gradient_norm, seconds };
        self.history.steps.push(record.clone());
        self.tell(Progress::Step { record, steps }, observer)
    }

    /// An error of a step; where the device had too little memory, with the samples for which it has enough.
    fn with_what_fits(&mut self, error: Error, batch: &Batch) -> Error {
        match error {
            Error::Tensor(error) if is_out_of_memory(&error) => {
                let samples = batch.job.samples.len().min(self.settings.micro_batch());
                let halves = std::iter::successors(Some(samples / 2), |half| Some(half / 2));
                let fits = halves.take_while(|&half| half > 0).find(|&half| self.fits(batch, half));
                Error::OutOfMemory { samples, shape: batch.shape, fits }
            }
            other => other,
        }
    }

    /// Whether a step with the first `count` samples of a batch is possible. It moves the running statistics, so that
    /// no training goes on behind it.
    fn fits(&mut self, batch: &Batch, count: usize) -> bool {
        // The norm waits for the device.
        self.learner.gradients(&batch.first(count)).and_then(|(_, gradients)| gradients.norm()).is_ok()
    }

    fn end_epoch(&mut self, epoch: usize, observer: &mut Observer) -> Result<(), Error> {
        let found = self.learner.validated();
        self.choose(epoch, &found)?;
        let steps = &self.history.steps[epoch * self.plan.steps_per_epoch()..];
        let record = EpochRecord {
            epoch: epoch + 1,
            train_loss: steps.iter().map(|step| step.loss).sum::<f64>() / steps.len() as f64,
            validation_loss: found.loss,
            validation_score: found.mcc.filter(|_| self.settings.select == Select::HighestMcc),
            lr: steps[steps.len() - 1].lr,
            seconds: steps.iter().map(|step| step.seconds).sum::<f64>()
                + std::mem::take(&mut self.validation_seconds),
        };
        self.validated = 0;
        self.history.epochs.push(record.clone());
        self.tell(Progress::Epoch(record), observer)
    }

    /// Keeps the weights where they are the best so far.
    fn choose(&mut self, epoch: usize, found: &Validation) -> Result<(), Error> {
        let score = match self.settings.select {
            Select::Last => return Ok(()),
            Select::LowestLoss => found.loss.map(|loss| -loss),
            Select::HighestMcc => found.mcc,
        };
        let Some(score) = score.filter(|score| self.best.as_ref().is_none_or(|(best, _)| score > best))
        else {
            return Ok(());
        };
        self.best = Some((score, self.learner.parameters().arrays()?));
        self.history.best_epoch = Some(epoch + 1);
        Ok(())
    }

    fn finish(self) -> Result<Finished, Error> {
        let last = self.learner.parameters().arrays()?;
        let bad = |(_, array): &(&String, &crate::parameters::Array)| {
            array.values.iter().any(|value| !value.is_finite())
        };
        if let Some((name, _)) = last.iter().find(bad) {
            let what = format!("a value of `{name}` after the last step");
            return Err(Error::NotFinite { what, samples: Vec::new() });
        }
        let arrays = match (self.settings.select, self.best) {
            (Select::Last, _) => last,
            (_, Some((_, arrays))) => arrays,
            (select, None) => {
                return Err(Error::Data(format!(
                    "no epoch has what {} goes by, expected a validation part that defines it",
                    match select {
                        Select::LowestLoss => "the lowest validation loss",
                        _ => "the highest Matthews correlation",
                    }
                )));
            }
        };
        Ok(Finished { arrays, history: self.history })
    }

    fn checkpoint(&self) -> Result<Vec<u8>, Error> {
        Checkpoint {
            run: self.digest.to_owned(),
            history: self.history.clone(),
            weights: self.learner.parameters().arrays()?,
            optimiser: self.optimiser.state()?,
            best: self.best.clone(),
        }
        .to_bytes()
    }

    fn tell(&mut self, progress: Progress, observer: &mut Observer) -> Result<(), Error> {
        match observer(progress) {
            Answer::GoOn => Ok(()),
            Answer::Keep => {
                let checkpoint = Progress::Checkpoint(self.checkpoint()?);
                self.tell(checkpoint, observer)
            }
            Answer::Stop => {
                Err(Error::Stopped { step: self.optimiser.steps_done(), checkpoint: self.checkpoint()? })
            }
        }
    }

    /// Seconds since the last call.
    fn lap(&mut self) -> f64 {
        let seconds = self.clock.elapsed().as_secs_f64();
        self.clock = Instant::now();
        seconds
    }
}

/// The same error, with the batch that it was found in.
fn in_batch(error: Error, samples: &[usize]) -> Error {
    match error {
        Error::NotFinite { what, .. } => Error::NotFinite { what, samples: samples.to_vec() },
        other => other,
    }
}

/// Several tensor operations have no gradient and say nothing; what lies before them would never be trained.
fn check_gradients(
    trainable: &BTreeMap<String, Var>,
    gradients: &Gradients,
    samples: &[usize],
    exempt: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let mut largest: HashMap<&str, f32> = HashMap::new();
    for name in trainable.keys() {
        let value = match gradients.get(name) {
            Some(gradient) => gradient.abs()?.max_all()?.to_scalar::<f32>()?,
            None => 0.0,
        };
        if !value.is_finite() {
            let what = format!("the gradient of `{name}` at the first step");
            return Err(Error::NotFinite { what, samples: samples.to_vec() });
        }
        largest.insert(name, value);
    }
    let missed = trainable.keys().filter(|name| largest[name.as_str()] == 0.0 && !exempt(name));
    let variables: Vec<String> = missed.cloned().collect();
    if variables.is_empty() { Ok(()) } else { Err(Error::NoGradient { variables }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batches::{Order, Voxels};
    use candle_core::{DType, Device};

    /// One variable, on a device that has memory for so many samples.
    struct Tight {
        parameters: Parameters,
        samples: usize,
    }

    impl Learner for Tight {
        fn parameters(&self) -> &Parameters {
            &self.parameters
        }

        fn gradients(&mut self, batch: &Batch) -> Result<(f64, Gradients), Error> {
            assert_eq!(batch.input.len(), batch.job.samples.len() * batch.shape.iter().product::<usize>());
            if batch.job.samples.len() > self.samples {
                // As candle hands on what the driver says.
                let told = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
                return Err(Error::Tensor(candle_core::Error::Cuda(told.into())));
            }
            let trainable = &self.parameters.trainable;
            let store = trainable["weight"].affine(2.0, 0.0)?.sum_all()?.backward()?;
            Ok((1.0, Gradients::of(trainable, &store)?))
        }

        fn may_have_no_gradient(&self, _: &str) -> bool {
            false
        }

        fn validate(&mut self, _: &Batch) -> Result<(), Error> {
            Ok(())
        }

        fn validated(&mut self) -> Validation {
            Validation::default()
        }
    }

    #[test]
    fn want_of_memory_is_told_with_what_fits() {
        let told = |samples: usize, micro_batch: Option<usize>| {
            let settings = Settings { epochs: 1, batch: 8, micro_batch, ..Settings::default() };
            let plan = Plan {
                train: (0..8).collect(),
                validation: Vec::new(),
                epochs: 1,
                limit: None,
                batch: 8,
                seed: 0,
                order: Order::Shuffled,
                whole_batches: false,
            };
            let load = |_| Ok((Voxels::Hounsfield(vec![0; 4 * 5 * 6]), [4, 5, 6]));
            let weight = Var::zeros(3, DType::F32, &Device::Cpu).unwrap();
            let trainable = BTreeMap::from([("weight".to_owned(), weight)]);
            let parameters = Parameters { trainable, ..Parameters::default() };
            let mut learner = Tight { parameters, samples };
            let result = train(&settings, &plan, &load, &mut learner, "", None, &mut |_| Answer::GoOn);
            result.map(|finished| finished.history.steps.len()).map_err(|error| error.to_string())
        };
        let lack = |samples| {
            format!("the device has too little memory for {samples} samples of 6 x 5 x 4 voxels at once; ")
        };
        assert_eq!(told(8, None), Ok(1));
        assert_eq!(told(3, None), Err(format!("{}a micro_batch of 2 fits", lack(8))));
        assert_eq!(told(1, Some(4)), Err(format!("{}a micro_batch of 1 fits", lack(4))));
        let none = "not even one fits; use a smaller crop, or a coarser grid";
        assert_eq!(told(0, None), Err(lack(8) + none));
    }
}
