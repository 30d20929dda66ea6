//! Which networks there are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::resnet::Block;
use crate::vision_transformer::Names;
use crate::{densenet, resnet, vision_transformer};

/// A network by name, for one input channel. Those with `3d` in their name see volumes, the others images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ModelKind {
    /// The 18-layer 3D ResNet of Tran et al. (2018, arXiv:1711.11248, "R3D-18"), with the stem that chest CT work uses
    /// for one channel: a 2x2x2 convolution of stride 2 to 64 channels. Four stages of two blocks with 64, 128, 256
    /// and 512 channels; 33,138,560 encoder parameters; 512 embedding values.
    #[serde(rename = "resnet3d-18")]
    ResNet3d18,
    /// The same form with one block of 8, 16, 32 and 64 channels per stage, for volumes of some 32 to 48 voxels a
    /// side and CPUs; 64 embedding values.
    #[serde(rename = "resnet3d-tiny")]
    ResNet3dTiny,
    /// MONAI's 3D form of DenseNet-121 (Huang et al., 2017, arXiv:1608.06993); 1024 embedding values.
    #[serde(rename = "densenet3d-121")]
    DenseNet3d121,
    /// The same form with three blocks of two layers that grow by 8 channels, for tests and CPUs; 44 embedding values.
    #[serde(rename = "densenet3d-tiny")]
    DenseNet3dTiny,
    /// MONAI's 3D vision transformer of base size with patches of 16 voxels a side, made for 96 x 96 x 96 voxels; 768
    /// embedding values. Its positions are interpolated for volumes of other sizes.
    #[serde(rename = "vit3d-b16")]
    Vit3dB16,
    /// The same form with two layers of 64 values and patches of 8 voxels a side, made for 32 x 32 x 32 voxels.
    #[serde(rename = "vit3d-tiny")]
    Vit3dTiny,
    /// torchvision's ResNet-18 (He et al., 2016, arXiv:1512.03385): a 7x7 stem of stride 2, a 3x3 max pool and four
    /// stages of two basic blocks; 512 embedding values.
    #[serde(rename = "resnet18")]
    ResNet18,
    /// torchvision's ResNet-50: 3, 4, 6 and 3 bottleneck blocks with the stride in their 3x3 convolution; 2048
    /// embedding values.
    #[serde(rename = "resnet50")]
    ResNet50,
    /// The form of `resnet18` with one block of 8, 16, 32 and 64 channels per stage; 64 embedding values.
    #[serde(rename = "resnet-tiny")]
    ResNetTiny,
    /// MONAI's DenseNet-121: 6,948,609 parameters with one class; 1024 embedding values.
    #[serde(rename = "densenet121")]
    DenseNet121,
    /// The form of `densenet3d-tiny` for images.
    #[serde(rename = "densenet-tiny")]
    DenseNetTiny,
    /// torchvision's vision transformer of base size (Dosovitskiy et al., 2021, arXiv:2010.11929) with patches of
    /// 16 x 16 pixels, made for 224 x 224; 768 embedding values. Its positions are interpolated for images of other
    /// sizes.
    #[serde(rename = "vit-b16")]
    VitB16,
    /// The same form with two layers of 64 values and patches of 8 x 8 pixels, made for 32 x 32.
    #[serde(rename = "vit-tiny")]
    VitTiny,
}

/// What a network looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Axes {
    /// Images: two axes, H and W, in tensors with D = 1.
    Image,
    /// Volumes: three axes, D, H and W.
    Volume,
}

impl Axes {
    /// How many axes there are: 2 or 3.
    pub fn count(self) -> usize {
        match self {
            Self::Image => 2,
            Self::Volume => 3,
        }
    }
}

/// The family of an encoder and its sizes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EncoderForm {
    ResNet(resnet::Form),
    DenseNet(densenet::Form),
    VisionTransformer(vision_transformer::Form),
}

impl ModelKind {
    /// All networks, in the order in which messages list them.
    pub const ALL: [Self; 13] = [
        Self::ResNet3d18,
        Self::ResNet3dTiny,
        Self::DenseNet3d121,
        Self::DenseNet3dTiny,
        Self::Vit3dB16,
        Self::Vit3dTiny,
        Self::ResNet18,
        Self::ResNet50,
        Self::ResNetTiny,
        Self::DenseNet121,
        Self::DenseNetTiny,
        Self::VitB16,
        Self::VitTiny,
    ];

