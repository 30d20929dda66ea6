//! Which steps a run may do: `step`, `+step`, `step+`, `tag:x`, globs.
//!
//! Selected steps are run; of the others, those that a selected step reads (and what they read) are needed, and
//! their stored results must hold, since nothing may be made of a stale result.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;

use crate::operator::nearest;
use crate::pipeline::Pipeline;

/// The steps that were selected. Made for one pipeline.
#[derive(Debug, Clone)]
pub struct Selection {
    /// By place of the node: whether it may be run.
    selected: Vec<bool>,
    /// By place of the node: whether a selected one depends on it, or it is selected itself.
    needed: Vec<bool>,
}

impl Selection {
    /// The steps that any of the selectors names: all of them where there are none.
    ///
    /// # Errors
    /// What to say of each selector that names nothing.
    pub fn parse(pipeline: &Pipeline, selectors: &[String]) -> Result<Selection, WrongSelection> {
        let nodes = &pipeline.nodes;
        if selectors.is_empty() {
            return Ok(Selection { selected: vec![true; nodes.len()], needed: vec![true; nodes.len()] });
        }
        let mut selected = vec![false; nodes.len()];
        let mut mistakes = Vec::new();
        for selector in selectors {
            let (name, upstream) = match selector.strip_prefix('+') {
                Some(rest) => (rest, true),
                None => (selector.as_str(), false),
            };
            let (name, downstream) = match name.strip_suffix('+') {
                Some(rest) => (rest, true),
                None => (name, false),
            };
            let named = matching(pipeline, name);
            if named.is_empty() {
                mistakes.push(unknown(pipeline, selector, name));
            }
            let mut all = named.clone();
            if upstream {
                all.extend(above(pipeline, &named));
            }
            if downstream {
                all.extend(below(pipeline, &named));
            }
            all.into_iter().for_each(|place| selected[place] = true);
        }
        if !mistakes.is_empty() {
            return Err(WrongSelection(mistakes));
        }
        let places: BTreeSet<usize> = (0..nodes.len()).filter(|place| selected[*place]).collect();
        let mut needed = selected.clone();
        above(pipeline, &places).into_iter().for_each(|place| needed[place] = true);
        // A contract goes with its step.
        for (place, node) in nodes.iter().enumerate() {
            if let Some(contract) = &node.contract {
                selected[place] = selected[contract.node];
                needed[place] = needed[contract.node];
            }
        }
        Ok(Selection { selected, needed })
    }

    /// Whether the node at this place may be run.
    pub fn runs(&self, place: usize) -> bool {
        self.selected[place]
    }

    /// Whether the node at this place is selected, or a selected one depends on it.
    pub fn needs(&self, place: usize) -> bool {
        self.needed[place]
    }
}

/// The places of the steps that a name, a tag or a pattern means.
fn matching(pipeline: &Pipeline, name: &str) -> BTreeSet<usize> {
    let exact = pipeline.step(name).ok().map(|node| node.name.as_str());
    let pattern = pattern(name);
    let steps = pipeline.nodes.iter().enumerate().filter(|(_, node)| node.contract.is_none());
    let meant = steps.filter(|(_, node)| match name.strip_prefix("tag:") {
        Some(tag) => node.tags.iter().any(|t| t == tag),
        None => {
            let by_pattern =
                pattern.as_ref().is_some_and(|p| p.matches(&node.name) || p.matches(&node.written));
            exact == Some(node.name.as_str()) || node.written == name || by_pattern
        }
    });
    meant.map(|(place, _)| place).collect()
}

/// A name with `*` or `?` in it; the brackets of a combination mean themselves.
fn pattern(name: &str) -> Option<glob::Pattern> {
    if !name.contains(['*', '?']) {
        return None;
    }
    let escaped: String = name
        .chars()
        .map(|character| match character {
            '*' | '?' => character.to_string(),
            other => glob::Pattern::escape(&other.to_string()),
        })
        .collect();
    glob::Pattern::new(&escaped).ok()
}

fn unknown(pipeline: &Pipeline, selector: &str, name: &str) -> String {
    let tags: BTreeSet<String> =
        pipeline.steps().flat_map(|node| &node.tags).map(|tag| format!("tag:{tag}")).collect();
    let steps: BTreeSet<&str> =
        pipeline.steps().flat_map(|node| [node.name.as_str(), node.written.as_str()]).collect();
    let (names, what): (Vec<&str>, &str) = match name.starts_with("tag:") {
        true => (tags.iter().map(String::as_str).collect(), "tags"),
        false => (steps.into_iter().collect(), "steps"),
    };
    format!("`--select {selector}` names no step; {}", nearest(name, &names, what))
}

/// The places that these read, and what those read.
fn above(pipeline: &Pipeline, places: &BTreeSet<usize>) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open: Vec<usize> = places.iter().copied().collect();
    while let Some(place) = open.pop() {
        for input in &pipeline.nodes[place].inputs {
            if found.insert(input.node) {
                open.push(input.node);
            }
        }
    }
    found
}

/// The places that read these, and those that read those. A node stands behind what it reads.
pub(crate) fn below(pipeline: &Pipeline, places: &BTreeSet<usize>) -> BTreeSet<usize> {
    let mut found: BTreeSet<usize> = BTreeSet::new();
    for (place, node) in pipeline.nodes.iter().enumerate().filter(|(_, node)| node.contract.is_none()) {
        let reads = node.inputs.iter().map(|input| input.node);
        if reads.into_iter().any(|read| places.contains(&read) || found.contains(&read)) {
            found.insert(place);
        }
    }
    found
}

/// A selected step reads a result that does not hold, of a step that is not selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stale {
    /// The step whose result does not hold.
    pub step: String,
    /// The selected step that needs it.
    pub reader: String,
    /// Why it does not hold.
    pub why: Vec<String>,
}

impl fmt::Display for Stale {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stale { step, reader, why } = self;
        write!(out, "`{step}` is stale and not selected, and `{reader}` needs it: {}; ", why.join("; "))?;
        write!(out, "select it too with --select +{reader}")
    }
}

/// What is wrong with a selection: selectors that name nothing, or stale results that it stands on; a line each.
#[derive(Debug)]
pub struct WrongSelection(pub Vec<String>);

impl fmt::Display for WrongSelection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.join("\n"))
    }
}

impl Error for WrongSelection {}

impl Selection {
    /// The selected step nearest below the node at this place.
    pub(crate) fn reader(&self, pipeline: &Pipeline, place: usize) -> String {
        let below = below(pipeline, &BTreeSet::from([place]));
        let reader = below.into_iter().find(|reader| self.runs(*reader)).unwrap_or(place);
        pipeline.nodes[reader].name.clone()
    }
}
