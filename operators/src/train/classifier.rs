//! `train.classifier`: a network that tells findings from volumes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use argent_engine::joining::{Index, UNMATCHED, account, texts};
use argent_engine::operator::nearest;
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, Signature, column};
use argent_imaging::side_file;
use argent_learn::model::ModelKind;
use argent_learn::train::{History, Part, Progress, TrainConfig, TrainData, train};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Float64Type;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gpus::device_of;
use crate::train::view::View;

/// Trains a network on volumes and label targets, on the training part, and watches the validation part.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainClassifier {
    /// The network: `resnet3d-18` (33 million parameters) or `resnet3d-tiny`.
    pub model: String,
    /// How often each training volume is seen.
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// Volumes per step.
    #[serde(default = "batch")]
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// The highest learning rate; it falls along a cosine to 1e-6.
    #[serde(default = "lr")]
    pub lr: f64,
    /// AdamW's weight decay.
    #[serde(default = "weight_decay")]
    pub weight_decay: f64,
    /// Steps over which the learning rate rises to `lr`.
    #[serde(default)]
    pub warmup_steps: usize,
    /// Axes along which training volumes are mirrored at random; only where a mirrored body means the same.
    #[serde(default)]
    pub flip: BTreeSet<Axis>,
    /// The seed of the initial weights, the order, the crops and the mirroring.
    #[serde(default)]
    pub seed: u64,
    /// How the network sees a volume.
    pub view: View,
    /// The parts that it is trained on and watched on.
    #[serde(default)]
    pub parts: Parts,
    /// The share of volumes that may lack labels or a part before the step fails.
    #[serde(default = "unmatched")]
    #[schemars(range(min = 0.0, max = 1.0), extend("x-not-in-key" = "it decides whether there is a result, not which"))]
    pub unmatched: f64,
}

/// An axis of the grid that volumes lie on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// The first axis: right to left, or left to right.
    X,
    /// The second axis: front to back, or back to front.
    Y,
    /// The third axis: feet to head, or head to feet.
    Z,
}

/// The names of the parts that training uses.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parts {
    /// Trained on.
    pub train: String,
    /// Watched: its loss is in the history and decides nothing.
    pub val: String,
}

impl Default for Parts {
    fn default() -> Parts {
        Parts { train: "train".into(), val: "val".into() }
    }
}

fn batch() -> usize {
    10
}

fn lr() -> f64 {
    1e-4
}

fn weight_decay() -> f64 {
    1e-4
}

fn unmatched() -> f64 {
    UNMATCHED
}

/// Volumes, labels and parts, joined.
struct Cohort {
    /// Digests of the side files.
    voxels: Vec<String>,
    parts: Vec<Part>,
    findings: Vec<String>,
    /// By volume, then finding.
    targets: Vec<f32>,
    weights: Vec<f32>,
}

impl Operator for TrainClassifier {
    fn ports(&self) -> Vec<Port> {
        vec![
            Port::new(
                "volumes",
                "Volumes on one grid, as `volumes.resample` makes them.",
                &[Needed::text("id"), Needed::files("voxels"), Needed::lists("spacing_mm")],
            ),
            Port::new(
                "labels",
                "Targets and weights, as `label.policy` makes them.",
                &[
                    Needed::text("id"),
                    Needed::text("finding"),
                    Needed::number("target"),
                    Needed::number("weight"),
                ],
            ),
            Port::new(
                "split",
                "Parts, as `split.groups` makes them.",
                &[Needed::text("id"), Needed::text("part")],
            ),
        ]
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let mut problems = self.view.problems();
        if self.model.parse::<ModelKind>().is_err() {
            let problem = Problem::at(["with", "model"], format!("there is no model `{}`", self.model));
            let names = ModelKind::ALL.map(ModelKind::name);
            problems.push(problem.help(nearest(&self.model, &names, "models")));
        }
        let (labels_on, split_on) = (&inputs.port("labels").on, &inputs.port("split").on);
        for (port, on) in [("labels", labels_on), ("split", split_on)] {
            problems.extend(
                inputs
                    .missing("volumes", &[on.as_str()])
                    .into_iter()
                    .map(|p| Problem { path: vec!["match".into(), port.into()], ..p }),
            );
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let weights =
            column::schema([column::text("model"), column::file("weights"), column::text("findings")]);
        let history = column::schema([
            column::whole("epoch"),
            column::whole("step"),
            column::number("lr"),
            column::number("train_loss"),
            column::number("val_loss"),
        ]);
        let volumes: BTreeSet<&str> =
            ["id", "voxels", "spacing_mm", labels_on, split_on].into_iter().collect();
        Ok(Signature::new(weights, &["model"])
            .output("history", history, &["epoch", "step"])
            .reads("volumes", volumes)
            .reads("labels", BTreeSet::from([labels_on.as_str(), "finding", "target", "weight"]))
            .reads("split", BTreeSet::from([split_on.as_str(), "part"])))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let cohort = self.cohort(io)?;
        self.check(&cohort)?;
        let find = io.side_finder();
        let paths: Vec<PathBuf> = cohort.voxels.iter().map(|d| find(d)).collect::<anyhow::Result<_>>()?;
        let load = move |place: usize| {
            let bytes = std::fs::read(&paths[place])
                .map_err(|e| format!("a volume's side file does not read: {e}"))?;
            let volume = side_file::decode(&bytes).map_err(|e| e.to_string())?;
            Ok((volume.hounsfield, volume.geometry.shape))
        };
        let data = TrainData {
            parts: cohort.parts,
            targets: cohort.targets,
            weights: cohort.weights,
            load: Box::new(load),
        };
        let config = self.config(cohort.findings.clone())?;
        let trained = train(&config, &data, device_of(io), None, &mut |progress| {
            if let Progress::Step { record, steps } = &progress {
                io.progress(record.step as u64, *steps as u64, format!("loss {:.3}", record.loss));
            }
            if io.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let digest = io.keep(&trained.weights)?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![self.model.as_str()])),
            Arc::new(StringArray::from(vec![digest.to_string()])),
            Arc::new(StringArray::from(vec![cohort.findings.join(",")])),
        ];
        io.emit("", RecordBatch::try_new(io.schema("")?, columns)?)?;
        let history = history_columns(&trained.history);
        io.emit("history", RecordBatch::try_new(io.schema("history")?, history)?)
    }
}

