//! Ollama's own chat: `POST /api/chat`.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Completion, Habits, completion, paid};
use crate::answer::{Finish, Usage};
use crate::failure::{Failure, FailureKind};
use crate::request::{Message, Request};

/// `truncate: false` makes the server refuse a prompt that does not fit, where it would else drop its beginning and
/// answer all the same; `shift: false` does the same for a prompt that stops fitting while the answer grows.
#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: &'a [Message],
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<&'a RawValue>,
    stream: bool,
    truncate: bool,
    shift: bool,
    options: Options,
}

#[derive(Serialize)]
struct Options {
    num_predict: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_ctx: Option<u32>,
}

pub(super) fn body(request: &Request, habits: Habits) -> serde_json::Result<Vec<u8>> {
    let options = Options {
        num_predict: request.decoding.max_tokens,
        temperature: request.decoding.temperature,
        top_p: request.decoding.top_p,
        seed: request.seed_of_sample(),
        num_ctx: habits.context_tokens,
    };
    serde_json::to_vec(&Body {
        model: &request.model,
        messages: &request.messages,
        format: request.schema().map(|schema| schema.text()),
        stream: false,
        truncate: false,
        shift: false,
        options,
    })
}

pub(super) fn read(raw: Value) -> Result<Completion, Failure> {
    let usage = read_usage(&raw);
    if !raw["message"].is_object() || raw["done"] == json!(false) {
        let what = "status 200 without a whole `message`, expected a chat answer";
        return Err(paid(usage, FailureKind::Malformed, what));
    }
    let finish = match raw["done_reason"].as_str() {
        Some("stop") => Finish::Stop,
        Some("length") => Finish::Length,
        // The server has only loaded the model.
        Some("load") => {
            let what = "the server loaded the model and did not answer";
            return Err(paid(usage, FailureKind::ServerError, what));
        }
        Some(other) => Finish::Other(other.to_owned()),
        None => Finish::Unstated,
    };
    let text = raw["message"]["content"].as_str().map(str::to_owned);
    completion(text, usage, finish, raw)
}

/// The counts of a response; cached tokens are not told apart.
fn read_usage(raw: &Value) -> Option<Usage> {
    Some(Usage {
        tokens_in: raw["prompt_eval_count"].as_u64()?,
        tokens_cached: 0,
        tokens_out: raw["eval_count"].as_u64()?,
    })
}
