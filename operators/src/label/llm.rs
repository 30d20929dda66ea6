//! `label.llm`: labels from reports by a language model behind a chat endpoint.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::{Context, bail};
use argent_cache::{Digest, Memo, Stats};
use argent_engine::operator::{ConfigFiles, Price as PlannedPrice};
use argent_engine::{Inputs, Io, Operator, Port, Problem, RowError, Signature, column};
use argent_llm::{
    Answer, ApiKey, Client, Decoding, Egress, Ending, Endpoint, Failure, FailureKind, Message, Price,
    Request, Role, Usage, estimate_tokens, parse_answer,
};
use argent_reports::Pack;
use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::findings;
use crate::label::rules::{section_texts, sections, sections_of};
use crate::label::{STATES, label_fields};

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

/// What came of a question, as it is kept: beside what was asked, so that it can be shown and parsed again.
#[derive(Serialize, Deserialize)]
struct Kept {
    request: Value,
    outcome: Outcome,
}

/// What came of a question: an answer, or a failure that would come again.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Answered(Answer),
    Failed(Failure),
}

/// The last try of a question that is kept. A question is tried again only on the user's word, and what was paid
/// for before stays, so each try has a key of its own.
struct Try {
    number: u32,
    key: Digest,
    kept: Kept,
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
        self.loaded =
            Some(Loaded { findings, ids: pack.findings.into_iter().map(|f| f.id).collect(), template });
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
        let answers = io.memo(ANSWERS)?;
        let rows = io.rows().clone();
        let texts = self.section_texts(&rows)?;
        let mut batch = Batch::new(self, io, answers);
        for row in 0..rows.num_rows() {
            match self.questions(batch.io, &sections_of(&texts, row)) {
                Ok(questions) => batch.add(row, questions),
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
                let kept = kept(&answers, &call.parse()?)?.context("an answer is gone from the memo")?;
                Ok((call, kept))
            })
            .collect::<anyhow::Result<_>>()?;
        let answered = kept.iter().filter_map(|(call, kept)| match &kept.outcome {
            Outcome::Answered(answer) => Some((*call, &kept.request, answer)),
            Outcome::Failed(_) => None,
        });
        io.emit("calls", self.calls(io, &answered.collect::<Vec<_>>())?)
    }

    fn failed_rows(&self, schema: &SchemaRef) -> anyhow::Result<Option<RecordBatch>> {
        let labels: Vec<(String, &str, Option<String>)> =
            self.loaded().ids.iter().map(|id| (id.clone(), STATES[4], None)).collect();
        Ok(Some(label_batch(schema, &labels)?))
    }

    fn endpoints(&self) -> Vec<String> {
        vec![self.endpoint.base_url.clone()]
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

/// The bounds of true token counts around [`estimate_tokens`], for text and JSON together.
const ESTIMATE_LOW: f64 = 0.5;
const ESTIMATE_HIGH: f64 = 2.0;

/// The tokens of a question, and of the longest answer to it.
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

    /// A problem for each name under `report.` or for `finding` that the prompt uses and would never see: it would
    /// render as nothing, and the model would label a report that it was not shown.
    fn unknown_names(&self, sections: &[String]) -> Vec<Problem> {
        let environment = minijinja::Environment::new();
        let Ok(template) = environment.template_from_str(&self.loaded().template) else { return Vec::new() };
        let used: BTreeSet<String> = template.undeclared_variables(true).into_iter().collect();
        let names: Vec<&str> = sections.iter().map(String::as_str).collect();
        let at = |message: String| Problem::at(["with", "prompt"], format!("`{}` {message}", self.prompt));
        let sections =
            used.iter().filter_map(|name| name.strip_prefix("report.")).filter(|s| !names.contains(s));
        let mut problems: Vec<Problem> = sections
            .map(|section| {
                let problem =
                    at(format!("uses `report.{section}`, and the reports have no section `{section}`"));
                problem.help(argent_engine::operator::nearest(section, &names, "sections"))
            })
            .collect();
        if self.mode == Mode::Joint && used.iter().any(|name| name.split('.').next() == Some("finding")) {
            let problem =
                at("uses `finding`, which is there only when findings are asked one by one".to_owned());
            problems.push(problem.help("say `mode: per_finding`, or use `findings`"));
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

    fn parsed(&self, text: String) -> Result<String, Problem> {
        let read = minijinja::Environment::new().template_from_str(&text).map(drop);
        read.map_err(|error| {
            Problem::at(["with", "prompt"], format!("`{}` does not read: {error}", self.prompt))
        })?;
        Ok(text)
    }

    /// The sections of reports. Ids that the rows carry along are not among them: no prompt may see those.
    fn section_texts(&self, rows: &RecordBatch) -> anyhow::Result<Vec<(String, StringArray)>> {
        let schema = rows.schema();
        let names = self.sections.clone().unwrap_or_else(|| column::names_with_role(&schema, "section"));
        let places =
            names.iter().map(|name| Ok(schema.index_of(name)?)).collect::<anyhow::Result<Vec<_>>>()?;
        section_texts(&rows.project(&places)?)
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
        // A section that no report has is a mistake that `signature` found; one that this report lacks is empty.
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::Lenient);
        let content = environment
            .template_from_str(&self.loaded().template)?
            .render(minijinja::Value::from(minijinja::value::Serde(context)))?;
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
                let value = value
                    .map_err(|_| anyhow::anyhow!("the environment variable {} is not set", secret.env))?;
                Some(ApiKey::new(value))
            }
            None => None,
        };
        let endpoint = Endpoint {
            base_url: self.endpoint.base_url.clone(),
            model: self.endpoint.model.clone(),
            api_key,
        };
        let egress = match self.egress {
            EgressParameter::Private => Egress::PrivateOnly,
            EgressParameter::Allow => Egress::Allow,
        };
        Ok(Client::new(endpoint, egress)?)
    }

    fn calls(&self, io: &Io, answered: &[(&str, &Value, &Answer)]) -> anyhow::Result<RecordBatch> {
        let prompt = io.question_key(&json!(self.loaded().template)).to_string();
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
    let part = |f: &argent_reports::Finding| json!({ "id": f.id, "name": f.name, "definition": f.definition, "synonyms": f.synonyms });
    pack.findings.iter().map(part).collect()
}