impl TrainClassifier {
    fn config(&self, classes: Vec<String>) -> anyhow::Result<TrainConfig> {
        Ok(TrainConfig {
            model: self.model.parse()?,
            classes,
            epochs: self.epochs,
            batch: self.batch,
            lr: self.lr,
            weight_decay: self.weight_decay,
            seed: self.seed,
            view: self.view.kernel(),
            warmup_steps: self.warmup_steps,
            flip: [Axis::X, Axis::Y, Axis::Z].map(|axis| self.flip.contains(&axis)),
            ..TrainConfig::default()
        })
    }

    /// Joins volumes, labels and parts; volumes of other parts are left out.
    fn cohort(&self, io: &mut Io) -> anyhow::Result<Cohort> {
        let (volumes, labels, split) =
            (io.input("volumes")?.clone(), io.input("labels")?.clone(), io.input("split")?.clone());
        let (labels_on, split_on) = (io.on("labels").to_owned(), io.on("split").to_owned());
        check_one_grid(&volumes)?;
        let findings: BTreeSet<&str> = texts(&labels, "finding")?.iter().flatten().collect();
        let findings: Vec<String> = findings.into_iter().map(str::to_owned).collect();
        let targets = targets_by_id(io, &labels, &labels_on, &findings)?;
        let parts = part_by_id(&split, &split_on)?;
        let (ids, voxels) = (texts(&volumes, "id")?, texts(&volumes, "voxels")?);
        let (by_labels, by_split) = (texts(&volumes, &labels_on)?, texts(&volumes, &split_on)?);
        let mut cohort = Cohort {
            voxels: Vec::new(),
            parts: Vec::new(),
            findings,
            targets: Vec::new(),
            weights: Vec::new(),
        };
        let (mut without_part, mut without_labels) = (Vec::new(), Vec::new());
        for row in 0..volumes.num_rows() {
            let Some(part) = parts.get(by_split.value(row)) else {
                without_part.push(ids.value(row).to_owned());
                continue;
            };
            let part = match part.as_str() {
                p if p == self.parts.train => Part::Train,
                p if p == self.parts.val => Part::Validation,
                _ => continue,
            };
            let Some(found) = targets.get(by_labels.value(row)) else {
                without_labels.push(ids.value(row).to_owned());
                continue;
            };
            cohort.voxels.push(voxels.value(row).to_owned());
            cohort.parts.push(part);
            cohort.targets.extend(found.iter().map(|t| t.unwrap_or(0.0)));
            cohort.weights.extend(found.iter().map(|t| if t.is_some() { 1.0 } else { 0.0 }));
        }
        let candidates = cohort.voxels.len() + without_labels.len();
        account(io, "volumes", "split", volumes.num_rows(), &without_part, self.unmatched)?;
        account(io, "volumes", "labels", candidates, &without_labels, self.unmatched)?;
        Ok(cohort)
    }

    /// What would make a training that looks well and means nothing.
    fn check(&self, cohort: &Cohort) -> anyhow::Result<()> {
        let train = cohort.parts.iter().filter(|p| **p == Part::Train).count();
        ensure!(train > 0, "no volume is in the part `{}`", self.parts.train);
        let classes = cohort.findings.len();
        for (class, finding) in cohort.findings.iter().enumerate() {
            let rows = (0..cohort.parts.len()).filter(|r| cohort.parts[*r] == Part::Train);
            let known: BTreeSet<bool> = rows
                .filter(|r| cohort.weights[r * classes + class] > 0.0)
                .map(|r| cohort.targets[r * classes + class] >= 0.5)
                .collect();
            ensure!(
                known.len() == 2,
                "`{finding}` has only one kind of target in the part `{}`: there is nothing to learn from",
                self.parts.train
            );
        }
        Ok(())
    }
}

