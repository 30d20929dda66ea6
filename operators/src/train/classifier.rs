//! `train.classifier`: a network that tells findings from volumes or images.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use argent_engine::joining::{Index, UNMATCHED, account, texts};
use argent_engine::operator::{ConfigFiles, nearest};
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, Signature, column};
use argent_learn::classifier::{self, ClassifierConfig, ClassifierData, Sampling, balanced_positive_weight};
use argent_learn::history::Part;
use argent_learn::model::ModelKind;
use argent_learn::schedule::Schedule;
use argent_learn::settings::{OptimiserKind, Select, Settings};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::Float64Type;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gpus::device_of;
use crate::plot;
use crate::sights::{self, Sight};
use crate::train::augment::Augment;
use crate::train::course::{self, history_columns, history_fields};
use crate::train::init::{self, INIT, Init, coverage_columns};
use crate::train::view::View;

/// Trains a network on volumes or images and label targets, on the training part, and watches the validation part. It
/// starts from random weights, published ones or those of an earlier step; `.coverage` says what came of each array. A
/// training that is interrupted or killed goes on from its last checkpoint, and ends with the same weights.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainClassifier {
    /// The network. Of volumes: `resnet3d-18` (33 million parameters), `densenet3d-121`, `vit3d-b16`. Of images:
    /// `resnet18`, `resnet50`, `densenet121`, `vit-b16`. Small ones for trying: `resnet3d-tiny` and `resnet-tiny`,
    /// `densenet3d-tiny` and `densenet-tiny`, `vit3d-tiny` and `vit-tiny`.
    pub model: String,
    /// How often each training sample is seen.
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// Steps after which the training ends in any case.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub steps: Option<usize>,
    /// Samples per step.
    #[serde(default = "batch")]
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Samples that go through the network at once, where memory does not hold a batch; their gradients are added up.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub micro_batch: Option<usize>,
    /// The highest learning rate.
    #[serde(default = "lr")]
    pub lr: f64,
    /// How the learning rate goes: `cosine`, it falls along half a cosine to 1e-6; `one_cycle`, it rises from a 25th over
    /// the first 30 % of the steps and falls to next to nothing, as PyTorch's OneCycleLR; `constant`.
    #[serde(default)]
    pub schedule: ScheduleName,
    /// Steps over which the learning rate rises to `lr`, before a `cosine`.
    #[serde(default)]
    pub warmup_steps: usize,
    /// What moves the weights: `adamw`, or `sgd`, gradient descent with momentum.
    #[serde(default)]
    pub optimiser: OptimiserName,
    /// What remains of the momentum of `sgd` in each step.
    #[serde(default = "momentum")]
    #[schemars(range(min = 0.0, max = 0.9999))]
    pub momentum: f64,
    /// The weight decay; that of AdamW is decoupled from the gradient.
    #[serde(default = "weight_decay")]
    pub weight_decay: f64,
    /// The largest norm of a step's gradient; a longer one is scaled down.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub clip_norm: Option<f64>,
    /// What a positive target counts against a negative one: `none`, as much; `balanced`, as many times as much as there
    /// are more negatives of its finding in the training part.
    #[serde(default)]
    pub positive_weight: PositiveWeight,
    /// In which proportion samples are drawn: `natural`, each once an epoch; `balanced`, with both kinds of targets of
    /// each finding as often.
    #[serde(default)]
    pub sampling: SamplingName,
    /// Which weights are the result: those after the `last` step, or of the epoch with the `lowest_loss` or the
    /// `highest_mcc` on the validation part.
    #[serde(default)]
    pub select: SelectName,
    /// How training samples are varied.
    #[serde(default)]
    pub augment: Augment,
    /// The seed of the initial weights, the order, and all that augmentation draws.
    #[serde(default)]
    pub seed: u64,
    /// How the network sees a volume or an image.
    pub view: View,
    /// What it starts from instead of random weights: a file, or what the port `init` has.
    #[serde(default)]
    pub init: Option<Init>,
    /// The parts that it is trained on and watched on.
    #[serde(default)]
    pub parts: Parts,
    /// Seconds between two checkpoints in the store.
    #[serde(default = "checkpoint_seconds")]
    #[schemars(range(min = 0.0), extend("x-not-in-key" = "a training that went on from a checkpoint has the same weights"))]
    pub checkpoint_seconds: f64,
    /// The share of volumes that may lack labels or a part before the step fails.
    #[serde(default = "unmatched")]
    #[schemars(range(min = 0.0, max = 1.0), extend("x-not-in-key" = "it decides whether there is a result, not which"))]
    pub unmatched: f64,
    #[serde(skip)]
    init_file: Option<PathBuf>,
}

