//! Operators that turn rows into vectors.

pub mod images;
