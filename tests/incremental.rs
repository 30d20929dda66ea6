//! Nothing fresh is done again, nothing stale is used: by row, by column, by step.

use expect_test::expect;

use crate::sandbox::Sandbox;

/// Reports, labels by rules, a policy, and two aggregations: one over states, one over ids alone.
const PIPELINE: &str = "argent: 1
name: small
steps:
  reports:
    use: reports.table
    with: { path: reports.csv, id: id, sections: { findings: text } }
  labels:
    use: label.rules
    from: reports
    with: { findings: pack.yaml }
  targets: { use: label.policy, from: labels }
  counts:
    use: sql
    from: { labels: labels }
    with: { keys: [finding], query: \"select finding, sum(case when state = 'present' then 1 else 0 end) as n from labels group by finding\" }
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

const REPORTS: &str = "id,text
a,No pleural effusion. There is a nodule.
b,Pleural effusion on the left.
c,No pleural effusion. There is a nodule.
";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", PIPELINE).write("pack.yaml", PACK).write("reports.csv", REPORTS);
    sandbox
}

/// What each step did, a line each.
fn run(sandbox: &Sandbox) -> String {
    sandbox.run(&["p.yaml"]).join("\n")
}

#[test]
fn the_second_run_does_nothing() {
    let sandbox = sandbox();
    expect![[r#"
        reports made 3 0 0
        labels made 3 0 0
        targets made 6 0 0
        counts made 2 0 0
        size made 1 0 0"#]]
    .assert_eq(&run(&sandbox));
    expect![[r#"
        reports reused 0 3 0
        labels reused 0 6 0
        targets reused 0 6 0
        counts reused 0 2 0
        size reused 0 1 0"#]]
    .assert_eq(&run(&sandbox));
    let labels = sandbox.sql("select id, finding, state from labels order by id, finding");
    expect![[r#"
        a,effusion,absent
        a,nodule,present
        b,effusion,present
        b,nodule,not_mentioned
        c,effusion,absent
        c,nodule,present"#]]
    .assert_eq(&labels.join("\n"));
}

#[test]
fn a_new_row_is_the_only_one_that_is_labelled() {
    let sandbox = sandbox();
    run(&sandbox);
    sandbox.write("reports.csv", &format!("{REPORTS}d,No nodule.\n"));
    expect![[r#"
        reports made 4 0 0
        labels made 1 3 0
        targets made 2 6 0
        counts made 2 0 0
        size made 1 0 0"#]]
    .assert_eq(&run(&sandbox));
}

#[test]
fn a_row_that_is_gone_is_gone_below_and_nothing_is_labelled() {
    let sandbox = sandbox();
    run(&sandbox);
    sandbox.write("reports.csv", &REPORTS.replace("b,Pleural effusion on the left.\n", ""));
    expect![[r#"
        reports made 2 0 0
        labels made 0 2 0
        targets made 0 4 0
        counts made 2 0 0
        size made 1 0 0"#]]
    .assert_eq(&run(&sandbox));
    assert_eq!(sandbox.sql("select count(*) from labels"), ["4"]);
}

#[test]
fn the_order_of_rows_is_not_a_value() {
    let sandbox = sandbox();
    run(&sandbox);
    let mut lines: Vec<&str> = REPORTS.lines().collect();
    lines[1..].reverse();
    sandbox.write("reports.csv", &(lines.join("\n") + "\n"));
    let said = run(&sandbox);
    // The file is another one and is read again; what it holds is the same.
    assert_eq!(said.lines().filter(|l| l.contains(" made ")).collect::<Vec<_>>(), ["reports made 3 0 0"]);
}

#[test]
fn a_synonym_relabels_and_stops_where_labels_come_out_equal() {
    let sandbox = sandbox();
    run(&sandbox);
    sandbox.write("pack.yaml", &PACK.replace("[nodule]", "[nodule, lump]"));
    let plan = sandbox.succeeds(&["plan", "p.yaml", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan.out).unwrap();
    let line = |s: &serde_json::Value| {
        let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let why: Vec<String> = s["why"].as_array().unwrap().iter().map(word).collect();
        let line = format!(
            "{} {} {} of {} {}",
            word(&s["step"]),
            word(&s["action"]),
            s["rows"]["run"],
            s["rows"]["total"],
            why.join("; ")
        );
        line.trim_end().to_owned()
    };
    let lines: Vec<String> = plan["steps"].as_array().unwrap().iter().map(line).collect();
    expect![[r#"
        reports reuse 0 of 3
        labels run 3 of 3 pack.yaml findings.nodule.synonyms: + "lump"
        targets reuse 0 of 6
        counts reuse 0 of 2
        size reuse 0 of 1"#]]
    .assert_eq(&lines.join("\n"));
    // The plan has made what is local, free and quick, so the run finds it.
    assert!(run(&sandbox).lines().all(|line| line.contains(" reused ")));
    let why = sandbox.succeeds(&["runs"]);
    assert_eq!(why.out.lines().count(), 3, "{}", why.out);
}

#[test]
fn a_definition_and_a_comment_in_the_pack_change_no_label_by_rules() {
    let sandbox = sandbox();
    run(&sandbox);
    let pack = PACK.replace("name: Lung nodule", "name: Lung nodule, definition: a small opacity");
    sandbox.write("pack.yaml", &format!("# about nodules\n{pack}"));
    assert!(run(&sandbox).lines().all(|line| line.contains(" reused ")));
}

#[test]
fn white_space_in_a_query_changes_nothing_and_a_column_that_is_not_read_wakes_nobody() {
    let sandbox = sandbox();
    run(&sandbox);
    sandbox.write(
        "p.yaml",
        &PIPELINE.replace("select count(*) as n from reports", "SELECT  count(*) AS n  FROM reports"),
    );
    sandbox.write("reports.csv", &REPORTS.replace("on the left", "on the right"));
    let said = run(&sandbox);
    assert!(said.contains("size reused"), "{said}");
    assert!(said.contains("labels made 1 2 0"), "{said}");
    assert!(said.contains("counts reused"), "the states are as before: {said}");
}

#[test]
fn the_same_parameters_written_out_are_the_same_result() {
    let sandbox = sandbox();
    run(&sandbox);
    let spec = PIPELINE.replace(
        "targets: { use: label.policy, from: labels }",
        "targets: { use: label.policy, from: { labels: labels }, with: { failed: mask }, doc: to learn from }",
    );
    sandbox.write("p.yaml", &spec);
    assert!(run(&sandbox).lines().all(|line| line.contains(" reused ")));
}

#[test]
fn why_names_the_place_that_changed() {
    let sandbox = sandbox();
    run(&sandbox);
    sandbox.write("pack.yaml", &PACK.replace("[pleural effusion]", "[pleural effusion, hydrothorax]"));
    let said = sandbox.succeeds(&["why", "p.yaml", "labels"]);
    assert!(said.out.contains("pack.yaml findings.effusion.synonyms: + \"hydrothorax\""), "{}", said.out);
    let said = sandbox.argent(&["why", "p.yaml", "lables"]);
    assert_eq!(
        (said.code, said.err.as_str()),
        (2, "error: there is no step `lables`; did you mean `labels`?\n")
    );
}

#[test]
fn a_contract_that_does_not_hold_rejects_the_result_and_stops_what_reads_it() {
    let sandbox = sandbox();
    run(&sandbox);
    let contract = "with: { findings: pack.yaml }\n    expect:\n      - count(*) = 6\n      - { sql: count(*) > 100, level: warn }";
    sandbox.write("p.yaml", &PIPELINE.replace("with: { findings: pack.yaml }", contract));
    let said = sandbox.succeeds(&["run", "p.yaml"]);
    assert!(said.err.contains("does not hold: count(*) > 100"), "{}", said.err);
    sandbox.write("reports.csv", &format!("{REPORTS}d,No nodule.\n"));
    let said = sandbox.argent(&["run", "p.yaml"]);
    assert_eq!(said.code, 4, "{}", said.err);
    assert!(said.err.contains("does not hold: count(*) = 6"), "{}", said.err);
    assert_eq!(sandbox.sql("select count(*) from labels"), ["6"], "the name stays with the last good result");
    assert_eq!(sandbox.sql("select count(*) from targets"), ["6"]);
    assert_eq!(
        sandbox.sql("select count(*) from public.\"labels.rejected\""),
        ["8"],
        "the rejected one is readable"
    );
}

#[test]
fn a_plan_stops_where_a_contract_stops_the_run() {
    let sandbox = sandbox();
    let contract = "with: { findings: pack.yaml }\n    expect: [count(*) = 6]";
    sandbox.write("p.yaml", &PIPELINE.replace("with: { findings: pack.yaml }", contract));
    run(&sandbox);
    sandbox.write("reports.csv", &format!("{REPORTS}d,No nodule.\n"));
    let plan = sandbox.succeeds(&["plan", "p.yaml", "--json"]).out;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let line = |step: &serde_json::Value| format!("{} {} {}", step["step"], step["action"], step["why"][0]);
    let lines: Vec<String> = plan["steps"].as_array().unwrap().iter().map(line).collect();
    expect![[r#"
        "reports" "run" "input `files`: column digest changed"
        "labels" "run" "input `reports`: columns findings, id changed"
        "targets" "maybe" "waits for `labels`: the contract does not hold: count(*) = 6"
        "counts" "maybe" "waits for `labels`: the contract does not hold: count(*) = 6"
        "size" "run" "input `reports`: column id changed""#]]
    .assert_eq(&lines.join("\n"));
    assert_eq!(sandbox.argent(&["run", "p.yaml", "--json"]).code, 4);
}

#[test]
fn a_damaged_or_missing_part_is_noticed_and_made_again() {
    let sandbox = sandbox();
    run(&sandbox);
    let before = sandbox.sql("select * from targets order by id, finding");
    let blobs = || -> Vec<std::path::PathBuf> {
        let folders = std::fs::read_dir(sandbox.path(".argent/cas")).unwrap().map(|f| f.unwrap().path());
        folders
            .flat_map(|f| std::fs::read_dir(f).unwrap().map(|b| b.unwrap().path()).collect::<Vec<_>>())
            .collect()
    };
    for blob in blobs() {
        std::fs::remove_file(&blob).unwrap();
    }
    run(&sandbox);
    assert_eq!(sandbox.sql("select * from targets order by id, finding"), before);
}

#[test]
fn two_spellings_of_one_store_are_one_store() {
    let sandbox = sandbox();
    sandbox.run(&["p.yaml", "--store", "elsewhere"]);
    assert!(!sandbox.path(".argent").exists());
    let with_variable =
        sandbox.command(&["run", "p.yaml", "--json"]).env("ARGENT_STORE", "elsewhere").output().unwrap();
    let steps = crate::sandbox::steps(&String::from_utf8(with_variable.stdout).unwrap());
    assert!(steps.iter().all(|line| line.contains(" reused ")), "{steps:?}");
}

/// DataFusion leaves away what a constant decides, and the column that it does not need then is still named.
#[test]
fn a_query_whose_filter_folds_to_a_constant_runs_and_reads_what_it_names() {
    let sandbox = sandbox();
    let chosen = |all: &str| {
        PIPELINE.to_owned()
            + &format!(
                "  chosen:
    use: sql
    from: {{ reports: reports, labels: labels }}
    with: {{ keys: [id], query: \"select id from reports where {all} or id in (select id from labels where state = 'not_mentioned')\" }}
"
            )
    };
    sandbox.write("p.yaml", &chosen("true"));
    sandbox.run(&["p.yaml"]);
    assert_eq!(sandbox.sql("select id from chosen order by id"), ["a", "b", "c"]);
    sandbox.write("p.yaml", &chosen("false"));
    sandbox.run(&["p.yaml"]);
    assert_eq!(sandbox.sql("select id from chosen order by id"), ["b"]);
}
