//! Which samples a step sees and in what order, and their preparation ahead of the step.

use std::sync::mpsc::SyncSender;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::error::Error;
use crate::settings::Settings;
use crate::view::{Crop, View};

/// Reads a sample: its voxels x fastest, and the size in voxels x, y, z. It is called from several threads at once,
/// once per sample and epoch.
pub type LoadVoxels<'a> = dyn Fn(usize) -> Result<(Voxels, [usize; 3]), String> + Send + Sync + 'a;

/// The voxels of a volume, or the pixels of an image.
#[derive(Clone, Debug, PartialEq)]
pub enum Voxels {
    /// Hounsfield units.
    Hounsfield(Vec<i16>),
    /// Grey values, 0 for black and 65535 for white.
    Grey(Vec<u16>),
}

impl Voxels {
    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "no sample is empty")]
    pub fn len(&self) -> usize {
        match self {
            Self::Hounsfield(values) => values.len(),
            Self::Grey(values) => values.len(),
        }
    }

    /// Network input from these; see [`View::apply`].
    pub(crate) fn seen(&self, view: &View, shape: [usize; 3], crop: Crop) -> (Vec<f32>, [usize; 3]) {
        match self {
            Self::Hounsfield(values) => view.apply(values, shape, crop),
            Self::Grey(values) => view.apply(values, shape, crop),
        }
    }

    /// Whether there are as many as the shape says, and more than none.
    pub(crate) fn check(&self, shape: [usize; 3]) -> Result<(), String> {
        let expected: usize = shape.iter().product();
        match expected > 0 && self.len() == expected {
            true => Ok(()),
            false => Err(format!(
                "{} voxels with shape {shape:?}, expected {expected} and more than none",
                self.len()
            )),
        }
    }
}

/// One batch of a training, before it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) epoch: usize,
    pub(crate) purpose: Purpose,
    pub(crate) samples: Vec<usize>,
}

/// What a batch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Train,
    Validate,
}

/// A batch as network input.
pub(crate) struct Batch {
    pub(crate) job: Job,
    /// `(N, D, H, W)`.
    pub(crate) input: Vec<f32>,
    /// D, H, W.
    pub(crate) shape: [usize; 3],
}

impl Batch {
    /// The first `count` samples alone.
    pub(crate) fn first(&self, count: usize) -> Self {
        let samples = self.job.samples[..count].to_vec();
        let input = self.input[..count * self.shape.iter().product::<usize>()].to_vec();
        Self { job: Job { samples, ..self.job.clone() }, input, shape: self.shape }
    }
}

/// The batches of a whole training, as a function of the seed alone.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) train: Vec<usize>,
    pub(crate) validation: Vec<usize>,
    pub(crate) epochs: usize,
    /// Steps after which the training ends in any case.
    pub(crate) limit: Option<usize>,
    pub(crate) batch: usize,
    pub(crate) seed: u64,
    pub(crate) order: Order,
    /// Whether an epoch's last step is left out where it would have fewer samples than the others.
    pub(crate) whole_batches: bool,
}

/// In which order an epoch sees the training samples.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Order {
    /// Each once, in a random order.
    Shuffled,
    /// As many draws as there are samples, with replacement: first one of these pairs is drawn, then one of its two
    /// sets, then a sample of that.
    Balanced(Vec<[Vec<usize>; 2]>),
}

impl Plan {
    pub(crate) fn steps_per_epoch(&self) -> usize {
        match self.whole_batches && self.train.len() >= self.batch {
            true => self.train.len() / self.batch,
            false => self.train.len().div_ceil(self.batch),
        }
    }

    /// Steps of the whole training.
    pub(crate) fn steps(&self) -> usize {
        let all = self.epochs * self.steps_per_epoch();
        self.limit.map_or(all, |limit| limit.min(all))
    }

    /// Steps that are done when the epoch, counted from 0, is.
    pub(crate) fn steps_until(&self, epoch: usize) -> usize {
        ((epoch + 1) * self.steps_per_epoch()).min(self.steps())
    }

