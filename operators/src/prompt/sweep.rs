//! `prompt.sweep`: which of several prompts labels best, told by one part of the reports and measured on another.

mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;

use anyhow::{bail, ensure};
use argent_engine::joining::{UNMATCHED, account, texts};
use argent_engine::operator::{Condition, ConfigFile, ConfigFiles, Price as PlannedPrice};
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, RowError, Signature, column};
use argent_reports::Pack;
use argent_stats::Confusion;
use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::eval::agreement::Draws;
use crate::eval::agreement::cases::{Case, Cases, Label, truth_by_id, truth_columns};
use crate::eval::agreement::measures::{Joint, Measure};
use crate::findings;
use crate::label::STATES;
use crate::label::llm::calls::calls_schema;
use crate::label::llm::few_shot::Examples;
use crate::label::llm::labels::RowLabels;
use crate::label::llm::local::{self, LocalModel, OpenModel};
use crate::label::llm::parameters::{
    Budget, EgressParameter, EndpointParameters, Mode, PriceParameters, concurrency,
};
use crate::label::llm::{LabelLlm, Loaded, greedy, once, parsed, prompt_part};
use crate::label::rules::sections;
use crate::label::targets::{self, OfFinding, PackPolicies, Target, Targets};
use crate::one_or_many::OneOrMany;
use crate::train::classifier::part_by_id;

/// Tries prompts: each labels the reports of the part `dev` that have a truth, a declared rule selects one of them,
/// and only that one labels the part `test`, once. Every prompt that was tried is a row, because the best of many looks
/// better than it is: its figure is the one on `test`. Requests are those of `label.llm`, so that what a prompt has
/// been asked is never paid for again, here or there.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptSweep {
    /// Glob patterns of the prompts, relative to the spec; files as `label.llm` reads them.
    #[schemars(extend("x-not-in-key" = "prompts enter the key by their names and texts: a prompt enters the key by both"))]
    pub prompts: OneOrMany,
    /// The finding pack, relative to the spec.
    #[schemars(extend("x-not-in-key" = "the pack enters the key by its ids, names, definitions and policies"))]
    pub findings: String,
    /// The server and the model.
    pub endpoint: EndpointParameters,
    /// The part that selects.
    #[serde(default = "dev")]
    pub dev: String,
    /// The part that the selected prompt is measured on.
    #[serde(default = "test")]
    pub test: String,
    /// How one prompt is selected.
    #[serde(default)]
    pub select: Select,
    /// What `uncertain` counts as: from a target of 0.5 on it is a yes.
    #[serde(default = "Target::pack")]
    pub uncertain: Target,
    /// What `not_mentioned` counts as.
    #[serde(default = "Target::zero")]
    pub not_mentioned: Target,
    /// By finding: what its states count as, where that differs from the others'.
    #[serde(default)]
    pub per_finding: BTreeMap<String, OfFinding>,
    /// How intervals are drawn, over whole reports.
    #[serde(default)]
    pub bootstrap: Draws,
    /// Whether a report is asked once for all findings, or once for each.
    #[serde(default)]
    pub mode: Mode,
    /// The sections that the prompts see; left out, all that the table has.
    #[serde(default)]
    pub sections: Option<Vec<String>>,
    /// How often a malformed answer is asked for again, with what was wrong with it.
    #[serde(default = "once")]
    #[schemars(range(max = 9))]
    pub repairs: u32,
    /// The sampling temperature; `null` for models that accept none.
    #[serde(default = "greedy")]
    pub temperature: Option<f64>,
    /// The most tokens of an answer; left out, enough for the longest one that the schema allows.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// US dollars per million tokens; left out, costs are unknown.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = "what an answer costs does not change it"))]
    pub price: Option<PriceParameters>,
    /// What the step may spend in one run.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = "a budget decides how many answers there are, not what they say"))]
    pub budget: Option<Budget>,
    /// How many requests are under way at a time.
    #[serde(default = "concurrency")]
    #[schemars(range(min = 1, max = 1024), extend("x-not-in-key" = "how fast is not what"))]
    pub concurrency: usize,
    /// Where report text may go: loopback and private addresses, or anywhere with `allow`.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = "where is not what"))]
    pub egress: EgressParameter,
    #[serde(skip)]
    loaded: Option<LoadedSweep>,
    /// The model in process, which all prompts are tried with.
    #[serde(skip)]
    open_model: OpenModel,
}

