//! A working operator's window: batches in, batches out, side files, memo, progress, interruption.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use argent_cache::checkpoints::Checkpoint;
use argent_cache::claims::Claims;
use argent_cache::encoding::RowEncoder;
use argent_cache::keys::row_error_key;
use argent_cache::table::TableWriter;
use argent_cache::{BlobError, Digest, Memo, Secret, Stats, Store};
use arrow::array::{BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, SchemaRef};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::column;
use crate::event::Event;
use crate::forgotten::{FORGOTTEN, REASON, forgotten_rows, storable};
use crate::operator::Output;

/// What an operator sees of the world while it works.
pub struct Io<'a> {
    pub(crate) step: String,
    /// The step's key.
    pub(crate) key: Digest,
    pub(crate) store: &'a Store,
    pub(crate) folder: PathBuf,
    pub(crate) inputs: BTreeMap<String, RecordBatch>,
    pub(crate) on: BTreeMap<String, String>,
    pub(crate) outputs: BTreeMap<String, Output>,
    pub(crate) emitted: BTreeMap<String, TableWriter>,
    /// How many rows of the main table were left out, because they name someone forgotten.
    pub(crate) left_out: u64,
    pub(crate) pending: Option<Pending>,
    pub(crate) share: Share,
    pub(crate) faults: Vec<Fault>,
    pub(crate) stats: Stats,
    pub(crate) stopped: Option<String>,
    pub(crate) damage: Damage,
    pub(crate) events: &'a (dyn Fn(Event) + Sync),
    pub(crate) cancelled: &'a AtomicBool,
    pub(crate) max_usd: Option<f64>,
    pub(crate) retry_errors: bool,
    pub(crate) gpus: Vec<usize>,
    /// The shared memos that the step has opened, by name. They stay open as long as it works: a memo that nobody holds
    /// is closed, and to open it again is to read its journals again.
    pub(crate) memos: Mutex<BTreeMap<String, Memo>>,
}

/// The first stored file that was found missing or damaged while a step worked. The step's rows are not to
/// blame for it, so nothing that they suffer from it is remembered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Damage(Arc<Mutex<Option<(Digest, bool)>>>);

impl Damage {
    /// The path, or the error, of which note is taken.
    fn note(&self, path: Result<PathBuf, BlobError>) -> anyhow::Result<PathBuf> {
        let found = match &path {
            Err(BlobError::Missing(digest)) => Some((*digest, false)),
            Err(BlobError::Damaged(digest)) => Some((*digest, true)),
            Ok(_) | Err(BlobError::Io(_)) => None,
        };
        if let Some(found) = found {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(found);
        }
        Ok(path?)
    }

    /// The first damaged file, as the error that it was.
    pub(crate) fn found(&self) -> Option<BlobError> {
        let found = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.map(|(digest, damaged)| match damaged {
            true => BlobError::Damaged(digest),
            false => BlobError::Missing(digest),
        })
    }
}

/// The rows that a row operator is to answer for.
pub(crate) struct Pending {
    pub(crate) rows: RecordBatch,
    pub(crate) keys: Vec<Digest>,
    pub(crate) memo: Arc<Memo>,
    /// Reasons of rows that failed for now and are not remembered, by key.
    pub(crate) failed: HashMap<Digest, RowError>,
}

/// Why one row has no result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowError {
    /// A word for the kind of failure (`unreadable`, `refusal`, `rate_limited`).
    pub kind: String,
    /// What is there and what was expected; never holds cell text.
    pub message: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Whether the next run tries again by itself.
    pub retryable: bool,
    /// The key of what it came from in the shared memo of [`Operator::shared_keys`](crate::Operator::shared_keys), where
    /// something was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_key: Option<Digest>,
}

impl RowError {
    /// An error that the same input gives again.
    pub fn lasting(kind: &str, message: impl Into<String>) -> RowError {
        RowError {
            kind: kind.to_owned(),
            message: message.into(),
            attempts: 1,
            retryable: false,
            shared_key: None,
        }
    }
}

/// Gives questions their keys in a shared memo.
#[derive(Clone)]
pub struct QuestionKeys {
    secret: Secret,
}

