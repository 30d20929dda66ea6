//! From a response to an answer or a failure, without any network.

use serde_json::Value;

use crate::dialect::{Completion, Habits};
use crate::failure::{Failure, FailureKind};
use crate::request::{Request, Role};

/// Reads the response to `request`: a completion, or what went wrong.
pub(crate) fn read_response(status: u16, body: &[u8], request: &Request) -> Result<Completion, Failure> {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    if status != 200 {
        let error = json.as_ref().and_then(ServerError::read).unwrap_or_default();
        return Err(error.failure(status, request));
    }
    let Some(raw) = json else {
        return Err(Failure::new(FailureKind::Malformed, malformed_message(body)));
    };
    if let Some(error) = ServerError::read(&raw) {
        return Err(error.failure(error.status_in_body(), request));
    }
    request.dialect.read(raw)
}

/// The failure of a response that is not of status 200 and answers no request of a report.
pub(crate) fn read_failure(status: u16, body: &[u8]) -> Failure {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let error = json.as_ref().and_then(ServerError::read).unwrap_or_default();
    let kind = error.failure_kind(status);
    // Nothing of what the server says is shown, because there is no request to mask it by.
    Failure::new(kind, format!("status {status}"))
}

fn malformed_message(body: &[u8]) -> String {
    format!(
        "status 200 with {} bytes that are no JSON, expected an answer; check that `base_url` names the \
         API and not a web page",
        body.len()
    )
}

/// A server's error as far as its dialect tells: OpenAI nests it in `error`, older vLLM does not, TGI has a string
/// and `error_type`, FastAPI a `detail`. A code may be a string, a number or null.
#[derive(Debug, Default)]
struct ServerError {
    message: String,
    kind: String,
    code: String,
    param: String,
    policy: String,
}

impl ServerError {
    /// The error in a body, if it has one.
    fn read(body: &Value) -> Option<Self> {
        let error = match &body["error"] {
            Value::Null if body["object"] == "error" => body,
            Value::Null if body["choices"].is_null() && !body["detail"].is_null() => {
                return Some(Self { message: text_of(&body["detail"]), ..Self::default() });
            }
            Value::Null => return None,
            Value::String(message) => {
                let kind = text_of(&body["error_type"]);
                return Some(Self { message: message.clone(), kind, ..Self::default() });
            }
            error => error,
        };
        Some(Self {
            message: text_of(&error["message"]),
            kind: text_of(&error["type"]),
            code: text_of(&error["code"]),
            param: text_of(&error["param"]),
            policy: text_of(&error["innererror"]["code"]),
        })
    }

    /// The status that an error in a response of status 200 stands for: its code if that is one, else 500.
    fn status_in_body(&self) -> u16 {
        self.code.parse().ok().filter(|status| (400..600).contains(status)).unwrap_or(500)
    }

    fn failure(&self, status: u16, request: &Request) -> Failure {
        let kind = self.failure_kind(status);
        Failure::new(kind, format!("status {status}{}; {}", self.shown(request), advice(kind, request)))
    }

    fn failure_kind(&self, status: u16) -> FailureKind {
        let names =
            |names: &[&str]| [&self.code, &self.kind].iter().any(|name| names.contains(&name.as_str()));
        if status == 402 || names(&["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"])
        {
            return FailureKind::Quota;
        }
        if names(&["content_filter"]) || self.policy == "ResponsibleAIPolicyViolation" {
            return FailureKind::ContentFilter;
        }
        if status == 413 || self.is_context_length() {
            return FailureKind::ContextLength;
        }
        match status {
            401 | 403 => FailureKind::Unauthorised,
            404 => FailureKind::NotFound,
            400 if names(&["model_not_found"]) => FailureKind::NotFound,
            429 => FailureKind::RateLimited,
            408 => FailureKind::Timeout,
            // Conflict and too early are said by proxies and gateways for the moment only.
            409 | 425 => FailureKind::ServerError,
            501 => FailureKind::BadRequest,
            500.. => FailureKind::ServerError,
            _ => FailureKind::BadRequest,
        }
    }

