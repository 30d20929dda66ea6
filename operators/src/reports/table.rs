//! `reports.table`: reports from tabular files.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use argent_engine::operator::FILES;
use argent_engine::{Inputs, Io, Operator, Port, Problem, Signature, column};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{IdReader, Ids};
use crate::one_or_many::OneOrMany;
use crate::tabular;

/// Reads reports from CSV, TSV, JSON Lines and Parquet files, one report per row.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportsTable {
    /// Glob patterns of the files, relative to the spec.
    #[schemars(extend("x-not-in-key" = "files enter the key by their content"))]
    pub path: OneOrMany,
    /// The column that names a report.
    pub id: String,
    /// How ids are normalised, and which further ids follow from them.
    #[serde(default)]
    pub ids: Option<Ids>,
    /// The report's sections: the name that they get, and the column that they stand in.
    #[serde(default)]
    pub sections: BTreeMap<String, String>,
    /// The column of the whole report, where there are no sections; the section is named `text`.
    #[serde(default)]
    pub text: Option<String>,
    /// Cell texts that mean "nothing was written", such as `Not given.`
    #[serde(default)]
    pub empty: Vec<String>,
    /// Further columns to keep, as text.
    #[serde(default)]
    pub keep: Vec<String>,
}

impl ReportsTable {
    /// Section names and their columns.
    fn all_sections(&self) -> Vec<(&str, &str)> {
        let whole = self.text.as_deref().map(|column| ("text", column));
        self.sections.iter().map(|(name, column)| (name.as_str(), column.as_str())).chain(whole).collect()
    }

    fn fields(&self, ids: &IdReader) -> Vec<Field> {
        let sections = self.all_sections().into_iter();
        let sections = sections.map(|(name, _)| column::with_roles(column::phi(name), &["section"]));
        ids.fields().into_iter().chain(sections).chain(self.keep.iter().map(|name| column::phi(name))).collect()
    }

    fn named_columns(&self) -> Vec<(Vec<String>, String)> {
        let at = |path: &[&str]| path.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        let mut named = vec![(at(&["with", "id"]), self.id.clone())];
        named.extend(self.sections.iter().map(|(n, c)| (at(&["with", "sections", n]), c.clone())));
        named.extend(self.text.iter().map(|c| (at(&["with", "text"]), c.clone())));
        named.extend(self.keep.iter().enumerate().map(|(i, c)| (at(&["with", "keep", &i.to_string()]), c.clone())));
        named
    }
}

impl Operator for ReportsTable {
    fn ports(&self) -> Vec<Port> {
        vec![Port::files()]
    }

    fn patterns(&self) -> Vec<String> {
        self.path.to_vec()
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let ids = IdReader::new(self.ids.as_ref()).map_err(|e| vec![Problem::at(["with", "ids"], e)])?;
        let mut problems = tabular::missing_columns(inputs, &self.patterns(), &self.named_columns());
        if self.all_sections().is_empty() {
            problems.push(
                Problem::at(["with"], "no text is read: neither `sections` nor `text` is given")
                    .help("add sections: { findings: <column> }, or text: <column>"),
            );
        }
        let fields = self.fields(&ids);
        for (place, field) in fields.iter().enumerate() {
            if fields[..place].iter().any(|f| f.name() == field.name()) {
                problems.push(Problem::at(["with"], format!("two columns are named `{}`", field.name())));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        // The path is seen only to open a file: a file that moves is the same file.
        Ok(Signature::new(column::schema(fields), &["id"]).reads(FILES, ["digest"]).sees(FILES, ["path"]))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let ids = IdReader::new(self.ids.as_ref()).map_err(anyhow::Error::msg)?;
        let mut reports: Vec<Vec<Option<String>>> = Vec::new();
        let mut place_of: HashMap<String, usize> = HashMap::new();
        for (number, (_, records)) in tabular::read_files(io)?.into_iter().enumerate() {
            let file = format!("file {}", number + 1);
            for (line, reason) in &records.faults {
                io.fault(FILES, &format!("{file} line {line}"), "unreadable", reason.as_str());
            }
            let id_column = tabular::column(&records, &self.id)?;
            let sections = self.all_sections();
            let texts: Vec<usize> =
                sections.iter().map(|(_, c)| tabular::column(&records, c)).collect::<anyhow::Result<_>>()?;
            let kept: Vec<usize> =
                self.keep.iter().map(|c| tabular::column(&records, c)).collect::<anyhow::Result<_>>()?;
            for record in &records.rows {
                let place = format!("{file} line {}", record.line);
                let row = match ids.read(record.cells[id_column].as_deref().unwrap_or("")) {
                    Ok(row) => row,
                    Err(reason) => {
                        io.fault(FILES, &place, "id", reason);
                        continue;
                    }
                };
                let mut row: Vec<Option<String>> = row.into_iter().map(Some).collect();
                row.extend(texts.iter().map(|c| self.written(record.cells[*c].as_deref())));
                row.extend(kept.iter().map(|c| record.cells[*c].clone()));
                let id = row[0].clone().unwrap_or_default();
                match place_of.get(&id) {
                    None => {
                        place_of.insert(id, reports.len());
                        reports.push(row);
                    }
                    Some(first) if reports[*first] == row => {}
                    Some(_) => io.fault(FILES, &place, "conflict", "another row has the same id and other cells; the first is kept"),
                }
            }
        }
        io.emit("", batch(column::schema(self.fields(&ids)), &reports)?)
    }
}

impl ReportsTable {
    /// A section's text; null where the cell is empty or says that nothing was written.
    fn written(&self, cell: Option<&str>) -> Option<String> {
        let text = cell?.trim();
        let nothing = text.is_empty() || self.empty.iter().any(|e| e.trim().eq_ignore_ascii_case(text));
        (!nothing).then(|| text.to_owned())
    }
}

/// A table of text columns from rows of cells.
pub(crate) fn batch(
    schema: arrow::datatypes::SchemaRef,
    rows: &[Vec<Option<String>>],
) -> anyhow::Result<RecordBatch> {
    let columns = (0..schema.fields().len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].as_deref());
            Arc::new(cells.collect::<StringArray>()) as ArrayRef
        })
        .collect();
    Ok(RecordBatch::try_new(schema, columns)?)
}
