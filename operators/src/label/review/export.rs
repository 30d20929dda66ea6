//! `review.export`: reports and their labels as tasks for people.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::Context;
use argent_engine::joining::{UNMATCHED, account, texts};
use argent_engine::operator::ConfigFiles;
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, Signature, column};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Float64Type;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{report_text, words};
use crate::findings;
use crate::label::STATES;
use crate::label::rules::{section_texts, sections};

/// Chooses reports for review, the most uncertain first: a row per report with a Label Studio task (`task`, in JSON,
/// the labels as predictions), in output `.cells` a row per report and finding with an empty column `review` for a
/// spreadsheet, and in `.config` the labelling interface for Label Studio. Reports of one text are one task.
/// `review.import` reads what comes back. Tasks are rows and no files, so that a patient can be forgotten.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReviewExport {
    /// The finding pack: what is asked, under which names.
    #[schemars(extend("x-not-in-key" = "the pack enters the key by its ids and names"))]
    pub findings: String,
    /// The sections that people see; left out, all that the table has.
    #[serde(default)]
    pub sections: Option<Vec<String>>,
    /// Which reports are chosen.
    #[serde(default)]
    pub choose: Choose,
    /// The share of labels that may lack their report before the step fails.
    #[serde(default = "unmatched")]
    #[schemars(range(min = 0.0, max = 1.0), extend("x-not-in-key" = "it decides whether there is a result, not which"))]
    pub unmatched: f64,
    #[serde(skip)]
    pack: Vec<(String, String)>,
}

/// Which reports are chosen; one that is chosen for any reason is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Choose {
    /// Those with a finding on which `labels` and `other` differ.
    #[serde(default = "yes")]
    pub disagreements: bool,
    /// Those with a finding that is `uncertain`.
    #[serde(default = "yes")]
    pub uncertain: bool,
    /// Those with a finding that `failed`.
    #[serde(default = "yes")]
    pub failed: bool,
    /// So many of the others, at random: they show what nobody doubted.
    #[serde(default)]
    pub sample: usize,
    /// The seed of the sample. A report's place in it is a function of the seed and its text.
    #[serde(default)]
    pub seed: u64,
}

impl Default for Choose {
    fn default() -> Choose {
        Choose { disagreements: true, uncertain: true, failed: true, sample: 0, seed: 0 }
    }
}

fn yes() -> bool {
    true
}

fn unmatched() -> f64 {
    UNMATCHED
}

/// One label of a report.
struct Label {
    state: String,
    other: Option<String>,
    score: Option<f64>,
    evidence: Option<String>,
}

/// A report that may be reviewed.
struct Task {
    id: String,
    text: String,
    /// By finding.
    labels: BTreeMap<String, Label>,
}

/// A report that is, and why.
struct Chosen<'a> {
    task: &'a Task,
    reasons: Vec<&'static str>,
    /// From 0, sure, to 1.
    uncertainty: f64,
}

impl Label {
    fn differs(&self) -> bool {
        self.other.as_ref().is_some_and(|other| *other != self.state)
    }

    /// From 0, sure, to 1.
    fn uncertainty(&self) -> f64 {
        if self.differs() || self.state == STATES[2] || self.state == STATES[4] {
            return 1.0;
        }
        self.score.map_or(0.0, |score| 1.0 - (2.0 * score - 1.0).abs())
    }
}

impl Operator for ReviewExport {
    fn ports(&self) -> Vec<Port> {
        vec![
            Port::new(
                "labels",
                "The labels to review.",
                &[Needed::text("id"), Needed::text("finding"), Needed::text("state")],
            ),
            Port::new("reports", "The reports: `id` and text sections.", &[Needed::text("id")]),
            Port {
                optional: true,
                ..Port::new(
                    "other",
                    "Another labeling, for disagreements.",
                    &[Needed::text("id"), Needed::text("finding"), Needed::text("state")],
                )
            },
        ]
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        let pack = findings::load(files, "findings", &self.findings)?.pack;
        self.pack = pack.findings.iter().map(|f| (f.id.clone(), f.name.clone())).collect();
        files.uses("findings", json!(self.pack));
        Ok(())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let sections = sections(inputs, "reports", self.sections.as_deref())?;
        let has = |name: &&str| inputs.port("labels").schema.field_with_name(name).is_ok();
        let labels =
            ["id", "finding", "state"].into_iter().chain(["score", "evidence"].into_iter().filter(has));
        let tasks = column::schema([
            column::id("id"),
            column::whole("rank"),
            column::text("reason"),
            column::number("uncertainty"),
            column::phi("task"),
        ]);
        let cells = column::schema([
            column::id("id"),
            column::whole("rank"),
            column::text("finding"),
            column::text("state"),
            column::text("other"),
            column::number("score"),
            column::phi("evidence"),
            column::text("reason"),
            column::text("review"),
            column::phi("text"),
        ]);
        let config = column::schema([column::text("program"), column::text("config")]);
        let mut signature = Signature::new(tasks, &["id"])
            .output("cells", cells, &["id", "finding"])
            .output("config", config, &["program"])
            .reads("labels", labels.collect::<Vec<_>>())
            .reads("reports", ["id".to_owned()].into_iter().chain(sections));
        if inputs.ports.contains_key("other") {
            signature = signature.reads("other", ["id", "finding", "state"]);
        }
        Ok(signature)
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let tasks = self.tasks(io)?;
        let chosen = self.chosen(&tasks);
        let has_other = io.has_input("other");
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(chosen.iter().map(|c| &c.task.id))),
            Arc::new(Int64Array::from_iter_values(1..=chosen.len() as i64)),
            Arc::new(StringArray::from_iter_values(chosen.iter().map(|c| c.reasons.join(" ")))),
            Arc::new(Float64Array::from_iter_values(chosen.iter().map(|c| c.uncertainty))),
            Arc::new(StringArray::from_iter_values(
                chosen.iter().map(|c| self.task(c, has_other).to_string()),
            )),
        ];
        io.emit("", RecordBatch::try_new(io.schema("")?, columns)?)?;
        io.emit("cells", self.cells(io, &chosen)?)?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["label studio"])),
            Arc::new(StringArray::from(vec![self.config()])),
        ];
        io.emit("config", RecordBatch::try_new(io.schema("config")?, columns)?)
    }
}

