//! What operators that read a file for each row share: rows are worked on in parallel, and remembered many at a time.

use std::sync::Arc;

use argent_engine::{Io, RowError};
use arrow::array::{ArrayRef, RecordBatch};
use rayon::prelude::*;

/// One row's cells, in the order of the schema; none where the row gives no row.
pub(crate) type Cells = Option<Vec<ArrayRef>>;

/// Answers for each pending row, or refuses it, by what `work` makes of its place; `at_a_time` rows are worked on together,
/// as many as are worth losing to an interrupt.
///
/// # Errors
/// When the cells are not those of the schema, or the memo does not take them.
pub(crate) fn each_row(
    io: &mut Io,
    at_a_time: usize,
    work: impl Fn(usize) -> Result<Cells, RowError> + Sync,
) -> anyhow::Result<()> {
    let (all, schema) = (io.rows().num_rows(), io.schema("")?);
    for start in (0..all).step_by(at_a_time) {
        let rows = start..(start + at_a_time).min(all);
        let made: Vec<Result<Cells, RowError>> = rows.clone().into_par_iter().map(&work).collect();
        for (row, made) in rows.clone().zip(made) {
            match made {
                Ok(Some(cells)) => {
                    io.answer(&[row], &[1], &RecordBatch::try_new(Arc::clone(&schema), cells)?)?;
                }
                Ok(None) => io.answer(&[row], &[0], &RecordBatch::new_empty(Arc::clone(&schema)))?,
                Err(error) => io.refuse(row, error)?,
            }
        }
        io.progress(rows.end as u64, all as u64, "");
        if io.cancelled() {
            break;
        }
    }
    Ok(())
}
