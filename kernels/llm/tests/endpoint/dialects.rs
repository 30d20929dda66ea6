//! Each dialect over the wire: where it asks, with which headers, and what its servers say when they fail.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use argent_llm::{
    Answer, AnswerForm, Client, Dialect, Egress, Endpoint, Failure, FailureKind, Options, Question, Rate,
    Request, Usage,
};
use serde_json::{Value, json};

use crate::server::{Reply, Server, completion};
use crate::{QUICK, ask, ask_of, client, request, runtime};

fn client_in(dialect: Dialect, base_url: &str) -> Client {
    let endpoint = Endpoint { dialect, ..crate::endpoint(base_url) };
    Client::with_policy(endpoint, Egress::PrivateOnly, QUICK).unwrap()
}

fn ask_in(dialect: Dialect, base_url: &str) -> Result<Answer, Failure> {
    let request = Request { dialect, ..request("a report about Marguerite") };
    ask_of(&client_in(dialect, base_url), request)
}

#[test]
fn anthropic_is_asked_under_its_path_with_its_headers() {
    let body = json!({
        "type": "message", "model": "m-1", "stop_reason": "end_turn",
        "content": [{ "type": "text", "text": "{}" }],
        "usage": { "input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 2 }
    });
    let server = Server::start(move |_| Reply::json(200, &body));
    let answer = ask_in(Dialect::AnthropicMessages, &server.base_url).unwrap();
    assert_eq!(answer.usage, Some(Usage { tokens_in: 100, tokens_cached: 90, tokens_out: 2 }));
    let headers = server.received()[0].headers.clone();
    assert!(headers.starts_with("post /v1/messages http/1.1\r\n"), "{headers}");
    assert!(headers.contains("x-api-key: secret-key\r\n") && !headers.contains("authorization"), "{headers}");
    assert!(headers.contains("anthropic-version: 2023-06-01\r\n"), "{headers}");
}

#[test]
fn ollama_is_asked_beside_v1() {
    let body = json!({
        "model": "m", "message": { "role": "assistant", "content": "{}" }, "done": true, "done_reason": "stop",
        "prompt_eval_count": 100, "eval_count": 2
    });
    let server = Server::start(move |_| Reply::json(200, &body));
    let base_url = server.base_url.trim_end_matches("/v1");
    assert_eq!(ask_in(Dialect::OllamaChat, base_url).unwrap().text, "{}");
    assert!(server.received()[0].headers.starts_with("post /api/chat http/1.1\r\n"));
    assert_eq!(server.received()[0].body["format"], json!({ "type": "object" }));
}

#[test]
fn errors_are_told_apart_in_every_dialect() {
    let anthropic =
        |kind: &str, message: &str| json!({ "type": "error", "error": { "type": kind, "message": message } });
    let too_long = "prompt is too long: 250000 tokens > 200000 maximum";
    let cases: [(Dialect, u16, Value, FailureKind); 6] = [
        (Dialect::AnthropicMessages, 401, anthropic("authentication_error", "no"), FailureKind::Unauthorised),
        (
            Dialect::AnthropicMessages,
            400,
            anthropic("invalid_request_error", too_long),
            FailureKind::ContextLength,
        ),
        (Dialect::AnthropicMessages, 529, anthropic("overloaded_error", "later"), FailureKind::ServerError),
        (
            Dialect::OllamaChat,
            400,
            json!({ "error": "the input length exceeds the context length" }),
            FailureKind::ContextLength,
        ),
        (Dialect::OllamaChat, 404, json!({ "error": "model \"m\" not found" }), FailureKind::NotFound),
        (
            Dialect::OpenaiDecisions,
            501,
            json!({ "error": { "message": "the model has no decisions", "code": 501 } }),
            FailureKind::BadRequest,
        ),
    ];
    for (dialect, status, body, kind) in cases {
        let server = Server::start(move |_| Reply::json(status, &body));
        let base_url = match dialect {
            Dialect::OllamaChat => server.base_url.trim_end_matches("/v1"),
            _ => &server.base_url,
        };
        let failure = ask_in(dialect, base_url).unwrap_err();
        assert_eq!(failure.kind, kind, "{failure}");
        assert!(!failure.message.contains("Marguerite"), "{failure}");
    }
}

#[test]
fn questions_are_asked_of_decisions_and_answered_by_probabilities() {
    let answers = json!([{ "type": "predicate", "name": "nodule", "probability": 0.75 }]);
    let body = json!({ "model": "m", "answers": answers, "usage": { "input_tokens": 100 } });
    let server = Server::start(move |_| Reply::json(200, &body));
    let question =
        Question { name: "nodule".into(), instructions: "a nodule".into(), options: Options::Predicate };
    let request = Request {
        dialect: Dialect::OpenaiDecisions,
        answer: AnswerForm::Decisions(vec![question]),
        ..request("report")
    };
    let answer = ask_of(&client_in(Dialect::OpenaiDecisions, &server.base_url), request).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&answer.text).unwrap(), answers);
    let received = server.received();
    assert!(received[0].headers.starts_with("post /v1/decisions http/1.1\r\n"));
    assert_eq!(received[0].body["questions"][0]["name"], "nodule");
}

