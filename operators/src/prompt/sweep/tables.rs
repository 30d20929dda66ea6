//! The tables of a sweep: prompts, findings, the one measurement, labels and calls.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use argent_cache::Digest;
use argent_engine::joining::texts;
use argent_engine::{Io, column};
use argent_stats::Confusion;
use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field};
use serde_json::json;

use super::{PromptSweep, Tried};
use crate::eval::agreement::measures::{self, Joint, Measure};
use crate::label::STATES;

/// The averages of every prompt on the part that selects, over the labels that did not fail.
const AVERAGES: [(&str, Measure); 5] = [
    ("macro_f1", Confusion::f1),
    ("macro_sensitivity", Confusion::sensitivity),
    ("macro_specificity", Confusion::specificity),
    ("macro_accuracy", Confusion::accuracy),
    ("macro_kappa", Confusion::kappa),
];

pub(super) fn prompt_fields() -> Vec<Field> {
    let mut fields = vec![
        column::text("prompt"),
        column::text("prompt_digest"),
        Field::new("selected", DataType::Boolean, true),
        column::number("value"),
        column::whole("reports"),
        column::whole("failed"),
        column::whole("tokens"),
    ];
    for (name, _) in AVERAGES {
        fields.extend(
            [name.to_owned(), format!("{name}_low"), format!("{name}_high")].map(|n| column::number(&n)),
        );
    }
    fields
}

pub(super) fn finding_fields() -> Vec<Field> {
    ["prompt", "part"].map(column::text).into_iter().chain(measures::fields()).collect()
}

pub(super) fn test_fields() -> Vec<Field> {
    measures::summary_fields().into_iter().chain(["prompt", "prompt_digest"].map(column::text)).collect()
}

pub(super) fn label_fields() -> Vec<Field> {
    let texts = ["finding", "state", "call"].map(column::text);
    [column::text("prompt"), column::text("part"), column::id("id")].into_iter().chain(texts).collect()
}

impl PromptSweep {
    /// Adds all tables of the result.
    pub(super) fn emit(
        &self,
        io: &mut Io,
        reports: &RecordBatch,
        tried: &[Tried],
        selected: usize,
        last: &Tried,
    ) -> anyhow::Result<()> {
        let prompts = self.prompt_rows(io, tried, selected)?;
        io.emit("", prompts)?;
        let parts = tried.iter().map(|tried| (tried, &self.dev)).chain([(last, &self.test)]);
        for (tried, part) in parts {
            let scores = measures::scores(&tried.cases, &self.bootstrap)?;
            let schema = column::schema(measures::fields());
            let batch = measures::batch(schema, &scores)?;
            io.emit("findings", in_front(io, "findings", &[tried.prompt, part], batch)?)?;
            io.emit("labels", label_rows(io, reports, tried, part)?)?;
        }
        let scores = measures::scores(&last.cases, &self.bootstrap)?;
        let schema = column::schema(measures::summary_fields());
        let summary = measures::summary(schema, &last.cases, &scores, &self.bootstrap)?;
        let digest = self.digest(io, last.prompt);
        let named = [last.prompt, &digest].map(|text| repeated(text, summary.num_rows()));
        let columns = summary.columns().iter().cloned().chain(named).collect();
        io.emit("test", RecordBatch::try_new(io.schema("test")?, columns)?)?;
        self.emit_calls(io, tried, last)
    }

    /// The prompt's digest, as in `labels.calls` of `label.llm`.
    fn digest(&self, io: &Io, prompt: &str) -> String {
        io.question_key(&json!(&*self.loaded().prompts[prompt].text)).to_string()
    }

