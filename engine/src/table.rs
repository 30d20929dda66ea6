//! The tables that fill ports: stored ones, and lists of files that stand on disk or in another step's rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use argent_cache::keys::column_digest;
use argent_cache::{Digest, Store, TableRecord};
use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Int64Type, SchemaRef};

use crate::column;

/// A table that fills a port.
#[derive(Debug, Clone)]
pub enum Table {
    /// One that lies in the store.
    Stored(TableRecord),
    /// One that is made up for this run: files, their digests and sizes.
    Listed(RecordBatch),
}

impl Table {
    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        match self {
            Table::Stored(record) => record.rows,
            Table::Listed(batch) => batch.num_rows() as u64,
        }
    }

    /// The columns that name a row; none where all of them do.
    pub(crate) fn keys(&self) -> &[String] {
        match self {
            Table::Stored(record) => &record.keys,
            Table::Listed(_) => &[],
        }
    }

    /// Whether it has a column.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Table::Stored(record) => record.columns.iter().any(|c| c.name == name),
            Table::Listed(batch) => batch.column_by_name(name).is_some(),
        }
    }

    /// The digests of these columns.
    ///
    /// # Errors
    /// When a column is not there.
    pub fn digests(&self, store: &Store, columns: &[String]) -> anyhow::Result<BTreeMap<String, Digest>> {
        columns.iter().map(|name| Ok((name.clone(), self.digest(store, name)?))).collect()
    }

    /// These columns' cells.
    ///
    /// # Errors
    /// When a column is not there or the stored table does not read.
    pub fn read(&self, store: &Store, columns: &[String]) -> anyhow::Result<RecordBatch> {
        match self {
            Table::Stored(record) => {
                let names: Vec<&str> = columns.iter().map(String::as_str).collect();
                store.read_table(record, Some(&names))
            }
            Table::Listed(batch) => {
                let places: Result<Vec<usize>, _> =
                    columns.iter().map(|c| batch.schema().index_of(c)).collect();
                Ok(batch.project(&places?)?)
            }
        }
    }

    fn digest(&self, store: &Store, name: &str) -> anyhow::Result<Digest> {
        match self {
            Table::Stored(record) => record
                .columns
                .iter()
                .find(|c| c.name == name)
                .map(|c| c.digest)
                .with_context(|| format!("the stored table has no column `{name}`")),
            Table::Listed(batch) => {
                let column =
                    batch.column_by_name(name).with_context(|| format!("files have no column `{name}`"))?;
                column_digest(store.secret(), column.as_ref())
            }
        }
    }
}

/// The rows of a finished table, which need not fit into memory together.
pub struct Rows<'a> {
    store: &'a Store,
    table: &'a TableRecord,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(store: &'a Store, table: &'a TableRecord) -> Rows<'a> {
        Rows { store, table }
    }

    /// These columns, piece by piece.
    pub fn chunks(&self, columns: &[&str]) -> impl Iterator<Item = anyhow::Result<RecordBatch>> + 'a {
        self.store.table_chunks(self.table, columns)
    }
}

/// The stored ones of a step's input tables, by port, without the lists of their side files, which their
/// makers' manifests hold.
pub fn stored(inputs: &BTreeMap<String, Table>) -> BTreeMap<String, TableRecord> {
    let stored = inputs.iter().filter_map(|(port, table)| match table {
        Table::Stored(record) => Some((port.clone(), TableRecord { files: Vec::new(), ..record.clone() })),
        Table::Listed(_) => None,
    });
    stored.collect()
}

/// The columns of a list of files: `path`, as found below the spec's folder; `digest`; `bytes`, null where
/// another step made the files and does not tell.
pub fn files_schema() -> SchemaRef {
    column::schema([column::id("path"), column::source("digest"), column::whole("bytes")])
}

/// The files on disk that match any of the patterns, relative ones below `folder`, sorted by path.
///
/// # Errors
/// When a pattern is not one, or a file does not read.
pub fn files_on_disk(store: &Store, folder: &Path, patterns: &[String]) -> anyhow::Result<RecordBatch> {
    let mut rows = Vec::new();
    for path in matching_paths(folder, patterns)? {
        let stat = store.file_digest(&path)?;
        rows.push((shown_path(folder, &path), stat.digest, Some(i64::try_from(stat.bytes)?)));
    }
    files_batch(rows)
}

/// The paths on disk that match any of the patterns, sorted, each once.
///
/// # Errors
/// When a pattern is not one, or a folder does not read.
pub fn matching_paths(folder: &Path, patterns: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for pattern in patterns {
        let full = folder.join(pattern);
        let full = full.to_str().with_context(|| format!("the pattern `{pattern}` is not UTF-8 text"))?;
        for path in glob::glob(full).with_context(|| format!("`{pattern}` is not a glob pattern"))? {
            let path = path?;
            if path.is_file() {
                paths.push(path);
            }
        }
    }
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// The files that another step's rows name and that match any of the patterns, sorted by path.
///
/// # Errors
/// When a pattern is not one, or none of the paths matches.
pub fn files_of_table(store: &Store, table: &Table, patterns: &[String]) -> anyhow::Result<RecordBatch> {
    let batch = table.read(store, &["path".into(), "digest".into()])?;
    let sizes = table.has("bytes").then(|| table.read(store, &["bytes".into()])).transpose()?;
    let sizes = sizes.and_then(|b| b.column(0).as_primitive_opt::<Int64Type>().cloned());
    let patterns: Vec<glob::Pattern> = patterns
        .iter()
        .map(|p| glob::Pattern::new(p).with_context(|| format!("`{p}` is not a glob pattern")))
        .collect::<anyhow::Result<_>>()?;
    let (paths, digests) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
    let mut rows = Vec::new();
    for row in 0..batch.num_rows() {
        let path = paths.value(row);
        if patterns.iter().any(|p| p.matches(path)) && digests.is_valid(row) {
            let digest: Digest = digests.value(row).parse()?;
            // Only what opens a file verifies it: listing must not read a whole data set.
            let bytes = sizes.as_ref().filter(|sizes| sizes.is_valid(row)).map(|sizes| sizes.value(row));
            rows.push((path.to_owned(), digest, bytes));
        }
    }
    if rows.is_empty() {
        bail!("none of the {} files of the table matches the pattern", batch.num_rows());
    }
    files_batch(rows)
}

fn files_batch(mut rows: Vec<(String, Digest, Option<i64>)>) -> anyhow::Result<RecordBatch> {
    rows.sort();
    let paths = StringArray::from_iter_values(rows.iter().map(|r| r.0.as_str()));
    let digests = StringArray::from_iter_values(rows.iter().map(|r| r.1.to_string()));
    let bytes: Int64Array = rows.iter().map(|r| r.2).collect();
    Ok(RecordBatch::try_new(files_schema(), vec![Arc::new(paths), Arc::new(digests), Arc::new(bytes)])?)
}

fn shown_path(folder: &Path, path: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned()
}
