//! Many requests, many faults: every answer arrives once, at its own request.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use argent_llm::{AnswerError, Asked, Client, Egress, Ending, RetryPolicy, parse_answer};

use crate::server::{Received, Reply, Server};
use crate::{QUICK, endpoint, request, runtime};

const REQUESTS: usize = 200;

/// The reply to an attempt: faulty with probability 0.3, by a hash of message and attempt, so that every run has
/// the same faults. The answer echoes the message.
fn reply(received: &Received) -> Reply {
    let bytes = received.text().bytes().chain([received.earlier as u8]);
    let hash = bytes.fold(0_u64, |hash, byte| mixed(hash ^ u64::from(byte)));
    let draw = hash % 1000;
    match draw {
        0..40 => Reply::error(429, "retry-after-ms: 5", "rate_limit_exceeded"),
        40..80 => Reply::error(429, "retry-after: 0.01", "rate_limit_exceeded"),
        80..120 => Reply::error(500, "", "server_error"),
        120..160 => Reply::error(529, "", "overloaded_error"),
        160..200 => Reply::Cut,
        200..240 => Reply::Hangup,
        240..270 => Reply::Whole(200, String::new(), "{\"choices\": [{\"mess".into()),
        270..300 => Reply::Whole(200, String::new(), "{\"error\": {\"code\": 503}}".into()),
        _ => Reply::completion(&format!("{{\"echo\": \"{}\"}}", received.text())),
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): each bit of the input decides each of the output.
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[test]
fn under_faults_no_answer_is_lost_or_misattributed() {
    let server = Server::start(reply);
    let policy = RetryPolicy { max_attempts: 12, ..QUICK };
    let client = Client::with_policy(endpoint(&server.base_url), Egress::PrivateOnly, policy).unwrap();
    let requests = (0..REQUESTS).map(|number| (number, request(&format!("report {number}"))));
    let mut answers: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut attempts = 0;
    let ending = client.ask_all(runtime().handle(), requests, 16, &mut |number, outcome| {
        let answer = outcome.unwrap();
        attempts += answer.attempts as usize;
        answers.entry(number).or_default().push(answer.text);
        ControlFlow::Continue(())
    });
    assert_eq!(ending, Ending::Finished);
    assert_eq!(answers.len(), REQUESTS);
    for (number, texts) in answers {
        assert_eq!(texts, [format!("{{\"echo\": \"report {number}\"}}")]);
    }
    let received = server.received().len();
    assert_eq!(received, attempts);
    let faults = received - REQUESTS;
    assert!(faults as f64 > 0.25 * received as f64, "only {faults} faults in {received} attempts");
}

#[test]
fn an_answer_that_breaks_its_schema_is_named_and_never_a_label() {
    let server = Server::start(|_| Reply::completion("{\"effusion\": \"none\", \"nodule\": \"absent\"}"));
    let answer = crate::ask(&server.base_url, "report").unwrap();
    let findings = ["effusion", "nodule"].map(str::to_owned);
    let asked = Asked { findings: &findings, states: &["present", "absent"], evidence: false };
    let error = parse_answer(&answer.text, &asked);
    let wrong =
        AnswerError::Mismatch { missing: vec![], wrong: vec!["effusion".into()], repeated: vec![], extra: 0 };
    assert_eq!(error, Err(wrong));
}
