//! Tables as Parquet: the only file that knows the format.

use std::collections::{BTreeSet, HashSet};
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchReader, UInt32Array};
use arrow::compute::{SortColumn, cast, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestSet};
use crate::keys::{column_digest, row_keys};
use crate::store::{BlobError, Store};

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
    /// The digest of its cells in key order, from [`column_digest`].
    pub digest: Digest,
}

/// A part holds about this many bytes before compression: enough to compress and scan well, little enough
/// that a changed row costs little.
const PART_BYTES: usize = 16 << 20;

/// A part has at most this many rows, whatever its content says.
const PART_MAX_ROWS: usize = 1 << 20;

impl Store {
    /// Keeps a table, its rows sorted by the columns `keys`.
    ///
    /// Key values are unique and not null; anything else is an error that names the key columns and no
    /// cell. A table without key columns is a bag of rows: it is sorted by all of them, and may hold equal
    /// rows and nulls, since nothing can be joined to it by a key that it does not declare.
    ///
    /// Parts are cut where a row's key says so, so most parts of a table that changed a little are those of
    /// the table before. A text column whose field has the role `file` (metadata `role`, separated by
    /// commas) names side files by digest; it is an error if it holds something else, and a [`BlobError`]
    /// if the store has no such blob. Errors also: a key that is no column, a column of a type that cannot
    /// be stored, no column at all, two columns of one name.
    pub fn put_table(&self, batch: &RecordBatch, keys: &[String]) -> Result<TableRecord> {
        check_names(batch.schema_ref())?;
        let key_columns = key_columns(batch, keys)?;
        check_keys(&key_columns, keys)?;
        let sorted = sort(batch, &key_columns)?;
        let key_digests = self.key_digests(&sorted, keys)?;
        if !keys.is_empty() {
            check_unique(&key_digests, keys)?;
        }
        let files = self.side_files(&sorted)?;
        let digests = sorted.columns().par_iter().map(|column| column_digest(self.secret(), column));
        let digests = digests.collect::<Result<Vec<_>>>()?;
        let columns = sorted.schema_ref().fields().iter().zip(digests).map(|(field, digest)| ColumnRecord {
            name: field.name().clone(),
            data_type: field.data_type().to_string(),
            digest,
        });
        Ok(TableRecord {
            rows: sorted.num_rows() as u64,
            keys: keys.to_vec(),
            columns: columns.collect(),
            parts: self.put_parts(&sorted, &key_digests)?,
            files,
        })
    }

    /// The rows of a table in key order: all columns, or those named, in the order named.
    ///
    /// Every part is checked against its digest the first time this process reads it. Field metadata is as
    /// it was. If a part is missing or damaged the error is a [`BlobError`]
    /// (`error.downcast_ref::<BlobError>()`). It is an error to name a column that the table lacks.
    pub fn read_table(&self, table: &TableRecord, columns: Option<&[&str]>) -> Result<RecordBatch> {
        let parts = table.parts.par_iter().map(|digest| {
            let part = ParquetFile::open(self.open_verified(digest)?);
            part.and_then(|part| part.read(columns)).with_context(|| format!("part {}", digest.short()))
        });
        let batch = one_batch(parts.collect::<Result<Vec<_>>>()?)?;
        ensure!(
            batch.num_rows() as u64 == table.rows,
            "the parts of a table have {} rows, expected {}",
            batch.num_rows(),
            table.rows
        );
        Ok(batch)
    }

    /// Reads all blobs of a table and takes their names from those that are damaged, so that they can be made
    /// again. Blobs that this process has checked before are not read.
    pub fn check_table(&self, table: &TableRecord) {
        table.parts.par_iter().chain(&table.files).for_each(|digest| {
            // What is missing or damaged is what is looked for, and is told of by whoever needs it.
            let _ = self.path(digest);
        });
    }

    /// For each row a digest of its key, whose bits decide where parts are cut.
    fn key_digests(&self, sorted: &RecordBatch, keys: &[String]) -> Result<Vec<Digest>> {
        let domain = self.secret().digest("argent table key v1", b"");
        row_keys(self.secret(), &domain, &key_columns(sorted, keys)?, sorted.num_rows())
    }

