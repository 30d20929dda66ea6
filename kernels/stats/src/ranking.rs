//! Rows in the order of their scores, for measures of many draws: they are sorted once, and a draw is counted.

use crate::confusion::Confusion;
use crate::error::StatsError;
use crate::precision_recall::average_precision_of;
use crate::roc::auc_of;
use crate::ties::{TiedRows, class_sizes, tied_rows};

/// Rows in the order of their scores.
#[derive(Clone, Debug)]
pub struct Ranking {
    targets: Vec<bool>,
    /// The rows of equal score, the highest score first.
    groups: Vec<TiedRows>,
    /// By row: its group.
    group_of: Vec<usize>,
}

impl Ranking {
    /// Sorts rows.
    ///
    /// # Errors
    /// Lengths that differ, and NaN scores.
    pub fn new(targets: &[bool], scores: &[f64]) -> Result<Self, StatsError> {
        let groups = tied_rows(targets, scores)?;
        let group = |score: &f64| groups.partition_point(|group| group.score > *score);
        let group_of = scores.iter().map(group).collect();
        Ok(Self { targets: targets.to_vec(), groups, group_of })
    }

    /// Each row once.
    pub fn all(&self) -> DrawnRanking {
        DrawnRanking { groups: self.groups.clone() }
    }

    /// These rows; one that is drawn twice counts twice.
    pub fn draw(&self, rows: impl IntoIterator<Item = usize>) -> DrawnRanking {
        let empty = |group: &TiedRows| TiedRows { positives: 0, negatives: 0, ..*group };
        let mut groups: Vec<TiedRows> = self.groups.iter().map(empty).collect();
        for row in rows {
            let group = &mut groups[self.group_of[row]];
            group.positives += u64::from(self.targets[row]);
            group.negatives += u64::from(!self.targets[row]);
        }
        groups.retain(|group| group.positives + group.negatives > 0);
        DrawnRanking { groups }
    }
}

/// Rows of a [`Ranking`], each as often as it was drawn.
#[derive(Clone, Debug)]
pub struct DrawnRanking {
    groups: Vec<TiedRows>,
}

impl DrawnRanking {
    /// How many positive rows were drawn.
    pub fn positives(&self) -> u64 {
        class_sizes(&self.groups).0
    }

    /// As [`roc_auc`](crate::roc_auc).
    pub fn roc_auc(&self) -> Option<f64> {
        auc_of(&self.groups)
    }

    /// As [`average_precision`](crate::average_precision).
    pub fn average_precision(&self) -> Option<f64> {
        average_precision_of(&self.groups)
    }

    /// As [`Confusion::at_threshold`].
    pub fn at_threshold(&self, threshold: f64) -> Confusion {
        let mut counts = Confusion::default();
        for group in &self.groups {
            if group.score >= threshold {
                counts.tp += group.positives;
                counts.fp += group.negatives;
            } else {
                counts.fn_ += group.positives;
                counts.tn += group.negatives;
            }
        }
        counts
    }
}
