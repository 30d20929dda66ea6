//! `argent doctor` looks at everything that a pipeline needs, and says what to do where it is not there.

use expect_test::expect;
use serde_json::Value;

use crate::chat_server::{ChatServer, Reply};
use crate::sandbox::{Said, Sandbox};

const SPEC: &str = r#"argent: 1
name: p
steps:
  reports: { use: reports.table, with: { path: "data/*.csv", id: id, text: text } }
  labels:
    use: label.llm
    from: reports
    with: { findings: pack.yaml, prompt: prompt.md, endpoint: { base_url: "@URL", model: @MODEL, api_key: { env: LLM_API_KEY } } }
  counts:
    use: command
    from: labels
    with: { run: "@PROGRAM {in} {out}", env: [TOKEN], outputs: { main: { columns: { n: whole } } } }
    needs: { gpu: @GPUS }
"#;

fn sandbox(spec: &str) -> Sandbox {
    let sandbox =
        Sandbox::new().with_variable("LLM_API_KEY", "secret-key").with_variable("TOKEN", "secret-token");
    sandbox
        .write("p.yaml", spec)
        .write("data/a.csv", "id,text\na,A secret report.\n")
        .write("data/b.csv", "id,text\n");
    sandbox.write("pack.yaml", "name: p\nfindings: [{ id: nodule, name: Nodule }]\n");
    sandbox.write("prompt.md", "{{ report.text }}");
    sandbox
}

fn spec(url: &str, model: &str, program: &str, gpus: &str) -> String {
    let spec = SPEC.replace("@URL", url).replace("@MODEL", model);
    spec.replace("@PROGRAM", program).replace("@GPUS", gpus)
}

/// The lines about steps, with addresses and paths that differ between machines taken out.
fn about_steps(said: &Said, url: &str) -> String {
    let value: Value = serde_json::from_str(&said.out).unwrap();
    let line = |c: &Value| {
        let word = |name: &str| c[name].as_str().unwrap_or("-").replace(url, "URL");
        let found = if word("subject") == "program cp" { "its path".to_owned() } else { word("found") };
        format!("{} {}: {}: {found}: {}\n", c["ok"], word("step"), word("subject"), word("advice"))
    };
    value["conditions"].as_array().unwrap().iter().filter(|c| !c["step"].is_null()).map(line).collect()
}

