//! Checks a YAML tree against the JSON Schema of what it is read into, and reports every mistake at its place.
//!
//! Schemas are those that schemars 1 makes of structs and enums (JSON Schema 2020-12). This is no general
//! validator: it looks at the keywords that such schemas hold, lets pass what it does not know, and puts its
//! effort into saying what would be right. Deserialising the same tree afterwards has the last word.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::diagnostic::{Diagnostic, Span};
use crate::yaml::{Entry, Kind, Node};

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

/// Values of more than one shape: options and enums.
impl Checker<'_> {
    fn one_of(
        &self,
        node: &Node,
        schema: &Object,
        branches: &[Value],
        place: &Place,
        out: &mut Vec<Diagnostic>,
    ) {
        let mut joined = Vec::new();
        self.join(schema, branches, MOST_NESTED, &mut joined);
        let branches: Vec<Value> =
            joined.into_iter().filter(|branch| node_may_be(node, branch)).map(Value::Object).collect();
        let trials: Vec<Trial<'_>> = branches.iter().map(|branch| self.trial(node, branch, place)).collect();
        if trials.iter().any(|trial| trial.mistakes.is_empty()) {
            return;
        }
        if let [only] = trials.as_slice() {
            return out.extend_from_slice(&only.mistakes);
        }
        if let Kind::Text(text) = &node.kind
            && let Some(mistake) = self.unknown_variant(node, text, &trials, place)
        {
            return out.push(mistake);
        }
        let fitting: Vec<&Trial<'_>> =
            trials.iter().filter(|trial| types(trial.schema).iter().any(|name| fits(node, name))).collect();
        if let Kind::Map(entries) = &node.kind
            && fitting.len() > 1
            && let Some(mistakes) = self.best_mapping(entries, &fitting, place)
        {
            return out.extend(mistakes);
        }
        match fitting.iter().min_by_key(|trial| trial.mistakes.len()) {
            Some(best) => out.extend_from_slice(&best.mistakes),
            None => {
                let phrases = trials.iter().map(|trial| self.object_phrase(trial.schema));
                out.push(self.unexpected(node, &alternatives(phrases), place));
            }
        }
    }

    fn trial<'b>(&self, node: &Node, branch: &'b Value, place: &Place) -> Trial<'b> {
        let mut mistakes = Vec::new();
        self.value(node, branch, place, &mut mistakes);
        Trial { schema: object_of(branch), mistakes }
    }

    /// Text that is none of the names that the branches list.
    fn unknown_variant(
        &self,
        node: &Node,
        text: &str,
        trials: &[Trial<'_>],
        place: &Place,
    ) -> Option<Diagnostic> {
        let wrapped = trials.iter().filter_map(|trial| wrapper(trial.schema));
        for (name, schema) in wrapped {
            if name == text {
                let phrase = self.phrase(schema);
                let message = format!("`{text}` needs a value in {}", place.text(self.what));
                let help = format!("write `{{{text}: …}}`, with {phrase}");
                return Some(Diagnostic::error(node.span, message).help(help));
            }
        }
        let names: Vec<&str> = trials
            .iter()
            .flat_map(|trial| allowed_values(trial.schema).unwrap_or_default())
            .filter_map(Value::as_str)
            .collect();
        (!names.is_empty()).then(|| self.unknown_value(node, text, &names, place))
    }

    /// The mistakes of the branch that is meant, if the branches say by which key to tell them apart.
    fn best_mapping(
        &self,
        entries: &[Entry],
        fitting: &[&Trial<'_>],
        place: &Place,
    ) -> Option<Vec<Diagnostic>> {
        if let Some(tag) = common_tag(fitting) {
            let names: Vec<&str> = fitting.iter().filter_map(|trial| tag_value(trial.schema, tag)).collect();
            let Some(entry) = entries.iter().find(|entry| entry.key == tag) else {
                let message = format!("`{tag}` is missing: {} needs it", place.text(self.what));
                let help = format!("add `{tag}`, one of {}", listed(&names, "or"));
                return Some(vec![Diagnostic::error(place.owner, message).help(help)]);
            };
            let place = place.key(entry);
            return Some(match &entry.value.kind {
                Kind::Text(text) => match names.iter().position(|name| name == text) {
                    Some(index) => fitting[index].mistakes.clone(),
                    None => vec![self.unknown_value(&entry.value, text, &names, &place)],
                },
                _ => vec![self.unexpected(&entry.value, &format!("one of {}", listed(&names, "or")), &place)],
            });
        }
        let wrappers: Vec<String> =
            fitting.iter().filter_map(|trial| wrapper(trial.schema)).map(|(name, _)| name.clone()).collect();
        if wrappers.len() < fitting.len() {
            return None;
        }
        if let Some(index) = wrappers.iter().position(|name| entries.iter().any(|entry| entry.key == *name)) {
            return Some(fitting[index].mistakes.clone());
        }
        Some(match entries.first() {
            Some(entry) => {
                let near = closest(&entry.key, wrappers.iter().map(String::as_str));
                vec![self.unknown_key(entry, near, wrappers.iter(), place)]
            }
            None => {
                let message = format!(
                    "expected one of {} in {}, found nothing",
                    listed(&wrappers, "or"),
                    place.text(self.what)
                );
                vec![Diagnostic::error(place.owner, message)]
            }
        })
    }

    /// The branches, each with what stands beside `anyOf` or `oneOf` (flattened structs have their own keys there);
    /// branches that have branches themselves are replaced by these, down to `depth`.
    fn join(&self, schema: &Object, list: &[Value], depth: usize, joined: &mut Vec<Object>) {
        let mut base = schema.clone();
        base.remove("anyOf");
        base.remove("oneOf");
        for branch in list {
            let mut branch = self.resolved(branch).into_owned();
            merge(&mut branch, &base);
            match branches(&branch).cloned() {
                Some(inner) if depth > 0 => self.join(&branch, &inner, depth - 1, joined),
                _ => {
                    branch.remove("anyOf");
                    branch.remove("oneOf");
                    joined.push(branch);
                }
            }
        }
    }
}

/// What a value lacks to fit one branch.
struct Trial<'b> {
    schema: &'b Object,
    mistakes: Vec<Diagnostic>,
}

