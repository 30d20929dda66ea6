//! Params: values with a name, a type and a default, which the command line and the environment can change.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::interpolate::{Scope, Trace, Value};
use super::{Given, ParamShape, schema_of, text_of};
use crate::diagnostic::{Diagnostic, Sources, Span};
use crate::operator::nearest;
use crate::shape;
use crate::yaml::{self, Entry, Kind, Node};

/// What a param holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Int,
    Number,
    Bool,
    Text,
    Path,
    Url,
    List,
}

impl Type {
    fn named(name: &str) -> Option<Type> {
        Some(match name {
            "int" => Type::Int,
            "number" => Type::Number,
            "bool" => Type::Bool,
            "text" => Type::Text,
            "path" => Type::Path,
            "url" => Type::Url,
            "list" => Type::List,
            _ => return None,
        })
    }

    /// The type of a default that stands alone; none for `null`, which takes any value.
    fn of(node: &Node) -> Option<Type> {
        Some(match node.kind {
            Kind::Bool(_) => Type::Bool,
            Kind::Int(_) => Type::Int,
            Kind::Float(_) => Type::Number,
            Kind::Text(_) => Type::Text,
            Kind::List(_) => Type::List,
            Kind::Null | Kind::Map(_) => return None,
        })
    }

    /// What is expected, in words.
    fn phrase(self) -> &'static str {
        match self {
            Type::Int => "a whole number",
            Type::Number => "a number",
            Type::Bool => "`true` or `false`",
            Type::Text => "text",
            Type::Path => "a path",
            Type::Url => "a URL that begins with http:// or https://",
            Type::List => "a list",
        }
    }

    fn holds(self, kind: &Kind) -> bool {
        match (self, kind) {
            (Type::Int, Kind::Int(_)) | (Type::Number, Kind::Int(_) | Kind::Float(_)) => true,
            (Type::Bool, Kind::Bool(_)) | (Type::List, Kind::List(_)) => true,
            (Type::Text | Type::Path, Kind::Text(_)) => true,
            (Type::Url, Kind::Text(text)) => text.starts_with("http://") || text.starts_with("https://"),
            _ => false,
        }
    }

    /// A value from outside, at this type.
    fn read(self, text: &str, span: Span) -> Option<Kind> {
        let kind = match self {
            Type::Int => Kind::Int(text.trim().parse().ok()?),
            Type::Number => match text.trim().parse::<i64>() {
                Ok(whole) => Kind::Int(whole),
                Err(_) => Kind::Float(text.trim().parse().ok().filter(|n: &f64| n.is_finite())?),
            },
            Type::Bool => Kind::Bool(text.trim().parse().ok()?),
            Type::List => yaml::parse(span.file, text).ok()?.kind,
            Type::Text | Type::Path | Type::Url => Kind::Text(text.to_owned()),
        };
        self.holds(&kind).then_some(kind)
    }
}

/// The values of all params: of the command line before those of the environment before defaults. A param whose
/// value is wrong has none.
pub(super) fn values(
    entries: &[Entry],
    given: &Given,
    used: &RefCell<BTreeSet<String>>,
    sources: &mut Sources,
    out: &mut Vec<Diagnostic>,
) -> BTreeMap<String, Option<Value>> {
    let mut resolver =
        Resolver { declared: BTreeMap::new(), values: BTreeMap::new(), open: Vec::new(), used };
    let line = CommandLine::new(given, sources);
    for entry in entries {
        match source(entry, given, &line, sources, out) {
            Some(source) => drop(resolver.declared.insert(&entry.key, source)),
            None => drop(resolver.values.insert(entry.key.clone(), None)),
        }
    }
    for entry in entries {
        resolver.resolve(&entry.key, out);
    }
    let names: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
    for said in line.said.iter().filter(|said| !names.contains(&said.param)) {
        let message =
            format!("{} names `{}`, which is not a param of this pipeline", said.option, said.param);
        out.push(Diagnostic::error(said.name, message).help(nearest(said.param, &names, "params")));
    }
    resolver.values
}

