//! What differs between two versions of a table: rows that came and went, cells, and labels that flipped.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Context;
use argent_cache::encoding::{encode_cell, encode_rows};
use argent_cache::{Store, TableRecord};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{FieldRef, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::Serialize;

use crate::column;

/// What differs between two versions of a table. Holds no cell of a column of the role `phi`.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct TableDiff {
    /// How many rows there are, and of those how many differ.
    pub rows: RowCounts,
    /// The columns that differ, in the table's order.
    pub columns: Vec<ColumnDiff>,
    /// Of a table of findings: how often which label became which. The label is the first of `state`, `target`
    /// and `score` that the table has; a score is below 0.5 or not.
    pub flips: Vec<Flip>,
    /// The rows that differ, by key; none where a key column has the role `phi` or the table has no key.
    pub changes: Option<Vec<RowChange>>,
}

/// How many rows differ. Rows of a table without key columns, or whose key columns are others than before, are
/// compared as a whole: they come and go and never change.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct RowCounts {
    /// Rows before.
    pub before: u64,
    /// Rows after.
    pub after: u64,
    /// Rows whose key is there after and not before.
    pub added: u64,
    /// Rows whose key is there before and not after.
    pub removed: u64,
    /// Rows that are there before and after, with at least one cell that differs.
    pub changed: u64,
}

/// How a column differs.
#[derive(Debug, PartialEq, Serialize)]
pub struct ColumnDiff {
    /// The column.
    pub column: String,
    /// What became of it.
    pub change: ColumnChange,
    /// Whether it may hold patient text, so that its cells are not shown.
    pub phi: bool,
}

/// What became of a column.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnChange {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// So many cells of rows that are there before and after differ.
    Cells(u64),
}

/// How many labels of a finding flipped in one way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Flip {
    /// The finding.
    pub finding: String,
    /// The column of the label.
    pub column: String,
    /// The label before; none where it is null.
    pub from: Option<String>,
    /// The label after; none where it is null.
    pub to: Option<String>,
    /// How many rows.
    pub rows: u64,
}

/// How a row differs.
#[derive(Debug, PartialEq, Serialize)]
pub struct RowChange {
    /// Its key cells, by column.
    pub key: BTreeMap<String, String>,
    /// What became of it.
    pub change: RowFate,
}

/// What became of a row.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowFate {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// These cells differ.
    Cells(Vec<CellChange>),
}

/// How a cell differs.
#[derive(Debug, PartialEq, Serialize)]
pub struct CellChange {
    /// Its column.
    pub column: String,
    /// The cell before; none where it is null.
    pub from: Option<String>,
    /// The cell after; none where it is null.
    pub to: Option<String>,
}

/// Compares two versions of a table, rows joined on their key columns and cells by value.
///
/// # Errors
/// When one of the tables does not read: a [`BlobError`](argent_cache::BlobError) where it is no longer there.
pub fn diff(store: &Store, from: &TableRecord, to: &TableRecord) -> anyhow::Result<TableDiff> {
    if from.rows == to.rows && from.keys == to.keys && from.columns == to.columns {
        let rows = RowCounts { before: from.rows, after: to.rows, ..RowCounts::default() };
        return Ok(TableDiff { rows, changes: Some(Vec::new()), ..TableDiff::default() });
    }
    let versions = Versions::new(store.read_table(from, None)?, store.read_table(to, None)?);
    if from.keys != to.keys || to.keys.is_empty() {
        return versions.as_bags();
    }
    // Where the keys are the same sequence, so are the cells of a column whose digest is the same.
    let same_digest = |name: &str| {
        let digest = |table: &TableRecord| table.columns.iter().find(|c| c.name == name).map(|c| c.digest);
        digest(from) == digest(to)
    };
    let aligned = to.keys.iter().all(|key| same_digest(key));
    versions.by_key(&to.keys, |name| aligned && same_digest(name))
}

/// Two versions of a table, read.
struct Versions {
    before: RecordBatch,
    after: RecordBatch,
    /// The columns that may hold patient text in either version.
    phi: BTreeSet<String>,
}

impl Versions {
    fn new(before: RecordBatch, after: RecordBatch) -> Versions {
        let both = [&before, &after].into_iter();
        let phi = both.flat_map(|batch| column::names_with_role(&batch.schema(), "phi")).collect();
        Versions { before, after, phi }
    }

