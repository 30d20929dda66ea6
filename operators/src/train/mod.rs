//! Training of networks.

pub mod augment;
pub mod classifier;
pub mod clip;
mod course;
pub mod init;
pub mod text;
pub mod view;
