//! The 3D ResNet of basic blocks. The variables have the names of torchvision's `r3d_18`.

use candle_core::{Tensor, Var};
use candle_nn::{Linear, Module};

use crate::batch_norm::BatchNorm;
use crate::channels::Channels;
use crate::device::feature_type;
use crate::error::Error;
use crate::model::ModelKind;
#[cfg(test)]
use crate::parameters::Arrays;
use crate::parameters::{Builder, Init, Parameters};
use crate::residual::add_relu;

/// A 3D ResNet with a linear head.
#[derive(Clone, Debug)]
pub(crate) struct ResNet3d {
    stem: ConvNorm,
    blocks: Vec<BasicBlock>,
    head: Linear,
    pub(crate) parameters: Parameters,
}

/// What batch normalisation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Use and follow the batch.
    Train,
    /// Use the running statistics.
    Eval,
}

impl ResNet3d {
    /// A network with weights drawn from `seed`, on the CPU.
    #[cfg(test)]
    pub(crate) fn seeded(kind: ModelKind, classes: usize, seed: u64) -> Result<Self, Error> {
        Self::build(kind, classes, Builder::seeded(seed))
    }

    /// A network with stored weights, on the CPU.
    #[cfg(test)]
    pub(crate) fn stored(kind: ModelKind, classes: usize, arrays: Arrays) -> Result<Self, Error> {
        Self::build(kind, classes, Builder::stored(arrays))
    }

    /// A network with the variables of `builder`, on its device.
    pub(crate) fn build(kind: ModelKind, classes: usize, mut builder: Builder) -> Result<Self, Error> {
        let stages = kind.stages();
        let mut channels = stages[0].channels;
        let stem = ConvNorm::new(&mut builder, "stem.0", "stem.1", [1, channels], STEM)?;
        let mut blocks = Vec::new();
        for (index, stage) in stages.into_iter().enumerate() {
            for block in 0..stage.blocks {
                let stride = if index > 0 && block == 0 { 2 } else { 1 };
                let name = format!("layer{}.{block}", index + 1);
                blocks.push(BasicBlock::new(&mut builder, &name, [channels, stage.channels], stride)?);
                channels = stage.channels;
            }
        }
        let init = Init::Uniform { inputs: channels };
        let weight = builder.trainable("fc.weight".into(), &[classes, channels], init)?;
        let bias = builder.trainable("fc.bias".into(), &[classes], init)?;
        let head = Linear::new(weight.into_inner(), Some(bias.into_inner()));
        Ok(Self { stem, blocks, head, parameters: builder.finish()? })
    }

    /// `(N, 1, D, H, W)` to the pooled features of the last stage, `(N, embedding)`.
    pub(crate) fn embed(&self, input: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        let channels = Channels::on(input.device());
        let input = channels.arrange(&input.to_dtype(feature_type(input.device()))?)?;
        let mut features = self.stem.forward(&input, mode, true)?;
        for block in &self.blocks {
            features = block.forward(&features, mode)?;
        }
        Ok(channels.global_average_pool(&features)?)
    }

    /// `(N, embedding)` to logits `(N, classes)`.
    pub(crate) fn classify(&self, embedding: &Tensor) -> Result<Tensor, Error> {
        Ok(self.head.forward(embedding)?)
    }
}

/// Kernel, stride and padding of a convolution, the same along all axes.
#[derive(Clone, Copy, Debug)]
struct Form {
    kernel: usize,
    stride: usize,
    padding: usize,
}

const STEM: Form = Form { kernel: 2, stride: 2, padding: 0 };

/// A convolution without bias and its normalisation.
#[derive(Clone, Debug)]
struct ConvNorm {
    weight: Var,
    form: Form,
    norm: BatchNorm,
}

