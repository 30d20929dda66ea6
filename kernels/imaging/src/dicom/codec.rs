//! Compressed frames: from a codestream to samples.
//!
//! The decoders are in Rust without `unsafe`, since what comes in is anybody's file; `openjp2`, which `dicom-pixeldata` uses,
//! is OpenJPEG's C in another spelling. They are bounded: a codestream says its size first, and it must be the header's.

use openreadout_codecs::{CodecError, JpegColor, Raster};

use super::error::DicomProblem;
use super::transfer_syntax::Pixels;
use crate::jpeg_scans::with_other_bits_behind_scans;

/// What the header says of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout<'a> {
    pub(super) uid: &'a str,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) channels: usize,
    /// Bytes of a sample, 1 or 2.
    pub(super) sample_bytes: usize,
    /// Whether three channels are red, green and blue already.
    pub(super) rgb: bool,
}

/// The samples of a frame as bit patterns, channel by channel for each pixel.
#[derive(Debug)]
pub(super) struct Samples {
    pub(super) patterns: Vec<u16>,
    pub(super) channels: usize,
    /// Bits that the codestream gives a sample; `None` where only the header says it.
    pub(super) precision: Option<u32>,
    /// Whether the patterns are signed numbers of 16 bits, by the codestream's word.
    pub(super) signed: bool,
}

/// Decodes a frame.
///
/// # Errors
/// When the codec is none that is decoded, the codestream is damaged, cut short, or of another size than the header says.
pub(super) fn decode(pixels: Pixels, stream: &[u8], layout: Layout) -> Result<Samples, DicomProblem> {
    let codec = match pixels {
        Pixels::Plain => return Err(DicomProblem::Header("plain pixels are in fragments".to_owned())),
        Pixels::Rle => return rle(stream, layout),
        Pixels::Jpeg(name) => name,
        Pixels::JpegLs => "JPEG-LS",
        Pixels::Jpeg2000 => "JPEG 2000",
        Pixels::Other(codec) => return Err(layout.not_decoded(codec, "the codec".to_owned())),
    };
    let damaged = |what: String| DicomProblem::Damaged { codec, what };
    let frame = match pixels {
        Pixels::Jpeg2000 => jpeg_2000_frame(stream),
        _ => jpeg_frame(stream),
    };
    let frame = frame.ok_or_else(|| damaged("its frame header is missing or cut short".to_owned()))?;
    if (frame.rows, frame.columns) != (layout.rows, layout.columns) {
        return Err(damaged(format!(
            "it has {} rows and {} columns; expected {} and {}, as the header says",
            frame.rows, frame.columns, layout.rows, layout.columns
        )));
    }
    // Decoders make up what is missing at the end of a stream. What stands behind its end mark is padding.
    let end = stream.windows(2).rposition(|marker| marker == [0xff, 0xd9]).map(|start| start + 2);
    let stream = match end {
        Some(end) if stream[end..].iter().all(|byte| [0, b' ', 0xff].contains(byte)) => &stream[..end],
        _ => return Err(damaged("it ends before its end marker".to_owned())),
    };
    // At two bytes a sample, and one more for a decoder that counts on reaching its bound.
    let most = layout.rows * layout.columns * frame.components.max(layout.channels) * 2 + 1;
    let color = if layout.rgb { JpegColor::AsCoded } else { JpegColor::ToRgb };
    let decoded = |stream: &[u8]| match pixels {
        Pixels::Jpeg2000 => openreadout_codecs::jpeg2000_decode_limited(stream, most),
        Pixels::JpegLs => openreadout_codecs::jpegls_decode_limited(stream, most),
        _ => openreadout_codecs::jpeg_decode_tiff_limited(stream, None, color, most),
    };
    let raster = decoded(stream);
    let raster = raster.map_err(|error| match error {
        CodecError::Unsupported { detail, .. } => layout.not_decoded(codec, detail),
        CodecError::Decode { detail, .. } if detail.contains("unsupported") => {
            layout.not_decoded(codec, detail)
        }
        error => damaged(error.to_string()),
    })?;
    if let Pixels::Jpeg(_) = pixels {
        let other = with_other_bits_behind_scans(stream).map_err(|what| damaged(what.to_owned()))?;
        if decoded(&other).ok().is_none_or(|other| other.data != raster.data) {
            return Err(damaged("its compressed data ends before the image does".to_owned()));
        }
    }
    samples(&raster, &frame, layout).ok_or_else(|| damaged("it decodes to too few samples".to_owned()))
}

impl Layout<'_> {
    fn not_decoded(&self, codec: &'static str, what: String) -> DicomProblem {
        DicomProblem::Codec { uid: self.uid.to_owned(), codec, what }
    }

    pub(super) fn samples(&self) -> usize {
        self.rows * self.columns * self.channels
    }
}

/// What a codestream says of itself.
struct CodedFrame {
    rows: usize,
    columns: usize,
    components: usize,
    precision: u32,
    signed: bool,
}

