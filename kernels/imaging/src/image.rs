//! Images of one plane: X-rays as DICOM, PNG and JPEG files have them, in grey.
//!
//! An image is read whole or refused: a truncated or damaged file never becomes an image with a black end, and a picture
//! in colour never becomes a grey one. Row 0 is at the top, column 0 at the left as one looks at it; pixel `(x, y)` is
//! element `x + width * y`.

mod channels;
mod dicom;
mod error;
mod exif;
mod jpeg;
mod percentiles;
pub mod png;
pub mod prepare;
pub(crate) mod resize;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use error::{ImageError, ImageProblem};
pub use exif::ExifOrientation;
pub use percentiles::Percentiles;

use crate::dicom::is_dicom;

/// More pixels than this are refused before they are decoded: 8192 x 8192. A mammogram has 14 million, a whole spine
/// put together from several exposures 30 million.
pub const LARGEST_PIXELS: u64 = 1 << 26;

/// A grey image as its file has it, light where the detector saw little.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `width * height` values from 0 to `2^bits - 1`, x fastest, row 0 at the top.
    pub pixels: Vec<u16>,
    /// How many bits a value has.
    pub bits: u8,
    /// Distance in mm of pixel centres along x and along y; `None` where the file does not say. What PNG and JPEG files
    /// call a resolution is one of printing and is not read.
    pub spacing_mm: Option<[f64; 2]>,
    /// The kind of file.
    pub format: Format,
    /// What the stored samples mean.
    pub photometric: Photometric,
    /// Whether dark and light were exchanged, because the file wants its lowest value to be white.
    pub inverted: bool,
    /// How the image was turned to stand upright, where its file says so.
    pub orientation: Option<ExifOrientation>,
    /// The values that the file wants to be black and white.
    pub voi_window: Option<[f64; 2]>,
    /// By value, how light the file wants it, from 0 to 1; `None` where that is a straight line between those of
    /// [`Image::voi_window`], or the file does not say.
    pub voi_shades: Option<Vec<f64>>,
    /// The kind of machine that the file names, such as `DX`.
    pub modality: Option<String>,
    /// What a person should know of the file, one sentence each.
    pub warnings: Vec<String>,
}

/// A kind of image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Portable Network Graphics.
    Png,
    /// JPEG (JFIF or EXIF).
    Jpeg,
    /// Digital Imaging and Communications in Medicine.
    Dicom,
}

/// What the stored samples of an image mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Photometric {
    /// Grey.
    Grey,
    /// Grey and opacity.
    GreyAlpha,
    /// Places in a table of colours, all of them grey.
    Palette,
    /// Red, green and blue, equal in each pixel.
    Rgb,
    /// Red, green and blue, equal in each pixel, and opacity.
    Rgba,
    /// Luma and two chroma channels that hold no colour.
    YCbCr,
    /// Grey, the lowest value white.
    Monochrome1,
    /// Grey, the lowest value black.
    Monochrome2,
}

/// Reads an image file. The bytes alone decide what kind it is; `name` stands in errors.
///
/// # Errors
///
/// The problem is in [`ImageError::problem`]: no image file, truncated or damaged bytes, colour, too many pixels, a kind
/// of image that is not read.
pub fn read(bytes: &[u8], name: &str) -> Result<Image, ImageError> {
    decode(bytes).map_err(|problem| problem.in_file(name))
}

/// Reads an image file by its path, with a name to stand for it in errors.
///
/// # Errors
///
/// As [`read`], and when the file cannot be read.
pub fn read_named(path: &Path, name: &str) -> Result<Image, ImageError> {
    let bytes = std::fs::read(path).map_err(|error| ImageProblem::Io(error).in_file(name))?;
    read(&bytes, name)
}

/// As many bytes as tell what kind a file is.
const FIRST_BYTES: u64 = 132;

/// Whether a file begins as one of the images that are read here do. DICOM files without a preamble are not told.
///
/// # Errors
///
/// When the file cannot be read.
pub fn is_image(path: &Path) -> std::io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(FIRST_BYTES).read_to_end(&mut start)?;
    Ok(start.starts_with(png::MAGIC) || start.starts_with(jpeg::MAGIC) || is_dicom(&start))
}

fn decode(bytes: &[u8]) -> Result<Image, ImageProblem> {
    match bytes {
        [] => Err(ImageProblem::NotAnImage("it is empty".to_owned())),
        _ if bytes.starts_with(png::MAGIC) => png::decode(bytes),
        _ if bytes.starts_with(jpeg::MAGIC) => jpeg::decode(bytes),
        _ => dicom::decode(bytes)?.ok_or_else(|| {
            ImageProblem::NotAnImage(format!("{}; expected PNG, JPEG or DICOM", seems(bytes)))
        }),
    }
}

/// What bytes seem to be that are none of the formats read here.
fn seems(bytes: &[u8]) -> &'static str {
    const KNOWN: [(&[u8], &str); 9] = [
        (b"GIF8", "it is a GIF image"),
        (b"II*\0", "it is a TIFF image"),
        (b"MM\0*", "it is a TIFF image"),
        (b"BM", "it is a BMP image"),
        (b"RIFF", "it is a RIFF file, such as WebP"),
        (b"\0\0\0\x0cjP  ", "it is a JPEG 2000 image"),
        (b"\x1f\x8b", "it is a gzip file"),
        (b"%PDF", "it is a PDF document"),
        (b"<", "it is markup, such as the error page of a download"),
    ];
    KNOWN
        .iter()
        .find(|(magic, _)| bytes.starts_with(magic))
        .map_or("its first bytes are unknown", |known| known.1)
}

impl Image {
    /// The largest value that `bits` allow.
    pub fn largest_value(&self) -> u16 {
        largest(self.bits)
    }

    /// How the values are distributed.
    pub fn percentiles(&self) -> Percentiles {
        Percentiles::of(&self.pixels)
    }
}

/// The largest value of so many bits, which are 1 to 16.
pub(crate) fn largest(bits: u8) -> u16 {
    u16::MAX >> (16 - bits)
}

/// Refuses an image by its size before anything is allocated for it.
///
/// `most_pixels` is how many pixels the bytes that are there can possibly hold; a header that claims more is of a file
/// that was cut, or of one that was made to claim it.
fn check_size(format: Format, width: u32, height: u32, most_pixels: u64) -> Result<(), ImageProblem> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(ImageProblem::Unsupported(format!("{width} x {height} pixels; expected at least one")));
    }
    if pixels > LARGEST_PIXELS {
        return Err(ImageProblem::TooLarge { width, height });
    }
    if pixels > most_pixels {
        let what = format!("{width} x {height} pixels, more than the bytes that are there can hold");
        return Err(ImageProblem::Damaged { format, what });
    }
    Ok(())
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Png => "png",
            Format::Jpeg => "jpeg",
            Format::Dicom => "dicom",
        })
    }
}

impl fmt::Display for Photometric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Photometric::Grey => "grey",
            Photometric::GreyAlpha => "grey_alpha",
            Photometric::Palette => "palette",
            Photometric::Rgb => "rgb",
            Photometric::Rgba => "rgba",
            Photometric::YCbCr => "ycbcr",
            Photometric::Monochrome1 => "MONOCHROME1",
            Photometric::Monochrome2 => "MONOCHROME2",
        })
    }
}
