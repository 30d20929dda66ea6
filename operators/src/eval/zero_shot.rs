//! `eval.zero_shot`: diagnosis by prompts that say that a finding is there, and that it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, ensure};
use argent_engine::joining::texts;
use argent_engine::operator::{ConfigFiles, one_of};
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, Signature};
use argent_learn::clip::{self, ClipModel};
use argent_stats::{Comparison, StatsError, Vectors, zero_shot_probabilities};
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::eval::classification::{self, Bootstrap, EvalClassification, Threshold};
use crate::eval::cohort::truth_columns;
use crate::eval::vectors::of_rows;
use crate::findings;
use crate::gpus::device_of;
use crate::one_or_many::OneOrMany;
use crate::sights::{self, Sight};

/// Measures how well encoders of train.clip tell findings by prompts alone: each finding has a prompt that says that it is
/// there and one that says that it is not, and the more alike one decides. Texts and images are encoded once. The tables are
/// those of eval.classification.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalZeroShot {
    /// The prompts; several pairs of one finding are an ensemble. Or `template` and `findings`.
    #[serde(default)]
    pub prompts: Option<Vec<Prompt>>,
    /// Published prompts by the names of their comparison, `p1` to `p5`, one or several.
    #[serde(default)]
    pub template: Option<OneOrMany<Template>>,
    /// The finding pack whose names the templates speak of, relative to the spec.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = "the pack enters the key by its ids and names"))]
    pub findings: Option<String>,
    /// How several pairs of one finding make one score: `mean_vector`, their texts are averaged first; or
    /// `mean_probability`.
    #[serde(default)]
    pub ensemble: EnsembleName,
    /// The part that is measured.
    #[serde(default = "classification::test")]
    pub part: String,
    /// Where a score becomes a decision: a number, or a rule and the part that it is fitted on.
    #[serde(default)]
    pub threshold: Threshold,
    /// How intervals are drawn.
    #[serde(default)]
    pub bootstrap: Bootstrap,
    /// The name of the truth, for telling tables apart.
    #[serde(default = "classification::labels")]
    pub truth: String,
    /// The share of rows that may lack their match before the step fails.
    #[serde(default = "classification::unmatched")]
    #[schemars(range(min = 0.0, max = 1.0), extend("x-not-in-key" = "it decides whether there is a result, not which"))]
    pub unmatched: f64,
    /// Ids and names of the pack.
    #[serde(skip)]
    named: Vec<(String, String)>,
}

/// How several pairs of prompts make one score.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnsembleName {
    /// The texts of each side are averaged, in directions, before they are compared.
    #[default]
    MeanVector,
    /// The probabilities of the pairs are averaged.
    MeanProbability,
}

/// The ports of which one has what is diagnosed.
const PORTS: [&str; 3] = ["volumes", "images", EMBEDDINGS];

const EMBEDDINGS: &str = "embeddings";

