//! Questions over everything in a store: steps as tables, and system tables about runs, costs and errors.
//!
//! A table is found as `labels` (the pipeline that was named, or the only one that has it), as
//! `chest_ct.labels`, and its further outputs as `labels.calls`. The combinations of a matrix are found by their
//! quoted names, and all of them as one table by the step's, with a column per axis. System tables lie in the schema
//! `argent`.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use argent_cache::keys::json_digest;
use argent_cache::{Head, RunRecord, Store, TableRecord};
use argent_engine::axes::{self, Combination};
use argent_engine::column;
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::Field;
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemTable, MemoryCatalogProvider, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::SessionContext;
use serde_json::Value;

use crate::sql::session::{
    marked, message, plan, question_session, reads_phi, stored_batch, stored_schema, table_name, wait,
};

/// The answer to a question.
pub struct Answer {
    /// The rows.
    pub batch: RecordBatch,
    /// The names of the columns that hold patient text, ids apart.
    pub phi: Vec<String>,
}

/// Answers an SQL question over a store. `pipeline` is the one whose steps have bare names.
///
/// # Errors
/// When the question does not read, or names what is not there; the message says what there is.
pub fn ask(store: &Store, pipeline: Option<&str>, question: &str) -> anyhow::Result<Answer> {
    let session = question_session();
    register(&session, store, pipeline)?;
    let (schema, phi, batches) = wait(async {
        let frame = plan(&session, question).await?;
        let schema = frame.schema().as_arrow().clone();
        let phi = reads_phi(&frame.clone().into_optimized_plan()?)?;
        Ok((schema, phi, frame.collect().await?))
    })
    .map_err(|error| anyhow::anyhow!("{}", explained(&message(&error), &session)))?;
    let schema = stored_schema(&schema, phi);
    let batches = batches.iter().map(|b| stored_batch(b, &schema)).collect::<anyhow::Result<Vec<_>>>()?;
    let phi = column::names_with_role(&schema, "phi");
    let ids = column::names_with_role(&schema, "id");
    Ok(Answer {
        batch: concat_batches(&schema, &batches)?,
        phi: phi.into_iter().filter(|name| !ids.contains(name)).collect(),
    })
}

/// A message about a table that is not there, with the tables that are.
fn explained(message: &str, session: &SessionContext) -> String {
    if !message.contains("table '") || !message.contains("not found") {
        return message.to_owned();
    }
    let catalog = session.catalog("store");
    let names = catalog.and_then(|c| c.schema("public")).map(|s| s.table_names()).unwrap_or_default();
    let names: Vec<String> = names.into_iter().filter(|name| !name.contains(['.', '['])).collect();
    let message = message.replace("store.public.", "");
    if names.is_empty() {
        return format!("{message}; the store has no results yet: run a pipeline first");
    }
    format!(
        "{message}; there are {}, and argent.runs, argent.steps, argent.costs, argent.errors",
        names.join(", ")
    )
}

fn register(session: &SessionContext, store: &Store, pipeline: Option<&str>) -> anyhow::Result<()> {
    let catalog = session.catalog("store").context("the session has its catalog")?;
    let mut schemas: BTreeMap<String, BTreeMap<String, Source>> = BTreeMap::new();
    let mut bare: BTreeMap<String, Vec<Source>> = BTreeMap::new();
    // `pipeline.step.output` is a catalog, a schema and a table.
    let mut pipelines: BTreeMap<String, BTreeMap<String, BTreeMap<String, Source>>> = BTreeMap::new();
    for head in store.heads()? {
        let wanted = pipeline.is_none_or(|name| name == head.pipeline);
        for (step, output, source) in sources(tables(store, &head)?) {
            let name = match output.as_str() {
                "" => table_name(&step),
                output => format!("{}.{}", table_name(&step), table_name(output)),
            };
            if !output.is_empty() {
                let steps = pipelines.entry(table_name(&head.pipeline)).or_default();
                let outputs = steps.entry(table_name(&step)).or_default();
                outputs.insert(table_name(&output), source.clone());
            }
            if output.is_empty() {
                schemas
                    .entry(table_name(&head.pipeline))
                    .or_default()
                    .insert(table_name(&step), source.clone());
            }
            if wanted {
                bare.entry(name).or_default().push(source);
            }
        }
    }
    for (pipeline, steps) in pipelines {
        let outputs = MemoryCatalogProvider::new();
        for (step, tables) in steps {
            outputs.register_schema(&step, Arc::new(StoredTables { store: store.clone(), tables }))?;
        }
        session.register_catalog(pipeline, Arc::new(outputs));
    }
    for (name, mut sources) in bare {
        // A name that two pipelines have must be asked for with its pipeline.
        let (true, Some(source)) = (sources.len() == 1, sources.pop()) else { continue };
        // `labels.calls` is found as it stands, and quoted as one name.
        let (schema, table) = axes::split_output(&name);
        if !table.is_empty() {
            schemas.entry(schema.to_owned()).or_default().entry(table.to_owned()).or_insert(source.clone());
        }
        schemas.entry("public".to_owned()).or_default().insert(name, source);
    }
    schemas.insert("argent".to_owned(), system_tables(store)?);
    schemas.entry("public".to_owned()).or_default();
    for (name, tables) in schemas {
        let schema = StoredTables { store: store.clone(), tables };
        catalog.register_schema(&name, Arc::new(schema))?;
    }
    Ok(())
}

