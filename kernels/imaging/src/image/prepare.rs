//! Preparing an image for a network: window, crop, size, and the number of bits, in this order.

use std::fmt;

use super::resize::{Source, resize};
use super::{Image, largest};
use crate::rounding::round_half_even_f32;

/// What is done with an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Preparation {
    /// Which values become black and white.
    pub window: WindowRule,
    /// Which part is kept; `None`, all of it.
    pub crop: Option<Crop>,
    /// Columns and rows of the result, at least 1.
    pub size: [usize; 2],
    /// How the part comes to that size.
    pub fit: Fit,
    /// Bits of the result: 8 or 16.
    pub bits: u8,
}

/// Which values become black and white.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WindowRule {
    /// Those at these percentiles of the whole image, from 0 to 100. 0 and 100 are the smallest and the largest value.
    Percentiles(f64, f64),
    /// These, in the values of the image.
    Range(f64, f64),
    /// Those that the image's file asks for, by a straight line, a sigmoid or a table.
    Voi,
}

/// The part of an image that is kept: the smallest box around the pixels from `from` to `to`, which are shares of the
/// window, 0 at its lower end and 1 at its upper.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crop {
    /// The darkest pixel that counts as foreground.
    pub from: f64,
    /// The lightest one.
    pub to: f64,
    /// How many pixels of the original more are kept on each side, where there are some.
    pub margin: usize,
}

/// How a part of an image comes to the wanted size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Each axis by itself: proportions change.
    Stretch,
    /// Both axes by one factor, so that proportions on the patient are kept; black fills what is left, half on each side.
    Pad,
}

/// An image that was prepared, and what was done with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// `size[0] * size[1]` values from 0 to `2^bits - 1`, x fastest.
    pub pixels: Vec<u16>,
    /// The values of the original that became black and white.
    pub window: [f64; 2],
    /// The part of the original that was kept: column and row of its first pixel, then columns and rows.
    pub crop: [usize; 4],
    /// Where that part lies in the result, in the same form.
    pub content: [usize; 4],
    /// Distance in mm of pixel centres of the result along x and y; `None` where the original's is not known.
    pub spacing_mm: Option<[f64; 2]>,
}

/// An image that has nothing to prepare.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PrepareError {
    /// The window has no width.
    NoContrast {
        /// Its lower and its upper end.
        window: [f64; 2],
        /// The smallest and the largest value of the image.
        range: [f64; 2],
    },
    /// No pixel is foreground.
    NoForeground(Crop),
    /// The file asks for no window.
    NoVoiWindow,
}

/// Prepares an image: window, crop, resizing by areas, padding, and at last rounding, half to even.
///
/// # Errors
///
/// [`PrepareError`], if there is no window, it has no width, or no pixel is foreground.
pub fn prepare(image: &Image, preparation: &Preparation) -> Result<Prepared, PrepareError> {
    let window = window(image, preparation.window)?;
    let curve = image.voi_shades.as_ref().filter(|_| preparation.window == WindowRule::Voi);
    let shares = curve.cloned().unwrap_or_else(|| straight(window, image.largest_value()));
    let crop = match preparation.crop {
        Some(crop) => foreground(image, &shares, crop).ok_or(PrepareError::NoForeground(crop))?,
        None => [0, 0, image.width, image.height],
    };
    let content = content(image, crop, preparation);
    let shades: Vec<f32> = shares.iter().map(|&share| share as f32).collect();
    let [x, y, columns, rows] = crop;
    let source = Source {
        pixels: &image.pixels,
        stride: image.width,
        start: [x, y],
        size: [columns, rows],
        values: &shades,
    };
    let resized = resize(&source, [content[2], content[3]]);
    let mut pixels = vec![0; preparation.size[0] * preparation.size[1]];
    let white = f32::from(largest(preparation.bits));
    for (row, values) in resized.chunks_exact(content[2]).enumerate() {
        let start = content[0] + preparation.size[0] * (content[1] + row);
        for (pixel, value) in pixels[start..start + content[2]].iter_mut().zip(values) {
            *pixel = round_half_even_f32(value * white) as u16;
        }
    }
    let along = |axis: usize| crop[2 + axis] as f64 / content[2 + axis] as f64;
    let spacing_mm = image.spacing_mm.map(|mm| [mm[0] * along(0), mm[1] * along(1)]);
    Ok(Prepared { pixels, window, crop, content, spacing_mm })
}

