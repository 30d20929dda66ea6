//! The decoder from outside: small models with made weights, written to disk as Hugging Face lays them out, opened and
//! asked, against transformers and against a plain implementation.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod answers;
mod chat;
mod files;
mod golden;
mod reference;
mod refusals;
mod tiny;