impl QuestionKeys {
    /// The key of a question.
    pub fn key(&self, question: &serde_json::Value) -> Digest {
        argent_cache::keys::json_digest(&self.secret, QUESTION, question)
    }

    /// The key of the question that has these parts and a common one.
    pub fn key_with(
        &self,
        parts: &serde_json::Map<String, serde_json::Value>,
        common: &CommonPart,
    ) -> Digest {
        let CommonPart { name, encoded } = common;
        argent_cache::keys::json_object_digest(&self.secret, QUESTION, parts, (name, encoded))
    }
}

/// A named part that many questions have, encoded once for all their keys.
pub struct CommonPart {
    name: String,
    encoded: Vec<u8>,
}

impl CommonPart {
    /// Encodes a part.
    pub fn new(name: &str, value: &serde_json::Value) -> CommonPart {
        let mut encoded = Vec::new();
        argent_cache::encoding::encode_json(value, &mut encoded);
        CommonPart { name: name.to_owned(), encoded }
    }
}

/// The domain of questions' keys.
const QUESTION: &str = "argent question";

/// A row of a whole-table operator that did not find its match, or contradicted another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fault {
    pub(crate) port: String,
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) message: String,
}

impl Io<'_> {
    /// The table of a port: its key columns, id columns and the columns that the operator reads.
    ///
    /// # Errors
    /// When the step leaves the port out.
    pub fn input(&self, port: &str) -> anyhow::Result<&RecordBatch> {
        self.inputs.get(port).with_context(|| format!("the step has no input `{port}`"))
    }

    /// The names of the ports that the step fills, row ports apart.
    pub fn ports(&self) -> Vec<String> {
        self.inputs.keys().cloned().collect()
    }

    /// Whether the step fills a port.
    pub fn has_input(&self, port: &str) -> bool {
        self.inputs.contains_key(port)
    }

    /// The id column on which a port is joined.
    pub fn on(&self, port: &str) -> &str {
        self.on.get(port).map_or("id", String::as_str)
    }

    /// The schema of one of the step's own outputs, as its signature gave it.
    ///
    /// # Errors
    /// When the operator has no such output.
    pub fn schema(&self, output: &str) -> anyhow::Result<SchemaRef> {
        Ok(SchemaRef::clone(&self.output(output)?.schema))
    }

    fn output(&self, name: &str) -> anyhow::Result<&Output> {
        self.outputs.get(name).with_context(|| format!("the operator has no output `{name}`"))
    }

    /// Adds rows to an output, in any order and as many as there are: whole-table operators, and further outputs of
    /// row operators.
    ///
    /// # Errors
    /// When the rows do not have the columns that the signature gave.
    pub fn emit(&mut self, output: &str, batch: RecordBatch) -> anyhow::Result<()> {
        let schema = self.schema(output)?;
        let batch = RecordBatch::try_new(schema, batch.columns().to_vec()).with_context(|| {
            format!("output `{output}` does not have the columns that its signature gave")
        })?;
        let rows = batch.num_rows();
        let batch = storable(self.store, output, batch)?;
        if output.is_empty() {
            self.left_out += (rows - batch.num_rows()) as u64;
        }
        if !self.emitted.contains_key(output) {
            let writer = self.writer(output)?;
            self.emitted.insert(output.to_owned(), writer);
        }
        let writer = self.emitted.get_mut(output).context("a table that is being written")?;
        writer.write(batch)
    }

    /// Takes back all rows that were added to an output.
    pub fn discard(&mut self, output: &str) {
        self.emitted.remove(output);
        if output.is_empty() {
            self.left_out = 0;
        }
    }

    fn writer(&self, output: &str) -> anyhow::Result<TableWriter> {
        let Output { schema, keys } = self.output(output)?;
        self.store.table_writer(schema, keys)
    }

    /// The distinct rows that a row operator is to answer for now: the columns that it reads and sees.
    ///
    /// # Panics
    /// When the operator is not a row operator.
    pub fn rows(&self) -> &RecordBatch {
        &self.pending.as_ref().expect("only row operators ask for rows").rows
    }

    /// Answers for pending rows: `lengths[i]` consecutive rows of `batch` are the output of row `rows[i]`.
    /// The answers are remembered: a run that is cut off later does not make them again.
    ///
    /// # Errors
    /// When the rows do not have the columns that the signature gave, or the memo does not take them.
    pub fn answer(&mut self, rows: &[usize], lengths: &[usize], batch: &RecordBatch) -> anyhow::Result<()> {
        let schema = self.schema("")?;
        let batch = RecordBatch::try_new(schema, batch.columns().to_vec())
            .context("the answer does not have the columns that the signature gave")?;
        ensure!(
            lengths.iter().sum::<usize>() == batch.num_rows(),
            "the answer's lengths do not add up to its rows"
        );
        let forgotten = forgotten_rows(&*self.store.tombstones()?, &batch)?;
        let pending = self.pending.as_mut().context("only row operators answer")?;
        let encoder = RowEncoder::new(&batch)?;
        let mut start = 0;
        for (row, length) in rows.iter().zip(lengths) {
            let key = pending.keys[*row];
            if forgotten[start..start + length].contains(&true) {
                pending.failed.insert(key, RowError::lasting(FORGOTTEN, REASON));
            } else {
                pending.memo.put(key, &encoder.encode(start, *length))?;
            }
            start += length;
        }
        self.stats.made += rows.len() as u64;
        Ok(())
    }

    /// Says why a pending row has no result. A lasting reason is remembered, one that may pass is not.
    ///
    /// # Errors
    /// When the memo does not take it.
    pub fn refuse(&mut self, row: usize, error: RowError) -> anyhow::Result<()> {
        let pending = self.pending.as_mut().context("only row operators refuse")?;
        let key = pending.keys[row];
        if error.retryable || self.damage.found().is_some() {
            pending.failed.insert(key, error);
        } else {
            let key = row_error_key(self.store.secret(), &key);
            pending.memo.put(key, &serde_json::to_vec(&error)?)?;
        }
        self.stats.made += 1;
        Ok(())
    }

    /// Notes a row that a whole-table operator could not use; it goes to the step's `errors` table.
    pub fn fault(&mut self, port: &str, id: &str, kind: &str, message: impl Into<String>) {
        let message = message.into();
        self.faults.push(Fault { port: port.into(), id: id.into(), kind: kind.into(), message });
    }

    /// Stops the step with what it has: a partial result, which a later run completes.
    pub fn stop(&mut self, reason: impl Into<String>) {
        self.stopped.get_or_insert(reason.into());
    }

    /// What the run may still spend on this step, in US dollars; none: no limit.
    pub fn max_usd(&self) -> Option<f64> {
        self.max_usd.map(|usd| (usd - self.spent_usd()).max(0.0))
    }

    /// What this run of the step has cost so far, in US dollars, as far as prices are known.
    pub fn spent_usd(&self) -> f64 {
        self.stats.usd.unwrap_or(0.0)
    }

    /// Whether rows whose failure is remembered are to be tried again.
    pub fn retry_errors(&self) -> bool {
        self.retry_errors
    }

    /// The indices of the GPUs that are this step's own: as many as its `needs` asks for.
    pub fn gpus(&self) -> &[usize] {
        &self.gpus
    }

    /// Adds to what the step has cost.
    pub fn spend(&mut self, stats: &Stats) {
        self.stats.requests += stats.requests;
        self.stats.tokens_in += stats.tokens_in;
        self.stats.tokens_cached += stats.tokens_cached;
        self.stats.tokens_out += stats.tokens_out;
        if let Some(usd) = stats.usd {
            *self.stats.usd.get_or_insert(0.0) += usd;
        }
    }

    /// Answers to questions that are keyed by themselves, shared by all steps, runs and pipelines of the store.
    ///
    /// # Errors
    /// When the memo does not open.
    pub fn memo(&self, name: &str) -> anyhow::Result<Memo> {
        let mut memos = self.memos.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memo) = memos.get(name) {
            memo.refresh()?;
            return Ok(memo.clone());
        }
        let memo = self.store.memo(&shared_memo(self.store, name))?;
        memos.insert(name.to_owned(), memo.clone());
        Ok(memo)
    }

    /// The secret that keys the store's digests.
    pub fn secret(&self) -> &Secret {
        self.store.secret()
    }

    /// What gives questions their keys in a shared memo, for use on other threads too.
    pub fn question_keys(&self) -> QuestionKeys {
        QuestionKeys { secret: self.store.secret().clone() }
    }

    /// This step's claims on questions of a shared memo, so that no other run asks one at the same time. A claim ends
    /// when it is dropped, or when its process dies.
    pub fn question_claims(&self) -> Claims {
        self.store.claims("question")
    }

    /// Keeps bytes as a side file and gives the digest to name it by.
    ///
    /// # Errors
    /// When the store does not take it.
    pub fn keep(&self, bytes: &[u8]) -> anyhow::Result<Digest> {
        self.store.put_bytes(bytes)
    }

    /// The local path of a side file, its content verified.
    ///
    /// # Errors
    /// When it is not there or not what its digest says.
    pub fn side_file(&self, digest: &str) -> anyhow::Result<PathBuf> {
        self.damage.note(self.store.path(&digest.parse()?))
    }

    /// The local path of a file of the `files` port: in the store where another step made it, else on disk,
    /// where it must still be what it was when it was listed.
    ///
    /// # Errors
    /// When it is gone or has changed.
    pub fn source_file(&self, path: &str, digest: &str) -> anyhow::Result<PathBuf> {
        source_file(self.store, &self.folder, &self.damage, path, digest)
    }

    /// A function that finds source files, for use on other threads.
    pub fn source_finder(&self) -> impl Fn(&str, &str) -> anyhow::Result<PathBuf> + Send + Sync + use<> {
        let (store, folder, damage) = (self.store.clone(), self.folder.clone(), self.damage.clone());
        move |path, digest| source_file(&store, &folder, &damage, path, digest)
    }

    /// A function that keeps side files, for use on other threads.
    pub fn keeper(&self) -> impl Fn(&[u8]) -> anyhow::Result<Digest> + Send + Sync + use<> {
        let store = self.store.clone();
        move |bytes| store.put_bytes(bytes)
    }

    /// A function that finds side files, for use on other threads.
    pub fn side_finder(&self) -> impl Fn(&str) -> anyhow::Result<PathBuf> + Send + Sync + use<> {
        let (store, damage) = (self.store.clone(), self.damage.clone());
        move |digest| damage.note(store.path(&digest.parse()?))
    }

    /// A folder for unfinished files of the step, readable by the user alone. It is removed when it is dropped, or
    /// by the next process if this one is killed.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn scratch(&self) -> anyhow::Result<TempDir> {
        self.store.temporary_folder()
    }

    /// The state that this step kept when it was last under way, with the same key; none where it begins anew.
    ///
    /// # Errors
    /// When the store does not read.
    pub fn checkpoint(&self) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(match self.store.checkpoint(&self.key)? {
            Some(Checkpoint::Whole(bytes)) => Some(bytes),
            Some(Checkpoint::Damaged) => {
                self.warn("the state that an earlier run left is damaged; the step begins anew");
                None
            }
            None => None,
        })
    }

    /// Keeps the step's state, in place of an earlier one, so that the same command goes on from it after a kill. It
    /// goes when the step has its result.
    ///
    /// # Errors
    /// When the store does not take it.
    pub fn keep_checkpoint(&self, bytes: &[u8]) -> anyhow::Result<()> {
        self.store.keep_checkpoint(&self.key, bytes)
    }

    /// Tells how far the step is.
    pub fn progress(&self, done: u64, total: u64, note: impl Into<String>) {
        let (done, total) = self.share.of_all(done, total);
        (self.events)(Event::Progress { step: self.step.clone(), done, total, note: note.into() });
    }

    /// Tells the user something that does not stop the step; never cell text.
    pub fn warn(&self, message: impl Into<String>) {
        (self.events)(Event::Warned { step: self.step.clone(), message: message.into() });
    }

    /// Whether the user wants the run to end: finish what is paid for, start nothing new.
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// The rows of an output.
    pub(crate) fn emitted(&mut self, output: &str) -> anyhow::Result<TableWriter> {
        self.emitted.remove(output).map_or_else(|| self.writer(output), Ok)
    }

    /// Puts other pending rows before the operator, of `all` that there are.
    pub(crate) fn open(&mut self, mut window: Pending, all: u64) {
        let before = self.pending.take();
        let rows = window.keys.len() as u64;
        self.share = Share { before: self.share.before + self.share.rows, rows, all };
        window.failed = before.map(|before| before.failed).unwrap_or_default();
        self.pending = Some(window);
    }

    /// The rows that failed for now, of all windows.
    pub(crate) fn take_failed(&mut self) -> HashMap<Digest, RowError> {
        self.pending.take().map(|window| window.failed).unwrap_or_default()
    }
}

