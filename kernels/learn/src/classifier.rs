//! Training of a multi-label classifier of volumes or images.

use std::fmt;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::batches::{Batch, LoadVoxels, Order, Plan};
use crate::course::{self, Finished, Learner, Validation, resumed};
use crate::device::Device;
use crate::error::Error;
use crate::gradients::Gradients;
use crate::history::{History, Observer, Part};
use crate::loss::{LossAndGradient, binary_cross_entropy};
use crate::model::ModelKind;
use crate::network::{Mode, Network};
use crate::parameters::{Builder, Parameters};
use crate::settings::Settings;
use crate::weights::Weights;

/// Fits a classifier to `data`: masked binary cross-entropy.
///
/// It starts from `init`, weights of the same network and classes, or else from weights drawn from the seed. `observer`
/// hears of every step, epoch and checkpoint on the calling thread. With `resume`, the bytes of a checkpoint
/// of the same settings and targets, the training goes on behind it and ends with the same weights, bit for bit, as
/// one that was never stopped (on the CPU, on the same processor type).
///
/// A sample whose targets all have weight zero says nothing and is left out of its part.
///
/// # Errors
/// Settings and data that do not fit; [`Error::Volume`] for the first sample that fails; [`Error::NoGradient`] if
/// the first step's gradient misses a variable; [`Error::NotFinite`] as soon as a loss is no number;
/// [`Error::Device`] and [`Error::OutOfMemory`] of a GPU; [`Error::Stopped`], with a checkpoint, when the observer stops
/// it.
pub fn train(
    config: &ClassifierConfig,
    data: &ClassifierData,
    init: Option<&Weights>,
    device: Device,
    resume: Option<&[u8]>,
    observer: &mut Observer,
) -> Result<Trained, Error> {
    config.check()?;
    let plan = data.plan(config)?;
    let network = start(config, init, device)?;
    let digest = data.digest(config, &network)?;
    let settings = &config.settings;
    let resume = resumed(resume, &digest)?;
    let mut learner = Classifier { config, data, network, validation: Vec::new() };
    let Finished { arrays, history } =
        course::train(settings, &plan, &data.load, &mut learner, &digest, resume, observer)?;
    let weights =
        Weights { model: config.model, classes: config.classes.clone(), view: settings.view.clone(), arrays };
    let used = plan.train.len() + plan.validation.len();
    let given = data.parts.iter().filter(|part| **part != Part::Unused).count();
    Ok(Trained { weights: weights.to_bytes()?, history, without_weight: given - used })
}

/// The network before its first step.
fn start(config: &ClassifierConfig, init: Option<&Weights>, device: Device) -> Result<Network, Error> {
    let (device, classes) = (device.open()?, config.classes.len());
    let Some(init) = init else {
        return Network::build(config.model, classes, Builder::seeded(config.settings.seed).on(&device));
    };
    if (init.model, &init.classes) != (config.model, &config.classes) {
        return Err(Error::Setting(format!(
            "the weights to start from are of {} for {}, expected {} for {}",
            init.model,
            init.classes.join(", "),
            config.model,
            config.classes.join(", ")
        )));
    }
    Network::build(init.model, classes, Builder::stored(init.arrays.clone()).on(&device))
}

/// The settings of a classifier's training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// The network.
    pub model: ModelKind,
    /// Names of the classes, in the order of the targets.
    pub classes: Vec<String>,
    /// Weight of positive targets, one per class, or empty for 1; see [`balanced_positive_weight`].
    pub positive_weight: Vec<f32>,
    /// In which proportion samples are drawn.
    pub sampling: Sampling,
    /// What all trainings have.
    pub settings: Settings,
}

/// In which proportion an epoch draws the training samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Each once.
    #[default]
    Natural,
    /// As many draws as there are samples, with replacement: first a class that has both kinds of targets is drawn,
    /// then one of the two kinds, then a sample of that kind (class-aware sampling, Shen et al., 2016,
    /// arXiv:1512.05830). A target counts as positive from 0.5 on.
    Balanced,
}

