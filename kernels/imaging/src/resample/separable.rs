//! Resampling along each stored axis in turn, slab by slab.
//!
//! A task owns a slab of neighbouring result slices. For every source slice that one of them reads, it
//! resamples the plane (y first, over whole contiguous rows; then x) and adds it to those slices. Memory is
//! one slab of f32 per thread.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::taps::Taps;

/// Resamples `source` of `shape` by one set of taps per stored axis; x is fastest in both arrays.
pub(super) fn resample<S, D>(
    source: &[S],
    shape: [usize; 3],
    taps: &[Taps; 3],
    load: impl Fn(S) -> f32 + Sync,
    store: impl Fn(f32) -> D + Sync,
) -> Vec<D>
where
    S: Copy + Sync,
    D: Copy + Default + Send,
{
    let plane_shape = [taps[0].len(), taps[1].len()];
    let plane = plane_shape[0] * plane_shape[1];
    let slices = taps[2].len();
    let source_plane = shape[0] * shape[1];
    let slab = slab_slices(slices);
    let mut out = vec![D::default(); plane * slices];
    out.par_chunks_mut(plane * slab).enumerate().for_each_init(
        Scratch::default,
        |scratch, (index, result)| {
            let samples = index * slab..index * slab + result.len() / plane;
            scratch.sums.clear();
            scratch.sums.resize(result.len(), 0.0);
            for z in slices_read(&taps[2], samples.clone()) {
                let readers = samples.clone().map(|sample| taps[2].weight(sample, z));
                if readers.clone().all(|weight| weight == 0.0) {
                    continue;
                }
                let slice = &source[z * source_plane..(z + 1) * source_plane];
                resample_plane(slice, shape[0], taps, &load, &mut scratch.row, &mut scratch.plane);
                for (sums, weight) in scratch.sums.chunks_exact_mut(plane).zip(readers) {
                    if weight != 0.0 {
                        sums.iter_mut().zip(&scratch.plane).for_each(|(sum, &value)| *sum += weight * value);
                    }
                }
            }
            result.iter_mut().zip(&scratch.sums).for_each(|(voxel, &sum)| *voxel = store(sum));
        },
    );
    out
}

/// Result slices that come about while source slices come in, in their order. The arithmetic is that of [`resample`].
pub(super) struct Sums<'a, S, D> {
    taps: &'a [Taps; 3],
    row_voxels: usize,
    load: fn(S) -> f32,
    store: fn(f32) -> D,
    /// Source slices that have come.
    slices: usize,
    /// By result slice that has begun: its sums.
    begun: BTreeMap<usize, Vec<f32>>,
    /// Sums of slices that are done.
    spare: Vec<Vec<f32>>,
    scratch: Scratch,
    out: Vec<D>,
}

impl<'a, S: Copy, D: Copy + Default> Sums<'a, S, D> {
    /// For slices with rows of `row_voxels`.
    pub(super) fn new(
        taps: &'a [Taps; 3],
        row_voxels: usize,
        load: fn(S) -> f32,
        store: fn(f32) -> D,
    ) -> Sums<'a, S, D> {
        let out = vec![D::default(); taps.iter().map(Taps::len).product()];
        let (begun, spare, scratch) = (BTreeMap::new(), Vec::new(), Scratch::default());
        Sums { taps, row_voxels, load, store, slices: 0, begun, spare, scratch, out }
    }

    /// Takes the next source slice.
    pub(super) fn add(&mut self, slice: &[S]) {
        let z = self.slices;
        self.slices += 1;
        let along_z = &self.taps[2];
        let readers: Vec<(usize, f32)> = (0..along_z.len())
            .map(|sample| (sample, along_z.weight(sample, z)))
            .filter(|(_, weight)| *weight != 0.0)
            .collect();
        if readers.is_empty() {
            return;
        }
        let Scratch { row, plane, .. } = &mut self.scratch;
        resample_plane(slice, self.row_voxels, self.taps, &self.load, row, plane);
        for &(sample, weight) in &readers {
            let sums = self.begun.entry(sample).or_insert_with(|| {
                let mut sums = self.spare.pop().unwrap_or_default();
                sums.clear();
                sums.resize(plane.len(), 0.0);
                sums
            });
            sums.iter_mut().zip(&*plane).for_each(|(sum, &value)| *sum += weight * value);
        }
        let done = |sample: &usize| along_z.of(*sample).all(|(read, _)| read <= z);
        readers.iter().map(|(sample, _)| *sample).filter(done).for_each(|sample| self.end(sample));
    }

    /// Stores a result slice that has all that it reads.
    fn end(&mut self, sample: usize) {
        let Some(sums) = self.begun.remove(&sample) else { return };
        let start = sample * sums.len();
        let result = &mut self.out[start..start + sums.len()];
        result.iter_mut().zip(&sums).for_each(|(voxel, &sum)| *voxel = (self.store)(sum));
        self.spare.push(sums);
    }

    /// The result, once all source slices have come.
    pub(super) fn finish(self) -> Vec<D> {
        debug_assert!(self.begun.is_empty(), "every result slice reads source slices that there are");
        self.out
    }
}

