//! Collection: what no name, kept run or pin reaches is removed.
//!
//! Roots are what the pipelines' names stand for, the results of each pipeline's last runs, those of named
//! runs, and whatever is younger than [`GRACE`]. What was paid for is a root too, and so is every answer of a
//! language model, unless the user says otherwise: then the answers stay that a kept table names. A table that
//! names an answer never goes before it, for the table is all that tells whose report the answer is about.
//!
//! Two things make it safe beside runs. It works alone ([`Store::alone`]): a run that is under way may at any
//! moment decide to reuse an old blob, without leaving a sign that could be looked for. And it spares what is
//! young: a run that was killed an hour ago has left parts and answers that no record names yet, and the next
//! run goes on from them. Killed itself, it leaves a valid store, because it takes things away in the reverse
//! order of publishing: run records say what they lose, then actions go, then what they named.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use serde::Serialize;

use crate::action::Manifest;
use crate::census::{Named, Records, blobs_of, is_young};
use crate::checkpoints;
use crate::digest::Digest;
use crate::durable::{storage_error, sync_folder};
use crate::keys::{row_error_key, row_keys};
use crate::lock::Alone;
use crate::runs::{RunRecord, StepRecord};
use crate::store::{BlobError, Store};
use crate::table::TableRecord;

/// What is younger is kept, whatever names it.
pub const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// What is kept beside the names' own results.
#[derive(Clone, Debug)]
pub struct Retention {
    /// Of each pipeline, the results of so many runs; runs in a row that gave the same count once.
    pub runs: usize,
    /// Whether results that cost money are kept, and the answers that the money was for.
    pub paid: bool,
    /// The memos of answers that are shared by all pipelines; each holds what was asked in its member `request`,
    /// and tables name it in their column `call`.
    pub shared_memos: Vec<Digest>,
}

/// What was collected, or would be.
#[derive(Debug, Default, Serialize)]
pub struct Collected {
    /// The results, by step.
    pub results: Vec<CollectedResult>,
    /// Blobs that no record names, left by runs that were cut off or replaced.
    pub leftovers: u64,
    /// Their bytes.
    pub leftover_bytes: u64,
    /// Answers for rows that no kept table has, or that no kept table names.
    pub answers: u64,
    /// Memos of row operators that made no kept result, and their bytes.
    pub memos: u64,
    /// The bytes of those memos.
    pub memo_bytes: u64,
    /// States of steps that have their result by now, or that were left for too long, and their bytes.
    pub checkpoints: u64,
    /// The bytes of those states.
    pub checkpoint_bytes: u64,
    /// Digests of source files that are gone from where they were.
    pub absent_files: u64,
    /// Results that are kept only because they cost money.
    pub kept_paid: Vec<CollectedResult>,
}

/// A result that was collected, or would be.
#[derive(Clone, Debug, Serialize)]
pub struct CollectedResult {
    /// The steps that it was the result of, as `pipeline.step`.
    pub steps: Vec<String>,
    /// The operator that made it.
    pub operator: String,
    /// When it was made: UTC, RFC 3339.
    pub created: String,
    /// The bytes that are its alone.
    pub bytes: u64,
    /// What making it cost, in US dollars; null where no price is known.
    pub usd: Option<f64>,
    /// Seconds that making it took.
    pub seconds: f64,
}

impl Collected {
    /// The bytes that are free afterwards, those of single answers apart.
    pub fn bytes(&self) -> u64 {
        self.results.iter().map(|result| result.bytes).sum::<u64>()
            + self.leftover_bytes
            + self.memo_bytes
            + self.checkpoint_bytes
    }
}

impl Store {
    /// What [`Store::collect`] would remove. Nothing is changed.
    ///
    /// It is an error if a record does not read.
    pub fn garbage(&self, retention: &Retention) -> Result<Collected> {
        let marked = self.mark(retention)?;
        let mut collected = marked.collected;
        for (operator, keys) in &marked.memo_keys {
            let mut gone = 0;
            self.memo(operator)?.each(&mut |key, _| gone += u64::from(!keys.contains(key)))?;
            collected.answers += gone;
        }
        collected.absent_files = self.prune_stat_cache(|path| path.exists(), true)?;
        Ok(collected)
    }

