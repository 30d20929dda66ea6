//! What can be wrong with a command before it runs: the words of its line, and the files that it names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use argent_engine::operator::{FILES, nearest};
use argent_engine::table::matching_paths;
use argent_engine::{Inputs, Problem};

use crate::command::Command;
use crate::command::line::{self, Placeholder};
use crate::command::outputs::MAIN;

/// What is wrong with the command line, against the tables that there are.
pub(super) fn of_the_line(command: &Command, inputs: &Inputs) -> Vec<Problem> {
    let words = match command.run.checked() {
        Ok(words) => words,
        Err(reason) => return vec![Problem::at(["with", "run"], reason)],
    };
    let read = Tables {
        what: "inputs",
        names: inputs.ports.keys().map(String::as_str).filter(|port| *port != FILES).collect(),
    };
    let written = Tables { what: "outputs", names: command.outputs.keys().map(String::as_str).collect() };
    let mut problems = Vec::new();
    let (mut used_read, mut used_written) = (BTreeSet::new(), BTreeSet::new());
    for (place, word) in words.iter().enumerate() {
        let at = |message: String| Problem::at(command.run.path(place), message);
        if let Some(advice) = line::meant_for_a_shell(word) {
            problems.push(at(format!("`{word}` has no meaning here: no shell reads `run`")).help(advice));
        }
        for placeholder in line::placeholders(word) {
            let (tables, used) = match &placeholder {
                Placeholder::In(_) => (&read, &mut used_read),
                Placeholder::Out(_) => (&written, &mut used_written),
                Placeholder::Files => continue,
            };
            match tables.meant(&placeholder) {
                Ok(name) => drop(used.insert(name)),
                Err((message, help)) => problems.push(at(message).help(help)),
            }
        }
    }
    problems.extend(read.names.iter().filter(|name| !used_read.contains(**name)).map(|name| {
        let message = format!("`run` does not say where the program finds the input `{name}`");
        let help = format!("add {{in.{name}}} to the words, or take it out of `from`");
        Problem::at(["with", "run"], message).help(help)
    }));
    problems.extend(written.names.iter().filter(|name| !used_written.contains(**name)).map(|name| {
        let message = format!("`run` does not say where the program writes the output `{name}`");
        Problem::at(["with", "run"], message).help(format!("add {{out.{name}}} to the words"))
    }));
    problems
}

/// The tables that placeholders of one kind may mean.
struct Tables<'a> {
    what: &'static str,
    names: Vec<&'a str>,
}

impl<'a> Tables<'a> {
    /// The table that a placeholder means, or what is wrong with it and what to do. One table needs no name, nor
    /// does the step's own among several outputs.
    fn meant(&self, placeholder: &Placeholder) -> Result<&'a str, (String, String)> {
        let known = |name: &str| self.names.iter().find(|known| **known == name).copied();
        match placeholder.name() {
            Some(name) => known(name).ok_or_else(|| {
                let message = format!("`run` names `{name}`, which is not one of the step's {}", self.what);
                (message, nearest(name, &self.names, self.what))
            }),
            None => {
                let only = self.names.first().filter(|_| self.names.len() == 1).copied();
                let own = known(MAIN).filter(|_| matches!(placeholder, Placeholder::Out(_)));
                only.or(own).ok_or_else(|| match self.names.len() {
                    0 => (
                        format!("`{placeholder}` means none: the step has no {}", self.what),
                        "take it out".into(),
                    ),
                    many => (
                        format!("`{placeholder}` could be any of the step's {many} {}", self.what),
                        format!("name the one that is meant: {}", self.names.join(", ")),
                    ),
                })
            }
        }
    }
}

/// What is wrong with the files: declared ones that are not there, and others that `run` names.
pub(super) fn of_the_files(command: &Command, inputs: &Inputs) -> Vec<Problem> {
    if !inputs.files_on_disk {
        return Vec::new();
    }
    let (declared, mut problems) = declared_files(&command.inputs, &inputs.folder);
    for (place, word) in command.run.words().iter().enumerate() {
        for path in line::paths_in(word, place) {
            let Ok(real) = inputs.folder.join(path).canonicalize() else { continue };
            if real.is_file() && !declared.contains(&real) {
                let message = format!("`run` names the file {path}, which `inputs` does not declare");
                let help = format!("add {path} to `inputs`: then a change of it runs the step again");
                problems.push(Problem::at(command.run.path(place), message).help(help));
            }
        }
    }
    problems
}

/// The files that the patterns match, and what is wrong with the patterns.
fn declared_files(patterns: &[String], folder: &Path) -> (BTreeSet<PathBuf>, Vec<Problem>) {
    let (mut declared, mut problems, mut without_file) = (BTreeSet::new(), Vec::new(), Vec::new());
    for (place, pattern) in patterns.iter().enumerate() {
        let at =
            |message: String| Problem::at(["with".to_owned(), "inputs".into(), place.to_string()], message);
        if Path::new(pattern).is_absolute() {
            let message =
                "the files of a program lie relative to the spec, and this path does not".to_owned();
            problems.push(at(message).help("put the file beside the spec, or give it as a table"));
            continue;
        }
        match matching_paths(folder, std::slice::from_ref(pattern)) {
            Ok(paths) if paths.is_empty() => {
                let help = format!("paths are relative to the spec, here {}", folder.display());
                without_file.push(at(format!("no file matches {pattern}")).help(help));
            }
            Ok(paths) => declared.extend(paths.into_iter().filter_map(|path| path.canonicalize().ok())),
            Err(error) => problems.push(at(format!("{error:#}"))),
        }
    }
    // Where none of them matches a file, the engine says so.
    if without_file.len() < patterns.len() {
        problems.extend(without_file);
    }
    (declared, problems)
}
