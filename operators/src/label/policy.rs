//! `label.policy`: from what a report says to what a model is trained on.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use argent_engine::operator::ConfigFiles;
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, RowError, Signature, column};
use arrow::array::{Array, AsArray, Float64Array, RecordBatch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::label::targets::{self, OfFinding, PackPolicies, Target, Targets};

/// Turns label states into training targets and weights.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelPolicy {
    /// What `uncertain` becomes.
    #[serde(default = "Target::pack")]
    pub uncertain: Target,
    /// What `not_mentioned` becomes.
    #[serde(default = "Target::zero")]
    pub not_mentioned: Target,
    /// What `failed` becomes; never a target by default.
    #[serde(default = "Target::mask")]
    pub failed: Target,
    /// By finding: what its states become, where that differs from the others'.
    #[serde(default)]
    pub per_finding: BTreeMap<String, OfFinding>,
    /// The finding pack whose own policy `pack` means; left out, `pack` means `mask`.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = "the pack enters the key by its policies"))]
    pub findings: Option<String>,
    #[serde(skip)]
    pack: PackPolicies,
}

impl LabelPolicy {
    fn targets(&self) -> Targets<'_> {
        let all = OfFinding {
            uncertain: Some(self.uncertain),
            not_mentioned: Some(self.not_mentioned),
            failed: Some(self.failed),
        };
        Targets { all, per_finding: &self.per_finding, pack: &self.pack }
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
        self.pack = targets::load(files, self.findings.as_deref(), &self.per_finding)?;
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
        let policy = self.targets();
        let mut answered = Vec::new();
        let mut targets = Vec::new();
        for row in 0..rows.num_rows() {
            let state = if state.is_valid(row) { state.value(row) } else { "" };
            match policy.target(finding.value(row), state) {
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
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failure_is_never_a_negative() {
        let policy: LabelPolicy = serde_json::from_value(json!({})).expect("defaults");
        let target = |state: &str| policy.targets().target("nodule", state);
        assert_eq!(target("failed"), Ok(None));
        assert_eq!(target("uncertain"), Ok(None));
        assert_eq!(target("not_mentioned"), Ok(Some(0.0)));
        assert_eq!(target("present"), Ok(Some(1.0)));
    }
}
