//! The lookup table by which a file wants its values to be seen (PS3.3, C.11.2.1.1).

use dicom_dictionary_std::tags;

use super::dataset::{DataSet, Extent};
use super::error::{DicomError, DicomProblem};
use super::file::File;

/// A table from rescaled values to shades. Values before its first entry are seen as that one, those behind its last as the
/// last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoiTable {
    /// The rescaled value of the first entry.
    pub first: i32,
    /// Bits of an entry: shades run from 0 to `2^bits - 1`.
    pub bits: u32,
    /// The entries, at least one.
    pub entries: Vec<u16>,
}

/// The first lookup table of a file; `None` where it has none. `name` stands in errors.
///
/// # Errors
/// When the file is no DICOM file, or the table is not what its descriptor says.
pub fn voi_table(bytes: &[u8], name: &str) -> Result<Option<VoiTable>, DicomError> {
    table(bytes).map_err(|problem| problem.in_file(name))
}

fn table(bytes: &[u8]) -> Result<Option<VoiTable>, DicomProblem> {
    let file = File::open(bytes)?;
    let elements = file.elements(Extent::Header)?;
    let tables = elements.items(tags::VOILUT_SEQUENCE)?;
    let Some(table) = tables.first() else { return Ok(None) };
    let words = |tag| table.bytes(tag).map(|bytes| words(table, bytes)).unwrap_or_default();
    let descriptor = words(tags::LUT_DESCRIPTOR);
    let &[count, first, bits] = descriptor.as_slice() else {
        return Err(DicomProblem::Header(format!(
            "the descriptor of its VOI lookup table has {} numbers; expected 3",
            descriptor.len()
        )));
    };
    // 0 is what 65536 is in 16 bits.
    let count = if count == 0 { 1 << 16 } else { usize::from(count) };
    let data = table.bytes(tags::LUT_DATA).unwrap_or_default();
    // Entries of 8 bits may stand in bytes of their own.
    let entries: Vec<u16> = match bits {
        8 if data.len() < 2 * count => data.iter().map(|&byte| u16::from(byte)).collect(),
        _ => words(tags::LUT_DATA),
    };
    if !(8..=16).contains(&bits) || entries.len() < count {
        return Err(DicomProblem::Header(format!(
            "its VOI lookup table has {} entries of {bits} bits; expected {count} of 8 to 16",
            entries.len()
        )));
    }
    let rescaled_below_zero =
        elements.number(tags::RESCALE_INTERCEPT).is_some_and(|intercept| intercept < 0.0);
    let signed = elements.whole(tags::PIXEL_REPRESENTATION) == Some(1) || rescaled_below_zero;
    let first = if signed { i32::from(first as i16) } else { i32::from(first) };
    Ok(Some(VoiTable { first, bits: u32::from(bits), entries: entries[..count].to_vec() }))
}

fn words(set: &DataSet, bytes: &[u8]) -> Vec<u16> {
    let pairs = bytes.as_chunks::<2>().0.iter();
    pairs
        .map(|&pair| if set.big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) })
        .collect()
}
