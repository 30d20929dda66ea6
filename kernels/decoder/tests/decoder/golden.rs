//! Reference answers of transformers, from `goldens/make.py`.

use std::collections::BTreeMap;

use argent_decoder::{Answer, Message, Role};
use serde::Deserialize;
use serde_json::Value;

/// `goldens/decisions.json`.
#[derive(Deserialize)]
pub(crate) struct Golden {
    pub(crate) template: String,
    pub(crate) rendered: Vec<Rendered>,
    pub(crate) introduction: String,
    pub(crate) reports: Vec<String>,
    pub(crate) questions: Vec<String>,
    pub(crate) options: Vec<String>,
    pub(crate) cases: BTreeMap<String, Case>,
}

/// A conversation and its text.
#[derive(Deserialize)]
pub(crate) struct Rendered {
    pub(crate) messages: Vec<StoredMessage>,
    pub(crate) text: String,
}

#[derive(Deserialize)]
pub(crate) struct StoredMessage {
    role: String,
    content: String,
}

/// A model and its answers, by report and question.
#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) config: Value,
    pub(crate) answers: Vec<Vec<StoredDecision>>,
}

#[derive(Deserialize)]
pub(crate) struct StoredDecision {
    probabilities: Vec<f64>,
    label_mass: f64,
}

pub(crate) const TOKENIZER: &str = include_str!("../../goldens/tokenizer.json");

pub(crate) fn golden() -> Golden {
    serde_json::from_str(include_str!("../../goldens/decisions.json")).unwrap()
}

impl Golden {
    /// The conversations about each report; Mistral's had no message of the system.
    pub(crate) fn prompts(&self, system: bool) -> Vec<Vec<Message>> {
        let user = |content: String| Message { role: Role::User, content };
        let prompt = |report: &String| match system {
            true => {
                vec![Message { role: Role::System, content: self.introduction.clone() }, user(report.clone())]
            }
            false => vec![user(format!("{}\n\n{report}", self.introduction))],
        };
        self.reports.iter().map(prompt).collect()
    }
}

impl From<&StoredMessage> for Message {
    fn from(stored: &StoredMessage) -> Self {
        let role = match stored.role.as_str() {
            "system" => Role::System,
            "user" => Role::User,
            _ => Role::Assistant,
        };
        Self { role, content: stored.content.clone() }
    }
}

impl StoredDecision {
    pub(crate) fn numbers(&self) -> Vec<f64> {
        self.probabilities.iter().copied().chain([self.label_mass]).collect()
    }
}

/// All numbers of an answer, question by question: the probabilities and the mass.
pub(crate) fn numbers(answer: &Answer) -> Vec<f64> {
    let decision = |decision: &argent_decoder::Decision| {
        let mass = [decision.label_mass];
        decision.probabilities.iter().copied().chain(mass).collect::<Vec<f64>>()
    };
    answer.decisions.iter().flat_map(decision).collect()
}

/// Asserts equal lengths and a largest relative difference of `tolerance`.
pub(crate) fn assert_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: another number of values");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        // A NaN fails too: no comparison with it holds.
        assert!(
            (found - expected).abs() <= tolerance * expected.abs().max(1e-3),
            "{what}[{index}]: {found}, expected {expected} within a share of {tolerance}"
        );
    }
}
