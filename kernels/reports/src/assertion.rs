//! What a sentence says about a mention: negated, uncertain, present, or nothing about the image.

use crate::cues::{CueKind, Cues};
use crate::pattern::whole_words;
use crate::{Languages, Mistake};
use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use std::ops::Range;

/// Farthest a negation reaches, in bytes of the sentence.
const NEGATION_REACH_BYTES: usize = 160;
/// Farthest an uncertainty reaches: a hedge concerns the next few words, a negation a whole list.
const UNCERTAINTY_REACH_BYTES: usize = 100;

/// Memory of a lazily built automaton.
const DFA_BYTES: usize = 1 << 24;

/// What the sentence says about one mention, with the words that decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Assertion {
    Present,
    Uncertain(Range<usize>),
    Negated(Range<usize>),
    /// The mention is not about the image, such as `evaluate for pneumonia`.
    Skipped,
}

/// The cues of a language and a pack as regular expressions, one per kind.
#[derive(Debug, Clone)]
pub(crate) struct Lexicon {
    /// Tells in one pass which kinds occur in a sentence.
    set: RegexSet,
    /// In the order of [`CueKind::ALL`].
    regexes: Vec<Regex>,
}

/// The cues found in one sentence.
#[derive(Debug, Default)]
pub(crate) struct CuedSentence {
    cues: Vec<(CueKind, Range<usize>)>,
}

impl CuedSentence {
    /// What the sentence says about the mention at `mention`.
    pub(crate) fn assess(&self, sentence: &str, mention: &Range<usize>) -> Assertion {
        let clause = self.clause(sentence, mention);
        let before = |kind, reach| self.nearest_before(kind, &clause, mention, reach);
        // A comma ends what was looked for: "treated for pneumonia, ground glass persists".
        let skip = before(CueKind::Skip, UNCERTAINTY_REACH_BYTES);
        if skip.is_some_and(|cue| !sentence[cue.end..mention.start].contains(',')) {
            return Assertion::Skipped;
        }
        let negation = (self.inside(CueKind::NegationBefore, mention))
            .or_else(|| self.inside(CueKind::NegationAfter, mention))
            .or_else(|| self.nearest_after(CueKind::NegationAfter, &clause, mention, NEGATION_REACH_BYTES))
            .or_else(|| before(CueKind::NegationBefore, NEGATION_REACH_BYTES));
        if let Some(cue) = negation {
            return Assertion::Negated(cue);
        }
        let uncertainty = question_mark(sentence, mention)
            .or_else(|| self.inside(CueKind::UncertainBefore, mention))
            .or_else(|| before(CueKind::UncertainBefore, UNCERTAINTY_REACH_BYTES))
            .or_else(|| {
                // What is doubted after a comma is the last item: "opacity, pneumonia not excluded".
                self.nearest_after(CueKind::UncertainAfter, &clause, mention, UNCERTAINTY_REACH_BYTES)
                    .filter(|cue| !sentence[mention.end..cue.start].contains(','))
            });
        uncertainty.map_or(Assertion::Present, Assertion::Uncertain)
    }

    /// The clause around the mention.
    pub(crate) fn clause(&self, sentence: &str, mention: &Range<usize>) -> Range<usize> {
        let ends = || self.of(CueKind::ClauseEnd);
        let start = ends().filter(|end| end.end <= mention.start).map(|end| end.end).max().unwrap_or(0);
        let end = ends().filter(|end| end.start >= mention.end).map(|end| end.start).min();
        start..end.unwrap_or(sentence.len())
    }

    fn of(&self, kind: CueKind) -> impl Iterator<Item = &Range<usize>> {
        self.cues.iter().filter(move |(other, _)| *other == kind).map(|(_, range)| range)
    }

    fn inside(&self, kind: CueKind, mention: &Range<usize>) -> Option<Range<usize>> {
        self.of(kind).find(|cue| cue.start < mention.end && mention.start < cue.end).cloned()
    }

    fn nearest_before(
        &self,
        kind: CueKind,
        clause: &Range<usize>,
        mention: &Range<usize>,
        reach: usize,
    ) -> Option<Range<usize>> {
        let in_reach = |cue: &&Range<usize>| {
            cue.start >= clause.start && cue.end <= mention.start && mention.start - cue.end <= reach
        };
        let nearest = self.of(kind).filter(in_reach).max_by_key(|cue| cue.end)?;
        let between = nearest.end..mention.start;
        let ended = [CueKind::ScopeEnd, CueKind::Affirmation].iter().any(|&end| self.any_in(end, &between));
        (!ended).then(|| nearest.clone())
    }

