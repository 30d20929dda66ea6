//! `label.llm`: labels from reports by a language model behind a chat endpoint.

mod batch;
mod purse;
mod question;
mod shown;
mod surroundings;
pub(crate) mod tries;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use argent_cache::Digest;
use argent_engine::operator::{
    Condition, ConfigFile, ConfigFiles, Exchange, Price as PlannedPrice, Projection, nearest,
};
use argent_engine::table::Rows;
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, RowError, Signature, column};
use argent_llm::{Answer, Price, Usage};
use argent_reports::Pack;
use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::findings;
use crate::label::rules::{section_texts, sections, sections_of};
use crate::label::{STATES, label_fields};
use batch::{Batch, OnRow};
use question::estimate;
use tries::{ANSWERS, Outcome, kept, next_try};

/// Labels reports by a language model: each report (or each report and finding) is asked once, and every
/// answer is on disk before it is used. Requests are their own keys: equal ones are asked once across steps,
/// runs and pipelines.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelLlm {
    /// The finding pack, relative to the spec.
    #[schemars(extend("x-not-in-key" = "the pack enters the key by its ids, names and definitions"))]
    pub findings: String,
    /// The prompt: a minijinja file that sees `report.<section>`, `findings` and, asked one by one, `finding`.
    /// It states no format of the answer; a schema is sent with each request.
    #[schemars(extend("x-not-in-key" = "the prompt enters the key by its text"))]
    pub prompt: String,
    /// The server and the model.
    pub endpoint: EndpointParameters,
    /// Whether a report is asked once for all findings, or once for each.
    #[serde(default)]
    pub mode: Mode,
    /// The sections that the prompt sees; left out, all that the table has.
    #[serde(default)]
    pub sections: Option<Vec<String>>,
    /// The sampling temperature.
    #[serde(default)]
    pub temperature: f64,
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
    pub(crate) loaded: Option<Loaded>,
}

/// The server and the model.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointParameters {
    /// The dialect that the server speaks.
    #[serde(default)]
    pub kind: EndpointKind,
    /// The address of the API, such as `http://127.0.0.1:8000/v1`.
    #[schemars(extend("x-not-in-key" = "the same model answers the same anywhere"))]
    pub base_url: String,
    /// The model's name.
    pub model: String,
    /// The key, by the name of the environment variable that holds it.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = "a secret"))]
    pub api_key: Option<Secret>,
    /// What tells apart models of the same name, such as a digest of their weights.
    #[serde(default)]
    pub identity: Option<String>,
}

/// The dialect of a server.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointKind {
    /// OpenAI's chat completions, as vLLM, SGLang, llama.cpp and others speak it too.
    #[default]
    OpenaiChat,
}

/// A secret, by the name of the environment variable that holds it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// The environment variable.
    pub env: String,
}

/// How findings are asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One request per report: cheapest, but an edited definition asks every report again.
    #[default]
    Joint,
    /// One request per report and finding: an edited definition asks that finding alone again.
    PerFinding,
}

/// US dollars per million tokens.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceParameters {
    /// Input tokens.
    pub input: f64,
    /// Input tokens that the server had cached; left out, as `input`.
    #[serde(default)]
    pub cached: Option<f64>,
    /// Output tokens.
    pub output: f64,
}

/// What a step may spend in one run.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// US dollars.
    pub usd: f64,
}

/// Where report text may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EgressParameter {
    /// Loopback and private addresses.
    #[default]
    Private,
    /// Anywhere.
    Allow,
}

pub(crate) fn concurrency() -> usize {
    16
}

/// The configuration files, read.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// What a prompt sees of each finding.
    pub(crate) findings: Vec<Value>,
    pub(crate) ids: Vec<String>,
    pub(crate) prompt: ConfigFile,
}

