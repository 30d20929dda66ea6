//! Averages over findings, with intervals over whole groups.

use std::sync::Arc;

use argent_engine::column;
use argent_stats::{Confusion, DrawnRanking, cluster_bootstrap_each};
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, SchemaRef};

use super::Bootstrap;
use super::rows::Measured;
use crate::eval::cohort::{LEVEL, clusters};

/// The measures that are averaged.
const MEASURES: [&str; 10] = [
    "auc",
    "average_precision",
    "f1",
    "weighted_f1",
    "sensitivity",
    "specificity",
    "ppv",
    "accuracy",
    "balanced_accuracy",
    "mcc",
];

/// How findings are averaged.
const AVERAGES: [&str; 2] = ["macro", "weighted"];

/// The columns of the table.
pub(super) fn fields() -> Vec<Field> {
    let mut fields = vec![column::text("average"), column::text("measure")];
    fields.extend(["value", "low", "high"].map(column::number));
    fields.extend(["findings", "undefined"].map(column::whole));
    fields
}

/// Each measure's averages over the findings for which it is defined.
pub(super) fn batch(
    schema: SchemaRef,
    measured: &[Measured],
    bootstrap: Bootstrap,
) -> anyhow::Result<RecordBatch> {
    let joint = Joint::new(measured);
    let each = joint.of_findings(|finding| finding.ranking.all());
    let values = averages(&each);
    let Bootstrap { draws, seed } = bootstrap;
    let drawn = cluster_bootstrap_each(&joint.clusters, draws, seed, LEVEL, values.len(), |rows| {
        averages(&joint.drawn(rows))
    })?;
    let defined = |measure: usize| each.iter().filter(|finding| finding.measures[measure].is_some()).count();
    let lines = AVERAGES.len() * MEASURES.len();
    let average = |line: usize| AVERAGES[line / MEASURES.len()];
    let counts: Vec<usize> = (0..lines).map(|line| defined(line % MEASURES.len())).collect();
    let bound = |of: fn(&argent_stats::Interval) -> f64| -> ArrayRef {
        Arc::new(drawn.iter().map(|drawn| drawn.as_ref().map(|d| of(&d.interval))).collect::<Float64Array>())
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values((0..lines).map(average))),
        Arc::new(StringArray::from_iter_values((0..lines).map(|line| MEASURES[line % MEASURES.len()]))),
        Arc::new(values.into_iter().collect::<Float64Array>()),
        bound(|interval| interval.low),
        bound(|interval| interval.high),
        Arc::new(Int64Array::from_iter_values(counts.iter().map(|count| *count as i64))),
        Arc::new(Int64Array::from_iter_values(counts.iter().map(|count| (each.len() - count) as i64))),
    ];
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// What one finding brings to the averages.
struct Finding {
    /// By measure.
    measures: [Option<f64>; MEASURES.len()],
    positives: f64,
}

impl Finding {
    fn new(drawn: &DrawnRanking, threshold: Option<f64>) -> Finding {
        let decided = threshold.map(|threshold| drawn.at_threshold(threshold));
        let of = |measure: fn(&Confusion) -> Option<f64>| decided.as_ref().and_then(measure);
        Finding {
            measures: [
                drawn.roc_auc(),
                drawn.average_precision(),
                of(Confusion::f1),
                of(Confusion::weighted_f1),
                of(Confusion::sensitivity),
                of(Confusion::specificity),
                of(Confusion::ppv),
                of(Confusion::accuracy),
                of(Confusion::balanced_accuracy),
                of(Confusion::mcc),
            ],
            positives: drawn.positives() as f64,
        }
    }
}

/// The macro averages of all measures, then those weighted by positives (scikit-learn's `average="weighted"`).
fn averages(findings: &[Finding]) -> Vec<Option<f64>> {
    let average = |measure: usize, weight: fn(&Finding) -> f64| {
        let defined = findings.iter().filter_map(|f| Some((f.measures[measure]?, weight(f))));
        let (sum, weights) = defined
            .fold((0.0, 0.0), |(sum, weights), (value, weight)| (sum + value * weight, weights + weight));
        (weights > 0.0).then(|| sum / weights)
    };
    let alike = (0..MEASURES.len()).map(|measure| average(measure, |_| 1.0));
    alike.chain((0..MEASURES.len()).map(|measure| average(measure, |f| f.positives))).collect()
}

/// The rows of all findings as one list, so that a draw of groups is the same for each.
struct Joint<'a> {
    findings: &'a [Measured],
    clusters: Vec<u32>,
    /// By row of the list: its finding, and its row there.
    places: Vec<(usize, usize)>,
}

impl<'a> Joint<'a> {
    fn new(findings: &'a [Measured]) -> Joint<'a> {
        let of_finding =
            |(at, finding): (usize, &Measured)| (0..finding.rows.len()).map(move |row| (at, row));
        let places = findings.iter().enumerate().flat_map(of_finding).collect();
        let groups = findings.iter().flat_map(|finding| &finding.rows).map(|row| row.group.as_str());
        Joint { findings, clusters: clusters(groups), places }
    }

    fn of_findings(&self, draw: impl Fn(&Measured) -> DrawnRanking) -> Vec<Finding> {
        self.findings.iter().map(|finding| Finding::new(&draw(finding), finding.threshold)).collect()
    }

    fn drawn(&self, rows: &[usize]) -> Vec<Finding> {
        let mut by_finding = vec![Vec::new(); self.findings.len()];
        for row in rows {
            let (finding, row) = self.places[*row];
            by_finding[finding].push(row);
        }
        let drawn = self.findings.iter().zip(by_finding);
        drawn.map(|(finding, rows)| Finding::new(&finding.ranking.draw(rows), finding.threshold)).collect()
    }
}
