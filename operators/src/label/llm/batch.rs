//! The requests of one run: sent within the budget, their answers kept before they are used.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context, bail};
use argent_cache::lock::Lock;
use argent_cache::{Digest, Memo, Stats};
use argent_engine::{Io, RowError};
use argent_llm::{
    Answer, ApiKey, Client, Egress, Ending, Endpoint, Failure, FailureKind, Request, RetryPolicy, Usage,
};

use super::purse::Purse;
use super::question::{ASKED, Question, estimate};
use super::tries::{Kept, Outcome, labels, last_try, next_try, row_error, try_key};
use super::{EgressParameter, LabelLlm, RowLabels};
use crate::label::STATES;

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
    /// By question that is to be sent: the number of its try.
    open: HashMap<Digest, u32>,
    /// By question that failed for now: why.
    failed: HashMap<Digest, RowError>,
    /// Whether nothing more is to be sent.
    stopping: bool,
}

/// A request that is to be sent.
struct ToSend {
    question: Digest,
    /// Where its answer will be kept.
    key: Digest,
    request: Request,
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
        let (rows, waiting, open, failed) = (BTreeMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
        Batch { operator, io, on_row, answers, rows, waiting, open, failed, stopping: false }
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
        let to_send = self.open_questions()?;
        for row in self.rows.keys().copied().collect::<Vec<_>>() {
            self.complete(row)?;
        }
        if to_send.is_empty() {
            return Ok(());
        }
        if self.io.max_usd().is_some() && self.operator.price.is_none() {
            bail!("a limit of dollars is set and the step has no `price`; what it would cost is not known");
        }
        let client = self.operator.client(RetryPolicy::default())?;
        let purse = RefCell::new(Purse::new(self.limit()));
        let mut queue: VecDeque<usize> = (0..to_send.len()).collect();
        // A budget ends a round early; once the answers under way have told what they cost, there may be money
        // for more.
        while let Some(next) = queue.front().map(|place| &to_send[*place]) {
            if self.stopping || self.io.cancelled() {
                break;
            }
            if !purse.borrow().admits(next.estimate_usd) {
                let reason = purse.borrow().reason(next.estimate_usd);
                self.io.stop(reason);
                break;
            }
            let sent = self.round(&client, &to_send, &mut queue, &purse)?;
            if sent == 0 && !queue.is_empty() {
                // Another run is asking all that is left, and this one waits for its answers.
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Sends the requests of the queue, as far as the purse admits, and waits for their outcomes; tells how many
    /// were sent. What another run has answered meanwhile is taken from there; what it is asking at this moment
    /// comes back into the queue.
    fn round(
        &mut self,
        client: &Client,
        to_send: &[ToSend],
        queue: &mut VecDeque<usize>,
        purse: &RefCell<Purse>,
    ) -> anyhow::Result<usize> {
        let runtime =
            tokio::runtime::Handle::try_current().context("label.llm needs the program's runtime")?;
        let concurrency = self.operator.concurrency;
        let mut problem = None;
        let (claim, answers) = (self.io.claimer(), self.answers.clone());
        let claims: RefCell<HashMap<usize, Lock>> = RefCell::default();
        let (mut sent, mut elsewhere, mut refused) = (0, Vec::new(), None);
        let mut on_outcome = |place: usize, outcome: Result<Answer, Failure>| {
            let usd = self.charge(&outcome);
            purse.borrow_mut().settle(place, usd);
            if let Err(error) = self.outcome(&to_send[place], outcome) {
                problem.get_or_insert(error);
            }
            claims.borrow_mut().remove(&place);
            self.io.progress((to_send.len() - self.open.len()) as u64, to_send.len() as u64, self.note());
            self.stopping |= problem.is_some() || self.io.cancelled();
            if self.stopping { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let requests = std::iter::from_fn(|| {
            loop {
                let place = *queue.front()?;
                let next = &to_send[place];
                if !purse.borrow().admits(next.estimate_usd) {
                    return None;
                }
                queue.pop_front();
                match claimed(&claim, &answers, next) {
                    Ok(Some(lock)) => {
                        claims.borrow_mut().insert(place, lock);
                        purse.borrow_mut().reserve(place, next.estimate_usd);
                        sent += 1;
                        return Some((place, next.request.clone()));
                    }
                    Ok(None) => elsewhere.push(place),
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
        for place in elsewhere {
            if !self.take_over(&to_send[place])? {
                queue.push_back(place);
            }
        }
        Ok(sent)
    }

    /// Completes the rows of a question that another run has answered, if it has.
    fn take_over(&mut self, asked: &ToSend) -> anyhow::Result<bool> {
        if !self.answers.contains(&asked.key) {
            return Ok(false);
        }
        self.open.remove(&asked.question);
        for row in self.waiting.get(&asked.question).cloned().unwrap_or_default() {
            self.complete(row)?;
        }
        Ok(true)
    }

    /// The distinct questions that are to be sent, in the order of the rows.
    fn open_questions(&mut self) -> anyhow::Result<Vec<ToSend>> {
        let mut all = Vec::new();
        for question in self.rows.values().flatten() {
            if self.open.contains_key(&question.key) {
                continue;
            }
            let Some(number) = next_try(self.io, &self.answers, question)? else { continue };
            self.open.insert(question.key, number);
            let (tokens_in, tokens_out) = estimate(question);
            let usage = Usage { tokens_in, tokens_cached: 0, tokens_out };
            let estimate_usd = self.operator.price.map_or(0.0, |p| p.kernel().cost(&usage));
            let key = try_key(self.io, question.key, number);
            let request = question.request.clone();
            all.push(ToSend { question: question.key, key, request, estimate_usd });
        }
        Ok(all)
    }

    /// Keeps what came of a question and completes the rows that waited for it. A request that was not answered
    /// because the step stops leaves its rows pending.
    fn outcome(&mut self, sent: &ToSend, outcome: Result<Answer, Failure>) -> anyhow::Result<()> {
        match outcome {
            Ok(answer) => self.keep(sent, Outcome::Answered(answer))?,
            Err(failure) if failure.fatal => {
                self.stopping = true;
                return Ok(());
            }
            Err(failure) if failure.kind == FailureKind::Stopped || (self.stopping && failure.retryable) => {
                return Ok(());
            }
            Err(failure) if failure.retryable => drop(self.failed.insert(sent.question, row_error(&failure))),
            Err(failure) => self.keep(sent, Outcome::Failed(failure))?,
        }
        self.open.remove(&sent.question);
        for row in self.waiting.get(&sent.question).cloned().unwrap_or_default() {
            self.complete(row)?;
        }
        Ok(())
    }

    fn keep(&self, sent: &ToSend, outcome: Outcome) -> anyhow::Result<()> {
        let number = self.open.get(&sent.question).copied().unwrap_or(0);
        let kept = Kept { request: sent.request.canonical(), outcome };
        self.answers.put(try_key(self.io, sent.question, number), &serde_json::to_vec(&kept)?)
    }

    /// Answers for a row once none of its questions is open.
    fn complete(&mut self, row: usize) -> anyhow::Result<()> {
        let Some(questions) = self.rows.get(&row) else { return Ok(()) };
        if questions.iter().any(|question| self.open.contains_key(&question.key)) {
            return Ok(());
        }
        let mut all = Vec::new();
        let mut error: Option<RowError> = None;
        for question in questions {
            if let Some(failure) = self.failed.get(&question.key) {
                error.get_or_insert_with(|| failure.clone());
                continue;
            }
            let last =
                last_try(self.io, &self.answers, question.key)?.context("an answer is gone from the memo")?;
            match labels(&last.kept, &question.ids) {
                Ok(states) => all.extend(states.into_iter().map(|(finding, state)| {
                    let state = ASKED.into_iter().find(|s| **s == state).unwrap_or(STATES[4]);
                    (finding, state, Some(last.key.to_string()))
                })),
                Err(reason) => drop(error.get_or_insert(reason)),
            }
        }
        self.rows.remove(&row);
        (self.on_row)(self.io, row, error.map_or(Ok(all), Err))
    }

    /// Adds what came of a request to the costs; tells its dollars where they are known.
    fn charge(&mut self, outcome: &Result<Answer, Failure>) -> Option<f64> {
        let (usage, attempts) = match outcome {
            Ok(answer) => (answer.usage, answer.attempts),
            Err(failure) => (failure.usage, failure.attempts),
        };
        let mut stats = Stats { requests: u64::from(attempts > 0), ..Stats::default() };
        if let Some(usage) = usage {
            (stats.tokens_in, stats.tokens_cached, stats.tokens_out) =
                (usage.tokens_in, usage.tokens_cached, usage.tokens_out);
            stats.usd = self.operator.price.map(|p| p.kernel().cost(&usage));
        }
        self.io.spend(&stats);
        // A failure that the server counts no tokens for is free; an answer without a count is not.
        stats.usd.or(outcome.is_err().then_some(0.0))
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
    pub(super) fn client(&self, policy: RetryPolicy) -> anyhow::Result<Client> {
        let api_key = match &self.endpoint.api_key {
            Some(secret) => {
                let value = std::env::var(&secret.env);
                let value = value
                    .map_err(|_| anyhow::anyhow!("the environment variable {} is not set", secret.env))?;
                Some(ApiKey::new(value))
            }
            None => None,
        };
        let endpoint = Endpoint {
            base_url: self.endpoint.base_url.clone(),
            model: self.endpoint.model.clone(),
            api_key,
        };
        let egress = match self.egress {
            EgressParameter::Private => Egress::PrivateOnly,
            EgressParameter::Allow => Egress::Allow,
        };
        Ok(Client::with_policy(endpoint, egress, policy)?)
    }
}
