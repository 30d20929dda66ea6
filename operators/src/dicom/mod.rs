//! Operators on DICOM files: what each file says, and which of them are the slices of one volume.

pub mod headers;
pub mod series;
