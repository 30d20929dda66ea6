//! Tables: sorted rows in Parquet parts, a digest for each column.

mod merge;
mod order;
pub(crate) mod parquet_file;
mod publish;
mod writer;

use anyhow::{Context, Result, ensure};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use self::parquet_file::{
    Batches, parquet_file_batches, parquet_file_columns, read_parquet_file, write_parquet_file,
};
pub use self::writer::TableWriter;
use crate::digest::Digest;
use crate::store::Store;
use parquet_file::ParquetFile;

/// A table in the store: what it holds, and the blobs that hold it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableRecord {
    /// The number of rows.
    pub rows: u64,
    /// The key columns, by which the rows are sorted; none means that all columns are the key.
    pub keys: Vec<String>,
    /// The columns, in order.
    pub columns: Vec<ColumnRecord>,
    /// The Parquet blobs that hold the rows, in order; a table without rows has one too, for its schema.
    pub parts: Vec<Digest>,
    /// The side files that the rows name, each once, sorted.
    pub files: Vec<Digest>,
}

/// A column of a table in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnRecord {
    /// The column's name.
    pub name: String,
    /// Its Arrow type, as Arrow prints it.
    pub data_type: String,
    /// The digest of its cells in key order, from [`column_digest`](crate::keys::column_digest).
    pub digest: Digest,
}

/// So many parts are read at a time where a table is read piece by piece: about 128 MiB before compression.
const CHUNK_PARTS: usize = 8;

impl Store {
    /// Keeps a table, its rows sorted by the columns `keys`.
    ///
    /// Errors are those of [`Store::table_writer`] and [`TableWriter::finish`].
    pub fn put_table(&self, batch: &RecordBatch, keys: &[String]) -> Result<TableRecord> {
        let mut writer = self.table_writer(batch.schema_ref(), keys)?;
        // The caller holds all of it, so that nothing is saved by putting it aside.
        writer.hold_all();
        writer.write(batch.clone())?;
        writer.finish()
    }

    /// The rows of a table in key order: all columns, or those named, in the order named.
    ///
    /// Every part is checked against its digest the first time this process reads it. Field metadata is as
    /// it was. If a part is missing or damaged the error is a [`BlobError`](crate::BlobError)
    /// (`error.downcast_ref::<BlobError>()`). It is an error to name a column that the table lacks.
    pub fn read_table(&self, table: &TableRecord, columns: Option<&[&str]>) -> Result<RecordBatch> {
        let batch = self.read_parts(&table.parts, columns)?;
        table.check_rows(batch.num_rows() as u64)?;
        Ok(batch)
    }

    /// The rows of a table as [`Store::read_table`] gives them, piece by piece: a table may be larger than memory.
    pub fn table_chunks<'s>(&'s self, table: &'s TableRecord, columns: &[&str]) -> TableChunks<'s> {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        TableChunks { store: self, table, columns, next: 0, rows: 0 }
    }

    /// Reads all blobs of a table and takes their names from those that are damaged, so that they can be made
    /// again. Blobs that this process has checked before are not read.
    pub fn check_table(&self, table: &TableRecord) {
        table.parts.par_iter().chain(&table.files).for_each(|digest| {
            // What is missing or damaged is what is looked for, and is told of by whoever needs it.
            let _ = self.path(digest);
        });
    }

    fn read_parts(&self, parts: &[Digest], columns: Option<&[&str]>) -> Result<RecordBatch> {
        let parts = parts.par_iter().map(|digest| {
            let part = ParquetFile::open(self.open_verified(digest)?);
            part.and_then(|part| part.read(columns)).with_context(|| format!("part {}", digest.short()))
        });
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let first = parts.first().context("a table record without parts, expected at least one")?;
        Ok(if parts.len() == 1 { first.clone() } else { concat_batches(first.schema_ref(), &parts)? })
    }
}

impl TableRecord {
    /// Whether [`Store::table_chunks`] gives the table in one piece.
    pub fn is_one_chunk(&self) -> bool {
        self.parts.len() <= CHUNK_PARTS
    }

    fn check_rows(&self, found: u64) -> Result<()> {
        ensure!(found == self.rows, "the parts of a table have {found} rows, expected {}", self.rows);
        Ok(())
    }
}

/// The rows of a table, piece by piece.
pub struct TableChunks<'s> {
    store: &'s Store,
    table: &'s TableRecord,
    columns: Vec<String>,
    /// The next part.
    next: usize,
    /// The rows so far.
    rows: u64,
}

impl TableChunks<'_> {
    fn read(&mut self) -> Result<RecordBatch> {
        let parts = &self.table.parts[self.next..self.table.parts.len().min(self.next + CHUNK_PARTS)];
        let columns: Vec<&str> = self.columns.iter().map(String::as_str).collect();
        let chunk = self.store.read_parts(parts, Some(&columns))?;
        self.next += parts.len();
        self.rows += chunk.num_rows() as u64;
        if self.next == self.table.parts.len() {
            self.table.check_rows(self.rows)?;
        }
        Ok(chunk)
    }
}

impl Iterator for TableChunks<'_> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        if self.next >= self.table.parts.len() {
            return None;
        }
        let chunk = self.read();
        if chunk.is_err() {
            // What comes behind a piece that does not read is no table.
            self.next = self.table.parts.len();
        }
        Some(chunk)
    }
}

#[cfg(test)]
mod tests;