    /// Removes what no root reaches, and says what that was.
    ///
    /// It is an error if a record does not read, or the disk refuses; collecting again then finishes it.
    pub fn collect(&self, alone: &Alone, retention: &Retention) -> Result<Collected> {
        let marked = self.mark(retention)?;
        let mut collected = marked.collected;
        for run in &marked.runs {
            self.write_run(run)?;
        }
        self.remove_files(&marked.actions)?;
        for folder in &marked.memos {
            fs::remove_dir_all(folder).map_err(|error| storage_error(self.root(), "remove a memo", error))?;
        }
        for (operator, keys) in &marked.memo_keys {
            collected.answers += self.memo(operator)?.retain(alone, &|key, _| keys.contains(key))?;
        }
        for digest in &marked.blobs {
            self.remove_blob(digest)?;
        }
        for file in &marked.checkpoints {
            checkpoints::remove(file)
                .map_err(|error| storage_error(self.root(), "remove a checkpoint", error))?;
        }
        collected.absent_files = self.prune_stat_cache(|path| path.exists(), false)?;
        Ok(collected)
    }

    /// Removes every blob that neither a record nor an answer names, however young, and returns how many those
    /// are: whoever forgets must leave nothing behind.
    ///
    /// It is an error if a record does not read, or the disk refuses.
    pub fn sweep(&self, _alone: &Alone) -> Result<u64> {
        let records = self.records()?;
        let mut needed: HashSet<Digest> = records.manifests.keys().copied().collect();
        needed.extend(records.manifests.values().flat_map(blobs_of));
        for operator in self.memo_digests()? {
            self.memo(&operator)?.each(&mut |_, value| needed.extend(digests_in(value)))?;
        }
        let blobs = self.named_files("cas")?.into_iter().filter_map(|file| file.digest);
        let blobs: Vec<Digest> = blobs.filter(|digest| !needed.contains(digest)).collect();
        blobs.iter().try_for_each(|digest| self.remove_blob(digest))?;
        Ok(blobs.len() as u64)
    }

    /// Takes away the actions whose result is one of these.
    ///
    /// It is an error if the disk refuses.
    pub fn remove_actions(&self, records: &Records, results: &BTreeSet<Digest>) -> Result<()> {
        let named = records.actions.iter().filter(|action| results.contains(&action.manifest));
        self.remove_files(&named.map(|action| action.path.clone()).collect::<Vec<_>>())
    }

    /// Decides what goes.
    fn mark(&self, retention: &Retention) -> Result<Marked> {
        let records = self.records()?;
        let roots = records.roots(retention.runs);
        let is_paid = |manifest: &Manifest| retention.paid && was_paid(manifest);
        let (kept, gone): (Vec<_>, Vec<_>) = records
            .manifests
            .iter()
            .partition(|(digest, manifest)| roots.contains(*digest) || is_paid(manifest));
        let kept: BTreeMap<Digest, &Manifest> = kept.into_iter().map(|(d, m)| (*d, m)).collect();
        // Not the roots themselves: a run whose result is lost says afterwards that it is gone.
        let mut needed: HashSet<Digest> = kept.keys().copied().collect();
        needed.extend(kept.values().flat_map(|manifest| blobs_of(manifest)));
        let mut sizes = self.collectable_blobs(&needed)?;
        let blobs: Vec<Digest> = sizes.keys().copied().collect();
        let mut collected = Collected::default();
        for (digest, manifest) in gone {
            let own = std::iter::once(*digest).chain(blobs_of(manifest));
            let bytes = own.filter_map(|blob| sizes.remove(&blob)).sum();
            collected.results.push(records.result(digest, manifest, bytes));
        }
        collected.leftovers = sizes.len() as u64;
        collected.leftover_bytes = sizes.values().sum();
        let only_paid = kept.iter().filter(|(digest, _)| !roots.contains(*digest));
        collected.kept_paid =
            only_paid.map(|(digest, manifest)| records.result(digest, manifest, 0)).collect();
        let runs = records.runs_that_lose(&needed);
        let actions = records.actions.iter().filter(|action| !needed.contains(&action.manifest));
        let actions = actions.filter(|action| !action.is_young).map(|action| action.path.clone()).collect();
        let checkpoints = self.idle_checkpoints()?;
        collected.checkpoints = checkpoints.len() as u64;
        collected.checkpoint_bytes = checkpoints.iter().map(|file| file.metadata.len()).sum();
        let mut marked = Marked {
            collected,
            runs,
            actions,
            blobs,
            memos: Vec::new(),
            memo_keys: BTreeMap::new(),
            checkpoints,
        };
        self.mark_memos(&kept, retention, &mut marked)?;
        Ok(marked)
    }

