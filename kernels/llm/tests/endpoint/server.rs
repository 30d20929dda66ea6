//! A server that answers each request as the test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// What the server got.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// The header lines, in lower case.
    pub(crate) headers: String,
    /// The body.
    pub(crate) body: Value,
    /// How many requests with this user message came before.
    pub(crate) earlier: usize,
}

impl Received {
    /// The text of the user message.
    pub(crate) fn text(&self) -> &str {
        match self.body["messages"].as_array() {
            Some(messages) => messages.last().unwrap()["content"].as_str().unwrap(),
            None => self.body["input"].as_str().unwrap_or_default(),
        }
    }
}

/// What the server does.
pub(crate) enum Reply {
    /// Status, extra header lines each ended by \r\n, body.
    Whole(u16, String, String),
    /// Promises more body than it sends and closes the connection.
    Cut,
    /// Closes the connection without a word.
    Hangup,
    /// Another reply after a while.
    Late(Duration, Box<Reply>),
}

impl Reply {
    /// A reply of a status with a JSON body.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::Whole(status, String::new(), body.to_string())
    }

    /// A reply of a status with one header and an error body.
    pub(crate) fn error(status: u16, header: &str, code: &str) -> Self {
        let body = json!({ "error": { "message": "try later", "type": "error", "code": code } });
        Self::Whole(
            status,
            if header.is_empty() { String::new() } else { format!("{header}\r\n") },
            body.to_string(),
        )
    }

    /// A good completion of a text.
    pub(crate) fn completion(text: &str) -> Self {
        Self::json(200, &completion(text))
    }
}

/// The body of a good completion.
pub(crate) fn completion(text: &str) -> Value {
    json!({
        "id": "c1",
        "object": "chat.completion",
        "model": "m-2026-10-01",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": { "cached_tokens": 64 } }
    })
}

/// A running server and what it got; it serves until the test process ends.
pub(crate) struct Server {
    /// Address for `base_url`.
    pub(crate) base_url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    /// Answers every request by `reply`.
    pub(crate) fn start(reply: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let (reply, log) = (Arc::new(reply), received.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (reply, log) = (reply.clone(), log.clone());
                std::thread::spawn(move || serve(stream, &*reply, &log));
            }
        });
        Self { base_url, received }
    }

    /// What has come so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, reply: &dyn Fn(&Received) -> Reply, log: &Mutex<Vec<Received>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some((headers, body)) = read_request(&mut reader) {
        let received = {
            let mut log = log.lock().unwrap();
            let mut received = Received { headers, body, earlier: 0 };
            received.earlier = log.iter().filter(|earlier| earlier.text() == received.text()).count();
            log.push(received.clone());
            received
        };
        if !send(&stream, reply(&received)) {
            // Shuts both directions, because `reader` holds the same socket.
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

/// The next request's headers and body; `None` when the connection ends.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let mut headers = String::new();
    while !headers.ends_with("\r\n\r\n") {
        if reader.read_line(&mut headers).ok()? == 0 {
            return None;
        }
    }
    let headers = headers.to_lowercase();
    let length = headers.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let mut body = vec![0; length.map_or(Some(0), |length| length.parse().ok())?];
    reader.read_exact(&mut body).ok()?;
    // What is no JSON is a form with a file.
    let json = serde_json::from_slice(&body);
    Some((headers, json.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()))))
}

/// Sends a reply; false when the connection is to be closed.
fn send(mut stream: &TcpStream, reply: Reply) -> bool {
    match reply {
        Reply::Whole(status, headers, body) => {
            let length = body.len();
            write!(stream, "HTTP/1.1 {status} Status\r\n{headers}content-length: {length}\r\n\r\n{body}")
                .is_ok()
        }
        Reply::Cut => {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{{\"choices\":[{{");
            false
        }
        Reply::Hangup => false,
        Reply::Late(wait, reply) => {
            std::thread::sleep(wait);
            send(stream, *reply)
        }
    }
}
