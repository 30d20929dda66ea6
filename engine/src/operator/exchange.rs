//! What a step asks a server about its rows, and what that takes: the words of `argent try`.

use serde::Serialize;

/// A question about a row, as it is sent, and what has come of it so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Exchange {
    /// The question's key, which rows with an equal question share.
    #[serde(skip)]
    pub question: String,
    /// The messages of the request, in order.
    pub messages: Vec<Said>,
    /// The tokens of the request, estimated.
    #[serde(skip)]
    pub estimated_tokens_in: u64,
    /// The tokens of the longest answer, estimated.
    #[serde(skip)]
    pub estimated_tokens_out: u64,
    /// How often it was asked with an outcome that is kept.
    #[serde(skip)]
    pub tries: u32,
    /// What was answered; none while there is no answer.
    pub answer: Option<Reply>,
    /// Why there is no answer, or the answer is of no use.
    pub problem: Option<String>,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Said {
    /// Who says it: `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub text: String,
}

/// An answer, as it came.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reply {
    /// The raw text.
    pub text: String,
    /// The model that the server says answered.
    pub model: String,
    /// Prompt tokens, cached ones included; none where the server does not say, as below.
    pub tokens_in: Option<u64>,
    /// Prompt tokens that the server had cached.
    pub tokens_cached: Option<u64>,
    /// Tokens generated.
    pub tokens_out: Option<u64>,
    /// What it cost in US dollars; none where the price is not known.
    pub usd: Option<f64>,
}

/// What rows that were not tried will take, by what the tried ones took.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Projection {
    /// Distinct requests that are still to be sent.
    pub requests: u64,
    /// Input tokens; none where nothing was measured, as below.
    pub tokens_in: Option<u64>,
    /// Output tokens.
    pub tokens_out: Option<u64>,
    /// US dollars; none where the price is not known.
    pub usd: Option<f64>,
    /// The lower bound of its 95% prediction interval; none where fewer than two different measurements speak for it.
    pub usd_low: Option<f64>,
    /// The upper bound.
    pub usd_high: Option<f64>,
}
