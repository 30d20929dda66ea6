//! The rectified sum on a GPU.

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result};
use cudarc::driver::PushKernelArg;

use crate::storage_cuda::{
    Element, contiguous_view, for_each, launched, uninitialised, wide_kernel, with_element, wrap,
};

/// `max(a + b, 0)` of two contiguous tensors.
pub(crate) fn add_relu(a: &CudaStorage, la: &Layout, b: &CudaStorage, lb: &Layout) -> Result<CudaStorage> {
    with_element!("add_relu", a, T => zip::<T>("add_relu", [a, b], [la, lb]))
}

/// The gradient `g` where the rectified result `y` is not zero.
pub(crate) fn relu_gradient(
    y: &CudaStorage,
    ly: &Layout,
    g: &CudaStorage,
    lg: &Layout,
) -> Result<CudaStorage> {
    with_element!("relu_gradient", y, T => zip::<T>("relu_gradient", [y, g], [ly, lg]))
}

#[expect(unsafe_code, reason = "a kernel is launched")]
fn zip<T: Element>(name: &str, operands: [&CudaStorage; 2], layouts: [&Layout; 2]) -> Result<CudaStorage> {
    let device = operands[0].device();
    let count = layouts[0].shape().elem_count();
    let a = contiguous_view::<T>(name, operands[0], layouts[0])?;
    let b = contiguous_view::<T>(name, operands[1], layouts[1])?;
    let mut y = uninitialised::<T>(device, count)?;
    let (function, width) = wide_kernel::<T>(device, name, count, &layouts)?;
    let mut launch = function.builder();
    launch.arg(&count).arg(&a).arg(&b).arg(&mut y);
    // SAFETY: the kernel takes a count and three arrays of that many elements of T, and sets each element of `y`.
    launched(unsafe { launch.launch(for_each(count / width)) })?;
    Ok(wrap(y, device))
}
