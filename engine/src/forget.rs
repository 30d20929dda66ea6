//! Forgetting: every trace of the rows that a predicate names leaves the store, in every version.
//!
//! What is to go is found by values, not by guessing: the predicate is asked of the id columns of every table
//! in the store; the ids that its rows alone have become tombstones; and a row of any table that a tombstone
//! names goes. From those rows follow the answers: a row operator's by the row keys of its input rows, a
//! language model's by the calls that the removed labels name. What another, unforgotten row with equal values
//! uses stays.
//!
//! The order makes it safe to be killed: tombstones first, which a second go follows again; then answers, as
//! long as the tables still tell whose they are; then actions, tables and records; blobs last.

mod answers;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::error::Error;
use std::fmt;

use anyhow::{Context, bail};
use argent_cache::census::Records;
use argent_cache::collect::CALL;
use argent_cache::lock::Alone;
use argent_cache::tombstones::Tombstones;
use argent_cache::{BlobError, Digest, Manifest, Store, TableRecord};
use arrow::array::{Array, Float64Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use serde::Serialize;
use serde_json::Value;

use crate::column;
use crate::forgotten::{SUBJECTS, forgotten_rows, texts, without};

/// Which rows are to be forgotten; the engine itself knows no SQL.
pub struct Predicate<'a> {
    /// The columns that it reads of a table with this schema, or why it is no predicate over such a table.
    pub columns: &'a dyn Fn(&SchemaRef) -> Result<Vec<String>, String>,
    /// For each row, whether it is to be forgotten.
    pub holds: &'a dyn Fn(&RecordBatch) -> anyhow::Result<Vec<bool>>,
}

/// What forgetting removed, or would remove. It names nobody.
#[derive(Debug, Default, Serialize)]
pub struct Forgotten {
    /// Values of id columns that are not taken in again: by column, how many.
    pub subjects: BTreeMap<String, u64>,
    /// The tables that lose rows.
    pub tables: Vec<TableLoss>,
    /// Answers of row operators.
    pub answers: u64,
    /// Requests to language models, with what came of them.
    pub calls: u64,
    /// What those requests had cost, in US dollars; null where no price is known.
    pub calls_usd: Option<f64>,
    /// Side files that only the removed rows name.
    pub side_files: u64,
    /// Text files that a step made, such as a data set that was unpacked into the store, and that name someone who
    /// is forgotten. They stay: they are to be changed where they come from.
    pub source_files: u64,
    /// Results whose parameters name someone who is forgotten: they go, and come back with the spec that says so.
    pub named_in: Vec<Vec<String>>,
    /// Results made from rows that go: they are made again by the next run.
    pub made_from: Vec<MadeFrom>,
    /// Blobs removed, those included that interrupted runs left.
    pub blobs: u64,
}

/// A table that loses rows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TableLoss {
    /// The steps that it is or was a result of, as `pipeline.step`.
    pub steps: Vec<String>,
    /// Which of the step's outputs; empty for the main one.
    pub output: String,
    /// How many versions of it.
    pub versions: u64,
    /// Rows that go, in all versions together.
    pub rows: u64,
}

/// A result that was made from rows that go, and has none of them itself.
#[derive(Debug, Clone, Serialize)]
pub struct MadeFrom {
    /// The steps, as `pipeline.step`.
    pub steps: Vec<String>,
    /// The operator.
    pub operator: String,
    /// What making it cost, in US dollars; null where no price is known.
    pub usd: Option<f64>,
    /// Seconds that making it took.
    pub seconds: f64,
}

/// Why a predicate does not say whom to forget.
#[derive(Debug)]
pub struct WrongPredicate(String);

impl fmt::Display for WrongPredicate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Error for WrongPredicate {}

