//! `train.clip`: an image encoder and a text encoder that put what belongs together at one place.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use argent_engine::joining::{UNMATCHED, account, texts};
use argent_engine::operator::ConfigFiles;
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, Signature, column};
use argent_learn::clip::{self, ClipConfig, ClipData, Similarity};
use argent_learn::history::Part;
use argent_learn::schedule::Schedule;
use argent_learn::settings::{OptimiserKind, Select, Settings};
use argent_learn::weights::Weights;
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gpus::device_of;
use crate::label::rules::sections;
use crate::plot;
use crate::sights::{self, Sight};
use crate::train::augment::Augment;
use crate::train::classifier::{PATIENT, Parts, check_leak, check_one_grid, model_problem, part_by_id};
use crate::train::course::{self, history_columns, history_fields};
use crate::train::text::{TextEncoderChoice, joined};
use crate::train::view::View;

/// Trains an image encoder and a text encoder on volumes or images and their reports, so that a volume and its report are
/// more alike than a volume and the report of another (CLIP). It goes on from its last checkpoint after a kill.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainClip {
    /// The image encoder; the names are those of train.classifier. Where the port `image_init` has weights, the same.
    pub model: String,
    /// The text encoder: `{ model: … }`, a published BERT, or `{ small: {} }`, a small one that is trained from nothing.
    pub text_encoder: TextEncoderChoice,
    /// The sections of the reports to read, one behind the other; left out, all that the table has.
    #[serde(default)]
    pub sections: Option<Vec<String>>,
    /// How an image and a text are compared: `dot`, the product of their embeddings as they are (as MPS-CT and GreenRFM
    /// have it); `cosine`, with a learned scale.
    #[serde(default)]
    pub similarity: SimilarityName,
    /// Values of an embedding.
    #[serde(default = "dim")]
    #[schemars(range(min = 1))]
    pub dim: usize,
    /// Optimiser steps.
    #[schemars(range(min = 1))]
    pub steps: usize,
    /// Pairs per step: each is learned by what it is not, so that more are better.
    #[serde(default = "batch")]
    #[schemars(range(min = 2))]
    pub batch: usize,
    /// Pairs that go through the encoders at once, where memory does not hold a batch; the loss is that of the whole batch.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub micro_batch: Option<usize>,
    /// The highest learning rate.
    #[serde(default = "lr")]
    pub lr: f64,
    /// Whether the learning rate falls along half a cosine; else it stays.
    #[serde(default)]
    pub cosine: bool,
    /// Steps over which the learning rate rises to `lr`, where it falls along a cosine.
    #[serde(default)]
    pub warmup_steps: usize,
    /// AdamW's weight decay.
    #[serde(default)]
    pub weight_decay: f64,
    /// The largest norm of a step's gradient; a longer one is scaled down.
    #[serde(default = "clip_norm")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub clip_norm: f64,
    /// How training samples are varied.
    #[serde(default)]
    pub augment: Augment,
    /// The seed of the initial weights, the order, and all that augmentation draws.
    #[serde(default)]
    pub seed: u64,
    /// How the network sees a volume or an image.
    pub view: View,
    /// The parts that it is trained on and watched on.
    #[serde(default)]
    pub parts: Parts,
    /// Seconds between two checkpoints in the store.
    #[serde(default = "checkpoint_seconds")]
    #[schemars(range(min = 0.0), extend("x-not-in-key" = "a training that went on from a checkpoint has the same weights"))]
    pub checkpoint_seconds: f64,
    /// The share of volumes that may lack a report or a part before the step fails.
    #[serde(default = "unmatched")]
    #[schemars(range(min = 0.0, max = 1.0), extend("x-not-in-key" = "it decides whether there is a result, not which"))]
    pub unmatched: f64,
    #[serde(skip)]
    folder: Option<PathBuf>,
}

/// How an image and a text are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SimilarityName {
    /// By the product of their embeddings.
    #[default]
    Dot,
    /// By the angle between them.
    Cosine,
}

fn dim() -> usize {
    768
}

fn batch() -> usize {
    10
}

fn lr() -> f64 {
    1e-5
}

fn clip_norm() -> f64 {
    0.5
}

fn checkpoint_seconds() -> f64 {
    60.0
}

fn unmatched() -> f64 {
    UNMATCHED
}

/// Volumes or images with their reports.
struct Pairs {
    /// Digests of the side files.
    files: Vec<String>,
    texts: Vec<String>,
    parts: Vec<Part>,
}

/// The port of weights that the image encoder starts from.
const IMAGE_INIT: &str = "image_init";

