//! How an operator that measures labels finds their truth, and what two versions of labels are worth by it.

use arrow::array::RecordBatch;
use serde::Serialize;

/// Where an operator that measures labels finds their truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truth {
    /// The port of the true labels.
    pub port: &'static str,
    /// The port of the split, and the part that is measured: its rows are for the final score, and nobody may choose
    /// by them.
    pub held_out: Option<(&'static str, String)>,
}

/// Two versions of the labels of the same rows, and the truth about some of them.
#[derive(Debug, Clone, Copy)]
pub struct Versions<'a> {
    /// The labels as they are; none where there are none yet.
    pub before: Option<&'a RecordBatch>,
    /// The labels as they would be.
    pub after: &'a RecordBatch,
    /// The true labels.
    pub truth: &'a RecordBatch,
    /// The id column by which labels find their truth.
    pub on: &'a str,
}

/// What a measure of labels is, before and after. What the rows do not define is none, never 0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// The finding; `macro` for the mean over findings.
    pub finding: String,
    /// The measure: `f1`.
    pub measure: &'static str,
    /// Labels with a known truth that the measure after speaks of.
    pub n: u64,
    /// Those of them whose truth is yes.
    pub positives: u64,
    /// The measure of the labels as they are, on the labels that both versions decide; the difference is on the same.
    pub before: Option<f64>,
    /// The measure of the labels as they would be.
    pub after: Option<f64>,
    /// Its 95% interval, by draws of whole reports.
    pub after_low: Option<f64>,
    /// The upper bound.
    pub after_high: Option<f64>,
    /// The difference, after less before, on the labels that both versions decide.
    pub difference: Option<f64>,
    /// Its 95% interval, by paired draws of whole reports.
    pub low: Option<f64>,
    /// The upper bound.
    pub high: Option<f64>,
    /// McNemar's mid-p value of the two versions; none for a mean.
    pub p_value: Option<f64>,
}
