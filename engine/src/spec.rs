//! A pipeline as written: params put in, steps named, nothing yet known of operators.
//!
//! [`read`] goes from YAML text to a [`Spec`] and collects every mistake on the way. What it cannot make sense
//! of it leaves out, so that later phases can still speak about the rest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::diagnostic::{Diagnostic, Level, Sources, Span};
use crate::drift::Rerun;
use crate::operator::nearest;
use crate::shape;
use crate::yaml::{self, Entry, Kind, Node};

/// A pipeline as written.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The pipeline's name: letters, digits, hyphens.
    pub name: String,
    /// The path of the spec, as given.
    pub path: PathBuf,
    /// The folder that relative paths start from.
    pub folder: PathBuf,
    /// The steps, in the order of the text.
    pub steps: Vec<Step>,
}

/// One step as written, its `${…}` filled in.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Where the name stands.
    pub span: Span,
    /// The operator's name.
    pub operator: String,
    /// Where the operator's name stands.
    pub operator_span: Span,
    /// The tables that it reads.
    pub from: Vec<From>,
    /// The parameters: a mapping, empty where `with` is left out.
    pub with: Node,
    /// By port: the id column to join on.
    pub matches: Vec<(String, String, Span)>,
    /// Contracts on the result.
    pub expect: Vec<Contract>,
    /// What it needs to itself (`gpu: 1`).
    pub needs: BTreeMap<String, u32>,
    /// When a changed input makes it run again; none: always.
    pub rerun: Option<Rerun>,
    /// The whole step, for pointing at parts of it.
    pub node: Node,
}

/// One input of a step: a port and the step that fills it.
#[derive(Debug, Clone)]
pub struct From {
    /// The port; none where the only port's name is left out.
    pub port: Option<String>,
    /// The step, or `step.output`.
    pub table: String,
    /// Where the step's name stands.
    pub span: Span,
}

impl From {
    /// The step's name, without an output behind it.
    pub fn step(&self) -> &str {
        self.table.split('.').next().unwrap_or(&self.table)
    }

    /// The output's name; empty for the main one.
    pub fn output(&self) -> &str {
        self.table.split_once('.').map_or("", |(_, output)| output)
    }
}

/// A contract: an SQL predicate that must hold over the step's table.
#[derive(Debug, Clone)]
pub struct Contract {
    /// The predicate.
    pub sql: String,
    /// Whether a breach only tells instead of stopping.
    pub warn: bool,
    /// Where it stands.
    pub span: Span,
}

/// Values that the command line and the environment give to params.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// `--set name=value`, in order.
    pub set: Vec<(String, String)>,
    /// The environment variables that params may name.
    pub environment: BTreeMap<String, String>,
}

/// The shape of a spec file, for its JSON Schema and the check of its keys.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the fields exist to be described; values are read from the spanned tree")]
pub(crate) struct SpecShape {
    /// The version of the spec language: 1.
    argent: u32,
    /// The pipeline's name; its tables are found under it in SQL.
    name: String,
    /// What the pipeline is for.
    description: Option<String>,
    /// Values that `${params.x}` puts in, and that `--set x=…` changes.
    params: Option<BTreeMap<String, Value>>,
    /// The steps, in any order.
    steps: BTreeMap<String, StepShape>,
}

/// When a step whose input changed runs again.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the fields exist to be described; values are read from the spanned tree")]
pub(crate) struct RerunShape {
    /// `changed_rows > SHARE`: the share of the joined input rows that were added, removed or changed since the
    /// result was made.
    r#if: String,
}

