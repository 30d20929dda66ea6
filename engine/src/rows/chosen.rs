//! A few of a row operator's rows: which they are, the operator's work limited to them, and what came of it, in memory.

use std::sync::Arc;

use argent_cache::keys::{row_error_key, row_keys};
use argent_cache::{Digest, DigestSet, Secret};
use arrow::array::{Array, AsArray, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};

use super::assemble::{Failed, stand_in};
use super::{RowWork, Source, main_schema};
use crate::io::RowError;
use crate::pipeline::Node;

/// What there is for a few rows.
pub(crate) struct Outcomes {
    /// The rows of the main table.
    pub(crate) main: RecordBatch,
    /// By row of `main`: the chosen row that it is of.
    pub(crate) places: Vec<u64>,
    /// The chosen rows that failed, and why.
    pub(crate) failed: Vec<(u64, RowError)>,
}

impl RowWork {
    /// Cells of all rows in these of the source's columns.
    pub(crate) fn cells(&self, columns: &[String]) -> anyhow::Result<RecordBatch> {
        let places = columns.iter().map(|name| self.schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let chunks = self.source.chunks().map(|chunk| Ok(chunk?.project(&places)?));
        let chunks = chunks.collect::<anyhow::Result<Vec<_>>>()?;
        Ok(concat_batches(&Arc::new(self.schema.project(&places)?), &chunks)?)
    }

    /// The columns of the source that name a row, its table's key columns being `keys`.
    pub(crate) fn naming(&self, keys: &[String]) -> Vec<String> {
        let there = |names: Vec<String>| -> Vec<String> {
            names.into_iter().filter(|name| self.schema.index_of(name).is_ok()).collect()
        };
        let all = || self.schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        let options = [keys.to_vec(), vec!["path".to_owned()], all()];
        options.into_iter().map(there).find(|names| !names.is_empty()).unwrap_or_default()
    }

    /// The rows that may be chosen, the first choice first, given the cells that name them: an order that neither the
    /// table's order nor other rows change, so that a longer choice holds a shorter one. Of equal rows one may be
    /// chosen, and nobody who was forgotten.
    pub(crate) fn ranked(&self, names: &RecordBatch) -> anyhow::Result<Vec<usize>> {
        // The order alone is seen, and a fixed key makes the same choice in every store.
        let secret = Secret::from_bytes([0; 32]);
        let domain = secret.digest("argent choice of rows", b"");
        let ranks = row_keys(&secret, &domain, names.columns(), names.num_rows())?;
        let mut rows: Vec<usize> = (0..ranks.len()).filter(|row| !self.forgotten[*row]).collect();
        rows.sort_by_key(|row| ranks[*row]);
        let mut seen = DigestSet::default();
        rows.retain(|row| seen.insert(self.keys[*row]));
        Ok(rows)
    }

    /// The rows with this text in a column of the cells that name them.
    pub(crate) fn with_id(&self, names: &RecordBatch, column: &str, id: &str) -> Vec<usize> {
        let cells = names.column_by_name(column).and_then(|cells| cells.as_string_opt::<i32>());
        let is_it = |row: &usize| {
            !self.forgotten[*row]
                && cells.is_some_and(|cells| cells.is_valid(*row) && cells.value(*row) == id)
        };
        (0..names.num_rows()).filter(is_it).collect()
    }

    /// The same work on these rows alone, in their order.
    pub(crate) fn only(&self, rows: &[usize]) -> anyhow::Result<RowWork> {
        let (mut pieces, mut order, mut first_row) = (Vec::new(), Vec::new(), 0);
        for chunk in self.source.chunks() {
            let chunk = chunk?;
            let here = first_row..first_row + chunk.num_rows();
            first_row = here.end;
            let chosen: Vec<usize> = (0..rows.len()).filter(|place| here.contains(&rows[*place])).collect();
            let places = chosen.iter().map(|place| (rows[*place] - here.start) as u64);
            pieces.push(take_record_batch(&chunk, &UInt64Array::from_iter_values(places))?);
            order.extend(chosen);
        }
        let mut back: Vec<u64> = vec![0; order.len()];
        order.iter().enumerate().for_each(|(now, wanted)| back[*wanted] = now as u64);
        let held = concat_batches(&self.schema, &pieces)?;
        let held = take_record_batch(&held, &UInt64Array::from(back))?;
        let keys: Vec<Digest> = rows.iter().map(|row| self.keys[*row]).collect();
        let waiting: DigestSet = self.pending.iter().map(|row| self.keys[*row]).collect();
        let mut seen = DigestSet::default();
        let pending = (0..keys.len()).filter(|row| waiting.contains(&keys[*row]) && seen.insert(keys[*row]));
        Ok(RowWork {
            source: Source::Held(held),
            schema: self.schema.clone(),
            shown: self.shown.clone(),
            secret: self.secret.clone(),
            pending: pending.collect(),
            keys,
            forgotten: rows.iter().map(|row| self.forgotten[*row]).collect(),
            memo: Arc::clone(&self.memo),
            record: self.record.clone(),
            keys_tell_rows: self.keys_tell_rows,
        })
    }

    /// What the operator may look at of all rows.
    pub(crate) fn shown_rows(&self) -> anyhow::Result<RecordBatch> {
        let names: Vec<String> =
            self.shown.iter().map(|place| self.schema.field(*place).name().clone()).collect();
        self.cells(&names)
    }

    /// Takes those of the tried rows out of the pending ones that have an answer, or a lasting failure, by now.
    pub(crate) fn leave_out_answered(&mut self, tried: &RowWork) {
        let (memo, keys, secret) = (&self.memo, &self.keys, &self.secret);
        let tried: DigestSet = tried.keys.iter().copied().collect();
        let is_answered = |key: &Digest| memo.contains(key) || memo.contains(&row_error_key(secret, key));
        self.pending.retain(|row| !tried.contains(&keys[*row]) || !is_answered(&keys[*row]));
    }

    /// What there is for these rows, which are few: for each its carried cells and its answer.
    pub(crate) fn outcomes(&self, node: &Node, failed: &Failed) -> anyhow::Result<Outcomes> {
        let stand_in = stand_in(node)?;
        let (mut mains, mut places, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for piece in self.pieces(node, failed, stand_in.as_deref()) {
            let piece = piece?;
            places.extend(piece.places.iter().map(|place| piece.first_row + place));
            refused.extend(piece.failed.into_iter().map(|(place, error)| (piece.first_row + place, error)));
            mains.push(piece.main);
        }
        let main = concat_batches(&main_schema(node, &self.schema), &mains)?;
        Ok(Outcomes { main, places, failed: refused })
    }
}
