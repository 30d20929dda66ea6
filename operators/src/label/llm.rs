//! `label.llm`: labels from reports by a language model, behind an endpoint or in process.

mod batch;
pub(crate) mod calls;
pub(crate) mod few_shot;
pub(crate) mod labels;
pub(crate) mod local;
pub(crate) mod parameters;
pub(crate) mod provider_batch;
mod purse;
mod question;
mod shown;
mod surroundings;
pub(crate) mod tries;
mod watch;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use argent_cache::Digest;
use argent_engine::operator::{
    Condition, ConfigFile, ConfigFiles, Exchange, Price as PlannedPrice, Projection, nearest,
};
use argent_engine::table::Rows;
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, RowError, Signature, column};
use argent_llm::{Client, RetryPolicy, Usage};
use argent_reports::Pack;
use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::findings;
use crate::label::rules::{section_texts, sections, sections_of};
use batch::{Batch, OnRow};
use calls::calls_schema;
use few_shot::{Examples, FewShot};
use labels::{Outgoing, RowLabel, RowLabels};
use local::{LocalModel, OpenModel};
use parameters::{
    BatchParameters, Budget, EgressParameter, EndpointParameters, Mode, PriceParameters, concurrency,
};
use question::{Asker, Question};
use tries::{ANSWERS, Standing, Tries};
use watch::{DENSEST_BYTES_PER_TOKEN, Watch};

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
    /// Labelled examples that the prompt shows as `examples`: each has `report`, `states` and `answer`.
    #[serde(default)]
    pub few_shot: Option<FewShot>,
    /// Whether each state comes with the words of the report that it rests on. A quote that the report does not have
    /// is no evidence.
    #[serde(default)]
    pub evidence: bool,
    /// How often each question is asked. Of several answers the state that most of them say counts, and `agreement` is
    /// their share.
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 99))]
    pub samples: u32,
    /// How often a malformed answer is asked for again, with what was wrong with it.
    #[serde(default = "once")]
    #[schemars(range(max = 9))]
    pub repairs: u32,
    /// The sampling temperature; `null` for models that accept none.
    #[serde(default = "greedy")]
    pub temperature: Option<f64>,
    /// The most tokens of an answer; left out, enough for the longest one that the schema allows, and four times as much
    /// for one that was cut short.
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
    /// Requests are handed over in the provider's batches, which are answered within a day for about half the price (give
    /// `price` as it is for batches). A run that is stopped or killed leaves them there, and the next one fetches the
    /// answers. `{}` takes the defaults.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = "how a question is handed over does not change its answer"))]
    pub batch: Option<BatchParameters>,
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
    #[serde(skip)]
    pub(crate) watch: Mutex<Watch>,
    #[serde(skip)]
    pub(crate) open_model: OpenModel,
}

pub(crate) fn once() -> u32 {
    1
}

pub(crate) fn greedy() -> Option<f64> {
    Some(0.0)
}

/// The configuration files, read.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// What a prompt sees of each finding.
    pub(crate) findings: Vec<Value>,
    pub(crate) ids: Vec<String>,
    pub(crate) prompt: ConfigFile,
    /// The model in process, where the endpoint is one.
    pub(crate) local: Option<LocalModel>,
}

impl Operator for LabelLlm {
    fn ports(&self) -> Vec<Port> {
        let reports =
            Port::new("reports", "A table of reports: `id` and text sections.", &[Needed::text("id")]);
        std::iter::once(reports).chain(few_shot::ports()).collect()
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        let pack = findings::load(files, "findings", &self.findings);
        let prompt = files.read("prompt", &self.prompt).and_then(parsed);
        let local = local::find(files, &self.endpoint);
        let (pack, prompt, local) = match (pack, prompt, local) {
            (Ok(pack), Ok(prompt), Ok(local)) => (pack.pack, prompt, local),
            (pack, prompt, local) => {
                let problems = pack.err().into_iter().flatten().chain(prompt.err());
                return Err(problems.chain(local.err()).collect());
            }
        };
        let findings = prompt_part(&pack);
        files.uses("findings", json!(findings));
        files.uses("prompt", json!(&*prompt.text));
        let ids = pack.findings.into_iter().map(|f| f.id).collect();
        self.loaded = Some(Loaded { findings, ids, prompt, local });
        Ok(())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let sections = sections(inputs, "reports", self.sections.as_deref())?;
        let problems: Vec<Problem> = self
            .problems(&sections)
            .into_iter()
            .chain(self.few_shot_problems(inputs, self.shows_examples()))
            .collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let examples = self.few_shot_columns(inputs, &sections);
        let signature = Signature::new(column::schema(self.label_columns()), &["id", "finding"])
            .output("calls", calls_schema(), &["call"])
            .reads("reports", sections)
            .carries(inputs.ids("reports"));
        Ok(examples.into_iter().fold(signature, |signature, (port, columns)| signature.reads(port, columns)))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let (rows, examples) = (io.rows().clone(), self.examples(io)?);
        let mut outgoing = Outgoing::default();
        let asked = self.ask(io, &rows, &examples, &mut |io, row, labels| match labels {
            Ok(labels) => outgoing.take(self, io, row, labels),
            Err(error) => io.refuse(row, error),
        });
        // What came before a mistake is whole.
        outgoing.hand_over(self, io)?;
        asked
    }

