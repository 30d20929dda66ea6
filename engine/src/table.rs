//! The tables that fill ports: stored ones, and lists of files that stand on disk or in another step's rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use argent_cache::keys::{column_digest, json_digest};
use argent_cache::{Digest, Store, TableRecord};
use arrow::array::{Array, Int64Array, RecordBatch, StringArray, UInt64Array, new_null_array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use serde_json::json;

use crate::axes;
use crate::column;
use crate::joining::texts;
use crate::pipeline::AxisCell;

/// A table that fills a port.
#[derive(Debug, Clone)]
pub enum Table {
    /// One that lies in the store.
    Stored(TableRecord),
    /// One that is made up for this run: files, their digests and sizes.
    Listed(RecordBatch),
    /// The combinations of a matrix, one below the other, with a column per axis in front.
    Gathered(Vec<Member>),
}

/// One of the tables that are gathered.
#[derive(Debug, Clone)]
pub struct Member {
    /// The axes that tell it from the others.
    pub axes: Vec<AxisCell>,
    /// Its rows.
    pub table: TableRecord,
}

impl Table {
    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        match self {
            Table::Stored(record) => record.rows,
            Table::Listed(batch) => batch.num_rows() as u64,
            Table::Gathered(members) => members.iter().map(|member| member.table.rows).sum(),
        }
    }

    /// The columns that name a row; none where all of them do.
    pub(crate) fn keys(&self) -> Vec<String> {
        match self {
            Table::Stored(record) => record.keys.clone(),
            Table::Listed(_) => Vec::new(),
            Table::Gathered(members) => match members.first() {
                // Rows that no key tells apart in their own table are told apart by none here.
                Some(first) if !first.table.keys.is_empty() => {
                    let axes = first.axes.iter().map(|cell| cell.field.name().clone());
                    axes.chain(first.table.keys.iter().cloned()).collect()
                }
                _ => Vec::new(),
            },
        }
    }

    /// Whether it has a column.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Table::Stored(record) => record.columns.iter().any(|c| c.name == name),
            Table::Listed(batch) => batch.column_by_name(name).is_some(),
            Table::Gathered(members) => members.iter().all(|member| {
                let is_axis = member.axes.iter().any(|cell| cell.field.name() == name);
                is_axis || member.table.columns.iter().any(|c| c.name == name)
            }),
        }
    }

    /// The names of its columns.
    fn columns(&self) -> Vec<String> {
        match self {
            Table::Stored(record) => record.columns.iter().map(|column| column.name.clone()).collect(),
            Table::Listed(batch) => {
                batch.schema().fields().iter().map(|field| field.name().clone()).collect()
            }
            Table::Gathered(members) => members.first().map(Member::columns).unwrap_or_default(),
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
            Table::Gathered(members) => {
                let batches = members.iter().map(|member| member.read(store, columns));
                let batches = batches.collect::<anyhow::Result<Vec<_>>>()?;
                let schema = batches.first().context("nothing is gathered")?.schema();
                Ok(concat_batches(&schema, &batches)?)
            }
        }
    }

    fn digest(&self, store: &Store, name: &str) -> anyhow::Result<Digest> {
        match self {
            Table::Stored(record) => record_digest(record, name),
            Table::Listed(batch) => {
                let column =
                    batch.column_by_name(name).with_context(|| format!("files have no column `{name}`"))?;
                column_digest(store.secret(), column.as_ref())
            }
            Table::Gathered(members) => {
                // No rows are read to tell whether they are the same: each member's column has its digest.
                let digests = members.iter().map(|member| member.digest(store, name));
                let digests = digests.collect::<anyhow::Result<Vec<Digest>>>()?;
                let bytes: Vec<u8> = digests.iter().flat_map(|digest| digest.0).collect();
                Ok(store.secret().digest("argent gathered column", &bytes))
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

impl Member {
    /// The names of its columns, those of axes in front.
    fn columns(&self) -> Vec<String> {
        let axes = self.axes.iter().map(|cell| cell.field.name().clone());
        axes.chain(self.table.columns.iter().map(|column| column.name.clone())).collect()
    }

    /// The named columns, those of axes included, in that order.
    fn read(&self, store: &Store, columns: &[String]) -> anyhow::Result<RecordBatch> {
        let own = columns.iter().filter(|name| self.axis(name).is_none()).map(String::as_str);
        let own: Vec<&str> = own.collect();
        let rows = usize::try_from(self.table.rows)?;
        let batch = if own.is_empty() { None } else { Some(store.read_table(&self.table, Some(&own))?) };
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        for name in columns {
            if let Some(cell) = self.axis(name) {
                fields.push(cell.field.clone());
                arrays.push(axes::cells(cell.field.data_type(), &cell.value, rows));
                continue;
            }
            let batch = batch.as_ref().context("a column that is no axis was read")?;
            let place = batch.schema().index_of(name)?;
            fields.push(batch.schema().field(place).clone());
            arrays.push(batch.column(place).clone());
        }
        Ok(RecordBatch::try_new(column::schema(fields), arrays)?)
    }

    /// The digest of a column; that of an axis is of its type, its value and how many rows have it.
    fn digest(&self, store: &Store, name: &str) -> anyhow::Result<Digest> {
        let Some(cell) = self.axis(name) else { return record_digest(&self.table, name) };
        let value = json!([cell.field.data_type().to_string(), cell.value, self.table.rows]);
        Ok(json_digest(store.secret(), "argent axis column", &value))
    }

    fn axis(&self, name: &str) -> Option<&AxisCell> {
        self.axes.iter().find(|cell| cell.field.name() == name)
    }
}

fn record_digest(record: &TableRecord, name: &str) -> anyhow::Result<Digest> {
    let found = record.columns.iter().find(|c| c.name == name).map(|c| c.digest);
    found.with_context(|| format!("the stored table has no column `{name}`"))
}

/// The stored ones of a step's input tables, by port, without the lists of their side files, which their
/// makers' manifests hold. A gathered port is one entry per combination: `scores[seed=1]`.
pub fn stored(inputs: &BTreeMap<String, Table>) -> BTreeMap<String, TableRecord> {
    let bare = |record: &TableRecord| TableRecord { files: Vec::new(), ..record.clone() };
    let mut stored = BTreeMap::new();
    for (port, table) in inputs {
        match table {
            Table::Stored(record) => drop(stored.insert(port.clone(), bare(record))),
            Table::Listed(_) => {}
            Table::Gathered(members) => {
                let named = |member: &Member| {
                    let axes = member.axes.iter().map(|c| (c.field.name().clone(), c.value.clone()));
                    (axes::name(port, &axes.collect::<Vec<_>>()), bare(&member.table))
                };
                stored.extend(members.iter().map(named));
            }
        }
    }
    stored
}

/// The tables of a result's ports, from what [`stored`] made of them; `now` are those of the same step's ports
/// now, which say how an axis's column is called and typed.
pub(crate) fn restored(
    inputs: &BTreeMap<String, TableRecord>,
    now: &BTreeMap<String, Table>,
) -> BTreeMap<String, Table> {
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    for (name, record) in inputs {
        let Some((port, axes)) = axes::parse(name).filter(|(_, axes)| !axes.is_empty()) else {
            tables.insert(name.clone(), Table::Stored(record.clone()));
            continue;
        };
        let fields = match now.get(port) {
            Some(Table::Gathered(members)) => members.first().map(|member| member.axes.as_slice()),
            _ => None,
        };
        let cell = |(axis, value): &(String, String)| {
            let known = fields.unwrap_or_default().iter().find(|cell| cell.field.name() == axis);
            let field = known.map_or_else(|| axes::field(axis, [value.as_str()]), |cell| cell.field.clone());
            AxisCell { field, value: value.clone() }
        };
        let member = Member { axes: axes.iter().map(cell).collect(), table: record.clone() };
        match tables.entry(port.to_owned()).or_insert_with(|| Table::Gathered(Vec::new())) {
            Table::Gathered(members) => members.push(member),
            Table::Stored(_) | Table::Listed(_) => {}
        }
    }
    tables
}

/// The columns of a list of files: `path`, as found below the spec's folder; `digest`; `bytes`, null where
/// another step made the files and does not tell; `slices`, null where a row is one file.
pub fn files_schema() -> SchemaRef {
    column::schema([
        column::id("path"),
        column::source("digest"),
        column::whole("bytes"),
        column::slices(column::SLICES),
    ])
}

/// The columns of the list of files that a table names. One that has `slices` names what its rows are of by itself, so its
/// id columns stand in front.
pub fn files_schema_of(table: &Schema) -> SchemaRef {
    let files = files_schema();
    let ids = ids_of_slices(table).into_iter().filter_map(|name| table.field_with_name(&name).ok().cloned());
    column::schema(ids.chain(files.fields().iter().map(|field| field.as_ref().clone())))
}

/// The id columns of a table that has `slices`.
fn ids_of_slices(table: &Schema) -> Vec<String> {
    let has_slices = table.field_with_name(column::SLICES).is_ok();
    let ids = column::names_with_role(table, "id");
    ids.into_iter().filter(|name| has_slices && name != "path").collect()
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

/// The files that another step's rows name and that match any of the patterns, sorted by path; without patterns, all.
///
/// # Errors
/// When a pattern is not one, or none of the paths matches.
pub fn files_of_table(store: &Store, table: &Table, patterns: &[String]) -> anyhow::Result<RecordBatch> {
    let batch = if table.has(column::SLICES) {
        table.read(store, &table.columns())?
    } else {
        let sizes = ["bytes".to_owned()].into_iter().filter(|name| table.has(name));
        table.read(store, &["path".into(), "digest".into()].into_iter().chain(sizes).collect::<Vec<_>>())?
    };
    let patterns: Vec<glob::Pattern> = patterns
        .iter()
        .map(|p| glob::Pattern::new(p).with_context(|| format!("`{p}` is not a glob pattern")))
        .collect::<anyhow::Result<_>>()?;
    let (paths, digests) = (texts(&batch, "path")?, texts(&batch, "digest")?);
    // Only what opens a file verifies it: listing must not read a whole data set.
    let matches = |path: &str| patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(path));
    let mut rows: Vec<usize> = (0..batch.num_rows())
        .filter(|row| paths.is_valid(*row) && digests.is_valid(*row) && matches(paths.value(*row)))
        .collect();
    if rows.is_empty() && !patterns.is_empty() {
        bail!("none of the {} files of the table matches the pattern", batch.num_rows());
    }
    rows.sort_by_key(|row| (paths.value(*row), digests.value(*row)));
    let schema = files_schema_of(batch.schema_ref());
    let column = |field: &Field| match batch.column_by_name(field.name()) {
        Some(cells) => {
            cast(cells, field.data_type()).context("a column of the files' table is of another type")
        }
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    };
    let columns = schema.fields().iter().map(|field| column(field)).collect::<anyhow::Result<Vec<_>>>()?;
    let places = UInt64Array::from_iter_values(rows.into_iter().map(|row| row as u64));
    Ok(take_record_batch(&RecordBatch::try_new(schema, columns)?, &places)?)
}

fn files_batch(mut rows: Vec<(String, Digest, Option<i64>)>) -> anyhow::Result<RecordBatch> {
    rows.sort();
    let schema = files_schema();
    let paths = StringArray::from_iter_values(rows.iter().map(|r| r.0.as_str()));
    let digests = StringArray::from_iter_values(rows.iter().map(|r| r.1.to_string()));
    let bytes: Int64Array = rows.iter().map(|r| r.2).collect();
    let slices = new_null_array(column::slices(column::SLICES).data_type(), rows.len());
    Ok(RecordBatch::try_new(schema, vec![Arc::new(paths), Arc::new(digests), Arc::new(bytes), slices])?)
}

fn shown_path(folder: &Path, path: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned()
}
