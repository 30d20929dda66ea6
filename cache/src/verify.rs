//! Verification: every file of the store is read and checked.
//!
//! Nothing is changed. A damaged blob stays where it is, though reading it for a step would remove it: whoever
//! verifies wants to know what happened to the disk, and may have a copy to put back. The next run that needs
//! the blob finds it damaged, removes it and makes it again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use arrow::array::Array;
use rayon::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::action::Manifest;
use crate::census::{Named, Names, names};
use crate::digest::Digest;
use crate::keys::ColumnHasher;
use crate::runs::{Head, RunRecord, read_record};
use crate::store::{Store, hash_file};
use crate::table::TableRecord;
use crate::trials::{self, TrialRecord};

/// What was found in a store.
#[derive(Debug, Default, Serialize)]
pub struct Verification {
    /// Blobs that are sound.
    pub blobs: u64,
    /// Bytes of all blobs.
    pub bytes: u64,
    /// Manifests that read.
    pub results: u64,
    /// Different tables that read and have the digests that their record says.
    pub tables: u64,
    /// Runs on record.
    pub runs: u64,
    /// Pipelines on record.
    pub pipelines: u64,
    /// Answers in the memos.
    pub answers: u64,
    /// What is damaged or missing; empty in a sound store.
    pub damage: Vec<Damage>,
}

/// Something that is damaged or missing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Damage {
    /// The steps that it belongs to, as `pipeline.step`; empty if no name stands for it any more.
    pub steps: Vec<String>,
    /// What it is: `blob`, `action`, `manifest`, `table`, `memo`, `run`, `pipeline` or `tombstones`.
    pub what: String,
    /// The beginning of its digest, or its name; of a table, which of the step's outputs it is.
    pub name: String,
    /// What is there, and what was expected.
    pub problem: String,
    /// What to do.
    pub advice: String,
}

/// What to do about a result that does not read.
const RUN_AGAIN: &str = "run the pipeline: the step is made again";

/// What to do about a result that only old runs have.
const OLD_VERSION: &str = "put it back from a copy, or have `argent gc` note that this version is gone";

