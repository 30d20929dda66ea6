//! The tables that a program writes, held against what was declared of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use argent_cache::table::read_parquet_file;
use argent_engine::operator::nearest;
use argent_engine::{Io, Problem, column};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Builder, Float64Array, Int64Array, ListBuilder,
    RecordBatch, StringArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, SchemaRef};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::command::Format;
use crate::command::workplace::Workplace;
use crate::records::{self, Fault, Record, Records};

/// The name of the step's own table.
pub(super) const MAIN: &str = "main";

/// Names that the engine gives to tables of its own.
const TAKEN: [&str; 2] = ["errors", "rejected"];

/// A table that a program writes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclaredTable {
    /// The columns and what they hold; the program writes these and no others, in any order.
    pub columns: IndexMap<String, ColumnKind>,
    /// The columns that name a row, in none of which a cell is null; left out, all columns together.
    #[serde(default)]
    pub keys: Vec<String>,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    /// Text that names a patient, a scan or a report, never null; operators that work row by row carry it along.
    Id,
    /// Text that anyone may see who sees the store's metrics.
    Text,
    /// Text that may hold words of a report; `argent sql` shows it only with `--phi`.
    Phi,
    /// 64-bit floating-point numbers.
    Number,
    /// 64-bit whole numbers.
    Whole,
    /// True or false.
    Bool,
    /// Lists of 32-bit floating-point numbers, such as embeddings.
    Vector,
    /// Paths of files that the program wrote, relative to the folder that it started in. The files are kept in the
    /// store, and the column holds their digests.
    File,
}

impl DeclaredTable {
    /// The table's columns.
    pub(super) fn schema(&self) -> SchemaRef {
        column::schema(self.columns.iter().map(|(name, kind)| kind.field(name)))
    }
}

impl ColumnKind {
    fn field(self, name: &str) -> Field {
        match self {
            ColumnKind::Id => column::id(name),
            ColumnKind::Text => column::text(name),
            ColumnKind::Phi => column::phi(name),
            ColumnKind::Number => column::number(name),
            ColumnKind::Whole => column::whole(name),
            ColumnKind::Bool => Field::new(name, DataType::Boolean, true),
            ColumnKind::Vector => Field::new(name, vector_type(), true),
            ColumnKind::File => column::file(name),
        }
    }

    /// Whether cells of a type can be read as this kind without losing anything.
    fn takes(self, data_type: &DataType) -> bool {
        let is_text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let is_number = |t: &DataType| t.is_integer() || t.is_floating();
        match (self, data_type) {
            (_, DataType::Null) => true,
            (_, DataType::Dictionary(_, values)) => self.takes(values),
            (ColumnKind::Id | ColumnKind::Text | ColumnKind::Phi | ColumnKind::File, found) => is_text(found),
            (ColumnKind::Number, found) => is_number(found),
            (ColumnKind::Whole, found) => found.is_integer(),
            (ColumnKind::Bool, found) => *found == DataType::Boolean,
            (
                ColumnKind::Vector,
                DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _),
            ) => is_number(item.data_type()),
            (ColumnKind::Vector, _) => false,
        }
    }
}

fn vector_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Float32, true)))
}

/// What is wrong with the declarations.
pub(super) fn problems(outputs: &BTreeMap<String, DeclaredTable>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !outputs.contains_key(MAIN) {
        let problem = Problem::at(["with", "outputs"], format!("no output is named `{MAIN}`"));
        problems
            .push(problem.help(format!("`{MAIN}` is the step's own table: {MAIN}: {{ columns: {{ … }} }}")));
    }
    for (name, declared) in outputs {
        let at = ["with", "outputs", name.as_str()];
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if TAKEN.contains(&name.as_str()) {
            problems.push(Problem::at(at, format!("the engine itself names a table `{name}`")));
        } else if !is_name {
            let problem = Problem::at(at, format!("`{name}` does not name a table"));
            problems.push(problem.help("expected letters, digits and underscores"));
        }
        if declared.columns.is_empty() {
            problems.push(Problem::at(at, format!("the output `{name}` has no columns")));
        }
        let names: Vec<&str> = declared.columns.keys().map(String::as_str).collect();
        for (place, key) in declared.keys.iter().enumerate().filter(|(_, key)| !names.contains(&key.as_str()))
        {
            let place = place.to_string();
            let message = format!("the key `{key}` is not a column of the output `{name}`");
            let problem = Problem::at(["with", "outputs", name, "keys", &place], message);
            problems.push(problem.help(nearest(key, &names, "columns")));
        }
    }
    problems
}

/// A table that the program wrote, with the columns that were declared, in their order.
///
/// # Errors
/// When it is not there, does not read, or is not what was declared; no error holds a cell.
pub(super) fn read(
    name: &str,
    declared: &DeclaredTable,
    place: &Workplace,
    format: Format,
    io: &Io,
) -> anyhow::Result<RecordBatch> {
    let path = place.output_path(name);
    ensure!(
        path.is_file(),
        "the program did not write the output `{name}`, which `run` calls {{out.{name}}}"
    );
    let columns = match format {
        Format::Parquet => of_parquet(declared, &read_parquet_file(&path)?),
        Format::Csv => of_csv(declared, records::open(&path, "output.csv")?),
    };
    let columns = columns.and_then(|columns| kept(declared, columns, place, io));
    let columns = columns.with_context(|| format!("the output `{name}` is not what was declared"))?;
    let batch = RecordBatch::try_new(declared.schema(), columns)?;
    no_key_twice(declared, &batch)
        .with_context(|| format!("the output `{name}` is not what was declared"))?;
    Ok(batch)
}