impl Operator for LabelLlm {
    fn ports(&self) -> Vec<Port> {
        vec![Port::new("reports", "A table of reports: `id` and text sections.", &[Needed::text("id")])]
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        let pack = findings::load(files, "findings", &self.findings);
        let prompt = files.read("prompt", &self.prompt).and_then(parsed);
        let (pack, prompt) = match (pack, prompt) {
            (Ok(pack), Ok(prompt)) => (pack.pack, prompt),
            (pack, prompt) => {
                return Err(pack.err().into_iter().flatten().chain(prompt.err()).collect());
            }
        };
        let findings = prompt_part(&pack);
        files.uses("findings", json!(findings));
        files.uses("prompt", json!(&*prompt.text));
        self.loaded =
            Some(Loaded { findings, ids: pack.findings.into_iter().map(|f| f.id).collect(), prompt });
        Ok(())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let sections = sections(inputs, "reports", self.sections.as_deref())?;
        let problems: Vec<Problem> =
            self.unknown_names(&sections).into_iter().chain(self.unpriced_budget()).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let own = label_fields().into_iter().chain([
            column::number("score"),
            column::phi("evidence"),
            column::text("call"),
        ]);
        Ok(Signature::new(column::schema(own), &["id", "finding"])
            .output("calls", calls_schema(), &["call"])
            .reads("reports", sections)
            .carries(inputs.ids("reports")))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let rows = io.rows().clone();
        self.ask(io, &rows, &mut |io, row, labels| match labels {
            Ok(labels) => {
                let batch = label_batch(&io.schema("")?, &labels)?;
                io.answer(&[row], &[labels.len()], &batch)
            }
            Err(error) => io.refuse(row, error),
        })
    }

    fn finish(&self, main: &Rows, io: &mut Io) -> anyhow::Result<()> {
        let mut calls: BTreeSet<Digest> = BTreeSet::new();
        for labels in main.chunks(&["call"]) {
            let labels = labels?;
            // Labels of one report name one call, or few.
            let named: HashSet<&str> = labels.column(0).as_string::<i32>().iter().flatten().collect();
            for call in named {
                calls.insert(call.parse()?);
            }
        }
        let calls: Vec<Digest> = calls.into_iter().collect();
        for calls in calls.chunks(CALLS_AT_ONCE) {
            io.emit("calls", self.call_rows(io, calls)?)?;
        }
        Ok(())
    }

    fn shared_keys(&self) -> Option<(&'static str, &'static str)> {
        Some(("call", ANSWERS))
    }

    fn failed_rows(&self, schema: &SchemaRef) -> anyhow::Result<Option<RecordBatch>> {
        let labels: RowLabels = self.loaded().ids.iter().map(|id| (id.clone(), STATES[4], None)).collect();
        Ok(Some(label_batch(schema, &labels)?))
    }

    fn endpoints(&self) -> Vec<String> {
        vec![self.endpoint.base_url.clone()]
    }

    fn surroundings(&self, _folder: &Path) -> Vec<Condition> {
        surroundings::conditions(self)
    }

    fn exchanges(&self, rows: &RecordBatch, io: &Io) -> anyhow::Result<Vec<Vec<Exchange>>> {
        shown::exchanges(self, rows, io)
    }

    fn project(&self, measured: &[Exchange], rest: &PlannedPrice) -> anyhow::Result<Option<Projection>> {
        shown::project(self, measured, rest).map(Some)
    }

    fn price(&self, rows: &RecordBatch, io: &Io) -> anyhow::Result<Option<PlannedPrice>> {
        let answers = io.memo(ANSWERS)?;
        let texts = self.section_texts(rows)?;
        let mut asked: HashMap<Digest, (u64, u64)> = HashMap::new();
        for row in 0..rows.num_rows() {
            // A prompt that does not render costs nothing: its row fails before anything is sent.
            for question in self.questions(io, &sections_of(&texts, row)).unwrap_or_default() {
                if next_try(io, &answers, &question)?.is_some() {
                    asked.insert(question.key, estimate(&question));
                }
            }
        }
        let (tokens_in, tokens_out) = asked.values().fold((0, 0), |sum, t| (sum.0 + t.0, sum.1 + t.1));
        // At best the server has all of the input cached, at worst none.
        let usd =
            |tokens_cached| Some(self.price?.kernel().cost(&Usage { tokens_in, tokens_cached, tokens_out }));
        let usd_min = usd(tokens_in).map(|usd| usd * ESTIMATE_LOW);
        let usd = usd(0).map(|usd| usd * ESTIMATE_HIGH);
        Ok(Some(PlannedPrice { requests: asked.len() as u64, tokens_in, tokens_out, usd_min, usd }))
    }
}

/// So many answers are in memory at a time when the table of calls is made.
const CALLS_AT_ONCE: usize = 4096;

/// The bounds of true token counts around [`estimate_tokens`](argent_llm::estimate_tokens), for text and JSON
/// together.
const ESTIMATE_LOW: f64 = 0.5;
const ESTIMATE_HIGH: f64 = 2.0;