/// What [`forget`] would do. Nothing is changed.
///
/// # Errors
/// A [`WrongPredicate`] when no table has the columns that the predicate names; and when a record does not read.
pub fn plan(store: &Store, predicate: &Predicate, shared_memos: &[Digest]) -> anyhow::Result<Forgotten> {
    let search = Search::new(store, predicate, shared_memos)?;
    let doomed = search.doomed_answers()?;
    Ok(search.report(&doomed))
}

/// Forgets the rows that the predicate names. Runs after it do not take them in again.
///
/// # Errors
/// As [`plan`], and when the store cannot be written. Forgetting again then finishes it.
pub fn forget(
    store: &Store,
    alone: &Alone,
    predicate: &Predicate,
    shared_memos: &[Digest],
) -> anyhow::Result<Forgotten> {
    let search = Search::new(store, predicate, shared_memos)?;
    store.bury(&search.values)?;
    store.bury(&search.as_ids)?;
    let doomed = search.doomed_answers()?;
    for (operator, keys) in &doomed {
        store.memo(operator)?.retain(alone, &|key, _| !keys.contains(key))?;
    }
    search.rewrite()?;
    // Any state of a training may be made of what goes; the training begins anew.
    store.drop_checkpoints(alone)?;
    let blobs = store.sweep(alone)?;
    let tombstones = store.tombstones()?;
    store.prune_stat_cache(|path| !tombstones.holds_path(&path.to_string_lossy()), false)?;
    Ok(Forgotten { blobs, ..search.report(&doomed) })
}

/// The column of the table of calls that holds what was asked.
const REQUEST: &str = "request";

/// What is found before anything is changed.
struct Search<'a> {
    store: &'a Store,
    shared_memos: &'a [Digest],
    records: Records,
    tombstones: Tombstones,
    /// By id column: the values that are forgotten.
    values: Named,
    /// Patients and scans that a table may name by its column `id`.
    as_ids: Named,
    /// By the parts of a table: which of its rows go.
    marked: HashMap<Vec<Digest>, Vec<bool>>,
    /// The calls that only removed rows name, and those that others name.
    calls: Split,
    /// The sections of removed reports that no other report has.
    sections: BTreeSet<String>,
    /// The side files that only removed rows name.
    side_files: BTreeSet<String>,
    /// Text files that stay and name someone.
    source_files: u64,
    /// What the calls that go had cost.
    calls_usd: Option<f64>,
    /// The manifests that are rewritten or made from what goes.
    touched: BTreeSet<Digest>,
    /// The manifests whose parameters name someone.
    unkept: BTreeSet<Digest>,
    /// Words that answers hold: whether one names someone forgotten.
    words: RefCell<HashMap<String, bool>>,
}

/// Values by id column.
type Named = BTreeMap<String, BTreeSet<String>>;

/// Values of removed rows and of others.
#[derive(Default)]
struct Split {
    gone: BTreeSet<String>,
    kept: BTreeSet<String>,
}

impl Split {
    fn add(&mut self, rows: &RecordBatch, name: &str, marked: &[bool]) -> anyhow::Result<()> {
        let cells = texts(rows, name)?;
        for row in (0..cells.len()).filter(|row| cells.is_valid(*row)) {
            let side = if marked[row] { &mut self.gone } else { &mut self.kept };
            if !side.contains(cells.value(row)) {
                side.insert(cells.value(row).to_owned());
            }
        }
        Ok(())
    }

    fn only_gone(&self) -> BTreeSet<String> {
        self.gone.difference(&self.kept).cloned().collect()
    }
}

