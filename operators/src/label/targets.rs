//! What a label's state is worth as a target: the rules that training and scoring share.

use std::collections::BTreeMap;

use argent_engine::Problem;
use argent_engine::operator::{ConfigFiles, nearest};
use argent_reports::{NotMentioned, Uncertain};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::findings;

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
    /// What the finding pack says for this finding; it says nothing of `failed`, which is then masked.
    Pack,
}

impl Target {
    pub(crate) const PACK: Target = Target::Named(Named::Pack);
    pub(crate) const ZERO: Target = Target::Named(Named::Zero);
    pub(crate) const MASK: Target = Target::Named(Named::Mask);

    pub(crate) fn pack() -> Target {
        Target::PACK
    }

    pub(crate) fn zero() -> Target {
        Target::ZERO
    }

    pub(crate) fn mask() -> Target {
        Target::MASK
    }
}

/// What the states of one finding become, where that differs from the others'.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfFinding {
    /// What `uncertain` becomes; left out, as for the others.
    #[serde(default)]
    pub uncertain: Option<Target>,
    /// What `not_mentioned` becomes; left out, as for the others.
    #[serde(default)]
    pub not_mentioned: Option<Target>,
    /// What `failed` becomes; left out, as for the others.
    #[serde(default)]
    pub failed: Option<Target>,
}

/// What a pack says of one finding's states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct PackPolicy {
    uncertain: Uncertain,
    not_mentioned: NotMentioned,
}

/// By finding: what a pack says.
pub(crate) type PackPolicies = BTreeMap<String, PackPolicy>;

/// Reads the policies of the pack that the parameter `findings` names, which enter the key.
///
/// # Errors
/// When the pack does not read, and for each finding of `per_finding` that it does not have.
pub(crate) fn load(
    files: &mut ConfigFiles,
    path: Option<&str>,
    per_finding: &BTreeMap<String, OfFinding>,
) -> Result<PackPolicies, Vec<Problem>> {
    let Some(path) = path else { return Ok(PackPolicies::new()) };
    let pack = findings::load(files, "findings", path)?.pack;
    let names: Vec<&str> = pack.findings.iter().map(|f| f.id.as_str()).collect();
    let absent = per_finding.keys().filter(|finding| !names.contains(&finding.as_str()));
    let problems: Vec<Problem> = absent
        .map(|finding| {
            Problem::at(["with", "per_finding", finding], format!("the pack has no finding `{finding}`"))
                .help(nearest(finding, &names, "findings"))
        })
        .collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    let policy =
        |f: &argent_reports::Finding| PackPolicy { uncertain: f.uncertain, not_mentioned: f.not_mentioned };
    let policies: PackPolicies = pack.findings.iter().map(|f| (f.id.clone(), policy(f))).collect();
    files.uses("findings", json!(policies));
    Ok(policies)
}

/// A policy: what states become, by finding.
pub(crate) struct Targets<'a> {
    /// What the states of all findings become; what is left out is masked.
    pub(crate) all: OfFinding,
    pub(crate) per_finding: &'a BTreeMap<String, OfFinding>,
    pub(crate) pack: &'a PackPolicies,
}

impl Targets<'_> {
    /// The target of a state; none: it has no part in a loss or a score.
    ///
    /// # Errors
    /// When the state is not one of the label states.
    pub(crate) fn target(&self, finding: &str, state: &str) -> Result<Option<f64>, String> {
        let own = self.per_finding.get(finding).copied().unwrap_or_default();
        let pack = self.pack.get(finding);
        let (policy, by_pack) = match state {
            "present" => return Ok(Some(1.0)),
            "absent" => return Ok(Some(0.0)),
            "uncertain" => {
                let by_pack = pack.and_then(|pack| match pack.uncertain {
                    Uncertain::Present => Some(1.0),
                    Uncertain::Absent => Some(0.0),
                    Uncertain::Mask => None,
                });
                (own.uncertain.or(self.all.uncertain), by_pack)
            }
            "not_mentioned" => {
                let by_pack = pack.and_then(|pack| match pack.not_mentioned {
                    NotMentioned::Absent => Some(0.0),
                    NotMentioned::Mask => None,
                });
                (own.not_mentioned.or(self.all.not_mentioned), by_pack)
            }
            "failed" => (own.failed.or(self.all.failed), None),
            _ => {
                return Err(
                    "the state is not one of present, absent, uncertain, not_mentioned, failed".to_owned()
                );
            }
        };
        Ok(match policy.unwrap_or(Target::MASK) {
            Target::Number(target) => Some(target),
            Target::Named(Named::One) => Some(1.0),
            Target::Named(Named::Zero) => Some(0.0),
            Target::Named(Named::Mask) => None,
            Target::Named(Named::Pack) => by_pack,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(uncertain: Uncertain, not_mentioned: NotMentioned) -> PackPolicies {
        BTreeMap::from([("nodule".to_owned(), PackPolicy { uncertain, not_mentioned })])
    }

    #[test]
    fn a_failure_is_no_target_whatever_the_pack_says() {
        let all = OfFinding {
            uncertain: Some(Target::PACK),
            not_mentioned: Some(Target::PACK),
            failed: Some(Target::PACK),
        };
        let pack = policies(Uncertain::Present, NotMentioned::Mask);
        let targets = Targets { all, per_finding: &BTreeMap::new(), pack: &pack };
        assert_eq!(targets.target("nodule", "uncertain"), Ok(Some(1.0)));
        assert_eq!(targets.target("nodule", "not_mentioned"), Ok(None));
        assert_eq!(targets.target("nodule", "failed"), Ok(None));
        assert_eq!(targets.target("mass", "uncertain"), Ok(None), "the pack says nothing of it");
        assert!(targets.target("nodule", "1").is_err());
    }

    #[test]
    fn one_finding_may_differ_from_the_others() {
        let all =
            OfFinding { uncertain: Some(Target::PACK), not_mentioned: Some(Target::ZERO), failed: None };
        let own = OfFinding { uncertain: Some(Target::Number(0.3)), ..OfFinding::default() };
        let per_finding = BTreeMap::from([("nodule".to_owned(), own)]);
        let pack = policies(Uncertain::Absent, NotMentioned::Absent);
        let targets = Targets { all, per_finding: &per_finding, pack: &pack };
        assert_eq!(targets.target("nodule", "uncertain"), Ok(Some(0.3)));
        assert_eq!(targets.target("nodule", "not_mentioned"), Ok(Some(0.0)));
        assert_eq!(targets.target("nodule", "failed"), Ok(None));
    }
}
