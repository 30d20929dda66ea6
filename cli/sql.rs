//! `argent sql`.

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use argent_cache::table::write_parquet_file;
use argent_engine::diagnostic::Sources;
use argent_engine::spec::{self, Given};
use argent_operators::sql::catalog::{Answer, ask};
use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches;

use crate::args::{Arguments, Format, SqlArguments};
use crate::session::{existing_store, runtime};

/// Answers a question over the results of a store.
pub(crate) fn sql(arguments: &Arguments, sql: &SqlArguments) -> anyhow::Result<ExitCode> {
    let store = existing_store(arguments, sql.pipeline.as_deref())?;
    let pipeline = sql.pipeline.as_ref().map(|path| {
        let (spec, _) = spec::read(path, &Given::default(), &mut Sources::default());
        spec.map(|s| s.name)
            .filter(|n| !n.is_empty())
            .with_context(|| format!("{} is not a pipeline", path.display()))
    });
    let pipeline = pipeline.transpose()?;
    let runtime = runtime()?;
    let _entered = runtime.enter();
    let answer = ask(&store, pipeline.as_deref(), &sql.query)?;
    let rows = if sql.phi { answer.batch.clone() } else { without_phi(&answer)? };
    if !sql.phi && !answer.phi.is_empty() {
        eprintln!("not shown, because they hold patient text: {} (--phi shows them)", answer.phi.join(", "));
    }
    print(&rows, sql)?;
    Ok(ExitCode::SUCCESS)
}

/// The rows with lists as text, `[1, 2]`, which a cell of CSV can hold.
fn flat(rows: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let options = FormatOptions::default();
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if !field.data_type().is_nested() {
            fields.push(field.as_ref().clone());
            columns.push(column.clone());
            continue;
        }
        let cells = ArrayFormatter::try_new(column.as_ref(), &options)?;
        let text = (0..rows.num_rows()).map(|row| match column.is_valid(row) {
            true => Ok(Some(cells.value(row).try_to_string()?)),
            false => Ok(None),
        });
        fields.push(Field::new(field.name(), DataType::Utf8, true));
        columns.push(Arc::new(text.collect::<anyhow::Result<StringArray>>()?));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The rows without the columns that hold patient text.
fn without_phi(answer: &Answer) -> anyhow::Result<RecordBatch> {
    let schema = answer.batch.schema();
    let shown: Vec<usize> = schema
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, f)| !answer.phi.contains(f.name()))
        .map(|(i, _)| i)
        .collect();
    Ok(answer.batch.project(&shown)?)
}

fn print(rows: &RecordBatch, sql: &SqlArguments) -> anyhow::Result<()> {
    if sql.format == Format::Parquet {
        let Some(path) = &sql.output else { bail!("Parquet does not go to a terminal; name a file with -o") };
        return write_parquet_file(path, rows);
    }
    let mut out: Box<dyn Write> = match &sql.output {
        Some(path) => {
            Box::new(File::create(path).with_context(|| format!("{} cannot be written", path.display()))?)
        }
        None => Box::new(std::io::stdout()),
    };
    match sql.format {
        Format::Csv => {
            arrow::csv::WriterBuilder::new().with_header(true).build(&mut out).write(&flat(rows)?)?
        }
        Format::Json => {
            let mut writer = arrow::json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, arrow::json::writer::LineDelimited>(&mut out);
            writer.write(rows)?;
            writer.finish()?;
        }
        Format::Table | Format::Parquet => {
            writeln!(out, "{}", pretty_format_batches(std::slice::from_ref(rows))?)?
        }
    }
    Ok(())
}