impl<'a> Search<'a> {
    fn new(
        store: &'a Store,
        predicate: &Predicate,
        shared_memos: &'a [Digest],
    ) -> anyhow::Result<Search<'a>> {
        let records = store.records()?;
        let tables = tables(&records);
        let (values, as_ids) = named_values(store, &tables, predicate)?;
        let tombstones = store.tombstones()?.with(&values).with(&as_ids);
        let mut search = Search {
            store,
            shared_memos,
            records,
            tombstones,
            values,
            as_ids,
            unkept: BTreeSet::new(),
            marked: HashMap::new(),
            calls: Split::default(),
            sections: BTreeSet::new(),
            side_files: BTreeSet::new(),
            source_files: 0,
            calls_usd: None,
            touched: BTreeSet::new(),
            words: RefCell::default(),
        };
        search.mark_named(&tables, predicate)?;
        search.mark_calls(&tables)?;
        search.mark_side_files(&tables)?;
        search.touch();
        search.mark_nameless()?;
        let names = |manifest: &Manifest| search.names_someone(&strings_of(&manifest.recipe));
        let unkept = search.records.manifests.iter().filter(|(_, manifest)| names(manifest));
        search.unkept = unkept.map(|(digest, _)| *digest).collect();
        search.source_files = search.files_that_name_someone(&tables)?;
        Ok(search)
    }

    /// Marks the rows of tables with id columns, and gathers what follows from them.
    fn mark_named(&mut self, tables: &[TableRecord], predicate: &Predicate) -> anyhow::Result<()> {
        let (mut sections, mut files) = (Split::default(), Split::default());
        for table in tables {
            let Some(rows) = read(self.store, table)? else { continue };
            let schema = rows.schema();
            let mut marked = forgotten_rows(&self.tombstones, &rows)?;
            if let Some(chosen) = chosen_rows(predicate, &rows)? {
                marked.iter_mut().zip(chosen).for_each(|(marked, chosen)| *marked |= chosen);
            }
            let has_ids = !column::names_with_role(&schema, "id").is_empty();
            if has_ids && schema.index_of(CALL).is_ok() {
                self.calls.add(&rows, CALL, &marked)?;
            }
            // A table without ids cannot tell whose its texts and files are.
            for section in column::names_with_role(&schema, "section").iter().filter(|_| has_ids) {
                sections.add(&rows, section, &marked)?;
            }
            for file in column::names_with_role(&schema, "file").iter().filter(|_| has_ids) {
                files.add(&rows, file, &marked)?;
            }
            if marked.contains(&true) {
                self.marked.insert(table.parts.clone(), marked);
            }
        }
        self.sections = sections.only_gone();
        self.side_files = files.only_gone();
        Ok(())
    }

    /// Marks the rows of tables that name calls and nobody's id.
    fn mark_calls(&mut self, tables: &[TableRecord]) -> anyhow::Result<()> {
        let gone = self.calls.only_gone();
        let mut usd: BTreeMap<String, f64> = BTreeMap::new();
        for table in tables.iter().filter(|table| has_column(table, CALL)) {
            let Some(rows) = read(self.store, table)? else { continue };
            if !column::names_with_role(rows.schema_ref(), "id").is_empty() {
                continue;
            }
            let calls = texts(&rows, CALL)?;
            // What was asked before an answer was mended, and what showed a removed row as an example.
            let requests = texts(&rows, REQUEST).ok();
            let quotes = |row: usize| {
                let request = requests.as_ref().filter(|requests| requests.is_valid(row));
                request.is_some_and(|r| self.quotes_someone(&answers::plain_text(r.value(row).as_bytes())))
            };
            let marked: Vec<bool> =
                (0..calls.len()).map(|row| gone.contains(calls.value(row)) || quotes(row)).collect();
            let prices = rows.column_by_name("usd").and_then(|c| c.as_any().downcast_ref::<Float64Array>());
            for row in (0..marked.len()).filter(|row| marked[*row]) {
                if let Some(prices) = prices.filter(|prices| prices.is_valid(row)) {
                    usd.insert(calls.value(row).to_owned(), prices.value(row));
                }
            }
            if marked.contains(&true) {
                self.marked.insert(table.parts.clone(), marked);
            }
        }
        self.calls_usd = (!usd.is_empty()).then(|| usd.values().sum());
        Ok(())
    }

    /// Marks the rows of tables that name side files and nobody's id.
    fn mark_side_files(&mut self, tables: &[TableRecord]) -> anyhow::Result<()> {
        if self.side_files.is_empty() {
            return Ok(());
        }
        for table in tables {
            let Some(rows) = read(self.store, table)? else { continue };
            let files = column::names_with_role(rows.schema_ref(), "file");
            if files.is_empty() || !column::names_with_role(rows.schema_ref(), "id").is_empty() {
                continue;
            }
            let mut marked = vec![false; rows.num_rows()];
            for name in files {
                let digests = texts(&rows, &name)?;
                let gone = |row: usize| digests.is_valid(row) && self.side_files.contains(digests.value(row));
                marked.iter_mut().enumerate().for_each(|(row, marked)| *marked |= gone(row));
            }
            if marked.contains(&true) {
                self.marked.insert(table.parts.clone(), marked);
            }
        }
        Ok(())
    }

    /// How many text files that tables list by path, and that stay, name someone.
    fn files_that_name_someone(&self, tables: &[TableRecord]) -> anyhow::Result<u64> {
        let mut seen: HashSet<String> = HashSet::new();
        let mut naming = 0;
        for table in tables.iter().filter(|table| has_column(table, "path") && !table.files.is_empty()) {
            let Some(rows) = read(self.store, table)? else { continue };
            let paths = texts(&rows, "path")?;
            for name in column::names_with_role(rows.schema_ref(), "file") {
                let digests = texts(&rows, &name)?;
                for row in (0..paths.len()).filter(|row| digests.is_valid(*row)) {
                    let is_text = TEXT_ENDINGS.iter().any(|ending| paths.value(row).ends_with(ending));
                    if !is_text || !seen.insert(digests.value(row).to_owned()) {
                        continue;
                    }
                    let bytes = match self.store.read(&digests.value(row).parse()?) {
                        Err(BlobError::Missing(_) | BlobError::Damaged(_)) => continue,
                        bytes => bytes?,
                    };
                    naming += u64::from(self.names_someone(&String::from_utf8_lossy(&bytes)));
                }
            }
        }
        Ok(naming)
    }

    /// Finds the results that lose rows, and those made from them, however many steps below.
    fn touch(&mut self) {
        let mut stale: HashSet<&[Digest]> = self.marked.keys().map(Vec::as_slice).collect();
        loop {
            let before = self.touched.len();
            for (digest, manifest) in &self.records.manifests {
                let mut all = manifest.outputs.values().chain(manifest.inputs.values());
                if all.any(|table| stale.contains(table.parts.as_slice())) {
                    self.touched.insert(*digest);
                    // Tables without a row are equal, whoever made them.
                    let outputs = manifest.outputs.values().filter(|table| table.rows > 0);
                    stale.extend(outputs.map(|table| table.parts.as_slice()));
                }
            }
            if self.touched.len() == before {
                return;
            }
        }
    }

    /// Empties the tables with patient text and nobody's id that were made from removed rows: nothing tells
    /// which of their rows are whose, and the next run makes them again.
    fn mark_nameless(&mut self) -> anyhow::Result<()> {
        for digest in &self.touched {
            for table in self.records.manifests[digest].outputs.values() {
                if self.marked.contains_key(&table.parts) || has_column(table, CALL) {
                    continue;
                }
                let Some(rows) = read(self.store, table)? else { continue };
                let has = |role: &str| !column::names_with_role(rows.schema_ref(), role).is_empty();
                if has("phi") && !has("id") && rows.num_rows() > 0 {
                    self.marked.insert(table.parts.clone(), vec![true; rows.num_rows()]);
                }
            }
        }
        Ok(())
    }
}

