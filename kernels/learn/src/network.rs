//! A network: an encoder that makes an embedding of an image or a volume, and a linear head.

use candle_core::{Device, Tensor};
use candle_nn::{Linear, Module};

use crate::densenet::{self, DenseNet};
use crate::error::Error;
use crate::model::{Axes, EncoderForm, ModelKind};
use crate::parameters::{Arrays, Builder, Init, Parameters};
use crate::pretrained::{self, Coverage, Head, Rule, Rules, StateDict, Stem, Transfer};
use crate::resnet::ResNet;
use crate::vision_transformer::{self, VisionTransformer};

/// An encoder with a linear head.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    encoder: Encoder,
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

impl Network {
    /// A network with weights drawn from `seed`, on the CPU.
    pub(crate) fn seeded(kind: ModelKind, classes: usize, seed: u64) -> Result<Self, Error> {
        Self::build(kind, classes, Builder::seeded(seed))
    }

    /// A network with stored weights, on the CPU.
    pub(crate) fn stored(kind: ModelKind, classes: usize, arrays: Arrays) -> Result<Self, Error> {
        Self::build(kind, classes, Builder::stored(arrays))
    }

    /// A network with the published weights of a file, and with new ones from `seed` where `transfer` says so.
    ///
    /// The files are those of torchvision (`resnet18`, `resnet50`, `densenet121`, `vit_b_16`, and `r3d_18` with a
    /// new stem) and of MONAI (`DenseNet121`, `ViT`), or of this program.
    pub(crate) fn pretrained(
        kind: ModelKind,
        classes: usize,
        seed: u64,
        dict: &StateDict,
        transfer: Transfer,
    ) -> Result<(Self, Coverage), Error> {
        let mut arrays = Self::seeded(kind, classes, seed)?.parameters.arrays()?;
        let rule = |name: &str| match name {
            _ if name.starts_with(kind.head_name()) => match transfer.head {
                Head::Published => Rule::Taken,
                Head::New => Rule::New,
            },
            _ if name == kind.stem_name() => match transfer.stem {
                Stem::Published => Rule::Taken,
                Stem::Summed => Rule::Summed,
                Stem::New => Rule::New,
            },
            // Weights from self-supervision have none: only a classifier looks at it.
            "cls_token" if transfer.head == Head::New => Rule::Optional,
            _ => Rule::Taken,
        };
        let rules = Rules { network: kind.name(), rename: &|name| published_name(kind, name), rule: &rule };
        let coverage = pretrained::transfer(dict, &mut arrays, &rules)?;
        Ok((Self::stored(kind, classes, arrays)?, coverage))
    }

    /// A network with the variables of `builder`, on its device.
    pub(crate) fn build(kind: ModelKind, classes: usize, mut builder: Builder) -> Result<Self, Error> {
        let encoder = Encoder::new(kind, &mut builder)?;
        let inputs = kind.embedding_dim();
        let name = kind.head_name();
        let init = Init::Uniform { inputs };
        let weight = builder.trainable(format!("{name}.weight"), &[classes, inputs], init)?;
        let bias = builder.trainable(format!("{name}.bias"), &[classes], init)?;
        let head = Linear::new(weight.into_inner(), Some(bias.into_inner()));
        Ok(Self { encoder, head, parameters: builder.finish()? })
    }

    /// `(N, 1, D, H, W)` to `(N, embedding)`; see [`Encoder::embed`].
    pub(crate) fn embed(&self, input: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        self.encoder.embed(input, mode)
    }

    /// Where its variables are.
    pub(crate) fn device(&self) -> &Device {
        self.head.weight().device()
    }

    /// `(N, embedding)` to logits `(N, classes)`.
    pub(crate) fn classify(&self, embedding: &Tensor) -> Result<Tensor, Error> {
        Ok(self.head.forward(embedding)?)
    }
}

/// Our name for a variable of a published network: that of its publisher, or of the one whose names are used here
/// where two have published the same network.
fn published_name(kind: ModelKind, name: &str) -> String {
    match kind.form() {
        EncoderForm::ResNet(_) => name.to_owned(),
        EncoderForm::DenseNet(_) => densenet::published_name(name),
        EncoderForm::VisionTransformer(_) => vision_transformer::published_name(name),
    }
}

