//! Action records: for each step key, what the step made.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::durable::storage_error;
use crate::store::{BlobError, Store, sharded};
use crate::table::TableRecord;

/// What a step made, from what, and at what cost; it is kept as a JSON blob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The number of the rules by which `key` was made.
    pub key_schema: u16,
    /// The step key: the digest of the recipe.
    pub key: Digest,
    /// The operator's name, such as `llm.label`.
    pub operator: String,
    /// Everything that went into the key, for `argent why` and for making the result again.
    pub recipe: serde_json::Value,
    /// The tables made, by name; the main one is named "".
    pub outputs: BTreeMap<String, TableRecord>,
    /// The stored tables that it was made from, by port, without the lists of their side files; files that were
    /// listed on disk are not among them. It says where the result came from and is no part of the key.
    #[serde(default)]
    pub inputs: BTreeMap<String, TableRecord>,
    /// Of a row operator: how its answers are remembered.
    #[serde(default)]
    pub memo: Option<MemoRecord>,
    /// What making it took.
    pub stats: Stats,
    /// False for a partial result: some rows are still to be made.
    pub complete: bool,
    /// When it was made: UTC, RFC 3339.
    pub created: String,
}

/// How a row operator's answers are remembered: the row key of an input row is that of its cells in
/// `columns`, in that order ([`crate::keys::row_keys`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoRecord {
    /// The digest of the operator, which names the memo.
    pub operator: Digest,
    /// The port whose rows are answered for.
    pub port: String,
    /// The columns of that port that the operator reads.
    pub columns: Vec<String>,
}

/// What a step did and what that cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Rows computed.
    pub made: u64,
    /// Rows taken from the memo.
    pub reused: u64,
    /// Rows that failed, for whatever reason.
    pub failed: u64,
    /// Rows that failed for a passing reason, which the next run tries again.
    pub retryable: u64,
    /// Requests sent to an endpoint.
    pub requests: u64,
    /// Prompt tokens, cached ones included.
    pub tokens_in: u64,
    /// Prompt tokens that the endpoint had cached.
    pub tokens_cached: u64,
    /// Tokens generated.
    pub tokens_out: u64,
    /// US dollars; null where no price is known.
    pub usd: Option<f64>,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// So many manifests are read by one thread.
const FEW_MANIFESTS: usize = 32;

/// So many blobs are looked for by one thread.
const FEW_BLOBS: usize = 256;

impl Store {
    /// Records what a step made, and returns the record that now stands, with the digest of its blob.
    ///
    /// The first publication wins: where the key has a complete result without rows to retry and with no
    /// more failed rows, whose blobs are there, that one is returned and `manifest` is dropped. Any other
    /// record is replaced. The tables must be in the store already. When it returns, the record survives a
    /// power cut.
    pub fn publish(&self, manifest: &Manifest) -> Result<(Digest, Manifest)> {
        ensure!(
            manifest.stats.seconds.is_finite() && manifest.stats.usd.is_none_or(f64::is_finite),
            "the manifest of {} has a cost that is not a number, which JSON cannot keep",
            manifest.operator
        );
        let path = sharded(&self.root().join("actions"), &manifest.key);
        let folder = path.parent().unwrap_or(self.root());
        let refused = |error| storage_error(self.root(), "write an action", error);
        self.create_folder(folder).map_err(refused)?;
        // Looking and replacing are one act for all writers of this folder; readers need no lock.
        let gate = File::open(folder).map_err(refused)?;
        gate.lock().map_err(refused)?;
        if let Some((digest, stored)) = self.action_record(&manifest.key)?
            && stored.complete
            && stored.stats.retryable == 0
            && stored.stats.failed <= manifest.stats.failed
        {
            return Ok((digest, stored));
        }
        let digest = self.put_bytes(&serde_json::to_vec(manifest)?)?;
        self.replace_file(&path, format!("{digest}\n").as_bytes())?;
        Ok((digest, manifest.clone()))
    }

    /// What is recorded for this step key.
    ///
    /// A record whose manifest, table parts or side files are gone is no record. Whether the tables' bytes
    /// are sound shows when they are read.
    pub fn action(&self, key: &Digest) -> Result<Option<Manifest>> {
        Ok(self.action_record(key)?.map(|(_, manifest)| manifest))
    }

    /// The manifest kept in the blob `digest`.
    ///
    /// The error is a [`BlobError`] if the blob is missing or damaged.
    pub fn manifest(&self, digest: &Digest) -> Result<Manifest> {
        let bytes = self.read(digest)?;
        serde_json::from_slice(&bytes).with_context(|| format!("blob {} is not a manifest", digest.short()))
    }

    /// The manifests kept in these blobs, read by all cores; those that do not read are left out, since
    /// whoever needs one asks for it again and is told why.
    pub fn manifests(&self, digests: &[Digest]) -> Vec<(Digest, Manifest)> {
        let read = |digest: &Digest| Some((*digest, self.manifest(digest).ok()?));
        digests.par_iter().with_min_len(FEW_MANIFESTS).filter_map(read).collect()
    }

    /// Whether the table parts and side files of a result are there; their bytes are not looked at.
    pub fn holds(&self, manifest: &Manifest) -> bool {
        manifest.outputs.values().all(|table| self.has_all(table))
    }

