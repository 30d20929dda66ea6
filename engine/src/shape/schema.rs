//! Reading schemas: references put in, and what each keyword says.

use std::borrow::Cow;

use serde_json::Value;

use super::{Checker, Object};
use crate::yaml::{Kind, Node};

impl Checker<'_> {
    /// The schema with `$ref` and `allOf` put in.
    pub(super) fn resolved<'s>(&'s self, schema: &'s Value) -> Cow<'s, Object> {
        self.resolved_within(schema, MOST_REFERENCES)
    }

    /// `depth` ends references that go in a circle.
    fn resolved_within<'s>(&'s self, schema: &'s Value, depth: usize) -> Cow<'s, Object> {
        let object = object_of(schema);
        if depth == 0 || !(object.contains_key("$ref") || object.contains_key("allOf")) {
            return Cow::Borrowed(object);
        }
        let mut resolved = object.clone();
        let reference = resolved.remove("$ref");
        let all = resolved.remove("allOf");
        let target = reference.as_ref().and_then(Value::as_str).and_then(|reference| self.target(reference));
        let parts = all.as_ref().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for part in target.into_iter().chain(parts) {
            merge(&mut resolved, &self.resolved_within(part, depth - 1));
        }
        Cow::Owned(resolved)
    }

    fn target(&self, reference: &str) -> Option<&Value> {
        self.root.pointer(reference.strip_prefix('#')?)
    }
}

/// How many references are followed one after the other: a schema may refer to itself.
const MOST_REFERENCES: usize = 16;
/// How deep branches in branches are looked at, for the same reason; what lies deeper passes.
pub(super) const MOST_NESTED: usize = 4;

/// The keys of a mapping that its schema does not name.
#[derive(Clone, Copy)]
pub(super) enum Others<'s> {
    Anything,
    Are(&'s Value),
    Forbidden,
}

pub(super) fn others(schema: &Object) -> Others<'_> {
    // A map with keys that are numbers comes as a pattern; whether a key fits is left to deserialisation.
    if let Some(patterns) = schema.get("patternProperties").and_then(Value::as_object)
        && let Some(value) = patterns.values().next()
    {
        return Others::Are(value);
    }
    match schema.get("additionalProperties").or_else(|| schema.get("unevaluatedProperties")) {
        Some(Value::Bool(false)) => Others::Forbidden,
        Some(value @ Value::Object(_)) => Others::Are(value),
        _ => Others::Anything,
    }
}

pub(super) fn branches(schema: &Object) -> Option<&Vec<Value>> {
    schema.get("anyOf").or_else(|| schema.get("oneOf"))?.as_array()
}

pub(super) fn allowed_values(schema: &Object) -> Option<Vec<&Value>> {
    match (schema.get("enum"), schema.get("const")) {
        (Some(Value::Array(values)), _) => Some(values.iter().collect()),
        (_, Some(value)) => Some(vec![value]),
        _ => None,
    }
}

pub(super) fn required(schema: &Object) -> impl Iterator<Item = &str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// The JSON types that a schema allows; none where it does not say.
pub(super) fn types(schema: &Object) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ if schema.contains_key("properties") => vec!["object"],
        _ => Vec::new(),
    }
}

pub(super) fn fits(node: &Node, type_name: &str) -> bool {
    match (&node.kind, type_name) {
        (Kind::Int(_), name) => matches!(name, "integer" | "number"),
        (Kind::Null, name) => name == "null",
        (Kind::Bool(_), name) => name == "boolean",
        (Kind::Float(_), name) => name == "number",
        (Kind::Text(_), name) => name == "string",
        (Kind::List(_), name) => name == "array",
        (Kind::Map(_), name) => name == "object",
    }
}

pub(super) fn equals(node: &Node, value: &Value) -> bool {
    match &node.kind {
        Kind::Null => value.is_null(),
        Kind::Bool(it) => value.as_bool() == Some(*it),
        Kind::Int(it) => value.as_i64() == Some(*it),
        Kind::Float(it) => value.as_f64() == Some(*it),
        Kind::Text(it) => value.as_str() == Some(it),
        Kind::List(_) | Kind::Map(_) => false,
    }
}

pub(super) fn is_null(schema: &Object) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("null")
}

/// Nobody who writes a value means the branch that is nothing.
pub(super) fn node_may_be(node: &Node, branch: &Object) -> bool {
    node.kind == Kind::Null || !is_null(branch)
}

pub(super) fn item_counts(schema: &Object) -> (usize, Option<usize>) {
    let count = |name| schema.get(name).and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
    (count("minItems").unwrap_or(0), count("maxItems"))
}

pub(super) fn object_of(schema: &Value) -> &Object {
    // `true` lets everything pass, as the empty schema does.
    static EVERYTHING: std::sync::LazyLock<Object> = std::sync::LazyLock::new(Object::new);
    schema.as_object().unwrap_or(&EVERYTHING)
}

/// Puts into a schema what another one says too: more keys, more required keys, and what it leaves open.
pub(super) fn merge(into: &mut Object, from: &Object) {
    for (keyword, value) in from {
        match (into.get_mut(keyword), value) {
            (Some(Value::Object(into)), Value::Object(from)) if keyword == "properties" => {
                for (name, schema) in from {
                    into.entry(name.clone()).or_insert_with(|| schema.clone());
                }
            }
            (Some(Value::Array(into)), Value::Array(from)) if keyword == "required" => {
                let new: Vec<Value> = from.iter().filter(|name| !into.contains(name)).cloned().collect();
                into.extend(new);
            }
            (Some(_), _) => {}
            (None, _) => {
                into.insert(keyword.clone(), value.clone());
            }
        }
    }
}
