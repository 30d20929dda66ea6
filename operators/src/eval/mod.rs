//! Operators that measure.

pub mod agreement;
pub mod classification;
mod versions;
