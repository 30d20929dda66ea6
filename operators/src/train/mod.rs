//! Operators that train.

pub mod classifier;
pub mod view;
