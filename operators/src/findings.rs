//! The finding pack that a parameter names: read, checked, and the part of it that enters a key.

use argent_engine::Problem;
use argent_engine::operator::{ConfigFile, ConfigFiles, nearest};
use argent_engine::yaml::{Kind, Node};
use argent_reports::{Pack, PackError};

/// A pack, and the file that it was read from.
#[derive(Debug)]
pub(crate) struct PackFile {
    pub(crate) pack: Pack,
    file: ConfigFile,
    tree: Node,
}

/// Reads the pack that a parameter names.
///
/// # Errors
/// When the file is absent or is not a pack; what is wrong in it is told at its place there.
pub(crate) fn load(files: &mut ConfigFiles, parameter: &str, path: &str) -> Result<PackFile, Vec<Problem>> {
    let file = files.read(parameter, path).map_err(|problem| vec![problem])?;
    let tree = file.yaml()?;
    match serde_yaml::from_str(&file.text) {
        Ok(pack) => Ok(PackFile { pack, file, tree }),
        Err(error) => Err(vec![misread(&file, &error)]),
    }
}

impl PackFile {
    /// The mistakes of a pack that no labeller can be built from, at their places in the file.
    pub(crate) fn problems(&self, error: &PackError) -> Vec<Problem> {
        let problem = |mistake: &argent_reports::Mistake| {
            let mut place = match &mistake.finding {
                Some(id) if !mistake.place.starts_with("findings") => self.finding(id).unwrap_or_default(),
                _ => Vec::new(),
            };
            place.extend(keys(&mistake.place));
            let mut lines = mistake.problem.lines().map(str::trim);
            let first = lines.next().unwrap_or_default();
            let reason =
                lines.next_back().map_or(String::new(), |last| format!(" {}", last.replace("error: ", "")));
            let message =
                format!("`{}` {}{reason}", mistake.pattern, first.replace(" regex parse error:", ""));
            let part = deepest(&self.tree, &place).map_or(0..0, |node| node.span.start..node.span.end);
            self.file.problem(part, message)
        };
        error.mistakes.iter().map(problem).collect()
    }

    /// The way to the finding of an id.
    fn finding(&self, id: &str) -> Option<Vec<String>> {
        let place = self.pack.findings.iter().position(|finding| finding.id == id)?;
        Some(vec!["findings".to_owned(), place.to_string()])
    }
}

/// What serde says of a file that is no pack, at its place and in the words of its reader.
fn misread(file: &ConfigFile, error: &serde_yaml::Error) -> Problem {
    let whole = error.to_string();
    let text = whole.split(" at line ").next().unwrap_or_default();
    let (place, text) = match text.split_once(": ") {
        Some((place, text)) if !place.contains(' ') => (place, text),
        _ => ("the pack", text),
    };
    let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    let (message, help) = match quoted.split_first() {
        Some((name, known)) if text.starts_with("unknown field") => {
            (format!("`{name}` is not a key of {place}"), nearest(name, known, "keys"))
        }
        Some((name, _)) if text.starts_with("missing field") => {
            (format!("`{name}` is missing: {place} needs it"), format!("add `{name}`"))
        }
        _ => {
            let help = "a pack has name, and findings: [{ id, name, definition, synonyms, rules }]";
            (format!("{place} does not read: {text}"), help.to_owned())
        }
    };
    let start = error.location().map_or(0, |location| location.index()).min(file.text.len());
    let start = file.text.floor_char_boundary(start);
    let end = start + file.text[start..].find([':', ',', ' ', '\n', '}', ']']).unwrap_or(0);
    file.problem(start..end, message).help(help)
}

/// `rules.any[2]` as keys.
fn keys(place: &str) -> Vec<String> {
    let parts = place.split(['.', '[', ']']).filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

fn deepest<'t>(tree: &'t Node, keys: &[String]) -> Option<&'t Node> {
    let mut found = None;
    for key in keys {
        let node = found.unwrap_or(tree);
        let next = match &node.kind {
            Kind::Map(_) => node.get(key),
            Kind::List(items) => key.parse::<usize>().ok().and_then(|place| items.get(place)),
            _ => None,
        };
        let Some(next) = next else { break };
        found = Some(next);
    }
    found
}
