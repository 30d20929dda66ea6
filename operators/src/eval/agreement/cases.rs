//! Labels beside their truth: one case per label whose truth is known.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Context;
use argent_engine::joining::{account, texts};
use argent_engine::{Inputs, Io};
use arrow::array::{Array, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::Float64Type;

use super::EvalAgreement;
use crate::label::targets::Targets;
use crate::train::classifier::part_by_id;

/// Labels beside their truth.
pub(crate) struct Cases {
    /// The findings of the truth, in order.
    pub(crate) findings: Vec<String>,
    pub(crate) rows: Vec<Case>,
    /// By finding: how many rows have a truth and no label, where others of their id have one.
    pub(crate) missing: Vec<i64>,
}

/// One label, its truth, and the other labeling's label.
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) finding: usize,
    /// The number of its group.
    pub(crate) cluster: u32,
    /// The truth as it is written: a state, or what its target means.
    pub(crate) truth_state: String,
    /// Yes or no; none where the policy masks it.
    pub(crate) target: Option<bool>,
    pub(crate) label: Label,
    /// None where the other labeling has no such row, or there is none.
    pub(crate) other: Option<Label>,
}

/// What a labeling says of one row.
#[derive(Clone)]
pub(crate) struct Label {
    pub(crate) state: String,
    /// Yes or no; none where it failed or the policy masks it.
    pub(crate) decision: Option<bool>,
    pub(crate) score: Option<f64>,
}

impl Case {
    /// The truth and the decision, where both are known.
    pub(crate) fn decided(&self) -> Option<(bool, bool)> {
        self.target.zip(self.label.decision)
    }

    /// The truth and both decisions, where all are known.
    pub(crate) fn compared(&self) -> Option<(bool, bool, bool)> {
        let other = self.other.as_ref()?.decision?;
        self.decided().map(|(target, decision)| (target, decision, other))
    }
}

/// The columns that a labeling is read by.
pub(crate) fn label_columns(inputs: &Inputs, port: &str) -> Vec<String> {
    let has_score = inputs.port(port).schema.field_with_name("score").is_ok();
    let all = ["id", "finding", "state"].into_iter().chain(has_score.then_some("score"));
    all.map(str::to_owned).collect()
}

/// The columns of the truth that say it.
pub(crate) fn truth_columns(inputs: &Inputs) -> Vec<&'static str> {
    let schema = &inputs.port("truth").schema;
    let has = |name: &str| schema.field_with_name(name).is_ok();
    match (has("target") && has("weight"), has("state")) {
        (true, _) => vec!["target", "weight"],
        (false, true) => vec!["state"],
        (false, false) => Vec::new(),
    }
}

/// By id and finding: the truth's state in words, and yes or no.
pub(crate) type Truth<'a> = BTreeMap<(&'a str, &'a str), (String, Option<bool>)>;

