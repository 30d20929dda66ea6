//! Rows of equal score, which no threshold can part: the common ground of every curve and threshold.

use crate::error::{StatsError, equal_lengths, numbers};

/// The rows that share one score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TiedRows {
    /// Their score.
    pub(crate) score: f64,
    /// How many of them are positive.
    pub(crate) positives: u64,
    /// How many of them are negative.
    pub(crate) negatives: u64,
}

/// The rows grouped by score, highest score first. -0 and 0 are one score.
pub(crate) fn tied_rows(targets: &[bool], scores: &[f64]) -> Result<Vec<TiedRows>, StatsError> {
    let mut groups: Vec<TiedRows> = Vec::new();
    for row in descending(targets.len(), scores)? {
        let (positives, negatives) = (u64::from(targets[row]), u64::from(!targets[row]));
        match groups.last_mut() {
            Some(group) if group.score == scores[row] => {
                group.positives += positives;
                group.negatives += negatives;
            }
            _ => groups.push(TiedRows { score: scores[row], positives, negatives }),
        }
    }
    Ok(groups)
}

/// Row indices, highest score first.
pub(crate) fn descending(rows: usize, scores: &[f64]) -> Result<Vec<usize>, StatsError> {
    equal_lengths(rows, scores.len())?;
    numbers(scores)?;
    let mut order: Vec<usize> = (0..rows).collect();
    order.sort_by(|&left, &right| scores[right].total_cmp(&scores[left]));
    Ok(order)
}

/// Numbers of positive and negative rows.
pub(crate) fn class_sizes(groups: &[TiedRows]) -> (u64, u64) {
    groups.iter().fold((0, 0), |(positives, negatives), group| {
        (positives + group.positives, negatives + group.negatives)
    })
}
