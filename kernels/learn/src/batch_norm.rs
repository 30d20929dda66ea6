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
use crate::vectorised::vectorised;

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
            let gamma = contiguous_slice::<T>(self.name(), gamma, lgamma)?;
            let beta = contiguous_slice::<T>(self.name(), beta, lbeta)?;
            let (y, statistics) = normalise(&planes, self.statistics.get(), gamma, beta, self.relu);
            self.statistics.get_or_init(|| statistics);
            T::to_cpu_storage_owned(y)
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
            let (dx, sums) = match self.relu {
                true => self.input_gradient::<T, true>(&x, &y, &dy),
                false => self.input_gradient::<T, false>(&x, &y, &dy),
            };
            self.sums.get_or_init(|| sums);
            T::to_cpu_storage_owned(dx)
        });
        Ok((gradient, lx.shape().clone()))
    }
}

impl NormaliseGradient<'_> {
    /// The gradient, and the sums of each channel. Without `RELU`, `y` is not read.
    fn input_gradient<T: WithDType, const RELU: bool>(
        &self,
        x: &Planes<T>,
        y: &Planes<T>,
        dy: &Planes<T>,
    ) -> (Vec<T>, Vec<Sums>) {
        x.each_channel(|c, dx| {
            let mut sums = Sums { plain: 0.0, scaled: 0.0 };
            for n in 0..x.batch {
                let planes = [x.plane(n, c), y.plane(n, c), dy.plane(n, c)];
                let mean = self.statistics[c].mean;
                let [plain, scaled] = vectorised(
                    #[inline(always)]
                    || gradient_sums::<T, RELU>(planes, mean),
                );
                sums.plain += plain;
                sums.scaled += scaled * self.statistics[c].inverse_deviation();
            }
            let line = self.line(c, sums, (x.batch * x.size) as f64);
            for (n, dx) in dx.iter_mut().enumerate() {
                let planes = [x.plane(n, c), y.plane(n, c), dy.plane(n, c)];
                vectorised(
                    #[inline(always)]
                    || line.apply::<T, RELU>(planes, dx),
                );
            }
            sums
        })
    }

    /// `dx = gamma / deviation * (dy - mean(dy) - x_hat mean(dy x_hat))`, the means only where the statistics follow the
    /// input.
    fn line(&self, c: usize, sums: Sums, count: f64) -> Line {
        let inverse = self.statistics[c].inverse_deviation();
        let follow = if self.on_batch { self.gamma[c] * inverse / count } else { 0.0 };
        Line {
            scale: self.gamma[c] * inverse,
            slope: -follow * sums.scaled * inverse,
            mean: self.statistics[c].mean,
            offset: -follow * sums.plain,
        }
    }
}

/// `dx = scale dy + slope (x - mean) + offset`.
#[derive(Clone, Copy, Debug)]
struct Line {
    scale: f64,
    slope: f64,
    mean: f64,
    offset: f64,
}

impl Line {
    #[inline(always)]
    fn apply<T: WithDType, const RELU: bool>(self, [x, y, dy]: [&[T]; 3], dx: &mut [T]) {
        let [scale, slope, mean, offset] =
            [self.scale, self.slope, self.mean, self.offset].map(|value| T::from_f64(value));
        for (((dx, &x), &y), &dy) in dx.iter_mut().zip(x).zip(y).zip(dy) {
            let passed = if RELU && y == T::zero() { T::zero() } else { dy };
            *dx = scale * passed + slope * (x - mean) + offset;
        }
    }
}

/// Over a plane: the sum of the gradient that the rectifier lets through, and of its product with `x - mean`.
#[inline(always)]
fn gradient_sums<T: WithDType, const RELU: bool>([x, y, dy]: [&[T]; 3], mean: f64) -> [f64; 2] {
    sums(x.len(), |i| {
        let passed = if RELU && y[i] == T::zero() { 0.0 } else { dy[i].to_f64() };
        [passed, passed * (x[i].to_f64() - mean)]
    })
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

    /// A tensor of this one's shape, made channel by channel of its planes, one per sample, and what each of them gives.
    /// A channel is small enough to be read several times in a cache.
    fn each_channel<R: Send>(&self, make: impl Fn(usize, &mut [&mut [T]]) -> R + Sync) -> (Vec<T>, Vec<R>) {
        let mut made = vec![T::zero(); self.data.len()];
        let mut channels: Vec<Vec<&mut [T]>> =
            (0..self.channels).map(|_| Vec::with_capacity(self.batch)).collect();
        for (plane, values) in made.chunks_exact_mut(self.size).enumerate() {
            channels[plane % self.channels].push(values);
        }
        let results =
            channels.into_par_iter().enumerate().map(|(c, mut planes)| make(c, &mut planes)).collect();
        (made, results)
    }

    /// Two passes, in f64: the variance of values far from zero would not survive a difference of sums.
    fn statistics(&self, c: usize) -> Statistics {
        let count = (self.batch * self.size) as f64;
        let over_batch =
            |f: &dyn Fn(&[T]) -> f64| -> f64 { (0..self.batch).map(|n| f(self.plane(n, c))).sum() };
        let plain = |plane: &[T]| {
            vectorised(
                #[inline(always)]
                || sums(plane.len(), |i| [plane[i].to_f64()])[0],
            )
        };
        let mean = over_batch(&plain) / count;
        let square = |plane: &[T]| {
            vectorised(
                #[inline(always)]
                || {
                    sums(plane.len(), |i| {
                        let difference = plane[i].to_f64() - mean;
                        [difference * difference]
                    })[0]
                },
            )
        };
        Statistics { mean, variance: over_batch(&square) / count }
    }
}

/// The normalised values, with the statistics that they were normalised with: `fixed`, or those of the batch.
fn normalise<T: WithDType>(
    x: &Planes<T>,
    fixed: Option<&Vec<Statistics>>,
    gamma: &[T],
    beta: &[T],
    relu: bool,
) -> (Vec<T>, Vec<Statistics>) {
    x.each_channel(|c, planes| {
        let statistics = fixed.map_or_else(|| x.statistics(c), |fixed| fixed[c]);
        let scale = T::from_f64(gamma[c].to_f64() * statistics.inverse_deviation());
        let (mean, shift) = (T::from_f64(statistics.mean), beta[c]);
        for (n, y) in planes.iter_mut().enumerate() {
            vectorised(
                #[inline(always)]
                || {
                    for (y, &x) in y.iter_mut().zip(x.plane(n, c)) {
                        let value = (x - mean) * scale + shift;
                        // Written so that a NaN stays one.
                        *y = if relu && value < T::zero() { T::zero() } else { value };
                    }
                },
            );
        }
        statistics
    })
}

/// The sums of `f(0..count)` in sixteen interleaved lanes, which the processor can add at once; a fixed order.
#[inline(always)]
fn sums<const K: usize>(count: usize, f: impl Fn(usize) -> [f64; K]) -> [f64; K] {
    const LANES: usize = 16;
    let mut lanes = [[0.0; LANES]; K];
    for block in 0..count / LANES {
        let terms: [[f64; K]; LANES] = std::array::from_fn(|lane| f(block * LANES + lane));
        for (k, lanes) in lanes.iter_mut().enumerate() {
            lanes.iter_mut().zip(&terms).for_each(|(sum, terms)| *sum += terms[k]);
        }
    }
    let mut rest = [0.0; K];
    for i in count / LANES * LANES..count {
        let terms = f(i);
        (0..K).for_each(|k| rest[k] += terms[k]);
    }
    std::array::from_fn(|k| lanes[k].iter().sum::<f64>() + rest[k])
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
