//! From sorted rows to the parts and digests of a table, a batch at a time.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, SchemaRef};
use rayon::prelude::*;

use super::order::{columns_at, equal_are_neighbours, key_places};
use super::parquet_file::write_parquet;
use super::{ColumnRecord, TableRecord};
use crate::digest::{Digest, DigestSet};
use crate::keys::{ColumnHasher, row_keys};
use crate::store::{BlobError, Store};

/// A part holds about this many bytes before compression: enough to compress and scan well, little enough
/// that a changed row costs little.
const PART_BYTES: u64 = 16 << 20;

/// A part has at most this many rows, whatever its content says.
const PART_MAX_ROWS: usize = 1 << 20;

/// A table that takes its rows in key order. Batches are hashed and written on all cores; between them only the
/// rows of one unfinished part are held.
pub(super) struct Publisher<'s> {
    store: &'s Store,
    schema: SchemaRef,
    keys: Vec<String>,
    key_places: Vec<usize>,
    key_domain: Digest,
    cutter: Cutter,
    repeats: Repeats,
    hashers: Vec<ColumnHasher>,
    files: BTreeSet<Digest>,
    /// The rows of the part that has not ended.
    open: Vec<RecordBatch>,
    parts: Vec<Digest>,
    rows: u64,
}

impl<'s> Publisher<'s> {
    /// A table of `row_bytes` bytes a row on average, which decides how many rows make a part.
    pub(super) fn new(
        store: &'s Store,
        schema: &SchemaRef,
        keys: &[String],
        row_bytes: u64,
    ) -> Result<Publisher<'s>> {
        let fields = schema.fields().iter();
        let hashers = fields.map(|field| ColumnHasher::new(store.secret(), field.data_type())).collect();
        let places = key_places(schema, keys)?;
        let types = places.iter().map(|place| schema.field(*place).data_type());
        Ok(Publisher {
            store,
            schema: SchemaRef::clone(schema),
            keys: keys.to_vec(),
            key_domain: store.secret().digest("argent table key v1", b""),
            cutter: Cutter::new(row_bytes),
            repeats: Repeats::new(keys.is_empty(), types),
            key_places: places,
            hashers,
            files: BTreeSet::new(),
            open: Vec::new(),
            parts: Vec::new(),
            rows: 0,
        })
    }

    /// Takes the next rows.
    pub(super) fn push(&mut self, sorted: &RecordBatch) -> Result<()> {
        self.rows += sorted.num_rows() as u64;
        let keys = columns_at(sorted, &self.key_places);
        // Their bits decide where parts are cut.
        let digests = row_keys(self.store.secret(), &self.key_domain, &keys, sorted.num_rows())?;
        self.repeats.count(&digests);
        if self.repeats.found > 0 {
            // There will be no table; all that is left is to tell how many rows are wrong.
            return Ok(());
        }
        self.note_files(sorted)?;
        let hashed = self.hashers.par_iter_mut().zip(sorted.columns());
        hashed.try_for_each(|(hasher, column)| hasher.update(column))?;
        let mut ended = Vec::new();
        let mut start = 0;
        for cut in self.cutter.cuts(&digests) {
            self.open.push(sorted.slice(start, cut - start));
            ended.push(std::mem::take(&mut self.open));
            start = cut;
        }
        self.open.push(sorted.slice(start, sorted.num_rows() - start));
        let written = ended.into_par_iter().map(|pieces| self.put_part(&pieces));
        let written = written.collect::<Result<Vec<_>>>()?;
        self.parts.extend(written);
        Ok(())
    }

    /// Ends the table. It is an error if a key occurred twice.
    pub(super) fn finish(mut self) -> Result<TableRecord> {
        ensure!(
            self.repeats.found == 0,
            "{} rows repeat the key ({}) of another row, expected each key once; remove the duplicates or declare \
             more key columns",
            self.repeats.found,
            self.keys.join(", ")
        );
        // A table without rows has a part too, for its schema.
        let left = std::mem::take(&mut self.open);
        if self.parts.is_empty() || left.iter().any(|piece| piece.num_rows() > 0) {
            self.parts.push(self.put_part(&left)?);
        }
        let columns = self.schema.fields().iter().zip(self.hashers);
        let columns = columns.map(|(field, hasher)| ColumnRecord {
            name: field.name().clone(),
            data_type: field.data_type().to_string(),
            digest: hasher.finish(),
        });
        Ok(TableRecord {
            rows: self.rows,
            keys: self.keys,
            columns: columns.collect(),
            parts: self.parts,
            files: self.files.into_iter().collect(),
        })
    }

    fn put_part(&self, pieces: &[RecordBatch]) -> Result<Digest> {
        let part = match pieces {
            [one] => one.clone(),
            several => concat_batches(&self.schema, several)?,
        };
        let mut bytes = Vec::new();
        write_parquet(&mut bytes, part.schema(), [Ok(part)])?;
        self.store.put_bytes(&bytes)
    }

    /// Notes the side files that the rows name.
    fn note_files(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut files = BTreeSet::new();
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            if has_file_role(field) {
                collect_files(field, column, &mut files)?;
            }
        }
        match files.par_iter().find_any(|digest| !self.store.has(digest)) {
            Some(absent) => Err(BlobError::Missing(*absent)).context("a row names a side file"),
            None => {
                self.files.extend(files);
                Ok(())
            }
        }
    }
}

