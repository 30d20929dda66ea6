//! The measures of one labeling: per finding, on average, and as a table of states.

use std::collections::BTreeMap;
use std::sync::Arc;

use argent_engine::column;
use argent_stats::{Confusion, Interval, auc_interval_delong, cohen_kappa, roc_auc, wilson};
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, SchemaRef};

use super::Draws;
use super::cases::{Case, Cases};
use crate::eval::cohort::{LEVEL, cohort_digest};

/// A measure of decisions.
pub(crate) type Measure = fn(&Confusion) -> Option<f64>;

/// The measures that are averaged over findings.
pub(crate) const AVERAGED: [(&str, Measure); 9] = [
    ("f1", Confusion::f1),
    ("sensitivity", Confusion::sensitivity),
    ("specificity", Confusion::specificity),
    ("ppv", Confusion::ppv),
    ("npv", Confusion::npv),
    ("accuracy", Confusion::accuracy),
    ("mcc", Confusion::mcc),
    ("kappa", Confusion::kappa),
    ("ac1", Confusion::ac1),
];

/// One finding's measures.
pub(crate) struct Score {
    finding: String,
    pub(crate) n: i64,
    positives: i64,
    excluded: i64,
    pub(crate) failed: i64,
    missing: i64,
    /// By name of the column, in the order of [`NUMBERS`].
    pub(crate) numbers: Vec<Option<f64>>,
    cohort_digest: String,
    pub(crate) decisions: Confusion,
}

/// The columns of numbers.
const NUMBERS: [&str; 23] = [
    "auc",
    "auc_low",
    "auc_high",
    "f1",
    "f1_low",
    "f1_high",
    "sensitivity",
    "sensitivity_low",
    "sensitivity_high",
    "specificity",
    "specificity_low",
    "specificity_high",
    "ppv",
    "ppv_low",
    "ppv_high",
    "npv",
    "npv_low",
    "npv_high",
    "accuracy",
    "mcc",
    "kappa",
    "kappa_low",
    "kappa_high",
];

pub(crate) fn fields() -> Vec<Field> {
    let whole = ["n", "positives", "excluded", "failed", "missing"].map(column::whole);
    let numbers = NUMBERS.into_iter().chain(["kappa_standard_error", "ac1"]).map(column::number);
    std::iter::once(column::text("finding"))
        .chain(whole)
        .chain(numbers)
        .chain([column::text("cohort_digest")])
        .collect()
}

pub(crate) fn summary_fields() -> Vec<Field> {
    let numbers = ["value", "low", "high"].map(column::number);
    let texts = ["average", "measure"].map(column::text);
    texts.into_iter().chain(numbers).chain(["findings", "undefined"].map(column::whole)).collect()
}

pub(crate) fn confusion_fields() -> Vec<Field> {
    let texts = ["finding", "truth_state", "state"].map(column::text);
    texts.into_iter().chain([column::whole("n")]).collect()
}

/// Each finding's measures.
pub(crate) fn scores(cases: &Cases, draws: &Draws) -> anyhow::Result<Vec<Score>> {
    let mut by_finding: Vec<Vec<&Case>> = vec![Vec::new(); cases.findings.len()];
    for case in &cases.rows {
        by_finding[case.finding].push(case);
    }
    by_finding.iter().enumerate().map(|(place, rows)| score(cases, place, rows, draws)).collect()
}

fn score(cases: &Cases, place: usize, all: &[&Case], draws: &Draws) -> anyhow::Result<Score> {
    let rows: Vec<(&Case, bool, bool)> = all
        .iter()
        .filter_map(|case| case.decided().map(|(target, decision)| (*case, target, decision)))
        .collect();
    let clusters: Vec<u32> = rows.iter().map(|(case, ..)| case.cluster).collect();
    let drawn = |drawn: &[usize]| counted(drawn.iter().map(|row| (rows[*row].1, rows[*row].2)));
    let decisions = counted(rows.iter().map(|(_, target, decision)| (*target, *decision)));
    let f1 = draws.interval(&clusters, |rows| drawn(rows).f1())?.map(|b| b.interval);
    let kappa = draws.interval(&clusters, |rows| drawn(rows).kappa())?.map(|b| b.interval);
    let asymptotic = cohen_kappa(&decisions.table(), LEVEL)?;
    let (auc, auc_interval) = auc(&rows)?;
    let Confusion { tp, fp, fn_, tn } = decisions;
    let mut numbers = with_interval(auc, auc_interval);
    numbers.extend(with_interval(decisions.f1(), f1));
    numbers.extend(with_interval(decisions.sensitivity(), wilson(tp, tp + fn_, LEVEL)?));
    numbers.extend(with_interval(decisions.specificity(), wilson(tn, tn + fp, LEVEL)?));
    numbers.extend(with_interval(decisions.ppv(), wilson(tp, tp + fp, LEVEL)?));
    numbers.extend(with_interval(decisions.npv(), wilson(tn, tn + fn_, LEVEL)?));
    numbers.extend([decisions.accuracy(), decisions.mcc()]);
    numbers.extend(with_interval(decisions.kappa(), kappa));
    numbers.extend([asymptotic.map(|kappa| kappa.standard_error), decisions.ac1()]);
    let failed = all.iter().filter(|case| case.label.state == "failed").count();
    Ok(Score {
        finding: cases.findings[place].clone(),
        n: rows.len() as i64,
        positives: decisions.positives() as i64,
        excluded: (all.len() - rows.len() - failed) as i64,
        failed: failed as i64,
        missing: cases.missing[place],
        numbers,
        cohort_digest: cohort_digest(rows.iter().map(|(case, ..)| case.id.as_str())),
        decisions,
    })
}

