//! The tries of questions, as the shared memo keeps them: what was asked, and what came of it.

use std::collections::BTreeMap;

use argent_cache::{Digest, Memo};
use argent_engine::{Io, RowError};
use argent_llm::{Answer, Failure, parse_answer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::question::{ASKED, Question};

/// The name of the memo of answers, shared by all steps and pipelines of a store.
pub(crate) const ANSWERS: &str = "llm answers";

/// What came of a question, as it is kept: beside what was asked, so that it can be shown and parsed again.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) request: Value,
    pub(super) outcome: Outcome,
}

/// What came of a question: an answer, or a failure that would come again.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Answered(Answer),
    Failed(Failure),
}

/// The last try of a question that is kept. A question is tried again only on the user's word, and what was paid
/// for before stays, so each try has a key of its own.
pub(super) struct Try {
    pub(super) number: u32,
    pub(super) key: Digest,
    pub(super) kept: Kept,
}

/// The key of a try of a question: of the first one the question's own.
pub(super) fn try_key(io: &Io, question: Digest, number: u32) -> Digest {
    match number {
        0 => question,
        _ => io.question_key(&json!({ "question": question.to_string(), "try": number })),
    }
}

pub(super) fn kept(answers: &Memo, key: &Digest) -> anyhow::Result<Option<Kept>> {
    answers.get(key)?.map(|bytes| Ok(serde_json::from_slice(&bytes)?)).transpose()
}

/// The last try of a question that is kept.
pub(super) fn last_try(io: &Io, answers: &Memo, question: Digest) -> anyhow::Result<Option<Try>> {
    let mut last = None;
    for number in 0.. {
        let key = try_key(io, question, number);
        let Some(kept) = kept(answers, &key)? else { break };
        last = Some(Try { number, key, kept });
    }
    Ok(last)
}

/// The number of the try that is to be sent for a question; none where the last one stands.
pub(super) fn next_try(io: &Io, answers: &Memo, question: &Question) -> anyhow::Result<Option<u32>> {
    Ok(match last_try(io, answers, question.key)? {
        None => Some(0),
        Some(last) if io.retry_errors() && labels(&last.kept, &question.ids).is_err() => {
            Some(last.number + 1)
        }
        Some(_) => None,
    })
}

/// The states that a try gives its findings, or why it gives none.
pub(super) fn labels(kept: &Kept, ids: &[String]) -> Result<BTreeMap<String, String>, RowError> {
    match &kept.outcome {
        Outcome::Answered(answer) => {
            parse_answer(&answer.text, ids, &ASKED.map(str::to_owned)).map_err(|reason| RowError {
                attempts: answer.attempts,
                ..RowError::lasting("unparseable", reason.to_string())
            })
        }
        Outcome::Failed(failure) => Err(row_error(failure)),
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
