//! Batch normalisation with the rectifier fused in, for `(N, C, D, H, W)` and any other `(N, C, …)`.
//!
//! `y = gamma (x - mean) / sqrt(variance + epsilon) + beta` per channel (Ioffe and Szegedy, 2015,
//! arXiv:1502.03167), with epsilon 1e-5 and a running average with momentum 0.1 of the batch mean and the unbiased
//! batch variance, as in the published 3D ResNets.

use std::sync::{Arc, OnceLock};

use candle_core::{
    CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, Var, WithDType, bail,
};
use rayon::prelude::*;

use crate::storage::{contiguous_slice, with_float};

/// The variables of one batch normalisation, each of shape `(C)`.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    /// Scale, trained.
    pub gamma: Var,
    /// Shift, trained.
    pub beta: Var,
    /// Running average of the batch means; not trained.
    pub running_mean: Var,
    /// Running average of the unbiased batch variances; not trained.
    pub running_variance: Var,
}

impl BatchNorm {
    /// Normalises with the statistics of the batch and moves the running statistics towards them.
    /// `input` is `(N, C, …)`; with `relu`, negative results become zero.
    ///
    /// # Errors
    /// If the shapes or types do not fit, or if a channel has a single value, whose variance says nothing.
    pub fn train(&self, input: &Tensor, relu: bool) -> Result<Tensor> {
        self.check(input, 1, 2)?;
        #[cfg(feature = "cuda")]
        if input.device().is_cuda() {
            return on_channels_last(input, |input| crate::batch_norm_cuda::train(self, input, relu));
        }
        let (output, statistics) = self.apply(input, relu, None)?;
        let count = (input.elem_count() / statistics.len()) as f64;
        move_towards(&self.running_mean, statistics.iter().map(|s| s.mean))?;
        move_towards(&self.running_variance, statistics.iter().map(|s| s.variance * count / (count - 1.0)))?;
        Ok(output)
    }

    /// Normalises with the running statistics, which stay as they are.
    /// `input` is `(N, C, …)`; with `relu`, negative results become zero.
    ///
    /// # Errors
    /// If the shapes or types do not fit.
    pub fn eval(&self, input: &Tensor, relu: bool) -> Result<Tensor> {
        self.check(input, 1, 1)?;
        #[cfg(feature = "cuda")]
        if input.device().is_cuda() {
            return on_channels_last(input, |input| crate::batch_norm_cuda::eval(self, input, relu));
        }
        let mean = to_f64(&self.running_mean)?;
        let variance = to_f64(&self.running_variance)?;
        let fixed =
            mean.into_iter().zip(variance).map(|(mean, variance)| Statistics { mean, variance }).collect();
        Ok(self.apply(input, relu, Some(fixed))?.0)
    }

