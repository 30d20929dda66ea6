//! Tabular files as records of text: CSV, TSV, JSON Lines and Parquet behind one type, one record at a time.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, bail};
use argent_cache::table::{Batches, parquet_file_batches, parquet_file_columns};
use arrow::array::{Array, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use csv::StringRecord;
use serde_json::{Map, Value};

/// The records of one file; every cell is text or null.
pub struct Records {
    /// The column names, in the file's order.
    pub columns: Vec<String>,
    source: Source,
}

enum Source {
    Delimited(csv::Reader<BufReader<File>>),
    JsonLines { lines: BufReader<File>, line: String, number: u64 },
    Parquet { batches: Batches, batch: Option<RecordBatch>, at: usize, number: u64 },
}

/// One record and the line that it begins on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The line, counted from 1; the row for a Parquet file.
    pub line: u64,
    cells: StringRecord,
    /// By column: whether the cell is null.
    nulls: Vec<bool>,
}

/// A record that does not read: its line, and the reason without any cell text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line, counted from 1.
    pub line: u64,
    /// What is wrong.
    pub reason: String,
}

/// Rows of a Parquet file that are in memory at a time.
const PARQUET_ROWS: usize = 8192;

/// Opens a file; its kind is told by the ending of `name` (csv, tsv, jsonl, ndjson, parquet).
///
/// # Errors
/// When the kind is not known or the file as a whole does not read.
pub fn open(path: &Path, name: &str) -> anyhow::Result<Records> {
    match ending(name).as_str() {
        "csv" => delimited(path, b','),
        "tsv" | "tab" => delimited(path, b'\t'),
        "jsonl" | "ndjson" => json_lines(path),
        "parquet" => Ok(Records {
            columns: parquet_file_columns(path)?,
            source: Source::Parquet {
                batches: parquet_file_batches(path, PARQUET_ROWS)?,
                batch: None,
                at: 0,
                number: 0,
            },
        }),
        other => bail!("files ending in `{other}` are not read; expected csv, tsv, jsonl, ndjson or parquet"),
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

impl Records {
    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c == name)
    }

    /// Reads the next record into `record`; false at the end. A bad record is a fault, and the next one can be
    /// read.
    ///
    /// # Errors
    /// When the file stops reading.
    pub fn read(&mut self, record: &mut Record) -> anyhow::Result<Result<bool, Fault>> {
        match &mut self.source {
            Source::Delimited(reader) => read_delimited(reader, self.columns.len(), record),
            Source::JsonLines { lines, line, number } => {
                read_json_line(lines, line, number, &self.columns, record)
            }
            Source::Parquet { batches, batch, at, number } => {
                while batch.as_ref().is_none_or(|batch| *at == batch.num_rows()) {
                    let Some(next) = batches.next().transpose()? else { return Ok(Ok(false)) };
                    (*batch, *at) = (Some(next), 0);
                }
                let Some(batch) = batch else { return Ok(Ok(false)) };
                *number += 1;
                read_row(batch, *at, *number, record)?;
                *at += 1;
                Ok(Ok(true))
            }
        }
    }
}

impl Record {
    /// The text of a cell; none where it is null.
    pub fn cell(&self, column: usize) -> Option<&str> {
        if self.nulls.get(column).copied().unwrap_or(true) { None } else { self.cells.get(column) }
    }

    fn clear(&mut self, line: u64) {
        self.line = line;
        self.cells.clear();
        self.nulls.clear();
    }

    fn push(&mut self, cell: Option<&str>) {
        self.cells.push_field(cell.unwrap_or(""));
        self.nulls.push(cell.is_none());
    }
}

fn delimited(path: &Path, delimiter: u8) -> anyhow::Result<Records> {
    let file = File::open(path).context("the file does not open")?;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .from_reader(BufReader::with_capacity(1 << 20, file));
    let header = reader.headers().context("the header line does not read")?;
    // Spreadsheet programs write a byte order mark before the first name.
    let columns = header.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
    Ok(Records { columns, source: Source::Delimited(reader) })
}

fn read_delimited(
    reader: &mut csv::Reader<BufReader<File>>,
    width: usize,
    record: &mut Record,
) -> anyhow::Result<Result<bool, Fault>> {
    let read = reader.read_record(&mut record.cells);
    let line = record.cells.position().map_or(0, csv::Position::line);
    match read {
        Ok(true) if record.cells.len() == width => {
            record.line = line;
            record.nulls.clear();
            record.nulls.extend(record.cells.iter().map(str::is_empty));
            Ok(Ok(true))
        }
        Ok(true) => {
            let reason = format!("{} cells where the header has {width}", record.cells.len());
            Ok(Err(Fault { line, reason }))
        }
        Ok(false) => Ok(Ok(false)),
        Err(error) => {
            let line = error.position().map_or(line, csv::Position::line);
            let reason = match error.kind() {
                csv::ErrorKind::Utf8 { .. } => "not UTF-8 text".to_owned(),
                csv::ErrorKind::Io(error) => bail!("the file stops reading at line {line}: {error}"),
                _ => "the record does not read".to_owned(),
            };
            Ok(Err(Fault { line, reason }))
        }
    }
}

/// Objects may have other keys on every line, so the columns are known only when all lines have been looked at.
fn json_lines(path: &Path) -> anyhow::Result<Records> {
    let open = || File::open(path).map(|file| BufReader::with_capacity(1 << 20, file));
    let mut lines = open().context("the file does not open")?;
    let (mut line, mut number) = (String::new(), 0);
    let (mut columns, mut known) = (Vec::new(), HashSet::new());
    while let Some(object) = next_object(&mut lines, &mut line, &mut number)? {
        for (name, _) in object.into_iter().flatten() {
            if known.insert(name.clone()) {
                columns.push(name);
            }
        }
    }
    let lines = open().context("the file does not open a second time")?;
    Ok(Records { columns, source: Source::JsonLines { lines, line, number: 0 } })
}