#[test]
fn a_request_of_another_dialect_is_not_sent() {
    let server = Server::start(|_| Reply::completion("x"));
    let request = Request { dialect: Dialect::AnthropicMessages, ..request("report") };
    let failure = ask_of(&client(&server.base_url), request).unwrap_err();
    assert_eq!(failure.kind, FailureKind::BadRequest);
    assert!(server.received().is_empty());
}

#[test]
fn a_server_that_does_not_know_json_schema_gets_the_schema_beside_json_object() {
    // As llama-cpp-python answers: a validation error as a failure of the server.
    let server = Server::start(|received| {
        if received.body["response_format"]["type"] == "json_object" {
            return Reply::completion("{}");
        }
        let message = "[{'loc': ('body', 'response_format', 'type'), 'msg': \"unexpected value\"}]";
        Reply::json(500, &json!({ "error": { "message": message, "type": "internal_server_error" } }))
    });
    let client = client(&server.base_url);
    assert_eq!(ask_of(&client, request("one")).unwrap().attempts, 1);
    assert_eq!(ask_of(&client, request("two")).unwrap().attempts, 1);
    let kinds: Vec<Value> =
        server.received().iter().map(|received| received.body["response_format"]["type"].clone()).collect();
    assert_eq!(kinds, ["json_schema", "json_object", "json_object"]);
    assert_eq!(server.received()[1].body["response_format"]["schema"], json!({ "type": "object" }));
}

#[test]
fn requests_keep_below_the_rate_of_the_account() {
    let server = Server::start(|_| Reply::completion("x"));
    let rate = Rate { requests_per_minute: Some(1200.0), tokens_per_minute: None };
    let endpoint = Endpoint { rate, ..crate::endpoint(&server.base_url) };
    let client = Client::with_policy(endpoint, Egress::PrivateOnly, QUICK).unwrap();
    let start = Instant::now();
    let requests = (0..6).map(|number| (number, request(&format!("report {number}"))));
    client.ask_all(runtime().handle(), requests, 6, &mut |_, outcome| {
        outcome.unwrap();
        ControlFlow::Continue(())
    });
    assert!(start.elapsed() >= Duration::from_millis(250), "{:?}", start.elapsed());
}

#[test]
fn the_last_answer_that_a_limit_allows_holds_back_the_next_request() {
    let server = Server::start(|received| {
        let headers = "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 300ms\r\n";
        let headers = if received.text() == "first" { headers } else { "" };
        Reply::Whole(200, headers.into(), completion("x").to_string())
    });
    let (client, start) = (client(&server.base_url), Instant::now());
    let requests = ["first", "second"].into_iter().map(|text| (0, request(text)));
    client.ask_all(runtime().handle(), requests, 1, &mut |_, outcome| {
        outcome.unwrap();
        ControlFlow::Continue(())
    });
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert!(ask(&server.base_url, "third").is_ok());
}
