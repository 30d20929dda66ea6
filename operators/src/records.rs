//! Tabular files as records of text: CSV, TSV, JSON Lines and Parquet behind one type.

use std::path::Path;

use anyhow::{Context, bail};
use arrow::array::{Array, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::Value;

/// The records of one file; every cell is text or null.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// The column names, in the file's order.
    pub columns: Vec<String>,
    /// The records, each with one cell per column.
    pub rows: Vec<Record>,
    /// What could not be read: the line and the reason, without any cell text.
    pub faults: Vec<(u64, String)>,
}

/// One record and the line that it begins on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The line, counted from 1; the row for a Parquet file.
    pub line: u64,
    /// The cells.
    pub cells: Vec<Option<String>>,
}

impl Records {
    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c == name)
    }
}

/// Reads a file; its kind is told by the ending of `name` (csv, tsv, jsonl, ndjson, parquet).
///
/// # Errors
/// When the kind is not known or the file as a whole does not read; a bad record is one of the faults.
pub fn read(path: &Path, name: &str) -> anyhow::Result<Records> {
    match ending(name).as_str() {
        "csv" => delimited(path, b','),
        "tsv" | "tab" => delimited(path, b'\t'),
        "jsonl" | "ndjson" => json_lines(path),
        "parquet" => parquet(path),
        other => bail!("files ending in `{other}` are not read; expected csv, tsv, jsonl, ndjson or parquet"),
    }
}

/// The column names of a file, without reading its rows where its kind allows that.
///
/// # Errors
/// As [`read`].
pub fn header(path: &Path, name: &str) -> anyhow::Result<Vec<String>> {
    match ending(name).as_str() {
        "csv" => delimited_header(path, b','),
        "tsv" | "tab" => delimited_header(path, b'\t'),
        _ => Ok(read(path, name)?.columns),
    }
}

/// Writes a table as comma-separated values under a line of names: null is an empty cell, a list is JSON.
///
/// # Errors
/// When the file cannot be written, or a column is of a type that has no text.
pub fn write_csv(path: &Path, batch: &RecordBatch) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_path(path)?;
    writer.write_record(batch.schema_ref().fields().iter().map(|field| field.name()))?;
    let options = FormatOptions::default();
    let formats: Vec<ArrayFormatter> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options))
        .collect::<Result<_, _>>()?;
    for row in 0..batch.num_rows() {
        let cell = |(column, format): (&arrow::array::ArrayRef, &ArrayFormatter)| match column.is_null(row) {
            true => Ok(String::new()),
            false => format.value(row).try_to_string(),
        };
        let cells: Vec<String> = batch.columns().iter().zip(&formats).map(cell).collect::<Result<_, _>>()?;
        writer.write_record(cells)?;
    }
    Ok(writer.flush()?)
}

fn ending(name: &str) -> String {
    name.rsplit('.').next().unwrap_or("").to_ascii_lowercase()
}

fn reader(path: &Path, delimiter: u8) -> anyhow::Result<csv::Reader<std::io::BufReader<std::fs::File>>> {
    let file = std::fs::File::open(path).context("the file does not open")?;
    let mut builder = csv::ReaderBuilder::new();
    builder.delimiter(delimiter).flexible(true);
    Ok(builder.from_reader(std::io::BufReader::new(file)))
}

fn delimited_header(path: &Path, delimiter: u8) -> anyhow::Result<Vec<String>> {
    let mut reader = reader(path, delimiter)?;
    let header = reader.headers().context("the header line does not read")?;
    // Spreadsheet programs write a byte order mark before the first name.
    Ok(header.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect())
}

