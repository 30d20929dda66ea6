//! Trying a step on a few of its rows: the operator's own work, and its answers remembered as a run remembers them, so
//! that a run never does them again. No result is published; what was spent is accounted as a trial.

mod beside;

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, anyhow};
use argent_cache::{Manifest, Stats, TrialRecord};
use arrow::array::RecordBatch;
use arrow::datatypes::FieldRef;
use serde::Serialize;

use crate::decide::{Decider, Work};
use crate::diff;
use crate::engine::Engine;
use crate::execute::Terms;
use crate::io::{Io, RowError};
use crate::operator::{Exchange, Kind, Projection};
use crate::pipeline::Node;
use crate::plan;
use crate::pools::{Demand, Pools};
use crate::rows::{Failed, RowWork};
pub(crate) use beside::Beside;

/// Which rows are tried.
#[derive(Debug, Clone)]
pub enum Choice {
    /// So many, the same each time: a longer choice holds a shorter one.
    Rows(usize),
    /// All rows of one id.
    Id(String),
}

/// What came of trying a step.
#[derive(Debug, Serialize)]
pub struct Trial {
    /// The step.
    pub step: String,
    /// Its operator.
    pub r#use: String,
    /// How many rows the step has.
    pub total: u64,
    /// The operator's own columns that are shown, in order.
    pub columns: Vec<String>,
    /// Of a table of findings: the column of the label.
    pub label: Option<&'static str>,
    /// When the result was made that stands beside; none where there is none yet.
    pub before: Option<String>,
    /// The rows that were tried.
    pub rows: Vec<TriedRow>,
    /// What the trial did and what that cost.
    pub tried: Stats,
    /// The rows of the step that still have no answer.
    pub rest_rows: u64,
    /// What those will take, by what the tried ones took; none for an operator that asks no server.
    pub rest: Option<Projection>,
    /// Why some rows were not tried: a budget, or the user's word.
    pub stopped: Option<Stopped>,
    /// The rows of the step's table that were made, and those that they stand beside.
    #[serde(skip)]
    pub(crate) tables: Beside,
}

/// Why a trial ended before its last row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// A budget, in words.
    Budget(String),
    /// The user.
    Interrupted,
}

/// One input row that was tried.
#[derive(Debug, Serialize)]
pub struct TriedRow {
    /// The cells that name it.
    pub row: BTreeMap<String, String>,
    /// What was asked about it.
    pub exchanges: Vec<TriedExchange>,
    /// The rows of the step's table that are of it, before and after.
    pub outputs: Vec<TriedOutput>,
    /// Why it has no answer.
    pub error: Option<RowError>,
}

/// A question about a row.
#[derive(Debug, Serialize)]
pub struct TriedExchange {
    /// The question, and what came of it.
    #[serde(flatten)]
    pub exchange: Exchange,
    /// Whether it was sent by this trial; else its answer was there.
    pub sent: bool,
}

/// A row of the step's table, as it is and as it would be.
#[derive(Debug, Serialize)]
pub struct TriedOutput {
    /// Its finding, in a table of findings.
    pub finding: Option<String>,
    /// The cells as they would be; none where the row would be gone.
    pub after: Option<BTreeMap<String, Option<String>>>,
    /// The cells as they are in the last result; none where it has no such row.
    pub before: Option<BTreeMap<String, Option<String>>>,
    /// Whether the label is another one than before; of a table without labels, whether any cell is.
    pub flipped: bool,
}

/// Why a step cannot be tried as the command line says.
#[derive(Debug)]
pub struct WrongTrial(pub String);

impl fmt::Display for WrongTrial {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Error for WrongTrial {}

/// Tries a step of the pipeline; what it reads is made first where it is local, free and quick, as a plan does.
pub(crate) fn attempt(engine: &Engine, step: &str, choice: &Choice) -> anyhow::Result<Trial> {
    let node = engine.pipeline.step(step).map_err(WrongTrial)?;
    if node.kind == Kind::Table {
        let rows = engine.pipeline.steps().filter(|node| node.kind != Kind::Table);
        let names: Vec<&str> = rows.map(|node| node.name.as_str()).collect();
        let others = match names.as_slice() {
            [] => "this pipeline has none".to_owned(),
            names => format!("those are {}", names.join(", ")),
        };
        return Err(WrongTrial(format!(
            "`{}` ({}) is made from whole tables, expected a step that answers row by row; {others}",
            node.name, node.operator_name
        ))
        .into());
    }
    let (decider, upstream) = plan::upstream(engine, node)?;
    let subject = Subject { decider: &decider, node, upstream: &upstream };
    subject.trial(&|work, names| choice.rows(work, names), engine.options.max_usd)
}

impl Choice {
    /// The chosen rows.
    fn rows(&self, work: &RowWork, names: &RecordBatch) -> anyhow::Result<Vec<usize>> {
        let id = match self {
            Choice::Rows(count) => return Ok(work.ranked(names)?.into_iter().take(*count).collect()),
            Choice::Id(id) => id,
        };
        let schema = names.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let column = columns.iter().find(|name| **name == "id").or(columns.first());
        let column = column.context("a row has a column that names it")?;
        let rows = work.with_id(names, column, id);
        if rows.is_empty() {
            let message = format!("none of the {} rows has the `{column}` of --id", names.num_rows());
            return Err(WrongTrial(message).into());
        }
        Ok(rows)
    }
}

/// A step that is tried, and the results that it reads.
pub(crate) struct Subject<'a> {
    pub(crate) decider: &'a Decider<'a>,
    pub(crate) node: &'a Node,
    pub(crate) upstream: &'a [Arc<Manifest>],
}

/// Chooses rows of a work, given the cells that name them.
pub(crate) type Chooser<'a> = dyn Fn(&RowWork, &RecordBatch) -> anyhow::Result<Vec<usize>> + 'a;

