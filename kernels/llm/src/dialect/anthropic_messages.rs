//! Anthropic's messages: `POST /v1/messages`.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Completion, completion, paid};
use crate::answer::{Finish, Usage};
use crate::failure::{Failure, FailureKind};
use crate::request::{Message, Request, Role};

/// The version of the API that requests and answers are worded in.
pub(super) const VERSION: &str = "2023-06-01";

/// Instructions stand in a field of their own, and there is no seed.
#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    messages: Vec<&'a Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig<'a>>,
    max_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
}

#[derive(Serialize)]
struct OutputConfig<'a> {
    format: Format<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Format<'a> {
    JsonSchema { schema: &'a RawValue },
}

pub(super) fn body(request: &Request) -> serde_json::Result<Vec<u8>> {
    let (system, messages): (Vec<&Message>, Vec<&Message>) =
        request.messages.iter().partition(|message| message.role == Role::System);
    let system: Vec<&str> = system.iter().map(|message| &*message.content).collect();
    let format = |schema| OutputConfig { format: Format::JsonSchema { schema } };
    serde_json::to_vec(&Body {
        model: &request.model,
        system: (!system.is_empty()).then(|| system.join("\n\n")),
        messages,
        output_config: request.schema().map(|schema| format(schema.text())),
        max_tokens: request.decoding.max_tokens,
        temperature: request.decoding.temperature,
        top_p: request.decoding.top_p,
    })
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
