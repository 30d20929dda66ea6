//! What differs between two versions of a table is told by rows, columns, cells and findings, and never in the
//! words of a report.

use expect_test::expect;

use crate::sandbox::Sandbox;

const PIPELINE: &str = "argent: 1
name: small
steps:
  reports: { use: reports.table, with: { path: reports.csv, id: id, sections: { findings: text } } }
  labels: { use: label.rules, from: reports, with: { findings: pack.yaml } }
  targets: { use: label.policy, from: labels }
  counts:
    use: sql
    from: { labels: labels }
    with: { keys: [finding, state], query: \"select finding, state, count(*) as n from labels group by 1, 2\" }
  size: { use: sql, from: { reports: reports }, with: { query: select count(*) as n from reports } }
";

const PACK: &str = "name: two
findings:
  - { id: effusion, name: Pleural effusion, synonyms: [pleural effusion] }
  - { id: nodule, name: Lung nodule, synonyms: [nodule] }
";

const REPORTS: &str = "id,text
ann,No pleural effusion. There is a nodule.
bob,Pleural effusion on the left.
cid,There is a lump.
";

/// A pipeline that has run twice: between the runs a synonym, a new report and a changed one.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", PIPELINE).write("pack.yaml", PACK).write("reports.csv", REPORTS);
    sandbox.run(&["p.yaml"]);
    sandbox.write("pack.yaml", &PACK.replace("[nodule]", "[nodule, lump]"));
    sandbox.write(
        "reports.csv",
        &REPORTS.replace("on the left", "is not seen").replace("cid,", "dan,No lump.\ncid,"),
    );
    sandbox.run(&["p.yaml"]);
    sandbox
}

/// What `argent diff` prints, without its times.
fn diff(sandbox: &Sandbox, words: &[&str]) -> String {
    timeless(&sandbox.succeeds(&[&["diff", "p.yaml"], words].concat()).out)
}

fn timeless(text: &str) -> String {
    let runs = |line: &str| match line.split_once(", made ") {
        Some((start, _)) => format!("{:<5} RUN", start.split(' ').next().unwrap()),
        None => line.to_owned(),
    };
    text.lines().map(runs).collect::<Vec<_>>().join("\n")
}

