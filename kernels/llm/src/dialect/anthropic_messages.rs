//! Anthropic's messages: `POST /v1/messages`.

use serde_json::{Map, Value, json};

use super::{Completion, completion, paid};
use crate::answer::{Finish, Usage};
use crate::failure::{Failure, FailureKind};
use crate::request::{Request, Role};

/// The version of the API that requests and answers are worded in.
pub(super) const VERSION: &str = "2023-06-01";

/// Instructions go into a field of their own, and there is no seed.
pub(super) fn body(request: &Request) -> Value {
    let decoding = &request.decoding;
    let (system, others): (Vec<_>, Vec<_>) =
        request.messages.iter().partition(|message| message.role == Role::System);
    let mut body = Map::new();
    body.insert("model".into(), json!(request.model));
    if !system.is_empty() {
        let texts: Vec<&str> = system.iter().map(|message| &*message.content).collect();
        body.insert("system".into(), json!(texts.join("\n\n")));
    }
    body.insert("messages".into(), others.into_iter().map(|message| message.json()).collect());
    if let Some(schema) = request.schema() {
        let format = json!({ "type": "json_schema", "schema": schema });
        body.insert("output_config".into(), json!({ "format": format }));
    }
    body.insert("max_tokens".into(), json!(decoding.max_tokens));
    if let Some(temperature) = decoding.temperature {
        body.insert("temperature".into(), json!(temperature));
    }
    if let Some(top_p) = decoding.top_p {
        body.insert("top_p".into(), json!(top_p));
    }
    Value::Object(body)
}

pub(super) fn read(raw: Value) -> Result<Completion, Failure> {
    let usage = read_usage(&raw["usage"]);
    let Some(parts) = raw["content"].as_array() else {
        let what = "status 200 without `content`, expected a message";
        return Err(paid(usage, FailureKind::Malformed, what));
    };
    // Parts of other types are reasoning.
    let is_text = |part: &&Value| part["type"] == "text";
    let text: String = parts.iter().filter(is_text).filter_map(|part| part["text"].as_str()).collect();
    let finish = match raw["stop_reason"].as_str() {
        Some("end_turn" | "stop_sequence") => Finish::Stop,
        Some("max_tokens") => Finish::Length,
        Some("refusal") => {
            let what = "the model refused to answer; its reason is not shown here";
            return Err(paid(usage, FailureKind::Refusal, what));
        }
        Some("model_context_window_exceeded") => {
            let what = "prompt and answer are longer than the model can read";
            return Err(paid(usage, FailureKind::ContextLength, what));
        }
        Some(other) => Finish::Other(other.to_owned()),
        None => Finish::Unstated,
    };
    completion(Some(text), usage, finish, raw)
}

/// The counts of a response. What is read from the cache and what is written to it is not among `input_tokens`.
fn read_usage(usage: &Value) -> Option<Usage> {
    let count = |name: &str| usage[name].as_u64();
    let tokens_cached = count("cache_read_input_tokens").unwrap_or(0);
    let written = count("cache_creation_input_tokens").unwrap_or(0);
    Some(Usage {
        tokens_in: count("input_tokens")? + tokens_cached + written,
        tokens_cached,
        tokens_out: count("output_tokens")?,
    })
}
