//! Steps, one by one: what stands under their keys.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use super::interpolate::{Trace, Value};
use super::matrix::{Expanded, Matrix};
use super::{Contract, Step, StepShape, entries, expected, is_name, schema_of, text_of};
use crate::diagnostic::{Diagnostic, Span};
use crate::drift::Rerun;
use crate::shape;
use crate::yaml::{Entry, Kind, Node};

/// The schema that each step is checked against, made once.
static SHAPE: LazyLock<serde_json::Value> = LazyLock::new(schema_of::<StepShape>);

/// All steps, one per combination of a matrix.
pub(super) fn steps(
    written: &[Entry],
    params: &BTreeMap<String, Option<Value>>,
    used: &RefCell<BTreeSet<String>>,
    out: &mut Vec<Diagnostic>,
) -> Vec<Step> {
    let mut matrix = Matrix::new(written, params, used, out);
    let mut steps = Vec::new();
    for (place, entry) in written.iter().enumerate() {
        if !is_name(&entry.key) {
            out.push(
                Diagnostic::error(entry.key_span, format!("`{}` does not name a step", entry.key))
                    .label(entry.key_span, "expected letters, digits, hyphens and underscores"),
            );
            continue;
        }
        for expanded in matrix.expand(place, out) {
            let mut mistakes = Vec::new();
            let step = step(entry, expanded, &mut mistakes);
            out.extend(mistakes);
            steps.extend(step);
        }
    }
    steps
}

/// One step; none where it does not say what it uses.
fn step(entry: &Entry, expanded: Expanded, out: &mut Vec<Diagnostic>) -> Option<Step> {
    let Expanded { name, combination, mut node, trace, from } = expanded;
    if node.kind == Kind::Null {
        node.span = entry.key_span;
    }
    let mut mistakes = shape::check(&node, &SHAPE, &format!("the step `{}`", entry.key));
    let expect = contracts(node.get("expect"), &mut mistakes);
    let rerun = rerun(node.get("rerun"), &mut mistakes);
    out.extend(mistakes.into_iter().filter_map(|mistake| explained(mistake, &trace)));
    let operator = node.get("use")?;
    let empty = Node { kind: Kind::Map(Vec::new()), span: entry.key_span };
    Some(Step {
        name,
        written: entry.key.clone(),
        combination,
        span: entry.key_span,
        operator: text_of(operator)?.to_owned(),
        operator_span: operator.span,
        from,
        with: node.get("with").filter(|w| matches!(w.kind, Kind::Map(_))).cloned().unwrap_or(empty),
        matches: matches(node.get("match")),
        expect,
        needs: needs(node.get("needs")),
        rerun,
        tags: tags(node.get("tags")),
        node,
        trace,
    })
}

impl Step {
    /// Where a name stands under `needs`.
    pub(crate) fn needs_span(&self, name: &str) -> Span {
        let entry = entries(self.node.get("needs")).iter().find(|entry| entry.key == name);
        entry.map_or(self.span, |entry| entry.key_span)
    }

    /// A mistake in this step, with where the value came from that it is about; none where it is wrong only for
    /// want of a value, which has been told.
    pub fn explained(&self, mistake: Diagnostic) -> Option<Diagnostic> {
        explained(mistake, &self.trace)
    }
}

/// A mistake, with where the value came from that stands at its place; none where no value does.
pub(super) fn explained(mut mistake: Diagnostic, trace: &Trace) -> Option<Diagnostic> {
    let Some(span) = mistake.span() else { return Some(mistake) };
    let here = |at: Span| at.file == span.file && at.start <= span.start && span.end <= at.end;
    if trace.unresolved.iter().any(|at| here(*at)) {
        return None;
    }
    for origin in trace.origins.iter().filter(|origin| here(origin.at)) {
        let words = match &origin.shown {
            Some(value) => format!("`${{{}}}` is `{value}` here", origin.expression),
            None => format!("`${{{}}}` is set here", origin.expression),
        };
        if !mistake.labels.iter().any(|(place, said)| *place == origin.set && *said == words) {
            mistake = mistake.label(origin.set, words);
        }
    }
    Some(mistake)
}

fn matches(node: Option<&Node>) -> Vec<(String, String, Span)> {
    let entries = entries(node);
    let pairs =
        entries.iter().filter_map(|e| Some((e.key.clone(), text_of(&e.value)?.to_owned(), e.key_span)));
    pairs.collect()
}

fn contracts(node: Option<&Node>, out: &mut Vec<Diagnostic>) -> Vec<Contract> {
    let Some(Node { kind: Kind::List(items), .. }) = node else { return Vec::new() };
    let mut all = Vec::new();
    for item in items {
        let mut misspelt = false;
        if let Kind::Map(keys) = &item.kind {
            for entry in keys.iter().filter(|entry| !["sql", "level"].contains(&entry.key.as_str())) {
                let message = format!("`{}` is not a key of a contract", entry.key);
                out.push(Diagnostic::error(entry.key_span, message).help("there are sql and level"));
                misspelt = true;
            }
        }
        let level = item.get("level");
        let warn = level.and_then(text_of) == Some("warn");
        if let Some(level) = level.filter(|level| !matches!(text_of(level), Some("warn" | "error"))) {
            let found = text_of(level).map_or(level.describe().to_owned(), |text| format!("`{text}`"));
            let message = format!("expected `warn` or `error` for `level`, found {found}");
            let help = "`warn` only tells of a breach; `error`, or no level, stops";
            out.push(Diagnostic::error(level.span, message).help(help));
        }
        let sql = item.get("sql").unwrap_or(item);
        match text_of(sql) {
            Some(text) => all.push(Contract { sql: text.to_owned(), warn, span: sql.span }),
            // Of a key that is misspelt it has been told.
            None if matches!(item.kind, Kind::Map(_)) && item.get("sql").is_none() && misspelt => {}
            None => out.push(expected(item, "an SQL predicate, or { sql: …, level: warn }")),
        }
    }
    all
}

fn rerun(node: Option<&Node>, out: &mut Vec<Diagnostic>) -> Option<Rerun> {
    let condition = node?.get("if")?;
    let parsed = text_of(condition).and_then(Rerun::parse);
    if let (None, Some(text)) = (parsed, text_of(condition)) {
        let message = format!("expected `changed_rows >` or `>=` and a share from 0 to 1, found `{text}`");
        let example = "for example `if: \"changed_rows > 0.005\"`";
        out.push(Diagnostic::error(condition.span, message).help(example));
    }
    parsed
}

fn needs(node: Option<&Node>) -> BTreeMap<String, u32> {
    let entries = entries(node);
    let counts = entries.iter().filter_map(|e| match e.value.kind {
        Kind::Int(n) => Some((e.key.clone(), u32::try_from(n).ok()?)),
        _ => None,
    });
    counts.collect()
}

fn tags(node: Option<&Node>) -> Vec<String> {
    match node {
        Some(Node { kind: Kind::List(items), .. }) => {
            items.iter().filter_map(text_of).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}
