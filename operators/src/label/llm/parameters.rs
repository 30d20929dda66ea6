//! The parameters that operators which ask a language model share.

use anyhow::Context;
use argent_decoder::Device;
use argent_engine::{Io, Problem};
use argent_llm::{ApiKey, Client, Dialect, Egress, Endpoint, Price, Rate, RetryPolicy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The server and the model, or a model in process.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointParameters {
    /// The dialect that the server speaks, or `local` for a model in process.
    #[serde(default)]
    pub kind: EndpointKind,
    /// The address of the API, such as `http://127.0.0.1:8000/v1`; of Ollama's own dialect without `/v1`. A model in
    /// process has none.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = "the same model answers the same anywhere"))]
    pub base_url: Option<String>,
    /// The model's name; of a model in process its folder, relative to the spec, or its name in the hub cache, such as
    /// `Qwen/Qwen3-4B` or `Qwen/Qwen3-4B@<revision>`. Nothing is downloaded.
    pub model: String,
    /// Where a model in process computes.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = "where is not what"))]
    pub device: DeviceParameter,
    /// The key, by the name of the environment variable that holds it.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = "a secret"))]
    pub api_key: Option<Secret>,
    /// What tells apart models of the same name, such as a digest of their weights.
    #[serde(default)]
    pub identity: Option<String>,
    /// How decisions are asked for.
    #[serde(default)]
    pub questions: QuestionKind,
    /// The model's context window in tokens: Ollama is told to use it, and a prompt that is surely longer is not sent.
    #[serde(default)]
    #[schemars(
        range(min = 1),
        extend("x-not-in-key" = "a window decides whether a prompt is read, not what it says")
    )]
    pub context_tokens: Option<u32>,
    /// What the account may send in a minute; left out, as much as the server takes.
    #[serde(default)]
    #[schemars(extend("x-not-in-key" = "how fast is not what"))]
    pub rate: RateParameters,
}

/// The dialect of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointKind {
    /// OpenAI's chat completions, as vLLM, SGLang, llama.cpp and others speak it too.
    #[default]
    OpenaiChat,
    /// OpenAI's decisions, as vLLM and SGLang serve them too: probabilities in place of text.
    OpenaiDecisions,
    /// Anthropic's messages.
    AnthropicMessages,
    /// Ollama's own chat, which refuses a prompt that does not fit where its OpenAI-compatible one cuts it.
    OllamaChat,
    /// No server: the model is read into this process, and its probabilities of the answers are read off in one pass.
    Local,
}

/// Where a model in process computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceParameter {
    /// The processor, in f32.
    #[default]
    Cpu,
    /// The GPU that the step has to itself by `needs: { gpu: 1 }`, in bf16.
    Cuda,
}

/// How decisions are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuestionKind {
    /// Which of the four states a report says.
    #[default]
    Choice,
    /// Whether the finding is there: `present` or `absent`, one probability.
    Predicate,
}

/// What an account may send in a minute.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateParameters {
    /// Requests.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub requests_per_minute: Option<f64>,
    /// Tokens of prompts and answers together.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub tokens_per_minute: Option<f64>,
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

/// How requests are handed to the provider in batches.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchParameters {
    /// The longest time between two looks at a batch, in seconds.
    #[serde(default = "poll_seconds")]
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 3600))]
    pub poll_seconds: f64,
}

