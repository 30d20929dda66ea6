//! What operators that read tabular files share: their files, and the columns that parameters name in them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use argent_engine::operator::{FILES, nearest};
use argent_engine::{Inputs, Io, Problem, table};
use arrow::array::{ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::datatypes::SchemaRef;

use crate::ids::IdReader;
use crate::records::{self, Record, Records};

/// Hands the files of the `files` port to `collect`, one after the other. A file that does not read at all fails
/// the step: its rows are not known, so nothing else could stand for them.
///
/// # Errors
/// When a file does not read, and what `collect` says.
pub(crate) fn each_file(
    io: &mut Io,
    mut collect: impl FnMut(&mut Io, &mut File) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    each_path(io, |io, number, name, path| {
        let records = records::open(path, name)?;
        collect(io, &mut File { number, records, record: Record::default() })
    })
}

/// Hands the files of the `files` port to `read`, one after the other: the number of the file, from 1, its name and
/// where it lies.
///
/// # Errors
/// When a file is gone or has changed, and what `read` says.
pub(crate) fn each_path(
    io: &mut Io,
    mut read: impl FnMut(&mut Io, usize, &str, &Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let files = io.input(FILES)?.clone();
    let paths = files.column_by_name("path").context("files have paths")?.as_string::<i32>();
    let digests = files.column_by_name("digest").context("files have digests")?.as_string::<i32>();
    for row in 0..files.num_rows() {
        let path = io.source_file(paths.value(row), digests.value(row))?;
        let does_not_read = || format!("file {} of {} does not read", row + 1, files.num_rows());
        read(io, row + 1, paths.value(row), &path).with_context(does_not_read)?;
    }
    Ok(())
}

/// A tabular file of the `files` port. Messages call it by its number, because paths may name patients.
pub(crate) struct File {
    number: usize,
    records: Records,
    record: Record,
}

/// Where a record stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    file: usize,
    part: Option<(&'static str, u64)>,
    within: Option<(&'static str, u64)>,
}

impl Place {
    /// A whole file.
    pub(crate) fn file(file: usize) -> Place {
        Place { file, part: None, within: None }
    }

    /// A part of a file, of this kind and with this number.
    pub(crate) fn part(file: usize, kind: &'static str, number: u64) -> Place {
        Place { file, part: Some((kind, number)), within: None }
    }

    /// A part of this part.
    pub(crate) fn within(self, kind: &'static str, number: u64) -> Place {
        Place { within: Some((kind, number)), ..self }
    }
}

impl fmt::Display for Place {
    /// How it is called in messages: `file 2 line 7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {}", self.file)?;
        self.part.iter().chain(&self.within).try_for_each(|(kind, number)| write!(f, " {kind} {number}"))
    }
}

impl fmt::Display for File {
    /// How it is called in messages: `file 2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {}", self.number)
    }
}

impl File {
    /// The column names.
    pub(crate) fn columns(&self) -> &[String] {
        &self.records.columns
    }

    /// The place of a column that a parameter names.
    ///
    /// # Errors
    /// When the file does not have it.
    pub(crate) fn column(&self, name: &str) -> anyhow::Result<usize> {
        self.records.column(name).with_context(|| {
            let names: Vec<&str> = self.records.columns.iter().map(String::as_str).collect();
            format!("{self} has no column `{name}`; {}", nearest(name, &names, "columns"))
        })
    }

    /// Reads the next record, which [`File::record`] then gives; false at the end. Records that do not read are
    /// error rows and left out.
    ///
    /// # Errors
    /// When the file stops reading.
    pub(crate) fn next(&mut self, io: &mut Io) -> anyhow::Result<bool> {
        loop {
            match self.records.read(&mut self.record).with_context(|| self.to_string())? {
                Ok(more) => return Ok(more),
                Err(fault) => {
                    let place = Place::part(self.number, "line", fault.line);
                    io.fault(FILES, &place.to_string(), "unreadable", fault.reason);
                }
            }
        }
    }

    /// The record that was read last.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Where it stands.
    pub(crate) fn place(&self) -> Place {
        Place::part(self.number, "line", self.record.line)
    }

    /// Its id and the ids that follow from it; none where they do not read, which is an error row.
    pub(crate) fn ids(&self, io: &mut Io, reader: &IdReader, id_column: usize) -> Option<Vec<String>> {
        match reader.read(self.record.cell(id_column).unwrap_or("")) {
            Ok(ids) => Some(ids),
            Err(reason) => {
                io.fault(FILES, &self.place().to_string(), "id", reason);
                None
            }
        }
    }
}

/// Rows of text cells, as a table of text columns.
pub(crate) struct RowsBuilder {
    schema: SchemaRef,
    columns: Vec<StringBuilder>,
    bytes: usize,
}

impl RowsBuilder {
    pub(crate) fn new(schema: SchemaRef) -> RowsBuilder {
        let columns = schema.fields().iter().map(|_| StringBuilder::new()).collect();
        RowsBuilder { schema, columns, bytes: 0 }
    }

    /// Adds a row; its cells stand in the order of the table's columns.
    pub(crate) fn push(&mut self, cells: &[Option<&str>]) {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.append_option(*cell);
            self.bytes += cell.map_or(0, str::len);
        }
    }

    /// How much text there is.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows so far, which are then gone from here.
    ///
    /// # Errors
    /// When a cell is null where the schema wants text.
    pub(crate) fn take(&mut self) -> anyhow::Result<RecordBatch> {
        self.bytes = 0;
        let columns = self.columns.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef).collect();
        Ok(RecordBatch::try_new(SchemaRef::clone(&self.schema), columns)?)
    }
}

