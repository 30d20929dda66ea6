//! `label.llm` against servers that speak otherwise, say probabilities, cut prompts, or have to be asked twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::chat_server::{ChatServer, Heard, Reply};
use crate::sandbox::Sandbox;

const PACK: &str = "
name: two
findings:
  - { id: effusion, name: pleural effusion, definition: Fluid in the pleural space. }
  - { id: nodule, name: nodule, definition: A rounded opacity. }
";

const PROMPT: &str = "Say what the report says.\nReport:\n{{ report.findings }}\n";

/// A pipeline whose step `labels` has these parameters behind its pack and prompt.
fn spec(parameters: &str) -> String {
    format!(
        "argent: 1
name: silver
steps:
  reports:
    use: reports.table
    with: {{ path: reports.csv, id: id, sections: {{ findings: text }} }}
  labels:
    use: label.llm
    from: reports
    with:
      findings: pack.yaml
      prompt: prompt.md
{parameters}
"
    )
}

fn sandbox(reports: &[(&str, &str)], parameters: &str) -> Sandbox {
    let rows: String = reports.iter().map(|(id, text)| format!("{id},\"{text}\"\n")).collect();
    let sandbox = Sandbox::new();
    sandbox
        .write("reports.csv", &format!("id,text\n{rows}"))
        .write("pack.yaml", PACK)
        .write("prompt.md", PROMPT)
        .write("silver.yaml", &spec(parameters));
    sandbox
}

fn chat(server: &ChatServer, more: &str) -> String {
    format!("      endpoint: {{ base_url: \"{}\", model: m }}\n{more}", server.base_url)
}

/// A server whose reply to each body is this, whatever the path.
fn server(reply: impl Fn(&Value) -> Value + Send + Sync + 'static) -> ChatServer {
    let server = ChatServer::start();
    server.behave(move |heard| Reply::Status(200, "", reply(&heard.body).to_string()));
    server
}

const TWO: [(&str, &str); 2] = [("r1", "Small effusion, no nodule."), ("r2", "Possible nodule.")];

#[test]
fn decisions_give_a_probability_for_each_state() {
    let server = server(|body| {
        assert_eq!(
            body["questions"][0]["instructions"],
            "What does the report say of pleural effusion? Fluid in the pleural space."
        );
        let present = if body["input"].as_str().unwrap().contains("effusion") { 0.75 } else { 0.0 };
        let answer = |question: &Value| {
            let p = |value: &str, probability: f64| json!({ "value": value, "probability": probability });
            let rest = (1.0 - present) / 4.0;
            let probabilities = [
                p("absent", rest),
                p("present", present),
                p("uncertain", rest),
                p("not_mentioned", 2.0 * rest),
            ];
            json!({ "type": "choice", "name": question["name"], "probabilities": probabilities, "label_mass": 0.5 })
        };
        let answers: Vec<Value> = body["questions"].as_array().unwrap().iter().map(answer).collect();
        json!({ "model": "m-1", "answers": answers, "usage": { "input_tokens": 80 } })
    });
    let parameters = format!(
        "      endpoint: {{ kind: openai-decisions, base_url: \"{}\", model: m }}\n      price: {{ input: 0.1, output: 0 }}",
        server.base_url
    );
    let sandbox = sandbox(&TWO, &parameters);
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 2 0 0");
    assert!(server.heard()[0].headers.starts_with("POST /v1/decisions HTTP/1.1\r\n"));
    assert_eq!(
        sandbox.sql("select id, finding, state, score, p_absent, p_not_mentioned, label_mass from labels order by 1, 2"),
        [
            "r1,effusion,present,0.75,0.0625,0.125,0.5",
            "r1,nodule,present,0.75,0.0625,0.125,0.5",
            "r2,effusion,not_mentioned,0.0,0.25,0.5,0.5",
            "r2,nodule,not_mentioned,0.0,0.25,0.5,0.5",
        ]
    );
    assert_eq!(
        sandbox.sql("select tokens_in, tokens_out, usd from labels.calls"),
        ["80,0,8e-6", "80,0,8e-6"]
    );
}

#[test]
fn a_predicate_gives_one_probability() {
    let server = server(|body| {
        let answer =
            |question: &Value| json!({ "type": "predicate", "name": question["name"], "probability": 0.25 });
        let answers: Vec<Value> = body["questions"].as_array().unwrap().iter().map(answer).collect();
        json!({ "model": "m-1", "answers": answers, "usage": { "input_tokens": 80 } })
    });
    let parameters = format!(
        "      endpoint: {{ kind: openai-decisions, base_url: \"{}\", model: m, questions: predicate }}",
        server.base_url
    );
    let sandbox = sandbox(&TWO[..1], &parameters);
    sandbox.run(&["silver.yaml"]);
    assert_eq!(
        sandbox.sql("select finding, state, score from labels order by 1"),
        ["effusion,absent,0.25", "nodule,absent,0.25"]
    );
}

