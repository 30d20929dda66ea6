//! Ollama's own chat: `POST /api/chat`.

use serde_json::{Map, Value, json};

use super::{Completion, Habits, completion, paid};
use crate::answer::{Finish, Usage};
use crate::failure::{Failure, FailureKind};
use crate::request::Request;

/// `truncate: false` makes the server refuse a prompt that does not fit, where it would else drop its beginning and
/// answer all the same; `shift: false` does the same for a prompt that stops fitting while the answer grows.
pub(super) fn body(request: &Request, habits: Habits) -> Value {
    let decoding = &request.decoding;
    let mut options = Map::new();
    options.insert("num_predict".into(), json!(decoding.max_tokens));
    if let Some(temperature) = decoding.temperature {
        options.insert("temperature".into(), json!(temperature));
    }
    if let Some(top_p) = decoding.top_p {
        options.insert("top_p".into(), json!(top_p));
    }
    if let Some(seed) = request.seed_of_sample() {
        options.insert("seed".into(), json!(seed));
    }
    if let Some(tokens) = habits.context_tokens {
        options.insert("num_ctx".into(), json!(tokens));
    }
    let mut body = Map::new();
    body.insert("model".into(), json!(request.model));
    body.insert("messages".into(), request.messages_json());
    if let Some(schema) = request.schema() {
        body.insert("format".into(), schema.clone());
    }
    body.insert("stream".into(), json!(false));
    body.insert("truncate".into(), json!(false));
    body.insert("shift".into(), json!(false));
    body.insert("options".into(), Value::Object(options));
    Value::Object(body)
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
