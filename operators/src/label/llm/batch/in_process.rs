//! The questions of one run, answered by a model in this process: a few prompts at a time, whose answers are kept before
//! the next are read.

use std::time::{Duration, Instant};

use anyhow::Context;
use argent_cache::claims::Claim;
use argent_decoder::{Model, TooLong};
use argent_llm::{Failure, FailureKind};

use super::{Batch, Next, claim};
use crate::label::llm::local::{answer, conversation, opened, sheet};
use crate::label::llm::purse::Purse;
use crate::label::llm::tries::Outcome;

/// How many prompts are read between two looks at the user: enough to share what they begin with and to fill a batch.
const PROMPTS_AT_ONCE: usize = 32;

impl Batch<'_, '_> {
    /// Asks the model what has no answer yet, and answers the rows as they become complete.
    pub(super) fn ask_in_process(mut self) -> anyhow::Result<()> {
        let step = self.operator;
        let local =
            step.loaded().local.as_ref().context("a model in process is found when files are loaded")?;
        let device = step.endpoint.device(self.io)?;
        let mut held = step.open_model.lock();
        let context = || format!("the model `{}`", step.endpoint.model);
        let model = opened(&mut held, local, device).with_context(context)?;
        let mut purse = Purse::new(self.limit());
        // Prompts about the same findings are read together; asked one by one, those of a report are not.
        self.queue.make_contiguous().sort_by(|one, other| one.names().cmp(&other.names()));
        while let Some(estimate_usd) = self.queue.front().map(|next| next.estimate_usd) {
            if self.io.cancelled() {
                break;
            }
            if !purse.admits(estimate_usd) {
                self.io.stop(purse.reason(estimate_usd));
                break;
            }
            let asked = self.next_claimed(&mut purse)?;
            if asked.is_empty() {
                // Another run is asking all that is left, and this one waits for its answers.
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            self.decide(model, &mut purse, &asked).with_context(context)?;
            let all = self.waiting.len();
            self.io.progress((all - self.open.len()) as u64, all as u64, self.note());
        }
        Ok(())
    }

    /// The next questions of the queue that are about the same findings, claimed for this run.
    fn next_claimed(&mut self, purse: &mut Purse) -> anyhow::Result<Vec<(Next, Claim)>> {
        let (mut taken, mut elsewhere): (Vec<(Next, Claim)>, Vec<Next>) = (Vec::new(), Vec::new());
        while taken.len() < PROMPTS_AT_ONCE {
            let is_alike = |next: &Next| {
                taken.first().is_none_or(|(first, _)| first.sent.request.answer == next.sent.request.answer)
            };
            let fits =
                self.queue.front().is_some_and(|next| is_alike(next) && purse.admits(next.estimate_usd));
            let Some(next) = fits.then(|| self.queue.pop_front()).flatten() else { break };
            match claim(&self.claims, self.tries.memo(), &next.sent)? {
                Some(claim) => {
                    purse.reserve(taken.len(), next.estimate_usd);
                    taken.push((next, claim));
                }
                None => elsewhere.push(next),
            }
        }
        self.asked_elsewhere(elsewhere)?;
        Ok(taken)
    }

    /// Lets the model read prompts, and keeps what it says.
    fn decide(
        &mut self,
        model: &mut Model,
        purse: &mut Purse,
        asked: &[(Next, Claim)],
    ) -> anyhow::Result<()> {
        let Some((first, _)) = asked.first() else { return Ok(()) };
        let sheet = sheet(model, &first.sent.request)?;
        let prompts: Vec<_> = asked.iter().map(|(next, _)| conversation(&next.sent.request)).collect();
        let began = Instant::now();
        let said = model.decide(&prompts, &sheet)?;
        let seconds = began.elapsed().as_secs_f64() / asked.len() as f64;
        for (number, ((next, _), said)) in asked.iter().zip(said).enumerate() {
            let name = &self.operator.endpoint.model;
            let outcome = match said {
                Ok(said) => Ok(answer(&next.sent.request, &said, name, seconds)?),
                Err(too_long) => Err(unread(too_long)),
            };
            let usd = self.charge(&outcome);
            purse.settle(number, usd);
            match outcome {
                Ok(answer) => {
                    if self.answered(next, answer)? {
                        continue;
                    }
                }
                Err(failure) => self.tries.keep(&next.sent, &Outcome::Failed(failure))?,
            }
            self.look_again(next.question)?;
        }
        Ok(())
    }
}

impl Next {
    /// The findings that it asks about.
    fn names(&self) -> Vec<&str> {
        self.sent.request.questions().iter().map(|question| question.name.as_str()).collect()
    }
}

/// A prompt that the model cannot read whole; the same would come of it again.
fn unread(too_long: TooLong) -> Failure {
    let message = format!("{too_long}; the model cannot read it whole, and it was not cut");
    Failure::new(FailureKind::ContextLength, message)
}
