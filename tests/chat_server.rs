//! An endpoint on loopback, by itself as OpenAI-compatible chat servers are: it labels a report by a fixed function of
//! its text, counts tokens, and misbehaves, or speaks another dialect, where a test says so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What stands before the report in the prompts of these tests.
pub(crate) const REPORT: &str = "Report:\n";

/// One request that the server got.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    /// The header lines, as they came.
    pub(crate) headers: String,
    /// The body.
    pub(crate) body: Value,
    /// How many requests with the same messages came before.
    pub(crate) earlier: usize,
    /// When the whole reply had been written; none while it has not.
    pub(crate) answered_at: Option<Instant>,
}

/// What the server does with a request.
pub(crate) enum Reply {
    /// The completion that is a function of the report.
    Good,
    /// The same after a while.
    Slow(Duration),
    /// A completion with this text.
    Text(String),
    /// A completion in which the model refuses.
    Refusal,
    /// A status, a header line (or none: empty) and a body.
    Status(u16, &'static str, String),
    /// Promises more body than it sends, and closes the connection.
    Cut,
    /// Closes the connection without a word.
    Closed,
}

impl Reply {
    /// An error as OpenAI words it.
    pub(crate) fn error(status: u16, header: &'static str, message: &str) -> Reply {
        let body = json!({ "error": { "message": message, "type": "error", "code": null } });
        Reply::Status(status, header, body.to_string())
    }
}

/// Tokens of one request, by the rule of this server: one per four bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tokens {
    pub(crate) input: u64,
    pub(crate) cached: u64,
    pub(crate) output: u64,
}

type Behaviour = Arc<dyn Fn(&Heard) -> Reply + Send + Sync>;

struct Shared {
    heard: Mutex<Vec<Heard>>,
    behaviour: Mutex<Behaviour>,
}

/// A running server; its threads end with the test process.
pub(crate) struct ChatServer {
    /// The address for `base_url`.
    pub(crate) base_url: String,
    shared: Arc<Shared>,
}

