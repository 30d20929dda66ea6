//! The tries of questions, as the shared memo keeps them: what was asked, and what came of it.

use std::collections::BTreeMap;

use anyhow::Context;
use argent_cache::{Digest, Memo};
use argent_engine::{Io, RowError};
use argent_llm::{
    Answer, AnswerError, AnswerForm, Asked, Failure, FailureKind, Label, Request, parse_answer,
    parse_decisions,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::LabelLlm;
use super::question::{Question, asked};

/// The name of the memo of answers, shared by all steps and pipelines of a store.
pub(crate) const ANSWERS: &str = "llm answers";

/// What came of a question, as it is kept: beside what was asked, so that it can be shown and parsed again.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) request: Value,
    pub(super) outcome: Outcome,
    /// The call whose answer this one was asked to mend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mends: Option<String>,
}

/// What came of a question: an answer, or a failure that would come again.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Answered(Answer),
    Failed(Failure),
}

/// How a question stands, by all that is kept of it.
pub(super) enum Standing {
    /// Something is to be sent.
    Open(Box<ToSend>),
    /// It is answered, by this call.
    Labels(BTreeMap<String, Label>, Digest),
    /// It failed, and the same would come of it again.
    Failed(RowError),
}

/// The calls that a request has led to, and how it stands after them.
struct Chain {
    calls: Vec<(Digest, Kept)>,
    end: Standing,
}

/// A request that is to be sent.
#[derive(Clone)]
pub(super) struct ToSend {
    /// Where what comes of it will be kept.
    pub(super) key: Digest,
    pub(super) request: Request,
    /// The call that it mends.
    pub(super) mends: Option<Digest>,
}

impl LabelLlm {
    /// How a question stands. With `again` a question that failed in the end is asked once more from the start; what
    /// was paid for before stays, so each try has a key of its own.
    ///
    /// # Errors
    /// When the memo does not read.
    pub(super) fn standing(
        &self,
        io: &Io,
        answers: &Memo,
        question: &Question,
        again: bool,
    ) -> anyhow::Result<Standing> {
        let chain = self.chain(io, answers, question.request.clone(), &question.ids)?;
        if !again || !matches!(chain.end, Standing::Failed(_)) {
            return Ok(chain.end);
        }
        let number = last_try(io, answers, question.key)?.map_or(0, |last| last.number + 1);
        let key = try_key(io, question.key, number);
        Ok(Standing::Open(Box::new(ToSend { key, request: question.request.clone(), mends: None })))
    }

    /// The calls that a request has led to, and how it stands after them. What was asked first may have been malformed
    /// or cut short; then it stands as what was asked to mend it does, and where that was never asked, it is open.
    fn chain(&self, io: &Io, answers: &Memo, mut request: Request, ids: &[String]) -> anyhow::Result<Chain> {
        let (mut calls, mut mends) = (Vec::new(), None);
        for rung in 0.. {
            let key = io.question_key(&request.canonical());
            let Some(last) = last_try(io, answers, key)? else {
                return Ok(Chain { calls, end: Standing::Open(Box::new(ToSend { key, request, mends })) });
            };
            let end = match read(&last.kept, &asked(self, ids)) {
                Ok(labels) => Standing::Labels(labels, last.key),
                Err(error) => match self.mending(&request, &last.kept, &error, rung) {
                    Some(next) => {
                        (request, mends) = (next, Some(last.key));
                        calls.push((last.key, last.kept));
                        continue;
                    }
                    None => Standing::Failed(error.row_error(&last.kept)),
                },
            };
            calls.push((last.key, last.kept));
            return Ok(Chain { calls, end });
        }
        anyhow::bail!("a question has more answers than there are numbers")
    }

    /// All calls that the labels of a call's question took: of every sample, and what was asked first where an answer
    /// had to be mended.
    ///
    /// # Errors
    /// When the memo does not read, or no longer has the call.
    pub(super) fn family(
        &self,
        io: &Io,
        answers: &Memo,
        call: Digest,
    ) -> anyhow::Result<Vec<(Digest, Kept)>> {
        let first = kept(answers, &call)?.context("an answer is gone from the memo")?;
        if self.samples == 1 && first.mends.is_none() {
            return Ok(vec![(call, first)]);
        }
        let mut root = first;
        while let Some(mended) = &root.mends {
            root = kept(answers, &mended.parse()?)?.context("an answer is gone from the memo")?;
        }
        let root = Request::of_canonical(&root.request).context("a kept request does not read")?;
        let ids = ids_of(&root);
        let mut all = Vec::new();
        for sample in 0..self.samples {
            all.extend(self.chain(io, answers, Request { sample, ..root.clone() }, &ids)?.calls);
        }
        Ok(all)
    }

    /// The calls that a question has led to: the last try of it, and what was asked to mend that.
    ///
    /// # Errors
    /// When the memo does not read.
    pub(super) fn calls_of(
        &self,
        io: &Io,
        answers: &Memo,
        question: &Question,
    ) -> anyhow::Result<Vec<(Digest, Kept)>> {
        Ok(self.chain(io, answers, question.request.clone(), &question.ids)?.calls)
    }

