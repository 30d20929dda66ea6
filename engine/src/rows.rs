//! Row operators: which rows are pending, and how the table is put together from answers.
//!
//! A row's key is the hash of the operator and of the cells that it reads, never of its id: equal rows are
//! computed once. The memo keeps, by key, the operator's own output cells; ids and carried columns are joined
//! back here.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context;
use argent_cache::action::MemoRecord;
use argent_cache::encoding::{decode_rows, encode_rows};
use argent_cache::keys::{row_error_key, row_keys};
use argent_cache::{Digest, DigestMap, DigestSet, Memo, Secret, Store};
use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::{filter_record_batch, take, take_record_batch};
use arrow::datatypes::{Schema, SchemaRef};

use crate::column;
use crate::forgotten::{FORGOTTEN, REASON, forgotten_rows};
use crate::io::{Pending, RowError, row_error_columns, row_error_fields, shared_memo};
use crate::pipeline::Node;
use crate::table::Table;

/// The rows of a row operator's input, with their keys.
pub(crate) struct RowWork {
    /// All rows: carried, read and seen columns.
    input: RecordBatch,
    /// The places of the read and seen columns: all that the operator may look at.
    shown: Vec<usize>,
    secret: Secret,
    keys: Vec<Digest>,
    /// By row: whether it names someone forgotten. No operator sees such a row.
    forgotten: Vec<bool>,
    memo: Arc<Memo>,
    record: MemoRecord,
    /// The first row of each distinct key that has no answer yet.
    pub(crate) pending: Vec<usize>,
}

impl RowWork {
    /// Reads the input rows and finds the pending ones.
    pub(crate) fn find(
        node: &Node,
        port: &str,
        table: &Table,
        operator: &Digest,
        store: &Store,
        retry_errors: bool,
    ) -> anyhow::Result<RowWork> {
        let reads = node.signature.reads.get(port).cloned().unwrap_or_default();
        let input = table.read(store, &wanted_columns(node, port))?;
        let read: Vec<ArrayRef> = reads
            .iter()
            .map(|name| input.column_by_name(name).cloned().with_context(|| format!("no column `{name}`")))
            .collect::<anyhow::Result<_>>()?;
        let keys = row_keys(store.secret(), operator, &read, input.num_rows())?;
        let memo = Arc::new(store.memo(operator)?);
        let forgotten = forgotten_rows(&*store.tombstones()?, &input)?;
        let mut seen = DigestSet::with_capacity_and_hasher(keys.len(), Default::default());
        let admitted = (0..keys.len()).filter(|row| !forgotten[*row]);
        let distinct: Vec<usize> = admitted.filter(|row| seen.insert(keys[*row])).collect();
        drop(seen);
        let wanted: Vec<Digest> = distinct.iter().map(|row| keys[*row]).collect();
        let answered = Named::new(node, store)?.answered(&memo, &wanted)?;
        let failed = |row: &usize| memo.contains(&row_error_key(store.secret(), &keys[*row]));
        let unanswered = distinct.into_iter().zip(answered).filter(|(_, there)| !there).map(|(row, _)| row);
        let pending = unanswered.filter(|row| retry_errors || !failed(row)).collect();
        let record = MemoRecord { operator: *operator, port: port.to_owned(), columns: reads };
        let shown = shown_places(node, port, &input)?;
        let secret = store.secret().clone();
        Ok(RowWork { shown, input, secret, keys, forgotten, memo, record, pending })
    }