    /// As [`Self::train`] for `input` `(N, …, C)`, the order of memory that a GPU is fastest in.
    ///
    /// # Errors
    /// As for [`Self::train`].
    pub fn train_channels_last(&self, input: &Tensor, relu: bool) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if input.device().is_cuda() {
            self.check(input, input.rank().saturating_sub(1), 2)?;
            return crate::batch_norm_cuda::train(self, input, relu);
        }
        on_channels_first(input, |input| self.train(input, relu))
    }

    /// As [`Self::eval`] for `input` `(N, …, C)`.
    ///
    /// # Errors
    /// As for [`Self::eval`].
    pub fn eval_channels_last(&self, input: &Tensor, relu: bool) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if input.device().is_cuda() {
            self.check(input, input.rank().saturating_sub(1), 1)?;
            return crate::batch_norm_cuda::eval(self, input, relu);
        }
        on_channels_first(input, |input| self.eval(input, relu))
    }

    /// Whether `input` has its channels on `axis`, at least `least` values of each, and the type of the variables; on a
    /// GPU it may be bf16 with variables in f32.
    fn check(&self, input: &Tensor, axis: usize, least: usize) -> Result<()> {
        let (channels, dtype) = (self.gamma.dims1()?, self.gamma.dtype());
        let same_type = input.dtype() == dtype
            || (input.device().is_cuda() && dtype == DType::F32 && input.dtype() == DType::BF16);
        if input.rank() < 2 || input.dims()[axis] != channels || !same_type {
            let expected =
                if axis == 1 { format!("(N, {channels}, …)") } else { format!("(N, …, {channels})") };
            bail!(
                "batch_norm: the input is {:?} {:?}, expected {expected} {dtype:?}",
                input.dims(),
                input.dtype()
            );
        }
        let values = input.elem_count() / channels;
        if values < least {
            bail!(
                "batch_norm: {values} value per channel in {:?}, expected two or more; use a larger batch or crop",
                input.dims()
            );
        }
        Ok(())
    }

    fn apply(
        &self,
        input: &Tensor,
        relu: bool,
        fixed: Option<Vec<Statistics>>,
    ) -> Result<(Tensor, Vec<Statistics>)> {
        let on_batch = fixed.is_none();
        let statistics = Arc::new(fixed.map_or_else(OnceLock::new, OnceLock::from));
        let op = Normalise { statistics: statistics.clone(), on_batch, relu };
        let output = input.contiguous()?.apply_op3(&self.gamma, &self.beta, op)?;
        Ok((output, statistics.get().expect("the forward pass fills the statistics").clone()))
    }
}

/// Applies `f`, which wants `(N, C, …)`, to `(N, …, C)`.
fn on_channels_first(input: &Tensor, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let last = input.rank() - 1;
    let order: Vec<usize> = [0, last].into_iter().chain(1..last).collect();
    let back: Vec<usize> = [0].into_iter().chain(2..=last).chain([1]).collect();
    f(&input.permute(order)?)?.permute(back)?.contiguous()
}

/// Applies `f`, which wants `(N, …, C)`, to `(N, C, …)`.
#[cfg(feature = "cuda")]
fn on_channels_last(input: &Tensor, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let last = input.rank() - 1;
    let order: Vec<usize> = [0].into_iter().chain(2..=last).chain([1]).collect();
    let back: Vec<usize> = [0, last].into_iter().chain(1..last).collect();
    f(&input.permute(order)?)?.permute(back)
}

/// Added to the variance under the square root.
pub(crate) const EPSILON: f64 = 1e-5;
/// Weight of the newest batch in the running statistics.
pub(crate) const MOMENTUM: f64 = 0.1;

/// Mean and biased variance of one channel.
#[derive(Clone, Copy, Debug)]
struct Statistics {
    mean: f64,
    variance: f64,
}

impl Statistics {
    fn inverse_deviation(self) -> f64 {
        1.0 / (self.variance + EPSILON).sqrt()
    }
}

fn to_f64(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.to_vec1()
}

fn move_towards(running: &Var, batch: impl Iterator<Item = f64>) -> Result<()> {
    let moved: Vec<f64> = to_f64(running)?
        .iter()
        .zip(batch)
        .map(|(old, new)| (1.0 - MOMENTUM) * old + MOMENTUM * new)
        .collect();
    running.set(&Tensor::new(moved, running.device())?.to_dtype(running.dtype())?)
}

struct Normalise {
    /// Set beforehand from the running statistics, or by the forward pass from the batch.
    statistics: Arc<OnceLock<Vec<Statistics>>>,
    /// Whether the statistics are functions of the input, which the gradient must then follow.
    on_batch: bool,
    relu: bool,
}

