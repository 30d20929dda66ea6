//! What is asked about reports and what has come of it, for people to look at, and what the rest will cost by it.

use std::collections::BTreeMap;

use argent_cache::Digest;
use argent_engine::Io;
use argent_engine::operator::{Exchange, Price as PlannedPrice, Projection, Said, Usage as ShownUsage};
use argent_llm::{AnswerForm, Options, Request, Usage};
use argent_stats::{RatioTotal, ratio_total};
use arrow::array::RecordBatch;

use super::LabelLlm;
use super::question::{Asker, Question};
use super::tries::{Call, Tries};
use crate::label::rules::sections_of;

/// The coverage of the interval around a projected cost.
const LEVEL: f64 = 0.95;

/// By report: its questions, and every call that they have led to.
pub(super) fn exchanges(step: &LabelLlm, rows: &RecordBatch, io: &Io) -> anyhow::Result<Vec<Vec<Exchange>>> {
    let (tries, examples) = (Tries::open(step, io)?, step.examples(io)?);
    let asker = Asker::new(step, io, &examples)?;
    let texts = step.section_texts(rows)?;
    let of_row = |row: usize| -> anyhow::Result<Vec<Exchange>> {
        // A prompt that does not render asks nothing: its row fails before anything is sent.
        let questions = asker.questions(&sections_of(&texts, row)).unwrap_or_default();
        let mut all = Vec::new();
        for question in &questions {
            all.extend(of_question(step, &tries, question)?);
        }
        Ok(all)
    };
    (0..rows.num_rows()).map(of_row).collect()
}

/// The calls of a question, the first of them and those that mended it; where there is none, the request alone.
fn of_question(step: &LabelLlm, tries: &Tries<'_>, question: &Question) -> anyhow::Result<Vec<Exchange>> {
    let (estimated_tokens_in, estimated_tokens_out) = question.estimate();
    let exchange = |request: &Request| Exchange {
        question: question.key.to_string(),
        call: None,
        messages: messages(request),
        estimated_tokens_in,
        estimated_tokens_out,
        answer: None,
        model: None,
        usage: None,
        problem: None,
    };
    let calls = tries.calls_of(question)?;
    if calls.is_empty() {
        return Ok(vec![exchange(&question.request)]);
    }
    let answered = |(key, call, problem): (Digest, Call, Option<String>)| {
        let canonical = serde_json::from_str(call.request.get()).ok();
        let request = canonical.and_then(|canonical| Request::of_canonical(&canonical));
        let answer = call.outcome.answer();
        Exchange {
            call: Some(key.to_string()),
            answer: answer.map(|answer| answer.text.clone()),
            model: answer.map(|answer| answer.model.clone()).filter(|model| !model.is_empty()),
            usage: call.outcome.usage().map(|usage| shown_usage(step, &usage)),
            problem,
            ..exchange(request.as_ref().unwrap_or(&question.request))
        }
    };
    Ok(calls.into_iter().map(answered).collect())
}

fn messages(request: &Request) -> Vec<Said> {
    let role = |message: &argent_llm::Message| serde_json::json!(message.role).as_str().map(str::to_owned);
    let said = request.messages.iter();
    let said = said.map(|m| Said { role: role(m).unwrap_or_default(), text: m.content.clone() });
    let questions = match &request.answer {
        AnswerForm::Json(_) => None,
        AnswerForm::Decisions(questions) => {
            let line = |question: &argent_llm::Question| {
                let options = match &question.options {
                    Options::Choice(values) => {
                        values.iter().map(|(value, _)| value.as_str()).collect::<Vec<_>>().join(", ")
                    }
                    Options::Predicate => "yes or no".to_owned(),
                };
                format!("{}: {} ({options})\n", question.name, question.instructions)
            };
            Some(Said { role: "questions".to_owned(), text: questions.iter().map(line).collect() })
        }
    };
    said.chain(questions).collect()
}

fn shown_usage(step: &LabelLlm, usage: &Usage) -> ShownUsage {
    ShownUsage {
        tokens_in: usage.tokens_in,
        tokens_cached: usage.tokens_cached,
        tokens_out: usage.tokens_out,
        usd: step.price.map(|price| price.kernel().cost(usage)),
    }
}

/// What the rest will take: measured tokens and dollars of a question, answers that had to be mended included, in
/// proportion to the estimated ones, which are known of every question.
pub(super) fn project(
    step: &LabelLlm,
    measured: &[Exchange],
    rest: &PlannedPrice,
) -> anyhow::Result<Projection> {
    let questions = by_question(measured);
    let tokens_in = total(
        &questions,
        rest.tokens_in as f64,
        |e| e.estimated_tokens_in as f64,
        |usage| Some(usage.tokens_in as f64),
    )?;
    let tokens_out = total(
        &questions,
        rest.tokens_out as f64,
        |e| e.estimated_tokens_out as f64,
        |usage| Some(usage.tokens_out as f64),
    )?;
    let cost = |tokens_in, tokens_out| {
        step.price.map(|price| price.kernel().cost(&Usage { tokens_in, tokens_cached: 0, tokens_out }))
    };
    let usd = match cost(rest.tokens_in, rest.tokens_out) {
        Some(rest) => {
            let size = |e: &Exchange| cost(e.estimated_tokens_in, e.estimated_tokens_out).unwrap_or(0.0);
            total(&questions, rest, size, |usage| usage.usd)?
        }
        None => None,
    };
    let interval = usd.and_then(|usd| usd.interval);
    // Decisions write nothing, so that there is nothing to be in proportion to.
    let no_output = rest.tokens_out == 0;
    let whole = |found: Option<RatioTotal>| found.map(|found| found.total.round() as u64);
    Ok(Projection {
        requests: rest.requests,
        tokens_in: whole(tokens_in),
        tokens_out: whole(tokens_out).or((no_output && tokens_in.is_some()).then_some(0)),
        usd: usd.map(|usd| usd.total),
        usd_low: interval.map(|interval| interval.low),
        usd_high: interval.map(|interval| interval.high),
    })
}

/// The calls of each question.
fn by_question(measured: &[Exchange]) -> Vec<Vec<&Exchange>> {
    let mut questions: BTreeMap<&str, Vec<&Exchange>> = BTreeMap::new();
    for exchange in measured {
        questions.entry(&exchange.question).or_default().push(exchange);
    }
    questions.into_values().collect()
}

/// The total over the rest, by the questions of which every call was measured.
fn total(
    questions: &[Vec<&Exchange>],
    rest: f64,
    size: impl Fn(&Exchange) -> f64,
    value: impl Fn(&ShownUsage) -> Option<f64>,
) -> anyhow::Result<Option<RatioTotal>> {
    let pairs = questions.iter().filter_map(|calls| {
        let took: Option<f64> = calls.iter().map(|call| value(call.usage.as_ref()?)).sum();
        Some((size(calls.first()?), took?))
    });
    let (sizes, values): (Vec<f64>, Vec<f64>) = pairs.unzip();
    Ok(ratio_total(&sizes, &values, rest, LEVEL)?)
}
