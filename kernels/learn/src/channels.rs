//! Where a network keeps the channels of its feature maps.

use candle_core::{DType, Device, Result, Tensor};

use crate::batch_norm::BatchNorm;
use crate::conv::{conv3d, conv3d_channels_last};
use crate::device::feature_type;
use crate::pool::{
    average_pool3d, average_pool3d_channels_last, global_average_pool, max_pool3d, max_pool3d_channels_last,
};

/// The order of a feature map's axes, and so of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channels {
    /// `(N, C, D, H, W)`.
    First,
    /// `(N, D, H, W, C)`.
    Last,
}

impl Channels {
    /// The order in which a device is fastest.
    pub(crate) fn on(device: &Device) -> Self {
        if device.is_cuda() { Self::Last } else { Self::First }
    }

    /// A network's input `(N, C, D, H, W)` in the order and the type in which its device is fastest.
    pub(crate) fn of_input(input: &Tensor) -> Result<(Self, Tensor)> {
        let channels = Self::on(input.device());
        Ok((channels, channels.arrange(&input.to_dtype(feature_type(input.device()))?)?))
    }

    /// The axis of the channels.
    pub(crate) fn axis(self) -> usize {
        match self {
            Self::First => 1,
            Self::Last => 4,
        }
    }

    /// `(N, C, D, H, W)` brought to this order.
    fn arrange(self, input: &Tensor) -> Result<Tensor> {
        match self {
            Self::First => Ok(input.clone()),
            Self::Last => input.permute((0, 2, 3, 4, 1))?.contiguous(),
        }
    }

    /// The convolution of a map in this order; the weight is `(O, C, kd, kh, kw)` in both.
    pub(crate) fn conv3d(
        self,
        input: &Tensor,
        weight: &Tensor,
        stride: [usize; 3],
        padding: [usize; 3],
    ) -> Result<Tensor> {
        match self {
            Self::First => conv3d(input, weight, stride, padding),
            Self::Last => conv3d_channels_last(input, weight, stride, padding),
        }
    }

    /// Batch normalisation of a map in this order, with the statistics of the batch where `train`.
    pub(crate) fn normalise(
        self,
        norm: &BatchNorm,
        input: &Tensor,
        train: bool,
        relu: bool,
    ) -> Result<Tensor> {
        match (self, train) {
            (Self::First, true) => norm.train(input, relu),
            (Self::First, false) => norm.eval(input, relu),
            (Self::Last, true) => norm.train_channels_last(input, relu),
            (Self::Last, false) => norm.eval_channels_last(input, relu),
        }
    }

    /// The largest value of each window of a map in this order.
    pub(crate) fn max_pool3d(
        self,
        input: &Tensor,
        [kernel, stride, padding]: [[usize; 3]; 3],
    ) -> Result<Tensor> {
        match self {
            Self::First => max_pool3d(input, kernel, stride, padding),
            Self::Last => max_pool3d_channels_last(input, kernel, stride, padding),
        }
    }

    /// The mean of each window of a map in this order.
    pub(crate) fn average_pool3d(
        self,
        input: &Tensor,
        [kernel, stride, padding]: [[usize; 3]; 3],
    ) -> Result<Tensor> {
        match self {
            Self::First => average_pool3d(input, kernel, stride, padding),
            Self::Last => average_pool3d_channels_last(input, kernel, stride, padding),
        }
    }

    /// The mean over D, H and W, `(N, C)`, in f32.
    pub(crate) fn global_average_pool(self, input: &Tensor) -> Result<Tensor> {
        // A mean of many values needs more digits than bf16 has.
        let input = input.to_dtype(DType::F32)?;
        match self {
            Self::First => global_average_pool(&input),
            Self::Last => input.flatten(1, 3)?.mean(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{assert_close, values, wave_var};
    use candle_core::Var;

    /// A convolution, pools, a normalisation and the mean of all, with the gradients of the input and all variables.
    fn block(channels: Channels) -> Vec<(&'static str, Vec<f64>)> {
        let var = |tensor: Tensor| Var::from_tensor(&tensor).unwrap();
        let f32 = |shape: &[usize], phase, scale, offset| {
            var(wave_var(shape, phase, scale, offset).to_dtype(DType::F32).unwrap())
        };
        let (x, w) = (f32(&[2, 3, 5, 6, 7], 0.1, 1.0, 0.0), f32(&[4, 3, 3, 3, 3], 0.4, 1.0, 0.0));
        let norm = BatchNorm {
            gamma: f32(&[8], 1.1, 1.0, 1.5),
            beta: f32(&[8], 2.2, 0.3, 0.0),
            running_mean: f32(&[8], 0.0, 0.0, 0.0),
            running_variance: f32(&[8], 0.0, 0.0, 1.0),
        };
        let map = channels.arrange(&x).unwrap();
        let map = channels.conv3d(&map, &w, [1, 2, 1], [1, 0, 1]).unwrap();
        let map = channels.max_pool3d(&map, [[1, 2, 2], [1, 1, 1], [0, 1, 1]]).unwrap();
        let map = channels.average_pool3d(&map, [[2, 1, 2], [1, 1, 1], [0, 0, 1]]).unwrap();
        let map = Tensor::cat(&[&map, &map], channels.axis()).unwrap();
        let trained = channels.normalise(&norm, &map, true, true).unwrap();
        let fixed = channels.normalise(&norm, &map, false, false).unwrap();
        let pooled = [trained, fixed].map(|map| channels.global_average_pool(&map).unwrap());
        let upstream = f32(&[2, 8], 0.7, 1.0, 0.0);
        let sum = ((&pooled[0] + &pooled[1]).unwrap() * upstream.as_tensor()).unwrap().sum_all().unwrap();
        let gradients = sum.backward().unwrap();
        let mut found = vec![("trained", values(&pooled[0])), ("fixed", values(&pooled[1]))];
        for (name, var) in [("x", &x), ("w", &w), ("gamma", &norm.gamma), ("beta", &norm.beta)] {
            found.push((name, values(gradients.get(var).unwrap())));
        }
        found.push(("running mean", values(&norm.running_mean)));
        found.push(("running variance", values(&norm.running_variance)));
        found
    }

    #[test]
    fn both_orders_give_the_same() {
        for ((name, first), (_, last)) in block(Channels::First).into_iter().zip(block(Channels::Last)) {
            assert_close(name, &last, &first, 1e-6);
        }
    }
}
