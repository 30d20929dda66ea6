//! One grey image: the stored values of a frame.

use std::borrow::Cow;
use std::path::Path;

use dicom_dictionary_std::tags;
use rayon::prelude::*;

use super::codec::{self, Layout, Samples};
use super::dataset::{DataSet, Extent, Value};
use super::error::{DicomError, DicomProblem};
use super::file::File;
use super::header::Header;
use super::transfer_syntax::Pixels;

/// A grey image as its file has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// What the file says of it.
    pub header: Header,
    /// Its rows.
    pub rows: usize,
    /// Its columns.
    pub columns: usize,
    /// `rows * columns` stored values, row by row, with their sign: neither rescaled nor inverted.
    pub values: Vec<i32>,
    /// Bits that a value has: it lies in `0..2^bits`, or in `-2^(bits-1)..2^(bits-1)` where `signed`.
    pub bits: u32,
    /// Whether values can be negative.
    pub signed: bool,
    /// Whether it was stored in colours, all of which are grey.
    pub from_color: bool,
}

/// More pixels than any detector has, and few enough to decode.
const MOST_PIXELS: usize = 1 << 26;

/// Reads a frame of a file, counted from 0. `name` stands in errors.
///
/// # Errors
/// When the file is no DICOM file, has no such frame, is cut short or damaged, is compressed in a way that is not decoded,
/// or shows colours.
pub fn read_image(path: &Path, name: &str, frame: u32) -> Result<Image, DicomError> {
    let bytes = std::fs::read(path).map_err(DicomProblem::Io);
    bytes.and_then(|bytes| from_bytes(&bytes, frame)).map_err(|problem| problem.in_file(name))
}

/// As [`read_image`], of a file's bytes.
///
/// # Errors
/// As [`read_image`].
pub fn image(bytes: &[u8], name: &str, frame: u32) -> Result<Image, DicomError> {
    from_bytes(bytes, frame).map_err(|problem| problem.in_file(name))
}

fn from_bytes(bytes: &[u8], frame: u32) -> Result<Image, DicomProblem> {
    let file = File::open(bytes)?;
    let elements = file.elements(Extent::Pixels)?;
    let header = Header::of(&file, &elements, &[])?;
    frame_of(&file, &elements, header, frame)
}

/// Reads some frames of a file's bytes side by side, which are taken apart once.
pub(super) fn frames_of(bytes: &[u8], frames: &[u32]) -> Result<Vec<Image>, DicomProblem> {
    let file = File::open(bytes)?;
    let elements = file.elements(Extent::Pixels)?;
    let header = Header::of(&file, &elements, &[])?;
    frames.par_iter().map(|&frame| frame_of(&file, &elements, header.clone(), frame)).collect()
}

fn frame_of(file: &File, elements: &DataSet, header: Header, frame: u32) -> Result<Image, DicomProblem> {
    if !header.has_pixels {
        return Err(DicomProblem::NoPixels);
    }
    if frame >= header.frames {
        return Err(DicomProblem::Header(format!(
            "there are {} frames; expected a frame {frame}, counted from 0",
            header.frames
        )));
    }
    let layout = layout(&header, file)?;
    let samples = match pixel_data(elements)? {
        (Value::Bytes(bytes), vr) if file.syntax.pixels == Pixels::Plain => {
            plain(bytes, vr, frame as usize, elements, &header, layout)?
        }
        (Value::Fragments(fragments), _) if file.syntax.pixels != Pixels::Plain => {
            let stream = codestream(fragments, frame as usize, elements, &header)?;
            codec::decode(file.syntax.pixels, &stream, layout)?
        }
        _ => {
            let syntax = header.transfer_syntax.as_deref().unwrap_or("none");
            return Err(DicomProblem::Header(format!(
                "the pixel data are not written as the transfer syntax {syntax} says"
            )));
        }
    };
    grey(samples, header, layout)
}

