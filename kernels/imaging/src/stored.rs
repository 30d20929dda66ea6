//! A volume as its file stores it.

use std::fmt;

use crate::geometry::Geometry;
use crate::volume::{HOUNSFIELD_RANGE, Volume};
use crate::voxels::Voxels;

/// A scalar volume as its file has it.
#[derive(Debug, Clone)]
pub struct StoredVolume {
    /// Shape and affine in mm. With [`AffineSource::None`] only the spacing means anything.
    pub geometry: Geometry,
    /// The voxels, x fastest.
    pub voxels: Voxels,
    /// The stored type, by numpy's name, such as `int16`.
    pub dtype: &'static str,
    /// Where the affine comes from.
    pub affine_source: AffineSource,
    /// The slope and intercept of the file's header; `None` where it asks for none (slope 0, NaN or infinite, by the
    /// standard) or for the identity. Set it to `None` for a file whose stored values are HU whatever its
    /// header says.
    pub scaling: Option<(f64, f64)>,
    /// What a person should know of the file, one sentence each.
    pub warnings: Vec<String>,
}

impl StoredVolume {
    /// The values after [`StoredVolume::scaling`], computed in f64 and rounded once, x fastest.
    pub fn to_f32(&self) -> Vec<f32> {
        self.voxels.to_f32(self.scaling)
    }

    /// The values after [`StoredVolume::scaling`] as 16-bit HU, x fastest: rounded half to even and clipped to
    /// [`HOUNSFIELD_RANGE`]. The count says how many values lay more than half a unit outside that range.
    ///
    /// Every value is widened to f64 before it is scaled, so that none wraps.
    pub fn hounsfield_i16(&self) -> (Vec<i16>, u64) {
        self.voxels.to_i16(self.scaling, HOUNSFIELD_RANGE)
    }

    /// The stored values, x fastest, where they are 16-bit HU already. Unlike all others here they are not clipped.
    pub(crate) fn unclipped_i16(&self) -> Option<&[i16]> {
        self.voxels.as_i16(self.scaling)
    }

    /// The volume with the voxels of [`StoredVolume::hounsfield_i16`], and its count. An unscaled int16 file is
    /// converted where it lies, without a second copy of its voxels.
    pub fn into_volume(self) -> (Volume, u64) {
        let (hounsfield, saturated) = self.voxels.into_i16(self.scaling, HOUNSFIELD_RANGE);
        (Volume { geometry: self.geometry, hounsfield }, saturated)
    }
}

/// What places the voxels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AffineSource {
    /// The sform of a NIfTI header: used whenever its code is positive.
    Sform,
    /// The qform of a NIfTI header: used when its code is positive and the sform's is not.
    Qform,
    /// Nothing in the file. The affine holds the spacing on axes labelled RAS at origin 0; left and right are
    /// unknown, and no orientation may be asked for before one is assumed with [`Geometry::from_spacing`].
    None,
}

impl fmt::Display for AffineSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AffineSource::Sform => "sform",
            AffineSource::Qform => "qform",
            AffineSource::None => "none",
        })
    }
}
