//! The precision-recall curve's summary.

use crate::error::StatsError;
use crate::ties::{TiedRows, class_sizes, tied_rows};

/// Average precision: the sum over distinct scores, highest first, of precision times the gain in recall, without
/// interpolation (the definition of scikit-learn's `average_precision_score`).
///
/// `None` when there are no positive rows.
///
/// # Errors
/// Lengths that differ, and NaN scores.
pub fn average_precision(targets: &[bool], scores: &[f64]) -> Result<Option<f64>, StatsError> {
    Ok(average_precision_of(&tied_rows(targets, scores)?))
}

/// Average precision of rows that are grouped by score, highest score first.
pub(crate) fn average_precision_of(groups: &[TiedRows]) -> Option<f64> {
    let (positives, _) = class_sizes(groups);
    if positives == 0 {
        return None;
    }
    let (mut true_positives, mut called) = (0, 0);
    let mut sum = 0.0;
    for group in groups {
        true_positives += group.positives;
        called += group.positives + group.negatives;
        sum += group.positives as f64 * (true_positives as f64 / called as f64);
    }
    Some(sum / positives as f64)
}
