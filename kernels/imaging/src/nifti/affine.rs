//! Which of a header's transforms places the voxels, and that transform in millimetres.

use super::error::ReadProblem;
use super::header::Header;
use crate::geometry::{Geometry, inverse, transform};
use crate::orientation::Orientation;
use crate::stored::AffineSource;

/// The geometry of a header: the sform if its code is positive, else the qform, else spacing alone.
///
/// Warnings are added for a header that says nothing of orientation, for two transforms that disagree and for
/// a unit that is not named.
pub(super) fn geometry(
    header: &Header,
    warnings: &mut Vec<String>,
) -> Result<(Geometry, AffineSource), ReadProblem> {
    let unit_mm = millimetres_per_unit(header.spatial_unit, warnings);
    let sform = (header.sform_code > 0).then(|| from_rows(header.sform));
    let qform = (header.qform_code > 0).then(|| qform(header));
    let (mut affine, source) = match (sform, qform) {
        (Some(sform), Some(Ok(qform))) => {
            warn_if_apart(&sform, &qform, header.shape, unit_mm, warnings);
            (sform, AffineSource::Sform)
        }
        (Some(sform), Some(Err(problem))) => {
            warnings.push(format!("the sform is used and the qform is unusable: {problem}"));
            (sform, AffineSource::Sform)
        }
        (Some(sform), None) => (sform, AffineSource::Sform),
        (None, Some(qform)) => (qform.map_err(ReadProblem::Header)?, AffineSource::Qform),
        (None, None) => (spacing_alone(header, warnings)?, AffineSource::None),
    };
    for value in affine[..3].iter_mut().flatten() {
        *value *= unit_mm;
    }
    if inverse(&affine).is_none() {
        return Err(ReadProblem::Header(format!(
            "the affine {:?} (source: {source}) does not span space; expected three independent axes: repair the header at its \
             source",
            &affine[..3]
        )));
    }
    Ok((Geometry { shape: header.shape, affine }, source))
}

/// The rotation and offset of the qform, from unit quaternion, spacing and handedness (`nifti1.h`, method 2).
fn qform(header: &Header) -> Result<[[f64; 4]; 4], String> {
    let [b, c, d] = header.quaternion;
    let [handedness, spacing @ ..] = header.pixdim;
    if spacing.iter().any(|&step| step.is_nan() || step <= 0.0) {
        return Err(format!("pixdim is {spacing:?}; expected three positive spacings"));
    }
    // The header stores three components in f32, so that their squares may sum to a little more than one.
    let rest = 1.0 - (b * b + c * c + d * d);
    if rest.is_nan() || rest < -1e-5 {
        return Err(format!("the quaternion ({b}, {c}, {d}) is longer than 1; expected a unit quaternion"));
    }
    let scale = if rest < 0.0 { (b * b + c * c + d * d).sqrt().recip() } else { 1.0 };
    let (a, b, c, d) = (rest.max(0.0).sqrt(), b * scale, c * scale, d * scale);
    let rotation = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    let sign = if handedness < 0.0 { -1.0 } else { 1.0 };
    let step = [spacing[0], spacing[1], spacing[2] * sign];
    Ok(from_rows(std::array::from_fn(|row| {
        let [x, y, z] = std::array::from_fn(|axis| rotation[row][axis] * step[axis]);
        [x, y, z, header.qform_offset[row]]
    })))
}

/// What a header without orientation leaves: spacing along axes that are called RAS for want of a name.
fn spacing_alone(header: &Header, warnings: &mut Vec<String>) -> Result<[[f64; 4]; 4], ReadProblem> {
    let [_, spacing @ ..] = header.pixdim;
    if spacing.iter().any(|&step| !step.is_finite() || step == 0.0) {
        return Err(ReadProblem::Header(format!(
            "neither sform nor qform is set and pixdim is {spacing:?}; expected a spacing along each axis: repair the \
             header at its source"
        )));
    }
    warnings.push(
        "no orientation: neither sform nor qform is set, so left and right are not known; state the orientation and \
         origin or leave the volume out"
            .to_owned(),
    );
    Ok(Geometry::from_spacing(header.shape, spacing.map(f64::abs), Orientation::RAS).affine)
}

/// Millimetres in one of the header's units. A file without a unit is taken to be in mm, as all readers do.
fn millimetres_per_unit(unit: u8, warnings: &mut Vec<String>) -> f64 {
    const METRE: u8 = 1;
    const MILLIMETRE: u8 = 2;
    const MICRON: u8 = 3;
    match unit {
        METRE => 1e3,
        MILLIMETRE => 1.0,
        MICRON => 1e-3,
        other => {
            warnings.push(format!("the unit of length is not stated (code {other}); taken as mm"));
            1.0
        }
    }
}

/// Warns when sform and qform move any voxel apart by more than 1e-3 mm per voxel of the longest axis.
fn warn_if_apart(
    sform: &[[f64; 4]; 4],
    qform: &[[f64; 4]; 4],
    shape: [usize; 3],
    unit_mm: f64,
    warnings: &mut Vec<String>,
) {
    let longest = shape.into_iter().max().unwrap_or(1) as f64;
    // Both maps are affine, so that they are farthest apart at a corner.
    let apart_mm = (0..8)
        .map(|corner| {
            let index: [f64; 3] =
                std::array::from_fn(
                    |axis| if corner >> axis & 1 == 1 { (shape[axis] - 1) as f64 } else { 0.0 },
                );
            let (s, q) = (transform(sform, index), transform(qform, index));
            (0..3).map(|axis| (s[axis] - q[axis]).powi(2)).sum::<f64>().sqrt() * unit_mm
        })
        .fold(0.0, f64::max);
    if apart_mm > 1e-3 * longest {
        warnings
            .push(format!("sform and qform place voxels up to {apart_mm:.3} mm apart; the sform is used"));
    }
}

fn from_rows(rows: [[f64; 4]; 3]) -> [[f64; 4]; 4] {
    [rows[0], rows[1], rows[2], [0.0, 0.0, 0.0, 1.0]]
}