    /// Compares rows that have a key; columns of which `same` holds are not looked at.
    fn by_key(&self, keys: &[String], same: impl Fn(&str) -> bool) -> anyhow::Result<TableDiff> {
        let pairs = Pairs::new(&self.before, &self.after, keys)?;
        let mut columns = self.come_and_gone();
        let mut changed: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        let mut flips = Vec::new();
        for field in self.after.schema_ref().fields().iter().filter(|f| !same(f.name())) {
            let name = field.name().as_str();
            let Some(old) = self.before.column_by_name(name) else { continue };
            let places = differing(&pairs.both, old, self.after.column_by_name(name).context("a column")?)?;
            if places.is_empty() {
                continue;
            }
            if self.label() == Some(name) {
                flips = self.flips(name, places.iter().map(|place| pairs.both[*place]))?;
            }
            let change = ColumnChange::Cells(places.len() as u64);
            columns.push(ColumnDiff { column: name.to_owned(), change, phi: self.phi.contains(name) });
            places.into_iter().for_each(|place| changed.entry(place).or_default().push(name));
        }
        columns.sort_by_key(|column| self.after.schema_ref().index_of(&column.column).unwrap_or(usize::MAX));
        let rows = RowCounts {
            before: self.before.num_rows() as u64,
            after: self.after.num_rows() as u64,
            added: pairs.added.len() as u64,
            removed: pairs.removed.len() as u64,
            changed: changed.len() as u64,
        };
        let named = !keys.iter().any(|key| self.phi.contains(key));
        let changes = named.then(|| self.changes(keys, &pairs, &changed)).transpose()?;
        Ok(TableDiff { rows, columns, flips, changes })
    }

    /// Compares rows that have no common key: as many as there are more of are added or removed.
    fn as_bags(&self) -> anyhow::Result<TableDiff> {
        let mut more: HashMap<Vec<u8>, i64> = HashMap::new();
        for (batch, sign) in [(&self.before, -1), (&self.after, 1)] {
            for row in 0..batch.num_rows() {
                *more.entry(encode_rows(batch, row, 1)?).or_default() += sign;
            }
        }
        let count = |sign: i64| more.values().map(|n| (n * sign).max(0) as u64).sum();
        let rows = RowCounts {
            before: self.before.num_rows() as u64,
            after: self.after.num_rows() as u64,
            added: count(1),
            removed: count(-1),
            changed: 0,
        };
        Ok(TableDiff { rows, columns: self.come_and_gone(), ..TableDiff::default() })
    }

    /// The columns that only one of the tables has.
    fn come_and_gone(&self) -> Vec<ColumnDiff> {
        let only = |of: &RecordBatch, other: &RecordBatch, change: fn() -> ColumnChange| {
            let column = |field: &FieldRef| {
                let phi = self.phi.contains(field.name());
                ColumnDiff { column: field.name().clone(), change: change(), phi }
            };
            let fields = of.schema_ref().fields().iter();
            fields.filter(|f| other.column_by_name(f.name()).is_none()).map(column).collect::<Vec<_>>()
        };
        let mut columns = only(&self.before, &self.after, || ColumnChange::Removed);
        columns.extend(only(&self.after, &self.before, || ColumnChange::Added));
        columns
    }

    /// The column of a table of findings that flips are told of; none where it may hold patient text.
    fn label(&self) -> Option<&'static str> {
        let shown = |name: &&str| {
            let there = [&self.before, &self.after].iter().all(|batch| batch.column_by_name(name).is_some());
            there && !self.phi.contains(*name)
        };
        let label = ["state", "target", "score"].into_iter().find(shown);
        label.filter(|_| shown(&"finding"))
    }

    /// How often which label became which, by finding, in pairs of rows before and after.
    fn flips(&self, label: &str, pairs: impl Iterator<Item = (usize, usize)>) -> anyhow::Result<Vec<Flip>> {
        let mut counts: BTreeMap<(String, Option<String>, Option<String>), u64> = BTreeMap::new();
        for (earlier, later) in pairs {
            let from = label_text(&self.before, label, earlier)?;
            let to = label_text(&self.after, label, later)?;
            if from != to {
                let finding = cell(&self.after, "finding", later)?.unwrap_or_default();
                *counts.entry((finding, from, to)).or_default() += 1;
            }
        }
        let flip = |((finding, from, to), rows)| Flip { finding, column: label.to_owned(), from, to, rows };
        Ok(counts.into_iter().map(flip).collect())
    }

    /// The rows that differ, in the order of their keys. `changed` holds, by pair, the columns whose cells differ.
    fn changes(
        &self,
        keys: &[String],
        pairs: &Pairs,
        changed: &BTreeMap<usize, Vec<&str>>,
    ) -> anyhow::Result<Vec<RowChange>> {
        let mut all = Vec::new();
        for row in &pairs.removed {
            all.push(RowChange { key: key_of(&self.before, *row, keys)?, change: RowFate::Removed });
        }
        for row in &pairs.added {
            all.push(RowChange { key: key_of(&self.after, *row, keys)?, change: RowFate::Added });
        }
        for (pair, columns) in changed {
            let (earlier, later) = pairs.both[*pair];
            let shown = columns.iter().filter(|name| !self.phi.contains(**name));
            let cells = shown.map(|name| {
                let (from, to) = (cell(&self.before, name, earlier)?, cell(&self.after, name, later)?);
                Ok(CellChange { column: (*name).to_owned(), from, to })
            });
            let cells = cells.collect::<anyhow::Result<Vec<_>>>()?;
            all.push(RowChange { key: key_of(&self.after, later, keys)?, change: RowFate::Cells(cells) });
        }
        all.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(all)
    }
}

