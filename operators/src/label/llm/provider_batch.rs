//! Questions in a provider's batches: handed over, noted, waited for, and fetched by whichever run is there when they
//! are answered.
//!
//! ```text
//! open -> intended (a mark is noted) -> with the provider (its id is noted) -> answered | not asked, so open again
//! ```
//!
//! Each arrow is durable before the next is taken: a run that is killed anywhere leaves a batch that the next run finds,
//! by its id, or by the mark that OpenAI keeps with it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use argent_cache::claims::Claim;
use argent_cache::{Digest, Memo};
use argent_engine::{QuestionKeys, RowError};
use argent_llm::{BATCH_MAX_BYTES, BATCH_MAX_REQUESTS, BatchState, Client, Request};
use serde_json::json;
use tokio::runtime::Handle;

use super::batch::{Batch, Next, claim};
use super::purse::Purse;

/// The name of the memo of what is with providers, shared by all steps and pipelines of a store.
pub(crate) const BATCHES: &str = "llm batches";

/// A question that the provider did not come to so often is not handed over again in the same run.
const MOST_BATCHES: u32 = 3;

/// What is noted of questions that were handed over.
struct Notes {
    memo: Memo,
    keys: QuestionKeys,
}

/// What is noted of one request.
struct Note {
    /// How many batches have ended without coming to it.
    ended: u32,
    /// The batch that it is in.
    batch: Option<String>,
    /// The mark of a batch that it was to be in.
    mark: Option<String>,
}

impl Notes {
    fn of(&self, request: Digest) -> anyhow::Result<Note> {
        for ended in 0.. {
            match self.text(&self.place("batch of", request, ended))? {
                Some(batch) if self.memo.contains(&self.end(&batch)) => {}
                Some(batch) => return Ok(Note { ended, batch: Some(batch), mark: None }),
                None => {
                    let mark = self.text(&self.place("intended", request, ended))?;
                    return Ok(Note { ended, batch: None, mark });
                }
            }
        }
        bail!("a request has been in more batches than there are numbers")
    }

    fn put(&self, what: &str, request: Digest, ended: u32, text: &str) -> anyhow::Result<()> {
        self.memo.put(self.place(what, request, ended), text.as_bytes())
    }

    fn text(&self, place: &Digest) -> anyhow::Result<Option<String>> {
        self.memo.get(place)?.map(|bytes| Ok(String::from_utf8(bytes)?)).transpose()
    }

    fn place(&self, what: &str, request: Digest, ended: u32) -> Digest {
        self.keys.key(&json!({ what: request.to_string(), "ended": ended }))
    }

    /// Where it is noted that nothing more comes of a batch.
    fn end(&self, batch: &str) -> Digest {
        self.keys.key(&json!({ "batch ended": batch }))
    }
}

/// A request that is with the provider, and the claim on it.
type Held = (Next, Claim);

/// By batch: its requests by custom id.
type UnderWay = BTreeMap<String, HashMap<String, Held>>;

impl Batch<'_, '_> {
    /// Hands over what is to be sent, fetches what is answered, and goes on with what that gives reason to ask, until
    /// nothing is left, money ends or the user stops it.
    pub(super) fn ask_in_batches(
        &mut self,
        client: &Client,
        purse: &RefCell<Purse>,
        poll: Duration,
    ) -> anyhow::Result<()> {
        let runtime = Handle::try_current().context("label.llm needs the program's runtime")?;
        let notes = Notes { memo: self.io.memo(BATCHES)?, keys: self.io.question_keys() };
        while !self.queue.is_empty() && !self.stopping && !self.io.cancelled() {
            let (fresh, mut under_way) = self.taken(client, &runtime, &notes)?;
            let count = fresh.len();
            let (affordable, rest) = self.within(purse, fresh);
            if affordable.is_empty() && count > 0 && under_way.is_empty() {
                self.io.stop(purse.borrow().reason(rest.first().map_or(0.0, |(next, _)| next.estimate_usd)));
                return Ok(());
            }
            self.queue.extend(rest.into_iter().map(|(next, _)| next));
            for part in parts(affordable) {
                let batch = hand_over(client, &runtime, &notes, &part)?;
                under_way.insert(
                    batch,
                    part.into_iter().map(|held| (held.0.sent.key.to_string(), held)).collect(),
                );
            }
            if under_way.is_empty() {
                // Another run is asking all that is left, and this one waits for its answers.
                std::thread::sleep(Duration::from_millis(50));
            }
            self.fetch(client, &runtime, purse, &notes, under_way, poll)?;
        }
        Ok(())
    }

