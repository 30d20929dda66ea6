//! `argent check`.

use std::io::IsTerminal;
use std::process::ExitCode;

use argent_engine::pipeline::{Node, TableShape};
use argent_engine::{Pipeline, column};
use arrow::datatypes::FieldRef;
use serde_json::{Value, json};

use crate::args::{Arguments, CheckArguments};
use crate::render::render;
use crate::session::{Checked, WRONG, checked, existing_store};
use crate::table::{aligned, count};

/// Finds every mistake of a pipeline.
pub(crate) fn check(arguments: &Arguments, check: &CheckArguments) -> anyhow::Result<ExitCode> {
    // What a store remembers makes checking faster, and says nothing else.
    let store = existing_store(arguments, Some(&check.spec.spec)).ok();
    let Checked { pipeline, diagnostics, sources } = checked(&check.spec, store.as_ref());
    if check.json {
        let found: Vec<_> = diagnostics.iter().map(|d| d.located(&sources)).collect();
        let mut answer = json!({ "ok": pipeline.is_some(), "diagnostics": found });
        if let Some(pipeline) = pipeline.as_ref().filter(|_| check.types) {
            answer["types"] = types_json(pipeline);
        }
        println!("{answer}");
    } else if !diagnostics.is_empty() {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        eprintln!("{}", render(&diagnostics, &sources, colour));
    }
    let Some(pipeline) = pipeline else { return Ok(ExitCode::from(WRONG)) };
    if let Some(store) = &store {
        pipeline.statics.keep(store, &pipeline.name)?;
    }
    if check.types && !check.json {
        print!("{}", types(&pipeline));
    } else if !check.json {
        let steps = pipeline.nodes.iter().filter(|n| n.contract.is_none()).count();
        eprintln!("{}: {}, nothing wrong", pipeline.name, count(steps as u64, "step"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The tables of every step: step, operator, output, shape.
fn tables(pipeline: &Pipeline) -> impl Iterator<Item = (&Node, &String, &TableShape)> {
    pipeline.steps().flat_map(|node| node.outputs.iter().map(move |(output, shape)| (node, output, shape)))
}

/// The columns of every table of every step, as text.
fn types(pipeline: &Pipeline) -> String {
    let mut text = String::new();
    for (node, output, shape) in tables(pipeline) {
        let name = if output.is_empty() { node.name.clone() } else { format!("{}.{output}", node.name) };
        let yes = |is: bool, word: &str| if is { word.to_owned() } else { String::new() };
        let row = |field: &FieldRef| {
            vec![
                field.name().clone(),
                column::type_name(field.data_type()),
                yes(shape.keys.contains(field.name()), "key"),
                column::roles(field).join(", "),
                yes(!field.is_nullable(), "not null"),
                column::unit(field.name()).unwrap_or_default().to_owned(),
            ]
        };
        let rows: Vec<Vec<String>> = shape.schema.fields().iter().map(row).collect();
        text.push_str(&format!("{name} ({})\n", node.operator_name));
        for line in aligned(&["column", "type", "key", "role", "null", "unit"], &rows).lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text
}

/// The same for machines.
fn types_json(pipeline: &Pipeline) -> Value {
    let all = tables(pipeline).map(|(node, output, shape)| {
        let column = |field: &FieldRef| {
            json!({
                "name": field.name(),
                "type": column::type_name(field.data_type()),
                "key": shape.keys.contains(field.name()),
                "roles": column::roles(field),
                "nullable": field.is_nullable(),
                "unit": column::unit(field.name()),
            })
        };
        let columns: Vec<Value> = shape.schema.fields().iter().map(column).collect();
        json!({
            "step": node.name,
            "use": node.operator_name,
            "output": output,
            "keys": shape.keys,
            "columns": columns,
        })
    });
    all.collect()
}
