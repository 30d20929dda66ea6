//! What CSV files tell of volumes: slopes, intercepts and spacings, by id.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use argent_engine::operator::ConfigFiles;
use argent_engine::{Problem, column};
use arrow::array::AsArray;
use arrow::array::{ArrayRef, Float64Array, ListBuilder, PrimitiveBuilder, RecordBatch, StringArray};
use arrow::datatypes::Float64Type;

use crate::ids::IdReader;
use crate::volumes::scan::{file_name, stem};
use crate::volumes::source::{GeometrySource, HounsfieldSource, check_table, told_fields};

/// The tables that a step reads beside its files.
#[derive(Debug, Default)]
pub(crate) struct Told {
    hounsfield: Option<Table>,
    geometry: Option<Table>,
}

/// A CSV file, and which of its columns are read.
#[derive(Debug)]
struct Table {
    /// The parameter that names it.
    parameter: &'static str,
    text: Arc<str>,
    id: String,
    columns: Vec<String>,
    /// By id: the numbers of the columns, or why there are none. Read when it is first needed.
    rows: OnceLock<HashMap<String, Result<Vec<f64>, String>>>,
}

impl Told {
    /// Finds the tables that parameters name.
    ///
    /// # Errors
    /// A problem for each that does not read or lacks a column.
    pub(crate) fn load(
        files: &mut ConfigFiles,
        hounsfield: &HounsfieldSource,
        geometry: &GeometrySource,
    ) -> Result<Told, Vec<Problem>> {
        let (mut told, mut problems) = (Told::default(), geometry.problems());
        if let HounsfieldSource::Table(named) = hounsfield {
            let columns = [named.slope.clone(), named.intercept.clone()];
            let checked = [("id", &*named.id), ("slope", &*named.slope), ("intercept", &*named.intercept)];
            match check_table(files, "hounsfield", &named.table, &checked) {
                Ok(text) => {
                    told.hounsfield = Some(Table::new("hounsfield", text, &named.id, columns.to_vec()))
                }
                Err(found) => problems.extend(found),
            }
        }
        if let GeometrySource::Table(named) = geometry {
            let spacing = named.spacing_mm.iter().map(|column| ("spacing_mm", &**column));
            let checked: Vec<(&str, &str)> = std::iter::once(("id", &*named.id)).chain(spacing).collect();
            match check_table(files, "geometry", &named.table, &checked) {
                Ok(text) => {
                    told.geometry = Some(Table::new("geometry", text, &named.id, named.spacing_mm.clone()));
                }
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(told) } else { Err(problems) }
    }

    /// Adds to a list of files what the tables tell of each. It counts as read from the file: a table in which one row
    /// changes changes one volume.
    ///
    /// # Errors
    /// When a table stops reading.
    pub(crate) fn annotate(
        &self,
        files: &RecordBatch,
        ids: &IdReader,
        made: bool,
    ) -> anyhow::Result<RecordBatch> {
        if self.hounsfield.is_none() && self.geometry.is_none() {
            return Ok(files.clone());
        }
        let paths = files.column_by_name("path").context("files have paths")?.as_string::<i32>();
        let given = files.column_by_name("id").and_then(|column| column.as_string_opt::<i32>());
        let (mut slopes, mut intercepts) = (Vec::new(), Vec::new());
        let mut spacings = ListBuilder::new(PrimitiveBuilder::<Float64Type>::new());
        let mut problems: Vec<Option<String>> = Vec::new();
        for row in 0..files.num_rows() {
            let name = file_name(paths.value(row));
            let id = match given {
                Some(given) => given.value(row).to_owned(),
                // A name without an id is refused when it is read.
                None => ids
                    .read(if made { name } else { stem(name) })
                    .map(|ids| ids[0].clone())
                    .unwrap_or_default(),
            };
            let mut problem = None;
            let mut found = |table: &Option<Table>, count: usize| match table
                .as_ref()
                .map(|t| t.find(&id, ids, made, count))
            {
                None => Ok::<_, anyhow::Error>(None),
                Some(Ok(Ok(numbers))) => Ok(Some(numbers)),
                Some(Ok(Err(reason))) => {
                    problem.get_or_insert(reason);
                    Ok(None)
                }
                Some(Err(error)) => Err(error),
            };
            let rescale = found(&self.hounsfield, 2)?;
            let spacing = found(&self.geometry, 3)?;
            slopes.push(rescale.as_ref().map(|rescale| rescale[0]));
            intercepts.push(rescale.as_ref().map(|rescale| rescale[1]));
            spacings.append_option(spacing.map(|spacing| spacing.into_iter().map(Some)));
            problems.push(problem);
        }
        let told: [ArrayRef; 4] = [
            Arc::new(Float64Array::from(slopes)),
            Arc::new(Float64Array::from(intercepts)),
            Arc::new(spacings.finish()),
            Arc::new(StringArray::from(problems)),
        ];
        let fields = files
            .schema()
            .fields()
            .iter()
            .map(|field| field.as_ref().clone())
            .chain(told_fields())
            .collect::<Vec<_>>();
        Ok(RecordBatch::try_new(
            column::schema(fields),
            files.columns().iter().cloned().chain(told).collect(),
        )?)
    }
}

impl Table {
    fn new(parameter: &'static str, text: Arc<str>, id: &str, columns: Vec<String>) -> Table {
        Table { parameter, text, id: id.to_owned(), columns, rows: OnceLock::new() }
    }

