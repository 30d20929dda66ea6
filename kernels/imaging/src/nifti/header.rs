//! The NIfTI-1 and NIfTI-2 headers, field by field.
//!
//! Field places are those of `nifti1.h` and `nifti2.h` (nifti.nimh.nih.gov). Our own parser, because the
//! crate `nifti` 0.18 knows no NIfTI-2, stops after the first gzip member without looking at its checksum,
//! ignores `vox_offset`, turns a slope of NaN into NaN voxels, and spends several times the CPU of inflating.

use super::error::ReadProblem;
use crate::voxels::{Dtype, Endian};

/// What the header says, widened to the types of NIfTI-2 and checked for what a scalar volume needs.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) endian: Endian,
    /// Whether the voxels are in a separate `.img` file.
    pub(super) pair: bool,
    pub(super) shape: [usize; 3],
    pub(super) dtype: Dtype,
    /// Where the voxels begin, in bytes from the start of the file that holds them.
    pub(super) voxel_offset: u64,
    pub(super) slope: f64,
    pub(super) intercept: f64,
    /// `pixdim[0]`, the handedness of the qform, then the spacing of the three axes in file units.
    pub(super) pixdim: [f64; 4],
    pub(super) qform_code: i32,
    pub(super) sform_code: i32,
    pub(super) quaternion: [f64; 3],
    pub(super) qform_offset: [f64; 3],
    pub(super) sform: [[f64; 4]; 3],
    pub(super) spatial_unit: u8,
    pub(super) warnings: Vec<String>,
}

/// Bytes that are enough to parse a header of either version.
pub(super) const LONGEST_HEADER_BYTES: usize = NIFTI_2_BYTES;

const NIFTI_1_BYTES: usize = 348;
const NIFTI_2_BYTES: usize = 540;
/// Four bytes that flag extensions follow the header of a single file; voxels begin no earlier.
const EXTENSION_FLAG_BYTES: usize = 4;

impl Header {
    /// Reads the header at the start of an inflated file. `bytes` may hold more.
    pub(super) fn parse(bytes: &[u8]) -> Result<Header, ReadProblem> {
        let Some(&first) = bytes.first_chunk::<4>() else {
            return Err(truncated_header(NIFTI_1_BYTES, bytes));
        };
        let (version, endian) = match (i32::from_le_bytes(first), i32::from_be_bytes(first)) {
            (348, _) => (Version::One, Endian::Little),
            (_, 348) => (Version::One, Endian::Big),
            (540, _) => (Version::Two, Endian::Little),
            (_, 540) => (Version::Two, Endian::Big),
            _ => return Err(ReadProblem::NotNifti(what_it_seems(bytes))),
        };
        let size = version.header_bytes();
        let fields = bytes.get(..size).ok_or_else(|| truncated_header(size, bytes))?;
        let fields = Fields { bytes: fields, endian };
        let pair = version.is_pair(&fields)?;
        let raw = match version {
            Version::One => RawHeader::nifti_1(&fields),
            Version::Two => RawHeader::nifti_2(&fields),
        };
        raw.checked(version, endian, pair)
    }

