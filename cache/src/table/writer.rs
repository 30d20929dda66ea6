//! Writing a table whose rows come in any order and may be more than memory holds.

use anyhow::{Result, ensure};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;

use super::TableRecord;
use super::merge::{Merge, Run};
use super::order::{check_names, columns_at, follows, is_sorted, key_places, sorted};
use super::publish::Publisher;
use crate::store::Store;

/// So many bytes of rows are held in memory; more are sorted and wait on disk. Sorting needs up to three times
/// as much.
const HELD_BYTES: u64 = 192 << 20;

/// Batches of fewer bytes are put together before they are published: small ones would be hashed and written by
/// one core.
const SMALL_BYTES: u64 = 32 << 20;

/// A table that is being written. Dropped before it is finished, it never was.
pub struct TableWriter {
    store: Store,
    schema: SchemaRef,
    keys: Vec<String>,
    key_places: Vec<usize>,
    /// By key column: in how many rows it is null.
    nulls: Vec<usize>,
    held: Vec<RecordBatch>,
    held_bytes: u64,
    most_held_bytes: u64,
    runs: Vec<Run>,
    rows: u64,
    bytes: u64,
}

impl Store {
    /// A table of these columns, whose rows will be sorted by the columns `keys`.
    ///
    /// It is an error if there is no column, two have one name, or a key is no column.
    pub fn table_writer(&self, schema: &SchemaRef, keys: &[String]) -> Result<TableWriter> {
        check_names(schema)?;
        let places = key_places(schema, keys)?;
        Ok(TableWriter {
            store: self.clone(),
            schema: SchemaRef::clone(schema),
            keys: keys.to_vec(),
            nulls: vec![0; places.len()],
            key_places: places,
            held: Vec::new(),
            held_bytes: 0,
            most_held_bytes: HELD_BYTES,
            runs: Vec::new(),
            rows: 0,
            bytes: 0,
        })
    }
}

impl TableWriter {
    /// Adds rows, in any order.
    ///
    /// It is an error if they have other columns, or cannot be put aside on disk.
    pub fn write(&mut self, batch: RecordBatch) -> Result<()> {
        let wanted = self.schema.fields().iter().map(|field| field.data_type());
        let same = wanted.eq(batch.schema_ref().fields().iter().map(|field| field.data_type()));
        ensure!(same, "rows have other columns than their table, expected {:?}", self.schema);
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = batch.with_schema(SchemaRef::clone(&self.schema))?;
        for (nulls, key) in self.nulls.iter_mut().zip(columns_at(&batch, &self.key_places)) {
            *nulls += key.logical_null_count();
        }
        let bytes = bytes_of(&batch);
        self.rows += batch.num_rows() as u64;
        self.bytes += bytes;
        self.held_bytes += bytes;
        self.held.push(batch);
        if self.held_bytes > self.most_held_bytes { self.put_aside() } else { Ok(()) }
    }

    /// Puts nothing aside, however much there is.
    pub(super) fn hold_all(&mut self) {
        self.most_held_bytes = u64::MAX;
    }

    /// How many rows have been added.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Publishes the table.
    ///
    /// Key values are unique and not null; anything else is an error that names the key columns and no
    /// cell. A table without key columns is a bag of rows: it is sorted by all of them, and may hold equal
    /// rows and nulls, since nothing can be joined to it by a key that it does not declare.
    ///
    /// Parts are cut where a row's key says so, so most parts of a table that changed a little are those of
    /// the table before. A text column whose field has the role `file` (metadata `role`, separated by
    /// commas) names side files by digest; it is an error if it holds something else, and a
    /// [`BlobError`](crate::BlobError) if the store has no such blob. It is an error also if a column is of a
    /// type that cannot be stored.
    pub fn finish(mut self) -> Result<TableRecord> {
        for (key, nulls) in self.keys.iter().zip(&self.nulls) {
            ensure!(*nulls == 0, "key column `{key}` is null in {nulls} rows, expected a value in each");
        }
        let held = match self.runs.is_empty() {
            true => in_order(std::mem::take(&mut self.held), &self.schema, &self.key_places)?,
            false => Vec::new(),
        };
        self.put_aside()?;
        let row_bytes = self.row_bytes();
        let mut publisher = Publisher::new(&self.store, &self.schema, &self.keys, row_bytes)?;
        for batch in &held {
            publisher.push(batch)?;
        }
        drop(held);
        let mut merge = Merge::new(&self.runs, &self.schema, &self.key_places, row_bytes)?;
        while let Some(batch) = merge.next_batch()? {
            publisher.push(&batch)?;
        }
        publisher.finish()
    }

