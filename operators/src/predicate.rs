//! SQL predicates in parameters, where argent is built with SQL.

#[cfg(feature = "sql")]
pub use crate::sql::predicate::{columns, evaluate};

#[cfg(not(feature = "sql"))]
pub use without::{columns, evaluate};

#[cfg(not(feature = "sql"))]
mod without {
    use arrow::array::RecordBatch;
    use arrow::datatypes::SchemaRef;

    const REASON: &str = "this argent was built without SQL, which the predicate needs";

    /// The columns that a predicate reads; here none, since there is no SQL.
    ///
    /// # Errors
    /// Always: this argent cannot read predicates.
    pub fn columns(_sql: &str, _schema: &SchemaRef) -> Result<Vec<String>, String> {
        Err(REASON.to_owned())
    }

    /// For each row: whether the predicate holds.
    ///
    /// # Errors
    /// Always: this argent cannot read predicates.
    pub fn evaluate(_sql: &str, _rows: &RecordBatch) -> anyhow::Result<Vec<bool>> {
        anyhow::bail!(REASON)
    }
}
