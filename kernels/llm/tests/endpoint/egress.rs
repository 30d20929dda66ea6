//! Where requests do not go.

use std::io::Write;
use std::net::TcpListener;

use argent_llm::{ApiKey, Client, Egress, Endpoint, EndpointError, FailureKind};

use crate::server::{Reply, Server};
use crate::{ask, endpoint};

#[test]
fn a_public_address_is_refused_unless_allowed() {
    let refused = Client::new(endpoint("https://8.8.8.8/v1"), Egress::PrivateOnly).err().unwrap();
    assert_eq!(
        refused,
        EndpointError::PublicAddress { host: "8.8.8.8".into(), address: "8.8.8.8".parse().unwrap() }
    );
    assert!(Client::new(endpoint("http://8.8.8.8/v1"), Egress::Allow).is_ok());
}

#[test]
fn a_name_is_checked_by_its_addresses() {
    assert!(Client::new(endpoint("http://localhost:1/v1"), Egress::PrivateOnly).is_ok());
    let unresolved =
        Client::new(endpoint("http://no-such-host.invalid/v1"), Egress::PrivateOnly).err().unwrap();
    assert!(matches!(unresolved, EndpointError::Resolve { .. }), "{unresolved}");
}

#[test]
fn a_name_leads_to_its_server() {
    let server = Server::start(|_| Reply::completion("good"));
    let by_name = server.base_url.replace("127.0.0.1", "localhost");
    assert_eq!(ask(&by_name, "report").unwrap().text, "good");
}

#[test]
fn a_redirect_is_told_without_its_query_and_not_followed() {
    let elsewhere = Server::start(|_| Reply::completion("stolen"));
    let target = format!("location: {}/chat?token=hunter2\r\n", elsewhere.base_url);
    let server = Server::start(move |_| Reply::Whole(307, target.clone(), String::new()));
    let failure = ask(&server.base_url, "report").unwrap_err();
    assert_eq!((failure.kind, failure.fatal), (FailureKind::Redirect, true));
    assert!(failure.message.contains(&format!("redirects to {}/chat,", elsewhere.base_url)), "{failure}");
    assert!(!failure.message.contains("hunter2"));
    assert!(elsewhere.received().is_empty());
}

#[test]
fn a_port_where_nothing_listens_is_fatal_at_once() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let failure = ask(&format!("http://{free}/v1"), "report").unwrap_err();
    assert_eq!((failure.kind, failure.attempts), (FailureKind::ConnectionRefused, 1));
    assert_eq!((failure.retryable, failure.fatal), (true, true));
}

#[test]
fn a_server_without_tls_is_told_from_a_broken_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("https://{}/v1", listener.local_addr().unwrap());
    if let Err(error) = Client::new(endpoint(&base_url), Egress::PrivateOnly) {
        println!("skipped: this system has no certificates ({error})");
        return;
    }
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    });
    let failure = ask(&base_url, "report").unwrap_err();
    assert_eq!((failure.kind, failure.attempts, failure.fatal), (FailureKind::Tls, 1, true), "{failure}");
}

#[test]
fn a_key_that_no_header_can_carry_is_refused() {
    for key in ["", "two\nlines"] {
        let api_key = Some(ApiKey::new(key));
        let endpoint = Endpoint { api_key, ..endpoint("http://127.0.0.1:1/v1") };
        assert_eq!(Client::new(endpoint, Egress::PrivateOnly).err(), Some(EndpointError::ApiKey));
    }
}
