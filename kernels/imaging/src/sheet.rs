//! Contact sheets: volumes and images as a person looks at them, drawn beside and below each other in grey.

mod canvas;
mod planes;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::image::prepare::{Fit, Preparation, PrepareError, WindowRule, prepare};
use crate::image::{Image, png};

pub use canvas::Sheet;
pub use planes::{slices, strip};

/// Which values become black and white, by the middle and the width of the range between them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CenterWidth {
    /// The value that becomes mid-grey; of volumes in HU.
    pub center: f64,
    /// From the last black value to the first white one, above 0.
    pub width: f64,
}

impl CenterWidth {
    /// Lung, of volumes.
    pub const LUNG: CenterWidth = CenterWidth { center: -600.0, width: 1500.0 };

    /// Soft tissue, of volumes.
    pub const SOFT_TISSUE: CenterWidth = CenterWidth { center: 40.0, width: 400.0 };

    /// The last black value and the first white one.
    fn ends(self) -> [f64; 2] {
        [self.center - self.width / 2.0, self.center + self.width / 2.0]
    }
}

impl fmt::Display for CenterWidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.center, self.width)
    }
}

/// An image under its caption, whose longer side has `longest` pixels, with its size and its scale.
///
/// # Errors
///
/// As [`prepare`]: an image that the window leaves without contrast.
pub fn image(
    image: &Image,
    caption: &str,
    window: WindowRule,
    longest: usize,
) -> Result<Sheet, PrepareError> {
    let [mm_x, mm_y] = image.spacing_mm.unwrap_or([1.0, 1.0]);
    let extent = [image.width as f64 * mm_x, image.height as f64 * mm_y];
    let mm_per_pixel = extent[0].max(extent[1]) / longest as f64;
    let size = extent.map(|mm| ((mm / mm_per_pixel).round() as usize).clamp(1, longest));
    let prepared = prepare(image, &Preparation { window, crop: None, size, fit: Fit::Stretch, bits: 8 })?;
    let shades = prepared.pixels.iter().map(|pixel| *pixel as u8).collect();
    let mut picture = Sheet::of(size[0], size[1], shades);
    let [low, high] = prepared.window.map(|value| (value * 10.0).round() / 10.0);
    let mut told =
        format!("{} x {} pixels, {low} to {high} of {} bits", image.width, image.height, image.bits);
    if let Some([mm, _]) = image.spacing_mm {
        picture.draw_scale(mm_per_pixel);
        told += &format!(", {} mm", rounded(mm));
    }
    Ok(picture.captioned(&[caption, &told]))
}

impl Sheet {
    /// The sheet as a PNG file.
    pub fn to_png(&self) -> Vec<u8> {
        let pixels: Vec<u16> = self.shades().iter().map(|shade| u16::from(*shade)).collect();
        png::encode_grey(self.width(), self.height(), &pixels, 8)
    }
}

/// A number with two decimals at most.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