/// The schema of the answer: one object that gives each finding one of the states.
fn answer_schema(ids: &[String]) -> Value {
    let properties: BTreeMap<&str, Value> =
        ids.iter().map(|id| (id.as_str(), json!({ "enum": ASKED }))).collect();
    json!({ "type": "object", "properties": properties, "required": ids, "additionalProperties": false })
}

/// The key of a try of a question: of the first one the question's own.
fn try_key(io: &Io, question: Digest, number: u32) -> Digest {
    match number {
        0 => question,
        _ => io.question_key(&json!({ "question": question.to_string(), "try": number })),
    }
}

fn kept(answers: &Memo, key: &Digest) -> anyhow::Result<Option<Kept>> {
    answers.get(key)?.map(|bytes| Ok(serde_json::from_slice(&bytes)?)).transpose()
}

/// The last try of a question that is kept.
fn last_try(io: &Io, answers: &Memo, question: Digest) -> anyhow::Result<Option<Try>> {
    let mut last = None;
    for number in 0.. {
        let key = try_key(io, question, number);
        let Some(kept) = kept(answers, &key)? else { break };
        last = Some(Try { number, key, kept });
    }
    Ok(last)
}

/// The number of the try that is to be sent for a question; none where the last one stands.
fn next_try(io: &Io, answers: &Memo, question: &Question) -> anyhow::Result<Option<u32>> {
    Ok(match last_try(io, answers, question.key)? {
        None => Some(0),
        Some(last) if io.retry_errors() && labels(&last.kept, &question.ids).is_err() => {
            Some(last.number + 1)
        }
        Some(_) => None,
    })
}