/// Where a param's value stands, and what type it is to have.
struct Source {
    value: Node,
    wanted: Option<Type>,
    declared: Span,
}

/// The value that a param takes, before what it names itself is put in.
fn source(
    entry: &Entry,
    given: &Given,
    line: &CommandLine,
    sources: &mut Sources,
    out: &mut Vec<Diagnostic>,
) -> Option<Source> {
    if !super::is_name(&entry.key) {
        let message = format!("`{}` does not name a param", entry.key);
        let help = "a name begins with a letter and has letters, digits, hyphens and underscores";
        out.push(Diagnostic::error(entry.key_span, message).help(help));
        return None;
    }
    let written_out = matches!(entry.value.kind, Kind::Map(_));
    if written_out {
        let mistakes =
            shape::check(&entry.value, &schema_of::<ParamShape>(), &format!("the param `{}`", entry.key));
        if !mistakes.is_empty() {
            out.extend(mistakes);
            return None;
        }
    }
    let default = if written_out { entry.value.get("default") } else { Some(&entry.value) };
    let said = entry.value.get("type").and_then(text_of).and_then(Type::named);
    let wanted = said.or(default.and_then(Type::of));
    let variable = entry.value.get("env").and_then(text_of);
    let from_outside = match line.said.iter().rfind(|said| said.param == entry.key) {
        Some(said) => Some((said.value, said.text, said.option.to_owned())),
        None => variable.and_then(|variable| {
            let text = given.environment.get(variable)?;
            // Only the variable's name is shown: its value may be a secret.
            let file = sources.add("environment", variable);
            let span = Span { file, start: 0, end: variable.len() };
            Some((span, text.as_str(), format!("the environment variable {variable}")))
        }),
    };
    let declared = entry.key_span;
    if let Some((span, text, whence)) = from_outside {
        let kind = match wanted {
            Some(wanted) => wanted.read(text, span),
            None => yaml::parse(span.file, text).ok().map(|node| node.kind),
        };
        let Some(kind) = kind else {
            let phrase = wanted.map_or("a value", Type::phrase);
            let message =
                format!("{whence} gives `{}` a value of another type: expected {phrase}", entry.key);
            out.push(Diagnostic::error(span, message).label(declared, "declared here"));
            return None;
        };
        return Some(Source { value: Node { kind, span }, wanted, declared });
    }
    let Some(value) = default else {
        let advice = match variable {
            Some(v) => format!("set the environment variable {v}, or run with --set {}=…", entry.key),
            None => format!("give it a `default`, or run with --set {}=…", entry.key),
        };
        let message = format!("the param `{}` has no value", entry.key);
        out.push(Diagnostic::error(declared, message).label(declared, "no default").help(advice));
        return None;
    };
    Some(Source { value: value.clone(), wanted, declared })
}

/// Puts params into each other.
struct Resolver<'a> {
    declared: BTreeMap<&'a str, Source>,
    values: BTreeMap<String, Option<Value>>,
    /// The params that wait for each other's values.
    open: Vec<String>,
    used: &'a RefCell<BTreeSet<String>>,
}

