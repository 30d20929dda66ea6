//! `argent errors`.

use std::process::ExitCode;

use crate::args::{Arguments, ErrorsArguments};
use crate::session::{WRONG, existing_store, pipeline};

use arrow::util::pretty::pretty_format_batches;

/// Shows the rows of a pipeline's steps that failed, and why.
pub(crate) fn errors(arguments: &Arguments, wanted: &ErrorsArguments) -> anyhow::Result<ExitCode> {
    let pipeline = match pipeline(arguments, &wanted.spec) {
        Ok(pipeline) => pipeline,
        Err(code) => return Ok(code),
    };
    // The name of a step with a matrix stands for all of its combinations here.
    let is_meant = |name: &str, step: &str| {
        name == step || pipeline.steps().any(|node| node.written == step && node.name == name)
    };
    let wanted_step = match wanted.step.as_deref() {
        Some(step) if pipeline.steps().any(|node| is_meant(&node.name, step)) => Some(step.to_owned()),
        Some(step) => match pipeline.step(step) {
            Ok(node) => Some(node.name.clone()),
            Err(mistake) => {
                eprintln!("error: {mistake}");
                return Ok(ExitCode::from(WRONG));
            }
        },
        None => None,
    };
    let store = existing_store(arguments, Some(&wanted.spec.spec))?;
    let head = store.head(&pipeline.name)?;
    let steps = head.map(|h| h.steps).unwrap_or_default();
    let mut any = false;
    let shown = |name: &str| wanted_step.as_deref().is_none_or(|step| is_meant(name, step));
    for (step, digest) in steps.iter().filter(|(name, _)| shown(name)) {
        let manifest = store.manifest(digest)?;
        let Some(record) = manifest.outputs.get("errors").filter(|t| t.rows > 0) else { continue };
        any = true;
        let rows = store.read_table(record, None)?;
        if wanted.json {
            let mut writer = arrow::json::LineDelimitedWriter::new(std::io::stdout());
            writer.write(&rows)?;
            writer.finish()?;
        } else {
            println!("{step}\n{}", pretty_format_batches(&[rows])?);
        }
    }
    if !any && !wanted.json {
        eprintln!("no row failed");
    }
    Ok(ExitCode::SUCCESS)
}
