//! What operators that read tabular files share: their files, and the columns that parameters name in them.

use std::path::Path;

use anyhow::Context;
use argent_engine::operator::{FILES, nearest};
use argent_engine::{Inputs, Io, Problem, table};
use arrow::array::AsArray;

use crate::records::{self, Records};

/// The files of the `files` port, read one after the other: their shown path and records. A file that does
/// not read at all fails the step: its rows are not known, so nothing else could stand for them.
///
/// # Errors
/// When a file does not read.
pub(crate) fn read_files(io: &Io) -> anyhow::Result<Vec<(String, Records)>> {
    let files = io.input(FILES)?;
    let paths = files.column_by_name("path").context("files have paths")?.as_string::<i32>();
    let digests = files.column_by_name("digest").context("files have digests")?.as_string::<i32>();
    (0..files.num_rows())
        .map(|row| {
            let path = io.source_file(paths.value(row), digests.value(row))?;
            let records = records::read(&path, paths.value(row))
                .with_context(|| format!("file {} of {} does not read", row + 1, files.num_rows()))?;
            Ok((paths.value(row).to_owned(), records))
        })
        .collect()
}

/// A problem for each column that the parameters name and that a file on disk does not have. Files that
/// another step makes are not there yet; theirs are checked when they are read.
pub(crate) fn missing_columns(
    inputs: &Inputs,
    patterns: &[String],
    named: &[(Vec<String>, String)],
) -> Vec<Problem> {
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
                .help(nearest(column, &names, "columns"))
        })
        .collect()
}

/// The place of a column that a parameter names.
///
/// # Errors
/// When a file does not have it.
pub(crate) fn column(records: &Records, name: &str) -> anyhow::Result<usize> {
    records.column(name).with_context(|| {
        let names: Vec<&str> = records.columns.iter().map(String::as_str).collect();
        format!("a file has no column `{name}`; {}", nearest(name, &names, "columns"))
    })
}
