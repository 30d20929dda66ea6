//! `label.llm` against a real server once: llama.cpp's, by llama-cpp-python, with a model of random weights. It runs on
//! the user's word only, because the server is built from source; CONTRIBUTING.md has the command.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::sandbox::{Sandbox, root};

/// The Python that has `llama-cpp-python[server]` and `gguf`.
const PYTHON: &str = "ARGENT_LLAMA_PYTHON";

/// A running server, which ends with the test.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// Starts a server of a tiny model with a window of so many tokens, of which each is a byte.
    fn start(python: &str, sandbox: &Sandbox, window: usize) -> Server {
        let script = root().join("tests/live/tiny_gguf.py");
        let made = Command::new(python).arg(script).arg(sandbox.path("tiny.gguf")).status().unwrap();
        assert!(made.success(), "the model is not made");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (port_word, window) = (port.to_string(), window.to_string());
        let words =
            ["-m", "llama_cpp.server", "--model", "tiny.gguf", "--model_alias", "m", "--n_ctx", &window];
        let process = Command::new(python)
            .args(words)
            .args(["--host", "127.0.0.1", "--port", &port_word])
            .current_dir(sandbox.path("."))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server { process, port };
        let patience = Instant::now() + Duration::from_secs(120);
        while !server.answers() {
            assert!(Instant::now() < patience, "the server does not start");
            std::thread::sleep(Duration::from_millis(200));
        }
        server
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let asked = stream.write_all(b"GET /v1/models HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        let mut answer = String::new();
        asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.contains(" 200 OK")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "needs a Python with llama-cpp-python, named by ARGENT_LLAMA_PYTHON"]
fn a_real_server_holds_answers_to_their_schema_and_refuses_what_does_not_fit() {
    let python = std::env::var(PYTHON).expect("ARGENT_LLAMA_PYTHON names a Python with llama-cpp-python");
    let sandbox = Sandbox::new();
    let server = Server::start(&python, &sandbox, 4096);
    let long = "no effusion. ".repeat(500);
    sandbox
        .write(
            "reports.csv",
            &format!("id,text\na,Small effusion.\nb,No nodule.\nc,No nodule.\nlong,{long}\n"),
        )
        .write(
            "pack.yaml",
            "name: p\nfindings: [{ id: effusion, name: Effusion }, { id: nodule, name: Nodule }]\n",
        )
        .write("prompt.md", "Report:\n{{ report.text }}\n")
        .write(
            "p.yaml",
            &format!(
                "argent: 1
name: live
steps:
  reports: {{ use: reports.table, with: {{ path: reports.csv, id: id, text: text }} }}
  labels:
    use: label.llm
    from: reports
    with:
      findings: pack.yaml
      prompt: prompt.md
      endpoint: {{ base_url: \"http://127.0.0.1:{}/v1\", model: m }}
      max_tokens: 300
",
                server.port
            ),
        );
    // The server does not know `json_schema`, says so by a status of 500, and takes the schema otherwise.
    assert_eq!(sandbox.run(&["p.yaml"])[1], "labels made 4 0 1");
    let states =
        "select count(*) from labels where state in ('present', 'absent', 'uncertain', 'not_mentioned')";
    assert_eq!(sandbox.sql(states), ["6"]);
    assert_eq!(sandbox.sql("select id, kind from labels.errors"), ["long,context_length"]);
    assert_eq!(
        sandbox.sql("select count(*), count(tokens_in), min(tokens_in) > 10 from labels.calls"),
        ["2,2,true"],
        "equal reports are asked about once"
    );
    assert_eq!(sandbox.run(&["p.yaml"])[1], "labels reused 0 8 1");
    let probed = sandbox.succeeds(&["doctor", "p.yaml", "--probe"]).out;
    assert!(probed.contains("answers are held to their schema"), "{probed}");
    assert!(probed.contains("is refused, as one that does not fit should be"), "{probed}");
}
