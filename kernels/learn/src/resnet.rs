//! ResNets of basic or bottleneck blocks for images and volumes (He et al., 2016, arXiv:1512.03385).
//!
//! The variables of image networks have the names of torchvision's `resnet18` and `resnet50`, those of volume
//! networks the names of its `r3d_18`.

use candle_core::Tensor;

use crate::batch_norm::BatchNorm;
use crate::channels::Channels;
use crate::error::Error;
use crate::layers::{Convolution, Window, batch_norm, normalise};
use crate::model::Axes;
use crate::network::Mode;
use crate::parameters::{Builder, Init};
use crate::residual::add_relu;

/// The sizes of a ResNet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) block: Block,
    /// Width of the blocks of each stage; the stem has as many channels as the first.
    pub(crate) channels: [usize; 4],
    /// Blocks per stage; each stage but the first halves D, H and W.
    pub(crate) blocks: [usize; 4],
}

impl Form {
    /// Channels behind the last stage.
    pub(crate) fn embedding_dim(&self) -> usize {
        self.channels[3] * self.block.expansion()
    }
}

/// What stands beside the shortcut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// Two convolutions of 3 along each axis.
    Basic,
    /// Convolutions of 1, 3 and 1, the last to four times the width; the stride is in the middle one.
    Bottleneck,
}

impl Block {
    fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// A ResNet without its head.
#[derive(Clone, Debug)]
pub(crate) struct ResNet {
    axes: Axes,
    stem: ConvNorm,
    blocks: Vec<ResidualBlock>,
}

/// The stem of chest-CT work: volumes are large, and two voxels a side are one feature.
const VOLUME_STEM: Window = Window { kernel: 2, stride: 2, padding: 0 };
/// The published stem of image networks, before a max pool.
const IMAGE_STEM: Window = Window { kernel: 7, stride: 2, padding: 3 };
const IMAGE_POOL: Window = Window { kernel: 3, stride: 2, padding: 1 };

impl ResNet {
    pub(crate) fn new(builder: &mut Builder, axes: Axes, form: &Form) -> Result<Self, Error> {
        let mut channels = form.channels[0];
        let (names, window) = match axes {
            Axes::Image => (["conv1", "bn1"], IMAGE_STEM),
            Axes::Volume => (["stem.0", "stem.1"], VOLUME_STEM),
        };
        let stem = ConvNorm::new(builder, names.map(str::to_owned), axes, [1, channels], window)?;
        let mut blocks = Vec::new();
        for (stage, (&width, &count)) in form.channels.iter().zip(&form.blocks).enumerate() {
            for block in 0..count {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let name = format!("layer{}.{block}", stage + 1);
                blocks.push(ResidualBlock::new(builder, &name, axes, form.block, [channels, width], stride)?);
                channels = width * form.block.expansion();
            }
        }
        Ok(Self { axes, stem, blocks })
    }

    /// `(N, 1, D, H, W)` to the pooled features of the last stage, `(N, embedding)`.
    pub(crate) fn embed(&self, input: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        let (channels, input) = Channels::of_input(input)?;
        let mut features = self.stem.forward(&input, mode, true)?;
        if self.axes == Axes::Image {
            features = channels.max_pool3d(&features, IMAGE_POOL.triples(self.axes))?;
        }
        for block in &self.blocks {
            features = block.forward(&features, mode)?;
        }
        Ok(channels.global_average_pool(&features)?)
    }
}

/// A convolution without bias and its normalisation.
#[derive(Clone, Debug)]
struct ConvNorm {
    convolution: Convolution,
    norm: BatchNorm,
}

impl ConvNorm {
    fn new(
        builder: &mut Builder,
        [conv_name, norm_name]: [String; 2],
        axes: Axes,
        channels: [usize; 2],
        window: Window,
    ) -> Result<Self, Error> {
        let convolution = Convolution::new(builder, &conv_name, axes, channels, window, Init::KaimingFanOut)?;
        Ok(Self { convolution, norm: batch_norm(builder, &norm_name, channels[1])? })
    }

