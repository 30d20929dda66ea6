//! Resampling along each stored axis in turn.
//!
//! Two orders give the same result but for rounding, and the cheaper one is taken. Where a result has fewer slices than are
//! read for it, the slices that one of its slices reads are added up first, and the sum is resampled in its plane. Else
//! every source slice is resampled in its plane, and added to the slices that read it. In a plane y goes first, over whole
//! contiguous rows; then x.
//!
//! Loops over rows are compiled for what the processor has ([`Arch`]). None of them may fuse a product with a sum, so all
//! processors give the same bits.

use std::collections::BTreeMap;

use pulp::Arch;
use rayon::prelude::*;

use super::taps::Taps;

/// Resamples `source` of `shape` by one set of taps per stored axis; x is fastest in both arrays.
pub(super) fn resample<S, D>(
    source: &[S],
    shape: [usize; 3],
    taps: &[Taps; 3],
    load: impl Fn(S) -> f32 + Copy + Send + Sync,
    store: impl Fn(f32) -> D + Copy + Send + Sync,
) -> Vec<D>
where
    S: Copy + Sync,
    D: Copy + Default + Send,
{
    let plane = taps[0].len() * taps[1].len();
    let source_plane = shape[0] * shape[1];
    let slice = |z: usize| &source[z * source_plane..(z + 1) * source_plane];
    let mut out = vec![D::default(); plane * taps[2].len()];
    let (arch, stages) = (Arch::new(), Stages { row_voxels: shape[0], taps, load });
    if Order::of(&taps[2]) == Order::SlicesFirst {
        each_chunk(&mut out, plane, |scratch, sample, result| {
            let Scratch { sum, row, plane } = scratch;
            arch.dispatch(|| {
                match only(&taps[2], sample) {
                    Some(z) => stages.plane(slice(z), row, plane),
                    None => {
                        sum.clear();
                        sum.resize(source_plane, 0.0);
                        for block in blocks(source_plane) {
                            for (z, weight) in taps[2].of(sample) {
                                stages.add(&slice(z)[block.clone()], weight, &mut sum[block.clone()]);
                            }
                        }
                        stages.over(|value: f32| value).plane(sum, row, plane);
                    }
                }
                result.iter_mut().zip(&*plane).for_each(|(voxel, &value)| *voxel = store(value));
            });
        });
        return out;
    }
    let slab = slab_slices(taps[2].len());
    each_chunk(&mut out, plane * slab, |scratch, index, result| {
        let samples = index * slab..index * slab + result.len() / plane;
        let Scratch { sum, row, plane: resampled } = scratch;
        sum.clear();
        sum.resize(result.len(), 0.0);
        for z in slices_read(&taps[2], samples.clone()) {
            let readers = samples.clone().map(|sample| taps[2].weight(sample, z));
            if readers.clone().all(|weight| weight == 0.0) {
                continue;
            }
            arch.dispatch(|| {
                stages.plane(slice(z), row, resampled);
                for (sums, weight) in sum.chunks_exact_mut(plane).zip(readers) {
                    if weight != 0.0 {
                        stages.over(|value: f32| value).add(resampled, weight, sums);
                    }
                }
            });
        }
        result.iter_mut().zip(&*sum).for_each(|(voxel, &sum)| *voxel = store(sum));
    });
    out
}

/// Works on the chunks of a result, on all cores; in a thread of the pool one after the other. There each thread has a
/// volume of its own, and one that waited for its chunks would begin with another volume, whose memory comes on top.
fn each_chunk<D: Send>(out: &mut [D], length: usize, work: impl Fn(&mut Scratch, usize, &mut [D]) + Sync) {
    if rayon::current_thread_index().is_some() {
        let mut scratch = Scratch::default();
        out.chunks_mut(length).enumerate().for_each(|(number, chunk)| work(&mut scratch, number, chunk));
    } else {
        out.par_chunks_mut(length)
            .enumerate()
            .for_each_init(Scratch::default, |scratch, (number, chunk)| work(scratch, number, chunk));
    }
}

