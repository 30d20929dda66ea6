//! `argent check`.

use std::io::IsTerminal;
use std::process::ExitCode;

use argent_engine::{Pipeline, check::describe};
use serde_json::json;

use crate::args::CheckArguments;
use crate::render::render;
use crate::session::{Checked, WRONG, checked};
use crate::table::count;

/// Finds every mistake of a pipeline.
pub(crate) fn check(check: &CheckArguments) -> anyhow::Result<ExitCode> {
    let Checked { pipeline, diagnostics, sources } = checked(&check.spec, None);
    if check.json {
        let found: Vec<_> = diagnostics.iter().map(|d| d.located(&sources)).collect();
        println!("{}", json!({ "ok": pipeline.is_some(), "diagnostics": found }));
    } else if !diagnostics.is_empty() {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        eprintln!("{}", render(&diagnostics, &sources, colour));
    }
    let Some(pipeline) = pipeline else { return Ok(ExitCode::from(WRONG)) };
    if check.types {
        print!("{}", types(&pipeline));
    } else if !check.json {
        let steps = pipeline.nodes.iter().filter(|n| n.contract.is_none()).count();
        eprintln!("{}: {}, nothing wrong", pipeline.name, count(steps as u64, "step"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The columns of every table of every step.
fn types(pipeline: &Pipeline) -> String {
    let mut text = String::new();
    for node in pipeline.nodes.iter().filter(|n| n.contract.is_none()) {
        for (output, shape) in &node.outputs {
            let name = if output.is_empty() { node.name.clone() } else { format!("{}.{output}", node.name) };
            text.push_str(&format!("{name} ({})\n", node.operator_name));
            for column in describe(&shape.schema) {
                text.push_str(&format!("  {column}\n"));
            }
        }
    }
    text
}