    /// How many input rows there are, and how many of them wait for an answer.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let waiting: DigestSet = self.pending.iter().map(|row| self.keys[*row]).collect();
        let run = self.keys.iter().filter(|k| waiting.contains(*k)).count();
        (self.keys.len() as u64, run as u64)
    }

    /// How the answers are remembered.
    pub(crate) fn memo_record(&self) -> MemoRecord {
        self.record.clone()
    }

    /// The pending rows themselves.
    pub(crate) fn pending_rows(&self) -> anyhow::Result<RecordBatch> {
        let places = UInt64Array::from_iter_values(self.pending.iter().map(|row| *row as u64));
        Ok(take_record_batch(&self.input.project(&self.shown)?, &places)?)
    }

    /// The operator's window on the pending rows.
    pub(crate) fn window(&self) -> anyhow::Result<Pending> {
        Ok(Pending {
            rows: self.pending_rows()?,
            keys: self.pending.iter().map(|row| self.keys[*row]).collect(),
            memo: Arc::clone(&self.memo),
            failed: std::collections::HashMap::new(),
        })
    }

    /// Puts the step's table together: for each input row its carried cells and its answer.
    pub(crate) fn assemble(&self, node: &Node, window: &Pending) -> anyhow::Result<Assembled> {
        let schema = &node.signature.main().schema;
        let stand_in =
            node.operator.failed_rows(schema)?.map(|b| encode_rows(&b, 0, b.num_rows())).transpose()?;
        let mut values: Vec<Vec<u8>> = Vec::new();
        let mut answered: Vec<u64> = Vec::new();
        let mut failed: Vec<(u64, RowError)> = Vec::new();
        let mut pending = 0;
        let answers = self.memo.get_many(&self.keys)?;
        for (row, answer) in answers.into_iter().enumerate() {
            match self.outcome(row, answer, window)? {
                RowOutcome::Answered(value) => {
                    answered.push(row as u64);
                    values.push(value);
                }
                RowOutcome::Failed(error) => {
                    failed.push((row as u64, error));
                    if let Some(value) = &stand_in {
                        answered.push(row as u64);
                        values.push(value.clone());
                    }
                }
                RowOutcome::Pending => pending += 1,
            }
        }
        let (own, lengths) = decode_rows(schema, values.iter().map(Vec::as_slice))?;
        let places: Vec<u64> =
            answered.iter().zip(&lengths).flat_map(|(row, n)| std::iter::repeat_n(*row, *n)).collect();
        let taken = UInt64Array::from_iter_values(places.iter().copied());
        let mut columns = self.carried(node, &taken)?;
        columns.extend(own.columns().iter().cloned());
        let main = RecordBatch::try_new(main_schema(node, &self.input.schema()), columns)?;
        let conflicts = conflicts(&self.secret, &main, &places, &node.signature.main().keys)?;
        let main = without(&main, &places, &conflicts)?;
        let names = node.signature.main().keys.join(", ");
        let conflict = RowError::lasting(
            "conflict",
            format!("another input row gives the same {names}; none of them is kept"),
        );
        failed.extend(conflicts.into_iter().map(|row| (row, conflict.clone())));
        let errors = self.errors(node, &failed)?;
        let retryable = failed.iter().filter(|(_, e)| e.retryable).count() as u64;
        Ok(Assembled { main, errors, failed: failed.len() as u64, retryable, pending })
    }

    fn outcome(&self, row: usize, answer: Option<Vec<u8>>, window: &Pending) -> anyhow::Result<RowOutcome> {
        if self.forgotten[row] {
            return Ok(RowOutcome::Failed(RowError::lasting(FORGOTTEN, REASON)));
        }
        if let Some(value) = answer {
            return Ok(RowOutcome::Answered(value));
        }
        if let Some(error) = window.failed.get(&self.keys[row]) {
            return Ok(RowOutcome::Failed(error.clone()));
        }
        match self.memo.get(&row_error_key(&self.secret, &self.keys[row]))? {
            Some(error) => Ok(RowOutcome::Failed(serde_json::from_slice(&error)?)),
            None => Ok(RowOutcome::Pending),
        }
    }

    fn errors(&self, node: &Node, failed: &[(u64, RowError)]) -> anyhow::Result<RecordBatch> {
        let places = UInt64Array::from_iter_values(failed.iter().map(|(row, _)| *row));
        let mut columns = self.named(node, &places)?;
        columns.extend(row_error_columns(&failed.iter().map(|(_, e)| e).collect::<Vec<_>>()));
        Ok(RecordBatch::try_new(error_schema(node, &self.input.schema()), columns)?)
    }

    fn carried(&self, node: &Node, places: &UInt64Array) -> anyhow::Result<Vec<ArrayRef>> {
        self.taken(&node.signature.carries, places)
    }

    fn named(&self, node: &Node, places: &UInt64Array) -> anyhow::Result<Vec<ArrayRef>> {
        self.taken(&naming_columns(node, &self.input.schema()), places)
    }

    fn taken(&self, names: &[String], places: &UInt64Array) -> anyhow::Result<Vec<ArrayRef>> {
        let column = |name: &String| -> anyhow::Result<ArrayRef> {
            let column = self.input.column_by_name(name).with_context(|| format!("no column `{name}`"))?;
            Ok(take(column.as_ref(), places, None)?)
        };
        names.iter().map(column).collect()
    }
}

