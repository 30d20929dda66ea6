//! `argent init` makes a project whose first run succeeds with nothing else installed.

use expect_test::expect;

use crate::sandbox::Sandbox;

#[test]
fn a_new_project_is_right_runs_and_then_has_nothing_to_do() {
    let sandbox = Sandbox::new();
    let said = sandbox.succeeds(&["init", "chest ct"]);
    expect![[r#"
        chest ct/pipeline.yaml
        chest ct/llm.yaml
        chest ct/findings.yaml
        chest ct/prompts/chest-ct.md
        chest ct/data/reports.csv
        chest ct/README.md
        chest ct/.gitignore
        chest ct/argent.schema.json
    "#]]
    .assert_eq(&said.out);
    expect![[r#"

        next: argent run 'chest ct/pipeline.yaml'
    "#]]
    .assert_eq(&said.err);
    let spec = "chest ct/pipeline.yaml";
    assert_eq!(sandbox.succeeds(&["check", spec]).err, "chest-ct: 4 steps, nothing wrong\n");
    assert_eq!(
        sandbox.succeeds(&["check", "chest ct/llm.yaml"]).err,
        "chest-ct-llm: 4 steps, nothing wrong\n"
    );
    let plan = sandbox.succeeds(&["plan", spec]).out;
    assert!(plan.contains("there is no result yet"), "{plan}");
    sandbox.succeeds(&["run", spec]);
    let said = sandbox.succeeds(&["run", spec]);
    assert!(said.err.contains("nothing to do: 4 steps reused"), "{}", said.err);
    let question = "select finding, present, uncertain, absent, reports from summary";
    let said =
        sandbox.succeeds(&["sql", question, "-p", spec, "--store", "chest ct/.argent", "--format", "csv"]);
    expect![[r#"
        finding,present,uncertain,absent,reports
        cardiomegaly,1,0,2,6
        lung_nodule,2,0,1,6
        pleural_effusion,2,1,3,6
    "#]]
    .assert_eq(&said.out);
    assert_eq!(sandbox.read("chest ct/argent.schema.json"), sandbox.succeeds(&["schema"]).out);
}

#[test]
fn a_folder_that_holds_something_is_left_alone() {
    let sandbox = Sandbox::new();
    sandbox.write("full/b.txt", "").write("full/a.txt", "").write("file", "");
    let said = sandbox.argent(&["init", "full"]);
    assert_eq!(said.code, 2);
    expect![[r#"
        error: the folder full is not empty: it has a.txt, b.txt
        help: name a new folder, or one that is empty
    "#]]
    .assert_eq(&said.err);
    assert!(!sandbox.path("full/pipeline.yaml").exists());
    assert_eq!(sandbox.argent(&["init", "file"]).code, 2);
    std::fs::create_dir(sandbox.path("empty")).unwrap();
    sandbox.succeeds(&["init", "empty"]);
}