    /// Claims what is in the queue: what is new, and what is with the provider already. What another run is asking stays
    /// in the queue.
    fn taken(
        &mut self,
        client: &Client,
        runtime: &Handle,
        notes: &Notes,
    ) -> anyhow::Result<(Vec<Held>, UnderWay)> {
        let (mut fresh, mut under_way) = (Vec::new(), UnderWay::new());
        // By mark that was noted without a batch: the batch that bears it, if there is one.
        let mut marked: HashMap<String, Option<String>> = HashMap::new();
        for next in std::mem::take(&mut self.queue) {
            let Some(claim) = claim(&self.claims, self.tries.memo(), &next.sent)? else {
                if self.tries.memo().contains(&next.sent.key) {
                    self.look_again(next.question)?;
                } else {
                    self.queue.push_back(next);
                }
                continue;
            };
            let note = notes.of(next.sent.key)?;
            let batch = match (note.batch, note.mark) {
                (Some(batch), _) => Some(batch),
                (None, Some(mark)) => {
                    let found = match marked.get(&mark) {
                        Some(found) => found.clone(),
                        None => {
                            client.find_batch(runtime, &mark).map_err(|failure| anyhow::anyhow!(failure))?
                        }
                    };
                    marked.insert(mark, found.clone());
                    if let Some(batch) = &found {
                        notes.put("batch of", next.sent.key, note.ended, batch)?;
                    }
                    found
                }
                (None, None) => None,
            };
            if note.ended >= MOST_BATCHES {
                let message = format!(
                    "{MOST_BATCHES} batches ended without coming to it; the next run hands it over again"
                );
                let error = RowError {
                    attempts: note.ended,
                    retryable: true,
                    ..RowError::lasting("expired", message)
                };
                self.end(next.question, Err(error))?;
                continue;
            }
            match batch {
                Some(batch) => {
                    under_way.entry(batch).or_default().insert(next.sent.key.to_string(), (next, claim));
                }
                None => fresh.push((next, claim)),
            }
        }
        Ok((fresh, under_way))
    }

    /// As many of the first requests as there is money for, by twice their estimate, and the rest.
    fn within(&self, purse: &RefCell<Purse>, fresh: Vec<Held>) -> (Vec<Held>, Vec<Held>) {
        let purse = purse.borrow();
        let (mut affordable, mut rest) = (Vec::new(), Vec::new());
        let mut usd = 0.0;
        for held in fresh {
            usd += 2.0 * held.0.estimate_usd;
            if rest.is_empty() && purse.admits_together(usd) {
                affordable.push(held)
            } else {
                rest.push(held)
            }
        }
        (affordable, rest)
    }

    /// Waits for batches and takes what they come to. What a batch did not come to is in the queue again.
    fn fetch(
        &mut self,
        client: &Client,
        runtime: &Handle,
        purse: &RefCell<Purse>,
        notes: &Notes,
        mut under_way: UnderWay,
        poll: Duration,
    ) -> anyhow::Result<()> {
        let mut wait = poll.min(Duration::from_secs(1));
        while !under_way.is_empty() {
            let mut done = 0;
            for batch in under_way.keys().cloned().collect::<Vec<_>>() {
                let state = client.batch_state(runtime, &batch);
                if state.as_ref().is_err_and(|failure| !failure.retryable) {
                    // It was refused as a whole: nothing comes of it, and the next run hands it over again.
                    notes.memo.put_durable(notes.end(&batch), b"refused")?;
                }
                match state.map_err(|failure| anyhow::anyhow!(failure))? {
                    BatchState::Working { done: some, .. } => done += some,
                    BatchState::Ended => {
                        let held = under_way.remove(&batch).unwrap_or_default();
                        self.take(client, runtime, purse, notes, &batch, held)?;
                    }
                }
            }
            let all = self.waiting.len() as u64;
            let asked: usize = under_way.values().map(HashMap::len).sum();
            self.io.progress((all - self.open.len() as u64 + done).min(all), all, self.note());
            if self.io.cancelled() && asked > 0 {
                self.io.warn(format!(
                    "{asked} requests are with the provider; run again to fetch their answers"
                ));
                self.stopping = true;
                return Ok(());
            }
            if asked > 0 {
                self.sleep(wait);
                wait = (2 * wait).min(poll);
            }
        }
        Ok(())
    }

