//! What each run saw and made, and what each pipeline's step names stand for.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use chrono::Utc;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::action::Stats;
use crate::digest::Digest;
use crate::durable::storage_error;
use crate::lock::check_file_name;
use crate::store::Store;

/// One run of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The run's id, from [`new_run_id`].
    pub run: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// What the user called it; the results of a named run are kept.
    #[serde(default)]
    pub name: Option<String>,
    /// The path of the spec as it was given.
    pub spec: Option<String>,
    /// When it started: UTC, RFC 3339.
    pub started: String,
    /// When it ended; null while it runs, and for ever if it was killed.
    pub finished: Option<String>,
    /// Whether every step ended well.
    pub ok: bool,
    /// The steps, in the order in which they ended.
    pub steps: Vec<StepRecord>,
}

/// What a run did about one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step's name in the spec.
    pub step: String,
    /// The operator's name, such as `llm.label`.
    pub operator: String,
    /// The step key; null if it was never known, because an input failed.
    pub key: Option<Digest>,
    /// The blob that holds the manifest of what the step stands for after the run.
    pub manifest: Option<Digest>,
    /// One of `made`, `reused`, `failed`, `blocked`, `partial` and `accepted`.
    pub action: String,
    /// Whether the result was collected since: its manifest is gone, and that is no damage.
    #[serde(default)]
    pub collected: bool,
    /// What the step did in this run and what that cost.
    pub stats: Stats,
    /// Where a changed input was accepted: the share of the joined input rows that changed.
    #[serde(default)]
    pub drift: Option<f64>,
    /// Why it failed.
    pub error: Option<String>,
}

/// What the step names of a pipeline stand for now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// The pipeline's name.
    pub pipeline: String,
    /// The run that moved it last.
    pub run: String,
    /// For each step, the blob that holds its manifest.
    pub steps: BTreeMap<String, Digest>,
}

/// An id for a run that starts now; ids sort by time: `20260131T235959.123456Z-1f0c93ab`.
pub fn new_run_id() -> String {
    format!("{}-{:08x}", Utc::now().format("%Y%m%dT%H%M%S%.6fZ"), rand::random::<u32>())
}

impl Store {
    /// Writes the record of a run, in place of an earlier record of the same run.
    ///
    /// It is an error if the id is not a plain file name, or the store cannot be written.
    pub fn write_run(&self, run: &RunRecord) -> Result<()> {
        self.write_record("runs", "a run", &run.run, run)
    }

    /// The records of all runs, oldest first.
    ///
    /// It is an error, naming the file, if one of them cannot be understood.
    pub fn runs(&self) -> Result<Vec<RunRecord>> {
        self.read_records("runs")
    }

    /// What the step names of `pipeline` stand for, if it ever ran.
    ///
    /// Where the record is damaged, it is worked out from the records of the pipeline's runs, which say the same.
    pub fn head(&self, pipeline: &str) -> Result<Option<Head>> {
        check_file_name("a pipeline", pipeline)?;
        let read = read_record(&self.record_path("pipelines", pipeline));
        match read {
            Err(error) if error.chain().any(|cause| cause.is::<serde_json::Error>()) => {
                let head = self.head_of_runs(pipeline)?.ok_or(error)?;
                // A store that cannot be written works it out each time.
                let _ = self.set_head(&head);
                Ok(Some(head))
            }
            read => read,
        }
    }

    /// What the step names of a pipeline stand for after its runs; none where no run is recorded.
    fn head_of_runs(&self, pipeline: &str) -> Result<Option<Head>> {
        let runs = self.runs()?.into_iter().filter(|run| run.pipeline == pipeline);
        let mut head: Option<Head> = None;
        for run in runs {
            let (run_id, steps) = (run.run, head.map(|head| head.steps).unwrap_or_default());
            let mut now = Head { pipeline: pipeline.to_owned(), run: run_id, steps };
            for step in run.steps.iter().filter(|step| !step.collected) {
                let Some(digest) = step.manifest else { continue };
                let rejected = format!("{}.rejected", step.step);
                if step.action == "rejected" {
                    now.steps.insert(rejected, digest);
                } else {
                    now.steps.remove(&rejected);
                    now.steps.insert(step.step.clone(), digest);
                }
            }
            head = Some(now);
        }
        Ok(head)
    }

    /// Says what the step names of a pipeline stand for, in place of what was said before.
    pub fn set_head(&self, head: &Head) -> Result<()> {
        self.write_record("pipelines", "a pipeline", &head.pipeline, head)
    }

    /// What the step names of all pipelines stand for, by the pipeline's name.
    pub fn heads(&self) -> Result<Vec<Head>> {
        let files = self.record_files("pipelines")?;
        let names = files.iter().filter_map(|path| path.file_stem()?.to_str());
        // One that went between listing and reading was collected.
        names.filter_map(|name| self.head(name).transpose()).collect()
    }

