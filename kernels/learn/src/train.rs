//! Training of a multi-label classifier.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::mpsc::sync_channel;

use serde::{Deserialize, Serialize};

use crate::batches::{Plan, prepare_ahead};
use crate::device::Device;
use crate::error::Error;
use crate::model::ModelKind;
use crate::optimiser::FINAL_LR;
use crate::run::Run;
use crate::view::View;

/// Fits a classifier to `data`: masked binary cross-entropy, AdamW, one cosine over all steps.
///
/// `observer` hears of every step, epoch and checkpoint on the calling thread, and stops the training by breaking.
/// With `resume`, the bytes of a checkpoint of the same settings and targets, the training goes on behind it and ends
/// with the same weights, bit for bit, as one that was never stopped (on the CPU, on the same processor type). The weights
/// returned are those after the last step.
///
/// A sample whose targets all have weight zero says nothing and is left out of its part.
///
/// # Errors
/// Settings and data that do not fit; [`Error::Volume`] for the first volume that fails; [`Error::NoGradient`] if
/// the first step's gradient misses a variable; [`Error::Device`] and [`Error::OutOfMemory`] of a GPU; [`Error::NotFinite`] as soon as a loss is no number;
/// [`Error::Stopped`], with a checkpoint, when the observer breaks.
pub fn train(
    config: &TrainConfig,
    data: &TrainData,
    device: Device,
    resume: Option<&[u8]>,
    observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Trained, Error> {
    config.check()?;
    let plan = data.plan(config)?;
    let mut run = Run::start(config, data, &plan, device, resume)?;
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(BATCHES_AHEAD);
        let epoch = run.history.epochs.len();
        let jobs = plan.jobs(epoch, run.optimiser.step - epoch * plan.steps_per_epoch());
        scope.spawn(|| prepare_ahead(jobs, config, &data.load, sender));
        for batch in receiver {
            run.batch(&batch?, observer)?;
        }
        run.finish()
    })
}

/// Reads the volume of a sample: Hounsfield units x fastest, and the size in voxels x, y, z. It is called from
/// several threads at once, once per sample and epoch.
pub type LoadVolume<'a> = dyn Fn(usize) -> Result<(Vec<i16>, [usize; 3]), String> + Send + Sync + 'a;

/// What to fit to. The samples are numbered from 0.
pub struct TrainData<'a> {
    /// Row-major `(samples, classes)`, from 0 to 1; not read where the weight is zero.
    pub targets: Vec<f32>,
    /// Row-major `(samples, classes)`, zero for a masked target.
    pub weights: Vec<f32>,
    /// One per sample.
    pub parts: Vec<Part>,
    /// Where the volumes come from.
    pub load: Box<LoadVolume<'a>>,
}

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

/// The settings of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// The network.
    pub model: ModelKind,
    /// Names of the classes, in the order of the targets.
    pub classes: Vec<String>,
    /// Passes over the training part.
    pub epochs: usize,
    /// Volumes per step; the last step of an epoch may have fewer.
    pub batch: usize,
    /// Highest learning rate.
    pub lr: f64,
    /// Decoupled weight decay, for all variables.
    pub weight_decay: f64,
    /// Steps over which the learning rate rises to `lr`.
    pub warmup_steps: usize,
    /// Decides the first weights, the order of the samples, crops and flips.
    pub seed: u64,
    /// How volumes are shown to the network.
    pub view: View,
    /// Weight of positive targets, one per class, or empty for 1; see [`balanced_positive_weight`].
    pub positive_weight: Vec<f32>,
    /// Whether training crops lie at random in the canvas, where it is larger; else in the centre.
    pub random_crop: bool,
    /// Axes x, y, z along which a training volume is mirrored with probability one half.
    pub flip: [bool; 3],
    /// Steps between two [`Progress::Checkpoint`]s.
    pub checkpoint_every_steps: Option<usize>,
}