/// A row per step; the validation loss of an epoch stands in its last step.
fn history_columns(history: &History) -> Vec<ArrayRef> {
    let steps = &history.steps;
    let last = |place: usize| steps.get(place + 1).is_none_or(|next| next.epoch != steps[place].epoch);
    let val_loss = steps.iter().enumerate().map(|(place, step)| {
        let epoch = history.epochs.iter().find(|e| e.epoch == step.epoch).filter(|_| last(place))?;
        epoch.validation_loss
    });
    vec![
        Arc::new(Int64Array::from_iter_values(steps.iter().map(|s| s.epoch as i64))),
        Arc::new(Int64Array::from_iter_values(steps.iter().map(|s| s.step as i64))),
        Arc::new(Float64Array::from_iter_values(steps.iter().map(|s| s.lr))),
        Arc::new(Float64Array::from_iter_values(steps.iter().map(|s| s.loss))),
        Arc::new(val_loss.collect::<Float64Array>()),
    ]
}

/// Volumes of different spacing must not be mixed: a network sees voxels, not millimetres.
fn check_one_grid(volumes: &RecordBatch) -> anyhow::Result<()> {
    let column = volumes.column_by_name("spacing_mm").context("volumes have a spacing")?;
    let lists = column.as_list_opt::<i32>().context("a spacing is a list of numbers")?;
    let mut first: Option<Vec<f64>> = None;
    for row in 0..lists.len() {
        let spacing: Vec<f64> = lists.value(row).as_primitive::<Float64Type>().values().to_vec();
        let grid = first.get_or_insert_with(|| spacing.clone());
        let same = grid.len() == spacing.len()
            && grid.iter().zip(&spacing).all(|(a, b)| (a - b).abs() <= 0.01 * a.abs());
        ensure!(same, "volumes have different spacings; bring them to one grid with volumes.resample");
    }
    Ok(())
}

/// By id: a target for each finding. Rows of one id that disagree are faults, and their target is masked.
fn targets_by_id(
    io: &mut Io,
    labels: &RecordBatch,
    on: &str,
    findings: &[String],
) -> anyhow::Result<HashMap<String, Vec<Option<f32>>>> {
    let place: BTreeMap<&str, usize> = findings.iter().enumerate().map(|(i, f)| (f.as_str(), i)).collect();
    let index = Index::new(labels, on)?;
    let (ids, names) = (texts(labels, on)?, texts(labels, "finding")?);
    let number = |name: &str| {
        let column = labels.column_by_name(name).with_context(|| format!("labels have no `{name}`"))?;
        column
            .as_primitive_opt::<Float64Type>()
            .cloned()
            .with_context(|| format!("`{name}` does not hold numbers"))
    };
    let (target, weight) = (number("target")?, number("weight")?);
    let known = |row: usize| {
        (target.is_valid(row) && weight.is_valid(row) && weight.value(row) > 0.0)
            .then(|| target.value(row) as f32)
    };
    let mut all = HashMap::new();
    let distinct: BTreeSet<&str> = ids.iter().flatten().collect();
    for id in distinct {
        let mut targets: Vec<Option<f32>> = vec![None; findings.len()];
        let mut seen: Vec<Option<Option<f32>>> = vec![None; findings.len()];
        for row in index.get(id) {
            let class = place[names.value(*row)];
            match seen[class] {
                Some(before) if before != known(*row) => {
                    io.fault(
                        "labels",
                        id,
                        "conflict",
                        format!("rows of this `{on}` disagree on a finding; it is masked"),
                    );
                    targets[class] = None;
                }
                Some(_) => {}
                None => {
                    seen[class] = Some(known(*row));
                    targets[class] = known(*row);
                }
            }
        }
        all.insert(id.to_owned(), targets);
    }
    Ok(all)
}

/// By id: its part.
///
/// # Errors
/// When rows of one id lie in different parts: that is a leak.
pub(crate) fn part_by_id(split: &RecordBatch, on: &str) -> anyhow::Result<HashMap<String, String>> {
    let (ids, parts) = (texts(split, on)?, texts(split, "part")?);
    let mut all: HashMap<String, String> = HashMap::new();
    for row in (0..split.num_rows()).filter(|r| ids.is_valid(*r) && parts.is_valid(*r)) {
        let before = all.insert(ids.value(row).to_owned(), parts.value(row).to_owned());
        if before.is_some_and(|b| b != parts.value(row)) {
            bail!("rows of one `{on}` lie in different parts: the test set would have been seen in training");
        }
    }
    Ok(all)
}
