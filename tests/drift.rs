//! Materiality: a small change of the input is accepted where the spec says so, and shown as accepted.

use expect_test::expect;

use crate::sandbox::Sandbox;

/// Ten patients with two scans each; the scores and labels of the scans, and a split by patient.
const SPEC: &str = "argent: 1
name: drift
steps:
  scores: { use: reports.table, with: { path: scores.csv, id: id, text: text, keep: [finding, patient, score, note] } }
  predictions:
    use: sql
    from: scores
    with: { keys: [id, finding], query: \"select id, finding, patient, cast(score as double) as score, note from scores\" }
  truth: { use: sql, from: labels, with: { keys: [id, finding], query: \"select id, finding, state from labels\" } }
  labels: { use: labels.table, with: { path: labels.csv, id: id, findings: pack.yaml, values: { \"1\": present, \"0\": absent } } }
  split: { use: split.groups, from: predictions, with: { by: patient, parts: { train: 0, test: 1 } } }
  measured:
    use: eval.classification
    from: { predictions: predictions, labels: truth, split: split }
    match: { split: patient }
    with: { bootstrap: { draws: 50 } }
    rerun: { if: \"changed_rows > 0.1\" }
  below: { use: sql, from: measured, with: { query: \"select finding, auc from measured\" } }
";

const PACK: &str = "name: one
findings:
  - { id: effusion, name: Pleural effusion, synonyms: [effusion], rules: { any: [effusions?] } }
";

/// Twenty scans; `changed` of them get another score.
fn write(sandbox: &Sandbox, changed: usize, scans: usize) {
    let score = |n: usize| if n < changed { 50 + n } else { 10 + n };
    let rows: String = (0..scans)
        .map(|n| format!("s{n:02},effusion,p{},0.{},a note on {n},a text\n", n / 2, score(n)))
        .collect();
    sandbox.write("scores.csv", &format!("id,finding,patient,score,note,text\n{rows}"));
    let labels: String = (0..scans).map(|n| format!("s{n:02},{}\n", n % 2)).collect();
    sandbox.write("labels.csv", &format!("id,effusion\n{labels}"));
}

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", SPEC).write("pack.yaml", PACK);
    write(&sandbox, 0, 20);
    sandbox
}

/// What became of the step and of the one below it.
fn run(sandbox: &Sandbox, more: &[&str]) -> String {
    let lines = sandbox.run(&[&["p.yaml"], more].concat());
    let wanted = |line: &&String| line.starts_with("measured") || line.starts_with("below");
    lines.iter().filter(wanted).cloned().collect::<Vec<_>>().join("; ")
}

#[test]
fn drift_below_the_condition_is_accepted_and_adds_up() {
    let sandbox = sandbox();
    assert_eq!(run(&sandbox, &[]), "measured made 1 0 0; below made 1 0 0");
    let first = sandbox.sql("select auc from measured");

    // One row of twenty is another.
    write(&sandbox, 1, 20);
    let plan = sandbox.succeeds(&["plan", "p.yaml"]).out;
    let line = plan.lines().find(|line| line.starts_with("measured")).unwrap();
    expect!["measured     reuse      1      1    0     -      -  accepted: changed_rows is 0.05, and it runs again if changed_rows > 0.1"]
    .assert_eq(line);
    assert_eq!(run(&sandbox, &[]), "measured accepted 0 1 0; below reused 0 1 0");
    assert_eq!(sandbox.sql("select auc from measured"), first, "the name stays with the accepted result");
    let record =
        sandbox.sql("select action, changed_rows from argent.steps where step = 'measured' order by run");
    assert_eq!(record, ["made,", "accepted,0.05"]);

    // A second one: two of twenty are still accepted, counted from what the result was made from.
    write(&sandbox, 2, 20);
    assert_eq!(run(&sandbox, &[]), "measured accepted 0 1 0; below reused 0 1 0");
    write(&sandbox, 3, 20);
    assert_eq!(run(&sandbox, &[]), "measured made 1 0 0; below made 1 0 0");
    // And now it is counted from there.
    write(&sandbox, 2, 20);
    assert_eq!(run(&sandbox, &[]), "measured accepted 0 1 0; below reused 0 1 0");
}

#[test]
fn new_rows_count_and_what_the_step_does_not_read_does_not() {
    let sandbox = sandbox();
    run(&sandbox, &[]);
    let scores = sandbox.read("scores.csv").replace("a note", "another note");
    sandbox.write("scores.csv", &scores);
    assert_eq!(run(&sandbox, &[]), "measured reused 0 1 0; below reused 0 1 0");
    write(&sandbox, 0, 22);
    assert_eq!(run(&sandbox, &[]), "measured accepted 0 1 0; below reused 0 1 0");
    write(&sandbox, 0, 24);
    assert_eq!(run(&sandbox, &[]), "measured made 1 0 0; below made 1 0 0");
}

#[test]
fn strict_runs_and_so_does_another_parameter() {
    let sandbox = sandbox();
    run(&sandbox, &[]);
    write(&sandbox, 1, 20);
    assert_eq!(run(&sandbox, &["--strict"]), "measured made 1 0 0; below made 1 0 0");
    write(&sandbox, 2, 20);
    sandbox.write("p.yaml", &sandbox.read("p.yaml").replace("draws: 50", "draws: 60"));
    assert!(run(&sandbox, &[]).starts_with("measured made"), "only drift of the input can be accepted");
}

#[test]
fn a_condition_that_is_none_is_a_mistake_and_one_on_a_row_operator_has_no_effect() {
    let sandbox = sandbox();
    let spec = sandbox.read("p.yaml");
    sandbox.write("p.yaml", &spec.replace("changed_rows > 0.1", "rows < 3"));
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2);
    let wanted = "expected `changed_rows >` or `>=` and a share from 0 to 1, found `rows < 3`";
    assert!(said.err.contains(wanted), "{}", said.err);
    let rows = "labelled: { use: label.rules, from: scores, with: { findings: pack.yaml }, rerun: { if: changed_rows > 0.5 } }";
    sandbox.write("p.yaml", &spec.replace("  below:", &format!("  {rows}\n  below:")));
    let said = sandbox.succeeds(&["check", "p.yaml"]);
    assert!(said.err.contains("warning: `rerun` has no effect on `labelled`"), "{}", said.err);
}
