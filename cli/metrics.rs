//! The metrics that a run ends with: the tables of its evaluation steps, in a few columns.

use anyhow::Context;
use argent_cache::Store;
use argent_engine::{Outcome, Pipeline};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};

use crate::table::aligned;

/// The tables of all evaluation steps that have a result, each under its step's name.
pub(crate) fn tables(store: &Store, pipeline: &Pipeline, outcome: &Outcome) -> anyhow::Result<String> {
    let mut text = String::new();
    for step in outcome.record.steps.iter().filter(|s| s.operator.starts_with("eval.classification")) {
        let Some(digest) = step.manifest.filter(|_| pipeline.node(&step.step).is_some()) else { continue };
        let manifest = store.manifest(&digest)?;
        let scores = store.read_table(&manifest.outputs[""], None)?;
        let summary = manifest.outputs.get("summary").context("an evaluation has a summary")?;
        let summary = store.read_table(summary, None)?;
        text.push_str(&format!("\n{}\n{}", step.step, table(&scores, &summary)?));
    }
    Ok(text)
}

fn table(scores: &RecordBatch, summary: &RecordBatch) -> anyhow::Result<String> {
    let header = ["finding", "n", "positives", "AUC", "95% interval", "F1", "sensitivity", "specificity"];
    let number = |name: &str, row: usize| cell(scores, name, row);
    let mut rows = Vec::new();
    for row in 0..scores.num_rows() {
        let finding = argent_engine::joining::texts(scores, "finding")?.value(row).to_owned();
        let interval = interval(number("auc_low", row)?, number("auc_high", row)?);
        rows.push(vec![
            finding,
            whole(scores, "n", row)?,
            whole(scores, "positives", row)?,
            shown(number("auc", row)?),
            interval,
            shown(number("f1", row)?),
            shown(number("sensitivity", row)?),
            shown(number("specificity", row)?),
        ]);
    }
    rows.push(macro_row(summary)?);
    Ok(aligned(&header, &rows))
}

fn macro_row(summary: &RecordBatch) -> anyhow::Result<Vec<String>> {
    let averages = argent_engine::joining::texts(summary, "average")?;
    let measures = argent_engine::joining::texts(summary, "measure")?;
    let value = |measure: &str, column: &str| {
        let row = averages.iter().zip(measures).position(|row| row == (Some("macro"), Some(measure)));
        row.map_or(Ok(None), |row| cell(summary, column, row))
    };
    Ok(vec![
        "macro".to_owned(),
        String::new(),
        String::new(),
        shown(value("auc", "value")?),
        interval(value("auc", "low")?, value("auc", "high")?),
        shown(value("f1", "value")?),
        shown(value("sensitivity", "value")?),
        shown(value("specificity", "value")?),
    ])
}

fn cell(batch: &RecordBatch, name: &str, row: usize) -> anyhow::Result<Option<f64>> {
    let column = batch.column_by_name(name).with_context(|| format!("the table has no `{name}`"))?;
    let numbers =
        column.as_primitive_opt::<Float64Type>().with_context(|| format!("`{name}` is not numbers"))?;
    Ok(numbers.is_valid(row).then(|| numbers.value(row)))
}

fn whole(batch: &RecordBatch, name: &str, row: usize) -> anyhow::Result<String> {
    let column = batch.column_by_name(name).with_context(|| format!("the table has no `{name}`"))?;
    Ok(column.as_primitive::<Int64Type>().value(row).to_string())
}

fn shown(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |v| format!("{v:.3}"))
}

fn interval(low: Option<f64>, high: Option<f64>) -> String {
    match (low, high) {
        (Some(low), Some(high)) => format!("{low:.3}-{high:.3}"),
        _ => "-".to_owned(),
    }
}
