//! What is sent again, and when.

use std::time::{Duration, Instant};

use argent_llm::{Failure, FailureKind};
use serde_json::json;

use crate::ask;
use crate::server::{Reply, Server};

/// A server whose first response to each message is `first` and whose next ones are good.
fn good_after(first: impl Fn() -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |received| if received.earlier == 0 { first() } else { Reply::completion("good") })
}

#[test]
fn passing_faults_are_tried_again() {
    let faults: [fn() -> Reply; 8] = [
        || Reply::error(500, "", "server_error"),
        || Reply::error(529, "", "overloaded_error"),
        || Reply::error(408, "", ""),
        || Reply::Cut,
        || Reply::Hangup,
        || Reply::Whole(200, String::new(), "{\"choices\": [".into()),
        || Reply::json(200, &json!({ "error": { "message": "worker died", "code": 500 } })),
        || Reply::json(200, &json!({ "choices": [] })),
    ];
    for (index, fault) in faults.into_iter().enumerate() {
        let answer = ask(&good_after(fault).base_url, "report").unwrap();
        assert_eq!((answer.text.as_str(), answer.attempts), ("good", 2), "fault {index}");
    }
}

#[test]
fn a_fault_that_stays_is_told_after_the_last_attempt() {
    let server = Server::start(|_| Reply::error(500, "", "server_error"));
    let failure = ask(&server.base_url, "report").unwrap_err();
    assert_eq!((failure.kind, failure.attempts), (FailureKind::ServerError, 4));
    assert_eq!((failure.retryable, failure.fatal), (true, false));
    assert_eq!(server.received().len(), 4);
    assert_eq!(
        failure.to_string(),
        "status 500: server_error, try later; the server failed (after 4 attempts)"
    );
}

#[test]
fn a_status_of_200_with_an_error_is_judged_by_its_code() {
    let server = Server::start(|_| Reply::json(200, &json!({ "error": { "message": "no", "code": 401 } })));
    assert_eq!(ask(&server.base_url, "report").unwrap_err().kind, FailureKind::Unauthorised);
}

#[test]
fn a_rate_limit_is_waited_out_in_each_of_its_spellings() {
    let two_seconds_later =
        "date: Sun, 06 Nov 1994 08:49:35 GMT\r\nretry-after: Sun, 06 Nov 1994 08:49:36 GMT";
    for (header, wait_ms) in
        [("retry-after-ms: 300", 300), ("retry-after: 0.4", 400), (two_seconds_later, 1000)]
    {
        let server = good_after(move || Reply::error(429, header, "rate_limit_exceeded"));
        let start = Instant::now();
        assert_eq!(ask(&server.base_url, "report").unwrap().attempts, 2);
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(wait_ms), "{header}: {waited:?}");
        assert!(waited < Duration::from_millis(wait_ms + 1500), "{header}: {waited:?}");
    }
}

#[test]
fn a_rate_limit_of_an_hour_stops_the_step() {
    let server = Server::start(|_| Reply::error(429, "retry-after: 3600", "rate_limit_exceeded"));
    let failure = ask(&server.base_url, "report").unwrap_err();
    assert_eq!((failure.kind, failure.attempts), (FailureKind::RateLimited, 1));
    assert_eq!((failure.retryable, failure.fatal), (true, true));
    assert!(failure.message.contains("asks to wait 3600 s"), "{failure}");
}

#[test]
fn a_server_that_forbids_another_attempt_gets_none() {
    let server = Server::start(|_| Reply::error(500, "x-should-retry: false", "server_error"));
    assert_eq!(ask(&server.base_url, "report").unwrap_err().attempts, 1);
}

#[test]
fn an_answer_that_takes_too_long_is_a_timeout() {
    let server = Server::start(|_| Reply::Late(Duration::from_secs(3), Box::new(Reply::completion("late"))));
    let policy = argent_llm::RetryPolicy { timeout_seconds: 0.2, max_attempts: 2, ..crate::QUICK };
    let client = argent_llm::Client::with_policy(
        crate::endpoint(&server.base_url),
        argent_llm::Egress::PrivateOnly,
        policy,
    );
    let mut kinds = Vec::new();
    let requests = [(0, crate::request("report"))].into_iter();
    client.unwrap().ask_all(crate::runtime().handle(), requests, 1, &mut |_, outcome| {
        let Failure { kind, attempts, retryable, .. } = outcome.unwrap_err();
        kinds.push((kind, attempts, retryable));
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!(kinds, [(FailureKind::Timeout, 2, true)]);
}
