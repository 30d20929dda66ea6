//! What is asked about reports and what has come of it, for people to look at, and what the rest will cost by it.

use argent_engine::Io;
use argent_engine::operator::{Exchange, Price as PlannedPrice, Projection, Reply, Said};
use argent_llm::{Answer, Usage};
use argent_stats::{RatioTotal, ratio_total};
use arrow::array::RecordBatch;

use super::LabelLlm;
use super::question::{Question, estimate};
use super::tries::{ANSWERS, Outcome, Try, labels, last_try};
use crate::label::rules::sections_of;

/// The coverage of the interval around a projected cost.
const LEVEL: f64 = 0.95;

/// By report: its questions, and what came of the last try of each.
pub(super) fn exchanges(step: &LabelLlm, rows: &RecordBatch, io: &Io) -> anyhow::Result<Vec<Vec<Exchange>>> {
    let answers = io.memo(ANSWERS)?;
    let texts = step.section_texts(rows)?;
    let of_row = |row: usize| {
        // A prompt that does not render asks nothing: its row fails before anything is sent.
        let questions = step.questions(io, &sections_of(&texts, row)).unwrap_or_default().into_iter();
        let shown = questions.map(|question| {
            let last = last_try(io, &answers, question.key)?;
            Ok(exchange(step, &question, last.as_ref()))
        });
        shown.collect()
    };
    (0..rows.num_rows()).map(of_row).collect()
}

fn exchange(step: &LabelLlm, question: &Question, last: Option<&Try>) -> Exchange {
    let (estimated_tokens_in, estimated_tokens_out) = estimate(question);
    let messages = question.request.messages.iter().map(|message| Said {
        role: serde_json::to_value(message.role)
            .ok()
            .and_then(|role| role.as_str().map(str::to_owned))
            .unwrap_or_default(),
        text: message.content.clone(),
    });
    let answer = last.and_then(|last| match &last.kept.outcome {
        Outcome::Answered(answer) => Some(reply(step, answer)),
        Outcome::Failed(_) => None,
    });
    Exchange {
        question: question.key.to_string(),
        messages: messages.collect(),
        estimated_tokens_in,
        estimated_tokens_out,
        tries: last.map_or(0, |last| last.number + 1),
        answer,
        problem: last.and_then(|last| labels(&last.kept, &question.ids).err()).map(|error| error.message),
    }
}

fn reply(step: &LabelLlm, answer: &Answer) -> Reply {
    let usage = answer.usage;
    Reply {
        text: answer.text.clone(),
        model: answer.model.clone(),
        tokens_in: usage.map(|usage| usage.tokens_in),
        tokens_cached: usage.map(|usage| usage.tokens_cached),
        tokens_out: usage.map(|usage| usage.tokens_out),
        usd: usage.and_then(|usage| Some(step.price?.kernel().cost(&usage))),
    }
}

/// What the rest will take: measured tokens and dollars in proportion to the estimated ones, which are known of every
/// request.
pub(super) fn project(
    step: &LabelLlm,
    measured: &[Exchange],
    rest: &PlannedPrice,
) -> anyhow::Result<Projection> {
    let tokens_in = total(
        measured,
        rest.tokens_in as f64,
        |e| e.estimated_tokens_in as f64,
        |r| Some(r.tokens_in? as f64),
    )?;
    let tokens_out = total(
        measured,
        rest.tokens_out as f64,
        |e| e.estimated_tokens_out as f64,
        |r| Some(r.tokens_out? as f64),
    )?;
    let cost = |tokens_in, tokens_out| {
        step.price.map(|price| price.kernel().cost(&Usage { tokens_in, tokens_cached: 0, tokens_out }))
    };
    let usd = match cost(rest.tokens_in, rest.tokens_out) {
        Some(rest) => {
            let size = |e: &Exchange| cost(e.estimated_tokens_in, e.estimated_tokens_out).unwrap_or(0.0);
            total(measured, rest, size, |r| r.usd)?
        }
        None => None,
    };
    let interval = usd.and_then(|usd| usd.interval);
    Ok(Projection {
        requests: rest.requests,
        tokens_in: tokens_in.map(|found| found.total.round() as u64),
        tokens_out: tokens_out.map(|found| found.total.round() as u64),
        usd: usd.map(|usd| usd.total),
        usd_low: interval.map(|interval| interval.low),
        usd_high: interval.map(|interval| interval.high),
    })
}

/// The total over the rest, by the measurements that there are.
fn total(
    measured: &[Exchange],
    rest: f64,
    size: impl Fn(&Exchange) -> f64,
    value: impl Fn(&Reply) -> Option<f64>,
) -> anyhow::Result<Option<RatioTotal>> {
    let pairs = measured.iter().filter_map(|exchange| {
        let value = value(exchange.answer.as_ref()?)?;
        Some((size(exchange), value))
    });
    let (sizes, values): (Vec<f64>, Vec<f64>) = pairs.unzip();
    Ok(ratio_total(&sizes, &values, rest, LEVEL)?)
}
