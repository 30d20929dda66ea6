//! The side file that keeps a volume: a header of 192 bytes, then plain 16-bit Hounsfield units.
//!
//! All numbers are little endian:
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | the magic `ARGENTHU` |
//! | 8..12 | `u32` version, 1 |
//! | 12..16 | `u32` byte at which the voxels begin, 192 |
//! | 16..40 | three `u64`: shape, x first |
//! | 40..136 | twelve `f64`: the first three rows of the affine, voxel index to RAS+ mm |
//! | 136..192 | zero |
//! | 192.. | `i16` voxels in HU, x fastest |
//!
//! The voxels begin on a multiple of 64 bytes, so that a mapped file can be used in place and a patch read
//! without the rest. They are not compressed: on a chest CT, libdeflate at level 1 saves 29 % of the bytes
//! and takes thirty times as long to read. There is no checksum, because the store names a file by its
//! digest.

use std::fmt;

use crate::geometry::Geometry;
use crate::volume::Volume;

/// The geometry of a side file and the place of its voxels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SideFileHeader {
    /// Shape and affine.
    pub geometry: Geometry,
    /// Byte at which the little-endian i16 voxels begin; they run to the end of the file.
    pub voxel_offset: usize,
}

const MAGIC: [u8; 8] = *b"ARGENTHU";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 192;

/// The bytes of a side file that keeps `volume`. Equal volumes give equal bytes.
///
/// # Panics
///
/// If the voxels do not fill the shape.
pub fn encode(volume: &Volume) -> Vec<u8> {
    let Geometry { shape, affine } = &volume.geometry;
    assert_eq!(volume.hounsfield.len(), volume.geometry.voxel_count(), "the voxels must fill the shape");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + 2 * volume.hounsfield.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((HEADER_BYTES as u32).to_le_bytes());
    bytes.extend(shape.iter().flat_map(|&voxels| (voxels as u64).to_le_bytes()));
    bytes.extend(affine[..3].iter().flatten().flat_map(|value| value.to_le_bytes()));
    bytes.resize(HEADER_BYTES, 0);
    if cfg!(target_endian = "little") {
        bytes.extend_from_slice(bytemuck::cast_slice(&volume.hounsfield));
    } else {
        bytes.extend(volume.hounsfield.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

/// The volume that a side file keeps.
///
/// # Errors
///
/// As [`decode_header`].
pub fn decode(bytes: &[u8]) -> Result<Volume, SideFileError> {
    let header = decode_header(bytes)?;
    let (voxels, _) = bytes[header.voxel_offset..].as_chunks::<2>();
    let hounsfield = voxels.iter().map(|&voxel| i16::from_le_bytes(voxel)).collect();
    Ok(Volume { geometry: header.geometry, hounsfield })
}

/// Reads the header of a side file, of which `bytes` is the whole: memory-mapped, only its first page is
/// touched.
///
/// # Errors
///
/// [`SideFileError`], if the bytes are not a side file of this version or not as long as its shape asks for.
pub fn decode_header(bytes: &[u8]) -> Result<SideFileHeader, SideFileError> {
    if !bytes.starts_with(&MAGIC) {
        return Err(SideFileError::Magic);
    }
    let header = bytes
        .get(..HEADER_BYTES)
        .ok_or(SideFileError::Length { expected: HEADER_BYTES as u128, actual: bytes.len() })?;
    let version = u32::from_le_bytes(array(header, 8));
    let voxel_offset = u32::from_le_bytes(array(header, 12));
    if version != VERSION || voxel_offset as usize != HEADER_BYTES {
        return Err(SideFileError::Version { version, voxel_offset });
    }
    let lengths: [u64; 3] = std::array::from_fn(|axis| u64::from_le_bytes(array(header, 16 + 8 * axis)));
    // A length of zero makes no voxels, and must not hide that the others cannot be counted.
    let spanned = lengths
        .iter()
        .try_fold(1_usize, |product, &voxels| product.checked_mul(usize::try_from(voxels).ok()?.max(1)));
    let voxels: Option<u128> = spanned.map(|_| lengths.iter().map(|&voxels| u128::from(voxels)).product());
    let expected = voxels.and_then(|voxels| voxels.checked_mul(2)?.checked_add(HEADER_BYTES as u128));
    if expected != Some(bytes.len() as u128) {
        return Err(SideFileError::Length { expected: expected.unwrap_or(u128::MAX), actual: bytes.len() });
    }
    let mut affine = [[0.0, 0.0, 0.0, 1.0]; 4];
    for (place, value) in affine[..3].iter_mut().flatten().enumerate() {
        *value = f64::from_le_bytes(array(header, 40 + 8 * place));
    }
    let shape = lengths.map(|voxels| voxels as usize);
    Ok(SideFileHeader { geometry: Geometry { shape, affine }, voxel_offset: HEADER_BYTES })
}

fn array<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    header[at..at + N].try_into().expect("a slice of N bytes makes an array of N")
}

/// Bytes that are no side file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SideFileError {
    /// The magic bytes are missing.
    Magic,
    /// Another version of the format.
    Version {
        /// The version that the file names.
        version: u32,
        /// The place of the voxels that it names.
        voxel_offset: u32,
    },
    /// The file is longer or shorter than its shape asks for.
    Length {
        /// Bytes that the header asks for.
        expected: u128,
        /// Bytes that are there.
        actual: usize,
    },
}

impl fmt::Display for SideFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SideFileError::Magic => {
                write!(f, "not a volume side file; expected it to begin with `{}`", MAGIC.escape_ascii())
            }
            SideFileError::Version { version, voxel_offset } => write!(
                f,
                "a volume side file of version {version} with voxels at byte {voxel_offset}; expected version {VERSION} and \
                 {HEADER_BYTES}: make the volume again with this version of argent"
            ),
            SideFileError::Length { expected, actual } => write!(
                f,
                "a volume side file of {actual} bytes; its header asks for {expected}: it was cut short or overwritten, \
                 make the volume again"
            ),
        }
    }
}

