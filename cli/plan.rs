//! `argent plan`.

use std::process::ExitCode;

use argent_engine::Engine;
use argent_engine::plan::PlannedStep;
use serde_json::json;

use crate::args::{Arguments, PlanArguments};
use crate::progress::Progress;
use crate::session::{interruption, options, pipeline, runtime, store};
use crate::table::{aligned, seconds};

/// Shows what a run would do.
pub(crate) fn plan(arguments: &Arguments, plan: &PlanArguments) -> anyhow::Result<ExitCode> {
    let pipeline = match pipeline(arguments, &plan.spec) {
        Ok(pipeline) => pipeline,
        Err(code) => return Ok(code),
    };
    let store = store(arguments, Some(&plan.spec.spec))?;
    let runtime = runtime()?;
    let _entered = runtime.enter();
    let cancelled = interruption()?;
    let progress = Progress::quiet();
    let engine = Engine {
        pipeline: &pipeline,
        store: &store,
        options: options(&plan.work),
        events: &|event| progress.show(&event),
        on_thread: &|work| {
            let _entered = runtime.enter();
            work();
        },
        cancelled: &cancelled,
    };
    let steps = engine.plan()?;
    if plan.work.json {
        println!("{}", json!({ "pipeline": pipeline.name, "steps": steps }));
    } else {
        print!("{}", shown(&steps));
    }
    Ok(ExitCode::SUCCESS)
}

/// A plan as text.
pub(crate) fn shown(steps: &[PlannedStep]) -> String {
    let header = ["step", "action", "rows", "reuse", "run", "cost", "time", "why"];
    let rows: Vec<Vec<String>> = steps.iter().map(row).collect();
    let mut text = aligned(&header, &rows);
    if steps.iter().any(|s| s.made) {
        text.push_str("\n*: local, free and quick, so made while planning; a run reuses it\n");
    }
    if steps.iter().all(|s| s.action == "reuse") {
        text.push_str("\nnothing to do\n");
    }
    text
}

fn row(step: &PlannedStep) -> Vec<String> {
    let action = if step.made { format!("{}*", step.action) } else { step.action.to_owned() };
    let most = step.rows.run.map_or("?".to_owned(), |rows| rows.to_string());
    let run = if step.action == "maybe" { format!("0-{most}") } else { most };
    vec![
        step.step.clone(),
        action,
        step.rows.total.map_or("-".to_owned(), |n| n.to_string()),
        step.rows.reuse.to_string(),
        run,
        cost(step),
        step.cost.seconds.filter(|_| step.action != "reuse").map_or("-".to_owned(), seconds),
        step.why.join("; "),
    ]
}

fn cost(step: &PlannedStep) -> String {
    if step.cost.requests == 0 {
        return "-".to_owned();
    }
    match (step.cost.usd_min, step.cost.usd) {
        (Some(low), Some(high)) => format!("${low:.2}-{high:.2}, {} requests", step.cost.requests),
        _ => format!("{} requests, price unknown", step.cost.requests),
    }
}