impl ReviewExport {
    /// The labelled reports; of those with one text, the first by id.
    fn tasks(&self, io: &mut Io) -> anyhow::Result<Vec<Task>> {
        let (labels, reports) = (io.input("labels")?.clone(), io.input("reports")?.clone());
        let other = io.has_input("other").then(|| io.input("other").cloned()).transpose()?;
        let mut by_id = self.labels_by_id(&labels, other.as_ref())?;
        let labelled = by_id.len();
        let schema = reports.schema();
        let names = self.sections.clone().unwrap_or_else(|| column::names_with_role(&schema, "section"));
        let places: Vec<usize> =
            names.iter().map(|name| Ok(schema.index_of(name)?)).collect::<anyhow::Result<_>>()?;
        let sections = section_texts(&reports.project(&places)?)?;
        let ids = texts(&reports, "id")?;
        let mut by_text: BTreeMap<String, Task> = BTreeMap::new();
        for row in 0..reports.num_rows() {
            let Some(labels) = by_id.remove(ids.value(row)) else { continue };
            let task = Task { id: ids.value(row).to_owned(), text: report_text(&sections, row), labels };
            by_text.entry(words(&task.text)).or_insert(task);
        }
        let without: Vec<String> = by_id.into_keys().collect();
        account(io, "labels", "reports", labelled, &without, self.unmatched)?;
        Ok(by_text.into_values().collect())
    }

    fn labels_by_id(
        &self,
        labels: &RecordBatch,
        other: Option<&RecordBatch>,
    ) -> anyhow::Result<BTreeMap<String, BTreeMap<String, Label>>> {
        let mut others: HashMap<(&str, &str), &str> = HashMap::new();
        if let Some(other) = other {
            let (ids, findings, states) =
                (texts(other, "id")?, texts(other, "finding")?, texts(other, "state")?);
            for row in 0..other.num_rows() {
                others.insert((ids.value(row), findings.value(row)), states.value(row));
            }
        }
        let (ids, findings, states) =
            (texts(labels, "id")?, texts(labels, "finding")?, texts(labels, "state")?);
        let evidence = labels.column_by_name("evidence").map(|_| texts(labels, "evidence")).transpose()?;
        let score = labels
            .column_by_name("score")
            .map(|score| score.as_primitive_opt::<Float64Type>().context("`score` does not hold numbers"));
        let score = score.transpose()?;
        let mut by_id: BTreeMap<String, BTreeMap<String, Label>> = BTreeMap::new();
        for row in 0..labels.num_rows() {
            let finding = findings.value(row);
            if !self.pack.iter().any(|(id, _)| id == finding) {
                continue;
            }
            let label = Label {
                state: states.value(row).to_owned(),
                other: others.get(&(ids.value(row), finding)).map(|state| (*state).to_owned()),
                score: score.filter(|score| score.is_valid(row)).map(|score| score.value(row)),
                evidence: evidence.filter(|e| e.is_valid(row)).map(|e| e.value(row).to_owned()),
            };
            by_id.entry(ids.value(row).to_owned()).or_default().insert(finding.to_owned(), label);
        }
        Ok(by_id)
    }

