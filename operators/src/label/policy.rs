//! `label.policy`: from what a report says to what a model is trained on.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use argent_engine::operator::ConfigFiles;
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, RowError, Signature, column};
use argent_reports::Uncertain;
use arrow::array::{Array, AsArray, Float64Array, RecordBatch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::findings;

/// Turns label states into training targets and weights.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelPolicy {
    /// What `uncertain` becomes.
    #[serde(default = "pack")]
    pub uncertain: Target,
    /// What `not_mentioned` becomes.
    #[serde(default = "zero")]
    pub not_mentioned: Target,
    /// What `failed` becomes; never a target by default.
    #[serde(default = "mask")]
    pub failed: Target,
    /// The finding pack whose own policy `pack` means; left out, `pack` means `mask`.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = "the pack enters the key by its policies"))]
    pub findings: Option<String>,
    #[serde(skip)]
    by_finding: BTreeMap<String, Uncertain>,
}

/// What a state becomes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Target {
    /// A soft target between 0 and 1.
    Number(#[schemars(range(min = 0.0, max = 1.0))] f64),
    /// A named choice.
    Named(Named),
}

/// A named choice of target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Named {
    /// The target 1.
    One,
    /// The target 0.
    Zero,
    /// No target: the weight is 0.
    Mask,
    /// What the finding pack says for this finding.
    Pack,
}

fn pack() -> Target {
    Target::Named(Named::Pack)
}

fn zero() -> Target {
    Target::Named(Named::Zero)
}

fn mask() -> Target {
    Target::Named(Named::Mask)
}

impl LabelPolicy {
    /// The target of a state; none: it has no part in the loss.
    ///
    /// # Errors
    /// When the state is not one of the label states.
    fn target(&self, finding: &str, state: &str) -> Result<Option<f64>, String> {
        let policy = match state {
            "present" => return Ok(Some(1.0)),
            "absent" => return Ok(Some(0.0)),
            "uncertain" => self.uncertain,
            "not_mentioned" => self.not_mentioned,
            "failed" => self.failed,
            _ => {
                return Err(
                    "the state is not one of present, absent, uncertain, not_mentioned, failed".to_owned()
                );
            }
        };
        let by_pack = || match self.by_finding.get(finding) {
            Some(Uncertain::Present) => Some(1.0),
            Some(Uncertain::Absent) => Some(0.0),
            Some(Uncertain::Mask) | None => None,
        };
        Ok(match policy {
            Target::Number(target) => Some(target),
            Target::Named(Named::One) => Some(1.0),
            Target::Named(Named::Zero) => Some(0.0),
            Target::Named(Named::Mask) => None,
            Target::Named(Named::Pack) => by_pack(),
        })
    }
}

impl Operator for LabelPolicy {
    fn ports(&self) -> Vec<Port> {
        vec![Port::new(
            "labels",
            "A table of labels.",
            &[Needed::text("id"), Needed::text("finding"), Needed::text("state")],
        )]
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        let Some(path) = &self.findings else { return Ok(()) };
        let pack = findings::load(files, "findings", path)?.pack;
        self.by_finding = pack.findings.iter().map(|f| (f.id.clone(), f.uncertain)).collect();
        files.uses("findings", json!(self.by_finding));
        Ok(())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let own = column::schema([column::number("target"), column::number("weight")]);
        Ok(Signature::new(own, &["id", "finding"])
            .reads("labels", ["finding", "state"])
            .carries(inputs.ids("labels")))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let rows = io.rows().clone();
        let finding = rows.column_by_name("finding").context("labels have findings")?.as_string::<i32>();
        let state = rows.column_by_name("state").context("labels have states")?.as_string::<i32>();
        let mut answered = Vec::new();
        let mut targets = Vec::new();
        for row in 0..rows.num_rows() {
            let state = if state.is_valid(row) { state.value(row) } else { "" };
            match self.target(finding.value(row), state) {
                Ok(target) => {
                    answered.push(row);
                    targets.push(target);
                }
                Err(reason) => io.refuse(row, RowError::lasting("state", reason))?,
            }
        }
        let weights: Float64Array =
            targets.iter().map(|t| Some(if t.is_some() { 1.0 } else { 0.0 })).collect();
        let targets: Float64Array = targets.into_iter().collect();
        let batch = RecordBatch::try_new(io.schema("")?, vec![Arc::new(targets), Arc::new(weights)])?;
        io.answer(&answered, &vec![1; answered.len()], &batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_never_a_negative() {
        let policy: LabelPolicy = serde_json::from_value(json!({})).expect("defaults");
        assert_eq!(policy.target("nodule", "failed"), Ok(None));
        assert_eq!(policy.target("nodule", "uncertain"), Ok(None));
        assert_eq!(policy.target("nodule", "not_mentioned"), Ok(Some(0.0)));
        assert_eq!(policy.target("nodule", "present"), Ok(Some(1.0)));
        assert!(policy.target("nodule", "1").is_err());
    }

    #[test]
    fn the_pack_decides_where_it_is_asked() {
        let mut policy: LabelPolicy = serde_json::from_value(json!({"not_mentioned": 0.25})).expect("reads");
        policy.by_finding.insert("nodule".into(), Uncertain::Present);
        assert_eq!(policy.target("nodule", "uncertain"), Ok(Some(1.0)));
        assert_eq!(policy.target("nodule", "not_mentioned"), Ok(Some(0.25)));
    }
}
