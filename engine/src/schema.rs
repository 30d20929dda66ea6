//! The JSON Schema of pipelines, for editors: a spec's own keys, and behind `use` each operator's ports and
//! parameters.
//!
//! It says of the text what [`check`](crate::check) says of the values: a text that is one `${…}` may stand
//! wherever a value of another type is expected, because what it names is put in before anything is checked.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::operator::{Entry, Port, Registry};
use crate::pools::NEEDS;
use crate::spec::spec_schema;

/// Where the schema of `${…}` stands.
const REFERENCE: &str = "reference";

/// What a pipeline's and a step's name look like.
const NAME: &str = "^[A-Za-z][A-Za-z0-9_-]*$";

/// What `rerun` compares: a share from 0 to 1, in any way of writing a number.
const CONDITION: &str =
    "^\\s*changed_rows\\s*>=?\\s*\\+?(0?\\.[0-9]+|[01]\\.?|[01]\\.0+|[0-9.]+[eE]-[0-9]+)\\s*$";

/// The JSON Schema of a spec file with each operator's parameters: `with` is checked against the operator that
/// `use` names, and so is `from` where `ports` tells the operator's ports.
pub fn full_schema(registry: &Registry, ports: &BTreeMap<String, Vec<Port>>) -> Value {
    let mut schema = spec_schema();
    // Editors call every nameless mapping by the title of the whole.
    schema.as_object_mut().map(|fields| fields.remove("title"));
    schema["properties"]["argent"]["const"] = json!(1);
    schema["properties"]["name"]["pattern"] = json!(NAME);
    schema["properties"]["params"]["additionalProperties"] = param();
    schema["properties"]["steps"]["propertyNames"] = json!({ "pattern": NAME });
    schema["$defs"][REFERENCE] = json!({
        "type": "string",
        "pattern": "^\\$\\{[^{}]+\\}$",
        "$comment": "A value that is put in, such as `${params.seed}`; it keeps its type.",
    });
    let mut cases = Vec::new();
    for entry in registry.entries() {
        add_parameters(entry, &mut schema["$defs"]);
        cases.push(case(entry, ports.get(entry.name)));
    }
    let names: Vec<&str> = registry.entries().iter().map(|entry| entry.name).collect();
    let docs: Vec<String> = registry.entries().iter().map(summary).collect();
    let step = &mut schema["$defs"]["StepShape"];
    step["allOf"] = json!(cases);
    let keys = &mut step["properties"];
    keys["use"]["enum"] = json!(names);
    // Not of the standard: editors show it beside each word.
    keys["use"]["markdownEnumDescriptions"] = json!(docs);
    keys["from"]["anyOf"] = json!([table(), tables()]);
    keys["expect"]["items"] = contract();
    keys["matrix"]["additionalProperties"] = axis();
    keys["matrix"]["propertyNames"] = json!({ "pattern": NAME });
    keys["needs"] = needs(&keys["needs"]);
    schema["$defs"]["RerunShape"]["properties"]["if"]["pattern"] = json!(CONDITION);
    schema
}

/// One param: a value, or a mapping that says more of it.
fn param() -> Value {
    let value_types = json!(["string", "number", "boolean", "array"]);
    let properties = json!({
        "type": {
            "enum": ["text", "path", "url", "int", "number", "bool", "list"],
            "description": "What values from the command line and the environment are read as; left out, the default's type.",
        },
        "default": {
            "type": value_types,
            "description": "The value where neither the command line nor the environment gives one.",
        },
        "env": { "type": "string", "description": "The environment variable that may give the value." },
        "doc": { "type": "string", "description": "What the param is for." },
    });
    let value = json!({ "type": value_types, "description": "The default, whose type is the param's." });
    json!({ "anyOf": [value, { "type": "object", "additionalProperties": false, "properties": properties }] })
}

/// The first sentence of what an operator does, on one line.
fn summary(entry: &Entry) -> String {
    let text = entry.schema()["description"].as_str().unwrap_or_default().replace('\n', " ");
    format!("{}.", text.split(". ").next().unwrap_or_default().trim_end_matches('.'))
}

fn table() -> Value {
    json!({ "type": "string", "description": "A step's name, or `step.output` for a further output." })
}

