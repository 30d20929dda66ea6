//! A row operator's tables, put together from answers.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use argent_cache::encoding::{decode_rows, encode_rows};
use argent_cache::keys::{row_error_key, row_keys};
use argent_cache::table::TableWriter;
use argent_cache::{Digest, DigestMap, Store};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, filter_record_batch, take};
use arrow::datatypes::SchemaRef;
use rayon::prelude::*;

use super::{RowWork, column_of, error_schema, main_schema, naming_columns, shared_column};
use crate::forgotten::{FORGOTTEN, REASON, storable};
use crate::io::{RowError, row_error_columns};
use crate::pipeline::Node;

/// Reasons of rows that failed for now and are not remembered, by key.
pub(crate) type Failed = HashMap<Digest, RowError>;

/// What became of the input rows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) failed: u64,
    pub(crate) retryable: u64,
    pub(crate) pending: u64,
}

/// A row operator's tables, with all their rows.
pub(crate) struct Assembled {
    pub(crate) main: TableWriter,
    pub(crate) errors: TableWriter,
    pub(crate) counts: Counts,
}

impl RowWork {
    /// Puts the step's tables together: for each input row its carried cells and its answer.
    pub(crate) fn assemble(&self, node: &Node, store: &Store, failed: &Failed) -> anyhow::Result<Assembled> {
        let stand_in = stand_in(node)?;
        let conflicts = match self.keys_tell_rows {
            true => BTreeSet::new(),
            false => self.conflicts(node, failed, stand_in.as_deref())?,
        };
        let mut main = store.table_writer(&main_schema(node, &self.schema), &node.signature.main().keys)?;
        let mut errors = store.table_writer(&error_schema(node, &self.schema), &[])?;
        let mut counts = Counts::default();
        for piece in self.pieces(node, failed, stand_in.as_deref()) {
            let mut piece = piece?;
            piece.leave_out(&conflicts, &node.signature.main().keys)?;
            counts.pending += piece.pending;
            counts.failed += piece.failed.len() as u64;
            counts.retryable += piece.failed.iter().filter(|(_, error)| error.retryable).count() as u64;
            errors.write(storable(store, "errors", piece.errors(node)?)?)?;
            main.write(storable(store, "", piece.main)?)?;
        }
        Ok(Assembled { main, errors, counts })
    }

    /// The tables of each chunk of the input.
    pub(super) fn pieces(
        &self,
        node: &Node,
        failed: &Failed,
        stand_in: Option<&[u8]>,
    ) -> impl Iterator<Item = anyhow::Result<Piece>> {
        let mut first_row = 0;
        self.source.chunks().map(move |chunk| {
            let chunk = chunk?;
            let start = first_row;
            first_row += chunk.num_rows();
            self.piece(node, chunk, start, failed, stand_in)
        })
    }

    fn piece(
        &self,
        node: &Node,
        chunk: RecordBatch,
        first_row: usize,
        window_failed: &Failed,
        stand_in: Option<&[u8]>,
    ) -> anyhow::Result<Piece> {
        let mut values: Vec<&[u8]> = Vec::new();
        let mut answered: Vec<u64> = Vec::new();
        let mut failed: Vec<(u64, RowError)> = Vec::new();
        let mut pending = 0;
        let answers = self.memo.get_many(&self.keys[first_row..first_row + chunk.num_rows()])?;
        for place in 0..chunk.num_rows() {
            match self.outcome(first_row + place, answers.get(place), window_failed)? {
                RowOutcome::Answered(value) => {
                    answered.push(place as u64);
                    values.push(value);
                }
                RowOutcome::Failed(error) => {
                    failed.push((place as u64, error));
                    if let Some(value) = stand_in {
                        answered.push(place as u64);
                        values.push(value);
                    }
                }
                RowOutcome::Pending => pending += 1,
            }
        }
        let (own, lengths) = decoded(&node.signature.main().schema, &values)?;
        drop(answers);
        let repeated = answered.iter().zip(&lengths).flat_map(|(place, n)| std::iter::repeat_n(*place, *n));
        let places: Vec<u64> = repeated.collect();
        let mut columns =
            taken(&chunk, &node.signature.carries, &UInt64Array::from_iter_values(places.iter().copied()))?;
        columns.extend(own.columns().iter().cloned());
        let main = RecordBatch::try_new(main_schema(node, chunk.schema_ref()), columns)?;
        Ok(Piece { chunk, first_row: first_row as u64, main, places, failed, pending })
    }

