//! The arithmetic of 3D convolution on CPU slices: tiles of the input are unfolded (im2col) into a matrix that
//! stays in the second-level cache, and multiplied with the weights.
//!
//! How the work is cut into tasks depends on the shapes alone, and every sum is taken in the order of the
//! samples, tiles and channel blocks, whatever the number of threads.

use std::ops::Range;

use candle_core::{CpuStorage, WithDType};
use rayon::prelude::*;

use crate::conv::Geometry;
use crate::matrix::{Matrix, multiply_into};

/// `(N, O, D', H', W')` from `x` `(N, C, D, H, W)` and `w` `(O, C, kd, kh, kw)`, all dense.
pub(crate) fn forward<T: WithDType>(g: &Geometry, x: &[T], w: &[T]) -> CpuStorage {
    let voxels = g.output_voxels();
    let block = forward_channel_block(g);
    let tiles: Vec<Tile> = tiles(voxels, tile_length(block * g.taps()))
        .into_par_iter()
        .map(|range| Tile::new(g, range))
        .collect();
    let mut y = vec![T::zero(); g.batch * g.out_channels * voxels];
    let samples =
        y.par_chunks_mut(g.out_channels * voxels).zip(x.par_chunks(g.in_channels * g.input_voxels()));
    samples.for_each(|(y, x)| {
        let products: Vec<Vec<T>> = tiles
            .par_iter()
            .map_init(Vec::new, |columns, tile| forward_tile(g, x, w, block, tile, columns))
            .collect();
        y.par_chunks_mut(voxels).enumerate().for_each(|(channel, row)| {
            for (tile, product) in tiles.iter().zip(&products) {
                row[tile.range.clone()].copy_from_slice(&product[channel * tile.len()..][..tile.len()]);
            }
        });
    });
    T::to_cpu_storage_owned(y)
}

/// `(N, C, D, H, W)`, the gradient of the input, from `dy` `(N, O, D', H', W')` and the weight.
pub(crate) fn backward_data<T: WithDType>(g: &Geometry, dy: &[T], w: &[T]) -> CpuStorage {
    let unit_stride = g.stride == [1; 3];
    if unit_stride && (0..3).all(|axis| g.padding[axis] < g.kernel[axis]) {
        // With stride 1 the gradient is itself a convolution, with the mirrored weight: nothing to add up in memory.
        return forward(&mirrored(g), dy, &mirrored_weight(g, w));
    }
    let (voxels, taps, block) = (g.input_voxels(), g.taps(), CHANNEL_BLOCK);
    let mut dx = vec![T::zero(); g.batch * g.in_channels * voxels];
    let samples =
        dx.par_chunks_mut(g.in_channels * voxels).zip(dy.par_chunks(g.out_channels * g.output_voxels()));
    samples.for_each(|(dx, dy)| {
        dx.par_chunks_mut(block * voxels).enumerate().for_each(|(index, dx)| {
            let (first, rows) = (index * block, dx.len() / voxels * taps);
            let weight = Matrix::new(&w[first * taps..], g.out_channels, rows, g.in_channels * taps);
            let mut columns = Vec::new();
            for range in tiles(g.output_voxels(), tile_length(rows)) {
                let tile = Tile::new(g, range);
                let gradient =
                    Matrix::new(&dy[tile.range.start..], g.out_channels, tile.len(), g.output_voxels());
                columns.resize(rows * tile.len(), T::zero());
                multiply_into(&mut columns, weight.transposed(), gradient, false);
                fold(g, &columns, &tile, dx);
            }
        });
    });
    T::to_cpu_storage_owned(dx)
}

/// `(O, C, kd, kh, kw)`, the gradient of the weight, from the input and `dy` `(N, O, D', H', W')`.
pub(crate) fn backward_filter<T: WithDType>(g: &Geometry, x: &[T], dy: &[T]) -> CpuStorage {
    let taps = g.taps();
    let blocks: Vec<Range<usize>> = tiles(g.in_channels, CHANNEL_BLOCK);
    // Few channel blocks would leave most threads without work: then each sample is a task of its own as well.
    let samples_per_task = if blocks.len() < 16 { 1 } else { g.batch };
    let groups = tiles(g.batch, samples_per_task);
    let tasks: Vec<(&Range<usize>, &Range<usize>)> =
        blocks.iter().flat_map(|block| groups.iter().map(move |group| (block, group))).collect();
    let partial: Vec<Vec<T>> = tasks
        .into_par_iter()
        .map(|(block, group)| filter_block(g, x, dy, block.clone(), group.clone()))
        .collect();
    let mut dw = vec![T::zero(); g.out_channels * g.in_channels * taps];
    for (index, partial) in partial.iter().enumerate() {
        let block = &blocks[index / groups.len()];
        let columns = block.len() * taps;
        for (row, partial) in dw.chunks_exact_mut(g.in_channels * taps).zip(partial.chunks_exact(columns)) {
            let row = &mut row[block.start * taps..block.end * taps];
            row.iter_mut().zip(partial).for_each(|(sum, &term)| *sum += term);
        }
    }
    T::to_cpu_storage_owned(dw)
}

