//! What is in flight, and what happens when the caller stops.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use argent_llm::{Ending, FailureKind};

use crate::server::{Reply, Server};
use crate::{client, request, runtime};

#[test]
fn nothing_is_taken_beyond_the_window_before_outcomes_are_consumed() {
    let server = Server::start(|_| Reply::completion("good"));
    let (taken, consumed) = (Cell::new(0), Cell::new(0));
    let requests = (0..40).map(|number| {
        taken.set(taken.get() + 1);
        assert!(taken.get() - consumed.get() <= 4, "{} taken, {} consumed", taken.get(), consumed.get());
        (number, request(&format!("report {number}")))
    });
    let caller = thread::current().id();
    let ending = client(&server.base_url).ask_all(runtime().handle(), requests, 4, &mut |_, _| {
        assert_eq!(thread::current().id(), caller);
        thread::sleep(Duration::from_millis(2));
        assert!(server.received().len() <= consumed.get() + 4);
        consumed.set(consumed.get() + 1);
        ControlFlow::Continue(())
    });
    assert_eq!((ending, consumed.get()), (Ending::Finished, 40));
}

#[test]
fn after_a_break_what_is_in_flight_is_delivered_and_nothing_more_is_sent() {
    let server = Server::start(|received| {
        let reply = Reply::completion(received.text());
        if received.text() == "report 0" {
            reply
        } else {
            Reply::Late(Duration::from_millis(200), Box::new(reply))
        }
    });
    let requests = (0..100).map(|number| (number, request(&format!("report {number}"))));
    let mut answers = Vec::new();
    let ending = client(&server.base_url).ask_all(runtime().handle(), requests, 4, &mut |number, outcome| {
        // Only the first answer is quick; the break comes when the other three are at the server.
        while server.received().len() < 4 {
            thread::sleep(Duration::from_millis(1));
        }
        answers.push((number, outcome.unwrap().text));
        ControlFlow::Break(())
    });
    assert_eq!(ending, Ending::Stopped);
    answers.sort();
    let expected: Vec<_> = (0..4).map(|number| (number, format!("report {number}"))).collect();
    assert_eq!(answers, expected);
    assert_eq!(server.received().len(), 4);
}

#[test]
fn after_a_break_a_request_that_waits_to_be_sent_again_is_not() {
    let server = Server::start(|received| match received.text() {
        "quick" => Reply::Late(Duration::from_millis(100), Box::new(Reply::completion("good"))),
        _ => Reply::error(503, "retry-after: 4", "overloaded"),
    });
    let requests = ["quick", "limited"].into_iter().enumerate().map(|(n, text)| (n, request(text)));
    let start = std::time::Instant::now();
    let mut outcomes = Vec::new();
    client(&server.base_url).ask_all(runtime().handle(), requests, 2, &mut |number, outcome| {
        outcomes.push((number, outcome.map(|answer| answer.text).map_err(|failure| failure.kind)));
        ControlFlow::Break(())
    });
    assert_eq!(outcomes, [(0, Ok("good".to_owned())), (1, Err(FailureKind::ServerError))]);
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_fatal_failure_stops_the_sending_by_itself() {
    let server = Server::start(|_| Reply::error(401, "", "invalid_api_key"));
    let requests = (0..1000).map(|number| (number, request(&format!("report {number}"))));
    let mut kinds = Vec::new();
    let ending = client(&server.base_url).ask_all(runtime().handle(), requests, 4, &mut |_, outcome| {
        kinds.push(outcome.unwrap_err().kind);
        ControlFlow::Continue(())
    });
    assert!(matches!(ending, Ending::Fatal(failure) if failure.kind == FailureKind::Unauthorised));
    assert_eq!(kinds.len(), 4);
}

#[test]
fn a_request_for_another_model_is_not_sent() {
    let server = Server::start(|_| Reply::completion("good"));
    let mut other = request("report");
    other.model = "other".into();
    client(&server.base_url).ask_all(runtime().handle(), [(0, other)].into_iter(), 1, &mut |_, outcome| {
        assert_eq!(outcome.unwrap_err().kind, FailureKind::BadRequest);
        ControlFlow::Continue(())
    });
    assert!(server.received().is_empty());
}

#[test]
fn a_runtime_that_ends_under_the_call_loses_no_outcome() {
    let server = Server::start(|_| Reply::Late(Duration::from_secs(2), Box::new(Reply::completion("late"))));
    let runtime = runtime();
    let handle = runtime.handle().clone();
    let ender = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        runtime.shutdown_background();
    });
    let mut kinds = Vec::new();
    let requests = (0..3).map(|number| (number, request(&format!("report {number}"))));
    client(&server.base_url).ask_all(&handle, requests, 3, &mut |_, outcome| {
        kinds.push(outcome.unwrap_err().kind);
        ControlFlow::Continue(())
    });
    ender.join().unwrap();
    assert_eq!(kinds, [FailureKind::Stopped; 3]);
}