/// The ROC AUC of the scores with its interval; none where a label has none, because the others are a selection.
fn auc(rows: &[(&Case, bool, bool)]) -> anyhow::Result<(Option<f64>, Option<Interval>)> {
    let scores: Option<Vec<f64>> = rows.iter().map(|(case, ..)| case.label.score).collect();
    let Some(scores) = scores else { return Ok((None, None)) };
    let targets: Vec<bool> = rows.iter().map(|(_, target, _)| *target).collect();
    Ok((roc_auc(&targets, &scores)?, auc_interval_delong(&targets, &scores, LEVEL)?))
}

fn with_interval(value: Option<f64>, interval: Option<Interval>) -> Vec<Option<f64>> {
    vec![value, interval.map(|i| i.low), interval.map(|i| i.high)]
}

/// The counts of truths and decisions.
pub(crate) fn counted(rows: impl IntoIterator<Item = (bool, bool)>) -> Confusion {
    let mut counts = Confusion::default();
    for (target, decision) in rows {
        match (target, decision) {
            (true, true) => counts.tp += 1,
            (false, true) => counts.fp += 1,
            (true, false) => counts.fn_ += 1,
            (false, false) => counts.tn += 1,
        }
    }
    counts
}

pub(crate) fn batch(schema: SchemaRef, scores: &[Score]) -> anyhow::Result<RecordBatch> {
    let whole =
        |f: fn(&Score) -> i64| Arc::new(Int64Array::from_iter_values(scores.iter().map(f))) as ArrayRef;
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from_iter_values(scores.iter().map(|s| &s.finding)))];
    columns.extend([
        whole(|s| s.n),
        whole(|s| s.positives),
        whole(|s| s.excluded),
        whole(|s| s.failed),
        whole(|s| s.missing),
    ]);
    let numbers = (0..NUMBERS.len() + 2)
        .map(|at| Arc::new(scores.iter().map(|s| s.numbers[at]).collect::<Float64Array>()) as ArrayRef);
    columns.extend(numbers);
    columns.push(Arc::new(StringArray::from_iter_values(scores.iter().map(|s| &s.cohort_digest))));
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// The rows of all findings as one list, so that a draw of groups is the same for each.
pub(crate) struct Joint {
    pub(crate) clusters: Vec<u32>,
    /// Finding, truth, decision.
    rows: Vec<(usize, bool, bool)>,
    findings: usize,
}

impl Joint {
    pub(crate) fn new(findings: usize, rows: impl IntoIterator<Item = (u32, usize, bool, bool)>) -> Joint {
        let (clusters, rows) =
            rows.into_iter().map(|(c, f, target, decision)| (c, (f, target, decision))).unzip();
        Joint { clusters, rows, findings }
    }

    /// All rows' places.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.rows.len()).collect()
    }

    /// The mean of a measure over the findings on which these rows define it.
    pub(crate) fn macro_average(&self, measure: Measure, rows: &[usize]) -> Option<f64> {
        let mut counts = vec![Confusion::default(); self.findings];
        for row in rows {
            let (finding, target, decision) = self.rows[*row];
            let counts = &mut counts[finding];
            match (target, decision) {
                (true, true) => counts.tp += 1,
                (false, true) => counts.fp += 1,
                (true, false) => counts.fn_ += 1,
                (false, false) => counts.tn += 1,
            }
        }
        let values: Vec<f64> = counts.iter().filter_map(measure).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }

    /// F1 over the cells of all findings.
    pub(crate) fn micro_f1(&self, rows: &[usize]) -> Option<f64> {
        counted(rows.iter().map(|row| (self.rows[*row].1, self.rows[*row].2))).f1()
    }
}

