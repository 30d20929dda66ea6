//! `command`: any program as a step.

mod line;
mod mistakes;
mod outputs;
mod process;
mod surroundings;
mod workplace;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use argent_engine::operator::{Condition, FILES};
use argent_engine::{Inputs, Io, Operator, Port, Problem, Signature};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use line::CommandLine;
use outputs::{DeclaredTable, MAIN};
use workplace::Workplace;

/// Runs a program of yours as a step, such as a Python script. It gets the step's tables as files, and the files
/// that it writes are the step's tables, once they have the columns that were declared. It works in a folder of its
/// own that holds what `inputs` names and nothing else, without a shell, with a clean environment, and is stopped
/// with all that it started when the run is interrupted. What it prints is kept only where it fails, in a file that
/// the error names.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program and its arguments, as one line or as a list of words. No shell reads them: quotes keep words
    /// together, and nothing else has a meaning. `{in.NAME}` stands for the file of an input table, `{out.NAME}` for
    /// the file that an output table is to be written to; `{in}` and `{out}` do where there is one. `{files}` stands
    /// for a folder of the side files that input tables name, each under its digest.
    pub run: CommandLine,
    /// The files that the program reads, its script among them: paths or glob patterns, relative to the spec. They
    /// lie below the folder that it works in as they lie below the spec's.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = "files enter the key by their content and name"))]
    pub inputs: Vec<String>,
    /// The tables that the program writes, by name: `main` is the step's own, any other is read as `step.name`.
    pub outputs: BTreeMap<String, DeclaredTable>,
    /// How tables are handed over, both ways.
    #[serde(default)]
    pub format: Format,
    /// Environment variables of yours that the program sees. It sees PATH, HOME, TMPDIR and a few fixed ones
    /// anyway.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = "they are for secrets and places; a value that changes the result goes into `run`, through a param"))]
    pub env: Vec<String>,
    /// After how many seconds the program is stopped and the step fails; left out, it may take as long as it likes.
    #[serde(default)]
    #[schemars(range(min = 1), extend("x-not-in-key" = "how long it may take is not what it makes"))]
    pub timeout_s: Option<u64>,
}

/// How tables are handed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Parquet, with the types of the columns.
    #[default]
    Parquet,
    /// Comma-separated values under a line of names, in UTF-8: what any language reads without a library. An empty
    /// cell is null; lists are JSON.
    Csv,
}

impl Operator for Command {
    fn ports(&self) -> Vec<Port> {
        let files =
            "A table of files (`path`, `digest`) that `inputs` chooses from; left out, they are on disk.";
        vec![
            Port::any("Tables that the program reads, by the names that `run` calls them."),
            Port { doc: files, ..Port::files() },
        ]
    }

    fn patterns(&self) -> Vec<String> {
        self.inputs.clone()
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let mut problems = mistakes::of_the_line(self, inputs);
        problems.extend(mistakes::of_the_files(self, inputs));
        problems.extend(outputs::problems(&self.outputs));
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut signature = Signature::default();
        for (name, declared) in &self.outputs {
            let keys: Vec<&str> = declared.keys.iter().map(String::as_str).collect();
            let name = if name == MAIN { "" } else { name };
            signature = signature.output(name, declared.schema(), &keys);
        }
        for (port, input) in &inputs.ports {
            let all = input.schema.fields().iter().map(|field| field.name().clone());
            signature = match port.as_str() {
                FILES if self.inputs.is_empty() => signature,
                FILES => signature.reads(FILES, ["path", "digest"]),
                _ => signature.reads(port, all),
            };
        }
        Ok(signature)
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let place = Workplace::prepare(self, io)?;
        let words: Vec<String> = self
            .run
            .words()
            .iter()
            .map(|word| line::filled(word, &|placeholder| place.path(placeholder)))
            .collect();
        let limit = self.timeout_s.map(Duration::from_secs);
        process::run(&words, &place, &self.env, limit, io)?;
        for (name, declared) in &self.outputs {
            let batch = outputs::read(name, declared, &place, self.format, io)?;
            io.emit(if name == MAIN { "" } else { name }, batch)?;
        }
        Ok(())
    }

    fn surroundings(&self, folder: &Path) -> Vec<Condition> {
        surroundings::conditions(self, folder)
    }
}
