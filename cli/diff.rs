//! `argent diff`.

use std::process::ExitCode;

use anyhow::Context;
use argent_cache::{BlobError, Digest, Manifest, RunRecord, Store};
use argent_engine::diff::{self, ColumnChange, ColumnDiff, RowChange, RowFate, TableDiff};
use argent_engine::operator::nearest;
use argent_engine::{Pipeline, recipe};
use serde_json::json;

use crate::args::{Arguments, DiffArguments};
use crate::session::{WRONG, existing_store, pipeline};
use crate::table::{aligned, count};

/// How many rows the text shows; JSON holds all.
const SHOWN_ROWS: usize = 20;

/// Shows what differs between a step's table in two runs.
pub(crate) fn diff(arguments: &Arguments, wanted: &DiffArguments) -> anyhow::Result<ExitCode> {
    let pipeline = match pipeline(arguments, &wanted.spec) {
        Ok(pipeline) => pipeline,
        Err(code) => return Ok(code),
    };
    let store = existing_store(arguments, Some(&wanted.spec.spec))?;
    let mut runs = store.runs()?;
    runs.retain(|run| run.pipeline == pipeline.name);
    // A step that the spec no longer has still has its results.
    let had = |run: &RunRecord| run.steps.iter().any(|s| s.step == wanted.step);
    let step = match pipeline.step(&wanted.step) {
        Ok(node) => node.name.clone(),
        Err(_) if runs.iter().any(had) => wanted.step.clone(),
        Err(mistake) => {
            eprintln!("error: {mistake}");
            return Ok(ExitCode::from(WRONG));
        }
    };
    let (from, to) = match versions(&pipeline, &runs, &step, wanted) {
        Ok(versions) => versions,
        Err(mistake) => {
            eprintln!("error: {mistake}");
            return Ok(ExitCode::from(WRONG));
        }
    };
    let read = |version: &Version| gone_or(store.manifest(&version.manifest), &step);
    let (old, new) = (read(&from)?, read(&to)?);
    let found = compare(&store, &old, &new, &step)?;
    let paths = pipeline.node(&step).map(|node| node.file_paths.clone()).unwrap_or_default();
    let why = recipe::difference(&old.recipe, &new.recipe, &paths);
    if wanted.json {
        println!(
            "{}",
            json!({
                "pipeline": pipeline.name,
                "step": step,
                "from": { "run": from.run, "made": old.created },
                "to": { "run": to.run, "made": new.created },
                "why": why,
                "rows": found.rows,
                "columns": found.columns,
                "flips": found.flips,
                "changes": found.changes,
            })
        );
        return Ok(ExitCode::SUCCESS);
    }
    for (word, version, manifest) in [("from", &from, &old), ("to", &to, &new)] {
        println!("{word:<5} {}, made {}", version.run, manifest.created);
    }
    if from.manifest == to.manifest {
        println!("every run so far has the same result");
    }
    why.iter().for_each(|reason| println!("why   {reason}"));
    print!("{}", shown(&found, new.outputs.get("").is_some_and(|table| table.keys.is_empty())));
    Ok(ExitCode::SUCCESS)
}

/// A step's result in a run.
#[derive(Clone)]
struct Version {
    run: String,
    manifest: Digest,
}

/// The two versions that are wanted, or what is wrong with the command line.
fn versions(
    pipeline: &Pipeline,
    runs: &[RunRecord],
    step: &str,
    wanted: &DiffArguments,
) -> Result<(Version, Version), String> {
    let to = match &wanted.to {
        Some(run) => place(pipeline, runs, run)?,
        None => runs
            .iter()
            .rposition(|run| version(run, step).is_ok())
            .ok_or_else(|| format!("no run has a result of `{step}` yet; `argent run` makes one"))?,
    };
    let newer = version(&runs[to], step)?;
    let older = match &wanted.from {
        Some(run) => version(&runs[place(pipeline, runs, run)?], step)?,
        None => {
            let earlier = runs[..to].iter().rev().filter_map(|run| version(run, step).ok());
            earlier.into_iter().find(|v| v.manifest != newer.manifest).unwrap_or(newer.clone())
        }
    };
    Ok((older, newer))
}

/// The result of a step in a run, or why there is none.
fn version(run: &RunRecord, step: &str) -> Result<Version, String> {
    let record = run.steps.iter().find(|s| s.step == step);
    let record = record.ok_or_else(|| format!("run {} had no step `{step}`", run.run))?;
    let reason = || format!("{}: {}", record.action, record.error.as_deref().unwrap_or("no reason is known"));
    let manifest = record
        .manifest
        .ok_or_else(|| format!("run {} made no result of `{step}` ({})", run.run, reason()))?;
    Ok(Version { run: run.run.clone(), manifest })
}

