//! Changes the fields of an operator's parameters, as their JSON Schema tells them, and sees whether the key changes.

use std::collections::BTreeSet;

use argent_engine::diagnostic::Sources;
use argent_engine::operator::NOT_IN_KEY;
use argent_engine::{Entry, shape, yaml};
use serde_json::{Map, Value, json};

/// The fields of one operator's parameters, while they are changed one by one.
pub(super) struct Fields<'a> {
    entry: &'a Entry,
    root: Value,
    /// The names of the fields that were changed.
    changed: BTreeSet<String>,
    /// What is wrong with them, a line each.
    wrong: BTreeSet<String>,
}

/// One value in parameters that are right as a whole.
#[derive(Clone)]
struct Place {
    parameters: Value,
    /// Its JSON pointer.
    pointer: String,
    /// Its keys, without places in lists and names in maps: `view.window_hu[]`.
    name: String,
    /// Why it does not enter the key, where it or a field around it is marked so.
    reason: Option<String>,
}

impl Fields<'_> {
    /// Changes each field, starting from each of these parameters, and tells what is wrong, a line each: a field
    /// that is not marked and leaves the key as it was, one that is marked and changes it, a mark without a
    /// reason, and a field of the schema that could not be changed at all.
    pub(super) fn change_each(entry: &Entry, examples: &[Value]) -> BTreeSet<String> {
        let (changed, wrong) = (BTreeSet::new(), BTreeSet::new());
        let mut fields = Fields { entry, root: entry.schema().clone(), changed, wrong };
        if examples.is_empty() {
            fields.wrong.insert(format!("{}: no shipped pipeline uses it", entry.name));
        }
        let schema = fields.root.clone();
        for example in examples {
            let (parameters, none) = (example.clone(), String::new());
            let place = Place { parameters, pointer: none.clone(), name: none, reason: None };
            fields.change(&place, &schema);
        }
        let mut names = BTreeSet::new();
        fields.names(&schema, "", &mut names);
        for name in names.difference(&fields.changed) {
            fields.wrong.insert(format!("{}: `{name}` was never changed", entry.name));
        }
        fields.wrong
    }

    /// Gives a value, and each value inside it, every other form that its schema allows.
    fn change(&mut self, place: &Place, schema: &Value) {
        let schema = self.resolved(schema);
        let mut place = place.clone();
        if let Some(mark) = schema.get(NOT_IN_KEY) {
            place.reason = Some(mark.as_str().unwrap_or("").to_owned());
        }
        if let Some(allowed) = allowed(&schema) {
            return self.change_choice(&place, &allowed);
        }
        if let Some(branches) = branches(&schema) {
            return self.change_branch(&place, branches);
        }
        if place.value().is_null() {
            place = place.with(self.example(&schema));
        }
        if types(&schema).contains(&"null") {
            self.compare(&place, Value::Null);
        }
        match place.value().clone() {
            Value::Object(fields) => self.change_mapping(&place, &fields, &schema),
            Value::Array(items) => self.change_list(&place, &items, &schema),
            value => self.compare(&place, another(&schema, &value)),
        }
    }

    fn change_choice(&mut self, place: &Place, allowed: &[Value]) {
        for value in allowed.iter().filter(|value| *value != place.value()) {
            self.compare(place, value.clone());
        }
        if allowed.len() == 1 {
            // There is nothing else that it could be; that a second choice would count shows in the key as it is.
            let is_there = self.key(&place.parameters).pointer(&place.pointer).is_some();
            self.judge(place, is_there);
        }
    }

    fn change_branch(&mut self, place: &Place, branches: &[Value]) {
        for branch in branches {
            let value =
                if self.fits(place.value(), branch) { place.value().clone() } else { self.example(branch) };
            if !is_same(&value, place.value()) {
                self.compare(place, value.clone());
            }
            if !value.is_null() {
                self.change(&place.with(value), branch);
            }
        }
    }

    fn change_mapping(&mut self, place: &Place, fields: &Map<String, Value>, schema: &Value) {
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            let value = fields.get(name).cloned().unwrap_or_else(|| self.example(schema));
            let mut with_field = fields.clone();
            with_field.insert(name.clone(), value);
            self.change(&place.with(Value::Object(with_field)).field(name), schema);
        }
        let Some(inner) = schema.get("additionalProperties").filter(|inner| inner.is_object()) else {
            return;
        };
        let with_entry = |name: &str| {
            let mut fields = fields.clone();
            fields.insert(name.to_owned(), self.example(inner));
            Value::Object(fields)
        };
        let (one, more) = (with_entry("example"), with_entry("another example"));
        self.compare(&place.with(one.clone()), more);
        self.change(&place.with(one).entry("example"), inner);
    }

    fn change_list(&mut self, place: &Place, items: &[Value], schema: &Value) {
        let schemas = item_schemas(schema, items.len());
        let is_fixed = schema.get("minItems").is_some() && schema.get("minItems") == schema.get("maxItems");
        if is_fixed {
            for (at, schema) in schemas.iter().enumerate() {
                self.change(&place.item(at), schema);
            }
            self.changed.insert(place.name.clone());
            return;
        }
        let inner = self.resolved(&schema["items"]);
        let first = items.first().cloned().unwrap_or_else(|| self.example(&inner));
        let second = second(&inner, &first);
        // As short as the list may be, and longer by one.
        let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(1).max(1) as usize;
        let mut shortest = vec![first; least];
        let one = place.with(json!(shortest));
        shortest.push(second);
        self.compare(&one, json!(shortest));
        self.change(&one.item(0), &inner);
    }

    /// Puts another value in a place and judges what becomes of the key.
    fn compare(&mut self, place: &Place, value: Value) {
        let after = place.with(value);
        let differs = self.key(&place.parameters) != self.key(&after.parameters);
        self.judge(place, differs);
    }

    fn judge(&mut self, place: &Place, differs: bool) {
        self.changed.insert(place.name.clone());
        let mistake = match &place.reason {
            None if !differs => {
                "is changed and the key is not: put it into the key, or mark it x-not-in-key and say why"
            }
            Some(_) if differs => "is marked x-not-in-key and changes the key",
            Some(reason) if reason.trim().is_empty() => "is marked x-not-in-key and does not say why",
            _ => return,
        };
        self.wrong.insert(format!("{}: `{}` {mistake}", self.entry.name, place.name));
    }

    /// The part of parameters that enters the key; they must be right.
    fn key(&self, parameters: &Value) -> Value {
        let text = parameters.to_string();
        let file = Sources::default().add("parameters", text.as_str());
        let node = yaml::parse(file, &text).expect("JSON is YAML");
        let mistakes = shape::check(&node, &self.root, self.entry.name);
        assert!(mistakes.is_empty(), "{}: {text}: {mistakes:?}", self.entry.name);
        let decoded = self.entry.decode(parameters.clone());
        decoded.unwrap_or_else(|error| panic!("{}: {text}: {error}", self.entry.name)).1
    }

    /// Whether a value is of a branch.
    fn fits(&self, value: &Value, branch: &Value) -> bool {
        let mut schema = self.resolved(branch);
        if value.is_null() || types(&schema) == ["null"] {
            return value.is_null() && types(&schema).contains(&"null");
        }
        schema["$defs"] = self.root["$defs"].clone();
        let text = value.to_string();
        let node = yaml::parse(Sources::default().add("value", text.as_str()), &text).expect("JSON is YAML");
        shape::check(&node, &schema, "a value").is_empty()
    }

    /// The names of the fields that a schema has, at any depth.
    fn names(&self, schema: &Value, name: &str, names: &mut BTreeSet<String>) {
        let schema = self.resolved(schema);
        // A mapping with keys of its own changes through them.
        if !name.is_empty() && schema.get("properties").is_none() {
            names.insert(name.to_owned());
        }
        for branch in branches(&schema).into_iter().flatten() {
            self.names(branch, name, names);
        }
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            self.names(schema, &field_name(name, field), names);
        }
        if let Some(inner) = schema.get("additionalProperties").filter(|inner| inner.is_object()) {
            self.names(inner, &field_name(name, "*"), names);
        }
        for item in item_schemas(&schema, 1) {
            self.names(&item, &format!("{name}[]"), names);
        }
    }

    /// A value that fits a schema.
    fn example(&self, schema: &Value) -> Value {
        let schema = self.resolved(schema);
        if let Some(allowed) = allowed(&schema) {
            return allowed[0].clone();
        }
        if let Some(branches) = branches(&schema) {
            let is_something = |branch: &&Value| branch.get("type") != Some(&json!("null"));
            return branches.iter().find(is_something).map_or(Value::Null, |branch| self.example(branch));
        }
        match types(&schema).into_iter().find(|name| *name != "null") {
            Some("object") => self.example_mapping(&schema),
            Some("array") => {
                let count = schema["minItems"].as_u64().unwrap_or(1).max(1) as usize;
                item_schemas(&schema, count).iter().map(|item| self.example(item)).collect()
            }
            Some("string") => json!("example"),
            Some("integer") => json!(schema["minimum"].as_i64().unwrap_or(0).max(1)),
            Some("number") => json!(schema["minimum"].as_f64().unwrap_or(0.0).max(0.5)),
            Some("boolean") => json!(false),
            _ => Value::Null,
        }
    }

    fn example_mapping(&self, schema: &Value) -> Value {
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let fields = required.map(|name| (name.to_owned(), self.example(&schema["properties"][name])));
        Value::Object(fields.collect())
    }

    /// The schema with its reference put in; what stands beside the reference counts more.
    fn resolved(&self, schema: &Value) -> Value {
        let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { return schema.clone() };
        let target =
            self.root.pointer(reference.trim_start_matches('#')).expect("the reference leads somewhere");
        let mut resolved = self.resolved(target);
        for (keyword, value) in
            schema.as_object().into_iter().flatten().filter(|(keyword, _)| *keyword != "$ref")
        {
            resolved[keyword] = value.clone();
        }
        resolved
    }
}

