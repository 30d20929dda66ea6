//! The optimisers' steps on a GPU, with their state beside the variable.

use std::cell::RefCell;

use candle_core::cuda_backend::WrapErr;
use candle_core::{CpuStorage, CudaDevice, CudaStorage, InplaceOp1, Layout, Result, Tensor, Var, bail};
use cudarc::driver::{CudaSlice, CudaView, CudaViewMut, PushKernelArg};

use crate::optimiser::{AdamWCoefficients, SgdCoefficients};
use crate::storage_cuda::{for_each, launched, plain_kernel, with_floats};

/// An array of an optimiser's state, in the memory of the GPU of its variable.
pub(crate) type DeviceArray = CudaSlice<f32>;

/// Copies an array to the GPU of `var`.
pub(crate) fn upload(var: &Var, values: &[f32]) -> Result<DeviceArray> {
    var.device().as_cuda_device()?.clone_htod(values)
}

/// Copies an array to the processor, for a checkpoint.
pub(crate) fn download(array: &DeviceArray) -> Result<Vec<f32>> {
    array.stream().clone_dtoh(array).w()
}

/// A step of AdamW: moves a variable against its gradient, in place, in one pass over both and the two moments.
pub(crate) fn adamw(
    var: &Var,
    gradient: &Tensor,
    moments: &mut [DeviceArray; 2],
    coefficients: AdamWCoefficients,
) -> Result<()> {
    let state = moments.each_mut().into();
    let step = Step::AdamW(coefficients);
    var.inplace_op1(&Update { gradient, state: RefCell::new(state), step })
}

/// A step of gradient descent, in one pass over the variable, its gradient and its momentum.
pub(crate) fn sgd(
    var: &Var,
    gradient: &Tensor,
    momentum: &mut DeviceArray,
    coefficients: SgdCoefficients,
) -> Result<()> {
    let step = Step::Sgd(coefficients);
    var.inplace_op1(&Update { gradient, state: RefCell::new(vec![momentum]), step })
}

enum Step {
    AdamW(AdamWCoefficients),
    Sgd(SgdCoefficients),
}

struct Update<'a> {
    gradient: &'a Tensor,
    /// Two moments, or one momentum.
    state: RefCell<Vec<&'a mut DeviceArray>>,
    step: Step,
}

impl InplaceOp1 for Update<'_> {
    fn name(&self) -> &'static str {
        match self.step {
            Step::AdamW(_) => "adamw",
            Step::Sgd(_) => "sgd",
        }
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        bail!("{}: the variable is on the CPU and its state on a GPU, expected one device", self.name())
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let device = storage.device.clone();
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("{}: the variable is not contiguous, expected that", self.name());
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
        weights: &mut CudaViewMut<f32>,
        gradient: &CudaView<f32>,
    ) -> Result<()> {
        let mut state = self.state.borrow_mut();
        let count = weights.len();
        let sizes: Vec<usize> =
            std::iter::once(gradient.len()).chain(state.iter().map(|array| array.len())).collect();
        if sizes.iter().any(|&size| size != count) {
            bail!(
                "{}: gradient and state have {sizes:?} values, expected {count} as the variable",
                self.name()
            );
        }
        let function = plain_kernel(device, self.name())?;
        let mut launch = function.builder();
        launch.arg(&count).arg(gradient);
        let nesterov;
        match &self.step {
            Step::AdamW(c) => {
                launch.arg(&c.gradient).arg(&c.first[0]).arg(&c.first[1]).arg(&c.second[0]).arg(&c.second[1]);
                launch.arg(&c.decay).arg(&c.rate).arg(&c.deviation).arg(&c.epsilon);
            }
            Step::Sgd(c) => {
                nesterov = i32::from(c.nesterov);
                launch.arg(&c.gradient).arg(&c.decay).arg(&c.momentum).arg(&nesterov).arg(&c.rate);
            }
        }
        launch.arg(weights);
        for array in state.iter_mut() {
            launch.arg(&mut **array);
        }
        // SAFETY: the kernels take a count, the gradient, nine factors (AdamW) or three, a flag and one more (descent),
        // and the arrays that they change in place: the variable, and two moments or one momentum. Each array has
        // `count` values, as was checked.
        launched(unsafe { launch.launch(for_each(count)) })
    }
}