/// The rows of two tables, joined on their key.
struct Pairs {
    /// Rows that both have, in the order of the table after: their places before and after.
    both: Vec<(usize, usize)>,
    added: Vec<usize>,
    removed: Vec<usize>,
}

impl Pairs {
    fn new(before: &RecordBatch, after: &RecordBatch, keys: &[String]) -> anyhow::Result<Pairs> {
        let mut left: HashMap<Vec<u8>, usize> = HashMap::new();
        let cells = key_cells(before, keys)?;
        for row in 0..before.num_rows() {
            left.insert(encode_rows(&cells, row, 1)?, row);
        }
        let mut pairs = Pairs { both: Vec::new(), added: Vec::new(), removed: Vec::new() };
        let cells = key_cells(after, keys)?;
        for row in 0..after.num_rows() {
            match left.remove(&encode_rows(&cells, row, 1)?) {
                Some(earlier) => pairs.both.push((earlier, row)),
                None => pairs.added.push(row),
            }
        }
        pairs.removed = left.into_values().collect();
        Ok(pairs)
    }
}

/// The places of the pairs of rows that have different cells in a column.
fn differing(pairs: &[(usize, usize)], old: &ArrayRef, new: &ArrayRef) -> anyhow::Result<Vec<usize>> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let mut places = Vec::new();
    for (place, (before, after)) in pairs.iter().enumerate() {
        left.clear();
        right.clear();
        encode_cell(old.as_ref(), *before, &mut left)?;
        encode_cell(new.as_ref(), *after, &mut right)?;
        if left != right {
            places.push(place);
        }
    }
    Ok(places)
}

/// A label's text; a score is told by its side of 0.5 alone, since hardly any score comes again.
pub(crate) fn label_text(batch: &RecordBatch, column: &str, row: usize) -> anyhow::Result<Option<String>> {
    let scores = batch.column_by_name(column).and_then(|c| c.as_primitive_opt::<Float64Type>());
    match scores.filter(|scores| column == "score" && scores.is_valid(row)) {
        Some(scores) => {
            Ok(Some(if scores.value(row) < 0.5 { "below 0.5" } else { "0.5 or more" }.to_owned()))
        }
        None => cell(batch, column, row),
    }
}

/// A cell as text; none where it is null.
pub(crate) fn cell(batch: &RecordBatch, column: &str, row: usize) -> anyhow::Result<Option<String>> {
    let array = batch.column_by_name(column).with_context(|| format!("no column `{column}`"))?;
    if array.is_null(row) {
        return Ok(None);
    }
    Ok(Some(ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default())?.value(row).try_to_string()?))
}

fn key_of(batch: &RecordBatch, row: usize, keys: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    keys.iter().map(|key| Ok((key.clone(), cell(batch, key, row)?.unwrap_or_default()))).collect()
}

