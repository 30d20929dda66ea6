//! The requests of one run: sent within the budget, their answers kept before they are used.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context, bail};
use argent_cache::lock::Lock;
use argent_cache::{Digest, Memo, Stats};
use argent_engine::{Io, RowError};
use argent_llm::{Answer, Client, Ending, Failure, FailureKind, RetryPolicy, Usage, estimate_tokens_of};
use tokio::runtime::Handle;

use super::LabelLlm;
use super::labels::{RowLabel, RowLabels, voted};
use super::purse::Purse;
use super::question::Question;
use super::tries::{Kept, Outcome, Standing, ToSend, row_error};
use super::watch::{Found, Watch};

/// What is done with the labels of a row, or with the reason why it has none.
pub(crate) type OnRow<'a> = dyn FnMut(&mut Io, usize, Result<RowLabels, RowError>) -> anyhow::Result<()> + 'a;

/// The rows of one run that wait for answers.
pub(super) struct Batch<'a, 'b> {
    operator: &'a LabelLlm,
    pub(super) io: &'a mut Io<'b>,
    on_row: &'a mut OnRow<'a>,
    answers: Memo,
    /// By row: its questions.
    rows: BTreeMap<usize, Vec<Question>>,
    /// By question: the rows that wait for it.
    waiting: HashMap<Digest, Vec<usize>>,
    /// The questions that wait for an answer.
    open: HashSet<Digest>,
    /// By question that failed for now: why.
    failed: HashMap<Digest, RowError>,
    /// What is to be sent.
    queue: VecDeque<Next>,
    watch: Watch,
    /// Whether nothing more is to be sent.
    stopping: bool,
}

/// A request that is to be sent for a question.
struct Next {
    question: Digest,
    sent: ToSend,
    /// What it may cost in US dollars.
    estimate_usd: f64,
}

impl<'a, 'b> Batch<'a, 'b> {
    pub(super) fn new(
        operator: &'a LabelLlm,
        io: &'a mut Io<'b>,
        answers: Memo,
        on_row: &'a mut OnRow<'a>,
    ) -> Batch<'a, 'b> {
        let (rows, waiting, open, failed) = (BTreeMap::new(), HashMap::new(), HashSet::new(), HashMap::new());
        let (queue, watch, stopping) = (VecDeque::new(), Watch::default(), false);
        Batch { operator, io, on_row, answers, rows, waiting, open, failed, queue, watch, stopping }
    }

    /// Says that a row has no questions, and why.
    pub(super) fn refuse(&mut self, row: usize, error: RowError) -> anyhow::Result<()> {
        (self.on_row)(self.io, row, Err(error))
    }

    pub(super) fn add(&mut self, row: usize, questions: Vec<Question>) {
        for question in &questions {
            self.waiting.entry(question.key).or_default().push(row);
        }
        self.rows.insert(row, questions);
    }

