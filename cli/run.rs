//! `argent run`.

use std::process::ExitCode;

use argent_engine::{End, Engine, Options, Outcome};
use serde_json::json;

use crate::args::{Arguments, RunArguments};
use crate::metrics;
use crate::progress::Progress;
use crate::session::{WRONG, interruption, options, pipeline, runtime, store, store_root};
use crate::table::count;

/// Runs a pipeline.
pub(crate) fn run(arguments: &Arguments, run: &RunArguments) -> anyhow::Result<ExitCode> {
    let pipeline = match pipeline(arguments, &run.spec) {
        Ok(pipeline) => pipeline,
        Err(code) => return Ok(code),
    };
    let store = store(arguments, Some(&run.spec.spec))?;
    let runtime = runtime()?;
    let _entered = runtime.enter();
    let cancelled = interruption()?;
    let steps = pipeline.nodes.iter().filter(|node| node.contract.is_none());
    let progress = Progress::new(run.work.json, steps.map(|node| node.name.as_str()));
    if !run.work.json {
        eprintln!("store {}", store_root(arguments, Some(&run.spec.spec))?.display());
    }
    let engine = Engine {
        pipeline: &pipeline,
        store: &store,
        options: Options { name: run.name.clone(), ..options(&run.work) },
        events: &|event| progress.show(&event),
        on_thread: &|work| {
            let _entered = runtime.enter();
            work();
        },
        cancelled: &cancelled,
    };
    let outcome = engine.run()?;
    match run.work.json {
        true => println!("{}", finished(&outcome)),
        false => say(&outcome, &metrics::tables(&store, &pipeline, &outcome)?),
    }
    Ok(ExitCode::from(code(outcome.end)))
}

/// The exit code of a run's end.
fn code(end: End) -> u8 {
    match end {
        End::Done => 0,
        End::Failed => 1,
        End::Stale => WRONG,
        End::Stopped => 3,
        End::Breached => 4,
        End::Interrupted => 130,
    }
}

fn say(outcome: &Outcome, metrics: &str) {
    let steps = &outcome.record.steps;
    let number = |action: &str| steps.iter().filter(|s| s.action == action).count() as u64;
    let (made, reused) = (number("made"), number("reused") + number("accepted"));
    let mut text = match steps.len() as u64 - reused {
        0 => format!("nothing to do: {} reused", count(reused, "step")),
        _ => format!("{} made, {reused} reused", count(made, "step")),
    };
    for action in ["failed", "blocked", "rejected", "partial", "pending"] {
        if number(action) > 0 {
            text.push_str(&format!(", {} {action}", number(action)));
        }
    }
    eprintln!("{text}");
    print!("{metrics}");
}

fn finished(outcome: &Outcome) -> serde_json::Value {
    let steps: Vec<serde_json::Value> = outcome
        .record
        .steps
        .iter()
        .map(|step| {
            json!({
                "step": step.step,
                "action": step.action,
                "made": step.stats.made,
                "reused": step.stats.reused,
                "failed": step.stats.failed,
                "seconds": step.stats.seconds,
                "usd": step.stats.usd,
                "error": step.error,
            })
        })
        .collect();
    json!({ "event": "finished", "ok": outcome.end == End::Done, "run": outcome.record.run, "steps": steps })
}
