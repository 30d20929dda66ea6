//! Batch normalisation on a GPU, of channels-last tensors `(N, …, C)` in f32 or bf16 with variables in f32.

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape,
    Tensor, bail,
};
use cudarc::driver::{CudaSlice, CudaView, LaunchConfig, PushKernelArg};

use crate::batch_norm::{BatchNorm, EPSILON, MOMENTUM};
use crate::storage_cuda::{
    Element, contiguous_view, for_each, int, kernel, launched, plain_kernel, uninitialised, wide_kernel,
    with_element, with_floats, wrap,
};

/// Normalises `(N, …, C)` with the statistics of the batch and moves the running statistics towards them.
pub(crate) fn train(norm: &BatchNorm, input: &Tensor, relu: bool) -> Result<Tensor> {
    let input = input.contiguous()?;
    let statistics = input.detach().apply_op1_no_bwd(&BatchStatistics)?;
    let rows = (input.elem_count() / statistics.dim(1)?) as f64;
    let moved = |running: &Tensor, batch: Tensor, factor: f64| -> Result<Tensor> {
        (running * (1.0 - MOMENTUM))? + (batch * (MOMENTUM * factor))?
    };
    norm.running_mean.set(&moved(&norm.running_mean, statistics.get(MEAN)?, 1.0)?)?;
    let unbiased = rows / (rows - 1.0);
    norm.running_variance.set(&moved(&norm.running_variance, statistics.get(VARIANCE)?, unbiased)?)?;
    input.apply_op3(&norm.gamma, &norm.beta, Normalise { statistics, on_batch: true, relu })
}

/// Normalises `(N, …, C)` with the running statistics.
pub(crate) fn eval(norm: &BatchNorm, input: &Tensor, relu: bool) -> Result<Tensor> {
    let (mean, variance) = (norm.running_mean.as_tensor(), norm.running_variance.as_tensor());
    let inverse = (variance + EPSILON)?.sqrt()?.recip()?;
    let statistics = Tensor::stack(&[mean, variance, &inverse], 0)?.detach();
    let op = Normalise { statistics, on_batch: false, relu };
    input.contiguous()?.apply_op3(&norm.gamma, &norm.beta, op)
}

/// Rows of the statistics `(3, C)`; the variance is the biased one.
const MEAN: usize = 0;
const VARIANCE: usize = 1;
const INVERSE_DEVIATION: usize = 2;

/// Mean, variance and inverse deviation of each channel of `(N, …, C)`: `(3, C)` in f32.
struct BatchStatistics;

impl CustomOp1 for BatchStatistics {
    fn name(&self) -> &'static str {
        "batch_norm_statistics"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        on_cpu(self.name())
    }

    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout) -> Result<(CudaStorage, Shape)> {
        let channels = lx.dims()[lx.dims().len() - 1];
        let statistics = with_element!(self.name(), x, T => batch_statistics::<T>(x, lx)?);
        Ok((wrap(statistics, x.device()), Shape::from((3, channels))))
    }
}

/// `y = gamma (x - mean) / deviation + beta`.
struct Normalise {
    /// `(3, C)`.
    statistics: Tensor,
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
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        on_cpu(self.name())
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        gamma: &CudaStorage,
        lgamma: &Layout,
        beta: &CudaStorage,
        lbeta: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let gamma = contiguous_view::<f32>(self.name(), gamma, lgamma)?;
        let beta = contiguous_view::<f32>(self.name(), beta, lbeta)?;
        let output = with_statistics(&self.statistics, |statistics| {
            let affine = Affine { statistics, gamma: &gamma, beta: &beta, relu: i32::from(self.relu) };
            with_element!(self.name(), x, T => affine.normalise::<T>(x, lx))
        })?;
        Ok((output, lx.shape().clone()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let forward = Forward { statistics: &self.statistics, gamma, beta, relu: self.relu };
        let sums = input.apply_op2_no_bwd(&gradient, &GradientSums { forward })?;
        let op = InputGradient { forward, on_batch: self.on_batch };
        let input_gradient = input.apply_op3_no_bwd(&gradient, &sums, &op)?;
        Ok((Some(input_gradient), Some(sums.get(1)?), Some(sums.get(0)?)))
    }
}

/// What the forward pass was made of.
#[derive(Clone, Copy)]
struct Forward<'a> {
    statistics: &'a Tensor,
    gamma: &'a Tensor,
    beta: &'a Tensor,
    relu: bool,
}

impl Forward<'_> {
    fn with_affine<R>(&self, op: &str, f: impl FnOnce(Affine) -> Result<R>) -> Result<R> {
        with_statistics(self.statistics, |statistics| {
            with_floats(op, self.gamma, |gamma| {
                with_floats(op, self.beta, |beta| {
                    f(Affine { statistics, gamma, beta, relu: i32::from(self.relu) })
                })
            })
        })
    }
}

/// Sums over each channel of the gradient, and of it times the normalised input: `(2, C)` in f32, the gradients of
/// beta and gamma.
struct GradientSums<'a> {
    forward: Forward<'a>,
}

