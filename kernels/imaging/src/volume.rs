//! A volume in Hounsfield units.

use crate::geometry::Geometry;
use crate::statistics::HounsfieldStatistics;

/// A scalar volume of 16-bit Hounsfield units and the place of its voxels in the world.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    /// Shape and affine.
    pub geometry: Geometry,
    /// `shape[0] * shape[1] * shape[2]` values in HU, x fastest.
    pub hounsfield: Vec<i16>,
}

/// The range in HU that a stored volume is clipped to: what a 12-bit scanner with intercept -1024 can say.
///
/// Padding outside the field of view is often -2000, -3024 or -8192 HU; interpolated, it would drag soft
/// edges down, so the clip comes before resampling. It is a guard, not a window.
pub const HOUNSFIELD_RANGE: (i16, i16) = (-1024, 3071);

impl Volume {
    /// Extremes, moments and the shape of the distribution, with a word on whether it looks like HU at all.
    pub fn statistics(&self) -> HounsfieldStatistics {
        HounsfieldStatistics::of(&self.hounsfield)
    }
}