/// Which axis is resampled first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The slowest one.
    SlicesFirst,
    /// Those of the plane.
    PlaneFirst,
}

impl Order {
    /// The cheaper order, for the taps of the slowest axis: the one that resamples fewer planes.
    fn of(along_z: &Taps) -> Order {
        let read: std::collections::BTreeSet<usize> =
            (0..along_z.len()).flat_map(|sample| along_z.of(sample).map(|(z, _)| z)).collect();
        if along_z.len() <= read.len() { Order::SlicesFirst } else { Order::PlaneFirst }
    }
}

/// The slice that a sample is a copy of.
fn only(along_z: &Taps, sample: usize) -> Option<usize> {
    let mut read = along_z.of(sample);
    let first = read.next().filter(|(_, weight)| *weight == 1.0)?;
    read.next().is_none().then_some(first.0)
}

/// Voxels that are added up together: their sums stay in the nearest cache.
const BLOCK_VOXELS: usize = 1 << 12;

fn blocks(voxels: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..voxels).step_by(BLOCK_VOXELS).map(move |start| start..(start + BLOCK_VOXELS).min(voxels))
}

/// Result slices that come about while source slices come in, in their order. The arithmetic is that of [`resample`].
pub(super) struct Sums<'a, D, L, T> {
    taps: &'a [Taps; 3],
    row_voxels: usize,
    load: L,
    store: T,
    order: Order,
    arch: Arch,
    /// Source slices that have come.
    slices: usize,
    /// By result slice that has begun: its sums.
    begun: BTreeMap<usize, Vec<f32>>,
    /// Sums of slices that are done.
    spare: Vec<Vec<f32>>,
    scratch: Scratch,
    out: Vec<D>,
}

impl<'a, D: Copy + Default, L: Copy, T: Fn(f32) -> D> Sums<'a, D, L, T> {
    /// For slices with rows of `row_voxels`.
    pub(super) fn new(taps: &'a [Taps; 3], row_voxels: usize, load: L, store: T) -> Sums<'a, D, L, T> {
        let out = vec![D::default(); taps.iter().map(Taps::len).product()];
        let (begun, spare, scratch) = (BTreeMap::new(), Vec::new(), Scratch::default());
        let (order, arch) = (Order::of(&taps[2]), Arch::new());
        Sums { taps, row_voxels, load, store, order, arch, slices: 0, begun, spare, scratch, out }
    }

    /// Takes the next source slice.
    pub(super) fn add<S: Copy>(&mut self, slice: &[S])
    where
        L: Fn(S) -> f32,
    {
        let z = self.slices;
        self.slices += 1;
        let along_z = &self.taps[2];
        let weighted = (0..along_z.len()).map(|sample| (sample, along_z.weight(sample, z)));
        let readers: Vec<(usize, f32)> = weighted.filter(|(_, weight)| *weight != 0.0).collect();
        if readers.is_empty() {
            return;
        }
        let load = self.load;
        let stages = Stages { row_voxels: self.row_voxels, taps: self.taps, load };
        let plain = stages.over(|value: f32| value);
        if self.order == Order::PlaneFirst {
            let Scratch { row, plane, .. } = &mut self.scratch;
            self.arch.dispatch(|| stages.plane(slice, row, plane));
        }
        for &(sample, weight) in &readers {
            if self.order == Order::SlicesFirst && only(along_z, sample).is_some() {
                let Scratch { row, plane, .. } = &mut self.scratch;
                self.arch.dispatch(|| stages.plane(slice, row, plane));
                self.keep(sample);
                continue;
            }
            let wanted =
                if self.order == Order::SlicesFirst { slice.len() } else { self.scratch.plane.len() };
            let sums = self.begun.entry(sample).or_insert_with(|| zeros(self.spare.pop(), wanted));
            let plane = &self.scratch.plane;
            self.arch.dispatch(|| match self.order {
                Order::SlicesFirst => stages.add(slice, weight, sums),
                Order::PlaneFirst => plain.add(plane, weight, sums),
            });
        }
        let done = |sample: &usize| along_z.of(*sample).all(|(read, _)| read <= z);
        for sample in readers.iter().map(|(sample, _)| *sample).filter(done) {
            let Some(sums) = self.begun.remove(&sample) else { continue };
            let Scratch { row, plane, .. } = &mut self.scratch;
            match self.order {
                Order::SlicesFirst => self.arch.dispatch(|| plain.plane(&sums, row, plane)),
                Order::PlaneFirst => plane.copy_from_slice(&sums),
            }
            self.keep(sample);
            self.spare.push(sums);
        }
    }

    /// Stores the plane as a result slice.
    fn keep(&mut self, sample: usize) {
        let plane = &self.scratch.plane;
        let result = &mut self.out[sample * plane.len()..(sample + 1) * plane.len()];
        result.iter_mut().zip(plane).for_each(|(voxel, &value)| *voxel = (self.store)(value));
    }

    /// The result, once all source slices have come.
    pub(super) fn finish(self) -> Vec<D> {
        debug_assert!(self.begun.is_empty(), "every result slice reads source slices that there are");
        self.out
    }
}

fn zeros(spare: Option<Vec<f32>>, count: usize) -> Vec<f32> {
    let mut sums = spare.unwrap_or_default();
    sums.clear();
    sums.resize(count, 0.0);
    sums
}

/// Buffers that a thread keeps from slice to slice.
#[derive(Default)]
struct Scratch {
    /// Added up slices of the source, or of the result.
    sum: Vec<f32>,
    row: Vec<f32>,
    plane: Vec<f32>,
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

/// The stages of resampling; `load` makes a stored voxel a number. All of them are compiled into their callers, so that
/// [`Arch::dispatch`] reaches their loops.
#[derive(Clone, Copy)]
struct Stages<'a, L> {
    row_voxels: usize,
    taps: &'a [Taps; 3],
    load: L,
}

impl<'a, L> Stages<'a, L> {
    /// The same stages over voxels of another type.
    fn over<M>(&self, load: M) -> Stages<'a, M> {
        Stages { row_voxels: self.row_voxels, taps: self.taps, load }
    }

