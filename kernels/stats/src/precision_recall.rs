//! The precision-recall curve's summary.

use crate::error::StatsError;
use crate::ties::{class_sizes, tied_rows};

/// Average precision: the sum over distinct scores, highest first, of precision times the gain in recall, without
/// interpolation (the definition of scikit-learn's `average_precision_score`).
///
/// `None` when there are no positive rows.
///
/// # Errors
/// Lengths that differ, and NaN scores.
pub fn average_precision(targets: &[bool], scores: &[f64]) -> Result<Option<f64>, StatsError> {
    let groups = tied_rows(targets, scores)?;
    let (positives, _) = class_sizes(&groups);
    if positives == 0 {
        return Ok(None);
    }
    let (mut true_positives, mut called) = (0, 0);
    let mut sum = 0.0;
    for group in &groups {
        true_positives += group.positives;
        called += group.positives + group.negatives;
        sum += group.positives as f64 * (true_positives as f64 / called as f64);
    }
    Ok(Some(sum / positives as f64))
}
