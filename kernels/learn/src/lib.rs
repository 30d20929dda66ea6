//! 3D convolution, networks and training on candle, for volumes of Hounsfield units.
//!
//! - [`train::train`] fits a multi-label classifier and returns weights that carry their own view,
//! - [`infer::Model`] scores and embeds volumes with such weights,
//! - [`device`] says which GPUs there are,
//! - [`view::View`] is the one place where Hounsfield units become network input,
//! - [`conv`], [`batch_norm`], [`residual`] and [`pool`] are the layers candle lacks or has only slowly,
//!   each with its own gradient.
//!
//! Volumes are given x fastest with their shape as `[x, y, z]`; tensors are `(N, C, D, H, W)` with
//! D, H, W = z, y, x, which is the same order in memory.
//!
//! On a GPU (feature `cuda`, files `*_cuda.rs`) feature maps are bf16 and channels-last, `(N, D, H, W, C)`; weights,
//! statistics, losses and the optimiser's state are f32.
//!
//! Every layer partitions its work by shape alone and adds in a fixed order, so that results do not depend on
//! the number of threads. They do depend on the processor: the matrix kernels are chosen at run time.
//! On a GPU, cuDNN's algorithms are chosen by measurement, so that two runs can differ in rounding.

pub mod batch_norm;
pub mod conv;
pub mod device;
pub mod infer;
pub mod loss;
pub mod model;
pub mod optimiser;
pub mod pool;
pub mod residual;
pub mod train;
pub mod view;
pub mod weights;

#[cfg(feature = "cuda")]
mod batch_norm_cuda;
mod batches;
mod channels;
mod checkpoint;
mod conv_cpu;
#[cfg(feature = "cuda")]
mod conv_cuda;
#[cfg(feature = "cuda")]
mod conv_cudnn;
#[cfg(feature = "cuda")]
mod conv_gemm_cuda;
#[cfg(feature = "cuda")]
mod device_cuda;
mod error;
#[cfg(test)]
mod goldens;
mod matrix;
#[cfg(feature = "cuda")]
mod optimiser_cuda;
mod parameters;
#[cfg(feature = "cuda")]
#[cfg_attr(not(test), expect(dead_code, reason = "pooling over windows is not in `pool` yet"))]
mod pool_cuda;
#[cfg(feature = "cuda")]
mod residual_cuda;
mod resnet;
mod run;
mod storage;
#[cfg(feature = "cuda")]
mod storage_cuda;
#[cfg(feature = "cuda")]
#[cfg(test)]
mod twins;

pub use error::Error;
