//! `argent try`: what a step asks about a few rows, what is answered, and its rows beside those that there are.

use std::collections::{BTreeMap, HashSet};
use std::process::ExitCode;

use argent_engine::operator::Projection;
use argent_engine::trial::{Choice, Stopped, Trial, TriedExchange, TriedOutput, TriedRow};
use argent_engine::{Engine, Options};
use serde_json::json;

use crate::args::{Arguments, TryArguments};
use crate::progress::warnings;
use crate::session::{interruption, pipeline, runtime, store};
use crate::table::{aligned, count, dollars};

/// A cell of so many characters is shown whole; JSON holds all of any.
const CELL_CHARACTERS: usize = 60;

/// Tries a step.
pub(crate) fn attempt(arguments: &Arguments, wanted: &TryArguments) -> anyhow::Result<ExitCode> {
    let pipeline = match pipeline(arguments, &wanted.spec) {
        Ok(pipeline) => pipeline,
        Err(code) => return Ok(code),
    };
    let store = store(arguments, Some(&wanted.spec.spec))?;
    let runtime = runtime()?;
    let _entered = runtime.enter();
    let cancelled = interruption()?;
    let engine = Engine {
        pipeline: &pipeline,
        store: &store,
        options: Options { max_usd: wanted.max_usd, retry_errors: wanted.retry_errors, ..Options::default() },
        events: &warnings,
        on_thread: &|work| {
            let _entered = runtime.enter();
            work();
        },
        cancelled: &cancelled,
    };
    let choice = wanted.id.clone().map_or(Choice::Rows(wanted.rows), Choice::Id);
    let trial = engine.attempt(&wanted.step, &choice)?;
    if wanted.json {
        println!("{}", json!({ "pipeline": pipeline.name, "trial": trial }));
    } else {
        print!("{}", shown(&trial));
    }
    Ok(ended(trial.stopped.as_ref()))
}

/// Says why a trial ended early, and gives its exit code.
pub(crate) fn ended(stopped: Option<&Stopped>) -> ExitCode {
    match stopped {
        None => ExitCode::SUCCESS,
        Some(Stopped::Budget(reason)) => {
            eprintln!("stopped: {reason}");
            ExitCode::from(3)
        }
        Some(Stopped::Interrupted) => {
            eprintln!("interrupted");
            ExitCode::from(130)
        }
    }
}

