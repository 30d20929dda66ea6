//! Where networks compute.

use candle_core::{DType, Device as Opened};

use crate::error::Error;

/// Where a network is trained or applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The processor, in f32.
    Cpu,
    /// A GPU by its index, in bf16 with weights in f32.
    Cuda(usize),
}

impl Device {
    /// The device, ready to compute.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no such GPU, or no driver, or if this program was built without them.
    pub(crate) fn open(self) -> Result<Opened, Error> {
        match self {
            Self::Cpu => Ok(Opened::Cpu),
            Self::Cuda(index) => open_gpu(index),
        }
    }
}

/// The type of feature maps on a device; weights, statistics and losses are f32 on all.
pub(crate) fn feature_type(device: &Opened) -> DType {
    if device.is_cuda() { DType::BF16 } else { DType::F32 }
}

/// A GPU that this program can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// For [`Device::Cuda`]; counted among those that `CUDA_VISIBLE_DEVICES` lets the program see.
    pub index: usize,
    /// As its maker calls it.
    pub name: String,
    /// Its memory.
    pub memory_bytes: usize,
    /// Major and minor number of what its processors can do.
    pub compute_capability: [i32; 2],
    /// The version of cuDNN, by which convolutions are computed; none where it does not open, and they take longer.
    pub cudnn: Option<String>,
}

/// The GPUs of this machine.
///
/// # Errors
/// [`Error::Device`] if this program was built without GPU support, or if there is no driver.
pub fn gpus() -> Result<Vec<Gpu>, Error> {
    #[cfg(feature = "cuda")]
    return crate::device_cuda::gpus();
    #[cfg(not(feature = "cuda"))]
    Err(Error::Device(WITHOUT_GPUS.into()))
}

fn open_gpu(index: usize) -> Result<Opened, Error> {
    #[cfg(feature = "cuda")]
    return crate::device_cuda::open(index);
    #[cfg(not(feature = "cuda"))]
    Err(Error::Device(format!("there is no GPU {index}: {WITHOUT_GPUS}")))
}

#[cfg(not(feature = "cuda"))]
const WITHOUT_GPUS: &str = "this argent was built without GPU support";

/// Whether a computation failed for want of memory on its device.
pub(crate) fn is_out_of_memory(error: &candle_core::Error) -> bool {
    // The driver's error lies in boxes of other crates, with or without a backtrace around it; its name is CUDA's.
    let told = error.to_string();
    ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"]
        .iter()
        .any(|name| told.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_memory_is_known_by_its_name() {
        // As candle hands on what the driver says.
        let told = |message: &str| candle_core::Error::Cuda(message.into());
        assert!(is_out_of_memory(&told("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")")));
        assert!(!is_out_of_memory(&told("DriverError(CUDA_ERROR_INVALID_VALUE, \"invalid argument\")")));
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn without_gpu_support_there_is_none() {
        assert_eq!(gpus().unwrap_err().to_string(), "this argent was built without GPU support");
        let error = Device::Cuda(1).open().unwrap_err().to_string();
        assert_eq!(error, "there is no GPU 1: this argent was built without GPU support");
    }
}
