//! Operators that measure.

pub mod classification;
