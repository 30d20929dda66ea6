//! The lexicon: which words negate, hedge, or end the reach of such a word.

use crate::{english, german};
use serde::{Deserialize, Serialize};

/// Language of the reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// English.
    #[default]
    En,
    /// German.
    De,
}

/// The languages of the reports, which select the built-in cues: one, written as `de`, or several, as `[de, en]`.
///
/// The cues of all of them are looked for in every report, so that nobody has to say which report is in which language.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "OneOrMore", into = "OneOrMore")]
pub struct Languages(Vec<Language>);

/// One language is written as its name, so that packs of one language say what they said before there were several.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(Language),
    More(Vec<Language>),
}

impl Languages {
    /// The languages, in the order of the pack.
    pub fn iter(&self) -> impl Iterator<Item = Language> {
        self.0.iter().copied()
    }
}

impl Default for Languages {
    fn default() -> Languages {
        Languages(vec![Language::default()])
    }
}

impl From<OneOrMore> for Languages {
    fn from(languages: OneOrMore) -> Languages {
        match languages {
            OneOrMore::One(language) => Languages(vec![language]),
            OneOrMore::More(languages) => Languages(languages),
        }
    }
}

impl From<Languages> for OneOrMore {
    fn from(languages: Languages) -> OneOrMore {
        match languages.0.as_slice() {
            [language] => OneOrMore::One(*language),
            _ => OneOrMore::More(languages.0),
        }
    }
}

/// Words and phrases that change what a mention asserts, in addition to the built-in ones.
///
/// Every entry is a pattern in the notation of [`crate::Rules`]: plain words suffice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cues {
    /// Negates what follows it in the clause: `no evidence of`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub negation_before: Vec<String>,
    /// Negates what precedes it in the clause: `was not observed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub negation_after: Vec<String>,
    /// Looks like a negation and is none: `no significant change`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pseudo_negation: Vec<String>,
    /// Makes what follows it uncertain: `suspicious for`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncertain_before: Vec<String>,
    /// Makes what precedes it uncertain: `cannot be excluded`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncertain_after: Vec<String>,
    /// What follows it is no statement about the image: `evaluate for`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<String>,
    /// Ends the reach of a cue that stands before: `with`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scope_end: Vec<String>,
    /// A verb that affirms, over which neither direction of negation reaches: `is seen`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub affirmation: Vec<String>,
    /// Separates clauses: `but`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clause_end: Vec<String>,
    /// Names of sections and headings whose text is not about the image: `indication`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip_sections: Vec<String>,
}

/// The kinds of cue; of two equally long cues that overlap, the one of the earlier kind stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CueKind {
    Pseudo,
    UncertainAfter,
    UncertainBefore,
    NegationAfter,
    NegationBefore,
    Skip,
    ClauseEnd,
    ScopeEnd,
    Affirmation,
}

impl CueKind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Pseudo,
        Self::UncertainAfter,
        Self::UncertainBefore,
        Self::NegationAfter,
        Self::NegationBefore,
        Self::Skip,
        Self::ClauseEnd,
        Self::ScopeEnd,
        Self::Affirmation,
    ];

    /// Name of the field of [`Cues`] that lists this kind.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pseudo => "pseudo_negation",
            Self::UncertainAfter => "uncertain_after",
            Self::UncertainBefore => "uncertain_before",
            Self::NegationAfter => "negation_after",
            Self::NegationBefore => "negation_before",
            Self::Skip => "skip",
            Self::ClauseEnd => "clause_end",
            Self::ScopeEnd => "scope_end",
            Self::Affirmation => "affirmation",
        }
    }

    /// The pack's own cues of this kind.
    pub(crate) fn of(self, cues: &Cues) -> &[String] {
        match self {
            Self::Pseudo => &cues.pseudo_negation,
            Self::UncertainAfter => &cues.uncertain_after,
            Self::UncertainBefore => &cues.uncertain_before,
            Self::NegationAfter => &cues.negation_after,
            Self::NegationBefore => &cues.negation_before,
            Self::Skip => &cues.skip,
            Self::ClauseEnd => &cues.clause_end,
            Self::ScopeEnd => &cues.scope_end,
            Self::Affirmation => &cues.affirmation,
        }
    }

    /// The built-in cues of this kind.
    pub(crate) fn built_in(self, language: Language) -> &'static [&'static str] {
        match language {
            Language::En => english::cues(self),
            Language::De => german::cues(self),
        }
    }
}

/// The built-in headings whose text is not about the image.
pub(crate) fn skipped_headings(language: Language) -> &'static [&'static str] {
    match language {
        Language::En => english::SKIPPED_HEADINGS,
        Language::De => german::SKIPPED_HEADINGS,
    }
}
