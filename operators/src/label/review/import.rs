//! `review.import`: what people said of reports, as a labeling.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;

use anyhow::{Context, bail};
use argent_engine::joining::texts;
use argent_engine::operator::{ConfigFiles, FILES};
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, Signature, column};
use arrow::array::{AsArray, StringArray};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{report_text, words};
use crate::findings;
use crate::label::rules::{section_texts, sections};
use crate::label::{STATES, label_fields};
use crate::one_or_many::OneOrMany;
use crate::records::{self, Record};
use crate::tabular::RowsBuilder;

/// Reads reviews: Label Studio's JSON export (`.json`), and tables with the columns `text`, `finding` and `review`
/// (CSV, TSV, JSON Lines, Parquet), as `review.export` wrote them. A review belongs to every report of its text,
/// whatever id that has now. Where people contradict each other on a text, nobody's word is kept.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReviewImport {
    /// Glob patterns of the files, relative to the spec.
    #[schemars(extend("x-not-in-key" = "files enter the key by their content"))]
    pub path: OneOrMany,
    /// The finding pack whose findings were asked.
    #[schemars(extend("x-not-in-key" = "the pack enters the key by its ids"))]
    pub findings: String,
    /// The sections that people saw, as in `review.export`; left out, all that the reports have.
    #[serde(default)]
    pub sections: Option<Vec<String>>,
    #[serde(skip)]
    ids: BTreeSet<String>,
}

/// What people said: by text, by finding, the state; none where they contradict each other.
#[derive(Default)]
struct Reviews {
    states: BTreeMap<String, BTreeMap<String, Option<&'static str>>>,
    /// By text: where it stands, for messages.
    places: BTreeMap<String, String>,
}

impl Operator for ReviewImport {
    fn ports(&self) -> Vec<Port> {
        vec![
            Port::files(),
            Port::new(
                "reports",
                "The reports that reviews are found by: `id` and text sections.",
                &[Needed::text("id")],
            ),
        ]
    }

    fn patterns(&self) -> Vec<String> {
        self.path.to_vec()
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        let pack = findings::load(files, "findings", &self.findings)?.pack;
        self.ids = pack.findings.into_iter().map(|f| f.id).collect();
        files.uses("findings", json!(self.ids));
        Ok(())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let sections = sections(inputs, "reports", self.sections.as_deref())?;
        let ids = column::names_with_role(&inputs.port("reports").schema, "id");
        let schema = column::schema(ids.iter().map(|name| column::id(name)).chain(label_fields()));
        Ok(Signature::new(schema, &["id", "finding"])
            .reads(FILES, ["digest"])
            .sees(FILES, ["path"])
            .reads("reports", ids.into_iter().chain(sections)))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let reviews = self.reviews(io)?;
        let reports = io.input("reports")?.clone();
        let schema = reports.schema();
        let names = self.sections.clone().unwrap_or_else(|| column::names_with_role(&schema, "section"));
        let places: Vec<usize> =
            names.iter().map(|name| Ok(schema.index_of(name)?)).collect::<anyhow::Result<_>>()?;
        let sections = section_texts(&reports.project(&places)?)?;
        let out = io.schema("")?;
        let subjects: Vec<&StringArray> = column::names_with_role(&out, "id")
            .iter()
            .map(|name| texts(&reports, name))
            .collect::<anyhow::Result<_>>()?;
        let mut rows = RowsBuilder::new(out);
        let mut found = BTreeSet::new();
        for row in 0..reports.num_rows() {
            let text = words(&report_text(&sections, row));
            let Some(states) = reviews.states.get(&text) else { continue };
            for (finding, state) in states.iter().filter_map(|(finding, state)| Some((finding, (*state)?))) {
                let mut cells: Vec<Option<&str>> = subjects.iter().map(|ids| Some(ids.value(row))).collect();
                cells.extend([Some(finding.as_str()), Some(state)]);
                rows.push(&cells);
            }
            found.insert(text);
        }
        for place in reviews.places.iter().filter(|(text, _)| !found.contains(*text)).map(|(_, place)| place)
        {
            io.fault(FILES, place, "unmatched", "no report has this text");
        }
        if found.is_empty() && !reviews.states.is_empty() {
            bail!(
                "none of the {} reviewed texts is the text of a report; are `sections` those that were exported?",
                reviews.states.len()
            );
        }
        io.emit("", rows.take()?)
    }
}

