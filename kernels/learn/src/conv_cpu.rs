//! The arithmetic of 3D convolution on CPU slices.
//!
//! The voxels under the taps of some output positions are unfolded into a panel that stays in the nearest caches, and
//! multiplied with the weights, which are read as they lie. All three passes come down to that product. Every element
//! is a sum in an order that the shapes decide: how the work is cut into tasks does not touch it.

use std::ops::Range;

use candle_core::CpuStorage;
use rayon::prelude::*;

use crate::conv::Geometry;
use crate::conv_unfold::{Tile, Window};
use crate::panel::{Product, Real, Widths, aligned};
use crate::vectorised::vectorised;

/// `(N, O, D', H', W')` from `x` `(N, C, D, H, W)` and `w` `(O, C, kd, kh, kw)`, all dense.
pub(crate) fn forward<T: Real>(g: &Geometry, x: &[T], w: &[T]) -> CpuStorage {
    T::to_cpu_storage_owned(correlate(&window(g), x, w))
}

/// `(N, C, D, H, W)`, the gradient of the input, from `dy` `(N, O, D', H', W')` and the weight.
///
/// It is itself a correlation of stride 1 with the mirrored weight, for each residue of the input's position by the
/// stride another one: with stride 2 there are eight, each with the taps that meet such positions.
pub(crate) fn backward_data<T: Real>(g: &Geometry, dy: &[T], w: &[T]) -> CpuStorage {
    if g.stride == [1; 3] {
        let phase = Phase::new(g, [0; 3]);
        return T::to_cpu_storage_owned(correlate(&phase.window, dy, &phase.weight(g, w)));
    }
    let mut dx = vec![T::zero(); g.batch * g.in_channels * g.input_voxels()];
    let [depth, height, width] = g.stride;
    for residue in 0..depth * height * width {
        let residues = [residue / (height * width), residue / width % height, residue % width];
        let phase = Phase::new(g, residues);
        if phase.window.positions() > 0 && phase.window.taps() > 0 {
            let part = correlate(&phase.window, dy, &phase.weight(g, w));
            phase.put(g, &part, &mut dx);
        }
    }
    T::to_cpu_storage_owned(dx)
}

/// `(O, C, kd, kh, kw)`, the gradient of the weight, from the input and `dy` `(N, O, D', H', W')`.
pub(crate) fn backward_filter<T: Real>(g: &Geometry, x: &[T], dy: &[T]) -> CpuStorage {
    let (window, taps) = (window(g), g.taps());
    let panels = GradientPanels::new(g, dy);
    let tiles: Vec<Tile> = cut(window.positions(), FILTER_DEPTH)
        .into_par_iter()
        .map(|range| Tile::new(&window, range))
        .collect();
    let block = (g.in_channels * taps / FILTER_TASKS).clamp(1, FILTER_ROWS).div_ceil(taps);
    let mut dw = vec![T::zero(); g.out_channels * g.in_channels * taps];
    let mut tasks: Vec<Vec<&mut [T]>> =
        (0..g.in_channels.div_ceil(block)).map(|_| Vec::with_capacity(g.out_channels)).collect();
    for row in dw.chunks_exact_mut(g.in_channels * taps) {
        row.chunks_mut(block * taps).zip(&mut tasks).for_each(|(piece, task)| task.push(piece));
    }
    tasks.into_par_iter().enumerate().for_each_init(Scratch::default, |scratch, (index, mut pieces)| {
        let channels = index * block..g.in_channels.min((index + 1) * block);
        let rows = channels.len() * taps;
        let unfolded = aligned(&mut scratch.unfolded, rows * FILTER_DEPTH);
        let sums = aligned(&mut scratch.sums, rows * panels.columns());
        for tile in &tiles {
            vectorised(
                #[inline(always)]
                || tile.unfold(&window, x, channels.clone(), unfolded, FILTER_DEPTH),
            );
            for panel in &panels.panels {
                Product {
                    panel: &panel.values[tile.range.start * panel.width..tile.range.end * panel.width],
                    width: panel.width,
                    rows: unfolded,
                    row_stride: FILTER_DEPTH,
                    count: rows,
                    out: &mut sums[rows * panel.start..][..rows * panel.width],
                    accumulate: tile.range.start > 0,
                }
                .compute();
            }
        }
        for (channel, piece) in pieces.iter_mut().enumerate() {
            let panel = panels.of_channel(channel);
            let column = sums[rows * panel.start + channel - panel.start..].iter().step_by(panel.width);
            piece.iter_mut().zip(column).for_each(|(weight, &sum)| *weight = sum);
        }
    });
    T::to_cpu_storage_owned(dw)
}

