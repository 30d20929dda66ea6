//! OpenAI's chat completions: `POST /v1/chat/completions`.

use serde_json::{Map, Value, json};

use super::{Completion, Habits, completion, paid};
use crate::answer::{Finish, Usage};
use crate::failure::{Failure, FailureKind};
use crate::request::Request;

pub(super) fn body(request: &Request, habits: Habits) -> Value {
    let decoding = &request.decoding;
    let mut body = Map::new();
    body.insert("model".into(), json!(request.model));
    body.insert("messages".into(), request.messages_json());
    if let Some(schema) = request.schema() {
        let format = if habits.schema_beside_json_object {
            json!({ "type": "json_object", "schema": schema })
        } else {
            let schema = json!({ "name": "answer", "strict": true, "schema": schema });
            json!({ "type": "json_schema", "json_schema": schema })
        };
        body.insert("response_format".into(), format);
    }
    let limit = if habits.max_completion_tokens { "max_completion_tokens" } else { "max_tokens" };
    body.insert(limit.into(), json!(decoding.max_tokens));
    if let Some(temperature) = decoding.temperature {
        body.insert("temperature".into(), json!(temperature));
    }
    if let Some(top_p) = decoding.top_p {
        body.insert("top_p".into(), json!(top_p));
    }
    if let Some(seed) = request.seed_of_sample() {
        body.insert("seed".into(), json!(seed));
    }
    Value::Object(body)
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
