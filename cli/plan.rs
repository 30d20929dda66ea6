//! `argent plan`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use argent_cache::Store;
use argent_engine::canary::Canary;
use argent_engine::plan::PlannedStep;
use argent_engine::{Engine, Options, Pipeline};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::args::{Arguments, PlanArguments};
use crate::progress::warnings;
use crate::session::{interruption, options, pipeline, runtime, store};
use crate::table::{aligned, seconds};
use crate::trial::ended;
use crate::{canary, with};

/// Shows what a run would do.
pub(crate) fn plan(arguments: &Arguments, plan: &PlanArguments) -> anyhow::Result<ExitCode> {
    if !plan.with.is_empty() {
        return with::plan(arguments, plan);
    }
    let pipeline = match pipeline(arguments, &plan.spec) {
        Ok(pipeline) => pipeline,
        Err(code) => return Ok(code),
    };
    let planning = Planning::new(arguments, plan)?;
    let (steps, canaries) = planning.of(&pipeline, plan.work.max_usd, &|steps| {
        if !plan.work.json {
            print!("{}", shown(steps));
        }
    })?;
    let stopped = canaries.iter().flatten().find_map(Canary::stopped);
    match (plan.work.json, &canaries) {
        (true, None) => println!("{}", json!({ "pipeline": pipeline.name, "steps": steps })),
        (true, Some(canaries)) => {
            let canaries = canary::as_json(canaries);
            println!("{}", json!({ "pipeline": pipeline.name, "steps": steps, "canary": canaries }));
        }
        (false, None) => {}
        (false, Some(canaries)) => print!("{}", canary::shown(canaries)),
    }
    Ok(ended(stopped))
}

/// What plans of one command share.
pub(crate) struct Planning<'a> {
    plan: &'a PlanArguments,
    store: Store,
    runtime: Runtime,
    cancelled: Arc<AtomicBool>,
}

impl<'a> Planning<'a> {
    pub(crate) fn new(arguments: &Arguments, plan: &'a PlanArguments) -> anyhow::Result<Planning<'a>> {
        let store = store(arguments, Some(&plan.spec.spec))?;
        Ok(Planning { plan, store, runtime: runtime()?, cancelled: interruption()? })
    }

    /// The plan of a pipeline, which is handed over before anything is tried, and its canaries where they are wanted.
    pub(crate) fn of(
        &self,
        pipeline: &Pipeline,
        max_usd: Option<f64>,
        on_plan: &dyn Fn(&[PlannedStep]),
    ) -> anyhow::Result<(Vec<PlannedStep>, Option<Vec<Canary>>)> {
        let _entered = self.runtime.enter();
        let engine = Engine {
            pipeline,
            store: &self.store,
            options: Options { max_usd, ..options(&self.plan.work) },
            events: &warnings,
            on_thread: &|work| {
                let _entered = self.runtime.enter();
                work();
            },
            cancelled: &self.cancelled,
        };
        let steps = engine.plan()?;
        on_plan(&steps);
        Ok((steps, self.plan.canary.map(|rows| engine.canary(rows)).transpose()?))
    }
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
