//! Row operators: which rows are pending, and what the operator sees of them.
//!
//! A row's key is the hash of the operator and of the cells that it reads, never of its id: equal rows are
//! computed once. The memo keeps, by key, the operator's own output cells; ids and carried columns are joined
//! back by [`assemble`]. A table may be larger than memory: of each row only its key is held, and cells come
//! and go with the chunk that they stand in.

mod assemble;
mod chosen;
mod named;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::Context;
use argent_cache::action::MemoRecord;
use argent_cache::keys::{row_error_key, row_keys};
use argent_cache::{Digest, DigestSet, Memo, Secret, Store, TableRecord};
use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef};

use crate::column;
use crate::forgotten::forgotten_rows;
use crate::io::{Pending, row_error_fields};
use crate::pipeline::Node;
use crate::table::Table;
pub(crate) use assemble::Failed;
pub(crate) use chosen::Outcomes;
use named::Named;

/// The rows of a row operator's input, with their keys.
pub(crate) struct RowWork {
    source: Source,
    /// The columns of the source: carried, read and seen ones.
    schema: SchemaRef,
    /// The places of the read and seen columns: all that the operator may look at.
    shown: Vec<usize>,
    secret: Secret,
    keys: Vec<Digest>,
    /// By row: whether it names someone forgotten. No operator sees such a row.
    forgotten: Vec<bool>,
    memo: Arc<Memo>,
    record: MemoRecord,
    /// Whether the key of an output row tells which input row it is of, so that no two can have the same.
    keys_tell_rows: bool,
    /// The first row of each distinct key that has no answer yet.
    pending: Vec<usize>,
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
        let source = Source::new(store, table, wanted_columns(node, port))?;
        let (mut keys, mut forgotten) = (Vec::new(), Vec::new());
        let (mut schema, tombstones) = (None, store.tombstones()?);
        for chunk in source.chunks() {
            let chunk = chunk?;
            let read =
                reads.iter().map(|name| column_of(&chunk, name)).collect::<anyhow::Result<Vec<_>>>()?;
            keys.extend(row_keys(store.secret(), operator, &read, chunk.num_rows())?);
            forgotten.extend(forgotten_rows(&tombstones, &chunk)?);
            schema = Some(chunk.schema());
        }
        let schema = schema.context("a table has a part, even without rows")?;
        let memo = Arc::new(store.memo(operator)?);
        let mut seen = DigestSet::with_capacity_and_hasher(keys.len(), Default::default());
        let admitted = (0..keys.len()).filter(|row| !forgotten[*row]);
        let distinct: Vec<usize> = admitted.filter(|row| seen.insert(keys[*row])).collect();
        drop(seen);
        let named = Named::new(node, store)?;
        let mut pending = Vec::new();
        for rows in distinct.chunks(KEYS_AT_ONCE) {
            let wanted: Vec<Digest> = rows.iter().map(|row| keys[*row]).collect();
            let answered = named.answered(&memo, &wanted)?;
            let failed = |row: &usize| memo.contains(&row_error_key(store.secret(), &keys[*row]));
            let unanswered = rows.iter().zip(answered).filter(|(_, there)| !there).map(|(row, _)| *row);
            pending.extend(unanswered.filter(|row| retry_errors || !failed(row)));
        }
        let record = MemoRecord { operator: *operator, port: port.to_owned(), columns: reads };
        let (shown, secret) = (shown_places(node, port, &schema), store.secret().clone());
        let keys_tell_rows = keys_tell_rows(node, table);
        Ok(RowWork { source, schema, shown, secret, keys, forgotten, memo, record, keys_tell_rows, pending })
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

    /// How many distinct rows wait for an answer.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// A table of pending rows that has none.
    pub(crate) fn nothing(&self) -> anyhow::Result<RecordBatch> {
        Ok(RecordBatch::new_empty(Arc::new(self.schema.project(&self.shown)?)))
    }

    /// Makes all answers durable.
    pub(crate) fn sync(&self) -> anyhow::Result<()> {
        self.memo.sync()
    }

    /// Makes the answers' journals a segment.
    pub(crate) fn seal(&self) -> anyhow::Result<()> {
        self.memo.seal()
    }

    /// The operator's windows on the pending rows, one after the other: all of them in one, unless the table is
    /// read piece by piece.
    pub(crate) fn windows(&self) -> impl Iterator<Item = anyhow::Result<Pending>> {
        let mut left = self.pending.as_slice();
        let mut first_row = 0;
        // Nothing is read for nothing.
        let chunks = (!left.is_empty()).then(|| self.source.chunks()).into_iter().flatten();
        chunks.filter_map(move |chunk| {
            let window = chunk.and_then(|chunk| {
                let start = first_row;
                first_row += chunk.num_rows();
                let here;
                (here, left) = left.split_at(left.partition_point(|row| *row < first_row));
                if here.is_empty() { Ok(None) } else { self.window(&chunk, start, here).map(Some) }
            });
            window.transpose()
        })
    }

