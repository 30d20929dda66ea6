//! `eval.agreement`: what a labeling is worth against a truth, and whether another one is better.

pub(crate) mod cases;
mod comparison;
pub(crate) mod measures;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use argent_engine::operator::{Change, ConfigFiles, Truth, Versions, nearest};
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, Signature, column};
use argent_stats::{Bootstrap, StatsError, cluster_bootstrap, cluster_bootstrap_bca};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::eval::cohort::LEVEL;
use crate::eval::versions::{self, Policies};
use crate::label::targets::{self, OfFinding, PackPolicies, Target, Targets};

/// Measures a labeling against a truth, per finding and on average: F1, sensitivity, specificity, predictive values,
/// kappa, AC1 and others, with intervals; AUC where the labels have scores. With `other`, tells whether that
/// labeling differs. States become yes or no by one policy on both sides. A failed label is neither: it is counted
/// in `failed` and has no part in any measure, so that a measure speaks of the labels that there are. What the rows
/// do not define is null, never 0 or 0.5.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalAgreement {
    /// The part that is measured, where there is a split.
    #[serde(default = "test")]
    pub part: String,
    /// What `uncertain` counts as: from a target of 0.5 on it is a yes.
    #[serde(default = "Target::pack")]
    pub uncertain: Target,
    /// What `not_mentioned` counts as.
    #[serde(default = "Target::zero")]
    pub not_mentioned: Target,
    /// By finding: what its states count as, where that differs from the others'.
    #[serde(default)]
    pub per_finding: BTreeMap<String, OfFinding>,
    /// The finding pack whose own policy `pack` means; left out, `pack` means `mask`.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = "the pack enters the key by its policies"))]
    pub findings: Option<String>,
    /// The id column of the labels whose equal values stay together in a draw; the patient is better than the report
    /// where it is known.
    #[serde(default = "id")]
    pub group: String,
    /// How intervals of F1, kappa and averages are drawn.
    #[serde(default)]
    pub bootstrap: Draws,
    /// The share of rows that may lack their match before the step fails.
    #[serde(default = "unmatched")]
    #[schemars(range(min = 0.0, max = 1.0), extend("x-not-in-key" = "it decides whether there is a result, not which"))]
    pub unmatched: f64,
    #[serde(skip)]
    pack: PackPolicies,
}

/// A bootstrap over whole groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Draws {
    /// How many draws.
    #[serde(default = "draws")]
    #[schemars(range(min = 1))]
    pub draws: usize,
    /// The seed.
    #[serde(default)]
    pub seed: u64,
    /// How an interval is read off the draws; that of a difference is always by percentiles.
    #[serde(default)]
    pub interval: IntervalKind,
}

/// How an interval is read off the draws.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntervalKind {
    /// Percentiles of the draws.
    #[default]
    Percentile,
    /// Percentiles corrected for bias and skewness; better for measures near 1, and slower.
    Bca,
}

impl Default for Draws {
    fn default() -> Draws {
        Draws { draws: draws(), seed: 0, interval: IntervalKind::default() }
    }
}

impl Draws {
    /// The interval of a statistic of rows; none where every draw gives the same, because that tells nothing of how
    /// sure it is.
    pub(crate) fn interval(
        &self,
        clusters: &[u32],
        statistic: impl Fn(&[usize]) -> Option<f64> + Sync,
    ) -> Result<Option<Bootstrap>, StatsError> {
        let drawn = match self.interval {
            IntervalKind::Percentile => cluster_bootstrap(clusters, self.draws, self.seed, LEVEL, statistic)?,
            IntervalKind::Bca => cluster_bootstrap_bca(clusters, self.draws, self.seed, LEVEL, statistic)?,
        };
        Ok(drawn.filter(|drawn| drawn.interval.low < drawn.interval.high))
    }
}

fn test() -> String {
    "test".into()
}

fn id() -> String {
    "id".into()
}

fn draws() -> usize {
    1000
}

fn unmatched() -> f64 {
    argent_engine::joining::UNMATCHED
}

impl EvalAgreement {
    fn targets(&self) -> Targets<'_> {
        let (uncertain, not_mentioned) = (Some(self.uncertain), Some(self.not_mentioned));
        let all = OfFinding { uncertain, not_mentioned, failed: None };
        Targets { all, per_finding: &self.per_finding, pack: &self.pack }
    }
}