impl EvalAgreement {
    /// Joins labels, truth, the other labeling and parts.
    pub(crate) fn cases(&self, io: &mut Io) -> anyhow::Result<Cases> {
        let policy = self.targets();
        let (labels, truth_table) = (io.input("labels")?.clone(), io.input("truth")?.clone());
        let (other, split) = (optional(io, "other")?, optional(io, "split")?);
        let on = |port: &str| io.on(port).to_owned();
        let (truth_on, other_on, split_on) = (on("truth"), on("other"), on("split"));
        let truth = truth_by_id(io, &policy, &truth_table, &truth_on)?;
        let other = other.as_ref().map(|table| Labeling::new(table, &policy)).transpose()?;
        let other_rows = other.as_ref().map(|other| other.rows_by(&other_on)).transpose()?;
        let parts = split.as_ref().map(|split| part_by_id(split, &split_on)).transpose()?;
        let labeling = Labeling::new(&labels, &policy)?;
        let findings: Vec<String> = truth
            .keys()
            .map(|(_, finding)| (*finding).to_owned())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let (by_truth, by_other) = (texts(&labels, &truth_on)?, texts(&labels, &other_on)?);
        let (by_part, by_group) = (texts(&labels, &split_on)?, texts(&labels, &self.group)?);
        let mut clusters: BTreeMap<&str, u32> = BTreeMap::new();
        let (mut rows, mut labelled, mut in_part) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let (mut considered, mut without_part, mut without_other) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for row in 0..labels.num_rows() {
            let (id, finding, key) =
                (labeling.id.value(row), labeling.finding.value(row), by_truth.value(row));
            labelled.insert((key, finding));
            let Some((truth_state, target)) = truth.get(&(key, finding)) else { continue };
            considered.insert(id);
            if let Some(parts) = &parts {
                match parts.get(by_part.value(row)) {
                    Some(part) if *part == self.part => {}
                    Some(_) => continue,
                    None => {
                        without_part.insert(id.to_owned());
                        continue;
                    }
                }
            }
            in_part.insert(key);
            let next = u32::try_from(clusters.len())?;
            let label = labeling.label(row)?;
            let beside = other_rows.as_ref().and_then(|rows| rows.get(&(by_other.value(row), finding)));
            let beside = match (beside, &other) {
                (Some(place), Some(other)) => Some(other.label(*place)?),
                (None, Some(_)) => {
                    without_other.insert(id.to_owned());
                    None
                }
                _ => None,
            };
            rows.push(Case {
                id: id.to_owned(),
                finding: findings.binary_search_by(|f| f.as_str().cmp(finding)).unwrap_or_default(),
                cluster: *clusters.entry(by_group.value(row)).or_insert(next),
                truth_state: truth_state.clone(),
                target: *target,
                label,
                other: beside,
            });
        }
        // Of a truth that is in another part, or may be, nothing is expected.
        let same_ids = parts.as_ref().filter(|_| split_on == truth_on);
        let expected: BTreeSet<&str> = truth
            .keys()
            .map(|(key, _)| *key)
            .filter(|key| match (&parts, same_ids) {
                (None, _) => true,
                (Some(_), Some(parts)) => parts.get(*key).is_some_and(|part| *part == self.part),
                (Some(_), None) => in_part.contains(key),
            })
            .collect();
        let known: BTreeSet<&str> = labelled.iter().map(|(key, _)| *key).collect();
        let unlabelled: Vec<String> =
            expected.iter().filter(|key| !known.contains(**key)).map(|key| (*key).to_owned()).collect();
        account(io, "truth", "labels", expected.len(), &unlabelled, self.unmatched)?;
        if parts.is_some() {
            let without = Vec::from_iter(without_part);
            account(io, "labels", "split", considered.len(), &without, self.unmatched)?;
        }
        if other.is_some() {
            let measured: BTreeSet<&str> = rows.iter().map(|case: &Case| case.id.as_str()).collect();
            let (total, without) = (measured.len(), Vec::from_iter(without_other));
            account(io, "labels", "other", total, &without, self.unmatched)?;
        }
        let mut missing = vec![0; findings.len()];
        for (key, finding) in truth.keys().filter(|key| in_part.contains(key.0) && !labelled.contains(*key)) {
            if let Ok(place) = findings.binary_search_by(|f| f.as_str().cmp(finding)) {
                missing[place] += 1;
                io.fault("truth", key, "unlabelled", "a finding of this id has a truth and no label");
            }
        }
        Ok(Cases { findings, rows, missing })
    }
}

fn optional(io: &Io, port: &str) -> anyhow::Result<Option<RecordBatch>> {
    io.has_input(port).then(|| io.input(port).cloned()).transpose()
}

/// A table of labels, its states read by a policy.
pub(crate) struct Labeling<'a> {
    table: &'a RecordBatch,
    policy: &'a Targets<'a>,
    pub(crate) id: &'a StringArray,
    pub(crate) finding: &'a StringArray,
    state: &'a StringArray,
    score: Option<&'a Float64Array>,
}