    /// The files that hold the records of one kind, by name; `folder` is `runs` or `pipelines`.
    pub(crate) fn record_files(&self, folder: &str) -> Result<Vec<PathBuf>> {
        let list = || -> std::io::Result<Vec<PathBuf>> {
            fs::read_dir(self.root().join(folder))?.map(|entry| Ok(entry?.path())).collect()
        };
        let mut paths = list().map_err(|error| storage_error(self.root(), "list records", error))?;
        paths.retain(|path| path.extension().is_some_and(|suffix| suffix == "json"));
        paths.sort();
        Ok(paths)
    }

    /// The static answers kept for a pipeline, as their owner wrote them; none where they do not read, since
    /// they can be worked out again.
    pub fn statics(&self, pipeline: &str) -> Option<Vec<u8>> {
        check_file_name("a pipeline", pipeline).ok()?;
        fs::read(self.record_path("statics", pipeline)).ok()
    }

    /// Keeps the static answers of a pipeline, in place of what was kept before.
    ///
    /// It is an error if the name is not a plain file name, or the store cannot be written.
    pub fn set_statics(&self, pipeline: &str, answers: &[u8]) -> Result<()> {
        check_file_name("a pipeline", pipeline)?;
        self.replace_file(&self.record_path("statics", pipeline), answers)
    }

    fn record_path(&self, folder: &str, name: &str) -> PathBuf {
        self.root().join(folder).join(format!("{name}.json"))
    }

    pub(crate) fn write_record(
        &self,
        folder: &str,
        what: &str,
        name: &str,
        record: &impl Serialize,
    ) -> Result<()> {
        check_file_name(what, name)?;
        self.replace_file(&self.record_path(folder, name), &serde_json::to_vec(record)?)
    }

    fn read_records<T: DeserializeOwned>(&self, folder: &str) -> Result<Vec<T>> {
        // One that went between listing and reading was collected.
        self.record_files(folder)?.iter().filter_map(|path| read_record(path).transpose()).collect()
    }
}

/// A record; none if there is no such file.
pub(crate) fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let record = serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is damaged or from another version; move it away", path.display()))?;
    Ok(Some(record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Secret;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_with_secret(folder.path(), Secret::from_bytes([1; 32])).unwrap();
        (folder, store)
    }

    fn record(run: &str) -> RunRecord {
        RunRecord {
            run: run.to_owned(),
            pipeline: "chest-ct".to_owned(),
            name: None,
            spec: Some("chest.yaml".to_owned()),
            started: "2026-01-31T23:59:59Z".to_owned(),
            finished: None,
            ok: false,
            steps: vec![StepRecord {
                step: "labels".to_owned(),
                operator: "llm.label".to_owned(),
                key: Some(Digest([1; 32])),
                manifest: None,
                action: "failed".to_owned(),
                collected: false,
                stats: Stats::default(),
                drift: None,
                error: Some("connection refused".to_owned()),
            }],
        }
    }

    #[test]
    fn runs_come_oldest_first_and_are_replaced_whole() {
        let (_folder, store) = store();
        assert_eq!(store.runs().unwrap(), []);
        let ids: Vec<String> = (0..3)
            .map(|_| {
                std::thread::sleep(std::time::Duration::from_micros(5));
                new_run_id()
            })
            .collect();
        ids.iter().rev().for_each(|id| store.write_run(&record(id)).unwrap());
        let mut ended = record(&ids[1]);
        ended.finished = Some("2026-02-01T00:00:00Z".to_owned());
        store.write_run(&ended).unwrap();
        assert_eq!(store.runs().unwrap(), [record(&ids[0]), ended, record(&ids[2])]);
    }

    #[test]
    fn a_damaged_run_is_named_and_a_name_stays_in_its_folder() {
        let (_folder, store) = store();
        assert!(store.write_run(&record("../heads")).is_err());
        assert!(store.head("../secret").is_err());
        fs::write(store.root().join("runs/x.json"), b"{").unwrap();
        let error = store.runs().unwrap_err().to_string();
        assert!(error.contains("runs/x.json is damaged or from another version"), "{error}");
    }

    #[test]
    fn heads_are_replaced_whole() {
        let (_folder, store) = store();
        assert_eq!(store.head("chest-ct").unwrap(), None);
        let head = |run: &str| Head {
            pipeline: "chest-ct".to_owned(),
            run: run.to_owned(),
            steps: [("labels".to_owned(), Digest([1; 32]))].into(),
        };
        store.set_head(&head("1")).unwrap();
        store.set_head(&head("2")).unwrap();
        assert_eq!(store.head("chest-ct").unwrap(), Some(head("2")));
        assert_eq!(store.heads().unwrap(), [head("2")]);
    }
}