    fn forward(&self, input: &Tensor, mode: Mode, relu: bool) -> Result<Tensor, Error> {
        normalise(&self.norm, &self.convolution.forward(input)?, mode, relu)
    }
}

/// Convolutions beside a shortcut; the last one is rectified only after the sum.
#[derive(Clone, Debug)]
struct ResidualBlock {
    layers: Vec<ConvNorm>,
    /// A convolution of 1 where the block changes the shape.
    shortcut: Option<ConvNorm>,
}

impl ResidualBlock {
    fn new(
        builder: &mut Builder,
        name: &str,
        axes: Axes,
        block: Block,
        [inputs, width]: [usize; 2],
        stride: usize,
    ) -> Result<Self, Error> {
        let outputs = width * block.expansion();
        let single = |stride| Window { kernel: 1, stride, padding: 0 };
        let triple = |stride| Window { kernel: 3, stride, padding: 1 };
        let layers = match block {
            Block::Basic => vec![([inputs, width], triple(stride)), ([width, outputs], triple(1))],
            Block::Bottleneck => vec![
                ([inputs, width], single(1)),
                ([width, width], triple(stride)),
                ([width, outputs], single(1)),
            ],
        };
        let layers = layers.into_iter().enumerate().map(|(index, (channels, window))| {
            ConvNorm::new(builder, layer_names(axes, name, index + 1), axes, channels, window)
        });
        let layers = layers.collect::<Result<_, Error>>()?;
        let shortcut = match inputs == outputs && stride == 1 {
            true => None,
            false => {
                let names = ["0", "1"].map(|part| format!("{name}.downsample.{part}"));
                Some(ConvNorm::new(builder, names, axes, [inputs, outputs], single(stride))?)
            }
        };
        Ok(Self { layers, shortcut })
    }

    fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        let mut residual = input.clone();
        for (index, layer) in self.layers.iter().enumerate() {
            residual = layer.forward(&residual, mode, index + 1 < self.layers.len())?;
        }
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.forward(input, mode, false)?,
            None => input.clone(),
        };
        Ok(add_relu(&residual, &shortcut)?)
    }
}

/// The names of the nth convolution of a block and of its normalisation.
fn layer_names(axes: Axes, block: &str, number: usize) -> [String; 2] {
    match axes {
        Axes::Image => [format!("{block}.conv{number}"), format!("{block}.bn{number}")],
        Axes::Volume => ["0", "1"].map(|part| format!("{block}.conv{number}.{part}")),
    }
}

#[cfg(test)]
mod tests {
    use crate::goldens::{assert_close, fill, golden, numbers, values, wave};
    use crate::loss::binary_cross_entropy;
    use crate::model::ModelKind;
    use crate::network::{Mode, Network};
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn published_parameter_count_and_names() {
        let network = Network::seeded(ModelKind::ResNet3d18, 18, 0).unwrap();
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
        let arrays = Network::seeded(ModelKind::ResNet3dTiny, 3, 0).unwrap().parameters;
        let mut stored = arrays.arrays().unwrap();
        let trainable = stored.iter_mut().filter(|(name, _)| arrays.trainable.contains_key(*name));
        fill(trainable.map(|(name, array)| (name, &mut array.values, array.shape.clone())));
        let network = Network::stored(ModelKind::ResNet3dTiny, 3, stored).unwrap();
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
        let network = Network::seeded(ModelKind::ResNet3dTiny, 3, 1).unwrap();
        let input = Tensor::ones((2, 1, 17, 24, 32), DType::F32, &Device::Cpu).unwrap();
        let embedding = network.embed(&input, Mode::Eval).unwrap();
        assert_eq!(embedding.dims(), [2, 64]);
        assert_eq!(network.classify(&embedding).unwrap().dims(), [2, 3]);
    }

    #[test]
    fn stored_weights_of_another_network_are_an_error() {
        let tiny = Network::seeded(ModelKind::ResNet3dTiny, 3, 1).unwrap().parameters.arrays().unwrap();
        let error = Network::stored(ModelKind::ResNet3dTiny, 4, tiny.clone()).unwrap_err().to_string();
        assert_eq!(error, "`fc.weight` has shape [3, 64], expected [4, 64]");
        let mut more = tiny.clone();
        more.insert("extra".into(), more["fc.bias"].clone());
        let error = Network::stored(ModelKind::ResNet3dTiny, 3, more).unwrap_err().to_string();
        assert_eq!(error, "the weights hold 1 arrays that the model lacks, first `extra`");
        let mut fewer = tiny;
        fewer.remove("fc.bias");
        let error = Network::stored(ModelKind::ResNet3dTiny, 3, fewer).unwrap_err().to_string();
        assert_eq!(error, "the weights lack `fc.bias`, expected shape [3]");
    }
}
