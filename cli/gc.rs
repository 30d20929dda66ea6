//! `argent gc`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context;
use argent_cache::collect::{Collected, CollectedResult, Retention};
use argent_engine::shared_memo;
use argent_operators::SHARED_MEMOS;

use crate::args::{Arguments, GcArguments};
use crate::session::existing_store;
use crate::table::{aligned, bytes, count, seconds};

/// Removes what no pipeline, kept run or named run needs.
pub(crate) fn gc(arguments: &Arguments, wanted: &GcArguments) -> anyhow::Result<ExitCode> {
    let store = existing_store(arguments, None)?;
    let retention = Retention {
        runs: wanted.keep_runs,
        paid: !wanted.paid,
        shared_memos: SHARED_MEMOS.map(|name| shared_memo(&store, name)).to_vec(),
    };
    let collected = if wanted.plan {
        store.garbage(&retention)?
    } else {
        let alone = store.alone()?.context(
            "another argent process has the store open and may be using what would go; collect when it has ended",
        )?;
        store.collect(&alone, &retention)?
    };
    if wanted.json {
        println!("{}", serde_json::to_string(&collected)?);
    } else {
        print!("{}", shown(&collected, wanted.plan));
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(collected: &Collected, plan: bool) -> String {
    let mut text = String::new();
    if !collected.results.is_empty() {
        let header = ["step", "operator", "results", "size", "cost", "time"];
        text = aligned(&header, &by_step(&collected.results));
        text.push('\n');
    }
    let (free, drop) = if plan { ("would free", "would drop") } else { ("freed", "dropped") };
    text.push_str(&format!(
        "{free} {}: {}, {} of interrupted work, {} of row operators\n",
        bytes(collected.bytes()),
        count(collected.results.len() as u64, "result"),
        count(collected.leftovers, "blob"),
        count(collected.memos, "memo"),
    ));
    if collected.checkpoints > 0 {
        let states = count(collected.checkpoints, "state");
        text.push_str(&format!("{drop} {states} of steps that have ended or were left for 30 days\n"));
    }
    if collected.answers + collected.absent_files > 0 {
        text.push_str(&format!(
            "{drop} {} that no kept table is about, and the digests of {} that are gone\n",
            count(collected.answers, "answer"),
            count(collected.absent_files, "file"),
        ));
    }
    if !collected.kept_paid.is_empty() {
        let (usd, _) = price(&collected.kept_paid.iter().collect::<Vec<_>>());
        text.push_str(&format!(
            "kept because they were paid for: {}, {usd} (--paid collects them too)\n",
            count(collected.kept_paid.len() as u64, "result"),
        ));
    }
    text
}

/// The results of each step together: what they take, and what making them took.
fn by_step(results: &[CollectedResult]) -> Vec<Vec<String>> {
    let mut steps: BTreeMap<(String, &str), Vec<&CollectedResult>> = BTreeMap::new();
    for result in results {
        let name = if result.steps.is_empty() { "-".to_owned() } else { result.steps.join(", ") };
        steps.entry((name, &result.operator)).or_default().push(result);
    }
    let row = |((step, operator), results): ((String, &str), Vec<&CollectedResult>)| {
        let (usd, time) = price(&results);
        let size = bytes(results.iter().map(|result| result.bytes).sum());
        vec![step, operator.to_owned(), results.len().to_string(), size, usd, time]
    };
    steps.into_iter().map(row).collect()
}

/// What making results again would cost, if it cost what it did: dollars and time.
fn price(results: &[&CollectedResult]) -> (String, String) {
    let dollars: Vec<f64> = results.iter().filter_map(|result| result.usd).collect();
    let usd =
        if dollars.is_empty() { "-".to_owned() } else { format!("${:.4}", dollars.iter().sum::<f64>()) };
    (usd, seconds(results.iter().map(|result| result.seconds).sum()))
}
