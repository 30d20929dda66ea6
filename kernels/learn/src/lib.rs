//! 3D convolution, networks and training on candle, for volumes of Hounsfield units.
//!
//! - [`classifier::train`] fits a multi-label classifier and returns weights that carry their own view,
//! - [`clip::train`] fits an image encoder and a text encoder to pairs,
//! - [`infer::Model`] scores and embeds volumes and images with such weights,
//! - [`view::View`] is the one place where voxels become network input,
//! - [`text_encoder::TextEncoder`] embeds texts by a BERT, published or small, and can be trained,
//! - [`pretrained`] puts published weights into a network and reports where each array came from,
//! - [`optimiser`], [`schedule`] and [`gradients`] are what a step does, as PyTorch computes it,
//! - [`conv`], [`batch_norm`], [`residual`] and [`pool`] are the layers candle lacks or has only slowly,
//!   each with its own gradient,
//! - [`transformer`] and [`interpolate`] are those whose form in candle has no gradient, made of operations that do.
//!
//! Volumes are given x fastest with their shape as `[x, y, z]`; tensors are `(N, C, D, H, W)` with
//! D, H, W = z, y, x, which is the same order in memory.
//!
//! Every layer adds in an order that the shapes alone decide, so that results do not depend on the number of
//! threads. They do depend on the processor: the matrix kernels are chosen at run time.

pub mod augment;
pub mod batch_norm;
pub mod batches;
pub mod bert;
pub mod classifier;
pub mod clip;
pub mod conv;
pub mod gradients;
pub mod history;
pub mod infer;
pub mod interpolate;
pub mod loss;
pub mod model;
pub mod optimiser;
pub mod pool;
pub mod pretrained;
pub mod residual;
pub mod schedule;
pub mod settings;
pub mod text_encoder;
pub mod transformer;
pub mod view;
pub mod vocabulary;
pub mod weights;

mod checkpoint;
mod contrast;
mod conv_cpu;
mod conv_unfold;
mod course;
mod densenet;
mod error;
#[cfg(test)]
mod goldens;
mod layers;
mod network;
mod panel;
mod parameters;
mod resnet;
mod storage;
mod vectorised;
mod vision_transformer;

pub use error::Error;
