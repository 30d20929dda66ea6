//! What a step asks a server about its rows, and what that takes: the words of `argent try`.

use serde::Serialize;

/// A request about a row, as it is sent, and what has come of it so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Exchange {
    /// The question that it is about, which rows with an equal question share. A question has more than one exchange where
    /// an answer had to be asked for again.
    #[serde(skip)]
    pub question: String,
    /// The call, as tables name it; none while nothing has come of it.
    pub call: Option<String>,
    /// The messages of the request, in order.
    pub messages: Vec<Said>,
    /// The input tokens of the question, estimated.
    #[serde(skip)]
    pub estimated_tokens_in: u64,
    /// The tokens of the longest answer to it, estimated.
    #[serde(skip)]
    pub estimated_tokens_out: u64,
    /// The raw answer; none where there is none.
    pub answer: Option<String>,
    /// The model that the server says answered.
    pub model: Option<String>,
    /// What it took; none where the server does not say.
    pub usage: Option<Usage>,
    /// Why there is no answer, or the answer is of no use.
    pub problem: Option<String>,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Said {
    /// Who says it: `system`, `user` or `assistant`; `questions` for what is asked apart from messages.
    pub role: String,
    /// The text.
    pub text: String,
}

/// What a request took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub tokens_in: u64,
    /// Prompt tokens that the server had cached.
    pub tokens_cached: u64,
    /// Tokens generated.
    pub tokens_out: u64,
    /// US dollars; none where the price is not known.
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
