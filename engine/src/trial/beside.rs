//! The rows that a trial made beside those of the step's last result.

use std::collections::{BTreeMap, HashMap};

use argent_cache::encoding::encode_rows;
use argent_cache::{Manifest, Store, TableRecord};
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};

use super::TriedOutput;
use crate::column;
use crate::diff::{self, label_text};
use crate::io::RowError;
use crate::pipeline::Node;
use crate::rows::Outcomes;
use crate::schedule::lost_blob;

/// The rows of a step's table for a few input rows, as they would be and as they are.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) after: RecordBatch,
    /// None where there is no last result, or the store has it no more.
    pub(crate) before: Option<RecordBatch>,
    /// The operator's own columns that are shown, in order.
    pub(crate) columns: Vec<String>,
    /// Of a table of findings: the column of the label.
    pub(crate) label: Option<&'static str>,
    /// By input row: its rows, as places after and before.
    pairs: Vec<Vec<(Option<usize>, Option<usize>)>>,
    /// By input row that failed: why.
    errors: BTreeMap<usize, RowError>,
}

impl Beside {
    /// Finds the rows of the last result that are of the input rows with these names, or have the keys of rows that were
    /// made of them.
    pub(crate) fn new(
        store: &Store,
        node: &Node,
        last: Option<&Manifest>,
        names: &RecordBatch,
        outcomes: Outcomes,
    ) -> anyhow::Result<Beside> {
        let keys = &node.signature.main().keys;
        let after = outcomes.main;
        let mut pairs = vec![Vec::new(); names.num_rows()];
        let mut by_key: HashMap<Vec<u8>, (usize, usize)> = HashMap::new();
        let after_keys = projected(&after, keys)?;
        for (place, row) in outcomes.places.iter().enumerate() {
            let row = usize::try_from(*row)?;
            if let Some(cells) = &after_keys {
                by_key.insert(encode_rows(cells, place, 1)?, (row, pairs[row].len()));
            }
            pairs[row].push((Some(place), None));
        }
        let last = last.and_then(|last| last.outputs.get(""));
        let found = last.map(|last| Found::read(store, last, names, keys, &by_key)).transpose();
        let found = match found {
            Err(error) if lost_blob(&error) => None,
            found => found?,
        };
        for (place, (row, pair)) in found.iter().flat_map(|found| found.owners.iter().enumerate()) {
            match pair {
                Some(pair) => pairs[*row][*pair].1 = Some(place),
                None => pairs[*row].push((None, Some(place))),
            }
        }
        let errors = outcomes.failed.into_iter().map(|(row, error)| Ok((usize::try_from(row)?, error)));
        let errors = errors.collect::<anyhow::Result<_>>()?;
        let columns = shown_columns(node);
        let label = label(&after, &columns);
        Ok(Beside { after, before: found.map(|found| found.rows), columns, label, pairs, errors })
    }

    /// The rows of one input row.
    pub(crate) fn outputs(&self, row: usize) -> anyhow::Result<Vec<TriedOutput>> {
        self.pairs[row].iter().map(|(after, before)| self.output(*after, *before)).collect()
    }

    /// Why an input row has no answer.
    pub(crate) fn error(&self, row: usize) -> Option<&RowError> {
        self.errors.get(&row)
    }

    /// The shown cells of a row, those of columns that its table lacks apart.
    fn cells(&self, batch: &RecordBatch, place: usize) -> anyhow::Result<Cells> {
        let there = self.columns.iter().filter(|name| batch.column_by_name(name).is_some());
        there.map(|name| Ok((name.clone(), diff::cell(batch, name, place)?))).collect()
    }

