//! The optimiser's step on a GPU, with its state beside the variable.

use std::cell::RefCell;

use candle_core::cuda_backend::WrapErr;
use candle_core::{CpuStorage, CudaDevice, CudaStorage, InplaceOp1, Layout, Result, Tensor, Var, bail};
use cudarc::driver::{CudaSlice, PushKernelArg};

use crate::optimiser::{BETA_FIRST, BETA_SECOND, Coefficients, EPSILON, Moments};
use crate::storage_cuda::{for_each, launched, plain_kernel, with_floats};

/// The moments of one variable, in the memory of its GPU.
#[derive(Clone, Debug)]
pub(crate) struct DeviceMoments {
    first: CudaSlice<f32>,
    second: CudaSlice<f32>,
}

impl DeviceMoments {
    /// Copies moments to the GPU of `var`.
    pub(crate) fn upload(var: &Var, moments: &Moments) -> Result<Self> {
        let device = var.device().as_cuda_device()?;
        Ok(Self { first: device.clone_htod(&moments.first)?, second: device.clone_htod(&moments.second)? })
    }

    /// Copies the moments to the processor, for a checkpoint.
    pub(crate) fn download(&self) -> Result<Moments> {
        let copy = |slice: &CudaSlice<f32>| slice.stream().clone_dtoh(slice).w();
        Ok(Moments { first: copy(&self.first)?, second: copy(&self.second)? })
    }
}

/// Moves a variable against its gradient, in place, in one pass over both and the moments.
pub(crate) fn update(
    var: &Var,
    gradient: &Tensor,
    moments: &mut DeviceMoments,
    coefficients: Coefficients,
) -> Result<()> {
    var.inplace_op1(&Update { gradient, moments: RefCell::new(moments), coefficients })
}

struct Update<'a> {
    gradient: &'a Tensor,
    moments: RefCell<&'a mut DeviceMoments>,
    coefficients: Coefficients,
}

impl InplaceOp1 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        bail!("adamw: the variable is on the CPU and its moments on a GPU, expected one device")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let device = storage.device.clone();
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("adamw: the variable is not contiguous, expected that");
        };
        let weights = storage.as_cuda_slice_mut::<f32>()?;
        with_floats(self.name(), self.gradient, |gradient| {
            self.launch(&device, &mut weights.slice_mut(start..end), gradient)
        })
    }
}

impl Update<'_> {
    #[expect(unsafe_code, reason = "a kernel is launched")]
    fn launch(
        &self,
        device: &CudaDevice,
        weights: &mut cudarc::driver::CudaViewMut<f32>,
        gradient: &cudarc::driver::CudaView<f32>,
    ) -> Result<()> {
        let moments = &mut *self.moments.borrow_mut();
        let count = weights.len();
        let sizes = [gradient.len(), moments.first.len(), moments.second.len()];
        if sizes != [count; 3] {
            bail!("adamw: gradient and moments have {sizes:?} values, expected {count} as the variable");
        }
        let Coefficients { decay, rate, deviation } = self.coefficients;
        let (beta_first, beta_second) = (BETA_FIRST as f32, BETA_SECOND as f32);
        let function = plain_kernel(device, "adamw")?;
        let mut launch = function.builder();
        launch.arg(&count).arg(gradient).arg(&beta_first).arg(&beta_second);
        launch.arg(&decay).arg(&rate).arg(&deviation).arg(&EPSILON);
        launch.arg(weights).arg(&mut moments.first).arg(&mut moments.second);
        // SAFETY: the kernel takes a count, the gradient, six factors, and three arrays that it changes in place; each
        // array has `count` values, as was checked.
        launched(unsafe { launch.launch(for_each(count)) })
    }
}