    fn window(&self, chunk: &RecordBatch, first_row: usize, rows: &[usize]) -> anyhow::Result<Pending> {
        let places = UInt64Array::from_iter_values(rows.iter().map(|row| (*row - first_row) as u64));
        Ok(Pending {
            rows: take_record_batch(&chunk.project(&self.shown)?, &places)?,
            keys: rows.iter().map(|row| self.keys[*row]).collect(),
            memo: Arc::clone(&self.memo),
            failed: HashMap::new(),
        })
    }
}

/// So many answers are looked at together where it matters what they name.
const KEYS_AT_ONCE: usize = 1 << 16;

/// Where the input rows come from, as often as they are asked for.
enum Source {
    /// A table of one piece, which is read once.
    Held(RecordBatch),
    /// A table that is read piece by piece.
    Stored { store: Store, table: TableRecord, columns: Vec<String> },
}

impl Source {
    fn new(store: &Store, table: &Table, columns: Vec<String>) -> anyhow::Result<Source> {
        Ok(match table {
            Table::Stored(record) if !record.is_one_chunk() => {
                Source::Stored { store: store.clone(), table: record.clone(), columns }
            }
            small => Source::Held(small.read(store, &columns)?),
        })
    }

    fn chunks(&self) -> Box<dyn Iterator<Item = anyhow::Result<RecordBatch>> + '_> {
        match self {
            Source::Held(batch) => Box::new(std::iter::once(Ok(batch.clone()))),
            Source::Stored { store, table, columns } => {
                let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
                Box::new(store.table_chunks(table, &columns))
            }
        }
    }
}

fn column_of(chunk: &RecordBatch, name: &str) -> anyhow::Result<ArrayRef> {
    chunk.column_by_name(name).cloned().with_context(|| format!("no column `{name}`"))
}

/// Whether an input row's key is carried into the key of each of its output rows.
fn keys_tell_rows(node: &Node, table: &Table) -> bool {
    let (carried, out) = (&node.signature.carries, &node.signature.main().keys);
    !table.keys().is_empty() && table.keys().iter().all(|key| carried.contains(key) && out.contains(key))
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

pub(crate) fn error_schema(node: &Node, input: &Schema) -> SchemaRef {
    let names = naming_columns(node, input);
    column::schema(
        names
            .iter()
            .filter_map(|n| input.field_with_name(n).ok().cloned())
            .chain(row_error_fields(shared_column(node))),
    )
}

/// The column of keys in a shared memo that the node's operator has.
pub(crate) fn shared_column(node: &Node) -> Option<&'static str> {
    node.operator.shared_keys().map(|(column, _)| column)
}

/// The columns by which an error row names its input row: the carried ids, else the row's own ids.
fn naming_columns(node: &Node, input: &Schema) -> Vec<String> {
    let ids = column::names_with_role(input, "id");
    let carried: Vec<String> = node.signature.carries.iter().filter(|c| ids.contains(c)).cloned().collect();
    if carried.is_empty() { ids } else { carried }
}

/// The schema of a row operator's `errors` table, before anything has run.
pub(crate) fn planned_error_schema(carries: &[String], input: &Schema, shared: Option<&str>) -> SchemaRef {
    let ids = column::names_with_role(input, "id");
    let carried: Vec<&String> = carries.iter().filter(|c| ids.contains(c)).collect();
    let names: Vec<&String> = if carried.is_empty() { ids.iter().collect() } else { carried };
    column::schema(
        names
            .into_iter()
            .filter_map(|n| input.field_with_name(n).ok().cloned())
            .chain(row_error_fields(shared)),
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
fn shown_places(node: &Node, port: &str, schema: &Schema) -> Vec<usize> {
    let of = |columns: &BTreeMap<String, Vec<String>>| columns.get(port).cloned().unwrap_or_default();
    let (read, seen) = (of(&node.signature.reads), of(&node.signature.sees));
    let names = schema.fields().iter().map(|f| f.name()).enumerate();
    names.filter(|(_, n)| read.contains(n) || seen.contains(n)).map(|(place, _)| place).collect()
}

/// The digests of the columns that decide a row operator's table: carried and read ones.
pub(crate) fn keyed_columns(node: &Node, port: &str) -> Vec<String> {
    let mut names: BTreeMap<&String, ()> = node.signature.carries.iter().map(|n| (n, ())).collect();
    names.extend(node.signature.reads.get(port).into_iter().flatten().map(|n| (n, ())));
    names.into_keys().cloned().collect()
}
