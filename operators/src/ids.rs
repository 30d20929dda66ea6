//! Ids: from a file's name or a cell to the row's id and the subjects that it belongs to.

use std::ops::Range;

use argent_engine::column;
use arrow::datatypes::Field;
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How ids are normalised, and which further ids follow from them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Ids {
    /// A naming scheme by its name.
    Scheme(Scheme),
    /// A regular expression with named groups; each group becomes an id column, and `id` is the whole match
    /// unless a group has that name.
    Pattern(Pattern),
}

/// A naming scheme.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// CT-RATE: `valid_1_a_2.nii.gz` is reconstruction 2 of the scan `valid_1_a` of the patient `valid_1`.
    CtRate,
}

/// A pattern of ids.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// The regular expression.
    pub pattern: String,
}

/// CT-RATE names: split, patient number, scan letters, reconstruction number.
const CT_RATE: &str =
    r"^(?<id>(?<scan>(?<patient>[A-Za-z]+_\d+)_[a-z]+)_(?<reconstruction>\d+))(\.nii(\.gz)?)?$";

/// Reads ids: knows the columns that they give and derives them from a text.
pub struct IdReader {
    pattern: Option<Regex>,
    names: Vec<String>,
}

impl IdReader {
    /// The reader of a scheme or pattern; without one, the id is the text itself.
    ///
    /// # Errors
    /// When the pattern is not a regular expression, in its own words.
    pub fn new(ids: Option<&Ids>) -> Result<IdReader, String> {
        let pattern = match ids {
            None => return Ok(IdReader { pattern: None, names: Vec::new() }),
            Some(Ids::Scheme(Scheme::CtRate)) => CT_RATE,
            Some(Ids::Pattern(p)) => &p.pattern,
        };
        let pattern =
            Regex::new(pattern).map_err(|error| format!("`{pattern}` is not a pattern: {error}"))?;
        let names = pattern.capture_names().flatten().filter(|n| *n != "id").map(str::to_owned).collect();
        Ok(IdReader { pattern: Some(pattern), names })
    }

    /// The id columns: `id`, then the derived ones.
    pub fn fields(&self) -> Vec<Field> {
        std::iter::once(column::id("id")).chain(self.names.iter().map(|n| column::id(n))).collect()
    }

    /// The names of the derived id columns.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The id columns out of which another one can be read, because their part of the text holds its part.
    pub fn holders(&self, name: &str) -> Vec<String> {
        let Some(pattern) = &self.pattern else { return Vec::new() };
        let groups = groups(pattern.as_str());
        let own = groups.iter().find(|(group, _)| group == name).map(|(_, range)| range.clone());
        let around =
            |range: &Range<usize>| own.as_ref().is_some_and(|o| range.start < o.start && o.end < range.end);
        let mut holders: Vec<String> =
            groups.iter().filter(|(_, range)| around(range)).map(|(group, _)| group.clone()).collect();
        // Without a group of its own, the id is the whole match.
        if own.is_some() && !groups.iter().any(|(group, _)| group == "id") {
            holders.push("id".to_owned());
        }
        holders
    }

    /// The id and the derived ids of a text.
    ///
    /// # Errors
    /// When the text does not have the form that the ids have; the message does not hold the text.
    pub fn read(&self, text: &str) -> Result<Vec<String>, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("the id is empty".to_owned());
        }
        let Some(pattern) = &self.pattern else { return Ok(vec![text.to_owned()]) };
        let found = pattern.captures(text).ok_or("the id does not have the form that `ids` says")?;
        let id = found.name("id").or(found.get(0)).map_or("", |m| m.as_str()).to_owned();
        let rest = self.names.iter().map(|name| match found.name(name) {
            Some(part) => Ok(part.as_str().to_owned()),
            None => Err(format!("the id has no part `{name}`")),
        });
        std::iter::once(Ok(id)).chain(rest).collect()
    }
}

/// The named groups of a regular expression, and where each stands in it.
fn groups(pattern: &str) -> Vec<(String, Range<usize>)> {
    let mut groups = Vec::new();
    let mut open: Vec<(Option<String>, usize)> = Vec::new();
    let (mut escaped, mut class_depth) = (false, 0_usize);
    for (at, c) in pattern.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => class_depth += 1,
            ']' => class_depth = class_depth.saturating_sub(1),
            _ if class_depth > 0 => {}
            '(' => open.push((name_of_group(&pattern[at..]), at)),
            ')' => {
                if let Some((Some(name), start)) = open.pop() {
                    groups.push((name, start..at));
                }
            }
            _ => {}
        }
    }
    groups
}

fn name_of_group(pattern: &str) -> Option<String> {
    let name = pattern.strip_prefix("(?<").or(pattern.strip_prefix("(?P<"))?;
    Some(name.split_once('>')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ct_rate_names_give_patient_scan_and_reconstruction() {
        let reader = IdReader::new(Some(&Ids::Scheme(Scheme::CtRate))).expect("a scheme");
        assert_eq!(reader.names(), ["scan", "patient", "reconstruction"]);
        let expected = ["valid_17_b_2", "valid_17_b", "valid_17", "2"].map(str::to_owned);
        assert_eq!(reader.read("valid_17_b_2.nii.gz"), Ok(expected.to_vec()));
        assert!(reader.read("valid_17_b").is_err());
    }

    #[test]
    fn an_id_is_held_by_those_around_it() {
        let holders = |pattern: &str, name: &str| {
            let pattern = Pattern { pattern: pattern.to_owned() };
            IdReader::new(Some(&Ids::Pattern(pattern))).expect("a pattern").holders(name)
        };
        assert_eq!(holders(CT_RATE, "patient"), ["scan", "id"]);
        assert_eq!(holders(CT_RATE, "scan"), ["id"]);
        assert_eq!(holders(CT_RATE, "id"), Vec::<String>::new());
        assert_eq!(holders(r"(?P<patient>\w+)-[()]+(?P<number>\d+)", "patient"), ["id"]);
        assert_eq!(holders(r"(?<patient>\w+)\((?<id>\d+)\)", "patient"), Vec::<String>::new());
        assert_eq!(holders(r"(?<patient>\w+)", "elsewhere"), Vec::<String>::new());
    }

    #[test]
    fn without_a_scheme_the_id_is_the_text() {
        let reader = IdReader::new(None).expect("no scheme");
        assert_eq!(reader.read(" 42 "), Ok(vec!["42".to_owned()]));
        assert!(reader.read(" ").is_err());
    }
}