    fn put_parts(&self, sorted: &RecordBatch, key_digests: &[Digest]) -> Result<Vec<Digest>> {
        let row_bytes = sorted.get_array_memory_size() / sorted.num_rows().max(1);
        let starts = part_starts(key_digests, row_bytes);
        let ends = starts.iter().skip(1).copied().chain([sorted.num_rows()]);
        let parts: Vec<_> = starts.iter().copied().zip(ends).collect();
        parts.into_par_iter().map(|(start, end)| self.put_part(&sorted.slice(start, end - start))).collect()
    }

    fn put_part(&self, part: &RecordBatch) -> Result<Digest> {
        let mut bytes = Vec::new();
        write_parquet(&mut bytes, part.schema(), [Ok(part.clone())])?;
        self.put_bytes(&bytes)
    }

    /// The side files that the rows name.
    fn side_files(&self, batch: &RecordBatch) -> Result<Vec<Digest>> {
        let mut files = BTreeSet::new();
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            if has_file_role(field) {
                collect_files(field, column, &mut files)?;
            }
        }
        match files.par_iter().find_any(|digest| !self.has(digest)) {
            Some(absent) => Err(BlobError::Missing(*absent)).context("a row names a side file"),
            None => Ok(files.into_iter().collect()),
        }
    }
}

/// The rows of a Parquet file of the user's, its field metadata included.
///
/// It is an error, naming the file, if it cannot be read or is not Parquet.
pub fn read_parquet_file(path: &Path) -> Result<RecordBatch> {
    let read = || ParquetFile::open(File::open(path)?)?.read(None);
    read().with_context(|| format!("cannot read {} as Parquet", path.display()))
}

/// Writes a Parquet file for the user, whole or not at all, in place of what is there.
///
/// It is an error, naming the file, if it cannot be written.
pub fn write_parquet_file(path: &Path, batch: &RecordBatch) -> Result<()> {
    let write = || -> Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The user's own file has the mode that their umask gives, unlike what lies in the store.
        let readable = Permissions::from_mode(0o666);
        let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(folder)?;
        write_parquet(&mut file, batch.schema(), [Ok(batch.clone())])?;
        file.as_file().sync_data()?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Writes batches of one schema, each as its own row group.
pub(crate) fn write_parquet(
    sink: impl Write + Send,
    schema: SchemaRef,
    batches: impl IntoIterator<Item = Result<RecordBatch>>,
) -> Result<()> {
    let mut writer = ArrowWriter::try_new(sink, schema, Some(writer_properties()))?;
    for batch in batches {
        writer.write(&batch?)?;
        writer.flush()?;
    }
    writer.close()?;
    Ok(())
}

/// An open Parquet file.
pub(crate) struct ParquetFile {
    file: File,
    metadata: ArrowReaderMetadata,
}

impl ParquetFile {
    /// Reads the footer.
    pub(crate) fn open(file: File) -> Result<ParquetFile> {
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?;
        Ok(ParquetFile { file, metadata })
    }

    /// All rows: all columns, or those named, in the order named.
    pub(crate) fn read(&self, columns: Option<&[&str]>) -> Result<RecordBatch> {
        let rows = usize::try_from(self.metadata.metadata().file_metadata().num_rows())?;
        self.read_rows(columns, rows, None)
    }

    /// The rows of each row group.
    pub(crate) fn group_rows(&self) -> Result<Vec<usize>> {
        let groups = self.metadata.metadata().row_groups().iter();
        groups.map(|group| Ok(usize::try_from(group.num_rows())?)).collect()
    }

    /// One row group, the columns in the order named.
    pub(crate) fn read_group(&self, group: usize, columns: &[&str]) -> Result<RecordBatch> {
        let rows = self.group_rows()?.get(group).copied().context("no such row group")?;
        self.read_rows(Some(columns), rows, Some(group))
    }

    fn read_rows(&self, columns: Option<&[&str]>, rows: usize, group: Option<usize>) -> Result<RecordBatch> {
        let schema = self.metadata.schema();
        let mut builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.try_clone()?, self.metadata.clone())
                .with_batch_size(rows.max(1));
        if let Some(columns) = columns {
            let roots =
                columns.iter().map(|name| column_position(schema, name)).collect::<Result<Vec<_>>>()?;
            let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
            builder = builder.with_projection(mask);
        }
        if let Some(group) = group {
            builder = builder.with_row_groups(vec![group]);
        }
        let reader = builder.build()?;
        let read_schema = reader.schema();
        let batches = reader.collect::<std::result::Result<Vec<_>, _>>()?;
        let batch = concat_batches(&read_schema, &batches)?;
        let Some(columns) = columns else { return Ok(batch) };
        let order =
            columns.iter().map(|name| column_position(&read_schema, name)).collect::<Result<Vec<_>>>()?;
        Ok(batch.project(&order)?)
    }
}

