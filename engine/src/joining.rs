//! Joining ports: the rows of one table found by the id column of another.

use std::collections::HashMap;

use anyhow::{Context, bail};
use arrow::array::{Array, AsArray, RecordBatch, StringArray};

use crate::io::Io;

/// The share of rows without a match above which a step fails.
pub const UNMATCHED: f64 = 0.01;

/// The rows of a table by the text of one of its columns.
pub struct Index {
    rows: HashMap<String, Vec<usize>>,
}

impl Index {
    /// Indexes a table by a text column; rows where it is null are left out.
    ///
    /// # Errors
    /// When the column is not there or does not hold text.
    pub fn new(batch: &RecordBatch, column: &str) -> anyhow::Result<Index> {
        let texts = texts(batch, column)?;
        let mut rows: HashMap<String, Vec<usize>> = HashMap::new();
        for row in (0..texts.len()).filter(|row| texts.is_valid(*row)) {
            rows.entry(texts.value(row).to_owned()).or_default().push(row);
        }
        Ok(Index { rows })
    }

    /// The rows of one id.
    pub fn get(&self, id: &str) -> &[usize] {
        self.rows.get(id).map_or(&[], Vec::as_slice)
    }
}

/// A text column of a table.
///
/// # Errors
/// When the column is not there or does not hold text.
pub fn texts<'a>(batch: &'a RecordBatch, column: &str) -> anyhow::Result<&'a StringArray> {
    let array =
        batch.column_by_name(column).with_context(|| format!("the table has no column `{column}`"))?;
    array.as_string_opt::<i32>().with_context(|| format!("the column `{column}` does not hold text"))
}

/// Notes the rows of `port` that found no match in `other`, and fails when there are too many.
///
/// # Errors
/// When no row found its match, or more than the allowed share did not.
pub fn account(
    io: &mut Io,
    port: &str,
    other: &str,
    total: usize,
    unmatched: &[String],
    share: f64,
) -> anyhow::Result<()> {
    let on = (io.on(port).to_owned(), io.on(other).to_owned());
    for id in unmatched {
        io.fault(port, id, "unmatched", format!("no row of `{other}` has this `{}`", on.1));
    }
    if total > 0 && unmatched.len() == total {
        bail!(
            "none of the {total} rows of `{port}` has a match in `{other}`: `{}` against `{}`; join on other columns with `match`",
            on.0,
            on.1
        );
    }
    if unmatched.len() as f64 > share * total as f64 {
        bail!(
            "{} of the {total} rows of `{port}` have no match in `{other}`, above the share of {share} that `unmatched` allows",
            unmatched.len()
        );
    }
    Ok(())
}
