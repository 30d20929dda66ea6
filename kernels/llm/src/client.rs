//! Asking many requests at once.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::answer::Answer;
use crate::backoff::RetryPolicy;
use crate::dialect::{Completion, Dialect, Habits};
use crate::egress::Egress;
use crate::endpoint::{Endpoint, EndpointError};
use crate::failure::{Failure, FailureKind};
use crate::models::read_models;
use crate::outcome::{read_response, told_habits};
use crate::pace::Pace;
use crate::price::estimate_tokens_of;
use crate::rate::Limits;
use crate::request::Request;
use crate::transport::{Response, Transport};

/// Asks one endpoint.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// How a call of [`Client::ask_all`] ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// Every request has its outcome.
    Finished,
    /// The caller stopped it.
    Stopped,
    /// A failure under which every other request would fail alike stopped it; its outcome was delivered too.
    Fatal(Failure),
}

impl Client {
    /// A client of `endpoint` with the default [`RetryPolicy`]. The host's name is resolved here, once; proxies
    /// named by the environment are not used and redirects not followed.
    ///
    /// # Errors
    /// An address that is none, a host without an address, an address that `egress` does not allow, and a system
    /// without certificates when `base_url` begins with https.
    pub fn new(endpoint: Endpoint, egress: Egress) -> Result<Self, EndpointError> {
        Self::with_policy(endpoint, egress, RetryPolicy::default())
    }

    /// As [`Client::new`], with another patience.
    ///
    /// # Errors
    /// Those of [`Client::new`].
    pub fn with_policy(
        endpoint: Endpoint,
        egress: Egress,
        policy: RetryPolicy,
    ) -> Result<Self, EndpointError> {
        let transport = Arc::new(Transport::new(&endpoint, egress, policy.timeout_seconds)?);
        let Endpoint { dialect, model, context_tokens, rate, .. } = endpoint;
        let limits = Limits::new(rate);
        let habits = Mutex::new(Habits { context_tokens, ..Habits::default() });
        Ok(Self { shared: Arc::new(Shared { transport, dialect, model, policy, limits, habits }) })
    }

    /// Asks every request, at most `concurrency` (at least 1) at once, and hands each outcome to `on_outcome` with
    /// the number that came with its request. Outcomes come in the order in which they are complete.
    ///
    /// `on_outcome` and the iterator run on the calling thread, which waits meanwhile and so must not be a thread
    /// of `runtime`. A request is taken from the iterator only when fewer than `concurrency` outcomes are
    /// outstanding, so what `on_outcome` has not yet consumed (made durable, charged to a budget) is never more
    /// than that, and an iterator that ends early sends nothing more.
    ///
    /// Each request is sent up to `max_attempts` times. After `ControlFlow::Break`, and after a fatal failure,
    /// nothing more is sent, not even again; requests at the server, which may be paid for, are waited for, and
    /// every outstanding outcome is still delivered. What `on_outcome` then returns no longer matters.
    pub fn ask_all(
        &self,
        runtime: &Handle,
        requests: impl Iterator<Item = (usize, Request)>,
        concurrency: usize,
        on_outcome: &mut dyn FnMut(usize, Result<Answer, Failure>) -> ControlFlow<()>,
    ) -> Ending {
        let (outcomes, arrived) = mpsc::channel();
        let (stop, stopped) = watch::channel(false);
        let call = Call { shared: self.shared.clone(), pace: Arc::new(Pace::new(concurrency)), stopped };
        let mut requests = requests.fuse();
        let mut outstanding = 0;
        let mut ending = Ending::Finished;
        loop {
            while outstanding < concurrency.max(1) && ending == Ending::Finished {
                let Some((number, request)) = requests.next() else { break };
                let delivery = Delivery { number, outcomes: outcomes.clone(), outcome: None };
                runtime.spawn(answer_into(delivery, call.clone(), request));
                outstanding += 1;
            }
            if outstanding == 0 {
                return ending;
            }
            let (number, outcome) = arrived.recv().expect("`outcomes` is still held here");
            outstanding -= 1;
            let fatal = outcome.as_ref().err().filter(|failure| failure.fatal).cloned();
            let flow = on_outcome(number, outcome);
            if ending == Ending::Finished {
                ending = match (fatal, flow) {
                    (Some(failure), _) => Ending::Fatal(failure),
                    (None, ControlFlow::Break(())) => Ending::Stopped,
                    (None, ControlFlow::Continue(())) => continue,
                };
                // Those that wait to be sent hear of it; when none does, nobody listens and that is fine.
                let _ = stop.send(true);
            }
        }
    }
}

