//! Predictions with their truth and part.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use argent_engine::Io;
use argent_engine::joining::{account, texts};
use argent_stats::Ranking;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Float64Type;

use super::EvalClassification;
use crate::eval::cohort::{clusters, truth_by_id};
use crate::train::classifier::part_by_id;

/// One prediction with its truth.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: String,
    /// The group of the split: the patient, where it is split by patient.
    pub(super) group: String,
    pub(super) score: f64,
    pub(super) target: bool,
}

/// The rows of one finding.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) by_part: BTreeMap<String, Vec<Row>>,
    /// Rows of the measured part without a truth or a score.
    excluded: i64,
}

/// What is measured of one finding.
pub(super) struct Measured {
    pub(super) finding: String,
    pub(super) rows: Vec<Row>,
    /// The rows' order by score.
    pub(super) ranking: Ranking,
    /// By row: the number of its group.
    pub(super) clusters: Vec<u32>,
    pub(super) threshold: Option<f64>,
    pub(super) excluded: i64,
}

impl Measured {
    /// Takes the rows of one part.
    pub(super) fn new(
        finding: String,
        mut parts: Parts,
        part: &str,
        threshold: Option<f64>,
    ) -> anyhow::Result<Measured> {
        let rows = parts.by_part.remove(part).unwrap_or_default();
        let (targets, scores) = columns(&rows);
        let ranking = Ranking::new(&targets, &scores)?;
        let clusters = clusters(rows.iter().map(|row| row.group.as_str()));
        Ok(Measured { finding, rows, ranking, clusters, threshold, excluded: parts.excluded })
    }

    pub(super) fn columns(&self) -> (Vec<bool>, Vec<f64>) {
        columns(&self.rows)
    }
}

/// The targets and the scores of rows.
pub(super) fn columns(rows: &[Row]) -> (Vec<bool>, Vec<f64>) {
    (rows.iter().map(|r| r.target).collect(), rows.iter().map(|r| r.score).collect())
}

impl EvalClassification {
    /// Joins predictions, which were made of the rows of `port`, with truth and parts, by finding.
    pub(super) fn rows(
        &self,
        io: &mut Io,
        predictions: &RecordBatch,
        port: &str,
    ) -> anyhow::Result<BTreeMap<String, Parts>> {
        let (labels, split) = (io.input("labels")?.clone(), io.input("split")?.clone());
        let (labels_on, split_on) = (io.on("labels").to_owned(), io.on("split").to_owned());
        let truth = truth_by_id(io, &labels, &labels_on)?;
        let parts = part_by_id(&split, &split_on)?;
        let (ids, findings) = (texts(predictions, "id")?, texts(predictions, "finding")?);
        let (by_label, by_split) = (texts(predictions, &labels_on)?, texts(predictions, &split_on)?);
        let score = predictions.column_by_name("score").context("predictions have scores")?;
        let score = score.as_primitive_opt::<Float64Type>().context("`score` does not hold numbers")?;
        let mut by_finding: BTreeMap<String, Parts> = BTreeMap::new();
        let (mut without_part, mut without_truth, mut considered) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for row in 0..predictions.num_rows() {
            let Some(part) = parts.get(by_split.value(row)) else {
                without_part.insert(ids.value(row).to_owned());
                continue;
            };
            considered.insert(ids.value(row).to_owned());
            let Some(target) = truth.get(&(by_label.value(row), findings.value(row))) else {
                without_truth.insert(ids.value(row).to_owned());
                continue;
            };
            let has_score = score.is_valid(row) && !score.value(row).is_nan();
            if !has_score {
                io.fault(port, ids.value(row), "no_score", "a finding of this row has no score");
            }
            match target.filter(|_| has_score) {
                None if *part == self.part => {
                    by_finding.entry(findings.value(row).to_owned()).or_default().excluded += 1;
                }
                None => {}
                Some(target) => {
                    let read = Row {
                        id: ids.value(row).to_owned(),
                        group: by_split.value(row).to_owned(),
                        score: score.value(row),
                        target,
                    };
                    let of_finding = by_finding.entry(findings.value(row).to_owned()).or_default();
                    of_finding.by_part.entry(part.clone()).or_default().push(read);
                }
            }
        }
        let all = considered.len() + without_part.len();
        let without_part = Vec::from_iter(without_part);
        account(io, port, "split", all, &without_part, self.unmatched)?;
        let without_truth = Vec::from_iter(without_truth);
        account(io, port, "labels", considered.len(), &without_truth, self.unmatched)?;
        Ok(by_finding)
    }
}
