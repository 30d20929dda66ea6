//! Questions about reports: the rendered request, its key, and what it may take.

use std::collections::BTreeMap;

use argent_cache::Digest;
use argent_engine::Io;
use argent_llm::{
    AnswerForm, Asked, Decoding, Message, Options, Question as TypedQuestion, Request, Role, estimate_tokens,
    estimate_tokens_of,
};
use serde_json::{Value, json};

use super::few_shot::Examples;
use super::parameters::{EndpointKind, QuestionKind};
use super::{LabelLlm, Mode};
use crate::label::STATES;

/// The states that a model may answer; `failed` is never an answer.
pub(super) const ASKED: [&str; 4] = [STATES[0], STATES[1], STATES[2], STATES[3]];

/// What each state means, as decisions are told.
const MEANINGS: [&str; 4] = [
    "the report says that the finding is there",
    "the report says that the finding is not there",
    "the report leaves open whether the finding is there",
    "the report says nothing about the finding",
];

/// One question about one row.
pub(super) struct Question {
    pub(super) key: Digest,
    pub(super) request: Request,
    pub(super) ids: Vec<String>,
    /// What the report says, where evidence is looked up in it.
    pub(super) report: Option<String>,
}

/// What a question asked, as answers are read by it.
pub(super) fn asked<'a>(step: &LabelLlm, ids: &'a [String]) -> Asked<'a> {
    Asked { findings: ids, states: &ASKED, evidence: step.evidence }
}

impl LabelLlm {
    /// The questions about one report: one, or one per finding, each as often as it is sampled.
    pub(super) fn questions(
        &self,
        io: &Io,
        sections: &[(&str, &str)],
        examples: &Examples,
    ) -> anyhow::Result<Vec<Question>> {
        let loaded = self.loaded();
        let report: BTreeMap<&str, &str> = sections.iter().copied().collect();
        let mut questions = Vec::new();
        match self.mode {
            Mode::Joint => {
                let shown = examples.shown(sections, None);
                let context = json!({ "report": report, "findings": loaded.findings, "examples": shown });
                self.ask_samples(io, &context, &loaded.ids, &mut questions)?;
            }
            Mode::PerFinding => {
                for (finding, id) in loaded.findings.iter().zip(&loaded.ids) {
                    let shown = examples.shown(sections, Some(id));
                    let context = json!({
                        "report": report, "findings": [finding], "finding": finding, "examples": shown,
                    });
                    self.ask_samples(io, &context, std::slice::from_ref(id), &mut questions)?;
                }
            }
        }
        Ok(questions)
    }

    fn ask_samples(
        &self,
        io: &Io,
        context: &Value,
        ids: &[String],
        questions: &mut Vec<Question>,
    ) -> anyhow::Result<()> {
        let mut environment = minijinja::Environment::new();
        // A section that no report has is a mistake that `signature` found; one that this report lacks is empty.
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::Lenient);
        let content = environment
            .template_from_str(&self.loaded().prompt.text)?
            .render(minijinja::Value::from(minijinja::value::Serde(context)))?;
        let report = self.evidence.then(|| said(&context["report"]));
        for sample in 0..self.samples {
            let request = self.request(content.clone(), ids, sample);
            let key = io.question_key(&request.canonical());
            questions.push(Question { key, request, ids: ids.to_vec(), report: report.clone() });
        }
        Ok(())
    }

    fn request(&self, content: String, ids: &[String], sample: u32) -> Request {
        let max_tokens = match self.max_tokens {
            Some(tokens) => tokens,
            // Twice the estimate, which may be low, and room for a server that writes the object over lines.
            None => u32::try_from(2 * self.longest_answer(ids) + 64).unwrap_or(u32::MAX),
        };
        let answer = match self.endpoint.kind {
            EndpointKind::OpenaiDecisions => {
                AnswerForm::Decisions(ids.iter().map(|id| self.typed(id)).collect())
            }
            _ => AnswerForm::Json(self.answer_schema(ids)),
        };
        Request {
            dialect: self.endpoint.dialect(),
            model: self.endpoint.model.clone(),
            identity: self.endpoint.identity.clone(),
            messages: vec![Message { role: Role::User, content }],
            answer,
            decoding: self.decoding(max_tokens),
            sample,
        }
    }

    pub(super) fn decoding(&self, max_tokens: u32) -> Decoding {
        Decoding { temperature: self.temperature, max_tokens, seed: None, top_p: None }
    }

    /// The question of a decision about a finding.
    fn typed(&self, id: &str) -> TypedQuestion {
        let finding = self.loaded().findings.iter().find(|finding| finding["id"] == *id);
        let text = |key: &str| finding.and_then(|finding| finding[key].as_str()).unwrap_or_default();
        let (name, definition) = (text("name"), text("definition"));
        let (instructions, options) = match self.endpoint.questions {
            QuestionKind::Choice => {
                let choices = ASKED.iter().zip(MEANINGS).map(|(s, m)| ((*s).to_owned(), m.to_owned()));
                (format!("What does the report say of {name}?"), Options::Choice(choices.collect()))
            }
            QuestionKind::Predicate => (format!("The report says that there is {name}."), Options::Predicate),
        };
        let instructions =
            if definition.is_empty() { instructions } else { format!("{instructions} {definition}") };
        TypedQuestion { name: id.to_owned(), instructions, options }
    }

    /// The schema of the answer: one object that gives each finding one of the states, and with `evidence` the words
    /// that it rests on.
    fn answer_schema(&self, ids: &[String]) -> Value {
        let state = json!({ "type": "string", "enum": ASKED });
        let label = if self.evidence {
            json!({
                "type": "object",
                "properties": {
                    "evidence": {
                        "type": "string",
                        "description": "the words of the report that the state rests on, copied exactly; empty where \
                                        it says nothing",
                    },
                    "state": state,
                },
                "required": ["evidence", "state"],
                "additionalProperties": false,
            })
        } else {
            state
        };
        let properties: BTreeMap<&str, &Value> = ids.iter().map(|id| (id.as_str(), &label)).collect();
        json!({ "type": "object", "properties": properties, "required": ids, "additionalProperties": false })
    }

    /// The tokens of a question, and of the longest answer to it.
    pub(super) fn estimate(&self, question: &Question) -> (u64, u64) {
        (estimate_tokens_of(question.request.bytes_in()), self.longest_answer(&question.ids))
    }

    /// The tokens of the longest answer that is asked for; decisions write none.
    fn longest_answer(&self, ids: &[String]) -> u64 {
        if self.endpoint.kind == EndpointKind::OpenaiDecisions {
            return 0;
        }
        let longest: BTreeMap<&str, &str> = ids.iter().map(|id| (id.as_str(), STATES[3])).collect();
        let quotes = if self.evidence { EVIDENCE_TOKENS * ids.len() as u64 } else { 0 };
        estimate_tokens(&json!(longest).to_string()) + quotes
    }
}

/// What a quote may take beside its state: a sentence.
const EVIDENCE_TOKENS: u64 = 48;

/// The text of all sections.
fn said(report: &Value) -> String {
    let sections = report.as_object().into_iter().flatten();
    sections.filter_map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n")
}
