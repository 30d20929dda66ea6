//! Every operator has an example pipeline that runs with nothing downloaded and shows what it says.

use std::collections::BTreeSet;
use std::path::PathBuf;

use expect_test::{Expect, expect};

use crate::sandbox::{Sandbox, has_python, root};

/// Examples that need a server to run; they are checked.
const NEEDS_A_SERVER: [&str; 2] = ["label.llm", "prompt.sweep"];

#[test]
fn every_operator_has_an_example_and_every_example_its_operator() {
    let listed: serde_json::Value =
        serde_json::from_str(&Sandbox::new().succeeds(&["ops", "--json"]).out).unwrap();
    let operators = listed.as_array().unwrap().iter().map(|o| o["name"].as_str().unwrap().to_owned());
    assert_eq!(operators.collect::<BTreeSet<_>>(), examples());
    for name in examples() {
        let text = std::fs::read_to_string(example(&name)).unwrap();
        assert!(text.starts_with("# "), "{name}.yaml does not begin with a comment that says what it shows");
        let shows = text.lines().any(|line| line.trim() == format!("use: {name}"));
        assert!(shows, "{name}.yaml has no step that uses {name}");
    }
}

#[test]
fn every_example_runs_and_a_second_run_reuses_every_step() {
    let sandbox = Sandbox::new();
    for name in examples() {
        let path = example(&name);
        let spec = path.to_str().unwrap();
        sandbox.succeeds(&["check", spec]);
        if NEEDS_A_SERVER.contains(&name.as_str()) || (name == "command" && !has_python()) {
            continue;
        }
        sandbox.run(&[spec, "--store", "store"]);
        let again = sandbox.run(&[spec, "--store", "store"]);
        assert!(
            !again.is_empty() && again.iter().all(|step| step.contains(" reused 0 ")),
            "{name}: {again:?}"
        );
    }
}

#[test]
fn examples_share_what_they_have_in_common() {
    let sandbox = Sandbox::new();
    ran(&sandbox, "volumes.scan");
    let steps = ran(&sandbox, "volumes.resample");
    let actions: Vec<&str> = steps.iter().map(|step| step.split(' ').nth(1).unwrap()).collect();
    assert_eq!(actions, ["reused", "reused", "made"], "{steps:?}");
}

