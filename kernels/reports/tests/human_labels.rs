//! Agreement of the shipped packs with human labels, where the data are at hand.
//!
//! Open-i: 1,854 chest radiograph reports coded with MeSH headings, grouped into 25 findings.
//! CT: 145 chest CT reports with the 18 CT-RATE findings, labelled by hand. F1 = 2TP/(2TP+FP+FN) per
//! finding, its unweighted mean is the macro F1. The floors stand above plain keywords with negation
//! (0.901 on Open-i, 0.919 on CT).

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use argent_reports::{Labeller, Pack, State, Uncertain};
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

type Row = HashMap<String, String>;

/// One report with its sections and its human labels by column name.
struct Report {
    sections: Vec<(&'static str, String)>,
    truth: Row,
}

#[test]
fn openi_reports() {
    let Some(folder) = data("openi") else { return };
    let reports = reports(&folder, "uid", &["findings", "impression"]);
    let scored: Vec<Report> =
        reports.into_iter().filter(|r| matches!(r.truth["status"].as_str(), "normal" | "indexed")).collect();
    assert_eq!(scored.len(), 1854);
    let f1 = macro_f1("openi-25", &scored, |finding| finding.id.clone());
    assert!(f1 >= 0.92, "macro f1 {f1:.4} on open-i, expected at least 0.92");
}

#[test]
fn ct_reports() {
    let Some(folder) = data("ct") else { return };
    let reports = reports(&folder, "id", &["report"]);
    assert_eq!(reports.len(), 145);
    let f1 = macro_f1("ct-rate-18", &reports, |finding| finding.name.clone());
    assert!(f1 >= 0.95, "macro f1 {f1:.4} on chest ct, expected at least 0.95");
}

/// Folder of a data set, or `None` with a word about it.
fn data(set: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/reports").join(set);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no report data for {set}");
    None
}

fn reports(folder: &Path, id: &str, sections: &[&'static str]) -> Vec<Report> {
    let mut truths: HashMap<String, Row> =
        rows(&folder.join("labels.csv")).into_iter().map(|row| (row[id].clone(), row)).collect();
    rows(&folder.join("reports.csv"))
        .into_iter()
        .map(|row| Report {
            sections: sections.iter().map(|&name| (name, row[name].clone())).collect(),
            truth: truths.remove(&row[id]).unwrap(),
        })
        .collect()
}

fn rows(path: &Path) -> Vec<Row> {
    csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect()
}

/// Prints F1 per finding and the speed, and returns the macro F1.
fn macro_f1(pack_name: &str, reports: &[Report], column: impl Fn(&argent_reports::Finding) -> String) -> f64 {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../pipelines/findings/{pack_name}.yaml"));
    let pack: Pack = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let labeller = Labeller::new(&pack).unwrap_or_else(|error| panic!("{error}"));
    let start = Instant::now();
    let labels: Vec<_> = reports
        .par_iter()
        .map(|report| {
            let sections: Vec<(&str, &str)> =
                report.sections.iter().map(|(name, text)| (*name, text.as_str())).collect();
            labeller.label(&sections)
        })
        .collect();
    let per_second = reports.len() as f64 / start.elapsed().as_secs_f64();

    let mut sum = 0.0;
    for (index, finding) in pack.findings.iter().enumerate() {
        let counts_uncertain = finding.uncertain == Uncertain::Present;
        let (mut true_positives, mut errors) = (0, 0);
        for (report, labels) in reports.iter().zip(&labels) {
            let predicted = match labels[index].state {
                State::Present => true,
                State::Uncertain => counts_uncertain,
                State::Absent | State::NotMentioned => false,
            };
            match (predicted, report.truth[&column(finding)] == "1") {
                (true, true) => true_positives += 1,
                (false, false) => {}
                _ => errors += 1,
            }
        }
        assert!(true_positives > 0, "{} is never found", finding.id);
        let f1 = f64::from(2 * true_positives) / f64::from(2 * true_positives + errors);
        println!("{:36} f1 {f1:.3}", finding.id);
        sum += f1;
    }
    let macro_f1 = sum / pack.findings.len() as f64;
    println!("{pack_name}: macro f1 {macro_f1:.4} on {} reports, {per_second:.0} reports/s", reports.len());
    macro_f1
}