/// How the learning rate goes over the steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleName {
    /// Half a cosine.
    #[default]
    Cosine,
    /// Up and down once.
    OneCycle,
    /// Always the same.
    Constant,
}

/// What moves the weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptimiserName {
    /// Adam with decoupled weight decay.
    #[default]
    Adamw,
    /// Gradient descent with momentum.
    Sgd,
}

/// What a positive target counts against a negative one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PositiveWeight {
    /// As much.
    #[default]
    None,
    /// Negatives over positives of its finding in the training part.
    Balanced,
}

/// In which proportion samples are drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SamplingName {
    /// Each once an epoch.
    #[default]
    Natural,
    /// A finding at random, then one of its kinds of targets, then a sample of that kind.
    Balanced,
}

/// Which weights are the result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SelectName {
    /// Those after the last step.
    #[default]
    Last,
    /// Those with the lowest validation loss.
    LowestLoss,
    /// Those with the highest Matthews correlation on the validation part.
    HighestMcc,
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

fn momentum() -> f64 {
    0.9
}

fn checkpoint_seconds() -> f64 {
    60.0
}

fn unmatched() -> f64 {
    UNMATCHED
}

/// Volumes or images, labels and parts, joined.
struct Cohort {
    /// Digests of the side files.
    files: Vec<String>,
    parts: Vec<Part>,
    findings: Vec<String>,
    /// By sample, then finding.
    targets: Vec<f32>,
    weights: Vec<f32>,
}

impl Operator for TrainClassifier {
    fn ports(&self) -> Vec<Port> {
        let mut ports = sights::training_ports();
        ports.extend([
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
            init::port(),
        ]);
        ports
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        let found = self.init.as_ref().map(|init| init.find(files)).transpose();
        self.init_file = found.map_err(|problem| vec![problem])?.flatten();
        Ok(())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let sight = Sight::of(inputs).map_err(|problem| vec![problem])?;
        let mut problems = self.view.problems(sight);
        problems.extend(self.augment.problems(sight));
        problems.extend(model_problem(&self.model, sight));
        problems.extend(init::problem(self.init.as_ref(), inputs));
        if self.warmup_steps > 0 && self.schedule != ScheduleName::Cosine {
            let message = "only a `cosine` schedule has a warm-up";
            problems.push(Problem::at(["with", "warmup_steps"], message).help("take it away"));
        }
        let (labels_on, split_on) = (&inputs.port("labels").on, &inputs.port("split").on);
        for (port, on) in [("labels", labels_on), ("split", split_on)] {
            problems.extend(
                inputs
                    .missing(sight.port(), &[on.as_str()])
                    .into_iter()
                    .map(|p| Problem { path: vec!["match".into(), port.into()], ..p }),
            );
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let weights =
            column::schema([column::text("model"), column::file("weights"), column::text("findings")]);
        let mut seen: BTreeSet<&str> = ["id", sight.column(), labels_on, split_on].into_iter().collect();
        let schema = &inputs.port(sight.port()).schema;
        let has = |name: &&str| schema.field_with_name(name).is_ok();
        seen.extend(["spacing_mm", PATIENT].into_iter().filter(has));
        let mut signature = Signature::new(weights, &["model"])
            .output("history", column::schema(history_fields()), &["epoch", "step"])
            .output(plot::stored::OUTPUT, column::schema(plot::fields()), &["name"])
            .reads(sight.port(), seen)
            .reads("labels", BTreeSet::from([labels_on.as_str(), "finding", "target", "weight"]))
            .reads("split", BTreeSet::from([split_on.as_str(), "part"]));
        let has_port = inputs.ports.contains_key(INIT);
        if has_port {
            signature = signature.reads(INIT, ["weights"]);
        }
        if has_port || self.init.is_some() {
            let fields = column::schema(init::coverage_fields());
            signature = signature.output("coverage", fields, &["array", "origin"]);
        }
        Ok(signature)
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let sight = Sight::filled(|port| io.has_input(port));
        let cohort = self.cohort(io, sight)?;
        self.check(&cohort)?;
        let find = io.side_finder();
        let paths: Vec<PathBuf> = cohort.files.iter().map(|d| find(d)).collect::<anyhow::Result<_>>()?;
        let load = move |place: usize| {
            let bytes = std::fs::read(&paths[place]).map_err(|e| format!("it does not read: {e}"))?;
            sight.decode(&bytes)
        };
        let data = ClassifierData {
            parts: cohort.parts,
            targets: cohort.targets,
            weights: cohort.weights,
            load: Box::new(load),
        };
        let config = self.config(cohort.findings, sight, &data)?;
        let (start, coverage) =
            init::start(self.init.as_ref(), self.init_file.as_deref(), io, &config)?.unzip();
        if let Some(coverage) = &coverage {
            io.progress(0, 1, format!("weights to start from: {coverage}"));
        }
        let every = Duration::from_secs_f64(self.checkpoint_seconds);
        let device = device_of(io);
        let trained = course::train(io, every, &cohort.files, |resume, observer| {
            classifier::train(&config, &data, start.as_ref(), device, resume, observer)
        })?;
        if trained.without_weight > 0 {
            let count = trained.without_weight;
            io.warn(format!("{count} of the samples have no target with weight and were left out"));
        }
        let digest = io.keep(&trained.weights)?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![self.model.as_str()])),
            Arc::new(StringArray::from(vec![digest.to_string()])),
            Arc::new(StringArray::from(vec![config.classes.join(",")])),
        ];
        io.emit("", RecordBatch::try_new(io.schema("")?, columns)?)?;
        if let Some(coverage) = &coverage {
            let columns = coverage_columns(coverage);
            io.emit("coverage", RecordBatch::try_new(io.schema("coverage")?, columns)?)?;
        }
        io.emit("history", RecordBatch::try_new(io.schema("history")?, history_columns(&trained.history))?)?;
        course::emit_plots(io, &trained.history)
    }
}

