//! 3D convolution on a GPU, of channels-last tensors: by cuDNN, or where that is not there by unfolding and cuBLAS.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaDevice, CudaStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use cudarc::driver::{CudaSlice, CudaView};

use crate::conv::Geometry;
use crate::conv_cudnn::{Cudnn, CudnnElement};
use crate::conv_gemm_cuda;
use crate::storage_cuda::{contiguous_view, uninitialised, with_element, wrap};

/// Cross-correlation of `input` `(N, D, H, W, C)` with `weight` `(O, C, kd, kh, kw)`: `(N, D', H', W', O)`.
///
/// The input is f32 or bf16, and the weight is brought to its type, so that a network may compute in bf16 with weights
/// in f32, whose gradient is f32. Sums are f32. Products of f32 are exact, or those of TF32 where candle's
/// `set_gemm_reduced_precision_f32` says so, as for its matrices.
///
/// # Errors
/// If the shapes do not fit together or the kernel is larger than the padded input.
pub(crate) fn conv3d_channels_last(
    input: &Tensor,
    weight: &Tensor,
    stride: [usize; 3],
    padding: [usize; 3],
) -> Result<Tensor> {
    convolve(input, weight, stride, padding, Route::of(input.device().as_cuda_device()?))
}

/// As [`conv3d_channels_last`], by a given route.
pub(crate) fn convolve(
    input: &Tensor,
    weight: &Tensor,
    stride: [usize; 3],
    padding: [usize; 3],
    route: Route,
) -> Result<Tensor> {
    let channels_first = input.permute((0, 4, 1, 2, 3))?;
    let geometry = Geometry::new(channels_first.dims(), weight.dims(), stride, padding)?;
    let weight = weight.to_dtype(input.dtype())?.permute((0, 2, 3, 4, 1))?.contiguous()?;
    input.contiguous()?.apply_op2(&weight, Convolution { geometry, route, part: Part::Forward })
}

/// Who computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// cuDNN's convolution, and the other route for a shape that it has no algorithm for.
    Cudnn,
    /// Tiles of the input unfolded into a matrix, and cuBLAS.
    Unfold,
}

impl Route {
    /// cuDNN where it can be opened.
    pub(crate) fn of(device: &CudaDevice) -> Self {
        match Cudnn::is_there(device) {
            true => Self::Cudnn,
            false => Self::Unfold,
        }
    }
}

/// What is computed: the convolution, or one of its gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// The output, from the input and the weight.
    Forward,
    /// The gradient of the input, from the gradient of the output and the weight.
    BackwardData,
    /// The gradient of the weight, from the input and the gradient of the output.
    BackwardFilter,
}

/// The weight of the operation is `(O, kd, kh, kw, C)`, as all of its tensors contiguous.
struct Convolution {
    geometry: Geometry,
    route: Route,
    part: Part,
}

impl Convolution {
    fn part(&self, part: Part) -> Self {
        Self { part, ..*self }
    }

    fn result_shape(&self) -> Shape {
        let Geometry { batch, in_channels, out_channels, input, kernel, output, .. } = self.geometry;
        let shape = |first, [d, h, w]: [usize; 3], last| Shape::from((first, d, h, w, last));
        match self.part {
            Part::Forward => shape(batch, output, out_channels),
            Part::BackwardData => shape(batch, input, in_channels),
            Part::BackwardFilter => shape(out_channels, kernel, in_channels),
        }
    }

    fn compute<T: CudnnElement>(
        &self,
        device: &CudaDevice,
        operands: [&CudaView<T>; 2],
    ) -> Result<CudaSlice<T>> {
        let mut result = uninitialised::<T>(device, self.result_shape().elem_count())?;
        let done = match self.route {
            Route::Cudnn => Cudnn::run(device, self.part, &self.geometry, operands, &mut result)?,
            Route::Unfold => false,
        };
        if !done {
            conv_gemm_cuda::run(device, self.part, &self.geometry, operands, &mut result)?;
        }
        Ok(result)
    }
}

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        match self.part {
            Part::Forward => "conv3d",
            Part::BackwardData => "conv3d_backward_data",
            Part::BackwardFilter => "conv3d_backward_filter",
        }
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("{}: this form of the operation is for a GPU, expected its tensors there", self.name())
    }

    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        la: &Layout,
        b: &CudaStorage,
        lb: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let device = a.device();
        let result = with_element!(self.name(), a, T => {
            let a = contiguous_view::<T>(self.name(), a, la)?;
            let b = contiguous_view::<T>(self.name(), b, lb)?;
            wrap(self.compute::<T>(device, [&a, &b])?, device)
        });
        Ok((result, self.result_shape()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let input_gradient = match input.track_op() {
            true => Some(gradient.apply_op2_no_bwd(weight, &self.part(Part::BackwardData))?),
            false => None,
        };
        let weight_gradient = match weight.track_op() {
            true => Some(input.apply_op2_no_bwd(&gradient, &self.part(Part::BackwardFilter))?),
            false => None,
        };
        Ok((input_gradient, weight_gradient))
    }
}
