//! The requests of one run: sent within the budget, their answers kept before they are used.

mod in_process;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use argent_cache::claims::{Claim, Claims};
use argent_cache::{Digest, Memo, Stats};
use argent_engine::{Io, RowError};
use argent_llm::{
    Answer, Client, Ending, Failure, FailureKind, Label, RetryPolicy, Usage, estimate_tokens_of,
};
use tokio::runtime::Handle;

use super::LabelLlm;
use super::labels::{RowLabel, RowLabels, voted};
use super::purse::Purse;
use super::question::Question;
use super::tries::{Outcome, Standing, ToSend, Tries, row_error};
use super::watch::Found;

/// What is done with the labels of a row, or with the reason why it has none.
pub(crate) type OnRow<'a> = dyn FnMut(&mut Io, usize, Result<RowLabels, RowError>) -> anyhow::Result<()> + 'a;

/// The rows of one run that wait for answers.
pub(super) struct Batch<'a, 'b> {
    operator: &'a LabelLlm,
    pub(super) io: &'a mut Io<'b>,
    on_row: &'a mut OnRow<'a>,
    pub(super) tries: &'a Tries<'a>,
    pub(super) claims: Claims,
    /// By row that waits for an answer: its questions.
    rows: BTreeMap<usize, Vec<Question>>,
    /// By question: the rows that wait for it.
    pub(super) waiting: HashMap<Digest, Vec<usize>>,
    /// The questions that wait for an answer.
    pub(super) open: HashSet<Digest>,
    /// By question that has come to an end: its labels and the call that answered, or why it has none.
    ended: HashMap<Digest, Result<Arc<Labels>, RowError>>,
    /// What is to be sent.
    pub(super) queue: VecDeque<Next>,
    /// Whether nothing more is to be sent.
    pub(super) stopping: bool,
}

/// What an answer says, and the call that it came from.
pub(super) struct Labels {
    by_finding: BTreeMap<String, Label>,
    call: String,
}

/// A request that is to be sent for a question.
pub(super) struct Next {
    pub(super) question: Digest,
    pub(super) sent: ToSend,
    /// What it may cost in US dollars.
    pub(super) estimate_usd: f64,
}

impl<'a, 'b> Batch<'a, 'b> {
    pub(super) fn new(
        operator: &'a LabelLlm,
        io: &'a mut Io<'b>,
        tries: &'a Tries<'a>,
        on_row: &'a mut OnRow<'a>,
    ) -> Batch<'a, 'b> {
        let (rows, waiting, open, ended) = (BTreeMap::new(), HashMap::new(), HashSet::new(), HashMap::new());
        let (queue, stopping) = (VecDeque::new(), false);
        let claims = io.question_claims();
        Batch { operator, io, on_row, tries, claims, rows, waiting, open, ended, queue, stopping }
    }

    /// Says that a row has no questions, and why.
    pub(super) fn refuse(&mut self, row: usize, error: RowError) -> anyhow::Result<()> {
        (self.on_row)(self.io, row, Err(error))
    }

    /// Adds a row with its questions and how each stands; where all have come to an end, the row is answered at once.
    pub(super) fn add(&mut self, row: usize, questions: Vec<(Question, Standing)>) -> anyhow::Result<()> {
        let mut asked = Vec::new();
        for (question, standing) in questions {
            if !self.open.contains(&question.key) {
                self.stand(&question, standing);
            }
            self.waiting.entry(question.key).or_default().push(row);
            asked.push(question);
        }
        self.rows.insert(row, asked);
        self.complete(row)
    }

    /// Notes how a question stands, and queues what is to be sent for it.
    fn stand(&mut self, question: &Question, standing: Standing) {
        let ended = match standing {
            Standing::Open(sent) => {
                self.open.insert(question.key);
                self.queue.push_back(self.operator.next(question, *sent));
                return;
            }
            Standing::Labels(by_finding, call) => Ok(Arc::new(Labels { by_finding, call: call.to_string() })),
            Standing::Failed(error) => Err(error),
        };
        self.open.remove(&question.key);
        self.ended.insert(question.key, ended);
    }

    /// Asks what has no answer yet, and answers the rows as they become complete.
    pub(super) fn ask(self) -> anyhow::Result<()> {
        match self.operator.endpoint.is_local() {
            _ if self.queue.is_empty() => Ok(()),
            true => self.ask_in_process(),
            false => self.ask_server(),
        }
    }