/// The tables that a pipeline's names stand for: step, output, record.
fn tables(store: &Store, head: &Head) -> anyhow::Result<Vec<(String, String, TableRecord)>> {
    let mut all = Vec::new();
    for (step, digest) in &head.steps {
        // A result that was collected, or whose record is damaged, is made again by the next run.
        let Ok(manifest) = store.manifest(digest) else { continue };
        for (output, record) in manifest.outputs {
            all.push((step.clone(), output, record));
        }
    }
    Ok(all)
}

/// The tables of a pipeline, and the combinations of each matrix as one: step, output, rows.
fn sources(tables: Vec<(String, String, TableRecord)>) -> Vec<(String, String, Source)> {
    let mut gathered: BTreeMap<(String, String), Vec<(Combination, TableRecord)>> = BTreeMap::new();
    let mut all = Vec::new();
    for (step, output, record) in tables {
        if let Some((base, combination)) = axes::parse(&step).filter(|(_, axes)| !axes.is_empty()) {
            let members = gathered.entry((base.to_owned(), output.clone())).or_default();
            members.push((combination, record.clone()));
        }
        all.push((step, output, Source::Stored(record)));
    }
    for ((base, output), mut members) in gathered {
        members.sort_by(|(a, _), (b, _)| {
            let pairs = a.iter().zip(b).map(|((_, one), (_, other))| axes::compare(one, other));
            pairs.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
        });
        all.push((base, output, Source::Gathered(members)));
    }
    all
}

/// Where a table's rows come from.
#[derive(Debug, Clone)]
enum Source {
    /// The store.
    Stored(TableRecord),
    /// The store: the combinations of a matrix, which a column per axis tells apart.
    Gathered(Vec<(Combination, TableRecord)>),
    /// Memory.
    Made(RecordBatch),
}

/// Tables that are read when a question names them.
struct StoredTables {
    store: Store,
    tables: BTreeMap<String, Source>,
}

impl std::fmt::Debug for StoredTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.tables.keys()).finish()
    }
}

#[async_trait]
impl SchemaProvider for StoredTables {
    fn table_names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(source) = self.tables.get(&table_name(name)) else { return Ok(None) };
        let unreadable = |error: anyhow::Error| {
            DataFusionError::External(
                error.context("a stored table does not read; run the pipeline again").into(),
            )
        };
        let batch = match source {
            Source::Stored(record) => self.store.read_table(record, None).map_err(unreadable)?,
            Source::Gathered(members) => {
                let read = |(combination, record): &(Combination, TableRecord)| {
                    Ok((combination.clone(), self.store.read_table(record, None)?))
                };
                let members: anyhow::Result<Vec<_>> = members.iter().map(read).collect();
                gathered(&members.map_err(unreadable)?)
                    .map_err(|error| DataFusionError::External(error.into()))?
            }
            Source::Made(batch) => batch.clone(),
        };
        let batch = marked(&batch)?;
        Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.contains_key(&table_name(name))
    }
}