impl Client {
    /// The dialect of the endpoint.
    pub(crate) fn dialect(&self) -> Dialect {
        self.shared.dialect
    }

    /// The model that the endpoint is asked for.
    pub(crate) fn model(&self) -> &str {
        &self.shared.model
    }

    /// What the server has shown to want.
    pub(crate) fn habits(&self) -> Habits {
        self.shared.habits()
    }

    /// How patient the client is.
    pub(crate) fn policy(&self) -> RetryPolicy {
        self.shared.policy
    }

    /// The connections to the endpoint.
    pub(crate) fn transport(&self) -> Arc<Transport> {
        self.shared.transport.clone()
    }

    /// Waits for a response on the calling thread.
    pub(crate) fn wait_for<T: Send + 'static>(
        &self,
        runtime: &Handle,
        response: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let (sender, answered) = mpsc::channel();
        runtime.spawn(async move {
            // The caller has given up only where it panicked.
            let _ = sender.send(response.await);
        });
        let stopped = || Failure::new(FailureKind::Stopped, "the runtime ended before there was an answer");
        answered.recv().unwrap_or_else(|_| Err(stopped()))
    }

    /// The names of the models that the endpoint has. It is asked once; the request carries the key and no text.
    ///
    /// Blocks the calling thread, which must not be one of `runtime`.
    ///
    /// # Errors
    /// Why there is no list: nothing listens, the key is refused, or the server keeps no list.
    pub fn models(&self, runtime: &Handle) -> Result<Vec<String>, Failure> {
        let transport = self.transport();
        read_models(&self.wait_for(runtime, async move { transport.models().await })?)
    }
}

/// What all requests to an endpoint share.
struct Shared {
    transport: Arc<Transport>,
    dialect: Dialect,
    model: String,
    policy: RetryPolicy,
    limits: Limits,
    /// What the server has shown so far to want otherwise than its dialect has it.
    habits: Mutex<Habits>,
}

impl Shared {
    fn habits(&self) -> Habits {
        // The value is whole at any time, so a panic elsewhere does not spoil it.
        *self.habits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request, and once more for each habit that the server tells of in a refusal.
    async fn send(&self, request: &Request) -> Result<Response, Failure> {
        loop {
            let habits = self.habits();
            let response = self.transport.post(self.dialect.body(request, habits)).await?;
            let Some(told) = told_habits(response.status, &response.body, habits) else {
                return Ok(response);
            };
            *self.habits.lock().unwrap_or_else(PoisonError::into_inner) = told;
        }
    }
}

/// What the requests of one call of `ask_all` share.
#[derive(Clone)]
struct Call {
    shared: Arc<Shared>,
    pace: Arc<Pace>,
    stopped: watch::Receiver<bool>,
}

/// Carries one outcome to the caller, whatever happens to the task that holds it.
struct Delivery {
    number: usize,
    outcomes: mpsc::Sender<(usize, Result<Answer, Failure>)>,
    outcome: Option<Result<Answer, Failure>>,
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| {
            Err(Failure::new(
                FailureKind::Stopped,
                "the task that asked was ended before it had an answer; run again",
            ))
        });
        // Nobody receives any more only when the caller itself has panicked.
        let _ = self.outcomes.send((self.number, outcome));
    }
}

async fn answer_into(mut delivery: Delivery, mut call: Call, request: Request) {
    delivery.outcome = Some(call.answer(&request).await);
}