/// What the header says of the frame, where that is something that can be read.
fn layout<'a>(header: &Header, file: &'a File) -> Result<Layout<'a>, DicomProblem> {
    let (rows, columns) = match (header.rows, header.columns) {
        (Some(rows @ 1..), Some(columns @ 1..)) => (rows as usize, columns as usize),
        (rows, columns) => {
            let said = |number: Option<u32>| number.map_or("no".to_owned(), |number| number.to_string());
            return Err(DicomProblem::Header(format!(
                "it has {} rows and {} columns; expected at least one of each",
                said(rows),
                said(columns)
            )));
        }
    };
    if rows.saturating_mul(columns) > MOST_PIXELS {
        return Err(DicomProblem::Unsupported(format!(
            "an image of {rows} rows and {columns} columns; expected at most {MOST_PIXELS} pixels"
        )));
    }
    let photometric = header.photometric_interpretation.as_deref().unwrap_or("MONOCHROME2");
    let channels = match (header.samples_per_pixel, photometric) {
        (1, "MONOCHROME1" | "MONOCHROME2") => 1,
        (3, "RGB" | "YBR_FULL" | "YBR_RCT" | "YBR_ICT") => 3,
        (3, "YBR_FULL_422") if file.syntax.pixels != Pixels::Plain => 3,
        (samples, photometric) => {
            return Err(DicomProblem::Unsupported(format!(
                "an image of {samples} samples a pixel in {}; expected a grey one",
                if photometric.len() <= 16 { photometric } else { "an unknown interpretation" }
            )));
        }
    };
    let sample_bytes = match header.bits_allocated {
        Some(8) => 1,
        Some(16) => 2,
        bits => {
            let bits = bits.map_or("no".to_owned(), |bits| bits.to_string());
            return Err(DicomProblem::Unsupported(format!("{bits} bits allocated; expected 8 or 16")));
        }
    };
    let rgb = photometric == "RGB";
    Ok(Layout { uid: &file.syntax.uid, rows, columns, channels, sample_bytes, rgb })
}

fn pixel_data<'d, 'a>(elements: &'d DataSet<'a>) -> Result<(&'d Value<'a>, [u8; 2]), DicomProblem> {
    let element = elements.element(tags::PIXEL_DATA).ok_or_else(|| {
        DicomProblem::Unsupported("the pixels are floating-point numbers; expected whole ones".to_owned())
    })?;
    Ok((&element.value, element.vr))
}

/// The samples of a frame that is written as it is.
fn plain(
    bytes: &[u8],
    vr: [u8; 2],
    frame: usize,
    elements: &DataSet,
    header: &Header,
    layout: Layout,
) -> Result<Samples, DicomProblem> {
    let frame_bytes = layout.samples() * layout.sample_bytes;
    let needed = frame_bytes as u64 * u64::from(header.frames);
    if (bytes.len() as u64) < needed {
        let (expected, actual) = (needed, bytes.len() as u64);
        return Err(DicomProblem::Truncated { part: "pixel data", expected, actual });
    }
    // Bytes in words of a big-endian file are swapped in pairs.
    let swapped = elements.big_endian && vr == *b"OW" && layout.sample_bytes == 1;
    let frame = frame * frame_bytes..(frame + 1) * frame_bytes;
    let mut patterns: Vec<u16> = if layout.sample_bytes == 1 {
        let byte = |place: usize| bytes.get(if swapped { place ^ 1 } else { place }).copied().unwrap_or(0);
        frame.map(|place| u16::from(byte(place))).collect()
    } else {
        let words = bytes[frame].as_chunks().0.iter();
        words
            .map(
                |&word| if elements.big_endian { u16::from_be_bytes(word) } else { u16::from_le_bytes(word) },
            )
            .collect()
    };
    if layout.channels > 1 && elements.whole(tags::PLANAR_CONFIGURATION) == Some(1) {
        let pixels = layout.rows * layout.columns;
        patterns = (0..layout.samples())
            .map(|place| patterns[place % layout.channels * pixels + place / layout.channels])
            .collect();
    }
    Ok(Samples { patterns, channels: layout.channels, precision: None, signed: false })
}