impl PriceParameters {
    fn kernel(&self) -> Price {
        Price { input: self.input, cached: self.cached.unwrap_or(self.input), output: self.output }
    }
}

/// The labels of one report: finding, state, and the call that answered.
pub(crate) type RowLabels = Vec<(String, &'static str, Option<String>)>;

impl LabelLlm {
    /// Asks about reports what has not been answered yet, and hands over the labels of each report, or why it has none,
    /// as it becomes complete. A report that is not handed over was not asked: a budget or the user stopped the step.
    pub(crate) fn ask(
        &self,
        io: &mut Io,
        reports: &RecordBatch,
        on_row: &mut OnRow<'_>,
    ) -> anyhow::Result<()> {
        let answers = io.memo(ANSWERS)?;
        let texts = self.section_texts(reports)?;
        let mut on_row =
            |io: &mut Io, row: usize, labels: Result<RowLabels, RowError>| on_row(io, row, labels);
        let mut batch = Batch::new(self, io, answers, &mut on_row);
        for row in 0..reports.num_rows() {
            match self.questions(batch.io, &sections_of(&texts, row)) {
                Ok(questions) => batch.add(row, questions),
                Err(error) => batch.refuse(row, RowError::lasting("prompt", format!("{error:#}")))?,
            }
        }
        batch.ask()
    }

    /// The rows of the table of calls for these calls, which must be answered.
    pub(crate) fn call_rows(&self, io: &Io, calls: &[Digest]) -> anyhow::Result<RecordBatch> {
        let answers = io.memo(ANSWERS)?;
        let mut answered = Vec::new();
        for call in calls {
            let kept = kept(&answers, call)?.context("an answer is gone from the memo")?;
            if let Outcome::Answered(answer) = kept.outcome {
                answered.push((call.to_string(), kept.request, answer));
            }
        }
        self.calls(io, &answered)
    }

    /// The tokens that asking these reports takes, input and longest answer together, by estimate: a function of the
    /// texts alone.
    pub(crate) fn estimated_tokens(&self, io: &Io, reports: &RecordBatch) -> anyhow::Result<u64> {
        let texts = self.section_texts(reports)?;
        let mut asked: HashMap<Digest, u64> = HashMap::new();
        for row in 0..reports.num_rows() {
            for question in self.questions(io, &sections_of(&texts, row)).unwrap_or_default() {
                let (tokens_in, tokens_out) = estimate(&question);
                asked.insert(question.key, tokens_in + tokens_out);
            }
        }
        Ok(asked.values().sum())
    }

    fn loaded(&self) -> &Loaded {
        self.loaded.as_ref().expect("the engine loads configuration files before anything else")
    }

    /// A problem for each name under `report.` or for `finding` that the prompt uses and would never see: it would
    /// render as nothing, and the model would label a report that it was not shown.
    /// What the prompt names and no report has, at its places in the prompt's file.
    fn unknown_names(&self, sections: &[String]) -> Vec<Problem> {
        let environment = minijinja::Environment::new();
        let prompt = &self.loaded().prompt;
        let Ok(template) = environment.template_from_str(&prompt.text) else { return Vec::new() };
        let used: BTreeSet<String> = template.undeclared_variables(true).into_iter().collect();
        let globals: BTreeSet<&str> = environment.globals().map(|(name, _)| name).collect();
        let sections: Vec<&str> = sections.iter().map(String::as_str).collect();
        let one_by_one = self.mode == Mode::PerFinding;
        let known = if one_by_one { &["report", "findings", "finding"][..] } else { &["report", "findings"] };
        let mut problems = Vec::new();
        for name in &used {
            let (first, section) = name.split_once('.').unwrap_or((name, ""));
            let section = section.split('.').next().unwrap_or_default();
            if first == "report" && !section.is_empty() && !sections.contains(&section) {
                let name = format!("report.{section}");
                let message = format!("the reports have no section `{section}`");
                problems.push(
                    prompt.problem_at_word(&name, message).help(nearest(section, &sections, "sections")),
                );
            } else if first == "finding" && !one_by_one {
                let message = "`finding` is there only when findings are asked one by one";
                let help = "say `mode: per_finding`, or use `findings`";
                problems.push(prompt.problem_at_word(first, message).help(help));
            } else if !known.contains(&first) && !globals.contains(first) {
                let message = format!("a prompt sees no `{first}`");
                problems.push(prompt.problem_at_word(first, message).help(nearest(
                    first,
                    known,
                    "variables",
                )));
            }
        }
        problems
    }

    fn unpriced_budget(&self) -> Option<Problem> {
        let unpriced = self.budget.is_some() && self.price.is_none();
        let problem =
            || Problem::at(["with", "budget"], "`budget` is set and `price` is not: no cost would be known");
        unpriced
            .then(|| problem().help("add `price: { input: …, output: … }`, in US dollars per million tokens"))
    }

    /// The sections of reports. Ids that the rows carry along are not among them: no prompt may see those.
    fn section_texts(&self, rows: &RecordBatch) -> anyhow::Result<Vec<(String, StringArray)>> {
        let schema = rows.schema();
        let names = self.sections.clone().unwrap_or_else(|| column::names_with_role(&schema, "section"));
        let places =
            names.iter().map(|name| Ok(schema.index_of(name)?)).collect::<anyhow::Result<Vec<_>>>()?;
        section_texts(&rows.project(&places)?)
    }

    fn calls(&self, io: &Io, answered: &[(String, Value, Answer)]) -> anyhow::Result<RecordBatch> {
        let prompt = io.question_key(&json!(&*self.loaded().prompt.text)).to_string();
        let usages: Vec<Option<Usage>> = answered.iter().map(|(_, _, answer)| answer.usage).collect();
        let whole = |f: fn(&Usage) -> u64| {
            let counts = usages.iter().map(|u| u.as_ref().map(|u| f(u) as i64));
            Arc::new(counts.collect::<Int64Array>()) as ArrayRef
        };
        let usd = usages.iter().map(|u| Some(self.price?.kernel().cost(u.as_ref()?)));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(answered.iter().map(|(call, _, _)| call))),
            Arc::new(StringArray::from_iter_values(answered.iter().map(|(_, _, answer)| &answer.model))),
            Arc::new(StringArray::from_iter_values(answered.iter().map(|_| &prompt))),
            Arc::new(StringArray::from_iter_values(
                answered.iter().map(|(_, request, _)| request.to_string()),
            )),
            Arc::new(StringArray::from_iter_values(answered.iter().map(|(_, _, answer)| &answer.text))),
            whole(|u| u.tokens_in),
            whole(|u| u.tokens_cached),
            whole(|u| u.tokens_out),
            Arc::new(usd.collect::<Float64Array>()),
        ];
        Ok(RecordBatch::try_new(io.schema("calls")?, columns)?)
    }
}

