//! `label.llm` by a provider's batches: whatever moment a run ends at, nothing is handed over twice.

use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chat_server::{ChatServer, Heard, Reply};
use crate::sandbox::Sandbox;

/// What the provider has.
#[derive(Default)]
struct Provider {
    /// Uploaded files, as lines of requests.
    files: Vec<Vec<Value>>,
    /// Batches: the number of their file, and the mark.
    batches: Vec<(usize, Value)>,
    /// Whether batches are done.
    done: bool,
    /// Custom ids that no batch comes to, as often as this says.
    expires: usize,
    /// Whether the answer that a batch was taken never comes.
    silent: bool,
}

impl Provider {
    fn reply(&mut self, heard: &Heard) -> Reply {
        let mut words = heard.headers.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let json = |value: Value| Reply::Status(200, "", value.to_string());
        match (method, path) {
            ("POST", "/v1/files") => {
                let form = heard.body.as_str().unwrap();
                let lines = form.lines().filter(|line| line.starts_with('{'));
                self.files.push(lines.map(|line| serde_json::from_str(line).unwrap()).collect());
                json(json!({ "id": (self.files.len() - 1).to_string() }))
            }
            ("POST", "/v1/batches") => {
                let file = heard.body["input_file_id"].as_str().unwrap().parse().unwrap();
                self.batches.push((file, heard.body["metadata"].clone()));
                if self.silent {
                    return Reply::Slow(Duration::from_secs(60));
                }
                json(json!({ "id": (self.batches.len() - 1).to_string(), "status": "validating" }))
            }
            ("GET", "/v1/batches?limit=100") => {
                let batches = self.batches.iter().enumerate();
                let batch = |(id, (_, mark)): (usize, &(usize, Value))| json!({ "id": id.to_string(), "metadata": mark });
                json(json!({ "data": batches.map(batch).collect::<Vec<_>>() }))
            }
            ("GET", path) if path.ends_with("/content") => {
                let file: usize = path.split('/').nth(3).unwrap().parse().unwrap();
                let mut lines = self.files[file].clone();
                let expire = std::mem::take(&mut self.expires).min(lines.len());
                let expired = lines.split_off(lines.len() - expire);
                // Answers come in another order than requests.
                let answered = lines.iter().rev().map(answered);
                let error = |line: &Value| json!({ "custom_id": line["custom_id"], "response": null, "error": { "code": "batch_expired" } });
                let all: Vec<String> =
                    answered.chain(expired.iter().map(error)).map(|v| v.to_string()).collect();
                Reply::Status(200, "", all.join("\n"))
            }
            ("GET", path) => {
                let id: usize = path.split('/').nth(3).unwrap().parse().unwrap();
                let (status, file) = match self.done {
                    true => ("completed", json!(self.batches[id].0.to_string())),
                    false => ("in_progress", Value::Null),
                };
                json(json!({ "id": id.to_string(), "status": status, "output_file_id": file }))
            }
            other => panic!("asked for {other:?}"),
        }
    }
}