impl<'a> Labeling<'a> {
    pub(crate) fn new(table: &'a RecordBatch, policy: &'a Targets<'a>) -> anyhow::Result<Labeling<'a>> {
        let score = table.column_by_name("score");
        let score = score
            .map(|score| score.as_primitive_opt::<Float64Type>().context("`score` does not hold numbers"));
        Ok(Labeling {
            table,
            policy,
            id: texts(table, "id")?,
            finding: texts(table, "finding")?,
            state: texts(table, "state")?,
            score: score.transpose()?,
        })
    }

    pub(crate) fn label(&self, row: usize) -> anyhow::Result<Label> {
        let state = if self.state.is_valid(row) { self.state.value(row) } else { "" };
        let target = self.policy.target(self.finding.value(row), state).map_err(anyhow::Error::msg)?;
        let score = self.score.filter(|score| score.is_valid(row)).map(|score| score.value(row));
        Ok(Label { state: state.to_owned(), decision: target.map(|target| target >= 0.5), score })
    }

    /// By the value of a column and finding: the first row.
    pub(crate) fn rows_by(&self, column: &str) -> anyhow::Result<HashMap<(&'a str, &'a str), usize>> {
        let keys = texts(self.table, column)?;
        let mut rows = HashMap::new();
        for row in 0..self.table.num_rows() {
            rows.entry((keys.value(row), self.finding.value(row))).or_insert(row);
        }
        Ok(rows)
    }
}

/// The truth by id and finding. Where rows of one id disagree it is masked, and an error row says so.
pub(crate) fn truth_by_id<'a>(
    io: &mut Io,
    policy: &Targets,
    table: &'a RecordBatch,
    on: &str,
) -> anyhow::Result<Truth<'a>> {
    let (truth, conflicts) = known_truth(policy, table, on)?;
    for (id, _) in conflicts {
        let message = format!("rows of this `{on}` disagree on a finding; it is left out");
        io.fault("truth", id, "conflict", message);
    }
    Ok(truth)
}

/// The truth by id and finding, and the ids and findings on which rows disagree, where it is masked.
pub(crate) fn known_truth<'a>(
    policy: &Targets,
    table: &'a RecordBatch,
    on: &str,
) -> anyhow::Result<(Truth<'a>, BTreeSet<(&'a str, &'a str)>)> {
    let (ids, findings) = (texts(table, on)?, texts(table, "finding")?);
    let said = truths(policy, table, findings)?;
    let (mut truth, mut conflicts): (Truth, BTreeSet<(&str, &str)>) = (Truth::new(), BTreeSet::new());
    for row in (0..table.num_rows()).filter(|row| ids.is_valid(*row) && findings.is_valid(*row)) {
        let key = (ids.value(row), findings.value(row));
        if truth.insert(key, said[row].clone()).is_some_and(|before| before != said[row]) {
            conflicts.insert(key);
        }
    }
    for key in &conflicts {
        truth.insert(*key, (MASKED.to_owned(), None));
    }
    Ok((truth, conflicts))
}

/// The word for a truth that says neither yes nor no.
const MASKED: &str = "masked";

/// For each row of the truth: its state in words, and yes, no or neither.
fn truths(
    policy: &Targets,
    table: &RecordBatch,
    findings: &StringArray,
) -> anyhow::Result<Vec<(String, Option<bool>)>> {
    if table.column_by_name("target").is_none() {
        let states = texts(table, "state")?;
        let said = (0..table.num_rows()).map(|row| {
            let state = if states.is_valid(row) { states.value(row) } else { "" };
            let target = policy.target(findings.value(row), state).map_err(anyhow::Error::msg)?;
            Ok((state.to_owned(), target.map(|target| target >= 0.5)))
        });
        return said.collect();
    }
    let number = |name: &str| {
        let column = table.column_by_name(name).with_context(|| format!("the truth has no `{name}`"))?;
        column.as_primitive_opt::<Float64Type>().with_context(|| format!("`{name}` does not hold numbers"))
    };
    let (target, weight) = (number("target")?, number("weight")?);
    let known = |row: usize| target.is_valid(row) && weight.is_valid(row) && weight.value(row) > 0.0;
    // A soft target says how sure the label is; the truth to measure by is its nearer end.
    let said = (0..table.num_rows()).map(|row| match known(row).then(|| target.value(row) >= 0.5) {
        Some(true) => ("present".to_owned(), Some(true)),
        Some(false) => ("absent".to_owned(), Some(false)),
        None => (MASKED.to_owned(), None),
    });
    Ok(said.collect())
}