/// The codestream of a frame, of the fragments behind the basic offset table.
fn codestream<'a>(
    fragments: &[&'a [u8]],
    frame: usize,
    elements: &DataSet,
    header: &Header,
) -> Result<Cow<'a, [u8]>, DicomProblem> {
    let frames = header.frames as usize;
    let [basic, fragments @ ..] = fragments else { return Err(DicomProblem::NoPixels) };
    match fragments {
        [] => Err(DicomProblem::NoPixels),
        [one] if frames == 1 => Ok(Cow::Borrowed(one)),
        several if frames == 1 => Ok(Cow::Owned(several.concat())),
        several if several.len() == frames => Ok(Cow::Borrowed(several[frame])),
        several => {
            let extended = elements.bytes(tags::EXTENDED_OFFSET_TABLE).unwrap_or_default();
            let offsets: Vec<u64> = match extended {
                [] => basic.as_chunks().0.iter().map(|&bytes| u64::from(u32::from_le_bytes(bytes))).collect(),
                table => table.as_chunks().0.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect(),
            };
            if offsets.len() != frames {
                return Err(DicomProblem::Header(format!(
                    "{} fragments hold {frames} frames and the offset table has {} entries; expected one for each frame",
                    several.len(),
                    offsets.len()
                )));
            }
            let (start, end) = (offsets[frame], offsets.get(frame + 1).copied().unwrap_or(u64::MAX));
            // Each fragment stands behind its own header of eight bytes, which the offsets count.
            let mut place = 0;
            let mut stream = Vec::new();
            for fragment in several {
                if (start..end).contains(&place) {
                    stream.extend_from_slice(fragment);
                }
                place += 8 + fragment.len() as u64;
            }
            Ok(Cow::Owned(stream))
        }
    }
}

/// Signed values from bit patterns, and one channel from three that are equal.
fn grey(samples: Samples, header: Header, layout: Layout) -> Result<Image, DicomProblem> {
    let allocated = 8 * layout.sample_bytes as u32;
    let stored = header.bits_stored.unwrap_or(allocated);
    let high_bit = header.high_bit.unwrap_or(stored.saturating_sub(1));
    if stored == 0 || high_bit >= allocated || high_bit + 1 < stored {
        return Err(DicomProblem::Header(format!(
            "{stored} bits stored with the highest at {high_bit}, in {allocated} allocated ones; expected them to fit"
        )));
    }
    let (shift, bits) = match samples.precision {
        // What a codestream holds begins at the lowest bit.
        Some(precision) => (0, precision.clamp(1, 16)),
        None => (high_bit + 1 - stored, stored),
    };
    let bits = if samples.precision.is_some() && !samples.signed { bits.min(stored) } else { bits };
    let signed = samples.signed || header.signed;
    let value = |pattern: u16| {
        if samples.signed {
            return i32::from(pattern as i16);
        }
        // A signed sample's highest bit is moved to the place of a number's own, and back with its sign.
        let unused = 32 - bits;
        let top = u32::from(pattern >> shift) << unused;
        if signed { (top as i32) >> unused } else { (top >> unused) as i32 }
    };
    let (rows, columns) = (layout.rows, layout.columns);
    let from_color = samples.channels == 3;
    let values = match samples.channels {
        1 => samples.patterns.into_iter().map(value).collect(),
        3 => one_of_three(&samples.patterns, &header, samples.precision.is_some())
            .ok_or_else(|| DicomProblem::Unsupported("an image in colours; expected a grey one".to_owned()))?
            .map(value)
            .collect(),
        channels => {
            return Err(DicomProblem::Unsupported(format!(
                "a codestream of {channels} components; expected a grey image"
            )));
        }
    };
    Ok(Image { header, rows, columns, values, bits, signed, from_color })
}

/// The grey values of an image in colours that are all grey.
fn one_of_three<'a>(
    patterns: &'a [u16],
    header: &Header,
    decoded: bool,
) -> Option<impl Iterator<Item = u16> + 'a> {
    let pixels = patterns.as_chunks::<3>().0;
    let photometric = header.photometric_interpretation.as_deref().unwrap_or_default();
    // Decoders make red, green and blue of luma and chroma; what is written as it is keeps them.
    let luma = photometric.starts_with("YBR") && !decoded;
    let neutral = 1_u16 << (header.bits_stored.unwrap_or(8).clamp(1, 16) - 1);
    let all_grey = pixels.iter().all(|&[one, two, three]| match luma {
        true => (two, three) == (neutral, neutral),
        false => one == two && two == three,
    });
    all_grey.then(|| pixels.iter().map(|&[first, _, _]| first))
}