impl CustomOp3 for Normalise {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        gamma: &CpuStorage,
        lgamma: &Layout,
        beta: &CpuStorage,
        lbeta: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let output = with_float!(self.name(), x, T => {
            let planes = Planes::<T>::new(contiguous_slice(self.name(), x, lx)?, lx.dims());
            let statistics = self.statistics.get_or_init(|| planes.statistics());
            let gamma = contiguous_slice::<T>(self.name(), gamma, lgamma)?;
            let beta = contiguous_slice::<T>(self.name(), beta, lbeta)?;
            normalise(&planes, statistics, gamma, beta, self.relu)
        });
        Ok((output, lx.shape().clone()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        gamma: &Tensor,
        _: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(statistics) = self.statistics.get() else {
            bail!("batch_norm: the statistics are missing, expected a forward pass before the backward pass");
        };
        let op = NormaliseGradient {
            statistics,
            gamma: to_f64(gamma)?,
            on_batch: self.on_batch,
            relu: self.relu,
            sums: OnceLock::new(),
        };
        let input_gradient = input.apply_op3_no_bwd(result, &gradient.contiguous()?, &op)?;
        let sums = op.sums.into_inner().expect("the backward pass fills the sums");
        let per_channel = |f: fn(&Sums) -> f64| -> Result<Tensor> {
            let values: Vec<f64> = sums.iter().map(f).collect();
            Tensor::new(values, &Device::Cpu)?.to_device(gamma.device())?.to_dtype(gamma.dtype())
        };
        Ok((Some(input_gradient), Some(per_channel(|s| s.scaled)?), Some(per_channel(|s| s.plain)?)))
    }
}

/// Sums over one channel: of the gradient, and of the gradient times the normalised input.
/// They are the gradients of beta and gamma.
#[derive(Clone, Copy, Debug)]
struct Sums {
    plain: f64,
    scaled: f64,
}

/// The gradient of the input; leaves the sums over each channel behind.
struct NormaliseGradient<'a> {
    statistics: &'a [Statistics],
    gamma: Vec<f64>,
    on_batch: bool,
    relu: bool,
    sums: OnceLock<Vec<Sums>>,
}

impl CustomOp3 for NormaliseGradient<'_> {
    fn name(&self) -> &'static str {
        "batch_norm_gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        y: &CpuStorage,
        ly: &Layout,
        dy: &CpuStorage,
        ldy: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let gradient = with_float!(self.name(), x, T => {
            let x = Planes::<T>::new(contiguous_slice(self.name(), x, lx)?, lx.dims());
            let y = Planes::<T>::new(contiguous_slice(self.name(), y, ly)?, lx.dims());
            let dy = Planes::<T>::new(contiguous_slice(self.name(), dy, ldy)?, lx.dims());
            let sums = self.sums.get_or_init(|| self.channel_sums(&x, &y, &dy));
            self.input_gradient(&x, &y, &dy, sums)
        });
        Ok((gradient, lx.shape().clone()))
    }
}

