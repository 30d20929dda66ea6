//! Questions about reports: the rendered request, its key, and what it may take.

use std::collections::BTreeMap;

use argent_cache::Digest;
use argent_engine::Io;
use argent_llm::{Decoding, Message, Request, Role, estimate_tokens};
use serde_json::{Value, json};

use super::{LabelLlm, Mode};
use crate::label::STATES;

/// The states that a model may answer; `failed` is never an answer.
pub(super) const ASKED: [&str; 4] = [STATES[0], STATES[1], STATES[2], STATES[3]];

/// One question about one row.
pub(super) struct Question {
    pub(super) key: Digest,
    pub(super) request: Request,
    pub(super) ids: Vec<String>,
}

impl LabelLlm {
    /// The questions about one report: one, or one per finding.
    pub(super) fn questions(&self, io: &Io, sections: &[(&str, &str)]) -> anyhow::Result<Vec<Question>> {
        let loaded = self.loaded();
        let report: BTreeMap<&str, &str> = sections.iter().copied().collect();
        let all = json!(loaded.findings);
        match self.mode {
            Mode::Joint => {
                let context = json!({ "report": report, "findings": all });
                Ok(vec![self.question(io, &context, loaded.ids.clone())?])
            }
            Mode::PerFinding => loaded
                .findings
                .iter()
                .zip(&loaded.ids)
                .map(|(finding, id)| {
                    let context = json!({ "report": report, "findings": [finding], "finding": finding });
                    self.question(io, &context, vec![id.clone()])
                })
                .collect(),
        }
    }

    fn question(&self, io: &Io, context: &Value, ids: Vec<String>) -> anyhow::Result<Question> {
        let mut environment = minijinja::Environment::new();
        // A section that no report has is a mistake that `signature` found; one that this report lacks is empty.
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::Lenient);
        let content = environment
            .template_from_str(&self.loaded().prompt.text)?
            .render(minijinja::Value::from(minijinja::value::Serde(context)))?;
        let max_tokens = match self.max_tokens {
            Some(tokens) => tokens,
            // Twice the estimate, which may be low, and room for a server that writes the object over lines.
            None => u32::try_from(2 * longest_answer(&ids) + 64).unwrap_or(u32::MAX),
        };
        let request = Request {
            model: self.endpoint.model.clone(),
            identity: self.endpoint.identity.clone(),
            messages: vec![Message { role: Role::User, content }],
            schema: answer_schema(&ids),
            decoding: Decoding { temperature: Some(self.temperature), max_tokens, seed: None, top_p: None },
            sample: 0,
        };
        Ok(Question { key: io.question_key(&request.canonical()), request, ids })
    }
}

/// The schema of the answer: one object that gives each finding one of the states.
fn answer_schema(ids: &[String]) -> Value {
    let properties: BTreeMap<&str, Value> =
        ids.iter().map(|id| (id.as_str(), json!({ "enum": ASKED }))).collect();
    json!({ "type": "object", "properties": properties, "required": ids, "additionalProperties": false })
}

/// The tokens of a question, and of the longest answer to it.
pub(super) fn estimate(question: &Question) -> (u64, u64) {
    let text: u64 = question.request.messages.iter().map(|m| estimate_tokens(&m.content)).sum();
    let schema = estimate_tokens(&question.request.schema.to_string());
    (text + schema, longest_answer(&question.ids))
}

/// The tokens of the longest answer that the schema allows.
fn longest_answer(ids: &[String]) -> u64 {
    let longest: BTreeMap<&str, &str> = ids.iter().map(|id| (id.as_str(), "not_mentioned")).collect();
    estimate_tokens(&json!(longest).to_string())
}