#[test]
fn a_report_that_two_files_tell_differently_is_an_error_row() {
    let sandbox = Sandbox::new();
    assert_eq!(ran(&sandbox, "reports.table"), ["reports made 5 0 1"]);
    answers(
        &sandbox,
        "reports.table",
        "select id, accession, findings is null as silent from reports",
        expect![[r#"
            r1,A-100,false
            r3,A-102,false
            r4,A-103,false
            r5,A-104,true
            r6,A-105,false"#]],
    );
    let expected = expect![[
        r#"r2,conflict,"rows of this id have different cells (file 1 line 3, file 2 line 3), so none is kept; take the wrong ones away, say with `versions` which one counts, or name a column of distinct ids""#
    ]];
    answers(&sandbox, "reports.table", "select id, kind, message from reports.errors", expected);
}

#[test]
fn labels_are_read_from_wide_and_long_files_and_none_is_guessed() {
    let sandbox = Sandbox::new();
    assert_eq!(ran(&sandbox, "labels.table"), ["wide made 12 0 0", "long made 3 0 1"]);
    answers(
        &sandbox,
        "labels.table",
        "select id, finding, state from wide where state <> 'absent'",
        expect![[r#"
            r1,pleural_effusion,present
            r3,lung_nodule,present
            r3,pleural_effusion,uncertain
            r4,cardiomegaly,present
            r4,pleural_effusion,present"#]],
    );
    answers(
        &sandbox,
        "labels.table",
        "select id, finding, state from long",
        expect![[r#"
            r5,lung_nodule,absent
            r5,pleural_effusion,absent
            r6,lung_nodule,uncertain"#]],
    );
    let expected = expect!["r6,value,cardiomegaly: the cell is empty; the finding is not in the pack"];
    answers(&sandbox, "labels.table", "select id, kind, message from long.errors", expected);
}

/// The example without its `where`: the student's label of `r1` contradicts the radiologist's.
#[test]
fn of_labels_that_contradict_each_other_none_is_kept() {
    let sandbox = Sandbox::new();
    for file in ["data/labels.csv", "data/findings.yaml"] {
        sandbox.write(file, &std::fs::read_to_string(root().join("pipelines/examples").join(file)).unwrap());
    }
    let with = r#"{ path: data/labels.csv, id: report, findings: data/findings.yaml, values: { "1": present, "0": absent } }"#;
    sandbox.write(
        "p.yaml",
        &format!("argent: 1\nname: p\nsteps:\n  labels: {{ use: labels.table, with: {with} }}\n"),
    );
    assert_eq!(sandbox.run(&["p.yaml"]), ["labels made 10 0 2"]);
    assert_eq!(sandbox.sql("select finding from labels where id = 'r1'"), ["cardiomegaly", "lung_nodule"]);
    expect![[r#"
        r1,conflict,"pleural_effusion: rows of this id disagree, so none is kept; take the wrong ones away"
        r3,value,pleural_effusion: the cell holds a value that `values` does not name"#]]
    .assert_eq(&sandbox.sql("select id, kind, message from labels.errors").join("\n"));
}

#[test]
fn rules_tell_present_absent_uncertain_and_not_mentioned_apart() {
    let sandbox = Sandbox::new();
    ran(&sandbox, "label.rules");
    answers(
        &sandbox,
        "label.rules",
        "select id, finding, state, evidence from labels where state <> 'not_mentioned'",
        expect![[r#"
            r1,pleural_effusion,present,pleural effusion
            r2,pleural_effusion,absent,No pleural effusion
            r3,lung_nodule,present,nodule
            r3,pleural_effusion,uncertain,Possible small left pleural effusion
            r4,cardiomegaly,present,Heart is enlarged
            r4,pleural_effusion,present,pleural effusions"#]],
    );
}

#[test]
fn a_policy_turns_states_into_targets_and_weights() {
    let sandbox = Sandbox::new();
    ran(&sandbox, "label.policy");
    answers(
        &sandbox,
        "label.policy",
        "select t.id, t.finding, t.target, t.weight, s.target as soft, s.weight as soft_weight \
         from targets t join soft s on s.id = t.id and s.finding = t.finding where t.id in ('r2', 'r3') order by 1, 2",
        expect![[r#"
            r2,cardiomegaly,0.0,1.0,,0.0
            r2,lung_nodule,0.0,1.0,,0.0
            r2,pleural_effusion,0.0,1.0,0.0,1.0
            r3,cardiomegaly,0.0,1.0,,0.0
            r3,lung_nodule,1.0,1.0,1.0,1.0
            r3,pleural_effusion,1.0,1.0,0.5,1.0"#]],
    );
}

#[test]
fn a_query_is_a_step() {
    let sandbox = Sandbox::new();
    ran(&sandbox, "sql");
    answers(
        &sandbox,
        "sql",
        "select finding, reports, present, uncertain from prevalence",
        expect![[r#"
            cardiomegaly,5,1,0
            lung_nodule,5,1,0
            pleural_effusion,5,2,1"#]],
    );
}

#[test]
fn a_python_script_is_a_step() {
    if !has_python() {
        return;
    }
    let sandbox = Sandbox::new();
    assert_eq!(ran(&sandbox, "command"), ["reports made 5 0 0", "counts made 5 0 0"]);
    answers(
        &sandbox,
        "command",
        "select id, words, sentences from counts",
        expect![[r#"
            r1,12,3
            r2,16,4
            r3,22,3
            r4,6,2
            r5,0,0"#]],
    );
    answers(
        &sandbox,
        "command",
        "select * from counts.summary",
        expect![[r#"
        median words,12.0
        reports,5.0"#]],
    );
}

#[test]
fn a_patient_is_never_in_two_parts() {
    let sandbox = Sandbox::new();
    ran(&sandbox, "split.groups");
    answers(
        &sandbox,
        "split.groups",
        "select id, patient, part from split",
        expect![[r#"
            s1,p1,val
            s2,p1,val
            s3,p2,test
            s4,p3,test
            s5,p4,train
            s6,p5,test"#]],
    );
}

#[test]
fn a_grid_has_one_spacing_whatever_the_scanner() {
    let sandbox = Sandbox::new();
    ran(&sandbox, "volumes.resample");
    let question = "select (select count(distinct spacing_mm) from volumes) > 1 as scanners, \
                    (select count(distinct spacing_mm) from grid) = 1 as grid, \
                    (select count(*) from volumes) = (select count(*) from grid) as volumes";
    answers(&sandbox, "volumes.resample", question, expect!["true,false,true"]);
}

#[test]
fn a_trained_encoder_scores_embeds_and_is_measured() {
    let sandbox = Sandbox::new();
    ran(&sandbox, "train.classifier");
    let question = "select findings, (select max(epoch) from encoder.history) as epochs from encoder";
    let expected = expect![[r#""cardiomegaly,lung_nodule,pleural_effusion",2"#]];
    answers(&sandbox, "train.classifier", question, expected);
    ran(&sandbox, "embed.images");
    let question = "select count(distinct id) = (select count(*) from grid) as every_volume, \
                    min(array_length(vector)) as shortest, max(array_length(vector)) as longest from vectors";
    answers(&sandbox, "embed.images", question, expect!["true,64,64"]);
    ran(&sandbox, "predict");
    let question = "select finding, count(*) = (select count(*) from grid) as every_volume, \
                    min(score) >= 0 and max(score) <= 1 as probabilities \
                    from predictions group by finding order by finding";
    let expected = expect![[r#"
        cardiomegaly,true,true
        lung_nodule,true,true
        pleural_effusion,true,true"#]];
    answers(&sandbox, "predict", question, expected);
    ran(&sandbox, "eval.classification");
    let question = "select finding, n = (select count(*) from split where part = 'test') as every_test_volume, \
                    positives between 1 and n - 1 as both_kinds, auc between 0 and 1 as has_auc from scores";
    let expected = expect![[r#"
        cardiomegaly,true,true,true
        lung_nodule,true,true,true
        pleural_effusion,true,true,true"#]];
    answers(&sandbox, "eval.classification", question, expected);
    ran(&sandbox, "eval.retrieval");
    let question = "select variant, k, value between 0 and 1 as has_value, low < value and value < high as has_interval, \
                    chance between 0 and 1 as has_chance, queries = (select count(*) from split where part = 'test') \
                    as every_test_volume from retrieval order by variant, k";
    answers(
        &sandbox,
        "eval.retrieval",
        question,
        expect![[r#"
        map_clean,1,true,true,true,true
        map_clean,5,true,true,true,true
        map_ct_clip_cumulative,1,true,true,true,true
        map_ct_clip_cumulative,5,true,true,true,true"#]],
    );
    let last = ran(&sandbox, "train.clip");
    assert_eq!(last.last().map(String::as_str), Some("pair made 1 0 0"));
    let question = "select count(*), max(step), min(train_loss) > 0 from pair.history";
    answers(&sandbox, "train.clip", question, expect!["4,4,true"]);
    ran(&sandbox, "embed.text");
    let question = "select count(*) = (select count(*) from reports), min(array_length(vector)), max(array_length(vector)) from texts";
    answers(&sandbox, "embed.text", question, expect!["true,32,32"]);
    let question = "select k, value between 0 and 1 from retrieval order by k";
    answers(
        &sandbox,
        "embed.text",
        question,
        expect![[r#"
        1,true
        5,true"#]],
    );
    ran(&sandbox, "eval.zero_shot");
    let question = "select finding, n = (select count(*) from split where part = 'test') as every_test_volume, \
                    auc between 0 and 1 as has_auc from scores";
    let expected = expect![[r#"
        cardiomegaly,true,true
        lung_nodule,true,true
        pleural_effusion,true,true"#]];
    answers(&sandbox, "eval.zero_shot", question, expected);
}

/// The names of the examples.
fn examples() -> BTreeSet<String> {
    let files =
        std::fs::read_dir(root().join("pipelines/examples")).unwrap().map(|entry| entry.unwrap().path());
    let yaml = files.filter(|path| path.extension().is_some_and(|e| e == "yaml"));
    yaml.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn example(name: &str) -> PathBuf {
    root().join("pipelines/examples").join(format!("{name}.yaml"))
}

/// Runs an example and tells what each step did.
fn ran(sandbox: &Sandbox, name: &str) -> Vec<String> {
    sandbox.run(&[example(name).to_str().unwrap(), "--store", "store"])
}

/// Asks about an example's tables; the rows come as CSV.
fn answers(sandbox: &Sandbox, name: &str, question: &str, expected: Expect) {
    let spec = example(name);
    let words =
        ["sql", question, "--store", "store", "-p", spec.to_str().unwrap(), "--format", "csv", "--phi"];
    let said = sandbox.succeeds(&words);
    expected.assert_eq(&said.out.lines().skip(1).collect::<Vec<_>>().join("\n"));
}