    /// The numbers of a volume's row, `count` of them, or why there are none.
    fn find(
        &self,
        id: &str,
        ids: &IdReader,
        made: bool,
        count: usize,
    ) -> anyhow::Result<Result<Vec<f64>, String>> {
        if self.rows.get().is_none() {
            let rows = self
                .read(ids, made)
                .with_context(|| format!("the table of `{}` does not read", self.parameter))?;
            // Another thread reads the same.
            let _ = self.rows.set(rows);
        }
        let rows = self.rows.get().context("the table has been read")?;
        Ok(match rows.get(id) {
            None => Err(format!("the table of `{}` has no row for this volume", self.parameter)),
            Some(Ok(numbers)) if numbers.len() != count => Err(format!(
                "the table of `{}` has {} numbers for this volume, expected {count}",
                self.parameter,
                numbers.len()
            )),
            Some(found) => found.clone(),
        })
    }

    fn read(&self, ids: &IdReader, made: bool) -> anyhow::Result<HashMap<String, Result<Vec<f64>, String>>> {
        let mut reader = csv::Reader::from_reader(self.text.as_bytes());
        let header = reader.headers()?.clone();
        let place =
            |name: &str| header.iter().position(|column| column == name).context("a column that was checked");
        let id = place(&self.id)?;
        let columns = self.columns.iter().map(|name| place(name)).collect::<anyhow::Result<Vec<usize>>>()?;
        let mut rows: HashMap<String, Result<Vec<f64>, String>> = HashMap::new();
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record)? {
            let cell = record.get(id).unwrap_or_default();
            // Rows of volumes that are named otherwise are of none here.
            let Ok(read) = ids.read(if made { file_name(cell) } else { stem(file_name(cell)) }) else {
                continue;
            };
            let numbers = self.numbers(&record, &columns);
            match rows.entry(read[0].clone()) {
                std::collections::hash_map::Entry::Vacant(free) => drop(free.insert(numbers)),
                std::collections::hash_map::Entry::Occupied(mut known) if *known.get() != numbers => {
                    let reason =
                        format!("the table of `{}` has rows for this volume that differ", self.parameter);
                    *known.get_mut() = Err(reason);
                }
                std::collections::hash_map::Entry::Occupied(_) => {}
            }
        }
        Ok(rows)
    }

    /// The numbers of a row: each cell holds one, or several as in `[0.7, 0.7]`.
    fn numbers(&self, record: &csv::StringRecord, columns: &[usize]) -> Result<Vec<f64>, String> {
        let mut numbers = Vec::new();
        for (column, name) in columns.iter().zip(&self.columns) {
            let cell = record.get(*column).unwrap_or_default();
            let list = cell.trim().trim_start_matches(['[', '(']).trim_end_matches([']', ')']);
            for number in list.split([',', ' ']).filter(|number| !number.is_empty()) {
                let number: f64 =
                    number.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| {
                        format!("`{name}` of the table of `{}` is no number for this volume", self.parameter)
                    })?;
                numbers.push(number);
            }
        }
        Ok(numbers)
    }
}
