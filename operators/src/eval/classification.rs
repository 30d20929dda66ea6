//! `eval.classification`: what scores are worth against labels, per finding and on average.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::{Context, ensure};
use argent_engine::joining::{UNMATCHED, account, texts};
use argent_engine::operator::{Change, Truth, Versions};
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, Signature, column};
use argent_stats::{
    Confusion, Interval, auc_interval_delong, average_precision, closest_to_corner_threshold,
    cluster_bootstrap, f1_threshold, roc_auc, wilson, youden_threshold,
};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Float64Type};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::eval::agreement::{Draws, IntervalKind};
use crate::eval::versions::{self, Policies};
use crate::label::targets::{OfFinding, Target, Targets};
use crate::train::classifier::part_by_id;

/// Measures predictions against labels on one part of a split: AUC, F1, sensitivity, specificity and others,
/// with intervals. A measure that the rows do not define (a finding without positives) is null, never 0 or 0.5.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalClassification {
    /// The part that is measured.
    #[serde(default = "test")]
    pub part: String,
    /// Where a score becomes a decision: a number, or a rule and the part that it is fitted on.
    #[serde(default)]
    pub threshold: Threshold,
    /// How intervals of F1 and of averages are drawn.
    #[serde(default)]
    pub bootstrap: Bootstrap,
    /// The name of the truth, for telling tables apart.
    #[serde(default = "labels")]
    pub truth: String,
    /// The share of rows that may lack their match before the step fails.
    #[serde(default = "unmatched")]
    #[schemars(range(min = 0.0, max = 1.0), extend("x-not-in-key" = "it decides whether there is a result, not which"))]
    pub unmatched: f64,
}

/// Where a score becomes a decision: it is positive from the threshold on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Threshold {
    /// The same number for every finding.
    Number(f64),
    /// Fitted per finding.
    Fitted(Fitted),
}

/// A threshold that is fitted per finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// The rule.
    pub rule: Rule,
    /// The part that it is fitted on; never the part that is measured, unless that is asked for by name.
    #[serde(default = "val")]
    pub part: String,
}

/// How a threshold is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The highest sensitivity + specificity - 1 (Youden's J).
    Youden,
    /// The highest F1.
    F1,
    /// The point of the ROC curve nearest to the corner of sensitivity and specificity 1.
    Corner,
}

impl Default for Threshold {
    fn default() -> Threshold {
        Threshold::Number(0.5)
    }
}

/// A bootstrap over whole groups of the split, so that rows of one patient stay together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// How many draws.
    #[serde(default = "draws")]
    #[schemars(range(min = 1))]
    pub draws: usize,
    /// The seed.
    #[serde(default)]
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Bootstrap {
        Bootstrap { draws: draws(), seed: 0 }
    }
}

fn test() -> String {
    "test".into()
}

fn val() -> String {
    "val".into()
}

fn labels() -> String {
    "labels".into()
}

fn draws() -> usize {
    1000
}

fn unmatched() -> f64 {
    UNMATCHED
}

/// The coverage of every interval.
const LEVEL: f64 = 0.95;

/// One prediction with its truth.
#[derive(Debug, Clone)]
struct Row {
    id: String,
    group: String,
    score: f64,
    target: bool,
}

/// The rows of one finding, by part.
type Parts = BTreeMap<String, Vec<Row>>;

