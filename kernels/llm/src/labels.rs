//! From an answer to one label per finding.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// What was asked, and so what an answer must say.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The findings that were asked about.
    pub findings: &'a [String],
    /// The states that each may have.
    pub states: &'a [&'a str],
    /// Whether each state comes with the words of the report that it rests on.
    pub evidence: bool,
}

/// What an answer says of one finding.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// One of the states that were asked for.
    pub state: String,
    /// The words that the model quotes for it, where it was asked to and does; whether the report has them is not
    /// checked here.
    pub evidence: Option<String>,
    /// From 0 to 1, where probabilities were asked for.
    pub probabilities: Option<Probabilities>,
}

/// How likely a model takes each answer to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Probabilities {
    /// Of each state, in the order of [`Asked::states`]; they sum to 1.
    States {
        /// One for each state.
        each: Vec<f64>,
        /// The share of all that the model might have said that lies on the states, where the endpoint tells.
        mass: Option<f64>,
    },
    /// Of a predicate.
    True(f64),
}

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
    /// The answer is no list of decisions.
    NoDecisions,
    /// The model refused to say anything about some findings.
    Refused {
        /// The findings, in order of their names.
        findings: Vec<String>,
    },
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

/// Reads one label per finding from the text of an answer.
///
/// The rule, in order:
/// 1. Everything up to the last `</think>` is reasoning and skipped; a `<think>` left open is an error.
/// 2. What stands from the first `{` to the last `}` must be one JSON object, so code fences and sentences around
///    it do no harm, and a second object is an error.
/// 3. The object must give each finding exactly one of the states, as a string, and have no other key. With
///    [`Asked::evidence`] the value is an object of `state` and `evidence`.
/// 4. A state is read without regard to case, spaces and hyphens: `Not mentioned` is `not_mentioned`.
///
/// # Errors
/// Anything else. No finding is ever filled in.
pub fn parse_answer(text: &str, asked: &Asked<'_>) -> Result<BTreeMap<String, Label>, AnswerError> {
    let answer = text.rsplit_once("</think>").map_or(text, |(_, answer)| answer);
    if answer.contains("<think>") {
        return Err(AnswerError::UnfinishedReasoning);
    }
    let (Some(start), Some(end)) = (answer.find('{'), answer.rfind('}')) else {
        return Err(AnswerError::NoObject);
    };
    let object = answer.get(start..=end).ok_or(AnswerError::NoObject)?;
    let Entries(entries) = serde_json::from_str(object).map_err(|_| AnswerError::NotOneObject)?;
    let labels = entries.into_iter().map(|(finding, value)| (finding, stated(&value, asked)));
    check(labels, asked)
}

/// Reads one label per finding from a list of decisions, by the names of the questions. The state of a choice is its
/// likeliest one; a predicate says the first state from 0.5 on and else the second.
///
/// # Errors
/// Where the text is no such list, a finding has no answer or a refusal, a choice lacks a state, or a probability is
/// none.
pub fn parse_decisions(text: &str, asked: &Asked<'_>) -> Result<BTreeMap<String, Label>, AnswerError> {
    let Ok(Value::Array(answers)) = serde_json::from_str(text) else { return Err(AnswerError::NoDecisions) };
    let name = |answer: &Value| answer["name"].as_str().unwrap_or_default().to_owned();
    let refused: BTreeSet<String> =
        answers.iter().filter(|answer| answer["type"] == "refusal").map(name).collect();
    if !refused.is_empty() {
        return Err(AnswerError::Refused { findings: refused.into_iter().collect() });
    }
    check(answers.iter().map(|answer| (name(answer), decided(answer, asked))), asked)
}

/// The label that a value gives, if it does.
fn stated(value: &Value, asked: &Asked<'_>) -> Option<Label> {
    let (state, evidence) = match value {
        Value::String(state) if !asked.evidence => (state.as_str(), None),
        Value::Object(parts) if asked.evidence => {
            let quote = parts.get("evidence").and_then(Value::as_str).map(str::trim);
            (parts.get("state")?.as_str()?, quote.filter(|quote| !quote.is_empty()))
        }
        _ => return None,
    };
    let plain = state.trim().to_lowercase().replace([' ', '-'], "_");
    let state = asked.states.iter().find(|known| **known == plain)?;
    Some(Label { state: (*state).to_owned(), evidence: evidence.map(str::to_owned), probabilities: None })
}

/// The label that a decision gives, if it does.
fn decided(answer: &Value, asked: &Asked<'_>) -> Option<Label> {
    let label = |state: &str, probabilities| {
        Some(Label { state: state.to_owned(), evidence: None, probabilities: Some(probabilities) })
    };
    if answer["type"] == "predicate" {
        let likely = probability(&answer["probability"])?;
        let state = asked.states.get(usize::from(likely < 0.5))?;
        return label(state, Probabilities::True(likely));
    }
    let listed = answer["probabilities"].as_array()?;
    let of_state = |state: &&str| {
        let entry = listed.iter().find(|entry| entry["value"] == **state)?;
        probability(&entry["probability"])
    };
    let each: Vec<f64> = asked.states.iter().map(of_state).collect::<Option<_>>()?;
    let sum: f64 = each.iter().sum();
    let likeliest = (0..each.len()).max_by(|a, b| each[*a].total_cmp(&each[*b]).then(b.cmp(a)))?;
    if sum <= 0.0 {
        return None;
    }
    let each = each.into_iter().map(|p| p / sum).collect();
    let mass = probability(&answer["label_mass"]);
    label(asked.states[likeliest], Probabilities::States { each, mass })
}

fn probability(value: &Value) -> Option<f64> {
    value.as_f64().filter(|p| (0.0..=1.0).contains(p))
}