/// Which of all pending rows are before the operator.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Share {
    before: u64,
    rows: u64,
    all: u64,
}

impl Share {
    /// What was done of the rows at hand, as rows of all where these are not all.
    fn of_all(&self, done: u64, total: u64) -> (u64, u64) {
        if self.rows == self.all || total == 0 {
            return (done, total);
        }
        (self.before + (done as f64 / total as f64 * self.rows as f64) as u64, self.all)
    }
}

/// The digest that names a memo of answers that are keyed by themselves.
pub fn shared_memo(store: &Store, name: &str) -> Digest {
    store.secret().digest("argent shared memo", name.as_bytes())
}

/// The local path of a file that a row names by path and digest: in the store where a step made it, else on disk,
/// relative to the spec's folder.
///
/// # Errors
/// When it is gone, or is not what it was when it was listed.
pub fn find_source(store: &Store, folder: &Path, path: &str, digest: &str) -> anyhow::Result<PathBuf> {
    source_file(store, folder, &Damage::default(), path, digest)
}

fn source_file(
    store: &Store,
    folder: &Path,
    damage: &Damage,
    path: &str,
    digest: &str,
) -> anyhow::Result<PathBuf> {
    let digest: Digest = digest.parse()?;
    if store.has(&digest) {
        return damage.note(store.path(&digest));
    }
    let full = folder.join(path);
    let stat = store.file_digest(&full).context("a source file is gone since it was listed")?;
    if stat.digest != digest {
        bail!("a source file changed since it was listed; run again");
    }
    Ok(full)
}