impl Operator for EvalClassification {
    fn ports(&self) -> Vec<Port> {
        vec![
            Port::new(
                "predictions",
                "Scores, as `predict` makes them.",
                &[Needed::text("id"), Needed::text("finding"), Needed::number("score")],
            ),
            Port::new(
                "labels",
                "The truth: states, or targets and weights.",
                &[Needed::text("id"), Needed::text("finding")],
            ),
            Port::new(
                "split",
                "Parts, as `split.groups` makes them.",
                &[Needed::text("id"), Needed::text("part")],
            ),
        ]
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let (labels_on, split_on) = (inputs.port("labels").on.clone(), inputs.port("split").on.clone());
        let mut problems = Vec::new();
        for (port, on) in [("labels", &labels_on), ("split", &split_on)] {
            problems.extend(
                inputs
                    .missing("predictions", &[on.as_str()])
                    .into_iter()
                    .map(|p| Problem { path: vec!["match".into(), port.into()], ..p }),
            );
        }
        let truth = truth_columns(inputs);
        if truth.is_empty() {
            problems.push(Problem::at(
                ["from", "labels"],
                "the table has neither `state` nor `target` and `weight`",
            ));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut labels: BTreeSet<&str> = truth.into_iter().collect();
        labels.extend([labels_on.as_str(), "finding"]);
        Ok(Signature::new(column::schema(score_fields()), &["finding"])
            .output("summary", column::schema(summary_fields()), &["average", "measure"])
            .reads(
                "predictions",
                BTreeSet::from(["id", "finding", "score", labels_on.as_str(), split_on.as_str()]),
            )
            .reads("labels", labels)
            .reads("split", BTreeSet::from([split_on.as_str(), "part"])))
    }

    fn truth(&self) -> Option<Truth> {
        Some(Truth { port: "labels", held_out: Some(("split", self.part.clone())) })
    }

    fn compare(&self, versions: &Versions) -> anyhow::Result<Vec<Change>> {
        // Its own policy is for a truth alone: what is not sure is none. Labels are read as targets are made of them.
        let policy = |not_mentioned| OfFinding {
            uncertain: Some(Target::MASK),
            not_mentioned: Some(not_mentioned),
            failed: Some(Target::MASK),
        };
        let (per_finding, pack) = (BTreeMap::new(), BTreeMap::new());
        let targets = |all| Targets { all, per_finding: &per_finding, pack: &pack };
        let (labels, truth) = (targets(policy(Target::ZERO)), targets(policy(Target::MASK)));
        let Bootstrap { draws, seed } = self.bootstrap;
        let draws = Draws { draws, seed, interval: IntervalKind::Percentile };
        versions::compare(versions, &Policies { labels: &labels, truth: &truth }, &draws, versions.on)
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let (by_finding, excluded) = self.rows(io)?;
        let mut scores = Vec::new();
        let mut measured = BTreeMap::new();
        for (finding, parts) in &by_finding {
            let rows = parts.get(&self.part).cloned().unwrap_or_default();
            let threshold = self.threshold(parts)?;
            scores.push(self.score(
                finding,
                &rows,
                threshold,
                excluded.get(finding).copied().unwrap_or(0),
            )?);
            measured.insert(finding.as_str(), (rows, threshold));
        }
        ensure!(scores.iter().any(|s| s.n > 0), "no row with a known truth is in the part `{}`", self.part);
        io.emit("", score_batch(io.schema("")?, &scores)?)?;
        io.emit("summary", self.summary(io, &scores, &measured)?)
    }
}

/// The columns of the labels that say the truth.
fn truth_columns(inputs: &Inputs) -> Vec<&'static str> {
    let schema = &inputs.port("labels").schema;
    let has = |name: &str| schema.field_with_name(name).is_ok();
    match (has("state"), has("target") && has("weight")) {
        (_, true) => vec!["target", "weight"],
        (true, false) => vec!["state"],
        (false, false) => Vec::new(),
    }
}

impl EvalClassification {
    /// Joins predictions, truth and parts; tells how many rows of each finding have no truth to measure by.
    fn rows(&self, io: &mut Io) -> anyhow::Result<(BTreeMap<String, Parts>, BTreeMap<String, i64>)> {
        let (predictions, labels, split) =
            (io.input("predictions")?.clone(), io.input("labels")?.clone(), io.input("split")?.clone());
        let (labels_on, split_on) = (io.on("labels").to_owned(), io.on("split").to_owned());
        let truth = truth_by_id(io, &labels, &labels_on)?;
        let parts = part_by_id(&split, &split_on)?;
        let (ids, findings) = (texts(&predictions, "id")?, texts(&predictions, "finding")?);
        let (by_label, by_split) = (texts(&predictions, &labels_on)?, texts(&predictions, &split_on)?);
        let score = predictions.column_by_name("score").context("predictions have scores")?;
        let score = score.as_primitive_opt::<Float64Type>().context("`score` does not hold numbers")?;
        let mut by_finding: BTreeMap<String, Parts> = BTreeMap::new();
        let mut excluded: BTreeMap<String, i64> = BTreeMap::new();
        let (mut without_part, mut without_truth, mut considered) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for row in 0..predictions.num_rows() {
            let Some(part) = parts.get(by_split.value(row)) else {
                without_part.insert(ids.value(row).to_owned());
                continue;
            };
            considered.insert(ids.value(row).to_owned());
            let finding = findings.value(row);
            match truth.get(&(by_label.value(row), finding)) {
                None => drop(without_truth.insert(ids.value(row).to_owned())),
                Some(None) if *part == self.part => *excluded.entry(finding.to_owned()).or_default() += 1,
                Some(None) => {}
                Some(Some(target)) => {
                    let row = Row {
                        id: ids.value(row).to_owned(),
                        group: by_split.value(row).to_owned(),
                        score: score.value(row),
                        target: *target,
                    };
                    by_finding
                        .entry(finding.to_owned())
                        .or_default()
                        .entry(part.clone())
                        .or_default()
                        .push(row);
                }
            }
        }
        let all = considered.len() + without_part.len();
        account(io, "predictions", "split", all, &Vec::from_iter(without_part), self.unmatched)?;
        account(
            io,
            "predictions",
            "labels",
            considered.len(),
            &Vec::from_iter(without_truth),
            self.unmatched,
        )?;
        Ok((by_finding, excluded))
    }