/// Buffers that a thread keeps from slab to slab.
#[derive(Default)]
struct Scratch {
    sums: Vec<f32>,
    plane: Vec<f32>,
    row: Vec<f32>,
}

/// Slices per task: enough that few source slices are resampled twice, few enough that every thread has
/// several.
fn slab_slices(slices: usize) -> usize {
    (slices / (4 * rayon::current_num_threads())).clamp(4, 16)
}

/// The range of source slices that these samples read.
fn slices_read(taps: &Taps, samples: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let firsts = &taps.firsts()[samples];
    let from = firsts.iter().min().copied().unwrap_or(0);
    let to = firsts.iter().max().map_or(0, |&first| first + taps.width());
    from..to
}

/// Resamples one source slice along y, then x, into `plane`.
fn resample_plane<S: Copy>(
    slice: &[S],
    row_voxels: usize,
    taps: &[Taps; 3],
    load: &impl Fn(S) -> f32,
    row: &mut Vec<f32>,
    plane: &mut Vec<f32>,
) {
    let [along_x, along_y, _] = taps;
    plane.resize(along_x.len() * along_y.len(), 0.0);
    row.resize(row_voxels, 0.0);
    for (sample, result) in plane.chunks_exact_mut(along_x.len()).enumerate() {
        let mut written = false;
        for (y, weight) in along_y.of(sample) {
            let source = &slice[y * row_voxels..(y + 1) * row_voxels];
            if written {
                row.iter_mut().zip(source).for_each(|(sum, &voxel)| *sum += weight * load(voxel));
            } else {
                row.iter_mut().zip(source).for_each(|(sum, &voxel)| *sum = weight * load(voxel));
            }
            written = true;
        }
        resample_row(row, along_x, result);
    }
}

/// Resamples one row. The widths that occur in practice are compiled with their loop unrolled.
fn resample_row(row: &[f32], taps: &Taps, result: &mut [f32]) {
    match taps.width() {
        1 => resample_row_by::<1>(row, taps, result),
        2 => resample_row_by::<2>(row, taps, result),
        3 => resample_row_by::<3>(row, taps, result),
        4 => resample_row_by::<4>(row, taps, result),
        5 => resample_row_by::<5>(row, taps, result),
        6 => resample_row_by::<6>(row, taps, result),
        width => {
            let samples = taps.firsts().iter().zip(taps.weights().chunks_exact(width));
            for (value, (&first, weights)) in result.iter_mut().zip(samples) {
                *value = row[first..first + width]
                    .iter()
                    .zip(weights)
                    .map(|(&voxel, &weight)| weight * voxel)
                    .sum();
            }
        }
    }
}

fn resample_row_by<const WIDTH: usize>(row: &[f32], taps: &Taps, result: &mut [f32]) {
    let (weights, _) = taps.weights().as_chunks::<WIDTH>();
    for (value, (&first, weights)) in result.iter_mut().zip(taps.firsts().iter().zip(weights)) {
        let voxels = &row[first..first + WIDTH];
        *value = (0..WIDTH).map(|place| weights[place] * voxels[place]).sum();
    }
}
