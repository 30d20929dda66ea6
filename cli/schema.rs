//! `argent schema`.

use std::process::ExitCode;

/// Prints the JSON Schema of pipelines.
pub(crate) fn schema() -> anyhow::Result<ExitCode> {
    let schema = argent_engine::spec::full_schema(&argent_operators::registry());
    println!("{}", serde_json::to_string_pretty(&schema)?);
    Ok(ExitCode::SUCCESS)
}
