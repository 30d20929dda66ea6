//! Chat endpoints that answer by a schema: requests, answers, retries, cost.
//!
//! ```text
//! Request -> Client::ask_all -> Answer -> parse_answer -> {finding: state}
//!    |             |               '-> Usage -> Price::cost -> USD
//!    |             '-> Failure      what went wrong, whether to try again, whether to go on
//!    '-> Request::canonical         what decides the answer, and so names it
//! ```
//!
//! The dialect is that of OpenAI's chat completions, which vLLM, SGLang, llama.cpp, Ollama and others speak too.
//! Three rules hold everywhere. An answer is never made up: what cannot be read is a [`Failure`]. No message of
//! this crate shows text of a prompt or of an answer. Nothing leaves for a public address unless
//! [`Egress::Allow`] says so.

mod answer;
mod backoff;
mod client;
mod egress;
mod endpoint;
mod failure;
mod labels;
mod models;
mod outcome;
mod pace;
mod price;
mod request;
mod retry_after;
mod transport;

pub use answer::{Answer, Finish, Usage};
pub use backoff::RetryPolicy;
pub use client::{Client, Ending};
pub use egress::Egress;
pub use endpoint::{ApiKey, Endpoint, EndpointError};
pub use failure::{Failure, FailureKind};
pub use labels::{AnswerError, parse_answer};
pub use price::{Price, estimate_tokens};
pub use request::{Decoding, Message, Request, Role};
