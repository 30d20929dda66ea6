//! What came back.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A model's complete answer to one request.
///
/// It serialises with the whole response body, so that what was paid for can be stored and parsed again later by
/// other rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The text of the answer, as it came, and of decisions the list of answers; never empty. [`crate::parse_answer`] and
    /// [`crate::parse_decisions`] read labels from it.
    pub text: String,
    /// What the answer took; `None` when the server does not say, which makes its cost unknown and not 0.
    pub usage: Option<Usage>,
    /// Why the model stopped; neither [`Finish::Length`] nor [`Finish::ContentFilter`], which are failures.
    pub finish: Finish,
    /// The model that the server says answered, empty when it does not say; often a dated version of what was
    /// asked for.
    pub model: String,
    /// The whole response body.
    pub raw: Value,
    /// How often the request was sent, this time included.
    pub attempts: u32,
    /// Seconds from sending the request that was answered to the end of the answer, waiting not included.
    pub seconds: f64,
}

/// Tokens that one answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub tokens_in: u64,
    /// Those of them that the server had cached; 0 when it does not say, which can only overstate the cost.
    pub tokens_cached: u64,
    /// Tokens of the answer, reasoning included.
    pub tokens_out: u64,
}

/// Why a model stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// It was done.
    Stop,
    /// It reached the most tokens allowed.
    Length,
    /// A filter of the provider stopped it.
    ContentFilter,
    /// The server does not say.
    Unstated,
    /// Something else, in the server's word.
    Other(String),
}