impl Call {
    /// Sends a request until it is answered, fails for good, runs out of attempts, or sending is stopped.
    async fn answer(&mut self, request: &Request) -> Result<Answer, Failure> {
        if request.dialect != self.shared.dialect {
            let message = format!(
                "the request is worded in the dialect `{}`, expected the endpoint's dialect `{}`",
                request.dialect.name(),
                self.shared.dialect.name()
            );
            return Err(Failure::new(FailureKind::BadRequest, message));
        }
        if request.model != self.shared.model {
            let message = format!(
                "the request names the model `{}`, expected the endpoint's model `{}`",
                request.model, self.shared.model
            );
            return Err(Failure::new(FailureKind::BadRequest, message));
        }
        let mut last =
            Failure::new(FailureKind::Stopped, "sending was stopped before this request; run again");
        for attempts in 1..=self.shared.policy.max_attempts.max(1) {
            let outcome = {
                let pace = self.pace.clone();
                let Some(_permit) = self.unless_stopped(pace.permit()).await else { return Err(last) };
                let (shared, tokens) = (self.shared.clone(), tokens_of(request));
                if self.unless_stopped(shared.limits.place(tokens)).await.is_none() {
                    return Err(last);
                }
                self.attempt(request, attempts).await
            };
            let Unanswered { failure, again } = match outcome {
                Ok(answer) => return Ok(answer),
                Err(unanswered) => unanswered,
            };
            last = failure;
            if !again || attempts == self.shared.policy.max_attempts {
                break;
            }
            let wait = self.shared.policy.wait(attempts);
            if self.unless_stopped(sleep(wait)).await.is_none() {
                break;
            }
        }
        Err(last)
    }

    /// Sends a request once.
    async fn attempt(&self, request: &Request, attempts: u32) -> Result<Answer, Unanswered> {
        let sent_at = Instant::now();
        let sent = self.shared.send(request).await;
        let seconds = sent_at.elapsed().as_secs_f64();
        let response = match sent {
            Ok(response) => response,
            Err(failure) => return Err(Unanswered::of(Failure { attempts, ..failure })),
        };
        let outcome = read_response(response.status, &response.body, request);
        let usage = outcome.as_ref().map_or_else(|failure| failure.usage, |completion| completion.usage);
        let counted = usage.map(|usage| usage.tokens_in + usage.tokens_out);
        // A request that the server did not count took no tokens, unless it answered.
        let counted = counted.or(outcome.is_err().then_some(0));
        self.shared.limits.settle(tokens_of(request), counted.unwrap_or(tokens_of(request)));
        match outcome {
            Ok(completion) => {
                self.pace.answered();
                if let Some(wait) = response.retry_after {
                    // The last request that a limit allows tells when there will be another.
                    self.pace.pause(wait.min(self.shared.policy.longest_asked_wait()));
                }
                let Completion { text, usage, finish, model, raw } = completion;
                Ok(Answer { text, usage, finish, model, raw, attempts, seconds })
            }
            Err(failure) => Err(self.judge(sent_at, &response, Failure { attempts, ..failure })),
        }
    }

    /// What a response without an answer means for this request and for the others.
    fn judge(&self, sent_at: Instant, response: &Response, failure: Failure) -> Unanswered {
        let overload = matches!(response.status, 429 | 503 | 529) || failure.kind == FailureKind::RateLimited;
        if !failure.kind.is_worth_another_attempt() {
            return Unanswered { failure, again: false };
        }
        let longest = self.shared.policy.max_asked_wait_seconds;
        if let Some(asked) = response.retry_after.filter(|asked| asked.as_secs_f64() > longest) {
            let message = format!(
                "{}; the endpoint asks to wait {:.0} s, expected at most {longest:.0} s; run again then",
                failure.message,
                asked.as_secs_f64()
            );
            return Unanswered { failure: Failure { message, fatal: true, ..failure }, again: false };
        }
        if overload || response.retry_after.is_some() {
            self.pace.overloaded(sent_at, response.retry_after);
        }
        Unanswered { failure, again: !response.forbids_retry }
    }

    /// Waits for something unless sending is stopped first.
    async fn unless_stopped<T>(&mut self, wait: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            _ = self.stopped.wait_for(|stopped| *stopped) => None,
            done = wait => Some(done),
        }
    }
}

/// The tokens that a request may take, by estimate: what it shows and the longest answer.
fn tokens_of(request: &Request) -> u64 {
    estimate_tokens_of(request.bytes_in()) + u64::from(request.decoding.max_tokens)
}

/// An attempt without an answer.
struct Unanswered {
    failure: Failure,
    /// Whether to send the request again.
    again: bool,
}

impl Unanswered {
    /// After a failure of the transport, which says nothing more than its kind.
    fn of(failure: Failure) -> Self {
        Self { again: failure.kind.is_worth_another_attempt(), failure }
    }
}