    /// The batches from `epoch` on, without its first `steps_done` training batches.
    pub(crate) fn jobs(&self, epoch: usize, steps_done: usize) -> impl Iterator<Item = Job> {
        let epochs = self.steps().div_ceil(self.steps_per_epoch());
        (epoch..epochs).flat_map(move |current| {
            let skip = if current == epoch { steps_done } else { 0 };
            let steps = self.steps_until(current) - current * self.steps_per_epoch();
            let order = self.order(current);
            let train = order.chunks(self.batch).take(steps).skip(skip);
            let train = train.map(|samples| (Purpose::Train, samples));
            let validation = self.validation.chunks(self.batch).map(|samples| (Purpose::Validate, samples));
            let job = |(purpose, samples): (_, &[usize])| Job {
                epoch: current,
                purpose,
                samples: samples.to_vec(),
            };
            train.chain(validation).map(job).collect::<Vec<_>>()
        })
    }

    /// The training samples in the order of `epoch`.
    fn order(&self, epoch: usize) -> Vec<usize> {
        let mut random = random_stream(self.seed, epoch, None);
        match &self.order {
            Order::Shuffled => {
                let mut order = self.train.clone();
                order.shuffle(&mut random);
                order
            }
            Order::Balanced(pairs) => {
                let mut draw = |length: usize| random.random_range(0..length as u64) as usize;
                let one = |_: &usize| {
                    let pair = &pairs[draw(pairs.len())];
                    let set = &pair[draw(2)];
                    set[draw(set.len())]
                };
                self.train.iter().map(one).collect()
            }
        }
    }
}

/// Loads and prepares the batches in turn and sends them, until all are sent, one fails or nobody listens.
///
/// The samples of a batch are loaded side by side on threads of their own: loads that wait for a disk would hold up
/// the threads that compute.
pub(crate) fn prepare_ahead(
    jobs: impl Iterator<Item = Job>,
    settings: &Settings,
    load: &LoadVoxels,
    sender: SyncSender<Result<Batch, Error>>,
) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(settings.batch);
    let pool = match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool,
        Err(error) => {
            let failure =
                Error::Setting(format!("the {threads} threads that load samples did not start: {error}"));
            // Where nobody listens the training has ended for another reason.
            let _ = sender.send(Err(failure));
            return;
        }
    };
    for job in jobs {
        let batch = pool.install(|| prepare(job, settings, load));
        let failed = batch.is_err();
        if sender.send(batch).is_err() || failed {
            return;
        }
    }
}

fn prepare(job: Job, settings: &Settings, load: &LoadVoxels) -> Result<Batch, Error> {
    let one = |(place, &sample): (usize, &usize)| prepare_sample(sample, place, &job, settings, load);
    let samples: Vec<(Vec<f32>, [usize; 3])> =
        job.samples.par_iter().enumerate().map(one).collect::<Result<_, _>>()?;
    let shape = samples[0].1;
    if let Some(index) = samples.iter().position(|(_, other)| *other != shape) {
        let message = format!(
            "the view makes {:?} (D, H, W) of it and {shape:?} of sample {}, expected one shape in a batch; \
             set a canvas or crop in the view",
            samples[index].1, job.samples[0]
        );
        return Err(Error::Volume { sample: job.samples[index], message });
    }
    let input = samples.into_iter().flat_map(|(values, _)| values).collect();
    Ok(Batch { job, input, shape })
}

fn prepare_sample(
    sample: usize,
    place: usize,
    job: &Job,
    settings: &Settings,
    load: &LoadVoxels,
) -> Result<(Vec<f32>, [usize; 3]), Error> {
    let (voxels, shape) = load(sample).map_err(|message| Error::Volume { sample, message })?;
    voxels.check(shape).map_err(|message| Error::Volume { sample, message })?;
    let (view, augment) = (&settings.view, &settings.augment);
    if job.purpose == Purpose::Validate {
        return Ok(voxels.seen(view, shape, Crop::Centre));
    }
    let mut random = random_stream(settings.seed, job.epoch, Some(sample));
    // A sample that is drawn twice into one batch is varied in two ways.
    let earlier = job.samples[..place].iter().filter(|other| **other == sample).count();
    random.set_word_pos(earlier as u128 * WORDS_APART);
    let draw = augment.draw(&mut random, view.canvas_size(shape), view.crop_size(shape));
    let crop = draw.corner.map_or(Crop::Centre, Crop::At);
    let (mut values, shape) = voxels.seen(view, shape, crop);
    let span = f64::from(view.scale[1] - view.scale[0]).abs();
    augment.apply(&draw, &mut values, shape, view.outside(), span, &mut random);
    Ok((values, shape))
}

