//! Real reports through the program: rule labels scored against human labels by SQL steps.

use std::path::Path;

use crate::sandbox::{Sandbox, root, shared_data};

/// The floors stand above keywords with plain negation, which reach 0.901 on Open-i and 0.919 on CT.
#[test]
fn rules_label_open_i_reports_as_people_coded_them() {
    let Some(data) = shared_data("reports/openi") else { return };
    scores_above(0.92, "openi.yaml", &data, 1854, 25);
}

#[test]
fn rules_label_ct_reports_as_radiologists_did() {
    let Some(data) = shared_data("reports/ct") else { return };
    scores_above(0.95, "ct-reports.yaml", &data, 145, 18);
}

/// Runs a pipeline and asks its last step: every report was scored, none left out, and the macro F1 is at
/// least `floor`.
fn scores_above(floor: f64, pipeline: &str, data: &Path, reports: usize, findings: usize) {
    let sandbox = Sandbox::new();
    let spec = root().join("pipelines").join(pipeline);
    let (spec, data) = (spec.to_str().unwrap(), format!("data={}", data.display()));
    let ran = sandbox.run(&[spec, "--store", "store", "--set", &data]);
    assert!(ran.iter().all(|step| step.contains(" made ") && step.ends_with(" 0")), "{ran:?}");
    let ask = |question: &str| {
        let said = sandbox.succeeds(&["sql", question, "--store", "store", "-p", spec, "--format", "csv"]);
        said.out.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(ask("select * from left_out"), Vec::<String>::new());
    assert_eq!(ask("select reports, findings from score"), [format!("{reports},{findings}")]);
    let macro_f1: f64 = ask("select macro_f1 from score")[0].parse().unwrap();
    println!("{pipeline}: macro F1 {macro_f1:.4} over {findings} findings of {reports} reports");
    assert!(macro_f1 >= floor, "macro F1 {macro_f1:.4}, expected at least {floor}");
    // The measure is what it says: F1 is the harmonic mean of the precision and recall beside it.
    let wrong = "select finding from per_finding where abs(f1 - 2 * precision * recall / (precision + recall)) > 1e-12";
    assert_eq!(ask(wrong), Vec::<String>::new());
}