/// Cuts parts where a row's key says so, so that most parts of a table that changed a little are those of the
/// table before.
struct Cutter {
    /// The bits of a key's digest that are zero where a part begins.
    mask: u32,
    /// The key of the row before.
    last: Option<Digest>,
    /// How many rows the unfinished part has.
    open: usize,
}

impl Cutter {
    fn new(row_bytes: u64) -> Cutter {
        let target_rows = (PART_BYTES / row_bytes.max(1)).clamp(1, PART_MAX_ROWS as u64);
        // A power of two, so that a table that grows a little is cut at the same rows.
        Cutter { mask: (1u32 << target_rows.ilog2()) - 1, last: None, open: 0 }
    }

    /// The rows, of those with these keys, that begin a new part; the table's first row is not among them.
    fn cuts(&mut self, keys: &[Digest]) -> Vec<usize> {
        let mut cuts = Vec::new();
        for (row, key) in keys.iter().enumerate() {
            let differs = self.last.is_some_and(|last| last != *key);
            if differs && low_bits(key) & self.mask == 0 || self.open >= PART_MAX_ROWS {
                cuts.push(row);
                self.open = 0;
            }
            self.open += 1;
            self.last = Some(*key);
        }
        cuts
    }
}

fn low_bits(digest: &Digest) -> u32 {
    let [a, b, c, d, ..] = digest.0;
    u32::from_le_bytes([a, b, c, d])
}

/// Counts the rows whose key an earlier row has.
struct Repeats {
    found: u64,
    seen: Seen,
}

enum Seen {
    /// A bag of rows may hold equal ones.
    Bag,
    /// Equal keys are neighbours.
    Last(Option<Digest>),
    /// Equal keys may lie apart.
    All(DigestSet),
}

impl Repeats {
    fn new<'t>(bag: bool, mut types: impl Iterator<Item = &'t DataType>) -> Repeats {
        let seen = match bag {
            true => Seen::Bag,
            false if types.all(equal_are_neighbours) => Seen::Last(None),
            false => Seen::All(DigestSet::default()),
        };
        Repeats { found: 0, seen }
    }

    fn count(&mut self, keys: &[Digest]) {
        match &mut self.seen {
            Seen::Bag => {}
            Seen::Last(last) => {
                for key in keys {
                    self.found += u64::from(last.replace(*key) == Some(*key));
                }
            }
            Seen::All(seen) => self.found += keys.iter().filter(|key| !seen.insert(**key)).count() as u64,
        }
    }
}

/// Whether the field's role list (metadata `role`, separated by commas) holds `file`.
pub(super) fn has_file_role(field: &Field) -> bool {
    field.metadata().get("role").is_some_and(|roles| roles.split(',').any(|role| role.trim() == "file"))
}

fn collect_files(field: &Field, column: &ArrayRef, files: &mut BTreeSet<Digest>) -> Result<()> {
    let name = field.name();
    let texts =
        cast(column, &DataType::Utf8).ok().filter(|_| is_text(column.data_type())).with_context(|| {
            format!("column `{name}` of role file has type {}, expected text", column.data_type())
        })?;
    for (row, text) in texts.as_string::<i32>().iter().enumerate() {
        if let Some(text) = text {
            let digest = text.parse().with_context(|| format!("column `{name}` of role file, row {row}"))?;
            files.insert(digest);
        }
    }
    Ok(())
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(rows: std::ops::Range<u32>) -> Vec<Digest> {
        rows.map(|row| Digest(*blake3::hash(&row.to_le_bytes()).as_bytes())).collect()
    }

    #[test]
    fn parts_are_cut_where_keys_say() {
        let cuts = |digests: &[Digest]| Cutter::new(PART_BYTES / 100).cuts(digests);
        let whole = cuts(&digests(0..10_000));
        assert!((60..300).contains(&whole.len()), "{} cuts, one every 64 rows", whole.len());
        let moved = cuts(&digests(1..10_000));
        let shifted: Vec<usize> = whole.iter().filter(|cut| **cut > 1).map(|cut| cut - 1).collect();
        assert!(moved.ends_with(&shifted), "a row removed at the beginning moves no later cut");
        assert_eq!(cuts(&[]), Vec::<usize>::new());
        let equal = Cutter::new(PART_BYTES * 2).cuts(&[Digest([0; 32]); 5]);
        assert_eq!(equal, Vec::<usize>::new(), "equal rows stay together");
    }

    #[test]
    fn batches_are_cut_as_the_whole_is() {
        let all = digests(0..10_000);
        let whole = Cutter::new(PART_BYTES / 100).cuts(&all);
        let mut cutter = Cutter::new(PART_BYTES / 100);
        let mut cuts = Vec::new();
        for (number, some) in all.chunks(777).enumerate() {
            cuts.extend(cutter.cuts(some).into_iter().map(|cut| number * 777 + cut));
        }
        assert_eq!(cuts, whole);
    }
}