impl Operator for EvalAgreement {
    fn ports(&self) -> Vec<Port> {
        let optional = |port: Port| Port { optional: true, ..port };
        vec![
            Port::new(
                "labels",
                "The labeling that is measured.",
                &[Needed::text("id"), Needed::text("finding"), Needed::text("state")],
            ),
            Port::new(
                "truth",
                "The truth: states, or targets and weights.",
                &[Needed::text("id"), Needed::text("finding")],
            ),
            optional(Port::new(
                "other",
                "Another labeling to compare with.",
                &[Needed::text("id"), Needed::text("finding"), Needed::text("state")],
            )),
            optional(Port::new(
                "split",
                "Parts, as `split.groups` makes them.",
                &[Needed::text("id"), Needed::text("part")],
            )),
        ]
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        self.pack = targets::load(files, self.findings.as_deref(), &self.per_finding)?;
        Ok(())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let problems = self.problems(inputs);
        if !problems.is_empty() {
            return Err(problems);
        }
        let on = |port: &str| inputs.ports.get(port).map(|input| input.on.clone());
        let labels = cases::label_columns(inputs, "labels")
            .into_iter()
            .chain([self.group.clone()])
            .chain(["truth", "other", "split"].iter().filter_map(|port| on(port)));
        let truth = cases::truth_columns(inputs).into_iter().map(str::to_owned);
        let truth = truth.chain([inputs.port("truth").on.clone(), "finding".to_owned()]);
        let mut signature = Signature::new(column::schema(measures::fields()), &["finding"])
            .output("summary", column::schema(measures::summary_fields()), &["average", "measure"])
            .output(
                "confusion",
                column::schema(measures::confusion_fields()),
                &["finding", "truth_state", "state"],
            )
            .reads("labels", labels.collect::<BTreeSet<_>>())
            .reads("truth", truth.collect::<BTreeSet<_>>());
        if let Some(on) = on("other") {
            let other = cases::label_columns(inputs, "other").into_iter().chain([on]);
            signature = signature
                .output("comparison", column::schema(comparison::fields()), &["finding"])
                .output(
                    "comparison_summary",
                    column::schema(comparison::summary_fields()),
                    &["average", "measure"],
                )
                .reads("other", other.collect::<BTreeSet<_>>());
        }
        if let Some(on) = on("split") {
            signature = signature.reads("split", BTreeSet::from([on, "part".to_owned()]));
        }
        Ok(signature)
    }

    fn truth(&self) -> Option<Truth> {
        Some(Truth { port: "truth", held_out: Some(("split", self.part.clone())) })
    }

    fn compare(&self, versions: &Versions) -> anyhow::Result<Vec<Change>> {
        let targets = self.targets();
        let policies = Policies { labels: &targets, truth: &targets };
        versions::compare(versions, &policies, &self.bootstrap, &self.group)
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let cases = self.cases(io)?;
        ensure!(
            cases.rows.iter().any(|case| case.decided().is_some()),
            "no label with a known truth is measured{}",
            if io.has_input("split") {
                format!(": none is in the part `{}`", self.part)
            } else {
                String::new()
            }
        );
        let scores = measures::scores(&cases, &self.bootstrap)?;
        io.emit("", measures::batch(io.schema("")?, &scores)?)?;
        io.emit("summary", measures::summary(io.schema("summary")?, &cases, &scores, &self.bootstrap)?)?;
        io.emit("confusion", measures::confusion(io.schema("confusion")?, &cases)?)?;
        if io.has_input("other") {
            let schemas = (io.schema("comparison")?, io.schema("comparison_summary")?);
            let (compared, summary) = comparison::compared(schemas, &cases, &self.bootstrap)?;
            io.emit("comparison", compared)?;
            io.emit("comparison_summary", summary)?;
        }
        Ok(())
    }
}

impl EvalAgreement {
    fn problems(&self, inputs: &Inputs) -> Vec<Problem> {
        let mut problems = Vec::new();
        for port in ["truth", "other", "split"] {
            let Some(input) = inputs.ports.get(port) else { continue };
            let missing = inputs.missing("labels", &[input.on.as_str()]).into_iter();
            problems.extend(missing.map(|p| Problem { path: vec!["match".into(), port.into()], ..p }));
        }
        if cases::truth_columns(inputs).is_empty() {
            problems.push(Problem::at(
                ["from", "truth"],
                "the table has neither `state` nor `target` and `weight`",
            ));
        }
        let schema = &inputs.port("labels").schema;
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        if !names.contains(&self.group.as_str()) {
            let problem =
                Problem::at(["with", "group"], format!("the labels have no column `{}`", self.group));
            problems.push(problem.help(nearest(&self.group, &names, "columns")));
        }
        problems
    }
}