impl ConvNorm {
    fn new(
        builder: &mut Builder,
        conv_name: &str,
        norm_name: &str,
        [inputs, outputs]: [usize; 2],
        form: Form,
    ) -> Result<Self, Error> {
        let shape = [outputs, inputs, form.kernel, form.kernel, form.kernel];
        let weight = builder.trainable(format!("{conv_name}.weight"), &shape, Init::KaimingNormal)?;
        let (zero, one) = (Init::Constant(0.0), Init::Constant(1.0));
        let norm = BatchNorm {
            gamma: builder.trainable(format!("{norm_name}.weight"), &[outputs], one)?,
            beta: builder.trainable(format!("{norm_name}.bias"), &[outputs], zero)?,
            running_mean: builder.buffer(format!("{norm_name}.running_mean"), &[outputs], zero)?,
            running_variance: builder.buffer(format!("{norm_name}.running_var"), &[outputs], one)?,
        };
        Ok(Self { weight, form, norm })
    }

    fn forward(&self, input: &Tensor, mode: Mode, relu: bool) -> Result<Tensor, Error> {
        let channels = Channels::on(input.device());
        let (stride, padding) = ([self.form.stride; 3], [self.form.padding; 3]);
        let output = channels.conv3d(input, &self.weight, stride, padding)?;
        Ok(channels.normalise(&self.norm, &output, mode == Mode::Train, relu)?)
    }
}

/// Two 3x3x3 convolutions beside a shortcut (He et al., 2016, arXiv:1512.03385).
#[derive(Clone, Debug)]
struct BasicBlock {
    first: ConvNorm,
    second: ConvNorm,
    /// A 1x1x1 convolution where the block changes the shape.
    shortcut: Option<ConvNorm>,
}

impl BasicBlock {
    fn new(builder: &mut Builder, name: &str, channels: [usize; 2], stride: usize) -> Result<Self, Error> {
        let [inputs, outputs] = channels;
        let mut layer = |layer: &str, channels, form| {
            ConvNorm::new(builder, &format!("{name}.{layer}.0"), &format!("{name}.{layer}.1"), channels, form)
        };
        let first = layer("conv1", channels, Form { kernel: 3, stride, padding: 1 })?;
        let second = layer("conv2", [outputs; 2], Form { kernel: 3, stride: 1, padding: 1 })?;
        let shortcut = match inputs == outputs && stride == 1 {
            true => None,
            false => Some(layer("downsample", channels, Form { kernel: 1, stride, padding: 0 })?),
        };
        Ok(Self { first, second, shortcut })
    }

    fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        let residual = self.second.forward(&self.first.forward(input, mode, true)?, mode, false)?;
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.forward(input, mode, false)?,
            None => input.clone(),
        };
        Ok(add_relu(&residual, &shortcut)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{assert_close, golden, numbers, values, wave};
    use crate::loss::binary_cross_entropy;
    use candle_core::{DType, Device};

    #[test]
    fn published_parameter_count_and_names() {
        let network = ResNet3d::seeded(ModelKind::ResNet3d18, 18, 0).unwrap();
        let count = |head: bool| -> usize {
            let trainable = network.parameters.trainable.iter();
            trainable
                .filter(|(name, _)| name.starts_with("fc.") == head)
                .map(|(_, var)| var.elem_count())
                .sum()
        };
        // From the published chest-CT encoder: r3d_18 without its head, and a head of 512 x 18 + 18.
        assert_eq!(count(false), 33_138_560);
        assert_eq!(count(true), 9_234);
        for name in [
            "stem.0.weight",
            "layer1.0.conv1.0.weight",
            "layer4.1.conv2.1.bias",
            "layer2.0.downsample.0.weight",
        ] {
            assert!(network.parameters.trainable.contains_key(name), "{name}");
        }
        assert!(network.parameters.buffers.contains_key("layer3.0.downsample.1.running_var"));
    }

    /// The whole network against a second implementation, forward and backward; it computes in f64, this one in f32.
    #[test]
    fn logits_loss_and_gradients_of_the_reference() {
        let case = golden("network");
        let arrays = ResNet3d::seeded(ModelKind::ResNet3dTiny, 3, 0).unwrap().parameters;
        let mut stored = arrays.arrays().unwrap();
        for (index, name) in arrays.trainable.keys().enumerate() {
            let array = stored.get_mut(name).unwrap();
            let norm_scale = array.shape.len() == 1 && name.ends_with("weight");
            let inputs: usize = array.shape[1..].iter().product();
            let scale = if array.shape.len() == 1 { 0.1 } else { 1.0 / (inputs as f64).sqrt() };
            let offset = if norm_scale { 1.0 } else { 0.0 };
            let values = wave(array.values.len(), 0.3 * index as f64, scale);
            array.values = values.into_iter().map(|value| (value + offset) as f32).collect();
        }
        let network = ResNet3d::stored(ModelKind::ResNet3dTiny, 3, stored).unwrap();
        let input: Vec<f32> =
            wave(2 * 32 * 36 * 40, 0.3, 1.0).into_iter().map(|value| value as f32).collect();
        let input = Tensor::from_vec(input, (2, 1, 32, 36, 40), &Device::Cpu).unwrap();
        let pooled = network.embed(&input, Mode::Train).unwrap();
        let logits = network.classify(&pooled).unwrap();
        assert_close("logits", &values(&logits), &numbers(&case["logits"]), 1e-5);
        let sum = values(&pooled).iter().sum::<f64>();
        assert_close("pooled", &[sum], &[case["pooled_sum"].as_f64().unwrap()], 1e-5);
        let found = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let loss = binary_cross_entropy(&found, &[1., 0., 1., 0., 1., 1.], &[1.0; 6], &[]).unwrap();
        assert_close("loss", &[loss.loss], &[case["loss"].as_f64().unwrap()], 1e-5);
        let upstream = Tensor::from_vec(loss.gradient, (2, 3), &Device::Cpu).unwrap();
        let gradients = (logits * upstream).unwrap().sum_all().unwrap().backward().unwrap();
        for (name, var) in &network.parameters.trainable {
            let (gradient, case) = (values(gradients.get(var).unwrap()), &case["gradients"][name]);
            let norm = gradient.iter().map(|value| value * value).sum::<f64>().sqrt();
            let expected = case["norm"].as_f64().unwrap();
            assert_close(&format!("norm of {name}"), &[norm], &[expected], 1e-4);
            let difference = (gradient[0] - case["first"].as_f64().unwrap()).abs();
            assert!(difference <= 1e-4 * expected, "first of {name}: off by {difference}");
        }
    }

    #[test]
    fn shapes_of_the_tiny_network() {
        let network = ResNet3d::seeded(ModelKind::ResNet3dTiny, 3, 1).unwrap();
        let input = Tensor::ones((2, 1, 17, 24, 32), DType::F32, &Device::Cpu).unwrap();
        let embedding = network.embed(&input, Mode::Eval).unwrap();
        assert_eq!(embedding.dims(), [2, 64]);
        assert_eq!(network.classify(&embedding).unwrap().dims(), [2, 3]);
    }

    #[test]
    fn stored_weights_of_another_network_are_an_error() {
        let tiny = ResNet3d::seeded(ModelKind::ResNet3dTiny, 3, 1).unwrap().parameters.arrays().unwrap();
        let error = ResNet3d::stored(ModelKind::ResNet3dTiny, 4, tiny.clone()).unwrap_err().to_string();
        assert_eq!(error, "`fc.weight` has shape [3, 64], expected [4, 64]");
        let mut more = tiny.clone();
        more.insert("extra".into(), more["fc.bias"].clone());
        let error = ResNet3d::stored(ModelKind::ResNet3dTiny, 3, more).unwrap_err().to_string();
        assert_eq!(error, "the weights hold 1 arrays that the model lacks, first `extra`");
        let mut fewer = tiny;
        fewer.remove("fc.bias");
        let error = ResNet3d::stored(ModelKind::ResNet3dTiny, 3, fewer).unwrap_err().to_string();
        assert_eq!(error, "the weights lack `fc.bias`, expected shape [3]");
    }
}
