//! `argent schema`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use argent_engine::operator::Port;
use argent_engine::schema::full_schema;
use serde_json::Value;

use crate::reference;

/// Prints the JSON Schema of pipelines.
pub(crate) fn schema() -> anyhow::Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(&pipelines()?)?);
    Ok(ExitCode::SUCCESS)
}

/// The JSON Schema of pipelines.
pub(crate) fn pipelines() -> anyhow::Result<Value> {
    let ports: BTreeMap<String, Vec<Port>> = reference::ports()?;
    Ok(full_schema(&argent_operators::registry(), &ports))
}