    /// The blobs that may go, with their bytes.
    fn collectable_blobs(&self, needed: &HashSet<Digest>) -> Result<BTreeMap<Digest, u64>> {
        let files = self.named_files("cas")?;
        let free = files.into_iter().filter(|file| !is_young(&file.metadata));
        let free = free.filter_map(|file| Some((file.digest?, file.metadata.len())));
        Ok(free.filter(|(digest, _)| !needed.contains(digest)).collect())
    }

    /// Whole memos that no kept result is made of, and of the others the rows that no kept table has.
    fn mark_memos(
        &self,
        kept: &BTreeMap<Digest, &Manifest>,
        retention: &Retention,
        marked: &mut Marked,
    ) -> Result<()> {
        for operator in self.memo_digests()? {
            let uses = |manifest: &&&Manifest| manifest.memo.as_ref().is_some_and(|m| m.operator == operator);
            let users: Vec<&Manifest> = kept.values().filter(uses).copied().collect();
            let folder = self.root().join("memo").join(operator.to_string());
            if retention.shared_memos.contains(&operator) {
                // What a run that was cut off has just paid for is in no table yet.
                if !retention.paid && old_folder_bytes(&folder)?.is_some() {
                    marked.memo_keys.insert(operator, self.named_answers(&operator, kept)?);
                }
                continue;
            }
            if users.is_empty() {
                if let Some(bytes) = old_folder_bytes(&folder)? {
                    marked.collected.memos += 1;
                    marked.collected.memo_bytes += bytes;
                    marked.memos.push(folder);
                }
                continue;
            }
            // Damaged records go when a memo is pruned, and collecting is no reason to give them up. Rows of
            // listed files stand in no table once they failed, so theirs are kept too.
            let stored =
                |m: &&Manifest| m.memo.as_ref().is_some_and(|memo| m.inputs.contains_key(&memo.port));
            if users.iter().all(stored) && self.memo(&operator)?.damaged() == 0 {
                let memo = users.iter().find_map(|manifest| manifest.memo.as_ref());
                let columns = memo.map(|memo| memo.columns.clone()).unwrap_or_default();
                marked.memo_keys.insert(operator, self.keys_of(&operator, &columns, kept)?);
            }
        }
        Ok(())
    }

    /// The answers of a shared memo that kept tables name, and the other tries of the same requests.
    fn named_answers(&self, memo: &Digest, kept: &BTreeMap<Digest, &Manifest>) -> Result<HashSet<Digest>> {
        let mut named: HashSet<Digest> = HashSet::new();
        for table in kept.values().flat_map(|manifest| manifest.outputs.values()) {
            if table.columns.iter().any(|column| column.name == CALL) {
                let calls = cast(self.read_table(table, Some(&[CALL]))?.column(0), &DataType::Utf8)?;
                named.extend(
                    calls.as_string::<i32>().iter().flatten().filter_map(|call| call.parse::<Digest>().ok()),
                );
            }
        }
        let memo = self.memo(memo)?;
        let mut requests = HashSet::new();
        memo.each(&mut |key, value| requests.extend(request(value).filter(|_| named.contains(key))))?;
        memo.each(&mut |key, value| {
            if request(value).is_some_and(|request| requests.contains(&request)) {
                named.insert(*key);
            }
        })?;
        Ok(named)
    }

    /// The memo keys of one operator's rows in all kept tables: of their answers and of their failures.
    fn keys_of(
        &self,
        operator: &Digest,
        columns: &[String],
        kept: &BTreeMap<Digest, &Manifest>,
    ) -> Result<HashSet<Digest>> {
        let mut keys = HashSet::new();
        let mut seen: HashSet<&[Digest]> = HashSet::new();
        for table in
            kept.values().flat_map(|manifest| manifest.outputs.values().chain(manifest.inputs.values()))
        {
            let has = |name: &String| table.columns.iter().any(|column| column.name == *name);
            if columns.iter().all(has) && seen.insert(&table.parts) {
                keys.extend(self.table_row_keys(operator, columns, table)?);
            }
        }
        let failures: Vec<Digest> = keys.iter().map(|key| row_error_key(self.secret(), key)).collect();
        keys.extend(failures);
        Ok(keys)
    }