impl ChatServer {
    /// A server that answers every request well.
    pub(crate) fn start() -> ChatServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let behaviour: Behaviour = Arc::new(|_: &Heard| Reply::Good);
        let shared = Arc::new(Shared { heard: Mutex::default(), behaviour: Mutex::new(behaviour) });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || serve(&stream, &shared));
            }
        });
        ChatServer { base_url, shared }
    }

    /// From now on the server does this.
    pub(crate) fn behave(&self, behaviour: impl Fn(&Heard) -> Reply + Send + Sync + 'static) {
        *self.shared.behaviour.lock().unwrap() = Arc::new(behaviour);
    }

    /// The requests so far, in the order in which they came.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.shared.heard.lock().unwrap().clone()
    }

    /// The reports asked about since the last call, sorted.
    pub(crate) fn take_reports(&self) -> Vec<String> {
        let mut reports: Vec<String> = self.heard().iter().map(Heard::report).collect();
        self.shared.heard.lock().unwrap().clear();
        reports.sort();
        reports
    }

    /// Waits until so many requests have been answered.
    pub(crate) fn wait_for_answers(&self, count: usize) {
        let patience = Instant::now() + Duration::from_secs(20);
        while self.heard().iter().filter(|heard| heard.answered_at.is_some()).count() < count {
            assert!(Instant::now() < patience, "the server was asked {} requests only", self.heard().len());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Heard {
    /// The user's message.
    pub(crate) fn content(&self) -> &str {
        match self.body["messages"].as_array() {
            Some(messages) => messages.last().unwrap()["content"].as_str().unwrap(),
            None => self.body["input"].as_str().unwrap(),
        }
    }

    /// The report in the user's message.
    pub(crate) fn report(&self) -> String {
        self.content().split_once(REPORT).map_or("", |(_, report)| report).trim().to_owned()
    }

    /// The tokens of this request, its schema included as providers bill it, and of its good answer.
    pub(crate) fn tokens(&self) -> Tokens {
        let schema = self.body["response_format"]["json_schema"]["schema"].to_string();
        let input = ((self.content().len() + schema.len()) as u64).div_ceil(4);
        Tokens { input, cached: input / 2, output: (self.labels().len() as u64).div_ceil(4) }
    }

    /// The good answer: for each finding that the schema asks for, what the report says by the word before it.
    fn labels(&self) -> String {
        let report = self.report().to_lowercase();
        let schema = &self.body["response_format"]["json_schema"]["schema"];
        let findings = schema["required"].as_array().unwrap().iter().map(|f| f.as_str().unwrap());
        // A probe asks for one of some words.
        if let Some(words) = schema["properties"]["word"]["enum"].as_array() {
            return json!({ "word": words[0] }).to_string();
        }
        let state = |finding: &str| match report.split_once(finding) {
            None => "not_mentioned",
            Some((before, _)) if before.ends_with("no ") => "absent",
            Some((before, _)) if before.ends_with("possible ") => "uncertain",
            Some(_) => "present",
        };
        let evidence = |finding: &str| report.contains(finding).then(|| finding.to_owned());
        let label = |finding: &str| match &schema["properties"][finding]["type"] {
            kind if kind == "object" => {
                json!({ "state": state(finding), "evidence": evidence(finding).unwrap_or_default() })
            }
            _ => json!(state(finding)),
        };
        let states: serde_json::Map<String, Value> = findings.map(|f| (f.to_owned(), label(f))).collect();
        Value::Object(states).to_string()
    }

    fn completion(&self, message: &Value) -> String {
        let tokens = self.tokens();
        json!({
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": format!("{}-2026-10-01", self.body["model"].as_str().unwrap()),
            "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
            "usage": {
                "prompt_tokens": tokens.input,
                "completion_tokens": tokens.output,
                "total_tokens": tokens.input + tokens.output,
                "prompt_tokens_details": { "cached_tokens": tokens.cached },
            },
        })
        .to_string()
    }
}

fn serve(stream: &TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    while let Some((headers, body)) = read_request(&mut reader) {
        if headers.starts_with("GET /v1/models ") {
            let models = json!({ "object": "list", "data": [{ "id": "m", "object": "model" }] });
            write_reply(stream, 200, "", &models.to_string());
            continue;
        }
        let (place, heard) = note(shared, headers, body);
        let behaviour = shared.behaviour.lock().unwrap().clone();
        let kept_open = send(stream, &heard, behaviour(&heard));
        if let Some(heard) = shared.heard.lock().unwrap().get_mut(place) {
            heard.answered_at = Some(Instant::now());
        }
        if !kept_open {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// Notes a request and tells its place in the list.
fn note(shared: &Shared, headers: String, body: Value) -> (usize, Heard) {
    let mut all = shared.heard.lock().unwrap();
    let earlier = all.iter().filter(|heard| heard.body["messages"] == body["messages"]).count();
    let heard = Heard { headers, body, earlier, answered_at: None };
    all.push(heard.clone());
    (all.len() - 1, heard)
}

/// The next request; none when the connection ends or what comes is no chat request.
fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<(String, Value)> {
    let mut headers = String::new();
    while !headers.ends_with("\r\n\r\n") {
        if reader.read_line(&mut headers).ok()? == 0 {
            return None;
        }
    }
    if headers.starts_with("GET ") {
        return Some((headers, Value::Null));
    }
    let lower = headers.to_lowercase();
    let length = lower.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    // What is no JSON is a form with a file.
    let json = serde_json::from_slice(&body);
    Some((headers, json.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()))))
}

/// Replies; tells whether the connection stays open.
fn send(stream: &TcpStream, heard: &Heard, reply: Reply) -> bool {
    let spoken =
        |text: &str| heard.completion(&json!({ "role": "assistant", "content": text, "refusal": null }));
    match reply {
        Reply::Good => write_reply(stream, 200, "", &spoken(&heard.labels())),
        Reply::Slow(wait) => {
            std::thread::sleep(wait);
            send(stream, heard, Reply::Good)
        }
        Reply::Text(text) => write_reply(stream, 200, "", &spoken(&text)),
        Reply::Refusal => {
            let message =
                json!({ "role": "assistant", "content": null, "refusal": "I cannot help with that." });
            write_reply(stream, 200, "", &heard.completion(&message))
        }
        Reply::Status(status, header, body) => write_reply(stream, status, header, &body),
        Reply::Closed => false,
        Reply::Cut => {
            let mut stream = stream;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"choices\": [");
            false
        }
    }
}

fn write_reply(mut stream: &TcpStream, status: u16, header: &str, body: &str) -> bool {
    let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
    let length = body.len();
    let reply = format!(
        "HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\n{header}content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(reply.as_bytes()).is_ok()
}
