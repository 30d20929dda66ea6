//! The truth of a step's labels: the table by which a step below measures labels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context;
use argent_cache::Manifest;
use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;

use super::{Gold, makes_labels};
use crate::engine::Engine;
use crate::joining::texts;
use crate::operator::{Truth, Versions};
use crate::pipeline::{Node, NodeInput};
use crate::select::below;
use crate::trial::Beside;

/// The truth that a step below measures labels by.
pub(super) struct Truths<'a> {
    /// The step that makes it.
    name: &'a str,
    /// The step that measures by it.
    measure: &'a Node,
    table: RecordBatch,
    /// The id column by which labels find their truth.
    on: String,
    held_out: Option<HeldOut>,
}

/// Rows that are for the final score.
struct HeldOut {
    part: String,
    /// The id column by which rows find their part.
    on: String,
    /// By that column's value: the part.
    parts: BTreeMap<String, String>,
}

impl<'a> Truths<'a> {
    /// The truth of the labels that the node at this place makes, or why there is none: that of a step that reads them,
    /// else of one further below.
    pub(super) fn find(
        engine: &'a Engine,
        place: usize,
        results: &[Option<Arc<Manifest>>],
    ) -> Result<Truths<'a>, String> {
        let nodes = &engine.pipeline.nodes;
        if !makes_labels(&nodes[place]) {
            return Err("the step makes no labels".to_owned());
        }
        let after = below(engine.pipeline, &BTreeSet::from([place]));
        let mut candidates: Vec<(&Node, Truth, &NodeInput)> = Vec::new();
        for node in after.iter().map(|place| &nodes[*place]) {
            let Some(truth) = node.operator.truth() else { continue };
            let Some(input) = alone(node, truth.port) else { continue };
            // What is made of the labels is no truth about them.
            if input.node != place && !after.contains(&input.node) {
                candidates.push((node, truth, input));
            }
        }
        candidates.sort_by_key(|(node, ..)| !node.inputs.iter().any(|input| input.node == place));
        let none = || "no step below measures these labels by a truth".to_owned();
        let (measure, truth, input) = candidates.into_iter().next().ok_or_else(none)?;
        let name = nodes[input.node].name.as_str();
        let carries = |on: &str| nodes[place].signature.carries.iter().any(|column| column == on);
        if !carries(&input.on) {
            return Err(format!("`{name}` is joined by `{}`, which these labels have not", input.on));
        }
        let read = |input: &NodeInput| -> anyhow::Result<Option<RecordBatch>> {
            let Some(manifest) = &results[input.node] else { return Ok(None) };
            let table =
                manifest.outputs.get(&input.output).context("a result has the outputs that are read")?;
            engine.store.read_table(table, None).map(Some)
        };
        let said = |error: anyhow::Error| format!("`{name}` does not read: {error:#}");
        let Some(table) = read(input).map_err(said)? else {
            return Err(format!("`{name}` has no result yet"));
        };
        let held_out = match truth.held_out.and_then(|(port, part)| Some((alone(measure, port)?, part))) {
            Some((split, part)) if carries(&split.on) => {
                let Some(rows) = read(split).map_err(said)? else {
                    return Err(format!("`{}` has no result yet", nodes[split.node].name));
                };
                Some(HeldOut { part, on: split.on.clone(), parts: parts(&rows, &split.on).map_err(said)? })
            }
            Some((split, part)) => {
                let on = &split.on;
                return Err(format!(
                    "nothing tells which rows are of the part `{part}`: these labels have no `{on}`"
                ));
            }
            None => None,
        };
        Ok(Truths { name, measure, table, on: input.on.clone(), held_out })
    }

    /// The columns that [`Truths::known_rows`] looks at.
    pub(super) fn columns(&self) -> Vec<String> {
        let split = self.held_out.iter().map(|held_out| held_out.on.clone());
        BTreeSet::from_iter(split.chain([self.on.clone()])).into_iter().collect()
    }

    /// The rows about which the truth says something, those apart that are held out.
    pub(super) fn known_rows(&self, rows: &RecordBatch) -> anyhow::Result<BTreeSet<usize>> {
        let (ids, findings) = (texts(&self.table, &self.on)?, texts(&self.table, "finding")?);
        let said = (0..self.table.num_rows()).filter(|row| ids.is_valid(*row) && findings.is_valid(*row));
        let known: BTreeSet<&str> = said.map(|row| ids.value(row)).collect();
        let on = texts(rows, &self.on)?;
        let is_open = |row: usize| -> anyhow::Result<bool> {
            let Some(held_out) = &self.held_out else { return Ok(true) };
            let part = held_out.parts.get(texts(rows, &held_out.on)?.value(row));
            Ok(part != Some(&held_out.part))
        };
        let mut all = BTreeSet::new();
        for row in (0..rows.num_rows()).filter(|row| on.is_valid(*row) && known.contains(on.value(*row))) {
            if is_open(row)? {
                all.insert(row);
            }
        }
        Ok(all)
    }

    /// What the tried labels are worth.
    pub(super) fn gold(&self, tables: &Beside) -> anyhow::Result<Gold> {
        let known = self.known_rows(&tables.after)?;
        let is_known: BooleanArray =
            (0..tables.after.num_rows()).map(|row| Some(known.contains(&row))).collect();
        let after = filter_record_batch(&tables.after, &is_known)?;
        let ids = texts(&after, "id")?;
        let rows = ids.iter().flatten().collect::<BTreeSet<_>>().len() as u64;
        let versions =
            Versions { before: tables.before.as_ref(), after: &after, truth: &self.table, on: &self.on };
        let changes = if rows == 0 { Vec::new() } else { self.measure.operator.compare(&versions)? };
        Ok(Gold {
            truth: Some(self.name.to_owned()),
            measured_by: Some(self.measure.name.clone()),
            held_out: self.held_out.as_ref().map(|held_out| held_out.part.clone()),
            rows,
            changes,
            why: (rows == 0).then(|| format!("`{}` says nothing of these rows", self.name)),
        })
    }
}

/// The one table that fills a port; none where several are gathered, or the port is left out.
fn alone<'a>(node: &'a Node, port: &str) -> Option<&'a NodeInput> {
    node.inputs.iter().find(|input| input.port == port).filter(|input| input.axes.is_empty())
}

fn parts(split: &RecordBatch, on: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let (ids, parts) = (texts(split, on)?, texts(split, "part")?);
    let rows = (0..split.num_rows()).filter(|row| ids.is_valid(*row) && parts.is_valid(*row));
    Ok(rows.map(|row| (ids.value(row).to_owned(), parts.value(row).to_owned())).collect())
}