impl Search<'_> {
    /// Whether a text holds a forgotten id as a word of its own. Short ones are no sign: `a` is a word too.
    fn names_someone(&self, text: &str) -> bool {
        let is_part = |c: char| c.is_alphanumeric() || "_-.".contains(c);
        let mut words = text.split(|c: char| !is_part(c)).filter(|word| word.len() >= SHORTEST_SIGN);
        // Prompts repeat their words, and a tombstone costs several hashes to look for.
        let mut known = self.words.borrow_mut();
        words.any(|word| match known.get(word) {
            Some(known) => *known,
            None => *known.entry(word.to_owned()).or_insert_with(|| self.tombstones.holds_path(word)),
        })
    }
}

/// The endings of files that hold many people's rows as text.
const TEXT_ENDINGS: [&str; 5] = [".csv", ".tsv", ".json", ".jsonl", ".ndjson"];

/// An id of so many characters in a text is hardly a coincidence.
const SHORTEST_SIGN: usize = 4;

/// All strings of a JSON value, a line each.
fn strings_of(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text}\n"),
        Value::Array(items) => items.iter().map(strings_of).collect(),
        Value::Object(members) => members.values().map(strings_of).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => String::new(),
    }
}

/// Rewriting.
impl Search<'_> {
    /// Gives the touched results tables without the removed rows, takes their actions away, and lets runs and
    /// names point at what is left.
    fn rewrite(&self) -> anyhow::Result<()> {
        let gone: BTreeSet<Digest> = self.touched.union(&self.unkept).copied().collect();
        self.store.remove_actions(&self.records, &gone)?;
        let mut rewritten: HashMap<&[Digest], TableRecord> = HashMap::new();
        let mut moved: HashMap<Digest, Digest> = HashMap::new();
        for digest in self.touched.difference(&self.unkept) {
            let mut manifest = self.records.manifests[digest].clone();
            let old = &self.records.manifests[digest];
            // No run may go on with it: not as it is, and not because its input has hardly changed since.
            manifest.complete = false;
            let tables = old.outputs.values().zip(manifest.outputs.values_mut());
            for (old, table) in tables.chain(old.inputs.values().zip(manifest.inputs.values_mut())) {
                if !rewritten.contains_key(old.parts.as_slice())
                    && let Some(new) = self.rewritten(old)?
                {
                    rewritten.insert(&old.parts, new);
                }
                if let Some(new) = rewritten.get(old.parts.as_slice()) {
                    table.clone_from(new);
                }
            }
            moved.insert(*digest, self.store.put_bytes(&serde_json::to_vec(&manifest)?)?);
        }
        let moved_to = |digest: &mut Digest| {
            if let Some(new) = moved.get(digest) {
                *digest = *new;
            }
        };
        for mut run in self.records.runs.clone() {
            for step in &mut run.steps {
                step.collected |= step.manifest.is_some_and(|manifest| self.unkept.contains(&manifest));
                step.manifest.as_mut().map(moved_to);
                // A message may quote the path of a file that did not read.
                if step.error.as_ref().is_some_and(|error| self.names_someone(error)) {
                    step.error = Some("the message named someone who was forgotten".to_owned());
                }
            }
            if !self.records.runs.contains(&run) {
                self.store.write_run(&run)?;
            }
        }
        for mut trial in self.store.trials()? {
            if self.names_someone(&strings_of(&trial.recipe)) {
                trial.recipe = Value::Null;
                self.store.write_trial(&trial)?;
            }
        }
        for mut head in self.records.heads.clone() {
            head.steps.retain(|_, manifest| !self.unkept.contains(manifest));
            head.steps.values_mut().for_each(moved_to);
            if !self.records.heads.contains(&head) {
                self.store.set_head(&head)?;
            }
        }
        Ok(())
    }

    /// The table without the rows that go; none where it loses nothing.
    fn rewritten(&self, table: &TableRecord) -> anyhow::Result<Option<TableRecord>> {
        let Some(marked) = self.marked.get(&table.parts) else { return Ok(None) };
        let Some(rows) = read(self.store, table)? else { return Ok(None) };
        Ok(Some(self.store.put_table(&without(&rows, marked)?, &table.keys)?))
    }
}

