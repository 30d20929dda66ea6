//! What can go wrong with a model in process.

use std::fmt;

/// A failure to find, read or run a model. None of them shows text of a prompt.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A model that is not where it was looked for, or lacks a file.
    Files(String),
    /// A file that cannot be read or is not of its form.
    Format(String),
    /// A model of a kind that this crate does not compute.
    Unsupported(String),
    /// Weights that are missing, of another shape, or of no use to the model.
    Weights(String),
    /// A chat template that does not render.
    Template(String),
    /// Questions or options that cannot be asked of this model.
    Sheet(String),
    /// Text that the tokenizer refuses.
    Tokens(String),
    /// A device that is not there.
    Device(String),
    /// Logits that are no finite numbers.
    NotFinite {
        /// Index of the prompt.
        prompt: usize,
    },
    /// A failure inside the tensor library.
    Tensor(candle_core::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(message)
            | Self::Format(message)
            | Self::Unsupported(message)
            | Self::Weights(message)
            | Self::Template(message)
            | Self::Sheet(message)
            | Self::Tokens(message)
            | Self::Device(message) => f.write_str(message),
            Self::NotFinite { prompt } => write!(
                f,
                "the model gave a logit that is not a finite number for prompt {prompt}; \
                 check that its weights are whole"
            ),
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

/// A prompt that, with the longest question behind it, is longer than the model's context. It was not read: a prompt
/// that is cut off would be answered as if the rest did not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Tokens of the prompt and the longest question.
    pub tokens: usize,
    /// The most tokens that the model can read.
    pub limit: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the prompt has {} tokens, expected at most {}", self.tokens, self.limit)
    }
}

impl std::error::Error for TooLong {}
