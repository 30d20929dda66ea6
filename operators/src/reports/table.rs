//! `reports.table`: reports from tabular files.

use std::collections::BTreeMap;

use argent_engine::operator::ConfigFiles;
use argent_engine::{Inputs, Io, Operator, Port, Problem, Signature, column};
use arrow::datatypes::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{IdReader, Ids};
use crate::one_or_many::OneOrMany;
use crate::pseudonyms::{self, Pseudonymise, Pseudonyms};
use crate::reports::intake::{Draft, Gate, Versions, take_in};
use crate::reports::layout::{Headings, Layout, signature};
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
    /// Ids that come in as pseudonyms: `[patient, id]`, or `{ columns: [patient, id], key: { env: NAME } }` for pseudonyms
    /// that are equal in several stores. An id out of which one of them could be read gets one too. Words of a text, a
    /// name in a report among them, stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudonymise: Option<Pseudonymise>,
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
        if self.split {
            return Layout::of_whole(true, &self.headings, &self.empty);
        }
        Layout::as_named(self.all_sections().into_iter().map(|(name, _)| name), &self.empty)
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

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        pseudonyms::load(files, self.pseudonymise.as_mut())
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
        match signature(self.fields(&ids), &ids, self.pseudonymise.as_ref()) {
            Ok(signature) if problems.is_empty() => Ok(signature),
            made => {
                problems.extend(made.err().into_iter().flatten());
                Err(problems)
            }
        }
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let ids = IdReader::new(self.ids.as_ref()).map_err(anyhow::Error::msg)?;
        let layout = self.layout();
        let pseudonyms = Pseudonyms::new(io, &ids, self.pseudonymise.as_ref())?;
        take_in(io, self.versions.is_some(), pseudonyms, |io, gate| {
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
