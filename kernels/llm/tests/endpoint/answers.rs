//! What a single response becomes.

use argent_llm::{Answer, FailureKind, Finish, Usage};
use serde_json::{Value, json};

use crate::ask;
use crate::server::{Reply, Server, completion};

/// What a server that always sends this body with this status leads to.
fn failure(status: u16, body: Value) -> argent_llm::Failure {
    let server = Server::start(move |_| Reply::json(status, &body));
    ask(&server.base_url, "a report about Marguerite").unwrap_err()
}

#[test]
fn a_good_answer_comes_with_usage_model_and_raw_body() {
    let server = Server::start(|_| Reply::completion("{\"effusion\": \"absent\"}"));
    let answer = ask(&server.base_url, "report").unwrap();
    assert_eq!(answer.text, "{\"effusion\": \"absent\"}");
    assert_eq!(answer.usage, Some(Usage { tokens_in: 100, tokens_cached: 64, tokens_out: 20 }));
    assert_eq!(answer.finish, Finish::Stop);
    assert_eq!(answer.model, "m-2026-10-01");
    assert_eq!(answer.raw, completion("{\"effusion\": \"absent\"}"));
    assert_eq!(answer.attempts, 1);
    let stored = serde_json::to_string(&answer).unwrap();
    assert_eq!(serde_json::from_str::<Answer>(&stored).unwrap(), answer);
}

#[test]
fn the_request_carries_key_schema_and_messages() {
    let server = Server::start(|_| Reply::completion("x"));
    ask(&server.base_url, "report").unwrap();
    let received = &server.received()[0];
    assert!(received.headers.starts_with("post /v1/chat/completions http/1.1\r\n"), "{}", received.headers);
    assert!(received.headers.contains("authorization: bearer secret-key\r\n"));
    assert_eq!(received.body["response_format"]["json_schema"]["schema"], json!({ "type": "object" }));
    assert_eq!(received.body["max_tokens"], 50);
}

#[test]
fn an_answer_without_usage_has_unknown_cost() {
    let mut body = completion("x");
    body["usage"] = Value::Null;
    let server = Server::start(move |_| Reply::json(200, &body));
    assert_eq!(ask(&server.base_url, "report").unwrap().usage, None);
}

#[test]
fn content_in_parts_is_joined() {
    let mut body = completion("x");
    body["choices"][0]["message"]["content"] =
        json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]);
    let server = Server::start(move |_| Reply::json(200, &body));
    assert_eq!(ask(&server.base_url, "report").unwrap().text, "ab");
}

#[test]
fn an_answer_cut_short_is_no_answer_and_was_paid_for() {
    let mut body = completion("{\"effusion\": \"abs");
    body["choices"][0]["finish_reason"] = json!("length");
    let failure = failure(200, body);
    assert_eq!(failure.kind, FailureKind::Truncated);
    assert_eq!((failure.attempts, failure.retryable, failure.fatal), (1, false, false));
    assert_eq!(failure.usage.unwrap().tokens_out, 20);
}

#[test]
fn refusals_and_filters_are_final() {
    let mut refusal = completion("");
    refusal["choices"][0]["message"] =
        json!({ "role": "assistant", "content": null, "refusal": "about Marguerite: no" });
    let mut filtered = completion("partial");
    filtered["choices"][0]["finish_reason"] = json!("content_filter");
    let azure = json!({ "error": { "message": "filtered", "code": "content_filter", "innererror": { "code": "ResponsibleAIPolicyViolation" } } });
    for (status, body, kind) in [
        (200, refusal, FailureKind::Refusal),
        (200, filtered, FailureKind::ContentFilter),
        (400, azure, FailureKind::ContentFilter),
        (200, completion("  "), FailureKind::Empty),
    ] {
        let failure = failure(status, body);
        assert_eq!(failure.kind, kind);
        assert_eq!((failure.attempts, failure.retryable, failure.fatal), (1, false, false), "{failure}");
        assert!(!failure.message.contains("Marguerite"));
    }
}

#[test]
fn a_prompt_that_is_too_long_is_told_in_every_dialect() {
    for (status, body) in [
        (400, json!({ "error": { "message": "too many", "code": "context_length_exceeded" } })),
        (
            400,
            json!({ "error": { "message": "too many", "type": "exceed_context_size_error", "code": 400 } }),
        ),
        (
            400,
            json!({ "object": "error", "message": "This model's maximum context length is 8192 tokens", "code": 400 }),
        ),
        (
            500,
            json!({ "error": { "message": "the request exceeds the available context size", "code": 500 } }),
        ),
    ] {
        let failure = failure(status, body);
        assert_eq!((failure.kind, failure.retryable), (FailureKind::ContextLength, false), "{failure}");
    }
}

#[test]
fn what_would_fail_every_request_is_fatal() {
    let error = |code: &str| json!({ "error": { "message": "no", "code": code } });
    for (status, body, kind) in [
        (401, error("invalid_api_key"), FailureKind::Unauthorised),
        (403, json!({ "detail": "forbidden" }), FailureKind::Unauthorised),
        (404, error("model_not_found"), FailureKind::NotFound),
        (429, error("insufficient_quota"), FailureKind::Quota),
        (402, json!({}), FailureKind::Quota),
    ] {
        let failure = failure(status, body);
        assert_eq!(failure.kind, kind);
        assert_eq!((failure.attempts, failure.retryable, failure.fatal), (1, true, true), "{failure}");
    }
}

#[test]
fn a_server_that_quotes_the_report_is_not_quoted() {
    let quoting = json!({ "error": { "message": "temperature 0 is not supported; input was: A report about Marguerite", "code": 400 } });
    let quoted = failure(400, quoting);
    assert_eq!(quoted.kind, FailureKind::BadRequest);
    assert_eq!(
        quoted.message,
        "status 400: 400, temperature 0 is not supported; input was: A … … …; the endpoint does not accept the \
         request"
    );
    let escaped = failure(400, json!({ "error": { "message": "input: \\u004darguerite" } }));
    assert!(escaped.message.contains("(message not shown)"), "{}", escaped.message);
}

#[test]
fn newer_models_get_their_name_for_max_tokens() {
    let server = Server::start(|received| {
        if received.body["max_tokens"].is_null() {
            return Reply::completion("x");
        }
        let message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.";
        let error = json!({ "message": message, "param": "max_tokens", "code": "unsupported_parameter" });
        Reply::json(400, &json!({ "error": error }))
    });
    assert_eq!(ask(&server.base_url, "report").unwrap().attempts, 1);
    assert_eq!(server.received()[1].body["max_completion_tokens"], 50);
}