impl Operator for EvalZeroShot {
    fn ports(&self) -> Vec<Port> {
        let mut ports =
            vec![Port::new("weights", "One row of weights of train.clip.", &[Needed::files("weights")])];
        ports.extend(sights::ports());
        ports.extend([
            Port {
                optional: true,
                ..Port::new(
                    EMBEDDINGS,
                    "Vectors by embed.images and the same weights, in place of `volumes` or `images`: they are made once, \
                     whatever prompts and labels are asked about.",
                    &[Needed::text("id"), Needed::lists("vector")],
                )
            },
            Port::new(
                "labels",
                "The truth: states, or targets and weights.",
                &[Needed::text("id"), Needed::text("finding")],
            ),
            Port::new(
                "split",
                "Parts, as `split.groups` makes them.",
                &[Needed::text("id"), Needed::text("part")],
            ),
        ]);
        ports
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        let Some(path) = &self.findings else { return Ok(()) };
        let pack = findings::load(files, "findings", path)?;
        self.named = pack.pack.findings.iter().map(|f| (f.id.clone(), f.name.clone())).collect();
        files.uses("findings", serde_json::json!(self.named));
        Ok(())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let filled: Vec<&str> = PORTS.into_iter().filter(|port| inputs.ports.contains_key(*port)).collect();
        let [port] = filled[..] else { return Err(vec![one_of(&PORTS, inputs)]) };
        let (labels_on, split_on) = (inputs.port("labels").on.clone(), inputs.port("split").on.clone());
        let mut problems = self.evaluation().threshold_problems();
        problems.extend(self.prompt_problems());
        for (other, on) in [("labels", &labels_on), ("split", &split_on)] {
            let missing = inputs.missing(port, &[on.as_str()]).into_iter();
            problems.extend(missing.map(|p| Problem { path: vec!["match".into(), other.into()], ..p }));
        }
        let truth = truth_columns(inputs.port("labels"));
        if truth.is_empty() {
            let message = "the table has neither `state` nor `target` and `weight`";
            problems.push(Problem::at(["from", "labels"], message));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut labels: BTreeSet<&str> = truth.into_iter().collect();
        labels.extend([labels_on.as_str(), "finding"]);
        let vector = if port == EMBEDDINGS { "vector" } else { Sight::filled(|p| p == port).column() };
        Ok(classification::outputs()
            .reads("weights", ["weights"])
            .reads(port, BTreeSet::from(["id", vector, labels_on.as_str(), split_on.as_str()]))
            .reads("labels", labels)
            .reads("split", BTreeSet::from([split_on.as_str(), "part"])))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let weights = io.input("weights")?;
        ensure!(weights.num_rows() == 1, "`weights` has {} rows, expected one", weights.num_rows());
        let path = io.side_file(texts(weights, "weights")?.value(0))?;
        let model = ClipModel::load(&std::fs::read(path)?, device_of(io))?;
        let (similarity, scale) = model.similarity()?;
        let similarity = match similarity {
            clip::Similarity::Dot => argent_stats::Similarity::Dot,
            clip::Similarity::Cosine => argent_stats::Similarity::Cosine,
        };
        let findings = self.encoded(&model)?;
        let (port, rows, vectors) = self.images(io, &model, similarity)?;
        let images = Vectors::new(vectors.iter().map(Vec::as_slice))?;
        let ensemble = match self.ensemble {
            EnsembleName::MeanVector => argent_stats::Ensemble::MeanVector,
            EnsembleName::MeanProbability => argent_stats::Ensemble::MeanProbability,
        };
        let scores = scores(&images, &findings, Comparison { similarity, scale }, ensemble)?;
        let predictions = predictions(&rows, &findings, &scores)?;
        self.evaluation().measure(io, &predictions, port)
    }
}

impl EvalZeroShot {
    /// What measures the scores.
    fn evaluation(&self) -> EvalClassification {
        EvalClassification {
            part: self.part.clone(),
            threshold: self.threshold.clone(),
            bootstrap: self.bootstrap,
            truth: self.truth.clone(),
            unmatched: self.unmatched,
        }
    }

    fn prompt_problems(&self) -> Vec<Problem> {
        match (&self.prompts, &self.template, &self.findings) {
            (Some(prompts), None, None) if !prompts.is_empty() => Vec::new(),
            (None, Some(template), Some(_)) if !template.to_vec().is_empty() => Vec::new(),
            (Some(_), None, None) => vec![Problem::at(["with", "prompts"], "there are no prompts")],
            _ => vec![
                Problem::at(["with"], "prompts are given as `prompts`, or as `template` and `findings`")
                    .help("give the one or the others"),
            ],
        }
    }

    /// All pairs of prompts.
    fn pairs(&self) -> Vec<Prompt> {
        if let Some(prompts) = &self.prompts {
            return prompts.clone();
        }
        let templates = self.template.as_ref().map(OneOrMany::to_vec).unwrap_or_default();
        let of_finding =
            |(id, name): &(String, String)| templates.iter().map(|t| t.prompt(id, name)).collect::<Vec<_>>();
        self.named.iter().flat_map(of_finding).collect()
    }