/// Rows of an unfolded panel in the forward pass, about: with 64 columns of f32 it takes a tenth of a second-level cache.
const FORWARD_DEPTH: usize = 432;
/// Positions whose products are added up at once in the gradient of the weight.
const FILTER_DEPTH: usize = 128;
/// Rows that a task of the gradient of the weight unfolds, at most.
const FILTER_ROWS: usize = 108;
/// Tasks of the gradient of the weight, at least, where there are so many rows.
const FILTER_TASKS: usize = 16;

/// Input channels whose weights are mirrored together: what is read of an output channel then is a few pages long.
const WEIGHT_ROWS: usize = 16;

/// Memory that a thread keeps from task to task.
struct Scratch<T> {
    unfolded: Vec<T>,
    sums: Vec<T>,
}

impl<T> Default for Scratch<T> {
    fn default() -> Self {
        Self { unfolded: Vec::new(), sums: Vec::new() }
    }
}

fn window(g: &Geometry) -> Window {
    Window {
        batch: g.batch,
        in_channels: g.in_channels,
        out_channels: g.out_channels,
        input: g.input,
        kernel: g.kernel,
        output: g.output,
        stride: g.stride,
        offset: g.padding.map(|padding| -padding.cast_signed()),
    }
}

/// `0..total` in pieces of `length`, the last one shorter.
fn cut(total: usize, length: usize) -> Vec<Range<usize>> {
    (0..total).step_by(length).map(|start| start..total.min(start + length)).collect()
}

/// `(N, O, D', H', W')` from `x` `(N, C, D, H, W)` and `w` `(O, C, kd, kh, kw)`.
fn correlate<T: Real>(window: &Window, x: &[T], w: &[T]) -> Vec<T> {
    let (widths, voxels, channels) = (Widths::of::<T>(), window.output_voxels(), window.out_channels);
    let tiles = cut(window.positions(), widths.panel);
    // Each element is computed by itself, so that this division is free to follow the threads.
    let wanted = rayon::current_num_threads().div_ceil(tiles.len());
    let share = channels.div_ceil(wanted).max(48).min(channels);
    let shares = channels.div_ceil(share);
    let mut y = vec![T::zero(); window.batch * channels * voxels];
    let mut tasks: Vec<Vec<&mut [T]>> =
        (0..tiles.len() * shares).map(|_| Vec::with_capacity(share)).collect();
    for (row, mut rest) in y.chunks_exact_mut(voxels).enumerate() {
        let (sample, channel) = (row / channels, row % channels);
        let mut start = sample * voxels;
        while !rest.is_empty() {
            let tile = start / widths.panel;
            let piece = rest.split_off_mut(..tiles[tile].end.min((sample + 1) * voxels) - start);
            let piece = piece.unwrap_or_default();
            start += piece.len();
            tasks[tile * shares + channel / share].push(piece);
        }
    }
    let operands = Operands { window, x, w, widths };
    tasks.into_par_iter().enumerate().for_each_init(Scratch::default, |scratch, (index, pieces)| {
        let first = index % shares * share;
        let range = first..channels.min(first + share);
        operands.correlate_tile(tiles[index / shares].clone(), range, scratch, pieces);
    });
    y
}

