//! Endpoints of language models that answer by a schema or by probabilities: requests, answers, retries, cost.
//!
//! ```text
//! Request -> Client::ask_all -> Answer -> parse_answer -> {finding: state}
//!    |             |               '-> Usage -> Price::cost -> USD
//!    |             '-> Failure      what went wrong, whether to try again, whether to go on
//!    '-> Request::canonical         what decides the answer, and so names it
//! ```
//!
//! A [`Dialect`] words requests and reads answers; all else is the same for all of them.
//! Three rules hold everywhere. An answer is never made up: what cannot be read is a [`Failure`]. No message of
//! this crate shows text of a prompt or of an answer. Nothing leaves for a public address unless
//! [`Egress::Allow`] says so.

mod answer;
mod backoff;
mod client;
mod dialect;
mod egress;
mod endpoint;
mod failure;
mod labels;
mod models;
mod outcome;
mod pace;
mod price;
mod probe;
mod provider_batch;
mod rate;
mod request;
mod retry_after;
mod schema;
mod transport;

pub use answer::{Answer, Finish, Usage};
pub use backoff::RetryPolicy;
pub use client::{Client, Ending};
pub use dialect::Dialect;
pub use egress::Egress;
pub use endpoint::{ApiKey, Endpoint, EndpointError};
pub use failure::{Failure, FailureKind};
pub use labels::{AnswerError, Asked, Label, Probabilities, parse_answer, parse_decisions};
pub use price::{Price, estimate_tokens, estimate_tokens_of};
pub use probe::{SchemaProbe, Window, WindowProbe};
pub use provider_batch::{BATCH_MAX_BYTES, BATCH_MAX_REQUESTS, BatchAnswers, BatchState};
pub use rate::Rate;
pub use request::{AnswerForm, Decoding, Message, Options, Question, Request, Role};
pub use schema::Schema;
