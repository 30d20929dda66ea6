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
    if let Some(step) = wanted.step.as_deref().filter(|s| pipeline.node(s).is_none()) {
        eprintln!("error: there is no step `{step}`");
        return Ok(ExitCode::from(WRONG));
    }
    let store = existing_store(arguments, Some(&wanted.spec.spec))?;
    let head = store.head(&pipeline.name)?;
    let steps = head.map(|h| h.steps).unwrap_or_default();
    let mut any = false;
    for (step, digest) in steps.iter().filter(|(name, _)| wanted.step.as_ref().is_none_or(|s| s == *name)) {
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