    /// Takes what a batch that has ended came to.
    fn take(
        &mut self,
        client: &Client,
        runtime: &Handle,
        purse: &RefCell<Purse>,
        notes: &Notes,
        batch: &str,
        mut held: HashMap<String, Held>,
    ) -> anyhow::Result<()> {
        let requests: HashMap<String, Request> =
            held.iter().map(|(id, (next, _))| (id.clone(), next.sent.request.clone())).collect();
        let answers = client.batch_answers(runtime, batch, &requests);
        for (id, outcome) in answers.map_err(|failure| anyhow::anyhow!(failure))? {
            // A line that comes twice is taken once.
            let Some((next, _claim)) = held.remove(&id) else { continue };
            let usd = self.charge(&outcome);
            purse.borrow_mut().spend(usd);
            let outcome = self.watched(client, runtime, purse, &next, outcome);
            self.outcome(client, runtime, purse, &next, outcome)?;
        }
        // First the answers, then that there are no more of them.
        self.tries.memo().sync()?;
        notes.memo.put_durable(notes.end(batch), b"ended")?;
        self.queue.extend(held.into_values().map(|(next, _)| next));
        Ok(())
    }

    /// Sleeps unless the user stops the run.
    fn sleep(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until && !self.io.cancelled() {
            std::thread::sleep(Duration::from_millis(20).min(wait));
        }
    }
}

/// Hands over requests as one batch; tells its id.
fn hand_over(client: &Client, runtime: &Handle, notes: &Notes, part: &[Held]) -> anyhow::Result<String> {
    let keys: BTreeSet<String> = part.iter().map(|(next, _)| next.sent.key.to_string()).collect();
    let ended: Vec<u32> =
        part.iter().map(|(next, _)| Ok(notes.of(next.sent.key)?.ended)).collect::<anyhow::Result<_>>()?;
    let mark = notes.keys.key(&json!({ "batch": keys, "ended": ended.iter().max() })).to_string();
    for ((next, _), ended) in part.iter().zip(&ended) {
        notes.put("intended", next.sent.key, *ended, &mark)?;
    }
    notes.memo.sync()?;
    let requests: Vec<(String, Request)> =
        part.iter().map(|(next, _)| (next.sent.key.to_string(), next.sent.request.clone())).collect();
    let batch = client.submit_batch(runtime, &mark, &requests).map_err(|failure| anyhow::anyhow!(failure))?;
    for ((next, _), ended) in part.iter().zip(&ended) {
        notes.put("batch of", next.sent.key, *ended, &batch)?;
    }
    notes.memo.sync()?;
    Ok(batch)
}

/// Requests in parts that providers take.
fn parts(all: Vec<Held>) -> Vec<Vec<Held>> {
    let mut parts: Vec<Vec<Held>> = Vec::new();
    let mut bytes = 0;
    for held in all {
        let more = held.0.sent.request.bytes_in();
        match parts.last_mut() {
            Some(part) if part.len() < BATCH_MAX_REQUESTS && bytes + more <= BATCH_MAX_BYTES => {
                bytes += more;
                part.push(held);
            }
            _ => {
                bytes = more;
                parts.push(vec![held]);
            }
        }
    }
    parts
}