/// A trial as text.
fn shown(trial: &Trial) -> String {
    let beside = match &trial.before {
        Some(made) => format!("beside the result of {made}"),
        None => "there is no result beside them yet".to_owned(),
    };
    let (tried, total) = (trial.rows.len(), count(trial.total, "row"));
    let mut text = format!("{} ({}): {tried} of {total}, {beside}\n", trial.step, trial.r#use);
    let columns = told_columns(trial);
    for row in &trial.rows {
        text.push_str(&format!("\n{}", shown_row(row, trial, &columns)));
    }
    text.push_str(&format!("\n{}", summary(trial)));
    text
}

/// The columns that any row has a cell in.
fn told_columns(trial: &Trial) -> Vec<&str> {
    let outputs: Vec<&TriedOutput> = trial.rows.iter().flat_map(|row| &row.outputs).collect();
    let has_cell = |name: &&str| {
        let sides = outputs.iter().flat_map(|output| [&output.after, &output.before]);
        sides.flatten().any(|cells| cells.get(*name).is_some_and(Option::is_some))
    };
    trial.columns.iter().map(String::as_str).filter(has_cell).collect()
}

fn shown_row(row: &TriedRow, trial: &Trial, columns: &[&str]) -> String {
    let name: Vec<String> = row.row.iter().map(|(name, cell)| format!("{name} {cell}")).collect();
    let mut text = format!("{}\n", name.join(", "));
    for tried in &row.exchanges {
        text.push_str(&shown_exchange(tried));
        // Of a row's only question, the row itself says it.
        let problem = tried.exchange.problem.as_ref().filter(|_| row.exchanges.len() > 1);
        text.extend(problem.map(|problem| format!("  failed: {problem}\n")));
    }
    if !row.outputs.is_empty() {
        text.push_str(&indented(&outputs(row, trial, columns), 2));
    }
    if let Some(error) = &row.error {
        text.push_str(&format!("  failed: {}: {}\n", error.kind, error.message));
    } else if row.outputs.iter().all(|output| output.after.is_none()) && trial.stopped.is_some() {
        text.push_str("  not tried\n");
    }
    text
}

fn shown_exchange(tried: &TriedExchange) -> String {
    let exchange = &tried.exchange;
    let mut text = String::new();
    for message in &exchange.messages {
        text.push_str(&format!("  {}\n{}", message.role, indented(&message.text, 4)));
    }
    if exchange.call.is_none() {
        return text;
    }
    let mut facts = vec![if tried.sent { "sent now" } else { "was there" }.to_owned()];
    facts.extend(exchange.model.clone());
    if let Some(usage) = exchange.usage {
        facts.push(tokens(usage.tokens_in, usage.tokens_cached, usage.tokens_out));
        facts.extend(usage.usd.map(dollars));
    }
    let word = if exchange.answer.is_some() { "answer" } else { "no answer" };
    text.push_str(&format!("  {word} ({})\n", facts.join(", ")));
    text.extend(exchange.answer.as_ref().map(|answer| indented(answer, 4)));
    text
}

fn tokens(input: u64, cached: u64, output: u64) -> String {
    let cached = if cached > 0 { format!(" ({cached} cached)") } else { String::new() };
    format!("{input} tokens in{cached}, {output} out")
}

/// The rows of one input row: a label has a column of what it was before, another cell shows both where they differ.
fn outputs(row: &TriedRow, trial: &Trial, columns: &[&str]) -> String {
    let beside = trial.before.is_some();
    let mut header: Vec<&str> = Vec::new();
    for column in columns {
        header.push(column);
        header.extend((beside && Some(*column) == trial.label).then_some("before"));
    }
    header.extend(beside.then_some(""));
    let line = |output: &TriedOutput| {
        let mut cells = Vec::new();
        for column in columns {
            let of = |side: &Option<_>| side.as_ref().map(|cells| cell(cells, column));
            let (after, before) = (of(&output.after), of(&output.before));
            if beside && Some(*column) == trial.label {
                cells.extend([after.unwrap_or_else(|| "(gone)".to_owned()), before.unwrap_or_default()]);
                continue;
            }
            cells.push(match (after, before) {
                (Some(after), Some(before)) if after != before => format!("{before} -> {after}"),
                (Some(cell), _) | (None, Some(cell)) => cell,
                (None, None) => String::new(),
            });
        }
        let word = if trial.label.is_some() { "flip" } else { "changed" };
        cells.extend(beside.then(|| if output.flipped { word.to_owned() } else { String::new() }));
        cells
    };
    aligned(&header, &row.outputs.iter().map(line).collect::<Vec<_>>())
}

fn cell(cells: &BTreeMap<String, Option<String>>, column: &str) -> String {
    let text = cells.get(column).cloned().flatten().unwrap_or_else(|| "null".to_owned());
    match text.char_indices().nth(CELL_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn summary(trial: &Trial) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    let outputs: Vec<&TriedOutput> = trial.rows.iter().flat_map(|row| &row.outputs).collect();
    if trial.before.is_some() {
        let both = outputs.iter().filter(|output| output.after.is_some() && output.before.is_some()).count();
        let flipped = outputs.iter().filter(|output| output.flipped).count();
        let (word, what) = if trial.label.is_some() { ("flips", "labels") } else { ("changed", "rows") };
        lines.push(vec![word.to_owned(), format!("{flipped} of {both} {what}")]);
    }
    if let Some(rest) = &trial.rest {
        lines.push(vec!["tried".to_owned(), tried(trial)]);
        lines.push(vec!["rest".to_owned(), remaining(trial.rest_rows, rest)]);
    } else {
        lines.push(vec!["rest".to_owned(), count(trial.rest_rows, "row")]);
    }
    lines.iter().map(|line| format!("{:<7}  {}\n", line[0], line[1])).collect()
}

/// What a trial spent, and how many calls it found that were made before.
pub(crate) fn tried(trial: &Trial) -> String {
    let stats = &trial.tried;
    let mut facts = vec![count(stats.requests, "request")];
    if stats.requests > 0 {
        facts.push(tokens(stats.tokens_in, stats.tokens_cached, stats.tokens_out));
        facts.extend(stats.usd.map(dollars));
    }
    let calls =
        trial.rows.iter().flat_map(|row| &row.exchanges).filter(|tried| tried.exchange.call.is_some());
    let sent: HashSet<&Option<String>> =
        calls.clone().filter(|tried| tried.sent).map(|tried| &tried.exchange.call).collect();
    let there: HashSet<&Option<String>> =
        calls.map(|tried| &tried.exchange.call).filter(|call| !sent.contains(call)).collect();
    if !there.is_empty() {
        facts.push(format!("{} there before", count(there.len() as u64, "answer")));
    }
    facts.join(", ")
}

/// What the rows take that were not tried.
pub(crate) fn remaining(rows: u64, rest: &Projection) -> String {
    let mut facts = vec![format!("{} by {}", count(rows, "row"), count(rest.requests, "request"))];
    if rest.requests > 0 {
        if let (Some(input), Some(output)) = (rest.tokens_in, rest.tokens_out) {
            facts.push(format!("about {}", tokens(input, 0, output)));
        }
        facts.push(cost(rest));
    }
    facts.join(", ")
}

/// A projected cost with its interval.
fn cost(rest: &Projection) -> String {
    match (rest.usd, rest.tokens_in) {
        (Some(usd), _) => {
            let interval = cost_interval(rest).map(|bounds| format!(" (95% interval {bounds})"));
            dollars(usd) + &interval.unwrap_or_default()
        }
        (None, Some(_)) => "price unknown".to_owned(),
        (None, None) => "nothing measured yet".to_owned(),
    }
}

/// The interval of a projected cost, where there is one.
pub(crate) fn cost_interval(rest: &Projection) -> Option<String> {
    let (low, high) = rest.usd_low.zip(rest.usd_high)?;
    Some(format!("{}-{}", dollars(low), dollars(high).trim_start_matches('$')))
}

fn indented(text: &str, blanks: usize) -> String {
    let line = |line: &str| format!("{}{line}", " ".repeat(blanks)).trim_end().to_owned() + "\n";
    text.lines().map(line).collect()
}