impl CustomOp2 for GradientSums<'_> {
    fn name(&self) -> &'static str {
        "batch_norm_gradient_sums"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        on_cpu(self.name())
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        dy: &CudaStorage,
        ldy: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let channels = lx.dims()[lx.dims().len() - 1];
        let sums = self.forward.with_affine(
            self.name(),
            |affine| with_element!(self.name(), x, T => affine.gradient_sums::<T>(x, lx, dy, ldy)),
        )?;
        Ok((wrap(sums, x.device()), Shape::from((2, channels))))
    }
}

/// The gradient of the input, from it, the gradient of the output and the sums.
struct InputGradient<'a> {
    forward: Forward<'a>,
    on_batch: bool,
}

impl CustomOp3 for InputGradient<'_> {
    fn name(&self) -> &'static str {
        "batch_norm_gradient"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        on_cpu(self.name())
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        dy: &CudaStorage,
        ldy: &Layout,
        sums: &CudaStorage,
        lsums: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let sums = contiguous_view::<f32>(self.name(), sums, lsums)?;
        let gradient = self.forward.with_affine(self.name(), |affine| {
            with_element!(self.name(), x, T => affine.input_gradient::<T>(x, lx, dy, ldy, &sums, self.on_batch))
        })?;
        Ok((gradient, lx.shape().clone()))
    }
}

/// The values of each channel that a kernel reads.
struct Affine<'a> {
    statistics: &'a CudaView<'a, f32>,
    gamma: &'a CudaView<'a, f32>,
    beta: &'a CudaView<'a, f32>,
    relu: i32,
}

impl Affine<'_> {
    fn statistic(&self, row: usize) -> CudaView<'_, f32> {
        let channels = self.gamma.len();
        self.statistics.slice(row * channels..(row + 1) * channels)
    }

    #[expect(unsafe_code, reason = "a kernel is launched")]
    fn normalise<T: Element>(&self, x: &CudaStorage, lx: &Layout) -> Result<CudaStorage> {
        let rows = Rows::new("batch_norm", lx, self.gamma.len())?;
        let device = x.device();
        let input = contiguous_view::<T>("batch_norm", x, lx)?;
        let mut y = uninitialised::<T>(device, input.len())?;
        let (mean, inverse) = (self.statistic(MEAN), self.statistic(INVERSE_DEVIATION));
        let (function, width) = wide_kernel::<T>(device, "batch_norm", self.gamma.len(), &[lx])?;
        let mut launch = function.builder();
        launch.arg(&rows.count).arg(&rows.channels).arg(&input).arg(&mean).arg(&inverse);
        launch.arg(self.gamma).arg(self.beta).arg(&self.relu).arg(&mut y);
        // SAFETY: `x` and `y` have rows times channels elements of T, the others one f32 per channel, as `Rows` and
        // `with_statistics` checked; every element of `y` is set.
        launched(unsafe { launch.launch(for_each(input.len() / width)) })?;
        Ok(wrap(y, device))
    }

    #[expect(unsafe_code, reason = "kernels are launched")]
    fn gradient_sums<T: Element>(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        dy: &CudaStorage,
        ldy: &Layout,
    ) -> Result<CudaSlice<f32>> {
        const NAME: &str = "batch_norm_gradient_sums";
        let rows = Rows::new(NAME, lx, self.gamma.len())?;
        let device = x.device();
        let (x, dy) = (contiguous_view::<T>(NAME, x, lx)?, contiguous_view::<T>(NAME, dy, ldy)?);
        let (mean, inverse) = (self.statistic(MEAN), self.statistic(INVERSE_DEVIATION));
        let (function, width) = wide_kernel::<T>(device, NAME, self.gamma.len(), &[lx, ldy])?;
        let (config, splits) = rows.reduction(width);
        let mut partial = uninitialised::<f32>(device, splits * 2 * self.gamma.len())?;
        let mut launch = function.builder();
        launch.arg(&rows.count).arg(&rows.channels).arg(&x).arg(&dy).arg(&mean).arg(&inverse);
        launch.arg(self.gamma).arg(self.beta).arg(&self.relu).arg(&mut partial);
        // SAFETY: as in `normalise`; `partial` has two values per channel for each block along the grid's y, which the
        // blocks set, and the shared memory is what `reduction` computed for the block.
        launched(unsafe { launch.launch(config) })?;
        let mut sums = uninitialised::<f32>(device, 2 * self.gamma.len())?;
        let (mut plain, mut scaled) = sums.split_at_mut(self.gamma.len());
        let function = plain_kernel(device, "total_sums")?;
        let splits = int(NAME, splits)?;
        let mut launch = function.builder();
        launch.arg(&rows.channels).arg(&splits).arg(&partial).arg(&mut plain).arg(&mut scaled);
        // SAFETY: `partial` has `splits` times two values per channel, and both results one per channel, all set.
        launched(unsafe { launch.launch(for_each(self.gamma.len())) })?;
        Ok(sums)
    }

    #[expect(unsafe_code, reason = "a kernel is launched")]
    fn input_gradient<T: Element>(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        dy: &CudaStorage,
        ldy: &Layout,
        sums: &CudaView<f32>,
        on_batch: bool,
    ) -> Result<CudaStorage> {
        const NAME: &str = "batch_norm_gradient";
        let rows = Rows::new(NAME, lx, self.gamma.len())?;
        let device = x.device();
        let (x, dy) = (contiguous_view::<T>(NAME, x, lx)?, contiguous_view::<T>(NAME, dy, ldy)?);
        let (mean, inverse) = (self.statistic(MEAN), self.statistic(INVERSE_DEVIATION));
        let (dbeta, dgamma) = sums.split_at(self.gamma.len());
        let follow = i32::from(on_batch);
        let mut dx = uninitialised::<T>(device, x.len())?;
        let (function, width) = wide_kernel::<T>(device, NAME, self.gamma.len(), &[lx, ldy])?;
        let mut launch = function.builder();
        launch.arg(&rows.count).arg(&rows.channels).arg(&x).arg(&dy).arg(&mean).arg(&inverse);
        launch.arg(self.gamma).arg(self.beta).arg(&dgamma).arg(&dbeta);
        launch.arg(&self.relu).arg(&follow).arg(&mut dx);
        // SAFETY: as in `normalise`; `dy` has the shape of `x`, the sums two values per channel.
        launched(unsafe { launch.launch(for_each(x.len() / width)) })?;
        Ok(wrap(dx, device))
    }
}

