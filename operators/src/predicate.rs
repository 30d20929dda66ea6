//! SQL predicates in parameters, where argent is built with SQL.

#[cfg(feature = "sql")]
pub(crate) use crate::sql::predicate::{columns, evaluate};

#[cfg(not(feature = "sql"))]
pub(crate) use without::{columns, evaluate};

#[cfg(not(feature = "sql"))]
mod without {
    use arrow::array::RecordBatch;
    use arrow::datatypes::SchemaRef;

    const REASON: &str = "this argent was built without SQL, which the predicate needs";

    pub(crate) fn columns(_sql: &str, _schema: &SchemaRef) -> Result<Vec<String>, String> {
        Err(REASON.to_owned())
    }

    pub(crate) fn evaluate(_sql: &str, _rows: &RecordBatch) -> anyhow::Result<Vec<bool>> {
        anyhow::bail!(REASON)
    }
}