fn delimited(path: &Path, delimiter: u8) -> anyhow::Result<Records> {
    let columns = delimited_header(path, delimiter)?;
    let mut reader = reader(path, delimiter)?;
    let mut records = Records { columns, ..Records::default() };
    let width = records.columns.len();
    for record in reader.records() {
        match record {
            Ok(record) if record.len() == width => {
                let cells =
                    record.iter().map(|cell| Some(cell.to_owned()).filter(|c| !c.is_empty())).collect();
                records.rows.push(Record { line: record.position().map_or(0, csv::Position::line), cells });
            }
            Ok(record) => {
                let line = record.position().map_or(0, csv::Position::line);
                records.faults.push((line, format!("{} cells where the header has {width}", record.len())));
            }
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                let reason = match error.kind() {
                    csv::ErrorKind::Utf8 { .. } => "not UTF-8 text".to_owned(),
                    csv::ErrorKind::Io(error) => bail!("the file stops reading at line {line}: {error}"),
                    _ => "the record does not read".to_owned(),
                };
                records.faults.push((line, reason));
            }
        }
    }
    Ok(records)
}

fn json_lines(path: &Path) -> anyhow::Result<Records> {
    let text = std::fs::read_to_string(path).context("the file does not read as UTF-8 text")?;
    let mut records = Records::default();
    let mut objects = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match serde_json::from_str::<Value>(line) {
            Ok(Value::Object(object)) => objects.push((number as u64 + 1, object)),
            Ok(_) => records.faults.push((number as u64 + 1, "not a JSON object".to_owned())),
            Err(error) => {
                let reason = format!("not JSON: column {}", error.column());
                records.faults.push((number as u64 + 1, reason));
            }
        }
    }
    for (_, object) in &objects {
        for name in object.keys().filter(|name| !records.columns.contains(*name)).cloned().collect::<Vec<_>>()
        {
            records.columns.push(name);
        }
    }
    for (line, object) in objects {
        let cells = records.columns.iter().map(|name| object.get(name).and_then(plain)).collect();
        records.rows.push(Record { line, cells });
    }
    Ok(records)
}

/// A JSON value as the text of a cell: null is null, text is itself, anything else its JSON.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn parquet(path: &Path) -> anyhow::Result<Records> {
    let batch = argent_cache::table::read_parquet_file(path)?;
    let columns = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
    let rows = (0..batch.num_rows())
        .map(|row| Ok(Record { line: row as u64 + 1, cells: cells(&batch, row)? }))
        .collect::<anyhow::Result<_>>()?;
    Ok(Records { columns, rows, faults: Vec::new() })
}

fn cells(batch: &RecordBatch, row: usize) -> anyhow::Result<Vec<Option<String>>> {
    let options = FormatOptions::default();
    let cell = |column: &dyn Array| -> anyhow::Result<Option<String>> {
        if column.is_null(row) {
            return Ok(None);
        }
        Ok(Some(ArrayFormatter::try_new(column, &options)?.value(row).try_to_string()?))
    };
    batch.columns().iter().map(|column| cell(column.as_ref())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(name: &str, text: &str) -> Records {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        read(&path, name).expect("reads")
    }

    #[test]
    fn csv_and_tsv_and_json_lines_read_alike() {
        let csv = records("a.csv", "\u{feff}id,text\n1,\"a, b\"\n2,\n");
        let tsv = records("a.tsv", "id\ttext\n1\ta, b\n2\t\n");
        let json = records("a.jsonl", "{\"id\":1,\"text\":\"a, b\"}\n\n{\"id\":\"2\",\"text\":null}\n");
        let cells = |r: &Records| r.rows.iter().map(|r| r.cells.clone()).collect::<Vec<_>>();
        assert_eq!(csv.columns, ["id", "text"]);
        assert_eq!(cells(&csv), [vec![Some("1".into()), Some("a, b".into())], vec![Some("2".into()), None]]);
        assert_eq!(cells(&csv), cells(&tsv));
        assert_eq!(cells(&csv), cells(&json));
        assert_eq!(json.rows[1].line, 3);
    }

    #[test]
    fn a_bad_record_is_a_fault_with_its_line_and_the_others_are_read() {
        let records = records("a.csv", "id,text\n1,a,b\n2,c\n");
        assert_eq!(records.faults, [(2, "3 cells where the header has 2".to_owned())]);
        assert_eq!(records.rows.len(), 1);
    }
}
