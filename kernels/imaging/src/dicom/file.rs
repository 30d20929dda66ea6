//! A DICOM file (PS3.10): preamble, meta group, data set; and files that lack some of these.

use std::borrow::Cow;
use std::io::Read;

use dicom_dictionary_std::tags;

use super::dataset::{DataSet, Extent};
use super::error::DicomProblem;
use super::transfer_syntax::{Encoding, TransferSyntax};

/// A file whose elements can be read.
#[derive(Debug)]
pub(super) struct File<'a> {
    pub(super) syntax: TransferSyntax,
    /// The data set, inflated where it was deflated.
    bytes: Cow<'a, [u8]>,
}

/// A preamble of this length and the letters `DICM` begin a file.
const PREAMBLE_BYTES: usize = 128;

/// The most that a deflated data set may hold: a thousand times the file is what deflate can do, and this is more than any
/// image has.
const INFLATED_BYTES: u64 = 1 << 30;

const META_GROUP: u16 = 0x0002;

/// Whether bytes begin as a DICOM file does that has its preamble.
pub fn is_dicom(start: &[u8]) -> bool {
    start.get(PREAMBLE_BYTES..PREAMBLE_BYTES + 4) == Some(b"DICM")
}

impl<'a> File<'a> {
    /// Finds the data set of a file, or of its start. A missing preamble, meta group or transfer syntax is made up for by
    /// what the bytes look like.
    pub(super) fn open(bytes: &'a [u8]) -> Result<File<'a>, DicomProblem> {
        let declared = is_dicom(bytes);
        let start = match bytes {
            _ if declared => &bytes[PREAMBLE_BYTES + 4..],
            [b'D', b'I', b'C', b'M', rest @ ..] => rest,
            // The last byte of a meta group that someone cut off.
            [0 | b' ', rest @ ..] if begins_with_group_8(rest).is_some() => rest,
            _ => bytes,
        };
        let begins_with_meta = start.first_chunk() == Some(&META_GROUP.to_le_bytes());
        if !declared && !begins_with_meta && begins_with_group_8(start).is_none() {
            return Err(DicomProblem::NotDicom(what_it_seems(bytes)));
        }
        let (meta, meta_bytes) = DataSet::parse_group(start, META_GROUP)?;
        let uid = meta.text(tags::TRANSFER_SYNTAX_UID);
        let data = &start[meta_bytes..];
        let syntax = match uid {
            Some(uid) => TransferSyntax::of(&uid)?,
            None => TransferSyntax::unnamed(begins_with_group_8(data).unwrap_or(Encoding::IMPLICIT)),
        };
        let bytes = if syntax.deflated { Cow::Owned(inflate(data)?) } else { Cow::Borrowed(data) };
        Ok(File { syntax: as_written(syntax, &bytes), bytes })
    }

    /// The elements up to the pixel data, or with them.
    pub(super) fn elements(&self, extent: Extent) -> Result<DataSet<'_>, DicomProblem> {
        let elements = DataSet::parse(&self.bytes, self.syntax.encoding, extent)?;
        if elements.is_empty() {
            return Err(DicomProblem::NotDicom("there are no elements in it".to_owned()));
        }
        Ok(elements)
    }
}

/// How the elements of a data set are written that begins with group 8, as nearly every one does; `None` where it does
/// not look like one.
fn begins_with_group_8(bytes: &[u8]) -> Option<Encoding> {
    let &[a, b, c, d, vr @ .., _, _] = bytes.first_chunk::<8>()?;
    let explicit = [*b"UL", *b"CS", *b"UI", *b"DA", *b"TM", *b"LO", *b"SH", *b"UN"].contains(&vr);
    let low_element = |element: u16| element < 0x0100;
    match [a, b] {
        [8, 0] if low_element(u16::from_le_bytes([c, d])) && explicit => Some(Encoding::EXPLICIT),
        [0, 8] if low_element(u16::from_be_bytes([c, d])) && explicit => Some(Encoding::EXPLICIT_BIG),
        [8, 0] if low_element(u16::from_le_bytes([c, d])) => {
            let length = u32::from_le_bytes([vr[0], vr[1], bytes[6], bytes[7]]);
            // An implicit element's length can be told from anything else only by its being small.
            (length < 0x400).then_some(Encoding::IMPLICIT)
        }
        _ => None,
    }
}

/// Some writers name one little-endian syntax and write the other.
fn as_written(mut syntax: TransferSyntax, data: &[u8]) -> TransferSyntax {
    if let Some(written) = begins_with_group_8(data).filter(|written| !written.big_endian)
        && !syntax.encoding.big_endian
    {
        syntax.encoding = written;
    }
    syntax
}

fn inflate(deflated: &[u8]) -> Result<Vec<u8>, DicomProblem> {
    let mut inflated = Vec::new();
    let mut reader = flate2::read::DeflateDecoder::new(deflated).take(INFLATED_BYTES + 1);
    reader
        .read_to_end(&mut inflated)
        .map_err(|error| DicomProblem::Damaged { codec: "deflate", what: error.to_string() })?;
    if inflated.len() as u64 > INFLATED_BYTES {
        return Err(DicomProblem::Unsupported(format!(
            "the deflated elements hold more than {INFLATED_BYTES} bytes; expected one image"
        )));
    }
    Ok(inflated)
}

/// A guess at what a file is that is not DICOM.
fn what_it_seems(bytes: &[u8]) -> String {
    let kind = match bytes {
        [] => "it is empty",
        [0x89, b'P', b'N', b'G', ..] => "it is a PNG image",
        [0xff, 0xd8, 0xff, ..] => "it is a JPEG image",
        [b'P', b'K', 3, 4, ..] => "it is a zip archive",
        [0x1f, 0x8b, ..] => "it is a gzip file, such as .nii.gz",
        [b'%', b'P', b'D', b'F', ..] => "it is a PDF document",
        _ if bytes.iter().take(512).all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => {
            "it is a text file"
        }
        _ => "it has no preamble, and its first element is none of a data set",
    };
    kind.to_owned()
}
