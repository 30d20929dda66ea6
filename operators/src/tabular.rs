//! What operators that read tabular files share: their files, and the columns that parameters name in them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use argent_engine::operator::{FILES, nearest};
use argent_engine::{Inputs, Io, Problem, table};
use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;

use crate::ids::IdReader;
use crate::records::{self, Record, Records};

/// Hands the files of the `files` port to `collect`, one after the other; records of theirs that do not read are
/// error rows. A file that does not read at all fails the step: its rows are not known, so nothing else could
/// stand for them.
///
/// # Errors
/// When a file does not read, and what `collect` says.
pub(crate) fn each_file(
    io: &mut Io,
    mut collect: impl FnMut(&mut Io, File) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let files = io.input(FILES)?.clone();
    let paths = files.column_by_name("path").context("files have paths")?.as_string::<i32>();
    let digests = files.column_by_name("digest").context("files have digests")?.as_string::<i32>();
    for row in 0..files.num_rows() {
        let path = io.source_file(paths.value(row), digests.value(row))?;
        let records = records::read(&path, paths.value(row))
            .with_context(|| format!("file {} of {} does not read", row + 1, files.num_rows()))?;
        let file = File { number: row + 1, records };
        for (line, reason) in &file.records.faults {
            io.fault(FILES, &file.place(*line).to_string(), "unreadable", reason.as_str());
        }
        collect(io, file)?;
    }
    Ok(())
}

/// A tabular file of the `files` port, read. Messages call it by its number, because paths may name patients.
pub(crate) struct File {
    number: usize,
    pub(crate) records: Records,
}

/// Where a record stands.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    file: usize,
    line: u64,
}

impl fmt::Display for Place {
    /// How a record is called in messages: `file 2 line 7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {} line {}", self.file, self.line)
    }
}

impl fmt::Display for File {
    /// How it is called in messages: `file 2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {}", self.number)
    }
}

impl File {
    /// Where a record stands.
    pub(crate) fn place(&self, line: u64) -> Place {
        Place { file: self.number, line }
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

    /// The id of a record and the ids that follow from it; none where they do not read, which is an error row.
    pub(crate) fn ids(
        &self,
        io: &mut Io,
        reader: &IdReader,
        id_column: usize,
        record: &Record,
    ) -> Option<Vec<String>> {
        match reader.read(record.cells[id_column].as_deref().unwrap_or("")) {
            Ok(ids) => Some(ids),
            Err(reason) => {
                io.fault(FILES, &self.place(record.line).to_string(), "id", reason);
                None
            }
        }
    }
}

/// The cells of one row, in the order of the table's columns.
pub(crate) type Cells = Vec<Option<String>>;

/// A table of text columns from rows of cells.
///
/// # Errors
/// When a cell is null where the schema wants text.
pub(crate) fn batch(schema: SchemaRef, rows: &[Cells]) -> anyhow::Result<RecordBatch> {
    let columns = (0..schema.fields().len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].as_deref());
            Arc::new(cells.collect::<StringArray>()) as ArrayRef
        })
        .collect();
    Ok(RecordBatch::try_new(schema, columns)?)
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
    let columns = match records::header(path, &shown) {
        Ok(columns) => columns,
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
