//! Segments: what journals are sealed into. A Parquet file of key, value and check, in the order of the
//! journals, so that neighbours in a table are neighbours in a row group.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, FixedSizeBinaryArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::journal::{CHECK_BYTES, Checker};
use crate::digest::Digest;
use crate::table::parquet_file::{ParquetFile, write_parquet};

/// The ending of a segment's file name.
pub(super) const SEGMENT_SUFFIX: &str = "parquet";

/// A row group is the piece that is decompressed to get one value.
pub(super) const GROUP_MAX_ROWS: usize = 4096;
const GROUP_MAX_BYTES: usize = 8 << 20;

/// A record of a segment.
pub(super) struct Record {
    pub(super) key: Digest,
    pub(super) value: Vec<u8>,
}

/// The bytes of a segment that holds these records in this order.
pub(super) fn encode(checker: &Checker, records: &[Record]) -> Result<Vec<u8>> {
    let schema = schema();
    let mut rest = records;
    let groups = std::iter::from_fn(|| {
        let (group, after) = rest.split_at(group_len(rest));
        rest = after;
        (!group.is_empty()).then(|| group_batch(&schema, checker, group))
    });
    let mut bytes = Vec::new();
    write_parquet(&mut bytes, Arc::clone(&schema), groups)?;
    Ok(bytes)
}

/// An open segment.
pub(super) struct Segment {
    parquet: ParquetFile,
    /// The first row of each row group, and the number of rows.
    starts: Vec<u64>,
}

/// The values and checks of one row group.
pub(super) struct Group {
    first_row: u64,
    values: BinaryArray,
    checks: FixedSizeBinaryArray,
}

impl Segment {
    /// Reads the footer.
    pub(super) fn open(file: File) -> Result<Segment> {
        let parquet = ParquetFile::open(file)?;
        let mut starts = vec![0];
        let mut rows = 0;
        for group in parquet.group_rows()? {
            rows += group as u64;
            starts.push(rows);
        }
        Ok(Segment { parquet, starts })
    }

    /// The keys of a file whose bytes are known to be sound, in order.
    pub(super) fn keys(&self) -> Result<Vec<Digest>> {
        let keys = self.parquet.read(Some(&["key"]))?;
        digests(keys.column(0))
    }

    /// The sound records of a damaged file, by row, and the number of those that are lost.
    pub(super) fn salvage(&self, checker: &Checker) -> (Vec<(u64, Digest)>, u64) {
        let mut sound = Vec::new();
        for group in 0..self.starts.len() - 1 {
            // The Parquet library may panic where bytes make no sense; such a group is lost, no more.
            let keys = catch_unwind(AssertUnwindSafe(|| {
                let keys = digests(self.parquet.read_group(group, &["key"])?.column(0))?;
                let values = self.read_group(group)?;
                Ok::<_, anyhow::Error>((keys, values))
            }));
            let Ok(Ok((keys, values))) = keys else { continue };
            let rows = (self.starts[group]..).zip(keys);
            sound.extend(rows.filter(|(row, key)| values.value(checker, *row, key).is_some()));
        }
        let all = self.starts[self.starts.len() - 1];
        let lost = all - sound.len() as u64;
        (sound, lost)
    }

    /// The row group that holds a row.
    pub(super) fn group_of(&self, row: u64) -> usize {
        self.starts.partition_point(|start| *start <= row) - 1
    }

    pub(super) fn read_group(&self, group: usize) -> Result<Group> {
        let batch = self.parquet.read_group(group, &["value", "check"])?;
        let values = batch.column(0).as_binary_opt::<i32>().context("a segment's values are not binary")?;
        let checks =
            batch.column(1).as_fixed_size_binary_opt().context("a segment's checks are not binary")?;
        Ok(Group { first_row: self.starts[group], values: values.clone(), checks: checks.clone() })
    }
}

impl Group {
    /// The value of a row, if it is sound and belongs to this key.
    pub(super) fn value(&self, checker: &Checker, row: u64, key: &Digest) -> Option<Vec<u8>> {
        let value = self.sound_value(row)?;
        let row = usize::try_from(row.checked_sub(self.first_row)?).ok()?;
        let check = (row < self.checks.len()).then(|| self.checks.value(row))?;
        (check == checker.check(key, value)).then(|| value.to_vec())
    }

    /// The value of a row of a file whose bytes are known to be sound.
    pub(super) fn sound_value(&self, row: u64) -> Option<&[u8]> {
        let row = usize::try_from(row.checked_sub(self.first_row)?).ok()?;
        (row < self.values.len()).then(|| self.values.value(row))
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::FixedSizeBinary(32), false),
        Field::new("value", DataType::Binary, false),
        Field::new("check", DataType::FixedSizeBinary(CHECK_BYTES as i32), false),
    ]))
}

fn group_len(records: &[Record]) -> usize {
    let mut bytes = 0;
    let fits = |record: &&Record| {
        bytes += record.value.len();
        bytes <= GROUP_MAX_BYTES
    };
    // A record that is too big alone is a group of its own.
    records.iter().take(GROUP_MAX_ROWS).take_while(fits).count().max(1).min(records.len())
}

fn group_batch(schema: &SchemaRef, checker: &Checker, records: &[Record]) -> Result<RecordBatch> {
    let keys = FixedSizeBinaryArray::try_from_iter(records.iter().map(|record| record.key.0))?;
    let values: BinaryArray = records.iter().map(|record| Some(record.value.as_slice())).collect();
    let checks = records.iter().map(|record| checker.check(&record.key, &record.value));
    let checks = FixedSizeBinaryArray::try_from_iter(checks)?;
    Ok(RecordBatch::try_new(Arc::clone(schema), vec![Arc::new(keys), Arc::new(values), Arc::new(checks)])?)
}

fn digests(column: &ArrayRef) -> Result<Vec<Digest>> {
    let keys = column.as_fixed_size_binary_opt().context("a segment's keys are not binary")?;
    ensure!(keys.value_length() == 32, "a segment's keys have {} bytes, expected 32", keys.value_length());
    Ok((0..keys.len())
        .map(|row| {
            let mut key = [0; 32];
            key.copy_from_slice(keys.value(row));
            Digest(key)
        })
        .collect())
}