    /// The vectors of the prompts, each text encoded once.
    fn encoded(&self, model: &ClipModel) -> anyhow::Result<Vec<EncodedFinding>> {
        let pairs = self.pairs();
        let texts = distinct_texts(&pairs);
        let vectors = model.embed_texts(&texts)?;
        let by_text: BTreeMap<&str, Vec<f32>> = texts.into_iter().zip(vectors).collect();
        Ok(encoded(&pairs, |text| by_text.get(text).map_or(&[][..], Vec::as_slice))?)
    }

    /// The rows that are diagnosed, and their vectors.
    fn images(
        &self,
        io: &mut Io,
        model: &ClipModel,
        similarity: argent_stats::Similarity,
    ) -> anyhow::Result<(&'static str, RecordBatch, Vec<Vec<f32>>)> {
        let port = PORTS.into_iter().find(|port| io.has_input(port)).context("a port is filled")?;
        let rows = io.input(port)?.clone();
        let mut vectors = Vec::new();
        if port == EMBEDDINGS {
            vectors = of_rows(io, port, &rows, similarity)?;
        } else {
            let sight = Sight::filled(|p| p == port);
            let (files, ids, find) = (sight.files(&rows)?, texts(&rows, "id")?.clone(), io.side_finder());
            for row in 0..rows.num_rows() {
                let found = sight.read(&find, files.value(row)).and_then(|(voxels, shape)| {
                    model
                        .embed(&voxels, shape)
                        .map_err(|error| argent_engine::RowError::lasting("model", error.to_string()))
                });
                match found {
                    Ok(vector) => vectors.push(Some(vector)),
                    Err(error) => {
                        io.fault(port, ids.value(row), &error.kind, error.message);
                        vectors.push(None);
                    }
                }
                io.progress(row as u64 + 1, rows.num_rows() as u64, "");
                ensure!(!io.cancelled(), "interrupted");
            }
        }
        let kept: Vec<u64> = (0..).zip(&vectors).filter(|(_, v)| v.is_some()).map(|(row, _)| row).collect();
        let rows = arrow::compute::take_record_batch(&rows, &arrow::array::UInt64Array::from(kept))?;
        Ok((port, rows, vectors.into_iter().flatten().collect()))
    }
}

/// A row per image and finding: the images' columns of text, the finding and its score.
fn predictions(
    rows: &RecordBatch,
    findings: &[EncodedFinding],
    scores: &[Vec<f64>],
) -> anyhow::Result<RecordBatch> {
    let count = rows.num_rows();
    let places: arrow::array::UInt64Array = findings.iter().flat_map(|_| 0..count as u64).map(Some).collect();
    let mut fields: Vec<Field> = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if field.data_type() == &DataType::Utf8 && !["finding", "score"].contains(&field.name().as_str()) {
            fields.push(field.as_ref().clone());
            columns.push(arrow::compute::take(column, &places, None)?);
        }
    }
    let names: Vec<&str> = findings.iter().flat_map(|f| std::iter::repeat_n(f.id.as_str(), count)).collect();
    fields.push(Field::new("finding", DataType::Utf8, false));
    columns.push(Arc::new(StringArray::from_iter_values(names)));
    fields.push(Field::new("score", DataType::Float64, false));
    columns.push(Arc::new(Float64Array::from(scores.concat())));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

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
    ensemble: argent_stats::Ensemble,
) -> Result<Vec<Vec<f64>>, StatsError> {
    let of_finding = |finding: &EncodedFinding| {
        zero_shot_probabilities(images, &finding.positive, &finding.negative, comparison, ensemble)
    };
    findings.iter().map(of_finding).collect()
}

#[cfg(test)]
mod tests {
    use argent_stats::{Ensemble, Similarity};

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
