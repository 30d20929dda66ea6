//! A prompt is tried on a few rows before it is paid for on all: `argent try`, `plan --canary`, `plan --with`.

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
const CAREFUL: &str = "Label the report, carefully.
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
const GOLD: &str = "  gold: { use: labels.table, with: { path: gold.csv, id: id, findings: pack.yaml, values: { \"1\": present, \"0\": absent } } }
  agreement: { use: eval.agreement, from: { labels: labels, truth: gold } }
";

/// A folder with the pipeline `silver.yaml`, its files and so many reports.
fn sandbox(server: &ChatServer, reports: usize) -> Sandbox {
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
fn write_gold(sandbox: &Sandbox, reports: impl Iterator<Item = usize>) {
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

fn asked(server: &ChatServer) -> usize {
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
          answer (sent now, m-2026-10-01, 74 tokens in (37 cached), 12 out, $0.000089)
            {"effusion":"absent","nodule":"present"}
          finding   state
          effusion  absent
          nodule    present

        id r02
          user
            Label the report.
            Report:
            No effusion, no nodule in case 2. Nothing else is seen. Nothing else is seen.
          answer (sent now, m-2026-10-01, 84 tokens in (42 cached), 10 out, $0.000086)
            {"effusion":"present","nodule":"present"}
          finding   state
          effusion  present
          nodule    present

        tried    2 requests, 158 tokens in (79 cached), 22 out, $0.000175
        rest     6 rows by 6 requests, about 446 tokens in, 66 out, $0.000507 (95% interval $0.000152-0.000862)
    "#]].assert_eq(&tried.out);
    assert_eq!(tried.err, "");
    assert_eq!(asked(&server), 2);

    let again = sandbox.succeeds(&["try", "silver.yaml", "labels", "--rows", "2"]);
    assert_eq!(asked(&server), 0, "the same rows, whose answers are there");
    assert_eq!(again.out.lines().next(), tried.out.lines().next());
    expect![[r#"
        tried    0 requests, 2 answers there before
        rest     6 rows by 6 requests, about 446 tokens in, 66 out, $0.000507 (95% interval $0.000152-0.000862)
    "#]].assert_eq(&last_lines(&again.out, 2));
    assert_eq!(sandbox.run(&["silver.yaml"])[1], "labels made 6 2 0");
    assert_eq!(asked(&server), 6, "a run asks the others alone");
    let after = sandbox.succeeds(&["try", "silver.yaml", "labels", "--rows", "2"]).out;
    expect![[r#"
        flips    0 of 4 labels
        tried    0 requests, 2 answers there before
        rest     0 rows by 0 requests
    "#]].assert_eq(&last_lines(&after, 3));
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
        trial,labels,m,2,158
        run,labels,m,6,447
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
          answer (sent now, m-2026-10-01, 86 tokens in (43 cached), 10 out, $0.000087)
            {"effusion":"absent","nodule":"absent"}
          finding   state   before
          effusion  absent  present  flip
          nodule    absent  present  flip

        flips    2 of 2 labels
        tried    1 request, 86 tokens in (43 cached), 10 out, $0.000087
        rest     7 rows by 7 requests, about 537 tokens in, 70 out, $0.000571
    "#]]
    .assert_eq(&said.replace(&made, "MADE"));

    let said: Value = serde_json::from_str(
        &sandbox
            .succeeds(&["try", "silver.yaml", "labels", "--id", "r02", "--json"])
            .out
            .replace(&made, "MADE"),
    )
    .unwrap();
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
                    "messages": [
                      {
                        "role": "user",
                        "text": "Label the report, carefully.\nReport:\nNo effusion, no nodule in case 2. Nothing else is seen. Nothing else is seen."
                      }
                    ],
                    "answer": {
                      "text": "{\"effusion\":\"absent\",\"nodule\":\"absent\"}",
                      "model": "m-2026-10-01",
                      "tokens_in": 86,
                      "tokens_cached": 43,
                      "tokens_out": 10,
                      "usd": 0.0000873
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
              "tokens_in": 537,
              "tokens_out": 70,
              "usd": 0.0005708076923076922,
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
        stopped: $0.000000 of the budget of $0.000000 is spent, and the next request may cost $0.000140
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
        tried    1 request, 84 tokens in (42 cached), 10 out
        rest     2 rows by 2 requests, about 148 tokens in, 20 out, price unknown
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
        3 stopped: $0.000086 of the budget of $0.000150 is spent, and the next request may cost $0.000086

        labels (label.llm): 5 of 6 rows, there is no result beside them yet

        id r02
          user
          answer (sent now, m-2026-10-01, 84 tokens in (42 cached), 10 out, $0.000086)
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

        tried    1 request, 84 tokens in (42 cached), 10 out, $0.000086
        rest     5 rows by 5 requests, about 376 tokens in, 50 out, $0.000404"#]]
    .assert_eq(&format!("{} {}\n{}", said.code, said.err, lines.join("\n")));
    let before = asked(&server);
    sandbox.succeeds(&["try", "silver.yaml", "labels"]);
    assert_eq!(before + asked(&server), 5, "what was answered is not asked again");

    server.behave(|heard| match heard.report().contains("case 3") {
        true => Reply::Refusal,
        false => Reply::error(401, "", "no key"),
    });
    let refused = sandbox.argent(&["try", "silver.yaml", "labels", "--rows", "6", "--retry-errors"]);
    expect![[r#"
        0 labels (label.llm): 6 of 6 rows, there is no result beside them yet

        id r02
          user
            Label the report.
            Report:
            No effusion, no nodule in case 2. Nothing else is seen. Nothing else is seen.
          answer (was there, m-2026-10-01, 84 tokens in (42 cached), 10 out, $0.000086)
            {"effusion":"present","nodule":"present"}
          finding   state
          effusion  present
          nodule    present

        id r00
          user
            Label the report.
            Report:
            Small effusion in case 0.
          answer (was there, m-2026-10-01, 71 tokens in (35 cached), 12 out, $0.000087)
            {"effusion":"present","nodule":"absent"}
          finding   state
          effusion  present
          nodule    absent

        id r04
          user
            Label the report.
            Report:
            Small effusion in case 4. Nothing else is seen.
          answer (was there, m-2026-10-01, 76 tokens in (38 cached), 12 out, $0.000090)
            {"effusion":"present","nodule":"absent"}
          finding   state
          effusion  present
          nodule    absent

        id r05
          user
            Label the report.
            Report:
            Possible nodule in case 5. Nothing else is seen. Nothing else is seen.
          answer (was there, m-2026-10-01, 82 tokens in (41 cached), 13 out, $0.000097)
            {"effusion":"absent","nodule":"present"}
          finding   state
          effusion  absent
          nodule    present

        id r01
          user
            Label the report.
            Report:
            Possible nodule in case 1. Nothing else is seen.
          answer (was there, m-2026-10-01, 76 tokens in (38 cached), 13 out, $0.000094)
            {"effusion":"absent","nodule":"present"}
          finding   state
          effusion  absent
          nodule    present

        id r03
          user
            Label the report.
            Report:
            Nodule in case 3.
          finding   state
          effusion  failed
          nodule    failed
          failed: refusal: the model refused to answer; its reason is not shown here

        tried    1 request, 69 tokens in (34 cached), 12 out, $0.000086, 5 answers there before
        rest     0 rows by 0 requests
    "#]]
    .assert_eq(&format!("{} {}{}", refused.code, refused.out, refused.err));
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
          answer (sent now, m-2026-10-01, 84 tokens in (42 cached), 10 out, $0.000086)
            I see nothing.
          finding   state
          effusion  failed
          nodule    failed
          failed: unparseable: the answer has no JSON object, expected one state per finding

        id r00
          user
            Label the report.
            Report:
            Small effusion in case 0.
          answer (sent now, m-2026-10-01, 71 tokens in (35 cached), 12 out, $0.000087)
            I see nothing.
          finding   state
          effusion  failed
          nodule    failed
          failed: unparseable: the answer has no JSON object, expected one state per finding

        id r01
          user
            Label the report.
            Report:
            Possible nodule in case 1. Nothing else is seen.
          finding   state
          effusion  failed
          nodule    failed
          failed: refusal: the model refused to answer; its reason is not shown here

        tried    3 requests, 231 tokens in (115 cached), 35 out, $0.000267
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
fn a_canary_tells_what_a_new_prompt_changes_and_what_that_is_worth() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, 24);
    sandbox.write("silver.yaml", &(sandbox.read("silver.yaml") + GOLD));
    write_gold(&sandbox, 0..12);
    sandbox.run(&["silver.yaml"]);
    asked(&server);
    sandbox.write("prompt.md", CAREFUL);
    let said = sandbox.succeeds(&["plan", "silver.yaml", "--canary", "8"]);
    let without_times =
        regex::Regex::new(r" +[0-9.]+ s ").unwrap().replace_all(&said.out, "  TIME ").into_owned();
    expect![[r#"
        step       action  rows  reuse  run                     cost   time  why
        reports    reuse     24     24    0                        -      -
        labels     run       24      0   24  $0.00-0.01, 24 requests  TIME  prompt.md line 1 changed
        gold       reuse     24     24    0                        -      -
        agreement  maybe      -      0  0-2                        -  TIME  depends on `labels`

        canary labels: 8 of 24 rows, 4 with gold from `gold` by the rules of `agreement`

        finding   n  flips  from -> to
        effusion  8      7  absent -> not_mentioned 5, present -> absent 2
        nodule    8      5  present -> absent 2, present -> uncertain 2, absent -> not_mentioned 1

        gold      n  positives  F1 before  after  95% interval  difference      95% interval
        effusion  4          0          -      -             -           -                 -
        nodule    3          2      0.800  1.000             -      +0.200  +0.000 to +0.500
        macro     7          2      0.800  1.000             -      +0.200  +0.000 to +0.600

        tried  8 requests, 627 tokens in (311 cached), 94 out, $0.000723
        rest   16 rows by 16 requests, about 1277 tokens in, 188 out, $0.001462 (95% interval $0.001380-0.001543)
    "#]].assert_eq(&without_times);
    assert_eq!(asked(&server), 8);
    sandbox.succeeds(&["plan", "silver.yaml", "--canary", "8"]);
    assert_eq!(asked(&server), 0);

    let said: Value =
        serde_json::from_str(&sandbox.succeeds(&["plan", "silver.yaml", "--canary", "8", "--json"]).out)
            .unwrap();
    let canary = &said["canary"][0];
    assert_eq!(said["steps"][1]["step"], "labels");
    assert_eq!(canary["rows"], serde_json::json!({ "total": 24, "tried": 8, "rest": 16 }));
    assert!(!said.to_string().contains("case "), "nothing of single rows is told");
    sandbox.run(&["silver.yaml"]);
    assert_eq!(asked(&server), 16);
}

#[test]
fn a_canary_without_gold_says_so_and_leaves_the_test_part_alone() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, 24);
    let first_lines = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with("canary") || line.starts_with("there is"));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let canary = || first_lines(&sandbox.succeeds(&["plan", "silver.yaml", "--canary", "4"]).out);
    let mut told = canary();
    let spec = sandbox.read("silver.yaml");
    sandbox.write("silver.yaml", &(spec.clone() + GOLD)).write("gold.csv", "id,effusion,nodule\nz,1,0\n");
    told += &canary();
    write_gold(&sandbox, 0..24);
    let split = "  split: { use: split.groups, from: reports, with: { by: id, parts: { dev: 0.5, test: 0.5 }, seed: 1 } }
";
    let gold = GOLD.replace("truth: gold }", "truth: gold, split: split }");
    sandbox.write("silver.yaml", &(spec.clone() + &gold + split));
    told += &canary();
    let only_test = gold.replace("from: { labels", "with: { part: test }, from: { labels");
    let split = split.replace("dev: 0.5, test: 0.5", "test: 1.0");
    sandbox.write("silver.yaml", &(spec + &only_test + &split));
    told += &canary();
    expect![[r#"
        canary labels: 4 of 24 rows, no gold among these rows: no step below measures these labels by a truth
        there is no result to compare with yet
        canary labels: 4 of 24 rows, no gold among these rows: `gold` says nothing of these rows
        there is no result to compare with yet
        canary labels: 4 of 24 rows, 2 with gold from `gold` by the rules of `agreement`; part `test` is left out
        there is no result to compare with yet
        canary labels: 4 of 24 rows, no gold among these rows: `gold` says nothing of these rows; part `test` is left out
        there is no result to compare with yet
    "#]].assert_eq(&told);
}

#[test]
fn steps_that_cannot_be_tried_are_named_and_a_budget_holds_for_all_together() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, 4);
    let spec = sandbox.read("silver.yaml");
    let again = spec.split("  labels:\n").nth(1).unwrap();
    let second =
        again.replace("from: reports", "from: found").replace("prompt: prompt.md", "prompt: careful.md");
    let found =
        "select r.id, r.text from reports r where r.id in (select id from labels where state = 'present')";
    let found = format!(
        "  found: {{ use: sql, from: {{ reports: reports, labels: labels }}, with: {{ keys: [id], query: \"{found}\" }} }}\n"
    );
    let third = again.replace("prompt: prompt.md", "prompt: careful.md");
    sandbox.write("careful.md", CAREFUL);
    sandbox.write(
        "silver.yaml",
        &format!("{spec}{found}  second:\n{second}      sections: [text]\n  third:\n{third}"),
    );
    let told = |words: &[&str]| {
        let said = sandbox.argent(&[&["plan", "silver.yaml", "--canary", "2"], words].concat());
        let canaries = said.out.split_once("\n\n").unwrap().1.to_owned();
        format!("{}\n{}{}", said.code, said.err, canaries)
    };
    let all = [told(&["--max-usd", "0.00025"]), told(&["--select", "reports"])];
    expect![[r#"
        3
        stopped: $0.000000 of the budget of $0.000076 is spent, and the next request may cost $0.000143
        *: local, free and quick, so made while planning; a run reuses it

        canary labels: 2 of 4 rows, no gold among these rows: no step below measures these labels by a truth
        there is no result to compare with yet

        tried  2 requests, 155 tokens in (77 cached), 22 out, $0.000174
        rest   2 rows by 2 requests, about 146 tokens in, 22 out, $0.000168 (95% interval $0.00-0.000339)

        canary second: not tried: depends on `found`

        canary third: 2 of 4 rows, no gold among these rows: no step below measures these labels by a truth
        there is no result to compare with yet

        tried  0 requests
        rest   4 rows by 4 requests, nothing measured yet
        0
        nothing to do

        canary: no step would ask a server
    "#]].assert_eq(&all.concat());
    server.behave(|_| Reply::error(401, "", "no key"));
    let refused = sandbox.argent(&["plan", "silver.yaml", "--canary", "4", "--select", "labels"]);
    expect![[r#"
        1 error: step `labels`: status 401: error, no key; check the endpoint's `api_key`
    "#]].assert_eq(&format!("{} {}", refused.code, refused.err));
}

#[test]
fn gold_is_found_by_any_step_that_measures_by_it() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, 24);
    write_gold(&sandbox, 0..12);
    let gold = GOLD.lines().next().unwrap();
    let spec = sandbox.read("silver.yaml");
    let measures = "
  split: { use: split.groups, from: reports, with: { by: id, parts: { dev: 0.5, test: 0.5 }, seed: 1 } }
  scores: { use: eval.classification, from: { predictions: labels, labels: gold, split: split } }
";
    sandbox.write("silver.yaml", &(spec.clone() + gold + measures));
    sandbox.succeeds(&["run", "silver.yaml", "--select", "+labels"]);
    sandbox.write("prompt.md", CAREFUL);
    let canary = || {
        let said = sandbox.succeeds(&["plan", "silver.yaml", "--canary", "8", "--json"]).out;
        let said: Value = serde_json::from_str(&said).unwrap();
        said["canary"][0]["gold"].clone()
    };
    let found = canary();
    let shown = |gold: &Value| {
        let names = ["truth", "measured_by", "held_out", "rows", "why"];
        names.map(|name| format!("{name} {}", gold[name])).join(", ")
    };
    let macro_f1 = &found["changes"][2];
    let told = format!(
        "{}\n{} {} -> {}\n",
        shown(&found),
        macro_f1["finding"],
        macro_f1["before"],
        macro_f1["after"]
    );
    expect![[r#"
        truth "gold", measured_by "scores", held_out "test", rows 4, why null
        "macro" 0.5 -> 1.0
    "#]].assert_eq(&told);
    // A table that is made of the labels is no truth about them.
    let circle = "
  gold: { use: sql, from: labels, with: { keys: [id, finding], query: \"select id, finding, state from labels\" } }
  agreement: { use: eval.agreement, from: { labels: labels, truth: gold } }
";
    sandbox.write("silver.yaml", &(spec + circle));
    expect![[r#"
        truth null, measured_by null, held_out null, rows 0, why "no step below measures these labels by a truth"
    "#]].assert_eq(&(shown(&canary()) + "\n"));
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
          answer (sent now, m-2026-10-01, 52 tokens in (26 cached), 6 out, $0.000053)
            {"effusion":"present"}
          user
            Lung nodule?
            Report:
            Small effusion in case 0.
          answer (sent now, m-2026-10-01, 49 tokens in (24 cached), 7 out, $0.000055)
            Who knows.
          failed: the answer has no JSON object, expected one state per finding
          finding   state
          effusion  failed
          nodule    failed
          failed: unparseable: the answer has no JSON object, expected one state per finding

        tried    2 requests, 101 tokens in (50 cached), 13 out, $0.000108
        rest     1 row by 2 requests, about 113 tokens in, 13 out, $0.000116 (95% interval $0.000037-0.000195)
    "#]].assert_eq(&sandbox.succeeds(&["try", "silver.yaml", "labels", "--id", "r00"]).out);
}

#[test]
fn values_of_a_param_are_compared() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, 24);
    sandbox.write("silver.yaml", &(sandbox.read("silver.yaml") + GOLD));
    write_gold(&sandbox, 0..12);
    sandbox.run(&["silver.yaml"]);
    asked(&server);
    let plain = sandbox.succeeds(&["plan", "silver.yaml", "--with", "params.model=m,good,other"]).out;
    expect![[r#"
        model  steps to run   rows  requests  tokens in  tokens out                cost
        m                 0      0         0          0           0                   -
        good            1-2  24-26        24       1842         336  $0.000764-0.006372
        other           1-2  24-26        24       1842         336  $0.000764-0.006372
    "#]]
    .assert_eq(&plain);
    assert_eq!(asked(&server), 0);
    let tried =
        sandbox.succeeds(&["plan", "silver.yaml", "--with", "params.model=good,other", "--canary", "8"]).out;
    expect![[r#"
        model  steps to run   rows  requests  tokens in  tokens out                cost
        good            1-2  24-26        24       1842         336  $0.000764-0.006372
        other           1-2  24-26        24       1842         336  $0.000764-0.006372

        canary labels: 8 of 24 rows, 4 with gold from `gold` by the rules of `agreement`

        model     flips     F1  95% interval  difference      95% interval  requests left       cost        95% interval
        good   12 of 16  1.000             -      +0.200  +0.000 to +0.600             16  $0.001432  $0.001351-0.001513
        other   0 of 16  0.857   0.400-1.000      +0.000                 -             16  $0.001432  $0.001351-0.001513

        F1        n  before   good  other
        effusion  4       -      -      -
        nodule    3   0.800  1.000  0.857
        macro     7   0.800  1.000  0.857
    "#]].assert_eq(&tried);
    assert_eq!(asked(&server), 16);
    let json: Value = serde_json::from_str(
        &sandbox
            .succeeds(&["plan", "silver.yaml", "--with", "params.model=m,good", "--canary", "8", "--json"])
            .out,
    )
    .unwrap();
    assert_eq!(json["with"][1]["values"], serde_json::json!({ "model": "good" }));
    assert_eq!(json["with"][0]["canary"], serde_json::json!([]));
    assert_eq!(json["with"][1]["canary"][0]["gold"]["changes"][2]["finding"], "macro");
    assert_eq!(asked(&server), 0);
}

#[test]
fn several_params_are_multiplied_out_and_wrong_ones_are_mistakes() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server, 4);
    let spec = sandbox.read("silver.yaml").replace("  model: m\n", "  model: m\n  warm: 0.0\n")
        + "      temperature: \"${params.warm}\"\n";
    sandbox.write("silver.yaml", &spec);
    let said = sandbox
        .succeeds(&["plan", "silver.yaml", "--with", "params.model=a,b", "--with", "params.warm=0,1"])
        .out;
    expect![[r#"
        model  warm  steps to run  rows  requests  tokens in  tokens out                cost
        a         0             1     4         4        301          56  $0.000127-0.001050
        a         1             1     4         4        301          56  $0.000127-0.001050
        b         0             1     4         4        301          56  $0.000127-0.001050
        b         1             1     4         4        301          56  $0.000127-0.001050
    "#]]
    .assert_eq(&said);
    let refused = |words: &[&str]| {
        let said = sandbox.argent(&[&["plan", "silver.yaml"], words].concat());
        format!("{}\n{}{}", said.code, said.out, said.err)
    };
    let all = [
        refused(&["--with", "params.modle=a,b"]),
        refused(&["--with", "params.warm=0,hot,cold"]),
        refused(&["--with", "params.warm=0", "--set", "warm=1"]),
        refused(&["--with", "params.warm=0", "--with", "warm=1"]),
        refused(&["--with", "params.warm"]),
    ];
    expect![[r#"
        2
        error: --with names `modle`, which is not a param of this pipeline
         --> command line:1:15
          |
        1 | --with params.modle=a,b
          |               ^^^^^
          |
        help: did you mean `model`?

        1 mistake in command line

        2
        error: --with gives `warm` a value of another type: expected a number
         --> command line:1:22
          |
        1 | --with params.warm=0,hot,cold
          |                      ^^^
          |
         ::: silver.yaml:5:3
          |
        5 |   warm: 0.0
          |   ---- declared here

        1 mistake in command line

        error: --with gives `warm` a value of another type: expected a number
         --> command line:1:26
          |
        1 | --with params.warm=0,hot,cold
          |                          ^^^^
          |
         ::: silver.yaml:5:3
          |
        5 |   warm: 0.0
          |   ---- declared here

        1 mistake in command line

        2
        error: --set and --with both give `warm`; leave one of them out
        2
        error: --with gives `warm` twice; give all of its values together, with commas
        2
        error: invalid value 'params.warm' for '--with <params.NAME=A,B>': expected NAME=VALUE

        For more information, try '--help'.
    "#]]
    .assert_eq(&all.concat());
}