/// How one prompt is selected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// The measure; the highest value wins. A failed label counts as a wrong one here, so that no prompt wins by failing
    /// on what is hard.
    #[serde(default)]
    pub by: By,
    /// What decides between equal values; after that, the order of the names.
    #[serde(default)]
    pub tie: Tie,
}

/// A measure that selects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The mean over findings of F1.
    #[default]
    MacroF1,
    /// The mean over findings of Cohen's kappa.
    MacroKappa,
    /// The mean over findings of the Matthews correlation coefficient.
    MacroMcc,
    /// The mean over findings of the sensitivity.
    MacroSensitivity,
    /// The mean over findings of the accuracy.
    MacroAccuracy,
}

impl By {
    fn measure(self) -> Measure {
        match self {
            By::MacroF1 => Confusion::f1,
            By::MacroKappa => Confusion::kappa,
            By::MacroMcc => Confusion::mcc,
            By::MacroSensitivity => Confusion::sensitivity,
            By::MacroAccuracy => Confusion::accuracy,
        }
    }
}

/// What decides between equal values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tie {
    /// The prompt whose questions take fewer tokens, by estimate.
    #[default]
    FewestTokens,
    /// The order of the names.
    Name,
}

fn dev() -> String {
    "dev".into()
}

fn test() -> String {
    "test".into()
}

/// The configuration files, read.
#[derive(Debug)]
struct LoadedSweep {
    pack: Pack,
    policies: PackPolicies,
    /// By name.
    prompts: BTreeMap<String, ConfigFile>,
    local: Option<LocalModel>,
}

/// The labels of the reports of one part under one prompt: by report, its labels, or none where it failed.
type Labelled = BTreeMap<usize, Option<RowLabels>>;

/// What came of a prompt on `dev`.
struct Tried<'a> {
    prompt: &'a str,
    labels: Labelled,
    cases: Cases,
    /// The measure that selects; none where the labels do not define it.
    value: Option<f64>,
    tokens: u64,
}

/// The reports that are asked about.
struct Reports<'a> {
    table: &'a RecordBatch,
    /// Of the part that selects, and of the part that measures.
    dev: Vec<usize>,
    test: Vec<usize>,
}

impl Operator for PromptSweep {
    fn ports(&self) -> Vec<Port> {
        vec![
            Port::new("reports", "The reports: `id` and text sections.", &[Needed::text("id")]),
            Port::new(
                "truth",
                "The truth: states, or targets and weights.",
                &[Needed::text("id"), Needed::text("finding")],
            ),
            Port::new(
                "split",
                "Parts, as `split.groups` makes them.",
                &[Needed::text("id"), Needed::text("part")],
            ),
        ]
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        let policies = targets::load(files, Some(&self.findings), &self.per_finding)?;
        let pack = findings::load(files, "findings", &self.findings)?.pack;
        let names = files.matching("prompts", &self.prompts.to_vec()).map_err(|p| vec![p])?;
        let (mut prompts, mut problems) = (BTreeMap::new(), Vec::new());
        for name in names {
            match files.read("prompts", &name).and_then(parsed) {
                Ok(prompt) => drop(prompts.insert(name, prompt)),
                Err(problem) => problems.push(problem),
            }
        }
        let local = local::find(files, &self.endpoint).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        files.uses("findings", json!({ "asked": prompt_part(&pack), "policies": policies }));
        let texts: BTreeMap<&String, &str> =
            prompts.iter().map(|(name, prompt)| (name, &*prompt.text)).collect();
        files.uses("prompts", json!(texts));
        self.loaded = Some(LoadedSweep { pack, policies, prompts, local });
        Ok(())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let problems = self.problems(inputs);
        if !problems.is_empty() {
            return Err(problems);
        }
        let sections = sections(inputs, "reports", self.sections.as_deref())?;
        let on = |port: &str| inputs.port(port).on.clone();
        let reports: BTreeSet<String> =
            sections.into_iter().chain(["id".to_owned(), on("truth"), on("split")]).collect();
        let truth: BTreeSet<String> = truth_columns(inputs)
            .into_iter()
            .chain(["finding"])
            .map(str::to_owned)
            .chain([on("truth")])
            .collect();
        Ok(Signature::new(column::schema(tables::prompt_fields()), &["prompt"])
            .output("findings", column::schema(tables::finding_fields()), &["prompt", "part", "finding"])
            .output("test", column::schema(tables::test_fields()), &["average", "measure"])
            .output("labels", column::schema(tables::label_fields()), &["prompt", "id", "finding"])
            .output("calls", calls_schema(), &["call"])
            .reads("reports", reports)
            .reads("truth", truth)
            .reads("split", BTreeSet::from([on("split"), "part".to_owned()])))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let (table, truth_table) = (io.input("reports")?.clone(), io.input("truth")?.clone());
        let policy = self.targets();
        let truth_on = io.on("truth").to_owned();
        let truth = truth_by_id(io, &policy, &truth_table, &truth_on)?;
        let reports = self.reports(io, &table, &truth.keys().map(|(id, _)| *id).collect())?;
        let measured = |labels: &Labelled| self.cases(&table, &truth_on, &truth, labels);
        let mut tried = Vec::new();
        for (prompt, model) in self.models() {
            let Some(labels) = self.labelled(io, &model, &table, &reports.dev)? else { return Ok(()) };
            let cases = measured(&labels)?;
            let value = self.value(&cases);
            let tokens = model.estimated_tokens(io, &rows_of(&table, &reports.dev)?, &Examples::default())?;
            tried.push(Tried { prompt, labels, cases, value, tokens });
        }
        let selected = self.selected(&tried)?;
        let Some((prompt, model)) = self.models().nth(selected) else { bail!("a prompt is selected") };
        let Some(labels) = self.labelled(io, &model, &table, &reports.test)? else { return Ok(()) };
        let cases = measured(&labels)?;
        self.open_model.release();
        let last = Tried { prompt, labels, cases, value: None, tokens: 0 };
        self.emit(io, &table, &tried, selected, &last)
    }

