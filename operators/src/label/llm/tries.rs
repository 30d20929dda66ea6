//! The tries of questions, as the shared memo keeps them: what was asked, and what came of it.

use std::collections::BTreeMap;

use anyhow::Context;
use argent_cache::{Digest, Memo};
use argent_engine::{Io, QuestionKeys, RowError};
use argent_llm::{
    Answer, AnswerError, AnswerForm, Asked, Failure, FailureKind, Label, Request, Usage, parse_answer,
    parse_decisions,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::LabelLlm;
use super::question::{Question, asked};

/// The name of the memo of answers, shared by all steps and pipelines of a store.
pub(crate) const ANSWERS: &str = "llm answers";

/// What is said of a call that nothing is kept of any more.
const GONE: &str = "an answer is gone from the memo";

/// What came of a request, as it is kept: beside what was asked, so that it can be shown and parsed again.
#[derive(Serialize)]
struct Kept<'a> {
    request: Box<RawValue>,
    outcome: &'a Outcome,
    /// The call whose answer this one was asked to mend.
    #[serde(skip_serializing_if = "Option::is_none")]
    mends: Option<String>,
}

/// What came of a request: an answer, or a failure that would come again.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Answered(Answer),
    Failed(Failure),
}

/// As much of what is kept as labels are made of.
#[derive(Deserialize)]
struct KeptOutcome {
    outcome: Read,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Read {
    Answered(ReadAnswer),
    Failed(Failure),
}

#[derive(Deserialize)]
struct ReadAnswer {
    text: String,
    attempts: u32,
}

/// A call, as it is shown: what was asked, what came of it and what it took.
#[derive(Deserialize)]
pub(super) struct Call {
    pub(super) request: Box<RawValue>,
    pub(super) outcome: CallOutcome,
    #[serde(default)]
    mends: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CallOutcome {
    Answered(CallAnswer),
    Failed(Failure),
}

#[derive(Deserialize)]
pub(super) struct CallAnswer {
    pub(super) text: String,
    pub(super) model: String,
    pub(super) usage: Option<Usage>,
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

/// What is kept of the questions of a step.
pub(super) struct Tries<'a> {
    step: &'a LabelLlm,
    keys: QuestionKeys,
    answers: Memo,
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

impl<'a> Tries<'a> {
    /// # Errors
    /// When the memo does not open.
    pub(super) fn open(step: &'a LabelLlm, io: &Io) -> anyhow::Result<Tries<'a>> {
        Ok(Tries { step, keys: io.question_keys(), answers: io.memo(ANSWERS)? })
    }

    /// The memo of answers.
    pub(super) fn memo(&self) -> &Memo {
        &self.answers
    }

    /// How a question stands. With `again` a question that failed in the end is asked once more from the start; what
    /// was paid for before stays, so each try has a key of its own.
    ///
    /// # Errors
    /// When the memo does not read.
    pub(super) fn standing(&self, question: &Question, again: bool) -> anyhow::Result<Standing> {
        let first = self.answers.get(&question.key)?;
        self.standing_after(question, first.as_deref(), again)
    }

    /// How questions stand, in their order: what is kept of them is read at once, which is much faster than one by one.
    ///
    /// # Errors
    /// When the memo does not read.
    pub(super) fn standings(&self, questions: &[&Question], again: bool) -> anyhow::Result<Vec<Standing>> {
        let keys: Vec<Digest> = questions.iter().map(|question| question.key).collect();
        let first = self.answers.get_many(&keys)?;
        let standing =
            |(place, question): (usize, &&Question)| self.standing_after(question, first.get(place), again);
        questions.par_iter().enumerate().map(standing).collect()
    }

    /// As [`Tries::standing`], with what is kept of the question's first try.
    fn standing_after(
        &self,
        question: &Question,
        first: Option<&[u8]>,
        again: bool,
    ) -> anyhow::Result<Standing> {
        let Some(first) = first else {
            let (key, request) = (question.key, question.request.clone());
            return Ok(Standing::Open(Box::new(ToSend { key, request, mends: None })));
        };
        // Most questions have been asked once, and the answer reads.
        if !self.answers.contains(&self.try_key(question.key, 1)) {
            let kept: KeptOutcome = serde_json::from_slice(first)?;
            let asked = asked(self.step, &question.about.ids);
            if let Ok(labels) = read(&kept.outcome, &question.request, &asked) {
                return Ok(Standing::Labels(labels, question.key));
            }
        }
        let end = self.chain(question.key, &question.request, &question.about.ids, &mut |_| {})?;
        if !again || !matches!(end, Standing::Failed(_)) {
            return Ok(end);
        }
        let key = self
            .last_try(question.key)?
            .map_or(question.key, |(number, ..)| self.try_key(question.key, number + 1));
        Ok(Standing::Open(Box::new(ToSend { key, request: question.request.clone(), mends: None })))
    }

    /// How a request stands, after the calls that it has led to. What was asked first may have been malformed or cut
    /// short; then it stands as what was asked to mend it does, and where that was never asked, it is open.
    fn chain(
        &self,
        key: Digest,
        first: &Request,
        ids: &[String],
        on_call: &mut dyn FnMut(Digest),
    ) -> anyhow::Result<Standing> {
        let (mut key, mut mends, mut mended) = (key, None, None);
        for rung in 0.. {
            let request = mended.as_ref().unwrap_or(first);
            let Some((_, call, payload)) = self.last_try(key)? else {
                let request = request.clone();
                return Ok(Standing::Open(Box::new(ToSend { key, request, mends })));
            };
            on_call(call);
            let kept: KeptOutcome = serde_json::from_slice(&payload)?;
            let error = match read(&kept.outcome, request, &asked(self.step, ids)) {
                Ok(labels) => return Ok(Standing::Labels(labels, call)),
                Err(error) => error,
            };
            let Some(next) = self.step.mending(request, &kept.outcome, &error, rung) else {
                let error = error.row_error(&kept.outcome);
                return Ok(Standing::Failed(RowError { shared_key: Some(call), ..error }));
            };
            (key, mends) = (self.keys.key(&next.canonical()), Some(call));
            mended = Some(next);
        }
        anyhow::bail!("a question has more answers than there are numbers")
    }

    /// All calls that the labels of these calls' questions took, as [`Tries::family`] has them.
    ///
    /// # Errors
    /// When the memo does not read, or no longer has a call.
    pub(super) fn families(&self, calls: &[Digest]) -> anyhow::Result<Vec<(Digest, Call)>> {
        if self.step.samples > 1 {
            let families = calls.iter().map(|call| self.family(*call));
            return Ok(families.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect());
        }
        let payloads = self.answers.get_many(calls)?;
        let family = |(place, key): (usize, &Digest)| {
            let call: Call = serde_json::from_slice(payloads.get(place).context(GONE)?)?;
            if call.mends.is_some() { self.family(*key) } else { Ok(vec![(*key, call)]) }
        };
        let families = calls.par_iter().enumerate().map(family).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(families.into_iter().flatten().collect())
    }

    /// All calls that the labels of a call's question took: of every sample, and what was asked first where an answer
    /// had to be mended.
    ///
    /// # Errors
    /// When the memo does not read, or no longer has the call.
    fn family(&self, call: Digest) -> anyhow::Result<Vec<(Digest, Call)>> {
        let first = self.call(call)?;
        let mut root = first;
        while let Some(mended) = &root.mends {
            root = self.call(mended.parse()?)?;
        }
        let root = Request::of_canonical(&serde_json::from_str(root.request.get())?);
        let root = root.context("a kept request does not read")?;
        let (ids, mut calls) = (ids_of(&root), Vec::new());
        for sample in 0..self.step.samples {
            let request = Request { sample, ..root.clone() };
            let key = self.keys.key(&request.canonical());
            self.chain(key, &request, &ids, &mut |call| calls.push(call))?;
        }
        calls.into_iter().map(|call| Ok((call, self.call(call)?))).collect()
    }

    fn call(&self, call: Digest) -> anyhow::Result<Call> {
        let payload = self.answers.get(&call)?.context(GONE)?;
        Ok(serde_json::from_slice(&payload)?)
    }

    /// The calls that a question has led to, the last try of it and what was asked to mend that, each with why it gives
    /// no labels, if it gives none.
    ///
    /// # Errors
    /// When the memo does not read.
    pub(super) fn calls_of(
        &self,
        question: &Question,
    ) -> anyhow::Result<Vec<(Digest, Call, Option<String>)>> {
        let mut keys = Vec::new();
        self.chain(question.key, &question.request, &question.about.ids, &mut |call| keys.push(call))?;
        let call = |key: Digest| {
            let payload = self.answers.get(&key)?.context(GONE)?;
            let (call, kept): (Call, KeptOutcome) =
                (serde_json::from_slice(&payload)?, serde_json::from_slice(&payload)?);
            let read = read(&kept.outcome, &question.request, &asked(self.step, &question.about.ids));
            let problem = read.err().map(|error| error.row_error(&kept.outcome).message);
            Ok((key, call, problem))
        };
        keys.into_iter().map(call).collect()
    }

    /// Keeps what came of a request.
    ///
    /// # Errors
    /// When the memo does not take it.
    pub(super) fn keep(&self, sent: &ToSend, outcome: &Outcome) -> anyhow::Result<()> {
        let mends = sent.mends.map(|call| call.to_string());
        let kept = Kept { request: sent.request.canonical_text(), outcome, mends };
        self.answers.put(sent.key, &serde_json::to_vec(&kept)?)
    }

    /// The labels that an answer which has just come gives, if it gives them.
    pub(super) fn labels(&self, request: &Request, answer: &Answer) -> Option<BTreeMap<String, Label>> {
        parsed(&answer.text, request, &asked(self.step, &ids_of(request))).ok()
    }

    /// The last try of a question that is kept: its number, its key and what is kept. A question is tried again only on
    /// the user's word.
    fn last_try(&self, question: Digest) -> anyhow::Result<Option<(u32, Digest, Vec<u8>)>> {
        let mut last = None;
        for number in 0.. {
            let key = self.try_key(question, number);
            let Some(payload) = self.answers.get(&key)? else { break };
            last = Some((number, key, payload));
        }
        Ok(last)
    }

    /// The key of a try of a question: of the first one the question's own.
    fn try_key(&self, question: Digest, number: u32) -> Digest {
        match number {
            0 => question,
            _ => self.keys.key(&json!({ "question": question.to_string(), "try": number })),
        }
    }
}

impl LabelLlm {
    /// What is asked next where a request brought no labels: an answer that was cut short is asked for once with room
    /// for four times as much, where the room was not the user's choice; a malformed one is asked for again with what
    /// was wrong and the schema in words, up to `repairs` times. Nothing else gets better by asking.
    fn mending(&self, asked: &Request, outcome: &Read, error: &NoLabels, rung: u32) -> Option<Request> {
        match (outcome, error) {
            (Read::Failed(failure), _) if failure.kind == FailureKind::Truncated => {
                let roomy = self.max_tokens.is_none() && rung == 0;
                roomy.then(|| {
                    let mut request = asked.clone();
                    request.decoding.max_tokens = asked.decoding.max_tokens.saturating_mul(4);
                    request
                })
            }
            (Read::Answered(_), NoLabels::Malformed(error)) if rung < self.repairs => {
                let mut request = asked.clone();
                let schema = request.schema()?.text().get().to_owned();
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
    fn row_error(&self, outcome: &Read) -> RowError {
        match (self, outcome) {
            (NoLabels::Malformed(error), Read::Answered(answer)) => {
                let kind = match error {
                    AnswerError::Refused { .. } => "refusal",
                    _ => "unparseable",
                };
                RowError { attempts: answer.attempts, ..RowError::lasting(kind, error.to_string()) }
            }
            (_, Read::Failed(failure)) => row_error(failure),
            (NoLabels::Failure, Read::Answered(_)) => RowError::lasting("failed", "there is no answer"),
        }
    }
}

/// The labels that a call gives, or why it gives none.
fn read(outcome: &Read, request: &Request, asked: &Asked<'_>) -> Result<BTreeMap<String, Label>, NoLabels> {
    match outcome {
        Read::Answered(answer) => parsed(&answer.text, request, asked).map_err(NoLabels::Malformed),
        Read::Failed(_) => Err(NoLabels::Failure),
    }
}

fn parsed(text: &str, request: &Request, asked: &Asked<'_>) -> Result<BTreeMap<String, Label>, AnswerError> {
    match request.answer {
        AnswerForm::Decisions(_) => parse_decisions(text, asked),
        AnswerForm::Json(_) => parse_answer(text, asked),
    }
}

/// The findings that a request asks about.
fn ids_of(request: &Request) -> Vec<String> {
    match &request.answer {
        AnswerForm::Decisions(questions) => questions.iter().map(|question| question.name.clone()).collect(),
        AnswerForm::Json(schema) => {
            let ids = schema.value()["required"].as_array().into_iter().flatten();
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
        shared_key: None,
    }
}