impl NormaliseGradient<'_> {
    fn channel_sums<T: WithDType>(&self, x: &Planes<T>, y: &Planes<T>, dy: &Planes<T>) -> Vec<Sums> {
        let channel = |c: usize| {
            let (mean, inverse) = (self.statistics[c].mean, self.statistics[c].inverse_deviation());
            let mut sums = Sums { plain: 0.0, scaled: 0.0 };
            for n in 0..x.batch {
                let (x, y, dy) = (x.plane(n, c), y.plane(n, c), dy.plane(n, c));
                let passed = |i: usize| if self.relu && y[i] == T::zero() { 0.0 } else { dy[i].to_f64() };
                sums.plain += sum(x.len(), passed);
                sums.scaled += sum(x.len(), |i| passed(i) * (x[i].to_f64() - mean)) * inverse;
            }
            sums
        };
        (0..x.channels).into_par_iter().map(channel).collect()
    }

    fn input_gradient<T: WithDType>(
        &self,
        x: &Planes<T>,
        y: &Planes<T>,
        dy: &Planes<T>,
        sums: &[Sums],
    ) -> CpuStorage {
        let count = (x.batch * x.size) as f64;
        let mut dx = vec![T::zero(); x.data.len()];
        dx.par_chunks_mut(x.size).enumerate().for_each(|(plane, dx)| {
            let (n, c) = (plane / x.channels, plane % x.channels);
            let (x, y, dy) = (x.plane(n, c), y.plane(n, c), dy.plane(n, c));
            let inverse = self.statistics[c].inverse_deviation();
            let scale = T::from_f64(self.gamma[c] * inverse);
            // dx = gamma / deviation * (dy - mean(dy) - x_hat mean(dy x_hat)), the means only where the statistics
            // follow the input; written as scale dy + slope (x - mean) + offset.
            let follow = if self.on_batch { self.gamma[c] * inverse / count } else { 0.0 };
            let offset = T::from_f64(-follow * sums[c].plain);
            let slope = T::from_f64(-follow * sums[c].scaled * inverse);
            let mean = T::from_f64(self.statistics[c].mean);
            for (((dx, &x), &y), &dy) in dx.iter_mut().zip(x).zip(y).zip(dy) {
                let passed = if self.relu && y == T::zero() { T::zero() } else { dy };
                *dx = scale * passed + slope * (x - mean) + offset;
            }
        });
        T::to_cpu_storage_owned(dx)
    }
}

/// A dense `(N, C, …)` tensor seen as `N * C` planes.
struct Planes<'a, T> {
    data: &'a [T],
    batch: usize,
    channels: usize,
    size: usize,
}

impl<'a, T: WithDType> Planes<'a, T> {
    fn new(data: &'a [T], dims: &[usize]) -> Self {
        Self { data, batch: dims[0], channels: dims[1], size: dims[2..].iter().product() }
    }

    fn plane(&self, n: usize, c: usize) -> &'a [T] {
        &self.data[(n * self.channels + c) * self.size..][..self.size]
    }

    /// Two passes, in f64: the variance of values far from zero would not survive a difference of sums.
    fn statistics(&self) -> Vec<Statistics> {
        let count = (self.batch * self.size) as f64;
        let channel = |c: usize| {
            let over_batch = |f: &(dyn Fn(&[T]) -> f64 + Sync)| -> f64 {
                (0..self.batch).map(|n| f(self.plane(n, c))).sum()
            };
            let mean = over_batch(&|plane| sum(plane.len(), |i| plane[i].to_f64())) / count;
            let square = |plane: &[T]| {
                sum(plane.len(), |i| {
                    let difference = plane[i].to_f64() - mean;
                    difference * difference
                })
            };
            Statistics { mean, variance: over_batch(&square) / count }
        };
        (0..self.channels).into_par_iter().map(channel).collect()
    }
}

fn normalise<T: WithDType>(
    x: &Planes<T>,
    statistics: &[Statistics],
    gamma: &[T],
    beta: &[T],
    relu: bool,
) -> CpuStorage {
    let mut y = vec![T::zero(); x.data.len()];
    y.par_chunks_mut(x.size).enumerate().for_each(|(plane, y)| {
        let (n, c) = (plane / x.channels, plane % x.channels);
        let scale = T::from_f64(gamma[c].to_f64() * statistics[c].inverse_deviation());
        let (mean, shift) = (T::from_f64(statistics[c].mean), beta[c]);
        for (y, &x) in y.iter_mut().zip(x.plane(n, c)) {
            let value = (x - mean) * scale + shift;
            // Written so that a NaN stays one.
            *y = if relu && value < T::zero() { T::zero() } else { value };
        }
    });
    T::to_cpu_storage_owned(y)
}

