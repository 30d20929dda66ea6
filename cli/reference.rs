//! What is known of an operator: from its type the parameters, from its example the ports and columns.

use std::collections::BTreeMap;
use std::path::Path;

use argent_engine::diagnostic::Sources;
use argent_engine::operator::{FILES, Port};
use argent_engine::pipeline::{Node, Pipeline, TableShape};
use argent_engine::spec::{self, Given};
use argent_engine::{Entry, Kind, StaticAnswers, check, column, table, yaml};
use argent_operators::columns::meaning;
use arrow::datatypes::{Field, Schema};
use serde::Serialize;

use crate::parameters::{Parameter, parameters};
use crate::shipped;

/// All that a reference page says.
#[derive(Debug, Serialize)]
pub(crate) struct Reference {
    /// The operator.
    pub(crate) name: &'static str,
    /// Its revision, which enters the key.
    pub(crate) revision: u32,
    /// The port whose rows are made one by one; none where the table is made as a whole.
    pub(crate) row_port: Option<&'static str>,
    /// What it does.
    pub(crate) doc: String,
    /// The tables that it reads.
    pub(crate) ports: Vec<PortPage>,
    /// Its parameters, nested ones behind those that hold them.
    pub(crate) parameters: Vec<Parameter>,
    /// The tables that it makes, as its example makes them.
    pub(crate) outputs: Vec<OutputPage>,
    /// What decides the result beside the parameters, a sentence each.
    pub(crate) key: Vec<String>,
    /// The smallest pipeline that shows it.
    pub(crate) example: &'static str,
}

/// A table that the operator reads.
#[derive(Debug, Serialize)]
pub(crate) struct PortPage {
    /// The name under `from`; empty where any name will do.
    pub(crate) name: &'static str,
    /// What the table must hold.
    pub(crate) doc: &'static str,
    /// Whether it may be left out.
    pub(crate) optional: bool,
    /// The columns that it must have.
    pub(crate) columns: Vec<ColumnPage>,
}

/// A table that the operator makes.
#[derive(Debug, Serialize)]
pub(crate) struct OutputPage {
    /// Behind the step's name and a point; empty for the main one.
    pub(crate) name: String,
    /// The columns that name a row; none where all of them do.
    pub(crate) keys: Vec<String>,
    /// In the table's order.
    pub(crate) columns: Vec<ColumnPage>,
}

/// A column.
#[derive(Debug, Serialize)]
pub(crate) struct ColumnPage {
    /// Its name.
    pub(crate) name: String,
    /// Its type in words.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// What it is beyond its type: `id`, `phi`, `file`, `source`, `section`.
    pub(crate) roles: Vec<String>,
    /// The unit of its numbers; empty where they have none.
    pub(crate) unit: &'static str,
    /// What it holds; empty where the pipeline names it.
    pub(crate) doc: &'static str,
    /// Whether it comes with the rows of the row port, unread.
    pub(crate) carried: bool,
}

impl Reference {
    /// The reference of an operator. `examples` is a folder that the shipped examples were unpacked to.
    ///
    /// # Errors
    /// When its example is missing or wrong.
    pub(crate) fn of(entry: &Entry, examples: &Path) -> anyhow::Result<Reference> {
        let pipeline = example(entry, examples)?;
        let node = pipeline.nodes.iter().find(|node| node.operator_name == entry.name);
        let node = node.ok_or_else(|| anyhow::anyhow!("the example of `{}` does not use it", entry.name))?;
        let parameters = parameters(entry.schema());
        Ok(Reference {
            name: entry.name,
            revision: entry.revision,
            row_port: row_port(entry.kind),
            doc: entry.schema()["description"].as_str().unwrap_or_default().to_owned(),
            ports: node.operator.ports().iter().map(|port| port_page(port, node, &pipeline)).collect(),
            outputs: node.outputs.iter().map(|(name, shape)| output_page(name, shape, node)).collect(),
            key: key(node, &parameters),
            parameters,
            example: shipped::example(entry.name)?,
        })
    }

    /// The first sentence of what it does.
    pub(crate) fn summary(&self) -> String {
        first_sentence(&self.doc)
    }
}

/// The first sentence of a text, without its period.
pub(crate) fn first_sentence(text: &str) -> String {
    let text = text.replace('\n', " ");
    text.split(". ").next().unwrap_or_default().trim_end_matches('.').to_owned()
}

/// An operator's example, checked. Contracts are left out: they are no part of what an operator makes. So are
/// predicates where SQL was left out of the program: no column depends on them.
fn example(entry: &Entry, examples: &Path) -> anyhow::Result<Pipeline> {
    let path = shipped::example_path(examples, entry.name);
    let mut sources = Sources::default();
    let (spec, mut mistakes) = spec::read(&path, &Given::default(), &mut sources);
    if let Some(mut spec) = spec {
        for step in &mut spec.steps {
            step.expect.clear();
            if let (false, yaml::Kind::Map(entries)) = (cfg!(feature = "sql"), &mut step.with.kind) {
                entries.retain(|entry| entry.key != "fixed");
            }
        }
        let (pipeline, more) =
            check::check(&spec, &argent_operators::registry(), StaticAnswers::default(), &mut sources);
        mistakes.extend(more);
        if let Some(pipeline) = pipeline {
            return Ok(pipeline);
        }
    }
    let said = mistakes.first().map_or("it does not read", |mistake| mistake.message.as_str());
    anyhow::bail!("the example of `{}` is wrong: {said}", entry.name)
}

