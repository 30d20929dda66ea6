//! Recipes: everything that decides a result, as one JSON value. A step's key is the hash of its recipe, and
//! an explanation is the difference of two recipes, so that neither can say what the other does not.

use std::collections::BTreeMap;

use argent_cache::keys::json_digest;
use argent_cache::{Digest, Secret};
use serde_json::{Map, Value, json};

use crate::pipeline::Node;

/// The version of what enters a key; raised when the same spec is to get other keys.
pub const KEY_SCHEMA: u16 = 1;

/// The part of a node's recipe that does not come from its inputs.
pub fn operator_part(node: &Node) -> Value {
    json!({
        "argent": KEY_SCHEMA,
        "operator": node.operator_name,
        "revision": node.revision,
        "params": node.params,
        "files": node.files,
    })
}

/// A step's recipe: the operator's part, and by port the digests of the columns that it reads.
pub fn step_recipe(node: &Node, ports: &BTreeMap<String, BTreeMap<String, Digest>>) -> Value {
    let mut recipe = operator_part(node);
    recipe["ports"] = ports_json(ports);
    recipe
}

/// The digest that row keys of this node start from: the operator, and the ports that it reads as a whole.
pub fn row_operator(
    node: &Node,
    row_port: &str,
    ports: &BTreeMap<String, BTreeMap<String, Digest>>,
    secret: &Secret,
) -> Digest {
    let whole = ports.iter().filter(|(port, _)| *port != row_port);
    let mut recipe = operator_part(node);
    recipe["ports"] = ports_json(&whole.map(|(p, c)| (p.clone(), c.clone())).collect());
    json_digest(secret, "argent row operator", &recipe)
}

/// Whether two recipes differ in their inputs at most.
pub fn same_operator(one: &Value, other: &Value) -> bool {
    ["argent", "operator", "revision", "params", "files"].iter().all(|part| one[part] == other[part])
}

/// The key of a recipe.
pub fn key(recipe: &Value, secret: &Secret) -> Digest {
    json_digest(secret, "argent step", recipe)
}

/// What differs between two recipes, a line each. `paths` names the files behind `files.<parameter>`.
pub fn difference(old: &Value, new: &Value, paths: &BTreeMap<String, String>) -> Vec<String> {
    let mut lines = Vec::new();
    for part in ["argent", "operator", "revision"] {
        if old[part] != new[part] {
            lines.push(format!("{part}: {} -> {}", short(&old[part]), short(&new[part])));
        }
    }
    walk("", &old["params"], &new["params"], &mut lines);
    for (parameter, path) in paths {
        let (before, after) = (&old["files"][parameter], &new["files"][parameter]);
        if before != after {
            let mut inner = Vec::new();
            walk("", before, after, &mut inner);
            lines.extend(inner.into_iter().map(|line| format!("{path} {line}")));
        }
    }
    ports_difference(&old["ports"], &new["ports"], &mut lines);
    lines
}

fn ports_json(ports: &BTreeMap<String, BTreeMap<String, Digest>>) -> Value {
    let ports = ports.iter().map(|(port, columns)| {
        let columns: Map<String, Value> =
            columns.iter().map(|(name, digest)| (name.clone(), Value::String(digest.to_string()))).collect();
        (port.clone(), Value::Object(columns))
    });
    Value::Object(ports.collect())
}

fn ports_difference(old: &Value, new: &Value, lines: &mut Vec<String>) {
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    for (port, columns) in new {
        let Some(before) = old.get(port) else {
            lines.push(format!("input `{port}` is new"));
            continue;
        };
        let columns = columns.as_object().unwrap_or(&empty);
        let changed: Vec<&str> = columns
            .iter()
            .filter(|(name, d)| before[name.as_str()] != **d)
            .map(|(n, _)| n.as_str())
            .collect();
        if !changed.is_empty() {
            let noun = if changed.len() == 1 { "column" } else { "columns" };
            lines.push(format!("input `{port}`: {noun} {} changed", changed.join(", ")));
        }
    }
    lines.extend(old.keys().filter(|p| !new.contains_key(*p)).map(|p| format!("input `{p}` is gone")));
}

