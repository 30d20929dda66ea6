//! SQL predicates in the parameters of other operators.

use anyhow::Context;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};

use crate::sql::mistake::{mistake, table};
use crate::sql::session::{changing_function, columns_read, message, plan, step_session, wait};

/// The columns that a predicate reads.
///
/// # Errors
/// When it is not a predicate over these columns.
pub fn columns(sql: &str, schema: &SchemaRef) -> Result<Vec<String>, String> {
    let session = step_session();
    let empty = RecordBatch::new_empty(schema.clone());
    session.register_batch("rows", empty).map_err(|e| message(&e))?;
    let wrong = |error| {
        mistake(&error, sql, &[table("rows", schema)]).sentence().replace("the query", "the predicate")
    };
    let frame = wait(plan(&session, &query(sql))).map_err(wrong)?;
    if frame.schema().fields().first().is_none_or(|f| f.data_type() != &DataType::Boolean) {
        return Err("the expression is not true or false".to_owned());
    }
    if let Some(name) = changing_function(frame.logical_plan()).map_err(|e| message(&e))? {
        return Err(format!("`{name}` gives another value each time"));
    }
    let optimised = frame.into_optimized_plan().map_err(wrong)?;
    let read = columns_read(&optimised).map_err(|e| message(&e))?;
    Ok(read.into_values().flatten().collect())
}

/// For each row: whether the predicate holds; null does not hold.
///
/// # Errors
/// When the predicate does not run.
pub fn evaluate(sql: &str, rows: &RecordBatch) -> anyhow::Result<Vec<bool>> {
    let session = step_session();
    session.register_batch("rows", rows.clone())?;
    let batches = wait(async { plan(&session, &query(sql)).await?.collect().await })?;
    let mut all = Vec::with_capacity(rows.num_rows());
    for batch in batches {
        let holds = batch.column(0).as_boolean_opt().context("a predicate is true or false")?;
        all.extend((0..holds.len()).map(|row| holds.is_valid(row) && holds.value(row)));
    }
    anyhow::ensure!(
        all.len() == rows.num_rows(),
        "the predicate has {} values for {} rows",
        all.len(),
        rows.num_rows()
    );
    Ok(all)
}

fn query(sql: &str) -> String {
    format!("select ({sql}) as holds from rows")
}
