//! `label.llm`: labels from reports by a language model behind a chat endpoint.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::{Context, bail};
use argent_cache::{Digest, Memo, Stats};
use argent_engine::operator::{ConfigFiles, Price as PlannedPrice};
use argent_engine::{Inputs, Io, Operator, Port, Problem, RowError, Signature, column};
use argent_llm::{
    Answer, ApiKey, Client, Decoding, Egress, Ending, Endpoint, Failure, Message, Price, Request, Role, Usage,
    estimate_tokens, parse_answer,
};
use argent_reports::Pack;
use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::findings;
use crate::label::{STATES, label_fields};
use crate::label::rules::{section_texts, sections, sections_of};

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
    loaded: Option<Loaded>,
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

fn concurrency() -> usize {
    16
}

/// The name of the memo of answers, shared by all steps and pipelines of a store.
const ANSWERS: &str = "llm answers";

/// The states that a model may answer; `failed` is never an answer.
const ASKED: [&str; 4] = [STATES[0], STATES[1], STATES[2], STATES[3]];

/// The configuration files, read.
#[derive(Debug)]
struct Loaded {
    /// What a prompt sees of each finding.
    findings: Vec<Value>,
    ids: Vec<String>,
    template: String,
}

/// An answer as it is kept: beside what was asked, so that it can be shown and parsed again.
#[derive(Serialize, Deserialize)]
struct Kept {
    request: Value,
    answer: Answer,
}

/// One question about one row.
struct Question {
    key: Digest,
    request: Request,
    ids: Vec<String>,
}

impl Operator for LabelLlm {
    fn ports(&self) -> Vec<Port> {
        vec![Port::new("reports", "A table of reports: `id` and text sections.", &["id"])]
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        let pack = findings::load(files, "findings", &self.findings);
        let template = files.text("prompt", &self.prompt).and_then(|text| self.parsed(text));
        let (pack, template) = match (pack, template) {
            (Ok(pack), Ok(template)) => (pack, template),
            (pack, template) => return Err([pack.err(), template.err()].into_iter().flatten().collect()),
        };
        let findings = prompt_part(&pack);
        files.uses("findings", json!(findings));
        files.uses("prompt", json!(template));
        self.loaded = Some(Loaded { findings, ids: pack.findings.into_iter().map(|f| f.id).collect(), template });
        Ok(())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let sections = sections(inputs, "reports", self.sections.as_deref())?;
        let own = label_fields().into_iter().chain([column::number("score"), column::phi("evidence"), column::text("call")]);
        Ok(Signature::new(column::schema(own), &["id", "finding"])
            .output("calls", calls_schema(), &["call"])
            .reads("reports", sections)
            .carries(inputs.ids("reports")))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let answers = io.memo(ANSWERS)?;
        let rows = io.rows().clone();
        let texts = section_texts(&rows)?;
        let mut batch = Batch::new(self, io, answers)?;
        for row in 0..rows.num_rows() {
            match self.questions(batch.io, &sections_of(&texts, row)) {
                Ok(questions) => batch.add(row, questions)?,
                Err(error) => batch.io.refuse(row, RowError::lasting("prompt", format!("{error:#}")))?,
            }
        }
        batch.ask()
    }

    fn finish(&self, main: &RecordBatch, io: &mut Io) -> anyhow::Result<()> {
        let answers = io.memo(ANSWERS)?;
        let calls = main.column_by_name("call").context("labels have calls")?.as_string::<i32>();
        let mut distinct: Vec<&str> = calls.iter().flatten().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let kept: Vec<(&str, Kept)> = distinct
            .into_iter()
            .map(|call| {
                let bytes = answers.get(&call.parse()?)?.context("an answer is gone from the memo")?;
                Ok((call, serde_json::from_slice(&bytes)?))
            })
            .collect::<anyhow::Result<_>>()?;
        io.emit("calls", self.calls(io, &kept)?)
    }

    fn failed_rows(&self, schema: &SchemaRef) -> anyhow::Result<Option<RecordBatch>> {
        let labels: Vec<(String, &str, Option<String>)> =
            self.loaded().ids.iter().map(|id| (id.clone(), STATES[4], None)).collect();
        Ok(Some(label_batch(schema, &labels)?))
    }