impl ReviewImport {
    fn reviews(&self, io: &mut Io) -> anyhow::Result<Reviews> {
        let files = io.input(FILES)?.clone();
        let paths = files.column_by_name("path").context("files have paths")?.as_string::<i32>();
        let digests = files.column_by_name("digest").context("files have digests")?.as_string::<i32>();
        let mut reviews = Reviews::default();
        for row in 0..files.num_rows() {
            let path = io.source_file(paths.value(row), digests.value(row))?;
            let file = row + 1;
            let does_not_read = || format!("file {file} of {} does not read", files.num_rows());
            if paths.value(row).to_ascii_lowercase().ends_with(".json") {
                let tasks: Vec<Value> = serde_json::from_reader(BufReader::new(File::open(&path)?))
                    .map_err(|error| {
                        // The error's own words may quote the text.
                        anyhow::anyhow!("line {}: it is not a list of Label Studio tasks", error.line())
                    })
                    .with_context(does_not_read)?;
                for (at, task) in tasks.iter().enumerate() {
                    self.task(io, &format!("file {file} task {}", at + 1), task, &mut reviews);
                }
            } else {
                let table = records::open(&path, paths.value(row)).with_context(does_not_read)?;
                self.table(io, file, table, &mut reviews)?;
            }
        }
        let disputed: Vec<(String, String)> = reviews
            .states
            .iter()
            .flat_map(|(text, states)| {
                let disputed = states.iter().filter(|(_, state)| state.is_none());
                disputed.map(|(finding, _)| (reviews.places[text].clone(), finding.clone()))
            })
            .collect();
        for (place, finding) in disputed {
            let message = format!(
                "{finding}: reviews of this text disagree, so none is kept; take the wrong ones away"
            );
            io.fault(FILES, &place, "conflict", message);
        }
        Ok(reviews)
    }

    /// Adds what the annotations of a task say; one that was skipped says nothing.
    fn task(&self, io: &mut Io, place: &str, task: &Value, reviews: &mut Reviews) {
        let Some(text) = task["data"]["text"].as_str() else {
            return io.fault(FILES, place, "unreadable", "the task has no text under `data`");
        };
        let annotations = task["annotations"].as_array().into_iter().flatten();
        for annotation in annotations.filter(|a| a["was_cancelled"] != Value::Bool(true)) {
            for result in annotation["result"].as_array().into_iter().flatten() {
                let (Some(finding), Some(choice)) =
                    (result["from_name"].as_str(), result["value"]["choices"][0].as_str())
                else {
                    continue;
                };
                self.add(io, place, (text, finding, choice), reviews);
            }
        }
    }

    fn table(
        &self,
        io: &mut Io,
        file: usize,
        mut table: records::Records,
        reviews: &mut Reviews,
    ) -> anyhow::Result<()> {
        let column = |name: &str| {
            table.column(name).with_context(|| {
                format!("file {file} has no column `{name}`; expected text, finding, review")
            })
        };
        let (text, finding, review) = (column("text")?, column("finding")?, column("review")?);
        let mut record = Record::default();
        loop {
            match table.read(&mut record)? {
                Ok(false) => return Ok(()),
                Ok(true) => {
                    let Some(state) = record.cell(review).filter(|cell| !cell.trim().is_empty()) else {
                        continue;
                    };
                    let (text, finding) =
                        (record.cell(text).unwrap_or(""), record.cell(finding).unwrap_or(""));
                    let place = format!("file {file} line {}", record.line);
                    self.add(io, &place, (text, finding, state), reviews);
                }
                Err(fault) => {
                    io.fault(FILES, &format!("file {file} line {}", fault.line), "unreadable", fault.reason);
                }
            }
        }
    }

    fn add(&self, io: &mut Io, place: &str, said: (&str, &str, &str), reviews: &mut Reviews) {
        let (text, finding, state) = said;
        if !self.ids.contains(finding) {
            return io.fault(FILES, place, "finding", "the finding is not in the pack");
        }
        // Nobody can have said that a label failed.
        let Some(state) = STATES[..4].iter().copied().find(|s| *s == state.trim()) else {
            let message = format!("the review is not one of {}", STATES[..4].join(", "));
            return io.fault(FILES, place, "state", message);
        };
        let text = words(text);
        reviews.places.entry(text.clone()).or_insert_with(|| place.to_owned());
        let kept = reviews.states.entry(text).or_default().entry(finding.to_owned()).or_insert(Some(state));
        if *kept != Some(state) {
            *kept = None;
        }
    }
}
