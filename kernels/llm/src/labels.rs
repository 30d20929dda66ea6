//! From the text of an answer to one state per finding.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

/// Why a text is not an answer about the findings asked for. Messages name findings, which the asker chose, and
/// never text of the answer, which may quote a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// The reasoning before the answer has no end.
    UnfinishedReasoning,
    /// The text has no `{ … }`.
    NoObject,
    /// What stands between the first `{` and the last `}` is not exactly one JSON object.
    NotOneObject,
    /// One object, but not one state for each finding.
    Mismatch {
        /// Findings without a value, in order of their names.
        missing: Vec<String>,
        /// Findings whose value is not one of the states.
        wrong: Vec<String>,
        /// Findings that occur more than once.
        repeated: Vec<String>,
        /// Number of other keys.
        extra: usize,
    },
}

/// Reads one state per finding from the text of an answer.
///
/// The rule, in order:
/// 1. Everything up to the last `</think>` is reasoning and skipped; a `<think>` left open is an error.
/// 2. What stands from the first `{` to the last `}` must be one JSON object, so code fences and sentences around
///    it do no harm, and a second object is an error.
/// 3. The object must give each of `findings` exactly one of `states`, as a string in the same letters, and have
///    no other key.
///
/// # Errors
/// Anything else. No finding is ever filled in.
pub fn parse_answer(
    text: &str,
    findings: &[String],
    states: &[String],
) -> Result<BTreeMap<String, String>, AnswerError> {
    let answer = text.rsplit_once("</think>").map_or(text, |(_, answer)| answer);
    if answer.contains("<think>") {
        return Err(AnswerError::UnfinishedReasoning);
    }
    let (Some(start), Some(end)) = (answer.find('{'), answer.rfind('}')) else {
        return Err(AnswerError::NoObject);
    };
    let object = answer.get(start..=end).ok_or(AnswerError::NoObject)?;
    let entries: Entries = serde_json::from_str(object).map_err(|_| AnswerError::NotOneObject)?;
    check(entries, findings, states)
}

fn check(
    Entries(entries): Entries,
    findings: &[String],
    states: &[String],
) -> Result<BTreeMap<String, String>, AnswerError> {
    let asked: BTreeSet<&String> = findings.iter().collect();
    let mut labels = BTreeMap::new();
    let (mut wrong, mut repeated, mut extra) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut seen = BTreeSet::new();
    for (finding, state) in entries {
        if !asked.contains(&finding) {
            extra += 1;
        } else if !seen.insert(finding.clone()) {
            repeated.insert(finding);
        } else {
            match state.filter(|state| states.contains(state)) {
                Some(state) => drop(labels.insert(finding, state)),
                None => drop(wrong.insert(finding)),
            }
        }
    }
    let missing: Vec<String> =
        asked.into_iter().filter(|finding| !seen.contains(*finding)).cloned().collect();
    if missing.is_empty() && wrong.is_empty() && repeated.is_empty() && extra == 0 {
        return Ok(labels);
    }
    let list = |names: BTreeSet<String>| names.into_iter().collect();
    Err(AnswerError::Mismatch { missing, wrong: list(wrong), repeated: list(repeated), extra })
}

/// The entries of an object as they stand, repetitions included, which a map would hide. A value that is no string
/// is `None`.
struct Entries(Vec<(String, Option<String>)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key()? {
            let StringOrOther(value) = map.next_value()?;
            entries.push((key, value));
        }
        Ok(Entries(entries))
    }
}

struct StringOrOther(Option<String>);

impl<'de> Deserialize<'de> for StringOrOther {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(match value {
            serde_json::Value::String(text) => Some(text),
            _ => None,
        }))
    }
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnfinishedReasoning => {
                f.write_str("the reasoning has no end, expected an answer after `</think>`")
            }
            Self::NoObject => f.write_str("the answer has no JSON object, expected one state per finding"),
            Self::NotOneObject => {
                f.write_str("the answer is not exactly one JSON object, expected one state per finding")
            }
            Self::Mismatch { missing, wrong, repeated, extra } => {
                let listed = |what: &str, names: &[String]| {
                    (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")))
                };
                let parts: Vec<String> = [
                    listed("no state", missing),
                    listed("a value that is no state", wrong),
                    listed("more than one state", repeated),
                    (*extra > 0).then(|| format!("{extra} keys that are no finding")),
                ]
                .into_iter()
                .flatten()
                .collect();
                write!(f, "{}; expected exactly one state for each finding", parts.join("; "))
            }
        }
    }
}

impl std::error::Error for AnswerError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BTreeMap<String, String>, AnswerError> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        parse_answer(text, &owned(&["effusion", "nodule"]), &owned(&["present", "absent"]))
    }

    #[test]
    fn reasoning_fences_and_sentences_around_the_object_do_no_harm() {
        let object = r#"{"effusion": "present", "nodule": "absent"}"#;
        let expected = parse(object).unwrap();
        assert_eq!(expected["effusion"], "present");
        assert_eq!(expected["nodule"], "absent");
        for text in [
            format!("```json\n{object}\n```"),
            format!("<think>maybe {{\"effusion\": \"absent\"}}</think>\n{object}"),
            format!("Here you are: {object} I hope this helps."),
        ] {
            assert_eq!(parse(&text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn anything_but_one_object_is_an_error() {
        assert_eq!(parse("no findings"), Err(AnswerError::NoObject));
        assert_eq!(parse("} {"), Err(AnswerError::NoObject));
        assert_eq!(parse("{\"effusion\": \"present\""), Err(AnswerError::NoObject));
        let twice =
            r#"{"effusion": "present", "nodule": "absent"} {"effusion": "present", "nodule": "absent"}"#;
        assert_eq!(parse(twice), Err(AnswerError::NotOneObject));
        assert_eq!(parse("<think>{\"effusion\": \"present\"}"), Err(AnswerError::UnfinishedReasoning));
    }

    #[test]
    fn what_does_not_match_the_findings_is_named_without_text_of_the_answer() {
        let error = parse(r#"{"effusion": "a small one in Mr Smith", "Mr Smith": "absent", "nodule": 1}"#);
        let message = error.unwrap_err().to_string();
        assert_eq!(
            message,
            "a value that is no state: effusion, nodule; 1 keys that are no finding; expected exactly one state \
             for each finding"
        );
        let message = parse(r#"{"effusion": "present", "effusion": "absent"}"#).unwrap_err().to_string();
        assert_eq!(
            message,
            "no state: nodule; more than one state: effusion; expected exactly one state for each finding"
        );
    }
}
