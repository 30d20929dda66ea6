//! Who was forgotten stays out: rows that name them are in no table that is stored from then on.

use std::sync::Arc;

use anyhow::Context;
use argent_cache::Store;
use argent_cache::tombstones::Tombstones;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::{cast, filter_record_batch, not};
use arrow::datatypes::DataType;

use crate::column;

/// The kind of the error rows that stand for rows of forgotten subjects. They name nobody.
pub(crate) const FORGOTTEN: &str = "forgotten";

/// Why a row is left out.
pub(crate) const REASON: &str = "the subject was forgotten, so its rows are not taken in again";

/// Id columns from the coarse to the fine: who forgets a patient forgets the scans and reconstructions.
pub(crate) const SUBJECTS: [&str; 3] = ["patient", "scan", "id"];

/// For each row, whether it names someone who was forgotten.
///
/// A column is compared under its own name. Where a table has none of the columns that tombstones are for, its
/// other id columns count under any name, since a query can rename them, and paths by the names in them. So do
/// the ids of faults, which are those of whatever column a port was joined on.
pub(crate) fn forgotten_rows(tombstones: &Tombstones, rows: &RecordBatch) -> anyhow::Result<Vec<bool>> {
    let mut found = vec![false; rows.num_rows()];
    if tombstones.is_empty() {
        return Ok(found);
    }
    let ids = column::names_with_role(rows.schema_ref(), "id");
    let is_fault = ["port", "kind"].iter().all(|name| rows.schema_ref().index_of(name).is_ok());
    let has_known = !is_fault && ids.iter().any(|id| tombstones.columns().any(|column| column == id));
    for id in &ids {
        if !is_fault && !has_known && SUBJECTS.contains(&id.as_str()) {
            continue;
        }
        let cells = texts(rows, id)?;
        for row in (0..cells.len()).filter(|row| cells.is_valid(*row)) {
            let value = cells.value(row);
            found[row] |= match has_known {
                true => tombstones.holds(id, value),
                false => tombstones.holds_path(value),
            };
        }
    }
    Ok(found)
}

/// A table as it may be stored: without rows of the forgotten, and of error rows without what names them.
pub(crate) fn storable(store: &Store, output: &str, rows: RecordBatch) -> anyhow::Result<RecordBatch> {
    let tombstones = store.tombstones()?;
    if tombstones.is_empty() {
        return Ok(rows);
    }
    let found = forgotten_rows(&tombstones, &rows)?;
    if output == "errors" { nameless(rows, found) } else { without(&rows, &found) }
}

/// The rows that are not marked.
pub(crate) fn without(rows: &RecordBatch, marked: &[bool]) -> anyhow::Result<RecordBatch> {
    Ok(filter_record_batch(rows, &not(&BooleanArray::from(marked.to_vec()))?)?)
}

/// Error rows: those that are marked, or tell of someone forgotten, lose their ids and say only that.
fn nameless(rows: RecordBatch, named: Vec<bool>) -> anyhow::Result<RecordBatch> {
    let mut marked = named.clone();
    let kinds = texts(&rows, "kind")?;
    marked.iter_mut().enumerate().for_each(|(row, marked)| *marked |= kinds.value(row) == FORGOTTEN);
    if !marked.contains(&true) {
        return Ok(rows);
    }
    let schema = rows.schema();
    let replaced = |name: &str, value: &str, at: &[bool]| -> anyhow::Result<ArrayRef> {
        let cells = texts(&rows, name)?;
        let cells = (0..cells.len()).map(|row| match at[row] {
            true => Some(value),
            false => cells.is_valid(row).then(|| cells.value(row)),
        });
        Ok(Arc::new(cells.collect::<StringArray>()))
    };
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, cells)| {
        match field.name().as_str() {
            "kind" => replaced("kind", FORGOTTEN, &marked),
            // Another failure's message may quote a file's name.
            "message" => replaced("message", REASON, &named),
            _ if column::has_role(field, "id") => replaced(field.name(), "", &marked),
            _ => Ok(Arc::clone(cells)),
        }
    });
    let columns = columns.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
}