    /// As [`Store::action`], with the digest of the manifest's blob.
    pub fn action_record(&self, key: &Digest) -> Result<Option<(Digest, Manifest)>> {
        let text = match fs::read_to_string(sharded(&self.root().join("actions"), key)) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => {
                return Ok(None);
            }
            Err(error) => return Err(storage_error(self.root(), "read an action", error).into()),
        };
        // A damaged record is a miss: the step runs again and replaces it.
        let Ok(digest) = text.trim_end().parse::<Digest>() else { return Ok(None) };
        let bytes = match self.read(&digest) {
            Ok(bytes) => bytes,
            Err(BlobError::Missing(_) | BlobError::Damaged(_)) => return Ok(None),
            Err(error @ BlobError::Io(_)) => return Err(error.into()),
        };
        // So is one written by a version with other fields.
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { return Ok(None) };
        let standing = manifest.key == *key && self.holds(&manifest);
        Ok(standing.then_some((digest, manifest)))
    }

    fn has_all(&self, table: &TableRecord) -> bool {
        // Waking the other cores costs more than looking for a few names.
        if table.parts.len() + table.files.len() <= FEW_BLOBS {
            return table.parts.iter().chain(&table.files).all(|digest| self.has(digest));
        }
        table.parts.par_iter().chain(&table.files).all(|digest| self.has(digest))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, RecordBatch};
    use serde_json::json;

    use super::*;
    use crate::digest::Secret;

    const KEY: Digest = Digest([4; 32]);

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_with_secret(folder.path(), Secret::from_bytes([1; 32])).unwrap();
        (folder, store)
    }

    fn manifest(store: &Store, value: i32) -> Manifest {
        let column = Arc::new(Int32Array::from(vec![value])) as _;
        let table = store.put_table(&RecordBatch::try_from_iter([("value", column)]).unwrap(), &[]).unwrap();
        Manifest {
            key_schema: 1,
            key: KEY,
            operator: "sql".to_owned(),
            // A number that a parser without float_roundtrip reads back one bit off.
            recipe: json!({"z": 1, "a": [3.141_592_653_589_793e-10, 51.248_178_375_052_61]}),
            outputs: [(String::new(), table)].into(),
            inputs: BTreeMap::new(),
            memo: None,
            stats: Stats { made: 1, usd: Some(0.25), ..Stats::default() },
            complete: true,
            created: "2026-01-31T23:59:59Z".to_owned(),
        }
    }

    #[test]
    fn the_first_complete_result_stands() {
        let (_folder, store) = store();
        assert_eq!(store.action(&KEY).unwrap(), None);
        let first = manifest(&store, 1);
        let (digest, stored) = store.publish(&first).unwrap();
        assert_eq!(stored, first);
        assert_eq!(store.manifest(&digest).unwrap(), first);
        assert_eq!(store.publish(&manifest(&store, 2)).unwrap(), (digest, first.clone()));
        let other = Store::open(store.root()).unwrap();
        assert_eq!(other.action(&KEY).unwrap(), Some(first));
    }

    #[test]
    fn a_result_to_be_finished_is_replaced() {
        let (_folder, store) = store();
        let mut partial = manifest(&store, 1);
        partial.complete = false;
        store.publish(&partial).unwrap();
        let mut retryable = manifest(&store, 2);
        retryable.stats.retryable = 3;
        assert_eq!(store.publish(&retryable).unwrap().1, retryable);
        let whole = manifest(&store, 3);
        assert_eq!(store.publish(&whole).unwrap().1, whole);
        assert_eq!(store.publish(&partial).unwrap().1, whole);
        assert_eq!(store.action(&KEY).unwrap(), Some(whole));
    }

    #[test]
    fn a_record_whose_blobs_are_gone_is_none_and_gives_way() {
        let (_folder, store) = store();
        let mut first = manifest(&store, 1);
        let volume = store.put_bytes(b"voxels").unwrap();
        first.outputs.get_mut("").unwrap().files = vec![volume];
        let (digest, _) = store.publish(&first).unwrap();
        for lost in [first.outputs[""].parts[0], volume, digest] {
            let path = store.path(&lost).unwrap();
            let bytes = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            assert_eq!(store.action(&KEY).unwrap(), None);
            fs::write(&path, bytes).unwrap();
            assert!(store.action(&KEY).unwrap().is_some());
        }
        fs::remove_file(store.path(&volume).unwrap()).unwrap();
        let second = manifest(&store, 2);
        assert_eq!(store.publish(&second).unwrap().1, second);
    }

    #[test]
    fn a_damaged_record_is_none() {
        let (_folder, store) = store();
        let (digest, _) = store.publish(&manifest(&store, 1)).unwrap();
        let path = sharded(&store.root().join("actions"), &KEY);
        for damaged in [&b""[..], b"\xff\xfe", b"0123", &digest.to_string().as_bytes()[1..]] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(store.action(&KEY).unwrap(), None, "{damaged:?}");
        }
        // A record under another key's name says nothing of that key.
        let other = sharded(&store.root().join("actions"), &Digest([4; 32].map(|byte: u8| byte + 1)));
        fs::create_dir_all(other.parent().unwrap()).unwrap();
        fs::write(&other, digest.to_string()).unwrap();
        assert_eq!(store.action(&Digest([5; 32])).unwrap(), None);
    }

    #[test]
    fn of_many_publishers_one_is_first() {
        let (_folder, store) = store();
        let published: Vec<Manifest> = std::thread::scope(|scope| {
            let publish = |value| {
                let store = Store::open(store.root()).unwrap();
                store.publish(&manifest(&store, value)).unwrap().1
            };
            let threads: Vec<_> = (0..8).map(|value| scope.spawn(move || publish(value))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(published.iter().all(|manifest| *manifest == published[0]));
    }

    #[test]
    fn a_cost_that_json_cannot_keep_is_refused() {
        let (_folder, store) = store();
        let mut wrong = manifest(&store, 1);
        wrong.stats.usd = Some(f64::NAN);
        assert!(store.publish(&wrong).is_err());
    }
}