fn poll_seconds() -> f64 {
    60.0
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

impl PriceParameters {
    pub(crate) fn kernel(&self) -> Price {
        Price { input: self.input, cached: self.cached.unwrap_or(self.input), output: self.output }
    }
}

impl EndpointParameters {
    pub(super) fn dialect(&self) -> Dialect {
        match self.kind {
            EndpointKind::OpenaiChat => Dialect::OpenaiChat,
            EndpointKind::OpenaiDecisions => Dialect::OpenaiDecisions,
            EndpointKind::AnthropicMessages => Dialect::AnthropicMessages,
            EndpointKind::OllamaChat => Dialect::OllamaChat,
            EndpointKind::Local => Dialect::Local,
        }
    }

    /// Whether the model is in process.
    pub(super) fn is_local(&self) -> bool {
        self.kind == EndpointKind::Local
    }

    /// Whether answers are probabilities, and no text is written.
    pub(super) fn decides(&self) -> bool {
        matches!(self.kind, EndpointKind::OpenaiDecisions | EndpointKind::Local)
    }

    /// Whether answers give a probability for each state.
    pub(super) fn gives_probabilities(&self) -> bool {
        self.decides() && self.questions == QuestionKind::Choice
    }

    /// What tells endpoints apart: the server's address, or the model in process, which two steps at a time would hold
    /// twice.
    pub(crate) fn place(&self) -> &str {
        self.base_url.as_deref().unwrap_or(&self.model)
    }

    /// Where the model in process computes.
    ///
    /// # Errors
    /// When it is to compute on a GPU and the step has none.
    pub(super) fn device(&self, io: &Io) -> anyhow::Result<Device> {
        match self.device {
            DeviceParameter::Cpu => Ok(Device::Cpu),
            DeviceParameter::Cuda => {
                let gpu = io.gpus().first().context(
                    "the model is to compute on a GPU and the step has none to itself; add `needs: { gpu: 1 }`",
                )?;
                Ok(Device::Cuda(*gpu))
            }
        }
    }

    /// A client of the endpoint, with its key.
    ///
    /// # Errors
    /// Where the key's variable is not set, and those of [`Client::new`].
    pub(super) fn client(&self, egress: EgressParameter, policy: RetryPolicy) -> anyhow::Result<Client> {
        let api_key = match &self.api_key {
            Some(secret) => {
                let value = std::env::var(&secret.env);
                let value = value
                    .map_err(|_| anyhow::anyhow!("the environment variable {} is not set", secret.env))?;
                Some(ApiKey::new(value))
            }
            None => None,
        };
        let RateParameters { requests_per_minute, tokens_per_minute } = self.rate;
        let endpoint = Endpoint {
            dialect: self.dialect(),
            base_url: self.base_url.clone().context("the endpoint has no `base_url`")?,
            model: self.model.clone(),
            api_key,
            context_tokens: self.context_tokens,
            rate: Rate { requests_per_minute, tokens_per_minute },
        };
        let egress = match egress {
            EgressParameter::Private => Egress::PrivateOnly,
            EgressParameter::Allow => Egress::Allow,
        };
        Ok(Client::with_policy(endpoint, egress, policy)?)
    }

    /// Parameters that go together with another dialect only.
    pub(super) fn problems(&self) -> Vec<Problem> {
        if self.is_local() {
            return self.problems_in_process();
        }
        let mut problems = Vec::new();
        if self.base_url.is_none() {
            let message = "the endpoint has no `base_url`";
            let help = "add the address of a server, such as `base_url: http://127.0.0.1:8000/v1`, or say `kind: local` \
                        for a model in process";
            problems.push(Problem::at(["with", "endpoint", "base_url"], message).help(help));
        }
        if self.device != DeviceParameter::Cpu {
            let message = "`device` is for a model in process; a server has its own";
            let help = "take it away, or say `kind: local`";
            problems.push(Problem::at(["with", "endpoint", "device"], message).help(help));
        }
        if self.questions == QuestionKind::Predicate && self.kind != EndpointKind::OpenaiDecisions {
            let message = "`questions` is for decisions: a chat answers all findings with one JSON object";
            let help = "take it away, or say `kind: openai-decisions`";
            problems.push(Problem::at(["with", "endpoint", "questions"], message).help(help));
        }
        problems
    }

    /// Parameters that a model in process has no use for.
    fn problems_in_process(&self) -> Vec<Problem> {
        let RateParameters { requests_per_minute, tokens_per_minute } = self.rate;
        let given = [
            ("base_url", self.base_url.is_some(), "a model in process has no address"),
            ("api_key", self.api_key.is_some(), "a model in process takes no key"),
            (
                "rate",
                requests_per_minute.is_some() || tokens_per_minute.is_some(),
                "a model in process has no account",
            ),
            (
                "questions",
                self.questions == QuestionKind::Predicate,
                "a model in process is asked which state a report says, expected `choice`",
            ),
        ];
        let problem = |(name, _, message)| {
            let help = "take it away, or say which dialect the server speaks";
            Problem::at(["with", "endpoint", name], message).help(help)
        };
        given.into_iter().filter(|(_, is_given, _)| *is_given).map(problem).collect()
    }
}
