//! `reports.table`: reports from tabular files.

use std::collections::BTreeMap;

use argent_engine::operator::FILES;
use argent_engine::{Inputs, Io, Operator, Port, Problem, Signature, column};
use arrow::datatypes::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{IdReader, Ids};
use crate::one_or_many::OneOrMany;
use crate::reports::intake::{Draft, Gate, ORIGINALS, ORIGINALS_KEYS, Versions, originals_schema, take_in};
use crate::reports::layout::{Headings, Layout};
use crate::tabular::{self, File};

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
    /// Which row of an id counts where there are several, as of amended reports; left out, rows of one id must be
    /// equal.
    #[serde(default)]
    pub versions: Option<Versions>,
    /// Whether the whole report of `text` is split into its sections (`indication`, `technique`, `comparison`,
    /// `findings`, `impression`, `other`) by its headings, English or German.
    #[serde(default)]
    pub split: bool,
    /// With `split`: by section, further headings that begin it.
    #[serde(default)]
    pub headings: Headings,
}

impl ReportsTable {
    /// Section names and their columns.
    fn all_sections(&self) -> Vec<(&str, &str)> {
        let whole = self.text.as_deref().map(|column| ("text", column));
        self.sections.iter().map(|(name, column)| (name.as_str(), column.as_str())).chain(whole).collect()
    }

    fn layout(&self) -> Layout<'_> {
        match self.split {
            true => Layout::split(&self.headings, &self.empty),
            false => Layout::as_named(self.all_sections().into_iter().map(|(name, _)| name), &self.empty),
        }
    }

    fn fields(&self, ids: &IdReader) -> Vec<Field> {
        let sections = self.layout().fields();
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
        named.extend(self.versions.iter().map(|v| (at(&["with", "versions", "latest"]), v.latest.clone())));
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
        if self.split && (self.text.is_none() || !self.sections.is_empty()) {
            problems.push(
                Problem::at(["with", "split"], "`split` is for a report that stands in one column")
                    .help("name it with `text`, and leave `sections` out"),
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
        Ok(Signature::new(column::schema(fields), &["id"])
            .output(ORIGINALS, originals_schema(), &ORIGINALS_KEYS)
            .reads(FILES, ["digest"])
            .sees(FILES, ["path"]))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let ids = IdReader::new(self.ids.as_ref()).map_err(anyhow::Error::msg)?;
        let layout = self.layout();
        take_in(io, self.versions.is_some(), |io, gate| {
            tabular::each_file(io, |io, file| self.offer(io, &ids, &layout, file, gate))
        })
    }
}

impl ReportsTable {
    /// Offers one file's reports.
    fn offer(
        &self,
        io: &mut Io,
        ids: &IdReader,
        layout: &Layout,
        file: &mut File,
        gate: &mut Gate,
    ) -> anyhow::Result<()> {
        let id_column = file.column(&self.id)?;
        let places = |columns: &mut dyn Iterator<Item = &str>| -> anyhow::Result<Vec<usize>> {
            columns.map(|name| file.column(name)).collect()
        };
        let texts = places(&mut self.all_sections().into_iter().map(|(_, column)| column))?;
        let kept = places(&mut self.keep.iter().map(String::as_str))?;
        let version = self.versions.as_ref().map(|versions| file.column(&versions.latest)).transpose()?;
        while file.next(io)? {
            let Some(row) = file.ids(io, ids, id_column) else { continue };
            let record = file.record();
            let cells: Vec<Option<&str>> = texts.iter().map(|place| record.cell(*place)).collect();
            let texts = layout.texts(&cells);
            let draft = Draft {
                cells: row.iter().map(|id| Some(id.as_str())).collect(),
                texts: texts.iter().map(|(section, text)| (*section, text.as_deref())).collect(),
                kept: kept.iter().map(|place| record.cell(*place)).collect(),
                version: version.and_then(|place| record.cell(place)),
                withdrawn: false,
                place: file.place(),
            };
            gate.offer(io, &draft)?;
        }
        Ok(())
    }
}
