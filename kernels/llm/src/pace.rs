//! How much is sent at once: one limit and one pause, shared by all requests of a call.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Lets requests through as fast as the server takes them.
///
/// The limit starts at the concurrency asked for, halves when the server says that it is too much, and grows back
/// by one per limit's worth of answers: additive increase, multiplicative decrease, as TCP does (Chiu and Jain,
/// Computer Networks 17 (1989) 1–14). A wait that the server asks for holds back every request.
pub(crate) struct Pace {
    state: Mutex<State>,
    changed: Notify,
    most: f64,
}

struct State {
    limit: f64,
    in_flight: usize,
    not_before: Instant,
    /// Overloads before this time belong to requests that were sent under the previous limit.
    cut_again_after: Instant,
}

/// The right to send one request; gives it back when dropped.
pub(crate) struct Permit<'a>(&'a Pace);

impl Pace {
    pub(crate) fn new(concurrency: usize) -> Self {
        let now = Instant::now();
        let most = concurrency.max(1) as f64;
        let state = State { limit: most, in_flight: 0, not_before: now, cut_again_after: now };
        Self { state: Mutex::new(state), changed: Notify::new(), most }
    }

    /// Waits until a request may be sent.
    pub(crate) async fn permit(&self) -> Permit<'_> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before looking, so that no change between looking and waiting is missed.
            changed.as_mut().enable();
            let not_before = {
                let mut state = self.lock();
                let paused = Instant::now() < state.not_before;
                if !paused && (state.in_flight as f64) < state.limit.floor() {
                    state.in_flight += 1;
                    return Permit(self);
                }
                paused.then_some(state.not_before)
            };
            match not_before {
                Some(until) => sleep_until(until).await,
                None => changed.await,
            }
        }
    }

    /// The server answered: a little more may be in flight.
    pub(crate) fn answered(&self) {
        let mut state = self.lock();
        state.limit = (state.limit + 1.0 / state.limit).min(self.most);
        drop(state);
        self.changed.notify_waiters();
    }

    /// The server has too much to do: half as much in flight, and nothing sent for as long as it asks. One burst
    /// of such responses counts once.
    pub(crate) fn overloaded(&self, sent_at: Instant, asked_wait: Option<Duration>) {
        let now = Instant::now();
        let mut state = self.lock();
        if sent_at >= state.cut_again_after {
            state.limit = (state.limit / 2.0).max(1.0);
            state.cut_again_after = now;
        }
        drop(state);
        if let Some(wait) = asked_wait {
            self.pause(wait);
        }
    }

    /// Nothing is sent for so long.
    pub(crate) fn pause(&self, wait: Duration) {
        let mut state = self.lock();
        let until = Instant::now().checked_add(wait);
        state.not_before = until.map_or(state.not_before, |until| state.not_before.max(until));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid between any two statements, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(pace: &Pace) -> f64 {
        pace.lock().limit
    }

    #[tokio::test]
    async fn a_burst_of_overloads_halves_once_and_answers_grow_it_back() {
        let pace = Pace::new(8);
        let sent_at = Instant::now();
        for _ in 0..5 {
            pace.overloaded(sent_at, None);
        }
        assert_eq!(limit(&pace), 4.0);
        pace.overloaded(Instant::now(), None);
        assert_eq!(limit(&pace), 2.0);
        for _ in 0..100 {
            pace.answered();
        }
        assert_eq!(limit(&pace), 8.0);
    }

    #[tokio::test]
    async fn the_limit_holds_and_a_returned_permit_lets_the_next_one_through() {
        let pace = Pace::new(1);
        let permit = pace.permit().await;
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, pace.permit()).await.is_err());
        drop(permit);
        assert!(tokio::time::timeout(soon, pace.permit()).await.is_ok());
    }

    #[tokio::test]
    async fn a_pause_holds_back_every_request() {
        let pace = Pace::new(4);
        let start = Instant::now();
        pace.overloaded(start, Some(Duration::from_millis(50)));
        drop(pace.permit().await);
        assert!(start.elapsed() >= Duration::from_millis(50));
    }
}