#[test]
fn where_everything_is_there_it_says_so_and_no_report_is_sent() {
    let server = ChatServer::start();
    let sandbox = sandbox(&spec(&server.base_url, "m", "cp", "0"));
    let said = sandbox.argent(&["doctor", "p.yaml", "--json"]);
    expect![[r#"
        true reports: files data/*.csv: 2 files: -
        true labels: variable LLM_API_KEY: set: -
        true labels: endpoint URL: answers, and has `m`: -
        true counts: needs gpu 0: this machine has it: -
        true counts: program cp: its path: -
        true counts: variable TOKEN: set: -
    "#]]
    .assert_eq(&about_steps(&said, &server.base_url));
    let value: Value = serde_json::from_str(&said.out).unwrap();
    let store = &value["conditions"][0];
    assert_eq!(
        (store["ok"].as_bool(), store["found"].as_str()),
        (Some(true), Some("not there yet; the first run makes it"))
    );
    assert_eq!(value["conditions"][1]["subject"], "disk of the store");
    assert!(server.heard().is_empty(), "only the list of models is asked for");
    assert!(!sandbox.path(".argent").exists(), "looking makes no store");
    for secret in ["secret-key", "secret-token", "secret report"] {
        assert!(!said.out.contains(secret) && !said.err.contains(secret), "{secret}");
    }
}

#[test]
fn what_is_wrong_comes_with_what_to_do() {
    let server = ChatServer::start();
    let sandbox = sandbox(&spec(&server.base_url, "n", "no-such-program", "1")).with_variable("OTHER", "");
    let said = sandbox.argent(&["doctor", "p.yaml", "--json"]);
    assert_eq!(said.code, 1);
    expect![[r#"
        true reports: files data/*.csv: 2 files: -
        true labels: variable LLM_API_KEY: set: -
        false labels: endpoint URL: answers, and has no model `n`: did you mean `m`?
        false counts: needs gpu 1: the step needs 1 gpu, and this argent was built without GPU support; it does not fall back to the CPU: run it on a machine that has it
        false counts: program no-such-program: on no folder of PATH: install it, or name it by its path
        true counts: variable TOKEN: set: -
    "#]].assert_eq(&about_steps(&said, &server.base_url));
    let said = sandbox.argent(&["doctor", "p.yaml"]);
    assert_eq!(said.code, 1);
    assert!(said.out.contains("wrong  counts"), "{}", said.out);
}

#[test]
fn a_server_that_is_not_there_or_not_allowed_is_told_apart() {
    let found = |url: &str| {
        let sandbox = sandbox(&spec(url, "m", "cp", "0"));
        let said = sandbox.argent(&["doctor", "p.yaml", "--json"]);
        assert_eq!(said.code, 1);
        let lines = about_steps(&said, url);
        lines.lines().find(|line| line.contains("endpoint")).unwrap().to_owned()
    };
    expect!["false labels: endpoint URL: nothing listens at the endpoint's address: start the server or check `base_url`"].assert_eq(&found("http://127.0.0.1:9/v1"));
    expect!["false labels: endpoint URL: `8.8.8.8` has the address 8.8.8.8, expected only loopback and private addresses: if report text may leave for it, say `egress: allow`"].assert_eq(&found("http://8.8.8.8/v1"));
}

#[test]
fn a_wrong_spec_is_a_wrong_spec() {
    let sandbox =
        sandbox(&spec("http://127.0.0.1:9/v1", "m", "cp", "0").replace("use: command", "use: comand"));
    assert_eq!(sandbox.argent(&["doctor", "p.yaml"]).code, 2);
}

#[test]
fn a_store_that_is_there_is_opened() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "p.yaml",
        "argent: 1\nname: p\nsteps: { demo: { use: demo.chest_ct, with: { patients: 1 } } }\n",
    );
    sandbox.succeeds(&["run", "p.yaml"]);
    let said = sandbox.succeeds(&["doctor", "p.yaml"]);
    let first: Vec<&str> =
        said.out.lines().nth(1).unwrap().split("  ").filter(|cell| !cell.is_empty()).collect();
    assert_eq!(
        first.iter().map(|cell| cell.trim()).collect::<Vec<_>>(),
        ["ok", "store .argent", "opens, and can be written"]
    );
    sandbox.write(".argent/format", "argent store 9999\n");
    let said = sandbox.argent(&["doctor", "p.yaml"]);
    assert_eq!(said.code, 1, "{}", said.out);
}

#[test]
fn a_probe_finds_out_what_a_server_does_beyond_what_it_says() {
    let server = ChatServer::start();
    let sandbox = sandbox(&spec(&server.base_url, "m", "cp", "0"));
    let probed = || {
        let said = sandbox.argent(&["doctor", "p.yaml", "--probe", "--json"]);
        let about = about_steps(&said, &server.base_url);
        let lines = about.lines().filter(|line| line.contains("schema") || line.contains("window"));
        lines.map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    expect![[r#"
        true labels: schema URL: answers are held to their schema: -
        true labels: window URL: a prompt of 4634 tokens is read whole: -"#]]
    .assert_eq(&probed());
    assert!(server.heard().iter().all(|heard| !heard.content().contains("secret report")));
    server.behave(|heard| {
        let body = serde_json::json!({
            "model": "m", "choices": [{ "message": { "content": "blue" }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": (heard.content().len() / 4).min(2048), "completion_tokens": 1 }
        });
        Reply::Status(200, "", body.to_string())
    });
    expect![[r#"
        false labels: schema URL: a schema is taken, and answers are not held to it: each answer is checked and malformed ones are asked for again, which costs; a server that enforces `response_format` spares that
        false labels: window URL: prompts are cut at about 2048 tokens and answered all the same: give the model a longer context window"#]].assert_eq(&probed());
}