    /// Sends what has no answer yet, and answers the rows as they become complete.
    pub(super) fn ask(mut self) -> anyhow::Result<()> {
        self.open_questions()?;
        for row in self.rows.keys().copied().collect::<Vec<_>>() {
            self.complete(row)?;
        }
        if self.queue.is_empty() {
            return Ok(());
        }
        if self.io.max_usd().is_some() && self.operator.price.is_none() {
            bail!("a limit of dollars is set and the step has no `price`; what it would cost is not known");
        }
        let client = self.operator.client(RetryPolicy::default())?;
        let purse = RefCell::new(Purse::new(self.limit()));
        // A budget ends a round early; once the answers under way have told what they cost, there may be money
        // for more.
        while let Some(estimate_usd) = self.queue.front().map(|next| next.estimate_usd) {
            if self.stopping || self.io.cancelled() {
                break;
            }
            if !purse.borrow().admits(estimate_usd) {
                let reason = purse.borrow().reason(estimate_usd);
                self.io.stop(reason);
                break;
            }
            let sent = self.round(&client, &purse)?;
            if sent == 0 && !self.queue.is_empty() {
                // Another run is asking all that is left, and this one waits for its answers.
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Sends the requests of the queue, as far as the purse admits, and waits for their outcomes; tells how many
    /// were sent. What another run has answered meanwhile is taken from there; what it is asking at this moment
    /// comes back into the queue, as does what an answer gives reason to ask.
    fn round(&mut self, client: &Client, purse: &RefCell<Purse>) -> anyhow::Result<usize> {
        let runtime = Handle::try_current().context("label.llm needs the program's runtime")?;
        let concurrency = self.operator.concurrency;
        let mut problem = None;
        let (claim, answers) = (self.io.claimer(), self.answers.clone());
        let claims: RefCell<HashMap<usize, Lock>> = RefCell::default();
        let under_way: RefCell<HashMap<usize, Next>> = RefCell::default();
        // What an answer adds is sent in the next round.
        let mut queue = std::mem::take(&mut self.queue);
        let (mut sent, mut elsewhere, mut refused) = (0, Vec::new(), None);
        let mut on_outcome = |number: usize, outcome: Result<Answer, Failure>| {
            let usd = self.charge(&outcome);
            purse.borrow_mut().settle(number, usd);
            if let Some(next) = under_way.borrow_mut().remove(&number) {
                let outcome = self.watched(client, &runtime, purse, &next, outcome);
                if let Err(error) = self.outcome(client, &runtime, purse, &next, outcome) {
                    problem.get_or_insert(error);
                }
            }
            claims.borrow_mut().remove(&number);
            let all = self.waiting.len();
            self.io.progress((all - self.open.len()) as u64, all as u64, self.note());
            self.stopping |= problem.is_some() || self.io.cancelled();
            if self.stopping { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let requests = std::iter::from_fn(|| {
            loop {
                if !purse.borrow().admits(queue.front()?.estimate_usd) {
                    return None;
                }
                let next = queue.pop_front()?;
                match claimed(&claim, &answers, &next.sent) {
                    Ok(Some(lock)) => {
                        let (number, request) = (sent, next.sent.request.clone());
                        claims.borrow_mut().insert(number, lock);
                        purse.borrow_mut().reserve(number, next.estimate_usd);
                        under_way.borrow_mut().insert(number, next);
                        sent += 1;
                        return Some((number, request));
                    }
                    Ok(None) => elsewhere.push(next),
                    Err(error) => {
                        refused = Some(error);
                        return None;
                    }
                }
            }
        });
        let ending = client.ask_all(&runtime, requests, concurrency, &mut on_outcome);
        match (problem.or(refused), ending) {
            (Some(error), _) => return Err(error),
            (None, Ending::Fatal(failure)) => bail!("{}", failure.message),
            (None, Ending::Stopped | Ending::Finished) => {}
        }
        // What an answer gave reason to ask goes first: its row has waited longest.
        self.queue.extend(queue);
        for next in elsewhere {
            if self.answers.contains(&next.sent.key) {
                self.settle(next.question)?;
            } else {
                self.queue.push_back(next);
            }
        }
        Ok(sent)
    }

    /// Queues what is to be sent for the distinct questions of the rows, in their order.
    fn open_questions(&mut self) -> anyhow::Result<()> {
        let again = self.io.retry_errors();
        let mut seen = HashSet::new();
        for question in self.rows.values().flatten().filter(|question| seen.insert(question.key)) {
            if let Standing::Open(sent) = self.operator.standing(self.io, &self.answers, question, again)? {
                self.open.insert(question.key);
                self.queue.push_back(self.operator.next(question, *sent));
            }
        }
        Ok(())
    }

    /// An outcome, unless the endpoint is found to have read a part of the prompt only.
    fn watched(
        &mut self,
        client: &Client,
        runtime: &Handle,
        purse: &RefCell<Purse>,
        next: &Next,
        outcome: Result<Answer, Failure>,
    ) -> Result<Answer, Failure> {
        let Ok(answer) = &outcome else { return outcome };
        let found = self.watch.answered(client, runtime, &next.sent.request, answer.usage);
        match self.heed(purse, found) {
            Some(failure) => Err(failure),
            None => outcome,
        }
    }

    /// Pays for a probe, and tells what it found.
    fn heed(&mut self, purse: &RefCell<Purse>, found: Option<Found>) -> Option<Failure> {
        let found = found?;
        if let Some(usage) = found.usage {
            let usd = self.spend(Some(usage), 1);
            purse.borrow_mut().spend(usd);
        }
        if let Some(warning) = found.warning {
            self.io.warn(warning);
        }
        found.failure
    }

    /// Keeps what came of a request and goes on with its question. A request that was not answered because the step
    /// stops leaves its rows pending.
    fn outcome(
        &mut self,
        client: &Client,
        runtime: &Handle,
        purse: &RefCell<Purse>,
        next: &Next,
        outcome: Result<Answer, Failure>,
    ) -> anyhow::Result<()> {
        match outcome {
            Ok(answer) => {
                let malformed = !self.operator.reads(&next.sent.request, &answer);
                self.keep(next, Outcome::Answered(answer))?;
                if malformed {
                    let found = self.watch.malformed(client, runtime, &next.sent.request);
                    self.heed(purse, found);
                }
            }
            Err(failure) if failure.fatal => {
                self.stopping = true;
                return Ok(());
            }
            Err(failure) if failure.kind == FailureKind::Stopped || (self.stopping && failure.retryable) => {
                return Ok(());
            }
            Err(failure) if failure.retryable => drop(self.failed.insert(next.question, row_error(&failure))),
            Err(failure) => self.keep(next, Outcome::Failed(failure))?,
        }
        self.settle(next.question)
    }

    fn keep(&self, next: &Next, outcome: Outcome) -> anyhow::Result<()> {
        let mends = next.sent.mends.map(|call| call.to_string());
        let kept = Kept { request: next.sent.request.canonical(), outcome, mends };
        self.answers.put(next.sent.key, &serde_json::to_vec(&kept)?)
    }

    /// After something came of a question: asks what is to be asked next, or completes the rows that wait for it.
    fn settle(&mut self, question: Digest) -> anyhow::Result<()> {
        let rows = self.waiting.get(&question).cloned().unwrap_or_default();
        if !self.failed.contains_key(&question) {
            let questions = rows.iter().filter_map(|row| self.rows.get(row)).flatten();
            let asked = questions.into_iter().find(|asked| asked.key == question);
            let asked = asked.context("a question has a row that waits for it")?;
            if let Standing::Open(sent) = self.operator.standing(self.io, &self.answers, asked, false)? {
                self.queue.push_back(self.operator.next(asked, *sent));
                return Ok(());
            }
        }
        self.open.remove(&question);
        for row in rows {
            self.complete(row)?;
        }
        Ok(())
    }

    /// Answers for a row once none of its questions is open.
    fn complete(&mut self, row: usize) -> anyhow::Result<()> {
        let Some(questions) = self.rows.get(&row) else { return Ok(()) };
        if questions.iter().any(|question| self.open.contains(&question.key)) {
            return Ok(());
        }
        let labels = self.labels_of(questions)?;
        self.rows.remove(&row);
        (self.on_row)(self.io, row, labels)
    }

    /// The labels that the answers to a row's questions give, or why the row has none.
    fn labels_of(&self, questions: &[Question]) -> anyhow::Result<Result<RowLabels, RowError>> {
        let mut samples: Vec<Vec<RowLabel>> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for question in questions {
            if let Some(error) = self.failed.get(&question.key) {
                return Ok(Err(error.clone()));
            }
            let (mut labels, call) = match self.operator.standing(self.io, &self.answers, question, false)? {
                Standing::Labels(labels, call) => (labels, call.to_string()),
                Standing::Failed(error) => return Ok(Err(error)),
                Standing::Open(_) => bail!("an answer is gone from the memo"),
            };
            for id in &question.ids {
                let label = labels.remove(id).context("an answer that reads has every finding")?;
                let label = RowLabel::of(id.clone(), label, &call, question.report.as_deref());
                let place = *places.entry(id).or_insert_with(|| {
                    samples.push(Vec::new());
                    samples.len() - 1
                });
                samples[place].push(label);
            }
        }
        let label = |mut samples: Vec<RowLabel>| match samples.len() {
            1 => samples.pop(),
            _ => voted(samples),
        };
        Ok(Ok(samples.into_iter().filter_map(label).collect()))
    }

    /// Adds what came of a request to the costs; tells its dollars where they are known.
    fn charge(&mut self, outcome: &Result<Answer, Failure>) -> Option<f64> {
        let (usage, attempts) = match outcome {
            Ok(answer) => (answer.usage, answer.attempts),
            Err(failure) => (failure.usage, failure.attempts),
        };
        let usd = self.spend(usage, u64::from(attempts > 0));
        // A failure that the server counts no tokens for is free; an answer without a count is not.
        usd.or(outcome.is_err().then_some(0.0))
    }

    fn spend(&mut self, usage: Option<Usage>, requests: u64) -> Option<f64> {
        let mut stats = Stats { requests, ..Stats::default() };
        if let Some(usage) = usage {
            (stats.tokens_in, stats.tokens_cached, stats.tokens_out) =
                (usage.tokens_in, usage.tokens_cached, usage.tokens_out);
            stats.usd = self.operator.price.map(|p| p.kernel().cost(&usage));
        }
        self.io.spend(&stats);
        stats.usd
    }

    /// What may be spent: the step's budget and what is left of the run's.
    fn limit(&self) -> Option<f64> {
        let own = self.operator.budget.map(|b| (b.usd - self.io.spent_usd()).max(0.0));
        own.into_iter().chain(self.io.max_usd()).reduce(f64::min)
    }

    fn note(&self) -> String {
        match self.operator.price {
            Some(_) => format!("${:.4}", self.io.spent_usd()),
            None => String::new(),
        }
    }
}

/// Claims a question for this run; none where another run has claimed it, or has answered it since this run
/// looked.
fn claimed(
    claim: &impl Fn(&Digest) -> anyhow::Result<Option<Lock>>,
    answers: &Memo,
    asked: &ToSend,
) -> anyhow::Result<Option<Lock>> {
    let lock = claim(&asked.key)?;
    // Read behind the claim: whoever held it before has kept the answer before giving it up.
    answers.refresh()?;
    Ok(lock.filter(|_| !answers.contains(&asked.key)))
}

impl LabelLlm {
    /// A request for a question, with what it may cost.
    fn next(&self, question: &Question, sent: ToSend) -> Next {
        let tokens_in = estimate_tokens_of(sent.request.bytes_in());
        let (_, tokens_out) = self.estimate(question);
        let usage = Usage { tokens_in, tokens_cached: 0, tokens_out };
        let estimate_usd = self.price.map_or(0.0, |price| price.kernel().cost(&usage));
        Next { question: question.key, sent, estimate_usd }
    }
}
