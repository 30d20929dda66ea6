//! The receiver operating characteristic.

use crate::error::StatsError;
use crate::ties::{class_sizes, tied_rows};

/// Area under the ROC curve: the probability that a random positive row scores higher than a random negative
/// one, ties counting one half (the Mann-Whitney statistic by midranks; Hanley and McNeil, Radiology 143 (1982)
/// 29–36).
///
/// The pairs are counted in whole numbers, so the only rounding is that of the last division. `None` when there
/// are no positive or no negative rows.
///
/// # Errors
/// Lengths that differ, and NaN scores.
pub fn roc_auc(targets: &[bool], scores: &[f64]) -> Result<Option<f64>, StatsError> {
    let groups = tied_rows(targets, scores)?;
    let (positives, negatives) = class_sizes(&groups);
    if positives == 0 || negatives == 0 {
        return Ok(None);
    }
    let mut half_wins = 0_u128;
    let mut positives_above = 0_u64;
    for group in &groups {
        let twice_above = 2 * u128::from(positives_above) + u128::from(group.positives);
        half_wins += twice_above * u128::from(group.negatives);
        positives_above += group.positives;
    }
    let pairs = u128::from(positives) * u128::from(negatives);
    Ok(Some(half_wins as f64 / (2 * pairs) as f64))
}

/// One point of a ROC curve: what calling rows with `score >= threshold` positive gets right and wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RocPoint {
    /// The threshold; infinite at the first point, where nothing is called positive.
    pub threshold: f64,
    /// Fraction of the negative rows that are called positive: 1 - specificity.
    pub false_positive_rate: f64,
    /// Fraction of the positive rows that are called positive: sensitivity.
    pub true_positive_rate: f64,
}

/// The ROC curve from (0, 0) to (1, 1): one point per distinct score, highest threshold first, after the point at
/// which nothing is called positive. Points on a straight line are kept.
///
/// `None` when there are no positive or no negative rows.
///
/// # Errors
/// Lengths that differ, and NaN scores.
pub fn roc_curve(targets: &[bool], scores: &[f64]) -> Result<Option<Vec<RocPoint>>, StatsError> {
    let groups = tied_rows(targets, scores)?;
    let (positives, negatives) = class_sizes(&groups);
    if positives == 0 || negatives == 0 {
        return Ok(None);
    }
    let mut curve =
        vec![RocPoint { threshold: f64::INFINITY, false_positive_rate: 0.0, true_positive_rate: 0.0 }];
    let (mut true_positives, mut false_positives) = (0, 0);
    for group in &groups {
        true_positives += group.positives;
        false_positives += group.negatives;
        curve.push(RocPoint {
            threshold: group.score,
            false_positive_rate: false_positives as f64 / negatives as f64,
            true_positive_rate: true_positives as f64 / positives as f64,
        });
    }
    Ok(Some(curve))
}