#[test]
fn a_question_that_is_refused_is_an_error_row() {
    let server = server(|_| {
        json!({ "model": "m", "answers": [
            { "type": "refusal", "name": "nodule" },
            { "type": "predicate", "name": "effusion", "probability": 0.25 },
        ] })
    });
    let parameters = format!(
        "      endpoint: {{ kind: openai-decisions, base_url: \"{}\", model: m, questions: predicate }}",
        server.base_url
    );
    let sandbox = sandbox(&TWO[..1], &parameters);
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 1 0 1");
    assert_eq!(
        sandbox.sql("select kind, message from labels.errors"),
        ["refusal,the model refused to answer about nodule"]
    );
    assert_eq!(server.heard().len(), 1);
}

#[test]
fn anthropic_and_ollama_are_asked_in_their_own_words() {
    let states = json!({ "effusion": "present", "nodule": "absent" }).to_string();
    let text = states.clone();
    let anthropic = server(move |body| {
        assert_eq!(body["output_config"]["format"]["type"], "json_schema");
        json!({
            "model": "m-1", "stop_reason": "end_turn", "content": [{ "type": "text", "text": text }],
            "usage": { "input_tokens": 20, "cache_read_input_tokens": 60, "output_tokens": 9 }
        })
    });
    let parameters = |server: &ChatServer, kind: &str, base_url: &str| {
        let price = "      price: { input: 1, cached: 0.1, output: 5 }";
        let _ = server;
        format!(
            "      endpoint: {{ kind: {kind}, base_url: \"{base_url}\", model: m, context_tokens: 8192 }}\n{price}"
        )
    };
    let sandbox = sandbox(&TWO[..1], &parameters(&anthropic, "anthropic-messages", &anthropic.base_url));
    sandbox.run(&["silver.yaml"]);
    assert!(anthropic.heard()[0].headers.starts_with("POST /v1/messages HTTP/1.1\r\n"));
    let labels = ["effusion,present", "nodule,absent"];
    assert_eq!(sandbox.sql("select finding, state from labels order by 1"), labels);
    let counts = "select tokens_in, tokens_cached, tokens_out from labels.calls";
    assert_eq!(sandbox.sql(counts), ["80,60,9"]);

    let ollama = server(move |body| {
        assert_eq!(body["options"]["num_ctx"], 8192);
        assert_eq!(body["truncate"], false);
        json!({
            "model": "m", "done": true, "done_reason": "stop", "message": { "role": "assistant", "content": states },
            "prompt_eval_count": 80, "eval_count": 9
        })
    });
    let base_url = ollama.base_url.trim_end_matches("/v1").to_owned();
    sandbox.write("silver.yaml", &spec(&parameters(&ollama, "ollama-chat", &base_url)));
    sandbox.run(&["silver.yaml"]);
    assert!(ollama.heard()[0].headers.starts_with("POST /api/chat HTTP/1.1\r\n"));
    assert_eq!(sandbox.sql("select finding, state from labels order by 1"), labels);
    assert_eq!(sandbox.sql(counts), ["80,0,9"]);
}

#[test]
fn a_malformed_answer_is_asked_for_again_and_both_are_paid_for() {
    let server = ChatServer::start();
    server.behave(|heard| match heard.content().starts_with("An earlier answer to this was malformed") {
        true => Reply::Good,
        false => Reply::Text("{\"effusion\": \"yes\"}".into()),
    });
    let sandbox = sandbox(&TWO[..1], &chat(&server, "      price: { input: 1, output: 4 }"));
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 1 0 0");
    let asked: Vec<Heard> = server.heard().into_iter().filter(|heard| !heard.report().is_empty()).collect();
    assert_eq!(asked.len(), 2);
    assert!(asked[1].content().contains(
        "malformed (attempt 1): no state: nodule; a value that is no state: effusion; expected exactly one state for \
         each finding"
    ));
    assert_eq!(
        sandbox.sql("select finding, state from labels order by 1"),
        ["effusion,present", "nodule,absent"]
    );
    assert_eq!(sandbox.sql("select count(*), count(tokens_out) from labels.calls"), ["2,2"]);
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels reused 0 2 0");

    // Who wants fewer labels for less money asks once; what is kept stays kept.
    sandbox.write("silver.yaml", &spec(&chat(&server, "      repairs: 0")));
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 1 0 1");
    sandbox.write("silver.yaml", &spec(&chat(&server, "      repairs: 2")));
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 1 0 0");
    assert_eq!(server.heard().iter().filter(|heard| !heard.report().is_empty()).count(), 2);
}

