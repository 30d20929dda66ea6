//! `eval.classification`: what scores are worth against labels, per finding and on average.

mod curves;
mod measures;
mod rows;
mod summary;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use argent_engine::joining::UNMATCHED;
use argent_engine::operator::{Change, Truth, Versions};
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, Signature, column};
use argent_stats::{closest_to_corner_threshold, f1_threshold, youden_threshold};
use arrow::array::RecordBatch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::measures::Score;
use self::rows::{Measured, Parts};
use crate::eval::agreement::{Draws, IntervalKind};
use crate::eval::cohort::truth_columns;
use crate::eval::versions::{self, Policies};
use crate::label::targets::{OfFinding, Target, Targets};
use crate::plot;

/// Measures predictions against labels on one part of a split: AUC, F1, sensitivity, specificity and others,
/// with intervals; ROC curves as a table and as a picture, which `argent show` writes. A measure that the rows do not
/// define (a finding without positives) is null, never 0 or 0.5.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalClassification {
    /// The part that is measured.
    #[serde(default = "test")]
    pub part: String,
    /// Where a score becomes a decision: a number, or a rule and the part that it is fitted on.
    #[serde(default)]
    pub threshold: Threshold,
    /// How intervals of AUC, of F1 and of averages are drawn.
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
    /// The part that it is fitted on; the part that is measured only with `compat`.
    #[serde(default = "val")]
    pub part: String,
    /// Whether it is fitted on the part that is measured, as CT-CLIP and the figures compared with it are. What is measured
    /// at such a threshold flatters; the column `compat` says so.
    #[serde(default)]
    pub compat: bool,
}

/// How a threshold is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The highest sensitivity + specificity - 1 (Youden's J).
    Youden,
    /// The highest F1.
    F1,
    /// CT-CLIP's: of 100 thresholds from 0 to 1, the one whose point of the ROC curve is closest to sensitivity and
    /// specificity 1; the last of equal ones.
    Closest,
}

impl Rule {
    fn name(self) -> &'static str {
        match self {
            Rule::Youden => "youden",
            Rule::F1 => "f1",
            Rule::Closest => "closest",
        }
    }
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

pub(super) fn test() -> String {
    "test".into()
}

fn val() -> String {
    "val".into()
}

pub(super) fn labels() -> String {
    "labels".into()
}

fn draws() -> usize {
    1000
}

pub(super) fn unmatched() -> f64 {
    UNMATCHED
}

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
        let mut problems = self.threshold_problems();
        for (port, on) in [("labels", &labels_on), ("split", &split_on)] {
            problems.extend(
                inputs
                    .missing("predictions", &[on.as_str()])
                    .into_iter()
                    .map(|p| Problem { path: vec!["match".into(), port.into()], ..p }),
            );
        }
        let truth = truth_columns(inputs.port("labels"));
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
        Ok(outputs()
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
        let predictions = io.input("predictions")?.clone();
        self.measure(io, &predictions, "predictions")
    }
}

/// The tables that a measurement makes.
pub(super) fn outputs() -> Signature {
    Signature::new(column::schema(measures::fields()), &["finding"])
        .output("summary", column::schema(summary::fields()), &["average", "measure"])
        .output("curves", column::schema(curves::fields()), &["finding", "point"])
        .output(plot::stored::OUTPUT, column::schema(plot::fields()), &["name"])
}

impl EvalClassification {
    /// Measures predictions, which were made of the rows of `port`.
    pub(super) fn measure(&self, io: &mut Io, predictions: &RecordBatch, port: &str) -> anyhow::Result<()> {
        let by_finding = self.rows(io, predictions, port)?;
        self.check_parts(&by_finding)?;
        let mut measured = Vec::new();
        for (finding, parts) in by_finding {
            let threshold = self.threshold(&parts)?;
            measured.push(Measured::new(finding, parts, &self.part, threshold)?);
        }
        let scores: Vec<Score> =
            measured.iter().map(|of| Score::new(of, self.bootstrap)).collect::<anyhow::Result<_>>()?;
        io.emit("", measures::batch(io.schema("")?, &scores, self)?)?;
        io.emit("summary", summary::batch(io.schema("summary")?, &measured, self.bootstrap)?)?;
        let curves = curves::of(&measured, &scores)?;
        io.emit("curves", curves::batch(io.schema("curves")?, &curves)?)?;
        let picture = curves::figure(&self.part, &curves).svg();
        let digest = io.keep(picture.as_bytes())?;
        io.emit(
            plot::stored::OUTPUT,
            plot::stored::batch(io.schema(plot::stored::OUTPUT)?, &[("roc", digest)])?,
        )
    }

    /// A threshold that was fitted where it is measured is only made where the spec says so.
    pub(super) fn threshold_problems(&self) -> Vec<Problem> {
        let Threshold::Fitted(fitted) = &self.threshold else { return Vec::new() };
        let (part, measured) = (&fitted.part, &self.part);
        let problem = match (fitted.compat, part == measured) {
            (false, true) => Problem::at(
                ["with", "threshold", "part"],
                format!("the threshold is fitted on `{part}`, which is the part that is measured"),
            )
            .help(
                "fit it on another part, such as `val`; or add `compat: true` to do as published figures do",
            ),
            (true, false) => Problem::at(
                ["with", "threshold", "part"],
                format!("`compat` fits the threshold on the part that is measured, and `part` is `{part}`"),
            )
            .help(format!("write `part: {measured}`, or leave `compat` out")),
            _ => return Vec::new(),
        };
        vec![problem]
    }

    fn check_parts(&self, by_finding: &BTreeMap<String, Parts>) -> anyhow::Result<()> {
        let has = |part: &str| {
            by_finding.values().any(|parts| parts.by_part.get(part).is_some_and(|rows| !rows.is_empty()))
        };
        ensure!(has(&self.part), "no row with a known truth is in the part `{}`", self.part);
        if let Threshold::Fitted(fitted) = &self.threshold {
            ensure!(
                has(&fitted.part),
                "no row with a known truth is in the part `{}`, on which the threshold is to be fitted",
                fitted.part
            );
        }
        Ok(())
    }

    /// The threshold of a finding; none where the rule cannot be fitted.
    fn threshold(&self, parts: &Parts) -> anyhow::Result<Option<f64>> {
        let fitted = match &self.threshold {
            Threshold::Number(number) => return Ok(Some(*number)),
            Threshold::Fitted(fitted) => fitted,
        };
        let rows = parts.by_part.get(&fitted.part).map_or(&[][..], Vec::as_slice);
        let (targets, scores) = rows::columns(rows);
        Ok(match fitted.rule {
            Rule::Youden => youden_threshold(&targets, &scores)?,
            Rule::F1 => f1_threshold(&targets, &scores)?,
            Rule::Closest => closest_to_corner_threshold(&targets, &scores)?,
        })
    }
}
