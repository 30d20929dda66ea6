//! `argent verify`.

use std::process::ExitCode;

use argent_cache::verify::{Damage, Verification};

use crate::args::{Arguments, VerifyArguments};
use crate::progress::Meter;
use crate::session::existing_store;
use crate::table::{aligned, bytes, count};

/// Reads everything in a store and shows what is damaged or missing.
pub(crate) fn verify(arguments: &Arguments, wanted: &VerifyArguments) -> anyhow::Result<ExitCode> {
    let store = existing_store(arguments, None)?;
    let meter = Meter::new("verifying");
    let found = store.verify(&|done, total| meter.at(done, total))?;
    meter.clear();
    if wanted.json {
        println!("{}", serde_json::to_string(&found)?);
    } else {
        print!("{}", shown(&found));
    }
    Ok(ExitCode::from(u8::from(!found.damage.is_empty())))
}

fn shown(found: &Verification) -> String {
    let read = format!(
        "{} ({}), {}, {}, {}, {}, {}",
        count(found.blobs, "sound blob"),
        bytes(found.bytes),
        count(found.results, "result"),
        count(found.tables, "table"),
        count(found.answers, "answer"),
        count(found.runs, "run"),
        count(found.pipelines, "pipeline"),
    );
    if found.damage.is_empty() {
        return format!("sound: {read}\n");
    }
    let rows: Vec<Vec<String>> = found.damage.iter().map(row).collect();
    let mut text = aligned(&["step", "what", "problem", "do"], &rows);
    let damaged = count(found.damage.len() as u64, "problem");
    text.push_str(&format!("\nnot sound: {damaged}; read were {read}. Nothing was changed.\n"));
    text
}

fn row(damage: &Damage) -> Vec<String> {
    let steps = if damage.steps.is_empty() { "-".to_owned() } else { damage.steps.join(", ") };
    let what = format!("{} {}", damage.what, damage.name);
    vec![steps, what, damage.problem.clone(), damage.advice.clone()]
}