    fn price(&self, rows: &RecordBatch, io: &Io) -> anyhow::Result<Option<PlannedPrice>> {
        let answers = io.memo(ANSWERS)?;
        let texts = section_texts(rows)?;
        let mut asked: HashMap<Digest, (u64, u64)> = HashMap::new();
        for row in 0..rows.num_rows() {
            // A prompt that does not render costs nothing: its row fails before anything is sent.
            for question in self.questions(io, &sections_of(&texts, row)).unwrap_or_default() {
                if !answers.contains(&question.key) {
                    asked.insert(question.key, estimate(&question));
                }
            }
        }
        let (tokens_in, tokens_out) = asked.values().fold((0, 0), |sum, t| (sum.0 + t.0, sum.1 + t.1));
        let usage = Usage { tokens_in, tokens_cached: 0, tokens_out };
        let usd = self.price.map(|p| p.kernel().cost(&usage));
        // The estimate of tokens is right within the factors of its documentation.
        let (usd_min, usd) = (usd.map(|usd| usd * ESTIMATE_LOW), usd.map(|usd| usd * ESTIMATE_HIGH));
        Ok(Some(PlannedPrice { requests: asked.len() as u64, tokens_in, tokens_out, usd_min, usd }))
    }
}

/// The bounds of true token counts around [`estimate_tokens`], for text and JSON together.
const ESTIMATE_LOW: f64 = 0.5;
const ESTIMATE_HIGH: f64 = 2.0;

/// Tokens of the longest state name and its quotes, colon, comma and a finding's name: see [`longest_answer`].
fn estimate(question: &Question) -> (u64, u64) {
    let text: u64 = question.request.messages.iter().map(|m| estimate_tokens(&m.content)).sum();
    let schema = estimate_tokens(&question.request.schema.to_string());
    (text + schema, longest_answer(&question.ids))
}

/// The tokens of the longest answer that the schema allows.
fn longest_answer(ids: &[String]) -> u64 {
    let longest: BTreeMap<&str, &str> = ids.iter().map(|id| (id.as_str(), "not_mentioned")).collect();
    estimate_tokens(&json!(longest).to_string())
}

impl PriceParameters {
    fn kernel(&self) -> Price {
        Price { input: self.input, cached: self.cached.unwrap_or(self.input), output: self.output }
    }
}

impl LabelLlm {
    fn loaded(&self) -> &Loaded {
        self.loaded.as_ref().expect("the engine loads configuration files before anything else")
    }

    fn parsed(&self, text: String) -> Result<String, Problem> {
        let read = minijinja::Environment::new().template_from_str(&text).map(drop);
        read.map_err(|error| Problem::at(["with", "prompt"], format!("`{}` does not read: {error}", self.prompt)))?;
        Ok(text)
    }

    /// The questions about one report: one, or one per finding.
    fn questions(&self, io: &Io, sections: &[(&str, &str)]) -> anyhow::Result<Vec<Question>> {
        let loaded = self.loaded();
        let report: BTreeMap<&str, &str> = sections.iter().copied().collect();
        let all = json!(loaded.findings);
        match self.mode {
            Mode::Joint => {
                let context = json!({ "report": report, "findings": all });
                Ok(vec![self.question(io, &context, loaded.ids.clone())?])
            }
            Mode::PerFinding => loaded
                .findings
                .iter()
                .zip(&loaded.ids)
                .map(|(finding, id)| {
                    let context = json!({ "report": report, "findings": [finding], "finding": finding });
                    self.question(io, &context, vec![id.clone()])
                })
                .collect(),
        }
    }