    fn endpoints(&self) -> Vec<String> {
        vec![self.endpoint.place().to_owned()]
    }

    fn surroundings(&self, folder: &Path) -> Vec<Condition> {
        self.models().next().map(|(_, model)| model.surroundings(folder)).unwrap_or_default()
    }

    fn probes(&self) -> Vec<Condition> {
        self.models().next().map(|(_, model)| model.probes()).unwrap_or_default()
    }

    /// The price of `dev` for every prompt, and of `test` for the dearest.
    fn price(&self, _rows: &RecordBatch, io: &Io) -> anyhow::Result<Option<PlannedPrice>> {
        let (table, truth) = (io.input("reports")?, io.input("truth")?);
        let truth_ids = texts(truth, io.on("truth"))?;
        let known: BTreeSet<&str> = truth_ids.iter().flatten().collect();
        let (dev, test, _) = self.parts(io, table, &known)?;
        let (dev, test) = (rows_of(table, &dev)?, rows_of(table, &test)?);
        let mut all: Option<PlannedPrice> = None;
        let mut dearest: Option<PlannedPrice> = None;
        for (_, model) in self.models() {
            let Some(price) = Operator::price(&model, &dev, io)? else { continue };
            all = Some(all.map_or(price.clone(), |all| all.and(&price)));
            if let Some(price) = Operator::price(&model, &test, io)?
                && dearest.as_ref().is_none_or(|dearest| dearest.tokens_in < price.tokens_in)
            {
                dearest = Some(price);
            }
        }
        Ok(match (all, dearest) {
            (Some(all), Some(dearest)) => Some(all.and(&dearest)),
            (all, dearest) => all.or(dearest),
        })
    }
}

impl PromptSweep {
    fn loaded(&self) -> &LoadedSweep {
        self.loaded.as_ref().expect("the engine loads configuration files before anything else")
    }