    /// By code where there is one (OpenAI, llama.cpp), else by the words that vLLM, SGLang and Ollama use.
    fn is_context_length(&self) -> bool {
        const CODES: [&str; 2] = ["context_length_exceeded", "exceed_context_size_error"];
        const WORDS: [&str; 5] =
            ["context length", "context window", "context size", "maximum context", "prompt is too long"];
        let message = self.message.to_lowercase();
        CODES.contains(&self.code.as_str())
            || CODES.contains(&self.kind.as_str())
            || WORDS.iter().any(|words| message.contains(words))
    }

    /// `: code, message` with every word masked that occurs in what was asked: servers like to quote the request,
    /// and the request holds a patient's report.
    fn shown(&self, request: &Request) -> String {
        let name = if self.code.is_empty() { &self.kind } else { &self.code };
        let shown: Vec<String> = [name, &self.message]
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(|part| masked(part, request))
            .collect();
        if shown.is_empty() { String::new() } else { format!(": {}", shown.join(", ")) }
    }
}

/// The habits that a refusal tells of, beyond those that the request was worded by; none where it tells of none.
pub(crate) fn told_habits(status: u16, body: &[u8], habits: Habits) -> Option<Habits> {
    if !matches!(status, 400 | 422 | 500) {
        return None;
    }
    let error = ServerError::read(&serde_json::from_slice(body).ok()?)?;
    if error.param == "max_tokens" && error.message.contains("max_completion_tokens") {
        return Some(Habits { max_completion_tokens: true, ..habits }).filter(|told| *told != habits);
    }
    // A server that does not know `json_schema` names it, or the field that it stands in.
    let names = |word: &str| error.message.contains(word) || error.param.contains(word);
    if names("json_schema") || names("response_format") {
        return Some(Habits { schema_beside_json_object: true, ..habits }).filter(|told| *told != habits);
    }
    None
}

/// What the user can do.
fn advice(kind: FailureKind, request: &Request) -> String {
    match kind {
        FailureKind::Unauthorised => "check the endpoint's `api_key`".into(),
        FailureKind::NotFound => {
            format!(
                "check that the endpoint serves the model `{}` and that `base_url` goes with the dialect `{}`",
                request.model,
                request.dialect.name()
            )
        }
        FailureKind::Quota => "the account behind the key has no quota left".into(),
        FailureKind::RateLimited => "lower `concurrency` if this goes on".into(),
        FailureKind::ContextLength => "the prompt is longer than the model can read".into(),
        FailureKind::ContentFilter => "a content filter of the endpoint stopped the prompt".into(),
        FailureKind::BadRequest => "the endpoint does not accept the request".into(),
        _ => "the server failed".into(),
    }
}

/// Longest excerpt of a server's message, in characters.
const MESSAGE_LENGTH: usize = 300;

/// A server's words with `…` for each that occurs in the messages of the request other than the instructions. A
/// message with backslashes is left out whole: it quotes something in an escaped form that would not be found.
fn masked(text: &str, request: &Request) -> String {
    if text.contains('\\') {
        return "(message not shown)".into();
    }
    let asked: Vec<String> = request
        .messages
        .iter()
        .filter(|message| message.role != Role::System)
        .map(|message| message.content.to_lowercase())
        .collect();
    let is_asked = |word: &str| {
        let told = word.chars().count() >= 3 || word.contains(|c: char| c.is_numeric());
        told && asked.iter().any(|content| content.contains(&word.to_lowercase()))
    };
    let mut shown = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = first.is_alphanumeric();
        let end = rest.find(|c: char| c.is_alphanumeric() != is_word).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        shown.push_str(if is_word && is_asked(run) { "…" } else { run });
        rest = after;
    }
    let one_line: Vec<&str> = shown.split_whitespace().collect();
    one_line.join(" ").chars().take(MESSAGE_LENGTH).collect()
}

/// A string or number as text; anything else as nothing.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}
