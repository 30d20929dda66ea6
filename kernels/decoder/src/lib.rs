//! Language models in process: the probabilities of answers from one reading of a prompt.
//!
//! ```text
//! ModelFiles::find -> Model::open -> Model::sheet -> Sheet    the questions and the options of their answers
//!      |                  |                            |
//!      '-> identity       '-> Model::decide(prompts, sheet) -> Answer -> Decision per question
//! ```
//!
//! Nothing is generated. A prompt is read once, followed by a sheet of questions; where each question ends, the
//! model says how likely each option is as the next token. No question sees another one, so neither their order
//! nor their number changes an answer. What all prompts begin with is read once and kept.
//!
//! The models are decoders of the Llama family as Hugging Face stores them: `config.json`, `tokenizer.json`, a chat
//! template and safetensors. No message of this crate shows text of a prompt.

mod attention;
mod batches;
mod chat;
mod config;
mod error;
mod files;
mod layout;
mod model;
mod network;
mod outline;
mod prefix;
mod rope;
mod sheet;
mod tokens;
mod weights;

pub use chat::{Message, Role};
pub use error::{Error, TooLong};
pub use files::{ModelFiles, hub_cache};
pub use model::{Answer, Decision, Model};
pub use network::Device;
pub use outline::Outline;
pub use sheet::Sheet;
