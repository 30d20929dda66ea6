//! The end of a residual block: the rectified sum, in one pass each way.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

#[cfg(feature = "cuda")]
use crate::residual_cuda;
use crate::storage::{contiguous_slice, with_float};
use crate::vectorised::vectorised;

/// `max(a + b, 0)` for two tensors of one shape, f32 or f64, on a GPU f32 or bf16; the gradient at a sum of zero is
/// zero.
///
/// # Errors
/// If the shapes or types differ.
pub fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        bail!(
            "add_relu: {:?} {:?} and {:?} {:?}, expected one shape and type",
            a.dims(),
            a.dtype(),
            b.dims(),
            b.dtype()
        );
    }
    a.contiguous()?.apply_op2(&b.contiguous()?, AddRelu)
}

struct AddRelu;

impl CustomOp2 for AddRelu {
    fn name(&self) -> &'static str {
        "add_relu"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sum = with_float!(self.name(), a, T => zip_map::<T>(
            contiguous_slice(self.name(), a, la)?,
            contiguous_slice(self.name(), b, lb)?,
            // Written so that a NaN stays one.
            |a, b| if a + b < 0.0 { 0.0 } else { a + b },
        ));
        Ok((sum, la.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        la: &Layout,
        b: &CudaStorage,
        lb: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        Ok((residual_cuda::add_relu(a, la, b, lb)?, la.shape().clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = result.apply_op2_no_bwd(&gradient.contiguous()?, &ReluGradient)?;
        Ok((Some(gradient.clone()), Some(gradient)))
    }
}

/// The gradient where the rectified result is not zero, zero elsewhere.
struct ReluGradient;

impl CustomOp2 for ReluGradient {
    fn name(&self) -> &'static str {
        "relu_gradient"
    }

    fn cpu_fwd(
        &self,
        y: &CpuStorage,
        ly: &Layout,
        g: &CpuStorage,
        lg: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let gradient = with_float!(self.name(), y, T => zip_map::<T>(
            contiguous_slice(self.name(), y, ly)?,
            contiguous_slice(self.name(), g, lg)?,
            |y, g| if y == 0.0 { 0.0 } else { g },
        ));
        Ok((gradient, ly.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        y: &CudaStorage,
        ly: &Layout,
        g: &CudaStorage,
        lg: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        Ok((residual_cuda::relu_gradient(y, ly, g, lg)?, ly.shape().clone()))
    }
}

/// Elements per task: large enough to hide the cost of a task, small enough for many of them.
const CHUNK: usize = 1 << 14;

fn zip_map<T: WithDType>(a: &[T], b: &[T], f: impl Fn(T, T) -> T + Sync) -> CpuStorage {
    let mut out = vec![T::zero(); a.len()];
    let chunks = out.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).zip(b.par_chunks(CHUNK));
    chunks.for_each(|((out, a), b)| {
        vectorised(
            #[inline(always)]
            || {
                for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
                    *out = f(a, b);
                }
            },
        );
    });
    T::to_cpu_storage_owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn values_and_gradients_by_hand() {
        let a = Var::new(&[1.0f64, -2.0, 3.0, f64::NAN], &Device::Cpu).unwrap();
        let b = Var::new(&[1.0f64, 1.0, -3.0, 0.0], &Device::Cpu).unwrap();
        let sum = add_relu(&a, &b).unwrap();
        let values = sum.to_vec1::<f64>().unwrap();
        assert_eq!(values[..3], [2.0, 0.0, 0.0]);
        assert!(values[3].is_nan(), "a NaN must not become a zero");
        // `a` is used twice, so that an overwritten gradient would show: 1 from the sum, 10 from the other use.
        let loss = (sum.narrow(0, 0, 3).unwrap().sum_all().unwrap()
            + (a.narrow(0, 0, 3).unwrap().sum_all().unwrap() * 10.0).unwrap())
        .unwrap();
        let gradients = loss.backward().unwrap();
        assert_eq!(gradients.get(&a).unwrap().to_vec1::<f64>().unwrap()[..3], [11.0, 10.0, 10.0]);
        assert_eq!(gradients.get(&b).unwrap().to_vec1::<f64>().unwrap()[..3], [1.0, 0.0, 0.0]);
    }

    #[test]
    fn different_shapes_are_an_error() {
        let a = Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap();
        let b = Tensor::zeros(4, candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(add_relu(&a, &b).unwrap_err().to_string().contains("expected one shape and type"));
    }
}