/// A column's cells as text.
pub(crate) fn texts(rows: &RecordBatch, name: &str) -> anyhow::Result<StringArray> {
    let column = rows.column_by_name(name).with_context(|| format!("no column `{name}`"))?;
    Ok(cast(column, &DataType::Utf8)?.as_string::<i32>().clone())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use argent_cache::Secret;
    use arrow::array::Int64Array;

    use super::*;

    /// A store in which patient 2 and the report `r-7` were forgotten.
    fn store(folder: &tempfile::TempDir) -> Store {
        let store = Store::open_with_secret(folder.path(), Secret::from_bytes([1; 32])).expect("opens");
        let of = |value: &str| BTreeSet::from([value.to_owned()]);
        store.bury(&BTreeMap::from([("patient".into(), of("2")), ("id".into(), of("r-7"))])).expect("buries");
        store
    }

    fn table(columns: &[(&str, [&str; 3])]) -> RecordBatch {
        let ids = ["id", "patient", "scan", "who", "path", "number"];
        let field = |name: &str| if ids.contains(&name) { column::id(name) } else { column::text(name) };
        let schema = column::schema(columns.iter().map(|(name, _)| field(name)));
        let cells = |(_, cells): &(&str, [&str; 3])| Arc::new(StringArray::from(cells.to_vec())) as ArrayRef;
        RecordBatch::try_new(schema, columns.iter().map(cells).collect()).expect("a table")
    }

    fn found(columns: &[(&str, [&str; 3])]) -> Vec<bool> {
        let folder = tempfile::tempdir().expect("a folder");
        let tombstones = store(&folder).tombstones().expect("reads");
        forgotten_rows(&tombstones, &table(columns)).expect("ids are text")
    }

    #[test]
    fn ids_are_compared_under_their_own_names() {
        let ids = ("id", ["r-7", "2", "r-70"]);
        assert_eq!(found(&[ids]), [true, false, false]);
        assert_eq!(found(&[("patient", ["1", "2", "3"]), ("number", ["2", "2", "2"])]), [false, true, false]);
        assert_eq!(
            found(&[("scan", ["2", "r-7", "x"])]),
            [false; 3],
            "another patient's scan may be numbered 2"
        );
        assert_eq!(found(&[("text", ["2", "r-7", "x"])]), [false; 3], "text is no id");
    }

    #[test]
    fn where_no_name_fits_renamed_ids_paths_and_faults_count() {
        assert_eq!(found(&[("who", ["2", "r-7", "x"])]), [true, true, false]);
        assert_eq!(found(&[("path", ["a/2/b.nii", "v/r-7.nii.gz", "v/r-70.nii"])]), [true, true, false]);
        let faults = [("port", ["split"; 3]), ("id", ["2", "r-7", "r"]), ("kind", ["unmatched"; 3])];
        assert_eq!(found(&faults), [true, true, false]);
    }

    #[test]
    fn an_error_row_of_someone_forgotten_says_only_that() {
        let folder = tempfile::tempdir().expect("a folder");
        let errors = table(&[
            ("id", ["r-7", "", "r-1"]),
            ("kind", ["unreadable", FORGOTTEN, "refusal"]),
            ("message", ["r-7.nii is empty", "rows left out: 3", "it refused"]),
        ]);
        let stored = storable(&store(&folder), "errors", errors).expect("stored");
        let cells = |name| {
            texts(&stored, name).expect("text").iter().flatten().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(cells("id"), ["", "", "r-1"]);
        assert_eq!(cells("kind"), [FORGOTTEN, FORGOTTEN, "refusal"]);
        assert_eq!(cells("message"), [REASON, "rows left out: 3", "it refused"]);
    }

    #[test]
    fn other_tables_lose_the_row() {
        let folder = tempfile::tempdir().expect("a folder");
        let rows = table(&[("patient", ["1", "2", "3"]), ("text", ["a", "b", "c"])]);
        let stored = storable(&store(&folder), "", rows).expect("stored");
        assert_eq!(texts(&stored, "text").expect("text"), StringArray::from(vec!["a", "c"]));
        let numbers = Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef;
        let whole = column::with_roles(column::whole("patient"), &["id"]);
        let rows = RecordBatch::try_new(column::schema([whole]), vec![numbers]).expect("a table");
        assert_eq!(
            storable(&store(&folder), "", rows).expect("stored").num_rows(),
            1,
            "numbers are ids as well"
        );
    }
}
