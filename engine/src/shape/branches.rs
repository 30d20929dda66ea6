//! Values of more than one shape: options and enums, and which of the branches is meant.

use serde_json::Value;

use super::phrase::{alternatives, listed};
use super::schema::{
    MOST_NESTED, allowed_values, branches, fits, merge, node_may_be, object_of, required, types,
};
use super::{Checker, Object, Place, closest};
use crate::diagnostic::Diagnostic;
use crate::yaml::{Entry, Kind, Node};

impl Checker<'_> {
    pub(super) fn one_of(
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
pub(super) fn wrapper(schema: &Object) -> Option<(&String, &Value)> {
    let properties = schema.get("properties")?.as_object()?;
    let (name, value) = properties.iter().next()?;
    (properties.len() == 1 && required(schema).eq([name.as_str()])).then_some((name, value))
}