/// The input rows whose output rows have the key of another input row's.
fn conflicts(
    secret: &Secret,
    main: &RecordBatch,
    places: &[u64],
    keys: &[String],
) -> anyhow::Result<BTreeSet<u64>> {
    let columns: Vec<usize> = keys.iter().map(|k| main.schema().index_of(k)).collect::<Result<_, _>>()?;
    let mut conflicts = BTreeSet::new();
    if columns.is_empty() {
        return Ok(conflicts);
    }
    let domain = secret.digest("argent output key", b"");
    let names = row_keys(secret, &domain, main.project(&columns)?.columns(), main.num_rows())?;
    let mut first: DigestMap<u64> = DigestMap::with_capacity_and_hasher(names.len(), Default::default());
    for (name, place) in names.into_iter().zip(places) {
        match first.entry(name) {
            Entry::Vacant(free) => drop(free.insert(*place)),
            Entry::Occupied(taken) if taken.get() == place => {}
            Entry::Occupied(taken) => conflicts.extend([*taken.get(), *place]),
        }
    }
    Ok(conflicts)
}

/// The output rows of all input rows but these.
fn without(main: &RecordBatch, places: &[u64], rows: &BTreeSet<u64>) -> anyhow::Result<RecordBatch> {
    if rows.is_empty() {
        return Ok(main.clone());
    }
    let kept: BooleanArray = places.iter().map(|place| Some(!rows.contains(place))).collect();
    Ok(filter_record_batch(main, &kept)?)
}

/// What there is for one input row.
enum RowOutcome {
    Answered(Vec<u8>),
    Failed(RowError),
    Pending,
}

/// A row operator's tables, put together.
pub(crate) struct Assembled {
    pub(crate) main: RecordBatch,
    pub(crate) errors: RecordBatch,
    pub(crate) failed: u64,
    pub(crate) retryable: u64,
    pub(crate) pending: u64,
}

/// The main table of a row operator: the carried columns, then its own.
pub(crate) fn main_schema(node: &Node, input: &Schema) -> SchemaRef {
    full_schema(&node.signature.carries, input, &node.signature.main().schema)
}

/// The carried columns of `input`, then the operator's own.
pub(crate) fn full_schema(carries: &[String], input: &Schema, own: &Schema) -> SchemaRef {
    let carried = carries.iter().filter_map(|name| input.field_with_name(name).ok().cloned());
    column::schema(carried.chain(own.fields().iter().map(|f| f.as_ref().clone())))
}

fn error_schema(node: &Node, input: &Schema) -> SchemaRef {
    let names = naming_columns(node, input);
    column::schema(
        names.iter().filter_map(|n| input.field_with_name(n).ok().cloned()).chain(row_error_fields()),
    )
}

/// The columns by which an error row names its input row: the carried ids, else the row's own ids.
fn naming_columns(node: &Node, input: &Schema) -> Vec<String> {
    let ids = column::names_with_role(input, "id");
    let carried: Vec<String> = node.signature.carries.iter().filter(|c| ids.contains(c)).cloned().collect();
    if carried.is_empty() { ids } else { carried }
}

