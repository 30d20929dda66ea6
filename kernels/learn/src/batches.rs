//! Which samples a step sees and in what order, and their preparation ahead of the step.

use std::sync::mpsc::SyncSender;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::error::Error;
use crate::train::{LoadVolume, TrainConfig};
use crate::view::Crop;

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

/// The batches of a whole training, as a function of the seed alone.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) train: Vec<usize>,
    pub(crate) validation: Vec<usize>,
    pub(crate) epochs: usize,
    pub(crate) batch: usize,
    pub(crate) seed: u64,
}

impl Plan {
    pub(crate) fn steps_per_epoch(&self) -> usize {
        self.train.len().div_ceil(self.batch)
    }

    /// The batches from `epoch` on, without its first `steps_done` training batches.
    pub(crate) fn jobs(&self, epoch: usize, steps_done: usize) -> impl Iterator<Item = Job> {
        (epoch..self.epochs).flat_map(move |current| {
            let skip = if current == epoch { steps_done } else { 0 };
            let order = self.order(current);
            let train = order.chunks(self.batch).skip(skip).map(|samples| (Purpose::Train, samples));
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
        let mut order = self.train.clone();
        order.shuffle(&mut random_stream(self.seed, epoch, None));
        order
    }
}

/// Loads and prepares the batches in turn and sends them, until all are sent, one fails or nobody listens.
///
/// The samples of a batch are loaded side by side on threads of their own: loads that wait for a disk would hold up
/// the threads that compute.
pub(crate) fn prepare_ahead(
    jobs: impl Iterator<Item = Job>,
    config: &TrainConfig,
    load: &LoadVolume,
    sender: SyncSender<Result<Batch, Error>>,
) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(config.batch);
    let pool = match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool,
        Err(error) => {
            let failure =
                Error::Setting(format!("the {threads} threads that load volumes did not start: {error}"));
            // Where nobody listens the training has ended for another reason.
            let _ = sender.send(Err(failure));
            return;
        }
    };
    for job in jobs {
        let batch = pool.install(|| prepare(job, config, load));
        let failed = batch.is_err();
        if sender.send(batch).is_err() || failed {
            return;
        }
    }
}

fn prepare(job: Job, config: &TrainConfig, load: &LoadVolume) -> Result<Batch, Error> {
    let one = |&sample: &usize| prepare_sample(sample, &job, config, load);
    let samples: Vec<(Vec<f32>, [usize; 3])> = job.samples.par_iter().map(one).collect::<Result<_, _>>()?;
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
    job: &Job,
    config: &TrainConfig,
    load: &LoadVolume,
) -> Result<(Vec<f32>, [usize; 3]), Error> {
    let (hounsfield, shape) = load(sample).map_err(|message| Error::Volume { sample, message })?;
    check_volume(&hounsfield, shape).map_err(|message| Error::Volume { sample, message })?;
    if job.purpose == Purpose::Validate {
        return Ok(config.view.apply(&hounsfield, shape, Crop::Centre));
    }
    let mut random = random_stream(config.seed, job.epoch, Some(sample));
    let (canvas, size) = (config.view.canvas_size(shape), config.view.crop_size(shape));
    // All draws are made, wanted or not, so that one setting does not shift the random numbers of another.
    let corner = std::array::from_fn(|axis| {
        random.random_range(0..=canvas[axis].saturating_sub(size[axis]) as u64) as usize
    });
    let mirror: [bool; 3] = std::array::from_fn(|axis| random.random::<bool>() && config.flip[axis]);
    let crop = if config.random_crop { Crop::At(corner) } else { Crop::Centre };
    let (mut values, shape) = config.view.apply(&hounsfield, shape, crop);
    flip(&mut values, shape, mirror);
    Ok((values, shape))
}

/// Whether a volume has voxels, as many as its shape says.
pub(crate) fn check_volume(hounsfield: &[i16], shape: [usize; 3]) -> Result<(), String> {
    let expected: usize = shape.iter().product();
    if expected == 0 || hounsfield.len() != expected {
        return Err(format!(
            "{} voxels with shape {shape:?}, expected {expected} and more than none",
            hounsfield.len()
        ));
    }
    Ok(())
}

/// Mirrors `(D, H, W)` values along the chosen axes x, y, z.
fn flip(values: &mut [f32], [_, height, width]: [usize; 3], [x, y, z]: [bool; 3]) {
    if x {
        values.chunks_exact_mut(width).for_each(<[f32]>::reverse);
    }
    if y {
        values.chunks_exact_mut(height * width).for_each(|plane| reverse_blocks(plane, width));
    }
    if z {
        reverse_blocks(values, height * width);
    }
}

/// Reverses the order of the blocks of `size` values, each kept as it is.
fn reverse_blocks(values: &mut [f32], size: usize) {
    let count = values.len() / size;
    for block in 0..count / 2 {
        let (low, high) = values.split_at_mut((count - 1 - block) * size);
        low[block * size..][..size].swap_with_slice(&mut high[..size]);
    }
}

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
        Plan { train: (0..7).collect(), validation: vec![8, 9, 10], epochs: 2, batch: 3, seed: 5 }
    }

    #[test]
    fn every_epoch_sees_every_sample_once_in_another_order() {
        let jobs: Vec<Job> = plan().jobs(0, 0).collect();
        let of = |epoch, purpose| -> Vec<usize> {
            let jobs = jobs.iter().filter(|job| job.epoch == epoch && job.purpose == purpose);
            jobs.flat_map(|job| job.samples.clone()).collect()
        };
        let (first, second) = (of(0, Purpose::Train), of(1, Purpose::Train));
        assert_ne!(first, second);
        for mut order in [first, second] {
            order.sort_unstable();
            assert_eq!(order, plan().train);
        }
        assert_eq!(of(1, Purpose::Validate), [8, 9, 10]);
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
    fn flips_along_each_axis() {
        let values: Vec<f32> = (0..12).map(|value| value as f32).collect();
        let flipped = |axes| {
            let mut values = values.clone();
            flip(&mut values, [2, 3, 2], axes);
            values
        };
        assert_eq!(flipped([true, false, false])[..6], [1., 0., 3., 2., 5., 4.]);
        assert_eq!(flipped([false, true, false])[..6], [4., 5., 2., 3., 0., 1.]);
        assert_eq!(flipped([false, false, true])[..6], [6., 7., 8., 9., 10., 11.]);
    }
}
