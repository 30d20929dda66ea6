//! Pooling over windows on a GPU, of channels-last tensors `(N, D, H, W, C)` in f32 or bf16.

use std::ffi::c_int;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use cudarc::driver::{DeviceRepr, PushKernelArg};

use crate::storage_cuda::{
    Element, contiguous_view, for_each, int, kernel, launched, uninitialised, with_element, wrap,
};

/// What a window becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// Its largest value, the first one in memory; a NaN is the largest value.
    Max,
    /// Its mean, with the padding counted as zeros.
    Average,
}

/// Pools `input` `(N, D, H, W, C)` over windows whose sizes, in voxels along D, H, W, the caller has checked.
pub(crate) fn pool3d_channels_last(
    input: &Tensor,
    pooling: Pooling,
    kernel: [usize; 3],
    stride: [usize; 3],
    padding: [usize; 3],
) -> Result<Tensor> {
    let (batch, d, h, w, channels) = input.dims5()?;
    let sizes = [d, h, w];
    let output: [usize; 3] =
        std::array::from_fn(|axis| (sizes[axis] + 2 * padding[axis] - kernel[axis]) / stride[axis] + 1);
    let ints = |triple: [usize; 3]| -> Result<[c_int; 3]> {
        Ok([int("pool3d", triple[0])?, int("pool3d", triple[1])?, int("pool3d", triple[2])?])
    };
    let windows = Windows {
        input: ints(sizes)?,
        output: ints(output)?,
        kernel: ints(kernel)?,
        stride: ints(stride)?,
        padding: ints(padding)?,
        channels: int("pool3d", channels)?,
    };
    let shape = Shape::from((batch, output[0], output[1], output[2], channels));
    input.contiguous()?.apply_op1(Pool { pooling, windows, shape })
}

/// The sizes of one pooling, as `Windows` in `cuda/kernels.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Windows {
    input: [c_int; 3],
    output: [c_int; 3],
    kernel: [c_int; 3],
    stride: [c_int; 3],
    padding: [c_int; 3],
    channels: c_int,
}

#[expect(unsafe_code, reason = "a structure is handed to a kernel by value")]
// SAFETY: it is C's structure of sixteen 32-bit integers on both sides.
unsafe impl DeviceRepr for Windows {}

struct Pool {
    pooling: Pooling,
    windows: Windows,
    /// Of the output.
    shape: Shape,
}

impl CustomOp1 for Pool {
    fn name(&self) -> &'static str {
        match self.pooling {
            Pooling::Max => "max_pool",
            Pooling::Average => "average_pool",
        }
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("{}: this form of the operation is for a GPU, expected its tensor there", self.name())
    }

    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout) -> Result<(CudaStorage, Shape)> {
        let output = with_element!(self.name(), x, T => self.launch::<T>(x, lx)?);
        Ok((output, self.shape.clone()))
    }

    fn bwd(&self, input: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let op = PoolGradient { pooling: self.pooling, windows: self.windows };
        Ok(Some(input.apply_op2_no_bwd(&gradient.contiguous()?, &op)?))
    }
}

impl Pool {
    #[expect(unsafe_code, reason = "a kernel is launched")]
    fn launch<T: Element>(&self, x: &CudaStorage, lx: &Layout) -> Result<CudaStorage> {
        let device = x.device();
        let x = contiguous_view::<T>(self.name(), x, lx)?;
        let total = self.shape.elem_count();
        let mut y = uninitialised::<T>(device, total)?;
        let function = kernel::<T>(device, self.name())?;
        let mut launch = function.builder();
        launch.arg(&self.windows).arg(&total).arg(&x).arg(&mut y);
        // SAFETY: `x` and `y` have as many elements as samples of the input's and the output's sizes hold; the kernel
        // reads windows cut at the input's edges, and sets every element of `y`.
        launched(unsafe { launch.launch(for_each(total)) })?;
        Ok(wrap(y, device))
    }
}

/// The gradient of the input, from it and the gradient of the output.
struct PoolGradient {
    pooling: Pooling,
    windows: Windows,
}

impl CustomOp2 for PoolGradient {
    fn name(&self) -> &'static str {
        match self.pooling {
            Pooling::Max => "max_pool_gradient",
            Pooling::Average => "average_pool_gradient",
        }
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("{}: this form of the operation is for a GPU, expected its tensors there", self.name())
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        dy: &CudaStorage,
        ldy: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let gradient = with_element!(self.name(), x, T => self.launch::<T>(x, lx, dy, ldy)?);
        Ok((gradient, lx.shape().clone()))
    }
}

impl PoolGradient {
    #[expect(unsafe_code, reason = "a kernel is launched")]
    fn launch<T: Element>(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        dy: &CudaStorage,
        ldy: &Layout,
    ) -> Result<CudaStorage> {
        let device = x.device();
        let (x, dy) =
            (contiguous_view::<T>(self.name(), x, lx)?, contiguous_view::<T>(self.name(), dy, ldy)?);
        let total = x.len();
        let mut dx = uninitialised::<T>(device, total)?;
        let function = kernel::<T>(device, self.name())?;
        let mut launch = function.builder();
        launch.arg(&self.windows).arg(&total).arg(&x).arg(&dy).arg(&mut dx);
        // SAFETY: as for the forward pass; `dx` has the elements of `x`, all of which are set.
        launched(unsafe { launch.launch(for_each(total)) })?;
        Ok(wrap(dx, device))
    }
}