    fn ask_server(mut self) -> anyhow::Result<()> {
        if self.io.max_usd().is_some() && self.operator.price.is_none() {
            bail!("a limit of dollars is set and the step has no `price`; what it would cost is not known");
        }
        let client = self.operator.client(RetryPolicy::default())?;
        let purse = RefCell::new(Purse::new(self.limit()));
        if let Some(batch) = &self.operator.batch {
            return self.ask_in_batches(&client, &purse, Duration::from_secs_f64(batch.poll_seconds));
        }
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
        let (claims, answers) = (self.claims.clone(), self.tries.memo().clone());
        let claimed: RefCell<HashMap<usize, Claim>> = RefCell::default();
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
            claimed.borrow_mut().remove(&number);
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
                match claim(&claims, &answers, &next.sent) {
                    Ok(Some(claim)) => {
                        let (number, request) = (sent, next.sent.request.clone());
                        claimed.borrow_mut().insert(number, claim);
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
        self.asked_elsewhere(elsewhere)?;
        Ok(sent)
    }

    /// Takes what another run has answered meanwhile; what it is asking at this moment comes back into the queue.
    fn asked_elsewhere(&mut self, elsewhere: Vec<Next>) -> anyhow::Result<()> {
        for next in elsewhere {
            if self.tries.memo().contains(&next.sent.key) {
                self.look_again(next.question)?;
            } else {
                self.queue.push_back(next);
            }
        }
        Ok(())
    }

    /// An outcome, unless the endpoint is found to have read a part of the prompt only.
    pub(super) fn watched(
        &mut self,
        client: &Client,
        runtime: &Handle,
        purse: &RefCell<Purse>,
        next: &Next,
        outcome: Result<Answer, Failure>,
    ) -> Result<Answer, Failure> {
        let Ok(answer) = &outcome else { return outcome };
        let found = self.operator.watch().answered(client, runtime, &next.sent.request, answer.usage);
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
    pub(super) fn outcome(
        &mut self,
        client: &Client,
        runtime: &Handle,
        purse: &RefCell<Purse>,
        next: &Next,
        outcome: Result<Answer, Failure>,
    ) -> anyhow::Result<()> {
        match outcome {
            Ok(answer) => {
                if self.answered(next, answer)? {
                    return Ok(());
                }
                let found = self.operator.watch().malformed(client, runtime, &next.sent.request);
                self.heed(purse, found);
            }
            Err(failure) if failure.fatal => {
                self.stopping = true;
                return Ok(());
            }
            Err(failure) if failure.kind == FailureKind::Stopped || (self.stopping && failure.retryable) => {
                return Ok(());
            }
            Err(failure) if failure.retryable => return self.end(next.question, Err(row_error(&failure))),
            Err(failure) => self.tries.keep(&next.sent, &Outcome::Failed(failure))?,
        }
        self.look_again(next.question)
    }

    /// Keeps an answer, and ends its question where it gives labels; tells whether it does.
    fn answered(&mut self, next: &Next, answer: Answer) -> anyhow::Result<bool> {
        let labels = self.tries.labels(&next.sent.request, &answer);
        self.tries.keep(&next.sent, &Outcome::Answered(answer))?;
        let Some(by_finding) = labels else { return Ok(false) };
        let labels = Labels { by_finding, call: next.sent.key.to_string() };
        self.end(next.question, Ok(Arc::new(labels)))?;
        Ok(true)
    }

    /// After something that gives no labels by itself came of a question: asks what is to be asked next, or completes
    /// the rows that wait for it.
    pub(super) fn look_again(&mut self, question: Digest) -> anyhow::Result<()> {
        let rows = self.waiting.get(&question).into_iter().flatten();
        let mut asked = rows.filter_map(|row| self.rows.get(row)).flatten();
        let asked = asked.find(|asked| asked.key == question);
        let asked = asked.context("a question has a row that waits for it")?;
        match self.tries.standing(asked, false)? {
            Standing::Open(sent) => {
                self.queue.push_back(self.operator.next(asked, *sent));
                Ok(())
            }
            Standing::Failed(error) => self.end(question, Err(error)),
            Standing::Labels(by_finding, call) => {
                self.end(question, Ok(Arc::new(Labels { by_finding, call: call.to_string() })))
            }
        }
    }

    /// Notes the end of a question, and completes the rows that wait for it.
    pub(super) fn end(
        &mut self,
        question: Digest,
        ended: Result<Arc<Labels>, RowError>,
    ) -> anyhow::Result<()> {
        self.open.remove(&question);
        self.ended.insert(question, ended);
        for row in self.waiting.get(&question).cloned().unwrap_or_default() {
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
            let labels = match self.ended.get(&question.key) {
                Some(Ok(labels)) => labels,
                Some(Err(error)) => return Ok(Err(error.clone())),
                None => bail!("a question of a complete row has no end"),
            };
            for id in &question.about.ids {
                let label = labels.by_finding.get(id).context("an answer that reads has every finding")?;
                let label = RowLabel::of(id.clone(), label, &labels.call, question.report.as_deref());
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
    pub(super) fn charge(&mut self, outcome: &Result<Answer, Failure>) -> Option<f64> {
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

    pub(super) fn note(&self) -> String {
        match self.operator.price {
            Some(_) => format!("${:.4}", self.io.spent_usd()),
            None => String::new(),
        }
    }
}

/// Claims a question for this run; none where another run has claimed it, or has answered it since this run
/// looked.
pub(super) fn claim(claims: &Claims, answers: &Memo, asked: &ToSend) -> anyhow::Result<Option<Claim>> {
    let claim = claims.claim(&asked.key)?;
    // Read behind the claim: whoever held it before has kept the answer before giving it up.
    answers.refresh()?;
    Ok(claim.filter(|_| !answers.contains(&asked.key)))
}

impl LabelLlm {
    /// A request for a question, with what it may cost.
    fn next(&self, question: &Question, sent: ToSend) -> Next {
        let tokens_in = estimate_tokens_of(sent.request.bytes_in());
        let usage = Usage { tokens_in, tokens_cached: 0, tokens_out: question.about.longest };
        let estimate_usd = self.price.map_or(0.0, |price| price.kernel().cost(&usage));
        Next { question: question.key, sent, estimate_usd }
    }
}
