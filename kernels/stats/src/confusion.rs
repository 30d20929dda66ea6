//! What a decision got right and wrong.

use crate::error::{StatsError, equal_lengths, numbers};

/// Counts of decisions against the reference standard. Every ratio is `None` where its denominator is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confusion {
    /// True positives: positive rows called positive.
    pub tp: u64,
    /// False positives: negative rows called positive.
    pub fp: u64,
    /// False negatives: positive rows called negative.
    pub fn_: u64,
    /// True negatives: negative rows called negative.
    pub tn: u64,
}

impl Confusion {
    /// Counts decisions against targets.
    ///
    /// # Errors
    /// Lengths that differ.
    pub fn of_decisions(targets: &[bool], decisions: &[bool]) -> Result<Self, StatsError> {
        equal_lengths(targets.len(), decisions.len())?;
        let mut counts = Self::default();
        for (&target, &decision) in targets.iter().zip(decisions) {
            match (target, decision) {
                (true, true) => counts.tp += 1,
                (false, true) => counts.fp += 1,
                (true, false) => counts.fn_ += 1,
                (false, false) => counts.tn += 1,
            }
        }
        Ok(counts)
    }

    /// Counts the decisions `score >= threshold` against targets.
    ///
    /// # Errors
    /// Lengths that differ, and NaN scores.
    pub fn at_threshold(targets: &[bool], scores: &[f64], threshold: f64) -> Result<Self, StatsError> {
        equal_lengths(targets.len(), scores.len())?;
        numbers(scores)?;
        let decisions: Vec<bool> = scores.iter().map(|&score| score >= threshold).collect();
        Self::of_decisions(targets, &decisions)
    }

    /// Number of positive rows.
    pub fn positives(&self) -> u64 {
        self.tp + self.fn_
    }

    /// Number of negative rows.
    pub fn negatives(&self) -> u64 {
        self.tn + self.fp
    }

    /// Number of rows.
    pub fn total(&self) -> u64 {
        self.positives() + self.negatives()
    }

    /// Sensitivity, also recall or true positive rate: the fraction of positive rows called positive.
    pub fn sensitivity(&self) -> Option<f64> {
        ratio(self.tp, self.positives())
    }

    /// Specificity: the fraction of negative rows called negative.
    pub fn specificity(&self) -> Option<f64> {
        ratio(self.tn, self.negatives())
    }

    /// Positive predictive value, also precision: the fraction of positive calls that are right.
    pub fn ppv(&self) -> Option<f64> {
        ratio(self.tp, self.tp + self.fp)
    }

    /// Negative predictive value: the fraction of negative calls that are right.
    pub fn npv(&self) -> Option<f64> {
        ratio(self.tn, self.tn + self.fn_)
    }

    /// The fraction of calls that are right.
    pub fn accuracy(&self) -> Option<f64> {
        ratio(self.tp + self.tn, self.total())
    }

    /// The mean of sensitivity and specificity, which is also the ROC AUC of hard labels.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        Some((self.sensitivity()? + self.specificity()?) / 2.0)
    }

    /// F1: the harmonic mean of precision and recall, `2·tp / (2·tp + fp + fn)`.
    ///
    /// `None` when there are no positive rows, whatever was called: recall is then undefined. With positive rows
    /// and no positive calls it is 0.
    pub fn f1(&self) -> Option<f64> {
        if self.positives() == 0 {
            return None;
        }
        ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn_)
    }

    /// The mean of the F1 of the positive and of the negative class, weighted by their numbers of rows
    /// (scikit-learn's `average="weighted"`, which published CT-CLIP scores use). Much higher than `f1` when
    /// positive rows are rare. A class without rows has no weight.
    pub fn weighted_f1(&self) -> Option<f64> {
        let negative_class = Self { tp: self.tn, fp: self.fn_, fn_: self.fp, tn: self.tp };
        let weighted = |class: &Self| class.f1().map(|f1| f1 * class.positives() as f64);
        let sum = match (weighted(self), weighted(&negative_class)) {
            (Some(positive), Some(negative)) => positive + negative,
            (Some(sum), None) | (None, Some(sum)) => sum,
            (None, None) => return None,
        };
        Some(sum / self.total() as f64)
    }

    /// Matthews correlation coefficient (Matthews, Biochimica et Biophysica Acta 405 (1975) 442–451).
    ///
    /// `None` when a class or a call never occurs.
    pub fn mcc(&self) -> Option<f64> {
        let margins = [self.positives(), self.negatives(), self.tp + self.fp, self.tn + self.fn_];
        if margins.contains(&0) {
            return None;
        }
        let determinant =
            i128::from(self.tp) * i128::from(self.tn) - i128::from(self.fp) * i128::from(self.fn_);
        // The product of the roots, because the product of four counts can pass the range of whole numbers.
        let scale: f64 = margins.iter().map(|&margin| (margin as f64).sqrt()).product();
        Some(determinant as f64 / scale)
    }

    /// Cohen's kappa: agreement beyond chance (Cohen, Educational and Psychological Measurement 20 (1960) 37–46).
    ///
    /// `None` when chance alone agrees always: all rows in one class and all calls alike.
    pub fn kappa(&self) -> Option<f64> {
        let [tp, fp, fn_, tn] = [self.tp, self.fp, self.fn_, self.tn].map(i128::from);
        let chance_disagreement = (tp + fp) * (fp + tn) + (tp + fn_) * (fn_ + tn);
        if chance_disagreement == 0 {
            return None;
        }
        Some((2 * (tp * tn - fp * fn_)) as f64 / chance_disagreement as f64)
    }
}

/// A fraction of counts, undefined when there is nothing to take it of.
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