/// Elements of an unfolded tile: 0.9 MB of f32, which fits a second-level cache of 1 MB.
const TILE_ELEMENTS: usize = 128 * TILE_ROWS;
/// Rows of an unfolded tile in the forward pass: 64 channels of a 3x3x3 kernel.
const TILE_ROWS: usize = 1_728;
/// Input channels of one task in the backward passes.
const CHANNEL_BLOCK: usize = 16;

/// Input channels that are unfolded together in the forward pass.
fn forward_channel_block(g: &Geometry) -> usize {
    (TILE_ROWS / g.taps()).clamp(1, g.in_channels)
}

/// Output voxels in a tile whose unfolded matrix has `rows` rows: a multiple of the 64 that one AVX-512 kernel of the
/// matrix product takes at once.
fn tile_length(rows: usize) -> usize {
    (TILE_ELEMENTS / rows / 64 * 64).clamp(64, 2048)
}

/// `0..total` in pieces of `length`, the last one shorter.
fn tiles(total: usize, length: usize) -> Vec<Range<usize>> {
    (0..total).step_by(length).map(|start| start..total.min(start + length)).collect()
}

/// The product of the weight with one unfolded tile of one sample, `(O, tile)`.
fn forward_tile<T: WithDType>(
    g: &Geometry,
    x: &[T],
    w: &[T],
    block: usize,
    tile: &Tile,
    columns: &mut Vec<T>,
) -> Vec<T> {
    let mut product = vec![T::zero(); g.out_channels * tile.len()];
    for channels in tiles(g.in_channels, block) {
        let rows = channels.len() * g.taps();
        let weight =
            Matrix::new(&w[channels.start * g.taps()..], g.out_channels, rows, g.in_channels * g.taps());
        let first = channels.start;
        let unfolded = unfolded(g, x, channels, tile, columns);
        multiply_into(&mut product, weight, unfolded, first > 0);
    }
    product
}

/// The weight gradient of some channels over some samples, `(O, channels * taps)`.
fn filter_block<T: WithDType>(
    g: &Geometry,
    x: &[T],
    dy: &[T],
    channels: Range<usize>,
    samples: Range<usize>,
) -> Vec<T> {
    let rows = channels.len() * g.taps();
    let mut sum = vec![T::zero(); g.out_channels * rows];
    let mut columns = Vec::new();
    let first = samples.start;
    for range in tiles(g.output_voxels(), tile_length(rows)) {
        let tile = Tile::new(g, range);
        for sample in samples.clone() {
            let x = &x[sample * g.in_channels * g.input_voxels()..];
            let dy = &dy[sample * g.out_channels * g.output_voxels() + tile.range.start..];
            let gradient = Matrix::new(dy, g.out_channels, tile.len(), g.output_voxels());
            let unfolded = unfolded(g, x, channels.clone(), &tile, &mut columns);
            multiply_into(&mut sum, gradient, unfolded.transposed(), tile.range.start > 0 || sample > first);
        }
    }
    sum
}

/// A tile of flattened output positions, and where each tap finds its voxels.
struct Tile {
    range: Range<usize>,
    /// For each tap in memory order, the runs inside the input, in the order of the tile.
    taps: Vec<Vec<Run>>,
}

/// Positions of a tile whose input voxels lie evenly spaced in the memory of a channel.
struct Run {
    /// Where the run starts in the tile.
    at: usize,
    /// Where it starts in the channel.
    source: usize,
    length: usize,
}

impl Tile {
    fn new(g: &Geometry, range: Range<usize>) -> Self {
        let mut taps = Vec::with_capacity(g.taps());
        for d in 0..g.kernel[0] {
            for h in 0..g.kernel[1] {
                for w in 0..g.kernel[2] {
                    taps.push(runs(g, [d, h, w], range.clone()));
                }
            }
        }
        Self { range, taps }
    }

    fn len(&self) -> usize {
        self.range.len()
    }
}

/// The runs of one tap: one per output line, or fewer where lines follow each other without a gap.
fn runs(g: &Geometry, tap: [usize; 3], range: Range<usize>) -> Vec<Run> {
    let [_, height, width] = g.output;
    let valid = valid_run(g, tap[2]);
    let mut runs: Vec<Run> = Vec::new();
    for line in range.start / width..range.end.div_ceil(width) {
        let Some(source) = input_line(g, tap, [line / height, line % height]) else { continue };
        let start = range.start.max(line * width + valid.start);
        let end = range.end.min(line * width + valid.end);
        if start >= end {
            continue;
        }
        let source = source + (start - line * width) * g.stride[2] + tap[2] - g.padding[2];
        let (at, length) = (start - range.start, end - start);
        match runs.last_mut() {
            Some(last)
                if last.at + last.length == at && last.source + last.length * g.stride[2] == source =>
            {
                last.length += length;
            }
            _ => runs.push(Run { at, source, length }),
        }
    }
    runs
}