    /// The row keys that an operator's rows of this table have, in the table's order; none where an input
    /// table of a kept result has been collected itself.
    pub fn table_row_keys(
        &self,
        operator: &Digest,
        columns: &[String],
        table: &TableRecord,
    ) -> Result<Vec<Digest>> {
        let names: Vec<&str> = columns.iter().map(String::as_str).collect();
        let rows = match self.read_table(table, Some(&names)) {
            Ok(rows) => rows,
            Err(error) if matches!(error.downcast_ref(), Some(BlobError::Missing(_))) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let cells: Vec<ArrayRef> = rows.columns().to_vec();
        row_keys(self.secret(), operator, &cells, rows.num_rows())
    }

    fn remove_files(&self, paths: &[PathBuf]) -> Result<()> {
        let remove = || -> std::io::Result<()> {
            for path in paths {
                fs::remove_file(path)?;
            }
            // Once per folder is enough.
            let folders: BTreeSet<_> = paths.iter().filter_map(|path| path.parent()).collect();
            folders.into_iter().try_for_each(sync_folder)
        };
        Ok(remove().map_err(|error| storage_error(self.root(), "remove a record", error))?)
    }
}

/// What a collection does.
struct Marked {
    collected: Collected,
    /// Run records that name something which goes, saying so.
    runs: Vec<RunRecord>,
    actions: Vec<PathBuf>,
    blobs: Vec<Digest>,
    memos: Vec<PathBuf>,
    checkpoints: Vec<Named>,
    /// Of the memos that stay: the keys that do.
    memo_keys: BTreeMap<Digest, HashSet<Digest>>,
}

impl Records {
    /// The manifests from which everything that stays is reached, but for what was paid for.
    fn roots(&self, runs: usize) -> BTreeSet<Digest> {
        let mut roots: BTreeSet<Digest> = self.heads.iter().flat_map(|h| h.steps.values().copied()).collect();
        roots.extend(self.actions.iter().filter(|action| action.is_young).map(|action| action.manifest));
        let mut counted: HashMap<&str, (usize, Vec<Digest>)> = HashMap::new();
        let mut pins: HashSet<(&str, &str)> = HashSet::new();
        for run in self.runs.iter().rev() {
            let results: Vec<Digest> = run.steps.iter().filter_map(|step| step.manifest).collect();
            let (count, last) = counted.entry(&run.pipeline).or_default();
            if !results.is_empty() && *last != results {
                *count += 1;
                last.clone_from(&results);
            }
            // A name belongs to the last run that was given it.
            let is_pinned = run.name.as_ref().is_some_and(|name| pins.insert((&run.pipeline, name)));
            if *count <= runs || is_pinned {
                roots.extend(results);
            }
        }
        roots
    }

    /// The runs that name results which are not among the `needed` blobs, marked so.
    fn runs_that_lose(&self, needed: &HashSet<Digest>) -> Vec<RunRecord> {
        let loses = |step: &StepRecord| {
            !step.collected && step.manifest.is_some_and(|manifest| !needed.contains(&manifest))
        };
        let runs = self.runs.iter().filter(|run| run.steps.iter().any(loses)).cloned();
        let marked = runs.map(|mut run| {
            run.steps.iter_mut().filter(|step| loses(step)).for_each(|step| step.collected = true);
            run
        });
        marked.collect()
    }

    fn result(&self, digest: &Digest, manifest: &Manifest, bytes: u64) -> CollectedResult {
        CollectedResult {
            steps: self.names.get(digest).into_iter().flatten().cloned().collect(),
            operator: manifest.operator.clone(),
            created: manifest.created.clone(),
            bytes,
            usd: manifest.stats.usd,
            seconds: manifest.stats.seconds,
        }
    }
}

/// The column by which tables name answers of shared memos.
pub const CALL: &str = "call";

/// What was asked, of an answer in a shared memo; none if it is not such an answer.
pub fn request(answer: &[u8]) -> Option<String> {
    let kept: serde_json::Value = serde_json::from_slice(answer).ok()?;
    Some(kept.get("request")?.to_string())
}

/// The digests that an answer's bytes spell out: those of its side files.
fn digests_in(value: &[u8]) -> impl Iterator<Item = Digest> + '_ {
    let is_hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let runs = value.split(move |byte| !is_hex(byte));
    runs.flat_map(|run| run.windows(64)).filter_map(|text| std::str::from_utf8(text).ok()?.parse().ok())
}

/// Whether making a result cost money, or asked an endpoint that does not tell its price.
pub fn was_paid(manifest: &Manifest) -> bool {
    manifest.stats.requests > 0 || manifest.stats.usd.is_some_and(|usd| usd > 0.0)
}

/// The bytes of a folder's files; none if one of them is young.
fn old_folder_bytes(folder: &Path) -> Result<Option<u64>> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).context("a memo does not list")? {
        let metadata = entry?.metadata()?;
        if is_young(&metadata) {
            return Ok(None);
        }
        bytes += metadata.len();
    }
    Ok(Some(bytes))
}