impl std::error::Error for SideFileError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{HEADER_BYTES, SideFileError, decode, decode_header, encode};
    use crate::geometry::Geometry;
    use crate::orientation::Orientation;
    use crate::volume::Volume;

    fn volume(shape: [usize; 3]) -> Volume {
        let mut geometry = Geometry::from_spacing(shape, [0.1 + 0.2, 1.0 / 3.0, 2.5], Orientation::LPS);
        geometry.set_column(3, [-123.456, 78.9, f64::MIN_POSITIVE]);
        Volume {
            geometry,
            hounsfield: (0..geometry.voxel_count()).map(|place| (place * 7919) as i16).collect(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn what_is_encoded_is_decoded(shape in prop::array::uniform3(1..9_usize)) {
            let volume = volume(shape);
            let bytes = encode(&volume);
            prop_assert_eq!(bytes.len(), HEADER_BYTES + 2 * volume.hounsfield.len());
            prop_assert_eq!(decode(&bytes), Ok(volume));
        }

        #[test]
        fn any_header_is_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 184)) {
            let bytes = [super::MAGIC.as_slice(), &[1, 0, 0, 0, 192, 0, 0, 0], &bytes].concat();
            if let Ok(volume) = decode(&bytes) {
                prop_assert_eq!(volume.hounsfield.len(), volume.geometry.voxel_count());
            }
        }
    }

    /// The layout is a promise: stores keep such files.
    #[test]
    fn the_layout_is_as_documented() {
        let bytes = encode(&volume([2, 3, 4]));
        assert_eq!(
            bytes[..40],
            *b"ARGENTHU\x01\0\0\0\xc0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0"
        );
        assert_eq!(bytes[40..48], (-(0.1_f64 + 0.2)).to_le_bytes());
        assert_eq!(bytes[64..72], (-123.456_f64).to_le_bytes());
        assert_eq!(bytes[136..192], [0; 56]);
        assert_eq!(bytes[194..196], 7919_i16.to_le_bytes());
        assert_eq!(decode_header(&bytes).unwrap().voxel_offset, 192);
    }

    #[test]
    fn what_is_no_side_file_is_refused() {
        let bytes = encode(&volume([2, 3, 4]));
        assert_eq!(decode(b"\x89PNG"), Err(SideFileError::Magic));
        assert_eq!(decode(&bytes[..100]), Err(SideFileError::Length { expected: 192, actual: 100 }));
        assert_eq!(decode(&bytes[..239]), Err(SideFileError::Length { expected: 240, actual: 239 }));
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(decode(&longer), Err(SideFileError::Length { expected: 240, actual: 241 }));
        let mut newer = bytes.clone();
        newer[8] = 2;
        assert_eq!(decode(&newer), Err(SideFileError::Version { version: 2, voxel_offset: 192 }));
        let mut endless = bytes;
        endless[16..40].fill(0xff);
        assert!(matches!(decode(&endless), Err(SideFileError::Length { .. })));
        endless[32..40].fill(0);
        assert!(
            matches!(decode(&endless[..192]), Err(SideFileError::Length { .. })),
            "no voxels, and no end of rows"
        );
    }
}
