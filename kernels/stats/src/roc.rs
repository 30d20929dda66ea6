//! The receiver operating characteristic.

use crate::error::StatsError;
use crate::ties::{TiedRows, class_sizes, tied_rows};

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
    Ok(auc_of(&tied_rows(targets, scores)?))
}

/// The area under the ROC curve of rows that are grouped by score, highest score first.
pub(crate) fn auc_of(groups: &[TiedRows]) -> Option<f64> {
    let (positives, negatives) = class_sizes(groups);
    if positives == 0 || negatives == 0 {
        return None;
    }
    let mut half_wins = 0_u128;
    let mut positives_above = 0_u64;
    for group in groups {
        let twice_above = 2 * u128::from(positives_above) + u128::from(group.positives);
        half_wins += twice_above * u128::from(group.negatives);
        positives_above += group.positives;
    }
    let pairs = u128::from(positives) * u128::from(negatives);
    Some(half_wins as f64 / (2 * pairs) as f64)
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

/// The points at which the ROC curve turns, with its first and its last: [`roc_curve`] without those that lie on a
/// straight line between their neighbours, compared in whole numbers. It is the same curve.
///
/// `None` when there are no positive or no negative rows.
///
/// # Errors
/// Lengths that differ, and NaN scores.
pub fn roc_vertices(targets: &[bool], scores: &[f64]) -> Result<Option<Vec<RocPoint>>, StatsError> {
    let groups = tied_rows(targets, scores)?;
    let curve = roc_curve(targets, scores)?;
    // From one point to the next the curve runs along the classes of one group.
    let turns = |point: usize| match groups.get(point) {
        Some(next) if point > 0 => {
            let group = &groups[point - 1];
            u128::from(group.positives) * u128::from(next.negatives)
                != u128::from(next.positives) * u128::from(group.negatives)
        }
        _ => true,
    };
    let vertices = |curve: Vec<RocPoint>| {
        curve.into_iter().enumerate().filter(|(point, _)| turns(*point)).map(|(_, point)| point).collect()
    };
    Ok(curve.map(vertices))
}
