//! `reports.folder`: reports from text files, one file per report.

use std::path::Path;

use argent_engine::operator::{ConfigFiles, FILES};
use argent_engine::{Inputs, Io, Operator, Port, Problem, Signature};
use arrow::datatypes::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{IdReader, Ids};
use crate::one_or_many::OneOrMany;
use crate::pseudonyms::{self, Pseudonymise, Pseudonyms};
use crate::reports::decode;
use crate::reports::intake::{Draft, Gate, take_in};
use crate::reports::layout::{Headings, Layout, signature, yes};
use crate::tabular::{Place, each_path};

/// Reads reports from text files, one file per report. The id is the file's name without its ending.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportsFolder {
    /// Glob patterns of the files, relative to the spec.
    #[schemars(extend("x-not-in-key" = "files enter the key by their content and name"))]
    pub path: OneOrMany,
    /// How ids are normalised, and which further ids follow from them.
    #[serde(default)]
    pub ids: Option<Ids>,
    /// Ids that come in as pseudonyms: `[patient, id]`, or `{ columns: [patient, id], key: { env: NAME } }` for pseudonyms
    /// that are equal in several stores. An id out of which one of them could be read gets one too. Words of a text, a
    /// name in a report among them, stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudonymise: Option<Pseudonymise>,
    /// The encoding of the files (`utf-8`, `windows-1252`, `utf-16le`, …); left out, what the bytes tell: a byte order
    /// mark, UTF-8, and Windows-1252 where they are no UTF-8.
    #[serde(default)]
    pub encoding: Option<String>,
    /// Whether a report is split into its sections (`indication`, `technique`, `comparison`, `findings`,
    /// `impression`, `other`) by its headings, English or German; else it is one section, `text`.
    #[serde(default = "yes")]
    pub split: bool,
    /// By section, further headings that begin it.
    #[serde(default)]
    pub headings: Headings,
    /// Texts that mean "nothing was written", such as `Not given.`
    #[serde(default)]
    pub empty: Vec<String>,
}

impl ReportsFolder {
    fn layout(&self) -> Layout<'_> {
        Layout::of_whole(self.split, &self.headings, &self.empty)
    }

    fn fields(&self, ids: &IdReader) -> Vec<Field> {
        ids.fields().into_iter().chain(self.layout().fields()).collect()
    }

    fn offer(
        &self,
        io: &mut Io,
        ids: &IdReader,
        layout: &Layout,
        gate: &mut Gate,
        (number, name, path): (usize, &str, &Path),
    ) -> anyhow::Result<()> {
        let place = Place::file(number);
        let mut refuse = |kind: &str, reason: String| -> anyhow::Result<()> {
            io.fault(FILES, &place.to_string(), kind, reason);
            Ok(())
        };
        let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let row = match ids.read(&stem) {
            Ok(row) => row,
            Err(reason) => return refuse("id", reason),
        };
        let text = match decode::text(&std::fs::read(path)?, self.encoding.as_deref()) {
            Ok(text) if text.trim().is_empty() => {
                return refuse("empty", "the file has no text".to_owned());
            }
            Ok(text) => text,
            Err(reason) => return refuse("unreadable", reason),
        };
        let texts = layout.texts(&[Some(&text)]);
        let draft = Draft {
            cells: row.iter().map(|id| Some(id.as_str())).collect(),
            texts: texts.iter().map(|(section, text)| (*section, text.as_deref())).collect(),
            kept: Vec::new(),
            version: None,
            withdrawn: false,
            place,
        };
        gate.offer(io, &draft)
    }
}

impl Operator for ReportsFolder {
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
        if let Some(name) = &self.encoding {
            decode::named(name).map_err(|e| vec![Problem::at(["with", "encoding"], e)])?;
        }
        // The path is read, because the id comes from it.
        Ok(signature(self.fields(&ids), &ids, self.pseudonymise.as_ref())?.reads(FILES, ["path"]))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let ids = IdReader::new(self.ids.as_ref()).map_err(anyhow::Error::msg)?;
        let layout = self.layout();
        let pseudonyms = Pseudonyms::new(io, &ids, self.pseudonymise.as_ref())?;
        take_in(io, false, pseudonyms, |io, gate| {
            each_path(io, |io, number, name, path| self.offer(io, &ids, &layout, gate, (number, name, path)))
        })
    }
}
