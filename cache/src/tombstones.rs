//! Tombstones: who was forgotten, as keyed digests, so that nobody takes them in again.
//!
//! A tombstone is the digest of an id column's name and a value under the store's secret. It says nothing by
//! itself, and it cannot be left out: a person's row that still stands in a source file would be read again
//! by the next run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Secret};
use crate::encoding::encode_json;
use crate::store::Store;

/// Who was forgotten, by the name of the id column.
#[derive(Clone, Debug)]
pub struct Tombstones {
    secret: Secret,
    by_column: BTreeMap<String, BTreeSet<Digest>>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    columns: BTreeMap<String, BTreeSet<Digest>>,
}

/// Where the tombstones lie in the store.
const FILE_NAME: &str = "tombstones.json";

/// The number of this layout. One that is not known is an error: to read on without would bring people back.
const VERSION: u32 = 1;

impl Store {
    /// Who was forgotten. The file is read once: only who is alone in the store ([`Store::alone`]) adds to it.
    ///
    /// It is an error if the file is there and does not read.
    pub fn tombstones(&self) -> Result<Arc<Tombstones>> {
        let mut cached = self.cached_tombstones();
        if let Some(tombstones) = &*cached {
            return Ok(Arc::clone(tombstones));
        }
        let by_column = read(&self.root().join(FILE_NAME))?;
        Ok(Arc::clone(cached.insert(Arc::new(Tombstones { secret: self.secret().clone(), by_column }))))
    }

    /// Adds tombstones for these values, by column, durably.
    ///
    /// The errors are those of [`Store::tombstones`], and that the store cannot be written.
    pub fn bury(&self, values: &BTreeMap<String, BTreeSet<String>>) -> Result<Arc<Tombstones>> {
        let added = self.tombstones()?.with(values);
        if added.by_column != self.tombstones()?.by_column {
            let saved = Saved { version: VERSION, columns: added.by_column.clone() };
            self.replace_file(&self.root().join(FILE_NAME), &serde_json::to_vec_pretty(&saved)?)?;
        }
        let added = Arc::new(added);
        *self.cached_tombstones() = Some(Arc::clone(&added));
        Ok(added)
    }
}

impl Tombstones {
    /// These and tombstones for more values, by column; nothing is written.
    pub fn with(&self, values: &BTreeMap<String, BTreeSet<String>>) -> Tombstones {
        let mut all = self.clone();
        for (column, values) in values {
            let digests = values.iter().map(|value| digest(&self.secret, column, value));
            all.by_column.entry(column.clone()).or_default().extend(digests);
        }
        all
    }

    /// Whether nobody was forgotten.
    pub fn is_empty(&self) -> bool {
        self.by_column.values().all(BTreeSet::is_empty)
    }

    /// The id columns that have tombstones.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.by_column.keys().map(String::as_str)
    }

    /// Whether this value of an id column was forgotten.
    pub fn holds(&self, column: &str, value: &str) -> bool {
        let digests = self.by_column.get(column).filter(|digests| !digests.is_empty());
        digests.is_some_and(|digests| digests.contains(&digest(&self.secret, column, value)))
    }

    /// Whether this value was forgotten under whatever column: for one that a query has renamed.
    pub fn holds_anywhere(&self, value: &str) -> bool {
        self.columns().any(|column| self.holds(column, value))
    }

    /// Whether a folder or file of a path is named as someone forgotten, its endings (`.nii.gz`) apart.
    pub fn holds_path(&self, path: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        // An id may hold a slash.
        self.holds_anywhere(path)
            || path.split('/').any(|name| {
                let shorter = std::iter::successors(Some(name), |name| Some(name.rsplit_once('.')?.0));
                // A name has two endings at most; an id may hold dots itself.
                shorter.take(3).any(|name| self.holds_anywhere(name))
            })
    }
}

fn digest(secret: &Secret, column: &str, value: &str) -> Digest {
    let mut bytes = Vec::new();
    encode_json(&serde_json::json!([column, value]), &mut bytes);
    secret.digest("argent tombstone v1", &bytes)
}

fn read(path: &Path) -> Result<BTreeMap<String, BTreeSet<Digest>>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let saved = serde_json::from_slice::<Saved>(&bytes).ok().filter(|saved| saved.version == VERSION);
    let saved = saved.with_context(|| {
        format!(
            "{} is damaged or from another version; put it back from a copy: without it, who was forgotten would be \
             read again",
            path.display()
        )
    })?;
    Ok(saved.columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buried(root: &Path) -> Arc<Tombstones> {
        let store = Store::open_with_secret(root, Secret::from_bytes([1; 32])).unwrap();
        let values = BTreeMap::from([
            ("patient".to_owned(), BTreeSet::from(["valid_1".to_owned()])),
            ("id".to_owned(), BTreeSet::from(["valid_1_a_1".to_owned(), "1.2.840".to_owned()])),
        ]);
        store.bury(&values).unwrap()
    }

    #[test]
    fn the_forgotten_are_recognised_and_not_named() {
        let folder = tempfile::tempdir().unwrap();
        buried(folder.path());
        let tombstones = Store::open(folder.path()).unwrap().tombstones().unwrap();
        assert!(tombstones.holds("patient", "valid_1") && tombstones.holds_anywhere("valid_1"));
        assert!(!tombstones.holds("id", "valid_1") && !tombstones.holds("patient", "valid_10"));
        let text = fs::read_to_string(folder.path().join(FILE_NAME)).unwrap();
        assert!(!text.contains("valid_1"), "{text}");
    }

    #[test]
    fn a_path_is_known_by_its_names_without_their_endings() {
        let folder = tempfile::tempdir().unwrap();
        let tombstones = buried(folder.path());
        for path in ["volumes/valid_1_a_1.nii.gz", "data/valid_1/scan.nii", "1.2.840.dcm", "1.2.840"] {
            assert!(tombstones.holds_path(path), "{path}");
        }
        for path in ["volumes/valid_10_a_1.nii.gz", "valid_1_b", "1.2", "reports.csv"] {
            assert!(!tombstones.holds_path(path), "{path}");
        }
    }

    #[test]
    fn a_file_that_does_not_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        buried(folder.path());
        fs::write(folder.path().join(FILE_NAME), b"{").unwrap();
        let error = Store::open(folder.path()).unwrap().tombstones().unwrap_err().to_string();
        assert!(error.contains("would be read again"), "{error}");
    }
}