/// How far apart the random numbers of one sample's repetitions in a batch lie: more than one of them uses.
const WORDS_APART: u128 = 1 << 40;

/// Random numbers for the order of an epoch, or for one sample in it: the same on every machine.
fn random_stream(seed: u64, epoch: usize, sample: Option<usize>) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(((epoch as u64) << 32) | sample.map_or(0, |sample| sample as u64 + 1));
    random
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            train: (0..7).collect(),
            validation: vec![8, 9, 10],
            epochs: 2,
            limit: None,
            batch: 3,
            seed: 5,
            order: Order::Shuffled,
            whole_batches: false,
        }
    }

    fn of(jobs: &[Job], epoch: usize, purpose: Purpose) -> Vec<usize> {
        let jobs = jobs.iter().filter(|job| job.epoch == epoch && job.purpose == purpose);
        jobs.flat_map(|job| job.samples.clone()).collect()
    }

    #[test]
    fn every_epoch_sees_every_sample_once_in_another_order() {
        let jobs: Vec<Job> = plan().jobs(0, 0).collect();
        let (first, second) = (of(&jobs, 0, Purpose::Train), of(&jobs, 1, Purpose::Train));
        assert_ne!(first, second);
        for mut order in [first, second] {
            order.sort_unstable();
            assert_eq!(order, plan().train);
        }
        assert_eq!(of(&jobs, 1, Purpose::Validate), [8, 9, 10]);
        assert_eq!(jobs.len(), 2 * (plan().steps_per_epoch() + 1));
    }

    #[test]
    fn jobs_go_on_where_they_were_left() {
        let all: Vec<Job> = plan().jobs(0, 0).collect();
        assert_eq!(plan().jobs(0, 2).collect::<Vec<_>>(), all[2..]);
        assert_eq!(plan().jobs(0, 3).collect::<Vec<_>>(), all[3..]);
        assert_eq!(plan().jobs(1, 1).collect::<Vec<_>>(), all[5..]);
    }

    #[test]
    fn a_limit_of_steps_ends_within_an_epoch_and_validates_there() {
        let plan = Plan { limit: Some(4), ..plan() };
        let jobs: Vec<Job> = plan.jobs(0, 0).collect();
        let steps = |epoch| jobs.iter().filter(|j| j.epoch == epoch && j.purpose == Purpose::Train).count();
        assert_eq!((plan.steps(), steps(0), steps(1)), (4, 3, 1));
        assert_eq!(jobs.last().map(|job| job.purpose), Some(Purpose::Validate));
        assert_eq!((plan.steps_until(0), plan.steps_until(1)), (3, 4));
    }

    #[test]
    fn whole_batches_leave_out_the_rest() {
        let plan = Plan { whole_batches: true, ..plan() };
        let jobs: Vec<Job> = plan.jobs(0, 0).collect();
        assert_eq!((plan.steps_per_epoch(), plan.steps()), (2, 4));
        assert_eq!(of(&jobs, 0, Purpose::Train).len(), 6);
        // Fewer samples than a batch are one batch all the same.
        assert_eq!(Plan { batch: 10, ..plan }.steps_per_epoch(), 1);
    }

    #[test]
    fn a_balanced_order_draws_both_sets_as_often() {
        let pairs = vec![[vec![0], (1..7).collect()]];
        let plan = Plan { train: (0..7).collect(), epochs: 200, order: Order::Balanced(pairs), ..plan() };
        let jobs: Vec<Job> = plan.jobs(0, 0).collect();
        let drawn: Vec<usize> =
            jobs.iter().filter(|j| j.purpose == Purpose::Train).flat_map(|j| j.samples.clone()).collect();
        let rare = drawn.iter().filter(|sample| **sample == 0).count() as f64 / drawn.len() as f64;
        assert_eq!(drawn.len(), 200 * 7);
        // 1,400 fair coins: five standard deviations are 0.067.
        assert!((rare - 0.5).abs() < 0.067, "{rare}");
    }
}
