//! Operators on volumes: one row per volume, its voxels in a side file that the row names.

pub mod resample;
pub mod scan;
pub(crate) mod slices;
