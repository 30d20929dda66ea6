//! The finding pack that a parameter names: read, checked, and the part of it that enters a key.

use argent_engine::Problem;
use argent_engine::operator::ConfigFiles;
use argent_reports::Pack;

/// Reads the pack that a parameter names.
///
/// # Errors
/// When the file is absent or is not a pack.
pub(crate) fn load(files: &mut ConfigFiles, parameter: &str, path: &str) -> Result<Pack, Problem> {
    let text = files.text(parameter, path)?;
    serde_yaml::from_str(&text).map_err(|error| {
        Problem::at(["with", parameter], format!("`{path}` is not a finding pack: {error}"))
            .help("expected name, and findings: [{ id, name, definition, synonyms, rules }]")
    })
}