    fn outcome<'a>(
        &self,
        row: usize,
        answer: Option<&'a [u8]>,
        failed: &Failed,
    ) -> anyhow::Result<RowOutcome<'a>> {
        if self.forgotten[row] {
            return Ok(RowOutcome::Failed(RowError::lasting(FORGOTTEN, REASON)));
        }
        if let Some(value) = answer {
            return Ok(RowOutcome::Answered(value));
        }
        if let Some(error) = failed.get(&self.keys[row]) {
            return Ok(RowOutcome::Failed(error.clone()));
        }
        match self.memo.get(&row_error_key(&self.secret, &self.keys[row]))? {
            Some(error) => Ok(RowOutcome::Failed(serde_json::from_slice(&error)?)),
            None => Ok(RowOutcome::Pending),
        }
    }

    /// The input rows whose output rows have the key of another input row's.
    fn conflicts(
        &self,
        node: &Node,
        failed: &Failed,
        stand_in: Option<&[u8]>,
    ) -> anyhow::Result<BTreeSet<u64>> {
        let keys = &node.signature.main().keys;
        let mut conflicts = BTreeSet::new();
        if keys.is_empty() {
            return Ok(conflicts);
        }
        let domain = self.secret.digest("argent output key", b"");
        let mut first: DigestMap<u64> = DigestMap::default();
        for piece in self.pieces(node, failed, stand_in) {
            let Piece { main, places, first_row, .. } = piece?;
            let columns = keys.iter().map(|key| column_of(&main, key)).collect::<anyhow::Result<Vec<_>>>()?;
            let names = row_keys(&self.secret, &domain, &columns, main.num_rows())?;
            for (name, place) in names.into_iter().zip(places) {
                let row = first_row + place;
                match first.entry(name) {
                    Entry::Vacant(free) => drop(free.insert(row)),
                    Entry::Occupied(taken) if *taken.get() == row => {}
                    Entry::Occupied(taken) => conflicts.extend([*taken.get(), row]),
                }
            }
        }
        Ok(conflicts)
    }
}

/// What there is for one input row.
enum RowOutcome<'a> {
    Answered(&'a [u8]),
    Failed(RowError),
    Pending,
}

/// What there is for one chunk of the input.
pub(super) struct Piece {
    chunk: RecordBatch,
    /// The row of the input that the chunk begins with.
    pub(super) first_row: u64,
    pub(super) main: RecordBatch,
    /// By row of `main`: the row of the chunk that it is of.
    pub(super) places: Vec<u64>,
    /// The rows of the chunk that failed.
    pub(super) failed: Vec<(u64, RowError)>,
    pending: u64,
}

impl Piece {
    /// Makes failures of these input rows: another one gives the same key, and nothing tells which is right.
    fn leave_out(&mut self, rows: &BTreeSet<u64>, keys: &[String]) -> anyhow::Result<()> {
        let end = self.first_row + self.chunk.num_rows() as u64;
        let here: BTreeSet<u64> = rows.range(self.first_row..end).map(|row| row - self.first_row).collect();
        if here.is_empty() {
            return Ok(());
        }
        let kept: BooleanArray = self.places.iter().map(|place| Some(!here.contains(place))).collect();
        self.main = filter_record_batch(&self.main, &kept)?;
        let message = format!("another input row gives the same {}; none of them is kept", keys.join(", "));
        let conflict = RowError::lasting("conflict", message);
        self.failed.extend(here.into_iter().map(|place| (place, conflict.clone())));
        Ok(())
    }

    fn errors(&self, node: &Node) -> anyhow::Result<RecordBatch> {
        let schema = self.chunk.schema();
        let places = UInt64Array::from_iter_values(self.failed.iter().map(|(place, _)| *place));
        let mut columns = taken(&self.chunk, &naming_columns(node, &schema), &places)?;
        let failed: Vec<&RowError> = self.failed.iter().map(|(_, error)| error).collect();
        columns.extend(row_error_columns(&failed, shared_column(node)));
        Ok(RecordBatch::try_new(error_schema(node, &schema), columns)?)
    }
}

fn taken(chunk: &RecordBatch, names: &[String], places: &UInt64Array) -> anyhow::Result<Vec<ArrayRef>> {
    let taken = |name: &String| Ok(take(&column_of(chunk, name)?, places, None)?);
    names.iter().map(taken).collect()
}

/// So many answers are decoded by one task.
const DECODED_TOGETHER: usize = 1 << 15;

/// The rows of these answers, and how many each has.
fn decoded(schema: &SchemaRef, values: &[&[u8]]) -> anyhow::Result<(RecordBatch, Vec<usize>)> {
    let some = |values: &[&[u8]]| decode_rows(schema, values.iter().copied());
    let parts = values.par_chunks(DECODED_TOGETHER).map(some).collect::<anyhow::Result<Vec<_>>>()?;
    let (batches, lengths): (Vec<RecordBatch>, Vec<Vec<usize>>) = parts.into_iter().unzip();
    Ok((concat_batches(schema, &batches)?, lengths.concat()))
}

/// The operator's rows for an input row that failed, as an answer.
pub(super) fn stand_in(node: &Node) -> anyhow::Result<Option<Vec<u8>>> {
    let rows = node.operator.failed_rows(&node.signature.main().schema)?;
    rows.map(|rows| encode_rows(&rows, 0, rows.num_rows())).transpose()
}
