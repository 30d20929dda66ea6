//! The dialects that servers speak: where each asks, how it words a request, and how its answers read.

mod anthropic_messages;
mod ollama_chat;
mod openai_chat;
mod openai_decisions;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::answer::{Finish, Usage};
use crate::endpoint::{ApiKey, EndpointError};
use crate::failure::{Failure, FailureKind};
use crate::request::Request;

/// A dialect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// OpenAI's chat completions, which vLLM, SGLang, llama.cpp and others speak too.
    #[default]
    OpenaiChat,
    /// OpenAI's decisions: typed questions about a text, answered by probabilities and without text. vLLM and SGLang
    /// serve them too.
    OpenaiDecisions,
    /// Anthropic's messages.
    AnthropicMessages,
    /// Ollama's own chat, which unlike its OpenAI-compatible one lets the client set the context window and refuses
    /// prompts that do not fit.
    OllamaChat,
    /// None that a server speaks: the questions of a model in process, whose answers are worded as decisions. It names
    /// requests, so that their answers can be kept beside those of servers; no client takes it.
    Local,
}

/// What a complete response of status 200 gives.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) text: String,
    pub(crate) usage: Option<Usage>,
    pub(crate) finish: Finish,
    pub(crate) model: String,
    pub(crate) raw: Value,
}

/// What a server has shown to want otherwise than its dialect has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Habits {
    /// It calls `max_tokens` `max_completion_tokens`, as OpenAI's newer models do.
    pub(crate) max_completion_tokens: bool,
    /// It takes a schema only beside `json_object`, as llama-cpp-python does.
    pub(crate) schema_beside_json_object: bool,
    /// The context window in tokens that it is told to use, where it can be told.
    pub(crate) context_tokens: Option<u32>,
}

impl Dialect {
    /// The dialect's name, which is part of every request's identity.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenaiChat => "openai-chat",
            Self::OpenaiDecisions => "openai-decisions",
            Self::AnthropicMessages => "anthropic-messages",
            Self::OllamaChat => "ollama-chat",
            Self::Local => "local",
        }
    }

    /// Where requests go under the base address; nowhere where no server speaks it.
    pub(crate) fn path(self) -> Option<&'static str> {
        match self {
            Self::OpenaiChat => Some("chat/completions"),
            Self::OpenaiDecisions => Some("decisions"),
            Self::AnthropicMessages => Some("messages"),
            Self::OllamaChat => Some("api/chat"),
            Self::Local => None,
        }
    }

    /// Where the list of models is under the base address; nowhere where no server speaks it.
    pub(crate) fn models_path(self) -> Option<&'static str> {
        match self {
            Self::OpenaiChat | Self::OpenaiDecisions | Self::AnthropicMessages => Some("models"),
            Self::OllamaChat => Some("api/tags"),
            Self::Local => None,
        }
    }

    /// The headers that every request carries.
    pub(crate) fn headers(self, key: Option<&ApiKey>) -> Result<HeaderMap, EndpointError> {
        let mut headers = HeaderMap::new();
        if self == Self::AnthropicMessages {
            let version = HeaderName::from_static("anthropic-version");
            headers.insert(version, HeaderValue::from_static(anthropic_messages::VERSION));
        }
        let Some(key) = key else { return Ok(headers) };
        if key.secret().is_empty() {
            return Err(EndpointError::ApiKey);
        }
        let (name, value) = match self {
            Self::AnthropicMessages => (HeaderName::from_static("x-api-key"), key.secret().to_owned()),
            _ => (AUTHORIZATION, format!("Bearer {}", key.secret())),
        };
        let mut value = HeaderValue::from_str(&value).map_err(|_| EndpointError::ApiKey)?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(headers)
    }

    /// The body of a request, as JSON.
    ///
    /// # Panics
    /// Where no server speaks the dialect: no client is of one.
    pub(crate) fn body(self, request: &Request, habits: Habits) -> Vec<u8> {
        let body = match self {
            Self::OpenaiChat => openai_chat::body(request, habits),
            Self::OpenaiDecisions => openai_decisions::body(request),
            Self::AnthropicMessages => anthropic_messages::body(request),
            Self::OllamaChat => ollama_chat::body(request, habits),
            Self::Local => unreachable!("a client is of an endpoint with an address"),
        };
        body.expect("texts, numbers and a schema can be written as JSON")
    }

    /// Reads the body of a response of status 200 that holds no error.
    pub(crate) fn read(self, raw: Value) -> Result<Completion, Failure> {
        match self {
            Self::OpenaiChat => openai_chat::read(raw),
            Self::OpenaiDecisions => openai_decisions::read(raw),
            Self::AnthropicMessages => anthropic_messages::read(raw),
            Self::OllamaChat => ollama_chat::read(raw),
            Self::Local => Err(Failure::new(FailureKind::Malformed, "a model in process sends no response")),
        }
    }
}