fn runs(sandbox: &Sandbox) -> Vec<String> {
    let said = sandbox.succeeds(&["runs"]);
    said.out.lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn labels_that_flipped_are_counted_by_finding_and_no_patient_is_named() {
    let sandbox = sandbox();
    expect![[r#"
        from  RUN
        to    RUN
        why   pack.yaml findings.nodule.synonyms: + "lump"
        why   input `reports`: columns findings, id changed

        6 rows before, 8 after: 2 added, 0 removed, 2 changed

        column    cells
        state         2
        score         2
        evidence      2  patient text, not shown

        finding   state from     to       rows
        effusion  present        absent      1
        nodule    not_mentioned  present     1

        which rows they are is not shown, because patients' ids name them"#]]
    .assert_eq(&diff(&sandbox, &["labels"]));
    expect![[r#"
        from  RUN
        to    RUN
        why   input `labels`: columns finding, id, state changed

        6 rows before, 8 after: 2 added, 0 removed, 2 changed

        column  cells
        target      2

        finding   target from   to  rows
        effusion          1.0  0.0     1
        nodule            0.0  1.0     1

        which rows they are is not shown, because patients' ids name them"#]]
    .assert_eq(&diff(&sandbox, &["targets"]));
}

#[test]
fn rows_that_no_patient_names_are_shown_with_their_cells() {
    let sandbox = sandbox();
    expect![[r#"
        from  RUN
        to    RUN
        why   input `labels`: columns finding, id, state changed

        5 rows before, 5 after: 1 added, 1 removed, 4 changed

        column  cells
        n           4

        row                      column     from  to
        effusion, absent         n             1   2
        effusion, not_mentioned  n             1   2
        effusion, present        (removed)
        nodule, absent           (added)
        nodule, not_mentioned    n             2   1
        nodule, present          n             1   2"#]]
    .assert_eq(&diff(&sandbox, &["counts"]));
    expect![[r#"
        from  RUN
        to    RUN
        why   input `reports`: column id changed

        1 row before, 1 after: 1 added, 1 removed, 0 changed
        the table has no key columns, so its rows are compared as a whole"#]]
    .assert_eq(&diff(&sandbox, &["size"]));
}

#[test]
fn json_holds_the_same() {
    let sandbox = sandbox();
    let said = sandbox.succeeds(&["diff", "p.yaml", "labels", "--json"]);
    let mut found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let runs = runs(&sandbox);
    assert_eq!(
        (&found["from"]["run"], &found["to"]["run"]),
        (&runs[0].clone().into(), &runs[1].clone().into())
    );
    for version in ["from", "to"] {
        assert!(found[version]["made"].as_str().unwrap().starts_with("20"), "{found}");
        found[version] = "RUN".into();
    }
    expect![[r#"
        {
          "pipeline": "small",
          "step": "labels",
          "from": "RUN",
          "to": "RUN",
          "why": [
            "pack.yaml findings.nodule.synonyms: + \"lump\"",
            "input `reports`: columns findings, id changed"
          ],
          "rows": {
            "before": 6,
            "after": 8,
            "added": 2,
            "removed": 0,
            "changed": 2
          },
          "columns": [
            {
              "column": "state",
              "change": {
                "cells": 2
              },
              "phi": false
            },
            {
              "column": "score",
              "change": {
                "cells": 2
              },
              "phi": false
            },
            {
              "column": "evidence",
              "change": {
                "cells": 2
              },
              "phi": true
            }
          ],
          "flips": [
            {
              "finding": "effusion",
              "column": "state",
              "from": "present",
              "to": "absent",
              "rows": 1
            },
            {
              "finding": "nodule",
              "column": "state",
              "from": "not_mentioned",
              "to": "present",
              "rows": 1
            }
          ],
          "changes": null
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&found).unwrap());
}

#[test]
fn the_words_of_reports_are_never_printed() {
    let sandbox = sandbox();
    for step in ["reports", "labels", "targets", "counts", "size"] {
        for words in [&["diff", "p.yaml", step][..], &["diff", "p.yaml", step, "--json"]] {
            let said = sandbox.succeeds(words);
            for text in ["ann", "bob", "cid", "dan", "seen", "left", "There"] {
                assert!(
                    !said.out.contains(text) && !said.err.contains(text),
                    "{step} shows `{text}`:\n{}",
                    said.out
                );
            }
        }
    }
}

#[test]
fn any_two_runs_can_be_compared_and_by_default_the_last_two_that_differ() {
    let sandbox = sandbox();
    let two = diff(&sandbox, &["labels"]);
    sandbox.run(&["p.yaml"]);
    assert_eq!(diff(&sandbox, &["labels"]), two, "a run that changed nothing is no version of its own");
    sandbox.write("reports.csv", REPORTS);
    sandbox.run(&["p.yaml"]);
    let runs = runs(&sandbox);
    assert_eq!(runs.len(), 4);
    let changed =
        |words: &[&str]| diff(&sandbox, words).lines().find(|l| l.contains("before")).unwrap().to_owned();
    let ends = ["labels", "--from", &runs[0], "--to", &runs[3]];
    assert_eq!(changed(&["labels"]), "8 rows before, 6 after: 0 added, 2 removed, 1 changed");
    assert_eq!(changed(&ends), "6 rows before, 6 after: 0 added, 0 removed, 1 changed");
    assert_eq!(
        changed(&["labels", "--from", &runs[1], "--to", &runs[2]]),
        changed(&["labels", "--to", &runs[0]]).replace('6', "8")
    );
}

#[test]
fn a_step_or_run_that_is_not_there_is_told_with_what_there_is() {
    let sandbox = sandbox();
    let wrong = |words: &[&str]| {
        let said = sandbox.argent(&[&["diff", "p.yaml"], words].concat());
        assert_eq!(said.code, 2, "{}", said.out);
        said.err
    };
    assert_eq!(wrong(&["lables"]), "error: there is no step `lables`; did you mean `labels`?\n");
    let runs = runs(&sandbox);
    let near = format!("{}x", runs[1]);
    assert_eq!(
        wrong(&["labels", "--from", &near]),
        format!(
            "error: there is no run `{near}` of `small`; did you mean `{}`? (`argent runs` lists all)\n",
            runs[1]
        )
    );
    assert_eq!(
        wrong(&["labels", "--to", "yesterday"]),
        format!(
            "error: there is no run `yesterday` of `small`; there are {}, {} (`argent runs` lists all)\n",
            runs[1], runs[0]
        )
    );
    assert_eq!(
        wrong(&["labels", "--from", "20"]),
        "error: several runs begin with `20`; `argent runs` lists them\n"
    );
    sandbox.write("p.yaml", &(PIPELINE.to_owned() + "  late: { use: label.policy, from: labels }\n"));
    assert_eq!(wrong(&["late"]), "error: no run has a result of `late` yet; `argent run` makes one\n");
    assert_eq!(wrong(&["late", "--to", &runs[1]]), format!("error: run {} had no step `late`\n", runs[1]));
}

#[test]
fn a_step_that_failed_and_a_result_that_is_gone_are_told() {
    let sandbox = sandbox();
    sandbox.write("reports.csv", "id,text\n").write("pack.yaml", PACK);
    let spec = PIPELINE.replace("pack.yaml } }", "pack.yaml }, expect: [count(*) > 0] }");
    sandbox.write("p.yaml", &spec);
    assert_eq!(sandbox.argent(&["run", "p.yaml"]).code, 4);
    let last = runs(&sandbox).pop().unwrap();
    let said = sandbox.argent(&["diff", "p.yaml", "targets", "--to", &last]);
    assert_eq!(
        said.err,
        format!("error: run {last} made no result of `targets` (blocked: waits for `labels`)\n")
    );
    let rejected = diff(&sandbox, &["labels"]);
    assert!(rejected.contains("8 rows before, 0 after: 0 added, 8 removed, 0 changed"), "{rejected}");

    std::fs::remove_dir_all(sandbox.path(".argent/cas")).unwrap();
    std::fs::create_dir(sandbox.path(".argent/cas")).unwrap();
    let said = sandbox.argent(&["diff", "p.yaml", "labels"]);
    assert_eq!(said.code, 1);
    let gone = "error: one of these results of `labels` is no longer in the store; choose other runs with --from and --to";
    assert!(said.err.starts_with(gone), "{}", said.err);
}
