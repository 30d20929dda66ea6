//! Training of networks.

pub mod augment;
pub mod classifier;
mod course;
pub mod view;
