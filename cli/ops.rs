//! `argent ops`.

use std::process::ExitCode;

use argent_engine::Entry;
use argent_engine::operator::nearest;
use serde_json::{Value, json};

use crate::args::OpsArguments;
use crate::markdown;
use crate::parameters::Parameter;
use crate::reference::{self, ColumnPage, OutputPage, PortPage, Reference, first_sentence};
use crate::session::WRONG;
use crate::table::aligned;

/// Lists the operators, or shows one.
pub(crate) fn ops(wanted: &OpsArguments) -> anyhow::Result<ExitCode> {
    let registry = argent_operators::registry();
    let Some(name) = &wanted.name else {
        match (wanted.json, wanted.markdown) {
            (true, _) => println!("{}", json!(all_described()?)),
            (_, true) => print!("{}", markdown::operators(&reference::all()?)),
            _ => print!("{}", list(registry.entries())),
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(entry) = registry.get(name) else {
        let names: Vec<&str> = registry.entries().iter().map(|e| e.name).collect();
        eprintln!("error: there is no operator `{name}`; {}", nearest(name, &names, "operators"));
        return Ok(ExitCode::from(WRONG));
    };
    let reference = reference::one(entry)?;
    match (wanted.json, wanted.markdown) {
        (true, _) => println!("{}", described(entry, &reference)),
        (_, true) => print!("{}", markdown::operator(&reference)),
        _ => print!("{}", page(&reference)),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(entries: &[Entry]) -> String {
    let doc = |entry: &Entry| first_sentence(entry.schema()["description"].as_str().unwrap_or_default());
    let rows: Vec<Vec<String>> = entries.iter().map(|e| vec![e.name.to_owned(), doc(e)]).collect();
    aligned(&["operator", "what it does"], &rows)
}

fn all_described() -> anyhow::Result<Vec<Value>> {
    let registry = argent_operators::registry();
    let references = reference::all()?;
    Ok(registry.entries().iter().zip(&references).map(|(entry, page)| described(entry, page)).collect())
}

/// An operator for programs: `parameters` is the JSON Schema.
fn described(entry: &Entry, reference: &Reference) -> Value {
    json!({
        "name": reference.name,
        "revision": reference.revision,
        "per_row": reference.row_port.is_some(),
        "row_port": reference.row_port,
        "doc": reference.doc,
        "ports": reference.ports,
        "parameters": entry.schema(),
        "outputs": reference.outputs,
        "key": reference.key,
        "example": reference.example,
    })
}

/// An operator for people at a terminal.
fn page(reference: &Reference) -> String {
    let mut text = format!("{}\n\n{}\n", reference.name, reference.doc);
    if let Some(port) = reference.row_port {
        text.push_str(&format!("\nRow by row: only rows of `{port}` that are new or changed are made.\n"));
    }
    text.push_str("\nreads\n");
    if reference.ports.is_empty() {
        text.push_str("  no table\n");
    }
    reference.ports.iter().for_each(|port| text.push_str(&port_text(port)));
    if !reference.parameters.is_empty() {
        text.push_str("\nparameters\n");
    }
    reference.parameters.iter().for_each(|parameter| text.push_str(&parameter_text(parameter)));
    text.push_str("\nmakes\n");
    reference.outputs.iter().for_each(|output| text.push_str(&output_text(output)));
    text.push_str("\nwhat enters the key\n");
    reference.key.iter().for_each(|line| text.push_str(&format!("  - {line}\n")));
    text.push_str("\nexample\n");
    for line in reference.example.lines() {
        text.push_str(format!("  {line}").trim_end());
        text.push('\n');
    }
    text
}

fn port_text(port: &PortPage) -> String {
    let name = if port.name.is_empty() { "any name" } else { port.name };
    let need = if port.optional { "optional" } else { "required" };
    format!("  {name} ({need})\n      {}\n{}", port.doc, columns_text(&port.columns))
}

fn parameter_text(parameter: &Parameter) -> String {
    let bounds = if parameter.bounds.is_empty() { String::new() } else { format!(", {}", parameter.bounds) };
    let mut text = format!("  {} ({}{bounds}; {})\n", parameter.path, parameter.kind, parameter.need());
    if !parameter.doc.is_empty() {
        text.push_str(&format!("      {}\n", parameter.doc));
    }
    for (value, doc) in parameter.values.iter().filter(|(_, doc)| !doc.is_empty()) {
        text.push_str(&format!("      {value}: {doc}\n"));
    }
    if let Some(reason) = &parameter.not_in_key {
        text.push_str(&format!("      not in the key: {reason}\n"));
    }
    text
}

fn output_text(output: &OutputPage) -> String {
    let name = if output.name.is_empty() { "the step's table" } else { &output.name };
    let keys = match output.keys.as_slice() {
        [] => String::new(),
        keys => format!(", a row per {}", keys.join(", ")),
    };
    format!("  {name}{keys}\n{}", columns_text(&output.columns))
}

fn columns_text(columns: &[ColumnPage]) -> String {
    let row = |column: &ColumnPage| {
        let unit = if column.unit.is_empty() { String::new() } else { format!(", {}", column.unit) };
        let doc = if column.carried { "Carried along." } else { column.doc };
        vec![column.name.clone(), format!("{}{unit}", column.kind), column.roles.join(" "), doc.to_owned()]
    };
    let rows: Vec<Vec<String>> = columns.iter().map(row).collect();
    let table = aligned(&["", "", "", ""], &rows);
    table.lines().skip(1).map(|line| format!("      {line}\n")).collect()
}
