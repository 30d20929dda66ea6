//! Materiality: how much of a step's input changed since its last result was made, and whether that matters.
//!
//! A step with `rerun: { if: "changed_rows > 0.005" }` keeps its last result while the share of its joined
//! input rows that were added, removed or changed stays below. The share is counted from the inputs that the
//! result was really made from, so that small drifts add up. Only drift of the input can be accepted; another
//! parameter or revision always runs.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use argent_cache::keys::row_keys;
use argent_cache::{Digest, Manifest, Store};
use arrow::array::{ArrayRef, RecordBatch};
use serde_json::Value;

use crate::decide::decisive_columns;
use crate::engine::Engine;
use crate::operator::Kind;
use crate::pipeline::Node;
use crate::recipe;
use crate::table::{Table, restored};

/// When a step whose input changed runs again: `changed_rows > SHARE` or `changed_rows >= SHARE`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rerun {
    /// The share of the joined input rows, from 0 to 1.
    share: f64,
    /// Whether the share itself runs the step.
    inclusive: bool,
}

impl Rerun {
    /// Reads a condition; none where it is not of the form above with a share from 0 to 1.
    pub fn parse(text: &str) -> Option<Rerun> {
        let rest = text.trim().strip_prefix("changed_rows")?.trim_start().strip_prefix('>')?;
        let (inclusive, number) = match rest.strip_prefix('=') {
            Some(number) => (true, number),
            None => (false, rest),
        };
        let share: f64 = number.trim().parse().ok()?;
        (0.0..=1.0).contains(&share).then_some(Rerun { share, inclusive })
    }

    fn wakes(self, drift: f64) -> bool {
        if self.inclusive { drift >= self.share } else { drift > self.share }
    }
}

impl fmt::Display for Rerun {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "changed_rows {} {}", if self.inclusive { ">=" } else { ">" }, self.share)
    }
}

/// The share of the joined input rows that changed since `last` was made, where the node's `rerun` accepts
/// it; none where the step has to run.
///
/// # Errors
/// When a table of now does not read. Tables of then that were collected are no error: what cannot be
/// counted is not accepted.
pub(crate) fn accepted(
    engine: &Engine,
    node: &Node,
    last: &Manifest,
    recipe: &Value,
    inputs: &BTreeMap<String, Table>,
) -> anyhow::Result<Option<f64>> {
    let Some(rerun) = node.rerun.filter(|_| !engine.options.strict) else { return Ok(None) };
    if !last.complete || !recipe::same_operator(&last.recipe, recipe) {
        return Ok(None);
    }
    let before = restored(&last.inputs, inputs);
    if !before.keys().eq(inputs.keys()) || inputs.values().any(|t| matches!(t, Table::Listed(_))) {
        return Ok(None);
    }
    let Ok(before) = joined(engine.store, node, &before) else { return Ok(None) };
    let drift = share(&before, &joined(engine.store, node, inputs)?);
    Ok((!rerun.wakes(drift)).then_some(drift))
}

/// The share of all rows, of then and of now, that are not the same in both.
fn share(before: &HashMap<Digest, Digest>, now: &HashMap<Digest, Digest>) -> f64 {
    let same = now.iter().filter(|(row, value)| before.get(*row) == Some(*value)).count();
    let kept = now.keys().filter(|row| before.contains_key(*row)).count();
    let all = before.len() + now.len() - kept;
    if all == 0 { 0.0 } else { (all - same) as f64 / all as f64 }
}

/// By row of the first port's table: the digest of what the step reads of it and of what is joined to it.
/// A row that finds no match is not part of the input. Tables that cannot be joined are counted by
/// themselves.
fn joined(
    store: &Store,
    node: &Node,
    tables: &BTreeMap<String, Table>,
) -> anyhow::Result<HashMap<Digest, Digest>> {
    let ports = node.operator.ports();
    let first = ports.iter().map(|p| p.name.to_owned()).find(|name| tables.contains_key(name));
    let Some(first) = first.or_else(|| tables.keys().next().cloned()) else { return Ok(HashMap::new()) };
    let table = &tables[&first];
    let mut rows = named_rows(store, node, &first, table)?;
    let mut alone: Vec<(Digest, Digest)> = Vec::new();
    for (port, other) in tables.iter().filter(|(port, _)| **port != first) {
        let on = node.inputs.iter().find(|input| input.port == *port).map_or("id", |input| input.on.as_str());
        if !table.has(on) || !other.has(on) {
            alone.extend(named_rows(store, node, port, other)?.into_iter().flatten());
            continue;
        }
        let groups = groups(store, node, port, other, on)?;
        let cells = keys_of(store, &table.read(store, &[on.to_owned()])?)?;
        for (row, cell) in rows.iter_mut().zip(&cells) {
            *row = match (row.take(), groups.get(cell)) {
                (Some((name, value)), Some(group)) => Some((name, both(store, &value, group))),
                _ => None,
            };
        }
    }
    let mut counted: HashMap<Digest, Digest> = HashMap::new();
    for (name, value) in rows.into_iter().flatten().chain(alone) {
        // Equal names stand only in tables without keys: the second of them is another row.
        let mut name = name;
        while counted.contains_key(&name) {
            name = both(store, &name, &name);
        }
        counted.insert(name, value);
    }
    Ok(counted)
}

