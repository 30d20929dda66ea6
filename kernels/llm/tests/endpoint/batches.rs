//! Batches of providers: handed over, waited for, fetched; against servers that answer as OpenAI and Anthropic document.

use std::collections::HashMap;

use argent_llm::{BatchState, Client, Dialect, Egress, Endpoint, FailureKind, Request};
use serde_json::{Value, json};

use crate::server::{Received, Reply, Server, completion};
use crate::{QUICK, request, runtime};

fn client(dialect: Dialect, base_url: &str) -> Client {
    let endpoint = Endpoint { dialect, ..crate::endpoint(base_url) };
    Client::with_policy(endpoint, Egress::PrivateOnly, QUICK).unwrap()
}

fn requests(dialect: Dialect) -> Vec<(String, Request)> {
    ["one", "two", "three"].map(|text| (format!("id-{text}"), Request { dialect, ..request(text) })).to_vec()
}

fn by_id(requests: &[(String, Request)]) -> HashMap<String, Request> {
    requests.iter().cloned().collect()
}

fn path(received: &Received) -> String {
    received.headers.split(' ').nth(1).unwrap().to_owned()
}

fn lines(lines: &[Value]) -> Reply {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    Reply::Whole(200, String::new(), text)
}

fn openai(received: &Received) -> Reply {
    let answered = |id: &str, status: u16, body: Value| json!({ "id": "r", "custom_id": id, "response": { "status_code": status, "body": body }, "error": null });
    match path(received).as_str() {
        "/v1/files" => Reply::json(200, &json!({ "id": "file-1", "object": "file" })),
        "/v1/batches" if received.headers.starts_with("post ") => {
            assert_eq!(received.body["input_file_id"], "file-1");
            assert_eq!(received.body["metadata"]["argent"], "mark");
            Reply::json(200, &json!({ "id": "batch-1", "status": "validating" }))
        }
        "/v1/batches/batch-1" => Reply::json(
            200,
            &json!({ "id": "batch-1", "status": "completed", "output_file_id": "out", "error_file_id": "err" }),
        ),
        // Answers come in no order, and that of an unknown id is nobody's.
        "/v1/files/out/content" => lines(&[
            answered("id-two", 200, completion("two")),
            answered("id-nobody", 200, completion("nobody")),
            answered("id-one", 200, completion("one")),
        ]),
        "/v1/files/err/content" => lines(&[
            json!({ "custom_id": "id-three", "response": null, "error": { "code": "batch_expired", "message": "…" } }),
        ]),
        other => panic!("asked for {other}"),
    }
}

#[test]
fn openai_takes_a_file_and_gives_answers_by_id() {
    let (server, runtime) = (Server::start(openai), runtime());
    let client = client(Dialect::OpenaiChat, &server.base_url);
    let requests = requests(Dialect::OpenaiChat);
    let id = client.submit_batch(runtime.handle(), "mark", &requests).unwrap();
    assert_eq!(id, "batch-1");
    let upload = &server.received()[0];
    assert!(upload.headers.contains("content-type: multipart/form-data; boundary="), "{}", upload.headers);
    let form = upload.body.as_str().unwrap();
    assert!(form.contains("name=\"purpose\"\r\n\r\nbatch\r\n"), "{form}");
    let line: Value =
        serde_json::from_str(form.lines().find(|line| line.contains("id-two")).unwrap()).unwrap();
    assert_eq!(line["url"], "/v1/chat/completions");
    assert_eq!(line["body"]["messages"][1]["content"], "two");
    assert_eq!(client.batch_state(runtime.handle(), &id), Ok(BatchState::Ended));
    let mut answers = client.batch_answers(runtime.handle(), &id, &by_id(&requests)).unwrap();
    answers.sort_by(|one, other| one.0.cmp(&other.0));
    let texts: Vec<(&str, &str)> =
        answers.iter().map(|(id, answer)| (id.as_str(), answer.as_ref().unwrap().text.as_str())).collect();
    // What expired is not among them: it was not asked.
    assert_eq!(texts, [("id-one", "one"), ("id-two", "two")]);
}

