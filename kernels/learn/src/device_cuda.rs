//! The GPUs of this machine, by CUDA's driver.

use candle_core::Device as Opened;
use cudarc::driver::{CudaContext, DriverError, sys};

use crate::device::Gpu;
use crate::error::Error;

/// All GPUs that the driver shows.
pub(crate) fn gpus() -> Result<Vec<Gpu>, Error> {
    (0..count()?).map(gpu).collect()
}

/// A GPU, with one stream that all threads share: what one thread put into memory is there for the next.
pub(crate) fn open(index: usize) -> Result<Opened, Error> {
    let count = count().map_err(|error| Error::Device(format!("there is no GPU {index}: {error}")))?;
    if index >= count {
        let there = match count {
            0 => "the driver shows none".to_owned(),
            1 => "there is one, with the index 0".to_owned(),
            _ => format!("there are {count}, with the indices 0 to {}", count - 1),
        };
        return Err(Error::Device(format!("there is no GPU {index}: {there}")));
    }
    let opened = Opened::new_cuda_with_stream(index)
        .map_err(|error| Error::Device(format!("GPU {index} cannot be used: {error}")))?;
    share_one_stream(&opened)?;
    Ok(opened)
}

#[expect(unsafe_code, reason = "events between streams are turned off")]
fn share_one_stream(opened: &Opened) -> Result<(), Error> {
    let device = opened.as_cuda_device()?;
    // SAFETY: events order the streams of a context, and this one has a single stream: every tensor of the device is
    // made, used and freed on it, in the order of the calls.
    unsafe { device.disable_event_tracking() };
    Ok(())
}

fn count() -> Result<usize, Error> {
    match CudaContext::device_count() {
        Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
        Err(DriverError(sys::CUresult::CUDA_ERROR_STUB_LIBRARY)) => Err(Error::Device(
            "there is no driver: libcuda.so.1 does not open; install NVIDIA's driver, or name its folder in \
             LD_LIBRARY_PATH"
                .into(),
        )),
        Err(error) => Err(Error::Device(format!("the driver does not start: {error}"))),
    }
}

fn gpu(index: usize) -> Result<Gpu, Error> {
    let describe = || -> Result<Gpu, DriverError> {
        let context = CudaContext::new(index)?;
        let [major, minor] = [
            sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        ];
        Ok(Gpu {
            index,
            name: context.name()?,
            memory_bytes: context.total_mem()?,
            compute_capability: [context.attribute(major)?, context.attribute(minor)?],
            cudnn: cudnn_version(),
        })
    };
    describe().map_err(|error| Error::Device(format!("GPU {index} cannot be used: {error}")))
}

/// The version of cuDNN as it is written, from a number like 91900.
fn cudnn_version() -> Option<String> {
    match cudarc::cudnn::result::get_version() {
        0 => None,
        number => Some(format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)),
    }
}
