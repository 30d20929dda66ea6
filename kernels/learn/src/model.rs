//! Which networks there are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A network by name. Both are 3D ResNets of basic blocks for one input channel.
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
}

impl ModelKind {
    /// All networks, in the order in which messages list them.
    pub const ALL: [Self; 2] = [Self::ResNet3d18, Self::ResNet3dTiny];

    /// The name in specs and weights.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResNet3d18 => "resnet3d-18",
            Self::ResNet3dTiny => "resnet3d-tiny",
        }
    }

    /// Values in an embedding: the channels of the last stage.
    pub fn embedding_dim(self) -> usize {
        let stages = self.stages();
        stages[stages.len() - 1].channels
    }

    /// The stages after the stem; the stem has as many channels as the first stage.
    pub(crate) fn stages(self) -> [Stage; 4] {
        let (channels, blocks) = match self {
            Self::ResNet3d18 => ([64, 128, 256, 512], 2),
            Self::ResNet3dTiny => ([8, 16, 32, 64], 1),
        };
        channels.map(|channels| Stage { channels, blocks })
    }
}

/// Residual blocks of one width; each stage but the first halves D, H and W.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    pub(crate) channels: usize,
    pub(crate) blocks: usize,
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
        let error = "resnet50".parse::<ModelKind>().unwrap_err().to_string();
        assert_eq!(error, "the model is `resnet50`, expected one of resnet3d-18, resnet3d-tiny");
    }
}
