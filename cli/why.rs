//! `argent why`.

use std::process::ExitCode;

use anyhow::Context;
use argent_engine::{Engine, Options};
use serde_json::json;

use crate::args::{Arguments, WhyArguments};
use crate::progress::Progress;
use crate::session::{WRONG, interruption, pipeline, runtime, store};
use crate::table::{count, seconds};

/// Says why a step would run again, and where its last result came from.
pub(crate) fn why(arguments: &Arguments, why: &WhyArguments) -> anyhow::Result<ExitCode> {
    let pipeline = match pipeline(arguments, &why.spec) {
        Ok(pipeline) => pipeline,
        Err(code) => return Ok(code),
    };
    let wanted = match pipeline.step(&why.step) {
        Ok(node) => node.name.as_str(),
        Err(mistake) => {
            eprintln!("error: {mistake}");
            return Ok(ExitCode::from(WRONG));
        }
    };
    let store = store(arguments, Some(&why.spec.spec))?;
    let runtime = runtime()?;
    let _entered = runtime.enter();
    let cancelled = interruption()?;
    let progress = Progress::quiet();
    let events = |event| progress.show(&event);
    let engine = Engine {
        pipeline: &pipeline,
        store: &store,
        options: Options::default(),
        events: &events,
        on_thread: &|work| work(),
        cancelled: &cancelled,
    };
    let last = store.head(&pipeline.name)?.and_then(|head| head.steps.get(wanted).copied());
    let steps = engine.plan()?;
    let step = steps.into_iter().find(|s| s.step == wanted).context("the plan has every step")?;
    let last = last.map(|digest| store.manifest(&digest)).transpose()?;
    if why.json {
        println!("{}", json!({ "step": step, "last": last }));
        return Ok(ExitCode::SUCCESS);
    }
    match step.action {
        "reuse" => println!("{}: its result holds", step.step),
        action => {
            println!("{}: {}", step.step, if action == "maybe" { "may run" } else { "runs" });
            for reason in &step.why {
                println!("  {reason}");
            }
        }
    }
    match last {
        None => println!("there is no result before"),
        Some(last) => {
            let rows = last.outputs.get("").map_or(0, |t| t.rows);
            println!(
                "last made {} by {}: {}, {}",
                last.created,
                last.operator,
                count(rows, "row"),
                seconds(last.stats.seconds)
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
