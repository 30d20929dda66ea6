//! An operator's parameters as its JSON Schema tells them, one after the other, nested ones behind those that hold
//! them.

use argent_engine::operator::NOT_IN_KEY;
use argent_engine::shape::in_words;
use serde::Serialize;
use serde_json::Value;

/// One parameter.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Parameter {
    /// The keys to it: `endpoint.base_url`; `[]` stands for each item of a list, `*` for each key of a mapping.
    pub(crate) path: String,
    /// Its type in words.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The bounds of a number in words; empty where there are none.
    pub(crate) bounds: String,
    /// Whether a step must give it.
    pub(crate) required: bool,
    /// Its value where a step does not; none where that has no value of its own.
    pub(crate) default: Option<Value>,
    /// What it is for.
    pub(crate) doc: String,
    /// The words that it may be, with what they mean.
    pub(crate) values: Vec<(String, String)>,
    /// Why it does not enter the key; none where it does.
    pub(crate) not_in_key: Option<String>,
}

impl Parameter {
    /// `required`, `optional`, or the default.
    pub(crate) fn need(&self) -> String {
        match (&self.default, self.required) {
            (_, true) => "required".to_owned(),
            (Some(value), false) => format!("default {}", as_yaml(value)),
            (None, false) => "optional".to_owned(),
        }
    }
}

/// The parameters of a schema.
pub(crate) fn parameters(schema: &Value) -> Vec<Parameter> {
    let mut all = Vec::new();
    Walk { root: schema }.fields(schema, "", &mut all);
    all
}

/// A value as it is written in YAML, on one line.
fn as_yaml(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(as_yaml).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) if fields.is_empty() => "{}".to_owned(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}: {}", as_yaml(value)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

struct Walk<'a> {
    root: &'a Value,
}

impl Walk<'_> {
    fn fields(&self, schema: &Value, prefix: &str, all: &mut Vec<Parameter>) {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let resolved = self.resolved(property);
            let path = format!("{prefix}{name}");
            all.push(Parameter {
                kind: in_words(property, self.root),
                bounds: bounds(&resolved),
                required: required.contains(&name.as_str()),
                default: resolved.get("default").filter(|value| !value.is_null()).cloned(),
                doc: one_line(&resolved["description"]),
                values: self.values(&resolved),
                not_in_key: resolved.get(NOT_IN_KEY).and_then(Value::as_str).map(str::to_owned),
                path: path.clone(),
            });
            self.inner(&resolved, &path, all);
        }
    }

    /// The parameters inside a value.
    fn inner(&self, schema: &Value, path: &str, all: &mut Vec<Parameter>) {
        if schema.get("properties").is_some() {
            self.fields(schema, &format!("{path}."), all);
        }
        if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
            self.inner(&self.resolved(items), &format!("{path}[]"), all);
        }
        if let Some(inner) = schema.get("additionalProperties").filter(|inner| inner.is_object()) {
            self.inner(&self.resolved(inner), &format!("{path}.*"), all);
        }
        for branch in branches(schema) {
            self.inner(&self.resolved(branch), path, all);
        }
    }

    /// The words that a value may be, where each has its meaning.
    fn values(&self, schema: &Value) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for branch in branches(schema) {
            let branch = self.resolved(branch);
            match branch.get("const").and_then(Value::as_str) {
                Some(word) => all.push((word.to_owned(), one_line(&branch["description"]))),
                None => all.extend(self.values(&branch)),
            }
        }
        for item in schema.get("items").into_iter().chain(schema.get("additionalProperties")) {
            if item.is_object() {
                all.extend(self.values(&self.resolved(item)));
            }
        }
        all
    }

    /// The schema with its reference put in; what stands beside the reference counts more.
    fn resolved(&self, schema: &Value) -> Value {
        let target = schema.get("$ref").and_then(Value::as_str);
        let target = target.and_then(|target| self.root.pointer(target.trim_start_matches('#')));
        let Some(target) = target else { return schema.clone() };
        let mut resolved = self.resolved(target);
        for (keyword, value) in schema.as_object().into_iter().flatten().filter(|(key, _)| *key != "$ref") {
            resolved[keyword] = value.clone();
        }
        resolved
    }
}

fn branches(schema: &Value) -> impl Iterator<Item = &Value> {
    ["anyOf", "oneOf"].into_iter().filter_map(|keyword| schema.get(keyword)?.as_array()).flatten()
}

fn bounds(schema: &Value) -> String {
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
    // What a Rust type cannot hold, such as a negative count, is no bound that a reader asks for.
    let low = bound("minimum").filter(|low| *low != 0.0 || bound("maximum").is_some());
    match (low, bound("maximum")) {
        (Some(low), Some(high)) if high < f64::from(u32::MAX) => format!("{low} to {high}"),
        (Some(low), _) => format!("at least {low}"),
        (None, Some(high)) if high < f64::from(u16::MAX) => format!("at most {high}"),
        _ => String::new(),
    }
}

fn one_line(text: &Value) -> String {
    text.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nested_parameters_follow_those_that_hold_them() {
        let schema = json!({
            "required": ["endpoint"],
            "properties": {
                "endpoint": { "$ref": "#/$defs/Endpoint", "description": "The\nserver." },
                "n": { "type": "integer", "minimum": 1, "maximum": 9, "default": 2, "x-not-in-key": "because" },
                "mode": { "oneOf": [{ "const": "a", "description": "One." }, { "const": "b" }] },
            },
            "$defs": { "Endpoint": { "type": "object", "properties": { "url": { "type": "string" } } } },
        });
        let found: Vec<String> = parameters(&schema)
            .iter()
            .map(|p| format!("{}|{}|{}|{}|{}|{:?}", p.path, p.kind, p.bounds, p.need(), p.doc, p.values))
            .collect();
        assert_eq!(
            found,
            [
                "endpoint|a mapping||required|The server.|[]",
                "endpoint.url|text||optional||[]",
                "n|a whole number|1 to 9|default 2||[]",
                "mode|`a` or `b`||optional||[(\"a\", \"One.\"), (\"b\", \"\")]",
            ]
        );
        assert_eq!(parameters(&schema)[2].not_in_key.as_deref(), Some("because"));
    }
}
