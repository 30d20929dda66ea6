//! What can go wrong with a request, and what to do then.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::answer::Usage;

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// What happened and what to do, without text of the prompt or of the answer.
    pub message: String,
    /// How often the request was sent.
    pub attempts: u32,
    /// Whether the same request may be answered later. A request that is refused, filtered or cut short will be
    /// so again.
    pub retryable: bool,
    /// Whether every other request would fail alike, so that the step should stop and leave its rows pending.
    pub fatal: bool,
    /// Tokens that were paid for nonetheless, where the server says.
    pub usage: Option<Usage>,
}

/// What went wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Nothing listens at the endpoint's address.
    ConnectionRefused,
    /// The server's certificate was not accepted, or the other side does not speak TLS.
    Tls,
    /// 401 or 403: the key is missing, wrong, or not allowed.
    Unauthorised,
    /// 404: the endpoint has no such path or no such model.
    NotFound,
    /// The endpoint answers with a redirect, which is not followed.
    Redirect,
    /// The account has no money or quota left.
    Quota,
    /// 429: too many requests or tokens at once.
    RateLimited,
    /// 5xx, or an error of the server in a response of status 200.
    ServerError,
    /// The connection broke.
    Network,
    /// No complete response in time.
    Timeout,
    /// A response of status 200 that is no chat completion.
    Malformed,
    /// The model refused.
    Refusal,
    /// A filter of the provider stopped the prompt or the answer.
    ContentFilter,
    /// The answer reached the most tokens allowed.
    Truncated,
    /// The server read a part of the prompt only, and answered all the same.
    TruncatedInput,
    /// The answer has no text.
    Empty,
    /// The prompt is longer than the model can read.
    ContextLength,
    /// The server does not accept the request (another 4xx).
    BadRequest,
    /// The request was not sent, because sending was stopped first.
    Stopped,
}

impl FailureKind {
    /// Whether the client sends the same request again by itself.
    pub(crate) fn is_worth_another_attempt(self) -> bool {
        matches!(
            self,
            Self::RateLimited | Self::ServerError | Self::Network | Self::Timeout | Self::Malformed
        )
    }

    /// Whether every other request would fail alike.
    fn is_fatal(self) -> bool {
        matches!(
            self,
            Self::ConnectionRefused
                | Self::Tls
                | Self::Unauthorised
                | Self::NotFound
                | Self::Redirect
                | Self::Quota
        )
    }
}

impl Failure {
    /// A failure whose consequences follow from its kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let fatal = kind.is_fatal();
        let retryable = fatal || kind.is_worth_another_attempt() || kind == FailureKind::Stopped;
        Self { kind, message: message.into(), attempts: 0, retryable, fatal, usage: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.attempts > 1 { write!(f, " (after {} attempts)", self.attempts) } else { Ok(()) }
    }
}

impl std::error::Error for Failure {}
