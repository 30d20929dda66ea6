//! `argent runs`.

use std::process::ExitCode;

use argent_cache::StepRecord;

use crate::args::{Arguments, RunsArguments};
use crate::session::existing_store;
use crate::table::{aligned, seconds};

/// Lists the runs of a store, newest last, or the steps of one.
pub(crate) fn runs(arguments: &Arguments, wanted: &RunsArguments) -> anyhow::Result<ExitCode> {
    let runs = existing_store(arguments, None)?.runs()?;
    let Some(name) = &wanted.run else {
        if wanted.json {
            println!("{}", serde_json::to_string(&runs)?);
        } else {
            let rows: Vec<Vec<String>> = runs
                .iter()
                .map(|run| {
                    let number =
                        |action: &str| run.steps.iter().filter(|s| s.action == action).count().to_string();
                    let outcome = if run.ok { "done" } else { "not done" };
                    vec![
                        run.run.clone(),
                        run.pipeline.clone(),
                        run.name.clone().unwrap_or_default(),
                        run.started.clone(),
                        outcome.into(),
                        number("made"),
                        number("reused"),
                    ]
                })
                .collect();
            print!(
                "{}",
                aligned(&["run", "pipeline", "name", "started", "outcome", "made", "reused"], &rows)
            );
        }
        return Ok(ExitCode::SUCCESS);
    };
    let run = runs.iter().rev().find(|r| r.run.starts_with(name.as_str()) || r.name.as_ref() == Some(name));
    let Some(run) = run else { anyhow::bail!("there is no run `{name}`; `argent runs` lists them") };
    if wanted.json {
        println!("{}", serde_json::to_string(run)?);
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = run
        .steps
        .iter()
        .map(|s| {
            let usd = s.stats.usd.map_or("-".to_owned(), |usd| format!("${usd:.4}"));
            let numbers = [s.stats.made, s.stats.reused, s.stats.failed].map(|n| n.to_string());
            let action = if s.collected { format!("{}, collected", s.action) } else { s.action.clone() };
            let mut row = vec![s.step.clone(), s.operator.clone(), action];
            row.extend(numbers);
            row.extend([usd, seconds(s.stats.seconds), note(s)]);
            row
        })
        .collect();
    print!(
        "{}",
        aligned(&["step", "operator", "action", "made", "reused", "failed", "cost", "time", "note"], &rows)
    );
    Ok(ExitCode::SUCCESS)
}

/// Why a step failed, or what was accepted.
fn note(step: &StepRecord) -> String {
    let accepted = step.drift.map(|drift| format!("changed_rows {drift:.4} accepted"));
    step.error.clone().or(accepted).unwrap_or_default()
}
