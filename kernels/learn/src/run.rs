//! The steps, validations and checkpoints of a training under way.

use std::ops::ControlFlow;
use std::time::Instant;

use candle_core::Tensor;
use candle_core::backprop::GradStore;

use crate::batches::{Batch, Plan, Purpose};
use crate::checkpoint::Checkpoint;
use crate::device::{Device, is_out_of_memory};
use crate::error::Error;
use crate::loss::{LossAndGradient, binary_cross_entropy};
use crate::optimiser::{AdamW, cosine_lr};
use crate::parameters::Builder;
use crate::resnet::{Mode, ResNet3d};
use crate::train::{EpochRecord, History, Part, Progress, StepRecord, TrainConfig, TrainData, Trained};
use crate::weights::Weights;

/// A training under way.
pub(crate) struct Run<'a> {
    config: &'a TrainConfig,
    data: &'a TrainData<'a>,
    plan: &'a Plan,
    digest: String,
    device: candle_core::Device,
    network: ResNet3d,
    pub(crate) optimiser: AdamW,
    pub(crate) history: History,
    /// Whether every variable was seen to get a gradient, in this process.
    gradients_checked: bool,
    /// Sums over the validation batches of the epoch so far: weighted loss and weight.
    validation: [f64; 2],
    validated: usize,
    /// When the last batch was done.
    clock: Instant,
    validation_seconds: f64,
}

impl<'a> Run<'a> {
    pub(crate) fn start(
        config: &'a TrainConfig,
        data: &'a TrainData<'a>,
        plan: &'a Plan,
        device: Device,
        resume: Option<&[u8]>,
    ) -> Result<Self, Error> {
        let device = device.open()?;
        let (classes, digest) = (config.classes.len(), data.digest(config)?);
        let (network, optimiser, history) = match resume {
            None => {
                let network =
                    ResNet3d::build(config.model, classes, Builder::seeded(config.seed).on(&device))?;
                let optimiser = AdamW::new(&network.parameters.trainable, config.weight_decay);
                (network, optimiser, History::default())
            }
            Some(bytes) => {
                let checkpoint = Checkpoint::from_bytes(bytes)?;
                if checkpoint.run != digest {
                    return Err(Error::Setting(
                        "the checkpoint is of other settings, targets or parts, expected the same; start anew".into(),
                    ));
                }
                let network =
                    ResNet3d::build(config.model, classes, Builder::stored(checkpoint.weights).on(&device))?;
                let mut optimiser = AdamW::new(&network.parameters.trainable, config.weight_decay);
                optimiser.resume(checkpoint.step, checkpoint.moments)?;
                (network, optimiser, checkpoint.history)
            }
        };
        Ok(Self {
            config,
            data,
            plan,
            digest,
            device,
            network,
            optimiser,
            history,
            gradients_checked: false,
            validation: [0.0; 2],
            validated: 0,
            clock: Instant::now(),
            validation_seconds: 0.0,
        })
    }

    /// Does what a batch is for, and closes the epoch behind its last one.
    pub(crate) fn batch(
        &mut self,
        batch: &Batch,
        observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        match batch.job.purpose {
            Purpose::Train => self.step(batch, observer)?,
            Purpose::Validate => self.validate(batch)?,
        }
        let epoch = self.history.epochs.len() + 1;
        let stepped = self.optimiser.step == epoch * self.plan.steps_per_epoch();
        if stepped && self.validated == self.plan.validation.len() {
            self.end_epoch(epoch, observer)?;
        }
        Ok(())
    }

    fn step(
        &mut self,
        batch: &Batch,
        observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let (loss, gradients) = self.gradients(batch).map_err(|error| self.with_what_fits(error, batch))?;
        if !self.gradients_checked {
            check_gradients(&self.network, &gradients)?;
            self.gradients_checked = true;
        }
        let steps = self.config.epochs * self.plan.steps_per_epoch();
        let lr = cosine_lr(self.config.lr, self.optimiser.step, steps, self.config.warmup_steps);
        self.optimiser.step(&self.network.parameters.trainable, &gradients, lr)?;
        let record = StepRecord {
            step: self.optimiser.step,
            epoch: batch.job.epoch + 1,
            loss,
            lr,
            seconds: self.lap(),
        };
        self.history.steps.push(record.clone());
        self.tell(observer(Progress::Step { record, steps }))?;
        let due = |every| self.optimiser.step.is_multiple_of(every);
        if self.config.checkpoint_every_steps.is_some_and(due) {
            let checkpoint = self.checkpoint()?;
            self.tell(observer(Progress::Checkpoint(checkpoint)))?;
        }
        Ok(())
    }

    /// The loss of a batch, and its gradients.
    fn gradients(&self, batch: &Batch) -> Result<(f64, GradStore), Error> {
        let (logits, loss) = self.loss(batch, Mode::Train)?;
        let upstream = Tensor::from_vec(loss.gradient, logits.shape(), logits.device())?;
        // The derivative of sum(logits * upstream) is that of the loss: the loss itself is computed outside the graph.
        Ok((loss.loss, (logits * upstream)?.sum_all()?.backward()?))
    }

