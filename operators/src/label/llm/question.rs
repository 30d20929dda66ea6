//! Questions about reports: the rendered request, its key, and what it may take.

use std::collections::BTreeMap;
use std::sync::Arc;

use argent_cache::Digest;
use argent_engine::{CommonPart, Io, QuestionKeys};
use argent_llm::{
    AnswerForm, Asked, Decoding, Message, Options, Question as TypedQuestion, Request, Role, Schema,
    estimate_tokens, estimate_tokens_of,
};
use minijinja::context;
use serde_json::{Value, json};

use super::few_shot::Examples;
use super::parameters::QuestionKind;
use super::{LabelLlm, Mode, local};
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
    /// What it asks about, the same for every report.
    pub(super) about: Arc<About>,
    /// What the report says, where evidence is looked up in it.
    pub(super) report: Option<Arc<str>>,
}

/// What questions ask about: all findings, or one of them.
pub(super) struct About {
    pub(super) ids: Vec<String>,
    /// The findings as a prompt sees them, and asked one by one, the finding.
    shown: minijinja::Value,
    /// The examples as a prompt sees them, for a report that is none of them.
    examples: minijinja::Value,
    form: AnswerForm,
    /// The form as it enters each question's key.
    common: CommonPart,
    /// The tokens of the longest answer that is asked for.
    pub(super) longest: u64,
}

/// What is asked about reports: all that is the same for every report is made once.
pub(crate) struct Asker<'a> {
    step: &'a LabelLlm,
    examples: &'a Examples,
    keys: QuestionKeys,
    named: NamedModel,
    prompt: minijinja::Environment<'a>,
    about: Vec<Arc<About>>,
}

/// What requests call the model.
struct NamedModel {
    name: String,
    identity: Option<String>,
}

/// The name of the prompt among the templates.
const PROMPT: &str = "prompt";

impl<'a> Asker<'a> {
    /// # Errors
    /// When the prompt is no template, or a model in process cannot be read.
    pub(crate) fn new(step: &'a LabelLlm, io: &Io, examples: &'a Examples) -> anyhow::Result<Asker<'a>> {
        let loaded = step.loaded();
        let (keys, named) = (io.question_keys(), step.named_model(io)?);
        let mut prompt = minijinja::Environment::new();
        // A section that no report has is a mistake that `signature` found; one that this report lacks is empty.
        prompt.set_undefined_behavior(minijinja::UndefinedBehavior::Lenient);
        prompt.add_template(PROMPT, &loaded.prompt.text)?;
        let about = |ids: &[String], shown: minijinja::Value, finding: Option<&str>| {
            let examples = seen(&examples.shown(&[], finding));
            let form = step.form(ids);
            let (name, canonical) = form.canonical();
            let common = CommonPart::new(name, &canonical);
            Arc::new(About {
                ids: ids.to_vec(),
                shown,
                examples,
                form,
                common,
                longest: step.longest_answer(ids),
            })
        };
        let about = match step.mode {
            Mode::Joint => {
                let findings = seen(&json!(loaded.findings));
                vec![about(&loaded.ids, context! { findings }, None)]
            }
            Mode::PerFinding => {
                let each = loaded.findings.iter().zip(&loaded.ids).map(|(finding, id)| {
                    let shown = context! { findings => seen(&json!([finding])), finding => seen(finding) };
                    about(std::slice::from_ref(id), shown, Some(id))
                });
                each.collect()
            }
        };
        Ok(Asker { step, examples, keys, named, prompt, about })
    }

    /// The questions about one report: one, or one per finding, each as often as it is sampled.
    ///
    /// # Errors
    /// When the prompt does not render.
    pub(super) fn questions(&self, sections: &[(&str, &str)]) -> anyhow::Result<Vec<Question>> {
        let report: BTreeMap<&str, &str> = sections.iter().copied().collect();
        let said = self.step.evidence.then(|| said(sections));
        let is_example = self.examples.has(sections);
        let report = minijinja::Value::from(minijinja::value::Serde(report));
        let template = self.prompt.get_template(PROMPT)?;
        let mut questions = Vec::new();
        for about in &self.about {
            let examples = if is_example {
                let finding = (self.step.mode == Mode::PerFinding).then(|| about.ids[0].as_str());
                seen(&self.examples.shown(sections, finding))
            } else {
                about.examples.clone()
            };
            let report = report.clone();
            let content = template.render(context! { report, examples, ..about.shown.clone() })?;
            for sample in 0..self.step.samples {
                let request = self.request(content.clone(), about, sample);
                let key = self.keys.key_with(&request.canonical_parts(), &about.common);
                questions.push(Question { key, request, about: about.clone(), report: said.clone() });
            }
        }
        Ok(questions)
    }

    fn request(&self, content: String, about: &About, sample: u32) -> Request {
        let step = self.step;
        let max_tokens = match step.max_tokens {
            Some(tokens) => tokens,
            // Twice the estimate, which may be low, and room for a server that writes the object over lines.
            None => u32::try_from(2 * about.longest + 64).unwrap_or(u32::MAX),
        };
        let content = if step.endpoint.is_local() { local::with_legend(&content) } else { content };
        Request {
            dialect: step.endpoint.dialect(),
            model: self.named.name.clone(),
            identity: self.named.identity.clone(),
            messages: vec![Message { role: Role::User, content }],
            answer: about.form.clone(),
            decoding: step.decoding(max_tokens),
            sample,
        }
    }
}