    fn prompt_rows(&self, io: &Io, tried: &[Tried], selected: usize) -> anyhow::Result<RecordBatch> {
        let mut numbers: Vec<Vec<Option<f64>>> = vec![Vec::new(); 3 * AVERAGES.len()];
        for tried in tried {
            let decided = tried.cases.rows.iter().filter_map(|case| {
                case.decided().map(|(target, decision)| (case.cluster, case.finding, target, decision))
            });
            let joint = Joint::new(tried.cases.findings.len(), decided);
            for (at, (_, measure)) in AVERAGES.into_iter().enumerate() {
                let drawn =
                    self.bootstrap.interval(&joint.clusters, |rows| joint.macro_average(measure, rows))?;
                numbers[3 * at].push(joint.macro_average(measure, &joint.all()));
                numbers[3 * at + 1].push(drawn.map(|b| b.interval.low));
                numbers[3 * at + 2].push(drawn.map(|b| b.interval.high));
            }
        }
        let whole = |f: &dyn Fn(&Tried) -> usize| {
            Arc::new(Int64Array::from_iter_values(tried.iter().map(|t| f(t) as i64))) as ArrayRef
        };
        let failed = |t: &Tried| t.labels.values().filter(|labels| labels.is_none()).count();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(tried.iter().map(|t| t.prompt))),
            Arc::new(StringArray::from_iter_values(tried.iter().map(|t| self.digest(io, t.prompt)))),
            Arc::new((0..tried.len()).map(|place| Some(place == selected)).collect::<BooleanArray>()),
            Arc::new(tried.iter().map(|t| t.value).collect::<Float64Array>()),
            whole(&|t| t.labels.len()),
            whole(&failed),
            whole(&|t| t.tokens as usize),
        ];
        columns.extend(numbers.into_iter().map(|numbers| Arc::new(Float64Array::from(numbers)) as ArrayRef));
        Ok(RecordBatch::try_new(io.schema("")?, columns)?)
    }

    fn emit_calls(&self, io: &mut Io, tried: &[Tried], last: &Tried) -> anyhow::Result<()> {
        let mut told: HashSet<Digest> = HashSet::new();
        for tried in tried.iter().chain([last]) {
            let named = tried.labels.values().flatten().flatten().filter_map(|label| label.call.as_ref());
            let calls: BTreeSet<Digest> = named.map(|call| call.parse()).collect::<Result<_, _>>()?;
            let calls: Vec<Digest> = calls.into_iter().collect();
            if let Some((_, model)) = self.models().find(|(name, _)| *name == tried.prompt) {
                io.emit("calls", model.call_rows(io, &calls, &mut told)?)?;
            }
        }
        Ok(())
    }
}

/// A table with columns of one text each in front.
fn in_front(io: &Io, output: &str, texts: &[&str], batch: RecordBatch) -> anyhow::Result<RecordBatch> {
    let front = texts.iter().map(|text| repeated(text, batch.num_rows()));
    let columns = front.chain(batch.columns().iter().cloned()).collect();
    Ok(RecordBatch::try_new(io.schema(output)?, columns)?)
}

fn repeated(text: &str, rows: usize) -> ArrayRef {
    Arc::new(StringArray::from(vec![text; rows]))
}

/// The labels of one prompt on one part; a report without an answer has failed labels.
fn label_rows(io: &Io, reports: &RecordBatch, tried: &Tried, part: &str) -> anyhow::Result<RecordBatch> {
    let ids = texts(reports, "id")?;
    let mut rows: Vec<(&str, &str, &str, Option<&str>)> = Vec::new();
    for (row, labels) in &tried.labels {
        let id = ids.value(*row);
        match labels {
            Some(labels) => {
                rows.extend(
                    labels.iter().map(|label| (id, &*label.finding, label.state, label.call.as_deref())),
                );
            }
            None => rows
                .extend(tried.cases.findings.iter().map(|finding| (id, finding.as_str(), STATES[4], None))),
        }
    }
    let columns: Vec<ArrayRef> = vec![
        repeated(tried.prompt, rows.len()),
        repeated(part, rows.len()),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.2))),
        Arc::new(rows.iter().map(|r| r.3).collect::<StringArray>()),
    ];
    Ok(RecordBatch::try_new(io.schema("labels")?, columns)?)
}
