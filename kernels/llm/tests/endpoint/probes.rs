//! What probes find out, against servers that say yes to everything.

use argent_llm::{Decoding, FailureKind, SchemaProbe, Usage, Window};
use serde_json::{Value, json};

use crate::server::{Received, Reply, Server, completion};
use crate::{client, runtime};

const DECODING: Decoding = Decoding { temperature: Some(0.0), max_tokens: 50, seed: None, top_p: None };

fn schema_of(reply: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Result<SchemaProbe, FailureKind> {
    let server = Server::start(reply);
    client(&server.base_url).probe_schema(runtime().handle(), &DECODING).map_err(|failure| failure.kind)
}

#[test]
fn a_server_that_ignores_the_schema_is_found_out() {
    let usage = Some(Usage { tokens_in: 100, tokens_cached: 64, tokens_out: 20 });
    let held = schema_of(|received| {
        let word =
            &received.body["response_format"]["json_schema"]["schema"]["properties"]["word"]["enum"][1];
        Reply::completion(&json!({ "word": word }).to_string())
    });
    assert_eq!(held, Ok(SchemaProbe { enforced: true, usage }));
    let talk = schema_of(|_| Reply::completion("A clear sky is blue."));
    assert_eq!(talk, Ok(SchemaProbe { enforced: false, usage }));
    let endless = schema_of(|_| {
        let mut body = completion("blue blue blue");
        body["choices"][0]["finish_reason"] = json!("length");
        Reply::json(200, &body)
    });
    assert_eq!(endless, Ok(SchemaProbe { enforced: false, usage }));
    assert_eq!(schema_of(|_| Reply::error(401, "", "invalid_api_key")), Err(FailureKind::Unauthorised));
}

/// A server that counts a token for four bytes, up to a window.
fn window_of(count: impl Fn(usize) -> Value + Send + Sync + 'static) -> Window {
    let server = Server::start(move |received| {
        let mut body = completion("{\"word\": \"linnet\"}");
        body["usage"] = count(received.text().len());
        Reply::json(200, &body)
    });
    client(&server.base_url).probe_window(runtime().handle(), 8000, &DECODING).unwrap().window
}

fn usage(tokens_in: usize) -> Value {
    json!({ "prompt_tokens": tokens_in, "completion_tokens": 5 })
}

#[test]
fn a_server_that_cuts_prompts_is_found_out() {
    assert_eq!(window_of(|bytes| usage(20 + bytes / 4)), Window::Reads(2032));
    assert_eq!(window_of(|bytes| usage((20 + bytes / 4).min(1024))), Window::Cuts(1024));
    assert_eq!(window_of(|_| usage(100)), Window::Uncounted);
    assert_eq!(window_of(|_| Value::Null), Window::Uncounted);
}

#[test]
fn a_server_that_refuses_what_does_not_fit_is_as_it_should_be() {
    let server = Server::start(|received| match received.text().len() {
        ..2000 => Reply::json(200, &{
            let mut body = completion("{\"word\": \"linnet\"}");
            body["usage"] = usage(received.text().len() / 4);
            body
        }),
        _ => Reply::error(400, "", "context_length_exceeded"),
    });
    let probe = client(&server.base_url).probe_window(runtime().handle(), 8000, &DECODING).unwrap();
    assert_eq!(probe.window, Window::Refuses);
    assert!(probe.usage.tokens_in > 0);
}