impl Default for TrainConfig {
    /// The published supervised pre-training for chest CT (batch 10, five epochs, learning rate and weight decay 1e-4,
    /// no warm-up, random crops, no flips), without classes.
    fn default() -> Self {
        Self {
            model: ModelKind::ResNet3d18,
            classes: Vec::new(),
            epochs: 5,
            batch: 10,
            lr: 1e-4,
            weight_decay: 1e-4,
            warmup_steps: 0,
            seed: 0,
            view: View::default(),
            positive_weight: Vec::new(),
            random_crop: true,
            flip: [false; 3],
            checkpoint_every_steps: None,
        }
    }
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
    /// The state after the last step, for `resume`.
    Checkpoint(Vec<u8>),
}

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
}

/// The result of a training.
#[derive(Clone)]
pub struct Trained {
    /// Bytes for [`crate::infer::Model::load`]: a function of the settings, the data and the processor type.
    pub weights: Vec<u8>,
    /// The course of the training.
    pub history: History,
    /// Samples of either part that were left out because none of their targets has weight.
    pub without_weight: usize,
}

impl fmt::Debug for Trained {
    /// The weights by their size: they are millions of bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weights = format_args!("{} bytes", self.weights.len());
        let Self { history, without_weight, .. } = self;
        f.debug_struct("Trained")
            .field("weights", &weights)
            .field("history", history)
            .field("without_weight", without_weight)
            .finish()
    }
}

/// Negatives over positives of each class in the training part, counted with the weights of the targets: the
/// `positive_weight` that gives both the same share of the loss.
///
/// # Errors
/// If the data do not fit `classes`, or if a class has no positive to weigh.
pub fn balanced_positive_weight(data: &TrainData, classes: &[String]) -> Result<Vec<f32>, Error> {
    data.check(classes.len())?;
    let count = classes.len();
    let mut counts = vec![[0.0f64; 2]; count];
    for sample in (0..data.parts.len()).filter(|&sample| data.parts[sample] == Part::Train) {
        for (class, counts) in counts.iter_mut().enumerate() {
            let weight = f64::from(data.weights[sample * count + class]);
            if weight > 0.0 {
                let target = f64::from(data.targets[sample * count + class]);
                counts[0] += weight * (1.0 - target);
                counts[1] += weight * target;
            }
        }
    }
    let ratio = |(&[negative, positive], class): (&[f64; 2], &String)| match positive > 0.0 {
        true => Ok((negative / positive) as f32),
        false => Err(Error::Data(format!(
            "class `{class}` has no positive target in the training part, expected one to weigh; leave the class out"
        ))),
    };
    counts.iter().zip(classes).map(ratio).collect()
}

/// Batches that wait for the step; each is as large as the network's input.
const BATCHES_AHEAD: usize = 2;

impl TrainConfig {
    fn check(&self) -> Result<(), Error> {
        let classes = self.classes.len();
        let problem = if classes == 0 {
            "there are no classes, expected the name of at least one".into()
        } else if self.epochs == 0 || self.batch == 0 {
            format!("{} epochs with batches of {}, expected at least one of each", self.epochs, self.batch)
        } else if !(self.lr.is_finite() && self.lr > FINAL_LR) {
            format!("the learning rate is {}, expected more than the final {FINAL_LR}", self.lr)
        } else if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            format!("the weight decay is {}, expected zero or more", self.weight_decay)
        } else if !self.positive_weight.is_empty() && self.positive_weight.len() != classes {
            format!(
                "{} positive weights for {classes} classes, expected one each",
                self.positive_weight.len()
            )
        } else if let Some(weight) =
            self.positive_weight.iter().find(|weight| !(weight.is_finite() && **weight > 0.0))
        {
            format!("a positive weight is {weight}, expected a number above zero")
        } else if self.checkpoint_every_steps == Some(0) {
            "a checkpoint every 0 steps, expected one or more".into()
        } else {
            return self.view.check();
        };
        Err(Error::Setting(problem))
    }
}