fn check(
    labels: impl Iterator<Item = (String, Option<Label>)>,
    asked: &Asked<'_>,
) -> Result<BTreeMap<String, Label>, AnswerError> {
    let findings: BTreeSet<&String> = asked.findings.iter().collect();
    let mut all = BTreeMap::new();
    let (mut wrong, mut repeated, mut extra) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut seen = BTreeSet::new();
    for (finding, label) in labels {
        if !findings.contains(&finding) {
            extra += 1;
        } else if !seen.insert(finding.clone()) {
            repeated.insert(finding);
        } else {
            match label {
                Some(label) => drop(all.insert(finding, label)),
                None => drop(wrong.insert(finding)),
            }
        }
    }
    let missing: Vec<String> =
        findings.into_iter().filter(|finding| !seen.contains(*finding)).cloned().collect();
    if missing.is_empty() && wrong.is_empty() && repeated.is_empty() && extra == 0 {
        return Ok(all);
    }
    let list = |names: BTreeSet<String>| names.into_iter().collect();
    Err(AnswerError::Mismatch { missing, wrong: list(wrong), repeated: list(repeated), extra })
}

/// The entries of an object as they stand, repetitions included, which a map would hide.
struct Entries(Vec<(String, Value)>);

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
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
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
            Self::NoDecisions => f.write_str("the answer is no list of decisions, expected one per question"),
            Self::Refused { findings } => {
                write!(f, "the model refused to answer about {}", findings.join(", "))
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

    fn findings() -> Vec<String> {
        ["effusion", "nodule"].map(str::to_owned).to_vec()
    }

    fn parse(text: &str) -> Result<BTreeMap<String, Label>, AnswerError> {
        let states = &["present", "absent", "not_mentioned"];
        parse_answer(text, &Asked { findings: &findings(), states, evidence: false })
    }

    fn label(state: &str) -> Label {
        Label { state: state.into(), evidence: None, probabilities: None }
    }

    #[test]
    fn reasoning_fences_and_sentences_around_the_object_do_no_harm() {
        let object = r#"{"effusion": "present", "nodule": "absent"}"#;
        let expected = parse(object).unwrap();
        assert_eq!(expected["effusion"], label("present"));
        assert_eq!(expected["nodule"], label("absent"));
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

    #[test]
    fn a_state_is_read_without_regard_to_case_spaces_and_hyphens() {
        let labels = parse(r#"{"effusion": "Not mentioned", "nodule": " ABSENT"}"#).unwrap();
        assert_eq!(labels["effusion"], label("not_mentioned"));
        assert_eq!(labels["nodule"], label("absent"));
        assert!(parse(r#"{"effusion": "none", "nodule": "absent"}"#).is_err());
    }

    #[test]
    fn evidence_comes_with_its_state_where_it_was_asked_for() {
        let findings = findings();
        let asked = Asked { findings: &findings, states: &["present", "absent"], evidence: true };
        let text = r#"{"effusion": {"state": "present", "evidence": " small effusion "},
            "nodule": {"state": "absent", "evidence": ""}}"#;
        let labels = parse_answer(text, &asked).unwrap();
        assert_eq!(labels["effusion"], Label { evidence: Some("small effusion".into()), ..label("present") });
        assert_eq!(labels["nodule"], label("absent"));
        assert!(parse_answer(r#"{"effusion": "present", "nodule": "absent"}"#, &asked).is_err());
        assert!(parse(text).is_err());
    }

    fn decisions(text: &str) -> Result<BTreeMap<String, Label>, AnswerError> {
        let findings = findings();
        parse_decisions(text, &Asked { findings: &findings, states: &["present", "absent"], evidence: false })
    }

    #[test]
    fn decisions_give_the_likeliest_state_and_every_probability() {
        let text = r#"[
            {"type": "choice", "name": "nodule", "choice": "present", "label_mass": 0.5, "probabilities": [
                {"value": "absent", "probability": 0.3}, {"value": "present", "probability": 0.1}]},
            {"type": "predicate", "name": "effusion", "probability": 0.75}
        ]"#;
        let labels = decisions(text).unwrap();
        let effusion = Label { probabilities: Some(Probabilities::True(0.75)), ..label("present") };
        assert_eq!(labels["effusion"], effusion);
        assert_eq!(labels["nodule"].state, "absent");
        let Some(Probabilities::States { each, mass }) = &labels["nodule"].probabilities else { panic!() };
        assert!((each[0] - 0.25).abs() < 1e-12 && (each[1] - 0.75).abs() < 1e-12, "{each:?}");
        assert_eq!(*mass, Some(0.5));
    }

    #[test]
    fn no_decision_is_made_up() {
        let answer = |nodule: &str| {
            decisions(&format!(
                r#"[{{"type": "predicate", "name": "effusion", "probability": 0.75}}, {nodule}]"#
            ))
            .unwrap_err()
        };
        let refused = answer(r#"{"type": "refusal", "name": "nodule"}"#);
        assert_eq!(refused, AnswerError::Refused { findings: vec!["nodule".into()] });
        let wrong = AnswerError::Mismatch {
            missing: vec![],
            wrong: vec!["nodule".into()],
            repeated: vec![],
            extra: 0,
        };
        let half = r#"{"type": "choice", "name": "nodule", "probabilities": [
            {"value": "absent", "probability": 0.9}]}"#;
        assert_eq!(answer(half), wrong);
        assert_eq!(answer(r#"{"type": "predicate", "name": "nodule", "probability": 7}"#), wrong);
        assert_eq!(decisions("{}"), Err(AnswerError::NoDecisions));
    }
}