/// The frame header of a JPEG or JPEG-LS stream (T.81, B.2.2).
fn jpeg_frame(stream: &[u8]) -> Option<CodedFrame> {
    let mut at = 2;
    if stream.get(..2)? != [0xff, 0xd8] {
        return None;
    }
    loop {
        let marker = *stream.get(at + 1)?;
        if *stream.get(at)? != 0xff {
            return None;
        }
        match marker {
            // A fill byte.
            0xff => at += 1,
            // Markers that stand alone.
            0x01 | 0xd0..=0xd8 => at += 2,
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf | 0xf7 => {
                let &[precision, y1, y0, x1, x0, components] = stream.get(at + 4..)?.first_chunk::<6>()?;
                return Some(CodedFrame {
                    rows: usize::from(u16::from_be_bytes([y1, y0])),
                    columns: usize::from(u16::from_be_bytes([x1, x0])),
                    components: usize::from(components),
                    precision: u32::from(precision),
                    signed: false,
                });
            }
            0xd9 | 0xda => return None,
            _ => at += 2 + usize::from(u16::from_be_bytes([*stream.get(at + 2)?, *stream.get(at + 3)?])),
        }
    }
}

/// The image and tile size marker of a JPEG 2000 codestream (T.800, A.5.1), which some writers wrap into a JP2 file.
fn jpeg_2000_frame(stream: &[u8]) -> Option<CodedFrame> {
    const WRAPPER_BYTES: usize = 4096;
    let start = &stream[..stream.len().min(WRAPPER_BYTES)];
    let at = start.windows(4).position(|marker| marker == [0xff, 0x4f, 0xff, 0x51])?;
    let u32_at = |place: usize| Some(u32::from_be_bytes(*stream.get(at + place..)?.first_chunk()?));
    let (width, height) = (u32_at(8)?.checked_sub(u32_at(16)?)?, u32_at(12)?.checked_sub(u32_at(20)?)?);
    let &[high, low, depth] = stream.get(at + 40..)?.first_chunk::<3>()?;
    Some(CodedFrame {
        rows: height as usize,
        columns: width as usize,
        components: usize::from(u16::from_be_bytes([high, low])),
        precision: u32::from(depth & 0x7f) + 1,
        signed: depth & 0x80 != 0,
    })
}

fn samples(raster: &Raster, frame: &CodedFrame, layout: Layout) -> Option<Samples> {
    let patterns: Vec<u16> = match raster.bits_per_sample {
        // A signed byte keeps its sign.
        8 if frame.signed => raster.data.iter().map(|&byte| i16::from(byte as i8) as u16).collect(),
        8 => raster.data.iter().map(|&byte| u16::from(byte)).collect(),
        _ => raster.data.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes)).collect(),
    };
    let channels = raster.channels as usize;
    let complete = patterns.len() == layout.rows * layout.columns * channels;
    complete.then_some(Samples { patterns, channels, precision: Some(frame.precision), signed: frame.signed })
}

/// RLE (PS3.5, annex G): a segment of PackBits for each byte of each channel, the highest byte first.
fn rle(stream: &[u8], layout: Layout) -> Result<Samples, DicomProblem> {
    let damaged = |what: String| DicomProblem::Damaged { codec: "RLE", what };
    let word = |number: usize| {
        stream
            .get(number * 4..)
            .and_then(|rest| rest.first_chunk())
            .map(|bytes| u32::from_le_bytes(*bytes) as usize)
    };
    let segments = layout.channels * layout.sample_bytes;
    let count = word(0).ok_or_else(|| damaged("its header is cut short".to_owned()))?;
    if count != segments {
        return Err(damaged(format!("it has {count} segments; expected {segments}")));
    }
    let pixels = layout.rows * layout.columns;
    let mut patterns = vec![0_u16; layout.samples()];
    for segment in 0..segments {
        let start = word(1 + segment).unwrap_or(usize::MAX);
        let end = if segment + 1 < segments { word(2 + segment).unwrap_or(0) } else { stream.len() };
        let packed =
            stream.get(start..end).ok_or_else(|| damaged(format!("segment {segment} lies outside of it")))?;
        let bytes = openreadout_codecs::packbits_decode(packed, pixels)
            .map_err(|error| damaged(error.to_string()))?;
        if bytes.len() < pixels {
            return Err(damaged(format!("segment {segment} holds {} bytes; expected {pixels}", bytes.len())));
        }
        let (channel, byte) = (segment / layout.sample_bytes, segment % layout.sample_bytes);
        let shift = 8 * (layout.sample_bytes - 1 - byte);
        let places = patterns.iter_mut().skip(channel).step_by(layout.channels);
        places.zip(bytes).for_each(|(pattern, byte)| *pattern |= u16::from(byte) << shift);
    }
    Ok(Samples { patterns, channels: layout.channels, precision: None, signed: false })
}
