//! Two labelings of the same rows: whether they differ, per finding and on average.

use std::sync::Arc;

use argent_engine::column;
use argent_stats::{Confusion, delong_test, holm, mcnemar, paired_cluster_bootstrap, roc_auc};
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, SchemaRef};

use super::Draws;
use super::cases::{Case, Cases};
use super::measures::{Joint, counted};
use crate::eval::cohort::LEVEL;

/// One finding's comparison.
struct Compared {
    finding: String,
    n: i64,
    labels_right: i64,
    other_right: i64,
    /// In the order of [`NUMBERS`].
    numbers: Vec<Option<f64>>,
    /// The mid-p value; none without rows.
    p_value: Option<f64>,
}

/// The columns of numbers before the p-values.
const NUMBERS: [&str; 8] =
    ["f1", "f1_other", "difference", "difference_low", "difference_high", "auc", "auc_other", "auc_p_value"];

pub(super) fn fields() -> Vec<Field> {
    let whole = ["n", "only_labels_right", "only_other_right"].map(column::whole);
    let numbers = NUMBERS.into_iter().chain(["p_value", "p_holm"]).map(column::number);
    std::iter::once(column::text("finding")).chain(whole).chain(numbers).collect()
}

pub(super) fn summary_fields() -> Vec<Field> {
    let texts = ["average", "measure"].map(column::text);
    let numbers = ["value", "other", "difference", "low", "high", "p_value"].map(column::number);
    texts.into_iter().chain(numbers).chain(["n", "undefined_draws"].map(column::whole)).collect()
}

/// The comparison per finding (McNemar's test by mid-p, adjusted by Holm; the difference in F1 with a paired interval)
/// and on average (the paired difference in macro F1). Only rows that both decided count.
pub(super) fn compared(
    (schema, summary_schema): (SchemaRef, SchemaRef),
    cases: &Cases,
    draws: &Draws,
) -> anyhow::Result<(RecordBatch, RecordBatch)> {
    let mut by_finding: Vec<Vec<(&Case, bool, bool, bool)>> = vec![Vec::new(); cases.findings.len()];
    for case in &cases.rows {
        if let Some((target, decision, other)) = case.compared() {
            by_finding[case.finding].push((case, target, decision, other));
        }
    }
    let all: Vec<Compared> = by_finding
        .iter()
        .zip(&cases.findings)
        .map(|(rows, finding)| one(finding, rows, draws))
        .collect::<anyhow::Result<_>>()?;
    let tested: Vec<usize> = (0..all.len()).filter(|place| all[*place].p_value.is_some()).collect();
    let p_values: Vec<f64> = all.iter().filter_map(|compared| compared.p_value).collect();
    let mut adjusted = vec![None; all.len()];
    for (place, p_value) in tested.into_iter().zip(holm(&p_values)?) {
        adjusted[place] = Some(p_value);
    }
    Ok((batch(schema, &all, adjusted)?, summary(summary_schema, cases, draws)?))
}

fn one(finding: &str, rows: &[(&Case, bool, bool, bool)], draws: &Draws) -> anyhow::Result<Compared> {
    let clusters: Vec<u32> = rows.iter().map(|(case, ..)| case.cluster).collect();
    let labels = |drawn: &[usize]| counted(drawn.iter().map(|row| (rows[*row].1, rows[*row].2))).f1();
    let other = |drawn: &[usize]| counted(drawn.iter().map(|row| (rows[*row].1, rows[*row].3))).f1();
    let paired = paired_cluster_bootstrap(&clusters, draws.draws, draws.seed, LEVEL, labels, other)?;
    let right = |labels: bool| {
        let only = |(_, target, decision, other): &&(&Case, bool, bool, bool)| {
            (decision == target) == labels && (other == target) != labels
        };
        rows.iter().filter(only).count()
    };
    let (labels_right, other_right) = (right(true), right(false));
    let everything: Vec<usize> = (0..rows.len()).collect();
    let mut numbers = vec![labels(&everything), other(&everything)];
    numbers.extend([
        paired.map(|p| p.difference),
        paired.map(|p| p.bootstrap.interval.low),
        paired.map(|p| p.bootstrap.interval.high),
    ]);
    numbers.extend(aucs(rows)?);
    Ok(Compared {
        finding: finding.to_owned(),
        n: rows.len() as i64,
        labels_right: labels_right as i64,
        other_right: other_right as i64,
        numbers,
        p_value: (!rows.is_empty()).then(|| mcnemar(labels_right as u64, other_right as u64).mid_p),
    })
}