/// Tables one below the other, with a column per axis in front; a column that one of them lacks is null there.
fn gathered(members: &[(Combination, RecordBatch)]) -> anyhow::Result<RecordBatch> {
    let names: Vec<&String> =
        members.first().into_iter().flat_map(|(axes, _)| axes).map(|(axis, _)| axis).collect();
    let value = |combination: &Combination, axis: &str| {
        combination.iter().find(|(name, _)| name == axis).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let mut fields: Vec<Field> = Vec::new();
    for axis in names {
        let values: Vec<String> = members.iter().map(|(combination, _)| value(combination, axis)).collect();
        fields.push(axes::field(axis, values.iter().map(String::as_str)));
    }
    let axis_count = fields.len();
    for (_, batch) in members {
        for field in batch.schema().fields() {
            match fields.iter().find(|known| known.name() == field.name()) {
                None => fields.push(field.as_ref().clone().with_nullable(true)),
                Some(known) if known.data_type() == field.data_type() => {}
                Some(known) => anyhow::bail!(
                    "the combinations are no one table: `{}` holds {} and {}; ask for one by its name",
                    field.name(),
                    column::type_name(known.data_type()),
                    column::type_name(field.data_type())
                ),
            }
        }
    }
    let schema = column::schema(fields);
    let batches = members.iter().map(|(combination, batch)| {
        let columns = schema.fields().iter().enumerate().map(|(place, field)| {
            let rows = batch.num_rows();
            match batch.column_by_name(field.name()) {
                _ if place < axis_count => {
                    axes::cells(field.data_type(), &value(combination, field.name()), rows)
                }
                Some(column) => column.clone(),
                None => new_null_array(field.data_type(), rows),
            }
        });
        Ok(RecordBatch::try_new(schema.clone(), columns.collect())?)
    });
    Ok(concat_batches(&schema, &batches.collect::<anyhow::Result<Vec<_>>>()?)?)
}

fn system_tables(store: &Store) -> anyhow::Result<BTreeMap<String, Source>> {
    let runs = store.runs()?;
    let tables = [
        ("runs", runs_table(&runs)?),
        ("steps", steps_table(&runs)?),
        ("costs", costs_table(store, &runs)?),
        ("errors", errors_table(store)?),
    ];
    Ok(tables.into_iter().map(|(name, batch)| (name.to_owned(), Source::Made(batch))).collect())
}

fn runs_table(runs: &[RunRecord]) -> anyhow::Result<RecordBatch> {
    let schema = column::schema([
        column::text("run"),
        column::text("pipeline"),
        column::text("started"),
        column::text("finished"),
        column::text("outcome"),
        column::whole("steps_made"),
        column::whole("steps_reused"),
    ]);
    let count =
        |run: &RunRecord, action: &str| run.steps.iter().filter(|s| s.action == action).count() as i64;
    Ok(RecordBatch::try_new(
        schema,
        vec![
            texts(runs.iter().map(|r| Some(r.run.as_str()))),
            texts(runs.iter().map(|r| Some(r.pipeline.as_str()))),
            texts(runs.iter().map(|r| Some(r.started.as_str()))),
            texts(runs.iter().map(|r| r.finished.as_deref())),
            texts(runs.iter().map(|r| Some(if r.ok { "done" } else { "not done" }))),
            wholes(runs.iter().map(|r| count(r, "made"))),
            wholes(runs.iter().map(|r| count(r, "reused"))),
        ],
    )?)
}

fn steps_table(runs: &[RunRecord]) -> anyhow::Result<RecordBatch> {
    let steps: Vec<_> = runs.iter().flat_map(|run| run.steps.iter().map(move |step| (run, step))).collect();
    let schema = column::schema([
        column::text("run"),
        column::text("pipeline"),
        column::text("step"),
        column::text("operator"),
        column::text("action"),
        column::text("key"),
        column::whole("made"),
        column::whole("reused"),
        column::whole("failed"),
        column::whole("requests"),
        column::number("usd"),
        column::number("seconds"),
        column::number("changed_rows"),
        column::text("error"),
    ]);
    let keys: Vec<Option<String>> = steps.iter().map(|(_, s)| s.key.map(|k| k.to_string())).collect();
    Ok(RecordBatch::try_new(
        schema,
        vec![
            texts(steps.iter().map(|(r, _)| Some(r.run.as_str()))),
            texts(steps.iter().map(|(r, _)| Some(r.pipeline.as_str()))),
            texts(steps.iter().map(|(_, s)| Some(s.step.as_str()))),
            texts(steps.iter().map(|(_, s)| Some(s.operator.as_str()))),
            texts(steps.iter().map(|(_, s)| Some(s.action.as_str()))),
            texts(keys.iter().map(Option::as_deref)),
            wholes(steps.iter().map(|(_, s)| s.stats.made as i64)),
            wholes(steps.iter().map(|(_, s)| s.stats.reused as i64)),
            wholes(steps.iter().map(|(_, s)| s.stats.failed as i64)),
            wholes(steps.iter().map(|(_, s)| s.stats.requests as i64)),
            numbers(steps.iter().map(|(_, s)| s.stats.usd)),
            numbers(steps.iter().map(|(_, s)| Some(s.stats.seconds))),
            numbers(steps.iter().map(|(_, s)| s.drift)),
            texts(steps.iter().map(|(_, s)| s.error.as_deref())),
        ],
    )?)
}

/// What a run or a trial of a step spent on asking a model.
struct Spending<'a> {
    /// The id of the run or of the trial.
    id: &'a str,
    kind: &'static str,
    pipeline: &'a str,
    step: &'a str,
    /// Null where the result is gone.
    recipe: Value,
    stats: &'a argent_cache::Stats,
}

