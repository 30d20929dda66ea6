//! `command`: any program as a step.

mod line;
mod outputs;
mod process;
mod surroundings;
mod workplace;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use argent_engine::operator::{Condition, FILES, nearest};
use argent_engine::{Inputs, Io, Operator, Port, Problem, Signature};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use line::{CommandLine, Placeholder};
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
        let mut problems = self.line_problems(inputs);
        problems.extend(self.file_problems(inputs));
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

impl Command {
    /// What is wrong with the command line, against the tables that there are.
    fn line_problems(&self, inputs: &Inputs) -> Vec<Problem> {
        let words = match self.run.checked() {
            Ok(words) => words,
            Err(reason) => return vec![Problem::at(["with", "run"], reason)],
        };
        let tables: Vec<&str> = self.tables(inputs);
        let written: Vec<&str> = self.outputs.keys().map(String::as_str).collect();
        let mut problems = Vec::new();
        let mut used = BTreeSet::new();
        for (place, word) in words.iter().enumerate() {
            if let Some(advice) = line::meant_for_a_shell(word) {
                let message = format!("`{word}` has no meaning here: no shell reads `run`");
                problems.push(Problem::at(self.run.path(place), message).help(advice));
            }
            for placeholder in line::placeholders(word) {
                let (names, what) = match &placeholder {
                    Placeholder::In(_) => (&tables, "inputs"),
                    Placeholder::Out(_) => (&written, "outputs"),
                    Placeholder::Files => continue,
                };
                let one_of = |names: &[&str]| (names.len() == 1).then(|| names[0].to_owned());
                let named = placeholder.name().map(str::to_owned).or_else(|| match &placeholder {
                    // One table needs no name, nor does the step's own among several outputs.
                    Placeholder::Out(_) if names.contains(&MAIN) => Some(MAIN.to_owned()),
                    _ => one_of(names),
                });
                match named {
                    Some(name) if names.contains(&name.as_str()) => {
                        used.insert((what, name));
                    }
                    Some(name) => {
                        let message = format!("`run` names `{name}`, which is not one of the step's {what}");
                        problems.push(
                            Problem::at(self.run.path(place), message).help(nearest(&name, names, what)),
                        );
                    }
                    None => {
                        let message = format!("`{placeholder}` could be any of the step's {}", names.len());
                        let help = format!("name one of its {what}: {}", names.join(", "));
                        problems.push(Problem::at(self.run.path(place), message).help(help));
                    }
                }
            }
        }
        let unused = |names: &[&str], what: &'static str, help: &dyn Fn(&str) -> String| -> Vec<Problem> {
            let absent = names.iter().filter(|name| !used.contains(&(what, (**name).to_owned())));
            let problem = |name: &&str| {
                let message =
                    format!("`run` does not say where the program finds the {} `{name}`", singular(what));
                Problem::at(["with", "run"], message).help(help(name))
            };
            absent.map(problem).collect()
        };
        problems.extend(unused(&tables, "inputs", &|name| {
            format!("add {{in.{name}}} to the words, or take it out of `from`")
        }));
        problems.extend(unused(&written, "outputs", &|name| format!("add {{out.{name}}} to the words")));
        problems
    }

    /// The names of the input tables.
    fn tables<'a>(&self, inputs: &'a Inputs) -> Vec<&'a str> {
        inputs.ports.keys().map(String::as_str).filter(|port| *port != FILES).collect()
    }

    /// What is wrong with the files: declared ones that are not there, and others that `run` names.
    fn file_problems(&self, inputs: &Inputs) -> Vec<Problem> {
        if !inputs.files_on_disk {
            return Vec::new();
        }
        let mut problems = Vec::new();
        let mut declared = BTreeSet::new();
        let mut absent = Vec::new();
        for (place, pattern) in self.inputs.iter().enumerate() {
            let at = ["with".to_owned(), "inputs".into(), place.to_string()];
            if Path::new(pattern).is_absolute() {
                let message = "the files of a program lie relative to the spec, and this path does not";
                problems.push(
                    Problem::at(at, message).help("put the file beside the spec, or give it as a table"),
                );
                continue;
            }
            match argent_engine::table::matching_paths(&inputs.folder, std::slice::from_ref(pattern)) {
                Ok(paths) if paths.is_empty() => {
                    let problem = Problem::at(at, format!("no file matches {pattern}"));
                    let folder = inputs.folder.display();
                    absent.push(problem.help(format!("paths are relative to the spec, here {folder}")));
                }
                Ok(paths) => declared.extend(paths.into_iter().filter_map(|path| path.canonicalize().ok())),
                Err(error) => problems.push(Problem::at(at, format!("{error:#}"))),
            }
        }
        // Where there is no file at all, the engine says so.
        if absent.len() < self.inputs.len() {
            problems.extend(absent);
        }
        for (place, word) in self.run.words().iter().enumerate() {
            for path in line::paths_in(word, place) {
                let full = inputs.folder.join(path);
                let Ok(real) = full.canonicalize() else { continue };
                if real.is_file() && !declared.contains(&real) {
                    let message = format!("`run` names the file {path}, which `inputs` does not declare");
                    let help = format!("add {path} to `inputs`: then a change of it runs the step again");
                    problems.push(Problem::at(self.run.path(place), message).help(help));
                }
            }
        }
        problems
    }
}

fn singular(what: &str) -> &str {
    what.trim_end_matches('s')
}
