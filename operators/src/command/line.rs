//! Command lines: words, placeholders in them, and the files that they name. No shell is asked.

use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A command line: a text, or its words. It is written as words, so that both spellings are one in a key.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, into = "Vec<String>")]
pub enum CommandLine {
    /// The words with white space between; quotes keep together what is one word.
    Line(String),
    /// The words.
    Words(Vec<String>),
}

/// Something that the engine puts into a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Placeholder {
    /// `{in}` or `{in.NAME}`: the file of an input table.
    In(Option<String>),
    /// `{out}` or `{out.NAME}`: the file of an output table.
    Out(Option<String>),
    /// `{files}`: the folder of side files.
    Files,
}

impl CommandLine {
    /// The words; a text that does not come apart is one word, and [`CommandLine::checked`] says so.
    pub(super) fn words(&self) -> Vec<String> {
        match self {
            CommandLine::Line(line) => shlex::split(line).unwrap_or_else(|| vec![line.clone()]),
            CommandLine::Words(words) => words.clone(),
        }
    }

    /// The words, or what is wrong with them.
    pub(super) fn checked(&self) -> Result<Vec<String>, String> {
        if let CommandLine::Line(line) = self
            && shlex::split(line).is_none()
        {
            return Err("a quote of the command line has no end".to_owned());
        }
        match self.words() {
            words if words.first().is_none_or(String::is_empty) => {
                Err("the command line names no program".to_owned())
            }
            words => Ok(words),
        }
    }

    /// Where a word stands in the step.
    pub(super) fn path(&self, place: usize) -> Vec<String> {
        let mut path = vec!["with".to_owned(), "run".to_owned()];
        if matches!(self, CommandLine::Words(_)) {
            path.push(place.to_string());
        }
        path
    }
}

impl From<CommandLine> for Vec<String> {
    fn from(line: CommandLine) -> Vec<String> {
        line.words()
    }
}

impl Placeholder {
    /// The placeholder of the text between braces; none where it is no such text.
    fn parse(text: &str) -> Option<Placeholder> {
        let name = |rest: &str| rest.strip_prefix('.').map(str::to_owned).filter(|name| !name.is_empty());
        match text {
            "files" => Some(Placeholder::Files),
            "in" => Some(Placeholder::In(None)),
            "out" => Some(Placeholder::Out(None)),
            _ if text.starts_with("in.") => Some(Placeholder::In(Some(name(&text[2..])?))),
            _ if text.starts_with("out.") => Some(Placeholder::Out(Some(name(&text[3..])?))),
            _ => None,
        }
    }

    /// The table that it names.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Placeholder::In(name) | Placeholder::Out(name) => name.as_deref(),
            Placeholder::Files => None,
        }
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Placeholder::In(_) => "in",
            Placeholder::Out(_) => "out",
            Placeholder::Files => "files",
        };
        match self.name() {
            Some(name) => write!(out, "{{{word}.{name}}}"),
            None => write!(out, "{{{word}}}"),
        }
    }
}

/// The placeholders of a word, in order. Other braces are text, as in JSON.
pub(super) fn placeholders(word: &str) -> Vec<Placeholder> {
    pieces(word).into_iter().filter_map(|piece| piece.err()).collect()
}

/// The word with its placeholders put in.
pub(super) fn filled(word: &str, value: &dyn Fn(&Placeholder) -> String) -> String {
    let text = |piece: Result<&str, Placeholder>| match piece {
        Ok(text) => text.to_owned(),
        Err(placeholder) => value(&placeholder),
    };
    pieces(word).into_iter().map(text).collect()
}

/// A word as texts and placeholders.
fn pieces(word: &str) -> Vec<Result<&str, Placeholder>> {
    let mut pieces = Vec::new();
    let (mut start, mut from) = (0, 0);
    while let Some(open) = word[from..].find('{').map(|at| from + at) {
        let close = word[open..].find('}').map(|at| open + at);
        let placeholder = close.and_then(|close| Some((Placeholder::parse(&word[open + 1..close])?, close)));
        match placeholder {
            Some((placeholder, close)) => {
                pieces.push(Ok(&word[start..open]));
                pieces.push(Err(placeholder));
                (start, from) = (close + 1, close + 1);
            }
            None => from = open + 1,
        }
    }
    pieces.push(Ok(&word[start..]));
    pieces
}

/// What to do instead, where a word is one that only a shell understands.
pub(super) fn meant_for_a_shell(word: &str) -> Option<&'static str> {
    match word {
        "|" | "||" | "&&" | ";" | "&" => Some("put several commands into a script, and run that"),
        ">" | ">>" | "<" | "2>" | "2>&1" => Some("give the program the path, as {out} or as an option"),
        _ => None,
    }
}

/// The paths that a word may name: the word itself, and what stands behind `=`. The first word is the program,
/// which is a file of the user's only where it is a path.
pub(super) fn paths_in(word: &str, place: usize) -> Vec<&str> {
    if place == 0 {
        let is_own = word.contains('/') && !Path::new(word).is_absolute();
        return if is_own { vec![word] } else { Vec::new() };
    }
    let behind = word.split_once('=').map(|(_, value)| value);
    std::iter::once(word)
        .chain(behind)
        .filter(|path| !path.is_empty() && placeholders(path).is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> CommandLine {
        CommandLine::Line(text.to_owned())
    }

    #[test]
    fn a_line_and_its_words_are_one_in_the_key() {
        let words = ["python3", "a.py", "--name", "two words", "{in.x}"];
        let written = serde_json::to_value(line("python3 a.py --name 'two words' {in.x}")).expect("writes");
        assert_eq!(written, serde_json::json!(words));
        assert!(line("a 'b").checked().is_err() && line("  ").checked().is_err());
    }

    #[test]
    fn placeholders_are_found_anywhere_and_other_braces_are_text() {
        let word = r#"--in={in.labels},{out}/{"a": {files}}"#;
        let names = [Placeholder::In(Some("labels".into())), Placeholder::Out(None), Placeholder::Files];
        assert_eq!(placeholders(word), names);
        assert_eq!(filled(word, &|p| format!("<{p}>")), r#"--in=<{in.labels}>,<{out}>/{"a": <{files}>}"#);
        assert_eq!(placeholders("{in.}{inx}{}{"), []);
    }

    #[test]
    fn a_word_names_files_by_itself_or_behind_an_equals_sign() {
        assert_eq!(paths_in("--config=c.yaml", 1), ["--config=c.yaml", "c.yaml"]);
        assert_eq!(paths_in("{in.x}", 1), Vec::<&str>::new());
        assert_eq!(paths_in("python3", 0), Vec::<&str>::new());
        assert_eq!(paths_in("/usr/bin/python3", 0), Vec::<&str>::new());
        assert_eq!(paths_in("./tool", 0), ["./tool"]);
    }
}
