//! `${…}`: values of params and of the matrix, put in where they are named.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::{Diagnostic, Span};
use crate::operator::nearest;
use crate::yaml::{Entry, Kind, Node};

/// A value that `${…}` stands for.
#[derive(Debug, Clone)]
pub(super) struct Value {
    /// The value; its span is where it is set.
    pub(super) node: Node,
    /// The values that it was made of itself.
    pub(super) origins: Vec<Origin>,
}

/// A value that came into a step from elsewhere: what a mistake in it is explained by.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Origin {
    /// Where the `${…}` stands.
    pub(super) at: Span,
    /// What is between its braces.
    pub(super) expression: String,
    /// Where the value is set: a param's default, the command line, an axis of a matrix.
    pub(super) set: Span,
    /// The value in a few words, where the place does not show it alone (one of several).
    pub(super) shown: Option<String>,
}

/// Where the values of a step came from, and where none could be put in.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace {
    pub(super) origins: Vec<Origin>,
    /// The places of `${…}` without a value. What else is wrong there is wrong for want of it.
    pub(super) unresolved: Vec<Span>,
}

/// What may stand between the braces.
pub(super) struct Scope<'a> {
    /// By name; none where the value is wrong, which has been told.
    pub(super) params: &'a BTreeMap<String, Option<Value>>,
    /// By axis: the values of one combination.
    pub(super) matrix: &'a BTreeMap<String, Option<Value>>,
    /// The params that were put in somewhere.
    pub(super) used: &'a RefCell<BTreeSet<String>>,
}

impl Scope<'_> {
    /// The same tree with every `${…}` filled in, and where the values came from. A text that is one `${…}` takes
    /// the value's type.
    pub(super) fn fill(&self, node: &Node, trace: &mut Trace, out: &mut Vec<Diagnostic>) -> Node {
        let kind = match &node.kind {
            Kind::Text(text) if text.contains("${") => self.filled(text, node.span, trace, out),
            Kind::List(items) => Kind::List(items.iter().map(|i| self.fill(i, trace, out)).collect()),
            Kind::Map(entries) => {
                let mut filled = Vec::with_capacity(entries.len());
                for entry in entries {
                    filled.push(Entry { value: self.fill(&entry.value, trace, out), ..entry.clone() });
                }
                Kind::Map(filled)
            }
            other => other.clone(),
        };
        Node { kind, span: node.span }
    }

    fn filled(&self, text: &str, span: Span, trace: &mut Trace, out: &mut Vec<Diagnostic>) -> Kind {
        let mut rest = text;
        let mut done = String::new();
        let mut sound = true;
        while let Some(start) = rest.find("${") {
            let Some(length) = rest[start..].find('}') else {
                let mistake = Diagnostic::error(span, "this `${` has no `}`");
                out.push(mistake.help("a value is put in by `${params.name}` or `${matrix.axis}`"));
                trace.unresolved.push(span);
                return Kind::Text(text.to_owned());
            };
            let expression = rest[start + 2..start + length].trim();
            let value = self.value(expression, span, out);
            if let Some(value) = value {
                trace.origins.push(origin(span, expression, value));
                trace.origins.extend(value.origins.iter().map(|inner| Origin { at: span, ..inner.clone() }));
                if start == 0 && length + 1 == rest.len() && done.is_empty() {
                    return spanned(&value.node, span).kind;
                }
                done.push_str(&rest[..start]);
                match plain(&value.node.kind) {
                    Some(text) => done.push_str(&text),
                    None => {
                        let found = value.node.describe();
                        let message =
                            format!("`${{{expression}}}` is {found}, which cannot stand inside a text");
                        let mistake = Diagnostic::error(span, message).label(value.node.span, "set here");
                        out.push(mistake.help("let it be the whole value, or give it as text"));
                        sound = false;
                    }
                }
            } else {
                sound = false;
            }
            rest = &rest[start + length + 1..];
        }
        if !sound {
            trace.unresolved.push(span);
            return Kind::Text(text.to_owned());
        }
        Kind::Text(done + rest)
    }

    /// The value of an expression.
    fn value(&self, expression: &str, span: Span, out: &mut Vec<Diagnostic>) -> Option<&Value> {
        let (values, name) = match expression.split_once('.') {
            Some(("params", name)) => (self.params, name),
            Some(("matrix", name)) => (self.matrix, name),
            _ => {
                let names: Vec<String> = self.names();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let near = format!("params.{expression}");
                let help = match names.contains(&near.as_str()) {
                    true => format!("write `${{{near}}}`"),
                    false => nearest(expression, &names, "params"),
                };
                let message = format!("`${{{expression}}}` names nothing");
                out.push(Diagnostic::error(span, message).help(help));
                return None;
            }
        };
        if let Some(value) = values.get(name) {
            if expression.starts_with("params.") {
                self.used.borrow_mut().insert(name.to_owned());
            }
            return value.as_ref();
        }
        let names: Vec<&str> = values.keys().map(String::as_str).collect();
        let (what, label, none) = match expression.starts_with("params.") {
            true => ("params", "not a param of this pipeline", "declare it under `params`"),
            false => ("axes", "not an axis of this step's matrix", "give the step a `matrix`"),
        };
        let help = if names.is_empty() { none.to_owned() } else { nearest(name, &names, what) };
        let message = format!("`${{{expression}}}` names nothing");
        out.push(Diagnostic::error(span, message).label(span, label).help(help));
        None
    }

    fn names(&self) -> Vec<String> {
        let params = self.params.keys().map(|name| format!("params.{name}"));
        params.chain(self.matrix.keys().map(|name| format!("matrix.{name}"))).collect()
    }
}

fn origin(at: Span, expression: &str, value: &Value) -> Origin {
    let shown = expression.starts_with("matrix.").then(|| plain(&value.node.kind).unwrap_or_default());
    Origin { at, expression: expression.to_owned(), set: value.node.span, shown }
}

/// The same value as if it had been written at `span`.
fn spanned(node: &Node, span: Span) -> Node {
    let kind = match &node.kind {
        Kind::List(items) => Kind::List(items.iter().map(|item| spanned(item, span)).collect()),
        Kind::Map(entries) => {
            let entry =
                |e: &Entry| Entry { key: e.key.clone(), key_span: span, value: spanned(&e.value, span) };
            Kind::Map(entries.iter().map(entry).collect())
        }
        other => other.clone(),
    };
    Node { kind, span }
}

/// A value as it stands inside a text; none where it is none of one word.
pub(super) fn plain(kind: &Kind) -> Option<String> {
    match kind {
        Kind::Text(text) => Some(text.clone()),
        Kind::Bool(value) => Some(value.to_string()),
        Kind::Int(value) => Some(value.to_string()),
        Kind::Float(value) => Some(value.to_string()),
        Kind::Null | Kind::List(_) | Kind::Map(_) => None,
    }
}
