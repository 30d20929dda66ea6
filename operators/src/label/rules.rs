//! `label.rules`: labels from reports by the rules of a finding pack.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Context;
use argent_engine::operator::ConfigFiles;
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, Signature, column};
use argent_reports::{FindingLabel, Labeller, Pack, State};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, SchemaRef};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::findings::{self, PackFile};
use crate::label::{STATES, label_fields};

/// Labels reports by rules: mentions, negation, uncertainty, context; no model and no cost.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelRules {
    /// The finding pack, relative to the spec.
    #[schemars(extend("x-not-in-key" = "the pack enters the key by its parsed rules"))]
    pub findings: String,
    /// The sections to read; left out, all that the table has.
    #[serde(default)]
    pub sections: Option<Vec<String>>,
    #[serde(skip)]
    pack: Option<PackFile>,
    /// Compiled when it is first needed: a run with nothing to do needs it not.
    #[serde(skip)]
    labeller: OnceLock<Arc<Labeller>>,
}

/// How many reports are labelled, and remembered, at a time.
const CHUNK: usize = 1024;

impl LabelRules {
    fn pack(&self) -> &Pack {
        &self.file().pack
    }

    fn file(&self) -> &PackFile {
        self.pack.as_ref().expect("the engine loads configuration files before anything else")
    }

    fn labeller(&self) -> anyhow::Result<&Labeller> {
        if let Some(labeller) = self.labeller.get() {
            return Ok(labeller);
        }
        let labeller = compiled(self.pack())?;
        Ok(self.labeller.get_or_init(|| labeller))
    }
}

/// The labeller of a pack. Steps that read the same pack share one: compiling its patterns takes longer than
/// everything else that is checked of a step.
fn compiled(pack: &Pack) -> anyhow::Result<Arc<Labeller>> {
    static KNOWN: Mutex<BTreeMap<String, Arc<Labeller>>> = Mutex::new(BTreeMap::new());
    let text = serde_json::to_string(pack)?;
    // A thread that panicked here has left the map as it was.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(labeller) = known.get(&text) {
        return Ok(Arc::clone(labeller));
    }
    let labeller = Arc::new(Labeller::new(pack)?);
    known.insert(text, Arc::clone(&labeller));
    Ok(labeller)
}

impl Operator for LabelRules {
    fn ports(&self) -> Vec<Port> {
        vec![Port::new("reports", "A table of reports: `id` and text sections.", &[Needed::text("id")])]
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        let pack = findings::load(files, "findings", &self.findings)?;
        files.uses(
            "findings",
            rules_part(&pack.pack).map_err(|e| vec![Problem::at(["with", "findings"], e.to_string())])?,
        );
        self.pack = Some(pack);
        Ok(())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let rules = self.labeller().map(drop).map_err(|error| match error.downcast_ref() {
            Some(mistakes) => self.file().problems(mistakes),
            None => vec![Problem::at(["with", "findings"], format!("`{}`: {error:#}", self.findings))],
        });
        let sections = match (sections(inputs, "reports", self.sections.as_deref()), rules) {
            (Ok(sections), Ok(())) => sections,
            (found, rules) => {
                return Err(found.err().into_iter().chain(rules.err()).flatten().collect());
            }
        };
        let own = column::schema(
            label_fields().into_iter().chain([column::number("score"), column::phi("evidence")]),
        );
        Ok(Signature::new(own, &["id", "finding"]).reads("reports", sections).carries(inputs.ids("reports")))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let (pack, labeller) = (self.pack(), self.labeller()?);
        let reports = io.rows().clone();
        let schema = io.schema("")?;
        let texts = section_texts(&reports)?;
        let labelled = |rows: Range<usize>| -> anyhow::Result<(Vec<usize>, RecordBatch)> {
            let labels: Vec<Vec<FindingLabel>> =
                rows.into_par_iter().map(|row| labeller.label(&sections_of(&texts, row))).collect();
            let lengths = labels.iter().map(Vec::len).collect();
            Ok((lengths, label_batch(&schema, pack, &labels.concat())?))
        };
        let all = reports.num_rows();
        let mut chunks = (0..all)
            .step_by(CHUNK)
            .map(|start| start..(start + CHUNK).min(all))
            .collect::<Vec<_>>()
            .into_iter();
        let mut next = chunks.next().map(|rows| (rows.clone(), labelled(rows)));
        while let Some((rows, made)) = next.take() {
            let (lengths, batch) = made?;
            // While one chunk is kept, the cores label the next.
            rayon::in_place_scope(|scope| {
                if let Some(rows) = chunks.next() {
                    scope.spawn(|_| next = Some((rows.clone(), labelled(rows))));
                }
                io.answer(&rows.clone().collect::<Vec<_>>(), &lengths, &batch)
            })?;
            io.progress(rows.end as u64, all as u64, "");
            if io.cancelled() {
                break;
            }
        }
        Ok(())
    }
}

