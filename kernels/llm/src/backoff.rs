//! When to send again.

use std::time::Duration;

use rand::Rng;

/// How patient a client is with its endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Most times that one request is sent.
    pub max_attempts: u32,
    /// Longest wait before the second attempt, in seconds; it doubles with each further one.
    pub first_wait_seconds: f64,
    /// Longest wait before any attempt, in seconds, unless the server asks for more.
    pub max_wait_seconds: f64,
    /// Longest wait that a server may ask for, in seconds; more than that stops the step.
    pub max_asked_wait_seconds: f64,
    /// Longest time for one attempt from connecting to the end of the answer, in seconds.
    pub timeout_seconds: f64,
}

impl Default for RetryPolicy {
    /// Six attempts over up to half a minute of waiting, five minutes of patience with a rate limit, and ten
    /// minutes for one answer: a loaded local server can take minutes to reach a queued request.
    fn default() -> Self {
        Self {
            max_attempts: 6,
            first_wait_seconds: 1.0,
            max_wait_seconds: 30.0,
            max_asked_wait_seconds: 300.0,
            timeout_seconds: 600.0,
        }
    }
}

impl RetryPolicy {
    /// The wait after `attempts` attempts: "full jitter", uniform from 0 to the exponential bound, which spreads
    /// clients that failed together (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog 2015).
    pub(crate) fn wait(&self, attempts: u32) -> Duration {
        Duration::from_secs_f64(self.longest_wait_seconds(attempts) * rand::rng().random::<f64>())
    }

    /// The longest wait that a server may ask for.
    pub(crate) fn longest_asked_wait(&self) -> Duration {
        Duration::try_from_secs_f64(self.max_asked_wait_seconds).unwrap_or(Duration::MAX)
    }

    fn longest_wait_seconds(&self, attempts: u32) -> f64 {
        let doublings = f64::from(attempts.saturating_sub(1));
        (self.first_wait_seconds * doublings.exp2()).min(self.max_wait_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound_and_fill_it() {
        let policy = RetryPolicy::default();
        let bounds: Vec<f64> = (1..=7).map(|attempts| policy.longest_wait_seconds(attempts)).collect();
        assert_eq!(bounds, [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        let waits: Vec<f64> = (0..1000).map(|_| policy.wait(3).as_secs_f64()).collect();
        assert!(waits.iter().all(|wait| (0.0..4.0).contains(wait)));
        assert!(waits.iter().any(|&wait| wait < 0.4) && waits.iter().any(|&wait| wait > 3.6));
    }
}
