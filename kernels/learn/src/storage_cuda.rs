//! Access to the raw slices of candle's storage on a GPU, and the kernels of `cuda/kernels.cu`.

use std::sync::Arc;

use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaDevice, CudaStorage, Layout, Result, Tensor, bail};
use cudarc::driver::{CudaFunction, CudaSlice, CudaStream, CudaView, DeviceRepr, LaunchArgs, LaunchConfig};
use half::bf16;

/// An element type of feature maps on a GPU.
pub(crate) trait Element: CudaDType + DeviceRepr + 'static {
    /// Its name in the names of kernels.
    const NAME: &'static str;
    /// Elements in the 16 bytes that a thread of a `_wide` kernel loads at once.
    const WIDTH: usize = 16 / size_of::<Self>();
}

impl Element for f32 {
    const NAME: &'static str = "f32";
}

impl Element for bf16 {
    const NAME: &'static str = "bf16";
}

/// Runs `$body` with the type alias `$T` for the element type of a storage on a GPU; other types than f32 and bf16
/// are errors that name the operation `$op`.
macro_rules! with_element {
    ($op:expr, $storage:expr, $T:ident => $body:expr) => {{
        use candle_core::{DType, backend::BackendStorage};
        match $storage.dtype() {
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::BF16 => {
                type $T = half::bf16;
                $body
            }
            other => candle_core::bail!("{}: the type is {other:?} on a GPU, expected f32 or bf16", $op),
        }
    }};
}
pub(crate) use with_element;

/// The elements of a contiguous tensor. `op` names the caller in the error.
pub(crate) fn contiguous_view<'a, T: Element>(
    op: &str,
    storage: &'a CudaStorage,
    layout: &Layout,
) -> Result<CudaView<'a, T>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(storage.as_cuda_slice::<T>()?.slice(start..end)),
        None => bail!("{op}: the strides are {:?}, expected a contiguous tensor", layout.stride()),
    }
}

/// Calls `f` with the elements of a contiguous f32 tensor on a GPU.
pub(crate) fn with_floats<R>(
    op: &str,
    tensor: &Tensor,
    f: impl FnOnce(&CudaView<f32>) -> Result<R>,
) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        candle_core::Storage::Cuda(storage) => f(&contiguous_view(op, storage, layout)?),
        _ => bail!("{op}: a tensor is on the CPU, expected it on the GPU of the others"),
    }
}

/// Room for `count` elements whose values are not set.
#[expect(unsafe_code, reason = "memory of a GPU comes without values")]
pub(crate) fn uninitialised<T: Element>(device: &CudaDevice, count: usize) -> Result<CudaSlice<T>> {
    // SAFETY: every caller hands the whole slice to a kernel or library call that sets each element.
    unsafe { device.alloc(count) }
}

/// The kernel `name` for elements of type `T`.
pub(crate) fn kernel<T: Element>(device: &CudaDevice, name: &str) -> Result<Kernel> {
    plain_kernel(device, &format!("{name}_{}", T::NAME))
}

/// The kernel `name` for elements of type `T`, the one that loads 16 bytes at once where `channels` (or the count of
/// elements that are all alike) and every start in memory allow it.
pub(crate) fn wide_kernel<T: Element>(
    device: &CudaDevice,
    name: &str,
    channels: usize,
    layouts: &[&Layout],
) -> Result<(Kernel, usize)> {
    let starts = layouts.iter().map(|layout| layout.start_offset());
    let wide = starts.chain([channels]).all(|place| place.is_multiple_of(T::WIDTH));
    let (suffix, width) = if wide { ("_wide", T::WIDTH) } else { ("", 1) };
    Ok((plain_kernel(device, &format!("{name}_{}{suffix}", T::NAME))?, width))
}

/// The kernel of that name.
pub(crate) fn plain_kernel(device: &CudaDevice, name: &str) -> Result<Kernel> {
    let function = device.get_or_load_custom_func(name, "argent_learn", KERNELS)?.into_cuda_function();
    Ok(Kernel { function, stream: device.cuda_stream() })
}

/// A kernel on the stream of its device.
pub(crate) struct Kernel {
    function: CudaFunction,
    stream: Arc<CudaStream>,
}

impl Kernel {
    /// A launch whose arguments are still to be named, in the order of the kernel.
    pub(crate) fn builder(&self) -> LaunchArgs<'_> {
        self.stream.launch_builder(&self.function)
    }
}

const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

/// A launch for `count` independent pieces of work; a kernel goes on where there are more than threads.
pub(crate) fn for_each(count: usize) -> LaunchConfig {
    const THREADS: usize = 256;
    // Enough blocks to fill any GPU many times over.
    let blocks = count.div_ceil(THREADS).clamp(1, 1 << 16);
    LaunchConfig { grid_dim: (blocks as u32, 1, 1), block_dim: (THREADS as u32, 1, 1), shared_mem_bytes: 0 }
}

/// A size as the libraries and kernels of CUDA want it.
///
/// # Errors
/// If it is beyond 2^31.
pub(crate) fn int(op: &str, size: usize) -> Result<i32> {
    match i32::try_from(size) {
        Ok(size) => Ok(size),
        Err(_) => bail!("{op}: a size is {size}, expected less than 2^31 on a GPU; use a smaller batch"),
    }
}

/// Wraps the result of an operation.
pub(crate) fn wrap<T: Element>(slice: CudaSlice<T>, device: &CudaDevice) -> CudaStorage {
    CudaStorage::wrap_cuda_slice(slice, device.clone())
}

/// Waits for nothing: an error of a launch as candle's.
pub(crate) fn launched<O, E: Into<candle_core::cuda_backend::CudaError>>(
    result: std::result::Result<O, E>,
) -> Result<()> {
    result.w().map(|_| ())
}