impl Store {
    /// Reads everything and says what is damaged or missing. `progress` is told the bytes read and those to
    /// read.
    ///
    /// It is an error if the store cannot be listed, or the disk refuses.
    pub fn verify(&self, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Verification> {
        let mut damage = Vec::new();
        let heads: Vec<Head> = self.verify_records("pipelines", &mut damage)?;
        let runs: Vec<RunRecord> = self.verify_records("runs", &mut damage)?;
        if fs::exists(self.root().join(trials::FOLDER))? {
            self.verify_records::<TrialRecord>(trials::FOLDER, &mut damage)?;
        }
        let names = names(&heads, &runs);
        let blobs = self.verify_blobs(progress)?;
        let mut wanted: BTreeSet<Digest> = names.keys().copied().collect();
        let actions = self.verify_actions(&mut damage)?;
        wanted.extend(&actions);
        let mut current: BTreeSet<Digest> = heads.iter().flat_map(|h| h.steps.values().copied()).collect();
        current.extend(actions);
        let (results, lost) = self.verify_results(&wanted, &blobs);
        damage.extend(lost.into_iter().map(|(digest, problem)| Damage {
            steps: steps_of(&names, &digest),
            what: "manifest".to_owned(),
            name: digest.short(),
            problem,
            advice: if current.contains(&digest) { RUN_AGAIN } else { OLD_VERSION }.to_owned(),
        }));
        let tables = self.verify_tables(&results, &blobs, &names, &mut damage);
        damage.extend(blobs.damage(&owners(&results, &names)));
        let answers = self.verify_memos(&results, &names, &mut damage)?;
        damage.extend(self.tombstones().err().map(|_| Damage {
            steps: Vec::new(),
            what: "tombstones".to_owned(),
            name: "tombstones.json".to_owned(),
            problem: "the record of who was forgotten does not read".to_owned(),
            advice: "put it back from a copy: without it, they would be read again".to_owned(),
        }));
        damage.sort();
        damage.dedup();
        Ok(Verification {
            blobs: blobs.sound.len() as u64,
            bytes: blobs.bytes,
            results: results.len() as u64,
            tables,
            runs: runs.len() as u64,
            pipelines: heads.len() as u64,
            answers,
            damage,
        })
    }

    /// The records of one kind that read.
    fn verify_records<T: DeserializeOwned>(&self, folder: &str, damage: &mut Vec<Damage>) -> Result<Vec<T>> {
        let mut records = Vec::new();
        for path in self.record_files(folder)? {
            match read_record(&path) {
                Ok(record) => records.extend(record),
                Err(_) => damage.push(Damage {
                    steps: Vec::new(),
                    what: folder.trim_end_matches('s').to_owned(),
                    name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
                    problem: "the record does not read, expected JSON of this version".to_owned(),
                    advice: "put it back from a copy, or move it away".to_owned(),
                }),
            }
        }
        Ok(records)
    }

    /// Hashes every blob, on all cores.
    fn verify_blobs(&self, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Blobs> {
        let files = self.named_files("cas")?;
        let bytes = files.iter().map(|file| file.metadata.len()).sum();
        let done = AtomicU64::new(0);
        let check = |file: &Named| -> Result<Option<(Digest, bool)>> {
            let Some(digest) = file.digest else { return Ok(None) };
            let mut open = File::open(&file.path).context("a blob does not open")?;
            let (found, read) = hash_file(self.secret(), &mut open).context("a blob does not read")?;
            progress(done.fetch_add(read, Ordering::Relaxed) + read, bytes);
            Ok(Some((digest, found == digest)))
        };
        let checked: Vec<_> = files.par_iter().map(check).collect::<Result<_>>()?;
        let strange = checked.iter().filter(|blob| blob.is_none()).count();
        let of = |sound: bool| {
            let blobs = checked.iter().flatten().filter(move |(_, is_sound)| *is_sound == sound);
            blobs.map(|(digest, _)| *digest).collect::<HashSet<_>>()
        };
        Ok(Blobs { sound: of(true), damaged: of(false), strange, bytes })
    }

    /// The manifests that action records name.
    fn verify_actions(&self, damage: &mut Vec<Damage>) -> Result<Vec<Digest>> {
        let mut manifests = Vec::new();
        for file in self.named_files("actions")? {
            let text = fs::read_to_string(&file.path).unwrap_or_default();
            match (file.digest, text.trim_end().parse::<Digest>()) {
                (Some(_), Ok(manifest)) => manifests.push(manifest),
                _ => damage.push(Damage {
                    steps: Vec::new(),
                    what: "action".to_owned(),
                    name: file.digest.map_or("?".to_owned(), |digest| digest.short()),
                    problem: "the record does not read, expected the digest of a manifest".to_owned(),
                    advice: RUN_AGAIN.to_owned(),
                }),
            }
        }
        Ok(manifests)
    }

    /// The manifests that read, and what is wrong with the others.
    fn verify_results(
        &self,
        wanted: &BTreeSet<Digest>,
        blobs: &Blobs,
    ) -> (BTreeMap<Digest, Manifest>, BTreeMap<Digest, String>) {
        let mut results = BTreeMap::new();
        let mut lost = BTreeMap::new();
        for digest in wanted {
            let problem = match blobs.sound.contains(digest).then(|| self.manifest(digest)) {
                Some(Ok(manifest)) => {
                    results.insert(*digest, manifest);
                    continue;
                }
                Some(Err(_)) => "it is not a manifest of this version",
                None if blobs.damaged.contains(digest) => "its bytes have changed",
                None => "its blob is missing",
            };
            lost.insert(*digest, problem.to_owned());
        }
        (results, lost)
    }

    /// Reads every table whose blobs are sound, and tells how many there are.
    fn verify_tables(
        &self,
        results: &BTreeMap<Digest, Manifest>,
        blobs: &Blobs,
        names: &Names,
        damage: &mut Vec<Damage>,
    ) -> u64 {
        // Versions and steps share tables; each is read once, and its problem told for all that have it.
        let mut seen: HashMap<(&[Digest], &[Digest]), Option<String>> = HashMap::new();
        for (digest, manifest) in results {
            for (output, table) in &manifest.outputs {
                let problem = seen.entry((&table.parts, &table.files)).or_insert_with(|| {
                    self.verify_table(table, blobs).err().map(|problem| format!("{problem:#}"))
                });
                damage.extend(problem.as_ref().map(|problem| Damage {
                    steps: steps_of(names, digest),
                    what: "table".to_owned(),
                    name: if output.is_empty() { "main".to_owned() } else { output.clone() },
                    problem: problem.clone(),
                    advice: RUN_AGAIN.to_owned(),
                }));
            }
        }
        seen.values().filter(|problem| problem.is_none()).count() as u64
    }

    fn verify_table(&self, table: &TableRecord, blobs: &Blobs) -> Result<()> {
        let missing = |digests: &[Digest]| digests.iter().filter(|digest| !blobs.has(digest)).count();
        let (parts, files) = (missing(&table.parts), missing(&table.files));
        ensure!(parts == 0, "parts missing: {parts} of {}", table.parts.len());
        ensure!(files == 0, "side files missing: {files} of {}", table.files.len());
        let damaged = table.parts.iter().filter(|digest| blobs.damaged.contains(digest)).count();
        ensure!(damaged == 0, "parts damaged: {damaged} of {}", table.parts.len());
        let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        let mut hashers: Vec<ColumnHasher> = Vec::new();
        for chunk in self.table_chunks(table, &names) {
            let chunk = chunk?;
            if hashers.is_empty() {
                let types = chunk.columns().iter().map(|column| column.data_type());
                hashers = types.map(|data_type| ColumnHasher::new(self.secret(), data_type)).collect();
            }
            let hashed = hashers.par_iter_mut().zip(chunk.columns());
            hashed.try_for_each(|(hasher, column)| hasher.update(column))?;
        }
        for (hasher, record) in hashers.into_iter().zip(&table.columns) {
            let same = hasher.finish() == record.digest;
            ensure!(same, "column `{}` has not the digest of its record", record.name);
        }
        Ok(())
    }

    /// Reads every memo, and tells how many answers there are.
    fn verify_memos(
        &self,
        results: &BTreeMap<Digest, Manifest>,
        names: &Names,
        damage: &mut Vec<Damage>,
    ) -> Result<u64> {
        let mut answers = 0;
        for operator in self.memo_digests()? {
            let problem = match self.memo(&operator) {
                Ok(memo) => {
                    answers += memo.len() as u64;
                    match memo.damaged() {
                        0 => continue,
                        lost => format!("damaged records, or stretches between them: {lost}"),
                    }
                }
                Err(error) => format!("{error:#}"),
            };
            let users = results
                .iter()
                .filter(|(_, manifest)| manifest.memo.as_ref().is_some_and(|memo| memo.operator == operator));
            let steps: BTreeSet<String> = users.flat_map(|(digest, _)| steps_of(names, digest)).collect();
            damage.push(Damage {
                steps: steps.into_iter().collect(),
                what: "memo".to_owned(),
                name: operator.short(),
                problem,
                advice: "the sound answers are used; a run that needs the others makes them again".to_owned(),
            });
        }
        Ok(answers)
    }
}

/// What became of hashing the blobs.
struct Blobs {
    sound: HashSet<Digest>,
    damaged: HashSet<Digest>,
    /// Files whose name is no digest.
    strange: usize,
    bytes: u64,
}

impl Blobs {
    fn has(&self, digest: &Digest) -> bool {
        self.sound.contains(digest) || self.damaged.contains(digest)
    }

    fn damage(&self, owners: &Names) -> Vec<Damage> {
        let mut all: Vec<Damage> = self
            .damaged
            .iter()
            .map(|digest| Damage {
                steps: steps_of(owners, digest),
                what: "blob".to_owned(),
                name: digest.short(),
                problem: "its bytes have changed".to_owned(),
                advice: "put it back from a copy, or run the pipeline: it is removed and made again"
                    .to_owned(),
            })
            .collect();
        if self.strange > 0 {
            all.push(Damage {
                steps: Vec::new(),
                what: "blob".to_owned(),
                name: "?".to_owned(),
                problem: format!("files whose name is no digest: {}", self.strange),
                advice: "move them away: argent did not put them there".to_owned(),
            });
        }
        all
    }
}

/// The steps that blobs belong to: those of the manifests that name them.
fn owners(results: &BTreeMap<Digest, Manifest>, names: &Names) -> Names {
    let mut owners = names.clone();
    for (digest, manifest) in results {
        for blob in crate::census::blobs_of(manifest) {
            owners.entry(blob).or_default().extend(steps_of(names, digest));
        }
    }
    owners
}

fn steps_of(names: &Names, digest: &Digest) -> Vec<String> {
    names.get(digest).into_iter().flatten().cloned().collect()
}
