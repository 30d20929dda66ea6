//! Schemas in plain words, to stand after "expected".

use serde_json::Value;

use super::branches::wrapper;
use super::schema::{MOST_NESTED, allowed_values, branches, is_null, item_counts, object_of, types};
use super::{Checker, Object};

impl Checker<'_> {
    /// The schema in plain words, to stand after "expected".
    pub(super) fn phrase(&self, schema: &Value) -> String {
        self.object_phrase(&self.resolved(schema))
    }

    pub(super) fn object_phrase(&self, schema: &Object) -> String {
        self.phrase_within(schema, MOST_NESTED)
    }

    fn phrase_within(&self, schema: &Object, depth: usize) -> String {
        if depth == 0 {
            return ANYTHING.to_owned();
        }
        if let Some(branches) = branches(schema) {
            let branches = branches.iter().filter(|branch| !is_null(object_of(branch)));
            return alternatives(
                branches.map(|branch| self.phrase_within(&self.resolved(branch), depth - 1)),
            );
        }
        if let Some(allowed) = allowed_values(schema) {
            return values_phrase(&allowed);
        }
        let types = types(schema);
        if types.is_empty() {
            return ANYTHING.to_owned();
        }
        alternatives(types.iter().filter(|name| **name != "null" || types.len() == 1).map(
            |name| match *name {
                "integer" => "a whole number".to_owned(),
                "number" => "a number".to_owned(),
                "string" => "text".to_owned(),
                "boolean" => "`true` or `false`".to_owned(),
                "array" => self.list_phrase(schema),
                "object" => match wrapper(schema) {
                    Some((name, _)) => format!("`{{{name}: …}}`"),
                    None => "a mapping".to_owned(),
                },
                "null" => "nothing".to_owned(),
                _ => ANYTHING.to_owned(),
            },
        ))
    }

    pub(super) fn list_phrase(&self, schema: &Object) -> String {
        let items = self.items_phrase(schema, 2);
        match item_counts(schema) {
            (1, Some(1)) => "a list of one item".to_owned(),
            (min, Some(max)) if min == max => format!("a list of {min} {items}"),
            (0, Some(max)) => format!("a list of at most {max} {items}"),
            (min, Some(max)) => format!("a list of {min} to {max} {items}"),
            (0, None) => format!("a list of {items}"),
            (1, None) => format!("a non-empty list of {items}"),
            (min, None) => format!("a list of at least {min} {items}"),
        }
    }

    /// What a list holds, in the plural; `depth` lists in one another are told.
    fn items_phrase(&self, schema: &Object, depth: usize) -> String {
        let prefix = schema.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let items = prefix.iter().chain(schema.get("items"));
        let mut plurals = items.map(|item| self.plural(&self.resolved(item), depth));
        let Some(first) = plurals.next() else { return "items".to_owned() };
        if plurals.all(|plural| plural == first) { first } else { "items".to_owned() }
    }

    fn plural(&self, schema: &Object, depth: usize) -> String {
        match types(schema).as_slice() {
            ["integer"] => "whole numbers".to_owned(),
            ["number"] => "numbers".to_owned(),
            ["string"] if allowed_values(schema).is_none() => "texts".to_owned(),
            ["array"] if depth > 1 => format!("lists of {}", self.items_phrase(schema, depth - 1)),
            ["array"] => "lists".to_owned(),
            ["object"] => "mappings".to_owned(),
            _ => "items".to_owned(),
        }
    }
}

/// What is said of a schema that lets everything pass.
pub(super) const ANYTHING: &str = "a value";

pub(super) fn values_phrase(allowed: &[&Value]) -> String {
    let names = allowed.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    match names.collect::<Vec<_>>().as_slice() {
        [only] => format!("`{only}`"),
        names => format!("one of {}", listed(names, "or")),
    }
}

/// `` `a`, `b` and `c` ``.
pub(super) fn listed<S: AsRef<str>>(names: impl IntoIterator<Item = S>, conjunction: &str) -> String {
    let mut quoted: Vec<String> = names.into_iter().map(|name| format!("`{}`", name.as_ref())).collect();
    match quoted.pop() {
        Some(last) if quoted.is_empty() => last,
        Some(last) => format!("{} {conjunction} {last}", quoted.join(", ")),
        None => String::new(),
    }
}

/// `a, b or c`, each once.
pub(super) fn alternatives(phrases: impl Iterator<Item = String>) -> String {
    let mut unique: Vec<String> = Vec::new();
    for phrase in phrases {
        if !unique.contains(&phrase) {
            unique.push(phrase);
        }
    }
    match unique.pop() {
        Some(last) if unique.is_empty() => last,
        Some(last) => format!("{} or {last}", unique.join(", ")),
        None => ANYTHING.to_owned(),
    }
}

/// The first sentence of a doc comment on one line, without its period.
pub(super) fn first_sentence(doc: &str) -> String {
    let paragraph = doc.split("\n\n").next().unwrap_or(doc);
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let ends = |end: &usize| line[*end..].chars().nth(2).is_none_or(char::is_uppercase);
    let end = line.match_indices(". ").map(|(end, _)| end).find(ends).unwrap_or(line.len());
    line[..end].trim_end_matches('.').to_owned()
}
