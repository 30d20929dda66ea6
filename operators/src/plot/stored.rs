//! The plots of a step, as they are kept.

use std::sync::Arc;

use anyhow::Context;
use argent_cache::{Digest, Store, TableRecord};
use argent_engine::joining::texts;
use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;

/// The name of the output that holds a step's plots.
pub const OUTPUT: &str = "plots";

/// A plot of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plot {
    /// Its name among the step's plots.
    pub name: String,
    /// The bytes of the SVG file.
    pub svg: Vec<u8>,
}

/// Reads the plots that a table of the columns of [`fields`](super::fields) names, in its order.
///
/// # Errors
/// When the table or one of its side files does not read.
pub fn read(store: &Store, table: &TableRecord) -> anyhow::Result<Vec<Plot>> {
    let rows = store.read_table(table, Some(&["name", "svg"]))?;
    let (names, files) = (texts(&rows, "name")?, texts(&rows, "svg")?);
    let plot = |row: usize| {
        let svg = store.read(&files.value(row).parse()?).context("a plot that the table names")?;
        Ok(Plot { name: names.value(row).to_owned(), svg })
    };
    (0..rows.num_rows()).map(plot).collect()
}

/// The table of plots: their names, and the digests of the SVG files that are kept.
///
/// # Errors
/// When the schema is not that of [`fields`](super::fields).
pub fn batch(schema: SchemaRef, plots: &[(&str, Digest)]) -> anyhow::Result<RecordBatch> {
    let names = StringArray::from_iter_values(plots.iter().map(|(name, _)| name));
    let files = StringArray::from_iter_values(plots.iter().map(|(_, digest)| digest.to_string()));
    Ok(RecordBatch::try_new(schema, vec![Arc::new(names), Arc::new(files)])?)
}