    fn finish(&self, main: &Rows, errors: &Rows, io: &mut Io) -> anyhow::Result<()> {
        self.open_model.release();
        let (mut calls, answers) = (named_calls(main)?, io.memo(ANSWERS)?);
        // A report that failed keeps its reason when what was asked about it has been collected.
        calls.extend(named_calls(errors)?.into_iter().filter(|call| answers.contains(call)));
        let mut calls: Vec<Digest> = calls.into_iter().collect();
        answers.sort_by_place(&mut calls);
        let mut told = HashSet::new();
        for calls in calls.chunks(CALLS_AT_ONCE) {
            io.emit("calls", self.call_rows(io, calls, &mut told)?)?;
        }
        Ok(())
    }

    fn shared_keys(&self) -> Option<(&'static str, &'static str)> {
        Some(("call", ANSWERS))
    }

    fn failed_rows(&self, schema: &SchemaRef) -> anyhow::Result<Option<RecordBatch>> {
        let labels: RowLabels = self.loaded().ids.iter().cloned().map(RowLabel::failed).collect();
        Ok(Some(self.label_batch(schema, &labels)?))
    }

    fn endpoints(&self) -> Vec<String> {
        vec![self.endpoint.place().to_owned()]
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

    fn probes(&self) -> Vec<Condition> {
        surroundings::probes(self)
    }

    fn price(&self, rows: &RecordBatch, io: &Io) -> anyhow::Result<Option<PlannedPrice>> {
        let (tries, examples) = (Tries::open(self, io)?, self.examples(io)?);
        let asker = Asker::new(self, io, &examples)?;
        let mut asked: HashMap<Digest, (u64, u64)> = HashMap::new();
        for questions in self.look_up(&asker, &tries, rows, io.retry_errors())? {
            // A prompt that does not render costs nothing: its row fails before anything is sent.
            for (question, standing) in questions.unwrap_or_default() {
                if matches!(standing, Standing::Open(_)) {
                    asked.insert(question.key, question.estimate());
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

/// The calls that rows name.
fn named_calls(rows: &Rows) -> anyhow::Result<HashSet<Digest>> {
    let mut calls = HashSet::new();
    for rows in rows.chunks(&["call"]) {
        let rows = rows?;
        // Labels of one report name one call, or few.
        let named: HashSet<&str> = rows.column(0).as_string::<i32>().iter().flatten().collect();
        for call in named {
            calls.insert(call.parse()?);
        }
    }
    Ok(calls)
}

/// The questions about a report and how each stands, or why its prompt does not render.
type LookedUp = anyhow::Result<Vec<(Question, Standing)>>;

/// The bounds of true token counts around [`estimate_tokens`](argent_llm::estimate_tokens), for text and JSON
/// together.
const ESTIMATE_LOW: f64 = 0.5;
const ESTIMATE_HIGH: f64 = 2.0;

impl LabelLlm {
    /// Asks about reports what has not been answered yet, and hands over the labels of each report, or why it has none,
    /// as it becomes complete. A report that is not handed over was not asked: a budget or the user stopped the step.
    pub(crate) fn ask(
        &self,
        io: &mut Io,
        reports: &RecordBatch,
        examples: &Examples,
        on_row: &mut OnRow<'_>,
    ) -> anyhow::Result<()> {
        let tries = Tries::open(self, io)?;
        let asker = Asker::new(self, io, examples)?;
        let rows = self.look_up(&asker, &tries, reports, io.retry_errors())?;
        let mut on_row =
            |io: &mut Io, row: usize, labels: Result<RowLabels, RowError>| on_row(io, row, labels);
        let mut batch = Batch::new(self, io, &tries, &mut on_row);
        for (row, questions) in rows.into_iter().enumerate() {
            match questions {
                Ok(questions) => match self.too_long(&questions) {
                    Some(error) => batch.refuse(row, error)?,
                    None => batch.add(row, questions)?,
                },
                Err(error) => batch.refuse(row, RowError::lasting("prompt", format!("{error:#}")))?,
            }
        }
        batch.ask()
    }

    /// By row: its questions and how each stands, or why its prompt does not render.
    ///
    /// # Errors
    /// When the memo does not read.
    fn look_up(
        &self,
        asker: &Asker<'_>,
        tries: &Tries<'_>,
        reports: &RecordBatch,
        again: bool,
    ) -> anyhow::Result<Vec<LookedUp>> {
        let texts = self.section_texts(reports)?;
        let rendered = |row: usize| asker.questions(&sections_of(&texts, row));
        let rows: Vec<anyhow::Result<Vec<Question>>> =
            (0..reports.num_rows()).into_par_iter().map(rendered).collect();
        let all: Vec<&Question> = rows.iter().flatten().flatten().collect();
        let mut standings = tries.standings(&all, again)?.into_iter();
        let rows = rows.into_iter();
        Ok(rows.map(|questions| Ok(questions?.into_iter().zip(standings.by_ref()).collect())).collect())
    }

    /// Why questions are not sent, where one is surely longer than the model's window.
    fn too_long(&self, questions: &[(Question, Standing)]) -> Option<RowError> {
        let window = u64::from(self.endpoint.context_tokens?);
        let bytes = questions.iter().map(|(question, _)| question.request.bytes_in()).max()?;
        (bytes > DENSEST_BYTES_PER_TOKEN * window).then(|| {
            let message = format!(
                "a prompt of {bytes} bytes, expected at most {window} tokens; it was not sent, and a wider \
                 `context_tokens` sends it"
            );
            RowError { attempts: 0, retryable: true, ..RowError::lasting("context_length", message) }
        })
    }

    /// The tokens that asking these reports takes, input and longest answer together, by estimate: a function of the
    /// texts alone.
    pub(crate) fn estimated_tokens(
        &self,
        io: &Io,
        reports: &RecordBatch,
        examples: &Examples,
    ) -> anyhow::Result<u64> {
        let asker = Asker::new(self, io, examples)?;
        let texts = self.section_texts(reports)?;
        let mut asked: HashMap<Digest, u64> = HashMap::new();
        for row in 0..reports.num_rows() {
            for question in asker.questions(&sections_of(&texts, row)).unwrap_or_default() {
                let (tokens_in, tokens_out) = question.estimate();
                asked.insert(question.key, tokens_in + tokens_out);
            }
        }
        Ok(asked.values().sum())
    }

    fn loaded(&self) -> &Loaded {
        self.loaded.as_ref().expect("the engine loads configuration files before anything else")
    }

    /// What is amiss in the parameters and the prompt themselves, whatever the ports are.
    pub(crate) fn problems(&self, sections: &[String]) -> Vec<Problem> {
        let mut problems = self.unknown_names(sections);
        problems.extend(self.unpriced_budget());
        problems.extend(self.endpoint.problems());
        problems.extend(self.of_no_use_in_process());
        problems.extend(self.no_batches());
        problems
    }

    /// Parameters that ask for what a model in process does not do.
    fn of_no_use_in_process(&self) -> Vec<Problem> {
        let given = [
            ("evidence", self.evidence, "a model in process says how likely states are, and quotes nothing"),
            ("samples", self.samples > 1, "a model in process gives the same answer each time"),
        ];
        let given = given.into_iter().filter(|(_, is_given, _)| *is_given && self.endpoint.is_local());
        given.map(|(name, _, message)| Problem::at(["with", name], message).help("take it away")).collect()
    }

    /// A problem for each name that the prompt uses and would never see, at its place in the prompt's file: it would
    /// render as nothing, and the model would label a report that it was not shown.
    fn unknown_names(&self, sections: &[String]) -> Vec<Problem> {
        let environment = minijinja::Environment::new();
        let prompt = &self.loaded().prompt;
        let Ok(template) = environment.template_from_str(&prompt.text) else { return Vec::new() };
        let used: BTreeSet<String> = template.undeclared_variables(true).into_iter().collect();
        let globals: BTreeSet<&str> = environment.globals().map(|(name, _)| name).collect();
        let sections: Vec<&str> = sections.iter().map(String::as_str).collect();
        let one_by_one = self.mode == Mode::PerFinding;
        let examples = self.few_shot.as_ref().map(|_| "examples");
        let finding = one_by_one.then_some("finding");
        let known: Vec<&str> = ["report", "findings"].into_iter().chain(finding).chain(examples).collect();
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
            } else if first == "examples" && examples.is_none() {
                let message = "`examples` is there only with `few_shot`";
                let help = "add `few_shot: { shots: 3 }` and the ports `examples`, `truth` and `split`";
                problems.push(prompt.problem_at_word(first, message).help(help));
            } else if !known.contains(&first) && !globals.contains(first) {
                let message = format!("a prompt sees no `{first}`");
                problems.push(prompt.problem_at_word(first, message).help(nearest(
                    first,
                    &known,
                    "variables",
                )));
            }
        }
        problems
    }

    /// Whether the prompt shows the examples of `few_shot`.
    fn shows_examples(&self) -> bool {
        let environment = minijinja::Environment::new();
        let template = environment.template_from_str(&self.loaded().prompt.text);
        template.is_ok_and(|template| template.undeclared_variables(false).contains("examples"))
    }

    /// What watches the answers of the step, over all of its batches.
    fn watch(&self) -> MutexGuard<'_, Watch> {
        // Each of its values is whole, so a panic elsewhere does not spoil it.
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn no_batches(&self) -> Option<Problem> {
        let none = self.batch.is_some() && !self.endpoint.dialect().has_batches();
        let message =
            || format!("servers of the dialect `{}` take no batches", self.endpoint.dialect().name());
        let problem = || Problem::at(["with", "batch"], message()).help("take `batch` away");
        none.then(problem)
    }

    /// A client of the endpoint.
    fn client(&self, policy: RetryPolicy) -> anyhow::Result<Client> {
        self.endpoint.client(self.egress, policy)
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
