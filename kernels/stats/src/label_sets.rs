//! What two images have in common by their labels.

/// Which of a fixed list of findings an image has, and of which that is known. Sets are only comparable where the list
/// is the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabelSet {
    /// A bit per finding that is there.
    present: Vec<u64>,
    /// A bit per finding that is known to be there or not.
    known: Vec<u64>,
}

impl LabelSet {
    /// Of each finding: there, not there, or not known.
    pub fn new(labels: &[Option<bool>]) -> Self {
        let bits = |of: fn(Option<bool>) -> bool| {
            let word = |labels: &[Option<bool>]| {
                labels.iter().enumerate().fold(0, |word, (bit, label)| word | u64::from(of(*label)) << bit)
            };
            labels.chunks(64).map(word).collect()
        };
        Self { present: bits(|label| label == Some(true)), known: bits(|label| label.is_some()) }
    }

    /// Whether any finding is there.
    pub fn is_abnormal(&self) -> bool {
        self.present.iter().any(|word| *word != 0)
    }

    /// Whether a finding is there in both.
    pub fn shares_a_finding(&self, other: &Self) -> bool {
        self.present.iter().zip(&other.present).any(|(one, other)| one & other != 0)
    }

    /// The Jaccard index: the findings that both have, as a fraction of those that either has. Findings that are not known
    /// of both count on neither side; where neither has any, it is 0, as in CT-CLIP's retrieval.
    pub fn jaccard(&self, other: &Self) -> f64 {
        let (mut both, mut either) = (0_u32, 0_u32);
        for word in 0..self.present.len().min(other.present.len()) {
            let known = self.known[word] & other.known[word];
            both += (self.present[word] & other.present[word]).count_ones();
            either += ((self.present[word] | other.present[word]) & known).count_ones();
        }
        if either == 0 { 0.0 } else { f64::from(both) / f64::from(either) }
    }
}