/// One step of a pipeline.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the fields exist to be described; values are read from the spanned tree")]
pub(crate) struct StepShape {
    /// The operator, `family.verb`.
    r#use: String,
    /// The tables that it reads: a step's name, or a mapping from port to step.
    from: Option<Value>,
    /// The operator's parameters.
    with: Option<BTreeMap<String, Value>>,
    /// By port: the id column to join on, where it is not `id`.
    r#match: Option<BTreeMap<String, String>>,
    /// Contracts: SQL predicates over the step's table that must hold before it takes the step's name.
    expect: Option<Vec<Value>>,
    /// What the step needs to itself, such as `gpu: 1`.
    needs: Option<BTreeMap<String, u32>>,
    /// When a changed input is to be accepted instead of running the step again.
    rerun: Option<RerunShape>,
    /// Words to select steps by.
    tags: Option<Vec<String>>,
    /// What the step is for.
    doc: Option<String>,
}

/// Reads a pipeline. Its diagnostics may be warnings only; where one is an error the spec must not run.
///
/// # Errors
/// None of its own: a file that does not read at all gives no spec and one diagnostic.
pub fn read(path: &Path, given: &Given, sources: &mut Sources) -> (Option<Spec>, Vec<Diagnostic>) {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let file = sources.add(path.to_string_lossy(), String::new());
            let span = Span { file, start: 0, end: 0 };
            let message = format!("{} does not read: {error}", path.display());
            return (None, vec![Diagnostic::error(span, message)]);
        }
    };
    let file = sources.add(path.to_string_lossy(), text.clone());
    let root = match yaml::parse(file, &text) {
        Ok(root) => root,
        Err(diagnostics) => return (None, diagnostics),
    };
    let mut diagnostics = shape::check(&root, &spec_schema(), "a pipeline");
    let params = params(&root, given, &mut diagnostics);
    let steps = entries(root.get("steps"));
    let steps = steps.iter().filter_map(|entry| step(entry, &params, &mut diagnostics)).collect();
    let name = root.get("name").and_then(text_of).unwrap_or_default().to_owned();
    if !name.is_empty() && !is_name(&name) {
        let span = root.get("name").map_or(root.span, |n| n.span);
        diagnostics.push(
            Diagnostic::error(span, format!("`{name}` does not name a pipeline"))
                .label(span, "expected letters, digits, hyphens and underscores"),
        );
    }
    if let Some(version) = root.get("argent")
        && version.kind != Kind::Int(1)
    {
        diagnostics.push(
            Diagnostic::error(version.span, "this version of the spec language is not known")
                .label(version.span, "expected 1"),
        );
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    (Some(Spec { name, path: path.to_owned(), folder: folder.to_owned(), steps }), diagnostics)
}

/// The JSON Schema of a spec file; `with` is any mapping here.
pub fn spec_schema() -> Value {
    let generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    generator.into_root_schema_for::<SpecShape>().to_value()
}

/// Whether any of the diagnostics is an error.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|d| d.level == Level::Error)
}

fn step(entry: &Entry, params: &BTreeMap<String, Node>, out: &mut Vec<Diagnostic>) -> Option<Step> {
    let node = interpolate(&entry.value, params, out);
    if !is_name(&entry.key) {
        out.push(
            Diagnostic::error(entry.key_span, format!("`{}` does not name a step", entry.key))
                .label(entry.key_span, "expected letters, digits, hyphens and underscores"),
        );
        return None;
    }
    let operator = node.get("use")?;
    let empty = Node { kind: Kind::Map(Vec::new()), span: entry.key_span };
    Some(Step {
        name: entry.key.clone(),
        span: entry.key_span,
        operator: text_of(operator)?.to_owned(),
        operator_span: operator.span,
        from: from(node.get("from"), out),
        with: node.get("with").filter(|w| matches!(w.kind, Kind::Map(_))).cloned().unwrap_or(empty),
        matches: matches(node.get("match")),
        expect: contracts(node.get("expect"), out),
        needs: needs(node.get("needs")),
        rerun: rerun(node.get("rerun"), out),
        node,
    })
}

