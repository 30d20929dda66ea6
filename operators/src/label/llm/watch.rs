//! Signs that an endpoint does otherwise than it says, and what a probe then finds.

use std::collections::BTreeMap;

use argent_llm::{Client, Decoding, Failure, FailureKind, Request, Usage, Window};
use tokio::runtime::Handle;

/// Prompts below so many bytes fit every window that servers start with.
const LONG_BYTES: u64 = 4000;

/// No tokenizer puts more bytes of a report into a token; a prompt that seems denser was cut.
pub(super) const DENSEST_BYTES_PER_TOKEN: u64 = 8;

/// Watches the answers of a run. A probe is sent only where something is suspicious: most runs send none.
#[derive(Default)]
pub(super) struct Watch {
    /// By count of tokens of a long prompt: the fewest and the most bytes that had it.
    counted: BTreeMap<u64, (u64, u64)>,
    /// What a prompt of so many bytes became, for the longest one that was probed.
    window: Option<(u64, Window)>,
    /// Whether the schema has been probed.
    schema_probed: bool,
}

/// What a probe found.
pub(super) struct Found {
    /// What it took, to be paid.
    pub(super) usage: Option<Usage>,
    /// Why an answer does not count.
    pub(super) failure: Option<Failure>,
    /// What the user should know.
    pub(super) warning: Option<String>,
}

impl Watch {
    /// Looks at the count of an answer, and where it is suspicious, how the endpoint counts a prompt of that length.
    /// Counts are suspicious where a prompt has fewer tokens than any tokenizer makes of it, or as many as a prompt of
    /// another length: servers that cut prompts do it at one length.
    pub(super) fn answered(
        &mut self,
        client: &Client,
        runtime: &Handle,
        request: &Request,
        usage: Option<Usage>,
    ) -> Option<Found> {
        let (bytes, tokens) = (request.bytes_in(), usage?.tokens_in);
        if bytes < LONG_BYTES || !self.is_suspicious(bytes, tokens) {
            return None;
        }
        let mut found = Found { usage: None, failure: None, warning: None };
        if self.window.is_none_or(|(probed, _)| bytes > probed) {
            // A probe that fails tells nothing; the next suspicious answer does not ask again.
            self.window = Some((bytes, Window::Uncounted));
            if let Ok(probe) = client.probe_window(runtime, bytes, &decoding(request)) {
                self.window = Some((bytes, probe.window));
                found.usage = Some(probe.usage);
                found.warning = cut_warning(probe.window);
            }
        }
        if let Some((_, Window::Cuts(window))) = self.window {
            let message = format!(
                "the endpoint read {tokens} tokens of a prompt of {bytes} bytes: it cuts prompts at about {window} \
                 tokens; give the model a longer context window"
            );
            let kind = FailureKind::TruncatedInput;
            found.failure = Some(Failure { attempts: 1, usage, ..Failure::new(kind, message) });
        }
        Some(found)
    }

    fn is_suspicious(&mut self, bytes: u64, tokens: u64) -> bool {
        let (least, most) = self.counted.entry(tokens).or_insert((bytes, bytes));
        (*least, *most) = ((*least).min(bytes), (*most).max(bytes));
        // Texts that differ by a twentieth in length may by chance have equal counts.
        let repeats = *most > *least + *least / 20;
        repeats || bytes > DENSEST_BYTES_PER_TOKEN * tokens
    }

    /// Looks into a malformed answer, once: whether the endpoint holds answers to their schema at all.
    pub(super) fn malformed(
        &mut self,
        client: &Client,
        runtime: &Handle,
        request: &Request,
    ) -> Option<Found> {
        if std::mem::replace(&mut self.schema_probed, true) || request.schema().is_none() {
            return None;
        }
        // A probe that fails tells nothing, and the answer is malformed all the same.
        let probe = client.probe_schema(runtime, &decoding(request)).ok()?;
        let warning = (!probe.enforced).then(|| {
            "the endpoint takes a schema and does not hold answers to it; each answer is checked, and malformed ones \
             are asked for again"
                .to_owned()
        });
        Some(Found { usage: probe.usage, failure: None, warning })
    }
}

fn decoding(request: &Request) -> Decoding {
    request.decoding.clone()
}

fn cut_warning(window: Window) -> Option<String> {
    match window {
        Window::Cuts(tokens) => Some(format!(
            "the endpoint cuts prompts at about {tokens} tokens and answers all the same; such answers do not count"
        )),
        Window::Uncounted => Some(
            "the endpoint's counts of tokens do not grow with the prompt, so that a cut prompt would not be noticed"
                .to_owned(),
        ),
        Window::Reads(_) | Window::Refuses => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_suspicious_where_it_is_too_small_or_stays_the_same() {
        let mut watch = Watch::default();
        assert!(!watch.is_suspicious(8000, 2000));
        assert!(!watch.is_suspicious(8100, 2000));
        assert!(!watch.is_suspicious(9000, 2200));
        assert!(watch.is_suspicious(8000, 900));
        assert!(watch.is_suspicious(9000, 2000));
        assert!(watch.is_suspicious(12_000, 2000));
    }
}