    /// The chosen reports, the most uncertain first.
    fn chosen<'a>(&self, tasks: &'a [Task]) -> Vec<Chosen<'a>> {
        let (mut chosen, mut rest) = (Vec::new(), Vec::new());
        for task in tasks {
            let any = |test: &dyn Fn(&Label) -> bool| task.labels.values().any(test);
            let reasons: Vec<&'static str> = [
                ("disagreement", self.choose.disagreements && any(&Label::differs)),
                ("failed", self.choose.failed && any(&|label| label.state == STATES[4])),
                ("uncertain", self.choose.uncertain && any(&|label| label.state == STATES[2])),
            ]
            .into_iter()
            .filter_map(|(reason, holds)| holds.then_some(reason))
            .collect();
            if reasons.is_empty() {
                rest.push(task);
                continue;
            }
            let uncertainty = task.labels.values().map(Label::uncertainty).fold(0.0, f64::max);
            chosen.push(Chosen { task, reasons, uncertainty });
        }
        rest.sort_by_cached_key(|task| drawn(self.choose.seed, &task.text));
        for task in rest.into_iter().take(self.choose.sample) {
            let uncertainty = task.labels.values().map(Label::uncertainty).fold(0.0, f64::max);
            chosen.push(Chosen { task, reasons: vec!["sample"], uncertainty });
        }
        chosen
            .sort_by(|a, b| b.uncertainty.total_cmp(&a.uncertainty).then_with(|| a.task.id.cmp(&b.task.id)));
        chosen
    }

    /// A Label Studio task: what people see, and the labels as predictions. A failed label predicts nothing.
    fn task(&self, chosen: &Chosen, has_other: bool) -> Value {
        let labels = &chosen.task.labels;
        let result = |state: &dyn Fn(&Label) -> Option<String>| -> Vec<Value> {
            let said = self.pack.iter().filter_map(|(id, _)| Some((id, state(labels.get(id)?)?)));
            said.filter(|(_, state)| state != STATES[4])
                .map(|(id, state)| {
                    json!({ "from_name": id, "to_name": "text", "type": "choices", "value": { "choices": [state] } })
                })
                .collect()
        };
        // Label Studio sorts by this score, which says how sure a prediction is.
        let score = 1.0 - chosen.uncertainty;
        let mut predictions = vec![json!({
            "model_version": "labels", "score": score, "result": result(&|label| Some(label.state.clone())),
        })];
        if has_other {
            predictions.push(json!({
                "model_version": "other", "score": score, "result": result(&|label| label.other.clone()),
            }));
        }
        json!({
            "data": { "id": chosen.task.id, "text": chosen.task.text, "reason": chosen.reasons.join(" ") },
            "predictions": predictions,
        })
    }

    /// The labelling interface of Label Studio: the report, and one choice of states per finding.
    fn config(&self) -> String {
        let mut xml = "<View>\n  <Text name=\"text\" value=\"$text\"/>\n".to_owned();
        for (id, name) in &self.pack {
            let (id, name) = (escaped(id), escaped(name));
            xml += &format!(
                "  <Header value=\"{name}\"/>\n  <Choices name=\"{id}\" toName=\"text\" choice=\"single\">\n"
            );
            for state in &STATES[..4] {
                xml += &format!("    <Choice value=\"{state}\"/>\n");
            }
            xml += "  </Choices>\n";
        }
        xml + "</View>\n"
    }

    /// A row per chosen report and finding.
    fn cells(&self, io: &Io, chosen: &[Chosen]) -> anyhow::Result<RecordBatch> {
        let mut cells: Vec<Cell> = Vec::new();
        for (place, chosen) in chosen.iter().enumerate() {
            let known = self.pack.iter().filter_map(|(id, _)| Some((id, chosen.task.labels.get(id)?)));
            cells.extend(known.map(|(finding, label)| (place + 1, chosen, finding.as_str(), label)));
        }
        let text = |f: &dyn Fn(&Cell) -> Option<String>| {
            Arc::new(cells.iter().map(f).collect::<StringArray>()) as ArrayRef
        };
        let columns: Vec<ArrayRef> = vec![
            text(&|(_, chosen, ..)| Some(chosen.task.id.clone())),
            Arc::new(Int64Array::from_iter_values(cells.iter().map(|(rank, ..)| *rank as i64))),
            text(&|(_, _, finding, _)| Some((*finding).to_owned())),
            text(&|(.., label)| Some(label.state.clone())),
            text(&|(.., label)| label.other.clone()),
            Arc::new(cells.iter().map(|(.., label)| label.score).collect::<Float64Array>()),
            text(&|(.., label)| label.evidence.clone()),
            text(&|(_, chosen, ..)| Some(chosen.reasons.join(" "))),
            text(&|_| None),
            text(&|(_, chosen, ..)| Some(chosen.task.text.clone())),
        ];
        Ok(RecordBatch::try_new(io.schema("cells")?, columns)?)
    }
}

/// A label of a chosen report: the report's rank, the report, the finding and the label.
type Cell<'a> = (usize, &'a Chosen<'a>, &'a str, &'a Label);

/// A report's place in a random order.
fn drawn(seed: u64, text: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("argent review sample 1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(words(text).as_bytes());
    *hasher.finalize().as_bytes()
}

/// A text for an XML attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