/// A table's rows: the digest of each one's key cells, and that of the cells that the step reads.
fn named_rows(
    store: &Store,
    node: &Node,
    port: &str,
    table: &Table,
) -> anyhow::Result<Vec<Option<(Digest, Digest)>>> {
    let values = keys_of(store, &table.read(store, &decisive_columns(node, port))?)?;
    let keys = table.keys();
    let names = if keys.is_empty() { values.clone() } else { keys_of(store, &table.read(store, &keys)?)? };
    let place = store.secret().digest("argent drift port", port.as_bytes());
    let names = names.into_iter().map(|name| both(store, &place, &name));
    Ok(names.zip(values).map(Some).collect())
}

/// By value of the column `on`: the digest of all rows that have it.
fn groups(
    store: &Store,
    node: &Node,
    port: &str,
    table: &Table,
    on: &str,
) -> anyhow::Result<HashMap<Digest, Digest>> {
    let values = keys_of(store, &table.read(store, &decisive_columns(node, port))?)?;
    let cells = keys_of(store, &table.read(store, &[on.to_owned()])?)?;
    let mut members: HashMap<Digest, Vec<[u8; 32]>> = HashMap::new();
    for (cell, value) in cells.into_iter().zip(values) {
        members.entry(cell).or_default().push(value.0);
    }
    let digest = |mut values: Vec<[u8; 32]>| {
        values.sort_unstable();
        store.secret().digest("argent drift group", &values.concat())
    };
    Ok(members.into_iter().map(|(cell, values)| (cell, digest(values))).collect())
}

fn keys_of(store: &Store, batch: &RecordBatch) -> anyhow::Result<Vec<Digest>> {
    let columns: Vec<ArrayRef> = batch.columns().to_vec();
    row_keys(store.secret(), &store.secret().digest("argent drift row", b""), &columns, batch.num_rows())
}

fn both(store: &Store, first: &Digest, second: &Digest) -> Digest {
    store.secret().digest("argent drift pair", &[first.0, second.0].concat())
}

/// What is wrong with a `rerun` on an operator of this kind, if something is.
pub(crate) fn misplaced(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Row(_) | Kind::OneOf(_) => {
            Some("a row operator does only the rows that changed, so there is nothing to accept")
        }
        Kind::Table => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_a_comparison_of_changed_rows_with_a_share() {
        let parsed = |text: &str| Rerun::parse(text).map(|rerun| rerun.to_string());
        assert_eq!(parsed("changed_rows > 0.005").as_deref(), Some("changed_rows > 0.005"));
        assert_eq!(parsed(" changed_rows>=0.1 ").as_deref(), Some("changed_rows >= 0.1"));
        for wrong in ["changed_rows < 0.1", "changed_rows > 5", "changed_rows > x", "rows > 0.1", ""] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
        let rule = Rerun::parse("changed_rows > 0.25").unwrap();
        assert!(!rule.wakes(0.25) && rule.wakes(0.26));
        assert!(Rerun::parse("changed_rows >= 0.25").unwrap().wakes(0.25));
    }

    #[test]
    fn added_removed_and_changed_rows_count_once_each() {
        let rows = |pairs: &[(u8, u8)]| {
            pairs.iter().map(|(row, value)| (Digest([*row; 32]), Digest([*value; 32]))).collect()
        };
        let before = rows(&[(1, 1), (2, 2), (3, 3)]);
        assert!((share(&before, &before) - 0.0).abs() < f64::EPSILON);
        // Row 1 is the same, 2 changed, 3 is gone, 4 is new.
        let now = rows(&[(1, 1), (2, 9), (4, 4)]);
        assert!((share(&before, &now) - 0.75).abs() < f64::EPSILON);
        assert!((share(&HashMap::new(), &HashMap::new()) - 0.0).abs() < f64::EPSILON);
    }
}
