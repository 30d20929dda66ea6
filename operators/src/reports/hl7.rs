//! `reports.hl7`: reports from HL7 version 2 messages.

mod message;

use std::path::Path;

use argent_engine::operator::{ConfigFiles, FILES};
use argent_engine::{Inputs, Io, Operator, Port, Problem, Signature};
use arrow::datatypes::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{IdReader, Ids};
use crate::one_or_many::OneOrMany;
use crate::pseudonyms::{self, Pseudonymise, Pseudonyms};
use crate::reports::intake::{Draft, Gate, take_in};
use crate::reports::layout::{Headings, Layout, message_fields, signature, yes};
use crate::tabular::{Place, each_path};
use message::{FieldPath, Report, messages, reports_of};

/// Reads reports from HL7 version 2 result messages (ORU^R01), any number in a file, with or without MLLP framing:
/// one report for each OBR segment. Of the versions of a report the one with the latest OBR-22 counts; one that was
/// deleted or cancelled is withdrawn.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportsHl7 {
    /// Glob patterns of the files, relative to the spec.
    #[schemars(extend("x-not-in-key" = "files enter the key by their content"))]
    pub path: OneOrMany,
    /// The field that names a report: `OBR-3.1` is the first component of the third field of OBR, the filler's order
    /// number.
    #[serde(default = "filler")]
    pub id: String,
    /// How ids are normalised, and which further ids follow from them.
    #[serde(default)]
    pub ids: Option<Ids>,
    /// Ids that come in as pseudonyms: `[patient, id]`, or `{ columns: [patient, id], key: { env: NAME } }` for pseudonyms
    /// that are equal in several stores. An id out of which one of them could be read gets one too. Words of a text, a
    /// name in a report among them, stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudonymise: Option<Pseudonymise>,
    /// The encoding of the files (`utf-8`, `windows-1252`, …); left out, what MSH-18 says, else what the bytes tell.
    #[serde(default)]
    pub encoding: Option<String>,
    /// Whether a report is split into its sections (`indication`, `technique`, `comparison`, `findings`,
    /// `impression`, `other`) by its headings, English or German, and by what OBX-3 says; else it is one section,
    /// `text`.
    #[serde(default = "yes")]
    pub split: bool,
    /// By section, further headings that begin it.
    #[serde(default)]
    pub headings: Headings,
    /// Texts that mean "nothing was written", such as `Not given.`
    #[serde(default)]
    pub empty: Vec<String>,
}

fn filler() -> String {
    "OBR-3.1".to_owned()
}

impl ReportsHl7 {
    fn layout(&self) -> Layout<'_> {
        Layout::of_whole(self.split, &self.headings, &self.empty)
    }

    fn fields(&self, ids: &IdReader) -> Vec<Field> {
        ids.fields().into_iter().chain(message_fields()).chain(self.layout().fields()).collect()
    }
}

impl Operator for ReportsHl7 {
    fn ports(&self) -> Vec<Port> {
        vec![Port::files()]
    }

    fn patterns(&self) -> Vec<String> {
        self.path.to_vec()
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        pseudonyms::load(files, self.pseudonymise.as_mut())
    }

    fn signature(&self, _inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let ids = IdReader::new(self.ids.as_ref()).map_err(|e| vec![Problem::at(["with", "ids"], e)])?;
        let id = FieldPath::parse(&self.id).map(drop).map_err(|e| Problem::at(["with", "id"], e));
        let encoding =
            self.encoding.as_deref().map_or(Ok(()), |name| crate::reports::decode::named(name).map(drop));
        let encoding = encoding.map_err(|e| Problem::at(["with", "encoding"], e));
        let problems: Vec<Problem> = id.err().into_iter().chain(encoding.err()).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        signature(self.fields(&ids), &ids, self.pseudonymise.as_ref())
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let ids = IdReader::new(self.ids.as_ref()).map_err(anyhow::Error::msg)?;
        let id = FieldPath::parse(&self.id).map_err(anyhow::Error::msg)?;
        let layout = self.layout();
        let pseudonyms = Pseudonyms::new(io, &ids, self.pseudonymise.as_ref())?;
        take_in(io, true, pseudonyms, |io, gate| {
            each_path(io, |io, number, _, path| self.file(io, gate, (&ids, &id), &layout, (number, path)))
        })
    }
}

impl ReportsHl7 {
    fn file(
        &self,
        io: &mut Io,
        gate: &mut Gate,
        (ids, id): (&IdReader, &FieldPath),
        layout: &Layout,
        (file, path): (usize, &Path),
    ) -> anyhow::Result<()> {
        let mut reports = 0;
        for (number, message) in messages(&std::fs::read(path)?).iter().enumerate() {
            let place = Place::part(file, "message", number as u64 + 1);
            match reports_of(message, self.encoding.as_deref()) {
                Err(reason) => io.fault(FILES, &place.to_string(), "unreadable", reason),
                Ok(found) => {
                    for report in found {
                        reports += 1;
                        self.offer(io, gate, (ids, id), layout, (place, reports, file), &report)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn offer(
        &self,
        io: &mut Io,
        gate: &mut Gate,
        (ids, id): (&IdReader, &FieldPath),
        layout: &Layout,
        (message, report_number, file): (Place, u64, usize),
        report: &Report,
    ) -> anyhow::Result<()> {
        let mut refuse = |kind: &str, reason: String| -> anyhow::Result<()> {
            io.fault(FILES, &message.to_string(), kind, reason);
            Ok(())
        };
        let row = match ids.read(&report.field(id)) {
            Ok(row) => row,
            Err(reason) => return refuse("id", format!("{}: {reason}", self.id)),
        };
        let withdrawn = report.is_withdrawn();
        let text = match report.text(self.split) {
            Ok(text) => text,
            Err(_) if withdrawn => String::new(),
            Err(reason) => return refuse("unreadable", reason),
        };
        let texts = layout.texts(&[Some(&text)]);
        let columns = report.columns();
        let mut cells: Vec<Option<&str>> = row.iter().map(|id| Some(id.as_str())).collect();
        cells.extend(columns.iter().map(|cell| Some(cell.as_str()).filter(|cell| !cell.is_empty())));
        let draft = Draft {
            version: cells[cells.len() - 3],
            cells,
            texts: texts.iter().map(|(section, text)| (*section, text.as_deref())).collect(),
            kept: Vec::new(),
            withdrawn,
            place: Place::part(file, "report", report_number),
        };
        gate.offer(io, &draft)
    }
}