/// Where the input line under a tap starts for an output line, or nothing where it lies in the padding along D or H.
fn input_line(g: &Geometry, tap: [usize; 3], line: [usize; 2]) -> Option<usize> {
    let mut position = [0; 2];
    for axis in 0..2 {
        let padded = line[axis] * g.stride[axis] + tap[axis];
        position[axis] = padded.checked_sub(g.padding[axis]).filter(|&at| at < g.input[axis])?;
    }
    Some((position[0] * g.input[1] + position[1]) * g.input[2])
}

/// The output positions along W whose input voxel under tap `tap` along W is not in the padding.
fn valid_run(g: &Geometry, tap: usize) -> Range<usize> {
    let (stride, padding) = (g.stride[2], g.padding[2]);
    let start = padding.saturating_sub(tap).div_ceil(stride);
    let end = (g.input[2] + padding).saturating_sub(tap).div_ceil(stride);
    start..end.min(g.output[2])
}

/// The matrix `(channels * taps, tile)` of the input voxels under each weight, in `columns` where it must be made.
fn unfolded<'a, T: WithDType>(
    g: &Geometry,
    x: &'a [T],
    channels: Range<usize>,
    tile: &Tile,
    columns: &'a mut Vec<T>,
) -> Matrix<'a, T> {
    let voxels = g.input_voxels();
    if g.kernel == [1; 3] && g.stride == [1; 3] && g.padding == [0; 3] {
        // A 1x1x1 kernel reads the input as it lies.
        return Matrix::new(
            &x[channels.start * voxels + tile.range.start..],
            channels.len(),
            tile.len(),
            voxels,
        );
    }
    let rows = channels.len() * g.taps();
    columns.resize(rows * tile.len(), T::zero());
    let channels = channels.map(|channel| &x[channel * voxels..][..voxels]);
    let taps = channels.flat_map(|x| tile.taps.iter().map(move |runs| (x, runs)));
    for (row, (x, runs)) in columns.chunks_exact_mut(tile.len()).zip(taps) {
        unfold_row(x, runs, g.stride[2], row);
    }
    Matrix::new(columns, rows, tile.len(), tile.len())
}

/// The input voxels of one channel under one tap; zero outside the input.
fn unfold_row<T: WithDType>(x: &[T], runs: &[Run], stride: usize, row: &mut [T]) {
    let mut filled = 0;
    for run in runs {
        row[filled..run.at].fill(T::zero());
        filled = run.at + run.length;
        let target = &mut row[run.at..filled];
        if stride == 1 {
            target.copy_from_slice(&x[run.source..][..run.length]);
        } else {
            let source = x[run.source..].iter().step_by(stride);
            target.iter_mut().zip(source).for_each(|(target, &value)| *target = value);
        }
    }
    row[filled..].fill(T::zero());
}

/// Adds the columns of one tile back to the input voxels they were taken from; `dx` holds whole channels.
fn fold<T: WithDType>(g: &Geometry, columns: &[T], tile: &Tile, dx: &mut [T]) {
    let mut rows = columns.chunks_exact(tile.len());
    for dx in dx.chunks_exact_mut(g.input_voxels()) {
        for (runs, row) in tile.taps.iter().zip(&mut rows) {
            for run in runs {
                let sums = dx[run.source..].iter_mut().step_by(g.stride[2]);
                sums.zip(&row[run.at..][..run.length]).for_each(|(sum, &term)| *sum += term);
            }
        }
    }
}

/// The convolution that computes the input gradient of `g`, which has stride 1.
fn mirrored(g: &Geometry) -> Geometry {
    Geometry {
        in_channels: g.out_channels,
        out_channels: g.in_channels,
        input: g.output,
        output: g.input,
        padding: std::array::from_fn(|axis| g.kernel[axis] - 1 - g.padding[axis]),
        ..*g
    }
}

/// The weight with its channels exchanged and its taps reversed along all three axes.
fn mirrored_weight<T: WithDType>(g: &Geometry, w: &[T]) -> Vec<T> {
    let taps = g.taps();
    let mut mirrored = vec![T::zero(); w.len()];
    for (index, kernel) in w.chunks_exact(taps).enumerate() {
        let (out_channel, in_channel) = (index / g.in_channels, index % g.in_channels);
        let target = &mut mirrored[(in_channel * g.out_channels + out_channel) * taps..][..taps];
        target.iter_mut().zip(kernel.iter().rev()).for_each(|(target, &weight)| *target = weight);
    }
    mirrored
}