    fn output(&self, after: Option<usize>, before: Option<usize>) -> anyhow::Result<TriedOutput> {
        let after = after.map(|place| (&self.after, place));
        let before = before.and_then(|place| Some((self.before.as_ref()?, place)));
        let cells = |side: Option<(&RecordBatch, usize)>| {
            side.map(|(batch, place)| self.cells(batch, place)).transpose()
        };
        let (now, then) = (cells(after)?, cells(before)?);
        let flipped = match (self.label, after.zip(before)) {
            (_, None) => false,
            (Some(label), Some((after, before))) => {
                before.0.column_by_name(label).is_some()
                    && label_text(after.0, label, after.1)? != label_text(before.0, label, before.1)?
            }
            (None, Some(_)) => now != then,
        };
        let finding = after.or(before).filter(|(batch, _)| batch.column_by_name("finding").is_some());
        let finding =
            finding.map(|(batch, place)| diff::cell(batch, "finding", place)).transpose()?.flatten();
        Ok(TriedOutput { finding, after: now, before: then, flipped })
    }
}

type Cells = BTreeMap<String, Option<String>>;

/// Rows of the last result, and of which input rows they are.
struct Found {
    rows: RecordBatch,
    /// By row: the input row, and which of its rows has the same key.
    owners: Vec<(usize, Option<usize>)>,
}

impl Found {
    fn read(
        store: &Store,
        last: &TableRecord,
        names: &RecordBatch,
        keys: &[String],
        by_key: &HashMap<Vec<u8>, (usize, usize)>,
    ) -> anyhow::Result<Found> {
        let naming: Vec<String> = names.schema().fields().iter().map(|field| field.name().clone()).collect();
        let mut by_name: HashMap<Vec<u8>, usize> = HashMap::new();
        for row in 0..names.num_rows() {
            by_name.insert(encode_rows(names, row, 1)?, row);
        }
        let columns: Vec<&str> = last.columns.iter().map(|column| column.name.as_str()).collect();
        let (mut owners, mut pieces, mut schema) = (Vec::new(), Vec::new(), None);
        for chunk in store.table_chunks(last, &columns) {
            let chunk = chunk?;
            let (name_cells, key_cells) = (projected(&chunk, &naming)?, projected(&chunk, keys)?);
            let mut kept = Vec::with_capacity(chunk.num_rows());
            for row in 0..chunk.num_rows() {
                let encoded = |cells: &Option<RecordBatch>| {
                    cells.as_ref().map(|cells| encode_rows(cells, row, 1)).transpose()
                };
                let named = encoded(&name_cells)?.and_then(|name| by_name.get(&name).copied());
                let paired = encoded(&key_cells)?.and_then(|key| by_key.get(&key).copied());
                let owner = paired.map(|(row, pair)| (row, Some(pair))).or(named.map(|row| (row, None)));
                kept.push(owner.is_some());
                owners.extend(owner);
            }
            schema = Some(chunk.schema());
            pieces.push(filter_record_batch(&chunk, &BooleanArray::from(kept))?);
        }
        let schema = schema.ok_or_else(|| anyhow::anyhow!("a table has a part, even without rows"))?;
        Ok(Found { rows: concat_batches(&schema, &pieces)?, owners })
    }
}

/// These columns; none where one of them is not there, or there are none.
fn projected(batch: &RecordBatch, names: &[String]) -> anyhow::Result<Option<RecordBatch>> {
    let places: Option<Vec<usize>> = names.iter().map(|name| batch.schema().index_of(name).ok()).collect();
    Ok(places.filter(|places| !places.is_empty()).map(|places| batch.project(&places)).transpose()?)
}

/// The operator's own columns, those apart that hold digests: of side files, and of calls.
fn shown_columns(node: &Node) -> Vec<String> {
    let is_digest = |field: &arrow::datatypes::Field| {
        let shared = node.operator.shared_keys().is_some_and(|(column, _)| column == field.name());
        shared || column::has_role(field, "file") || column::has_role(field, "source")
    };
    let fields = node.signature.main().schema.fields().iter();
    fields.filter(|field| !is_digest(field)).map(|field| field.name().clone()).collect()
}

/// The column of the label, in a table of findings.
fn label(table: &RecordBatch, own: &[String]) -> Option<&'static str> {
    let is_own = |name: &&str| own.iter().any(|column| column == name);
    let label = ["state", "target", "score"].into_iter().find(is_own);
    label.filter(|_| table.column_by_name("finding").is_some())
}
