//! JPEG files: grey, or colour channels that hold grey; baseline, progressive and lossless.

use std::collections::BTreeMap;

use jpeg_decoder::{Decoder, Error, PixelFormat};

use super::channels::{Samples, to_grey};
use super::{Format, Image, ImageProblem, Photometric, check_size, exif};

/// The first bytes of every JPEG file.
pub(super) const MAGIC: &[u8] = b"\xff\xd8\xff";

/// Colour channels of a grey picture differ by so much after they were rounded on the way through chroma.
const CHROMA_ROUNDING: u16 = 2;

/// A block of 64 pixels takes one bit at least, that of its mean.
const MOST_PIXELS_PER_BYTE: u64 = 64 * 8;

/// Reads a JPEG file.
///
/// Where the compressed data ends early, decoders put zeros in its place, and a file may have lost its middle and kept
/// its end marker. So it is decoded twice, the second time with other bits put behind each scan: a file that is whole
/// is not touched by them.
pub(super) fn decode(bytes: &[u8]) -> Result<Image, ImageProblem> {
    let mut decoder = Decoder::new(bytes);
    decoder.read_info().map_err(problem)?;
    let info = decoder.info().ok_or_else(|| damaged("it has no frame header"))?;
    let (width, height) = (info.width, info.height);
    let most = (bytes.len() as u64).saturating_mul(MOST_PIXELS_PER_BYTE);
    // Blocks reach over the right and lower edge.
    check_size(Format::Jpeg, u32::from(width), u32::from(height), most)?;
    let decoded = decoder.decode().map_err(problem)?;
    let mended = with_other_bits_behind_scans(bytes)?;
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
        modality: None,
        warnings: grey.warnings,
    };
    Ok(exif::upright(image, decoder.exif_data()))
}

fn widened(bytes: &[u8]) -> Vec<u16> {
    bytes.iter().map(|&byte| u16::from(byte)).collect()
}

/// The file with some bytes behind the compressed data of each scan.
///
/// # Errors
///
/// If the file has no end marker, or ends before the scan that refines a coefficient last.
fn with_other_bits_behind_scans(bytes: &[u8]) -> Result<Vec<u8>, ImageProblem> {
    const OTHER_BITS: [u8; 8] = [0xaa, 0x55, 0xcc, 0xb3, 0xd2, 0x95, 0x6b, 0xa6];
    let cut = || damaged("it has no end marker");
    let mut changed = bytes[..2].to_vec();
    let mut refinement = Refinement::default();
    let mut at = 2;
    loop {
        // Some writers leave bytes between segments, and any number of 0xff may stand before a marker's code.
        let rest = bytes.get(at..).ok_or_else(cut)?;
        let is_marker = |pair: &[u8]| pair[0] == 0xff && pair[1] != 0xff;
        let code_at = at + rest.windows(2).position(is_marker).ok_or_else(cut)? + 1;
        let code = bytes[code_at];
        if code == END_OF_IMAGE {
            changed.extend(rest);
            return match refinement.is_complete() {
                true => Ok(changed),
                false => Err(damaged("it ends before its last scans")),
            };
        }
        let length = bytes.get(code_at + 1..code_at + 3).ok_or_else(cut)?;
        let mut end = code_at + 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        refinement.note(code, bytes.get(code_at + 3..end).unwrap_or_default());
        if code == START_OF_SCAN {
            end = end_of_scan(bytes, end).ok_or_else(cut)?;
        }
        changed.extend(bytes.get(at..end).ok_or_else(cut)?);
        if code == START_OF_SCAN {
            changed.extend(OTHER_BITS);
        }
        at = end;
    }
}

const PROGRESSIVE_FRAME: u8 = 0xc2;
const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;

/// How far the scans of a progressive file have come: by component, how many low bits each of its 64 coefficients still
/// lacks. A file of another kind is complete with its scan.
#[derive(Default)]
struct Refinement {
    missing_bits: BTreeMap<u8, [u8; 64]>,
}

impl Refinement {
    /// Takes note of a segment: ITU-T T.81, B.2.2 and B.2.3.
    fn note(&mut self, code: u8, segment: &[u8]) {
        match (code, segment) {
            (PROGRESSIVE_FRAME, [_, _, _, _, _, _, components @ ..]) => {
                self.missing_bits =
                    components.chunks_exact(3).map(|component| (component[0], [u8::MAX; 64])).collect();
            }
            (START_OF_SCAN, [count, rest @ ..]) => {
                let (components, rest) = rest.split_at_checked(2 * usize::from(*count)).unwrap_or_default();
                let [first, last, bits, ..] = rest else { return };
                for component in components.chunks_exact(2) {
                    let coefficients = self.missing_bits.get_mut(&component[0]);
                    let sent =
                        coefficients.and_then(|all| all.get_mut(usize::from(*first)..=usize::from(*last)));
                    sent.into_iter().flatten().for_each(|missing| *missing = bits & 0x0f);
                }
            }
            _ => {}
        }
    }

    fn is_complete(&self) -> bool {
        self.missing_bits.values().flatten().all(|missing| *missing == 0)
    }
}

/// Where the next marker begins that neither is a stuffed byte nor restarts the decoder.
fn end_of_scan(bytes: &[u8], start: usize) -> Option<usize> {
    let is_end = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xd0..=0xd7 | 0xff);
    Some(start + bytes.get(start..)?.windows(2).position(is_end)?)
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
