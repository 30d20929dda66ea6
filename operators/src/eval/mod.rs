//! Operators that measure.

pub mod agreement;
pub mod classification;
mod cohort;
pub mod retrieval;
mod vectors;
mod versions;
pub mod zero_shot;
