//! From the mentions of a report to one label.

use crate::labeller::{Evidence, FindingLabel, State};

/// The mentions of one finding so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// The strongest state with the first words that support it.
    strongest: Option<(State, Evidence)>,
    present: Sentences,
    uncertain: Sentences,
    absent: Sentences,
}

/// A count of sentences, each counted once however many mentions stand in it.
#[derive(Debug, Clone, Default)]
struct Sentences {
    count: u16,
    last: Option<(usize, usize)>,
}

impl Tally {
    /// Adds a mention in the sentence that starts at `sentence`: index of the section and byte offset.
    pub(crate) fn add(
        &mut self,
        state: State,
        sentence: (usize, usize),
        evidence: impl FnOnce() -> Evidence,
    ) {
        match state {
            State::Present => self.present.add(sentence),
            State::Uncertain => self.uncertain.add(sentence),
            State::Absent => self.absent.add(sentence),
            State::NotMentioned => return,
        }
        if self.strongest.as_ref().is_none_or(|(strongest, _)| rank(state) > rank(*strongest)) {
            self.strongest = Some((state, evidence()));
        }
    }

    /// The label; its score is documented at [`FindingLabel::score`].
    pub(crate) fn label(self, finding: usize) -> FindingLabel {
        let conflict = if self.absent.count > 0 { 0.1 } else { 0.0 };
        let halved = |sentences: &Sentences| 0.5_f32.powi(i32::from(sentences.count));
        let Some((state, evidence)) = self.strongest else {
            return FindingLabel { finding, state: State::NotMentioned, score: 0.1, evidence: None };
        };
        let score = match state {
            State::Present => 1.0 - 0.2 * halved(&self.present) - conflict,
            State::Uncertain => 0.6 - 0.2 * halved(&self.uncertain) - conflict,
            State::Absent => 0.1 * halved(&self.absent),
            State::NotMentioned => 0.1,
        };
        FindingLabel { finding, state, score, evidence: Some(evidence) }
    }
}

impl Sentences {
    fn add(&mut self, sentence: (usize, usize)) {
        if self.last != Some(sentence) {
            self.count = self.count.saturating_add(1);
            self.last = Some(sentence);
        }
    }
}

/// Order of the states in a report: what is asserted once is present.
fn rank(state: State) -> u8 {
    match state {
        State::NotMentioned => 0,
        State::Absent => 1,
        State::Uncertain => 2,
        State::Present => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(states: &[State]) -> f32 {
        let mut tally = Tally::default();
        for (offset, state) in states.iter().enumerate() {
            let evidence = Evidence {
                section: "findings".to_owned(),
                start: offset,
                end: offset + 1,
                rule: "synonyms[0] \"effusion\"".to_owned(),
                text: "x".to_owned(),
            };
            tally.add(*state, (0, offset), || evidence);
        }
        tally.label(0).score
    }

    #[test]
    fn the_score_rises_with_certainty() {
        use State::{Absent, Present, Uncertain};
        let ascending: [&[State]; 9] = [
            &[Absent, Absent],
            &[Absent],
            &[],
            &[Uncertain, Absent],
            &[Uncertain],
            &[Uncertain, Uncertain],
            &[Present, Absent],
            &[Present],
            &[Present, Uncertain, Present],
        ];
        for pair in ascending.windows(2) {
            assert!(score(pair[0]) < score(pair[1]), "{:?} and {:?}", pair[0], pair[1]);
        }
    }
}
