//! The header of one `.npy` array.

use std::io::Read;

use super::ArrayProblem;
use crate::buffer::Buffer;
use crate::voxels::{Dtype, Endian};

/// What the header of an array of three axes says.
#[derive(Debug, PartialEq)]
pub(super) struct ArrayHeader {
    pub(super) dtype: Dtype,
    pub(super) endian: Endian,
    /// Whether the first axis is the fastest, and not the last.
    pub(super) fortran_order: bool,
    /// Lengths of the axes that are longer than 1, the last one first.
    pub(super) shape: [usize; 3],
}

const MAGIC: &[u8] = b"\x93NUMPY";

/// Headers take a hundred bytes; one of megabytes is none.
const LONGEST_HEADER_BYTES: usize = 1 << 16;

impl ArrayHeader {
    /// Reads the header at the start of an array.
    pub(super) fn read(array: &mut impl Read) -> Result<ArrayHeader, ArrayProblem> {
        let mut start = [0; 8];
        exactly(array, &mut start)?;
        if !start.starts_with(MAGIC) {
            return Err(ArrayProblem::Header(
                "not numpy's format; expected it to begin with \\x93NUMPY".to_owned(),
            ));
        }
        let length = match start[6] {
            1 => {
                let mut length = [0; 2];
                exactly(array, &mut length)?;
                usize::from(u16::from_le_bytes(length))
            }
            2 | 3 => {
                let mut length = [0; 4];
                exactly(array, &mut length)?;
                u32::from_le_bytes(length) as usize
            }
            version => {
                return Err(ArrayProblem::Header(format!(
                    "version {version} of numpy's format, expected 1 to 3"
                )));
            }
        };
        if length > LONGEST_HEADER_BYTES {
            return Err(ArrayProblem::Header(format!(
                "a header of {length} bytes, expected at most {LONGEST_HEADER_BYTES}"
            )));
        }
        let mut text = vec![0; length];
        exactly(array, &mut text)?;
        ArrayHeader::parse(&String::from_utf8_lossy(&text))
    }

    /// Parses the Python mapping that a header is: `{'descr': '<i2', 'fortran_order': False, 'shape': (3, 4, 5), }`.
    fn parse(text: &str) -> Result<ArrayHeader, ArrayProblem> {
        let value = |name: &str| {
            let (_, behind) = text.split_once(&format!("'{name}':"))?;
            Some(behind.trim_start())
        };
        let lacks = |name: &str| ArrayProblem::Header(format!("the header lacks `{name}`"));
        let descr = value("descr").ok_or_else(|| lacks("descr"))?;
        let Some(descr) = descr.strip_prefix('\'').and_then(|text| text.split('\'').next()) else {
            return Err(ArrayProblem::Header(
                "an array of records or objects, expected one real number per voxel".to_owned(),
            ));
        };
        let (dtype, endian) = dtype(descr)?;
        let order = value("fortran_order").ok_or_else(|| lacks("fortran_order"))?;
        let shape = value("shape").and_then(|text| text.strip_prefix('(')?.split(')').next());
        let shape = shape.ok_or_else(|| lacks("shape"))?;
        let lengths: Result<Vec<usize>, _> =
            shape.split(',').map(str::trim).filter(|length| !length.is_empty()).map(str::parse).collect();
        let lengths = lengths
            .map_err(|_| ArrayProblem::Header(format!("a shape of ({shape}), expected whole numbers")))?;
        let mut axes: Vec<usize> = lengths.iter().copied().filter(|length| *length != 1).collect();
        axes.reverse();
        let shape = axes.try_into().ok().filter(|axes: &[usize; 3]| !axes.contains(&0)).ok_or_else(|| {
            ArrayProblem::Header(format!("a shape of ({shape}), expected three axes longer than 1"))
        })?;
        Ok(ArrayHeader { dtype, endian, fortran_order: order.starts_with("True"), shape })
    }

    /// The bytes of the voxels.
    pub(super) fn bytes(&self) -> Result<usize, ArrayProblem> {
        let bytes =
            self.shape.iter().try_fold(self.dtype.bytes(), |bytes, &length| bytes.checked_mul(length));
        bytes.filter(|bytes| *bytes <= isize::MAX as usize).ok_or_else(|| {
            ArrayProblem::Header(format!("a shape of {:?} is more than memory can address", self.shape))
        })
    }

    /// Voxels whose first axis is the fastest, with the last one the fastest.
    pub(super) fn in_numpy_order(&self, voxels: &Buffer) -> Buffer {
        let (width, [nx, ny, nz]) = (self.dtype.bytes(), self.shape);
        let mut ordered = Buffer::of_length(voxels.len());
        for (place, voxel) in ordered.bytes_mut().chunks_exact_mut(width).enumerate() {
            let (x, y, z) = (place % nx, place / nx % ny, place / (nx * ny));
            let from = (z + nz * (y + ny * x)) * width;
            voxel.copy_from_slice(&voxels.bytes()[from..from + width]);
        }
        ordered
    }
}

/// The type of voxels by numpy's description: byte order, kind, bytes.
fn dtype(descr: &str) -> Result<(Dtype, Endian), ArrayProblem> {
    let (order, kind) = descr.split_at_checked(1).unwrap_or(("", descr));
    let dtype = match kind {
        "u1" => Dtype::U8,
        "i1" => Dtype::I8,
        "u2" => Dtype::U16,
        "i2" => Dtype::I16,
        "u4" => Dtype::U32,
        "i4" => Dtype::I32,
        "u8" => Dtype::U64,
        "i8" => Dtype::I64,
        "f4" => Dtype::F32,
        "f8" => Dtype::F64,
        _ => {
            return Err(ArrayProblem::Header(format!(
                "voxels of type `{descr}`, expected integers or floating-point numbers of 8 to 64 bits"
            )));
        }
    };
    Ok((dtype, if order == ">" { Endian::Big } else { Endian::Little }))
}

fn exactly(array: &mut impl Read, into: &mut [u8]) -> Result<(), ArrayProblem> {
    array.read_exact(into).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => ArrayProblem::Header("it ends within its header".to_owned()),
        _ => ArrayProblem::Damaged(error.to_string()),
    })
}
