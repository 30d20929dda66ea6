//! Training of networks.

pub mod augment;
pub mod classifier;
pub mod clip;
mod course;
pub mod text;
pub mod view;
