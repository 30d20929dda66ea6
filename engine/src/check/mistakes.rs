//! What is found wrong with steps, put to its place: in the spec, inside a text of it, or in a file that it names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;

use crate::diagnostic::{Diagnostic, FileId, Sources, Span};
use crate::operator::{FilePlace, Problem};
use crate::spec::{Spec, Step};
use crate::yaml;

/// Combinations that are named where a mistake is not in all of them.
const NAMED: usize = 3;

/// Something wrong with a step.
pub(super) enum Finding {
    /// At a place in the spec.
    Diagnostic(Diagnostic),
    /// At a path into the step.
    Problem(Problem),
}

impl From<Diagnostic> for Finding {
    fn from(diagnostic: Diagnostic) -> Finding {
        Finding::Diagnostic(diagnostic)
    }
}

/// All that was found so far.
pub(super) struct Mistakes<'a> {
    spec: &'a Spec,
    sources: &'a mut Sources,
    /// By path: configuration files that are pointed into.
    files: BTreeMap<PathBuf, FileId>,
    /// With the place of the step.
    all: Vec<(usize, Diagnostic)>,
}

impl<'a> Mistakes<'a> {
    pub(super) fn new(spec: &'a Spec, sources: &'a mut Sources) -> Mistakes<'a> {
        Mistakes { spec, sources, files: BTreeMap::new(), all: Vec::new() }
    }

    /// Notes a mistake of the step at a place of the spec.
    pub(super) fn say(&mut self, place: usize, diagnostic: Diagnostic) {
        self.all.extend(self.spec.steps[place].explained(diagnostic).map(|told| (place, told)));
    }

    /// Notes what was found wrong with the step at a place of the spec.
    pub(super) fn find(&mut self, place: usize, finding: Finding) {
        let diagnostic = match finding {
            Finding::Diagnostic(diagnostic) => diagnostic,
            Finding::Problem(problem) => self.placed(&self.spec.steps[place], problem),
        };
        self.say(place, diagnostic);
    }

    /// A problem at the deepest place of its path that the text has.
    fn placed(&mut self, step: &Step, problem: Problem) -> Diagnostic {
        let node = deepest(step, &problem.path);
        let span = node.map_or(step.operator_span, |node| node.span);
        let diagnostic = match problem.file {
            Some(place) => self.in_file(*place, span, problem.message),
            None => {
                let text = node.and_then(|node| match &node.kind {
                    yaml::Kind::Text(text) => Some(text),
                    _ => None,
                });
                let part = text.zip(problem.part).and_then(|(text, part)| self.within(span, text, &part));
                Diagnostic::error(part.unwrap_or(span), problem.message)
            }
        };
        match problem.help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        }
    }

    /// A mistake in a configuration file, which the spec names at `named`.
    fn in_file(&mut self, place: FilePlace, named: Span, message: String) -> Diagnostic {
        let FilePlace { path, text, part } = place;
        let file = match self.files.get(&path) {
            Some(file) => *file,
            None => {
                let shown = path.strip_prefix(".").unwrap_or(&path);
                self.sources.add(shown.to_string_lossy(), &*text)
            }
        };
        self.files.insert(path, file);
        let span = Span { file, start: part.start, end: part.end };
        Diagnostic::error(span, message).label(named, "read from here")
    }

    /// The place in a file of a part of a text that stands at `span`; none where it does not stand there as it is.
    pub(super) fn within(&self, span: Span, text: &str, part: &Range<usize>) -> Option<Span> {
        let source = self.sources.get(span.file).text.get(span.start..span.end)?;
        let found = yaml::part_of(source, text, part)?;
        Some(Span { start: span.start + found.start, end: span.start + found.end, ..span })
    }

    /// Each mistake once, as it is to be told. One that is not in all combinations of a matrix names those that
    /// have it.
    pub(super) fn told(self) -> Vec<Diagnostic> {
        let mut order: Vec<Diagnostic> = Vec::new();
        let mut places: HashMap<Diagnostic, BTreeSet<usize>> = HashMap::new();
        for (place, diagnostic) in self.all {
            let known = places.entry(diagnostic.clone()).or_default();
            if known.is_empty() {
                order.push(diagnostic);
            }
            known.insert(place);
        }
        let mut combinations: HashMap<&str, usize> = HashMap::new();
        for step in &self.spec.steps {
            *combinations.entry(step.written.as_str()).or_default() += 1;
        }
        let told = order.into_iter().map(|diagnostic| {
            let places = &places[&diagnostic];
            let steps: Vec<&Step> = places.iter().map(|place| &self.spec.steps[*place]).collect();
            let all = steps.first().and_then(|step| combinations.get(step.written.as_str()));
            let explained = diagnostic.labels.iter().any(|(_, text)| text.starts_with("`${matrix."));
            let single = steps.iter().all(|step| step.combination.is_empty());
            if single || all == Some(&steps.len()) || explained {
                return diagnostic;
            }
            let mut names: Vec<String> =
                steps.iter().take(NAMED).map(|step| format!("`{}`", step.name)).collect();
            if steps.len() > NAMED {
                names.push(format!("{} more", steps.len() - NAMED));
            }
            diagnostic.note(format!("in {}", names.join(", ")))
        });
        told.collect()
    }
}

/// The deepest node of a path that the step has.
fn deepest<'s>(step: &'s Step, path: &[String]) -> Option<&'s yaml::Node> {
    let mut found: Option<&yaml::Node> = None;
    for key in path {
        let node = found.unwrap_or(&step.node);
        let next = match &node.kind {
            yaml::Kind::Map(_) => node.get(key),
            yaml::Kind::List(items) => key.parse::<usize>().ok().and_then(|i| items.get(i)),
            _ => None,
        };
        let Some(next) = next else { break };
        found = Some(next);
    }
    found
}
