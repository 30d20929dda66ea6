//! Checks a YAML tree against the JSON Schema of what it is read into, and reports every mistake at its place.
//!
//! Schemas are those that schemars 1 makes of structs and enums (JSON Schema 2020-12). This is no general
//! validator: it looks at the keywords that such schemas hold, lets pass what it does not know, and puts its
//! effort into saying what would be right. Deserialising the same tree afterwards has the last word.

mod branches;
mod phrase;
mod range;
mod schema;

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::diagnostic::{Diagnostic, Span};
use crate::yaml::{Entry, Kind, Node};
use phrase::{ANYTHING, first_sentence, listed, values_phrase};
use range::Range;
use schema::{Others, allowed_values, branches, equals, fits, item_counts, others, required, types};

/// Every mistake of `node`, in the order of the file where keys are concerned, keys that are missing last.
///
/// `schema` is a root schema (its `$defs` are where its `$ref`s point). `what` says what the node is: the name of an
/// operator, whose keys are then called parameters, or words with a space in them, such as `a pipeline`. A node
/// that is nothing counts as an empty mapping where a mapping is expected. Keys that are missing at the top are
/// reported at the node's first key, or at the node's span if it does not begin with a key, so a caller may put
/// the span of the parent's key there.
pub fn check(node: &Node, schema: &Value, what: &str) -> Vec<Diagnostic> {
    let checker = Checker { root: schema, what };
    let place = Place { keys: String::new(), item: String::new(), owner: head(node) };
    let mut mistakes = Vec::new();
    let is_left_out = node.kind == Kind::Null && types(&checker.resolved(schema)).contains(&"object");
    if is_left_out {
        let empty = Node { kind: Kind::Map(Vec::new()), span: node.span };
        checker.value(&empty, schema, &place, &mut mistakes);
    } else {
        checker.value(node, schema, &place, &mut mistakes);
    }
    mistakes
}

/// A schema of `root` in plain words, as messages say it after "expected": `a list of 3 numbers`.
pub fn in_words(schema: &Value, root: &Value) -> String {
    Checker { root, what: "" }.phrase(schema)
}

/// The name that is probably meant by `wanted`, if one is near: at most a third of its characters differ, or
/// the unit behind it is left out (`spacing` for `spacing_mm`).
pub fn closest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    let length = wanted.chars().count();
    let distance = |name: &str| {
        let name = name.to_lowercase();
        let extends =
            |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('_'));
        if extends(&name, &wanted) || extends(&wanted, &name) {
            return 1;
        }
        strsim::damerau_levenshtein(&wanted, &name)
    };
    names
        .into_iter()
        .map(|name| (distance(name), name))
        .filter(|(distance, _)| *distance < length && *distance <= length.max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

type Object = Map<String, Value>;

struct Checker<'a> {
    root: &'a Value,
    what: &'a str,
}

/// How a value is spoken of, and where keys that it lacks are reported.
struct Place {
    /// The path of keys from the top or from the list item: `view.crop`.
    keys: String,
    /// `item 2 of …`, where it lies in a list.
    item: String,
    /// The key that holds the value.
    owner: Span,
}

impl Place {
    fn key(&self, entry: &Entry) -> Place {
        let keys =
            if self.keys.is_empty() { entry.key.clone() } else { format!("{}.{}", self.keys, entry.key) };
        Place { keys, item: self.item.clone(), owner: entry.key_span }
    }

    fn item(&self, index: usize, item: &Node, what: &str) -> Place {
        let text = format!("item {} of {}", index + 1, self.text(what));
        Place { keys: String::new(), item: text, owner: head(item) }
    }

    fn text(&self, what: &str) -> String {
        match (self.keys.as_str(), self.item.as_str()) {
            ("", "") => what.to_owned(),
            ("", item) => item.to_owned(),
            (keys, "") => format!("`{keys}`"),
            (keys, item) => format!("`{keys}` in {item}"),
        }
    }
}

