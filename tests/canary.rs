//! What a new prompt changes and what that is worth, before it is paid for: `plan --canary` and `plan --with`.

use expect_test::expect;
use serde_json::Value;

use crate::chat_server::{ChatServer, Reply};
use crate::trial::{CAREFUL, GOLD, asked, sandbox, write_gold};

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

        tried  8 requests, 691 tokens in (343 cached), 94 out, $0.000758
        rest   16 rows by 16 requests, about 1400 tokens in, 188 out, $0.001529 (95% interval $0.001450-0.001608)
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
        stopped: $0.000000 of the budget of $0.000068 is spent, and the next request may cost $0.000150
        *: local, free and quick, so made while planning; a run reuses it

        canary labels: 2 of 4 rows, no gold among these rows: no step below measures these labels by a truth
        there is no result to compare with yet

        tried  2 requests, 171 tokens in (85 cached), 22 out, $0.000182
        rest   2 rows by 2 requests, about 161 tokens in, 22 out, $0.000176 (95% interval $0.000006-0.000346)

        canary second: not tried: depends on `found`

        canary third: 2 of 4 rows, no gold among these rows: no step below measures these labels by a truth
        there is no result to compare with yet

        tried  0 requests
        rest   4 rows by 4 requests, nothing measured yet
        0
        nothing to do

        canary: no step would ask a server
    "#]]
    .assert_eq(&all.concat());
    server.behave(|_| Reply::error(401, "", "no key"));
    let refused = sandbox.argent(&["plan", "silver.yaml", "--canary", "4", "--select", "labels"]);
    expect![[r#"
        1 error: step `labels`: status 401: error, no key; check the endpoint's `api_key`
    "#]]
    .assert_eq(&format!("{} {}", refused.code, refused.err));
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
    "#]]
    .assert_eq(&told);
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
        good            1-2  24-26        24       2025         336  $0.000773-0.006738
        other           1-2  24-26        24       2025         336  $0.000773-0.006738
    "#]]
    .assert_eq(&plain);
    assert_eq!(asked(&server), 0);
    let tried =
        sandbox.succeeds(&["plan", "silver.yaml", "--with", "params.model=good,other", "--canary", "8"]).out;
    expect![[r#"
        model  steps to run   rows  requests  tokens in  tokens out                cost
        good            1-2  24-26        24       2025         336  $0.000773-0.006738
        other           1-2  24-26        24       2025         336  $0.000773-0.006738

        canary labels: 8 of 24 rows, 4 with gold from `gold` by the rules of `agreement`

        model     flips     F1  95% interval  difference      95% interval  requests left       cost        95% interval
        good   12 of 16  1.000             -      +0.200  +0.000 to +0.600             16  $0.001504  $0.001423-0.001586
        other   0 of 16  0.857   0.400-1.000      +0.000                 -             16  $0.001504  $0.001423-0.001586

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
        a         0             1     4         4        332          56  $0.000129-0.001112
        a         1             1     4         4        332          56  $0.000129-0.001112
        b         0             1     4         4        332          56  $0.000129-0.001112
        b         1             1     4         4        332          56  $0.000129-0.001112
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