impl Operator for TrainClip {
    fn ports(&self) -> Vec<Port> {
        let mut ports = sights::training_ports();
        ports.extend([
            Port::new("reports", "A table of reports: `id` and text sections.", &[Needed::text("id")]),
            Port::new(
                "split",
                "Parts, as `split.groups` makes them.",
                &[Needed::text("id"), Needed::text("part")],
            ),
            Port {
                optional: true,
                ..Port::new(
                    IMAGE_INIT,
                    "One row of weights of train.classifier, whose encoder the image encoder starts from.",
                    &[Needed::files("weights")],
                )
            },
        ]);
        ports
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        self.folder = self.text_encoder.find(files).map_err(|problem| vec![problem])?;
        Ok(())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let sight = Sight::of(inputs).map_err(|problem| vec![problem])?;
        let mut problems = self.view.problems(sight);
        problems.extend(self.augment.problems(sight));
        problems.extend(model_problem(&self.model, sight));
        let (reports_on, split_on) = (&inputs.port("reports").on, &inputs.port("split").on);
        for (port, on) in [("reports", reports_on), ("split", split_on)] {
            let missing = inputs.missing(sight.port(), &[on.as_str()]).into_iter();
            problems.extend(missing.map(|p| Problem { path: vec!["match".into(), port.into()], ..p }));
        }
        let sections = match sections(inputs, "reports", self.sections.as_deref()) {
            Ok(sections) if problems.is_empty() => sections,
            found => return Err(problems.into_iter().chain(found.err().into_iter().flatten()).collect()),
        };
        let weights = column::schema([column::text("model"), column::file("weights")]);
        let mut seen: BTreeSet<&str> = ["id", sight.column(), reports_on, split_on].into_iter().collect();
        let schema = &inputs.port(sight.port()).schema;
        let has = |name: &&str| schema.field_with_name(name).is_ok();
        seen.extend(["spacing_mm", PATIENT].into_iter().filter(has));
        let mut reports: BTreeSet<&str> = sections.iter().map(String::as_str).collect();
        reports.insert(reports_on);
        let mut signature = Signature::new(weights, &["model"])
            .output("history", column::schema(history_fields()), &["epoch", "step"])
            .output(plot::stored::OUTPUT, column::schema(plot::fields()), &["name"])
            .reads(sight.port(), seen)
            .reads("reports", reports)
            .reads("split", BTreeSet::from([split_on.as_str(), "part"]));
        if inputs.ports.contains_key(IMAGE_INIT) {
            signature = signature.reads(IMAGE_INIT, ["weights"]);
        }
        Ok(signature)
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let sight = Sight::filled(|port| io.has_input(port));
        let pairs = self.pairs(io, sight)?;
        let image = self.image_init(io)?;
        let find = io.side_finder();
        let paths: Vec<PathBuf> = pairs.files.iter().map(|d| find(d)).collect::<anyhow::Result<_>>()?;
        let load = move |place: usize| {
            let bytes = std::fs::read(&paths[place]).map_err(|e| format!("it does not read: {e}"))?;
            sight.decode(&bytes)
        };
        let in_training = pairs.texts.iter().zip(&pairs.parts).filter(|(_, part)| **part == Part::Train);
        let training: Vec<&str> = in_training.map(|(text, _)| text.as_str()).collect();
        ensure!(training.len() > 1, "{} pairs are in the part `{}`", training.len(), self.parts.train);
        let (encoder, told) = self.text_encoder.encoder(self.folder.as_deref(), &training, self.seed)?;
        io.progress(0, self.steps as u64, format!("text encoder: {told}"));
        let config = self.config(sight, training.len())?;
        let data = ClipData { texts: pairs.texts, parts: pairs.parts, load: Box::new(load) };
        let every = Duration::from_secs_f64(self.checkpoint_seconds);
        let device = device_of(io);
        let trained = course::train(io, every, &pairs.files, |resume, observer| {
            clip::train(&config, &data, encoder.clone(), image.as_ref(), device, resume, observer)
        })?;
        let digest = io.keep(&trained.weights)?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![self.model.as_str()])),
            Arc::new(StringArray::from(vec![digest.to_string()])),
        ];
        io.emit("", RecordBatch::try_new(io.schema("")?, columns)?)?;
        io.emit("history", RecordBatch::try_new(io.schema("history")?, history_columns(&trained.history))?)?;
        course::emit_plots(io, &trained.history)
    }
}

