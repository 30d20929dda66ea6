//! The labeller: sections of a report in, one state per finding out.

use crate::assertion::{Assertion, Lexicon};
use crate::headings::Headings;
use crate::pack::{Finding, Mistake, Pack, PackError};
use crate::probe::FindingProbes;
use crate::sentences::{fold, split};
use crate::tally::Tally;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;

/// A compiled pack.
///
/// Threads share one labeller by reference: its matchers learn from the text they read, and a clone
/// starts without what they have learnt.
#[derive(Debug, Clone)]
pub struct Labeller {
    findings: Vec<FindingProbes>,
    lexicon: Lexicon,
    headings: Headings,
}

/// What a report says about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// At least one mention is asserted.
    Present,
    /// It is mentioned, and every mention is negated.
    Absent,
    /// At least one mention is hedged and none is asserted.
    Uncertain,
    /// The report says nothing about it.
    NotMentioned,
}

/// The label of one finding.
#[derive(Debug, Clone, PartialEq)]
pub struct FindingLabel {
    /// Index of the finding in the pack.
    pub finding: usize,
    /// The strongest assertion of the report: present, then uncertain, then absent.
    pub state: State,
    /// How strongly the report asserts the finding, in 0 to 1; it ranks reports and is no probability.
    ///
    /// With n sentences of the deciding state: present 1 − 0.2·2⁻ⁿ, uncertain 0.6 − 0.2·2⁻ⁿ, both
    /// lowered by 0.1 where another sentence denies the finding; not mentioned 0.1; absent 0.1·2⁻ⁿ.
    pub score: f32,
    /// The first words that support the state; `None` where the finding is not mentioned.
    pub evidence: Option<Evidence>,
}

/// The words a label rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Name of the section.
    pub section: String,
    /// First byte in the text of the section.
    pub start: usize,
    /// Byte after the last one.
    pub end: usize,
    /// The rule that found the mention and the cue that decided its state.
    pub rule: String,
    /// The text from `start` to `end`: the mention, with the cue that decided it.
    pub text: String,
}

impl Labeller {
    /// Compiles a pack.
    ///
    /// # Errors
    /// All mistakes of the pack at once: patterns that are no regular expressions or match the empty
    /// text, findings without an id or with the id of another one, findings with nothing to look for,
    /// and a pack without findings.
    pub fn new(pack: &Pack) -> Result<Self, PackError> {
        let mut mistakes = pack.mistakes();
        let mut findings = Vec::with_capacity(pack.findings.len());
        for (probes, found) in compiled(&pack.findings) {
            findings.push(probes);
            mistakes.extend(found);
        }
        let lexicon = Lexicon::new(&pack.language, &pack.cues, &mut mistakes);
        let headings = Headings::new(&pack.language, &pack.cues, &mut mistakes);
        if mistakes.is_empty() {
            Ok(Self { findings, lexicon, headings })
        } else {
            Err(PackError { pack: pack.name.clone(), mistakes })
        }
    }

    /// Labels one report, given as pairs of section name and text.
    ///
    /// The labels stand in the order of the pack. Sections and headings that are not about the image
    /// (indication, history, technique, comparison) are left out, see [`crate::Cues::skip_sections`].
    #[must_use]
    pub fn label(&self, sections: &[(&str, &str)]) -> Vec<FindingLabel> {
        let mut tallies = vec![Tally::default(); self.findings.len()];
        let read: Vec<Section> = sections
            .iter()
            .enumerate()
            .filter(|(_, (name, _))| !self.headings.skips_section(name))
            .map(|(place, (name, text))| Section { place, name, text, folded: fold(text) })
            .collect();
        let taken_back: Vec<Vec<usize>> = self
            .findings
            .iter()
            .map(|probes| probes.taken_back_by(read.iter().map(|section| section.folded.as_str())))
            .collect();
        for section in &read {
            self.read_section(section, &taken_back, &mut tallies);
        }
        tallies.into_iter().enumerate().map(|(finding, tally)| tally.label(finding)).collect()
    }

