//! `argent ops`.

use std::process::ExitCode;

use argent_engine::Kind;
use argent_engine::operator::{Entry, NOT_IN_KEY, nearest};
use serde_json::{Value, json};

use crate::args::OpsArguments;
use crate::session::WRONG;
use crate::table::aligned;

/// Lists the operators, or shows one.
pub(crate) fn ops(wanted: &OpsArguments) -> anyhow::Result<ExitCode> {
    let registry = argent_operators::registry();
    let Some(name) = &wanted.name else {
        if wanted.json {
            let all: Vec<Value> = registry.entries().iter().map(described).collect();
            println!("{}", json!(all));
        } else {
            let rows: Vec<Vec<String>> = registry
                .entries()
                .iter()
                .map(|e| vec![e.name.to_owned(), first_sentence(e.schema())])
                .collect();
            print!("{}", aligned(&["operator", "what it does"], &rows));
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(entry) = registry.get(name) else {
        let names: Vec<&str> = registry.entries().iter().map(|e| e.name).collect();
        eprintln!("error: there is no operator `{name}`; {}", nearest(name, &names, "operators"));
        return Ok(ExitCode::from(WRONG));
    };
    match wanted.json {
        true => println!("{}", described(entry)),
        false => print!("{}", page(entry)),
    }
    Ok(ExitCode::SUCCESS)
}

fn described(entry: &Entry) -> Value {
    let per_row = matches!(entry.kind, Kind::Row(_));
    json!({ "name": entry.name, "revision": entry.revision, "per_row": per_row, "parameters": entry.schema() })
}

fn page(entry: &Entry) -> String {
    let schema = entry.schema();
    let mut text = format!("{}\n\n{}\n", entry.name, schema["description"].as_str().unwrap_or_default());
    if let Kind::Row(port) = entry.kind {
        text.push_str(&format!("\nRow by row: only rows of `{port}` that are new or changed are made.\n"));
    }
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let need = match (required.contains(&name.as_str()), property.get("default")) {
            (true, _) => "required".to_owned(),
            (false, Some(default)) => format!("default {default}"),
            (false, None) => "optional".to_owned(),
        };
        text.push_str(&format!("\n  {name} ({need})\n"));
        text.push_str(&format!("      {}\n", description(property, schema)));
        if let Some(reason) = property.get(NOT_IN_KEY).and_then(Value::as_str) {
            text.push_str(&format!("      not in the key: {reason}\n"));
        }
    }
    text
}

fn description(property: &Value, root: &Value) -> String {
    let own = property["description"].as_str();
    let referred = property["$ref"].as_str().and_then(|r| root.pointer(r.trim_start_matches('#')));
    own.or(referred.and_then(|r| r["description"].as_str())).unwrap_or_default().replace('\n', " ")
}

fn first_sentence(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
    text.split(". ").next().unwrap_or_default().trim_end_matches('.').to_owned()
}