#[test]
fn an_answer_that_was_cut_short_is_asked_for_once_with_more_room() {
    let server = ChatServer::start();
    server.behave(|heard| match heard.body["max_tokens"].as_u64().unwrap() {
        ..200 => {
            let body = json!({
                "model": "m", "choices": [{ "message": { "content": "{\"eff" }, "finish_reason": "length" }],
                "usage": { "prompt_tokens": 40, "completion_tokens": 9 }
            });
            Reply::Status(200, "", body.to_string())
        }
        _ => Reply::Good,
    });
    let sandbox = sandbox(&TWO[..1], &chat(&server, ""));
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 1 0 0");
    assert_eq!(server.heard().len(), 2);
    assert_eq!(sandbox.sql("select count(*), count(answer) from labels.calls"), ["2,1"]);
    // Room that the user chose is not changed.
    sandbox.write("silver.yaml", &spec(&chat(&server, "      max_tokens: 20")));
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 1 0 1");
    assert_eq!(sandbox.sql("select kind from labels.errors"), ["truncated"]);
    assert_eq!(server.heard().len(), 3);
}

/// A server that labels well and counts a token for four bytes, up to a window.
fn cutting(window: usize) -> ChatServer {
    let server = ChatServer::start();
    server.behave(move |heard| {
        let words = &heard.body["response_format"]["json_schema"]["schema"]["properties"]["word"]["enum"];
        let text = match words.as_array() {
            Some(words) => json!({ "word": words[0] }),
            None => json!({ "effusion": "absent", "nodule": "absent" }),
        };
        let body = json!({
            "model": "m",
            "choices": [{ "message": { "content": text.to_string() }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": (heard.content().len() / 4).min(window), "completion_tokens": 9 }
        });
        Reply::Status(200, "", body.to_string())
    });
    server
}

#[test]
fn an_answer_to_half_a_prompt_is_no_label() {
    let long = "The lungs are clear. ".repeat(500);
    let reports = [("long", long.as_str()), ("short", "No effusion.")];
    let server = cutting(1024);
    let sandbox = sandbox(&reports, &chat(&server, ""));
    let run = sandbox.succeeds(&["run", "silver.yaml"]);
    assert!(
        run.err.contains("warning   the endpoint cuts prompts at about 1024 tokens and answers all the same; such answers do not count"),
        "{}",
        run.err
    );
    assert_eq!(
        sandbox.sql("select distinct id, state from labels order by 1"),
        ["long,failed", "short,absent"]
    );
    assert_eq!(sandbox.sql("select id, kind, retryable from labels.errors"), ["long,truncated_input,false"]);
    // Where nothing is suspicious, nothing is probed.
    let roomy = cutting(1 << 20);
    sandbox.write("silver.yaml", &spec(&chat(&roomy, "      temperature: 0.5")));
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 2 0 0");
    assert_eq!(roomy.heard().len(), 2);
}

#[test]
fn counts_that_do_not_grow_say_nothing_and_the_user_is_told() {
    let long = "The lungs are clear. ".repeat(500);
    let server = ChatServer::start();
    server.behave(|_| {
        let text = json!({ "effusion": "absent", "nodule": "absent" }).to_string();
        let body = json!({
            "model": "m", "choices": [{ "message": { "content": text }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 300, "completion_tokens": 9 }
        });
        Reply::Status(200, "", body.to_string())
    });
    let sandbox = sandbox(&[("long", &long)], &chat(&server, ""));
    let run = sandbox.succeeds(&["run", "silver.yaml"]);
    assert!(run.err.contains("counts of tokens do not grow with the prompt"), "{}", run.err);
    assert_eq!(sandbox.sql("select distinct state from labels"), ["absent"]);
}

#[test]
fn a_prompt_that_is_surely_too_long_is_not_sent() {
    let long = "The lungs are clear. ".repeat(500);
    let server = ChatServer::start();
    let window = |tokens: u32| {
        spec(&format!(
            "      endpoint: {{ base_url: \"{}\", model: m, context_tokens: {tokens} }}",
            server.base_url
        ))
    };
    let sandbox = sandbox(&[("long", &long)], "");
    sandbox.write("silver.yaml", &window(512));
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 1 0 1");
    assert_eq!(sandbox.sql("select kind, attempts from labels.errors"), ["context_length,0"]);
    assert!(server.heard().is_empty());
    sandbox.write("silver.yaml", &window(8192));
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 1 0 0");
}

#[test]
fn of_several_samples_most_decide_and_all_are_paid_for() {
    let server = ChatServer::start();
    let count = Arc::new(AtomicUsize::new(0));
    server.behave(move |_| {
        let state = ["present", "absent", "present"][count.fetch_add(1, Ordering::Relaxed) % 3];
        Reply::Text(json!({ "effusion": state, "nodule": "absent" }).to_string())
    });
    let more = "      samples: 3\n      temperature: 0.7\n      concurrency: 1";
    let sandbox = sandbox(&TWO[..1], &chat(&server, more));
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 1 0 0");
    assert_eq!(server.heard().len(), 3);
    let labels =
        sandbox.sql("select finding, state, round(score, 3), round(agreement, 3) from labels order by 1");
    assert_eq!(labels, ["effusion,present,0.667,0.667", "nodule,absent,0.0,1.0"]);
    assert_eq!(sandbox.sql("select count(*) from labels.calls"), ["3"]);
    // A fourth and fifth sample are two more questions.
    sandbox.write("silver.yaml", &spec(&chat(&server, &more.replace("samples: 3", "samples: 5"))));
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 1 0 0");
    assert_eq!(server.heard().len(), 5);
}

#[test]
fn evidence_is_what_the_report_says_and_nothing_else() {
    let server = ChatServer::start();
    server.behave(|heard| {
        let quote = if heard.report().contains("Small") { "Small effusion" } else { "a large effusion" };
        Reply::Text(
            json!({
                "effusion": { "evidence": quote, "state": "present" },
                "nodule": { "evidence": "", "state": "not_mentioned" },
            })
            .to_string(),
        )
    });
    let sandbox = sandbox(&TWO, &chat(&server, "      evidence: true"));
    sandbox.run(&["silver.yaml"]);
    let schema = &server.heard()[0].body["response_format"]["json_schema"]["schema"];
    assert_eq!(schema["properties"]["nodule"]["required"], json!(["evidence", "state"]));
    assert_eq!(
        sandbox.sql("select id, finding, state, evidence from labels order by 1, 2"),
        [
            "r1,effusion,present,Small effusion",
            "r1,nodule,not_mentioned,",
            "r2,effusion,present,",
            "r2,nodule,not_mentioned,",
        ]
    );
}

#[test]
fn mistakes_of_an_endpoint_are_told_before_anything_is_sent() {
    let parameters = "      samples: 0
      few_shot: { shots: 0 }
      endpoint:
        kind: openai-chat
        base_url: \"http://127.0.0.1:1/v1\"
        model: m
        questions: predicate
        rate: { requests_per_minute: 0 }";
    let sandbox = sandbox(&TWO, parameters);
    let told = sandbox.argent(&["check", "silver.yaml"]);
    assert_eq!(told.code, 2);
    for part in [
        "expected 1 to 99 for `samples`, found 0",
        "expected 1 to 64 for `few_shot.shots`, found 0",
        "expected more than 0 for `endpoint.rate.requests_per_minute`, found 0",
    ] {
        assert!(told.err.contains(part), "{}", told.err);
    }
    let parameters =
        "      endpoint: { base_url: \"http://127.0.0.1:1/v1\", model: m, questions: predicate }";
    sandbox.write("silver.yaml", &spec(parameters));
    let told = sandbox.argent(&["check", "silver.yaml"]);
    let message = "`questions` is for decisions: a chat answers all findings with one JSON object";
    assert!(told.err.contains(message), "{}", told.err);
}

#[test]
fn what_was_asked_before_an_answer_was_mended_is_forgotten_too() {
    let server = ChatServer::start();
    server.behave(|heard| match heard.content().starts_with("An earlier answer to this was malformed") {
        true => Reply::Good,
        false => Reply::Text("{}".into()),
    });
    let sandbox = sandbox(&TWO, &chat(&server, ""));
    sandbox.run(&["silver.yaml"]);
    let calls = "select count(*) from labels.calls";
    assert_eq!(sandbox.sql(calls), ["4"]);
    sandbox.succeeds(&["forget", "--where", "id = 'r1'"]);
    assert_eq!(sandbox.sql(calls), ["2"]);
    assert_eq!(sandbox.sql(&format!("{calls} where request like '%Small%'")), ["0"]);
}