impl TrainClip {
    fn config(&self, sight: Sight, training: usize) -> anyhow::Result<ClipConfig> {
        let steps_per_epoch = (training / self.batch).max(1);
        Ok(ClipConfig {
            model: self.model.parse()?,
            dim: self.dim,
            similarity: match self.similarity {
                SimilarityName::Dot => Similarity::Dot,
                SimilarityName::Cosine => Similarity::Cosine,
            },
            settings: Settings {
                epochs: self.steps.div_ceil(steps_per_epoch),
                steps: Some(self.steps),
                batch: self.batch,
                micro_batch: self.micro_batch,
                lr: self.lr,
                schedule: match self.cosine {
                    true => Schedule::Cosine { warmup_steps: self.warmup_steps },
                    false => Schedule::Constant,
                },
                optimiser: OptimiserKind::AdamW,
                weight_decay: self.weight_decay,
                clip_norm: Some(self.clip_norm),
                seed: self.seed,
                view: self.view.kernel(sight),
                augment: self.augment.kernel(),
                select: Select::Last,
            },
        })
    }

    /// The weights that the image encoder starts from, where there are any.
    fn image_init(&self, io: &Io) -> anyhow::Result<Option<Weights>> {
        if !io.has_input(IMAGE_INIT) {
            return Ok(None);
        }
        let rows = io.input(IMAGE_INIT)?;
        ensure!(rows.num_rows() == 1, "`{IMAGE_INIT}` has {} rows, expected one", rows.num_rows());
        let path = io.side_file(texts(rows, "weights")?.value(0))?;
        Ok(Some(Weights::from_bytes(&std::fs::read(path)?)?))
    }

    /// Joins samples, reports and parts; samples of other parts are left out.
    fn pairs(&self, io: &mut Io, sight: Sight) -> anyhow::Result<Pairs> {
        let port = sight.port();
        let (samples, reports, split) =
            (io.input(port)?.clone(), io.input("reports")?.clone(), io.input("split")?.clone());
        let (reports_on, split_on) = (io.on("reports").to_owned(), io.on("split").to_owned());
        check_one_grid(&samples)?;
        let parts = part_by_id(&split, &split_on)?;
        check_leak(&samples, &split_on, &parts)?;
        let of_report = self.text_by_id(io, &reports, &reports_on)?;
        let (ids, files) = (texts(&samples, "id")?, sight.files(&samples)?);
        let (by_report, by_split) = (texts(&samples, &reports_on)?, texts(&samples, &split_on)?);
        let mut pairs = Pairs { files: Vec::new(), texts: Vec::new(), parts: Vec::new() };
        let (mut without_part, mut without_report) = (Vec::new(), Vec::new());
        for row in 0..samples.num_rows() {
            let Some(part) = parts.get(by_split.value(row)) else {
                without_part.push(ids.value(row).to_owned());
                continue;
            };
            let part = match part.as_str() {
                p if p == self.parts.train => Part::Train,
                p if p == self.parts.val => Part::Validation,
                _ => continue,
            };
            let Some(text) = of_report.get(by_report.value(row)) else {
                without_report.push(ids.value(row).to_owned());
                continue;
            };
            pairs.files.push(files.value(row).to_owned());
            pairs.texts.push(text.clone());
            pairs.parts.push(part);
        }
        let candidates = pairs.files.len() + without_report.len();
        account(io, port, "split", samples.num_rows(), &without_part, self.unmatched)?;
        account(io, port, "reports", candidates, &without_report, self.unmatched)?;
        Ok(pairs)
    }

    /// By id: the text of its report. A report without a word is none, and one that rows tell in two ways is a fault.
    fn text_by_id(
        &self,
        io: &mut Io,
        reports: &RecordBatch,
        on: &str,
    ) -> anyhow::Result<HashMap<String, String>> {
        let ids = texts(reports, on)?;
        let is_section = |name: &String| match &self.sections {
            Some(sections) => sections.contains(name),
            None => name != on,
        };
        let schema = reports.schema();
        // In the order of the parameter, where it says one.
        let names: Vec<String> = match &self.sections {
            Some(sections) => sections.clone(),
            None => {
                schema.fields().iter().map(|f| f.name().clone()).filter(|name| is_section(name)).collect()
            }
        };
        let places: Vec<usize> = names.iter().map(|name| schema.index_of(name)).collect::<Result<_, _>>()?;
        let all = joined(&reports.project(&places)?)?;
        let mut by_id: HashMap<String, String> = HashMap::new();
        let mut conflicts = BTreeSet::new();
        for (id, text) in ids.iter().zip(all) {
            let Some(id) = id.filter(|_| !text.is_empty()) else { continue };
            if by_id.get(id).is_some_and(|before| *before != text) {
                conflicts.insert(id.to_owned());
            }
            by_id.insert(id.to_owned(), text);
        }
        for id in conflicts {
            by_id.remove(&id);
            io.fault(
                "reports",
                &id,
                "conflict",
                format!("rows of this `{on}` have different texts; it is left out"),
            );
        }
        Ok(by_id)
    }
}