/// The place of the run whose id is this or alone begins with it.
fn place(pipeline: &Pipeline, runs: &[RunRecord], wanted: &str) -> Result<usize, String> {
    let mut found = (0..runs.len()).filter(|place| runs[*place].run.starts_with(wanted));
    match (found.next(), found.next()) {
        (Some(place), None) => Ok(place),
        (Some(_), Some(_)) => Err(format!("several runs begin with `{wanted}`; `argent runs` lists them")),
        (None, _) => {
            let last: Vec<&str> = runs.iter().rev().take(5).map(|run| run.run.as_str()).collect();
            let help = nearest(wanted, &last, "runs");
            let name = &pipeline.name;
            Err(format!("there is no run `{wanted}` of `{name}`; {help} (`argent runs` lists all)"))
        }
    }
}

fn compare(store: &Store, old: &Manifest, new: &Manifest, step: &str) -> anyhow::Result<TableDiff> {
    let main = |manifest: &Manifest| manifest.outputs.get("").cloned().context("a result has a main table");
    gone_or(diff::diff(store, &main(old)?, &main(new)?), step)
}

/// What was read of a result; where the store no longer has it, in the words of the user.
fn gone_or<T>(read: anyhow::Result<T>, step: &str) -> anyhow::Result<T> {
    let gone = |error: &anyhow::Error| {
        matches!(error.downcast_ref(), Some(BlobError::Missing(_) | BlobError::Damaged(_)))
    };
    read.map_err(|error| match gone(&error) {
        true => error.context(format!(
            "one of these results of `{step}` is no longer in the store; choose other runs with --from and --to"
        )),
        false => error,
    })
}

/// A comparison as text; `unkeyed` tells that the table has no key columns.
fn shown(found: &TableDiff, unkeyed: bool) -> String {
    let rows = &found.rows;
    let mut text = format!(
        "\n{} before, {} after: {} added, {} removed, {} changed\n",
        count(rows.before, "row"),
        rows.after,
        rows.added,
        rows.removed,
        rows.changed
    );
    let any = rows.added + rows.removed + rows.changed > 0;
    if any && unkeyed {
        text.push_str("the table has no key columns, so its rows are compared as a whole\n");
    }
    let columns: Vec<Vec<String>> = found.columns.iter().map(column_line).collect();
    let flips: Vec<Vec<String>> = found
        .flips
        .iter()
        .map(|f| vec![f.finding.clone(), or_null(&f.from), or_null(&f.to), f.rows.to_string()])
        .collect();
    let label = found.flips.first().map_or("", |flip| flip.column.as_str());
    let changes = found.changes.as_deref().unwrap_or_default();
    for (header, table) in [
        (vec!["column", "cells", ""], columns),
        (vec!["finding", &format!("{label} from"), "to", "rows"], flips),
        (
            vec!["row", "column", "from", "to"],
            changes.iter().flat_map(change_lines).take(SHOWN_ROWS).collect(),
        ),
    ] {
        if !table.is_empty() {
            text.push_str(&format!("\n{}", aligned(&header, &table)));
        }
    }
    let lines = changes.iter().flat_map(change_lines).count();
    if lines > SHOWN_ROWS {
        text.push_str(&format!("and {} more; --json shows all\n", lines - SHOWN_ROWS));
    }
    if any && found.changes.is_none() && !unkeyed {
        text.push_str("\nwhich rows they are is not shown, because patients' ids name them\n");
    }
    text
}

/// A column that differs: its name, how many cells do, and what else is to be said of it.
fn column_line(column: &ColumnDiff) -> Vec<String> {
    let (cells, word) = match column.change {
        ColumnChange::Added => ("-".to_owned(), "new"),
        ColumnChange::Removed => ("-".to_owned(), "gone"),
        ColumnChange::Cells(cells) => {
            (cells.to_string(), if column.phi { "patient text, not shown" } else { "" })
        }
    };
    vec![column.column.clone(), cells, word.to_owned()]
}

/// The lines of one row that differs: one per cell.
fn change_lines(row: &RowChange) -> Vec<Vec<String>> {
    let key = row.key.values().cloned().collect::<Vec<_>>().join(", ");
    let whole = |fate: &str| vec![vec![key.clone(), fate.to_owned(), String::new(), String::new()]];
    match &row.change {
        RowFate::Added => whole("(added)"),
        RowFate::Removed => whole("(removed)"),
        RowFate::Cells(cells) => cells
            .iter()
            .map(|cell| vec![key.clone(), cell.column.clone(), or_null(&cell.from), or_null(&cell.to)])
            .collect(),
    }
}

fn or_null(cell: &Option<String>) -> String {
    cell.clone().unwrap_or_else(|| "null".to_owned())
}
