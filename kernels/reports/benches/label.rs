//! How many reports a second the rules of a shipped pack label, on all cores and on one. Prints Markdown.
//!
//! `cargo bench --workspace --locked --bench label -- openi-25 ../shared/data/reports/openi/reports.csv findings,impression`
//! labels the sections of a table of reports. Each report is one of the table; as many as the table has are read again and
//! again until the time is up, after one round that is not timed.

#![expect(clippy::unwrap_used, reason = "a measurement that fails ends here")]

use argent_reports::{Labeller, Pack};
use rayon::prelude::*;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long each way is timed.
const SECONDS: u64 = 5;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let [pack, table, sections] = words.as_slice() else {
        println!(
            "give a pack, a table of reports and its sections: openi-25 reports.csv findings,impression"
        );
        return;
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../pipelines/findings/{pack}.yaml"));
    let read: Pack = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let labeller = Labeller::new(&read).unwrap_or_else(|error| panic!("{error}"));
    let sections: Vec<&str> = sections.split(',').collect();
    let reports = reports(Path::new(table), &sections);
    let bytes: usize = reports.iter().flatten().map(String::len).sum();
    let label = |report: &Vec<String>| {
        let texts: Vec<(&str, &str)> =
            sections.iter().copied().zip(report.iter().map(String::as_str)).collect();
        labeller.label(&texts).len()
    };
    let all_cores = timed(|| reports.par_iter().map(label).sum());
    let one_core = timed(|| reports.iter().map(label).sum());
    println!(
        "{pack}, {} findings; {} reports of {} bytes in the mean; {} threads\n",
        read.findings.len(),
        reports.len(),
        bytes / reports.len(),
        rayon::current_num_threads()
    );
    println!("| threads | reports/s |\n|---:|---:|");
    for (threads, rounds) in [(rayon::current_num_threads(), all_cores), (1, one_core)] {
        println!("| {threads} | {:.0} |", rounds * reports.len() as f64);
    }
}

/// Rounds in a second.
fn timed(round: impl Fn() -> usize) -> f64 {
    assert!(round() > 0, "nothing was labelled");
    let (start, mut rounds) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(SECONDS) {
        std::hint::black_box(round());
        rounds += 1;
    }
    f64::from(rounds) / start.elapsed().as_secs_f64()
}

/// The sections of each report of a CSV file.
fn reports(table: &Path, sections: &[&str]) -> Vec<Vec<String>> {
    let mut reader =
        csv::Reader::from_path(table).unwrap_or_else(|error| panic!("{}: {error}", table.display()));
    let header = reader.headers().unwrap().clone();
    let places: Vec<usize> =
        sections.iter().map(|section| header.iter().position(|name| name == *section).unwrap()).collect();
    let rows = reader.records().map(Result::unwrap);
    rows.map(|row| places.iter().map(|place| row[*place].to_owned()).collect()).collect()
}
