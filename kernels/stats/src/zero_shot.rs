//! Diagnosis without training: an image is compared with a text that says a finding and one that says it is not there.

use crate::error::{StatsError, equal_lengths};
use crate::vectors::{Similarity, Vectors};

/// How several pairs of prompts for one finding make one probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensemble {
    /// The texts of each side are divided by their lengths and averaged before they are compared (CLIP's prompt ensemble).
    MeanVector,
    /// Each pair is compared, and the probabilities are averaged.
    MeanProbability,
}

/// A similarity and what it is multiplied by before the softmax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// How image and text are compared: CT-CLIP by the cosine, MPS-CT and GreenRFM by the dot product.
    pub similarity: Similarity,
    /// The factor: CLIP's learned `exp(temperature)` for the cosine, 1 for the dot product.
    pub scale: f64,
}

/// By image: how likely the finding is there, softmax(s₊, s₋)₊ = 1 / (1 + exp(s₋ - s₊)), where s is the scaled similarity
/// with the positive and with the negative prompt. Row i of `positive` and of `negative` are a pair.
///
/// # Errors
/// No pair, or as many positive as there are no negative prompts; texts of another dimension than the images; a vector of
/// zeros where its direction is needed; a scale or a similarity that is not finite.
pub fn zero_shot_probabilities(
    images: &Vectors,
    positive: &Vectors,
    negative: &Vectors,
    comparison: Comparison,
    ensemble: Ensemble,
) -> Result<Vec<f64>, StatsError> {
    equal_lengths(positive.len(), negative.len())?;
    let pairs = if positive.is_empty() { return Err(StatsError::NoPrompts) } else { positive.len() };
    for text in [positive, negative].into_iter().filter(|_| !images.is_empty()) {
        if text.dimension() != images.dimension() {
            let (found, expected) = (text.dimension(), images.dimension());
            return Err(StatsError::Dimension { row: 0, found, expected });
        }
    }
    let images = images.clone().prepared(comparison.similarity)?;
    let sides = match ensemble {
        Ensemble::MeanVector => [vec![mean_direction(positive)?], vec![mean_direction(negative)?]],
        Ensemble::MeanProbability => [rows(positive), rows(negative)],
    };
    let [positive, negative] = match comparison.similarity {
        Similarity::Dot => sides,
        Similarity::Cosine => [directions(&sides[0])?, directions(&sides[1])?],
    };
    let pairs = if ensemble == Ensemble::MeanVector { 1 } else { pairs };
    (0..images.len())
        .map(|image| {
            let scaled = |text: &[f64]| comparison.scale * dot(images.row(image), text);
            let differences = (0..pairs).map(|pair| scaled(&negative[pair]) - scaled(&positive[pair]));
            let sum: f64 = differences.map(|difference| 1.0 / (1.0 + difference.exp())).sum();
            let probability = sum / pairs as f64;
            if probability.is_nan() {
                Err(StatsError::SimilarityNotFinite { query: image })
            } else {
                Ok(probability)
            }
        })
        .collect()
}

fn rows(vectors: &Vectors) -> Vec<Vec<f64>> {
    (0..vectors.len()).map(|row| vectors.row(row).iter().map(|value| f64::from(*value)).collect()).collect()
}

/// Each divided by its length.
fn directions(vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>, StatsError> {
    let direction = |(row, vector): (usize, &Vec<f64>)| {
        let length = vector.iter().map(|value| value * value).sum::<f64>().sqrt();
        if length == 0.0 {
            return Err(StatsError::ZeroVector { row });
        }
        Ok(vector.iter().map(|value| value / length).collect())
    };
    vectors.iter().enumerate().map(direction).collect()
}

/// The mean of the vectors' directions.
fn mean_direction(vectors: &Vectors) -> Result<Vec<f64>, StatsError> {
    let directions = directions(&rows(vectors))?;
    let mean = |at: usize| directions.iter().map(|vector| vector[at]).sum::<f64>() / directions.len() as f64;
    Ok((0..vectors.dimension()).map(mean).collect())
}

fn dot(image: &[f32], text: &[f64]) -> f64 {
    image.iter().zip(text).map(|(image, text)| f64::from(*image) * text).sum()
}