/// What to fit to. The samples are numbered from 0.
pub struct ClassifierData<'a> {
    /// Row-major `(samples, classes)`, from 0 to 1; not read where the weight is zero.
    pub targets: Vec<f32>,
    /// Row-major `(samples, classes)`, zero for a masked target.
    pub weights: Vec<f32>,
    /// One per sample.
    pub parts: Vec<Part>,
    /// Where the samples come from.
    pub load: Box<LoadVoxels<'a>>,
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
pub fn balanced_positive_weight(data: &ClassifierData, classes: &[String]) -> Result<Vec<f32>, Error> {
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
    let ratio = |(&[negative, positive], class): (&[f64; 2], &String)| match positive > 0.0 && negative > 0.0
    {
        true => Ok((negative / positive) as f32),
        false => Err(Error::Data(format!(
            "class `{class}` has only one kind of target in the training part, expected both to weigh one against \
             the other; leave the class out"
        ))),
    };
    counts.iter().zip(classes).map(ratio).collect()
}

/// A network and the loss of its scores.
struct Classifier<'a> {
    config: &'a ClassifierConfig,
    data: &'a ClassifierData<'a>,
    network: Network,
    /// Logits of the validation samples of the epoch so far, with their samples.
    validation: Vec<(usize, Vec<f32>)>,
}

impl Learner for Classifier<'_> {
    fn parameters(&self) -> &Parameters {
        &self.network.parameters
    }

    fn may_have_no_gradient(&self, _: &str) -> bool {
        false
    }

    fn gradients(&mut self, batch: &Batch) -> Result<(f64, Gradients), Error> {
        let (samples, size) = (&batch.job.samples, self.config.settings.micro_batch());
        let (_, weights) = self.data.rows(samples, self.config.classes.len());
        let total = sum(&weights);
        let (mut loss, mut gradients) = (0.0, None::<Gradients>);
        for start in (0..samples.len()).step_by(size) {
            let end = (start + size).min(samples.len());
            let logits = self.logits(batch, start..end, Mode::Train)?;
            let found = self.loss(&logits.flatten_all()?.to_vec1()?, &samples[start..end]);
            let share = sum(&self.data.rows(&samples[start..end], self.config.classes.len()).1) / total;
            loss += found.loss * share;
            let upstream = found.gradient.iter().map(|value| (f64::from(*value) * share) as f32).collect();
            let upstream = Tensor::from_vec::<_, f32>(upstream, logits.shape(), logits.device())?;
            // The derivative of sum(logits * upstream) is that of the loss: the loss itself is computed outside.
            let store = (logits * upstream)?.sum_all()?.backward()?;
            let more = Gradients::of(&self.network.parameters.trainable, &store)?;
            match &mut gradients {
                Some(sum) => sum.accumulate(&more)?,
                None => gradients = Some(more),
            }
        }
        let gradients = gradients.ok_or_else(|| Error::Data("a batch has no samples".into()))?;
        Ok((loss, gradients))
    }

    fn validate(&mut self, batch: &Batch) -> Result<(), Error> {
        let (samples, size) = (&batch.job.samples, self.config.settings.micro_batch());
        for start in (0..samples.len()).step_by(size) {
            let end = (start + size).min(samples.len());
            let logits: Vec<Vec<f32>> = self.logits(batch, start..end, Mode::Eval)?.to_vec2()?;
            self.validation.extend(samples[start..end].iter().copied().zip(logits));
        }
        Ok(())
    }

    fn validated(&mut self) -> Validation {
        let all = std::mem::take(&mut self.validation);
        if all.is_empty() {
            return Validation::default();
        }
        let samples: Vec<usize> = all.iter().map(|(sample, _)| *sample).collect();
        let logits: Vec<f32> = all.into_iter().flat_map(|(_, logits)| logits).collect();
        let (targets, weights) = self.data.rows(&samples, self.config.classes.len());
        Validation {
            loss: Some(self.loss(&logits, &samples).loss),
            mcc: mean_mcc(&logits, &targets, &weights, self.config.classes.len()),
        }
    }
}

