//! What an endpoint does beyond what it says: whether it holds answers to their schema, and how much of a prompt it
//! reads. Probes carry no text but their own.

use std::ops::ControlFlow;

use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::answer::{Answer, Usage};
use crate::client::Client;
use crate::failure::{Failure, FailureKind};
use crate::request::{AnswerForm, Decoding, Message, Request, Role};

/// What the probe of the schema may answer, and what no model says that is asked for a colour.
const WORDS: [&str; 2] = ["kestrel", "linnet"];

/// Whether an endpoint holds answers to their schema. Several servers take a schema, answer 200 and ignore it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaProbe {
    /// Whether the answer was of the schema, against what the prompt asked for.
    pub enforced: bool,
    /// What the probe took, where the endpoint counts it.
    pub usage: Option<Usage>,
}

/// How much of a prompt an endpoint reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowProbe {
    /// What it did with a prompt of the length asked about.
    pub window: Window,
    /// What the probe took, as far as the endpoint counts it.
    pub usage: Usage,
}

/// What an endpoint does with a long prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// It reads all of it, so many tokens.
    Reads(u64),
    /// It reads so many tokens of it, and answers as if that were all.
    Cuts(u64),
    /// It refuses it, which is what it should do with a prompt that does not fit.
    Refuses,
    /// Its counts do not grow with the prompt, so that nothing can be told.
    Uncounted,
}

impl Client {
    /// Asks for something that the schema does not allow. `decoding` is what later requests will have.
    ///
    /// Blocks the calling thread, which must not be one of `runtime`.
    ///
    /// # Errors
    /// Why there is no answer that could tell.
    pub fn probe_schema(&self, runtime: &Handle, decoding: &Decoding) -> Result<SchemaProbe, Failure> {
        let prompt = "Of which colour is a clear sky? Answer with the name of the colour.";
        match self.ask_one(runtime, self.probe(prompt.into(), decoding)) {
            Ok(answer) => Ok(SchemaProbe { enforced: says_a_word(&answer.text), usage: answer.usage }),
            // Talk without end is none of the words either.
            Err(Failure { kind: FailureKind::Truncated, usage, .. }) => {
                Ok(SchemaProbe { enforced: false, usage })
            }
            Err(failure) => Err(failure),
        }
    }

    /// Sends prompts of growing length up to `bytes` and compares the endpoint's counts of their tokens. `decoding` is
    /// what later requests will have.
    ///
    /// Blocks the calling thread, which must not be one of `runtime`.
    ///
    /// # Errors
    /// Why there is no answer that could tell.
    pub fn probe_window(
        &self,
        runtime: &Handle,
        bytes: u64,
        decoding: &Decoding,
    ) -> Result<WindowProbe, Failure> {
        let mut taken = Usage::default();
        let mut counted = |bytes: u64| {
            let prompt = filler(bytes);
            let length = prompt.len() as f64;
            let usage = match self.ask_one(runtime, self.probe(prompt, decoding)) {
                Ok(answer) => answer.usage,
                // How the answer ended does not matter here.
                Err(Failure { usage: Some(usage), .. }) => Some(usage),
                Err(failure) => return Err(failure),
            };
            if let Some(usage) = usage {
                taken.tokens_in += usage.tokens_in;
                taken.tokens_cached += usage.tokens_cached;
                taken.tokens_out += usage.tokens_out;
            }
            Ok(usage.map(|usage| (length, usage.tokens_in as f64)))
        };
        let window = match (counted(0)?, counted(bytes / 8)?, counted(bytes)) {
            (Some(least), Some(short), Ok(Some(long))) => window(least, short, long),
            (_, _, Err(failure)) if failure.kind == FailureKind::ContextLength => Window::Refuses,
            (_, _, Err(failure)) => return Err(failure),
            _ => Window::Uncounted,
        };
        Ok(WindowProbe { window, usage: taken })
    }

    fn probe(&self, prompt: String, decoding: &Decoding) -> Request {
        let schema = json!({
            "type": "object",
            "properties": { "word": { "enum": WORDS } },
            "required": ["word"],
            "additionalProperties": false,
        });
        Request {
            dialect: self.dialect(),
            model: self.model().to_owned(),
            identity: None,
            messages: vec![Message { role: Role::User, content: prompt }],
            answer: AnswerForm::Json(schema),
            decoding: decoding.clone(),
            sample: 0,
        }
    }

    fn ask_one(&self, runtime: &Handle, request: Request) -> Result<Answer, Failure> {
        let mut outcome = Err(Failure::new(FailureKind::Stopped, "there was no outcome; run again"));
        self.ask_all(runtime, std::iter::once((0, request)), 1, &mut |_, arrived| {
            outcome = arrived;
            ControlFlow::Continue(())
        });
        outcome
    }
}

/// Whether an answer is one of the words, as the schema has it.
fn says_a_word(text: &str) -> bool {
    let Ok(Value::Object(answer)) = serde_json::from_str(text.trim()) else { return false };
    answer.len() == 1 && WORDS.iter().any(|word| answer.get("word") == Some(&json!(word)))
}

/// A prompt of about so many bytes. Counts are compared between prompts of the same words only.
fn filler(bytes: u64) -> String {
    let mut prompt = "Name a small bird.\n".to_owned();
    while (prompt.len() as u64) < bytes {
        prompt.push_str("The lungs are clear and the heart is not enlarged; there is no effusion.\n");
    }
    prompt
}

/// Compares (bytes, tokens) of three prompts: what the shortest takes is what every prompt takes, and from there on
/// equal words take equal tokens. A tenth is left for how words fall together.
fn window(least: (f64, f64), short: (f64, f64), long: (f64, f64)) -> Window {
    let tokens_per_byte = (short.1 - least.1) / (short.0 - least.0);
    // No tokenizer needs more than a token for a byte, and none puts twenty bytes of prose into each.
    if !(0.05..=1.0).contains(&tokens_per_byte) {
        return Window::Uncounted;
    }
    let expected = least.1 + tokens_per_byte * (long.0 - least.0);
    if long.1 < 0.9 * expected { Window::Cuts(long.1 as u64) } else { Window::Reads(long.1 as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_the_schema_is_one() {
        assert!(says_a_word(" {\"word\": \"linnet\"}\n"));
        assert!(!says_a_word("{\"word\": \"blue\"}"));
        assert!(!says_a_word("{\"word\": \"linnet\", \"why\": \"it sings\"}"));
        assert!(!says_a_word("Blue."));
    }

    #[test]
    fn a_window_is_told_from_counts_that_stop_growing() {
        assert_eq!(window((20.0, 60.0), (1000.0, 300.0), (8000.0, 2010.0)), Window::Reads(2010));
        assert_eq!(window((20.0, 60.0), (1000.0, 300.0), (8000.0, 1024.0)), Window::Cuts(1024));
        assert_eq!(window((20.0, 60.0), (1000.0, 60.0), (8000.0, 60.0)), Window::Uncounted);
        assert_eq!(window((20.0, 60.0), (1000.0, 62.0), (8000.0, 70.0)), Window::Uncounted);
    }
}
