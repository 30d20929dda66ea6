//! Volumes of several files: the column `slices`, and reading what it names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use argent_engine::{RowError, column};
use argent_imaging::dicom::{Rescale, Series, read_series};
use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, FieldRef};

use crate::volumes::scan::HounsfieldSource;

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// Where it lies.
    pub(crate) path: String,
    /// The digest of its bytes.
    pub(crate) digest: String,
}

/// By row, the files of a table's volumes; `None` for a volume of one file, and throughout where the table has no column
/// of slices.
///
/// # Errors
/// When the column holds something else.
pub(crate) fn of_rows(rows: &RecordBatch) -> anyhow::Result<Vec<Option<Vec<File>>>> {
    let Some(column) = rows.column_by_name(column::SLICES) else { return Ok(vec![None; rows.num_rows()]) };
    let lists = column.as_list_opt::<i32>().context("the column `slices` holds no lists of files")?;
    (0..rows.num_rows())
        .map(|row| lists.is_valid(row).then(|| files(&lists.value(row))).transpose())
        .collect()
}

fn files(items: &ArrayRef) -> anyhow::Result<Vec<File>> {
    let items =
        items.as_struct_opt().context("the column `slices` holds lists of something else than files")?;
    let cells = |name: &str| {
        let column = items.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        column.with_context(|| format!("a file of the column `slices` has no `{name}`"))
    };
    let (paths, digests) = (cells("path")?, cells("digest")?);
    let file =
        |place: usize| File { path: paths.value(place).to_owned(), digest: digests.value(place).to_owned() };
    Ok((0..items.len()).map(file).collect())
}

/// A column of slices, of these rows.
///
/// # Errors
/// When there are more files than a column can count.
pub(crate) fn column_of(rows: &[Option<Vec<File>>]) -> anyhow::Result<ArrayRef> {
    let field = column::slices(column::SLICES);
    let DataType::List(item) = field.data_type() else { anyhow::bail!("slices are lists") };
    let DataType::Struct(fields) = item.data_type() else { anyhow::bail!("slices are files") };
    let files: Vec<&File> = rows.iter().flatten().flatten().collect();
    let cells: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(files.iter().map(|file| &file.path))),
        Arc::new(StringArray::from_iter_values(files.iter().map(|file| &file.digest))),
    ];
    let items = StructArray::try_new(fields.clone(), cells, None)?;
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(|files| files.as_ref().map_or(0, Vec::len)));
    let valid = rows.iter().map(Option::is_some).collect::<Vec<bool>>().into();
    Ok(Arc::new(ListArray::try_new(FieldRef::clone(item), offsets, Arc::new(items), Some(valid))?))
}

/// Reads the slices of a volume.
///
/// # Errors
/// When a file is gone, or the files are not the slices of one volume.
pub(crate) fn read(
    files: &[File],
    find: &(dyn Fn(&str, &str) -> anyhow::Result<PathBuf> + Sync),
    source: HounsfieldSource,
) -> Result<Series, RowError> {
    let local: Vec<PathBuf> = files
        .iter()
        .map(|file| find(&file.path, &file.digest))
        .collect::<anyhow::Result<_>>()
        .map_err(|e| RowError { retryable: true, ..RowError::lasting("file", format!("{e:#}")) })?;
    // Names of files can hold names of people; which slice it is says enough.
    let names: Vec<String> = (1..=files.len()).map(|number| format!("slice {number}")).collect();
    let named: Vec<(&Path, &str)> =
        local.iter().map(PathBuf::as_path).zip(names.iter().map(String::as_str)).collect();
    let rescale = match source {
        HounsfieldSource::Header => Rescale::Header,
        HounsfieldSource::Already => Rescale::None,
    };
    read_series(&named, rescale).map_err(|e| RowError::lasting("unreadable", e.to_string()))
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let file = |name: &str| File { path: name.to_owned(), digest: format!("digest of {name}") };
        let rows = vec![Some(vec![file("a"), file("b")]), None, Some(Vec::new())];
        let schema = column::schema([column::slices(column::SLICES)]);
        let batch = RecordBatch::try_new(schema, vec![column_of(&rows).expect("a column")])
            .expect("it is of its type");
        assert_eq!(of_rows(&batch).expect("it reads"), rows);
        let none = RecordBatch::try_new(
            column::schema([column::text("id")]),
            vec![Arc::new(StringArray::from(vec!["a"]))],
        );
        assert_eq!(of_rows(&none.expect("a table")).expect("there are none"), [None]);
    }
}