impl Place {
    fn value(&self) -> &Value {
        self.parameters.pointer(&self.pointer).expect("the place is in the parameters")
    }

    /// The same place with another value in it.
    fn with(&self, value: Value) -> Place {
        let mut place = self.clone();
        *place.parameters.pointer_mut(&self.pointer).expect("the place is in the parameters") = value;
        place
    }

    fn field(&self, name: &str) -> Place {
        Place { name: field_name(&self.name, name), ..self.entry(name) }
    }

    /// An entry of a map, whose key may be any text.
    fn entry(&self, key: &str) -> Place {
        let pointer = format!("{}/{}", self.pointer, key.replace('~', "~0").replace('/', "~1"));
        Place { pointer, name: field_name(&self.name, "*"), ..self.clone() }
    }

    fn item(&self, at: usize) -> Place {
        let pointer = format!("{}/{at}", self.pointer);
        Place { pointer, name: format!("{}[]", self.name), ..self.clone() }
    }
}

fn field_name(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

/// The values of a schema that lists them, one by one or as branches of one value each.
fn allowed(schema: &Value) -> Option<Vec<Value>> {
    if let Some(values) = schema.get("enum") {
        return values.as_array().cloned();
    }
    if let Some(value) = schema.get("const") {
        return Some(vec![value.clone()]);
    }
    let branches = branches(schema)?.iter().map(|branch| branch.get("const").cloned());
    branches.collect()
}

fn branches(schema: &Value) -> Option<&[Value]> {
    let branches = schema.get("anyOf").or_else(|| schema.get("oneOf"))?;
    branches.as_array().map(Vec::as_slice)
}

/// Whether two values mean the same: a list of one is another spelling of that one, and the operators read both.
fn is_same(value: &Value, other: &Value) -> bool {
    value == other || *value == json!([other]) || json!([value]) == *other
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        name => name.as_str().into_iter().collect(),
    }
}