#[test]
fn anthropic_takes_a_list_and_gives_results_by_id() {
    let dialect = Dialect::AnthropicMessages;
    let message = json!({
        "type": "message", "model": "m", "stop_reason": "end_turn",
        "content": [{ "type": "text", "text": "one" }], "usage": { "input_tokens": 9, "output_tokens": 1 }
    });
    let server = Server::start(move |received| match path(received).as_str() {
        "/v1/messages/batches" => {
            assert_eq!(received.body["requests"][2]["custom_id"], "id-three");
            assert_eq!(received.body["requests"][0]["params"]["messages"][0]["content"], "one");
            Reply::json(200, &json!({ "id": "b1", "processing_status": "in_progress" }))
        }
        "/v1/messages/batches/b1" => Reply::json(
            200,
            &json!({
                "processing_status": if received.earlier > 1 { "ended" } else { "in_progress" },
                "request_counts": { "processing": 2, "succeeded": 1, "errored": 0, "canceled": 0, "expired": 0 }
            }),
        ),
        "/v1/messages/batches/b1/results" => lines(&[
            json!({ "custom_id": "id-three", "result": { "type": "expired" } }),
            json!({ "custom_id": "id-two", "result": { "type": "errored", "error": {
                "type": "error", "error": { "type": "invalid_request_error", "message": "prompt is too long" } } } }),
            json!({ "custom_id": "id-one", "result": { "type": "succeeded", "message": message } }),
        ]),
        other => panic!("asked for {other}"),
    });
    let runtime = runtime();
    let (client, requests) = (client(dialect, &server.base_url), requests(dialect));
    let id = client.submit_batch(runtime.handle(), "mark", &requests).unwrap();
    assert_eq!(client.batch_state(runtime.handle(), &id), Ok(BatchState::Working { done: 1, total: 3 }));
    let mut answers = client.batch_answers(runtime.handle(), &id, &by_id(&requests)).unwrap();
    answers.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0].1.as_ref().unwrap().text, "one");
    assert_eq!(answers[1].1.as_ref().unwrap_err().kind, FailureKind::ContextLength);
}

#[test]
fn a_batch_that_is_refused_as_a_whole_says_why_and_a_marked_one_is_found() {
    let server = Server::start(|received| match path(received).as_str() {
        "/v1/batches?limit=100" => Reply::json(
            200,
            &json!({ "data": [
                { "id": "other", "metadata": null },
                { "id": "mine", "metadata": { "argent": "mark" } },
            ] }),
        ),
        _ => Reply::json(
            200,
            &json!({ "status": "failed", "errors": { "data": [{ "code": "token_limit_exceeded", "line": 1 }] } }),
        ),
    });
    let runtime = runtime();
    let client = client(Dialect::OpenaiChat, &server.base_url);
    assert_eq!(client.find_batch(runtime.handle(), "mark").unwrap().as_deref(), Some("mine"));
    assert_eq!(client.find_batch(runtime.handle(), "another").unwrap(), None);
    let failure = client.batch_state(runtime.handle(), "b").unwrap_err();
    assert_eq!(failure.message, "the provider refused the batch as a whole: token_limit_exceeded");
}

#[test]
fn looking_after_a_batch_is_patient() {
    let server = Server::start(|received| match received.earlier {
        0 => Reply::error(503, "", "busy"),
        1 => Reply::Hangup,
        _ => Reply::json(
            200,
            &json!({ "status": "in_progress", "request_counts": { "total": 3, "completed": 1 } }),
        ),
    });
    let client = client(Dialect::OpenaiChat, &server.base_url);
    let state = client.batch_state(runtime().handle(), "b").unwrap();
    assert_eq!(state, BatchState::Working { done: 1, total: 3 });
}
