//! How sure a ROC AUC is, and whether two AUCs on the same rows differ.
//!
//! DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837–845, with the placements counted by sorting (Sun
//! and Xu, IEEE Signal Processing Letters 21 (2014) 1389–1393) in O(n log n).

use crate::error::StatsError;
use crate::interval::{Interval, standard_errors};
use crate::normal::normal_two_sided_p;
use crate::roc::roc_auc;
use crate::ties::descending;

/// Confidence interval of a ROC AUC: DeLong's variance on the logit scale, back-transformed.
///
/// The logit keeps both bounds inside 0 to 1 and covers better than the plain interval when the AUC is high or
/// the classes are small (Qin and Hotilovac, Statistical Methods in Medical Research 17 (2008) 207–221). With
/// `s` the standard error, the bounds are `expit(logit(auc) ± z·s/(auc·(1-auc)))`. The plain interval of other
/// programs is `auc ± z·s`; the two agree when `s` is small.
///
/// `level` is the coverage as a fraction, such as 0.95. `None` when a class has fewer than two rows, and when the
/// estimated variance is 0 (complete separation, or all scores equal): the method then knows nothing about the
/// uncertainty, and an interval of no width would claim certainty.
///
/// # Errors
/// Lengths that differ, NaN scores, and a level outside 0 to 1.
pub fn auc_interval_delong(
    targets: &[bool],
    scores: &[f64],
    level: f64,
) -> Result<Option<Interval>, StatsError> {
    let z = standard_errors(level)?;
    let placements = placements(targets, scores)?;
    let (Some(auc), Some(variance)) = (roc_auc(targets, scores)?, placement_variance(targets, &placements))
    else {
        return Ok(None);
    };
    if variance == 0.0 {
        return Ok(None);
    }
    let logit = (auc / (1.0 - auc)).ln();
    let half_width = z * variance.sqrt() / (auc * (1.0 - auc));
    Ok(Some(Interval { low: expit(logit - half_width), high: expit(logit + half_width), level }))
}

/// The outcome of DeLong's test for two AUCs on the same rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DelongTest {
    /// AUC of the first scores.
    pub auc_a: f64,
    /// AUC of the second scores.
    pub auc_b: f64,
    /// `auc_a - auc_b`.
    pub difference: f64,
    /// Standard error of the difference, which counts the correlation of the two scores.
    pub standard_error: f64,
    /// `difference / standard_error`, standard normal if the AUCs are equal.
    pub z: f64,
    /// Two-sided p-value.
    pub p_value: f64,
}

/// DeLong's test of whether two scores of the same rows have the same ROC AUC.
///
/// `None` when a class has fewer than two rows, and when the estimated variance of the difference is 0 (such as
/// two scores that order the rows alike): there is then nothing to divide by.
///
/// # Errors
/// Lengths that differ, and NaN scores.
pub fn delong_test(
    targets: &[bool],
    scores_a: &[f64],
    scores_b: &[f64],
) -> Result<Option<DelongTest>, StatsError> {
    let placements_a = placements(targets, scores_a)?;
    let placements_b = placements(targets, scores_b)?;
    let differences: Vec<i64> = placements_a.iter().zip(&placements_b).map(|(a, b)| a - b).collect();
    let (Some(auc_a), Some(auc_b), Some(variance)) =
        (roc_auc(targets, scores_a)?, roc_auc(targets, scores_b)?, placement_variance(targets, &differences))
    else {
        return Ok(None);
    };
    if variance == 0.0 {
        return Ok(None);
    }
    let difference = auc_a - auc_b;
    let standard_error = variance.sqrt();
    let z = difference / standard_error;
    Ok(Some(DelongTest { auc_a, auc_b, difference, standard_error, z, p_value: normal_two_sided_p(z) }))
}

/// For each row, twice the number of rows of the other class that it is on the right side of, a tie counting one
/// half. Divided by twice the size of the other class these are DeLong's structural components; kept whole, the
/// variance below is exact and a variance of 0 is 0.
fn placements(targets: &[bool], scores: &[f64]) -> Result<Vec<i64>, StatsError> {
    let order = descending(targets.len(), scores)?;
    let negatives = targets.iter().filter(|&&target| !target).count() as i64;
    let mut placements = vec![0; targets.len()];
    let (mut positives_above, mut negatives_above) = (0, 0);
    for tied in order.chunk_by(|&left, &right| scores[left] == scores[right]) {
        let tied_positives = tied.iter().filter(|&&row| targets[row]).count() as i64;
        let tied_negatives = tied.len() as i64 - tied_positives;
        for &row in tied {
            placements[row] = if targets[row] {
                2 * (negatives - negatives_above - tied_negatives) + tied_negatives
            } else {
                2 * positives_above + tied_positives
            };
        }
        positives_above += tied_positives;
        negatives_above += tied_negatives;
    }
    Ok(placements)
}

/// The variance of the AUC (or difference of AUCs) from placements (or their differences): the sample variance of
/// the components over the positives, divided by their number, plus the same over the negatives.
fn placement_variance(targets: &[bool], placements: &[i64]) -> Option<f64> {
    let of_class = |class: bool| targets.iter().zip(placements).filter(move |(target, _)| **target == class);
    let class_size = |class| of_class(class).count() as i128;
    let (positives, negatives) = (class_size(true), class_size(false));
    if positives < 2 || negatives < 2 {
        return None;
    }
    let mean_variance = |class, size: i128, other_size: i128| {
        let (sum, squares) = of_class(class).fold((0_i128, 0_i128), |(sum, squares), (_, &placement)| {
            let placement = i128::from(placement);
            (sum + placement, squares + placement * placement)
        });
        // size² times the variance of twice-counted placements, exact in whole numbers.
        let scaled = (size * squares - sum * sum) as f64;
        let (size, other_size) = (size as f64, other_size as f64);
        scaled / (size * size * (size - 1.0)) / (4.0 * other_size * other_size)
    };
    Some(mean_variance(true, positives, negatives) + mean_variance(false, negatives, positives))
}

/// The inverse of the logit.
fn expit(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