impl TrainData<'_> {
    fn check(&self, classes: usize) -> Result<(), Error> {
        let (samples, expected) = (self.parts.len(), self.parts.len() * classes);
        if self.targets.len() != expected || self.weights.len() != expected {
            return Err(Error::Data(format!(
                "{} targets and {} weights for {samples} samples and {classes} classes, expected {expected} of each",
                self.targets.len(),
                self.weights.len()
            )));
        }
        for (index, (&target, &weight)) in self.targets.iter().zip(&self.weights).enumerate() {
            if !(weight.is_finite() && weight >= 0.0) || (weight > 0.0 && !(0.0..=1.0).contains(&target)) {
                return Err(Error::Data(format!(
                    "sample {} has target {target} with weight {weight} for class {}, expected a target from 0 to 1 \
                     and a weight of zero or more",
                    index / classes,
                    index % classes
                )));
            }
        }
        Ok(())
    }

    /// The samples of a part that have a weight.
    fn usable(&self, part: Part, classes: usize) -> Vec<usize> {
        let has_weight =
            |&sample: &usize| self.weights[sample * classes..][..classes].iter().any(|&weight| weight > 0.0);
        (0..self.parts.len()).filter(|&sample| self.parts[sample] == part).filter(has_weight).collect()
    }

    fn plan(&self, config: &TrainConfig) -> Result<Plan, Error> {
        let classes = config.classes.len();
        self.check(classes)?;
        let train = self.usable(Part::Train, classes);
        if train.is_empty() {
            return Err(Error::Data(
                "no training sample has a target with weight, expected at least one".into(),
            ));
        }
        let validation = self.usable(Part::Validation, classes);
        Ok(Plan { train, validation, epochs: config.epochs, batch: config.batch, seed: config.seed })
    }

    /// The rows of some samples, of targets and weights.
    pub(crate) fn rows(&self, samples: &[usize], classes: usize) -> (Vec<f32>, Vec<f32>) {
        let rows = |values: &[f32]| {
            samples.iter().flat_map(|sample| values[sample * classes..][..classes].to_vec()).collect()
        };
        (rows(&self.targets), rows(&self.weights))
    }

    /// What a checkpoint must agree on: everything but how often checkpoints are made.
    pub(crate) fn digest(&self, config: &TrainConfig) -> Result<String, Error> {
        let config = TrainConfig { checkpoint_every_steps: None, ..config.clone() };
        let config = serde_json::to_string(&config).map_err(|error| Error::Setting(error.to_string()))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(config.as_bytes());
        for value in self.targets.iter().chain(&self.weights) {
            hasher.update(&value.to_le_bytes());
        }
        for part in &self.parts {
            hasher.update(&[*part as u8]);
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::Model;
    use crate::weights::Weights;

    const SIZE: [usize; 3] = [20, 18, 16];

    /// Noisy tissue with a block somewhere in it: bright in odd samples (class 0), dark in even ones (class 1).
    fn volume(sample: usize) -> (Vec<i16>, [usize; 3]) {
        let [width, height, depth] = SIZE;
        let (mut state, start) = (sample as u32 * 7919 + 17, sample % 9);
        let voxel = |i: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let inside = |position: usize| (start..start + 7).contains(&position);
            let block = inside(i % width) && inside(i / width % height) && inside(i / width / height);
            let tissue = if block { [-900, 100][sample % 2] } else { -400 };
            tissue + (state >> 25) as i16
        };
        ((0..width * height * depth).map(voxel).collect(), SIZE)
    }

    fn data(samples: usize) -> TrainData<'static> {
        TrainData {
            targets: (0..samples).flat_map(|sample| [(sample % 2) as f32, (1 - sample % 2) as f32]).collect(),
            // Every fifth target of class 1 is masked.
            weights: (0..samples).flat_map(|sample| [1.0, if sample % 5 == 4 { 0.0 } else { 1.0 }]).collect(),
            parts: (0..samples)
                .map(|sample| if sample % 4 == 3 { Part::Validation } else { Part::Train })
                .collect(),
            load: Box::new(|sample| Ok(volume(sample))),
        }
    }

    fn config() -> TrainConfig {
        TrainConfig {
            model: ModelKind::ResNet3dTiny,
            classes: vec!["high".into(), "low".into()],
            epochs: 3,
            batch: 4,
            lr: 3e-3,
            warmup_steps: 2,
            seed: 7,
            view: View { canvas: Some([22, 18, 16]), crop: Some([18, 16, 16]), ..View::default() },
            ..TrainConfig::default()
        }
    }

    fn go_on(_: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn losses(history: &History) -> (Vec<f64>, Vec<Option<f64>>) {
        let epochs = history.epochs.iter().map(|epoch| epoch.validation_loss);
        (history.steps.iter().map(|step| step.loss).collect(), epochs.collect())
    }

    #[test]
    fn learns_what_can_be_seen_and_predicts_it() {
        let config = TrainConfig { epochs: 8, ..config() };
        let trained = train(&config, &data(24), Device::Cpu, None, &mut go_on).unwrap();
        let epochs = &trained.history.epochs;
        assert_eq!((epochs.len(), trained.history.steps.len()), (8, 8 * 5));
        assert!(epochs[7].validation_loss.unwrap() < 0.2, "{epochs:?}");
        let model = Model::load(&trained.weights, Device::Cpu).unwrap();
        assert_eq!((model.classes(), model.view()), (&config.classes[..], &config.view));
        for sample in 100..110 {
            let (voxels, shape) = volume(sample);
            let scores = model.predict(&voxels, shape).unwrap();
            assert_eq!(scores[0] > scores[1], sample % 2 == 1, "sample {sample}: {scores:?}");
            assert_eq!(model.embed(&voxels, shape).unwrap().len(), ModelKind::ResNet3dTiny.embedding_dim());
        }
    }

    #[test]
    fn a_stopped_training_goes_on_to_the_same_bytes() {
        let (config, data) = (TrainConfig { checkpoint_every_steps: Some(3), ..config() }, data(12));
        let mut checkpoints = Vec::new();
        let mut keep = |progress: Progress| {
            if let Progress::Checkpoint(bytes) = progress {
                checkpoints.push(bytes);
            }
            ControlFlow::Continue(())
        };
        let whole = train(&config, &data, Device::Cpu, None, &mut keep).unwrap();
        // Nine training samples in batches of four are three steps an epoch: the checkpoints lie before validations.
        assert_eq!(checkpoints.len(), 3);
        let mut resume_from: Vec<Vec<u8>> = checkpoints;
        for stop_at in [1, 5] {
            let mut stop = |progress: Progress| match progress {
                Progress::Step { record, .. } if record.step == stop_at => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            };
            let Err(Error::Stopped { step, checkpoint }) =
                train(&config, &data, Device::Cpu, None, &mut stop)
            else {
                panic!("the training went on");
            };
            assert_eq!(step, stop_at);
            resume_from.push(checkpoint);
        }
        for checkpoint in &resume_from {
            let resumed = train(&config, &data, Device::Cpu, Some(checkpoint), &mut go_on).unwrap();
            assert!(resumed.weights == whole.weights, "the weights differ");
            assert_eq!(losses(&resumed.history), losses(&whole.history));
        }
    }

    #[test]
    fn the_result_is_a_function_of_the_seed_and_not_of_the_threads() {
        let run = |threads: usize, seed: u64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let config = TrainConfig { seed, epochs: 2, flip: [true, false, true], ..config() };
            pool.install(|| train(&config, &data(8), Device::Cpu, None, &mut go_on)).unwrap().weights
        };
        let one = run(1, 3);
        assert!(one == run(4, 3), "one and four threads differ");
        assert!(one != run(1, 4), "two seeds agree");
    }

    #[test]
    fn weights_survive_their_file_form() {
        let config = TrainConfig { epochs: 1, ..config() };
        let bytes = train(&config, &data(4), Device::Cpu, None, &mut go_on).unwrap().weights;
        let weights = Weights::from_bytes(&bytes).unwrap();
        assert_eq!(
            (weights.model, &weights.classes, &weights.view),
            (config.model, &config.classes, &config.view)
        );
        assert!(weights.to_bytes().unwrap() == bytes);
        let error = Weights::from_bytes(&bytes[..bytes.len() / 2]).unwrap_err().to_string();
        assert!(error.starts_with("the bytes are no safetensors file"), "{error}");
    }

    #[test]
    fn a_checkpoint_of_other_settings_is_refused() {
        let mut stop = |_: Progress| ControlFlow::Break(());
        let Err(Error::Stopped { checkpoint, .. }) = train(&config(), &data(4), Device::Cpu, None, &mut stop)
        else {
            panic!("the training went on");
        };
        let other = TrainConfig { lr: 1e-3, ..config() };
        let error =
            train(&other, &data(4), Device::Cpu, Some(&checkpoint), &mut go_on).unwrap_err().to_string();
        assert!(error.starts_with("the checkpoint is of other settings"), "{error}");
        let error = Model::load(&checkpoint, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("metadata is not as expected"), "{error}");
    }

    #[test]
    fn failures_stop_the_training() {
        let fail = |config: &TrainConfig, data: TrainData| {
            train(config, &data, Device::Cpu, None, &mut go_on).unwrap_err().to_string()
        };
        let load = |load: Box<LoadVolume<'static>>| TrainData { load, ..data(4) };
        assert_eq!(
            fail(&config(), load(Box::new(|_| Err("no such file".into()))))[..16],
            *"volume of sample"
        );
        let free = TrainConfig { view: View::default(), ..config() };
        let constant = fail(&free, load(Box::new(|_| Ok((vec![40; 4096], [16; 3])))));
        assert!(constant.starts_with("no gradient reaches "), "{constant}");
        let wrong = fail(&config(), load(Box::new(|_| Ok((vec![40; 4000], [16; 3])))));
        assert!(wrong.contains("4000 voxels with shape [16, 16, 16], expected 4096"), "{wrong}");
        let shapes = fail(
            &free,
            load(Box::new(|sample| Ok((vec![sample as i16; 4096 + 256 * sample], [16, 16, 16 + sample])))),
        );
        assert!(shapes.contains("expected one shape in a batch"), "{shapes}");
        let diverging = fail(&TrainConfig { lr: 1e30, warmup_steps: 0, ..config() }, data(12));
        assert!(diverging.contains("is not a finite number"), "{diverging}");
    }

    #[test]
    fn data_that_do_not_fit() {
        let fail = |change: fn(&mut TrainData)| {
            let mut data = data(4);
            change(&mut data);
            train(&config(), &data, Device::Cpu, None, &mut go_on).unwrap_err().to_string()
        };
        assert!(fail(|data| data.targets.truncate(7)).contains("7 targets and 8 weights"));
        assert!(fail(|data| data.targets[3] = f32::NAN).contains("sample 1 has target NaN"));
        assert!(fail(|data| data.weights.fill(0.0)).contains("no training sample has a target with weight"));
        assert!(fail(|data| data.parts.fill(Part::Unused)).contains("no training sample"));
    }

    #[test]
    fn samples_without_weight_are_counted_and_never_loaded() {
        let mut data = data(8);
        data.weights[2..4].fill(0.0);
        data.load = Box::new(|sample| if sample == 1 { Err("loaded".into()) } else { Ok(volume(sample)) });
        let trained =
            train(&TrainConfig { epochs: 1, ..config() }, &data, Device::Cpu, None, &mut go_on).unwrap();
        assert_eq!(trained.without_weight, 1);
    }

    #[test]
    fn balance_counts_the_training_part_only() {
        let classes = config().classes;
        // Training samples 0, 1, 2, 4, 5, 6 of eight; the target of class 1 of sample 4 is masked.
        assert_eq!(balanced_positive_weight(&data(8), &classes).unwrap(), [2.0, 2.0 / 3.0]);
        let mut none = data(8);
        none.targets.fill(0.0);
        let error = balanced_positive_weight(&none, &classes).unwrap_err().to_string();
        assert!(error.starts_with("class `high` has no positive target"), "{error}");
    }
}
