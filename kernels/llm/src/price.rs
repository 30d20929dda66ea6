//! What an answer costs, before and after.

use serde::{Deserialize, Serialize};

use crate::answer::Usage;

/// Prices of one model in USD per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Tokens of the prompt that were not cached.
    pub input: f64,
    /// Tokens of the prompt that were cached.
    pub cached: f64,
    /// Tokens of the answer.
    pub output: f64,
}

impl Price {
    /// The cost in USD.
    pub fn cost(&self, usage: &Usage) -> f64 {
        let fresh = usage.tokens_in.saturating_sub(usage.tokens_cached);
        let cached = usage.tokens_in - fresh;
        (fresh as f64 * self.input + cached as f64 * self.cached + usage.tokens_out as f64 * self.output)
            / 1e6
    }
}

/// An estimate of the tokens of a text, for planning only: one per four bytes of UTF-8, rounded up.
///
/// Four characters per token is OpenAI's rule of thumb for common English. The true count depends on the model's
/// tokenizer, and rare words, numbers, JSON and other languages take more tokens per byte, so that the estimate
/// tends to be low for reports. Settle accounts by [`Usage`], never by this.
pub fn estimate_tokens(text: &str) -> u64 {
    estimate_tokens_of(text.len() as u64)
}

/// As [`estimate_tokens`], of a text of so many bytes.
pub fn estimate_tokens_of(bytes: u64) -> u64 {
    bytes.div_ceil(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_tokens_have_their_own_price() {
        let price = Price { input: 0.05, cached: 0.005, output: 0.4 };
        let usage = Usage { tokens_in: 1_000_000, tokens_cached: 400_000, tokens_out: 250_000 };
        assert!((price.cost(&usage) - (0.03 + 0.002 + 0.1)).abs() < 1e-15);
    }

    #[test]
    fn a_token_is_about_four_bytes() {
        assert_eq!(estimate_tokens(""), 0);
        assert_eq!(estimate_tokens("a"), 1);
        assert_eq!(estimate_tokens("no pleural effusion"), 5);
    }
}