    /// Adds weighted voxels to sums.
    #[inline(always)]
    fn add<S: Copy>(&self, voxels: &[S], weight: f32, sums: &mut [f32])
    where
        L: Fn(S) -> f32,
    {
        sums.iter_mut().zip(voxels).for_each(|(sum, &voxel)| *sum += weight * (self.load)(voxel));
    }

    /// Resamples one slice along y, then x, into `plane`.
    #[inline(always)]
    fn plane<S: Copy>(&self, slice: &[S], row: &mut Vec<f32>, plane: &mut Vec<f32>)
    where
        L: Fn(S) -> f32,
    {
        let [along_x, along_y, _] = self.taps;
        plane.resize(along_x.len() * along_y.len(), 0.0);
        row.resize(self.row_voxels, 0.0);
        for (sample, result) in plane.chunks_exact_mut(along_x.len()).enumerate() {
            let mut written = false;
            for (y, weight) in along_y.of(sample) {
                let source = &slice[y * self.row_voxels..(y + 1) * self.row_voxels];
                if written {
                    self.add(source, weight, row);
                } else {
                    row.iter_mut().zip(source).for_each(|(sum, &voxel)| *sum = weight * (self.load)(voxel));
                }
                written = true;
            }
            resample_row(row, along_x, result);
        }
    }
}

/// Resamples one row. The widths that occur in practice are compiled with their loop unrolled.
#[inline(always)]
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

#[inline(always)]
fn resample_row_by<const WIDTH: usize>(row: &[f32], taps: &Taps, result: &mut [f32]) {
    let (weights, _) = taps.weights().as_chunks::<WIDTH>();
    for (value, (&first, weights)) in result.iter_mut().zip(taps.firsts().iter().zip(weights)) {
        let voxels = &row[first..first + WIDTH];
        *value = (0..WIDTH).map(|place| weights[place] * voxels[place]).sum();
    }
}