/// The values that become black and white.
fn window(image: &Image, rule: WindowRule) -> Result<[f64; 2], PrepareError> {
    let percentiles = image.percentiles();
    let window = match rule {
        WindowRule::Percentiles(lower, upper) => [percentiles.at(lower), percentiles.at(upper)],
        WindowRule::Range(lower, upper) => [lower, upper],
        WindowRule::Voi => image.voi_window.ok_or(PrepareError::NoVoiWindow)?,
    };
    if window[0] < window[1] {
        return Ok(window);
    }
    Err(PrepareError::NoContrast { window, range: [percentiles.at(0.0), percentiles.at(100.0)] })
}

/// By value: its place in the window, from 0 to 1.
fn straight([lower, upper]: [f64; 2], largest_value: u16) -> Vec<f64> {
    (0..=largest_value).map(|value| ((f64::from(value) - lower) / (upper - lower)).clamp(0.0, 1.0)).collect()
}

/// The smallest box around the foreground with its margin: column, row, columns, rows.
fn foreground(image: &Image, shares: &[f64], crop: Crop) -> Option<[usize; 4]> {
    let counts: Vec<bool> = shares.iter().map(|share| (crop.from..=crop.to).contains(share)).collect();
    let is_foreground = |pixel: &u16| counts[usize::from(*pixel)];
    let (mut left, mut right, mut top, mut bottom) = (image.width, 0, image.height, 0);
    for (y, row) in image.pixels.chunks_exact(image.width).enumerate() {
        let Some(first) = row.iter().position(is_foreground) else { continue };
        let last = row.iter().rposition(is_foreground).unwrap_or(first);
        (left, right) = (left.min(first), right.max(last + 1));
        (top, bottom) = (top.min(y), y + 1);
    }
    if right == 0 {
        return None;
    }
    let (left, top) = (left.saturating_sub(crop.margin), top.saturating_sub(crop.margin));
    let right = right.saturating_add(crop.margin).min(image.width);
    let bottom = bottom.saturating_add(crop.margin).min(image.height);
    Some([left, top, right - left, bottom - top])
}

/// Where the part lies in the result. Padding before is the smaller half where it is odd.
fn content(image: &Image, [_, _, columns, rows]: [usize; 4], preparation: &Preparation) -> [usize; 4] {
    let [width, height] = preparation.size;
    if preparation.fit == Fit::Stretch {
        return [0, 0, width, height];
    }
    // Pixels that are no squares on the patient become squares.
    let [mm_x, mm_y] = image.spacing_mm.unwrap_or([1.0, 1.0]);
    let (extent_x, extent_y) = (columns as f64 * mm_x, rows as f64 * mm_y);
    let factor = (width as f64 / extent_x).min(height as f64 / extent_y);
    let fitted = |extent: f64, most: usize| ((extent * factor).round_ties_even() as usize).clamp(1, most);
    let (columns, rows) = (fitted(extent_x, width), fitted(extent_y, height));
    [(width - columns) / 2, (height - rows) / 2, columns, rows]
}

impl fmt::Display for PrepareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrepareError::NoContrast { window: [lower, upper], range: [smallest, largest] } => write!(
                f,
                "the window runs from {lower} to {upper} and the values of the image from {smallest} to {largest}; expected its \
                 upper end above the lower one: choose other percentiles, or leave the image out"
            ),
            PrepareError::NoForeground(Crop { from, to, .. }) => write!(
                f,
                "no pixel lies from {from} to {to} of the window; expected some foreground: choose other bounds for the crop, or \
                 leave the image out"
            ),
            PrepareError::NoVoiWindow => write!(
                f,
                "the file has no VOI window, expected its center and width, or a table; choose percentiles, or leave the image out"
            ),
        }
    }
}

impl std::error::Error for PrepareError {}