fn read_json_line(
    lines: &mut BufReader<File>,
    line: &mut String,
    number: &mut u64,
    columns: &[String],
    record: &mut Record,
) -> anyhow::Result<Result<bool, Fault>> {
    match next_object(lines, line, number)? {
        None => Ok(Ok(false)),
        Some(Err(fault)) => Ok(Err(fault)),
        Some(Ok(object)) => {
            record.clear(*number);
            for name in columns {
                match object.get(name) {
                    None | Some(Value::Null) => record.push(None),
                    Some(Value::String(text)) => record.push(Some(text)),
                    Some(other) => record.push(Some(&other.to_string())),
                }
            }
            Ok(Ok(true))
        }
    }
}

/// The object of the next line that is not blank, or what is wrong with it; none at the end.
fn next_object(
    lines: &mut BufReader<File>,
    line: &mut String,
    number: &mut u64,
) -> anyhow::Result<Option<Result<Map<String, Value>, Fault>>> {
    loop {
        line.clear();
        if lines.read_line(line).context("the file does not read as UTF-8 text")? == 0 {
            return Ok(None);
        }
        *number += 1;
        if !line.trim().is_empty() {
            break;
        }
    }
    let fault = |reason| Fault { line: *number, reason };
    Ok(Some(match serde_json::from_str(line.trim_end()) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(fault("not a JSON object".to_owned())),
        Err(error) => Err(fault(format!("not JSON: column {}", error.column()))),
    }))
}

fn read_row(batch: &RecordBatch, row: usize, number: u64, record: &mut Record) -> anyhow::Result<()> {
    record.clear(number);
    let options = FormatOptions::default();
    for column in batch.columns() {
        if column.is_null(row) {
            record.push(None);
        } else {
            let text = ArrayFormatter::try_new(column, &options)?.value(row).try_to_string()?;
            record.push(Some(&text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use argent_cache::table::write_parquet_file;
    use arrow::array::{Int64Array, StringArray};

    use super::*;

    /// A line and its cells, or what is wrong with it.
    type Line = Result<(u64, Vec<Option<String>>), Fault>;

    fn lines(path: &Path) -> (Vec<String>, Vec<Line>) {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let mut records = open(path, &name).expect("opens");
        let (mut all, mut record) = (Vec::new(), Record::default());
        loop {
            match records.read(&mut record).expect("reads") {
                Ok(false) => return (records.columns, all),
                Ok(true) => {
                    let cells = (0..records.columns.len()).map(|c| record.cell(c).map(str::to_owned));
                    all.push(Ok((record.line, cells.collect())));
                }
                Err(fault) => all.push(Err(fault)),
            }
        }
    }

    fn written(name: &str, text: &str) -> (Vec<String>, Vec<Line>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        lines(&path)
    }

    fn line(number: u64, cells: [Option<&str>; 2]) -> Line {
        Ok((number, cells.iter().map(|cell| cell.map(str::to_owned)).collect()))
    }

    #[test]
    fn every_kind_of_file_reads_alike() {
        let expected = |first| [line(first, [Some("1"), Some("a, b")]), line(first + 1, [Some("2"), None])];
        let csv = written("a.csv", "\u{feff}id,text\n1,\"a, b\"\n2,\n");
        assert_eq!(csv, (vec!["id".to_owned(), "text".to_owned()], expected(2).to_vec()));
        assert_eq!(written("a.tsv", "id\ttext\n1\ta, b\n2\t\n"), csv);
        let (columns, json) =
            written("a.jsonl", "{\"id\":1,\"text\":\"a, b\"}\n\n{\"id\":\"2\",\"text\":null}\n");
        assert_eq!(columns, csv.0);
        assert_eq!(json, [expected(1)[0].clone(), line(3, [Some("2"), None])]);

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.parquet");
        let ids = Arc::new(Int64Array::from(vec![1, 2])) as _;
        let texts = Arc::new(StringArray::from(vec![Some("a, b"), None])) as _;
        let batch = RecordBatch::try_from_iter_with_nullable([("id", ids, false), ("text", texts, true)]);
        write_parquet_file(&path, &batch.expect("a table")).expect("written");
        assert_eq!(lines(&path), (csv.0, expected(1).to_vec()));
    }

    #[test]
    fn a_bad_record_is_a_fault_with_its_line_and_the_others_are_read() {
        let fault = |line, reason: &str| Err(Fault { line, reason: reason.to_owned() });
        let (_, csv) = written("a.csv", "id,text\n1,a,b\n2,c\n");
        assert_eq!(csv, [fault(2, "3 cells where the header has 2"), line(3, [Some("2"), Some("c")])]);
        let (_, json) = written("a.jsonl", "{\"id\":1}\n[1]\n{\"id\n{\"id\":2,\"text\":\"c\"}\n");
        let expected = [
            line(1, [Some("1"), None]),
            fault(2, "not a JSON object"),
            fault(3, "not JSON: column 4"),
            line(4, [Some("2"), Some("c")]),
        ];
        assert_eq!(json, expected);
    }

    #[test]
    fn an_empty_text_is_null_in_a_csv_file_and_text_in_json() {
        assert_eq!(written("a.csv", "id,text\n1,\n").1, [line(2, [Some("1"), None])]);
        assert_eq!(written("a.jsonl", "{\"id\":\"1\",\"text\":\"\"}\n").1, [line(1, [Some("1"), Some("")])]);
    }
}