    /// Sorts the rows that are held and puts them on disk.
    fn put_aside(&mut self) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let held = concat_batches(&self.schema, &std::mem::take(&mut self.held))?;
        self.held_bytes = 0;
        let held = sorted(&held, &columns_at(&held, &self.key_places))?;
        self.runs.push(Run::write(&self.store, &held, self.row_bytes())?);
        Ok(())
    }

    fn row_bytes(&self) -> u64 {
        self.bytes / self.rows.max(1)
    }
}

/// Batches that make one sorted table, the rows as few times copied as can be.
fn in_order(batches: Vec<RecordBatch>, schema: &SchemaRef, key_places: &[usize]) -> Result<Vec<RecordBatch>> {
    let are_big = batches.len() > 1 && batches.iter().map(bytes_of).sum::<u64>() > SMALL_BYTES;
    if are_big {
        let keys: Vec<Vec<ArrayRef>> = batches.iter().map(|batch| columns_at(batch, key_places)).collect();
        let each = || keys.iter().zip(&batches).map(|(keys, batch)| is_sorted(keys, batch.num_rows()));
        let seams = || keys.windows(2).map(|pair| follows(&pair[0], &pair[1]));
        if all(seams())? && all(each())? {
            return Ok(batches);
        }
    }
    let whole = concat_batches(schema, &batches)?;
    drop(batches);
    Ok(vec![sorted(&whole, &columns_at(&whole, key_places))?])
}

fn all(mut answers: impl Iterator<Item = Result<bool>>) -> Result<bool> {
    answers.find(|answer| !matches!(answer, Ok(true))).unwrap_or(Ok(true))
}