/// What steps that ask a model have cost, by run or trial, model and prompt.
fn costs_table(store: &Store, runs: &[RunRecord]) -> anyhow::Result<RecordBatch> {
    let trials = store.trials()?;
    let mut lines: Vec<Spending> = Vec::new();
    for run in runs {
        for step in run.steps.iter().filter(|s| s.stats.requests > 0) {
            let manifest = step.manifest.and_then(|digest| store.manifest(&digest).ok());
            let recipe = manifest.map(|manifest| manifest.recipe).unwrap_or_default();
            let (id, pipeline, step, stats) = (&run.run, &run.pipeline, &step.step, &step.stats);
            lines.push(Spending { id, kind: "run", pipeline, step, recipe, stats });
        }
    }
    for trial in &trials {
        let (id, pipeline, step) = (&trial.trial, &trial.pipeline, &trial.step);
        let recipe = trial.recipe.clone();
        lines.push(Spending { id, kind: "trial", pipeline, step, recipe, stats: &trial.stats });
    }
    // Ids begin with the time.
    lines.sort_by_key(|line| line.id);
    let schema = column::schema([
        column::text("run"),
        column::text("kind"),
        column::text("pipeline"),
        column::text("step"),
        column::text("model"),
        column::text("prompt_digest"),
        column::whole("requests"),
        column::whole("tokens_in"),
        column::whole("tokens_cached"),
        column::whole("tokens_out"),
        column::number("usd"),
    ]);
    let prompts: Vec<Option<String>> = lines
        .iter()
        .map(|line| {
            let prompt = line.recipe["files"].get("prompt")?;
            // As in the `prompt_digest` of `label.llm`'s calls, so that the two join.
            Some(json_digest(store.secret(), "argent question", prompt).to_string())
        })
        .collect();
    Ok(RecordBatch::try_new(
        schema,
        vec![
            texts(lines.iter().map(|l| Some(l.id))),
            texts(lines.iter().map(|l| Some(l.kind))),
            texts(lines.iter().map(|l| Some(l.pipeline))),
            texts(lines.iter().map(|l| Some(l.step))),
            texts(lines.iter().map(|l| l.recipe["params"]["endpoint"]["model"].as_str())),
            texts(prompts.iter().map(Option::as_deref)),
            wholes(lines.iter().map(|l| l.stats.requests as i64)),
            wholes(lines.iter().map(|l| l.stats.tokens_in as i64)),
            wholes(lines.iter().map(|l| l.stats.tokens_cached as i64)),
            wholes(lines.iter().map(|l| l.stats.tokens_out as i64)),
            numbers(lines.iter().map(|l| l.stats.usd)),
        ],
    )?)
}

/// Every step's failed rows, by kind.
fn errors_table(store: &Store) -> anyhow::Result<RecordBatch> {
    let mut counts: BTreeMap<(String, String, String, String), i64> = BTreeMap::new();
    for head in store.heads()? {
        for (step, output, record) in tables(store, &head)? {
            if output != "errors" || record.rows == 0 {
                continue;
            }
            let rows = store.read_table(&record, Some(&["kind", "message"]))?;
            let kinds = argent_engine::joining::texts(&rows, "kind")?;
            let messages = argent_engine::joining::texts(&rows, "message")?;
            for (kind, message) in kinds.iter().zip(messages) {
                let of = |text: Option<&str>| text.unwrap_or_default().to_owned();
                *counts.entry((head.pipeline.clone(), step.clone(), of(kind), of(message))).or_default() += 1;
            }
        }
    }
    let schema = column::schema([
        column::text("pipeline"),
        column::text("step"),
        column::text("kind"),
        column::text("message"),
        column::whole("rows"),
    ]);
    Ok(RecordBatch::try_new(
        schema,
        vec![
            texts(counts.keys().map(|k| Some(k.0.as_str()))),
            texts(counts.keys().map(|k| Some(k.1.as_str()))),
            texts(counts.keys().map(|k| Some(k.2.as_str()))),
            texts(counts.keys().map(|k| Some(k.3.as_str()))),
            wholes(counts.values().copied()),
        ],
    )?)
}

fn texts<'a>(cells: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(cells.collect::<StringArray>())
}

fn wholes(cells: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(cells))
}

fn numbers(cells: impl Iterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(cells.collect::<Float64Array>())
}
