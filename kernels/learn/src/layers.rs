//! Layers with variables, as the networks ask for them.

use candle_core::{Tensor, Var};
use candle_nn::Linear;

use crate::batch_norm::BatchNorm;
use crate::channels::Channels;
use crate::error::Error;
use crate::model::Axes;
use crate::network::Mode;
use crate::parameters::{Builder, Init};

/// Kernel, stride and padding of a convolution or a pool, the same along all axes of the network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl Window {
    /// Kernel, stride and padding along D, H, W. An image has one slice, which the window leaves alone.
    pub(crate) fn triples(self, axes: Axes) -> [[usize; 3]; 3] {
        let triple = |size: usize, depth: usize| match axes {
            Axes::Image => [depth, size, size],
            Axes::Volume => [size; 3],
        };
        [triple(self.kernel, 1), triple(self.stride, 1), triple(self.padding, 0)]
    }
}

/// A convolution without bias. Its weight is stored as `(O, C, k, k, k)` for volumes and `(O, C, k, k)` for images.
#[derive(Clone, Debug)]
pub(crate) struct Convolution {
    weight: Var,
    kernel: [usize; 3],
    stride: [usize; 3],
    padding: [usize; 3],
}

impl Convolution {
    /// The variable `{name}.weight`; `channels` are those of the input and of the output.
    pub(crate) fn new(
        builder: &mut Builder,
        name: &str,
        axes: Axes,
        channels: [usize; 2],
        window: Window,
        init: Init,
    ) -> Result<Self, Error> {
        let mut shape = vec![channels[1], channels[0]];
        shape.resize(2 + axes.count(), window.kernel);
        let weight = builder.trainable(format!("{name}.weight"), &shape, init)?;
        let [kernel, stride, padding] = window.triples(axes);
        Ok(Self { weight, kernel, stride, padding })
    }

    /// `(N, C, D, H, W)` to `(N, O, D', H', W')`, in the order of the input's device.
    pub(crate) fn forward(&self, input: &Tensor) -> Result<Tensor, Error> {
        let (outputs, inputs) = (self.weight.dim(0)?, self.weight.dim(1)?);
        let [d, h, w] = self.kernel;
        let weight = self.weight.reshape((outputs, inputs, d, h, w))?;
        Ok(Channels::on(input.device()).conv3d(input, &weight, self.stride, self.padding)?)
    }
}

/// The variables of a batch normalisation as PyTorch names them.
pub(crate) fn batch_norm(builder: &mut Builder, name: &str, channels: usize) -> Result<BatchNorm, Error> {
    let (zero, one) = (Init::Constant(0.0), Init::Constant(1.0));
    Ok(BatchNorm {
        gamma: builder.trainable(format!("{name}.weight"), &[channels], one)?,
        beta: builder.trainable(format!("{name}.bias"), &[channels], zero)?,
        running_mean: builder.buffer(format!("{name}.running_mean"), &[channels], zero)?,
        running_variance: builder.buffer(format!("{name}.running_var"), &[channels], one)?,
    })
}

/// Batch normalisation in the mode of the network, rectified with `relu`.
pub(crate) fn normalise(norm: &BatchNorm, input: &Tensor, mode: Mode, relu: bool) -> Result<Tensor, Error> {
    Ok(Channels::on(input.device()).normalise(norm, input, mode == Mode::Train, relu)?)
}

/// A linear layer with the variables `{name}.weight` `(outputs, inputs)`, drawn by `init`, and `{name}.bias`, zero.
pub(crate) fn linear(
    builder: &mut Builder,
    name: &str,
    [inputs, outputs]: [usize; 2],
    init: Init,
) -> Result<Linear, Error> {
    let weight = builder.trainable(format!("{name}.weight"), &[outputs, inputs], init)?;
    let bias = builder.trainable(format!("{name}.bias"), &[outputs], Init::Constant(0.0))?;
    Ok(Linear::new(weight.into_inner(), Some(bias.into_inner())))
}

/// Layer normalisation over the last axis (Ba et al., 2016, arXiv:1607.06450).
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    gamma: Var,
    beta: Var,
    epsilon: f64,
}

impl LayerNorm {
    /// The variables `{name}.weight` and `{name}.bias`, of `size` values each; `epsilon` is added to the variance.
    pub(crate) fn new(builder: &mut Builder, name: &str, size: usize, epsilon: f64) -> Result<Self, Error> {
        let gamma = builder.trainable(format!("{name}.weight"), &[size], Init::Constant(1.0))?;
        let beta = builder.trainable(format!("{name}.bias"), &[size], Init::Constant(0.0))?;
        Ok(Self { gamma, beta, epsilon })
    }

    /// `(…, size)` to the same shape.
    pub(crate) fn forward(&self, input: &Tensor) -> Result<Tensor, Error> {
        Ok(crate::transformer::layer_norm(input, &self.gamma, &self.beta, self.epsilon)?)
    }
}
