//! The configuration files that an operator's parameters name: prompts, finding packs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::problem::{FilePlace, Problem};
use crate::diagnostic::{Diagnostic, Sources};
use crate::spec::text;
use crate::table::matching_paths;
use crate::yaml;

/// The configuration files of a step, and what of them decides its result.
#[derive(Debug, Default)]
pub struct ConfigFiles {
    folder: PathBuf,
    /// By parameter: the parsed part that enters the key.
    pub(crate) used: BTreeMap<String, Value>,
    /// By parameter: the file or variable that was read, for explanations.
    pub(crate) paths: BTreeMap<String, String>,
}

impl ConfigFiles {
    pub(crate) fn new(folder: &Path) -> ConfigFiles {
        ConfigFiles { folder: folder.to_owned(), ..ConfigFiles::default() }
    }

    /// The file that the parameter names, relative to the spec.
    ///
    /// # Errors
    /// A problem at `with.<parameter>` when the file is absent or is not UTF-8 text.
    pub fn read(&mut self, parameter: &str, path: &str) -> Result<ConfigFile, Problem> {
        self.paths.insert(parameter.to_owned(), path.to_owned());
        let full = self.folder.join(path);
        let text = text::read(&full).map_err(|reason| {
            let problem = Problem::at(["with", parameter], format!("`{path}` cannot be read: {reason}"));
            problem.help(format!("paths are relative to the spec; this one means {}", full.display()))
        })?;
        Ok(ConfigFile { parameter: parameter.to_owned(), path: full, text: Arc::from(text) })
    }

    /// The files that match any of the patterns that a parameter holds, as paths relative to the spec, sorted.
    ///
    /// # Errors
    /// A problem at `with.<parameter>` when a pattern is not one, or no file matches.
    pub fn matching(&self, parameter: &str, patterns: &[String]) -> Result<Vec<String>, Problem> {
        let problem = |message: String| Problem::at(["with", parameter], message);
        let paths = matching_paths(&self.folder, patterns).map_err(|error| problem(format!("{error:#}")))?;
        if paths.is_empty() {
            let problem = problem(format!("no file matches {}", patterns.join(", ")));
            return Err(
                problem.help(format!("paths are relative to the spec's folder {}", self.folder.display()))
            );
        }
        let shown =
            |path: &PathBuf| path.strip_prefix(&self.folder).unwrap_or(path).to_string_lossy().into_owned();
        Ok(paths.iter().map(shown).collect())
    }

    /// Says which part of the environment variable that a parameter names decides the result, such as a digest of it.
    pub fn uses_variable(&mut self, parameter: &str, variable: &str, part: Value) {
        self.paths.insert(parameter.to_owned(), format!("${variable}"));
        self.uses(parameter, part);
    }

    /// The spec's folder, which the paths in parameters are relative to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Says what of the folder that a parameter names decides the result, such as the sizes of its files.
    pub fn uses_folder(&mut self, parameter: &str, path: &str, part: Value) {
        self.paths.insert(parameter.to_owned(), path.to_owned());
        self.uses(parameter, part);
    }

    /// Says which parsed part of a parameter's file decides the result.
    pub fn uses(&mut self, parameter: &str, part: Value) {
        self.used.insert(parameter.to_owned(), part);
    }
}

/// A configuration file, as it was read.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    /// The parameter that names it.
    parameter: String,
    /// Where it lies.
    path: PathBuf,
    /// Its text.
    pub text: Arc<str>,
}

impl ConfigFile {
    /// A problem at a place in the file, in bytes of its text.
    pub fn problem(&self, part: Range<usize>, message: impl Into<String>) -> Problem {
        let file = FilePlace { path: self.path.clone(), text: Arc::clone(&self.text), part };
        Problem { file: Some(Box::new(file)), ..Problem::at(["with", self.parameter.as_str()], message) }
    }

    /// A problem at a line of the file, counted from 1, without the space around it.
    pub fn problem_in_line(&self, line: usize, message: impl Into<String>) -> Problem {
        let start: usize = self.text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let text = self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let start = start + text.len() - text.trim_start().len();
        self.problem(start..start + text.trim().len(), message)
    }

    /// A problem at the first place of a word that stands alone; at its parameter where the file has none.
    pub fn problem_at_word(&self, word: &str, message: impl Into<String>) -> Problem {
        let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '.'));
        let alone = |at: &usize| {
            let (before, after) = (&self.text[..*at], &self.text[at + word.len()..]);
            !is_part(before.chars().next_back()) && !is_part(after.chars().next().filter(|c| *c != '.'))
        };
        match self.text.match_indices(word).map(|(at, _)| at).find(alone) {
            Some(at) => self.problem(at..at + word.len(), message),
            None => Problem::at(["with", self.parameter.as_str()], message),
        }
    }

    /// The file as YAML.
    ///
    /// # Errors
    /// Its mistakes of syntax, and keys that are defined twice.
    pub fn yaml(&self) -> Result<yaml::Node, Vec<Problem>> {
        let file = Sources::default().add("", "");
        yaml::parse(file, &self.text).map_err(|mistakes| {
            let problem = |mistake: Diagnostic| {
                let part = mistake.span().map_or(0..0, |span| span.start..span.end);
                let problem = self.problem(part, mistake.message);
                mistake.help.into_iter().fold(problem, Problem::help)
            };
            mistakes.into_iter().map(problem).collect()
        })
    }
}
