//! The order of rows: which columns are the key, and how rows are brought into its order.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow::array::{Array, ArrayRef, DynComparator, RecordBatch, UInt32Array, make_comparator};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Schema};
use rayon::prelude::*;

/// Rows that one task looks through.
const CHUNK_ROWS: usize = 1 << 16;

/// The rows in the order of their keys. Rows that are in order already are not copied.
pub(super) fn sorted(batch: &RecordBatch, keys: &[ArrayRef]) -> Result<RecordBatch> {
    match order(keys, batch.num_rows())? {
        Some(order) => Ok(take_record_batch(batch, &order)?),
        None => Ok(batch.clone()),
    }
}

/// Whether the last row of one table comes before, or is equal to, the first row of the next.
pub(super) fn follows(last: &[ArrayRef], next: &[ArrayRef]) -> Result<bool> {
    for (last, next) in last.iter().zip(next) {
        let compare = make_comparator(last, next, SortOptions::default())?;
        match compare(last.len() - 1, 0) {
            Ordering::Less => return Ok(true),
            Ordering::Equal => {}
            Ordering::Greater => return Ok(false),
        }
    }
    Ok(true)
}

/// Whether the rows are in the order of their keys.
pub(super) fn is_sorted(keys: &[ArrayRef], rows: usize) -> Result<bool> {
    Ok(in_order(&comparators(keys)?, rows))
}

/// The places of the rows in the order of their keys; none where they are in order already.
///
/// Most tables come nearly in order: a row operator answers row by row, so the leading key is in order and only
/// the rows of one input row are not. Such rows are sorted among themselves.
fn order(keys: &[ArrayRef], rows: usize) -> Result<Option<UInt32Array>> {
    let compare = comparators(keys)?;
    if in_order(&compare, rows) {
        return Ok(None);
    }
    if compare.len() > 1 && in_order(&compare[..1], rows) {
        return Ok(Some(within_runs(&compare, u32::try_from(rows)?)));
    }
    let columns: Vec<_> =
        keys.iter().map(|values| SortColumn { values: Arc::clone(values), options: None }).collect();
    Ok(Some(lexsort_to_indices(&columns, None)?))
}

fn comparators(keys: &[ArrayRef]) -> Result<Vec<DynComparator>> {
    keys.iter().map(|key| Ok(make_comparator(key, key, SortOptions::default())?)).collect()
}

fn in_order(compare: &[DynComparator], rows: usize) -> bool {
    let starts = (1..rows).into_par_iter().step_by(CHUNK_ROWS);
    starts.all(|start| {
        let end = rows.min(start + CHUNK_ROWS);
        (start..end).all(|row| compared(compare, row - 1, row) != Ordering::Greater)
    })
}

/// The rows sorted within each run of rows whose first key is equal.
fn within_runs(compare: &[DynComparator], rows: u32) -> UInt32Array {
    let mut places: Vec<u32> = (0..rows).collect();
    let (first, others) = (&compare[0], &compare[1..]);
    let runs = places.chunk_by_mut(|one, next| first(*one as usize, *next as usize) == Ordering::Equal);
    for run in runs {
        run.sort_by(|one, other| compared(others, *one as usize, *other as usize));
    }
    UInt32Array::from(places)
}

fn compared(compare: &[DynComparator], one: usize, other: usize) -> Ordering {
    compare.iter().map(|compare| compare(one, other)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
}

/// Whether equal values of a type are neighbours in Arrow's order: zeros of two signs are equal and others may
/// lie between them where they are not the last key.
pub(super) fn equal_are_neighbours(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => false,
        DataType::Dictionary(_, value) => equal_are_neighbours(value),
        nested => !nested.is_nested(),
    }
}

pub(super) fn check_names(schema: &Schema) -> Result<()> {
    ensure!(!schema.fields().is_empty(), "a table without columns, expected at least one");
    let mut seen = HashSet::new();
    for field in schema.fields() {
        ensure!(seen.insert(field.name()), "two columns are named `{}`; rename one of them", field.name());
    }
    Ok(())
}

/// The places of the key columns: those named, or all if none is named.
pub(super) fn key_places(schema: &Schema, keys: &[String]) -> Result<Vec<usize>> {
    if keys.is_empty() {
        return Ok((0..schema.fields().len()).collect());
    }
    keys.iter().map(|key| column_position(schema, key)).collect()
}

/// The columns at these places.
pub(super) fn columns_at(batch: &RecordBatch, places: &[usize]) -> Vec<ArrayRef> {
    places.iter().map(|place| Arc::clone(batch.column(*place))).collect()
}

pub(super) fn column_position(schema: &Schema, name: &str) -> Result<usize> {
    schema.fields().iter().position(|field| field.name() == name).with_context(|| {
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        format!("no column `{name}`, expected one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int32Array, StringArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn keys(first: &[Option<&str>], second: &[i32]) -> Vec<ArrayRef> {
        vec![Arc::new(StringArray::from(first.to_vec())), Arc::new(Int32Array::from(second.to_vec()))]
    }

    fn batch(keys: &[ArrayRef]) -> RecordBatch {
        RecordBatch::try_from_iter([("a", Arc::clone(&keys[0])), ("b", Arc::clone(&keys[1]))]).unwrap()
    }

    /// By the library's own sort, which every short cut must agree with.
    fn reference(keys: &[ArrayRef]) -> RecordBatch {
        let columns: Vec<_> =
            keys.iter().map(|values| SortColumn { values: Arc::clone(values), options: None }).collect();
        take_record_batch(&batch(keys), &lexsort_to_indices(&columns, None).unwrap()).unwrap()
    }

    #[test]
    fn every_way_of_sorting_gives_the_same_order() {
        let in_order = keys(&[None, Some("a"), Some("a"), Some("b")], &[1, 1, 2, 0]);
        let within_runs = keys(&[None, Some("a"), Some("a"), Some("b"), Some("b")], &[1, 9, 2, 7, 5]);
        let in_disorder = keys(&[Some("b"), Some("a"), None, Some("a")], &[1, 2, 3, 1]);
        assert!(order(&in_order, 4).unwrap().is_none());
        for keys in [in_order, within_runs, in_disorder] {
            assert_eq!(sorted(&batch(&keys), &keys).unwrap(), reference(&keys));
        }
    }

    #[test]
    fn disorder_is_found_at_the_seams_of_chunks() {
        let mut values: Vec<i32> = (0..3 * CHUNK_ROWS as i32).collect();
        let of = |values: &[i32]| vec![Arc::new(Int32Array::from(values.to_vec())) as ArrayRef];
        assert!(is_sorted(&of(&values), values.len()).unwrap());
        for seam in [CHUNK_ROWS, CHUNK_ROWS + 1, 2 * CHUNK_ROWS] {
            values.swap(seam - 1, seam);
            assert!(!is_sorted(&of(&values), values.len()).unwrap(), "at {seam}");
            values.swap(seam - 1, seam);
        }
    }

    #[test]
    fn a_table_follows_another_by_its_whole_key() {
        let one = keys(&[Some("a"), Some("b")], &[9, 3]);
        assert!(follows(&one, &keys(&[Some("b")], &[3])).unwrap());
        assert!(follows(&one, &keys(&[Some("c")], &[0])).unwrap());
        assert!(!follows(&one, &keys(&[Some("b")], &[2])).unwrap());
        assert!(!follows(&one, &keys(&[None], &[4])).unwrap(), "null comes first");
        assert_eq!(one[1].as_primitive::<Int32Type>().value(1), 3);
    }
}