    fn read_section(&self, section: &Section, taken_back: &[Vec<usize>], tallies: &mut [Tally]) {
        let Section { place, name, text, .. } = *section;
        let sentences = split(&section.folded, text);
        let folded = on_one_line(&section.folded);
        let named: Vec<(usize, &[usize])> = (0..self.findings.len())
            .filter(|&finding| self.findings[finding].may_match(&folded))
            .map(|finding| (finding, taken_back[finding].as_slice()))
            .collect();
        if named.is_empty() {
            return;
        }
        for index in self.headings.about_the_image(&folded, &sentences) {
            let sentence = &sentences[index].range;
            self.read_sentence(&named, &folded[sentence.clone()], |finding, state, span, rule| {
                let span = sentence.start + span.start..sentence.start + span.end;
                tallies[finding].add(state, (place, sentence.start), || Evidence {
                    section: name.to_owned(),
                    start: span.start,
                    end: span.end,
                    rule: rule(),
                    text: text[span.clone()].to_owned(),
                });
            });
        }
    }

    /// Reports every mention of the `named` findings in a folded sentence with its state, its evidence
    /// and its rule. Beside each finding stand the phrases that the report takes back.
    fn read_sentence(
        &self,
        named: &[(usize, &[usize])],
        sentence: &str,
        mut report: impl FnMut(usize, State, Range<usize>, &dyn Fn() -> String),
    ) {
        // The cues wait for the first mention: many sentences have none.
        let mut cued = None;
        for &(finding, taken_back) in named {
            let probes = &self.findings[finding];
            if !probes.may_match(sentence) {
                continue;
            }
            for probe in probes.matching(sentence) {
                let cued = cued.get_or_insert_with(|| self.lexicon.find(sentence));
                for mention in probes.mentions(probe, sentence, cued) {
                    let is_taken_back = probes.is_taken_back(taken_back, sentence, &mention);
                    let (state, cue) = match cued.assess(sentence, &mention) {
                        Assertion::Skipped => continue,
                        _ if probe.says_absent() => (State::Absent, None),
                        _ if is_taken_back => (State::Absent, None),
                        Assertion::Present => (State::Present, None),
                        Assertion::Uncertain(cue) => (State::Uncertain, Some(cue)),
                        Assertion::Negated(cue) => (State::Absent, Some(cue)),
                    };
                    report(finding, state, joined(&mention, cue.as_ref()), &|| match &cue {
                        Some(cue) => format!("{}; cue {:?}", probe.rule, &sentence[cue.clone()]),
                        None if is_taken_back => format!("{}; rules.taken_back", probe.rule),
                        None => probe.rule.clone(),
                    });
                }
            }
        }
    }
}

/// A section that is read.
struct Section<'r> {
    /// Its place in the report.
    place: usize,
    name: &'r str,
    text: &'r str,
    folded: String,
}

/// Folded text without line breaks.
fn on_one_line(folded: &str) -> Cow<'_, str> {
    if folded.contains('\n') { Cow::Owned(folded.replace('\n', " ")) } else { Cow::Borrowed(folded) }
}

/// The range from the earlier of mention and cue to the end of the later.
fn joined(mention: &Range<usize>, cue: Option<&Range<usize>>) -> Range<usize> {
    cue.map_or_else(|| mention.clone(), |cue| cue.start.min(mention.start)..cue.end.max(mention.end))
}
/// Compiles the patterns of each finding, in the order of the pack, on two threads: it is most of the work of
/// reading a pack, and every command that checks a pipeline does it.
fn compiled(findings: &[Finding]) -> Vec<(FindingProbes, Vec<Mistake>)> {
    let compile = |finding: &Finding| {
        let mut mistakes = Vec::new();
        (FindingProbes::new(finding, &mut mistakes), mistakes)
    };
    let (first, second) = findings.split_at(findings.len() / 2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| second.iter().map(compile).collect::<Vec<_>>());
        let mut all: Vec<_> = first.iter().map(compile).collect();
        all.extend(other.join().expect("compiling a pattern does not panic"));
        all
    })
}
