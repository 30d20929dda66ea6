//! A finding pack: which findings a report is read for, and the words that name them.

use crate::cues::{Cues, Languages};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A set of findings with their definitions and rules, as it is written in a pack file.
///
/// The order of the findings is a contract: labels, prompts and columns follow it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pack {
    /// Name of the pack, for example `ct-rate-18`.
    pub name: String,
    /// Language of the reports, or several, which select the built-in cues.
    #[serde(default)]
    pub language: Languages,
    /// Cues in addition to the built-in ones of the languages.
    #[serde(default)]
    pub cues: Cues,
    /// The findings, in the order of the labels.
    pub findings: Vec<Finding>,
    /// By name: how labels of another set become labels of this one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub maps: BTreeMap<String, Mapping>,
}

/// One finding of a pack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Identifier in labels and columns, for example `lung_nodule`.
    pub id: String,
    /// Name for people, for example `Lung nodule`.
    pub name: String,
    /// The labelling convention in one or two sentences: what counts and what does not.
    #[serde(default)]
    pub definition: String,
    /// Words and phrases that name the finding.
    ///
    /// They match whole words without regard to case; spaces and hyphens are interchangeable, and
    /// the last word also matches in its plural.
    #[serde(default)]
    pub synonyms: Vec<String>,
    /// Patterns for what plain synonyms cannot say.
    #[serde(default)]
    pub rules: Rules,
    /// What an uncertain mention is worth as a target. The labeller reports `uncertain` in any case.
    #[serde(default)]
    pub uncertain: Uncertain,
    /// What a report that does not mention the finding is worth as a target.
    #[serde(default, skip_serializing_if = "is_default")]
    pub not_mentioned: NotMentioned,
}

/// Patterns of one finding.
///
/// A pattern is a regular expression of the `regex` crate (no look-around). It matches whole words
/// without regard to case, a space matches any run of white space, and ` ... ` matches up to five
/// other words. A pattern is matched within one sentence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Each match is a mention.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<String>,
    /// A match of `term` is a mention where `context` matches in the same clause.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<Term>,
    /// No word of a clause in which one of these matches is a mention.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    /// Phrases that contain a synonym and mean something else: a match that begins inside one is
    /// not a mention.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// Each match says that the finding is absent, such as `heart size is normal`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<String>,
    /// Mentions that another place of the report takes back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken_back: Vec<TakenBack>,
}

/// A phrase whose mentions count as denied where the report says `by`, in whatever sentence: a fracture that was operated
/// and of which no line is visible any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakenBack {
    /// The phrase: a mention that begins inside a match of it is meant.
    pub phrase: String,
    /// What must match anywhere in the report's sections. No negation is looked for around it: it says itself what it
    /// denies.
    pub by: String,
}

/// A pattern that counts only near another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// The mention.
    pub term: String,
    /// What must match somewhere in the clause of the mention.
    pub context: String,
}

/// Value of an uncertain mention when labels become targets; see [`Finding::uncertain`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Uncertain {
    /// An uncertain finding counts as present.
    Present,
    /// An uncertain finding counts as absent.
    Absent,
    /// An uncertain finding is left out of training and scoring.
    #[default]
    Mask,
}

/// Value of silence when labels become targets; see [`Finding::not_mentioned`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotMentioned {
    /// A report lists what is there: silence means that the finding is absent.
    #[default]
    Absent,
    /// Silence says nothing: the finding is left out of training and scoring.
    Mask,
}

/// Findings made from the findings of another label set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// By finding of this set: the findings of the other set, any of which makes it.
    pub from: BTreeMap<String, Vec<String>>,
    /// Findings of the other set that are left out; `*` is all that nothing is made from. Others keep their ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A pack that no labeller can be built from, with every mistake in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackError {
    /// Name of the pack.
    pub pack: String,
    /// The mistakes, in the order of the pack. Never empty.
    pub mistakes: Vec<Mistake>,
}

/// One mistake in a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Id of the finding, or `None` where the mistake concerns the whole pack.
    pub finding: Option<String>,
    /// Where it stands, for example `rules.any[2]`.
    pub place: String,
    /// What is there.
    pub pattern: String,
    /// What is wrong with it and what to do.
    pub problem: String,
}

impl Pack {
    /// What is wrong with the pack apart from its patterns.
    pub(crate) fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        if self.language.iter().next().is_none() {
            mistakes.push(Mistake {
                finding: None,
                place: "language".to_owned(),
                pattern: self.name.clone(),
                problem: "has no language: write language: en, de or [de, en]".to_owned(),
            });
        }
        if self.findings.is_empty() {
            mistakes.push(Mistake {
                finding: None,
                place: "findings".to_owned(),
                pattern: self.name.clone(),
                problem: "has no findings: list at least one with an id and synonyms".to_owned(),
            });
        }
        for (index, finding) in self.findings.iter().enumerate() {
            let problem = if finding.id.trim().is_empty() {
                "is empty: give the finding an id such as lung_nodule"
            } else if self.findings[..index].iter().any(|earlier| earlier.id == finding.id) {
                "is the id of an earlier finding: give each finding its own"
            } else if finding.synonyms.is_empty() && finding.rules.finds_nothing() {
                "has neither synonyms nor rules.any nor rules.with, so that no text would name it: add a synonym"
            } else {
                continue;
            };
            mistakes.push(Mistake {
                finding: Some(finding.id.clone()),
                place: format!("findings[{index}].id"),
                pattern: finding.id.clone(),
                problem: problem.to_owned(),
            });
        }
        mistakes
    }
}

impl Rules {
    fn finds_nothing(&self) -> bool {
        self.any.is_empty() && self.with.is_empty()
    }
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pack {:?} has {} mistake(s)", self.pack, self.mistakes.len())?;
        for mistake in &self.mistakes {
            write!(f, "\n  {mistake}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.finding {
            Some(id) => write!(f, "finding {id:?}, ")?,
            None => f.write_str("pack, ")?,
        }
        write!(f, "{} {:?}: {}", self.place, self.pattern, self.problem)
    }
}

impl std::error::Error for PackError {}