/// Both AUCs and DeLong's p-value, where all rows of both have scores.
fn aucs(rows: &[(&Case, bool, bool, bool)]) -> anyhow::Result<[Option<f64>; 3]> {
    let labels: Option<Vec<f64>> = rows.iter().map(|(case, ..)| case.label.score).collect();
    let other: Option<Vec<f64>> =
        rows.iter().map(|(case, ..)| case.other.as_ref().and_then(|other| other.score)).collect();
    let (Some(labels), Some(other)) = (labels, other) else { return Ok([None; 3]) };
    let targets: Vec<bool> = rows.iter().map(|(_, target, ..)| *target).collect();
    let test = delong_test(&targets, &labels, &other)?;
    Ok([roc_auc(&targets, &labels)?, roc_auc(&targets, &other)?, test.map(|test| test.p_value)])
}

fn batch(schema: SchemaRef, all: &[Compared], adjusted: Vec<Option<f64>>) -> anyhow::Result<RecordBatch> {
    let whole =
        |f: fn(&Compared) -> i64| Arc::new(Int64Array::from_iter_values(all.iter().map(f))) as ArrayRef;
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(all.iter().map(|c| &c.finding))),
        whole(|c| c.n),
        whole(|c| c.labels_right),
        whole(|c| c.other_right),
    ];
    let numbers = (0..NUMBERS.len())
        .map(|at| Arc::new(all.iter().map(|c| c.numbers[at]).collect::<Float64Array>()) as ArrayRef);
    columns.extend(numbers);
    columns.push(Arc::new(all.iter().map(|c| c.p_value).collect::<Float64Array>()));
    columns.push(Arc::new(adjusted.into_iter().collect::<Float64Array>()));
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn summary(schema: SchemaRef, cases: &Cases, draws: &Draws) -> anyhow::Result<RecordBatch> {
    let side = |pick: fn((bool, bool, bool)) -> bool| {
        let rows = cases
            .rows
            .iter()
            .filter_map(|case| case.compared().map(|all| (case.cluster, case.finding, all.0, pick(all))));
        Joint::new(cases.findings.len(), rows)
    };
    let (labels, other) = (side(|all| all.1), side(|all| all.2));
    let (everything, mut lines) = (labels.all(), Vec::new());
    for (name, measure) in
        [("f1", Confusion::f1 as fn(&Confusion) -> Option<f64>), ("kappa", Confusion::kappa)]
    {
        let paired = paired_cluster_bootstrap(
            &labels.clusters,
            draws.draws,
            draws.seed,
            LEVEL,
            |rows| labels.macro_average(measure, rows),
            |rows| other.macro_average(measure, rows),
        )?;
        let value = |joint: &Joint| joint.macro_average(measure, &everything);
        lines.push((name, value(&labels), value(&other), paired));
    }
    let number = |values: Vec<Option<f64>>| Arc::new(Float64Array::from(values)) as ArrayRef;
    let rows = i64::try_from(everything.len())?;
    let undefined = lines.iter().map(|l| l.3.map(|p| p.bootstrap.undefined_draws as i64));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["macro"; lines.len()])),
        Arc::new(StringArray::from_iter_values(lines.iter().map(|l| l.0))),
        number(lines.iter().map(|l| l.1).collect()),
        number(lines.iter().map(|l| l.2).collect()),
        number(lines.iter().map(|l| l.3.map(|p| p.difference)).collect()),
        number(lines.iter().map(|l| l.3.map(|p| p.bootstrap.interval.low)).collect()),
        number(lines.iter().map(|l| l.3.map(|p| p.bootstrap.interval.high)).collect()),
        number(lines.iter().map(|l| l.3.map(|p| p.p_value)).collect()),
        Arc::new(Int64Array::from(vec![rows; lines.len()])),
        Arc::new(undefined.collect::<Int64Array>()),
    ];
    Ok(RecordBatch::try_new(schema, columns)?)
}