impl Subject<'_> {
    /// Has the operator answer for the chosen rows.
    pub(crate) fn trial(&self, choose: &Chooser, max_usd: Option<f64>) -> anyhow::Result<Trial> {
        let (decider, node) = (self.decider, self.node);
        let mut work = decider.whole_work(node, self.upstream)?;
        let mut all = work.rows.take().context("only a row operator is tried")?;
        let naming = all.naming(&self.row_keys(&work)?);
        let few = all.only(&choose(&all, &all.cells(&naming)?)?)?;
        work.rows = Some(few);
        let done = self.operate(&work, max_usd)?;
        let few = work.rows.take().context("the rows that were tried")?;
        let total = all.counts().0;
        all.leave_out_answered(&few);
        let rest_rows = all.counts().1;
        work.rows = Some(all);
        let rest = match decider.price(node, &work)? {
            Some(price) => node.operator.project(&measured(&done.after), &price)?,
            None => None,
        };
        let outcomes = few.outcomes(node, &done.failed)?;
        let names = few.cells(&naming)?;
        let tables = Beside::new(decider.engine.store, node, work.last.as_ref(), &names, outcomes)?;
        Ok(Trial {
            step: node.name.clone(),
            r#use: node.operator_name.to_owned(),
            total,
            columns: tables.columns.clone(),
            label: tables.label,
            before: work.last.as_ref().filter(|_| tables.before.is_some()).map(|last| last.created.clone()),
            rows: rows(&names, &tables, &done.before, done.after)?,
            tried: done.stats,
            rest_rows,
            rest,
            stopped: done.stopped,
            tables,
        })
    }

    /// The key columns of the table whose rows are answered for.
    fn row_keys(&self, work: &Work) -> anyhow::Result<Vec<String>> {
        let Kind::Row(port) = self.node.kind else { anyhow::bail!("only a row operator has row keys") };
        Ok(work.inputs.get(port).context("a row operator reads its row port")?.keys())
    }

    /// Does the work, and accounts for what it spent whether it comes through or not.
    fn operate(&self, work: &Work, max_usd: Option<f64>) -> anyhow::Result<Done> {
        let (decider, node) = (self.decider, self.node);
        let few = work.rows.as_ref().context("only a row operator is tried")?;
        let mut pools = Pools::new(&decider.engine.options.resources);
        let demand = Demand::new(&node.needs, Vec::new());
        if let Some(refusal) = pools.refusal(&demand) {
            return Err(anyhow!(refusal));
        }
        let slot = pools.take(&demand).unwrap_or_default();
        let mut io = decider.window(node, work, &Terms { slot: &slot, max_usd, lost: None })?;
        let shown = few.shown_rows()?;
        let before = node.operator.exchanges(&shown, &io)?;
        let operated = decider.operate(node, work, &mut io);
        few.sync()?;
        few.seal()?;
        self.account(work, &io)?;
        operated?;
        let after = node.operator.exchanges(&shown, &io)?;
        let is_cancelled = decider.engine.cancelled.load(Ordering::Relaxed);
        let stopped = io.stopped.clone().map(Stopped::Budget);
        let stopped = stopped.or_else(|| is_cancelled.then_some(Stopped::Interrupted));
        Ok(Done { before, after, stats: io.stats.clone(), stopped, failed: io.take_failed() })
    }

    fn account(&self, work: &Work, io: &Io) -> anyhow::Result<()> {
        if io.stats.requests == 0 {
            return Ok(());
        }
        let engine = self.decider.engine;
        engine.store.write_trial(&TrialRecord {
            trial: argent_cache::runs::new_run_id(),
            pipeline: engine.pipeline.name.clone(),
            step: self.node.name.clone(),
            operator: self.node.operator_name.to_owned(),
            recipe: work.recipe.clone(),
            ended: argent_cache::time::timestamp(),
            stats: io.stats.clone(),
        })
    }
}

/// What the operator did.
struct Done {
    /// By row: what had come of its questions before.
    before: Vec<Vec<Exchange>>,
    /// By row: what has come of them now.
    after: Vec<Vec<Exchange>>,
    stats: Stats,
    stopped: Option<Stopped>,
    failed: Failed,
}

/// The different calls of all rows.
fn measured(exchanges: &[Vec<Exchange>]) -> Vec<Exchange> {
    let mut seen = HashSet::new();
    let calls = exchanges.iter().flatten().filter(|exchange| exchange.call.is_some());
    calls.filter(|exchange| seen.insert(exchange.call.clone())).cloned().collect()
}

/// The tried rows, put together. A call that two rows share was sent for the first of them.
fn rows(
    names: &RecordBatch,
    tables: &Beside,
    before: &[Vec<Exchange>],
    after: Vec<Vec<Exchange>>,
) -> anyhow::Result<Vec<TriedRow>> {
    let before = before.iter().flatten().filter_map(|exchange| exchange.call.clone());
    let mut known: HashSet<String> = before.collect();
    let mut all = Vec::new();
    for (row, exchanges) in after.into_iter().enumerate() {
        let exchanges = exchanges.into_iter().map(|exchange| {
            let sent = exchange.call.as_ref().is_some_and(|call| known.insert(call.clone()));
            TriedExchange { exchange, sent }
        });
        let name = |field: &FieldRef| {
            Ok((field.name().clone(), diff::cell(names, field.name(), row)?.unwrap_or_default()))
        };
        all.push(TriedRow {
            row: names.schema().fields().iter().map(name).collect::<anyhow::Result<_>>()?,
            exchanges: exchanges.collect(),
            outputs: tables.outputs(row)?,
            error: tables.error(row).cloned(),
        });
    }
    Ok(all)
}