/// A value as a prompt sees it.
fn seen(value: &Value) -> minijinja::Value {
    minijinja::Value::from(minijinja::value::Serde(value))
}

/// What a question asked, as answers are read by it.
pub(super) fn asked<'a>(step: &LabelLlm, ids: &'a [String]) -> Asked<'a> {
    Asked { findings: ids, states: &ASKED, evidence: step.evidence }
}

impl LabelLlm {
    /// The model's name and identity. A model in process is what its files are, wherever they lie: its name is its
    /// architecture, and its identity their digest, in front of the user's own.
    fn named_model(&self, io: &Io) -> anyhow::Result<NamedModel> {
        let own = self.endpoint.identity.clone();
        let Some(local) = &self.loaded().local else {
            return Ok(NamedModel { name: self.endpoint.model.clone(), identity: own });
        };
        let digest = local.identity(io)?;
        let identity = own.map_or_else(|| digest.clone(), |own| format!("{digest} {own}"));
        Ok(NamedModel { name: local.outline.architecture.clone(), identity: Some(identity) })
    }

    pub(super) fn decoding(&self, max_tokens: u32) -> Decoding {
        Decoding { temperature: self.temperature, max_tokens, seed: None, top_p: None }
    }

    /// What an answer about these findings looks like.
    fn form(&self, ids: &[String]) -> AnswerForm {
        match self.endpoint.decides() {
            true => AnswerForm::Decisions(ids.iter().map(|id| self.typed(id)).collect()),
            false => AnswerForm::Json(Schema::new(self.answer_schema(ids))),
        }
    }

    /// What a model in process is asked behind a prompt: a question per finding.
    pub(super) fn sheet_questions(&self) -> Vec<String> {
        self.loaded().ids.iter().map(|id| self.typed(id).instructions).collect()
    }

    /// The question of a decision about a finding.
    fn typed(&self, id: &str) -> TypedQuestion {
        let finding = self.loaded().findings.iter().find(|finding| finding["id"] == *id);
        let text = |key: &str| finding.and_then(|finding| finding[key].as_str()).unwrap_or_default();
        let (name, definition) = (text("name"), text("definition"));
        let choices = ASKED.iter().zip(MEANINGS).map(|(s, m)| ((*s).to_owned(), m.to_owned())).collect();
        if self.endpoint.is_local() {
            // The prompt has the definitions, as far as its author wants them.
            let (instructions, options) = (local::question(name), Options::Choice(choices));
            return TypedQuestion { name: id.to_owned(), instructions, options };
        }
        let (instructions, options) = match self.endpoint.questions {
            QuestionKind::Choice => {
                (format!("What does the report say of {name}?"), Options::Choice(choices))
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

    /// The tokens of the longest answer that is asked for; decisions write none.
    fn longest_answer(&self, ids: &[String]) -> u64 {
        if self.endpoint.decides() {
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
fn said(sections: &[(&str, &str)]) -> Arc<str> {
    sections.iter().map(|(_, text)| *text).collect::<Vec<_>>().join("\n").into()
}

impl Question {
    /// The tokens of the question, and of the longest answer to it.
    pub(super) fn estimate(&self) -> (u64, u64) {
        (estimate_tokens_of(self.request.bytes_in()), self.about.longest)
    }
}