fn tables() -> Value {
    json!({ "type": "object", "additionalProperties": table(), "description": "By port: a step's name, or `step.output`." })
}

/// The values of an axis of `matrix`.
fn axis() -> Value {
    let value = json!({ "type": ["string", "number", "boolean"] });
    let values = json!({ "type": "array", "items": value, "minItems": 1, "description": "One step is made for each." });
    or_reference(values, &json!({}))
}

fn contract() -> Value {
    json!({
        "anyOf": [
            { "type": "string", "description": "An SQL predicate over the step's table." },
            {
                "type": "object",
                "additionalProperties": false,
                "required": ["sql"],
                "properties": {
                    "sql": { "type": "string", "description": "An SQL predicate over the step's table." },
                    "level": { "const": "warn", "description": "`warn`: a breach is told of, and stops nothing." },
                },
            },
        ],
    })
}

/// The schema of `needs`, with the names that there are.
fn needs(described: &Value) -> Value {
    let doc = |name: &str| match name {
        "cpu" => "Processors.",
        "gpu" => "GPUs; a step that lacks one fails and never falls back.",
        _ => "Memory in GiB.",
    };
    let count = |name: &str| {
        let whole = json!({ "type": "integer", "minimum": 0, "description": doc(name) });
        (name.to_owned(), or_reference(whole, &json!({})))
    };
    let names: Map<String, Value> = NEEDS.into_iter().map(count).collect();
    json!({
        "description": described["description"],
        "type": "object",
        "additionalProperties": false,
        "properties": names,
    })
}

/// Adds an operator's parameters to the definitions, under its name.
fn add_parameters(entry: &Entry, definitions: &mut Value) {
    let mut parameters = entry.schema().clone();
    let inner = parameters.as_object_mut().and_then(|fields| fields.remove("$defs")).unwrap_or(json!({}));
    parameters.as_object_mut().map(|fields| fields.remove("$schema"));
    let named = |schema: Value| {
        let mut schema = with_references(schema, &inner);
        rename_references(&mut schema, entry.name);
        schema
    };
    for (name, definition) in inner.as_object().into_iter().flatten() {
        let mut definition = named(definition.clone());
        hide_behind_the_whole(&mut definition);
        definitions[format!("{}.{name}", entry.name)] = definition;
    }
    parameters["title"] = json!(entry.name);
    definitions[entry.name] = named(parameters);
}

/// What a step must say when it uses an operator.
fn case(entry: &Entry, ports: Option<&Vec<Port>>) -> Value {
    let mut then = json!({ "properties": { "with": { "$ref": format!("#/$defs/{}", entry.name) } } });
    let mut required = Vec::new();
    if entry.schema()["required"].as_array().is_some_and(|names| !names.is_empty()) {
        required.push("with");
    }
    if let Some(ports) = ports {
        then["properties"]["from"] = from(ports);
        if ports.iter().any(|port| !port.optional) {
            required.push("from");
        }
    }
    then["required"] = json!(required);
    json!({ "if": { "properties": { "use": { "const": entry.name } }, "required": ["use"] }, "then": then })
}

/// What may stand under `from` for these ports.
fn from(ports: &[Port]) -> Value {
    if ports.is_empty() {
        return json!(false);
    }
    let takes_any = ports.iter().any(|port| port.name.is_empty());
    let needed: Vec<&str> = ports.iter().filter(|port| !port.optional).map(|port| port.name).collect();
    let named = ports.iter().filter(|port| !port.name.is_empty());
    let described = |port: &Port| json!({ "type": "string", "description": port.doc });
    let properties: Map<String, Value> = named.map(|port| (port.name.to_owned(), described(port))).collect();
    let mut mapping = json!({ "type": "object", "properties": properties, "required": needed });
    mapping["additionalProperties"] = if takes_any { table() } else { json!(false) };
    match needed.len() {
        0 | 1 => json!({ "anyOf": [table(), mapping] }),
        _ => mapping,
    }
}