    /// Bytes of voxels, and with what precedes them in their file; an error if no file could hold them.
    pub(super) fn voxel_bytes(&self) -> Result<(usize, usize), ReadProblem> {
        let mut bytes = Some(self.dtype.bytes());
        for axis in self.shape {
            bytes = bytes.and_then(|bytes| bytes.checked_mul(axis));
        }
        let end = bytes.and_then(|bytes| bytes.checked_add(usize::try_from(self.voxel_offset).ok()?));
        match (bytes, end) {
            (Some(bytes), Some(end)) if end <= isize::MAX as usize => Ok((bytes, end)),
            _ => Err(ReadProblem::Header(format!(
                "{} x {} x {} voxels of {} at byte {} are more than memory can address",
                self.shape[0],
                self.shape[1],
                self.shape[2],
                self.dtype.name(),
                self.voxel_offset
            ))),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    fn header_bytes(self) -> usize {
        match self {
            Version::One => NIFTI_1_BYTES,
            Version::Two => NIFTI_2_BYTES,
        }
    }

    /// Checks the magic bytes; whether they announce a separate image file.
    fn is_pair(self, fields: &Fields) -> Result<bool, ReadProblem> {
        let magic = match self {
            Version::One => &fields.bytes[344..348],
            Version::Two => &fields.bytes[4..12],
        };
        match (self, magic) {
            (Version::One, b"n+1\0") | (Version::Two, b"n+2\0\r\n\x1a\n") => Ok(false),
            (Version::One, b"ni1\0") | (Version::Two, b"ni2\0\r\n\x1a\n") => Ok(true),
            (Version::One, [0, 0, 0, 0]) => Err(ReadProblem::NotNifti(
                "it is Analyze 7.5, which does not say left from right; convert it to NIfTI".to_owned(),
            )),
            _ => Err(ReadProblem::NotNifti(format!(
                "the header has the right size and the magic `{}`; expected n+1, ni1, n+2 or ni2",
                magic.escape_ascii()
            ))),
        }
    }
}

/// The fields of either version before they are checked.
struct RawHeader {
    dim: [i64; 8],
    datatype: i16,
    bits_per_voxel: i16,
    pixdim: [f64; 8],
    voxel_offset: f64,
    slope: f64,
    intercept: f64,
    qform_code: i32,
    sform_code: i32,
    quaternion_and_offset: [f64; 6],
    sform: [[f64; 4]; 3],
    units: u8,
}

impl RawHeader {
    fn nifti_1(fields: &Fields) -> RawHeader {
        RawHeader {
            dim: std::array::from_fn(|k| i64::from(fields.i16(40 + 2 * k))),
            datatype: fields.i16(70),
            bits_per_voxel: fields.i16(72),
            pixdim: std::array::from_fn(|k| fields.f32(76 + 4 * k)),
            voxel_offset: fields.f32(108),
            slope: fields.f32(112),
            intercept: fields.f32(116),
            qform_code: i32::from(fields.i16(252)),
            sform_code: i32::from(fields.i16(254)),
            quaternion_and_offset: std::array::from_fn(|k| fields.f32(256 + 4 * k)),
            sform: std::array::from_fn(|row| {
                std::array::from_fn(|column| fields.f32(280 + 16 * row + 4 * column))
            }),
            units: fields.bytes[123],
        }
    }

    fn nifti_2(fields: &Fields) -> RawHeader {
        RawHeader {
            dim: std::array::from_fn(|k| fields.i64(16 + 8 * k)),
            datatype: fields.i16(12),
            bits_per_voxel: fields.i16(14),
            pixdim: std::array::from_fn(|k| fields.f64(104 + 8 * k)),
            voxel_offset: fields.i64(168) as f64,
            slope: fields.f64(176),
            intercept: fields.f64(184),
            qform_code: fields.i32(344),
            sform_code: fields.i32(348),
            quaternion_and_offset: std::array::from_fn(|k| fields.f64(352 + 8 * k)),
            sform: std::array::from_fn(|row| {
                std::array::from_fn(|column| fields.f64(400 + 32 * row + 8 * column))
            }),
            units: fields.i32(500).to_le_bytes()[0],
        }
    }

    fn checked(self, version: Version, endian: Endian, pair: bool) -> Result<Header, ReadProblem> {
        let mut warnings = Vec::new();
        let shape = volume_shape(&self.dim)?;
        let dtype = dtype_of_code(self.datatype).map_err(ReadProblem::Unsupported)?;
        if usize::try_from(self.bits_per_voxel) != Ok(8 * dtype.bytes()) {
            warnings.push(format!(
                "the header says {} bits per voxel and datatype {}; read as {}",
                self.bits_per_voxel,
                dtype.name(),
                dtype.name()
            ));
        }
        let first_byte = if pair { 0 } else { version.header_bytes() + EXTENSION_FLAG_BYTES };
        let [quaternion_b, quaternion_c, quaternion_d, x, y, z] = self.quaternion_and_offset;
        Ok(Header {
            endian,
            pair,
            shape,
            dtype,
            voxel_offset: voxel_offset(self.voxel_offset, first_byte as u64, &mut warnings)?,
            slope: self.slope,
            intercept: self.intercept,
            pixdim: std::array::from_fn(|k| self.pixdim[k]),
            qform_code: self.qform_code,
            sform_code: self.sform_code,
            quaternion: [quaternion_b, quaternion_c, quaternion_d],
            qform_offset: [x, y, z],
            sform: self.sform,
            spatial_unit: self.units & 0x07,
            warnings,
        })
    }
}

/// The three axes of `dim`, whose first entry is the number of axes; more axes than three must have length
/// one.
fn volume_shape(dim: &[i64; 8]) -> Result<[usize; 3], ReadProblem> {
    let axes = match usize::try_from(dim[0]) {
        Ok(axes @ 1..=7) => axes,
        _ => return Err(ReadProblem::Header(format!("dim[0] is {}; expected 1 to 7 axes", dim[0]))),
    };
    let lengths = &dim[1..=axes];
    let named = lengths.iter().map(i64::to_string).collect::<Vec<_>>().join(" x ");
    if lengths.iter().any(|&length| length < 1) {
        return Err(ReadProblem::Header(format!(
            "the shape is {named}; expected at least one voxel along each axis"
        )));
    }
    let &[x, y, z, ref more @ ..] = lengths else {
        return Err(ReadProblem::Unsupported(format!(
            "a {axes}-D image of {named}; expected a volume of three axes, a single slice being nx x ny x 1"
        )));
    };
    if more.iter().any(|&length| length > 1) {
        return Err(ReadProblem::Unsupported(format!(
            "a {axes}-D image of {named}; expected one 3-D volume: split it into its volumes first"
        )));
    }
    let length = |value: i64| {
        usize::try_from(value)
            .map_err(|_| ReadProblem::Header(format!("the shape is {named}; too long to address")))
    };
    Ok([length(x)?, length(y)?, length(z)?])
}

/// A single file that claims its voxels begin inside its header is read behind the header: the other reading,
/// which nibabel and ITK follow, takes the header for voxels.
fn voxel_offset(claimed: f64, first_byte: u64, warnings: &mut Vec<String>) -> Result<u64, ReadProblem> {
    if !(0.0..9.0e15).contains(&claimed) {
        return Err(ReadProblem::Header(format!(
            "vox_offset is {claimed}; expected a byte offset of {first_byte} or more"
        )));
    }
    let claimed = claimed as u64;
    if claimed < first_byte {
        warnings.push(format!(
            "vox_offset is {claimed}, inside the header; voxels are read from byte {first_byte}"
        ));
    }
    Ok(claimed.max(first_byte))
}

fn truncated_header(expected: usize, bytes: &[u8]) -> ReadProblem {
    ReadProblem::Truncated { part: "header", expected: expected as u64, actual: bytes.len() as u64 }
}

/// A guess at what a file is that is not NIfTI.
fn what_it_seems(bytes: &[u8]) -> String {
    let kind = match bytes {
        [0x89, b'P', b'N', b'G', ..] => "it is a PNG image",
        [0xff, 0xd8, 0xff, ..] => "it is a JPEG image",
        [b'P', b'K', 3, 4, ..] => "it is a zip archive, such as .npz",
        [0x1f, 0x8b, ..] => "it is compressed twice",
        _ if bytes.get(128..132) == Some(b"DICM") => "it is a DICOM file",
        _ => {
            let start = bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            return format!("it begins with the bytes {start}; expected a header size of 348 or 540");
        }
    };
    kind.to_owned()
}

/// Numbers at byte places of a header, in its byte order.
struct Fields<'a> {
    bytes: &'a [u8],
    endian: Endian,
}

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut array: [u8; N] =
            self.bytes[at..at + N].try_into().expect("a slice of N bytes makes an array of N");
        if self.endian == Endian::Big {
            array.reverse();
        }
        array
    }

    fn i16(&self, at: usize) -> i16 {
        i16::from_le_bytes(self.array(at))
    }

    fn i32(&self, at: usize) -> i32 {
        i32::from_le_bytes(self.array(at))
    }

    fn i64(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.array(at))
    }

    fn f32(&self, at: usize) -> f64 {
        f64::from(f32::from_le_bytes(self.array(at)))
    }

    fn f64(&self, at: usize) -> f64 {
        f64::from_le_bytes(self.array(at))
    }
}

/// The type of a `datatype` code of `nifti1.h`, or why it makes no scalar volume.
fn dtype_of_code(code: i16) -> Result<Dtype, String> {
    let refused = match code {
        2 => return Ok(Dtype::U8),
        4 => return Ok(Dtype::I16),
        8 => return Ok(Dtype::I32),
        16 => return Ok(Dtype::F32),
        64 => return Ok(Dtype::F64),
        256 => return Ok(Dtype::I8),
        512 => return Ok(Dtype::U16),
        768 => return Ok(Dtype::U32),
        1024 => return Ok(Dtype::I64),
        1280 => return Ok(Dtype::U64),
        1 => "one bit",
        32 | 1792 | 2048 => "complex",
        128 => "RGB colour",
        2304 => "RGBA colour",
        1536 => "128-bit float",
        other => return Err(format!("voxels of unknown datatype {other}; expected a code of nifti1.h")),
    };
    Err(format!("{refused} voxels (datatype {code}); expected one real number of 8 to 64 bits per voxel"))
}
