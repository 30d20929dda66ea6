//! PNG files: grey of 8 and 16 bits, and whatever holds grey in another way.

use std::io::Cursor;

use ::png::{BitDepth, ColorType, Compression, Decoder, Encoder, Reader, Transformations};

use super::channels::{Samples, to_grey};
use super::{Format, Image, ImageProblem, Photometric, check_size, exif};

/// The first bytes of every PNG file.
pub const MAGIC: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Deflate makes at most so many bytes of one.
const MOST_INFLATED: u64 = 1032;

/// Reads a PNG file. Samples of fewer than 8 bits are spread over 8. Checksums of all chunks are held to, and the file
/// must have its end.
pub(super) fn decode(bytes: &[u8]) -> Result<Image, ImageProblem> {
    let damaged = |error: ::png::DecodingError| ImageProblem::Damaged {
        format: Format::Png,
        what: error.to_string().trim_end_matches('.').to_lowercase(),
    };
    let mut decoder = Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::EXPAND);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let info = reader.info();
    let (width, height, stored) = (info.width, info.height, info.color_type);
    let bits_per_pixel = info.bits_per_pixel() as u64;
    check_size(Format::Png, width, height, bytes.len() as u64 * MOST_INFLATED * 8 / bits_per_pixel)?;
    if let Some(animation) = info.animation_control() {
        let frames = animation.num_frames;
        return Err(ImageProblem::Unsupported(format!(
            "an animation of {frames} frames; expected one image"
        )));
    }
    let exif_block = info.exif_metadata.as_ref().map(|block| block.to_vec());
    let (samples, bits) = samples(&mut reader).map_err(damaged)?;
    // What lies behind the pixels is read too: a file without its end was cut.
    reader.finish().map_err(damaged)?;
    let grey = to_grey(samples, width as usize, 0)?;
    let image = Image {
        width: width as usize,
        height: height as usize,
        pixels: grey.pixels,
        bits,
        spacing_mm: None,
        format: Format::Png,
        photometric: match stored {
            ColorType::Grayscale => Photometric::Grey,
            ColorType::GrayscaleAlpha => Photometric::GreyAlpha,
            ColorType::Indexed => Photometric::Palette,
            ColorType::Rgb => Photometric::Rgb,
            ColorType::Rgba => Photometric::Rgba,
        },
        inverted: false,
        orientation: None,
        voi_window: None,
        voi_shades: None,
        modality: None,
        warnings: grey.warnings,
    };
    Ok(exif::upright(image, exif_block.as_deref()))
}

/// The samples of the file, and how many bits each has.
fn samples(reader: &mut Reader<Cursor<&[u8]>>) -> Result<(Samples, u8), ::png::DecodingError> {
    let too_large = ::png::DecodingError::LimitsExceeded;
    let mut buffer = vec![0; reader.output_buffer_size().ok_or(too_large)?];
    reader.next_frame(&mut buffer)?;
    let (colour, depth) = reader.output_color_type();
    let (values, bits) = match depth {
        BitDepth::Sixteen => {
            (buffer.as_chunks::<2>().0.iter().map(|&pair| u16::from_be_bytes(pair)).collect(), 16)
        }
        _ => (buffer.into_iter().map(u16::from).collect(), 8),
    };
    let opaque = super::largest(bits);
    Ok((Samples { values, channels: colour.samples(), opaque }, bits))
}

/// A grey PNG file of `width * height` pixels. 9 to 16 bits become 16, up to 8 bits 8; equal pixels give equal bytes with
/// one version of the program.
///
/// # Panics
///
/// If the pixels do not fill the size.
pub fn encode_grey(width: usize, height: usize, pixels: &[u16], bits: u8) -> Vec<u8> {
    assert_eq!(pixels.len(), width * height, "the pixels must fill the size");
    if bits > 8 {
        let bytes: Vec<u8> = pixels.iter().flat_map(|value| value.to_be_bytes()).collect();
        return encode((width, height), &bytes, ColorType::Grayscale, BitDepth::Sixteen);
    }
    let bytes: Vec<u8> = pixels.iter().map(|&value| value as u8).collect();
    encode((width, height), &bytes, ColorType::Grayscale, BitDepth::Eight)
}

/// A PNG file of samples that fill it.
fn encode((width, height): (usize, usize), samples: &[u8], colour: ColorType, depth: BitDepth) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    encoder.set_compression(Compression::Fast);
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(samples)?;
        writer.finish()
    });
    written.expect("a vector takes all bytes, and the samples fill the image");
    file
}
