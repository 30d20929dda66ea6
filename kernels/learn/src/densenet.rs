//! DenseNets for images and volumes (Huang et al., 2017, arXiv:1608.06993). The variables have the names of MONAI's
//! `DenseNet121`.

use candle_core::Tensor;

use crate::batch_norm::BatchNorm;
use crate::channels::Channels;
use crate::error::Error;
use crate::layers::{Convolution, Window, batch_norm, normalise};
use crate::model::Axes;
use crate::network::Mode;
use crate::parameters::{Builder, Init};

/// The sizes of a DenseNet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    /// Channels of the stem.
    pub(crate) stem: usize,
    /// Channels that a layer adds.
    pub(crate) growth: usize,
    /// Layers per block. Behind each block but the last, a transition halves the channels and D, H and W.
    pub(crate) layers: &'static [usize],
}

impl Form {
    /// Channels behind the last block.
    pub(crate) fn embedding_dim(&self) -> usize {
        let last = self.layers.len() - 1;
        self.layers.iter().enumerate().fold(self.stem, |channels, (block, layers)| {
            let grown = channels + layers * self.growth;
            if block == last { grown } else { grown / 2 }
        })
    }
}

/// The name here of a variable that MONAI or torchvision calls so. torchvision has no `layers` in its dense layers, a
/// head called `classifier`, and in its older files a dot in `norm.1`.
pub(crate) fn published_name(name: &str) -> String {
    let mut name = name.to_owned();
    for part in ["norm", "conv"] {
        for number in ["1", "2"] {
            name = name.replace(&format!(".{part}.{number}."), &format!(".{part}{number}."));
        }
    }
    if let Some(rest) = name.strip_prefix("classifier.") {
        return format!("class_layers.out.{rest}");
    }
    match name.split_once(".denselayer") {
        Some((block, rest)) if !rest.contains(".layers.") => match rest.split_once('.') {
            Some((number, rest)) => format!("{block}.denselayer{number}.layers.{rest}"),
            None => name,
        },
        _ => name,
    }
}

/// The first convolution of a layer has this many times the growth of channels.
const BOTTLENECK: usize = 4;
const STEM: Window = Window { kernel: 7, stride: 2, padding: 3 };
const STEM_POOL: Window = Window { kernel: 3, stride: 2, padding: 1 };
const TRANSITION_POOL: Window = Window { kernel: 2, stride: 2, padding: 0 };
const SINGLE: Window = Window { kernel: 1, stride: 1, padding: 0 };
const TRIPLE: Window = Window { kernel: 3, stride: 1, padding: 1 };

/// A DenseNet without its head.
#[derive(Clone, Debug)]
pub(crate) struct DenseNet {
    axes: Axes,
    stem: Convolution,
    stem_norm: BatchNorm,
    blocks: Vec<DenseBlock>,
    last_norm: BatchNorm,
}

/// Layers, and the transition behind all blocks but the last.
#[derive(Clone, Debug)]
struct DenseBlock {
    layers: Vec<[NormConv; 2]>,
    transition: Option<NormConv>,
}

impl DenseNet {
    pub(crate) fn new(builder: &mut Builder, axes: Axes, form: &Form) -> Result<Self, Error> {
        let init = Init::KaimingFanIn;
        let stem = Convolution::new(builder, "features.conv0", axes, [1, form.stem], STEM, init)?;
        let stem_norm = batch_norm(builder, "features.norm0", form.stem)?;
        let mut channels = form.stem;
        let mut blocks = Vec::new();
        for (index, &count) in form.layers.iter().enumerate() {
            let number = index + 1;
            let mut layers = Vec::new();
            for layer in 1..=count {
                let name = format!("features.denseblock{number}.denselayer{layer}.layers");
                let names = |part: usize| [format!("{name}.norm{part}"), format!("{name}.conv{part}")];
                let inner = BOTTLENECK * form.growth;
                layers.push([
                    NormConv::new(builder, names(1), axes, [channels, inner], SINGLE)?,
                    NormConv::new(builder, names(2), axes, [inner, form.growth], TRIPLE)?,
                ]);
                channels += form.growth;
            }
            let transition = match number == form.layers.len() {
                true => None,
                false => {
                    let names = ["norm", "conv"].map(|part| format!("features.transition{number}.{part}"));
                    Some(NormConv::new(builder, names, axes, [channels, channels / 2], SINGLE)?)
                }
            };
            if transition.is_some() {
                channels /= 2;
            }
            blocks.push(DenseBlock { layers, transition });
        }
        let last_norm = batch_norm(builder, "features.norm5", channels)?;
        Ok(Self { axes, stem, stem_norm, blocks, last_norm })
    }

    /// `(N, 1, D, H, W)` to the pooled features of the last block, `(N, embedding)`.
    pub(crate) fn embed(&self, input: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        let (channels, input) = Channels::of_input(input)?;
        let features = normalise(&self.stem_norm, &self.stem.forward(&input)?, mode, true)?;
        let mut features = channels.max_pool3d(&features, STEM_POOL.triples(self.axes))?;
        for block in &self.blocks {
            for [first, second] in &block.layers {
                let new = second.forward(&first.forward(&features, mode)?, mode)?;
                features = Tensor::cat(&[&features, &new], channels.axis())?;
            }
            if let Some(transition) = &block.transition {
                let halved = transition.forward(&features, mode)?;
                features = channels.average_pool3d(&halved, TRANSITION_POOL.triples(self.axes))?;
            }
        }
        Ok(channels.global_average_pool(&normalise(&self.last_norm, &features, mode, true)?)?)
    }
}

/// A rectified normalisation and the convolution behind it.
#[derive(Clone, Debug)]
struct NormConv {
    norm: BatchNorm,
    convolution: Convolution,
}

impl NormConv {
    fn new(
        builder: &mut Builder,
        [norm_name, conv_name]: [String; 2],
        axes: Axes,
        channels: [usize; 2],
        window: Window,
    ) -> Result<Self, Error> {
        let norm = batch_norm(builder, &norm_name, channels[0])?;
        let convolution = Convolution::new(builder, &conv_name, axes, channels, window, Init::KaimingFanIn)?;
        Ok(Self { norm, convolution })
    }

    fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        self.convolution.forward(&normalise(&self.norm, input, mode, true)?)
    }
}