/// A problem for each column that the parameters name and that a file on disk does not have. Files that
/// another step makes are not there yet; theirs are checked when they are read.
pub(crate) fn missing_columns(
    inputs: &Inputs,
    patterns: &[String],
    named: &[(Vec<String>, String)],
) -> Vec<Problem> {
    if !inputs.files_on_disk {
        return Vec::new();
    }
    let Ok(paths) = table::matching_paths(&inputs.folder, patterns) else { return Vec::new() };
    let mut problems: Vec<Problem> = Vec::new();
    for path in paths {
        problems.extend(missing_in(&path, named));
        problems.dedup();
    }
    problems
}

fn missing_in(path: &Path, named: &[(Vec<String>, String)]) -> Vec<Problem> {
    let shown = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let columns = match records::open(path, &shown) {
        Ok(records) => records.columns,
        Err(error) => {
            return vec![Problem::at(["with", "path"], format!("`{shown}` does not read: {error:#}"))];
        }
    };
    let names: Vec<&str> = columns.iter().map(String::as_str).collect();
    let absent = named.iter().filter(|(_, column)| !columns.contains(column));
    absent
        .map(|(place, column)| {
            Problem::at(place.clone(), format!("`{shown}` has no column `{column}`"))
                .help(other_separator(&columns).unwrap_or_else(|| nearest(column, &names, "columns")))
        })
        .collect()
}

/// What to do about a header that is one column because its names are separated in another way.
fn other_separator(columns: &[String]) -> Option<String> {
    let [only] = columns else { return None };
    let separator = [';', '\t', '|', ','].into_iter().find(|separator| only.contains(*separator))?;
    let advice = "columns of .csv files are separated by commas, of .tsv files by tabs: write the file anew";
    Some(format!("the header is one column, with `{}` in it; {advice}", separator.escape_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_of_one_column_is_told_from_one_with_another_separator() {
        let said = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            other_separator(&names).map(|help| help.split("; ").next().unwrap_or_default().to_owned())
        };
        assert_eq!(said(&["id;text"]).as_deref(), Some("the header is one column, with `;` in it"));
        assert_eq!(said(&["id\ttext"]).as_deref(), Some("the header is one column, with `\\t` in it"));
        assert_eq!((said(&["id"]), said(&["id", "a;b"])), (None, None));
    }
}
