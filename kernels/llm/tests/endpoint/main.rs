//! The client against a server on loopback that this test writes itself.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod answers;
mod batches;
mod dialects;
mod egress;
mod faults;
mod flow;
mod probes;
mod retries;
mod server;

use std::ops::ControlFlow;

use argent_llm::{
    Answer, AnswerForm, ApiKey, Client, Decoding, Dialect, Egress, Endpoint, Failure, Message, Rate, Request,
    RetryPolicy, Role, Schema,
};
use serde_json::json;
use tokio::runtime::Runtime;

/// A policy that waits milliseconds where the default waits seconds.
const QUICK: RetryPolicy = RetryPolicy {
    max_attempts: 4,
    first_wait_seconds: 0.001,
    max_wait_seconds: 0.01,
    max_asked_wait_seconds: 5.0,
    timeout_seconds: 5.0,
};

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn endpoint(base_url: &str) -> Endpoint {
    Endpoint {
        dialect: Dialect::OpenaiChat,
        base_url: base_url.into(),
        model: "m".into(),
        api_key: Some(ApiKey::new("secret-key")),
        context_tokens: None,
        rate: Rate::default(),
    }
}

fn client(base_url: &str) -> Client {
    Client::with_policy(endpoint(base_url), Egress::PrivateOnly, QUICK).unwrap()
}

/// A request whose only user message is `text`.
fn request(text: &str) -> Request {
    Request {
        dialect: Dialect::OpenaiChat,
        model: "m".into(),
        identity: None,
        messages: vec![
            Message { role: Role::System, content: "label the report".into() },
            Message { role: Role::User, content: text.into() },
        ],
        answer: AnswerForm::Json(Schema::new(json!({ "type": "object" }))),
        decoding: Decoding { temperature: Some(0.0), max_tokens: 50, seed: None, top_p: None },
        sample: 0,
    }
}

/// Asks one request of the chat dialect.
fn ask(base_url: &str, text: &str) -> Result<Answer, Failure> {
    ask_of(&client(base_url), request(text))
}

/// Asks one request.
fn ask_of(client: &Client, request: Request) -> Result<Answer, Failure> {
    let mut found = None;
    client.ask_all(runtime().handle(), [(0, request)].into_iter(), 1, &mut |_, outcome| {
        found = Some(outcome);
        ControlFlow::Continue(())
    });
    found.expect("every request has an outcome")
}