#[expect(unsafe_code, reason = "kernels are launched")]
fn batch_statistics<T: Element>(x: &CudaStorage, lx: &Layout) -> Result<CudaSlice<f32>> {
    const NAME: &str = "batch_norm_statistics";
    let channels = lx.dims()[lx.dims().len() - 1];
    let rows = Rows::new(NAME, lx, channels)?;
    let device: &CudaDevice = x.device();
    let x = contiguous_view::<T>(NAME, x, lx)?;
    let (function, width) = wide_kernel::<T>(device, "batch_norm_sums", channels, &[lx])?;
    let (config, splits) = rows.reduction(width);
    let mut partial = uninitialised::<f32>(device, splits * 2 * channels)?;
    let mut launch = function.builder();
    launch.arg(&rows.count).arg(&rows.channels).arg(&x).arg(&mut partial);
    // SAFETY: `x` has rows times channels elements of T, `partial` two values per channel for each block along the
    // grid's y, all set; the shared memory is what `reduction` computed for the block.
    launched(unsafe { launch.launch(config) })?;
    let mut statistics = uninitialised::<f32>(device, 3 * channels)?;
    let (mut mean, mut rest) = statistics.split_at_mut(channels);
    let (mut variance, mut inverse) = rest.split_at_mut(channels);
    let function = kernel::<T>(device, NAME)?;
    let (splits, epsilon) = (int(NAME, splits)?, EPSILON as f32);
    let mut launch = function.builder();
    launch.arg(&rows.count).arg(&rows.channels).arg(&splits).arg(&x).arg(&partial).arg(&epsilon);
    launch.arg(&mut mean).arg(&mut variance).arg(&mut inverse);
    // SAFETY: `partial` has `splits` times two values per channel; the three results one per channel, all set.
    launched(unsafe { launch.launch(for_each(channels)) })?;
    Ok(statistics)
}

/// A channels-last tensor seen as rows of channels.
struct Rows {
    count: usize,
    channels: i32,
}

impl Rows {
    fn new(op: &str, layout: &Layout, channels: usize) -> Result<Self> {
        match layout.dims() {
            [.., last] if *last == channels && channels > 0 => {
                Ok(Self { count: layout.shape().elem_count() / channels, channels: int(op, channels)? })
            }
            dims => bail!("{op}: the input is {dims:?}, expected (N, …, {channels})"),
        }
    }

    /// The launch of a kernel that sums over the rows with threads that take `width` channels each, and the number of
    /// splits of the rows: a function of the sizes alone, so that sums have one order.
    fn reduction(&self, width: usize) -> (LaunchConfig, usize) {
        const THREADS: usize = 256;
        const BLOCKS: usize = 512;
        let groups = self.channels as usize / width;
        let across = groups.next_power_of_two().min(32);
        let down = THREADS / across;
        let columns = groups.div_ceil(across);
        let splits = (BLOCKS / columns).clamp(1, self.count.div_ceil(down));
        let config = LaunchConfig {
            grid_dim: (columns as u32, splits as u32, 1),
            block_dim: (across as u32, down as u32, 1),
            shared_mem_bytes: (THREADS * width * 2 * size_of::<f32>()) as u32,
        };
        (config, splits)
    }
}

fn with_statistics<R>(statistics: &Tensor, f: impl FnOnce(&CudaView<f32>) -> Result<R>) -> Result<R> {
    if statistics.rank() != 2 || statistics.dim(0)? != 3 || statistics.dtype() != DType::F32 {
        bail!("batch_norm: the statistics are {:?}, expected (3, C) in f32", statistics.dims());
    }
    with_floats("batch_norm", statistics, f)
}

fn on_cpu<R>(op: &str) -> Result<R> {
    bail!("{op}: this form of the operation is for a GPU, expected its tensors there")
}