/// The line of results for a line of requests: the report says what it says.
fn answered(line: &Value) -> Value {
    assert_eq!((line["method"].as_str(), line["url"].as_str()), (Some("POST"), Some("/v1/chat/completions")));
    let report = line["body"]["messages"][0]["content"].as_str().unwrap();
    let state = if report.contains("no nodule") { "absent" } else { "present" };
    let text = json!({ "nodule": state }).to_string();
    let body = json!({
        "model": "m", "choices": [{ "message": { "content": text }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 100, "completion_tokens": 10 }
    });
    json!({ "custom_id": line["custom_id"], "response": { "status_code": 200, "body": body }, "error": null })
}

fn provider(server: &ChatServer) -> Arc<Mutex<Provider>> {
    let provider = Arc::new(Mutex::new(Provider::default()));
    let shared = provider.clone();
    server.behave(move |heard| shared.lock().unwrap().reply(heard));
    provider
}

fn sandbox(server: &ChatServer, more: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox
        .write("reports.csv", "id,text\na,A nodule.\nb,There is no nodule.\nc,A nodule.\nd,Another nodule.\n")
        .write("pack.yaml", "name: p\nfindings: [{ id: nodule, name: nodule }]\n")
        .write("prompt.md", "Report:\n{{ report.text }}\n")
        .write(
            "p.yaml",
            &format!(
                "argent: 1
name: batches
steps:
  reports: {{ use: reports.table, with: {{ path: reports.csv, id: id, text: text }} }}
  labels:
    use: label.llm
    from: reports
    with:
      findings: pack.yaml
      prompt: prompt.md
      endpoint: {{ base_url: \"{}\", model: m }}
      price: {{ input: 1, output: 10 }}
      batch: {{ poll_seconds: 0.02 }}
{more}",
                server.base_url
            ),
        );
    sandbox
}

const LABELS: [&str; 4] = ["a,present", "b,absent", "c,present", "d,present"];

fn labels(sandbox: &Sandbox) -> Vec<String> {
    sandbox.sql("select id, state from labels order by id")
}

fn start(sandbox: &Sandbox) -> Child {
    let mut command = sandbox.command(&["run", "p.yaml"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < patience, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn reports_are_labelled_by_one_batch_and_charged_for() {
    let server = ChatServer::start();
    let provider = provider(&server);
    provider.lock().unwrap().done = true;
    let sandbox = sandbox(&server, "");
    assert_eq!(sandbox.run(&["p.yaml"])[1], "labels made 4 0 0");
    assert_eq!(labels(&sandbox), LABELS);
    let provider = provider.lock().unwrap();
    assert_eq!(
        (provider.batches.len(), provider.files[0].len()),
        (1, 3),
        "equal reports are asked about once"
    );
    assert_eq!(
        sandbox.sql("select count(*), sum(tokens_in), round(sum(usd), 7) from labels.calls"),
        ["3,300,0.0006"]
    );
    assert_eq!(sandbox.sql("select requests, round(usd, 7) from argent.costs"), ["3,0.0006"]);
}

#[test]
fn a_killed_run_leaves_its_batch_and_the_next_one_fetches_it() {
    let server = ChatServer::start();
    let provider = provider(&server);
    let sandbox = sandbox(&server, "");
    let mut child = start(&sandbox);
    let looks =
        || server.heard().iter().filter(|heard| heard.headers.starts_with("GET /v1/batches/0 ")).count();
    wait_until("a look at the batch", || looks() > 1);
    child.kill().unwrap();
    child.wait().unwrap();
    provider.lock().unwrap().done = true;
    assert_eq!(sandbox.run(&["p.yaml"])[1], "labels made 4 0 0");
    assert_eq!(labels(&sandbox), LABELS);
    assert_eq!(provider.lock().unwrap().batches.len(), 1);
}

#[test]
fn a_batch_whose_id_never_arrived_is_found_by_its_mark() {
    let server = ChatServer::start();
    let provider = provider(&server);
    provider.lock().unwrap().silent = true;
    let sandbox = sandbox(&server, "");
    let mut child = start(&sandbox);
    wait_until("the batch", || !provider.lock().unwrap().batches.is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    {
        let mut provider = provider.lock().unwrap();
        (provider.silent, provider.done) = (false, true);
    }
    assert_eq!(sandbox.run(&["p.yaml"])[1], "labels made 4 0 0");
    assert_eq!(labels(&sandbox), LABELS);
    assert_eq!(provider.lock().unwrap().batches.len(), 1);
}

#[test]
fn what_a_batch_did_not_come_to_is_handed_over_again_and_nothing_else() {
    let server = ChatServer::start();
    let provider = provider(&server);
    {
        let mut provider = provider.lock().unwrap();
        (provider.done, provider.expires) = (true, 2);
    }
    let sandbox = sandbox(&server, "");
    assert_eq!(sandbox.run(&["p.yaml"])[1], "labels made 4 0 0");
    assert_eq!(labels(&sandbox), LABELS);
    let provider = provider.lock().unwrap();
    assert_eq!(provider.files.iter().map(Vec::len).collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn an_interrupted_run_stops_waiting_and_says_what_is_with_the_provider() {
    let server = ChatServer::start();
    let provider = provider(&server);
    let sandbox = sandbox(&server, "");
    let mut command = sandbox.command(&["run", "p.yaml"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the batch", || !provider.lock().unwrap().batches.is_empty());
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let said = child.wait_with_output().unwrap();
    let err = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(130), "{err}");
    assert!(err.contains("3 requests are with the provider; run again to fetch their answers"), "{err}");
    provider.lock().unwrap().done = true;
    assert_eq!(sandbox.run(&["p.yaml"])[1], "labels made 4 0 0");
    assert_eq!(provider.lock().unwrap().batches.len(), 1);
}

#[test]
fn a_budget_hands_over_as_much_as_it_can_pay_for() {
    let server = ChatServer::start();
    let provider = provider(&server);
    provider.lock().unwrap().done = true;
    let sandbox = sandbox(&server, "      budget: { usd: 0.0000001 }\n");
    let said = sandbox.argent(&["run", "p.yaml"]);
    assert_eq!(said.code, 3, "{}", said.err);
    assert!(provider.lock().unwrap().batches.is_empty());
}

#[test]
fn servers_without_batches_are_told_before_anything_runs() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, "");
    let spec = sandbox
        .read("p.yaml")
        .replace("endpoint: { base_url", "endpoint: { kind: openai-decisions, base_url");
    sandbox.write("p.yaml", &spec);
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("servers of the dialect `openai-decisions` take no batches"), "{}", said.err);
}
