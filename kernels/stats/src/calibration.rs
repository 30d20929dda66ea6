//! Whether a score can be read as a probability.

use crate::error::{StatsError, equal_lengths, probabilities};
use crate::ties::descending;

/// Number of equal-mass bins of the reliability table and of the expected calibration error.
pub const CALIBRATION_BINS: usize = 15;

/// Brier score: the mean squared difference of probability and outcome (Brier, Monthly Weather Review 78 (1950)
/// 1–3, in its two-class form from 0, perfect, to 1). `None` without rows.
///
/// # Errors
/// Lengths that differ, NaN scores, and scores outside 0 to 1.
pub fn brier_score(targets: &[bool], scores: &[f64]) -> Result<Option<f64>, StatsError> {
    equal_lengths(targets.len(), scores.len())?;
    probabilities(scores)?;
    if targets.is_empty() {
        return Ok(None);
    }
    let squares = targets.iter().zip(scores).map(|(&target, score)| (score - f64::from(target)).powi(2));
    Ok(Some(squares.sum::<f64>() / targets.len() as f64))
}

/// Expected calibration error over the bins of [`reliability_table`]: the mean over rows of the distance between
/// their bin's mean probability and fraction of positives (Nixon et al., CVPR Workshops 2019, there called
/// adaptive). `None` without rows.
///
/// # Errors
/// Lengths that differ, NaN scores, and scores outside 0 to 1.
pub fn expected_calibration_error(targets: &[bool], scores: &[f64]) -> Result<Option<f64>, StatsError> {
    let bins = reliability_table(targets, scores)?;
    if bins.is_empty() {
        return Ok(None);
    }
    let gaps = bins.iter().map(|bin| bin.rows as f64 * (bin.mean_score - bin.positive_fraction).abs());
    Ok(Some(gaps.sum::<f64>() / targets.len() as f64))
}

/// One bin of a reliability table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReliabilityBin {
    /// Number of rows in the bin.
    pub rows: usize,
    /// Mean probability of its rows.
    pub mean_score: f64,
    /// Fraction of its rows that are positive; not a multiple of `1/rows` where a tie spans two bins.
    pub positive_fraction: f64,
}

/// The rows in [`CALIBRATION_BINS`] bins of equal size, lowest probability first; the first bins hold one row more
/// when the rows do not divide evenly, and fewer rows than bins give one bin each.
///
/// Rows of equal probability share their outcomes evenly, so a tie that spans two bins does not depend on the
/// order of the rows.
///
/// # Errors
/// Lengths that differ, NaN scores, and scores outside 0 to 1.
pub fn reliability_table(targets: &[bool], scores: &[f64]) -> Result<Vec<ReliabilityBin>, StatsError> {
    equal_lengths(targets.len(), scores.len())?;
    probabilities(scores)?;
    let rows = shared_outcomes(targets, scores)?;
    let bins = CALIBRATION_BINS.min(rows.len());
    let mut rest = rows.as_slice();
    let mut table = Vec::with_capacity(bins);
    for bins_left in (1..=bins).rev() {
        let (bin, others) = rest.split_at(rest.len().div_ceil(bins_left));
        rest = others;
        let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / bin.len() as f64;
        table.push(ReliabilityBin {
            rows: bin.len(),
            mean_score: mean(&mut bin.iter().map(|row| row.0)),
            positive_fraction: mean(&mut bin.iter().map(|row| row.1)),
        });
    }
    Ok(table)
}

/// (score, mean outcome of the rows with that score) per row, lowest score first.
fn shared_outcomes(targets: &[bool], scores: &[f64]) -> Result<Vec<(f64, f64)>, StatsError> {
    let mut order = descending(targets.len(), scores)?;
    order.reverse();
    let mut rows = Vec::with_capacity(order.len());
    for tied in order.chunk_by(|&left, &right| scores[left] == scores[right]) {
        let positives = tied.iter().filter(|&&row| targets[row]).count();
        let outcome = positives as f64 / tied.len() as f64;
        rows.extend(tied.iter().map(|&row| (scores[row], outcome)));
    }
    Ok(rows)
}