fn row_port(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Row(port) => Some(port),
        // The page's example fills the first one; the operator's words name the others.
        Kind::OneOf(ports) => ports.first().copied(),
        Kind::Table => None,
    }
}

fn port_page(port: &Port, node: &Node, pipeline: &Pipeline) -> PortPage {
    let filled = node.inputs.iter().find(|input| input.port == port.name);
    let schema = match filled {
        Some(input) => pipeline.nodes[input.node].outputs[&input.output].schema.clone(),
        None => table::files_schema(),
    };
    let fields = port.columns.iter().filter_map(|needed| schema.field_with_name(needed.name).ok());
    let columns = fields.map(|field| column_page(field, "", false)).collect();
    PortPage { name: port.name, doc: port.doc, optional: port.optional, columns }
}

fn output_page(name: &str, shape: &TableShape, node: &Node) -> OutputPage {
    let schema: &Schema = &shape.schema;
    let own = node.signature.outputs.get(name).map(|output| &output.schema);
    let is_carried =
        |field: &Field| name != "errors" && own.is_some_and(|own| own.field_with_name(field.name()).is_err());
    // The engine makes the table of errors, whatever the operator.
    let maker = if name == "errors" { "" } else { node.operator_name };
    let columns = schema.fields().iter().map(|field| column_page(field, maker, is_carried(field))).collect();
    OutputPage { name: name.to_owned(), keys: shape.keys.clone(), columns }
}

fn column_page(field: &Field, maker: &str, carried: bool) -> ColumnPage {
    let meaning = meaning(maker, field.name());
    let roles = ["id", "phi", "file", "source", "section"];
    ColumnPage {
        name: field.name().clone(),
        kind: column::type_name(field.data_type()),
        roles: roles.into_iter().filter(|role| column::has_role(field, role)).map(str::to_owned).collect(),
        unit: meaning.map_or("", |meaning| meaning.unit),
        doc: meaning.map_or("", |meaning| meaning.doc),
        carried,
    }
}

/// What enters the key.
fn key(node: &Node, parameters: &[Parameter]) -> Vec<String> {
    let mut all = vec![format!("The operator `{}` and its revision, {}.", node.operator_name, node.revision)];
    if parameters.iter().any(|parameter| parameter.not_in_key.is_some()) {
        all.push("Its parameters, defaults filled in, but for those that say why not.".to_owned());
    } else if !parameters.is_empty() {
        all.push("Its parameters, defaults filled in.".to_owned());
    }
    for parameter in node.files.keys() {
        all.push(format!("What `{parameter}` says, as far as it decides the result."));
    }
    for (port, columns) in &node.signature.reads {
        let rows = if row_port(node.kind) == Some(port) { ", row by row" } else { "" };
        let columns: Vec<String> = columns.iter().map(|column| format!("`{column}`")).collect();
        let what = if port == FILES { "the files".to_owned() } else { format!("`{port}`") };
        all.push(format!("Of {what}{rows}: the values of {}.", columns.join(", ")));
    }
    all
}

/// Every operator's reference, in the order of the documentation.
///
/// # Errors
/// When an example is missing or wrong.
pub(crate) fn all() -> anyhow::Result<Vec<Reference>> {
    let folder = tempfile::tempdir()?;
    shipped::unpack(folder.path())?;
    argent_operators::registry().entries().iter().map(|entry| Reference::of(entry, folder.path())).collect()
}

/// By operator: its ports.
///
/// # Errors
/// When an example is missing or wrong.
pub(crate) fn ports() -> anyhow::Result<BTreeMap<String, Vec<Port>>> {
    let folder = tempfile::tempdir()?;
    shipped::unpack(folder.path())?;
    let mut ports = BTreeMap::new();
    for entry in argent_operators::registry().entries() {
        let pipeline = example(entry, folder.path())?;
        let node = pipeline.nodes.iter().find(|node| node.operator_name == entry.name);
        ports.extend(node.map(|node| (entry.name.to_owned(), node.operator.ports())));
    }
    Ok(ports)
}

/// One operator's reference.
///
/// # Errors
/// When its example is missing or wrong.
pub(crate) fn one(entry: &Entry) -> anyhow::Result<Reference> {
    let folder = tempfile::tempdir()?;
    shipped::unpack(folder.path())?;
    Reference::of(entry, folder.path())
}

#[cfg(test)]
mod tests {
    use argent_operators::columns::NAMED_BY_PIPELINES;

    use super::*;

    /// Columns of the examples that the pipelines name: sections of reports, and what is kept of them.
    const NAMED_BY_EXAMPLES: [&str; 3] = ["accession", "impression", "projection"];

    #[test]
    fn every_column_that_an_operator_names_has_a_meaning() {
        let mut without = Vec::new();
        for reference in all().unwrap() {
            if NAMED_BY_PIPELINES.contains(&reference.name) {
                continue;
            }
            for column in reference.outputs.iter().flat_map(|output| &output.columns) {
                if column.doc.is_empty() && !NAMED_BY_EXAMPLES.contains(&column.name.as_str()) {
                    without.push(format!("{}: {}", reference.name, column.name));
                }
            }
        }
        assert!(without.is_empty(), "say what they mean in operators/src/columns.rs: {without:?}");
    }
}