    /// The threshold of a finding; none where the rule cannot be fitted.
    fn threshold(&self, parts: &Parts) -> anyhow::Result<Option<f64>> {
        let fitted = match &self.threshold {
            Threshold::Number(number) => return Ok(Some(*number)),
            Threshold::Fitted(fitted) => fitted,
        };
        let rows = parts.get(&fitted.part).map_or(&[][..], Vec::as_slice);
        let (targets, scores) = columns(rows);
        Ok(match fitted.rule {
            Rule::Youden => youden_threshold(&targets, &scores)?,
            Rule::F1 => f1_threshold(&targets, &scores)?,
            Rule::Corner => closest_to_corner_threshold(&targets, &scores)?,
        })
    }

    fn score(
        &self,
        finding: &str,
        rows: &[Row],
        threshold: Option<f64>,
        excluded: i64,
    ) -> anyhow::Result<Score> {
        let (targets, scores) = columns(rows);
        let decided = threshold.map(|t| Confusion::at_threshold(&targets, &scores, t)).transpose()?;
        let of = |f: fn(&Confusion) -> Option<f64>| decided.as_ref().and_then(f);
        let clusters = clusters(rows);
        let f1_interval = match threshold {
            Some(threshold) => {
                let statistic = |drawn: &[usize]| {
                    let (targets, scores) = picked(&targets, &scores, drawn);
                    Confusion::at_threshold(&targets, &scores, threshold).ok()?.f1()
                };
                cluster_bootstrap(&clusters, self.bootstrap.draws, self.bootstrap.seed, LEVEL, statistic)?
                    .map(|b| b.interval)
            }
            None => None,
        };
        let (sensitivity_interval, specificity_interval) = match &decided {
            Some(c) => (wilson(c.tp, c.tp + c.fn_, LEVEL)?, wilson(c.tn, c.tn + c.fp, LEVEL)?),
            None => (None, None),
        };
        Ok(Score {
            finding: finding.to_owned(),
            n: rows.len() as i64,
            positives: targets.iter().filter(|t| **t).count() as i64,
            excluded,
            auc: roc_auc(&targets, &scores)?,
            auc_interval: auc_interval_delong(&targets, &scores, LEVEL)?,
            average_precision: average_precision(&targets, &scores)?,
            threshold,
            f1: of(Confusion::f1),
            f1_interval,
            sensitivity: of(Confusion::sensitivity),
            sensitivity_interval,
            specificity: of(Confusion::specificity),
            specificity_interval,
            ppv: of(Confusion::ppv),
            npv: of(Confusion::npv),
            accuracy: of(Confusion::accuracy),
            mcc: of(Confusion::mcc),
            truth: self.truth.clone(),
            cohort_digest: cohort_digest(rows.iter().map(|r| r.id.as_str())),
        })
    }

    /// Averages over the findings whose measure is defined, with an interval over patients.
    fn summary(
        &self,
        io: &Io,
        scores: &[Score],
        measured: &BTreeMap<&str, (Vec<Row>, Option<f64>)>,
    ) -> anyhow::Result<RecordBatch> {
        let joint = Joint::new(measured);
        let mut lines = Vec::new();
        for (measure, value) in MEASURES {
            let defined: Vec<f64> = scores.iter().filter_map(value).collect();
            let mean = (!defined.is_empty()).then(|| defined.iter().sum::<f64>() / defined.len() as f64);
            let interval = cluster_bootstrap(
                &joint.clusters,
                self.bootstrap.draws,
                self.bootstrap.seed,
                LEVEL,
                |drawn| joint.macro_average(measure, drawn),
            )?;
            lines.push((measure, mean, interval.map(|b| b.interval), defined.len() as i64));
        }
        let all = scores.len() as i64;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["macro"; lines.len()])),
            Arc::new(StringArray::from_iter_values(lines.iter().map(|l| l.0))),
            Arc::new(lines.iter().map(|l| l.1).collect::<Float64Array>()),
            Arc::new(lines.iter().map(|l| l.2.map(|i| i.low)).collect::<Float64Array>()),
            Arc::new(lines.iter().map(|l| l.2.map(|i| i.high)).collect::<Float64Array>()),
            Arc::new(lines.iter().map(|l| Some(l.3)).collect::<Int64Array>()),
            Arc::new(lines.iter().map(|l| Some(all - l.3)).collect::<Int64Array>()),
        ];
        Ok(RecordBatch::try_new(io.schema("summary")?, columns)?)
    }
}

