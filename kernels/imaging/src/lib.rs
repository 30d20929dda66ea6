//! Computed tomography volumes (reading NIfTI, DICOM and npz, orientation, Hounsfield units, resampling) and X-ray images.
//!
//! One convention holds everywhere. World coordinates are NIfTI's: millimetres, x to the patient's Right, y
//! to Anterior, z to Superior. Voxels lie in file order: index `(i, j, k)` of a `[nx, ny, nz]` volume is
//! element `i + nx * (j + ny * k)`. An orientation such as `LPS` names where each index *increases to*, as
//! nibabel's `aff2axcodes` does.
//!
//! The order of the work is fixed: scale to Hounsfield units, clip to [`HOUNSFIELD_RANGE`], resample.
//! Windowing, cropping and normalising come later and elsewhere.

pub mod dicom;
pub mod image;
pub mod nifti;
pub mod npz;
pub mod resample;
pub mod sheet;
pub mod side_file;

mod buffer;
mod geometry;
mod jpeg_scans;
mod orientation;
#[cfg(test)]
mod reference;
mod rounding;
mod statistics;
mod stored;
mod volume;
mod voxels;

pub use buffer::release_spare_memory;
pub use geometry::Geometry;
pub use orientation::{Orientation, OrientationError, orient};
pub use statistics::{Histogram, HounsfieldStatistics};
pub use stored::{AffineSource, StoredVolume};
pub use volume::{HOUNSFIELD_RANGE, Volume};
pub use voxels::Voxels;
