//! What scores are worth: measures against scikit-learn, thresholds that are fitted where they may be, curves and plots.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use expect_test::{expect, expect_file};
use serde::Deserialize;

use crate::sandbox::Sandbox;

/// The scores and states of `evaluation/cells.csv`, which `evaluation/golden.py` wrote.
const SPEC: &str = "argent: 1
name: measured
steps:
  cells: { use: reports.table, with: { path: cells.csv, id: cell, text: state, keep: [scan, patient, part, finding, score] } }
  predictions:
    use: sql
    from: { cells: cells }
    with: { keys: [id, finding], query: \"select scan as id, patient, finding, cast(score as double) as score from cells\" }
  truth: { use: sql, from: { cells: cells }, with: { keys: [id, finding], query: \"select scan as id, finding, text as state from cells\" } }
  split: { use: sql, from: { cells: cells }, with: { keys: [id], query: \"select distinct scan as id, patient, part from cells\" } }
  scores:
    use: eval.classification
    from: { predictions: predictions, labels: truth, split: split }
    match: { split: patient }
    with: { threshold: THRESHOLD, bootstrap: { draws: 2000, seed: 1 } }
";

#[derive(Deserialize)]
struct Golden {
    /// By the part that thresholds are fitted on, finding and measure.
    fitted: BTreeMap<String, BTreeMap<String, BTreeMap<String, f64>>>,
    /// By the same part, measure and average.
    averages: BTreeMap<String, BTreeMap<String, BTreeMap<String, f64>>>,
    auc_bootstrap: BTreeMap<String, [f64; 2]>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("evaluation/golden.json")).unwrap()
}

fn sandbox(threshold: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("cells.csv", include_str!("evaluation/cells.csv"));
    sandbox.write("p.yaml", &SPEC.replace("THRESHOLD", threshold));
    sandbox
}

fn number(cell: &str) -> f64 {
    cell.parse().unwrap_or_else(|_| panic!("`{cell}` is no number"))
}

#[track_caller]
fn near(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{what}: {found}, expected {expected}");
}

#[test]
fn measures_and_averages_agree_with_scikit_learn() {
    let golden = golden();
    for (part, threshold) in
        [("val", "{ rule: closest }"), ("test", "{ rule: closest, part: test, compat: true }")]
    {
        let sandbox = sandbox(threshold);
        sandbox.run(&["p.yaml"]);
        for (finding, measures) in &golden.fitted[part] {
            let names: Vec<&str> = measures.keys().map(String::as_str).collect();
            let question = format!("select {} from scores where finding = '{finding}'", names.join(", "));
            let rows = sandbox.sql(&question);
            for ((name, expected), cell) in measures.iter().zip(rows[0].split(',')) {
                near(&format!("{finding} {name}"), number(cell), *expected, 1e-12);
            }
            let ends = format!(
                "select auc_bootstrap_low, auc_bootstrap_high from scores where finding = '{finding}'"
            );
            for (cell, expected) in sandbox.sql(&ends)[0].split(',').zip(golden.auc_bootstrap[finding]) {
                near(&format!("{finding} bootstrap"), number(cell), expected, 0.02);
            }
        }
        let summary = sandbox.sql(
            "select average, measure, value, low <= value and value <= high, findings, undefined from scores.summary",
        );
        assert_eq!(summary.len(), 2 * golden.averages[part].len());
        for row in summary {
            let cells: Vec<&str> = row.split(',').collect();
            near(&row, number(cells[2]), golden.averages[part][cells[1]][cells[0]], 1e-12);
            // The fourth finding has no positive row, so that nothing is defined of it.
            assert_eq!(cells[3..], ["true", "3", "1"], "{row}");
        }
    }
}

#[test]
fn a_result_says_where_its_threshold_comes_from() {
    let told = |threshold: &str| {
        let sandbox = sandbox(threshold);
        sandbox.run(&["p.yaml"]);
        sandbox.sql("select distinct threshold_rule, threshold_part, compat from scores").join("\n")
    };
    expect!["fixed,,"].assert_eq(&told("0.5"));
    expect!["youden,val,"].assert_eq(&told("{ rule: youden }"));
    expect!["closest,test,threshold_fitted_on_measured_part"]
        .assert_eq(&told("{ rule: closest, part: test, compat: true }"));
}

#[test]
fn a_threshold_is_fitted_where_it_is_measured_only_by_name() {
    let refused = |threshold: &str| {
        let said = sandbox(threshold).argent(&["check", "p.yaml"]);
        assert_eq!(said.code, 2);
        said.err
    };
    expect![[r#"
        error: the threshold is fitted on `test`, which is the part that is measured
          --> p.yaml:15:47
           |
        15 |     with: { threshold: { rule: closest, part: test }, bootstrap: { draws: 2000, seed: 1 } }
           |                                               ^^^^
           |
        help: fit it on another part, such as `val`; or add `compat: true` to do as published figures do

        1 mistake in p.yaml

    "#]]
    .assert_eq(&refused("{ rule: closest, part: test }"));
    expect![[r#"
        error: `compat` fits the threshold on the part that is measured, and `part` is `val`
          --> p.yaml:15:24
           |
        15 |     with: { threshold: { rule: closest, compat: true }, bootstrap: { draws: 2000, seed: 1 } }
           |                        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
           |
        help: write `part: test`, or leave `compat` out

        1 mistake in p.yaml

    "#]]
    .assert_eq(&refused("{ rule: closest, compat: true }"));
    let sandbox = sandbox("{ rule: youden, part: tuning }");
    let said = sandbox.argent(&["run", "p.yaml"]);
    assert_eq!(said.code, 1);
    expect!["scores               failed    no row with a known truth is in the part `tuning`, on which the threshold is to be fitted"].assert_eq(said.err.lines().find(|line| line.contains("tuning")).unwrap_or(&said.err));
}

#[test]
fn a_finding_without_positives_is_there_and_what_it_does_not_define_is_null() {
    let sandbox = sandbox("{ rule: youden }");
    sandbox.run(&["p.yaml"]);
    let question = "select finding, n, positives, groups, auc, auc_low, f1, specificity, threshold from scores \
                    where finding = 'pneumothorax'";
    expect!["pneumothorax,103,0,50,,,,,"].assert_eq(&sandbox.sql(question).join("\n"));
}

#[test]
fn a_missing_score_is_no_zero() {
    let sandbox = sandbox("0.5");
    let cells = include_str!("evaluation/cells.csv");
    let line = cells.lines().find(|line| line.contains(",test,") && line.contains(",nodule,")).unwrap();
    let fields: Vec<&str> = line.split(',').collect();
    let without = [&fields[..5], &[""], &fields[6..]].concat().join(",");
    sandbox.run(&["p.yaml"]);
    let question = "select n, excluded from scores where finding = 'nodule'";
    let before = sandbox.sql(question).join("\n");
    sandbox.write("cells.csv", &cells.replace(line, &without));
    sandbox.run(&["p.yaml"]);
    expect![[r#"
        103,0
        102,1"#]]
    .assert_eq(&format!("{before}\n{}", sandbox.sql(question).join("\n")));
    expect!["predictions,no_score,a finding of this row has no score"]
        .assert_eq(&sandbox.sql("select port, kind, message from scores.errors").join("\n"));
}

#[test]
fn curves_are_a_table_of_their_vertices() {
    let sandbox = sandbox("0.5");
    sandbox.run(&["p.yaml"]);
    // The area below the vertices is the AUC.
    let question = "with area as (select finding, sum((x - before_x) * (y + before_y) / 2) as area from ( \
        select finding, false_positive_rate as x, sensitivity as y, \
        lag(false_positive_rate) over (partition by finding order by point) as before_x, \
        lag(sensitivity) over (partition by finding order by point) as before_y from scores.curves) group by finding) \
        select s.finding, abs(area - auc) < 1e-9 from area a join scores s on s.finding = a.finding order by 1";
    expect![[r#"
        consolidation,true
        effusion,true
        nodule,true"#]]
    .assert_eq(&sandbox.sql(question).join("\n"));
    let question = "select finding, threshold, false_positive_rate, sensitivity from scores.curves where point = 1 \
                    order by finding";
    expect![[r#"
        consolidation,,0.0,0.0
        effusion,,0.0,0.0
        nodule,,0.0,0.0"#]]
    .assert_eq(&sandbox.sql(question).join("\n"));
    assert_eq!(sandbox.sql("select name from scores.plots"), ["roc"]);
}

#[test]
fn show_writes_the_plots_of_a_step() {
    let sandbox = sandbox("0.5");
    sandbox.run(&["p.yaml"]);
    let said = sandbox.succeeds(&["show", "p.yaml", "scores"]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("scores.roc.svg\n", ""));
    let mode = std::fs::metadata(sandbox.path("scores.roc.svg")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    expect_file!["evaluation/roc.svg"].assert_eq(&sandbox.read("scores.roc.svg"));
    let said = sandbox.succeeds(&["show", "p.yaml", "scores", "roc", "-o", "figure-2.svg"]);
    assert_eq!(said.out, "figure-2.svg\n");
    assert_eq!(sandbox.read("figure-2.svg"), sandbox.read("scores.roc.svg"));
    let said = sandbox.argent(&["show", "p.yaml", "scores", "calibration"]);
    assert_eq!(said.code, 2);
    expect![[r#"
        error: `scores` has no plot `calibration`; its plots are: roc
    "#]]
    .assert_eq(&said.err);
}
