//! The patterns of a finding, compiled, and the mentions they find.

use crate::assertion::CuedSentence;
use crate::pack::{Finding, Mistake};
use crate::pattern::{synonym, whole_words, without_end_boundary};
use crate::sentences::fold;
use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use std::ops::Range;

/// Largest compiled program of one finding.
const SIZE_LIMIT_BYTES: usize = 1 << 26;
/// Memory of the lazily built automaton; patterns with gaps have many states.
const DFA_BYTES: usize = 1 << 24;

/// All patterns of one finding.
#[derive(Debug, Clone)]
pub(crate) struct FindingProbes {
    probes: Vec<Probe>,
    /// All probes at once: one pass tells which of them match a sentence.
    set: RegexSet,
    /// Matches every section and sentence in which a probe matches; `None` where none can be built.
    filter: Option<Regex>,
    /// Clauses in which no word is a mention.
    without: Option<Regex>,
    /// Phrases that contain a mention and mean something else.
    except: Option<Regex>,
    /// Phrases, and what takes back the mentions in them.
    taken_back: Vec<(Regex, Regex)>,
}

/// One pattern that is looked for.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    kind: ProbeKind,
    regex: Regex,
    /// Where the pattern stands in the pack, and the pattern itself.
    pub(crate) rule: String,
}

#[derive(Debug, Clone)]
enum ProbeKind {
    /// A match is a mention.
    Alone,
    /// A match is a mention where the context matches in its clause.
    With(Regex),
    /// A match says that the finding is absent.
    Absent,
}

impl FindingProbes {
    /// Compiles the patterns of a finding; what does not compile is added to `mistakes`.
    pub(crate) fn new(finding: &Finding, mistakes: &mut Vec<Mistake>) -> Self {
        let mut compiler = Compiler { finding, mistakes };
        let probes = compiler.probes();
        let set = compiler.set(&probes);
        let filter = section_filter(&probes);
        let without = compiler.contexts("without", &finding.rules.without);
        let except = compiler.contexts("except", &finding.rules.except);
        let taken_back = compiler.taken_back();
        Self { probes, set, filter, without, except, taken_back }
    }

    /// Whether a folded section, or a sentence of one, may contain a mention: most findings are named in few
    /// reports and there in few sentences, and this spares the others the dearer search for which pattern it is.
    pub(crate) fn may_match(&self, text: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.is_match(text))
    }

    /// Which of the phrases the folded sections of a report take back, by their places in the pack.
    pub(crate) fn taken_back_by<'t>(&self, sections: impl Iterator<Item = &'t str> + Clone) -> Vec<usize> {
        let is_said = |by: &Regex| sections.clone().any(|section| by.is_match(&section.replace('\n', " ")));
        let phrases = self.taken_back.iter().enumerate();
        phrases.filter(|(_, (_, by))| is_said(by)).map(|(place, _)| place).collect()
    }

    /// Whether a mention in a folded sentence begins inside one of these phrases.
    pub(crate) fn is_taken_back(&self, phrases: &[usize], sentence: &str, mention: &Range<usize>) -> bool {
        let holds =
            |phrase: &Regex| phrase.find_iter(sentence).any(|found| found.range().contains(&mention.start));
        phrases.iter().any(|&place| holds(&self.taken_back[place].0))
    }

    /// The probes that match somewhere in a folded sentence.
    pub(crate) fn matching<'p>(&'p self, sentence: &str) -> impl Iterator<Item = &'p Probe> + use<'p> {
        self.set.matches(sentence).into_iter().map(|index| &self.probes[index])
    }

    /// The mentions of a probe in a folded sentence that no context forbids.
    pub(crate) fn mentions<'p>(
        &'p self,
        probe: &'p Probe,
        sentence: &'p str,
        cued: &'p CuedSentence,
    ) -> impl Iterator<Item = Range<usize>> {
        let found = probe.regex.find_iter(sentence).map(|found| found.range());
        found.filter(move |mention| self.stands(probe, sentence, cued, mention))
    }

    fn stands(&self, probe: &Probe, sentence: &str, cued: &CuedSentence, mention: &Range<usize>) -> bool {
        let clause = &sentence[cued.clause(sentence, mention)];
        let has_context = match &probe.kind {
            ProbeKind::Absent => return true,
            ProbeKind::Alone => true,
            ProbeKind::With(context) => context.is_match(clause),
        };
        let excluded = |regex: &Regex| regex.is_match(clause);
        let overlapped =
            |regex: &Regex| regex.find_iter(sentence).any(|phrase| phrase.range().contains(&mention.start));
        has_context
            && !self.without.as_ref().is_some_and(excluded)
            && !self.except.as_ref().is_some_and(overlapped)
    }
}

impl Probe {
    /// Whether a match says that the finding is absent.
    pub(crate) fn says_absent(&self) -> bool {
        matches!(self.kind, ProbeKind::Absent)
    }
}