/// The id column by which a leak is seen, where the samples have it.
pub(crate) const PATIENT: &str = "patient";

/// What is wrong with the name of a network, if anything.
pub(crate) fn model_problem(name: &str, sight: Sight) -> Option<Problem> {
    let fitting = ModelKind::ALL.into_iter().filter(|model| sight.fits(*model));
    let names: Vec<&str> = fitting.map(ModelKind::name).collect();
    let at = |message: String| Problem::at(["with", "model"], message);
    match name.parse::<ModelKind>() {
        Ok(model) if sight.fits(model) => None,
        Ok(_) => {
            let problem = at(format!("`{name}` does not look at {}", sight.port()));
            Some(problem.help(format!("networks that do: {}", names.join(", "))))
        }
        Err(_) => Some(at(format!("there is no model `{name}`")).help(nearest(name, &names, "models"))),
    }
}

impl TrainClassifier {
    fn config(
        &self,
        classes: Vec<String>,
        sight: Sight,
        data: &ClassifierData,
    ) -> anyhow::Result<ClassifierConfig> {
        let positive_weight = match self.positive_weight {
            PositiveWeight::None => Vec::new(),
            PositiveWeight::Balanced => balanced_positive_weight(data, &classes)?,
        };
        Ok(ClassifierConfig {
            model: self.model.parse()?,
            classes,
            positive_weight,
            sampling: match self.sampling {
                SamplingName::Natural => Sampling::Natural,
                SamplingName::Balanced => Sampling::Balanced,
            },
            settings: Settings {
                epochs: self.epochs,
                steps: self.steps,
                batch: self.batch,
                micro_batch: self.micro_batch,
                lr: self.lr,
                schedule: match self.schedule {
                    ScheduleName::Cosine => Schedule::Cosine { warmup_steps: self.warmup_steps },
                    ScheduleName::OneCycle => Schedule::OneCycle,
                    ScheduleName::Constant => Schedule::Constant,
                },
                optimiser: match self.optimiser {
                    OptimiserName::Adamw => OptimiserKind::AdamW,
                    OptimiserName::Sgd => OptimiserKind::Sgd { momentum: self.momentum, nesterov: false },
                },
                weight_decay: self.weight_decay,
                clip_norm: self.clip_norm,
                seed: self.seed,
                view: self.view.kernel(sight),
                augment: self.augment.kernel(),
                select: match self.select {
                    SelectName::Last => Select::Last,
                    SelectName::LowestLoss => Select::LowestLoss,
                    SelectName::HighestMcc => Select::HighestMcc,
                },
            },
        })
    }