/// The schema of a row operator's `errors` table, before anything has run.
pub(crate) fn planned_error_schema(carries: &[String], input: &Schema) -> SchemaRef {
    let ids = column::names_with_role(input, "id");
    let carried: Vec<&String> = carries.iter().filter(|c| ids.contains(c)).collect();
    let names: Vec<&String> = if carried.is_empty() { ids.iter().collect() } else { carried };
    column::schema(
        names.into_iter().filter_map(|n| input.field_with_name(n).ok().cloned()).chain(row_error_fields()),
    )
}

/// What the engine reads of the row port: carried, read and seen columns, each once.
fn wanted_columns(node: &Node, port: &str) -> Vec<String> {
    let none = Vec::new();
    let signature = &node.signature;
    let read = signature.reads.get(port).unwrap_or(&none);
    let seen = signature.sees.get(port).unwrap_or(&none);
    let mut wanted: Vec<String> = Vec::new();
    for name in signature.carries.iter().chain(read).chain(seen) {
        if !wanted.contains(name) {
            wanted.push(name.clone());
        }
    }
    wanted
}

/// The places of the columns that the operator may look at: carried ids are in no row key.
fn shown_places(node: &Node, port: &str, input: &RecordBatch) -> anyhow::Result<Vec<usize>> {
    let of = |columns: &BTreeMap<String, Vec<String>>| columns.get(port).cloned().unwrap_or_default();
    let (read, seen) = (of(&node.signature.reads), of(&node.signature.sees));
    let schema = input.schema();
    let names = schema.fields().iter().map(|f| f.name());
    Ok(names
        .enumerate()
        .filter(|(_, n)| read.contains(n) || seen.contains(n))
        .map(|(place, _)| place)
        .collect())
}

/// The digests of the columns that decide a row operator's table: carried and read ones.
pub(crate) fn keyed_columns(node: &Node, port: &str) -> Vec<String> {
    let mut names: BTreeMap<&String, ()> = node.signature.carries.iter().map(|n| (n, ())).collect();
    names.extend(node.signature.reads.get(port).into_iter().flatten().map(|n| (n, ())));
    names.into_keys().cloned().collect()
}

/// What remembered answers name outside of their memo: an answer counts only while all of it is still there.
struct Named<'a> {
    store: &'a Store,
    schema: &'a SchemaRef,
    /// The columns of digests of side files.
    files: Vec<usize>,
    /// The column of keys in a shared memo, and that memo.
    shared: Option<(usize, Memo)>,
}

impl Named<'_> {
    fn new<'a>(node: &'a Node, store: &'a Store) -> anyhow::Result<Named<'a>> {
        let schema = &node.signature.main().schema;
        let fields = schema.fields().iter().enumerate();
        let files = fields.filter(|(_, f)| column::has_role(f, "file")).map(|(place, _)| place).collect();
        let shared = match node.operator.shared_keys() {
            Some((column, memo)) => Some((schema.index_of(column)?, store.memo(&shared_memo(store, memo))?)),
            None => None,
        };
        Ok(Named { store, schema, files, shared })
    }

    /// For each key, whether the memo holds an answer and all that it names is there.
    fn answered(&self, memo: &Memo, keys: &[Digest]) -> anyhow::Result<Vec<bool>> {
        if self.files.is_empty() && self.shared.is_none() {
            return Ok(keys.iter().map(|key| memo.contains(key)).collect());
        }
        let answers = memo.get_many(keys)?;
        answers.iter().map(|answer| answer.as_ref().map_or(Ok(false), |value| self.is_there(value))).collect()
    }

    fn is_there(&self, answer: &[u8]) -> anyhow::Result<bool> {
        let (rows, _) = decode_rows(self.schema, [answer])?;
        let digests = |column: usize| -> anyhow::Result<Vec<Digest>> {
            rows.column(column).as_string::<i32>().iter().flatten().map(str::parse).collect()
        };
        for column in &self.files {
            if !digests(*column)?.iter().all(|digest| self.store.has(digest)) {
                return Ok(false);
            }
        }
        let Some((column, shared)) = &self.shared else { return Ok(true) };
        Ok(digests(*column)?.iter().all(|key| shared.contains(key)))
    }
}
