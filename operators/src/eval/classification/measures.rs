//! The measures of one finding.

use std::sync::Arc;

use argent_engine::column;
use argent_stats::{
    Bootstrap as Drawn, Confusion, Interval, auc_interval_delong, cluster_bootstrap_each, wilson,
};
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, SchemaRef};

use super::rows::Measured;
use super::{Bootstrap, EvalClassification, Threshold};
use crate::eval::cohort::{LEVEL, cohort_digest};

/// What the column `compat` says of a threshold that was fitted where it is measured.
const COMPAT: &str = "threshold_fitted_on_measured_part";

/// One finding's measures.
pub(super) struct Score {
    pub(super) finding: String,
    n: i64,
    positives: i64,
    excluded: i64,
    groups: i64,
    pub(super) auc: Option<f64>,
    pub(super) auc_interval: Option<Interval>,
    auc_bootstrap: Option<Interval>,
    average_precision: Option<f64>,
    threshold: Option<f64>,
    decided: Option<Confusion>,
    f1_interval: Option<Interval>,
    sensitivity_interval: Option<Interval>,
    specificity_interval: Option<Interval>,
    cohort_digest: String,
}

impl Score {
    /// Measures a finding.
    pub(super) fn new(measured: &Measured, bootstrap: Bootstrap) -> anyhow::Result<Score> {
        let (targets, scores) = measured.columns();
        let all = measured.ranking.all();
        let decided = measured.threshold.map(|threshold| all.at_threshold(threshold));
        let drawn = |rows: &[usize]| {
            let drawn = measured.ranking.draw(rows.iter().copied());
            vec![drawn.roc_auc(), measured.threshold.and_then(|t| drawn.at_threshold(t).f1())]
        };
        let Bootstrap { draws, seed } = bootstrap;
        let drawn = cluster_bootstrap_each(&measured.clusters, draws, seed, LEVEL, 2, drawn)?;
        let (sensitivity_interval, specificity_interval) = match &decided {
            Some(c) => (wilson(c.tp, c.positives(), LEVEL)?, wilson(c.tn, c.negatives(), LEVEL)?),
            None => (None, None),
        };
        Ok(Score {
            finding: measured.finding.clone(),
            n: measured.rows.len() as i64,
            positives: targets.iter().filter(|t| **t).count() as i64,
            excluded: measured.excluded,
            groups: measured.clusters.iter().max().map_or(0, |last| i64::from(*last) + 1),
            auc: all.roc_auc(),
            auc_interval: auc_interval_delong(&targets, &scores, LEVEL)?,
            auc_bootstrap: telling(drawn[0]),
            average_precision: all.average_precision(),
            threshold: measured.threshold,
            decided,
            f1_interval: drawn[1].map(|drawn| drawn.interval),
            sensitivity_interval,
            specificity_interval,
            cohort_digest: cohort_digest(measured.rows.iter().map(|r| r.id.as_str())),
        })
    }

    fn of(&self, measure: fn(&Confusion) -> Option<f64>) -> Option<f64> {
        self.decided.as_ref().and_then(measure)
    }
}

/// An interval of no width would claim certainty, where every draw merely separates the classes.
fn telling(drawn: Option<Drawn>) -> Option<Interval> {
    drawn.map(|drawn| drawn.interval).filter(|interval| interval.low < interval.high)
}

/// Where a score has a number.
type Number = fn(&Score) -> Option<f64>;

/// The columns that hold a number, and where a score has it.
const NUMBERS: [(&str, Number); 22] = [
    ("auc", |s| s.auc),
    ("auc_low", |s| s.auc_interval.map(|i| i.low)),
    ("auc_high", |s| s.auc_interval.map(|i| i.high)),
    ("auc_bootstrap_low", |s| s.auc_bootstrap.map(|i| i.low)),
    ("auc_bootstrap_high", |s| s.auc_bootstrap.map(|i| i.high)),
    ("average_precision", |s| s.average_precision),
    ("threshold", |s| s.threshold),
    ("f1", |s| s.of(Confusion::f1)),
    ("f1_low", |s| s.f1_interval.map(|i| i.low)),
    ("f1_high", |s| s.f1_interval.map(|i| i.high)),
    ("weighted_f1", |s| s.of(Confusion::weighted_f1)),
    ("sensitivity", |s| s.of(Confusion::sensitivity)),
    ("sensitivity_low", |s| s.sensitivity_interval.map(|i| i.low)),
    ("sensitivity_high", |s| s.sensitivity_interval.map(|i| i.high)),
    ("specificity", |s| s.of(Confusion::specificity)),
    ("specificity_low", |s| s.specificity_interval.map(|i| i.low)),
    ("specificity_high", |s| s.specificity_interval.map(|i| i.high)),
    ("ppv", |s| s.of(Confusion::ppv)),
    ("npv", |s| s.of(Confusion::npv)),
    ("accuracy", |s| s.of(Confusion::accuracy)),
    ("balanced_accuracy", |s| s.of(Confusion::balanced_accuracy)),
    ("mcc", |s| s.of(Confusion::mcc)),
];

/// The columns of the main table.
pub(super) fn fields() -> Vec<Field> {
    let mut fields = vec![column::text("finding")];
    fields.extend(["n", "positives", "excluded", "groups"].map(column::whole));
    fields.extend(NUMBERS.map(|(name, _)| column::number(name)));
    fields.extend(["threshold_rule", "threshold_part", "compat", "truth", "cohort_digest"].map(column::text));
    fields
}

/// The main table, a row per finding.
pub(super) fn batch(
    schema: SchemaRef,
    scores: &[Score],
    parameters: &EvalClassification,
) -> anyhow::Result<RecordBatch> {
    let text =
        |f: fn(&Score) -> &str| Arc::new(StringArray::from_iter_values(scores.iter().map(f))) as ArrayRef;
    let whole =
        |f: fn(&Score) -> i64| Arc::new(Int64Array::from_iter_values(scores.iter().map(f))) as ArrayRef;
    let same = |word: Option<&str>| Arc::new(StringArray::from(vec![word; scores.len()])) as ArrayRef;
    let (rule, part, compat) = match &parameters.threshold {
        Threshold::Number(_) => ("fixed", None, None),
        Threshold::Fitted(fitted) => {
            (fitted.rule.name(), Some(fitted.part.as_str()), fitted.compat.then_some(COMPAT))
        }
    };
    let mut columns = vec![
        text(|s| &s.finding),
        whole(|s| s.n),
        whole(|s| s.positives),
        whole(|s| s.excluded),
        whole(|s| s.groups),
    ];
    for (_, number) in NUMBERS {
        columns.push(Arc::new(scores.iter().map(number).collect::<Float64Array>()));
    }
    columns.extend([same(Some(rule)), same(part), same(compat), same(Some(&parameters.truth))]);
    columns.push(text(|s| &s.cohort_digest));
    Ok(RecordBatch::try_new(schema, columns)?)
}
