//! `--select`: what may run is run, and nothing is made of what is stale.

use expect_test::expect;

use crate::sandbox::{Sandbox, steps};

const PIPELINE: &str = "argent: 1
name: small
steps:
  reports:
    use: reports.table
    tags: [source]
    with: { path: reports.csv, id: id, sections: { findings: text } }
  labels:
    use: label.rules
    from: reports
    with: { findings: pack.yaml }
  targets:
    use: label.policy
    from: labels
    tags: [gold]
    expect: [\"count(*) > 1\"]
  counts:
    use: sql
    from: { targets: targets }
    with: { query: select count(*) as n from targets }
  sums:
    use: sql
    from: { targets: targets }
    with: { query: select sum(target) as n from targets }
  size:
    use: sql
    from: { reports: reports }
    with: { query: select count(*) as n from reports }
";

const PACK: &str = "name: two
findings:
  - { id: effusion, name: Pleural effusion, synonyms: [pleural effusion] }
  - { id: nodule, name: Lung nodule, synonyms: [nodule] }
";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox
        .write("p.yaml", PIPELINE)
        .write("pack.yaml", PACK)
        .write("reports.csv", "id,text\na,No pleural effusion. There is a nodule.\nb,Pleural effusion.\n");
    sandbox
}

/// What the selected steps did, a line each.
fn select(sandbox: &Sandbox, selectors: &[&str]) -> String {
    let mut words = vec!["run", "p.yaml", "--json"];
    selectors.iter().for_each(|selector| words.extend(["--select", selector]));
    steps(&sandbox.succeeds(&words).out).join("\n")
}

#[test]
fn a_step_runs_with_all_that_it_reads_and_no_more() {
    let sandbox = sandbox();
    expect![[r#"
        reports made 2 0 0
        labels made 2 0 0
        targets made 4 0 0
        counts made 1 0 0"#]]
    .assert_eq(&select(&sandbox, &["+counts"]));
    expect![[r#"
        targets reused 0 4 0
        counts reused 0 1 0
        sums made 1 0 0"#]]
    .assert_eq(&select(&sandbox, &["targets+"]));
    expect![[r#"
        reports reused 0 2 0
        size made 1 0 0"#]]
    .assert_eq(&select(&sandbox, &["tag:source", "si*"]));
    expect![[r#"
        reports reused 0 2 0
        labels reused 0 4 0
        targets reused 0 4 0
        counts reused 0 1 0
        sums reused 0 1 0"#]]
    .assert_eq(&select(&sandbox, &["+targets+"]));
}

#[test]
fn a_stale_step_that_is_not_selected_is_named_and_nothing_runs() {
    let sandbox = sandbox();
    let said = sandbox.argent(&["run", "p.yaml", "--select", "targets"]);
    assert_eq!(said.code, 2);
    expect![[r#"
        store .argent
        error: `reports` is stale and not selected, and `targets` needs it: there is no result yet; select it too with --select +targets
    "#]].assert_eq(&said.err);
    sandbox.succeeds(&["run", "p.yaml"]);
    sandbox.write("pack.yaml", &PACK.replace("[nodule]", "[nodule, lump]"));
    for command in ["run", "plan"] {
        let said = sandbox.argent(&[command, "p.yaml", "--select", "counts", "--select", "size"]);
        assert_eq!(said.code, 2);
        let last = said.err.lines().last().unwrap().to_owned();
        expect![[r#"error: `labels` is stale and not selected, and `counts` needs it: pack.yaml findings.nodule.synonyms: + "lump"; select it too with --select +counts"#]].assert_eq(&last);
    }
    // What is stale elsewhere is none of its business.
    expect!["size reused 0 1 0"].assert_eq(&select(&sandbox, &["size"]));
}

#[test]
fn names_of_steps_that_are_not_selected_stay_where_they_are() {
    let sandbox = sandbox();
    sandbox.succeeds(&["run", "p.yaml"]);
    let before = sandbox.sql("select n from sums");
    sandbox.write("reports.csv", "id,text\na,No pleural effusion. There is a nodule.\nb,No nodule.\n");
    expect![[r#"
        reports made 2 0 0
        labels made 1 1 0
        targets made 2 2 0"#]]
    .assert_eq(&select(&sandbox, &["+targets"]));
    assert_eq!(sandbox.sql("select n from sums"), before);
    expect![[r#"
        reports reused 0 2 0
        labels reused 0 4 0
        targets reused 0 4 0
        counts reused 0 1 0
        sums made 1 0 0
        size reused 0 1 0"#]]
    .assert_eq(&sandbox.run(&["p.yaml"]).join("\n"));
}

#[test]
fn contracts_of_selected_steps_are_checked() {
    let sandbox = sandbox();
    sandbox.write("p.yaml", &PIPELINE.replace("count(*) > 1", "count(*) > 100"));
    let said = sandbox.argent(&["run", "p.yaml", "--select", "+targets"]);
    assert_eq!(said.code, 4, "{}", said.err);
    assert!(said.err.contains("does not hold: count(*) > 100"), "{}", said.err);
}

#[test]
fn a_step_between_two_selected_ones_is_found_stale_when_that_is_known() {
    let sandbox = sandbox();
    sandbox.succeeds(&["run", "p.yaml"]);
    sandbox.write("reports.csv", "id,text\na,A nodule.\nb,Pleural effusion.\n");
    let said = sandbox.argent(&["run", "p.yaml", "--select", "reports", "--select", "targets"]);
    assert_eq!(said.code, 2);
    let lines: Vec<&str> = said.err.lines().skip(1).filter(|line| !line.starts_with("reports")).collect();
    expect![[r#"
        labels               stale     not selected, and targets needs it: input `reports`: column findings changed; --select +targets runs both
        targets              blocked   waits for labels
        1 step made, 0 reused, 1 blocked"#]].assert_eq(&lines.join("\n"));
}

#[test]
fn a_selector_that_names_nothing_is_told_of() {
    let sandbox = sandbox();
    let said = sandbox.argent(&[
        "plan",
        "p.yaml",
        "--select",
        "+targts",
        "--select",
        "tag:golden",
        "--select",
        "x*",
    ]);
    assert_eq!(said.code, 2);
    expect![[r#"
        error: `--select +targts` names no step; did you mean `targets`?
        error: `--select tag:golden` names no step; did you mean `tag:gold`?
        error: `--select x*` names no step; there are counts, labels, reports, size, sums, targets
    "#]]
    .assert_eq(&said.err);
}

#[test]
fn a_plan_shows_the_selected_steps() {
    let sandbox = sandbox();
    sandbox.succeeds(&["run", "p.yaml"]);
    let plan = sandbox.succeeds(&["plan", "p.yaml", "--select", "+counts"]).out;
    let names: Vec<&str> = plan.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names[..4], ["reports", "labels", "targets", "counts"]);
    assert!(!plan.contains("sums"), "{plan}");
}