/// The states that a try gives its findings, or why it gives none.
fn labels(kept: &Kept, ids: &[String]) -> Result<BTreeMap<String, String>, RowError> {
    match &kept.outcome {
        Outcome::Answered(answer) => {
            parse_answer(&answer.text, ids, &ASKED.map(str::to_owned)).map_err(|reason| RowError {
                attempts: answer.attempts,
                ..RowError::lasting("unparseable", reason.to_string())
            })
        }
        Outcome::Failed(failure) => Err(row_error(failure)),
    }
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
    /// By question that is to be sent: the number of its try.
    open: HashMap<Digest, u32>,
    /// By question that failed for now: why.
    failed: HashMap<Digest, RowError>,
    /// Whether nothing more is to be sent.
    stopping: bool,
    spent_usd: f64,
}

/// A request that is to be sent.
struct ToSend {
    question: Digest,
    request: Request,
    /// What it may cost in US dollars.
    estimate_usd: f64,
}

impl<'a, 'b> Batch<'a, 'b> {
    fn new(operator: &'a LabelLlm, io: &'a mut Io<'b>, answers: Memo) -> Batch<'a, 'b> {
        let (rows, waiting, open, failed) = (BTreeMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
        Batch { operator, io, answers, rows, waiting, open, failed, stopping: false, spent_usd: 0.0 }
    }

    fn add(&mut self, row: usize, questions: Vec<Question>) {
        for question in &questions {
            self.waiting.entry(question.key).or_default().push(row);
        }
        self.rows.insert(row, questions);
    }

    /// Sends what has no answer yet, and answers the rows as they become complete.
    fn ask(mut self) -> anyhow::Result<()> {
        let to_send = self.open_questions()?;
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
        let purse = RefCell::new(Purse::new(self.limit()));
        let mut sent = 0;
        // A budget ends a round early; once the answers under way have told what they cost, there may be money
        // for more.
        while sent < to_send.len() && !self.stopping {
            if !purse.borrow().admits(to_send[sent].estimate_usd) {
                let reason = purse.borrow().reason(to_send[sent].estimate_usd);
                self.io.stop(reason);
                break;
            }
            self.round(&client, &to_send, &mut sent, &purse)?;
        }
        Ok(())
    }

    /// Sends requests from the one numbered `sent` on, as far as the purse admits, and waits for their outcomes.
    fn round(
        &mut self,
        client: &Client,
        to_send: &[ToSend],
        sent: &mut usize,
        purse: &RefCell<Purse>,
    ) -> anyhow::Result<()> {
        let runtime =
            tokio::runtime::Handle::try_current().context("label.llm needs the program's runtime")?;
        let concurrency = self.operator.concurrency;
        let mut problem = None;
        let mut on_outcome = |place: usize, outcome: Result<Answer, Failure>| {
            let usd = self.charge(&outcome);
            purse.borrow_mut().settle(place, usd);
            if let Err(error) = self.outcome(&to_send[place], outcome) {
                problem.get_or_insert(error);
            }
            self.io.progress((to_send.len() - self.open.len()) as u64, to_send.len() as u64, self.note());
            self.stopping |= problem.is_some() || self.io.cancelled();
            if self.stopping { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let requests = std::iter::from_fn(|| {
            let next = to_send.get(*sent).filter(|next| purse.borrow().admits(next.estimate_usd))?;
            purse.borrow_mut().reserve(*sent, next.estimate_usd);
            *sent += 1;
            Some((*sent - 1, next.request.clone()))
        });
        let ending = client.ask_all(&runtime, requests, concurrency, &mut on_outcome);
        match (problem, ending) {
            (Some(error), _) => Err(error),
            (None, Ending::Fatal(failure)) => bail!("{}", failure.message),
            (None, Ending::Stopped | Ending::Finished) => Ok(()),
        }
    }

    /// The distinct questions that are to be sent, in the order of the rows.
    fn open_questions(&mut self) -> anyhow::Result<Vec<ToSend>> {
        let mut all = Vec::new();
        for question in self.rows.values().flatten() {
            if self.open.contains_key(&question.key) {
                continue;
            }
            let Some(number) = next_try(self.io, &self.answers, question)? else { continue };
            self.open.insert(question.key, number);
            let (tokens_in, tokens_out) = estimate(question);
            let usage = Usage { tokens_in, tokens_cached: 0, tokens_out };
            let estimate_usd = self.operator.price.map_or(0.0, |p| p.kernel().cost(&usage));
            all.push(ToSend { question: question.key, request: question.request.clone(), estimate_usd });
        }
        Ok(all)
    }

    /// Keeps what came of a question and completes the rows that waited for it. A request that was not answered
    /// because the step stops leaves its rows pending.
    fn outcome(&mut self, sent: &ToSend, outcome: Result<Answer, Failure>) -> anyhow::Result<()> {
        match outcome {
            Ok(answer) => self.keep(sent, Outcome::Answered(answer))?,
            Err(failure) if failure.fatal => {
                self.stopping = true;
                return Ok(());
            }
            Err(failure) if failure.kind == FailureKind::Stopped || (self.stopping && failure.retryable) => {
                return Ok(());
            }
            Err(failure) if failure.retryable => drop(self.failed.insert(sent.question, row_error(&failure))),
            Err(failure) => self.keep(sent, Outcome::Failed(failure))?,
        }
        self.open.remove(&sent.question);
        for row in self.waiting.get(&sent.question).cloned().unwrap_or_default() {
            self.complete(row)?;
        }
        Ok(())
    }

    fn keep(&self, sent: &ToSend, outcome: Outcome) -> anyhow::Result<()> {
        let number = self.open.get(&sent.question).copied().unwrap_or(0);
        let kept = Kept { request: sent.request.canonical(), outcome };
        self.answers.put(try_key(self.io, sent.question, number), &serde_json::to_vec(&kept)?)
    }

    /// Answers for a row once none of its questions is open.
    fn complete(&mut self, row: usize) -> anyhow::Result<()> {
        let Some(questions) = self.rows.get(&row) else { return Ok(()) };
        if questions.iter().any(|question| self.open.contains_key(&question.key)) {
            return Ok(());
        }
        let mut all = Vec::new();
        let mut error: Option<RowError> = None;
        for question in questions {
            if let Some(failure) = self.failed.get(&question.key) {
                error.get_or_insert_with(|| failure.clone());
                continue;
            }
            let last =
                last_try(self.io, &self.answers, question.key)?.context("an answer is gone from the memo")?;
            match labels(&last.kept, &question.ids) {
                Ok(states) => all.extend(states.into_iter().map(|(finding, state)| {
                    let state = ASKED.into_iter().find(|s| **s == state).unwrap_or(STATES[4]);
                    (finding, state, Some(last.key.to_string()))
                })),
                Err(reason) => drop(error.get_or_insert(reason)),
            }
        }
        self.rows.remove(&row);
        match error {
            Some(error) => self.io.refuse(row, error),
            None => {
                let batch = label_batch(&self.io.schema("")?, &all)?;
                self.io.answer(&[row], &[all.len()], &batch)
            }
        }
    }

    /// Adds what came of a request to the costs; tells its dollars where they are known.
    fn charge(&mut self, outcome: &Result<Answer, Failure>) -> Option<f64> {
        let (usage, attempts) = match outcome {
            Ok(answer) => (answer.usage, answer.attempts),
            Err(failure) => (failure.usage, failure.attempts),
        };
        let mut stats = Stats { requests: u64::from(attempts > 0), ..Stats::default() };
        if let Some(usage) = usage {
            (stats.tokens_in, stats.tokens_cached, stats.tokens_out) =
                (usage.tokens_in, usage.tokens_cached, usage.tokens_out);
            stats.usd = self.operator.price.map(|p| p.kernel().cost(&usage));
        }
        self.spent_usd += stats.usd.unwrap_or(0.0);
        self.io.spend(&stats);
        // A failure that the server counts no tokens for is free; an answer without a count is not.
        stats.usd.or(outcome.is_err().then_some(0.0))
    }

    /// What may be spent: the step's budget and what is left of the run's.
    fn limit(&self) -> Option<f64> {
        let own = self.operator.budget.map(|b| b.usd);
        own.into_iter().chain(self.io.max_usd()).reduce(f64::min)
    }

    fn note(&self) -> String {
        match self.operator.price {
            Some(_) => format!("${:.4}", self.spent_usd),
            None => String::new(),
        }
    }
}

/// Keeps a step within its budget: money is reserved before a request is sent and settled when its answer tells
/// what it cost. Estimates of tokens may be wrong by a factor, so under a limit the first request is sent alone,
/// and each later one is taken to cost as much as the dearest one so far, in dollars and as a multiple of its estimate.
struct Purse {
    limit_usd: Option<f64>,
    settled_usd: f64,
    /// By number of a request under way: its estimate.
    under_way: HashMap<usize, f64>,
    /// The most that a request has cost, and the most as a multiple of its estimate; none before the first.
    dearest: Option<(f64, f64)>,
}

impl Purse {
    fn new(limit_usd: Option<f64>) -> Purse {
        Purse { limit_usd, settled_usd: 0.0, under_way: HashMap::new(), dearest: None }
    }

    fn may_cost(&self, estimate_usd: f64) -> f64 {
        self.dearest.map_or(estimate_usd, |(usd, multiple)| usd.max(estimate_usd * multiple))
    }

    /// Whether a request may be sent now.
    fn admits(&self, estimate_usd: f64) -> bool {
        let Some(limit_usd) = self.limit_usd else { return true };
        if self.dearest.is_none() && !self.under_way.is_empty() {
            return false;
        }
        let reserved_usd: f64 = self.under_way.values().map(|estimate| self.may_cost(*estimate)).sum();
        // Room for the rounding of sums.
        self.settled_usd + reserved_usd + self.may_cost(estimate_usd) <= limit_usd * (1.0 + 1e-9)
    }

    fn reserve(&mut self, number: usize, estimate_usd: f64) {
        self.under_way.insert(number, estimate_usd);
    }

    /// Takes the true cost in place of what was reserved; where it is not known, the estimate.
    fn settle(&mut self, number: usize, usd: Option<f64>) {
        let estimate_usd = self.under_way.remove(&number).unwrap_or(0.0);
        let usd = usd.unwrap_or(self.may_cost(estimate_usd));
        self.settled_usd += usd;
        if usd > 0.0 || estimate_usd == 0.0 {
            let multiple = if estimate_usd > 0.0 { usd / estimate_usd } else { 0.0 };
            let (most_usd, most_multiple) = self.dearest.unwrap_or((0.0, 0.0));
            self.dearest = Some((most_usd.max(usd), most_multiple.max(multiple)));
        }
    }

    /// Why a request is not sent.
    fn reason(&self, estimate_usd: f64) -> String {
        format!(
            "${:.6} of the budget of ${:.6} is spent, and the next request may cost ${:.6}",
            self.settled_usd,
            self.limit_usd.unwrap_or(f64::INFINITY),
            self.may_cost(estimate_usd)
        )
    }
}

fn row_error(failure: &Failure) -> RowError {
    let kind = serde_json::to_value(failure.kind).ok();
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or("failed").to_owned();
    RowError {
        kind,
        message: failure.message.clone(),
        attempts: failure.attempts,
        retryable: failure.retryable,
    }
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