/// The key that every branch fixes to a name of its own: serde's `tag`.
fn common_tag<'b>(trials: &[&Trial<'b>]) -> Option<&'b str> {
    let first = trials.first()?.schema.get("properties")?.as_object()?;
    let is_tag = |key: &&String| trials.iter().all(|trial| tag_value(trial.schema, key).is_some());
    first.keys().find(is_tag).map(String::as_str)
}

fn tag_value<'b>(schema: &'b Object, tag: &str) -> Option<&'b str> {
    let property = object_of(schema.get("properties")?.get(tag)?);
    match allowed_values(property)?.as_slice() {
        [value] => value.as_str(),
        _ => None,
    }
}

/// Key and value of a variant that is written `{variant: value}`.
fn wrapper(schema: &Object) -> Option<(&String, &Value)> {
    let properties = schema.get("properties")?.as_object()?;
    let (name, value) = properties.iter().next()?;
    (properties.len() == 1 && required(schema).eq([name.as_str()])).then_some((name, value))
}

/// Reading schemas.
impl Checker<'_> {
    /// The schema with `$ref` and `allOf` put in.
    fn resolved<'s>(&'s self, schema: &'s Value) -> Cow<'s, Object> {
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

    /// The schema in plain words, to stand after "expected".
    fn phrase(&self, schema: &Value) -> String {
        self.object_phrase(&self.resolved(schema))
    }

    fn object_phrase(&self, schema: &Object) -> String {
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

    fn list_phrase(&self, schema: &Object) -> String {
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

/// How many references are followed one after the other: a schema may refer to itself.
const MOST_REFERENCES: usize = 16;
/// How deep branches in branches are looked at, for the same reason; what lies deeper passes.
const MOST_NESTED: usize = 4;

/// What is said of a schema that lets everything pass.
const ANYTHING: &str = "a value";

/// The keys of a mapping that its schema does not name.
#[derive(Clone, Copy)]
enum Others<'s> {
    Anything,
    Are(&'s Value),
    Forbidden,
}

fn others(schema: &Object) -> Others<'_> {
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

fn branches(schema: &Object) -> Option<&Vec<Value>> {
    schema.get("anyOf").or_else(|| schema.get("oneOf"))?.as_array()
}

fn allowed_values(schema: &Object) -> Option<Vec<&Value>> {
    match (schema.get("enum"), schema.get("const")) {
        (Some(Value::Array(values)), _) => Some(values.iter().collect()),
        (_, Some(value)) => Some(vec![value]),
        _ => None,
    }
}

fn required(schema: &Object) -> impl Iterator<Item = &str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// The JSON types that a schema allows; none where it does not say.
fn types(schema: &Object) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ if schema.contains_key("properties") => vec!["object"],
        _ => Vec::new(),
    }
}

fn fits(node: &Node, type_name: &str) -> bool {
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

fn equals(node: &Node, value: &Value) -> bool {
    match &node.kind {
        Kind::Null => value.is_null(),
        Kind::Bool(it) => value.as_bool() == Some(*it),
        Kind::Int(it) => value.as_i64() == Some(*it),
        Kind::Float(it) => value.as_f64() == Some(*it),
        Kind::Text(it) => value.as_str() == Some(it),
        Kind::List(_) | Kind::Map(_) => false,
    }
}

fn is_null(schema: &Object) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("null")
}

/// Nobody who writes a value means the branch that is nothing.
fn node_may_be(node: &Node, branch: &Object) -> bool {
    node.kind == Kind::Null || !is_null(branch)
}

fn item_counts(schema: &Object) -> (usize, Option<usize>) {
    let count = |name| schema.get(name).and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
    (count("minItems").unwrap_or(0), count("maxItems"))
}

fn object_of(schema: &Value) -> &Object {
    // `true` lets everything pass, as the empty schema does.
    static EVERYTHING: std::sync::LazyLock<Object> = std::sync::LazyLock::new(Object::new);
    schema.as_object().unwrap_or(&EVERYTHING)
}

/// Puts into a schema what another one says too: more keys, more required keys, and what it leaves open.
fn merge(into: &mut Object, from: &Object) {
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

/// The bounds of a number.
struct Range {
    low: Option<Bound>,
    high: Option<Bound>,
}

struct Bound {
    value: f64,
    is_exclusive: bool,
    /// Not written in the schema: it is what the Rust type holds, and told only to who breaks it.
    is_of_type: bool,
}

impl Range {
    fn of(schema: &Object) -> Range {
        let bound = |keyword: &str, is_exclusive| {
            let value = schema.get(keyword)?.as_f64()?;
            Some(Bound { value, is_exclusive, is_of_type: false })
        };
        let (low_of_type, high_of_type) = limits_of_format(schema);
        let limit = |value| Bound { value, is_exclusive: false, is_of_type: true };
        Range {
            low: bound("exclusiveMinimum", true)
                .or_else(|| bound("minimum", false))
                .or_else(|| low_of_type.map(limit)),
            high: bound("exclusiveMaximum", true)
                .or_else(|| bound("maximum", false))
                .or_else(|| high_of_type.map(limit)),
        }
    }

    fn contains(&self, value: f64) -> bool {
        self.low.as_ref().is_none_or(|low| low.is_below(value))
            && self.high.as_ref().is_none_or(|high| high.is_above(value))
    }

    /// What `value` should have been.
    fn phrase(&self, value: f64) -> String {
        let low = self.low.as_ref().filter(|low| !low.is_of_type || !low.is_below(value));
        let high = self.high.as_ref().filter(|high| !high.is_of_type || !high.is_above(value));
        if let (
            Some(Bound { value: low, is_exclusive: false, .. }),
            Some(Bound { value: high, is_exclusive: false, .. }),
        ) = (low, high)
        {
            return format!("{low} to {high}");
        }
        let low = low
            .map(|low| format!("{} {}", if low.is_exclusive { "more than" } else { "at least" }, low.value));
        let high = high.map(|high| {
            format!("{} {}", if high.is_exclusive { "less than" } else { "at most" }, high.value)
        });
        low.into_iter().chain(high).collect::<Vec<_>>().join(" and ")
    }
}

impl Bound {
    fn is_below(&self, value: f64) -> bool {
        if self.is_exclusive { self.value < value } else { self.value <= value }
    }

    fn is_above(&self, value: f64) -> bool {
        if self.is_exclusive { self.value > value } else { self.value >= value }
    }
}

/// The smallest and largest number of 32-bit integers; schemars writes those of 8 and 16 bits into the schema, and
/// no YAML number exceeds 64 bits.
fn limits_of_format(schema: &Object) -> (Option<f64>, Option<f64>) {
    match schema.get("format").and_then(Value::as_str) {
        Some("int32") => (Some(f64::from(i32::MIN)), Some(f64::from(i32::MAX))),
        Some("uint32") => (Some(0.0), Some(f64::from(u32::MAX))),
        _ => (None, None),
    }
}

/// Where a mapping begins: its first key, or its bracket.
fn head(node: &Node) -> Span {
    match &node.kind {
        Kind::Map(entries) => match entries.first() {
            Some(entry) if entry.key_span.start == node.span.start => entry.key_span,
            _ => node.span,
        },
        _ => node.span,
    }
}

fn values_phrase(allowed: &[&Value]) -> String {
    let names = allowed.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    match names.collect::<Vec<_>>().as_slice() {
        [only] => format!("`{only}`"),
        names => format!("one of {}", listed(names, "or")),
    }
}

/// `` `a`, `b` and `c` ``.
fn listed<S: AsRef<str>>(names: impl IntoIterator<Item = S>, conjunction: &str) -> String {
    let mut quoted: Vec<String> = names.into_iter().map(|name| format!("`{}`", name.as_ref())).collect();
    match quoted.pop() {
        Some(last) if quoted.is_empty() => last,
        Some(last) => format!("{} {conjunction} {last}", quoted.join(", ")),
        None => String::new(),
    }
}

/// `a, b or c`, each once.
fn alternatives(phrases: impl Iterator<Item = String>) -> String {
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
fn first_sentence(doc: &str) -> String {
    let paragraph = doc.split("\n\n").next().unwrap_or(doc);
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let ends = |end: &usize| line[*end..].chars().nth(2).is_none_or(char::is_uppercase);
    let end = line.match_indices(". ").map(|(end, _)| end).find(ends).unwrap_or(line.len());
    line[..end].trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use expect_test::{Expect, expect};
    use proptest::prelude::*;
    use schemars::{JsonSchema, schema_for};
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::diagnostic::Sources;
    use crate::yaml;

    /// Parameters of an invented operator that have every shape serde knows.
    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields, rename_all = "snake_case")]
    struct Resample {
        /// Grid spacing along x, y and z. In millimetres.
        spacing_mm: Option<[f64; 3]>,
        orientation: String,
        epochs: u32,
        seed: i64,
        offset: i32,
        level: u8,
        antialias: bool,
        interpolation: Interpolation,
        order: Option<Order>,
        #[schemars(range(min = 0.0, max = 1.0))]
        share: f64,
        #[schemars(length(min = 1))]
        name: String,
        #[schemars(extend("exclusiveMinimum" = 0))]
        rate: f64,
        window: (i64, String),
        #[schemars(length(min = 1))]
        paths: Vec<String>,
        tags: BTreeSet<String>,
        parts: BTreeMap<String, f64>,
        codes: BTreeMap<u32, String>,
        view: Option<View>,
        views: Vec<View>,
        path: OneOrMany,
        threshold: Option<Threshold>,
        rule: Option<Rule>,
        uncertain: Option<Uncertain>,
        nested: Option<Box<Resample>>,
        free: serde_json::Value,
    }

    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Interpolation {
        #[default]
        Linear,
        Nearest,
        Cubic,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Order {
        /// With the smallest first.
        Ascending,
        /// With the largest first.
        Descending,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "the fields exist to be described and deserialised into")]
    struct View {
        /// The window's lower and upper edge in Hounsfield units.
        window_hu: [f64; 2],
        #[serde(default)]
        pad_hu: Option<i32>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "the fields exist to be described and deserialised into")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }

    impl Default for OneOrMany {
        fn default() -> Self {
            OneOrMany::Many(Vec::new())
        }
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case", deny_unknown_fields)]
    #[expect(dead_code, reason = "the fields exist to be described and deserialised into")]
    enum Threshold {
        Youden,
        Fixed(f64),
        Cost { ratio: f64 },
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
    #[expect(dead_code, reason = "the fields exist to be described and deserialised into")]
    enum Rule {
        Youden { part: String },
        Fixed { value: f64 },
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "the fields exist to be described and deserialised into")]
    enum Uncertain {
        Number(f64),
        Word(Order),
        View(View),
    }

    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    #[expect(dead_code, reason = "the fields exist to be described")]
    struct Scan {
        /// Globs of the volumes. Relative to the spec.
        path: String,
        ids: Interpolation,
        edges_mm: Vec<[f64; 2]>,
    }

    fn mistakes(text: &str, schema: &Value, what: &str) -> String {
        let mut sources = Sources::default();
        let file = sources.add("p.yaml", text);
        let node = yaml::parse(file, text).unwrap_or_else(|mistakes| panic!("{text:?}: {mistakes:?}"));
        let mut shown = String::new();
        for mistake in check(&node, schema, what) {
            let span = mistake.labels[0].0;
            let position = sources.get(file).position(span.start);
            let written = &text[span.start..span.end];
            shown += &format!("{}:{} «{written}» {}\n", position.line, position.column, mistake.message);
            if let Some(help) = &mistake.help {
                shown += &format!("  help: {help}\n");
            }
        }
        shown
    }

    /// The mistakes of parameters; that there are some is also what deserialisation says.
    fn resample(text: &str, expected: Expect) {
        let shown = mistakes(text, &schema_for!(Resample).to_value(), "volumes.resample");
        let file = Sources::default().add("p.yaml", text);
        let json = yaml::parse(file, text).expect("it is well formed").to_json();
        let deserialised = serde_json::from_value::<Resample>(json);
        assert!(deserialised.is_err(), "serde takes {text:?}, so it has no mistake");
        expected.assert_eq(&shown);
    }

    fn scan(text: &str, expected: Expect) {
        expected.assert_eq(&mistakes(text, &schema_for!(Scan).to_value(), "volumes.scan"));
    }

    #[test]
    fn what_is_right_has_no_mistakes() {
        let text = "
spacing_mm: [1, 1.5, 3]
orientation: RAS
epochs: 5
seed: -7
antialias: true
interpolation: nearest
order: ascending
share: 1
name: x
rate: 0.1
window: [1, a]
paths: [a]
tags: [a, b]
parts: {train: 0.9, val: 1}
codes: {1: a, 2: b}
view: {window_hu: [-1000, 200], pad_hu: ~}
views: [{window_hu: [0, 1], pad_hu: -1000}]
path: [a, b]
threshold: {cost: {ratio: 2}}
rule: {rule: fixed, value: 0.5}
uncertain: {window_hu: [0, 1]}
nested: {threshold: youden, rule: ~, uncertain: descending, path: a}
free: {anything: [goes, 1]}
";
        let file = Sources::default().add("p.yaml", text);
        let json = yaml::parse(file, text).expect("it is well formed").to_json();
        serde_json::from_value::<Resample>(json).expect("serde takes it");
        assert_eq!(mistakes(text, &schema_for!(Resample).to_value(), "volumes.resample"), "");
    }

    #[test]
    fn unknown_keys() {
        resample(
            "spacng_mm: [1, 1, 1]\n",
            expect![[r#"
            1:1 «spacng_mm» `spacng_mm` is not a parameter of volumes.resample
              help: did you mean `spacing_mm`?
        "#]],
        );
        resample(
            "view: {window_hu: [0, 1], window: 3}\n",
            expect![[r#"
            1:27 «window» `window` is not a key of `view`
              help: there are `window_hu` and `pad_hu`
        "#]],
        );
        resample(
            "view: {window_hu: [0, 1], zoom: 3}\n",
            expect![[r#"
            1:27 «zoom» `zoom` is not a key of `view`
              help: there are `window_hu` and `pad_hu`
        "#]],
        );
        resample(
            "views: [{window_hu: [0, 1]}, {window_hu: [0, 1], padhu: 3}]\n",
            expect![[r#"
            1:50 «padhu» `padhu` is not a key of item 2 of `views`
              help: did you mean `pad_hu`?
        "#]],
        );
        let none = json!({"type": "object", "properties": {}, "additionalProperties": false});
        expect![[r#"
            1:1 «x» `x` is not a parameter of predict
              help: predict takes no parameters
        "#]]
        .assert_eq(&mistakes("x: 1\n", &none, "predict"));
    }

    #[test]
    fn keys_of_a_file_are_no_parameters() {
        let schema = schema_for!(Scan).to_value();
        expect![[r#"
            1:1 «findngs» `findngs` is not a key of a finding pack
              help: there are `path`, `ids` and `edges_mm`
            1:1 «findngs» `path` is missing: a finding pack needs it
              help: add `path`, text: Globs of the volumes
            1:1 «findngs» `ids` is missing: a finding pack needs it
              help: add `ids`, one of `linear`, `nearest` or `cubic`
            1:1 «findngs» `edges_mm` is missing: a finding pack needs it
              help: add `edges_mm`, a list of lists of numbers
        "#]]
        .assert_eq(&mistakes("findngs: []\n", &schema, "a finding pack"));
    }

    #[test]
    fn closest_names() {
        assert_eq!(closest("spacing", ["orientation", "spacing_mm"]), Some("spacing_mm"));
        assert_eq!(closest("lr_max", ["lr", "epochs"]), Some("lr"));
        assert_eq!(closest("id", ["ids", "path"]), Some("ids"));
        assert_eq!(closest("Épochs", ["epochs"]), Some("epochs"));
        assert_eq!(closest("a", ["b", "c"]), None);
        assert_eq!(closest("zoom", ["crop", "canvas"]), None);
        assert_eq!(closest("", ["crop"]), None);
    }

    #[test]
    fn missing_keys() {
        scan(
            "ids: linear\n",
            expect![[r#"
            1:1 «ids» `path` is missing: volumes.scan needs it
              help: add `path`, text: Globs of the volumes
            1:1 «ids» `edges_mm` is missing: volumes.scan needs it
              help: add `edges_mm`, a list of lists of numbers
        "#]],
        );
        scan(
            "",
            expect![[r#"
            1:1 «» `path` is missing: volumes.scan needs it
              help: add `path`, text: Globs of the volumes
            1:1 «» `ids` is missing: volumes.scan needs it
              help: add `ids`, one of `linear`, `nearest` or `cubic`
            1:1 «» `edges_mm` is missing: volumes.scan needs it
              help: add `edges_mm`, a list of lists of numbers
        "#]],
        );
        resample(
            "epochs: 1\nview:\n  pad_hu: 1\n",
            expect![[r#"
            2:1 «view» `window_hu` is missing: `view` needs it
              help: add `window_hu`, a list of 2 numbers: The window's lower and upper edge in Hounsfield units
        "#]],
        );
        resample(
            "views:\n  - pad_hu: 1\n  - {}\n",
            expect![[r#"
            2:5 «pad_hu» `window_hu` is missing: item 1 of `views` needs it
              help: add `window_hu`, a list of 2 numbers: The window's lower and upper edge in Hounsfield units
            3:5 «{}» `window_hu` is missing: item 2 of `views` needs it
              help: add `window_hu`, a list of 2 numbers: The window's lower and upper edge in Hounsfield units
        "#]],
        );
    }

    #[test]
    fn misspelt_required_key_is_one_mistake() {
        scan(
            "paht: a\nids: linear\nedges_mm: []\n",
            expect![[r#"
            1:1 «paht» `paht` is not a parameter of volumes.scan
              help: did you mean `path`?
        "#]],
        );
    }

    #[test]
    fn wrong_types() {
        resample(
            "spacing_mm: fine\n",
            expect![[r#"
            1:13 «fine» expected a list of 3 numbers for `spacing_mm`, found text
        "#]],
        );
        resample(
            "spacing_mm: 1.5\n",
            expect![[r#"
            1:13 «1.5» expected a list of 3 numbers for `spacing_mm`, found a decimal number
        "#]],
        );
        resample(
            "spacing_mm: [1, two, [3]]\n",
            expect![[r#"
            1:17 «two» expected a number for item 2 of `spacing_mm`, found text
            1:22 «[3]» expected a number for item 3 of `spacing_mm`, found a list
        "#]],
        );
        resample(
            "epochs: five\n",
            expect![[r#"
            1:9 «five» expected a whole number for `epochs`, found text
        "#]],
        );
        resample(
            "epochs: '5'\n",
            expect![[r#"
            1:9 «'5'» expected a whole number for `epochs`, found text
              help: remove the quotes
        "#]],
        );
        resample(
            "epochs: 5.0\n",
            expect![[r#"
            1:9 «5.0» expected a whole number for `epochs`, found a decimal number
              help: write it without a point or an exponent
        "#]],
        );
        resample(
            "share: '0.5'\n",
            expect![[r#"
            1:8 «'0.5'» expected a number for `share`, found text
              help: remove the quotes
        "#]],
        );
        resample(
            "orientation: 7\n",
            expect![[r#"
            1:14 «7» expected text for `orientation`, found a whole number
              help: put it in quotes to make it text
        "#]],
        );
        resample(
            "orientation:\n",
            expect![[r#"
            1:12 «» expected text for `orientation`, found nothing
        "#]],
        );
        resample(
            "antialias: yes\n",
            expect![[r#"
            1:12 «yes» expected `true` or `false` for `antialias`, found text
              help: write `true`
        "#]],
        );
        resample(
            "antialias: 1\n",
            expect![[r#"
            1:12 «1» expected `true` or `false` for `antialias`, found a whole number
        "#]],
        );
        resample(
            "paths: a/*.csv\n",
            expect![[r#"
            1:8 «a/*.csv» expected a non-empty list of texts for `paths`, found text
              help: write it as a list, in `[ ]`
        "#]],
        );
        resample(
            "view: [0, 1]\n",
            expect![[r#"
            1:7 «[0, 1]» expected a mapping for `view`, found a list
        "#]],
        );
        resample(
            "parts: [train, val]\n",
            expect![[r#"
            1:8 «[train, val]» expected a mapping for `parts`, found a list
        "#]],
        );
        resample(
            "parts: {train: most}\n",
            expect![[r#"
            1:16 «most» expected a number for `parts.train`, found text
        "#]],
        );
        resample(
            "codes: {1: 2}\n",
            expect![[r#"
            1:12 «2» expected text for `codes.1`, found a whole number
              help: put it in quotes to make it text
        "#]],
        );
        resample(
            "tags: {a: 1}\n",
            expect![[r#"
            1:7 «{a: 1}» expected a list of texts for `tags`, found a mapping
        "#]],
        );
        resample(
            "[epochs, 5]\n",
            expect![[r#"
            1:1 «[epochs, 5]» expected a mapping for volumes.resample, found a list
        "#]],
        );
        resample(
            "5\n",
            expect![[r#"
            1:1 «5» expected a mapping for volumes.resample, found a whole number
        "#]],
        );
    }

    #[test]
    fn list_lengths() {
        resample(
            "spacing_mm: [1, 1]\n",
            expect![[r#"
            1:13 «[1, 1]» expected a list of 3 numbers for `spacing_mm`, found a list of 2
        "#]],
        );
        resample(
            "window: [1, a, b]\n",
            expect![[r#"
            1:9 «[1, a, b]» expected a list of 2 items for `window`, found a list of 3
        "#]],
        );
        resample(
            "window: [a, 1]\n",
            expect![[r#"
            1:10 «a» expected a whole number for item 1 of `window`, found text
            1:13 «1» expected text for item 2 of `window`, found a whole number
              help: put it in quotes to make it text
        "#]],
        );
        scan(
            "{path: a, ids: linear, edges_mm: [[0, 1], [2]]}\n",
            expect![[r#"
            1:43 «[2]» expected a list of 2 numbers for item 2 of `edges_mm`, found a list of 1
        "#]],
        );
        let schema = schema_for!(Resample).to_value();
        expect![[r#"
            1:8 «[]» expected a non-empty list of texts for `paths`, found an empty list
            2:7 «''» expected text for `name`, found empty text
        "#]]
        .assert_eq(&mistakes("paths: []\nname: ''\n", &schema, "volumes.resample"));
    }

    #[test]
    fn values_outside_an_enum() {
        resample(
            "interpolation: nearist\n",
            expect![[r#"
            1:16 «nearist» `nearist` is not a value of `interpolation`
              help: did you mean `nearest`?
        "#]],
        );
        resample(
            "interpolation: lanczos\n",
            expect![[r#"
            1:16 «lanczos» `lanczos` is not a value of `interpolation`
              help: there are `linear`, `nearest` and `cubic`
        "#]],
        );
        resample(
            "interpolation: 1\n",
            expect![[r#"
            1:16 «1» expected one of `linear`, `nearest` or `cubic` for `interpolation`, found a whole number
        "#]],
        );
        resample(
            "order: Ascending\n",
            expect![[r#"
            1:8 «Ascending» `Ascending` is not a value of `order`
              help: did you mean `ascending`?
        "#]],
        );
        resample(
            "order: up\n",
            expect![[r#"
            1:8 «up» `up` is not a value of `order`
              help: there are `ascending` and `descending`
        "#]],
        );
        resample(
            "order: [ascending]\n",
            expect![[r#"
            1:8 «[ascending]» expected `ascending` or `descending` for `order`, found a list
        "#]],
        );
    }

    #[test]
    fn numbers_out_of_range() {
        resample(
            "epochs: -1\n",
            expect![[r#"
            1:9 «-1» expected at least 0 for `epochs`, found -1
        "#]],
        );
        resample(
            "epochs: 5000000000\n",
            expect![[r#"
            1:9 «5000000000» expected 0 to 4294967295 for `epochs`, found 5000000000
        "#]],
        );
        resample(
            "offset: -3000000000\n",
            expect![[r#"
            1:9 «-3000000000» expected at least -2147483648 for `offset`, found -3000000000
        "#]],
        );
        resample(
            "level: 256\n",
            expect![[r#"
            1:8 «256» expected 0 to 255 for `level`, found 256
        "#]],
        );
        let schema = schema_for!(Resample).to_value();
        expect![[r#"
            1:8 «1.5» expected 0 to 1 for `share`, found 1.5
            2:7 «0» expected more than 0 for `rate`, found 0
        "#]]
        .assert_eq(&mistakes("share: 1.5\nrate: 0\n", &schema, "volumes.resample"));
    }

    #[test]
    fn options_and_one_or_many() {
        resample(
            "path: 7\n",
            expect![[r#"
            1:7 «7» expected text or a list of texts for `path`, found a whole number
        "#]],
        );
        resample(
            "path: [a, 7]\n",
            expect![[r#"
            1:11 «7» expected text for item 2 of `path`, found a whole number
              help: put it in quotes to make it text
        "#]],
        );
        resample(
            "path: {a: b}\n",
            expect![[r#"
            1:7 «{a: b}» expected text or a list of texts for `path`, found a mapping
        "#]],
        );
        resample(
            "uncertain: acsending\n",
            expect![[r#"
            1:12 «acsending» `acsending` is not a value of `uncertain`
              help: did you mean `ascending`?
        "#]],
        );
        resample(
            "uncertain: [1]\n",
            expect![[r#"
            1:12 «[1]» expected a number, `ascending`, `descending` or a mapping for `uncertain`, found a list
        "#]],
        );
        resample(
            "uncertain: {window_hu: [1]}\n",
            expect![[r#"
            1:24 «[1]» expected a list of 2 numbers for `uncertain.window_hu`, found a list of 1
        "#]],
        );
    }

    #[test]
    fn enums_with_values() {
        resample(
            "threshold: yuoden\n",
            expect![[r#"
            1:12 «yuoden» `yuoden` is not a value of `threshold`
              help: did you mean `youden`?
        "#]],
        );
        resample(
            "threshold: fixed\n",
            expect![[r#"
            1:12 «fixed» `fixed` needs a value in `threshold`
              help: write `{fixed: …}`, with a number
        "#]],
        );
        resample(
            "threshold: {fixed: high}\n",
            expect![[r#"
            1:20 «high» expected a number for `threshold.fixed`, found text
        "#]],
        );
        resample(
            "threshold: {fxied: 1}\n",
            expect![[r#"
            1:13 «fxied» `fxied` is not a key of `threshold`
              help: did you mean `fixed`?
        "#]],
        );
        resample(
            "threshold: {cost: {}}\n",
            expect![[r#"
            1:13 «cost» `ratio` is missing: `threshold.cost` needs it
              help: add `ratio`, a number
        "#]],
        );
        resample(
            "threshold: {}\n",
            expect![[r#"
            1:1 «threshold» expected one of `fixed` or `cost` in `threshold`, found nothing
        "#]],
        );
        resample(
            "threshold: 0.5\n",
            expect![[r#"
            1:12 «0.5» expected `youden`, `{fixed: …}` or `{cost: …}` for `threshold`, found a decimal number
        "#]],
        );
    }

    #[test]
    fn enums_with_a_tag() {
        resample(
            "rule: {rule: fixed, value: high}\n",
            expect![[r#"
            1:28 «high» expected a number for `rule.value`, found text
        "#]],
        );
        resample(
            "rule: {rule: fixd, value: 1}\n",
            expect![[r#"
            1:14 «fixd» `fixd` is not a value of `rule.rule`
              help: did you mean `fixed`?
        "#]],
        );
        resample(
            "rule: {value: 1}\n",
            expect![[r#"
            1:1 «rule» `rule` is missing: `rule` needs it
              help: add `rule`, one of `youden` or `fixed`
        "#]],
        );
        resample(
            "rule: {rule: youden, value: 1}\n",
            expect![[r#"
            1:22 «value» `value` is not a key of `rule`
              help: there are `rule` and `part`
            1:1 «rule» `part` is missing: `rule` needs it
              help: add `part`, text
        "#]],
        );
        resample(
            "rule: {rule: 1}\n",
            expect![[r#"
            1:14 «1» expected one of `youden` or `fixed` for `rule.rule`, found a whole number
        "#]],
        );
        resample(
            "rule: fixed\n",
            expect![[r#"
            1:7 «fixed» expected a mapping for `rule`, found text
        "#]],
        );
    }

    #[test]
    fn all_mistakes_are_found_at_any_depth() {
        resample(
            "nested:\n  nested: {epochs: x, spacing_mm: [1]}\n  nope: 1\nviews: [{window_hu: 1}, 2]\norder: up\n",
            expect![[r#"
                2:20 «x» expected a whole number for `nested.nested.epochs`, found text
                2:35 «[1]» expected a list of 3 numbers for `nested.nested.spacing_mm`, found a list of 1
                3:3 «nope» `nope` is not a key of `nested`
                  help: there are `spacing_mm`, `orientation`, `epochs`, `seed`, `offset`, `level`, `antialias`, `interpolation`, `order`, `share`, `name`, `rate`, `window`, `paths`, `tags`, `parts`, `codes`, `view`, `views`, `path`, `threshold`, `rule`, `uncertain`, `nested` and `free`
                4:21 «1» expected a list of 2 numbers for `window_hu` in item 1 of `views`, found a whole number
                4:25 «2» expected a mapping for item 2 of `views`, found a whole number
                5:8 «up» `up` is not a value of `order`
                  help: there are `ascending` and `descending`
            "#]],
        );
    }

    #[test]
    fn flattened_enums_bring_their_keys() {
        let schema = json!({
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "required": ["a"],
            "unevaluatedProperties": false,
            "oneOf": [
                {"type": "object", "properties": {"kind": {"const": "x"}, "b": {"type": "string"}}, "required": ["kind"]},
                {"type": "object", "properties": {"kind": {"const": "y"}, "c": {"type": "string"}}, "required": ["kind"]},
            ],
        });
        assert_eq!(mistakes("{a: 1, kind: x, b: z}\n", &schema, "a file"), "");
        expect![[r#"
            1:11 «b» `b` is not a key of a file
              help: there are `kind`, `c` and `a`
            1:1 «{kind: y, b: z}» `a` is missing: a file needs it
              help: add `a`, a whole number
        "#]]
        .assert_eq(&mistakes("{kind: y, b: z}\n", &schema, "a file"));
    }

    #[test]
    fn schemas_that_it_does_not_know_let_everything_pass() {
        for schema in [
            json!(true),
            json!({}),
            json!({"$ref": "#/$defs/gone"}),
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}),
            json!({"type": 7, "items": 3, "required": "x", "enum": 5, "anyOf": 1}),
            json!({"not": {"type": "object"}, "if": true, "contains": {}, "multipleOf": 2}),
        ] {
            for text in ["a: 1\n", "[1, x]\n", "5\n", "", "x\n"] {
                assert_eq!(mistakes(text, &schema, "a file"), "", "{schema} {text:?}");
            }
        }
    }

    #[test]
    fn schemas_that_go_in_a_circle_end() {
        let lists = json!({"type": "array", "items": {"$ref": "#"}});
        assert_eq!(mistakes("[[], [[]]]\n", &lists, "a tree"), "");
        expect![[r#"
            1:8 «x» expected a list of lists of lists for item 1 of item 1 of item 2 of a tree, found text
        "#]]
        .assert_eq(&mistakes("[[], [[x]]]\n", &lists, "a tree"));
    }

    #[test]
    fn first_sentences() {
        assert_eq!(first_sentence("One\nline. Another.\n\nMore."), "One line");
        assert_eq!(first_sentence("A rate, e.g. 0.1, i.e. small."), "A rate, e.g. 0.1, i.e. small");
        assert_eq!(first_sentence(""), "");
    }

    #[test]
    fn alias_is_wrong_where_it_is_used_and_its_insides_where_they_are_written() {
        resample(
            "free: &v {window: 1}\nview: *v\nspacing_mm: *v\n",
            expect![[r#"
            1:11 «window» `window` is not a key of `view`
              help: did you mean `window_hu`?
            3:13 «*v» expected a list of 3 numbers for `spacing_mm`, found a mapping
        "#]],
        );
    }

    /// Values that are right for some parameter and wrong for others.
    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            prop::sample::select(vec![-3_000_000_000_i64, -1, 0, 1, 2, 255, 256, 5_000_000_000])
                .prop_map(Value::from),
            prop::sample::select(vec![-1.5, 0.5, 2.0]).prop_map(Value::from),
            prop::sample::select(vec!["", "nearest", "ascending", "youden", "fixed", "x", "7", "true"])
                .prop_map(Value::from),
        ];
        let keys = vec![
            "window_hu",
            "pad_hu",
            "rule",
            "part",
            "value",
            "fixed",
            "cost",
            "ratio",
            "epochs",
            "view",
            "7",
        ];
        leaf.prop_recursive(3, 12, 3, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(prop::sample::select(keys.clone()), inner, 0..3).prop_map(
                    |map| { map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Value>() }
                ),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// A parameter has mistakes if and only if serde refuses it, but that serde also takes a list of a struct's
        /// fields for the struct. Left out are the parameters with a bound that only the schema knows, and keys
        /// that are numbers, which are left to serde.
        #[test]
        fn agrees_with_deserialisation(
            key in prop::sample::select(vec![
                "spacing_mm", "orientation", "epochs", "seed", "offset", "level", "antialias", "interpolation", "order",
                "window", "tags", "parts", "view", "views", "path", "threshold", "rule", "uncertain", "free", "else",
            ]),
            value in any_value(),
        ) {
            let text = json!({ key: value }).to_string();
            let file = Sources::default().add("p.yaml", text.as_str());
            let node = yaml::parse(file, &text).expect("JSON is YAML");
            let found = check(&node, &schema_for!(Resample).to_value(), "volumes.resample");
            let deserialised = serde_json::from_value::<Resample>(node.to_json());
            let has_structs = matches!(key, "view" | "views" | "threshold" | "rule" | "uncertain");
            if has_structs && text.contains('[') {
                prop_assert!(!found.is_empty() || deserialised.is_ok(), "{text} {deserialised:?}");
            } else {
                prop_assert_eq!(found.is_empty(), deserialised.is_ok(), "{} {:?} {:?}", text, found, deserialised);
            }
        }
    }
}