/// The rows of the findings whose ROC AUC is defined.
struct Scored {
    clusters: Vec<u32>,
    /// Finding, truth, score.
    rows: Vec<(usize, bool, f64)>,
    findings: usize,
}

impl Scored {
    fn new(cases: &Cases, scores: &[Score]) -> Scored {
        let mut place = vec![None; scores.len()];
        let mut findings = 0;
        for (finding, _) in scores.iter().enumerate().filter(|(_, score)| score.numbers[0].is_some()) {
            place[finding] = Some(findings);
            findings += 1;
        }
        let scored = cases.rows.iter().filter_map(|case| {
            let (target, _) = case.decided()?;
            Some((case.cluster, (place[case.finding]?, target, case.label.score?)))
        });
        let (clusters, rows) = scored.unzip();
        Scored { clusters, rows, findings }
    }

    /// The mean over the findings on which these rows define it.
    fn macro_auc(&self, rows: &[usize]) -> Option<f64> {
        let mut by_finding = vec![(Vec::new(), Vec::new()); self.findings];
        for row in rows {
            let (finding, target, score) = self.rows[*row];
            by_finding[finding].0.push(target);
            by_finding[finding].1.push(score);
        }
        let values: Vec<f64> =
            by_finding.iter().filter_map(|(targets, scores)| roc_auc(targets, scores).ok()?).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }
}

/// Averages over findings, with intervals over groups.
pub(crate) fn summary(
    schema: SchemaRef,
    cases: &Cases,
    scores: &[Score],
    draws: &Draws,
) -> anyhow::Result<RecordBatch> {
    let decided = cases.rows.iter().filter_map(|case| {
        case.decided().map(|(target, decision)| (case.cluster, case.finding, target, decision))
    });
    let joint = Joint::new(cases.findings.len(), decided);
    let all = joint.all();
    let mut lines = Vec::new();
    for (name, measure) in AVERAGED {
        let interval = draws.interval(&joint.clusters, |rows| joint.macro_average(measure, rows))?;
        let defined = scores.iter().filter(|score| measure(&score.decisions).is_some()).count();
        lines.push(("macro", name, joint.macro_average(measure, &all), interval, defined));
    }
    let scored = Scored::new(cases, scores);
    let all_scored: Vec<usize> = (0..scored.rows.len()).collect();
    let interval = draws.interval(&scored.clusters, |rows| scored.macro_auc(rows))?;
    lines.push(("macro", "auc", scored.macro_auc(&all_scored), interval, scored.findings));
    let interval = draws.interval(&joint.clusters, |rows| joint.micro_f1(rows))?;
    lines.push(("micro", "f1", joint.micro_f1(&all), interval, scores.len()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(lines.iter().map(|l| l.0))),
        Arc::new(StringArray::from_iter_values(lines.iter().map(|l| l.1))),
        Arc::new(lines.iter().map(|l| l.2).collect::<Float64Array>()),
        Arc::new(lines.iter().map(|l| l.3.map(|b| b.interval.low)).collect::<Float64Array>()),
        Arc::new(lines.iter().map(|l| l.3.map(|b| b.interval.high)).collect::<Float64Array>()),
        Arc::new(Int64Array::from_iter_values(lines.iter().map(|l| l.4 as i64))),
        Arc::new(Int64Array::from_iter_values(lines.iter().map(|l| (scores.len() - l.4) as i64))),
    ];
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// How often each state was given to each state of the truth: a swap of `uncertain` and `present` is a matter of
/// policy, one of `present` and `absent` a mistake.
pub(crate) fn confusion(schema: SchemaRef, cases: &Cases) -> anyhow::Result<RecordBatch> {
    let mut counts: BTreeMap<(&str, &str, &str), i64> = BTreeMap::new();
    for case in &cases.rows {
        let key =
            (cases.findings[case.finding].as_str(), case.truth_state.as_str(), case.label.state.as_str());
        *counts.entry(key).or_default() += 1;
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(counts.keys().map(|k| k.0))),
        Arc::new(StringArray::from_iter_values(counts.keys().map(|k| k.1))),
        Arc::new(StringArray::from_iter_values(counts.keys().map(|k| k.2))),
        Arc::new(Int64Array::from_iter_values(counts.values().copied())),
    ];
    Ok(RecordBatch::try_new(schema, columns)?)
}