/// A failure after which the server counts tokens all the same.
fn paid(usage: Option<Usage>, kind: FailureKind, message: &str) -> Failure {
    Failure { usage, ..Failure::new(kind, message) }
}

/// A completion with text, unless there is none or it ended otherwise than well.
fn completion(
    text: Option<String>,
    usage: Option<Usage>,
    finish: Finish,
    raw: Value,
) -> Result<Completion, Failure> {
    match finish {
        Finish::ContentFilter => Err(paid(
            usage,
            FailureKind::ContentFilter,
            "a content filter of the endpoint stopped the answer",
        )),
        Finish::Length => Err(paid(
            usage,
            FailureKind::Truncated,
            "the answer reached `max_tokens` before its end; raise `max_tokens`",
        )),
        _ => match text.filter(|text| !text.trim().is_empty()) {
            Some(text) => {
                let model = raw["model"].as_str().unwrap_or_default().to_owned();
                Ok(Completion { text, usage, finish, model, raw })
            }
            None => Err(paid(
                usage,
                FailureKind::Empty,
                "the answer has no text; some servers answer so when the prompt is longer than the model can read",
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::request::{AnswerForm, Decoding, Message, Options, Question, Role};
    use crate::schema::Schema;

    fn request(dialect: Dialect, answer: AnswerForm) -> Request {
        Request {
            dialect,
            model: "m".into(),
            identity: None,
            messages: vec![
                Message { role: Role::System, content: "label".into() },
                Message { role: Role::User, content: "report".into() },
            ],
            answer,
            decoding: Decoding { temperature: Some(0.0), max_tokens: 100, seed: Some(7), top_p: None },
            sample: 2,
        }
    }

    fn schema() -> AnswerForm {
        AnswerForm::Json(Schema::new(json!({ "type": "object" })))
    }

    fn body(request: &Request, habits: Habits) -> Value {
        serde_json::from_slice(&request.dialect.body(request, habits)).unwrap()
    }

    #[test]
    fn a_chat_completion_is_asked_as_openai_words_it() {
        let request = request(Dialect::OpenaiChat, schema());
        let mut expected = json!({
            "model": "m",
            "messages": [
                { "role": "system", "content": "label" },
                { "role": "user", "content": "report" }
            ],
            "response_format": {
                "type": "json_schema",
                "json_schema": { "name": "answer", "strict": true, "schema": { "type": "object" } }
            },
            "max_tokens": 100,
            "temperature": 0.0,
            "seed": 9
        });
        assert_eq!(body(&request, Habits::default()), expected);
        let habits = Habits { schema_beside_json_object: true, ..Habits::default() };
        expected["response_format"] = json!({ "type": "json_object", "schema": { "type": "object" } });
        assert_eq!(body(&request, habits), expected);
    }

    #[test]
    fn a_message_is_asked_as_anthropic_words_it() {
        let request = request(Dialect::AnthropicMessages, schema());
        let expected = json!({
            "model": "m",
            "system": "label",
            "messages": [{ "role": "user", "content": "report" }],
            "output_config": { "format": { "type": "json_schema", "schema": { "type": "object" } } },
            "max_tokens": 100,
            "temperature": 0.0
        });
        assert_eq!(body(&request, Habits::default()), expected);
    }

    #[test]
    fn ollama_is_told_the_window_and_not_to_cut_the_prompt() {
        let request = request(Dialect::OllamaChat, schema());
        let habits = Habits { context_tokens: Some(8192), ..Habits::default() };
        let expected = json!({
            "model": "m",
            "messages": [
                { "role": "system", "content": "label" },
                { "role": "user", "content": "report" }
            ],
            "format": { "type": "object" },
            "stream": false,
            "truncate": false,
            "shift": false,
            "options": { "num_predict": 100, "temperature": 0.0, "seed": 9, "num_ctx": 8192 }
        });
        assert_eq!(body(&request, habits), expected);
    }

    #[test]
    fn decisions_are_asked_by_typed_questions() {
        let choice = Question {
            name: "effusion".into(),
            instructions: "what does it say?".into(),
            options: Options::Choice(vec![("present".into(), "it is there".into())]),
        };
        let predicate = Question {
            name: "nodule".into(),
            instructions: "it is there".into(),
            options: Options::Predicate,
        };
        let request = request(Dialect::OpenaiDecisions, AnswerForm::Decisions(vec![choice, predicate]));
        let expected = json!({
            "model": "m",
            "input": "label\n\nreport",
            "questions": [
                {
                    "type": "choice",
                    "name": "effusion",
                    "instructions": "what does it say?",
                    "choices": [{ "value": "present", "description": "it is there" }]
                },
                { "type": "predicate", "name": "nodule", "instructions": "it is there" }
            ]
        });
        assert_eq!(body(&request, Habits::default()), expected);
    }

    #[test]
    fn each_dialect_counts_tokens_in_its_own_words() {
        let read = |dialect: Dialect, raw: Value| dialect.read(raw).unwrap();
        let message = read(
            Dialect::AnthropicMessages,
            json!({
                "model": "m-1", "stop_reason": "end_turn",
                "content": [{ "type": "thinking", "thinking": "…" }, { "type": "text", "text": "{}" }],
                "usage": {
                    "input_tokens": 10, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 30,
                    "output_tokens": 5
                }
            }),
        );
        assert_eq!((message.text.as_str(), message.model.as_str()), ("{}", "m-1"));
        assert_eq!(message.usage, Some(Usage { tokens_in: 100, tokens_cached: 60, tokens_out: 5 }));
        let chat = read(
            Dialect::OllamaChat,
            json!({
                "model": "m", "done": true, "done_reason": "stop", "message": { "content": "{}" },
                "prompt_eval_count": 100, "eval_count": 5
            }),
        );
        assert_eq!(chat.usage, Some(Usage { tokens_in: 100, tokens_cached: 0, tokens_out: 5 }));
        let decision = read(
            Dialect::OpenaiDecisions,
            json!({
                "model": "m",
                "answers": [{ "type": "predicate", "name": "nodule", "probability": 0.25 }],
                "usage": { "input_tokens": 100, "input_tokens_details": { "cached_tokens": 60 } }
            }),
        );
        let answers: Value = serde_json::from_str(&decision.text).unwrap();
        assert_eq!(answers, json!([{ "type": "predicate", "name": "nodule", "probability": 0.25 }]));
        assert_eq!(decision.usage, Some(Usage { tokens_in: 100, tokens_cached: 60, tokens_out: 0 }));
    }

    #[test]
    fn no_dialect_takes_half_an_answer_for_one() {
        let kind = |dialect: Dialect, raw: Value| dialect.read(raw).unwrap_err().kind;
        let message = |reason: &str| json!({ "stop_reason": reason, "content": [{ "type": "text", "text": "{" }], "usage": {} });
        let anthropic = Dialect::AnthropicMessages;
        assert_eq!(kind(anthropic, message("max_tokens")), FailureKind::Truncated);
        assert_eq!(kind(anthropic, message("refusal")), FailureKind::Refusal);
        assert_eq!(kind(anthropic, message("model_context_window_exceeded")), FailureKind::ContextLength);
        assert_eq!(kind(anthropic, json!({ "content": [], "stop_reason": "end_turn" })), FailureKind::Empty);
        assert_eq!(kind(anthropic, json!({ "choices": [] })), FailureKind::Malformed);
        let chat = |reason: &str, done: bool| json!({ "done": done, "done_reason": reason, "message": { "content": "{" } });
        assert_eq!(kind(Dialect::OllamaChat, chat("length", true)), FailureKind::Truncated);
        assert_eq!(kind(Dialect::OllamaChat, chat("load", true)), FailureKind::ServerError);
        assert_eq!(kind(Dialect::OllamaChat, chat("stop", false)), FailureKind::Malformed);
        let decisions = Dialect::OpenaiDecisions;
        assert_eq!(kind(decisions, json!({ "answers": [] })), FailureKind::Empty);
        assert_eq!(kind(decisions, json!({ "choices": [] })), FailureKind::Malformed);
        let cut = json!({ "answers": [{ "type": "predicate" }], "usage": { "truncated": true } });
        assert_eq!(kind(decisions, cut), FailureKind::TruncatedInput);
        let refused = json!({ "answers": [{ "type": "refusal", "name": "nodule" }] });
        assert_eq!(kind(decisions, refused), FailureKind::Refusal);
    }
}
