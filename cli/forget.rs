//! `argent forget`.

use std::process::ExitCode;

use anyhow::Context;
use argent_engine::forget::{self, Forgotten, Predicate, WrongPredicate};
use argent_engine::shared_memo;
use argent_operators::{SHARED_MEMOS, predicate};

use crate::args::{Arguments, ForgetArguments};
use crate::session::{WRONG, existing_store};
use crate::table::{aligned, count, seconds};

/// Removes every trace of the rows that a predicate names, and shows what that was; nobody is named.
pub(crate) fn forget(arguments: &Arguments, wanted: &ForgetArguments) -> anyhow::Result<ExitCode> {
    let store = existing_store(arguments, None)?;
    let rows = Predicate {
        columns: &|schema| predicate::columns(&wanted.predicate, schema),
        holds: &|rows| predicate::evaluate(&wanted.predicate, rows),
    };
    let shared = SHARED_MEMOS.map(|name| shared_memo(&store, name));
    let forgotten = if wanted.plan {
        forget::plan(&store, &rows, &shared)
    } else {
        let alone = store.alone()?.context(
            "another argent process has the store open and may be writing what is to be forgotten; run it again \
             when that has ended",
        )?;
        forget::forget(&store, &alone, &rows, &shared)
    };
    let forgotten = match forgotten {
        Err(error) if error.is::<WrongPredicate>() => {
            eprintln!("error: {error}");
            return Ok(ExitCode::from(WRONG));
        }
        forgotten => forgotten?,
    };
    if wanted.json {
        println!("{}", serde_json::to_string(&forgotten)?);
    } else {
        print!("{}", shown(&forgotten, wanted.plan));
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(forgotten: &Forgotten, plan: bool) -> String {
    let mut text = String::new();
    if !forgotten.tables.is_empty() {
        let rows = forgotten.tables.iter().map(|loss| {
            let output = if loss.output.is_empty() { "main" } else { &loss.output };
            vec![steps(&loss.steps), output.to_owned(), loss.versions.to_string(), loss.rows.to_string()]
        });
        text = aligned(&["step", "table", "versions", "rows"], &rows.collect::<Vec<_>>());
        text.push('\n');
    }
    if !forgotten.made_from.is_empty() {
        let rows = forgotten.made_from.iter().map(|made| {
            let usd = made.usd.map_or("-".to_owned(), |usd| format!("${usd:.4}"));
            vec![steps(&made.steps), made.operator.clone(), usd, seconds(made.seconds)]
        });
        text.push_str(&aligned(&["made from them", "operator", "cost", "time"], &rows.collect::<Vec<_>>()));
        text.push_str("These stay to be asked and are not used again: the next run makes them anew.\n\n");
    }
    let (remove, bury) = if plan { ("would remove", "would refuse") } else { ("removed", "refuses") };
    text.push_str(&format!(
        "{remove} {}, {}{}, {}\n",
        count(forgotten.answers, "answer"),
        count(forgotten.calls, "request"),
        forgotten.calls_usd.map_or(String::new(), |usd| format!(" of ${usd:.4}")),
        count(forgotten.side_files, "side file"),
    ));
    if forgotten.source_files > 0 {
        text.push_str(&format!(
            "{} that a step of a pipeline made still name them: take them out where these come from\n",
            count(forgotten.source_files, "text file"),
        ));
    }
    if !forgotten.named_in.is_empty() {
        let named = forgotten.named_in.iter().map(|names| steps(names)).collect::<Vec<_>>().join(", ");
        text.push_str(&format!(
            "results whose parameters name them, which go as a whole: {named}; take the names out of the spec\n"
        ));
    }
    let values = forgotten.subjects.iter().map(|(column, number)| format!("{number} of `{column}`"));
    let values = values.collect::<Vec<_>>().join(", ");
    match values.is_empty() {
        true => text.push_str("no row that is still there has ids of its own that the predicate names\n"),
        false => text.push_str(&format!("the store {bury} to take in again: {values}\n")),
    }
    text
}

fn steps(steps: &[String]) -> String {
    if steps.is_empty() { "-".to_owned() } else { steps.join(", ") }
}