/// The columns of a whole-table operator's `errors` table.
pub(crate) fn fault_schema() -> SchemaRef {
    column::schema([
        Field::new("port", DataType::Utf8, false),
        column::id("id"),
        Field::new("kind", DataType::Utf8, false),
        Field::new("message", DataType::Utf8, false),
    ])
}

/// The columns that a row operator's `errors` table has behind the carried ones; an operator with a shared memo has a
/// column of keys there too.
pub(crate) fn row_error_fields(shared: Option<&str>) -> Vec<Field> {
    let mut fields = vec![
        Field::new("kind", DataType::Utf8, false),
        Field::new("message", DataType::Utf8, false),
        Field::new("attempts", DataType::Int64, false),
        Field::new("retryable", DataType::Boolean, false),
    ];
    fields.extend(shared.map(column::text));
    fields
}

/// A whole-table operator's `errors` table.
pub(crate) fn fault_batch(io: &mut Io) -> anyhow::Result<RecordBatch> {
    if io.left_out > 0 {
        io.fault("", "", FORGOTTEN, format!("rows left out: {}; {REASON}", io.left_out));
    }
    let faults = &mut io.faults;
    faults.sort();
    faults.dedup();
    let text = |f: fn(&Fault) -> &str| Arc::new(StringArray::from_iter_values(faults.iter().map(f)));
    let columns: Vec<arrow::array::ArrayRef> =
        vec![text(|f| &f.port), text(|f| &f.id), text(|f| &f.kind), text(|f| &f.message)];
    Ok(RecordBatch::try_new(fault_schema(), columns)?)
}

pub(crate) fn row_error_columns(errors: &[&RowError], shared: Option<&str>) -> Vec<arrow::array::ArrayRef> {
    let mut columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(errors.iter().map(|e| e.kind.as_str()))),
        Arc::new(StringArray::from_iter_values(errors.iter().map(|e| e.message.as_str()))),
        Arc::new(Int64Array::from_iter_values(errors.iter().map(|e| i64::from(e.attempts)))),
        Arc::new(BooleanArray::from_iter(errors.iter().map(|e| Some(e.retryable)))),
    ];
    if shared.is_some() {
        let keys = errors.iter().map(|e| e.shared_key.map(|key| key.to_string()));
        columns.push(Arc::new(keys.collect::<StringArray>()));
    }
    columns
}
