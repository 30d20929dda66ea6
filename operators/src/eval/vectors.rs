//! Vectors of a table's rows.

use anyhow::{Context, bail};
use argent_engine::Io;
use argent_engine::joining::texts;
use argent_stats::{Similarity, Vectors};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type};

/// By row of a table with `id` and `vector`: its vector. A row without one that can be compared is noted as a fault of the
/// port and has none.
///
/// # Errors
/// When the column holds no lists of floating-point numbers, or vectors of different lengths.
pub(super) fn of_rows(
    io: &mut Io,
    port: &str,
    table: &RecordBatch,
    similarity: Similarity,
) -> anyhow::Result<Vec<Option<Vec<f32>>>> {
    let ids = texts(table, "id")?;
    let column = table.column_by_name("vector").with_context(|| format!("`{port}` has no `vector`"))?;
    let mut vectors: Vec<Option<Vec<f32>>> = Vec::with_capacity(table.num_rows());
    let mut dimension = None;
    for row in 0..table.num_rows() {
        let vector = match column.is_valid(row) {
            true => numbers(&list(column, row).with_context(|| format!("the vectors of `{port}`"))?)?,
            false => None,
        };
        let is_zero = |vector: &Vec<f32>| vector.iter().all(|number| *number == 0.0);
        let usable = vector
            .filter(|vector| vector.iter().all(|number| number.is_finite()))
            .filter(|vector| similarity == Similarity::Dot || !is_zero(vector));
        let Some(vector) = usable else {
            io.fault(port, ids.value(row), "no_vector", "there is no vector of finite numbers, not all zero");
            vectors.push(None);
            continue;
        };
        let expected = *dimension.get_or_insert(vector.len());
        if vector.len() != expected {
            bail!("`{port}` has vectors of {expected} and of {} numbers, expected one length", vector.len());
        }
        vectors.push(Some(vector));
    }
    Ok(vectors)
}

/// The same as the kernels compare them.
///
/// # Errors
/// As [`Vectors::new`].
pub(super) fn prepared(
    vectors: &[Vec<f32>],
    similarity: Similarity,
) -> Result<Vectors, argent_stats::StatsError> {
    Vectors::new(vectors.iter().map(Vec::as_slice))?.prepared(similarity)
}

fn list(column: &ArrayRef, row: usize) -> anyhow::Result<ArrayRef> {
    Ok(match column.data_type() {
        DataType::List(_) => column.as_list::<i32>().value(row),
        DataType::LargeList(_) => column.as_list::<i64>().value(row),
        DataType::FixedSizeList(_, _) => column.as_fixed_size_list().value(row),
        other => bail!("are of the type {other}, expected lists of numbers"),
    })
}

/// The numbers of a list; none where one of them is null.
fn numbers(list: &ArrayRef) -> anyhow::Result<Option<Vec<f32>>> {
    if list.null_count() > 0 {
        return Ok(None);
    }
    Ok(Some(match list.data_type() {
        DataType::Float32 => list.as_primitive::<Float32Type>().values().to_vec(),
        DataType::Float64 => {
            list.as_primitive::<Float64Type>().values().iter().map(|number| *number as f32).collect()
        }
        other => bail!("vectors hold {other}, expected floating-point numbers"),
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{FixedSizeListArray, Float32Array, Float64Array, ListArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn lists_of_any_kind_are_vectors() {
        let field = |of: DataType| Arc::new(Field::new_list_field(of, true));
        let single: ArrayRef = Arc::new(Float32Array::from(vec![1.0, 2.0, 3.0, 4.0]));
        let double: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), Some(2.0), Some(3.0), None]));
        let fixed: ArrayRef = Arc::new(FixedSizeListArray::new(field(DataType::Float32), 2, single, None));
        let offsets = OffsetBuffer::new(vec![0, 2, 4].into());
        let listed: ArrayRef = Arc::new(ListArray::new(field(DataType::Float64), offsets, double, None));
        let read = |column: &ArrayRef, row| numbers(&list(column, row).expect("a list")).expect("numbers");
        assert_eq!(read(&fixed, 1), Some(vec![3.0, 4.0]));
        assert_eq!(read(&listed, 0), Some(vec![1.0, 2.0]));
        assert_eq!(read(&listed, 1), None);
    }
}