/// Telling.
impl Search<'_> {
    fn report(&self, doomed: &BTreeMap<Digest, HashSet<Digest>>) -> Forgotten {
        let count = |shared: bool| {
            let memos = doomed.iter().filter(|(memo, _)| self.shared_memos.contains(memo) == shared);
            memos.map(|(_, keys)| keys.len() as u64).sum::<u64>()
        };
        Forgotten {
            subjects: self.values.iter().map(|(name, values)| (name.clone(), values.len() as u64)).collect(),
            tables: self.table_losses(),
            answers: count(false),
            calls: count(true),
            calls_usd: self.calls_usd,
            side_files: self.side_files.len() as u64,
            source_files: self.source_files,
            named_in: self
                .unkept
                .iter()
                .map(|digest| self.steps(digest))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            made_from: self.made_from(),
            blobs: 0,
        }
    }

    fn table_losses(&self) -> Vec<TableLoss> {
        let mut losses: BTreeMap<(Vec<String>, &String), Versions> = BTreeMap::new();
        for digest in &self.touched {
            for (output, table) in &self.records.manifests[digest].outputs {
                if let Some(marked) = self.marked.get(&table.parts) {
                    let rows = marked.iter().filter(|marked| **marked).count() as u64;
                    let versions = losses.entry((self.steps(digest), output)).or_default();
                    versions.insert(&table.parts, rows);
                }
            }
        }
        let loss = |((steps, output), versions): ((Vec<String>, &String), Versions)| TableLoss {
            steps,
            output: output.clone(),
            versions: versions.len() as u64,
            rows: versions.values().sum(),
        };
        losses.into_iter().map(loss).collect()
    }

    fn made_from(&self) -> Vec<MadeFrom> {
        let loses = |m: &Manifest| m.outputs.values().any(|table| self.marked.contains_key(&table.parts));
        let manifests = self.touched.iter().map(|digest| (digest, &self.records.manifests[digest]));
        let made = manifests.filter(|(_, manifest)| !loses(manifest)).map(|(digest, manifest)| MadeFrom {
            steps: self.steps(digest),
            operator: manifest.operator.clone(),
            usd: manifest.stats.usd,
            seconds: manifest.stats.seconds,
        });
        let mut made: Vec<MadeFrom> = made.collect();
        made.sort_by(|one, other| one.steps.cmp(&other.steps));
        made
    }

    fn steps(&self, digest: &Digest) -> Vec<String> {
        self.records.names.get(digest).into_iter().flatten().cloned().collect()
    }
}

