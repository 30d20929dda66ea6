//! What is wrong with a step, and where.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Something that is wrong with a step, and where: a path into its YAML (`with`, `sections`, `findings`), or a
/// place in a configuration file that it names.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Keys from the step downwards; the deepest that exists is underlined.
    pub path: Vec<String>,
    /// What is there and what was expected.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The part of the text at `path` that it is about, in bytes of that text; none for all of it.
    pub part: Option<Range<usize>>,
    /// The place in the file that the parameter at `path` names.
    pub file: Option<Box<FilePlace>>,
}

/// A place in a configuration file.
#[derive(Debug, Clone, PartialEq)]
pub struct FilePlace {
    /// The file, as it was opened.
    pub path: PathBuf,
    /// Its text.
    pub text: Arc<str>,
    /// The place, in bytes of the text.
    pub part: Range<usize>,
}

impl Problem {
    /// A problem at a place in the step.
    pub fn at<S: Into<String>>(path: impl IntoIterator<Item = S>, message: impl Into<String>) -> Problem {
        let path = path.into_iter().map(Into::into).collect();
        Problem { path, message: message.into(), help: None, part: None, file: None }
    }

    /// The same problem with advice.
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// The same problem, about a part of the text at its path.
    pub fn part(mut self, part: Range<usize>) -> Problem {
        self.part = Some(part);
        self
    }
}

/// "did you mean `x`?" where a name is near, else the list of all names.
pub fn nearest(wanted: &str, names: &[&str], what: &str) -> String {
    let near = names
        .iter()
        .map(|n| (strsim::damerau_levenshtein(wanted, n), *n))
        .min()
        .filter(|(distance, _)| *distance <= wanted.len().max(3) / 3);
    match near {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None if names.is_empty() => format!("there are no {what}"),
        None => format!("there are {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        assert_eq!(nearest("volums", &["volumes", "labels"], "steps"), "did you mean `volumes`?");
        assert_eq!(nearest("x", &["volumes", "labels"], "steps"), "there are volumes, labels");
        assert_eq!(nearest("x", &[], "steps"), "there are no steps");
    }
}
