//! Resizing along each axis: averaging over areas where the image shrinks, linear where it grows.

/// The part of an image that is resized, and what its values become first.
pub(crate) struct Source<'a> {
    /// The pixels of the whole image, x fastest.
    pub(crate) pixels: &'a [u16],
    /// Columns of the whole image.
    pub(crate) stride: usize,
    /// Column and row of the part's first pixel.
    pub(crate) start: [usize; 2],
    /// Columns and rows of the part.
    pub(crate) size: [usize; 2],
    /// By pixel value: the value to resize.
    pub(crate) values: &'a [f32],
}

/// The part of `source` resized to `[width, height]`, x fastest.
///
/// Along an axis that shrinks, an output pixel is the mean over the stretch of the input that it covers, pixels at its
/// ends counting by the share that is covered: OpenCV's `INTER_AREA`. Along one that grows, it is linear between pixel
/// centres, clamped at the edges: OpenCV's `INTER_LINEAR`. Both axes keep the outer edges of the image.
pub(crate) fn resize(source: &Source<'_>, [width, height]: [usize; 2]) -> Vec<f32> {
    let columns = taps(source.size[0], width);
    let rows = taps(source.size[1], height);
    let mut out = vec![0.0; width * height];
    let mut row = vec![0.0; source.size[0]];
    let mut narrowed = vec![0.0; width];
    // A row of the input takes part in few rows of the output, so each is narrowed once and added where it belongs.
    let mut first_open = 0;
    for y in 0..source.size[1] {
        let from = source.start[0] + source.stride * (source.start[1] + y);
        for (value, &pixel) in row.iter_mut().zip(&source.pixels[from..from + source.size[0]]) {
            *value = source.values[usize::from(pixel)];
        }
        for (value, taps) in narrowed.iter_mut().zip(&columns) {
            *value = taps.weights.iter().zip(&row[taps.first..]).map(|(weight, value)| weight * value).sum();
        }
        while rows.get(first_open).is_some_and(|taps| taps.end() <= y) {
            first_open += 1;
        }
        for (out_y, taps) in rows.iter().enumerate().skip(first_open).take_while(|(_, taps)| taps.first <= y)
        {
            let weight = taps.weights[y - taps.first];
            let out_row = &mut out[width * out_y..width * (out_y + 1)];
            out_row.iter_mut().zip(&narrowed).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    out
}

/// Which input pixels an output pixel is made of.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

impl Taps {
    fn end(&self) -> usize {
        self.first + self.weights.len()
    }
}

/// The taps of each of `to` output pixels over `from` input pixels. First places never decrease, nor do ends.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    (0..to).map(|out| if to < from { area(out, scale, from) } else { linear(out, scale, from) }).collect()
}

fn area(out: usize, scale: f64, from: usize) -> Taps {
    let (start, end) = (out as f64 * scale, ((out + 1) as f64 * scale).min(from as f64));
    let first = (start.floor() as usize).min(from - 1);
    let last = (end.ceil() as usize).clamp(first + 1, from);
    let covered = |pixel: usize| (end.min((pixel + 1) as f64) - start.max(pixel as f64)).max(0.0);
    let total: f64 = (first..last).map(covered).sum();
    Taps { first, weights: (first..last).map(|pixel| (covered(pixel) / total) as f32).collect() }
}

fn linear(out: usize, scale: f64, from: usize) -> Taps {
    let centre = ((out as f64 + 0.5) * scale - 0.5).clamp(0.0, (from - 1) as f64);
    let first = (centre.floor() as usize).min(from.saturating_sub(2));
    let upper = (centre - first as f64) as f32;
    let weights = if from == 1 { vec![1.0] } else { vec![1.0 - upper, upper] };
    Taps { first, weights }
}
