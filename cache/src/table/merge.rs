//! Merging sorted runs that lie on disk, a batch at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use anyhow::{Context, Result, ensure};
use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::Schema;
use arrow::row::{OwnedRow, Row, RowConverter, Rows, SortField};
use tempfile::NamedTempFile;

use super::order::columns_at;
use super::parquet_file::{Batches, ParquetFile, write_passing};
use crate::store::Store;

/// Rows are read of each run, and given out, in batches of about this many bytes.
const READ_BYTES: u64 = 2 << 20;
const GIVEN_BYTES: u64 = 64 << 20;

/// A row group of a run, so that writing holds no more than that.
const GROUP_BYTES: u64 = 16 << 20;

/// Sorted rows on disk, which are gone when this is dropped.
pub(super) struct Run {
    file: NamedTempFile,
}

impl Run {
    /// Writes a sorted table below the store's `tmp`, readable by the owner alone.
    pub(super) fn write(store: &Store, sorted: &RecordBatch, row_bytes: u64) -> Result<Run> {
        let mut file = store.temporary_file()?;
        let step = rows_of(GROUP_BYTES, row_bytes);
        let starts = (0..sorted.num_rows()).step_by(step);
        let groups = starts.map(|start| Ok(sorted.slice(start, step.min(sorted.num_rows() - start))));
        write_passing(&mut file, sorted.schema(), groups).context("rows that wait to be sorted")?;
        Ok(Run { file })
    }

    fn read(&self, row_bytes: u64) -> Result<Batches> {
        ParquetFile::open(self.file.reopen()?)?.batches(rows_of(READ_BYTES, row_bytes))
    }
}

fn rows_of(bytes: u64, row_bytes: u64) -> usize {
    (bytes / row_bytes.max(1)).clamp(16, 1 << 16) as usize
}

/// The rows of several sorted runs in one order.
pub(super) struct Merge {
    converter: RowConverter,
    key_places: Vec<usize>,
    heads: Vec<Head>,
    /// The next row of each head that has one, least first.
    next: BinaryHeap<Reverse<(OwnedRow, usize)>>,
    given_rows: usize,
}

/// A run as far as it has been read.
struct Head {
    batches: Batches,
    batch: RecordBatch,
    rows: Rows,
    at: usize,
}

impl Merge {
    pub(super) fn new(runs: &[Run], schema: &Schema, key_places: &[usize], row_bytes: u64) -> Result<Merge> {
        let types = key_places.iter().map(|place| schema.field(*place).data_type().clone());
        let fields: Vec<SortField> = types.map(SortField::new).collect();
        ensure!(
            RowConverter::supports_fields(&fields),
            "a table too big for memory cannot be sorted by columns of these types; declare key columns of plain types"
        );
        let mut merge = Merge {
            converter: RowConverter::new(fields)?,
            key_places: key_places.to_vec(),
            heads: Vec::new(),
            next: BinaryHeap::new(),
            given_rows: rows_of(GIVEN_BYTES, row_bytes),
        };
        for run in runs {
            let batches = run.read(row_bytes)?;
            merge.open(batches)?;
        }
        Ok(merge)
    }

    /// The next rows; none at the end.
    pub(super) fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let mut sources: Vec<RecordBatch> = self.heads.iter().map(|head| head.batch.clone()).collect();
        let mut source_of: Vec<usize> = (0..self.heads.len()).collect();
        let mut picked: Vec<(usize, usize)> = Vec::with_capacity(self.given_rows);
        while picked.len() < self.given_rows {
            let Some(Reverse((_, number))) = self.next.pop() else { break };
            let bound = self.next.peek().map(|Reverse((row, _))| row.clone());
            // Runs of a table that came nearly in order hardly overlap, so many rows come from one of them.
            loop {
                let head = &mut self.heads[number];
                picked.push((source_of[number], head.at));
                head.at += 1;
                if head.at == head.rows.num_rows() {
                    if !self.read_on(number)? {
                        break;
                    }
                    source_of[number] = sources.len();
                    sources.push(self.heads[number].batch.clone());
                }
                let row = self.heads[number].row();
                let beyond = bound.as_ref().is_some_and(|bound| row > bound.row());
                if beyond || picked.len() >= self.given_rows {
                    self.next.push(Reverse((row.owned(), number)));
                    break;
                }
            }
        }
        if picked.is_empty() {
            return Ok(None);
        }
        let sources: Vec<&RecordBatch> = sources.iter().collect();
        Ok(Some(interleave_record_batch(&sources, &picked)?))
    }

    /// Takes up a run, unless it has no rows.
    fn open(&mut self, mut batches: Batches) -> Result<()> {
        let Some(batch) = batches.next().transpose()? else { return Ok(()) };
        let rows = self.converter.convert_columns(&columns_at(&batch, &self.key_places))?;
        let head = Head { batches, batch, rows, at: 0 };
        self.next.push(Reverse((head.row().owned(), self.heads.len())));
        self.heads.push(head);
        Ok(())
    }

    /// Reads a head's next batch; false where it has none.
    fn read_on(&mut self, number: usize) -> Result<bool> {
        let head = &mut self.heads[number];
        let Some(batch) = head.batches.next().transpose().context("rows that wait to be sorted")? else {
            return Ok(false);
        };
        head.rows = self.converter.convert_columns(&columns_at(&batch, &self.key_places))?;
        (head.batch, head.at) = (batch, 0);
        Ok(true)
    }
}

impl Head {
    fn row(&self) -> Row<'_> {
        self.rows.row(self.at)
    }
}