impl Resolver<'_> {
    fn resolve(&mut self, name: &str, out: &mut Vec<Diagnostic>) {
        if self.values.contains_key(name) {
            return;
        }
        let Some(source) = self.declared.get(name) else { return };
        let (value, wanted, declared) = (source.value.clone(), source.wanted, source.declared);
        if let Some(first) = self.open.iter().position(|open| open == name) {
            let circle: Vec<&str> = self.open[first..].iter().map(String::as_str).chain([name]).collect();
            let message = format!("params name each other in a circle: {}", circle.join(" -> "));
            out.push(Diagnostic::error(value.span, message).help("give one of them a value of its own"));
            self.declared.remove(name);
            self.values.insert(name.to_owned(), None);
            return;
        }
        self.open.push(name.to_owned());
        for other in named_params(&value) {
            self.resolve(&other, out);
        }
        self.open.pop();
        // On a circle: it has been told of.
        if self.declared.remove(name).is_none() {
            return;
        }
        let mut trace = Trace::default();
        let scope = Scope { params: &self.values, matrix: &BTreeMap::new(), used: self.used };
        let node = scope.fill(&value, &mut trace, out);
        let origins = trace.origins;
        if !trace.unresolved.is_empty() {
            self.values.insert(name.to_owned(), None);
            return;
        }
        if let Some(wanted) = wanted.filter(|wanted| !wanted.holds(&node.kind) && node.kind != Kind::Null) {
            let message =
                format!("expected {} for the param `{name}`, found {}", wanted.phrase(), node.describe());
            let mut mistake = Diagnostic::error(value.span, message);
            if let Some(origin) = origins.first() {
                mistake = mistake.label(origin.set, format!("`${{{}}}` is set here", origin.expression));
            } else if value.span.file != declared.file {
                mistake = mistake.label(declared, "declared here");
            }
            out.push(match (wanted, &node.kind) {
                (Type::Text | Type::Path, Kind::Int(_) | Kind::Float(_) | Kind::Bool(_)) => {
                    mistake.help("put it in quotes to make it text")
                }
                (Type::Int | Type::Number, Kind::Text(text)) if text.parse::<f64>().is_ok() => {
                    mistake.help("remove the quotes")
                }
                _ => mistake,
            });
            self.values.insert(name.to_owned(), None);
            return;
        }
        self.values.insert(name.to_owned(), Some(Value { node, origins }));
    }
}

/// The params that a value names.
fn named_params(node: &Node) -> Vec<String> {
    match &node.kind {
        Kind::Text(text) => {
            let pieces = text.split("${").skip(1).filter_map(|piece| piece.split_once('}'));
            pieces.filter_map(|(name, _)| name.trim().strip_prefix("params.").map(str::to_owned)).collect()
        }
        Kind::List(items) => items.iter().flat_map(named_params).collect(),
        Kind::Map(entries) => entries.iter().flat_map(|entry| named_params(&entry.value)).collect(),
        _ => Vec::new(),
    }
}

/// What the command line said of params, as texts that can be pointed at: what counts more comes later.
struct CommandLine<'a> {
    said: Vec<Said<'a>>,
}

/// One value that the command line gave.
struct Said<'a> {
    option: &'static str,
    param: &'a str,
    text: &'a str,
    name: Span,
    value: Span,
}

impl<'a> CommandLine<'a> {
    fn new(given: &'a Given, sources: &mut Sources) -> CommandLine<'a> {
        let set = given.set.iter().map(|(param, text)| ("--set ", param, text, 0..text.len()));
        let with = given.with.iter().map(|w| ("--with params.", &w.param, &w.values, w.place.clone()));
        let said = set.chain(with).map(|(before, param, all, place)| {
            let file = sources.add("command line", format!("{before}{param}={all}"));
            let (start, text) = (before.len(), &all[place.clone()]);
            let end = start + param.len();
            let name = Span { file, start, end };
            let value = Span { file, start: end + 1 + place.start, end: end + 1 + place.end };
            let option = before.split(' ').next().unwrap_or(before);
            Said { option, param, text, name, value }
        });
        CommandLine { said: said.collect() }
    }
}

/// A warning for each param that nothing uses.
pub(super) fn unused(entries: &[Entry], used: &BTreeSet<String>) -> Vec<Diagnostic> {
    let unused = entries.iter().filter(|entry| !used.contains(&entry.key));
    unused
        .map(|entry| {
            let message = format!("the param `{}` is used nowhere", entry.key);
            let help = format!("put it in with `${{params.{}}}`, or take it away", entry.key);
            Diagnostic::warning(entry.key_span, message).help(help)
        })
        .collect()
}
