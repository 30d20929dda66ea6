//! A pipeline as written: files put together, params put in, the matrix multiplied out, nothing yet known of
//! operators.
//!
//! [`read`] goes from YAML text to a [`Spec`] and collects every mistake on the way. What it cannot make sense
//! of it leaves out, so that later phases can still speak about the rest.

mod include;
mod interpolate;
mod matrix;
mod params;
mod step;
pub mod text;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::axes::Combination;
use crate::diagnostic::{Diagnostic, Level, Sources, Span};
use crate::drift::Rerun;
use crate::shape;
use crate::yaml::{Entry, Kind, Node};

use interpolate::Trace;

/// A pipeline as written.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The pipeline's name: letters, digits, hyphens.
    pub name: String,
    /// The path of the spec, as given.
    pub path: PathBuf,
    /// The folder that relative paths start from, those in included files too.
    pub folder: PathBuf,
    /// The steps, one per combination of a matrix, in the order of the text.
    pub steps: Vec<Step>,
    /// The names of all steps as written, those that are wrong included.
    pub written: BTreeSet<String>,
}

/// One step, its `${…}` filled in.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its name, with its combination.
    pub name: String,
    /// Its name as written.
    pub written: String,
    /// Its combination of the matrix; empty where it has none.
    pub combination: Combination,
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
    /// Words to select it by.
    pub tags: Vec<String>,
    /// The whole step, for pointing at parts of it.
    pub node: Node,
    /// Where the values came from that were put into it.
    trace: Trace,
}

/// One input of a step: a port and the table that fills it.
#[derive(Debug, Clone)]
pub struct From {
    /// The port; none where the only port's name is left out.
    pub port: Option<String>,
    /// The step as written, without combination and output.
    pub step: String,
    /// The output's name; empty for the main one.
    pub output: String,
    /// The step that makes the table; several where the combinations of a matrix are gathered.
    pub sources: Vec<Source>,
    /// Where the step's name stands.
    pub span: Span,
}

impl From {
    /// Whether the combinations of a matrix are read as one table.
    pub fn is_gathered(&self) -> bool {
        self.sources.iter().any(|source| !source.axes.is_empty())
    }
}

/// One step that fills a port, alone or with the other combinations of its matrix.
#[derive(Debug, Clone)]
pub struct Source {
    /// The step's name.
    pub step: String,
    /// The axes that tell it from the others that are gathered; empty where it fills the port alone.
    pub axes: Combination,
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
    /// The values that `--with params.name=…` compares, one of each; they come before those of `--set`.
    pub with: Vec<Compared>,
    /// The environment variables that params may name.
    pub environment: BTreeMap<String, String>,
}

/// One of the values of a param that are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// The param.
    pub param: String,
    /// All of its values, as written.
    pub values: String,
    /// Where the value stands among them, in bytes.
    pub place: Range<usize>,
}

impl Compared {
    /// The value.
    pub fn value(&self) -> &str {
        &self.values[self.place.clone()]
    }
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
    /// Files whose params and steps are put beside those of this one: a path, or a list of them, relative to this
    /// file.
    include: Option<IncludeShape>,
    /// Values that `${params.x}` puts in, and that `--set x=…` changes.
    params: Option<BTreeMap<String, Value>>,
    /// The steps, in any order.
    steps: Option<BTreeMap<String, StepShape>>,
}

/// The shape of an included file: as a spec, but that all of it may be left out, and its name does not count.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the fields exist to be described; values are read from the spanned tree")]
pub(crate) struct IncludedShape {
    /// The version of the spec language: 1.
    argent: Option<u32>,
    /// The name of the pipeline that the file is by itself.
    name: Option<String>,
    /// What it is for.
    description: Option<String>,
    /// Further files to include.
    include: Option<IncludeShape>,
    /// Values that `${params.x}` puts in.
    params: Option<BTreeMap<String, Value>>,
    /// The steps, in any order.
    steps: Option<BTreeMap<String, Value>>,
}

/// Files to include.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the fields exist to be described; values are read from the spanned tree")]
pub(crate) enum IncludeShape {
    /// A path.
    One(String),
    /// Paths.
    Many(Vec<String>),
}

/// A param that is written out.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the fields exist to be described; values are read from the spanned tree")]
pub(crate) struct ParamShape {
    /// What it holds; left out, the type of the default.
    r#type: Option<TypeShape>,
    /// Its value, unless the command line or the environment gives another.
    default: Option<Value>,
    /// What it is for.
    doc: Option<String>,
    /// The environment variable that may give its value.
    env: Option<String>,
}

/// What a param holds.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TypeShape {
    /// A whole number.
    Int,
    /// A number.
    Number,
    /// `true` or `false`.
    Bool,
    /// Text.
    Text,
    /// A path, relative to the spec.
    Path,
    /// A URL.
    Url,
    /// A list.
    List,
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
    /// By axis: values. The step is made once per combination of them, and `${matrix.axis}` puts a value in.
    matrix: Option<BTreeMap<String, Value>>,
    /// Whether all combinations of the steps that it reads are read as one table, with a column per axis.
    gather: Option<bool>,
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
    let mut out = Vec::new();
    let Some(files) = include::read(path, sources, &mut out) else { return (None, out) };
    let name = header(&files.root, &mut out);
    let used = RefCell::default();
    let params = params::values(&files.params, given, &used, sources, &mut out);
    let steps = step::steps(&files.steps, &params, &used, &mut out);
    if !has_errors(&out) {
        out.extend(params::unused(&files.params, &used.borrow()));
    }
    let mut said = HashSet::new();
    // What is wrong in every combination of a matrix is one mistake.
    out.retain(|diagnostic| said.insert(diagnostic.clone()));
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = files.steps.iter().map(|step| step.key.clone()).collect();
    (Some(Spec { name, path: path.to_owned(), folder: folder.to_owned(), steps, written }), out)
}

/// Checks what stands above params and steps; gives the pipeline's name.
fn header(root: &Node, out: &mut Vec<Diagnostic>) -> String {
    let name = root.get("name").and_then(text_of).unwrap_or_default().to_owned();
    if !name.is_empty() && !is_name(&name) {
        let span = root.get("name").map_or(root.span, |n| n.span);
        out.push(
            Diagnostic::error(span, format!("`{name}` does not name a pipeline"))
                .label(span, "expected letters, digits, hyphens and underscores"),
        );
    }
    if let Some(version) = root.get("argent")
        && matches!(version.kind, Kind::Int(number) if number != 1)
    {
        out.push(
            Diagnostic::error(version.span, "this version of the spec language is not known")
                .label(version.span, "expected 1"),
        );
    }
    let nothing = |key: &str| entries(root.get(key)).is_empty();
    // A misspelt key is one mistake, not two.
    let misspelt = entries(Some(root))
        .iter()
        .any(|entry| entry.key != "steps" && shape::closest(&entry.key, ["steps", "include"]).is_some());
    if matches!(root.kind, Kind::Map(_)) && nothing("steps") && root.get("include").is_none() && !misspelt {
        let span = root.get("steps").map_or_else(|| shape::head(root), |steps| steps.span);
        let help = "add `steps`, a mapping from the name of each step to what it does";
        out.push(Diagnostic::error(span, "the pipeline has no steps").help(help));
    }
    name
}

/// The JSON Schema of a spec file; `with` is any mapping here.
pub fn spec_schema() -> Value {
    schema_of::<SpecShape>()
}

fn schema_of<T: JsonSchema>() -> Value {
    let generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    generator.into_root_schema_for::<T>().to_value()
}

/// Whether any of the diagnostics is an error.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|d| d.level == Level::Error)
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