/// A network without its head. The variables belong to the builder that made them.
#[derive(Clone, Debug)]
pub(crate) struct Encoder {
    axes: Axes,
    family: Family,
}

#[derive(Clone, Debug)]
enum Family {
    ResNet(ResNet),
    DenseNet(DenseNet),
    VisionTransformer(VisionTransformer),
}

impl Encoder {
    /// The encoder of `kind`, with variables from `builder`.
    pub(crate) fn new(kind: ModelKind, builder: &mut Builder) -> Result<Self, Error> {
        let axes = kind.axes();
        let family = match kind.form() {
            EncoderForm::ResNet(form) => Family::ResNet(ResNet::new(builder, axes, &form)?),
            EncoderForm::DenseNet(form) => Family::DenseNet(DenseNet::new(builder, axes, &form)?),
            EncoderForm::VisionTransformer(form) => {
                Family::VisionTransformer(VisionTransformer::new(builder, axes, &form)?)
            }
        };
        Ok(Self { axes, family })
    }

    /// `(N, 1, D, H, W)`, with D = 1 for images, to the embedding `(N, embedding)`: the pooled features of the last
    /// stage, or the normalised class token of a vision transformer, in f32.
    pub(crate) fn embed(&self, input: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        let depth = match self.axes {
            Axes::Image => "1",
            Axes::Volume => "D",
        };
        match (input.dims(), self.axes) {
            (&[_, 1, 1, _, _], Axes::Image) | (&[_, 1, _, _, _], Axes::Volume) => {}
            (other, _) => {
                return Err(Error::Data(format!("the input is {other:?}, expected (N, 1, {depth}, H, W)")));
            }
        }
        match &self.family {
            Family::ResNet(encoder) => encoder.embed(input, mode),
            Family::DenseNet(encoder) => encoder.embed(input, mode),
            Family::VisionTransformer(encoder) => encoder.embed(input),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{
        assert_close, assert_gradients, fill, network_golden, numbers, sizes, values, wave, wave_var,
    };
    use candle_core::DType;

    const TINY: [ModelKind; 6] = [
        ModelKind::ResNet3dTiny,
        ModelKind::DenseNet3dTiny,
        ModelKind::Vit3dTiny,
        ModelKind::ResNetTiny,
        ModelKind::DenseNetTiny,
        ModelKind::VitTiny,
    ];

    fn input(kind: ModelKind, batch: usize, side: usize) -> Tensor {
        let depth = match kind.axes() {
            Axes::Image => 1,
            Axes::Volume => side,
        };
        let values: Vec<f32> =
            wave(batch * depth * side * side, 0.3, 1.0).into_iter().map(|value| value as f32).collect();
        Tensor::from_vec(values, (batch, 1, depth, side, side), &Device::Cpu).unwrap()
    }

    /// From the modules of torchvision 0.29 and MONAI 1.6 with one input channel: the encoder, and the head with one
    /// class.
    #[test]
    fn published_parameter_counts() {
        for (kind, encoder, head) in [
            (ModelKind::ResNet3d18, 33_138_560, 513),
            (ModelKind::ResNet18, 11_170_240, 513),
            (ModelKind::ResNet50, 23_501_760, 2_049),
            (ModelKind::DenseNet121, 6_947_584, 1_025),
            (ModelKind::DenseNet3d121, 11_242_624, 1_025),
            (ModelKind::VitB16, 85_405_440, 769),
            (ModelKind::Vit3dB16, 88_341_504, 769),
        ] {
            let network = Network::seeded(kind, 1, 0).unwrap();
            let count = |head: bool| -> usize {
                let trainable = network.parameters.trainable.iter();
                trainable
                    .filter(|(name, _)| name.starts_with(kind.head_name()) == head)
                    .map(|(_, var)| var.elem_count())
                    .sum()
            };
            assert_eq!((count(false), count(true)), (encoder, head), "{kind}");
        }
    }

    /// Whole networks against the modules of torchvision and MONAI, which compute in f64, this one in f32.
    #[test]
    fn logits_and_gradients_of_the_published_modules() {
        for (name, case) in network_golden("networks").as_object().unwrap() {
            let kind: ModelKind = name.parse().unwrap();
            let network = Network::seeded(kind, 3, 0).unwrap().parameters;
            let mut arrays = network.arrays().unwrap();
            let trainable = arrays.iter_mut().filter(|(name, _)| network.trainable.contains_key(*name));
            fill(trainable.map(|(name, array)| (name, &mut array.values, array.shape.clone())));
            let network = Network::stored(kind, 3, arrays).unwrap();
            let mut shape: Vec<usize> = match kind.axes() {
                Axes::Image => sizes::<4>(&case["shape"]).to_vec(),
                Axes::Volume => sizes::<5>(&case["shape"]).to_vec(),
            };
            if kind.axes() == Axes::Image {
                shape.insert(2, 1);
            }
            let input = wave_var(&shape, 0.3, 1.0, 0.0).to_dtype(DType::F32).unwrap();
            let mode = if case["train"].as_bool().unwrap() { Mode::Train } else { Mode::Eval };
            let logits = network.classify(&network.embed(&input, mode).unwrap()).unwrap();
            assert_close(name, &values(&logits), &numbers(&case["logits"]), 1e-4);
            let upstream = wave_var(logits.dims(), 0.9, 1.0, 0.0).to_dtype(DType::F32).unwrap();
            let gradients = (logits * upstream).unwrap().sum_all().unwrap().backward().unwrap();
            let trainable = network.parameters.trainable.iter();
            assert_gradients(name, &case["gradients"], trainable, &gradients, 1e-3);
        }
    }

    #[test]
    fn a_gradient_reaches_every_variable() {
        for kind in TINY {
            let network = Network::seeded(kind, 3, 1).unwrap();
            let embedding = network.embed(&input(kind, 2, 32), Mode::Train).unwrap();
            assert_eq!(embedding.dims(), [2, kind.embedding_dim()], "{kind}");
            let logits = network.classify(&embedding).unwrap();
            assert_eq!(logits.dims(), [2, 3], "{kind}");
            let gradients = logits.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            for (name, var) in &network.parameters.trainable {
                let gradient = gradients.get(var).unwrap_or_else(|| panic!("{kind}: none for {name}"));
                assert_eq!(gradient.dims(), var.dims(), "{kind}: {name}");
                let largest = gradient.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(largest > 0.0, "{kind}: the gradient of {name} is {largest}");
            }
        }
    }

    #[test]
    fn stored_arrays_make_the_same_network_whatever_the_number_of_threads() {
        for kind in TINY {
            let network = Network::seeded(kind, 3, 1).unwrap();
            let stored = Network::stored(kind, 3, network.parameters.arrays().unwrap()).unwrap();
            let run = |network: &Network, threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let embedding = network.embed(&input(kind, 2, 40), Mode::Train).unwrap();
                    let gradients = embedding.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                    let vars = network.parameters.trainable.values().filter_map(|var| gradients.get(var));
                    let all = vars.chain([&embedding]).map(|tensor| tensor.flatten_all().unwrap());
                    all.map(|tensor| tensor.to_vec1::<f32>().unwrap()).collect::<Vec<_>>()
                })
            };
            assert!(run(&network, 1) == run(&stored, 5), "{kind}");
        }
    }

    #[test]
    fn inputs_that_do_not_fit() {
        let fail = |kind, shape: [usize; 5]| {
            let network = Network::seeded(kind, 2, 1).unwrap();
            let input = Tensor::zeros(&shape[..], DType::F32, &Device::Cpu).unwrap();
            network.embed(&input, Mode::Eval).unwrap_err().to_string()
        };
        let error = fail(ModelKind::ResNetTiny, [1, 1, 4, 32, 32]);
        assert_eq!(error, "the input is [1, 1, 4, 32, 32], expected (N, 1, 1, H, W)");
        let error = fail(ModelKind::ResNet3dTiny, [1, 3, 32, 32, 32]);
        assert_eq!(error, "the input is [1, 3, 32, 32, 32], expected (N, 1, D, H, W)");
        let error = fail(ModelKind::VitTiny, [1, 1, 1, 32, 36]);
        assert_eq!(
            error,
            "the input has [1, 32, 36] voxels along D, H, W, expected multiples of the patch of [1, 8, 8]"
        );
    }
}
