//! 3D convolution, networks and training on candle, for volumes of Hounsfield units.
//!
//! - [`train::train`] fits a multi-label classifier and returns weights that carry their own view,
//! - [`infer::Model`] scores and embeds volumes with such weights,
//! - [`view::View`] is the one place where Hounsfield units become network input,
//! - [`optimiser`], [`schedule`] and [`gradients`] are what a step does, as PyTorch computes it,
//! - [`conv`], [`batch_norm`], [`residual`] and [`pool`] are the layers candle lacks or has only slowly,
//!   each with its own gradient.
//!
//! Volumes are given x fastest with their shape as `[x, y, z]`; tensors are `(N, C, D, H, W)` with
//! D, H, W = z, y, x, which is the same order in memory.
//!
//! Every layer adds in an order that the shapes alone decide, so that results do not depend on the number of
//! threads. They do depend on the processor: the matrix kernels are chosen at run time.

pub mod batch_norm;
pub mod conv;
pub mod gradients;
pub mod infer;
pub mod loss;
pub mod model;
pub mod optimiser;
pub mod pool;
pub mod residual;
pub mod schedule;
pub mod train;
pub mod view;
pub mod weights;

mod batches;
mod checkpoint;
mod conv_cpu;
mod conv_unfold;
mod error;
#[cfg(test)]
mod goldens;
mod panel;
mod parameters;
mod resnet;
mod run;
mod storage;
mod vectorised;

pub use error::Error;
