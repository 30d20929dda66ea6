//! OpenAI's chat completions: `POST /v1/chat/completions`.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Completion, Habits, completion, paid};
use crate::answer::{Finish, Usage};
use crate::failure::{Failure, FailureKind};
use crate::request::{Message, Request};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: &'a [Message],
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Format<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Format<'a> {
    JsonSchema { json_schema: Named<'a> },
    JsonObject { schema: &'a RawValue },
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    strict: bool,
    schema: &'a RawValue,
}

pub(super) fn body(request: &Request, habits: Habits) -> serde_json::Result<Vec<u8>> {
    let decoding = &request.decoding;
    let format = |schema| match habits.schema_beside_json_object {
        true => Format::JsonObject { schema },
        false => Format::JsonSchema { json_schema: Named { name: "answer", strict: true, schema } },
    };
    serde_json::to_vec(&Body {
        model: &request.model,
        messages: &request.messages,
        response_format: request.schema().map(|schema| format(schema.text())),
        max_tokens: (!habits.max_completion_tokens).then_some(decoding.max_tokens),
        max_completion_tokens: habits.max_completion_tokens.then_some(decoding.max_tokens),
        temperature: decoding.temperature,
        top_p: decoding.top_p,
        seed: request.seed_of_sample(),
    })
}

pub(super) fn read(raw: Value) -> Result<Completion, Failure> {
    let choice = &raw["choices"][0];
    let usage = read_usage(&raw["usage"]);
    let message = &choice["message"];
    if !message.is_object() {
        let what = "status 200 without `choices[0].message`, expected a chat completion";
        return Err(paid(usage, FailureKind::Malformed, what));
    }
    if message["refusal"].as_str().is_some_and(|refusal| !refusal.is_empty()) {
        let what = "the model refused to answer; its reason is not shown here";
        return Err(paid(usage, FailureKind::Refusal, what));
    }
    let text = content_text(&message["content"]);
    let finish = match choice["finish_reason"].as_str() {
        Some("stop") => Finish::Stop,
        Some("length") => Finish::Length,
        Some("content_filter") => Finish::ContentFilter,
        Some(other) => Finish::Other(other.to_owned()),
        None => Finish::Unstated,
    };
    completion(text, usage, finish, raw)
}

/// The counts of a response; none when those of prompt or answer are missing.
fn read_usage(usage: &Value) -> Option<Usage> {
    Some(Usage {
        tokens_in: usage["prompt_tokens"].as_u64()?,
        tokens_cached: usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0),
        tokens_out: usage["completion_tokens"].as_u64()?,
    })
}

/// The text of a message's content: a string, or a list of parts of which those with text count.
fn content_text(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => Some(parts.iter().filter_map(|part| part["text"].as_str()).collect()),
        _ => None,
    }
}