pub(crate) fn calls_schema() -> SchemaRef {
    column::schema([
        column::text("call"),
        column::text("model"),
        column::text("prompt_digest"),
        column::phi("request"),
        column::phi("answer"),
        column::whole("tokens_in"),
        column::whole("tokens_cached"),
        column::whole("tokens_out"),
        column::number("usd"),
    ])
}

/// The prompt, if it is a template.
///
/// # Errors
/// A problem at the place in the file where it is none.
pub(crate) fn parsed(prompt: ConfigFile) -> Result<ConfigFile, Problem> {
    let read = minijinja::Environment::new().template_from_str(&prompt.text).map(drop);
    match read {
        Ok(()) => Ok(prompt),
        Err(error) => {
            let reason = error.detail().map_or_else(|| error.to_string(), str::to_owned);
            let problem = prompt
                .problem_in_line(error.line().unwrap_or(1), format!("the prompt does not read: {reason}"));
            Err(problem
                .help("a value is put in as `{{ name }}`, a loop as `{% for f in findings %}…{% endfor %}`"))
        }
    }
}

/// What a prompt sees of each finding; nothing of its rules.
pub(crate) fn prompt_part(pack: &Pack) -> Vec<Value> {
    let part = |f: &argent_reports::Finding| json!({ "id": f.id, "name": f.name, "definition": f.definition, "synonyms": f.synonyms });
    pack.findings.iter().map(part).collect()
}

/// Labels of one report as output rows.
fn label_batch(
    schema: &SchemaRef,
    labels: &[(String, &'static str, Option<String>)],
) -> anyhow::Result<RecordBatch> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(labels.iter().map(|l| &l.0))),
        Arc::new(StringArray::from_iter_values(labels.iter().map(|l| l.1))),
        // A chat endpoint gives no probability.
        Arc::new(Float64Array::new_null(labels.len())),
        Arc::new(StringArray::new_null(labels.len())),
        Arc::new(labels.iter().map(|l| l.2.as_deref()).collect::<StringArray>()),
    ];
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}