/// What all tasks of a correlation share.
struct Operands<'a, T> {
    window: &'a Window,
    x: &'a [T],
    w: &'a [T],
    widths: Widths,
}

impl<T: Real> Operands<'_, T> {
    /// The outputs of some channels at the positions of a tile, in `pieces`: by sample, then by channel.
    fn correlate_tile(
        &self,
        positions: Range<usize>,
        out_channels: Range<usize>,
        scratch: &mut Scratch<T>,
        mut pieces: Vec<&mut [T]>,
    ) {
        let Self { window, x, w, widths } = *self;
        let (taps, count) = (window.taps(), out_channels.len());
        let width = widths.fitting(positions.len());
        let tile = Tile::new(window, positions);
        let sums = aligned(&mut scratch.sums, count * width);
        for channels in cut(window.in_channels, (FORWARD_DEPTH / taps).max(1)) {
            let depth = channels.len() * taps;
            let unfolded = aligned(&mut scratch.unfolded, depth * width);
            vectorised(
                #[inline(always)]
                || tile.unfold(window, x, channels.clone(), unfolded, width),
            );
            Product {
                panel: unfolded,
                width,
                rows: &w[(out_channels.start * window.in_channels + channels.start) * taps..],
                row_stride: window.in_channels * taps,
                count,
                out: sums,
                accumulate: channels.start > 0,
            }
            .compute();
        }
        let mut at = 0;
        for pieces in pieces.chunks_exact_mut(count) {
            let length = pieces[0].len();
            for (piece, sums) in pieces.iter_mut().zip(sums.chunks_exact(width)) {
                piece.copy_from_slice(&sums[at..at + length]);
            }
            at += length;
        }
    }
}

/// The gradient of the output in panels of some channels each, with a row for each position.
struct GradientPanels<T> {
    panels: Vec<GradientPanel<T>>,
    /// Channels of all panels but the last.
    widest: usize,
}

struct GradientPanel<T> {
    /// The first channel.
    start: usize,
    /// Channels, and zeros up to a multiple of the vectors' lanes.
    width: usize,
    values: Vec<T>,
}

impl<T: Real> GradientPanels<T> {
    fn new(g: &Geometry, dy: &[T]) -> Self {
        let (widths, voxels) = (Widths::of::<T>(), g.output_voxels());
        let panel = |channels: Range<usize>| {
            let width = widths.fitting(channels.len());
            let mut values = vec![T::zero(); g.batch * voxels * width];
            let blocks = values.par_chunks_mut(voxels * width).enumerate();
            blocks.for_each(|(sample, values)| {
                let dy =
                    &dy[(sample * g.out_channels + channels.start) * voxels..][..channels.len() * voxels];
                transpose(dy, voxels, values, width);
            });
            GradientPanel { start: channels.start, width, values }
        };
        let panels = cut(g.out_channels, widths.panel).into_par_iter().map(panel).collect();
        Self { panels, widest: widths.panel }
    }

    /// Columns of all panels, those of zeros too.
    fn columns(&self) -> usize {
        self.panels.iter().map(|panel| panel.width).sum()
    }

    fn of_channel(&self, channel: usize) -> &GradientPanel<T> {
        &self.panels[channel / self.widest]
    }
}

/// Puts rows of `length` each as columns into rows of `width`.
fn transpose<T: Real>(rows: &[T], length: usize, columns: &mut [T], width: usize) {
    /// Elements of a row that are moved before the next row's: their columns stay in the nearest cache.
    const BLOCK: usize = 64;
    columns.par_chunks_mut(BLOCK * width).enumerate().for_each(|(block, columns)| {
        for (index, row) in rows.chunks_exact(length).enumerate() {
            let targets = columns[index..].iter_mut().step_by(width);
            targets.zip(&row[block * BLOCK..]).for_each(|(target, &value)| *target = value);
        }
    });
}

