//! The store: digests, content-addressed blobs, action records, row memo, runs.
//!
//! Everything that argent keeps lies in one folder, a [`Store`]:
//!
//! ```text
//! cas/ab/cd…      immutable blobs, named by their digest: Parquet parts, volumes, weights, manifests
//! actions/ab/cd…  step key -> digest of the manifest that says what the step made
//! memo/<op>/…     row key -> output rows: journals, sealed into Parquet segments
//! runs/…          what each run saw and made
//! pipelines/…     for each pipeline, the manifests that its step names stand for
//! checkpoints/…   the state of steps under way that take long, by step key
//! locks/…         one file per held lock, and those that claims share
//! tombstones.json  who was forgotten, as digests
//! tmp/…           files being written, each owned by a living process
//! presence        locked by every process that has the store open
//! secret          32 random bytes that key every digest
//! ```
//!
//! No reader can see half a file and nothing needs unlocking after a crash: a file is written under
//! `tmp/`, synced, and only then gets its name, and what it refers to gets its name first (blobs, then
//! manifest, then action, then run). Whatever moment a process is killed at, the store is valid.

pub mod action;
pub mod census;
pub mod checkpoints;
pub mod claims;
pub mod collect;
pub mod digest;
mod durable;
pub mod encoding;
mod format;
pub mod keys;
pub mod lock;
pub mod memo;
pub mod runs;
mod scratch;
pub mod stat_cache;
pub mod store;
pub mod table;
pub mod time;
pub mod tombstones;
pub mod trials;
pub mod verify;

pub use action::{Manifest, Stats};
pub use digest::{Digest, DigestMap, DigestSet, Secret};
pub use memo::Memo;
pub use runs::{Head, RunRecord, StepRecord};
pub use store::{BlobError, Store};
pub use table::{ColumnRecord, TableRecord};
pub use trials::TrialRecord;
