//! Zero-shot diagnosis: prompts that say that a finding is there, and that it is not.

use argent_stats::{Comparison, Ensemble, StatsError, Vectors, zero_shot_probabilities};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A pair of prompts for one finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// The finding's id; several pairs of one finding are an ensemble.
    pub id: String,
    /// The text that says that the finding is there.
    pub positive: String,
    /// The text that says that it is not; it may be empty.
    pub negative: String,
}

/// The published pairs of prompts, by the names of their comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Template {
    /// `{finding}.` and `not {finding}.` (GreenRFM).
    P1,
    /// `{finding}.` and nothing (MPS-CT, GreenRFM).
    P2,
    /// `There is {finding}.` and `There is no {finding}.` (GreenRFM; CT-CLIP while it trains).
    P3,
    /// `{finding} is present.` and `{finding} is not present.` (CT-CLIP, GreenRFM).
    P4,
    /// `Findings are compatible with {finding}.` and `Findings are not compatible with {finding}.` (GreenRFM).
    P5,
}

impl Template {
    /// All of them, in the order of their names.
    pub const ALL: [Template; 5] = [Template::P1, Template::P2, Template::P3, Template::P4, Template::P5];

    /// The pair of prompts for a finding; `name` is what it is called in a sentence.
    pub fn prompt(self, id: &str, name: &str) -> Prompt {
        let (positive, negative) = match self {
            Template::P1 => (format!("{name}."), format!("not {name}.")),
            Template::P2 => (format!("{name}."), String::new()),
            Template::P3 => (format!("There is {name}."), format!("There is no {name}.")),
            Template::P4 => (format!("{name} is present."), format!("{name} is not present.")),
            Template::P5 => (
                format!("Findings are compatible with {name}."),
                format!("Findings are not compatible with {name}."),
            ),
        };
        Prompt { id: id.to_owned(), positive, negative }
    }
}

/// The pairs of one finding with the vectors of their texts.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedFinding {
    /// The finding's id.
    pub id: String,
    /// The vectors of the positive prompts, a row per pair.
    pub positive: Vectors,
    /// The vectors of the negative prompts, in the same order.
    pub negative: Vectors,
}

/// The texts of all prompts, each once: what has to be encoded.
pub fn distinct_texts(prompts: &[Prompt]) -> Vec<&str> {
    let mut texts: Vec<&str> =
        prompts.iter().flat_map(|prompt| [prompt.positive.as_str(), prompt.negative.as_str()]).collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

/// Gives each finding the vectors of its prompts, findings in the order in which they first appear. `vector` answers for each
/// of [`distinct_texts`].
///
/// # Errors
/// When vectors differ in length or hold what is no number.
pub fn encoded<'v>(
    prompts: &[Prompt],
    vector: impl Fn(&str) -> &'v [f32],
) -> Result<Vec<EncodedFinding>, StatsError> {
    let mut ids: Vec<&str> = Vec::new();
    for prompt in prompts {
        if !ids.contains(&prompt.id.as_str()) {
            ids.push(&prompt.id);
        }
    }
    let of_finding = |id: &str| {
        let side = |text: fn(&Prompt) -> &str| {
            let own = prompts.iter().filter(|prompt| prompt.id == id);
            Vectors::new(own.map(|prompt| vector(text(prompt))))
        };
        let (positive, negative) = (side(|prompt| &prompt.positive)?, side(|prompt| &prompt.negative)?);
        Ok(EncodedFinding { id: id.to_owned(), positive, negative })
    };
    ids.into_iter().map(of_finding).collect()
}

/// By finding, then image: how likely the finding is there.
///
/// # Errors
/// As [`zero_shot_probabilities`].
pub fn scores(
    images: &Vectors,
    findings: &[EncodedFinding],
    comparison: Comparison,
    ensemble: Ensemble,
) -> Result<Vec<Vec<f64>>, StatsError> {
    let of_finding = |finding: &EncodedFinding| {
        zero_shot_probabilities(images, &finding.positive, &finding.negative, comparison, ensemble)
    };
    findings.iter().map(of_finding).collect()
}

#[cfg(test)]
mod tests {
    use argent_stats::Similarity;

    use super::*;

    #[test]
    fn the_published_prompts_are_known_by_name() {
        let said: Vec<String> = Template::ALL
            .iter()
            .map(|template| {
                let Prompt { positive, negative, .. } = template.prompt("lung_nodule", "lung nodule");
                format!("{positive}|{negative}")
            })
            .collect();
        assert_eq!(
            said,
            [
                "lung nodule.|not lung nodule.",
                "lung nodule.|",
                "There is lung nodule.|There is no lung nodule.",
                "lung nodule is present.|lung nodule is not present.",
                "Findings are compatible with lung nodule.|Findings are not compatible with lung nodule.",
            ]
        );
        let named: Vec<Template> =
            serde_json::from_str("[\"p1\",\"p2\",\"p3\",\"p4\",\"p5\"]").expect("names");
        assert_eq!(named, Template::ALL);
    }

    #[test]
    fn each_text_is_encoded_once_and_each_finding_scored_by_its_own_prompts() {
        let prompts = [
            Template::P2.prompt("nodule", "nodule"),
            Template::P2.prompt("effusion", "effusion"),
            Template::P1.prompt("nodule", "nodule"),
        ];
        assert_eq!(distinct_texts(&prompts), ["", "effusion.", "nodule.", "not nodule."]);
        let vector = |text: &str| -> &'static [f32] {
            match text {
                "nodule." => &[1.0, 0.0],
                "effusion." => &[0.0, 1.0],
                "not nodule." => &[-1.0, 0.0],
                _ => &[-1.0, -1.0],
            }
        };
        let findings = encoded(&prompts, vector).expect("vectors of one length");
        let shape = findings.iter().map(|finding| (finding.id.as_str(), finding.positive.len()));
        assert_eq!(shape.collect::<Vec<_>>(), [("nodule", 2), ("effusion", 1)]);
        let images = Vectors::new([[5.0, 0.0].as_slice(), &[0.0, 2.0]]).expect("vectors");
        let comparison = Comparison { similarity: Similarity::Cosine, scale: 100.0 };
        for ensemble in [Ensemble::MeanVector, Ensemble::MeanProbability] {
            let scores = scores(&images, &findings, comparison, ensemble).expect("scores");
            assert!(scores[0][0] > 0.99 && scores[1][1] > 0.99, "{scores:?}");
            // The second image is as far from "nodule." as from "not nodule.", and farther from the empty prompt.
            assert!(scores[0][1] > 0.5 && scores[1][0] > 0.5, "{scores:?}");
        }
    }
}