    fn question(&self, io: &Io, context: &Value, ids: Vec<String>) -> anyhow::Result<Question> {
        let mut environment = minijinja::Environment::new();
        // A section that the template names and no report has is a mistake; one that a report lacks is empty.
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::Lenient);
        let content = environment.template_from_str(&self.loaded().template)?.render(minijinja::Value::from(minijinja::value::Serde(context)))?;
        let max_tokens = match self.max_tokens {
            Some(tokens) => tokens,
            // Twice the estimate, which may be low, and room for a server that writes the object over lines.
            None => u32::try_from(2 * longest_answer(&ids) + 64).unwrap_or(u32::MAX),
        };
        let request = Request {
            model: self.endpoint.model.clone(),
            identity: self.endpoint.identity.clone(),
            messages: vec![Message { role: Role::User, content }],
            schema: answer_schema(&ids),
            decoding: Decoding { temperature: Some(self.temperature), max_tokens, seed: None, top_p: None },
            sample: 0,
        };
        Ok(Question { key: io.question_key(&request.canonical()), request, ids })
    }

    fn client(&self) -> anyhow::Result<Client> {
        let api_key = match &self.endpoint.api_key {
            Some(secret) => {
                let value = std::env::var(&secret.env);
                let value = value.map_err(|_| anyhow::anyhow!("the environment variable {} is not set", secret.env))?;
                Some(ApiKey::new(value))
            }
            None => None,
        };
        let endpoint =
            Endpoint { base_url: self.endpoint.base_url.clone(), model: self.endpoint.model.clone(), api_key };
        let egress = match self.egress {
            EgressParameter::Private => Egress::PrivateOnly,
            EgressParameter::Allow => Egress::Allow,
        };
        Ok(Client::new(endpoint, egress)?)
    }

    fn calls(&self, io: &Io, kept: &[(&str, Kept)]) -> anyhow::Result<RecordBatch> {
        let prompt = io.question_key(&json!(self.loaded().template)).to_string();
        let usages: Vec<Option<Usage>> = kept.iter().map(|(_, k)| k.answer.usage).collect();
        let whole = |f: fn(&Usage) -> u64| {
            let counts = usages.iter().map(|u| u.as_ref().map(|u| f(u) as i64));
            Arc::new(counts.collect::<Int64Array>()) as ArrayRef
        };
        let usd = usages.iter().map(|u| Some(self.price?.kernel().cost(u.as_ref()?)));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(kept.iter().map(|(call, _)| call))),
            Arc::new(StringArray::from_iter_values(kept.iter().map(|(_, k)| &k.answer.model))),
            Arc::new(StringArray::from_iter_values(kept.iter().map(|_| &prompt))),
            Arc::new(StringArray::from_iter_values(kept.iter().map(|(_, k)| k.request.to_string()))),
            Arc::new(StringArray::from_iter_values(kept.iter().map(|(_, k)| &k.answer.text))),
            whole(|u| u.tokens_in),
            whole(|u| u.tokens_cached),
            whole(|u| u.tokens_out),
            Arc::new(usd.collect::<Float64Array>()),
        ];
        Ok(RecordBatch::try_new(io.schema("calls")?, columns)?)
    }
}