/// An operator's schema in which `${…}` may stand for every value but the whole.
fn with_references(mut schema: Value, definitions: &Value) -> Value {
    let Some(fields) = schema.as_object_mut() else { return schema };
    for keyword in ["properties", "$defs"] {
        for field in fields.get_mut(keyword).and_then(Value::as_object_mut).into_iter().flatten() {
            *field.1 = or_reference(with_references(field.1.take(), definitions), definitions);
        }
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(keyword).filter(|inner| inner.is_object()) {
            *inner = or_reference(with_references(inner.take(), definitions), definitions);
        }
    }
    for item in fields.get_mut("prefixItems").and_then(Value::as_array_mut).into_iter().flatten() {
        *item = or_reference(with_references(item.take(), definitions), definitions);
    }
    for keyword in ["anyOf", "oneOf", "allOf"] {
        for branch in fields.get_mut(keyword).and_then(Value::as_array_mut).into_iter().flatten() {
            *branch = with_references(branch.take(), definitions);
            hide_behind_the_whole(branch);
        }
    }
    schema
}

/// Takes the description from a part of a parameter's schema that is no word of its own: editors would show it in
/// place of what the parameter is for.
fn hide_behind_the_whole(part: &mut Value) {
    if part.get("const").is_none() {
        part.as_object_mut().map(|fields| fields.remove("description"));
    }
}

/// The keywords that say what a value is for, not what it may be: editors look for them at the top.
const NOTES: [&str; 3] = ["description", "default", crate::operator::NOT_IN_KEY];

/// A schema that also lets `${…}` pass, unless it does so by itself.
fn or_reference(schema: Value, definitions: &Value) -> Value {
    if takes_any_text(&schema, definitions) {
        return schema;
    }
    let reference = json!({ "$ref": format!("#/$defs/{REFERENCE}") });
    let Value::Object(mut fields) = schema else { return schema };
    let mut outer = Map::new();
    for note in NOTES {
        if let Some(text) = fields.remove(note) {
            outer.insert(note.to_owned(), text);
        }
    }
    let branches = match fields.remove("anyOf") {
        Some(Value::Array(mut branches)) if fields.is_empty() => {
            branches.push(reference);
            branches
        }
        Some(branches) => {
            fields.insert("anyOf".to_owned(), branches);
            vec![Value::Object(fields), reference]
        }
        None => vec![Value::Object(fields), reference],
    };
    outer.insert("anyOf".to_owned(), Value::Array(branches));
    Value::Object(outer)
}

/// Whether any text fits.
fn takes_any_text(schema: &Value, definitions: &Value) -> bool {
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let name = target.trim_start_matches("#/$defs/");
        return definitions.get(name).is_some_and(|target| takes_any_text(target, definitions));
    }
    if let Some(branches) = schema.get("anyOf").or(schema.get("oneOf")).and_then(Value::as_array) {
        return branches.iter().any(|branch| takes_any_text(branch, definitions));
    }
    let is_limited = ["enum", "const", "pattern", "minLength"].iter().any(|word| schema.get(word).is_some());
    let is_text = match schema.get("type") {
        Some(Value::String(name)) => name == "string",
        Some(Value::Array(names)) => names.iter().any(|name| name == "string"),
        _ => schema.is_object(),
    };
    is_text && !is_limited
}

/// Gives an operator's definitions names of their own, so that all fit into one schema.
fn rename_references(value: &mut Value, operator: &str) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match (name.as_str(), &*field) {
                    ("$ref", Value::String(target)) if !target.ends_with(&format!("/{REFERENCE}")) => {
                        *field = json!(target.replace("#/$defs/", &format!("#/$defs/{operator}.")));
                    }
                    _ => rename_references(field, operator),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename_references(item, operator)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_may_stand_for_everything_but_text_which_it_is_already() {
        let reference = json!({ "$ref": "#/$defs/reference" });
        let number = json!({ "type": "number", "description": "How many.", "default": 1.0 });
        let wrapped = or_reference(number, &json!({}));
        assert_eq!(
            wrapped,
            json!({
                "description": "How many.",
                "default": 1.0,
                "anyOf": [{ "type": "number" }, reference],
            })
        );
        let text = json!({ "type": ["string", "null"], "description": "A name." });
        assert_eq!(or_reference(text.clone(), &json!({})), text);
        let one_or_many =
            json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] });
        assert_eq!(or_reference(one_or_many.clone(), &json!({})), one_or_many);
        let word = json!({ "enum": ["a", "b"] });
        assert_eq!(or_reference(word.clone(), &json!({})), json!({ "anyOf": [word, reference] }));
    }
}