    fn targets(&self) -> Targets<'_> {
        let (uncertain, not_mentioned) = (Some(self.uncertain), Some(self.not_mentioned));
        let all = OfFinding { uncertain, not_mentioned, failed: None };
        Targets { all, per_finding: &self.per_finding, pack: &self.loaded().policies }
    }

    /// The prompts by name, each with the labeller that asks it.
    fn models(&self) -> impl Iterator<Item = (&str, LabelLlm)> {
        let loaded = self.loaded();
        loaded.prompts.iter().map(|(name, prompt)| {
            let model = LabelLlm {
                findings: self.findings.clone(),
                prompt: name.clone(),
                endpoint: self.endpoint.clone(),
                mode: self.mode,
                sections: self.sections.clone(),
                few_shot: None,
                evidence: false,
                samples: 1,
                repairs: self.repairs,
                temperature: self.temperature,
                max_tokens: self.max_tokens,
                price: self.price,
                budget: self.budget,
                concurrency: self.concurrency,
                egress: self.egress,
                batch: None,
                watch: Mutex::default(),
                open_model: self.open_model.clone(),
                loaded: Some(Loaded {
                    findings: prompt_part(&loaded.pack),
                    ids: loaded.pack.findings.iter().map(|f| f.id.clone()).collect(),
                    prompt: prompt.clone(),
                    local: loaded.local.clone(),
                }),
            };
            (name.as_str(), model)
        })
    }

    fn problems(&self, inputs: &Inputs) -> Vec<Problem> {
        let mut problems = Vec::new();
        for port in ["truth", "split"] {
            let missing = inputs.missing("reports", &[inputs.port(port).on.as_str()]).into_iter();
            problems.extend(missing.map(|p| Problem { path: vec!["match".into(), port.into()], ..p }));
        }
        if truth_columns(inputs).is_empty() {
            let message = "the table has neither `state` nor `target` and `weight`";
            problems.push(Problem::at(["from", "truth"], message));
        }
        if self.dev == self.test {
            let problem = Problem::at(["with", "test"], "`test` is the part that selects");
            problems.push(
                problem.help("a prompt looks better on the part that it was selected by; name another"),
            );
        }
        for (_, model) in self.models() {
            let sections = sections(inputs, "reports", self.sections.as_deref());
            let found = sections.map_or_else(|problems| problems, |sections| model.problems(&sections));
            for problem in found {
                let path =
                    problem.path.iter().map(|key| if key == "prompt" { "prompts" } else { key }.to_owned());
                let problem = Problem { path: path.collect(), ..problem };
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
        problems
    }

    /// The reports with a truth in both parts.
    fn reports<'a>(
        &self,
        io: &mut Io,
        table: &'a RecordBatch,
        known: &BTreeSet<&str>,
    ) -> anyhow::Result<Reports<'a>> {
        let (dev, test, without_part) = self.parts(io, table, known)?;
        let by_truth = texts(table, io.on("truth"))?;
        let with_truth = (0..table.num_rows()).filter(|row| known.contains(by_truth.value(*row))).count();
        account(io, "reports", "split", with_truth, &without_part, UNMATCHED)?;
        for (part, rows) in [(&self.dev, &dev), (&self.test, &test)] {
            ensure!(!rows.is_empty(), "no report with a truth is in the part `{part}`");
        }
        Reports { table, dev, test }.without_leaks(io, self.sections.as_deref())
    }

    /// The rows of reports with a truth in the part that selects and in the part that measures, and the ids of those in
    /// no part.
    fn parts(
        &self,
        io: &Io,
        table: &RecordBatch,
        known: &BTreeSet<&str>,
    ) -> anyhow::Result<(Vec<usize>, Vec<usize>, Vec<String>)> {
        let parts = part_by_id(io.input("split")?, io.on("split"))?;
        let (ids, by_part) = (texts(table, "id")?, texts(table, io.on("split"))?);
        let by_truth = texts(table, io.on("truth"))?;
        let (mut dev, mut test, mut without_part) = (Vec::new(), Vec::new(), Vec::new());
        for row in (0..table.num_rows()).filter(|row| known.contains(by_truth.value(*row))) {
            match parts.get(by_part.value(row)) {
                Some(part) if *part == self.dev => dev.push(row),
                Some(part) if *part == self.test => test.push(row),
                Some(_) => {}
                None => without_part.push(ids.value(row).to_owned()),
            }
        }
        Ok((dev, test, without_part))
    }

    /// Labels reports; none where a budget or the user stopped it before all were labelled.
    fn labelled(
        &self,
        io: &mut Io,
        model: &LabelLlm,
        table: &RecordBatch,
        rows: &[usize],
    ) -> anyhow::Result<Option<Labelled>> {
        let (mut labelled, mut failures) = (Labelled::new(), Vec::new());
        model.ask(io, &rows_of(table, rows)?, &Examples::default(), &mut |_, row, labels| {
            match labels {
                Ok(labels) => drop(labelled.insert(rows[row], Some(labels))),
                Err(error) => {
                    labelled.insert(rows[row], None);
                    failures.push((rows[row], error));
                }
            }
            Ok(())
        })?;
        let passing = failures.iter().filter(|(_, error)| error.retryable).count();
        if let Some((_, RowError { kind, message, .. })) = failures.iter().find(|(_, error)| error.retryable)
        {
            // Chance must not decide which prompt is best.
            bail!(
                "{passing} of {} reports failed for now under `{}` ({kind}: {message}); run again, what was answered is kept",
                rows.len(),
                model.prompt
            );
        }
        let ids = texts(table, "id")?;
        for (row, error) in &failures {
            io.fault(
                "reports",
                ids.value(*row),
                &error.kind,
                format!("`{}`: {}", model.prompt, error.message),
            );
        }
        Ok((labelled.len() == rows.len()).then_some(labelled))
    }

    /// Labels beside their truth. A report is its own group.
    fn cases(
        &self,
        table: &RecordBatch,
        truth_on: &str,
        truth: &crate::eval::agreement::cases::Truth,
        labels: &Labelled,
    ) -> anyhow::Result<Cases> {
        let policy = self.targets();
        let findings: Vec<String> = self.loaded().pack.findings.iter().map(|f| f.id.clone()).collect();
        let (ids, by_truth) = (texts(table, "id")?, texts(table, truth_on)?);
        let (mut rows, missing) = (Vec::new(), vec![0; findings.len()]);
        for (row, labels) in labels {
            for (place, finding) in findings.iter().enumerate() {
                let Some((truth_state, target)) = truth.get(&(by_truth.value(*row), finding.as_str())) else {
                    continue;
                };
                let state =
                    labels.as_ref().and_then(|labels| labels.iter().find(|label| label.finding == *finding));
                let state = state.map_or(STATES[4], |label| label.state);
                let decision = policy.target(finding, state).map_err(anyhow::Error::msg)?;
                rows.push(Case {
                    id: ids.value(*row).to_owned(),
                    finding: place,
                    cluster: u32::try_from(*row)?,
                    truth_state: truth_state.clone(),
                    target: *target,
                    label: Label {
                        state: state.to_owned(),
                        decision: decision.map(|target| target >= 0.5),
                        score: None,
                    },
                    other: None,
                });
            }
        }
        ensure!(!rows.is_empty(), "no finding of the pack has a truth");
        Ok(Cases { findings, rows, missing })
    }

    /// The measure that selects; failed labels are wrong.
    fn value(&self, cases: &Cases) -> Option<f64> {
        let rows = cases.rows.iter().filter_map(|case| {
            let target = case.target?;
            let failed = case.label.state == STATES[4];
            let decision = if failed { !target } else { case.label.decision? };
            Some((case.cluster, case.finding, target, decision))
        });
        let joint = Joint::new(cases.findings.len(), rows);
        joint.macro_average(self.select.by.measure(), &joint.all())
    }

    /// The place of the selected prompt.
    fn selected(&self, tried: &[Tried]) -> anyhow::Result<usize> {
        let defined = (0..tried.len()).filter_map(|place| Some((place, tried[place].value?)));
        let tokens = |place: usize| match self.select.tie {
            Tie::FewestTokens => tried[place].tokens,
            Tie::Name => 0,
        };
        let best = defined.min_by(|(a, value), (b, other)| {
            other.total_cmp(value).then_with(|| tokens(*a).cmp(&tokens(*b))).then_with(|| a.cmp(b))
        });
        match best {
            Some((place, _)) => Ok(place),
            None => {
                bail!("the measure that selects is defined for no prompt: `{}` has no positives", self.dev)
            }
        }
    }
}