    /// An error of a step; where the device had too little memory, with the batch for which it has enough.
    fn with_what_fits(&self, error: Error, batch: &Batch) -> Error {
        match error {
            Error::Tensor(error) if is_out_of_memory(&error) => {
                let volumes = batch.job.samples.len();
                let halves = std::iter::successors(Some(volumes / 2), |half| Some(half / 2));
                let fits = halves.take_while(|&half| half > 0).find(|&half| self.fits(half, batch.shape));
                Error::OutOfMemory { batch: volumes, shape: batch.shape, fits }
            }
            other => other,
        }
    }

    /// Whether a step with so many volumes is possible. It moves the running statistics, so that no training goes on
    /// behind it.
    fn fits(&self, volumes: usize, [depth, height, width]: [usize; 3]) -> bool {
        let step = || -> Result<GradStore, Error> {
            let input =
                Tensor::zeros((volumes, 1, depth, height, width), candle_core::DType::F32, &self.device)?;
            let logits = self.network.classify(&self.network.embed(&input, Mode::Train)?)?;
            let gradients = logits.sum_all()?.backward()?;
            self.device.synchronize()?;
            Ok(gradients)
        };
        step().is_ok()
    }

    fn validate(&mut self, batch: &Batch) -> Result<(), Error> {
        let (_, loss) = self.loss(batch, Mode::Eval)?;
        let weight: f64 = self.rows(batch).1.iter().map(|&weight| f64::from(weight)).sum();
        self.validation[0] += loss.loss * weight;
        self.validation[1] += weight;
        self.validated += batch.job.samples.len();
        self.validation_seconds += self.lap();
        Ok(())
    }

    fn end_epoch(
        &mut self,
        epoch: usize,
        observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let steps = &self.history.steps[(epoch - 1) * self.plan.steps_per_epoch()..];
        let [loss, weight] = std::mem::take(&mut self.validation);
        let record = EpochRecord {
            epoch,
            train_loss: steps.iter().map(|step| step.loss).sum::<f64>() / steps.len() as f64,
            validation_loss: (weight > 0.0).then(|| loss / weight),
            lr: steps[steps.len() - 1].lr,
            seconds: steps.iter().map(|step| step.seconds).sum::<f64>()
                + std::mem::take(&mut self.validation_seconds),
        };
        self.validated = 0;
        self.history.epochs.push(record.clone());
        self.tell(observer(Progress::Epoch(record)))
    }

    pub(crate) fn finish(self) -> Result<Trained, Error> {
        let arrays = self.network.parameters.arrays()?;
        if let Some((name, _)) =
            arrays.iter().find(|(_, array)| array.values.iter().any(|value| !value.is_finite()))
        {
            return Err(Error::NotFinite { what: format!("a value of `{name}` after the last step") });
        }
        let weights = Weights {
            model: self.config.model,
            classes: self.config.classes.clone(),
            view: self.config.view.clone(),
            arrays,
        };
        let used = self.plan.train.len() + self.plan.validation.len();
        let given = self.data.parts.iter().filter(|part| **part != Part::Unused).count();
        Ok(Trained { weights: weights.to_bytes()?, history: self.history, without_weight: given - used })
    }

    /// Logits of a batch, and their loss.
    fn loss(&self, batch: &Batch, mode: Mode) -> Result<(Tensor, LossAndGradient), Error> {
        let [depth, height, width] = batch.shape;
        let shape = (batch.job.samples.len(), 1, depth, height, width);
        let input = Tensor::from_slice(&batch.input, shape, &self.device)?;
        let logits = self.network.classify(&self.network.embed(&input, mode)?)?;
        let (targets, weights) = self.rows(batch);
        let values: Vec<f32> = logits.flatten_all()?.to_vec1()?;
        let loss = binary_cross_entropy(&values, &targets, &weights, &self.config.positive_weight)
            .expect("samples without weight are not in the plan");
        if !loss.loss.is_finite() {
            let step = self.optimiser.step + 1;
            return Err(Error::NotFinite {
                what: format!(
                    "the loss {} at step {step} (try a lower learning rate, or a warm-up)",
                    loss.loss
                ),
            });
        }
        Ok((logits, loss))
    }

    fn rows(&self, batch: &Batch) -> (Vec<f32>, Vec<f32>) {
        self.data.rows(&batch.job.samples, self.config.classes.len())
    }

    fn checkpoint(&self) -> Result<Vec<u8>, Error> {
        Checkpoint {
            run: self.digest.clone(),
            step: self.optimiser.step,
            history: self.history.clone(),
            weights: self.network.parameters.arrays()?,
            moments: self.optimiser.moments()?,
        }
        .to_bytes()
    }

    fn tell(&self, answer: ControlFlow<()>) -> Result<(), Error> {
        match answer {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                Err(Error::Stopped { step: self.optimiser.step, checkpoint: self.checkpoint()? })
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

/// Several tensor operations have no gradient and say nothing; what lies before them would never be trained.
fn check_gradients(network: &ResNet3d, gradients: &GradStore) -> Result<(), Error> {
    let mut variables = Vec::new();
    for (name, var) in &network.parameters.trainable {
        let largest = match gradients.get(var) {
            Some(gradient) => gradient.abs()?.max_all()?.to_scalar::<f32>()?,
            None => 0.0,
        };
        if largest == 0.0 {
            variables.push(name.clone());
        }
        if !largest.is_finite() {
            return Err(Error::NotFinite { what: format!("the gradient of `{name}` at the first step") });
        }
    }
    if variables.is_empty() { Ok(()) } else { Err(Error::NoGradient { variables }) }
}
