//! Rotary position embeddings: Su et al., RoFormer, arXiv 2104.09864.

use candle_core::{DType, Device, Tensor};

/// How positions become rotations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rope {
    /// The base of the wavelengths.
    pub(crate) theta: f64,
    pub(crate) scaling: RopeScaling,
}

/// How a longer context than that of the first training is reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum RopeScaling {
    None,
    /// All positions are divided: Chen et al., arXiv 2306.15595.
    Linear {
        factor: f64,
    },
    /// Long wavelengths are stretched, short ones kept, and those between blended; as Llama 3.1 defines it.
    Llama3 {
        factor: f64,
        low_frequency_factor: f64,
        high_frequency_factor: f64,
        original_context: f64,
    },
}

impl Rope {
    /// The angle per position of each of the `head_dim / 2` pairs of a head. Pair i is made of the values i and
    /// i + `head_dim / 2`.
    pub(crate) fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        let frequency = |pair: usize| self.theta.powf(-((2 * pair) as f64) / head_dim as f64);
        (0..head_dim / 2).map(|pair| self.scaling.apply(frequency(pair)) as f32).collect()
    }
}

impl RopeScaling {
    fn apply(self, frequency: f64) -> f64 {
        match self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_context } => {
                // Turns within the original context, between the two factors: 0 is stretched, 1 is kept.
                let turns = original_context * frequency / std::f64::consts::TAU;
                let kept = (turns - low_frequency_factor) / (high_frequency_factor - low_frequency_factor);
                let kept = kept.clamp(0.0, 1.0);
                frequency * (kept + (1.0 - kept) / factor)
            }
        }
    }
}

/// The cosines and sines of `positions` (`rows * length` of them), each of shape (rows, length, pairs). Products and
/// functions are taken in f32, as in the implementations that the models were trained with.
pub(crate) fn rotations(
    frequencies: &[f32],
    positions: &[usize],
    rows: usize,
    dtype: DType,
    device: &Device,
) -> candle_core::Result<(Tensor, Tensor)> {
    let angles = positions.iter().flat_map(|position| {
        let position = *position as f32;
        frequencies.iter().map(move |frequency| position * frequency)
    });
    let (sines, cosines): (Vec<f32>, Vec<f32>) = angles.map(f32::sin_cos).unzip();
    let shape = (rows, positions.len() / rows, frequencies.len());
    let tensor = |values| Tensor::from_vec(values, shape, device)?.to_dtype(dtype);
    Ok((tensor(cosines)?, tensor(sines)?))
}