/// The schemas of so many items of a list.
fn item_schemas(schema: &Value, count: usize) -> Vec<Value> {
    match (&schema["prefixItems"], &schema["items"]) {
        (Value::Array(items), _) => items.clone(),
        (_, item @ Value::Object(_)) => vec![item.clone(); count],
        _ => Vec::new(),
    }
}

/// A second item for a list: another one where that is a simple value.
fn second(schema: &Value, first: &Value) -> Value {
    match allowed(schema) {
        Some(allowed) => allowed.into_iter().find(|value| value != first).unwrap_or_else(|| first.clone()),
        None if first.is_object() || first.is_array() => first.clone(),
        None => another(schema, first),
    }
}

/// Another value of the same type, within the bounds of the schema.
fn another(schema: &Value, value: &Value) -> Value {
    match value {
        Value::Bool(value) => json!(!value),
        Value::String(text) => json!(format!("{text}x")),
        Value::Number(number) if number.is_f64() || !types(schema).contains(&"integer") => {
            let value = number.as_f64().expect("a JSON number is a float at least");
            let most = schema["maximum"].as_f64().unwrap_or(f64::INFINITY);
            json!(if value + 0.25 <= most { value + 0.25 } else { value - 0.25 })
        }
        Value::Number(number) => {
            let value = number.as_i64().expect("a whole number of the shipped pipelines");
            let most = schema["maximum"].as_i64().unwrap_or(i64::MAX);
            json!(if value < most { value + 1 } else { value - 1 })
        }
        other => panic!("{other} has no other value of its type"),
    }
}