/// The inputs whose position leaves the residues `residues` when divided by the stride, and the correlation of the
/// output's gradient that is theirs.
struct Phase {
    residues: [usize; 3],
    /// The tap with the lowest index that meets these inputs; the others are whole strides away.
    first_tap: [usize; 3],
    window: Window,
}

impl Phase {
    fn new(g: &Geometry, residues: [usize; 3]) -> Self {
        // Input z is under tap t of output (z + padding - t) / stride. With z = residue + stride m and the taps
        // t = first + stride i, that is m + (residue + padding - first) / stride - i: a mirrored kernel.
        let first_tap: [usize; 3] =
            std::array::from_fn(|axis| (residues[axis] + g.padding[axis]) % g.stride[axis]);
        let kernel: [usize; 3] = std::array::from_fn(|axis| {
            g.kernel[axis].saturating_sub(first_tap[axis]).div_ceil(g.stride[axis])
        });
        let window = Window {
            batch: g.batch,
            in_channels: g.out_channels,
            out_channels: g.in_channels,
            input: g.output,
            kernel,
            output: std::array::from_fn(|axis| {
                g.input[axis].saturating_sub(residues[axis]).div_ceil(g.stride[axis])
            }),
            stride: [1; 3],
            offset: std::array::from_fn(|axis| {
                let shift = (residues[axis] + g.padding[axis] - first_tap[axis]) / g.stride[axis];
                shift.cast_signed() + 1 - kernel[axis].cast_signed()
            }),
        };
        Self { residues, first_tap, window }
    }

    /// The weight with its channels exchanged, and of its taps those of this phase, mirrored.
    fn weight<T: Real>(&self, g: &Geometry, w: &[T]) -> Vec<T> {
        let (taps, [_, height, width]) = (self.window.taps(), self.window.kernel);
        let source: Vec<usize> = (0..taps)
            .rev()
            .map(|tap| {
                let tap = [tap / (height * width), tap / width % height, tap % width];
                let [d, h, w]: [usize; 3] =
                    std::array::from_fn(|axis| self.first_tap[axis] + tap[axis] * g.stride[axis]);
                (d * g.kernel[1] + h) * g.kernel[2] + w
            })
            .collect();
        let mut mirrored = vec![T::zero(); g.in_channels * g.out_channels * taps];
        let row_length = g.out_channels * taps;
        mirrored.par_chunks_mut(WEIGHT_ROWS * row_length).enumerate().for_each(|(block, rows)| {
            let first = block * WEIGHT_ROWS;
            for out_channel in 0..g.out_channels {
                let kernels = w[(out_channel * g.in_channels + first) * g.taps()..].chunks_exact(g.taps());
                for (row, kernel) in rows.chunks_exact_mut(row_length).zip(kernels) {
                    let row = &mut row[out_channel * taps..][..taps];
                    row.iter_mut().zip(&source).for_each(|(weight, &tap)| *weight = kernel[tap]);
                }
            }
        });
        mirrored
    }

    /// Puts this phase's part of the gradient where it belongs.
    fn put<T: Real>(&self, g: &Geometry, part: &[T], dx: &mut [T]) {
        let [_, height, width] = self.window.output;
        let volumes = dx.par_chunks_mut(g.input_voxels()).zip(part.par_chunks(self.window.output_voxels()));
        volumes.for_each(|(dx, part)| {
            for (line, part) in part.chunks_exact(width).enumerate() {
                let d = line / height * g.stride[0] + self.residues[0];
                let h = line % height * g.stride[1] + self.residues[1];
                let line = (d * g.input[1] + h) * g.input[2] + self.residues[2];
                let targets = dx[line..].iter_mut().step_by(g.stride[2]);
                targets.zip(part).for_each(|(target, &value)| *target = value);
            }
        });
    }
}