/// The sum of `f(0..count)` in eight interleaved lanes, which the processor can add at once; a fixed order.
#[inline(always)]
fn sum(count: usize, f: impl Fn(usize) -> f64) -> f64 {
    let mut lanes = [0.0; 8];
    for block in 0..count / 8 {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(block * 8 + lane);
        }
    }
    let rest: f64 = (count / 8 * 8..count).map(&f).sum();
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{
        assert_close, assert_gradients_match_differences, golden, numbers, sizes, values, wave_var,
    };

    fn layer(channels: usize, fixed: bool) -> BatchNorm {
        let (mean, variance) = match fixed {
            true => (wave_var(&[channels], 0.5, 0.2, 3.0), wave_var(&[channels], 0.6, 0.1, 0.4)),
            false => (wave_var(&[channels], 0.0, 0.0, 0.0), wave_var(&[channels], 0.0, 0.0, 1.0)),
        };
        BatchNorm {
            gamma: wave_var(&[channels], 1.1, 1.0, 1.5),
            beta: wave_var(&[channels], 2.2, 0.3, 0.0),
            running_mean: mean,
            running_variance: variance,
        }
    }

    #[test]
    fn values_gradients_and_running_statistics_of_the_reference() {
        for case in golden("norm").as_array().unwrap() {
            let shape = sizes::<5>(&case["shape"]);
            let (relu, fixed) = (case["relu"].as_bool().unwrap(), case["fixed"].as_bool().unwrap());
            let (x, layer) = (wave_var(&shape, 0.2, 1.0, 3.0), layer(shape[1], fixed));
            let y = if fixed { layer.eval(&x, relu) } else { layer.train(&x, relu) }.unwrap();
            assert_close("y", &values(&y), &numbers(&case["y"]), 1e-11);
            let upstream = wave_var(&shape, 0.7, 1.0, 0.0);
            let gradients = (y * upstream.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
            for (name, var) in [("dx", &x), ("dgamma", &layer.gamma), ("dbeta", &layer.beta)] {
                assert_close(name, &values(gradients.get(var).unwrap()), &numbers(&case[name]), 1e-10);
            }
            if !fixed {
                for (name, var) in
                    [("running_mean", &layer.running_mean), ("running_variance", &layer.running_variance)]
                {
                    assert_close(name, &values(var), &numbers(&case[name]), 1e-11);
                }
            }
        }
    }

    #[test]
    fn gradients_are_the_finite_differences() {
        let x = wave_var(&[2, 3, 2, 3, 4], 0.2, 1.0, 0.0);
        let layer = layer(3, true);
        for relu in [false, true] {
            let variables = [&x, &layer.gamma, &layer.beta];
            assert_gradients_match_differences(&variables, || layer.eval(&x, relu).unwrap());
            assert_gradients_match_differences(&variables, || layer.apply(&x, relu, None).unwrap().0);
        }
    }

    #[test]
    fn variance_far_from_zero_in_f32() {
        // 1000 +- 1 in f32: a difference of f32 sums of squares would lose the variance, which is 1.
        let values: Vec<f32> = (0..4096).map(|i| if i % 2 == 0 { 999.0 } else { 1001.0 }).collect();
        let x = Tensor::from_vec(values, (1, 1, 16, 16, 16), &Device::Cpu).unwrap();
        let one = |value: f32| Var::new(&[value], &Device::Cpu).unwrap();
        let layer =
            BatchNorm { gamma: one(1.0), beta: one(0.0), running_mean: one(0.0), running_variance: one(1.0) };
        let y: Vec<f32> = layer.train(&x, false).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!((y[0] + 1.0).abs() < 1e-5 && (y[1] - 1.0).abs() < 1e-5, "{} {}", y[0], y[1]);
    }

    #[test]
    fn inputs_that_do_not_fit() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap();
        let error = layer(3, false).train(&zeros(&[1, 3, 1, 1, 1]), false).unwrap_err().to_string();
        assert!(error.contains("1 value per channel"), "{error}");
        let error = layer(3, false).eval(&zeros(&[1, 4, 2, 2, 2]), false).unwrap_err().to_string();
        assert!(error.contains("expected (N, 3, …)"), "{error}");
    }
}