/// Versions of a table by their parts: how many rows each loses.
type Versions<'a> = BTreeMap<&'a [Digest], u64>;

/// The different tables of all results and of what they were made from.
fn tables(records: &Records) -> Vec<TableRecord> {
    let outputs = records.manifests.values().flat_map(|manifest| manifest.outputs.values());
    // After the outputs: inputs are recorded without the lists of their side files.
    let all = outputs.chain(records.manifests.values().flat_map(|manifest| manifest.inputs.values()));
    let mut seen: HashSet<&[Digest]> = HashSet::new();
    all.filter(|table| seen.insert(&table.parts)).cloned().collect()
}

/// The values of id columns that only rows have which the predicate names; and those of patients and scans that
/// may stand in a column `id`.
fn named_values(
    store: &Store,
    tables: &[TableRecord],
    predicate: &Predicate,
) -> anyhow::Result<(Named, Named)> {
    let mut splits: BTreeMap<String, Split> = BTreeMap::new();
    let mut asked: BTreeSet<String> = BTreeSet::new();
    let mut ids: BTreeSet<String> = BTreeSet::new();
    let mut refusals: BTreeSet<(usize, String)> = BTreeSet::new();
    for table in tables {
        let Some(rows) = read(store, table)? else { continue };
        let schema = id_schema(rows.schema_ref());
        ids.extend(schema.fields().iter().map(|field| field.name().clone()));
        let read = match (predicate.columns)(&schema) {
            Ok(read) if read.is_empty() => {
                bail!(WrongPredicate(
                    "the predicate names no id column, expected one such as `patient`".to_owned()
                ))
            }
            Ok(read) => read,
            Err(reason) => {
                refusals.insert((reason.len(), reason));
                continue;
            }
        };
        let marked = (predicate.holds)(&of_schema(&rows, &schema)?)?;
        for name in buried_columns(&read).into_iter().filter(|name| schema.index_of(name).is_ok()) {
            splits.entry(name.clone()).or_default().add(&rows, &name, &marked)?;
        }
        asked.extend(read);
    }
    // Tables come in no order that means something; the shortest reason is the one about the predicate alone.
    if let Some((_, reason)) = refusals.first().filter(|_| asked.is_empty()) {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        bail!(WrongPredicate(format!(
            "{reason}; the tables of this store have the id columns {}",
            ids.join(", ")
        )));
    }
    let kept_ids = splits.get("id").map(|split| split.kept.clone()).unwrap_or_default();
    let values = splits.into_iter().map(|(name, split)| (name, split.only_gone()));
    let values: Named = values.filter(|(_, values)| !values.is_empty()).collect();
    // A table of labels per patient calls the patient `id`. A bare number would be somebody else's report.
    let is_name =
        |value: &&String| value.len() >= SHORTEST_SIGN && !value.bytes().all(|b| b.is_ascii_digit());
    let subjects = values.iter().filter(|(name, _)| SUBJECTS.contains(&name.as_str())).flat_map(|(_, v)| v);
    let as_ids: BTreeSet<String> =
        subjects.filter(is_name).filter(|value| !kept_ids.contains(*value)).cloned().collect();
    let as_ids = if as_ids.is_empty() { Named::new() } else { Named::from([("id".to_owned(), as_ids)]) };
    Ok((values, as_ids))
}

