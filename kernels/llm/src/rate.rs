//! What an account may send in a minute.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What an account may send in a minute; what is `None` is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Requests.
    pub requests_per_minute: Option<f64>,
    /// Tokens of prompts and answers together.
    pub tokens_per_minute: Option<f64>,
}

/// Spaces requests evenly below a [`Rate`]: providers judge a limit per minute over windows of seconds, so that a
/// minute's worth at once is refused. This is the generic cell rate algorithm (ITU-T I.371) without a burst.
pub(crate) struct Limits {
    rate: Rate,
    /// From when on the next request, and the next tokens, may be sent.
    free_from: Mutex<FreeFrom>,
}

struct FreeFrom {
    requests: Instant,
    tokens: Instant,
}

impl Limits {
    pub(crate) fn new(rate: Rate) -> Self {
        let now = Instant::now();
        Self { rate, free_from: Mutex::new(FreeFrom { requests: now, tokens: now }) }
    }

    /// Takes the next place in the row for a request of about `tokens`, and waits for it.
    pub(crate) async fn place(&self, tokens: u64) {
        if self.rate == Rate::default() {
            return;
        }
        sleep_until(self.take(Instant::now(), tokens)).await;
    }

    fn take(&self, now: Instant, tokens: u64) -> Instant {
        let mut free = self.free_from.lock().unwrap_or_else(PoisonError::into_inner);
        let start = now.max(free.requests).max(free.tokens);
        if let Some(rate) = self.rate.requests_per_minute {
            free.requests = start + minutes(1.0 / rate);
        }
        if let Some(rate) = self.rate.tokens_per_minute {
            free.tokens = start + minutes(tokens as f64 / rate);
        }
        start
    }

    /// Corrects a place that was taken for `estimated` tokens by the true count.
    pub(crate) fn settle(&self, estimated: u64, counted: u64) {
        let Some(rate) = self.rate.tokens_per_minute else { return };
        let mut free = self.free_from.lock().unwrap_or_else(PoisonError::into_inner);
        let difference = minutes(estimated.abs_diff(counted) as f64 / rate);
        free.tokens = if counted > estimated {
            free.tokens + difference
        } else {
            // A place in the past is as free as one now.
            free.tokens.checked_sub(difference).unwrap_or(free.tokens)
        };
    }
}

fn minutes(count: f64) -> Duration {
    // A rate of nearly nothing is a wait that no run outlasts.
    Duration::try_from_secs_f64(count * 60.0).unwrap_or(Duration::from_secs(365 * 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(requests_per_minute: Option<f64>, tokens_per_minute: Option<f64>) -> Limits {
        Limits::new(Rate { requests_per_minute, tokens_per_minute })
    }

    fn waits(limits: &Limits, tokens: &[u64]) -> Vec<f64> {
        let now = Instant::now();
        tokens.iter().map(|tokens| (limits.take(now, *tokens) - now).as_secs_f64()).collect()
    }

    #[test]
    fn requests_are_spaced_evenly() {
        assert_eq!(waits(&limits(Some(120.0), None), &[9; 4]), [0.0, 0.5, 1.0, 1.5]);
    }

    #[test]
    fn the_narrower_of_two_limits_decides() {
        let limits = limits(Some(600.0), Some(6000.0));
        assert_eq!(waits(&limits, &[100, 1, 1, 1]), [0.0, 1.0, 1.1, 1.2]);
    }

    #[test]
    fn a_true_count_moves_the_next_request() {
        let limits = limits(None, Some(6000.0));
        let now = Instant::now();
        limits.take(now, 100);
        limits.settle(100, 300);
        assert_eq!((limits.take(now, 100) - now).as_secs_f64(), 3.0);
        limits.settle(100, 0);
        assert_eq!((limits.take(now, 100) - now).as_secs_f64(), 3.0);
    }
}