/// The part of a pack that decides rule labels: everything but the words for people.
fn rules_part(pack: &Pack) -> anyhow::Result<serde_json::Value> {
    let mut part = serde_json::to_value(pack)?;
    part.as_object_mut().context("a pack is a mapping")?.retain(|key, _| key != "name" && key != "maps");
    for finding in part["findings"].as_array_mut().context("a pack has findings")? {
        let finding = finding.as_object_mut().context("a finding is a mapping")?;
        finding
            .retain(|key, _| !["name", "definition", "uncertain", "not_mentioned"].contains(&key.as_str()));
    }
    Ok(part)
}

/// The sections to read: those named, else all columns of the role.
pub(crate) fn sections(
    inputs: &Inputs,
    port: &str,
    named: Option<&[String]>,
) -> Result<Vec<String>, Vec<Problem>> {
    let schema = &inputs.port(port).schema;
    let all = column::names_with_role(schema, "section");
    let Some(named) = named else {
        if all.is_empty() {
            let problem = Problem::at(["from", port], "the table has no section of a report");
            return Err(vec![problem.help("name text columns with `sections`")]);
        }
        return Ok(all);
    };
    let is_text = |name: &str| schema.field_with_name(name).is_ok_and(|f: &Field| f.data_type().is_string());
    let absent = named.iter().enumerate().filter(|(_, name)| !is_text(name));
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    let problems: Vec<Problem> = absent
        .map(|(place, name)| {
            Problem::at(
                ["with".to_owned(), "sections".into(), place.to_string()],
                format!("the reports have no section `{name}`"),
            )
            .help(argent_engine::operator::nearest(name, &names, "sections"))
        })
        .collect();
    if problems.is_empty() { Ok(named.to_vec()) } else { Err(problems) }
}

/// The text columns of a batch of reports, by name.
pub(crate) fn section_texts(reports: &RecordBatch) -> anyhow::Result<Vec<(String, StringArray)>> {
    let schema = reports.schema();
    let columns = schema.fields().iter().zip(reports.columns());
    let texts = columns.map(|(field, column)| {
        let text = column
            .as_string_opt::<i32>()
            .with_context(|| format!("`{}` does not hold text", field.name()))?;
        Ok((field.name().clone(), text.clone()))
    });
    texts.collect()
}

/// One report's written sections.
pub(crate) fn sections_of(texts: &[(String, StringArray)], row: usize) -> Vec<(&str, &str)> {
    let written = texts.iter().filter(|(_, text)| text.is_valid(row));
    written.map(|(name, text)| (name.as_str(), text.value(row))).collect()
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Present => STATES[0],
        State::Absent => STATES[1],
        State::Uncertain => STATES[2],
        State::NotMentioned => STATES[3],
    }
}

fn label_batch(schema: &SchemaRef, pack: &Pack, labels: &[FindingLabel]) -> anyhow::Result<RecordBatch> {
    let finding = StringArray::from_iter_values(labels.iter().map(|l| pack.findings[l.finding].id.as_str()));
    let state = StringArray::from_iter_values(labels.iter().map(|l| state_name(l.state)));
    let score: Float64Array = labels.iter().map(|l| Some(f64::from(l.score))).collect();
    let evidence: StringArray = labels.iter().map(|l| l.evidence.as_ref().map(|e| e.text.as_str())).collect();
    let columns: Vec<ArrayRef> =
        vec![Arc::new(finding), Arc::new(state), Arc::new(score), Arc::new(evidence)];
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}