    fn nearest_after(
        &self,
        kind: CueKind,
        clause: &Range<usize>,
        mention: &Range<usize>,
        reach: usize,
    ) -> Option<Range<usize>> {
        let in_reach = |cue: &&Range<usize>| {
            cue.start >= mention.end && cue.end <= clause.end && cue.start - mention.end <= reach
        };
        let nearest = self.of(kind).filter(in_reach).min_by_key(|cue| cue.start)?;
        let ended = self.any_in(CueKind::Affirmation, &(mention.end..nearest.start));
        (!ended).then(|| nearest.clone())
    }

    fn any_in(&self, kind: CueKind, range: &Range<usize>) -> bool {
        self.of(kind).any(|cue| cue.start >= range.start && cue.end <= range.end)
    }
}

impl Lexicon {
    /// Compiles the built-in cues of the languages and those of the pack; adds what does not compile
    /// to `mistakes`.
    pub(crate) fn new(languages: &Languages, cues: &Cues, mistakes: &mut Vec<Mistake>) -> Self {
        let expressions: Vec<String> =
            CueKind::ALL.into_iter().map(|kind| alternatives(kind, languages, cues, mistakes)).collect();
        let set = RegexSetBuilder::new(&expressions).dfa_size_limit(DFA_BYTES).build();
        let regexes: Result<Vec<Regex>, regex::Error> = expressions
            .iter()
            .map(|expression| RegexBuilder::new(expression).dfa_size_limit(DFA_BYTES).build())
            .collect();
        match (set, regexes) {
            (Ok(set), Ok(regexes)) => Self { set, regexes },
            (Err(error), _) | (_, Err(error)) => {
                mistakes.push(Mistake {
                    finding: None,
                    place: "cues".to_owned(),
                    pattern: "all cues of one kind".to_owned(),
                    problem: format!("are too large together, remove some: {error}"),
                });
                Self { set: RegexSet::empty(), regexes: Vec::new() }
            }
        }
    }

    /// Finds the cues of a folded sentence.
    ///
    /// Where cues overlap, the longest stands and of equally long ones the earlier kind: `no
    /// significant change` takes the place of `no`, `are clear of` that of `are clear`.
    pub(crate) fn find(&self, sentence: &str) -> CuedSentence {
        let mut found: Vec<(CueKind, Range<usize>)> = Vec::new();
        for index in self.set.matches(sentence) {
            let cues = self.regexes[index].find_iter(sentence);
            found.extend(cues.map(|cue| (CueKind::ALL[index], cue.range())));
        }
        // A stable sort keeps the order of the kinds among equally long cues.
        found.sort_by_key(|(_, cue)| std::cmp::Reverse(cue.len()));
        let mut cues: Vec<(CueKind, Range<usize>)> = Vec::with_capacity(found.len());
        for (kind, cue) in found {
            if cues.iter().all(|(_, longer)| cue.end <= longer.start || longer.end <= cue.start) {
                cues.push((kind, cue));
            }
        }
        CuedSentence { cues }
    }
}

/// One expression of the cues of a kind, those of the pack before the built-in ones.
fn alternatives(kind: CueKind, languages: &Languages, cues: &Cues, mistakes: &mut Vec<Mistake>) -> String {
    let own = valid_cues(kind, cues, mistakes);
    let built_in = languages.iter().flat_map(|language| kind.built_in(language)).copied();
    let all = own.iter().map(String::as_str).chain(built_in);
    all.map(whole_words).collect::<Vec<String>>().join("|")
}

/// The pack's cues of one kind that compile.
fn valid_cues(kind: CueKind, cues: &Cues, mistakes: &mut Vec<Mistake>) -> Vec<String> {
    let mut valid = Vec::new();
    for (index, cue) in kind.of(cues).iter().enumerate() {
        match Regex::new(&whole_words(cue)) {
            Ok(_) if cue.trim().is_empty() => mistakes.push(Mistake {
                finding: None,
                place: format!("cues.{}[{index}]", kind.name()),
                pattern: cue.clone(),
                problem: "is empty and would match everywhere: remove it".to_owned(),
            }),
            Ok(_) => valid.push(cue.clone()),
            Err(error) => mistakes.push(Mistake {
                finding: None,
                place: format!("cues.{}[{index}]", kind.name()),
                pattern: cue.clone(),
                problem: format!("is no regular expression: {error}"),
            }),
        }
    }
    valid
}

/// The question mark that doubts the mention: behind it or directly before it, with no parenthesis
/// in between.
fn question_mark(sentence: &str, mention: &Range<usize>) -> Option<Range<usize>> {
    let after = sentence[mention.end..].find(['?', '(', ')', ',']).map(|at| at + mention.end);
    let before = sentence[..mention.start].trim_end().len().checked_sub(1);
    [after, before].into_iter().flatten().find(|&at| sentence.as_bytes()[at] == b'?').map(|at| at..at + 1)
}