/// The columns whose values become tombstones: those asked about, and those that are finer.
fn buried_columns(asked: &[String]) -> BTreeSet<String> {
    let places = asked.iter().map(|name| SUBJECTS.iter().position(|subject| subject == name));
    // Another id, such as an accession number, is of one scan, and says nothing of the patient's others.
    let coarsest = places.map(|place| place.unwrap_or(1)).min().unwrap_or(SUBJECTS.len());
    let finer = SUBJECTS[coarsest..].iter().map(|name| (*name).to_owned());
    asked.iter().cloned().chain(finer).collect()
}

/// The rows that the predicate itself names; none where it does not read the table.
fn chosen_rows(predicate: &Predicate, rows: &RecordBatch) -> anyhow::Result<Option<Vec<bool>>> {
    let schema = id_schema(rows.schema_ref());
    match (predicate.columns)(&schema) {
        Ok(_) => Ok(Some((predicate.holds)(&of_schema(rows, &schema)?)?)),
        Err(_) => Ok(None),
    }
}

fn id_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().filter(|field| column::has_role(field, "id"));
    column::schema(fields.map(|field| field.as_ref().clone()))
}

fn of_schema(rows: &RecordBatch, schema: &Schema) -> anyhow::Result<RecordBatch> {
    let places = schema.fields().iter().map(|field| rows.schema_ref().index_of(field.name()));
    Ok(rows.project(&places.collect::<Result<Vec<_>, _>>()?)?)
}

fn has_column(table: &TableRecord, name: &str) -> bool {
    table.columns.iter().any(|column| column.name == name)
}

/// A table's rows; none where its blobs are gone, and with them all that could be forgotten of it.
fn read(store: &Store, table: &TableRecord) -> anyhow::Result<Option<RecordBatch>> {
    match store.read_table(table, None) {
        Ok(rows) => Ok(Some(rows)),
        Err(error) => match error.downcast_ref::<BlobError>() {
            Some(BlobError::Missing(_) | BlobError::Damaged(_)) => Ok(None),
            _ => Err(error).context("a table does not read; `argent verify` says more"),
        },
    }
}