/// The bytes that the rows of a batch take, whatever else their buffers hold.
fn bytes_of(batch: &RecordBatch) -> u64 {
    let bytes = |column: &ArrayRef| {
        column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()) as u64
    };
    batch.columns().iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::digest::Secret;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_with_secret(folder.path(), Secret::from_bytes([1; 32])).unwrap();
        (folder, store)
    }

    /// Rows in an order that has nothing to do with their keys: numbers of the Weyl sequence of the golden ratio.
    fn scattered(rows: std::ops::Range<u64>) -> RecordBatch {
        let numbers: Vec<u64> = rows.map(|row| row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20).collect();
        let ids = StringArray::from_iter_values(numbers.iter().map(|n| format!("r{n:011x}")));
        let texts = numbers.iter().map(|n| (n % 7 > 0).then(|| "word ".repeat((n % 40) as usize)));
        let columns: Vec<(&str, ArrayRef, bool)> = vec![
            ("id", Arc::new(ids), false),
            ("text", Arc::new(texts.collect::<StringArray>()), true),
            ("n", Arc::new(numbers.iter().map(|n| *n as i64).collect::<Int64Array>()), true),
        ];
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    /// The table of these batches, of which `held_bytes` bytes are held.
    fn written(
        store: &Store,
        batches: Vec<RecordBatch>,
        keys: &[&str],
        held_bytes: u64,
    ) -> Result<TableRecord> {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let mut writer = store.table_writer(batches[0].schema_ref(), &keys)?;
        writer.most_held_bytes = held_bytes;
        batches.into_iter().try_for_each(|batch| writer.write(batch))?;
        writer.finish()
    }

    #[test]
    fn a_table_that_waits_on_disk_is_the_table_from_memory() {
        let (_folder, store) = store();
        let batches = || (0..40).map(|part| scattered(part * 500..(part + 1) * 500)).collect::<Vec<_>>();
        for keys in [&["id"][..], &["n", "id"], &[]] {
            let whole = written(&store, batches(), keys, u64::MAX).unwrap();
            // Few and many runs, and one for each batch.
            for held_bytes in [800_000, 100_000, 0] {
                assert_eq!(written(&store, batches(), keys, held_bytes).unwrap(), whole, "{held_bytes}");
            }
            let order = arrow::compute::concat_batches(batches()[0].schema_ref(), &batches()).unwrap();
            let by_keys =
                sorted(&order, &columns_at(&order, &key_places(&order.schema(), &whole.keys).unwrap()));
            assert_eq!(store.read_table(&whole, None).unwrap(), by_keys.unwrap());
        }
    }

    #[test]
    fn what_waits_on_disk_is_gone_afterwards() {
        let (folder, store) = store();
        let waiting = || {
            let owned =
                std::fs::read_dir(folder.path().join("tmp")).unwrap().map(|entry| entry.unwrap().path());
            owned
                .filter(|path| path.is_dir())
                .map(|path| std::fs::read_dir(path).unwrap().count())
                .sum::<usize>()
        };
        let mut writer = store.table_writer(scattered(0..1).schema_ref(), &["id".to_owned()]).unwrap();
        writer.most_held_bytes = 0;
        (0..3).for_each(|part| writer.write(scattered(part * 10..part * 10 + 10)).unwrap());
        assert_eq!(waiting(), 3);
        writer.finish().unwrap();
        assert_eq!(waiting(), 0);
    }

    #[test]
    fn batches_in_order_are_not_put_together() {
        let keys = [0];
        let batches = |ids: &[[i64; 2]]| -> Vec<RecordBatch> {
            let text = Arc::new(StringArray::from(vec!["x".repeat(SMALL_BYTES as usize / 2); 2])) as ArrayRef;
            let of = |ids: &[i64; 2]| {
                let id = Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef;
                RecordBatch::try_from_iter([("id", id), ("text", Arc::clone(&text))]).unwrap()
            };
            ids.iter().map(of).collect()
        };
        let count = |ids: &[[i64; 2]]| {
            let batches = batches(ids);
            in_order(batches.clone(), batches[0].schema_ref(), &keys).unwrap().len()
        };
        assert_eq!(count(&[[1, 2], [3, 4], [4, 5]]), 3);
        assert_eq!(count(&[[1, 2], [1, 4]]), 1);
        assert_eq!(count(&[[2, 1], [3, 4]]), 1);
    }

    #[test]
    fn repeated_keys_are_counted_across_batches_and_runs() {
        let (_folder, store) = store();
        for held_bytes in [u64::MAX, 0] {
            let error = written(&store, vec![scattered(0..100), scattered(90..120)], &["id"], held_bytes);
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with("10 rows repeat the key (id) of another row"), "{error}");
        }
        let zeros = |zero: f64, last: i64| {
            let schema = Arc::new(Schema::new(vec![
                Field::new("x", DataType::Float64, false),
                Field::new("y", DataType::Int64, false),
            ]));
            let columns: Vec<ArrayRef> =
                vec![Arc::new(Float64Array::from(vec![zero; 2])), Arc::new(Int64Array::from(vec![1, last]))];
            RecordBatch::try_new(schema, columns).unwrap()
        };
        let error = written(&store, vec![zeros(-0.0, 2), zeros(0.0, 3)], &["x", "y"], 0).unwrap_err();
        assert!(error.to_string().starts_with("1 rows repeat the key (x, y)"), "-0 is 0: {error}");
    }
}