impl Checker<'_> {
    fn value(&self, node: &Node, schema: &Value, place: &Place, out: &mut Vec<Diagnostic>) {
        let schema = self.resolved(schema);
        if let Some(branches) = branches(&schema) {
            return self.one_of(node, &schema, branches, place, out);
        }
        if let Some(allowed) = allowed_values(&schema) {
            return self.allowed(node, &allowed, place, out);
        }
        let types = types(&schema);
        if !types.is_empty() && !types.iter().any(|name| fits(node, name)) {
            return out.push(self.wrong_type(node, &schema, place));
        }
        match &node.kind {
            Kind::Map(entries) => self.mapping(entries, &schema, place, out),
            Kind::List(items) => self.list(node, items, &schema, place, out),
            Kind::Int(_) | Kind::Float(_) => self.number(node, &schema, place, out),
            Kind::Text(text) => self.text(node, text, &schema, place, out),
            Kind::Null | Kind::Bool(_) => {}
        }
    }

    fn mapping(&self, entries: &[Entry], schema: &Object, place: &Place, out: &mut Vec<Diagnostic>) {
        let empty = Object::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let others = others(schema);
        let present: HashSet<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        let absent: Vec<&str> =
            properties.keys().map(String::as_str).filter(|name| !present.contains(name)).collect();
        let mut meant = Vec::new();
        for entry in entries {
            match (properties.get(&entry.key), others) {
                (Some(schema), _) | (None, Others::Are(schema)) => {
                    self.value(&entry.value, schema, &place.key(entry), out);
                }
                (None, Others::Forbidden) => {
                    let near = closest(&entry.key, absent.iter().copied());
                    meant.extend(near);
                    out.push(self.unknown_key(entry, near, properties.keys(), place));
                }
                (None, Others::Anything) => {}
            }
        }
        for name in required(schema) {
            // A misspelt key is one mistake, not two.
            if !present.contains(name) && !meant.contains(&name) {
                out.push(self.missing_key(name, properties.get(name), place));
            }
        }
    }

    fn unknown_key<'n>(
        &self,
        entry: &Entry,
        near: Option<&str>,
        names: impl Iterator<Item = &'n String>,
        place: &Place,
    ) -> Diagnostic {
        let is_parameter = place.keys.is_empty() && place.item.is_empty() && !self.what.contains(' ');
        let noun = if is_parameter { "parameter" } else { "key" };
        let owner = place.text(self.what);
        let help = match near {
            Some(name) => format!("did you mean `{name}`?"),
            None => match listed(names, "and") {
                names if names.is_empty() => format!("{owner} takes no {noun}s"),
                names => format!("there are {names}"),
            },
        };
        Diagnostic::error(entry.key_span, format!("`{}` is not a {noun} of {owner}", entry.key)).help(help)
    }

    fn missing_key(&self, name: &str, schema: Option<&Value>, place: &Place) -> Diagnostic {
        let message = format!("`{name}` is missing: {} needs it", place.text(self.what));
        let mut help = format!("add `{name}`");
        if let Some(schema) = schema {
            let phrase = self.phrase(schema);
            if phrase != ANYTHING {
                help += &format!(", {phrase}");
            }
            if let Some(doc) = schema.get("description").and_then(Value::as_str) {
                help += &format!(": {}", first_sentence(doc));
            }
        }
        Diagnostic::error(place.owner, message).help(help)
    }

    fn list(&self, node: &Node, items: &[Node], schema: &Object, place: &Place, out: &mut Vec<Diagnostic>) {
        let (min, max) = item_counts(schema);
        if items.len() < min || max.is_some_and(|max| items.len() > max) {
            let expected = self.list_phrase(schema);
            let found = match items.len() {
                0 => "an empty list".to_owned(),
                count => format!("a list of {count}"),
            };
            let message = format!("expected {expected} for {}, found {found}", place.text(self.what));
            out.push(Diagnostic::error(node.span, message));
        }
        let prefix = schema.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for (index, item) in items.iter().enumerate() {
            if let Some(schema) = prefix.get(index).or_else(|| schema.get("items")) {
                self.value(item, schema, &place.item(index, item, self.what), out);
            }
        }
    }

    fn number(&self, node: &Node, schema: &Object, place: &Place, out: &mut Vec<Diagnostic>) {
        let range = Range::of(schema);
        let (value, shown) = match node.kind {
            // Lossy above 2^53, where no schema of ours has a bound but those of 64-bit integers.
            Kind::Int(value) => (value as f64, value.to_string()),
            Kind::Float(value) => (value, value.to_string()),
            _ => return,
        };
        if !range.contains(value) {
            let expected = range.phrase(value);
            let message = format!("expected {expected} for {}, found {shown}", place.text(self.what));
            out.push(Diagnostic::error(node.span, message));
        }
    }

    fn text(&self, node: &Node, text: &str, schema: &Object, place: &Place, out: &mut Vec<Diagnostic>) {
        let min = schema.get("minLength").and_then(Value::as_u64).unwrap_or(0);
        if text.is_empty() && min > 0 {
            let message = format!("expected text for {}, found empty text", place.text(self.what));
            out.push(Diagnostic::error(node.span, message));
        }
    }

    fn allowed(&self, node: &Node, allowed: &[&Value], place: &Place, out: &mut Vec<Diagnostic>) {
        if allowed.iter().any(|value| equals(node, value)) {
            return;
        }
        let names: Vec<&str> = allowed.iter().filter_map(|value| value.as_str()).collect();
        match &node.kind {
            Kind::Text(text) if !names.is_empty() => out.push(self.unknown_value(node, text, &names, place)),
            _ => {
                let expected = values_phrase(allowed);
                out.push(self.unexpected(node, &expected, place));
            }
        }
    }

    fn unknown_value(&self, node: &Node, text: &str, names: &[&str], place: &Place) -> Diagnostic {
        let help = match closest(text, names.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None if names.len() == 1 => format!("write `{}`", names[0]),
            None => format!("there are {}", listed(names, "and")),
        };
        let message = format!("`{text}` is not a value of {}", place.text(self.what));
        Diagnostic::error(node.span, message).help(help)
    }

    fn wrong_type(&self, node: &Node, schema: &Object, place: &Place) -> Diagnostic {
        let mistake = self.unexpected(node, &self.object_phrase(schema), place);
        match self.type_hint(node, schema) {
            Some(hint) => mistake.help(hint),
            None => mistake,
        }
    }

    fn unexpected(&self, node: &Node, expected: &str, place: &Place) -> Diagnostic {
        let message = format!("expected {expected} for {}, found {}", place.text(self.what), node.describe());
        Diagnostic::error(node.span, message)
    }

    /// What to do where only the way of writing is wrong.
    fn type_hint(&self, node: &Node, schema: &Object) -> Option<String> {
        let wanted = types(schema);
        let wants = |name: &str| wanted.contains(&name);
        match &node.kind {
            Kind::Text(text) if wants("boolean") => match text.to_lowercase().as_str() {
                "yes" | "on" | "true" => Some("write `true`".to_owned()),
                "no" | "off" | "false" => Some("write `false`".to_owned()),
                _ => None,
            },
            Kind::Text(text) if wants("integer") && text.parse::<i64>().is_ok() => {
                Some("remove the quotes".to_owned())
            }
            Kind::Text(text) if wants("number") && text.parse::<f64>().is_ok_and(f64::is_finite) => {
                Some("remove the quotes".to_owned())
            }
            Kind::Float(value) if wants("integer") && value.fract() == 0.0 => {
                Some("write it without a point or an exponent".to_owned())
            }
            Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) if wants("string") => {
                Some("put it in quotes to make it text".to_owned())
            }
            Kind::Text(_) | Kind::Int(_) | Kind::Float(_) | Kind::Map(_) if wants("array") => {
                let items = self.resolved(schema.get("items")?);
                let fits_items = types(&items).iter().any(|name| fits(node, name));
                let is_single = item_counts(schema).0 <= 1;
                (fits_items && is_single).then(|| "write it as a list, in `[ ]`".to_owned())
            }
            _ => None,
        }
    }
}

/// Where a mapping begins: its first key, or its bracket.
pub(crate) fn head(node: &Node) -> Span {
    match &node.kind {
        Kind::Map(entries) => match entries.first() {
            Some(entry) if entry.key_span.start == node.span.start => entry.key_span,
            _ => node.span,
        },
        _ => node.span,
    }
}

#[cfg(test)]
mod tests;
