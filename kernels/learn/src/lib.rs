//! 3D convolution, networks and training on candle, for volumes of Hounsfield units.
//!
//! - [`classifier::train`] fits a multi-label classifier and returns weights that carry their own view,
//! - [`clip::train`] fits an image encoder and a text encoder to pairs,
//! - [`infer::Model`] scores and embeds volumes and images with such weights,
//! - [`device`] says which GPUs there are,
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
//! On a GPU (feature `cuda`, files `*_cuda.rs`) the feature maps of convolutional networks are bf16 and channels-last,
//! `(N, D, H, W, C)`; transformers compute in f32. Weights, statistics, losses and the optimiser's state are f32.
//!
//! Every layer adds in an order that the shapes alone decide, so that results do not depend on the number of
//! threads. They do depend on the processor: the matrix kernels are chosen at run time.
//! On a GPU, cuDNN's algorithms are chosen by measurement, so that two runs can differ in rounding.

pub mod augment;
pub mod batch_norm;
pub mod batches;
pub mod bert;
pub mod classifier;
pub mod clip;
pub mod conv;
pub mod device;
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

#[cfg(feature = "cuda")]
mod batch_norm_cuda;
mod channels;
mod checkpoint;
mod contrast;
mod conv_cpu;
#[cfg(feature = "cuda")]
mod conv_cuda;
#[cfg(feature = "cuda")]
mod conv_cudnn;
#[cfg(feature = "cuda")]
mod conv_gemm_cuda;
mod conv_unfold;
mod course;
mod densenet;
#[cfg(feature = "cuda")]
mod device_cuda;
mod error;
#[cfg(test)]
mod goldens;
mod layers;
mod network;
#[cfg(feature = "cuda")]
mod optimiser_cuda;
mod panel;
mod parameters;
#[cfg(feature = "cuda")]
mod pool_cuda;
#[cfg(feature = "cuda")]
mod residual_cuda;
mod resnet;
mod storage;
#[cfg(feature = "cuda")]
mod storage_cuda;
#[cfg(feature = "cuda")]
#[cfg(test)]
mod twins;
mod vectorised;
mod vision_transformer;

pub use error::Error;