fn walk(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(before), Value::Object(after)) => {
            for name in before.keys().chain(after.keys().filter(|k| !before.contains_key(*k))) {
                walk(&join(path, name), &old[name], &new[name], lines);
            }
        }
        (Value::Array(before), Value::Array(after)) => list_difference(path, before, after, lines),
        (Value::String(before), Value::String(after)) if before.contains('\n') || after.contains('\n') => {
            let line = before.lines().zip(after.lines()).take_while(|(a, b)| a == b).count() + 1;
            lines.push(at(path, &format!("line {line} changed")));
        }
        _ => lines.push(at(path, &format!("{} -> {}", short(old), short(new)))),
    }
}

/// Lists of named things are compared by name, others by what was added and taken away.
fn list_difference(path: &str, before: &[Value], after: &[Value], lines: &mut Vec<String>) {
    let name = |value: &Value| value.get("id").and_then(Value::as_str).map(str::to_owned);
    if before.iter().chain(after).all(|v| name(v).is_some()) {
        for value in after {
            match before.iter().find(|b| name(b) == name(value)) {
                Some(previous) => walk(&join(path, &name(value).unwrap_or_default()), previous, value, lines),
                None => lines.push(at(path, &format!("+ {}", name(value).unwrap_or_default()))),
            }
        }
        let gone = before.iter().filter(|b| !after.iter().any(|a| name(a) == name(b)));
        lines.extend(gone.map(|b| at(path, &format!("- {}", name(b).unwrap_or_default()))));
        return;
    }
    let added = after.iter().filter(|v| !before.contains(v)).map(|v| format!("+ {}", short(v)));
    let gone = before.iter().filter(|v| !after.contains(v)).map(|v| format!("- {}", short(v)));
    let mut changes: Vec<String> = added.chain(gone).collect();
    if changes.is_empty() {
        changes.push("order changed".to_owned());
    }
    lines.extend(changes.into_iter().map(|c| at(path, &c)));
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn at(path: &str, what: &str) -> String {
    if path.is_empty() { what.to_owned() } else { format!("{path}: {what}") }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of the first release: a store made then must be found by every later one.
    #[test]
    fn keys_do_not_move() {
        let secret = Secret::from_bytes([7; 32]);
        let recipe = json!({"argent": 1, "operator": "label.rules", "revision": 1, "params": {"sections": null},
            "files": {"findings": {"findings": [{"id": "nodule", "synonyms": ["nodule"]}]}},
            "ports": {"reports": {"id": "00", "findings": "01"}}});
        expect_test::expect!["30e092d301da30d311dc578edfdf8a4f159f88beb7908ce77a4d724f73e5bf75"]
            .assert_eq(&key(&recipe, &secret).to_string());
        let reordered = json!({"ports": {"reports": {"findings": "01", "id": "00"}}, "revision": 1.0,
            "files": {"findings": {"findings": [{"synonyms": ["nodule"], "id": "nodule"}]}},
            "params": {"sections": null}, "operator": "label.rules", "argent": 1});
        assert_eq!(key(&recipe, &secret), key(&reordered, &secret), "the order of keys is not a value");
        assert_ne!(
            key(&recipe, &secret),
            key(&recipe, &Secret::from_bytes([8; 32])),
            "keys belong to a store"
        );
    }

    #[test]
    fn a_difference_names_the_place() {
        let old = json!({"params": {"epochs": 5}, "files": {"findings": {"findings": [
            {"id": "nodule", "synonyms": ["nodule"]}]}, "prompt": "a\nb\nc"}, "ports": {"reports": {"id": "1"}}});
        let new = json!({"params": {"epochs": 6}, "files": {"findings": {"findings": [
            {"id": "nodule", "synonyms": ["nodule", "lump"]}]}, "prompt": "a\nB\nc"}, "ports": {"reports": {"id": "2"}}});
        let paths = BTreeMap::from([
            ("findings".to_owned(), "pack.yaml".to_owned()),
            ("prompt".to_owned(), "prompts/p.md".to_owned()),
        ]);
        assert_eq!(
            difference(&old, &new, &paths),
            [
                "epochs: 5 -> 6",
                "pack.yaml findings.nodule.synonyms: + \"lump\"",
                "prompts/p.md line 2 changed",
                "input `reports`: column id changed",
            ]
        );
    }
}