fn calls_schema() -> SchemaRef {
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

/// What a prompt sees of each finding; nothing of its rules.
fn prompt_part(pack: &Pack) -> Vec<Value> {
    let part = |f: &argent_reports::Finding| {
        json!({ "id": f.id, "name": f.name, "definition": f.definition, "synonyms": f.synonyms })
    };
    pack.findings.iter().map(part).collect()
}

/// The schema of the answer: one object that gives each finding one of the states.
fn answer_schema(ids: &[String]) -> Value {
    let properties: BTreeMap<&str, Value> = ids.iter().map(|id| (id.as_str(), json!({ "enum": ASKED }))).collect();
    json!({ "type": "object", "properties": properties, "required": ids, "additionalProperties": false })
}

/// The rows of one run that wait for answers.
struct Batch<'a, 'b> {
    operator: &'a LabelLlm,
    io: &'a mut Io<'b>,
    answers: Memo,
    /// By row: its questions.
    rows: BTreeMap<usize, Vec<Question>>,
    /// By question: the rows that wait for it.
    waiting: HashMap<Digest, Vec<usize>>,
    /// By question that failed: why.
    failed: HashMap<Digest, RowError>,
    spent_usd: f64,
}

impl<'a, 'b> Batch<'a, 'b> {
    fn new(operator: &'a LabelLlm, io: &'a mut Io<'b>, answers: Memo) -> anyhow::Result<Batch<'a, 'b>> {
        let (rows, waiting, failed) = (BTreeMap::new(), HashMap::new(), HashMap::new());
        Ok(Batch { operator, io, answers, rows, waiting, failed, spent_usd: 0.0 })
    }

    fn add(&mut self, row: usize, questions: Vec<Question>) -> anyhow::Result<()> {
        for question in &questions {
            self.waiting.entry(question.key).or_default().push(row);
        }
        self.rows.insert(row, questions);
        Ok(())
    }

    /// Sends what the memo does not answer, and answers the rows as they become complete.
    fn ask(mut self) -> anyhow::Result<()> {
        let to_send: Vec<(Digest, Request)> = self.to_send();
        for row in self.rows.keys().copied().collect::<Vec<_>>() {
            self.complete(row)?;
        }
        if to_send.is_empty() {
            return Ok(());
        }
        if self.io.max_usd().is_some() && self.operator.price.is_none() {
            bail!("a limit of dollars is set and the step has no `price`; what it would cost is not known");
        }
        let client = self.operator.client()?;
        let concurrency = self.operator.concurrency;
        let runtime = tokio::runtime::Handle::try_current().context("label.llm needs the program's runtime")?;
        let (keys, requests): (Vec<Digest>, Vec<Request>) = to_send.into_iter().unzip();
        let total = keys.len() as u64;
        let mut done = 0;
        let mut problem = None;
        let mut on_outcome = |place: usize, outcome: Result<Answer, Failure>| {
            done += 1;
            match self.outcome(keys[place], &requests[place], outcome) {
                Ok(()) => {}
                Err(error) => problem = Some(error),
            }
            self.io.progress(done, total, self.note());
            if problem.is_some() || self.io.cancelled() || self.over_budget() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        };
        let numbered = requests.clone().into_iter().enumerate();
        let ending = client.ask_all(&runtime, numbered, concurrency, &mut on_outcome);
        if let Some(error) = problem {
            return Err(error);
        }
        match ending {
            Ending::Fatal(failure) => bail!("{}", failure.message),
            Ending::Stopped if self.over_budget() => {
                self.io.stop(format!("the budget of ${:.2} is spent", self.limit().unwrap_or_default()));
                Ok(())
            }
            Ending::Stopped | Ending::Finished => Ok(()),
        }
    }

    /// The distinct questions without an answer, in the order of the rows.
    fn to_send(&self) -> Vec<(Digest, Request)> {
        let mut seen = std::collections::HashSet::new();
        let all = self.rows.values().flatten();
        let open = all.filter(|q| seen.insert(q.key) && !self.answers.contains(&q.key));
        open.map(|q| (q.key, q.request.clone())).collect()
    }

    /// Keeps an answer durably, charges it, and completes the rows that waited for it.
    fn outcome(&mut self, key: Digest, request: &Request, outcome: Result<Answer, Failure>) -> anyhow::Result<()> {
        let usage = match &outcome {
            Ok(answer) => answer.usage,
            Err(failure) => failure.usage,
        };
        self.charge(usage);
        match outcome {
            Ok(answer) => {
                let kept = Kept { request: request.canonical(), answer };
                self.answers.put(key, &serde_json::to_vec(&kept)?)?;
            }
            Err(failure) if failure.fatal => return Ok(()),
            Err(failure) => drop(self.failed.insert(key, row_error(&failure))),
        }
        for row in self.waiting.get(&key).cloned().unwrap_or_default() {
            self.complete(row)?;
        }
        Ok(())
    }

    /// Answers for a row once all its questions have an outcome.
    fn complete(&mut self, row: usize) -> anyhow::Result<()> {
        let Some(questions) = self.rows.get(&row) else { return Ok(()) };
        let mut labels = Vec::new();
        let mut error: Option<RowError> = None;
        for question in questions {
            if let Some(failure) = self.failed.get(&question.key) {
                error.get_or_insert_with(|| failure.clone());
                continue;
            }
            let Some(bytes) = self.answers.get(&question.key)? else { return Ok(()) };
            let kept: Kept = serde_json::from_slice(&bytes)?;
            match parse_answer(&kept.answer.text, &question.ids, &ASKED.map(str::to_owned)) {
                Ok(states) => labels.extend(states.into_iter().map(|(finding, state)| {
                    let state = ASKED.into_iter().find(|s| **s == state).unwrap_or(STATES[4]);
                    (finding, state, Some(question.key.to_string()))
                })),
                Err(reason) => {
                    error.get_or_insert(RowError { attempts: kept.answer.attempts, ..RowError::lasting("unparseable", reason.to_string()) });
                }
            }
        }
        self.rows.remove(&row);
        match error {
            Some(error) => self.io.refuse(row, error),
            None => {
                let batch = label_batch(&self.io.schema("")?, &labels)?;
                self.io.answer(&[row], &[labels.len()], &batch)
            }
        }
    }

    fn charge(&mut self, usage: Option<Usage>) {
        let mut stats = Stats { requests: 1, ..Stats::default() };
        if let Some(usage) = usage {
            (stats.tokens_in, stats.tokens_cached, stats.tokens_out) =
                (usage.tokens_in, usage.tokens_cached, usage.tokens_out);
            stats.usd = self.operator.price.map(|p| p.kernel().cost(&usage));
        }
        self.spent_usd += stats.usd.unwrap_or(0.0);
        self.io.spend(&stats);
    }

    /// What may be spent: the step's budget and what is left of the run's.
    fn limit(&self) -> Option<f64> {
        let own = self.operator.budget.map(|b| b.usd);
        own.into_iter().chain(self.io.max_usd()).reduce(f64::min)
    }

    fn over_budget(&self) -> bool {
        self.limit().is_some_and(|limit| self.spent_usd >= limit)
    }

    fn note(&self) -> String {
        match self.operator.price {
            Some(_) => format!("${:.4}", self.spent_usd),
            None => String::new(),
        }
    }
}

fn row_error(failure: &Failure) -> RowError {
    let kind = serde_json::to_value(failure.kind).ok();
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or("failed").to_owned();
    RowError { kind, message: failure.message.clone(), attempts: failure.attempts, retryable: failure.retryable }
}

/// Labels of one report as output rows.
fn label_batch(schema: &SchemaRef, labels: &[(String, &str, Option<String>)]) -> anyhow::Result<RecordBatch> {
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