/// One measure of a finding's score.
type Measure = fn(&Score) -> Option<f64>;

/// The averaged measures and where a finding's score has them.
const MEASURES: [(&str, Measure); 4] = [
    ("auc", |s| s.auc),
    ("f1", |s| s.f1),
    ("sensitivity", |s| s.sensitivity),
    ("specificity", |s| s.specificity),
];

/// The rows of all findings as one list, so that a draw of patients is the same for each.
struct Joint<'a> {
    clusters: Vec<u32>,
    rows: Vec<(usize, &'a Row)>,
    thresholds: Vec<Option<f64>>,
}

impl<'a> Joint<'a> {
    fn new(measured: &'a BTreeMap<&str, (Vec<Row>, Option<f64>)>) -> Joint<'a> {
        let mut rows = Vec::new();
        for (place, (of_finding, _)) in measured.values().enumerate() {
            rows.extend(of_finding.iter().map(|row| (place, row)));
        }
        let clusters = clusters(rows.iter().map(|(_, row)| *row));
        Joint { clusters, rows, thresholds: measured.values().map(|(_, t)| *t).collect() }
    }

    fn macro_average(&self, measure: &str, drawn: &[usize]) -> Option<f64> {
        let mut by_finding = vec![(Vec::new(), Vec::new()); self.thresholds.len()];
        for place in drawn {
            let (finding, row) = self.rows[*place];
            by_finding[finding].0.push(row.target);
            by_finding[finding].1.push(row.score);
        }
        let values: Vec<f64> = by_finding
            .iter()
            .zip(&self.thresholds)
            .filter_map(|((targets, scores), threshold)| measure_of(measure, targets, scores, *threshold))
            .collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }
}

fn measure_of(measure: &str, targets: &[bool], scores: &[f64], threshold: Option<f64>) -> Option<f64> {
    if measure == "auc" {
        return roc_auc(targets, scores).ok()?;
    }
    let confusion = Confusion::at_threshold(targets, scores, threshold?).ok()?;
    match measure {
        "f1" => confusion.f1(),
        "sensitivity" => confusion.sensitivity(),
        _ => confusion.specificity(),
    }
}

/// One finding's measures.
struct Score {
    finding: String,
    n: i64,
    positives: i64,
    excluded: i64,
    auc: Option<f64>,
    auc_interval: Option<Interval>,
    average_precision: Option<f64>,
    threshold: Option<f64>,
    f1: Option<f64>,
    f1_interval: Option<Interval>,
    sensitivity: Option<f64>,
    sensitivity_interval: Option<Interval>,
    specificity: Option<f64>,
    specificity_interval: Option<Interval>,
    ppv: Option<f64>,
    npv: Option<f64>,
    accuracy: Option<f64>,
    mcc: Option<f64>,
    truth: String,
    cohort_digest: String,
}

fn score_fields() -> Vec<Field> {
    let mut fields = vec![
        column::text("finding"),
        column::whole("n"),
        column::whole("positives"),
        column::whole("excluded"),
    ];
    for name in [
        "auc",
        "auc_low",
        "auc_high",
        "average_precision",
        "threshold",
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
        "npv",
        "accuracy",
        "mcc",
    ] {
        fields.push(column::number(name));
    }
    fields.extend([column::text("truth"), column::text("cohort_digest")]);
    fields
}

fn summary_fields() -> Vec<Field> {
    vec![
        column::text("average"),
        column::text("measure"),
        column::number("value"),
        column::number("low"),
        column::number("high"),
        column::whole("findings"),
        column::whole("undefined"),
    ]
}

fn score_batch(schema: arrow::datatypes::SchemaRef, scores: &[Score]) -> anyhow::Result<RecordBatch> {
    let text =
        |f: fn(&Score) -> &str| Arc::new(StringArray::from_iter_values(scores.iter().map(f))) as ArrayRef;
    let whole =
        |f: fn(&Score) -> i64| Arc::new(Int64Array::from_iter_values(scores.iter().map(f))) as ArrayRef;
    let number =
        |f: fn(&Score) -> Option<f64>| Arc::new(scores.iter().map(f).collect::<Float64Array>()) as ArrayRef;
    let columns = vec![
        text(|s| &s.finding),
        whole(|s| s.n),
        whole(|s| s.positives),
        whole(|s| s.excluded),
        number(|s| s.auc),
        number(|s| s.auc_interval.map(|i| i.low)),
        number(|s| s.auc_interval.map(|i| i.high)),
        number(|s| s.average_precision),
        number(|s| s.threshold),
        number(|s| s.f1),
        number(|s| s.f1_interval.map(|i| i.low)),
        number(|s| s.f1_interval.map(|i| i.high)),
        number(|s| s.sensitivity),
        number(|s| s.sensitivity_interval.map(|i| i.low)),
        number(|s| s.sensitivity_interval.map(|i| i.high)),
        number(|s| s.specificity),
        number(|s| s.specificity_interval.map(|i| i.low)),
        number(|s| s.specificity_interval.map(|i| i.high)),
        number(|s| s.ppv),
        number(|s| s.npv),
        number(|s| s.accuracy),
        number(|s| s.mcc),
        text(|s| &s.truth),
        text(|s| &s.cohort_digest),
    ];
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// By id and finding: the truth; none where there is no yes or no (uncertain, masked, in conflict).
fn truth_by_id<'a>(
    io: &mut Io,
    labels: &'a RecordBatch,
    on: &str,
) -> anyhow::Result<HashMap<(&'a str, &'a str), Option<bool>>> {
    let (ids, findings) = (texts(labels, on)?, texts(labels, "finding")?);
    let targets = targets(labels)?;
    let mut truth: HashMap<(&str, &str), Option<bool>> = HashMap::new();
    let mut conflicts = BTreeSet::new();
    for row in (0..labels.num_rows()).filter(|r| ids.is_valid(*r) && findings.is_valid(*r)) {
        let key = (ids.value(row), findings.value(row));
        if truth.insert(key, targets[row]).is_some_and(|before| before != targets[row]) {
            conflicts.insert(key);
        }
    }
    for key in conflicts {
        truth.insert(key, None);
        io.fault(
            "labels",
            key.0,
            "conflict",
            format!("rows of this `{on}` disagree on a finding; it is left out"),
        );
    }
    Ok(truth)
}

/// For each row of the labels: yes, no, or neither.
fn targets(labels: &RecordBatch) -> anyhow::Result<Vec<Option<bool>>> {
    if labels.column_by_name("target").is_none() {
        let states = texts(labels, "state")?;
        let target = |state: Option<&str>| match state {
            Some("present") => Some(true),
            Some("absent") => Some(false),
            _ => None,
        };
        return Ok(states.iter().map(target).collect());
    }
    let number = |name: &str| {
        let column = labels.column_by_name(name).with_context(|| format!("labels have no `{name}`"))?;
        column.as_primitive_opt::<Float64Type>().with_context(|| format!("`{name}` does not hold numbers"))
    };
    let (target, weight) = (number("target")?, number("weight")?);
    let known = |row: usize| target.is_valid(row) && weight.is_valid(row) && weight.value(row) > 0.0;
    // A soft target says how sure the label is; the truth to measure by is its nearer end.
    Ok((0..labels.num_rows()).map(|row| known(row).then(|| target.value(row) >= 0.5)).collect())
}

fn columns(rows: &[Row]) -> (Vec<bool>, Vec<f64>) {
    (rows.iter().map(|r| r.target).collect(), rows.iter().map(|r| r.score).collect())
}

fn picked(targets: &[bool], scores: &[f64], drawn: &[usize]) -> (Vec<bool>, Vec<f64>) {
    (drawn.iter().map(|i| targets[*i]).collect(), drawn.iter().map(|i| scores[*i]).collect())
}

/// The number of each row's group.
fn clusters<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<u32> {
    let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
    rows.into_iter()
        .map(|row| {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            *numbers.entry(&row.group).or_insert(next)
        })
        .collect()
}

/// A digest of who was measured: equal digests mean the same rows, so that two tables may be compared.
pub(crate) fn cohort_digest<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    let mut ids: Vec<&str> = ids.into_iter().collect();
    ids.sort_unstable();
    let mut hasher = blake3::Hasher::new_derive_key("argent eval cohort 1");
    for id in ids {
        hasher.update(&(id.len() as u64).to_le_bytes());
        hasher.update(id.as_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}
