//! What is built into the program of `pipelines/`: the examples, and what they read. They tell what an operator's
//! ports and columns are, wherever the program was put.

use std::path::{Path, PathBuf};

use anyhow::Context;

macro_rules! shipped {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!("../pipelines/", $path)).as_slice())),*]
    };
}

/// By path below `pipelines/`: the bytes. The tests say when one is missing.
const FILES: &[(&str, &[u8])] = shipped![
    "examples/command.yaml",
    "examples/data/count_words.py",
    "examples/data/dicom/IM1",
    "examples/data/dicom/IM2",
    "examples/data/dicom/IM3",
    "examples/data/dicom/IM4",
    "examples/data/dicom/IM5",
    "examples/data/dicom/IM6",
    "examples/data/findings.yaml",
    "examples/data/labels-long.tsv",
    "examples/data/labels.csv",
    "examples/data/letters/a1.txt",
    "examples/data/letters/a2.txt",
    "examples/data/letters/a3.txt",
    "examples/data/more-reports.jsonl",
    "examples/data/reports.csv",
    "examples/data/reports.hl7",
    "examples/data/reports.ndjson",
    "examples/data/reviewed.csv",
    "examples/data/reviewed.json",
    "examples/data/scans.csv",
    "examples/data/xrays/p1_ap.png",
    "examples/data/xrays/p1_lateral.png",
    "examples/data/xrays/p2_ap.jpg",
    "examples/demo.chest_ct.yaml",
    "examples/dicom.headers.yaml",
    "examples/dicom.series.yaml",
    "examples/embed.images.yaml",
    "examples/embed.text.yaml",
    "examples/eval.agreement.yaml",
    "examples/eval.classification.yaml",
    "examples/eval.retrieval.yaml",
    "examples/eval.zero_shot.yaml",
    "examples/images.prepare.yaml",
    "examples/images.scan.yaml",
    "examples/label.llm.yaml",
    "examples/label.map.yaml",
    "examples/label.merge.yaml",
    "examples/label.policy.yaml",
    "examples/label.rules.yaml",
    "examples/labels.table.yaml",
    "examples/predict.yaml",
    "examples/prompt.sweep.yaml",
    "examples/reports.fhir.yaml",
    "examples/reports.folder.yaml",
    "examples/reports.hl7.yaml",
    "examples/reports.table.yaml",
    "examples/review.export.yaml",
    "examples/review.import.yaml",
    "examples/split.groups.yaml",
    "examples/sql.yaml",
    "examples/train.classifier.yaml",
    "examples/train.clip.yaml",
    "examples/volumes.resample.yaml",
    "examples/volumes.scan.yaml",
    "findings/ct-rate-18.yaml",
    "findings/rad-chestct-16.yaml",
    "prompts/chest-ct.md",
];

/// The text of an operator's example.
///
/// # Errors
/// When it has none.
pub(crate) fn example(operator: &str) -> anyhow::Result<&'static str> {
    let path = format!("examples/{operator}.yaml");
    let found = FILES.iter().find(|(name, _)| *name == path);
    let (_, bytes) = found.with_context(|| format!("the operator `{operator}` has no example"))?;
    std::str::from_utf8(bytes).context("an example is UTF-8 text")
}

/// Writes everything below a folder.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn unpack(folder: &Path) -> anyhow::Result<()> {
    for (name, bytes) in FILES {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, bytes)?;
    }
    Ok(())
}

/// Where an operator's example lies once it is unpacked.
pub(crate) fn example_path(folder: &Path, operator: &str) -> PathBuf {
    folder.join(format!("examples/{operator}.yaml"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn files_below(folder: &Path, found: &mut BTreeSet<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                files_below(&entry, found);
            } else {
                found.insert(entry);
            }
        }
    }

    #[test]
    fn every_example_and_its_data_are_built_in() {
        let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
        let mut there = BTreeSet::new();
        files_below(&pipelines.join("examples"), &mut there);
        let built_in: BTreeSet<PathBuf> = FILES.iter().map(|(name, _)| pipelines.join(name)).collect();
        let absent: Vec<&PathBuf> = there.difference(&built_in).collect();
        assert!(absent.is_empty(), "name them in cli/shipped.rs: {absent:?}");
    }
}
