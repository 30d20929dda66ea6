//! A prompt is tried on a few rows before it is paid for on all: `argent try`.

use expect_test::expect;
use serde_json::Value;

use crate::chat_server::{ChatServer, Heard, Reply};
use crate::sandbox::Sandbox;

const PACK: &str = "name: small
findings:
  - { id: effusion, name: Pleural effusion, definition: Fluid in the pleural space., synonyms: [effusion], rules: { any: [effusions?] } }
  - { id: nodule, name: Lung nodule, definition: A nodule of any size., synonyms: [nodule], rules: { any: [nodules?] } }
";

const PROMPT: &str = "Label the report.
Report:
{{ report.text }}";

/// Another prompt, at which the server of these tests reads more carefully.
pub(crate) const CAREFUL: &str = "Label the report, carefully.
Report:
{{ report.text }}";

const SPEC: &str = "argent: 1
name: silver
params:
  model: m
steps:
  reports: { use: reports.table, with: { path: reports.csv, id: id, text: text } }
  labels:
    use: label.llm
    from: reports
    with:
      findings: pack.yaml
      prompt: prompt.md
      endpoint: { base_url: \"@URL\", model: \"${params.model}\" }
      price: { input: 1, cached: 0.1, output: 4 }
";

/// Steps that measure the labels of [`SPEC`] by a truth.
pub(crate) const GOLD: &str = "  gold: { use: labels.table, with: { path: gold.csv, id: id, findings: pack.yaml, values: { \"1\": present, \"0\": absent } } }
  agreement: { use: eval.agreement, from: { labels: labels, truth: gold } }
";

/// A folder with the pipeline `silver.yaml`, its files and so many reports.
pub(crate) fn sandbox(server: &ChatServer, reports: usize) -> Sandbox {
    server.behave(careless);
    let sandbox = Sandbox::new();
    sandbox.write("pack.yaml", PACK).write("prompt.md", PROMPT);
    sandbox.write("silver.yaml", &SPEC.replace("@URL", &server.base_url));
    write_reports(&sandbox, reports);
    sandbox
}

fn write_reports(sandbox: &Sandbox, reports: usize) {
    let rows: String = (0..reports).map(|n| format!("r{n:02},\"{}\"\n", report(n))).collect();
    sandbox.write("reports.csv", &format!("id,text\n{rows}"));
}

/// A report that differs from all others, some of them longer.
fn report(n: usize) -> String {
    let word = ["Small effusion", "Possible nodule", "No effusion, no nodule", "Nodule"][n % 4];
    format!("{word} in case {n}.{}", " Nothing else is seen.".repeat(n % 3))
}

/// The truth of [`report`] for these reports.
pub(crate) fn write_gold(sandbox: &Sandbox, reports: impl Iterator<Item = usize>) {
    let yes = |n: usize, of: &[usize]| u8::from(of.contains(&(n % 4)));
    let rows: String = reports.map(|n| format!("r{n:02},{},{}\n", yes(n, &[0]), yes(n, &[1, 3]))).collect();
    sandbox.write("gold.csv", &format!("id,effusion,nodule\n{rows}"));
}

/// Takes what is negated for present, unless the prompt asks for care or the model is the good one.
fn careless(heard: &Heard) -> Reply {
    if heard.content().contains("carefully") || heard.body["model"] == "good" {
        return Reply::Good;
    }
    let text = heard.report().to_lowercase();
    let state = |word: &str| if text.contains(word) { "present" } else { "absent" };
    let labels = serde_json::json!({ "effusion": state("effusion"), "nodule": state("nodule") });
    Reply::Text(labels.to_string())
}

pub(crate) fn asked(server: &ChatServer) -> usize {
    server.take_reports().len()
}

#[test]
fn a_trial_shows_what_is_asked_and_answered_and_a_run_does_not_ask_it_again() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, 8);
    let tried = sandbox.succeeds(&["try", "silver.yaml", "labels", "--rows", "2"]);
    expect![[r#"
        labels (label.llm): 2 of 8 rows, there is no result beside them yet

        id r07
          user
            Label the report.
            Report:
            Nodule in case 7. Nothing else is seen.
          answer (sent now, m-2026-10-01, 82 tokens in (41 cached), 12 out, $0.000093)
            {"effusion":"absent","nodule":"present"}
          finding   state
          effusion  absent
          nodule    present

        id r02
          user
            Label the report.
            Report:
            No effusion, no nodule in case 2. Nothing else is seen. Nothing else is seen.
          answer (sent now, m-2026-10-01, 92 tokens in (46 cached), 10 out, $0.000091)
            {"effusion":"present","nodule":"present"}
          finding   state
          effusion  present
          nodule    present

        tried    2 requests, 174 tokens in (87 cached), 22 out, $0.000184
        rest     6 rows by 6 requests, about 495 tokens in, 66 out, $0.000534 (95% interval $0.000152-0.000916)
    "#]].assert_eq(&tried.out);
    assert_eq!(tried.err, "");
    assert_eq!(asked(&server), 2);

    let again = sandbox.succeeds(&["try", "silver.yaml", "labels", "--rows", "2"]);
    assert_eq!(asked(&server), 0, "the same rows, whose answers are there");
    assert_eq!(again.out.lines().next(), tried.out.lines().next());
    expect![[r#"
        tried    0 requests, 2 answers there before
        rest     6 rows by 6 requests, about 495 tokens in, 66 out, $0.000534 (95% interval $0.000152-0.000916)
    "#]].assert_eq(&last_lines(&again.out, 2));
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 6 2 0");
    assert_eq!(asked(&server), 6, "a run asks the others alone");
    let after = sandbox.succeeds(&["try", "silver.yaml", "labels", "--rows", "2"]).out;
    expect![[r#"
        flips    0 of 4 labels
        tried    0 requests, 2 answers there before
        rest     0 rows by 0 requests
    "#]]
    .assert_eq(&last_lines(&after, 3));
    assert_eq!(asked(&server), 0, "a result that holds is shown as it is");
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len() - count..].iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn what_trying_spends_is_accounted_and_nothing_is_published() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, 8);
    sandbox.succeeds(&["try", "silver.yaml", "labels", "--rows", "2"]);
    assert_eq!(sandbox.succeeds(&["runs"]).out, "run  pipeline  name  started  outcome  made  reused\n");
    assert_eq!(
        sandbox.argent(&["sql", "select * from silver.labels"]).code,
        1,
        "no name stands for a result"
    );
    sandbox.run(&["silver.yaml"]);
    let costs = "select kind, step, model, requests, tokens_in from argent.costs";
    expect![[r#"
        trial,labels,m,2,174
        run,labels,m,6,495
    "#]]
    .assert_eq(&(sandbox.sql(costs).join("\n") + "\n"));
    let calls: f64 = sandbox.sql("select sum(usd) from labels.calls")[0].parse().unwrap();
    let spent: f64 = sandbox.sql("select sum(usd) from argent.costs")[0].parse().unwrap();
    assert!((calls - spent).abs() < 1e-12, "{calls} {spent}");
    let prompts = "select count(distinct prompt_digest) from argent.costs where prompt_digest is not null";
    assert_eq!(sandbox.sql(prompts), ["1"]);
}

#[test]
fn a_longer_choice_holds_a_shorter_one_and_an_id_chooses_itself() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, 12);
    let ids = |words: &[&str]| -> Vec<String> {
        let words = [&["try", "silver.yaml", "labels", "--json"], words].concat();
        let said: Value = serde_json::from_str(&sandbox.succeeds(&words).out).unwrap();
        let rows = said["trial"]["rows"].as_array().unwrap().clone();
        rows.iter().map(|row| row["row"]["id"].as_str().unwrap().to_owned()).collect()
    };
    let five = ids(&[]);
    assert_eq!(five.len(), 5);
    assert_eq!(asked(&server), 5);
    assert_eq!(ids(&["--rows", "6"])[..5], five);
    assert_eq!(asked(&server), 1);
    assert_eq!(ids(&["--id", "r07"]), ["r07"]);
    let one = asked(&server);
    write_reports(&sandbox, 13);
    let new = ids(&["--rows", "6"]);
    assert!(
        new.iter().filter(|id| five.contains(id)).count() >= 4,
        "a new row takes the place of one at most"
    );
    assert_eq!(ids(&["--rows", "99"]).len(), 13);
    assert_eq!(asked(&server) + 6 + one, 13, "no report is asked twice");
}

#[test]
fn labels_that_flip_are_marked() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, 8);
    sandbox.run(&["silver.yaml"]);
    sandbox.write("prompt.md", CAREFUL);
    let said = sandbox.succeeds(&["try", "silver.yaml", "labels", "--id", "r02"]).out;
    let made = said.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
    expect![[r#"
        labels (label.llm): 1 of 8 rows, beside the result of MADE

        id r02
          user
            Label the report, carefully.
            Report:
            No effusion, no nodule in case 2. Nothing else is seen. Nothing else is seen.
          answer (sent now, m-2026-10-01, 94 tokens in (47 cached), 10 out, $0.000092)
            {"effusion":"absent","nodule":"absent"}
          finding   state   before
          effusion  absent  present  flip
          nodule    absent  present  flip

        flips    2 of 2 labels
        tried    1 request, 94 tokens in (47 cached), 10 out, $0.000092
        rest     7 rows by 7 requests, about 595 tokens in, 70 out, $0.000603
    "#]]
    .assert_eq(&said.replace(&made, "MADE"));

    let said = sandbox.succeeds(&["try", "silver.yaml", "labels", "--id", "r02", "--json"]).out;
    let mut said: Value = serde_json::from_str(&said.replace(&made, "MADE")).unwrap();
    let call = said["trial"]["rows"][0]["exchanges"][0]["call"].take();
    let kept = sandbox.sql("select count(*) from silver.labels.calls");
    assert_eq!((call.as_str().unwrap().len(), kept), (64, vec!["8".to_owned()]));
    expect![[r#"
        {
          "pipeline": "silver",
          "trial": {
            "step": "labels",
            "use": "label.llm",
            "total": 8,
            "columns": [
              "finding",
              "state",
              "score",
              "evidence"
            ],
            "label": "state",
            "before": "MADE",
            "rows": [
              {
                "row": {
                  "id": "r02"
                },
                "exchanges": [
                  {
                    "call": null,
                    "messages": [
                      {
                        "role": "user",
                        "text": "Label the report, carefully.\nReport:\nNo effusion, no nodule in case 2. Nothing else is seen. Nothing else is seen."
                      }
                    ],
                    "answer": "{\"effusion\":\"absent\",\"nodule\":\"absent\"}",
                    "model": "m-2026-10-01",
                    "usage": {
                      "tokens_in": 94,
                      "tokens_cached": 47,
                      "tokens_out": 10,
                      "usd": 0.0000917
                    },
                    "problem": null,
                    "sent": false
                  }
                ],
                "outputs": [
                  {
                    "finding": "effusion",
                    "after": {
                      "evidence": null,
                      "finding": "effusion",
                      "score": null,
                      "state": "absent"
                    },
                    "before": {
                      "evidence": null,
                      "finding": "effusion",
                      "score": null,
                      "state": "present"
                    },
                    "flipped": true
                  },
                  {
                    "finding": "nodule",
                    "after": {
                      "evidence": null,
                      "finding": "nodule",
                      "score": null,
                      "state": "absent"
                    },
                    "before": {
                      "evidence": null,
                      "finding": "nodule",
                      "score": null,
                      "state": "present"
                    },
                    "flipped": true
                  }
                ],
                "error": null
              }
            ],
            "tried": {
              "made": 0,
              "reused": 0,
              "failed": 0,
              "retryable": 0,
              "requests": 0,
              "tokens_in": 0,
              "tokens_cached": 0,
              "tokens_out": 0,
              "usd": null,
              "seconds": 0.0
            },
            "rest_rows": 7,
            "rest": {
              "requests": 7,
              "tokens_in": 595,
              "tokens_out": 70,
              "usd": 0.000603386,
              "usd_low": null,
              "usd_high": null
            },
            "stopped": null
          }
        }
    "#]].assert_eq(&(serde_json::to_string_pretty(&said).unwrap() + "\n"));
}

#[test]
fn any_row_operator_can_be_tried() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, 4);
    let spec = sandbox.read("silver.yaml")
        + "  rules: { use: label.rules, from: reports, with: { findings: pack.yaml } }
  targets: { use: label.policy, from: rules, with: { not_mentioned: zero } }
";
    sandbox.write("silver.yaml", &spec);
    expect![[r#"
        rules (label.rules): 1 of 4 rows, there is no result beside them yet

        id r02
          finding   state                 score  evidence
          effusion  absent  0.05000000074505806  No effusion
          nodule    absent  0.05000000074505806  no nodule

        rest     3 rows
    "#]]
    .assert_eq(&sandbox.succeeds(&["try", "silver.yaml", "rules", "--rows", "1"]).out);
    sandbox.run(&["silver.yaml", "--select", "+targets"]);
    let changed = spec.replace("not_mentioned: zero", "not_mentioned: 0.3");
    sandbox.write("silver.yaml", &changed);
    let said = sandbox.succeeds(&["try", "silver.yaml", "targets", "--id", "r00"]).out;
    expect![[r#"

        finding effusion, id r00
          target  before  weight
             1.0     1.0     1.0

        finding nodule, id r00
          target  before  weight
             0.3     0.0     1.0  flip

        flips    1 of 2 labels
        rest     6 rows
    "#]]
    .assert_eq(said.split_once('\n').unwrap().1);
    assert_eq!(asked(&server), 0);
}

#[test]
fn what_cannot_be_tried_is_said() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, 3);
    let spec =
        sandbox.read("silver.yaml") + GOLD + "  again: { use: label.policy, from: labels, with: {} }\n";
    sandbox.write("silver.yaml", &spec);
    write_gold(&sandbox, 0..3);
    let refused = |words: &[&str]| {
        let said = sandbox.argent(&[&["try", "silver.yaml"], words].concat());
        format!("{} {}{}", said.code, said.out, said.err)
    };
    let all = [
        refused(&["agreement"]),
        refused(&["lables"]),
        refused(&["labels", "--id", "r77"]),
        refused(&["again"]),
        refused(&["labels", "--max-usd", "0"]),
        refused(&["labels", "--rows", "0"]),
        refused(&["labels", "--rows", "1", "--id", "r00"]),
    ];
    expect![[r#"
        2 error: `agreement` (eval.agreement) is made from whole tables, expected a step that answers row by row; those are labels, again
        2 error: there is no step `lables`; did you mean `labels`?
        2 error: none of the 3 rows has the `id` of --id
        2 error: `again` reads what `labels` makes, and that takes a run (there is no result yet); run it with --select +labels
        3 labels (label.llm): 3 of 3 rows, there is no result beside them yet

        id r02
          user
            Label the report.
            Report:
            No effusion, no nodule in case 2. Nothing else is seen. Nothing else is seen.
          not tried

        id r00
          user
            Label the report.
            Report:
            Small effusion in case 0.
          not tried

        id r01
          user
            Label the report.
            Report:
            Possible nodule in case 1. Nothing else is seen.
          not tried

        tried    0 requests
        rest     3 rows by 3 requests, nothing measured yet
        stopped: $0.000000 of the budget of $0.000000 is spent, and the next request may cost $0.000148
        2 error: invalid value '0' for '--rows <N>': 0 is not in 1..=4294967295

        For more information, try '--help'.
        2 error: the argument '--rows <N>' cannot be used with '--id <ID>'

        Usage: argent try --rows <N> <SPEC> <STEP>

        For more information, try '--help'.
    "#]].assert_eq(&all.concat());
    assert_eq!(asked(&server), 0);

    let free = spec.replace("      price: { input: 1, cached: 0.1, output: 4 }\n", "");
    sandbox.write("silver.yaml", &free);
    expect![[r#"
        1 error: a limit of dollars is set and the step has no `price`; what it would cost is not known
    "#]]
    .assert_eq(&refused(&["labels", "--max-usd", "1"]));
    let said = sandbox.succeeds(&["try", "silver.yaml", "labels", "--rows", "1"]).out;
    expect![[r#"
        tried    1 request, 92 tokens in (46 cached), 10 out
        rest     2 rows by 2 requests, about 163 tokens in, 20 out, price unknown
    "#]]
    .assert_eq(&last_lines(&said, 2));
}

#[test]
fn a_server_that_is_down_or_refuses_says_so_and_a_budget_keeps_what_was_answered() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, 6);
    let one_by_one = sandbox.read("silver.yaml") + "      concurrency: 1\n";
    sandbox.write("silver.yaml", &one_by_one);
    let said = sandbox.argent(&["try", "silver.yaml", "labels", "--max-usd", "0.00015"]);
    let lines: Vec<&str> = said.out.lines().filter(|line| !line.starts_with("    ")).collect();
    expect![[r#"
        3 stopped: $0.000091 of the budget of $0.000150 is spent, and the next request may cost $0.000091

        labels (label.llm): 5 of 6 rows, there is no result beside them yet

        id r02
          user
          answer (sent now, m-2026-10-01, 92 tokens in (46 cached), 10 out, $0.000091)
          finding   state
          effusion  present
          nodule    present

        id r00
          user
          not tried

        id r04
          user
          not tried

        id r05
          user
          not tried

        id r01
          user
          not tried

        tried    1 request, 92 tokens in (46 cached), 10 out, $0.000091
        rest     5 rows by 5 requests, about 414 tokens in, 50 out, $0.000425"#]]
    .assert_eq(&format!("{} {}\n{}", said.code, said.err, lines.join("\n")));
    let before = asked(&server);
    sandbox.succeeds(&["try", "silver.yaml", "labels"]);
    assert_eq!(before + asked(&server), 5, "what was answered is not asked again");

    server.behave(|heard| match heard.report().contains("case 3") {
        true => Reply::Refusal,
        false => Reply::error(401, "", "no key"),
    });
    let refused = sandbox.argent(&["try", "silver.yaml", "labels", "--rows", "6", "--retry-errors"]);
    let sixth = refused.out.split("\n\n").skip(6).collect::<Vec<_>>().join("\n\n");
    expect![[r#"
        0 id r03
          user
            Label the report.
            Report:
            Nodule in case 3.
          no answer (sent now, 77 tokens in (38 cached), 12 out, $0.000091)
          finding   state
          effusion  failed
          nodule    failed
          failed: refusal: the model refused to answer; its reason is not shown here

        tried    1 request, 77 tokens in (38 cached), 12 out, $0.000091, 5 answers there before
        rest     0 rows by 0 requests
    "#]]
    .assert_eq(&format!("{} {}{sixth}", refused.code, refused.err));
    let elsewhere = one_by_one.replace(&server.base_url, "http://127.0.0.1:1/v1");
    sandbox.write("silver.yaml", &elsewhere).write("prompt.md", CAREFUL);
    let down = sandbox.argent(&["try", "silver.yaml", "labels"]);
    expect![[r#"
        1 error: nothing listens at the endpoint's address; start the server or check `base_url`
    "#]]
    .assert_eq(&format!("{} {}{}", down.code, down.out, down.err));
}

#[test]
fn a_row_that_fails_says_why() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, 3);
    server.behave(|heard| match heard.report() {
        report if report.contains("case 1") => Reply::Refusal,
        _ => Reply::Text("I see nothing.".to_owned()),
    });
    let said = sandbox.succeeds(&["try", "silver.yaml", "labels", "--rows", "3"]).out;
    expect![[r#"
        labels (label.llm): 3 of 3 rows, there is no result beside them yet

        id r02
          user
            Label the report.
            Report:
            No effusion, no nodule in case 2. Nothing else is seen. Nothing else is seen.
          answer (sent now, m-2026-10-01, 92 tokens in (46 cached), 10 out, $0.000091)
            I see nothing.
          failed: the answer has no JSON object, expected one state per finding
          user
            An earlier answer to this was malformed (attempt 1): the answer has no JSON object, expected one state per finding. Answer with one JSON object of this JSON Schema and nothing else:
            {"type":"object","properties":{"effusion":{"type":"string","enum":["present","absent","uncertain","not_mentioned"]},"nodule":{"type":"string","enum":["present","absent","uncertain","not_mentioned"]}},"required":["effusion","nodule"],"additionalProperties":false}

            Label the report.
            Report:
            No effusion, no nodule in case 2. Nothing else is seen. Nothing else is seen.
          answer (sent now, m-2026-10-01, 203 tokens in (101 cached), 10 out, $0.000152)
            I see nothing.
          failed: the answer has no JSON object, expected one state per finding
          finding   state
          effusion  failed
          nodule    failed
          failed: unparseable: the answer has no JSON object, expected one state per finding

        id r00
          user
            Label the report.
            Report:
            Small effusion in case 0.
          answer (sent now, m-2026-10-01, 79 tokens in (39 cached), 12 out, $0.000092)
            I see nothing.
          failed: the answer has no JSON object, expected one state per finding
          user
            An earlier answer to this was malformed (attempt 1): the answer has no JSON object, expected one state per finding. Answer with one JSON object of this JSON Schema and nothing else:
            {"type":"object","properties":{"effusion":{"type":"string","enum":["present","absent","uncertain","not_mentioned"]},"nodule":{"type":"string","enum":["present","absent","uncertain","not_mentioned"]}},"required":["effusion","nodule"],"additionalProperties":false}

            Label the report.
            Report:
            Small effusion in case 0.
          answer (sent now, m-2026-10-01, 190 tokens in (95 cached), 12 out, $0.000152)
            I see nothing.
          failed: the answer has no JSON object, expected one state per finding
          finding   state
          effusion  failed
          nodule    failed
          failed: unparseable: the answer has no JSON object, expected one state per finding

        id r01
          user
            Label the report.
            Report:
            Possible nodule in case 1. Nothing else is seen.
          no answer (sent now, 84 tokens in (42 cached), 13 out, $0.000098)
          finding   state
          effusion  failed
          nodule    failed
          failed: refusal: the model refused to answer; its reason is not shown here

        tried    6 requests, 695 tokens in (346 cached), 62 out, $0.000632
        rest     0 rows by 0 requests
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_forgotten_patient_s_trial_is_forgotten() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, 3);
    sandbox.succeeds(&["run", "silver.yaml", "--select", "reports"]);
    sandbox.succeeds(&["try", "silver.yaml", "labels", "--rows", "3"]);
    assert_eq!(asked(&server), 3);
    let said = sandbox.succeeds(&["forget", "--where", "id = 'r01'"]);
    let said = format!("{}{}", said.out, said.err);
    assert!(said.contains("1 request"), "{said}");
    sandbox.run(&["silver.yaml"]);
    assert_eq!(asked(&server), 0, "the answers about others stay, and nobody asks about the forgotten one");
}

#[test]
fn findings_asked_one_by_one_are_shown_one_by_one() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, 2);
    let prompt = "{{ finding.name }}?\nReport:\n{{ report.text }}";
    sandbox.write("prompt.md", prompt);
    sandbox.write("silver.yaml", &(sandbox.read("silver.yaml") + "      mode: per_finding\n"));
    server.behave(|heard| match heard.content().starts_with("Lung nodule") {
        true => Reply::Text("Who knows.".to_owned()),
        false => Reply::Good,
    });
    expect![[r#"
        labels (label.llm): 1 of 2 rows, there is no result beside them yet

        id r00
          user
            Pleural effusion?
            Report:
            Small effusion in case 0.
          answer (sent now, m-2026-10-01, 56 tokens in (28 cached), 6 out, $0.000055)
            {"effusion":"present"}
          user
            Lung nodule?
            Report:
            Small effusion in case 0.
          answer (sent now, m-2026-10-01, 53 tokens in (26 cached), 7 out, $0.000058)
            Who knows.
          failed: the answer has no JSON object, expected one state per finding
          user
            An earlier answer to this was malformed (attempt 1): the answer has no JSON object, expected one state per finding. Answer with one JSON object of this JSON Schema and nothing else:
            {"type":"object","properties":{"nodule":{"type":"string","enum":["present","absent","uncertain","not_mentioned"]}},"required":["nodule"],"additionalProperties":false}

            Lung nodule?
            Report:
            Small effusion in case 0.
          answer (sent now, m-2026-10-01, 141 tokens in (70 cached), 7 out, $0.000106)
            {"nodule":"not_mentioned"}
          finding   state
          effusion  present
          nodule    not_mentioned

        tried    4 requests, 297 tokens in (147 cached), 25 out, $0.000265
        rest     1 row by 2 requests, about 275 tokens in, 20 out, $0.000233 (95% interval $0-0.002361)
    "#]]
    .assert_eq(&sandbox.succeeds(&["try", "silver.yaml", "labels", "--id", "r00"]).out);
}

#[test]
fn questions_of_decisions_are_shown_behind_the_messages() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, 1);
    server.behave(|heard| {
        let answer = |question: &Value| {
            serde_json::json!({ "type": "predicate", "name": question["name"], "probability": 0.75 })
        };
        let answers: Vec<Value> = heard.body["questions"].as_array().unwrap().iter().map(answer).collect();
        let body = serde_json::json!({ "model": "m-1", "answers": answers, "usage": { "input_tokens": 80 } });
        Reply::Status(200, "", body.to_string())
    });
    let spec = sandbox.read("silver.yaml");
    let decisions = "endpoint: { kind: openai-decisions, questions: predicate, base_url";
    sandbox.write("silver.yaml", &spec.replace("endpoint: { base_url", decisions));
    expect![[r#"
        labels (label.llm): 1 of 1 row, there is no result beside them yet

        id r00
          user
            Label the report.
            Report:
            Small effusion in case 0.
          questions
            effusion: The report says that there is Pleural effusion. Fluid in the pleural space. (yes or no)
            nodule: The report says that there is Lung nodule. A nodule of any size. (yes or no)
          answer (sent now, m-1, 80 tokens in, 0 out, $0.000080)
            [{"type":"predicate","name":"effusion","probability":0.75},{"type":"predicate","name":"nodule","probability":0.75}]
          finding   state    score
          effusion  present   0.75
          nodule    present   0.75

        tried    1 request, 80 tokens in, 0 out, $0.000080
        rest     0 rows by 0 requests
    "#]].assert_eq(&sandbox.succeeds(&["try", "silver.yaml", "labels"]).out);
}
