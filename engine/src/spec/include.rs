//! A spec and what it includes, as one: params and steps of all files, each name once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{IncludedShape, SpecShape, entries, schema_of, text};
use crate::diagnostic::{Diagnostic, Sources, Span};
use crate::shape;
use crate::yaml::{self, Entry, Kind, Node};

/// Deepest chain of files that include each other.
const MAX_DEPTH: usize = 24;

/// The files of a spec, put together.
pub(super) struct Merged {
    /// The spec itself.
    pub(super) root: Node,
    /// The params of all files, those of included files first.
    pub(super) params: Vec<Entry>,
    /// The steps of all files, those of included files first.
    pub(super) steps: Vec<Entry>,
}

/// Reads a spec and the files that it includes; none where the spec itself does not read.
pub(super) fn read(path: &Path, sources: &mut Sources, out: &mut Vec<Diagnostic>) -> Option<Merged> {
    let mut reader = Reader {
        sources,
        out,
        chain: Vec::new(),
        done: Vec::new(),
        params: Names::new("param"),
        steps: Names::new("step"),
    };
    let root = reader.file(path, None)?;
    Some(Merged { root, params: reader.params.all, steps: reader.steps.all })
}

struct Reader<'a> {
    sources: &'a mut Sources,
    out: &'a mut Vec<Diagnostic>,
    /// The files that are being read, each included by the one before: where it lies, and how it is shown.
    chain: Vec<(PathBuf, String)>,
    /// The files that have been read: one that two others include counts once.
    done: Vec<PathBuf>,
    params: Names,
    steps: Names,
}

impl Reader<'_> {
    /// Reads a file, and before it those that it includes. `place` is where its path stands in another file.
    fn file(&mut self, path: &Path, place: Option<Span>) -> Option<Node> {
        let shown = path.to_string_lossy().into_owned();
        let text = match text::read(path) {
            Ok(text) => text,
            Err(reason) => {
                self.unreadable(path, place, &reason);
                return None;
            }
        };
        let file = match place {
            Some(place) => self.sources.add_included(shown.clone(), text.clone(), place),
            None => self.sources.add(shown.clone(), text.clone()),
        };
        let root = match yaml::parse(file, &text) {
            Ok(root) => root,
            Err(mistakes) => {
                self.out.extend(mistakes);
                return None;
            }
        };
        // Steps are checked one by one, when their values have been put in.
        let mistakes = match place {
            None => shape::check(&root, &with_any_steps(schema_of::<SpecShape>()), "a pipeline"),
            Some(_) => shape::check(&root, &schema_of::<IncludedShape>(), "an included file"),
        };
        self.out.extend(mistakes);
        self.chain.push((canonical(path), shown));
        for include in includes(root.get("include")) {
            self.include(path, include);
        }
        self.done.extend(self.chain.pop().map(|(path, _)| path));
        self.params.add(entries(root.get("params")), self.out);
        self.steps.add(entries(root.get("steps")), self.out);
        Some(root)
    }

    fn include(&mut self, from: &Path, include: &Node) {
        let Kind::Text(relative) = &include.kind else { return };
        if relative.contains("${") {
            let message = "a path under `include` is taken as it stands, so `${…}` has no value here";
            self.out.push(Diagnostic::error(include.span, message).help("write the path out"));
            return;
        }
        let path = from.parent().unwrap_or(Path::new("")).join(relative);
        let place = canonical(&path);
        if let Some(first) = self.chain.iter().position(|(open, _)| *open == place) {
            let names = self.chain[first..].iter().map(|(_, shown)| shown.as_str());
            let circle: Vec<&str> = names.chain([self.chain[first].1.as_str()]).collect();
            let message = format!("files include each other in a circle: {}", circle.join(" -> "));
            self.out.push(Diagnostic::error(include.span, message).help("take one of the includes away"));
        } else if self.chain.len() > MAX_DEPTH {
            let message = format!("files include each other more than {MAX_DEPTH} deep");
            self.out.push(Diagnostic::error(include.span, message).help("include them from the spec itself"));
        } else if !self.done.contains(&place) {
            self.file(&path, Some(include.span));
        }
    }

    fn unreadable(&mut self, path: &Path, place: Option<Span>, reason: &str) {
        let shown = path.to_string_lossy();
        let diagnostic = match place {
            Some(span) => Diagnostic::error(span, format!("`{shown}` cannot be included: {reason}"))
                .help("paths under `include` are relative to the file that they stand in"),
            None => {
                let file = self.sources.add(shown.clone(), String::new());
                let message = format!("{shown} cannot be read: {reason}");
                Diagnostic::error(Span { file, start: 0, end: 0 }, message)
            }
        };
        self.out.push(diagnostic);
    }
}

/// The schema of a spec, in which a step may be anything.
fn with_any_steps(mut schema: serde_json::Value) -> serde_json::Value {
    schema["properties"]["steps"] = schema_of::<IncludedShape>()["properties"]["steps"].take();
    schema
}

/// The paths under `include`: one, or a list.
fn includes(node: Option<&Node>) -> &[Node] {
    match node {
        Some(Node { kind: Kind::List(items), .. }) => items,
        Some(one) => std::slice::from_ref(one),
        None => &[],
    }
}

/// A file's one name, so that it is known again by whatever path.
fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Names of one kind, each with its definition.
struct Names {
    what: &'static str,
    all: Vec<Entry>,
    first: BTreeMap<String, Span>,
}

impl Names {
    fn new(what: &'static str) -> Names {
        Names { what, all: Vec::new(), first: BTreeMap::new() }
    }

    fn add(&mut self, entries: &[Entry], out: &mut Vec<Diagnostic>) {
        for entry in entries {
            if let Some(first) = self.first.get(&entry.key) {
                let message = format!("the {} `{}` is defined twice", self.what, entry.key);
                out.push(
                    Diagnostic::error(entry.key_span, message)
                        .label(entry.key_span, "defined again")
                        .label(*first, "first defined here")
                        .help("remove one of the two, or give it another name"),
                );
                continue;
            }
            self.first.insert(entry.key.clone(), entry.key_span);
            self.all.push(entry.clone());
        }
    }
}
