//! `reports.fhir`: reports from FHIR DiagnosticReport resources.

mod resource;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Context;
use argent_engine::operator::{ConfigFiles, FILES};
use argent_engine::{Inputs, Io, Operator, Port, Problem, Signature};
use arrow::datatypes::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{IdReader, Ids};
use crate::one_or_many::OneOrMany;
use crate::pseudonyms::{self, Pseudonymise, Pseudonyms};
use crate::reports::intake::{Draft, Gate, take_in};
use crate::reports::layout::{Headings, Layout, message_fields, signature, with_conclusion, yes};
use crate::tabular::{Place, each_path};
use resource::Report;

/// Reads reports from FHIR (R4, R5): DiagnosticReport resources in NDJSON files, one resource per line, and in JSON
/// files that hold one resource or a Bundle. Of the versions of a report the latest `issued` counts; one that was
/// entered in error or cancelled is withdrawn.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportsFhir {
    /// Glob patterns of the files, relative to the spec.
    #[schemars(extend("x-not-in-key" = "files enter the key by their content"))]
    pub path: OneOrMany,
    /// The system of the identifier that names a report; left out, the resource's own `id` does.
    #[serde(default)]
    pub identifier: Option<String>,
    /// How ids are normalised, and which further ids follow from them.
    #[serde(default)]
    pub ids: Option<Ids>,
    /// Ids that come in as pseudonyms: `[patient, id]`, or `{ columns: [patient, id], key: { env: NAME } }` for pseudonyms
    /// that are equal in several stores. An id out of which one of them could be read gets one too. Words of a text, a
    /// name in a report among them, stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudonymise: Option<Pseudonymise>,
    /// Whether a report is split into its sections (`indication`, `technique`, `comparison`, `findings`,
    /// `impression`, `other`) by its headings, English or German; else it is one section, `text`. The resource's
    /// `conclusion` is the impression where the text has none.
    #[serde(default = "yes")]
    pub split: bool,
    /// By section, further headings that begin it.
    #[serde(default)]
    pub headings: Headings,
    /// Texts that mean "nothing was written", such as `Not given.`
    #[serde(default)]
    pub empty: Vec<String>,
}

impl ReportsFhir {
    fn layout(&self) -> Layout<'_> {
        Layout::of_whole(self.split, &self.headings, &self.empty)
    }

    fn fields(&self, ids: &IdReader) -> Vec<Field> {
        ids.fields().into_iter().chain(message_fields()).chain(self.layout().fields()).collect()
    }
}

impl Operator for ReportsFhir {
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
        signature(self.fields(&ids), &ids, self.pseudonymise.as_ref())
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let ids = IdReader::new(self.ids.as_ref()).map_err(anyhow::Error::msg)?;
        let layout = self.layout();
        let pseudonyms = Pseudonyms::new(io, &ids, self.pseudonymise.as_ref())?;
        take_in(io, true, pseudonyms, |io, gate| {
            each_path(io, |io, number, _, path| {
                let mut offer = |io: &mut Io, place: Place, resource: &Value, bundle: &[Value]| {
                    self.offer(io, gate, &ids, &layout, place, Report { resource, bundle })
                };
                each_resource(io, number, path, &mut offer)
            })
        })
    }
}

/// Takes a resource at a place of the files, with the entries of the bundle that it stands in.
type Offer<'o> = dyn FnMut(&mut Io, Place, &Value, &[Value]) -> anyhow::Result<()> + 'o;

/// Takes the resources of a file: line by line where the first line is whole by itself, as in NDJSON, else all as one
/// JSON value.
fn each_resource(io: &mut Io, file: usize, path: &Path, offer: &mut Offer) -> anyhow::Result<()> {
    let mut lines = BufReader::new(File::open(path)?);
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        number += 1;
        let text = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line);
        if text.trim_ascii().is_empty() {
            continue;
        }
        let place = Place::part(file, "line", number);
        match serde_json::from_slice(text) {
            Ok(resource) => each_entry(io, place, &resource, offer)?,
            Err(_) if number == 1 => return whole(io, file, path, offer),
            Err(error) => {
                let reason = format!("not JSON: column {}", error.column());
                io.fault(FILES, &place.to_string(), "unreadable", reason);
            }
        }
    }
}

fn whole(io: &mut Io, file: usize, path: &Path, offer: &mut Offer) -> anyhow::Result<()> {
    let place = Place::file(file);
    let bytes = std::fs::read(path).context("the file does not read")?;
    match serde_json::from_slice::<Value>(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes)) {
        Ok(resource) => each_entry(io, place, &resource, offer),
        Err(error) => {
            let reason = format!("not JSON: line {} column {}", error.line(), error.column());
            io.fault(FILES, &place.to_string(), "unreadable", reason);
            Ok(())
        }
    }
}

/// A resource, or those of a bundle.
fn each_entry(io: &mut Io, place: Place, resource: &Value, offer: &mut Offer) -> anyhow::Result<()> {
    if resource["resourceType"] != "Bundle" {
        return each_kind(io, place, resource, &[], offer);
    }
    let entries = resource["entry"].as_array().map_or(&[][..], Vec::as_slice);
    for (number, entry) in entries.iter().enumerate() {
        each_kind(io, place.within("entry", number as u64 + 1), &entry["resource"], entries, offer)?;
    }
    Ok(())
}

/// Reports are offered; other resources of FHIR are no reports and nothing is wrong with them.
fn each_kind(
    io: &mut Io,
    place: Place,
    resource: &Value,
    bundle: &[Value],
    offer: &mut Offer,
) -> anyhow::Result<()> {
    match resource["resourceType"].as_str() {
        Some("DiagnosticReport") => offer(io, place, resource, bundle),
        Some(_) => Ok(()),
        None => {
            let reason = "not a FHIR resource: it has no `resourceType`";
            io.fault(FILES, &place.to_string(), "unreadable", reason);
            Ok(())
        }
    }
}

impl ReportsFhir {
    fn offer(
        &self,
        io: &mut Io,
        gate: &mut Gate,
        ids: &IdReader,
        layout: &Layout,
        place: Place,
        report: Report,
    ) -> anyhow::Result<()> {
        let mut refuse = |kind: &str, reason: String| -> anyhow::Result<()> {
            io.fault(FILES, &place.to_string(), kind, reason);
            Ok(())
        };
        let id = report.id(self.identifier.as_deref());
        let row = match id.and_then(|id| ids.read(&id)) {
            Ok(row) => row,
            Err(reason) => return refuse("id", reason),
        };
        let withdrawn = report.is_withdrawn();
        let text = match report.text() {
            Ok(text) => text,
            Err(_) if withdrawn => None,
            Err(reason) => return refuse("unreadable", reason),
        };
        let conclusion = report.conclusion();
        if text.is_none() && conclusion.is_none() && !withdrawn {
            return refuse("empty", "the report has no text and no conclusion".to_owned());
        }
        let texts = with_conclusion(layout, text.as_deref(), conclusion);
        let (patient, accession, signed_at) = (report.patient(), report.accession(), report.signed_at());
        let mut cells: Vec<Option<&str>> = row.iter().map(|id| Some(id.as_str())).collect();
        cells.extend([patient.as_deref(), accession.as_deref(), report.status(), signed_at]);
        cells.extend([report.performed_at(), report.procedure()]);
        let draft = Draft {
            cells,
            texts: texts.iter().map(|(section, text)| (*section, text.as_deref())).collect(),
            kept: Vec::new(),
            version: signed_at,
            withdrawn,
            place,
        };
        gate.offer(io, &draft)
    }
}