fn from(node: Option<&Node>, out: &mut Vec<Diagnostic>) -> Vec<From> {
    let Some(node) = node else { return Vec::new() };
    match &node.kind {
        Kind::Text(table) => vec![From { port: None, table: table.clone(), span: node.span }],
        Kind::Map(ports) => ports
            .iter()
            .filter_map(|port| match text_of(&port.value) {
                Some(table) => Some(From {
                    port: Some(port.key.clone()),
                    table: table.to_owned(),
                    span: port.value.span,
                }),
                None => {
                    out.push(expected(&port.value, "the name of a step"));
                    None
                }
            })
            .collect(),
        _ => {
            out.push(expected(node, "the name of a step, or a mapping from port to step"));
            Vec::new()
        }
    }
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
        let warn = item.get("level").and_then(text_of) == Some("warn");
        match item.get("sql").or(Some(item)).and_then(text_of) {
            Some(sql) => all.push(Contract { sql: sql.to_owned(), warn, span: item.span }),
            None => out.push(expected(item, "an SQL predicate, or { sql: …, level: warn }")),
        }
    }
    all
}

fn rerun(node: Option<&Node>, out: &mut Vec<Diagnostic>) -> Option<Rerun> {
    let condition = node?.get("if")?;
    let parsed = text_of(condition).and_then(Rerun::parse);
    if parsed.is_none() {
        let diagnostic = expected(condition, "a comparison of `changed_rows` with a share from 0 to 1");
        out.push(diagnostic.help("for example `if: \"changed_rows > 0.005\"`"));
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

/// The params' values: `--set` before the environment before the default.
fn params(root: &Node, given: &Given, out: &mut Vec<Diagnostic>) -> BTreeMap<String, Node> {
    let mut values = BTreeMap::new();
    for entry in entries(root.get("params")) {
        let declared = declared_default(entry);
        let variable = entry.value.get("env").and_then(text_of);
        let from_environment = variable.and_then(|v| given.environment.get(v));
        let set = given.set.iter().rev().find(|(name, _)| *name == entry.key).map(|(_, v)| v);
        let wanted = wanted_type(entry);
        let value = match set.or(from_environment) {
            Some(text) => typed(text, wanted.as_deref(), entry.key_span, &entry.key, out),
            None => declared.cloned(),
        };
        match value {
            Some(value) => drop(values.insert(entry.key.clone(), value)),
            None if set.or(from_environment).is_some() => {}
            None => {
                let advice = match variable {
                    Some(v) => format!("set the environment variable {v}, or run with --set {}=…", entry.key),
                    None => format!("give it a `default`, or run with --set {}=…", entry.key),
                };
                let message = format!("the param `{}` has no value", entry.key);
                out.push(
                    Diagnostic::error(entry.key_span, message)
                        .label(entry.key_span, "no default")
                        .help(advice),
                );
            }
        }
    }
    let names: Vec<&str> = values.keys().map(String::as_str).collect();
    for (name, _) in given.set.iter().filter(|(name, _)| !values.contains_key(name)) {
        let span = root.get("params").map_or(root.span, |p| Span { end: p.span.start, ..p.span });
        let message = format!("--set names `{name}`, which is not a param of this pipeline");
        out.push(Diagnostic::error(span, message).help(nearest(name, &names, "params")));
    }
    values
}

/// The default of a param: its value, or `default` where it is written out.
fn declared_default(entry: &Entry) -> Option<&Node> {
    match &entry.value.kind {
        Kind::Map(_) => entry.value.get("default"),
        _ => Some(&entry.value),
    }
}

/// The type of a param: what it says, or its default's.
fn wanted_type(entry: &Entry) -> Option<String> {
    if let Some(said) = entry.value.get("type").and_then(text_of) {
        return Some(said.to_owned());
    }
    let name = match declared_default(entry)?.kind {
        Kind::Bool(_) => "bool",
        Kind::Int(_) => "int",
        Kind::Float(_) => "number",
        Kind::Text(_) => "text",
        _ => return None,
    };
    Some(name.to_owned())
}

/// A value from the command line or the environment, at the type of its param.
fn typed(
    text: &str,
    wanted: Option<&str>,
    span: Span,
    name: &str,
    out: &mut Vec<Diagnostic>,
) -> Option<Node> {
    let kind = match wanted {
        Some("int") => text.parse().ok().map(Kind::Int),
        Some("number") => text.parse().ok().map(Kind::Float),
        Some("bool") => text.parse().ok().map(Kind::Bool),
        None => yaml::parse(span.file, text).ok().map(|n| n.kind),
        Some(_) => Some(Kind::Text(text.to_owned())),
    };
    if kind.is_none() {
        let message = format!("the value given for `{name}` is not of its type");
        let label = format!("expected {}", wanted.unwrap_or("a value"));
        out.push(Diagnostic::error(span, message).label(span, label));
    }
    Some(Node { kind: kind?, span })
}

/// The same tree with every `${…}` filled in. A text that is one `${…}` takes the value's type.
fn interpolate(node: &Node, params: &BTreeMap<String, Node>, out: &mut Vec<Diagnostic>) -> Node {
    let kind = match &node.kind {
        Kind::Text(text) if text.contains("${") => filled(text, node.span, params, out),
        Kind::List(items) => Kind::List(items.iter().map(|i| interpolate(i, params, out)).collect()),
        Kind::Map(entries) => {
            let filled =
                entries.iter().map(|e| Entry { value: interpolate(&e.value, params, out), ..e.clone() });
            Kind::Map(filled.collect())
        }
        other => other.clone(),
    };
    Node { kind, span: node.span }
}

fn filled(text: &str, span: Span, params: &BTreeMap<String, Node>, out: &mut Vec<Diagnostic>) -> Kind {
    let mut rest = text;
    let mut done = String::new();
    while let Some(start) = rest.find("${") {
        let Some(length) = rest[start..].find('}') else {
            out.push(Diagnostic::error(span, "a `${` has no `}`").label(span, "expected ${params.name}"));
            return Kind::Text(text.to_owned());
        };
        let expression = rest[start + 2..start + length].trim();
        let Some(value) = lookup(expression, span, params, out) else {
            return Kind::Text(text.to_owned());
        };
        if start == 0 && length + 1 == rest.len() && done.is_empty() {
            return value.kind.clone();
        }
        done.push_str(&rest[..start]);
        done.push_str(&plain(&value.kind));
        rest = &rest[start + length + 1..];
    }
    Kind::Text(done + rest)
}

fn lookup<'a>(
    expression: &str,
    span: Span,
    params: &'a BTreeMap<String, Node>,
    out: &mut Vec<Diagnostic>,
) -> Option<&'a Node> {
    let value = expression.strip_prefix("params.").and_then(|name| params.get(name));
    if value.is_none() {
        let names: Vec<String> = params.keys().map(|k| format!("params.{k}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let message = format!("`${{{expression}}}` names nothing");
        let help = nearest(expression, &names, "params");
        out.push(Diagnostic::error(span, message).label(span, "not a param of this pipeline").help(help));
    }
    value
}

fn plain(kind: &Kind) -> String {
    match kind {
        Kind::Text(text) => text.clone(),
        Kind::Bool(value) => value.to_string(),
        Kind::Int(value) => value.to_string(),
        Kind::Float(value) => value.to_string(),
        _ => String::new(),
    }
}

fn expected(node: &Node, what: &str) -> Diagnostic {
    let message = format!("expected {what}, found {}", node.describe());
    Diagnostic::error(node.span, message).label(node.span, format!("expected {what}"))
}

fn entries(node: Option<&Node>) -> &[Entry] {
    match node {
        Some(Node { kind: Kind::Map(entries), .. }) => entries,
        _ => &[],
    }
}

fn text_of(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Text(text) => Some(text),
        _ => None,
    }
}

fn is_name(text: &str) -> bool {
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    first && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}