/// The declared columns of a Parquet file.
fn of_parquet(declared: &DeclaredTable, found: &RecordBatch) -> anyhow::Result<Vec<ArrayRef>> {
    let schema = found.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    same_columns(declared, &names)?;
    let columns = declared.columns.iter().map(|(name, kind)| {
        let cells = found.column_by_name(name).context("the columns are the same")?;
        ensure!(
            kind.takes(cells.data_type()),
            "the column `{name}` holds {}, expected {}",
            column::type_name(cells.data_type()),
            column::type_name(kind.field(name).data_type())
        );
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let cast = cast_with_options(cells, kind.field(name).data_type(), &strict);
        // The library's own words would hold the cell.
        cast.map_err(|_| anyhow::anyhow!("a cell of the column `{name}` is too large for its type"))
    });
    columns.collect()
}

/// The declared columns of a CSV file.
fn of_csv(declared: &DeclaredTable, mut found: Records) -> anyhow::Result<Vec<ArrayRef>> {
    let names: Vec<&str> = found.columns.iter().map(String::as_str).collect();
    same_columns(declared, &names)?;
    let mut records = Vec::new();
    let mut record = Record::default();
    while found
        .read(&mut record)?
        .map_err(|Fault { line, reason }| anyhow::anyhow!("line {line}: {reason}"))?
    {
        records.push(record.clone());
    }
    let columns = declared.columns.iter().map(|(name, kind)| {
        let place = found.column(name).context("the columns are the same")?;
        let cells: Vec<(u64, Option<&str>)> =
            records.iter().map(|record| (record.line, record.cell(place))).collect();
        of_texts(*kind, name, &cells)
    });
    columns.collect()
}

/// A column from texts, which stand on these lines.
fn of_texts(kind: ColumnKind, name: &str, cells: &[(u64, Option<&str>)]) -> anyhow::Result<ArrayRef> {
    let wrong = |line: &u64, what: &str| anyhow::anyhow!("line {line}: `{name}` is not {what}");
    macro_rules! parsed {
        ($array:ty, $what:literal, $parse:expr) => {{
            let cells = cells.iter().map(|(line, cell)| {
                cell.map(|cell| $parse(cell.trim()).ok_or_else(|| wrong(line, $what))).transpose()
            });
            Ok(Arc::new(cells.collect::<anyhow::Result<$array>>()?) as ArrayRef)
        }};
    }
    match kind {
        ColumnKind::Id | ColumnKind::Text | ColumnKind::Phi | ColumnKind::File => {
            Ok(Arc::new(cells.iter().map(|(_, cell)| *cell).collect::<StringArray>()))
        }
        ColumnKind::Number => parsed!(Float64Array, "a number", |cell: &str| cell.parse::<f64>().ok()),
        ColumnKind::Whole => parsed!(Int64Array, "a whole number", |cell: &str| cell.parse::<i64>().ok()),
        ColumnKind::Bool => parsed!(BooleanArray, "true or false", truth),
        ColumnKind::Vector => {
            let mut builder = ListBuilder::new(Float32Builder::new());
            for (line, cell) in cells {
                match cell {
                    None => builder.append_null(),
                    Some(cell) => {
                        let numbers: Vec<f32> =
                            serde_json::from_str(cell).map_err(|_| wrong(line, "a JSON list of numbers"))?;
                        builder.append_value(numbers.into_iter().map(Some));
                    }
                }
            }
            Ok(Arc::new(builder.finish()))
        }
    }
}

