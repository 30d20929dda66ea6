//! Writing NIfTI-1.

use libdeflater::{CompressionLvl, Compressor};

use crate::geometry::Geometry;
use crate::volume::Volume;

/// A NIfTI-1 file of int16 voxels without scaling, in mm, with sform and qform (code 1, scanner); gzipped at
/// level 6 if `gz`.
///
/// Equal volumes give equal bytes: the gzip header holds neither time nor name. A sheared geometry has no
/// qform, which can only rotate; its code is 0 then.
///
/// # Panics
///
/// If an axis has more than 32767 voxels, which NIfTI-1 cannot say, or the voxels do not fill the shape.
pub fn write(volume: &Volume, gz: bool) -> Vec<u8> {
    assert_eq!(volume.hounsfield.len(), volume.geometry.voxel_count(), "the voxels must fill the shape");
    let mut file = header(&volume.geometry);
    file.reserve_exact(2 * volume.hounsfield.len());
    file.extend(volume.hounsfield.iter().flat_map(|value| value.to_le_bytes()));
    if gz { gzip(&file) } else { file }
}

const SCANNER: i16 = 1;
const INT16: i16 = 4;
const MILLIMETRES: u8 = 2;

/// The 348 bytes of `nifti1.h` and the four that say no extension follows.
fn header(geometry: &Geometry) -> Vec<u8> {
    let mut bytes = vec![0_u8; 352];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &348_i32.to_le_bytes());
    put(40, &3_i16.to_le_bytes());
    for (axis, &voxels) in geometry.shape.iter().enumerate() {
        let voxels = i16::try_from(voxels).expect("a NIfTI-1 axis has at most 32767 voxels");
        put(42 + 2 * axis, &voxels.to_le_bytes());
    }
    for unused in 4..8 {
        put(40 + 2 * unused, &1_i16.to_le_bytes());
    }
    put(70, &INT16.to_le_bytes());
    put(72, &16_i16.to_le_bytes());
    for (axis, step) in geometry.spacing_mm().into_iter().enumerate() {
        put(80 + 4 * axis, &(step as f32).to_le_bytes());
    }
    put(108, &352_f32.to_le_bytes());
    put(112, &1_f32.to_le_bytes());
    put(123, &[MILLIMETRES]);
    let qform = (!geometry.sheared()).then(|| Quaternion::of(geometry));
    let handedness = qform.as_ref().map_or(1.0, |qform| qform.handedness);
    put(76, &handedness.to_le_bytes());
    if let Some(qform) = qform {
        put(252, &SCANNER.to_le_bytes());
        for (place, value) in qform.vector.into_iter().chain(geometry.column(3)).enumerate() {
            put(256 + 4 * place, &(value as f32).to_le_bytes());
        }
    }
    put(254, &SCANNER.to_le_bytes());
    for (row, values) in geometry.affine[..3].iter().enumerate() {
        for (column, &value) in values.iter().enumerate() {
            put(280 + 16 * row + 4 * column, &(value as f32).to_le_bytes());
        }
    }
    put(344, b"n+1\0");
    bytes
}

/// The rotation of a qform: the last three components of a unit quaternion whose first is not negative, and
/// -1 where the third axis is mirrored.
struct Quaternion {
    vector: [f64; 3],
    handedness: f32,
}

impl Quaternion {
    /// Shepperd's method (1978): divide by the largest component, which is never small.
    fn of(geometry: &Geometry) -> Quaternion {
        let spacing = geometry.spacing_mm();
        let mut r: [[f64; 3]; 3] =
            std::array::from_fn(|row| std::array::from_fn(|axis| geometry.affine[row][axis] / spacing[axis]));
        let determinant: f64 = (0..3)
            .map(|k| {
                let (next, last) = ((k + 1) % 3, (k + 2) % 3);
                r[0][k] * (r[1][next] * r[2][last] - r[1][last] * r[2][next])
            })
            .sum();
        let handedness = if determinant < 0.0 { -1.0 } else { 1.0 };
        for row in &mut r {
            row[2] *= f64::from(handedness);
        }
        let squares = [
            1.0 + r[0][0] + r[1][1] + r[2][2],
            1.0 + r[0][0] - r[1][1] - r[2][2],
            1.0 - r[0][0] + r[1][1] - r[2][2],
            1.0 - r[0][0] - r[1][1] + r[2][2],
        ];
        let largest = (1..4).fold(0, |best, k| if squares[k] > squares[best] { k } else { best });
        let root = 2.0 * squares[largest].sqrt();
        let [ab, ac, ad] = [r[2][1] - r[1][2], r[0][2] - r[2][0], r[1][0] - r[0][1]];
        let [bc, bd, cd] = [r[0][1] + r[1][0], r[0][2] + r[2][0], r[1][2] + r[2][1]];
        let [a, b, c, d] = match largest {
            0 => [root / 4.0, ab / root, ac / root, ad / root],
            1 => [ab / root, root / 4.0, bc / root, bd / root],
            2 => [ac / root, bc / root, root / 4.0, cd / root],
            _ => [ad / root, bd / root, cd / root, root / 4.0],
        };
        let sign = if a < 0.0 { -1.0 } else { 1.0 };
        Quaternion { vector: [b * sign, c * sign, d * sign], handedness }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let level = CompressionLvl::new(6).expect("6 is one of libdeflate's levels");
    let mut compressor = Compressor::new(level);
    let mut packed = vec![0; compressor.gzip_compress_bound(bytes.len())];
    let size = compressor.gzip_compress(bytes, &mut packed).expect("the bound is large enough for any input");
    packed.truncate(size);
    packed
}
