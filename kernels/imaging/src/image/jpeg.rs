//! JPEG files: grey, or colour channels that hold grey; baseline, progressive and lossless.

use jpeg_decoder::{Decoder, Error, PixelFormat};

use super::channels::{Samples, to_grey};
use super::{Format, Image, ImageProblem, Photometric, check_size, exif};
use crate::jpeg_scans::with_other_bits_behind_scans;

/// The first bytes of every JPEG file.
pub(super) const MAGIC: &[u8] = b"\xff\xd8\xff";

/// Colour channels of a grey picture differ by so much after they were rounded on the way through chroma.
const CHROMA_ROUNDING: u16 = 2;

/// A block of 64 pixels takes one bit at least, that of its mean.
const MOST_PIXELS_PER_BYTE: u64 = 64 * 8;

/// Reads a JPEG file.
///
/// It is decoded twice, the second time with other bits behind each scan, which a whole file is not touched by.
pub(super) fn decode(bytes: &[u8]) -> Result<Image, ImageProblem> {
    let mut decoder = Decoder::new(bytes);
    decoder.read_info().map_err(problem)?;
    let info = decoder.info().ok_or_else(|| damaged("it has no frame header"))?;
    let (width, height) = (info.width, info.height);
    let most = (bytes.len() as u64).saturating_mul(MOST_PIXELS_PER_BYTE);
    // Blocks reach over the right and lower edge.
    check_size(Format::Jpeg, u32::from(width), u32::from(height), most)?;
    let decoded = decoder.decode().map_err(problem)?;
    let mended = with_other_bits_behind_scans(bytes).map_err(damaged)?;
    if Decoder::new(mended.as_slice()).decode().ok().as_ref() != Some(&decoded) {
        return Err(damaged("its compressed data ends before the image does"));
    }
    let (values, channels, bits, photometric) = match info.pixel_format {
        PixelFormat::L8 => (widened(&decoded), 1, 8, Photometric::Grey),
        PixelFormat::L16 => {
            let pairs = decoded.as_chunks::<2>().0;
            (pairs.iter().map(|&pair| u16::from_ne_bytes(pair)).collect(), 1, 16, Photometric::Grey)
        }
        PixelFormat::RGB24 => (widened(&decoded), 3, 8, Photometric::YCbCr),
        PixelFormat::CMYK32 => {
            return Err(ImageProblem::Unsupported("four printing colours (CMYK); expected grey".to_owned()));
        }
    };
    let samples = Samples { values, channels, opaque: 0 };
    let grey = to_grey(samples, usize::from(width), CHROMA_ROUNDING)?;
    let image = Image {
        width: usize::from(width),
        height: usize::from(height),
        pixels: grey.pixels,
        bits,
        spacing_mm: None,
        format: Format::Jpeg,
        photometric,
        inverted: false,
        orientation: None,
        voi_window: None,
        voi_shades: None,
        modality: None,
        warnings: grey.warnings,
    };
    Ok(exif::upright(image, decoder.exif_data()))
}

fn widened(bytes: &[u8]) -> Vec<u16> {
    bytes.iter().map(|&byte| u16::from(byte)).collect()
}

fn damaged(what: &str) -> ImageProblem {
    ImageProblem::Damaged { format: Format::Jpeg, what: what.to_owned() }
}

fn problem(error: Error) -> ImageProblem {
    match error {
        Error::Unsupported(feature) => {
            ImageProblem::Unsupported(format!("a JPEG file with a feature that is not read: {feature:?}"))
        }
        Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
        other => damaged(&other.to_string()),
    }
}