fn truth(cell: &str) -> Option<bool> {
    match cell.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn same_columns(declared: &DeclaredTable, found: &[&str]) -> anyhow::Result<()> {
    let wanted: Vec<&str> = declared.columns.keys().map(String::as_str).collect();
    if let Some(absent) = wanted.iter().find(|name| !found.contains(name)) {
        bail!("the column `{absent}` is not there; {}", nearest(absent, found, "columns"));
    }
    if let Some(other) = found.iter().find(|name| !wanted.contains(name)) {
        bail!("the column `{other}` was not declared; declare it in `outputs`, or do not write it");
    }
    Ok(())
}

/// The columns without nulls where there must be none, and with digests in place of paths.
fn kept(
    declared: &DeclaredTable,
    mut columns: Vec<ArrayRef>,
    place: &Workplace,
    io: &Io,
) -> anyhow::Result<Vec<ArrayRef>> {
    for ((name, kind), cells) in declared.columns.iter().zip(&mut columns) {
        let needed = *kind == ColumnKind::Id || declared.keys.contains(name);
        if let Some(row) = (0..cells.len()).find(|row| needed && cells.is_null(*row)) {
            bail!("`{name}` is null in row {}, and a key or an id must not be", row + 1);
        }
        if *kind == ColumnKind::File {
            *cells = digests(cells.as_string::<i32>(), place, io)
                .with_context(|| format!("the column `{name}`"))?;
        }
    }
    Ok(columns)
}

/// Keeps the files that a column names.
fn digests(paths: &StringArray, place: &Workplace, io: &Io) -> anyhow::Result<ArrayRef> {
    let mut known: HashMap<&str, String> = HashMap::new();
    let mut digests = Vec::with_capacity(paths.len());
    for (row, path) in paths.iter().enumerate() {
        let Some(path) = path else {
            digests.push(None);
            continue;
        };
        if !known.contains_key(path) {
            let file = place.own_file(path).with_context(|| format!("the path in row {}", row + 1))?;
            known.insert(path, io.keep(&std::fs::read(file)?)?.to_string());
        }
        digests.push(known.get(path).cloned());
    }
    Ok(Arc::new(StringArray::from(digests)))
}

/// Says which rows have one key, before the store does, which knows no lines.
fn no_key_twice(declared: &DeclaredTable, batch: &RecordBatch) -> anyhow::Result<()> {
    if declared.keys.is_empty() {
        return Ok(());
    }
    let keys: anyhow::Result<Vec<ArrayRef>> = declared
        .keys
        .iter()
        .map(|key| batch.column_by_name(key).cloned().context("keys are columns"))
        .collect();
    let keys = RecordBatch::try_from_iter(declared.keys.iter().zip(keys?))?;
    let encoder = argent_cache::encoding::RowEncoder::new(&keys)?;
    let mut first: HashMap<Vec<u8>, usize> = HashMap::with_capacity(keys.num_rows());
    for row in 0..keys.num_rows() {
        if let Some(before) = first.insert(encoder.encode(row, 1), row) {
            let names = declared.keys.join(", ");
            bail!("rows {} and {} have the same key ({names})", before + 1, row + 1);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(text: &str) -> DeclaredTable {
        serde_json::from_str(text).expect("a declaration")
    }

    fn said<T>(result: anyhow::Result<T>) -> String {
        result.err().map_or("nothing".to_owned(), |error| format!("{error:#}"))
    }

    #[test]
    fn csv_cells_become_what_was_declared_and_are_never_quoted() {
        let of = |kind, cells: &[&str]| {
            let cells: Vec<(u64, Option<&str>)> =
                cells.iter().enumerate().map(|(row, cell)| (row as u64 + 2, Some(*cell))).collect();
            of_texts(kind, "c", &cells)
        };
        assert_eq!(said(of(ColumnKind::Whole, &["1", "secret"])), "line 3: `c` is not a whole number");
        assert_eq!(
            said(of(ColumnKind::Vector, &["[1, 2.5]", "1"])),
            "line 3: `c` is not a JSON list of numbers"
        );
        let flags = of(ColumnKind::Bool, &["True", "0"]).expect("reads");
        assert_eq!(flags.as_boolean(), &BooleanArray::from(vec![true, false]));
    }

    #[test]
    fn a_column_that_is_absent_or_not_declared_is_named() {
        let table = declared(r#"{"columns": {"finding": "text", "n": "whole"}}"#);
        assert_eq!(
            said(same_columns(&table, &["findings", "n"])),
            "the column `finding` is not there; did you mean `findings`?"
        );
        assert_eq!(
            said(same_columns(&table, &["n", "finding", "x"])),
            "the column `x` was not declared; declare it in `outputs`, or do not write it"
        );
    }

    #[test]
    fn parquet_types_are_widened_and_never_guessed() {
        let table = declared(r#"{"columns": {"n": "whole", "v": "vector"}}"#);
        let vectors = || {
            let mut builder = ListBuilder::new(arrow::array::Float64Builder::new());
            builder.append_value([Some(1.0)]);
            Arc::new(builder.finish()) as ArrayRef
        };
        let n = Arc::new(arrow::array::UInt8Array::from(vec![7])) as ArrayRef;
        let found = RecordBatch::try_from_iter([("v", vectors()), ("n", n)]).expect("a batch");
        let read = of_parquet(&table, &found).expect("fits");
        assert_eq!(read[0].data_type(), &DataType::Int64);
        assert_eq!(read[1].data_type(), &vector_type());
        let n = Arc::new(Float64Array::from(vec![7.0])) as ArrayRef;
        let found = RecordBatch::try_from_iter([("v", vectors()), ("n", n)]).expect("a batch");
        assert_eq!(said(of_parquet(&table, &found)), "the column `n` holds number, expected whole number");
    }

    #[test]
    fn rows_of_one_key_are_named_by_their_numbers() {
        let table = declared(r#"{"columns": {"k": "text"}, "keys": ["k"]}"#);
        let cells = Arc::new(StringArray::from(vec!["a", "b", "a"])) as ArrayRef;
        let batch = RecordBatch::try_new(table.schema(), vec![cells]).expect("a batch");
        assert_eq!(said(no_key_twice(&table, &batch)), "rows 1 and 3 have the same key (k)");
    }
}