/// Fixed, so that equal tables are equal bytes under every version of the Parquet library that encodes alike.
fn writer_properties() -> WriterProperties {
    WriterProperties::builder()
        .set_created_by("argent".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build()
}

fn one_batch(parts: Vec<RecordBatch>) -> Result<RecordBatch> {
    let Some(first) = parts.first() else { bail!("a table record without parts, expected at least one") };
    Ok(if parts.len() == 1 { first.clone() } else { concat_batches(first.schema_ref(), &parts)? })
}

/// The first row of each part: 0, and wherever the digest of the row's key ends in enough zero bits that
/// parts hold about [`PART_BYTES`].
fn part_starts(key_digests: &[Digest], row_bytes: usize) -> Vec<usize> {
    let target_rows = (PART_BYTES / row_bytes.max(1)).clamp(1, PART_MAX_ROWS);
    // A power of two, so that a table that grows a little is cut at the same rows.
    let mask = (1u32 << target_rows.ilog2()) - 1;
    let mut starts = vec![0];
    for row in 1..key_digests.len() {
        let begins = key_digests[row] != key_digests[row - 1] && low_bits(&key_digests[row]) & mask == 0;
        if begins || row - starts[starts.len() - 1] >= PART_MAX_ROWS {
            starts.push(row);
        }
    }
    starts
}

fn low_bits(digest: &Digest) -> u32 {
    let [a, b, c, d, ..] = digest.0;
    u32::from_le_bytes([a, b, c, d])
}

fn check_names(schema: &Schema) -> Result<()> {
    ensure!(!schema.fields().is_empty(), "a table without columns, expected at least one");
    let mut seen = HashSet::new();
    for field in schema.fields() {
        ensure!(seen.insert(field.name()), "two columns are named `{}`; rename one of them", field.name());
    }
    Ok(())
}

/// The key columns of a batch: those named, or all if none is named.
fn key_columns(batch: &RecordBatch, keys: &[String]) -> Result<Vec<ArrayRef>> {
    if keys.is_empty() {
        return Ok(batch.columns().to_vec());
    }
    let schema = batch.schema_ref();
    keys.iter().map(|key| Ok(Arc::clone(batch.column(column_position(schema, key)?)))).collect()
}

fn column_position(schema: &Schema, name: &str) -> Result<usize> {
    schema.fields().iter().position(|field| field.name() == name).with_context(|| {
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        format!("no column `{name}`, expected one of {}", names.join(", "))
    })
}

fn check_keys(columns: &[ArrayRef], keys: &[String]) -> Result<()> {
    for (key, column) in keys.iter().zip(columns) {
        let nulls = column.logical_null_count();
        ensure!(nulls == 0, "key column `{key}` is null in {nulls} rows, expected a value in each");
    }
    Ok(())
}

/// Compared by digest: values that are equal (such as -0 and 0) need not be neighbours in Arrow's order.
fn check_unique(key_digests: &[Digest], keys: &[String]) -> Result<()> {
    let distinct: DigestSet = key_digests.iter().copied().collect();
    let repeated = key_digests.len() - distinct.len();
    ensure!(
        repeated == 0,
        "{repeated} rows repeat the key ({}) of another row, expected each key once; remove the duplicates or \
         declare more key columns",
        keys.join(", ")
    );
    Ok(())
}

fn sort(batch: &RecordBatch, key_columns: &[ArrayRef]) -> Result<RecordBatch> {
    let columns: Vec<_> =
        key_columns.iter().map(|values| SortColumn { values: Arc::clone(values), options: None }).collect();
    let order = lexsort_to_indices(&columns, None)?;
    if is_identity(&order) {
        return Ok(batch.clone());
    }
    Ok(take_record_batch(batch, &order)?)
}

fn is_identity(order: &UInt32Array) -> bool {
    order.values().iter().enumerate().all(|(row, from)| row == *from as usize)
}

/// Whether the field's role list (metadata `role`, separated by commas) holds `file`.
fn has_file_role(field: &Field) -> bool {
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
mod tests;
