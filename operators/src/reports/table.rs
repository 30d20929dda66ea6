//! `reports.table`: reports from tabular files.

use std::collections::BTreeMap;

use argent_engine::operator::FILES;
use argent_engine::{Inputs, Io, Operator, Port, Problem, Signature, column};
use arrow::datatypes::Field;
use indexmap::IndexMap;
use indexmap::map::Entry;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{IdReader, Ids};
use crate::one_or_many::OneOrMany;
use crate::tabular::{self, Cells, File, Place, batch};

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
        ids.fields()
            .into_iter()
            .chain(sections)
            .chain(self.keep.iter().map(|name| column::phi(name)))
            .collect()
    }

    fn named_columns(&self) -> Vec<(Vec<String>, String)> {
        let at = |path: &[&str]| path.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        let mut named = vec![(at(&["with", "id"]), self.id.clone())];
        named.extend(self.sections.iter().map(|(n, c)| (at(&["with", "sections", n]), c.clone())));
        named.extend(self.text.iter().map(|c| (at(&["with", "text"]), c.clone())));
        named.extend(
            self.keep.iter().enumerate().map(|(i, c)| (at(&["with", "keep", &i.to_string()]), c.clone())),
        );
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
        // In the order of the files, which is often that of the ids, and then needs no sorting.
        let mut reports: IndexMap<String, Claims> = IndexMap::new();
        tabular::each_file(io, |io, file| self.collect(io, &ids, file, &mut reports))?;
        let agreed = without_conflicts(io, reports);
        io.emit("", batch(column::schema(self.fields(&ids)), &agreed)?)
    }
}

/// What the files say of one report: its cells, where they stand, and whether they contradict each other.
struct Claims {
    cells: Cells,
    first: Place,
    others: Vec<Place>,
    conflict: bool,
}

/// The reports that all their rows agree on. Of rows that contradict each other none is kept, because nothing
/// tells which one is right; they are one error row.
fn without_conflicts(io: &mut Io, reports: IndexMap<String, Claims>) -> Vec<Cells> {
    let (conflicts, agreed): (Vec<_>, Vec<_>) = reports.into_iter().partition(|(_, claims)| claims.conflict);
    for (id, claims) in conflicts {
        let places: Vec<String> =
            std::iter::once(claims.first).chain(claims.others).map(|place| place.to_string()).collect();
        let places = places.join(", ");
        let message = format!(
            "rows of this id have different cells ({places}), so none is kept; take the wrong ones away, or name \
             a column of distinct ids"
        );
        io.fault(FILES, &id, "conflict", message);
    }
    agreed.into_iter().map(|(_, claims)| claims.cells).collect()
}

impl ReportsTable {
    /// Adds one file's reports.
    fn collect(
        &self,
        io: &mut Io,
        ids: &IdReader,
        mut file: File,
        reports: &mut IndexMap<String, Claims>,
    ) -> anyhow::Result<()> {
        let id_column = file.column(&self.id)?;
        let places = |columns: &mut dyn Iterator<Item = &str>| -> anyhow::Result<Vec<usize>> {
            columns.map(|name| file.column(name)).collect()
        };
        let texts = places(&mut self.all_sections().into_iter().map(|(_, column)| column))?;
        let kept = places(&mut self.keep.iter().map(String::as_str))?;
        // Each record is let go once it is taken in: a million of them are most of the step's memory.
        for record in std::mem::take(&mut file.records.rows) {
            let Some(row) = file.ids(io, ids, id_column, &record) else { continue };
            let place = file.place(record.line);
            let id = row[0].clone();
            let mut cells: Cells = row.into_iter().map(Some).collect();
            cells.extend(texts.iter().map(|c| self.written(record.cells[*c].as_deref())));
            cells.extend(kept.iter().map(|c| record.cells[*c].clone()));
            match reports.entry(id) {
                Entry::Vacant(entry) => {
                    entry.insert(Claims { cells, first: place, others: Vec::new(), conflict: false });
                }
                Entry::Occupied(mut entry) => {
                    let claims = entry.get_mut();
                    claims.conflict |= claims.cells != cells;
                    claims.others.push(place);
                }
            }
        }
        Ok(())
    }

    /// A section's text; null where the cell is empty or says that nothing was written.
    fn written(&self, cell: Option<&str>) -> Option<String> {
        let text = cell?.trim();
        let nothing = text.is_empty() || self.empty.iter().any(|e| e.trim().eq_ignore_ascii_case(text));
        (!nothing).then(|| text.to_owned())
    }
}