impl<'a> Reports<'a> {
    /// Leaves out of the part that selects what is also in the part that measures: a text that is in both would have been
    /// seen.
    fn without_leaks(mut self, io: &mut Io, named: Option<&[String]>) -> anyhow::Result<Reports<'a>> {
        let schema = self.table.schema();
        let names = named.map_or_else(|| column::names_with_role(&schema, "section"), <[String]>::to_vec);
        let sections =
            names.iter().map(|name| texts(self.table, name)).collect::<anyhow::Result<Vec<_>>>()?;
        let text = |row: usize| -> Vec<Option<&str>> {
            sections.iter().map(|cells| cells.is_valid(row).then(|| cells.value(row))).collect()
        };
        let measured: BTreeSet<Vec<Option<&str>>> = self.test.iter().map(|row| text(*row)).collect();
        let (leaked, dev): (Vec<usize>, Vec<usize>) =
            self.dev.iter().partition(|row| measured.contains(&text(**row)));
        let ids = texts(self.table, "id")?;
        for row in &leaked {
            let message = "a report of the part that measures has the same text; it has no part in selecting";
            io.fault("reports", ids.value(*row), "leak", message);
        }
        ensure!(!dev.is_empty(), "every report that would select has the text of one that measures");
        self.dev = dev;
        Ok(self)
    }
}

/// Some rows of a table.
fn rows_of(table: &RecordBatch, rows: &[usize]) -> anyhow::Result<RecordBatch> {
    let places: Vec<u32> = rows.iter().map(|row| Ok(u32::try_from(*row)?)).collect::<anyhow::Result<_>>()?;
    Ok(take_record_batch(table, &UInt32Array::from(places))?)
}