impl Classifier<'_> {
    /// `(n, classes)` of some samples of a batch.
    fn logits(&self, batch: &Batch, range: std::ops::Range<usize>, mode: Mode) -> Result<Tensor, Error> {
        let [depth, height, width] = batch.shape;
        let size = depth * height * width;
        let shape = (range.len(), 1, depth, height, width);
        let input = &batch.input[range.start * size..range.end * size];
        let input = Tensor::from_slice(input, shape, self.network.device())?;
        self.network.classify(&self.network.embed(&input, mode)?)
    }

    fn loss(&self, logits: &[f32], samples: &[usize]) -> LossAndGradient {
        let (targets, weights) = self.data.rows(samples, self.config.classes.len());
        binary_cross_entropy(logits, &targets, &weights, &self.config.positive_weight)
            .expect("samples without weight are not in the plan")
    }
}

/// Matthews correlation at a logit of zero, as the mean over the classes where it is defined.
fn mean_mcc(logits: &[f32], targets: &[f32], weights: &[f32], classes: usize) -> Option<f64> {
    let mut all = Vec::new();
    for class in 0..classes {
        // Predicted, then true: [[tn, fn], [fp, tp]].
        let mut counts = [[0.0f64; 2]; 2];
        for place in (class..logits.len()).step_by(classes).filter(|place| weights[*place] > 0.0) {
            counts[usize::from(logits[place] > 0.0)][usize::from(targets[place] >= 0.5)] += 1.0;
        }
        let [[tn, fnn], [fp, tp]] = counts;
        let product = (tp + fp) * (tp + fnn) * (tn + fp) * (tn + fnn);
        if tp + fnn > 0.0 && tn + fp > 0.0 {
            // A constant decision has a product of zero, and no correlation with anything.
            all.push(if product > 0.0 { (tp * tn - fp * fnn) / product.sqrt() } else { 0.0 });
        }
    }
    (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
}

fn sum(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value)).sum()
}

impl ClassifierConfig {
    fn check(&self) -> Result<(), Error> {
        let classes = self.classes.len();
        let problem = if classes == 0 {
            "there are no classes, expected the name of at least one".into()
        } else if !self.positive_weight.is_empty() && self.positive_weight.len() != classes {
            format!(
                "{} positive weights for {classes} classes, expected one each",
                self.positive_weight.len()
            )
        } else if let Some(weight) =
            self.positive_weight.iter().find(|weight| !(weight.is_finite() && **weight > 0.0))
        {
            format!("a positive weight is {weight}, expected a number above zero")
        } else {
            return self.settings.check();
        };
        Err(Error::Setting(problem))
    }
}