fn key_cells(batch: &RecordBatch, keys: &[String]) -> anyhow::Result<RecordBatch> {
    let places = keys.iter().map(|key| batch.schema().index_of(key)).collect::<Result<Vec<_>, _>>()?;
    Ok(batch.project(&places)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use argent_cache::Secret;
    use arrow::array::{Float64Array, StringArray};
    use arrow::datatypes::Field;

    use super::*;

    fn texts(cells: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(cells.to_vec()))
    }

    fn table(store: &Store, columns: Vec<(Field, ArrayRef)>, keys: &[&str]) -> TableRecord {
        let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
        let batch = RecordBatch::try_new(column::schema(fields), columns).unwrap();
        store.put_table(&batch, &keys.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_with_secret(folder.path(), Secret::from_bytes([1; 32])).unwrap();
        (folder, store)
    }

    fn predictions(store: &Store, rows: &[(&str, Option<f64>)]) -> TableRecord {
        let ids: Vec<Option<&str>> = rows.iter().map(|r| Some(r.0)).collect();
        let findings = vec![Some("nodule"); rows.len()];
        let scores = Arc::new(rows.iter().map(|r| r.1).collect::<Float64Array>());
        let columns = vec![
            (column::id("id"), texts(&ids)),
            (column::text("finding"), texts(&findings)),
            (column::number("score"), scores as ArrayRef),
        ];
        table(store, columns, &["id", "finding"])
    }

    #[test]
    fn scores_flip_when_they_cross_a_half_and_null_is_not_zero() {
        let (_folder, store) = store();
        let before =
            predictions(&store, &[("a", Some(0.1)), ("b", Some(0.2)), ("c", None), ("d", Some(-0.0))]);
        let after =
            predictions(&store, &[("a", Some(0.3)), ("b", Some(0.5)), ("c", Some(0.0)), ("d", Some(0.0))]);
        let found = diff(&store, &before, &after).unwrap();
        assert_eq!(found.rows, RowCounts { before: 4, after: 4, changed: 3, ..RowCounts::default() });
        let change = ColumnChange::Cells(3);
        assert_eq!(found.columns, [ColumnDiff { column: "score".into(), change, phi: false }]);
        let flip = |from: Option<&str>, to: &str| Flip {
            finding: "nodule".into(),
            column: "score".into(),
            from: from.map(str::to_owned),
            to: Some(to.to_owned()),
            rows: 1,
        };
        assert_eq!(found.flips, [flip(None, "below 0.5"), flip(Some("below 0.5"), "0.5 or more")]);
        assert_eq!(found.changes, None, "rows are named by patients' ids");
    }

    #[test]
    fn rows_and_columns_come_and_go() {
        let (_folder, store) = store();
        let names = |cells: &[Option<&str>]| (column::text("site"), texts(cells));
        let before = vec![
            names(&[Some("north"), Some("south")]),
            (column::text("old"), texts(&[None, None])),
            (column::text("city"), texts(&[Some("Oslo"), Some("Rome")])),
        ];
        let after = vec![
            names(&[Some("north"), Some("west")]),
            (column::text("city"), texts(&[None, Some("Rome")])),
            (column::phi("note"), texts(&[None, None])),
        ];
        let (before, after) = (table(&store, before, &["site"]), table(&store, after, &["site"]));
        let found = diff(&store, &before, &after).unwrap();
        assert_eq!(found.rows, RowCounts { before: 2, after: 2, added: 1, removed: 1, changed: 1 });
        let columns: Vec<_> = found.columns.iter().map(|c| (c.column.as_str(), &c.change, c.phi)).collect();
        assert_eq!(
            columns,
            [
                ("city", &ColumnChange::Cells(1), false),
                ("note", &ColumnChange::Added, true),
                ("old", &ColumnChange::Removed, false)
            ]
        );
        let row = |site: &str, change| RowChange { key: [("site".into(), site.into())].into(), change };
        let moved = CellChange { column: "city".into(), from: Some("Oslo".into()), to: None };
        assert_eq!(
            found.changes.unwrap(),
            [
                row("north", RowFate::Cells(vec![moved])),
                row("south", RowFate::Removed),
                row("west", RowFate::Added)
            ]
        );
        assert_eq!(diff(&store, &after, &after).unwrap().rows.changed, 0);
    }

    #[test]
    fn rows_without_a_key_are_counted() {
        let (_folder, store) = store();
        let bag = |cells: &[Option<&str>]| table(&store, vec![(column::text("kind"), texts(cells))], &[]);
        let (before, after) =
            (bag(&[Some("a"), Some("a"), Some("b")]), bag(&[Some("a"), None, Some("b"), Some("b")]));
        let found = diff(&store, &before, &after).unwrap();
        assert_eq!(found.rows, RowCounts { before: 3, after: 4, added: 2, removed: 1, changed: 0 });
        assert_eq!((found.columns, found.changes), (vec![], None));
    }
}
