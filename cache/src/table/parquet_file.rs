//! The Parquet format: the only file that knows it.

use std::fs::{File, Permissions};
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{ChunkReader, Length};

use super::order::column_position;

/// The rows of a Parquet file of the user's, its field metadata included.
///
/// It is an error, naming the file, if it cannot be read or is not Parquet.
pub fn read_parquet_file(path: &Path) -> Result<RecordBatch> {
    let read = || ParquetFile::open(File::open(path)?)?.read(None);
    read().with_context(|| format!("cannot read {} as Parquet", path.display()))
}

/// The rows of a Parquet file of the user's, in batches of at most so many.
///
/// It is an error, naming the file, if it cannot be opened or is not Parquet.
pub fn parquet_file_batches(path: &Path, rows: usize) -> Result<Batches> {
    let open = || ParquetFile::open(File::open(path)?)?.batches(rows);
    open().with_context(|| format!("cannot read {} as Parquet", path.display()))
}

/// The column names of a Parquet file of the user's.
///
/// It is an error, naming the file, if it cannot be opened or is not Parquet.
pub fn parquet_file_columns(path: &Path) -> Result<Vec<String>> {
    let read = || -> Result<Vec<String>> {
        let file = ParquetFile::open(File::open(path)?)?;
        Ok(file.metadata.schema().fields().iter().map(|field| field.name().clone()).collect())
    };
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
    write(sink, schema, batches, Compression::ZSTD(ZstdLevel::default()))
}

/// Writes as [`write_parquet`] does a file that is read once and soon: quickly, and not as small as can be.
pub(crate) fn write_passing(
    sink: impl Write + Send,
    schema: SchemaRef,
    batches: impl IntoIterator<Item = Result<RecordBatch>>,
) -> Result<()> {
    write(sink, schema, batches, Compression::SNAPPY)
}

fn write(
    sink: impl Write + Send,
    schema: SchemaRef,
    batches: impl IntoIterator<Item = Result<RecordBatch>>,
    compression: Compression,
) -> Result<()> {
    let mut writer = ArrowWriter::try_new(sink, schema, Some(writer_properties(compression)))?;
    for batch in batches {
        writer.write(&batch?)?;
        writer.flush()?;
    }
    writer.close()?;
    Ok(())
}

/// A file that many read at once, each from a place of its own: a [`File`] and its clones share one position.
#[derive(Clone)]
struct SharedFile(Arc<File>);

impl Length for SharedFile {
    fn len(&self) -> u64 {
        self.0.metadata().map_or(0, |metadata| metadata.len())
    }
}

impl ChunkReader for SharedFile {
    type T = BufReader<ReadFrom>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(BufReader::new(ReadFrom { file: Arc::clone(&self.0), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// What stands in a file from a place on.
struct ReadFrom {
    file: Arc<File>,
    at: u64,
}

impl Read for ReadFrom {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(bytes, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// An open Parquet file.
pub(crate) struct ParquetFile {
    file: SharedFile,
    metadata: ArrowReaderMetadata,
}

impl ParquetFile {
    /// Reads the footer.
    pub(crate) fn open(file: File) -> Result<ParquetFile> {
        let file = SharedFile(Arc::new(file));
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

    /// All rows in batches of at most so many.
    pub(crate) fn batches(self, rows: usize) -> Result<Batches> {
        let ParquetFile { file, metadata } = self;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
        Ok(Batches(builder.with_batch_size(rows.max(1)).build()?))
    }

    fn read_rows(&self, columns: Option<&[&str]>, rows: usize, group: Option<usize>) -> Result<RecordBatch> {
        let schema = self.metadata.schema();
        let mut builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone())
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

/// The rows of a Parquet file, a batch at a time.
pub struct Batches(ParquetRecordBatchReader);

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        Some(self.0.next()?.map_err(Into::into))
    }
}

/// Fixed, so that equal tables are equal bytes under every version of the Parquet library that encodes alike.
fn writer_properties(compression: Compression) -> WriterProperties {
    WriterProperties::builder().set_created_by("argent".to_owned()).set_compression(compression).build()
}