impl ClassifierData<'_> {
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

    fn plan(&self, config: &ClassifierConfig) -> Result<Plan, Error> {
        let classes = config.classes.len();
        self.check(classes)?;
        let train = self.usable(Part::Train, classes);
        if train.is_empty() {
            return Err(Error::Data(
                "no training sample has a target with weight, expected at least one".into(),
            ));
        }
        let order = match config.sampling {
            Sampling::Natural => Order::Shuffled,
            Sampling::Balanced => Order::Balanced(self.kinds(&train, classes)?),
        };
        Ok(Plan {
            train,
            validation: self.usable(Part::Validation, classes),
            epochs: config.settings.epochs,
            limit: config.settings.steps,
            batch: config.settings.batch,
            seed: config.settings.seed,
            order,
            whole_batches: false,
        })
    }

    /// Of each class that has both: the samples with negative targets, and those with positive ones.
    fn kinds(&self, train: &[usize], classes: usize) -> Result<Vec<[Vec<usize>; 2]>, Error> {
        let mut kinds = vec![[Vec::new(), Vec::new()]; classes];
        for &sample in train {
            for (class, kinds) in kinds.iter_mut().enumerate() {
                let place = sample * classes + class;
                if self.weights[place] > 0.0 {
                    kinds[usize::from(self.targets[place] >= 0.5)].push(sample);
                }
            }
        }
        kinds.retain(|[negative, positive]| !negative.is_empty() && !positive.is_empty());
        match kinds.is_empty() {
            true => Err(Error::Data(
                "no class has both kinds of targets in the training part, expected one to balance".into(),
            )),
            false => Ok(kinds),
        }
    }

    /// The rows of some samples, of targets and weights.
    fn rows(&self, samples: &[usize], classes: usize) -> (Vec<f32>, Vec<f32>) {
        let rows = |values: &[f32]| {
            samples.iter().flat_map(|sample| values[sample * classes..][..classes].to_vec()).collect()
        };
        (rows(&self.targets), rows(&self.weights))
    }

    /// What a checkpoint must agree on: the settings, the weights that the training starts from, and the targets.
    fn digest(&self, config: &ClassifierConfig, start: &Network) -> Result<String, Error> {
        let config = serde_json::to_string(config).map_err(|error| Error::Setting(error.to_string()))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(config.as_bytes());
        for value in start.parameters.arrays()?.values().flat_map(|array| &array.values) {
            hasher.update(&value.to_le_bytes());
        }
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
    use crate::augment::Augment;
    use crate::batches::Voxels;
    use crate::history::{Answer, Progress};
    use crate::infer::Model;
    use crate::pretrained::{Head, StateDict, Stem, Transfer};
    use crate::schedule::Schedule;
    use crate::settings::{OptimiserKind, Select};
    use crate::view::View;
    use crate::weights::Weights;

    const SIZE: [usize; 3] = [20, 18, 16];

    /// Noisy tissue with a block somewhere in it: bright in odd samples (class 0), dark in even ones (class 1).
    fn volume(sample: usize) -> (Voxels, [usize; 3]) {
        let [width, height, depth] = SIZE;
        let (mut state, start) = (sample as u32 * 7919 + 17, sample % 9);
        let voxel = |i: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let inside = |position: usize| (start..start + 7).contains(&position);
            let block = inside(i % width) && inside(i / width % height) && inside(i / width / height);
            let tissue = if block { [-900, 100][sample % 2] } else { -400 };
            tissue + (state >> 25) as i16
        };
        (Voxels::Hounsfield((0..width * height * depth).map(voxel).collect()), SIZE)
    }

    fn data(samples: usize) -> ClassifierData<'static> {
        ClassifierData {
            targets: (0..samples).flat_map(|sample| [(sample % 2) as f32, (1 - sample % 2) as f32]).collect(),
            // Every fifth target of class 1 is masked.
            weights: (0..samples).flat_map(|sample| [1.0, if sample % 5 == 4 { 0.0 } else { 1.0 }]).collect(),
            parts: (0..samples)
                .map(|sample| if sample % 4 == 3 { Part::Validation } else { Part::Train })
                .collect(),
            load: Box::new(|sample| Ok(volume(sample))),
        }
    }

    fn config() -> ClassifierConfig {
        ClassifierConfig {
            model: ModelKind::ResNet3dTiny,
            classes: vec!["high".into(), "low".into()],
            positive_weight: Vec::new(),
            sampling: Sampling::Natural,
            settings: Settings {
                epochs: 3,
                batch: 4,
                lr: 3e-3,
                schedule: Schedule::Cosine { warmup_steps: 2 },
                seed: 7,
                view: View { canvas: Some([22, 18, 16]), crop: Some([18, 16, 16]), ..View::default() },
                ..Settings::default()
            },
        }
    }

    fn with(change: impl Fn(&mut Settings)) -> ClassifierConfig {
        let mut config = config();
        change(&mut config.settings);
        config
    }

    fn go_on(_: Progress) -> Answer {
        Answer::GoOn
    }

    fn losses(history: &History) -> (Vec<f64>, Vec<Option<f64>>) {
        let epochs = history.epochs.iter().map(|epoch| epoch.validation_loss);
        (history.steps.iter().map(|step| step.loss).collect(), epochs.collect())
    }

    #[test]
    fn learns_what_can_be_seen_and_predicts_it() {
        let config = with(|settings| settings.epochs = 8);
        let trained = train(&config, &data(24), None, Device::Cpu, None, &mut go_on).unwrap();
        let epochs = &trained.history.epochs;
        assert_eq!((epochs.len(), trained.history.steps.len()), (8, 8 * 5));
        assert!(epochs[7].validation_loss.unwrap() < 0.2, "{epochs:?}");
        let model = Model::load(&trained.weights, Device::Cpu).unwrap();
        assert_eq!((model.classes(), model.view()), (&config.classes[..], &config.settings.view));
        for sample in 100..110 {
            let (voxels, shape) = volume(sample);
            let scores = model.predict(&voxels, shape).unwrap();
            assert_eq!(scores[0] > scores[1], sample % 2 == 1, "sample {sample}: {scores:?}");
            assert_eq!(model.embed(&voxels, shape).unwrap().len(), ModelKind::ResNet3dTiny.embedding_dim());
        }
    }

    #[test]
    fn a_stopped_training_goes_on_to_the_same_bytes() {
        let descent = OptimiserKind::Sgd { momentum: 0.9, nesterov: true };
        for (select, optimiser) in [(Select::Last, OptimiserKind::AdamW), (Select::LowestLoss, descent)] {
            let config = with(|settings| (settings.select, settings.optimiser) = (select, optimiser));
            let data = data(12);
            let mut checkpoints = Vec::new();
            let mut keep = |progress: Progress| match progress {
                Progress::Checkpoint(bytes) => {
                    checkpoints.push(bytes);
                    Answer::GoOn
                }
                Progress::Step { record, .. } if record.step.is_multiple_of(3) => Answer::Keep,
                Progress::Epoch(_) => Answer::Keep,
                Progress::Step { .. } => Answer::GoOn,
            };
            let whole = train(&config, &data, None, Device::Cpu, None, &mut keep).unwrap();
            // Nine training samples in batches of four are three steps an epoch: every other checkpoint lies before a
            // validation.
            assert_eq!(checkpoints.len(), 6);
            assert_eq!(whole.history.best_epoch.is_some(), select == Select::LowestLoss);
            let mut resume_from: Vec<Vec<u8>> = checkpoints;
            for stop_at in [1, 5] {
                let mut stop = |progress: Progress| match progress {
                    Progress::Step { record, .. } if record.step == stop_at => Answer::Stop,
                    _ => Answer::GoOn,
                };
                let Err(Error::Stopped { step, checkpoint }) =
                    train(&config, &data, None, Device::Cpu, None, &mut stop)
                else {
                    panic!("the training went on");
                };
                assert_eq!(step, stop_at);
                resume_from.push(checkpoint);
            }
            for checkpoint in &resume_from {
                let resumed = train(&config, &data, None, Device::Cpu, Some(checkpoint), &mut go_on).unwrap();
                assert!(resumed.weights == whole.weights, "the weights differ");
                assert_eq!(losses(&resumed.history), losses(&whole.history));
            }
        }
    }

    #[test]
    fn starts_from_the_weights_of_an_earlier_training() {
        let transfer = |head| Transfer { stem: Stem::Published, head };
        let short = with(|settings| settings.epochs = 1);
        let earlier =
            train(&with(|settings| settings.epochs = 8), &data(24), None, Device::Cpu, None, &mut go_on)
                .unwrap();
        let file = StateDict::from_bytes(&earlier.weights).unwrap();
        let starting = |model, classes: &[&str], head| {
            let classes = classes.iter().map(|class| (*class).to_owned()).collect();
            Weights::pretrained(model, classes, short.settings.view.clone(), 7, &file, transfer(head))
        };
        let (whole, coverage) = starting(ModelKind::ResNet3dTiny, &["high", "low"], Head::Published).unwrap();
        assert_eq!((whole.to_bytes().unwrap(), coverage.new.len()), (earlier.weights.clone(), 0));
        let first_loss = |init: Option<&Weights>| {
            train(&short, &data(24), init, Device::Cpu, None, &mut go_on).unwrap().history.steps[0].loss
        };
        assert!(first_loss(Some(&whole)) < 0.5 * first_loss(None));
        let (_, coverage) = starting(ModelKind::ResNet3dTiny, &["other"], Head::New).unwrap();
        assert_eq!((coverage.new, coverage.left_over.len()), (vec!["fc.bias".into(), "fc.weight".into()], 2));
        let error = |model, classes: &[&str], head| starting(model, classes, head).unwrap_err().to_string();
        assert_eq!(
            error(ModelKind::DenseNet3dTiny, &["high", "low"], Head::New),
            "the weights to start from are of resnet3d-tiny, expected densenet3d-tiny"
        );
        assert_eq!(
            error(ModelKind::ResNet3dTiny, &["low", "high"], Head::Published),
            "the head of the weights to start from tells high, low, expected low, high; take a new head"
        );
        let stop = |progress: Progress| match progress {
            Progress::Step { .. } => Answer::Stop,
            Progress::Epoch(_) | Progress::Checkpoint(_) => Answer::GoOn,
        };
        let Err(Error::Stopped { checkpoint, .. }) =
            train(&short, &data(24), Some(&whole), Device::Cpu, None, &mut { stop })
        else {
            panic!("the training went on");
        };
        let error = train(&short, &data(24), None, Device::Cpu, Some(&checkpoint), &mut go_on)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "the checkpoint is of other settings, targets, parts or weights to start from, expected the same"
        );
        train(&short, &data(24), Some(&whole), Device::Cpu, Some(&checkpoint), &mut go_on).unwrap();
    }

    #[test]
    fn gradients_of_parts_of_a_batch_add_up_to_those_of_the_whole() {
        // A vision transformer has no statistics of the batch, so that nothing else differs.
        let run = |micro_batch: Option<usize>| {
            let mut config = with(|settings| {
                (settings.micro_batch, settings.steps, settings.lr) = (micro_batch, Some(2), 1e-2);
                settings.view = View { canvas: Some([16, 16, 16]), ..View::default() };
            });
            config.model = ModelKind::Vit3dTiny;
            let trained = train(&config, &data(8), None, Device::Cpu, None, &mut go_on).unwrap();
            (Weights::from_bytes(&trained.weights).unwrap().arrays, trained.history.steps.len())
        };
        let ((whole, steps), (parts, _)) = (run(None), run(Some(1)));
        assert_eq!(steps, 2);
        for (name, array) in &whole {
            for (one, other) in array.values.iter().zip(&parts[name].values) {
                // AdamW's first steps have the length of the learning rate whatever the gradient's size is, so that
                // rounding shows in weights whose gradient is next to nothing.
                assert!((one - other).abs() < 1e-3, "{name}: {one} and {other}");
            }
        }
    }

    #[test]
    fn a_clipped_gradient_is_told_as_it_was() {
        let norms = |clip: Option<f64>| {
            let config = with(|settings| (settings.clip_norm, settings.epochs) = (clip, 1));
            let steps = train(&config, &data(8), None, Device::Cpu, None, &mut go_on).unwrap().history.steps;
            steps.into_iter().map(|step| step.gradient_norm).collect::<Vec<_>>()
        };
        assert_eq!(norms(None), [None, None]);
        let clipped = norms(Some(1e-3));
        assert!(clipped.iter().all(|norm| norm.is_some_and(|norm| norm > 1e-3)), "{clipped:?}");
    }

    #[test]
    fn the_weights_of_the_best_epoch_are_the_result() {
        let best =
            train(&with(|s| s.select = Select::LowestLoss), &data(12), None, Device::Cpu, None, &mut go_on)
                .unwrap();
        let lowest = best
            .history
            .epochs
            .iter()
            .min_by(|a, b| a.validation_loss.unwrap().total_cmp(&b.validation_loss.unwrap()));
        let epoch = lowest.unwrap().epoch;
        assert_eq!(best.history.best_epoch, Some(epoch));
        let steps = epoch * 3;
        let mut stop = |progress: Progress| match progress {
            Progress::Step { record, .. } if record.step == steps => Answer::Stop,
            _ => Answer::GoOn,
        };
        let Err(Error::Stopped { checkpoint, .. }) =
            train(&config(), &data(12), None, Device::Cpu, None, &mut stop)
        else {
            panic!("the training went on");
        };
        let then = crate::checkpoint::Checkpoint::from_bytes(&checkpoint).unwrap().weights;
        assert!(Weights::from_bytes(&best.weights).unwrap().arrays == then);
        let mut without = data(12);
        without.parts.iter_mut().filter(|part| **part == Part::Validation).for_each(|p| *p = Part::Unused);
        let error =
            train(&with(|s| s.select = Select::HighestMcc), &without, None, Device::Cpu, None, &mut go_on)
                .unwrap_err();
        assert!(error.to_string().contains("expected a validation part"), "{error}");
    }

    #[test]
    fn images_are_seen_by_their_grey_values() {
        let mut config = with(|settings| {
            settings.view =
                View { window: [0.0, 65535.0], pad: 0.0, canvas: Some([24, 20, 1]), ..View::default() };
            settings.epochs = 6;
        });
        config.model = ModelKind::ResNetTiny;
        let pixel = |sample: usize, place: usize| match (sample % 2 == 1, place % 24 < 12) {
            (true, true) | (false, false) => 60_000,
            _ => 20_000 + (place * 7919 + sample * 104_729) as u16 % 4096,
        };
        let image =
            move |sample| (Voxels::Grey((0..480).map(|place| pixel(sample, place)).collect()), [24, 20, 1]);
        let images = ClassifierData { load: Box::new(move |sample| Ok(image(sample))), ..data(16) };
        let trained = train(&config, &images, None, Device::Cpu, None, &mut go_on).unwrap();
        let model = Model::load(&trained.weights, Device::Cpu).unwrap();
        for sample in 20..24 {
            let (pixels, shape) = image(sample);
            let scores = model.predict(&pixels, shape).unwrap();
            assert_eq!(scores[0] > scores[1], sample % 2 == 1, "sample {sample}: {scores:?}");
        }
    }

    #[test]
    fn matthews_correlation_at_one_half_by_hand() {
        // Class 0: 2 true positives, 1 false positive, 1 false negative, 2 true negatives: (4 - 1) / 9.
        let logits = [1., 1., 1., -1., -1., -1.];
        let targets = [1., 1., 0., 1., 0., 0.];
        assert_eq!(mean_mcc(&logits, &targets, &[1.0; 6], 1), Some(1.0 / 3.0));
        // A masked row does not count, and a class with one kind of targets has none.
        assert_eq!(mean_mcc(&logits, &targets, &[1., 1., 0., 0., 1., 1.], 1), Some(1.0));
        assert_eq!(mean_mcc(&logits, &[1.0; 6], &[1.0; 6], 1), None);
        assert_eq!(mean_mcc(&[1.0; 6], &targets, &[1.0; 6], 1), Some(0.0));
    }

    #[test]
    fn the_result_is_a_function_of_the_seed_and_not_of_the_threads() {
        let run = |threads: usize, seed: u64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let config = with(|settings| {
                (settings.seed, settings.epochs) = (seed, 2);
                settings.augment = Augment {
                    flip: [true, false, true],
                    rotate_degrees: 15.0,
                    noise: 0.01,
                    ..Augment::default()
                };
            });
            pool.install(|| train(&config, &data(8), None, Device::Cpu, None, &mut go_on)).unwrap().weights
        };
        let one = run(1, 3);
        assert!(one == run(4, 3), "one and four threads differ");
        assert!(one != run(1, 4), "two seeds agree");
    }

    #[test]
    fn weights_survive_their_file_form() {
        let config = with(|settings| settings.epochs = 1);
        let bytes = train(&config, &data(4), None, Device::Cpu, None, &mut go_on).unwrap().weights;
        let weights = Weights::from_bytes(&bytes).unwrap();
        assert_eq!(
            (weights.model, &weights.classes, &weights.view),
            (config.model, &config.classes, &config.settings.view)
        );
        assert!(weights.to_bytes().unwrap() == bytes);
        let error = Weights::from_bytes(&bytes[..bytes.len() / 2]).unwrap_err().to_string();
        assert!(error.starts_with("the bytes are no safetensors file"), "{error}");
    }

    #[test]
    fn a_checkpoint_of_other_settings_is_refused() {
        let mut stop = |_: Progress| Answer::Stop;
        let Err(Error::Stopped { checkpoint, .. }) =
            train(&config(), &data(4), None, Device::Cpu, None, &mut stop)
        else {
            panic!("the training went on");
        };
        let other = with(|settings| settings.lr = 1e-3);
        let error = train(&other, &data(4), None, Device::Cpu, Some(&checkpoint), &mut go_on)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("the checkpoint is of other settings"), "{error}");
        let error = Model::load(&checkpoint, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("metadata is not as expected"), "{error}");
    }

    #[test]
    fn failures_stop_the_training() {
        let fail = |config: &ClassifierConfig, data: ClassifierData| {
            train(config, &data, None, Device::Cpu, None, &mut go_on).unwrap_err().to_string()
        };
        let load = |load: Box<LoadVoxels<'static>>| ClassifierData { load, ..data(4) };
        assert_eq!(
            fail(&config(), load(Box::new(|_| Err("no such file".into()))))[..16],
            *"volume of sample"
        );
        let free = with(|settings| settings.view = View::default());
        let constant = fail(&free, load(Box::new(|_| Ok((Voxels::Hounsfield(vec![40; 4096]), [16; 3])))));
        assert!(constant.starts_with("no gradient reaches "), "{constant}");
        let wrong = fail(&config(), load(Box::new(|_| Ok((Voxels::Hounsfield(vec![40; 4000]), [16; 3])))));
        assert!(wrong.contains("4000 voxels with shape [16, 16, 16], expected 4096"), "{wrong}");
        let shapes = fail(
            &free,
            load(Box::new(|sample| {
                let voxels = vec![sample as i16; 4096 + 256 * sample];
                Ok((Voxels::Hounsfield(voxels), [16, 16, 16 + sample]))
            })),
        );
        assert!(shapes.contains("expected one shape in a batch"), "{shapes}");
        let diverging =
            fail(&with(|settings| (settings.lr, settings.schedule) = (1e30, Schedule::Constant)), data(12));
        assert!(diverging.contains("is not a finite number"), "{diverging}");
    }

    #[test]
    fn data_that_do_not_fit() {
        let fail = |change: fn(&mut ClassifierData)| {
            let mut data = data(4);
            change(&mut data);
            train(&config(), &data, None, Device::Cpu, None, &mut go_on).unwrap_err().to_string()
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
            train(&with(|settings| settings.epochs = 1), &data, None, Device::Cpu, None, &mut go_on).unwrap();
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
        assert!(error.starts_with("class `high` has only one kind of target"), "{error}");
    }
}
