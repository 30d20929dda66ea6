//! What was tried of a step on a few of its rows, and what that cost: trying makes no result, and what it spends is
//! accounted for all the same.

use std::fs;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::action::Stats;
use crate::runs::read_record;
use crate::store::Store;

/// One trial of a step. It holds no cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialRecord {
    /// The trial's id, from [`new_run_id`](crate::runs::new_run_id).
    pub trial: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The step's name in the spec.
    pub step: String,
    /// The operator's name, such as `label.llm`.
    pub operator: String,
    /// What the trial tried: the step's recipe. Null once it was forgotten, because it named someone.
    pub recipe: Value,
    /// When it ended: UTC, RFC 3339.
    pub ended: String,
    /// What it did and what that cost.
    pub stats: Stats,
}

/// The folder of these records; a store has none before its first trial.
pub(crate) const FOLDER: &str = "trials";

impl Store {
    /// Writes the record of a trial, in place of an earlier record of the same trial.
    ///
    /// It is an error if the id is not a plain file name, or the store cannot be written.
    pub fn write_trial(&self, trial: &TrialRecord) -> Result<()> {
        self.write_record(FOLDER, "a trial", &trial.trial, trial)
    }

    /// The records of all trials, oldest first.
    ///
    /// It is an error, naming the file, if one of them cannot be understood.
    pub fn trials(&self) -> Result<Vec<TrialRecord>> {
        if !fs::exists(self.root().join(FOLDER))? {
            return Ok(Vec::new());
        }
        self.record_files(FOLDER)?.iter().filter_map(|path| read_record(path).transpose()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::digest::Secret;

    #[test]
    fn trials_come_oldest_first_and_are_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_with_secret(folder.path(), Secret::from_bytes([1; 32])).unwrap();
        assert_eq!(store.trials().unwrap(), []);
        let record = |trial: &str, recipe: Value| TrialRecord {
            trial: trial.to_owned(),
            pipeline: "chest-ct".to_owned(),
            step: "labels".to_owned(),
            operator: "label.llm".to_owned(),
            recipe,
            ended: "2026-01-31T23:59:59Z".to_owned(),
            stats: Stats { requests: 5, usd: Some(0.25), ..Stats::default() },
        };
        for name in ["2", "1"] {
            store.write_trial(&record(name, json!({ "params": {} }))).unwrap();
        }
        store.write_trial(&record("1", Value::Null)).unwrap();
        let expected = [record("1", Value::Null), record("2", json!({ "params": {} }))];
        assert_eq!(store.trials().unwrap(), expected);
        assert!(store.write_trial(&record("../secret", Value::Null)).is_err());
    }
}
