//! The quickstart, from drawing the demo to SQL over its metrics, in a small size.

use crate::sandbox::{Sandbox, root, steps};

/// The shipped pipeline with few patients and epochs: enough to run every step, not to learn well.
fn run(sandbox: &Sandbox) -> Vec<String> {
    let spec = root().join("pipelines/quickstart.yaml");
    let spec = spec.to_string_lossy();
    let said = sandbox.succeeds(&[
        "run",
        &spec,
        "--store",
        "store",
        "--set",
        "patients=24",
        "--set",
        "epochs=1",
        "--json",
    ]);
    steps(&said.out)
}

fn sql(sandbox: &Sandbox, question: &str) -> Vec<String> {
    let spec = root().join("pipelines/quickstart.yaml");
    let words =
        ["sql", question, "--store", "store", "--format", "csv", "--phi", "-p", &spec.to_string_lossy()];
    sandbox.succeeds(&words).out.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn the_whole_job_runs_and_answers_sql() {
    let sandbox = Sandbox::new();
    let first = run(&sandbox);
    assert!(first.iter().all(|line| line.contains(" made ")), "{first:?}");
    let second = run(&sandbox);
    assert!(second.iter().all(|line| line.contains(" reused ")), "{second:?}");

    let findings = sql(&sandbox, "select finding from scores order by auc");
    assert!(findings.len() >= 6, "{findings:?}");
    let volumes = sql(&sandbox, "select count(*) from volumes");
    let cohort = sql(&sandbox, "select count(*) from cohort");
    assert_eq!(sql(&sandbox, "select count(*) from embeddings where array_length(vector) > 0"), cohort);
    assert_eq!(sql(&sandbox, "select count(distinct id) from quickstart.labels"), volumes);
    assert_eq!(sql(&sandbox, "select distinct round(spacing_mm[1], 9) from grid"), ["8.0"]);
    assert!(sql(&sandbox, "select step from argent.steps where action = 'made'").len() >= first.len());
    assert!(!sql(&sandbox, "select train_loss from encoder.history").is_empty());
    assert_eq!(sql(&sandbox, "select count(*) from encoder.errors"), ["0"]);
    // Nobody is in two parts: a patient of the test part was never trained on.
    let leaks =
        "select count(*) from (select patient from split group by patient having count(distinct part) > 1)";
    assert_eq!(sql(&sandbox, leaks), ["0"]);
    // The rules read the reports well: what is learned from is near to what was drawn.
    let worst: f64 = sql(&sandbox, "select min(f1) from agreement")[0].parse().unwrap();
    assert!(worst > 0.8, "{worst}");
}

#[test]
fn patient_text_is_shown_only_when_asked_for() {
    let sandbox = Sandbox::new();
    sandbox.write("r.csv", "id,text\na,There is a nodule.\n");
    sandbox.write("p.yaml", "argent: 1\nname: p\nsteps:\n  r: { use: reports.table, with: { path: r.csv, id: id, text: text } }\n");
    sandbox.succeeds(&["run", "p.yaml"]);
    let said = sandbox.succeeds(&["sql", "select id, text, upper(text) as loud from r", "--format", "csv"]);
    assert_eq!(said.out, "id\na\n");
    assert!(said.err.contains("text, loud"), "{}", said.err);
    let said = sandbox.succeeds(&["sql", "select id, text from r", "--format", "json", "--phi"]);
    assert_eq!(said.out, "{\"id\":\"a\",\"text\":\"There is a nodule.\"}\n");
}

#[test]
fn a_table_that_is_not_there_is_answered_with_those_that_are() {
    let sandbox = Sandbox::new();
    let said = sandbox.argent(&["sql", "select 1"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("there is no store at"), "{}", said.err);
    sandbox.write("r.csv", "id,text\na,x\n");
    sandbox.write("p.yaml", "argent: 1\nname: p\nsteps:\n  r: { use: reports.table, with: { path: r.csv, id: id, text: text } }\n");
    sandbox.succeeds(&["run", "p.yaml"]);
    let said = sandbox.argent(&["sql", "select * from labels"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("there are r, and argent.runs"), "{}", said.err);
}