    /// The name in specs and weights.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResNet3d18 => "resnet3d-18",
            Self::ResNet3dTiny => "resnet3d-tiny",
            Self::DenseNet3d121 => "densenet3d-121",
            Self::DenseNet3dTiny => "densenet3d-tiny",
            Self::Vit3dB16 => "vit3d-b16",
            Self::Vit3dTiny => "vit3d-tiny",
            Self::ResNet18 => "resnet18",
            Self::ResNet50 => "resnet50",
            Self::ResNetTiny => "resnet-tiny",
            Self::DenseNet121 => "densenet121",
            Self::DenseNetTiny => "densenet-tiny",
            Self::VitB16 => "vit-b16",
            Self::VitTiny => "vit-tiny",
        }
    }

    /// Whether the network looks at images or at volumes.
    pub fn axes(self) -> Axes {
        match self {
            Self::ResNet3d18
            | Self::ResNet3dTiny
            | Self::DenseNet3d121
            | Self::DenseNet3dTiny
            | Self::Vit3dB16
            | Self::Vit3dTiny => Axes::Volume,
            Self::ResNet18
            | Self::ResNet50
            | Self::ResNetTiny
            | Self::DenseNet121
            | Self::DenseNetTiny
            | Self::VitB16
            | Self::VitTiny => Axes::Image,
        }
    }

    /// Values in an embedding.
    pub fn embedding_dim(self) -> usize {
        match self.form() {
            EncoderForm::ResNet(form) => form.embedding_dim(),
            EncoderForm::DenseNet(form) => form.embedding_dim(),
            EncoderForm::VisionTransformer(form) => form.hidden,
        }
    }

    pub(crate) fn form(self) -> EncoderForm {
        match self {
            Self::ResNet3d18 | Self::ResNet18 => {
                EncoderForm::ResNet(resnet::Form { block: Block::Basic, channels: WIDTHS, blocks: [2; 4] })
            }
            Self::ResNet50 => EncoderForm::ResNet(resnet::Form {
                block: Block::Bottleneck,
                channels: WIDTHS,
                blocks: [3, 4, 6, 3],
            }),
            Self::ResNet3dTiny | Self::ResNetTiny => EncoderForm::ResNet(resnet::Form {
                block: Block::Basic,
                channels: [8, 16, 32, 64],
                blocks: [1; 4],
            }),
            Self::DenseNet3d121 | Self::DenseNet121 => {
                EncoderForm::DenseNet(densenet::Form { stem: 64, growth: 32, layers: &[6, 12, 24, 16] })
            }
            Self::DenseNet3dTiny | Self::DenseNetTiny => {
                EncoderForm::DenseNet(densenet::Form { stem: 16, growth: 8, layers: &[2, 2, 2] })
            }
            Self::Vit3dB16 => transformer(BASE, Names::Monai, 16, 96),
            Self::Vit3dTiny => transformer(TINY, Names::Monai, 8, 32),
            Self::VitB16 => transformer(BASE, Names::Torchvision, 16, 224),
            Self::VitTiny => transformer(TINY, Names::Torchvision, 8, 32),
        }
    }

    /// The name of the linear layer behind the encoder, as its publisher calls it.
    pub(crate) fn head_name(self) -> &'static str {
        match self.form() {
            EncoderForm::ResNet(_) => "fc",
            EncoderForm::DenseNet(_) => "class_layers.out",
            EncoderForm::VisionTransformer(form) => form.names.head(),
        }
    }

    /// The name of the weight that sees the input.
    pub(crate) fn stem_name(self) -> String {
        match (self.form(), self.axes()) {
            (EncoderForm::ResNet(_), Axes::Image) => "conv1.weight".into(),
            (EncoderForm::ResNet(_), Axes::Volume) => "stem.0.weight".into(),
            (EncoderForm::DenseNet(_), _) => "features.conv0.weight".into(),
            (EncoderForm::VisionTransformer(form), _) => format!("{}.weight", form.names.patches()),
        }
    }
}

/// Channels of the stages of the published ResNets.
const WIDTHS: [usize; 4] = [64, 128, 256, 512];

/// Layers, values, heads and values between the two layers of a block's perceptron.
const BASE: [usize; 4] = [12, 768, 12, 3072];
const TINY: [usize; 4] = [2, 64, 4, 128];

fn transformer(
    [layers, hidden, heads, mlp]: [usize; 4],
    names: Names,
    patch: usize,
    side: usize,
) -> EncoderForm {
    let form = vision_transformer::Form { names, patch, side, layers, hidden, heads, mlp };
    EncoderForm::VisionTransformer(form)
}

impl fmt::Display for ModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ModelKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::Setting(format!("the model is `{name}`, expected one of {names}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_serde_names_agree() {
        for kind in ModelKind::ALL {
            assert_eq!(kind.name().parse::<ModelKind>().unwrap(), kind);
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        let error = "resnet51".parse::<ModelKind>().unwrap_err().to_string();
        assert_eq!(
            error,
            "the model is `resnet51`, expected one of resnet3d-18, resnet3d-tiny, densenet3d-121, densenet3d-tiny, \
             vit3d-b16, vit3d-tiny, resnet18, resnet50, resnet-tiny, densenet121, densenet-tiny, vit-b16, vit-tiny"
        );
    }

    #[test]
    fn names_say_what_a_network_looks_at() {
        for kind in ModelKind::ALL {
            let axes = if kind.name().contains("3d") { Axes::Volume } else { Axes::Image };
            assert_eq!(kind.axes(), axes, "{kind}");
        }
    }
}