    /// Joins samples, labels and parts; samples of other parts are left out.
    fn cohort(&self, io: &mut Io, sight: Sight) -> anyhow::Result<Cohort> {
        let port = sight.port();
        let (samples, labels, split) =
            (io.input(port)?.clone(), io.input("labels")?.clone(), io.input("split")?.clone());
        let (labels_on, split_on) = (io.on("labels").to_owned(), io.on("split").to_owned());
        check_one_grid(&samples)?;
        let findings: BTreeSet<&str> = texts(&labels, "finding")?.iter().flatten().collect();
        let findings: Vec<String> = findings.into_iter().map(str::to_owned).collect();
        let targets = targets_by_id(io, &labels, &labels_on, &findings)?;
        let parts = part_by_id(&split, &split_on)?;
        check_leak(&samples, &split_on, &parts)?;
        let (ids, files) = (texts(&samples, "id")?, sight.files(&samples)?);
        let (by_labels, by_split) = (texts(&samples, &labels_on)?, texts(&samples, &split_on)?);
        let mut cohort = Cohort {
            files: Vec::new(),
            parts: Vec::new(),
            findings,
            targets: Vec::new(),
            weights: Vec::new(),
        };
        let (mut without_part, mut without_labels) = (Vec::new(), Vec::new());
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
            let Some(found) = targets.get(by_labels.value(row)) else {
                without_labels.push(ids.value(row).to_owned());
                continue;
            };
            cohort.files.push(files.value(row).to_owned());
            cohort.parts.push(part);
            cohort.targets.extend(found.iter().map(|t| t.map_or(0.0, |[target, _]| target)));
            cohort.weights.extend(found.iter().map(|t| t.map_or(0.0, |[_, weight]| weight)));
        }
        let candidates = cohort.files.len() + without_labels.len();
        account(io, port, "split", samples.num_rows(), &without_part, self.unmatched)?;
        account(io, port, "labels", candidates, &without_labels, self.unmatched)?;
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

/// Volumes of different spacing must not be mixed: a network sees voxels, not millimetres.
pub(crate) fn check_one_grid(volumes: &RecordBatch) -> anyhow::Result<()> {
    // Images may have none: their size is all that a network sees.
    let Some(column) = volumes.column_by_name("spacing_mm") else { return Ok(()) };
    let lists = column.as_list_opt::<i32>().context("a spacing is a list of numbers")?;
    let mut first: Option<Vec<f64>> = None;
    for row in (0..lists.len()).filter(|row| lists.is_valid(*row)) {
        let spacing: Vec<f64> = lists.value(row).as_primitive::<Float64Type>().values().to_vec();
        let grid = first.get_or_insert_with(|| spacing.clone());
        let same = grid.len() == spacing.len()
            && grid.iter().zip(&spacing).all(|(a, b)| (a - b).abs() <= 0.01 * a.abs());
        ensure!(same, "volumes have different spacings; bring them to one grid with volumes.resample");
    }
    Ok(())
}

/// A patient whose samples lie in different parts would be learned by heart and then asked for.
pub(crate) fn check_leak(
    samples: &RecordBatch,
    split_on: &str,
    parts: &HashMap<String, String>,
) -> anyhow::Result<()> {
    if samples.column_by_name(PATIENT).is_none() {
        return Ok(());
    }
    let (patients, by_split) = (texts(samples, PATIENT)?, texts(samples, split_on)?);
    let mut of_patient: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for row in (0..samples.num_rows()).filter(|row| patients.is_valid(*row)) {
        if let Some(part) = parts.get(by_split.value(row)) {
            of_patient.entry(patients.value(row)).or_default().insert(part);
        }
    }
    let leaks = of_patient.values().filter(|parts| parts.len() > 1).count();
    ensure!(
        leaks == 0,
        "{leaks} of {} patients have samples in more than one part: what is learned of a patient would be measured on \
         the same patient; split by patient, and `match: {{ split: patient }}`",
        of_patient.len()
    );
    Ok(())
}

/// A target and its weight, where it is known.
type Known = Option<[f32; 2]>;

/// By id: a target for each finding. Rows of one id that disagree are faults, and their target is masked.
fn targets_by_id(
    io: &mut Io,
    labels: &RecordBatch,
    on: &str,
    findings: &[String],
) -> anyhow::Result<HashMap<String, Vec<Known>>> {
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
            .then(|| [target.value(row) as f32, weight.value(row) as f32])
    };
    let mut all = HashMap::new();
    let distinct: BTreeSet<&str> = ids.iter().flatten().collect();
    for id in distinct {
        let mut targets: Vec<Known> = vec![None; findings.len()];
        let mut seen: Vec<Option<Known>> = vec![None; findings.len()];
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
