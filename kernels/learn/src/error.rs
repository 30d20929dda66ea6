//! What can go wrong in training and inference.

use std::fmt;

/// A failure of training, inference or the reading of weights.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot work: what it is, what was expected.
    Setting(String),
    /// Targets, weights or parts that do not fit together.
    Data(String),
    /// A volume that could not be read or whose shape does not fit.
    Volume {
        /// Index of the sample, as given to the loader.
        sample: usize,
        /// What was found and what was expected.
        message: String,
    },
    /// Variables that the loss does not reach: they would stay as they were while the loss still falls.
    NoGradient {
        /// Names of the variables.
        variables: Vec<String>,
    },
    /// A loss or score that is not a finite number.
    NotFinite {
        /// Which quantity, and where.
        what: String,
        /// The samples of the batch that it was found in; none where it is of no batch.
        samples: Vec<usize>,
    },
    /// Bytes that are not weights or a checkpoint of this program.
    Format(String),
    /// A checkpoint that the training cannot go on from: of other settings or data, or of another program.
    Checkpoint(String),
    /// The observer asked to stop; `checkpoint` goes on at `step`.
    Stopped {
        /// Optimiser steps done.
        step: usize,
        /// Bytes to hand to `resume` of a training.
        checkpoint: Vec<u8>,
    },
    /// A GPU that cannot be used: which, why, and what would help.
    Device(String),
    /// The device has too little memory for a training step.
    OutOfMemory {
        /// Samples that were to go through the network at once.
        samples: usize,
        /// Voxels of each along D, H, W.
        shape: [usize; 3],
        /// The most of them, among halves, for which a step was then possible; none if not even one.
        fits: Option<usize>,
    },
    /// A failure inside the tensor library.
    Tensor(candle_core::Error),
}

/// How many variables a message names.
const SHOWN: usize = 5;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting(message)
            | Self::Data(message)
            | Self::Format(message)
            | Self::Checkpoint(message)
            | Self::Device(message) => f.write_str(message),
            Self::OutOfMemory { samples, shape: [depth, height, width], fits } => {
                write!(
                    f,
                    "the device has too little memory for {samples} samples of {depth} x {height} x {width} voxels at \
                     once; "
                )?;
                match fits {
                    Some(fits) => write!(f, "a micro_batch of {fits} fits"),
                    None => f.write_str("not even one fits; use a smaller crop, or a coarser grid"),
                }
            }
            Self::Volume { sample, message } => write!(f, "volume of sample {sample}: {message}"),
            Self::NoGradient { variables } => {
                let shown = variables.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
                let more = match variables.len().saturating_sub(SHOWN) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                write!(
                    f,
                    "no gradient reaches {shown}{more}, expected a non-zero one for every trainable variable; \
                     check that the volumes are not constant and that the targets have weight"
                )
            }
            Self::NotFinite { what, .. } => write!(f, "{what} is not a finite number"),
            Self::Stopped { step, .. } => {
                write!(f, "training was stopped after step {step}; resume it from the checkpoint")
            }
            Self::Tensor(error) => write!(f, "tensor computation failed: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Tensor(error) => Some(error),
            _ => None,
        }
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_memory_says_what_fits() {
        let told = |fits| Error::OutOfMemory { samples: 8, shape: [96, 192, 192], fits }.to_string();
        let lack = "the device has too little memory for 8 samples of 96 x 192 x 192 voxels at once; ";
        assert_eq!(told(Some(2)), format!("{lack}a micro_batch of 2 fits"));
        assert_eq!(told(None), format!("{lack}not even one fits; use a smaller crop, or a coarser grid"));
    }
}
