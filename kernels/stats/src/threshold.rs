//! Where to cut a score. Every threshold is meant for the decision `score >= threshold`.

use crate::error::{StatsError, equal_lengths, probabilities};
use crate::ties::{TiedRows, class_sizes, tied_rows};

/// The threshold that maximises Youden's J = sensitivity + specificity - 1 (Youden, Cancer 3 (1950) 32–35).
///
/// The candidates are the scores that occur. Of equal J the highest threshold wins, which calls the fewest rows
/// positive; J is compared in whole numbers, so rounding breaks no tie. This is the first maximum of
/// scikit-learn's `roc_curve` except when no threshold beats chance: the answer is then still a score that
/// occurs, not infinity.
///
/// `None` when there are no positive or no negative rows.
///
/// # Errors
/// Lengths that differ, and NaN scores.
pub fn youden_threshold(targets: &[bool], scores: &[f64]) -> Result<Option<f64>, StatsError> {
    let groups = tied_rows(targets, scores)?;
    let (positives, negatives) = class_sizes(&groups);
    if positives == 0 || negatives == 0 {
        return Ok(None);
    }
    let mut best: Option<(i128, f64)> = None;
    for (threshold, true_positives, false_positives) in cuts(&groups) {
        // J times positives times negatives.
        let j = i128::from(true_positives) * i128::from(negatives)
            - i128::from(false_positives) * i128::from(positives);
        if best.is_none_or(|(best_j, _)| j > best_j) {
            best = Some((j, threshold));
        }
    }
    Ok(best.map(|(_, threshold)| threshold))
}

/// The threshold that maximises F1 of the positive class.
///
/// The candidates are the scores that occur. Of equal F1 the highest threshold wins; F1 is compared in whole
/// numbers. `None` when there are no positive rows.
///
/// # Errors
/// Lengths that differ, and NaN scores.
pub fn f1_threshold(targets: &[bool], scores: &[f64]) -> Result<Option<f64>, StatsError> {
    let groups = tied_rows(targets, scores)?;
    let (positives, _) = class_sizes(&groups);
    if positives == 0 {
        return Ok(None);
    }
    // F1 / 2 = true positives / (positives + called positive), kept as a fraction.
    let mut best: Option<(u128, u128, f64)> = None;
    for (threshold, true_positives, false_positives) in cuts(&groups) {
        let above = u128::from(true_positives);
        let below = u128::from(positives + true_positives + false_positives);
        if best.is_none_or(|(best_above, best_below, _)| above * best_below > best_above * below) {
            best = Some((above, below, threshold));
        }
    }
    Ok(best.map(|(_, _, threshold)| threshold))
}

/// The threshold whose ROC point lies closest to the corner of perfect separation, by CT-CLIP's rule: of the 100
/// values `i/99` the one that minimises `sqrt((1 - TPR)² + FPR²)` for the decision `score > i/99`; of equal
/// distances the last.
///
/// CT-CLIP decides by `>`, this crate by `>=`: what is returned is the next number above `i/99`, which decides
/// every row alike. CT-CLIP fits this threshold on the rows that it then scores, so figures made that way are
/// optimistic. `None` when there are no positive or no negative rows.
///
/// # Errors
/// Lengths that differ, NaN scores, and scores outside 0 to 1.
pub fn closest_to_corner_threshold(targets: &[bool], scores: &[f64]) -> Result<Option<f64>, StatsError> {
    equal_lengths(targets.len(), scores.len())?;
    probabilities(scores)?;
    let groups = tied_rows(targets, scores)?;
    let (positives, negatives) = class_sizes(&groups);
    if positives == 0 || negatives == 0 {
        return Ok(None);
    }
    let mut best = (f64::INFINITY, f64::NAN);
    for value in corner_candidates() {
        let called = &groups[..groups.partition_point(|group| group.score > value)];
        let (true_positives, false_positives) = class_sizes(called);
        let misses = 1.0 - true_positives as f64 / positives as f64;
        let false_alarms = false_positives as f64 / negatives as f64;
        let distance = (misses * misses + false_alarms * false_alarms).sqrt();
        if distance <= best.0 {
            best = (distance, value.next_up());
        }
    }
    Ok(Some(best.1))
}

/// NumPy's `linspace(0, 1, 100)` to the last bit: multiples of the rounded step, with the end set to 1.
fn corner_candidates() -> impl Iterator<Item = f64> {
    const STEP: f64 = 1.0 / 99.0;
    (0..99).map(|i| f64::from(i) * STEP).chain([1.0])
}

/// Every threshold that occurs, highest first, with the true and false positives of `score >= threshold`.
fn cuts(groups: &[TiedRows]) -> impl Iterator<Item = (f64, u64, u64)> {
    groups.iter().scan((0, 0), |(true_positives, false_positives), group| {
        *true_positives += group.positives;
        *false_positives += group.negatives;
        Some((group.score, *true_positives, *false_positives))
    })
}
