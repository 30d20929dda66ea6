//! The parameters that operators which ask a language model share.

use argent_engine::Problem;
use argent_llm::{ApiKey, Client, Dialect, Egress, Endpoint, Price, Rate, RetryPolicy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The server and the model.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointParameters {
    /// The dialect that the server speaks.
    #[serde(default)]
    pub kind: EndpointKind,
    /// The address of the API, such as `http://127.0.0.1:8000/v1`; of Ollama's own dialect without `/v1`.
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
        }
    }

    /// Whether answers give a probability for each state.
    pub(super) fn gives_probabilities(&self) -> bool {
        self.kind == EndpointKind::OpenaiDecisions && self.questions == QuestionKind::Choice
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
            base_url: self.base_url.clone(),
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
        let mut problems = Vec::new();
        if self.questions == QuestionKind::Predicate && self.kind != EndpointKind::OpenaiDecisions {
            let message = "`questions` is for decisions: a chat answers all findings with one JSON object";
            let help = "take it away, or say `kind: openai-decisions`";
            problems.push(Problem::at(["with", "endpoint", "questions"], message).help(help));
        }
        problems
    }
}
