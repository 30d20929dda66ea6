//! Where each tap of a convolution finds its voxels, and their unfolding (im2col) into rows of a matrix.

use std::ops::Range;

use crate::panel::Real;

/// A cross-correlation with free offsets: the voxel under tap `t` of output `o` lies at `o * stride + t + offset` along
/// each of D, H, W, and is zero outside the input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) batch: usize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) input: [usize; 3],
    pub(crate) kernel: [usize; 3],
    pub(crate) output: [usize; 3],
    pub(crate) stride: [usize; 3],
    pub(crate) offset: [isize; 3],
}

impl Window {
    pub(crate) fn input_voxels(&self) -> usize {
        self.input.iter().product()
    }

    pub(crate) fn output_voxels(&self) -> usize {
        self.output.iter().product()
    }

    pub(crate) fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Output voxels of all samples.
    pub(crate) fn positions(&self) -> usize {
        self.batch * self.output_voxels()
    }

    /// The outputs along `axis` whose voxel under tap `tap` lies in the input.
    fn inside(&self, axis: usize, tap: usize) -> Range<usize> {
        let (stride, offset) = (self.stride[axis], tap as isize + self.offset[axis]);
        let first_not_below = |position: isize| position.max(0).cast_unsigned().div_ceil(stride);
        let end = first_not_below(self.input[axis].cast_signed() - offset).min(self.output[axis]);
        first_not_below(-offset).min(end)..end
    }
}

/// Some consecutive output positions, counted over all samples, and where each tap finds their voxels.
pub(crate) struct Tile {
    pub(crate) range: Range<usize>,
    /// Pieces of lines, for each tap in memory order.
    taps: Vec<Vec<Piece>>,
}

/// A piece of an output line.
struct Piece {
    /// Where it starts in the tile.
    at: usize,
    length: usize,
    /// Where in the piece the voxels lie inside the input.
    inside: Range<usize>,
    /// Where the voxel of the piece's first output would lie, from the first channel of the first sample.
    source: isize,
}

impl Tile {
    pub(crate) fn new(window: &Window, range: Range<usize>) -> Self {
        let [depth, height, width] = window.kernel;
        let mut taps = Vec::with_capacity(window.taps());
        for tap in 0..depth * height * width {
            let tap = [tap / (height * width), tap / width % height, tap % width];
            taps.push(pieces(window, tap, range.clone()));
        }
        Self { range, taps }
    }

    /// The voxels under each tap of some channels of `x`, a row per channel and tap; `rows` are `row_length` long and
    /// keep what they hold behind the tile.
    #[inline(always)]
    pub(crate) fn unfold<T: Real>(
        &self,
        window: &Window,
        x: &[T],
        channels: Range<usize>,
        rows: &mut [T],
        row_length: usize,
    ) {
        let taps = channels.flat_map(|channel| self.taps.iter().map(move |pieces| (channel, pieces)));
        for (row, (channel, pieces)) in rows.chunks_exact_mut(row_length).zip(taps) {
            let x = &x[channel * window.input_voxels()..];
            for piece in pieces {
                piece.unfold(x, window.stride[2], &mut row[piece.at..][..piece.length]);
            }
        }
    }
}

/// The pieces of one tap, in order.
fn pieces(window: &Window, tap: [usize; 3], range: Range<usize>) -> Vec<Piece> {
    let [depth, height, width] = window.output;
    let [inside_d, inside_h, inside_w] = std::array::from_fn(|axis| window.inside(axis, tap[axis]));
    let position = |axis: usize, output: usize| {
        (output * window.stride[axis] + tap[axis]).cast_signed() + window.offset[axis]
    };
    let sample_voxels = window.in_channels * window.input_voxels();
    let lines = range.start / width..range.end.div_ceil(width);
    lines
        .map(|line| {
            let [sample, d, h] = [line / (depth * height), line / height % depth, line % height];
            let start = range.start.max(line * width);
            let length = range.end.min((line + 1) * width) - start;
            let first = start - line * width;
            let within = |w: usize| w.clamp(first, first + length) - first;
            let inside = match inside_d.contains(&d) && inside_h.contains(&h) {
                true => within(inside_w.start)..within(inside_w.end),
                false => 0..0,
            };
            let [input_h, input_w] = [window.input[1].cast_signed(), window.input[2].cast_signed()];
            let source = (position(0, d) * input_h + position(1, h)) * input_w + position(2, first);
            let source = (sample * sample_voxels).cast_signed() + source;
            Piece { at: start - range.start, length, inside, source }
        })
        .collect()
}

impl Piece {
    #[inline(always)]
    fn unfold<T: Real>(&self, x: &[T], stride: usize, target: &mut [T]) {
        if self.inside.is_empty() {
            target.fill(T::zero());
            return;
        }
        let Range { start, end } = self.inside;
        if stride == 1 {
            // A whole line is copied in fewer and longer moves than its inside, and what lies before and behind it
            // mostly exists.
            match usize::try_from(self.source).ok().and_then(|source| x.get(source..source + target.len())) {
                Some(line) => copy_line(line, target),
                None => {
                    let source = (self.source + start.cast_signed()).cast_unsigned();
                    target[start..end].copy_from_slice(&x[source..source + end - start]);
                }
            }
        } else {
            let source = (self.source + (start * stride).cast_signed()).cast_unsigned();
            let source = x[source..].iter().step_by(stride);
            target[start..end].iter_mut().zip(source).for_each(|(target, &value)| *target = value);
        }
        clear(&mut target[..start]);
        clear(&mut target[end..]);
    }
}

/// As `copy_from_slice`, but a few moves where that would be a call.
#[inline(always)]
fn copy_line<T: Real>(source: &[T], target: &mut [T]) {
    let (source, source_rest) = source.as_chunks::<16>();
    let (target, target_rest) = target.as_chunks_mut::<16>();
    for (target, source) in target.iter_mut().zip(source) {
        *target = *source;
    }
    let (source, source_rest) = source_rest.as_chunks::<4>();
    let (target, target_rest) = target_rest.as_chunks_mut::<4>();
    for (target, source) in target.iter_mut().zip(source) {
        *target = *source;
    }
    for (target, source) in target_rest.iter_mut().zip(source_rest) {
        *target = *source;
    }
}

/// Zeros. There is mostly one or none, for which filling would be a call.
#[inline(always)]
fn clear<T: Real>(target: &mut [T]) {
    match target {
        [] => {}
        [one] => *one = T::zero(),
        many => many.fill(T::zero()),
    }
}