    /// Why a call gives no labels, if it gives none.
    pub(super) fn problem(&self, kept: &Kept, ids: &[String]) -> Option<String> {
        read(kept, &asked(self, ids)).err().map(|error| error.row_error(kept).message)
    }

    /// Whether an answer gives the labels that its request asked for.
    pub(super) fn reads(&self, request: &Request, answer: &Answer) -> bool {
        parsed(answer, request.schema().is_none(), &asked(self, &ids_of(request))).is_ok()
    }

    /// What is asked next where a request brought no labels: an answer that was cut short is asked for once with room
    /// for four times as much, where the room was not the user's choice; a malformed one is asked for again with what
    /// was wrong and the schema in words, up to `repairs` times. Nothing else gets better by asking.
    fn mending(&self, asked: &Request, kept: &Kept, error: &NoLabels, rung: u32) -> Option<Request> {
        match (&kept.outcome, error) {
            (Outcome::Failed(failure), _) if failure.kind == FailureKind::Truncated => {
                let roomy = self.max_tokens.is_none() && rung == 0;
                roomy.then(|| {
                    let mut request = asked.clone();
                    request.decoding.max_tokens = asked.decoding.max_tokens.saturating_mul(4);
                    request
                })
            }
            (Outcome::Answered(_), NoLabels::Malformed(error)) if rung < self.repairs => {
                let mut request = asked.clone();
                let schema = request.schema()?.to_string();
                // In front, because not every model takes a turn of its own or instructions apart, and a model that
                // is shown its malformed answer tends to repeat it.
                let note = format!(
                    "An earlier answer to this was malformed (attempt {}): {error}. Answer with one JSON object of \
                     this JSON Schema and nothing else:\n{schema}\n\n",
                    rung + 1
                );
                request.messages.first_mut()?.content.insert_str(0, &note);
                Some(request)
            }
            _ => None,
        }
    }
}

/// Why a call brought no labels.
enum NoLabels {
    /// The answer is not what was asked for.
    Malformed(AnswerError),
    /// There is no answer.
    Failure,
}

impl NoLabels {
    fn row_error(&self, kept: &Kept) -> RowError {
        match (self, &kept.outcome) {
            (NoLabels::Malformed(error), Outcome::Answered(answer)) => {
                let kind = match error {
                    AnswerError::Refused { .. } => "refusal",
                    _ => "unparseable",
                };
                RowError { attempts: answer.attempts, ..RowError::lasting(kind, error.to_string()) }
            }
            (_, Outcome::Failed(failure)) => row_error(failure),
            (NoLabels::Failure, Outcome::Answered(_)) => RowError::lasting("failed", "there is no answer"),
        }
    }
}

/// The labels that a call gives, or why it gives none.
fn read(kept: &Kept, asked: &Asked<'_>) -> Result<BTreeMap<String, Label>, NoLabels> {
    let Outcome::Answered(answer) = &kept.outcome else { return Err(NoLabels::Failure) };
    parsed(answer, kept.request["questions"].is_array(), asked).map_err(NoLabels::Malformed)
}

fn parsed(
    answer: &Answer,
    decisions: bool,
    asked: &Asked<'_>,
) -> Result<BTreeMap<String, Label>, AnswerError> {
    if decisions { parse_decisions(&answer.text, asked) } else { parse_answer(&answer.text, asked) }
}

/// The last try of a question that is kept.
struct Try {
    number: u32,
    key: Digest,
    kept: Kept,
}

/// The key of a try of a question: of the first one the question's own.
fn try_key(io: &Io, question: Digest, number: u32) -> Digest {
    match number {
        0 => question,
        _ => io.question_key(&json!({ "question": question.to_string(), "try": number })),
    }
}

pub(super) fn kept(answers: &Memo, key: &Digest) -> anyhow::Result<Option<Kept>> {
    answers.get(key)?.map(|bytes| Ok(serde_json::from_slice(&bytes)?)).transpose()
}

fn last_try(io: &Io, answers: &Memo, question: Digest) -> anyhow::Result<Option<Try>> {
    let mut last = None;
    for number in 0.. {
        let key = try_key(io, question, number);
        let Some(kept) = kept(answers, &key)? else { break };
        last = Some(Try { number, key, kept });
    }
    Ok(last)
}

/// The findings that a request asks about.
fn ids_of(request: &Request) -> Vec<String> {
    match &request.answer {
        AnswerForm::Decisions(questions) => questions.iter().map(|question| question.name.clone()).collect(),
        AnswerForm::Json(schema) => {
            let ids = schema["required"].as_array().into_iter().flatten();
            ids.filter_map(|id| id.as_str().map(str::to_owned)).collect()
        }
    }
}

pub(super) fn row_error(failure: &Failure) -> RowError {
    let kind = serde_json::to_value(failure.kind).ok();
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or("failed").to_owned();
    RowError {
        kind,
        message: failure.message.clone(),
        attempts: failure.attempts,
        retryable: failure.retryable,
    }
}