/// One expression that matches wherever a probe matches a sentence of the text.
///
/// It drops the boundaries at the end of the patterns, which may hold at the end of a sentence alone.
/// Patterns with anchors speak of the sentence and have no counterpart in a section.
fn section_filter(probes: &[Probe]) -> Option<Regex> {
    let has_anchor = |expression: &str| expression.replace("[^", "").contains(['^', '$']);
    let open: Vec<&str> = probes.iter().map(|probe| without_end_boundary(probe.regex.as_str())).collect();
    if open.iter().any(|expression| has_anchor(expression)) {
        return None;
    }
    RegexBuilder::new(&open.join("|")).size_limit(SIZE_LIMIT_BYTES).dfa_size_limit(DFA_BYTES).build().ok()
}

/// Compiles the patterns of one finding and collects the mistakes in them.
struct Compiler<'a> {
    finding: &'a Finding,
    mistakes: &'a mut Vec<Mistake>,
}

impl Compiler<'_> {
    fn probes(&mut self) -> Vec<Probe> {
        let finding = self.finding;
        let mut probes = Vec::new();
        let mut add = |kind, place: String, pattern: &str, regex: Option<Regex>| {
            let rule = format!("{place} {pattern:?}");
            probes.extend(regex.map(|regex| Probe { kind, regex, rule }));
        };
        for (number, phrase) in finding.synonyms.iter().enumerate() {
            let place = format!("synonyms[{number}]");
            let regex = self.regex(&place, phrase, &synonym(&fold(phrase)));
            add(ProbeKind::Alone, place, phrase, regex);
        }
        for (number, pattern) in finding.rules.any.iter().enumerate() {
            let place = format!("rules.any[{number}]");
            let regex = self.regex(&place, pattern, &whole_words(pattern));
            add(ProbeKind::Alone, place, pattern, regex);
        }
        for (number, pair) in finding.rules.with.iter().enumerate() {
            let place = format!("rules.with[{number}]");
            let term = self.regex(&format!("{place}.term"), &pair.term, &whole_words(&pair.term));
            let context = self.regex(&format!("{place}.context"), &pair.context, &whole_words(&pair.context));
            if let Some(context) = context {
                add(ProbeKind::With(context), place, &pair.term, term);
            }
        }
        for (number, pattern) in finding.rules.absent.iter().enumerate() {
            let place = format!("rules.absent[{number}]");
            let regex = self.regex(&place, pattern, &whole_words(pattern));
            add(ProbeKind::Absent, place, pattern, regex);
        }
        probes
    }

    fn taken_back(&mut self) -> Vec<(Regex, Regex)> {
        let mut compiled = Vec::new();
        for (number, pair) in self.finding.rules.taken_back.iter().enumerate() {
            let place = format!("rules.taken_back[{number}]");
            let phrase = self.regex(&format!("{place}.phrase"), &pair.phrase, &whole_words(&pair.phrase));
            let by = self.regex(&format!("{place}.by"), &pair.by, &whole_words(&pair.by));
            compiled.extend(phrase.zip(by));
        }
        compiled
    }

    fn contexts(&mut self, name: &str, patterns: &[String]) -> Option<Regex> {
        let mut valid = Vec::new();
        for (number, pattern) in patterns.iter().enumerate() {
            let expression = whole_words(pattern);
            let place = format!("rules.{name}[{number}]");
            valid.extend(self.regex(&place, pattern, &expression).map(|_| expression));
        }
        let all = format!("{} patterns", valid.len());
        if valid.is_empty() { None } else { self.regex(&format!("rules.{name}"), &all, &valid.join("|")) }
    }

    fn set(&mut self, probes: &[Probe]) -> RegexSet {
        let expressions = probes.iter().map(|probe| probe.regex.as_str());
        let built =
            RegexSetBuilder::new(expressions).size_limit(SIZE_LIMIT_BYTES).dfa_size_limit(DFA_BYTES).build();
        built.unwrap_or_else(|error| {
            let problem = format!("are too large together, split the finding: {error}");
            self.mistake("synonyms and rules", &format!("{} patterns", probes.len()), problem);
            RegexSet::empty()
        })
    }

    /// The regular expression of one pattern; one that is empty, wrong, or matches any text is a
    /// mistake.
    fn regex(&mut self, place: &str, pattern: &str, expression: &str) -> Option<Regex> {
        let built =
            RegexBuilder::new(expression).size_limit(SIZE_LIMIT_BYTES).dfa_size_limit(DFA_BYTES).build();
        let problem = match built {
            Ok(regex) if !expression.is_empty() && !pattern.trim().is_empty() && !regex.is_match("a ") => {
                return Some(regex);
            }
            Ok(_) => "matches any text: write the words that name the finding".to_owned(),
            Err(error) => format!("is no regular expression of the regex crate: {error}"),
        };
        self.mistake(place, pattern, problem);
        None
    }

    fn mistake(&mut self, place: &str, pattern: &str, problem: String) {
        self.mistakes.push(Mistake {
            finding: Some(self.finding.id.clone()),
            place: place.to_owned(),
            pattern: pattern.to_owned(),
            problem,
        });
    }
}
