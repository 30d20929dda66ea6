//! One step per combination of a matrix, and all of them as one table: what each run does, and what SQL sees.

use expect_test::expect;

use crate::sandbox::Sandbox;

/// Labels by two packs and two policies, counted per combination, and all counts together.
const PIPELINE: &str = "argent: 1
name: grid
steps:
  reports:
    use: reports.table
    with: { path: reports.csv, id: id, sections: { findings: text } }
  labels:
    use: label.rules
    from: reports
    matrix: { pack: [short, long] }
    with: { findings: \"packs/${matrix.pack}.yaml\" }
  targets:
    use: label.policy
    from: labels
    matrix: { unmentioned: [zero, mask] }
    with: { not_mentioned: \"${matrix.unmentioned}\" }
  counts:
    use: sql
    from: targets
    with: { keys: [finding], query: \"select finding, sum(target) as n from targets group by finding\" }
  all:
    use: sql
    from: counts
    gather: true
    with: { keys: [pack, unmentioned, finding], query: \"select pack, unmentioned, finding, n from counts\" }
";

const SHORT: &str = "name: short
findings:
  - { id: effusion, name: Pleural effusion, synonyms: [pleural effusion] }
";

const LONG: &str = "name: long
findings:
  - { id: effusion, name: Pleural effusion, synonyms: [pleural effusion, effusion] }
  - { id: nodule, name: Lung nodule, synonyms: [nodule] }
";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", PIPELINE).write("packs/short.yaml", SHORT).write("packs/long.yaml", LONG).write(
        "reports.csv",
        "id,text\na,No pleural effusion. There is a nodule.\nb,Effusion on the left.\n",
    );
    sandbox
}

/// What each step did, a line each.
fn run(sandbox: &Sandbox) -> String {
    sandbox.run(&["p.yaml"]).join("\n")
}

#[test]
fn each_combination_is_a_step_and_gathering_makes_one_table_of_them() {
    let sandbox = sandbox();
    expect![[r#"
        reports made 2 0 0
        labels[pack=short] made 2 0 0
        labels[pack=long] made 2 0 0
        targets[pack=short,unmentioned=zero] made 2 0 0
        targets[pack=short,unmentioned=mask] made 2 0 0
        targets[pack=long,unmentioned=zero] made 3 1 0
        targets[pack=long,unmentioned=mask] made 3 1 0
        counts[pack=short,unmentioned=zero] made 1 0 0
        counts[pack=short,unmentioned=mask] made 1 0 0
        counts[pack=long,unmentioned=zero] made 2 0 0
        counts[pack=long,unmentioned=mask] made 2 0 0
        all made 6 0 0"#]]
    .assert_eq(&run(&sandbox));
    expect![[r#"
        long,mask,effusion,1.0
        long,mask,nodule,1.0
        long,zero,effusion,1.0
        long,zero,nodule,1.0
        short,mask,effusion,0.0
        short,zero,effusion,0.0"#]]
    .assert_eq(&sandbox.sql("select * from \"all\" order by 1, 2, 3").join("\n"));
    expect![[r#"
        reports reused 0 2 0
        labels[pack=short] reused 0 2 0
        labels[pack=long] reused 0 4 0
        targets[pack=short,unmentioned=zero] reused 0 2 0
        targets[pack=short,unmentioned=mask] reused 0 2 0
        targets[pack=long,unmentioned=zero] reused 0 4 0
        targets[pack=long,unmentioned=mask] reused 0 4 0
        counts[pack=short,unmentioned=zero] reused 0 1 0
        counts[pack=short,unmentioned=mask] reused 0 1 0
        counts[pack=long,unmentioned=zero] reused 0 2 0
        counts[pack=long,unmentioned=mask] reused 0 2 0
        all reused 0 6 0"#]]
    .assert_eq(&run(&sandbox));
}

#[test]
fn an_added_value_makes_only_its_own_combinations() {
    let sandbox = sandbox();
    run(&sandbox);
    sandbox
        .write("packs/empty.yaml", "name: none\nfindings:\n  - { id: mass, name: Mass, synonyms: [mass] }\n");
    sandbox.write("p.yaml", &PIPELINE.replace("[short, long]", "[long, empty, short]"));
    expect![[r#"
        reports reused 0 2 0
        labels[pack=long] reused 0 4 0
        labels[pack=empty] made 2 0 0
        labels[pack=short] reused 0 2 0
        targets[pack=long,unmentioned=zero] reused 0 4 0
        targets[pack=long,unmentioned=mask] reused 0 4 0
        targets[pack=empty,unmentioned=zero] made 2 0 0
        targets[pack=empty,unmentioned=mask] made 2 0 0
        targets[pack=short,unmentioned=zero] reused 0 2 0
        targets[pack=short,unmentioned=mask] reused 0 2 0
        counts[pack=long,unmentioned=zero] reused 0 2 0
        counts[pack=long,unmentioned=mask] reused 0 2 0
        counts[pack=empty,unmentioned=zero] made 1 0 0
        counts[pack=empty,unmentioned=mask] made 1 0 0
        counts[pack=short,unmentioned=zero] reused 0 1 0
        counts[pack=short,unmentioned=mask] reused 0 1 0
        all made 8 0 0"#]]
    .assert_eq(&run(&sandbox));
}

#[test]
fn a_change_of_one_value_reaches_only_the_combinations_that_have_it() {
    let sandbox = sandbox();
    run(&sandbox);
    sandbox.write("packs/short.yaml", &SHORT.replace("[pleural effusion]", "[effusion]"));
    expect![[r#"
        reports reused 0 2 0
        labels[pack=short] made 2 0 0
        labels[pack=long] reused 0 4 0
        targets[pack=short,unmentioned=zero] made 0 2 0
        targets[pack=short,unmentioned=mask] made 0 2 0
        targets[pack=long,unmentioned=zero] reused 0 4 0
        targets[pack=long,unmentioned=mask] reused 0 4 0
        counts[pack=short,unmentioned=zero] made 1 0 0
        counts[pack=short,unmentioned=mask] reused 0 1 0
        counts[pack=long,unmentioned=zero] reused 0 2 0
        counts[pack=long,unmentioned=mask] reused 0 2 0
        all made 6 0 0"#]]
    .assert_eq(&run(&sandbox));
}

#[test]
fn equal_values_stop_the_wave_before_the_gathered_table() {
    let sandbox = sandbox();
    run(&sandbox);
    sandbox
        .write("packs/short.yaml", &SHORT.replace("[pleural effusion]", "[pleural effusion, hydrothorax]"));
    expect![[r#"
        reports reused 0 2 0
        labels[pack=short] made 2 0 0
        labels[pack=long] reused 0 4 0
        targets[pack=short,unmentioned=zero] reused 0 2 0
        targets[pack=short,unmentioned=mask] reused 0 2 0
        targets[pack=long,unmentioned=zero] reused 0 4 0
        targets[pack=long,unmentioned=mask] reused 0 4 0
        counts[pack=short,unmentioned=zero] reused 0 1 0
        counts[pack=short,unmentioned=mask] reused 0 1 0
        counts[pack=long,unmentioned=zero] reused 0 2 0
        counts[pack=long,unmentioned=mask] reused 0 2 0
        all reused 0 6 0"#]]
    .assert_eq(&run(&sandbox));
}

#[test]
fn sql_finds_one_combination_by_its_name_and_all_by_the_steps() {
    let sandbox = sandbox();
    run(&sandbox);
    expect![[r#"
        long,mask,effusion,1.0
        long,mask,nodule,1.0
        long,zero,effusion,1.0
        long,zero,nodule,1.0
        short,mask,effusion,0.0
        short,zero,effusion,0.0"#]]
    .assert_eq(&sandbox.sql("select pack, unmentioned, finding, n from counts order by 1, 2, 3").join("\n"));
    expect![[r#"
        effusion,1.0
        nodule,1.0"#]]
    .assert_eq(
        &sandbox.sql("select finding, n from \"counts[pack=long,unmentioned=zero]\" order by 1").join("\n"),
    );
    let said = sandbox.argent(&["sql", "select * from count"]);
    expect![[r#"
        error: table 'count' not found; there are all, counts, labels, reports, targets, and argent.runs, argent.steps, argent.costs, argent.errors
    "#]].assert_eq(&said.err);
}

#[test]
fn commands_take_a_combinations_name() {
    let sandbox = sandbox();
    run(&sandbox);
    let name = "counts[pack=long,unmentioned=zero]";
    let said = sandbox.succeeds(&["why", "p.yaml", "counts[unmentioned=zero,pack=long]"]);
    assert!(said.out.starts_with(&format!("{name}: its result holds\n")), "{}", said.out);
    let said = sandbox.argent(&["why", "p.yaml", "counts"]);
    assert_eq!(said.code, 2);
    expect![[r#"
        error: `counts` has a matrix: name one of its 4, such as "counts[pack=short,unmentioned=zero]"
    "#]]
    .assert_eq(&said.err);
    let said = sandbox.argent(&["diff", "p.yaml", "counts[pack=lng,unmentioned=zero]"]);
    assert_eq!(said.code, 2);
    expect![[r#"
        error: there is no step `counts[pack=lng,unmentioned=zero]`; did you mean `counts[pack=long,unmentioned=zero]`?
    "#]].assert_eq(&said.err);
    sandbox.succeeds(&["diff", "p.yaml", name]);
    assert_eq!(sandbox.succeeds(&["errors", "p.yaml", "targets"]).err, "no row failed\n");
    let plan = sandbox.succeeds(&["plan", "p.yaml"]).out;
    assert!(plan.contains(name) && plan.contains("nothing to do"), "{plan}");
}

#[test]
fn a_combination_can_be_read_by_its_name_and_a_matrix_can_restrict_what_is_read() {
    let sandbox = sandbox();
    sandbox.write(
        "p.yaml",
        &format!(
            "{PIPELINE}{}",
            "  one: { use: sql, from: \"targets[pack=long]\", with: { query: \"select count(*) as n from targets\" } }
  some:
    use: sql
    from: counts
    gather: true
    matrix: { pack: [long] }
    with: { query: \"select unmentioned, sum(n) as n from counts group by unmentioned\" }
"
        ),
    );
    let ran = run(&sandbox);
    let of = |name: &str| ran.lines().filter(|l| l.starts_with(name)).collect::<Vec<_>>().join("\n");
    expect![[r#"
        one[unmentioned=zero] made 1 0 0
        one[unmentioned=mask] reused 0 1 0"#]]
    .assert_eq(&of("one"));
    expect!["some[pack=long] made 2 0 0"].assert_eq(&of("some"));
    expect![[r#"
        long,mask,2.0
        long,zero,2.0"#]]
    .assert_eq(&sandbox.sql("select * from some order by 1, 2").join("\n"));
}

#[test]
fn gathered_rows_go_through_a_row_operator_by_value() {
    let sandbox = sandbox();
    let spec = PIPELINE.replace(
        "  counts:\n",
        "  pooled: { use: label.policy, from: labels, gather: true, with: { not_mentioned: zero } }\n  counts:\n",
    );
    sandbox.write("p.yaml", &spec);
    run(&sandbox);
    expect![[r#"
        long,a,effusion,0.0
        long,a,nodule,1.0
        long,b,effusion,1.0
        long,b,nodule,0.0
        short,a,effusion,0.0
        short,b,effusion,0.0"#]]
    .assert_eq(&sandbox.sql("select pack, id, finding, target from pooled order by 1, 2, 3").join("\n"));
    sandbox.write("packs/short.yaml", &SHORT.replace("[pleural effusion]", "[effusion]"));
    let ran = run(&sandbox);
    expect!["pooled made 0 6 0"]
        .assert_eq(&ran.lines().filter(|l| l.starts_with("pooled")).collect::<Vec<_>>().join("\n"));
}
