//! `argent doctor`: whether everything that a pipeline needs is there, and what to do where it is not.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use argent_cache::Store;
use argent_engine::operator::{Condition, FILES};
use argent_engine::pipeline::Node;
use argent_engine::{Pipeline, Resources, table};
use serde_json::json;

use crate::args::{Arguments, DoctorArguments};
use crate::session::{pipeline, runtime, store_root};
use crate::table::{aligned, bytes, count};

/// Less free space than this is told of: one grid of volumes takes as much.
const LITTLE_BYTES: u64 = 10 << 30;

/// Less than this, and a run will hardly come through.
const TOO_LITTLE_BYTES: u64 = 1 << 30;

/// Looks at everything that a pipeline needs.
pub(crate) fn doctor(arguments: &Arguments, doctor: &DoctorArguments) -> anyhow::Result<ExitCode> {
    let pipeline = match pipeline(arguments, &doctor.spec) {
        Ok(pipeline) => pipeline,
        Err(code) => return Ok(code),
    };
    // Servers are asked on it.
    let runtime = runtime()?;
    let _entered = runtime.enter();
    let mut found: Vec<(String, Condition)> =
        store_conditions(&store_root(arguments, Some(&doctor.spec.spec))?)
            .into_iter()
            .map(|condition| (String::new(), condition))
            .collect();
    let resources = argent_operators::gpus::resources();
    for node in pipeline.nodes.iter().filter(|node| node.contract.is_none()) {
        let conditions = step_conditions(&pipeline, node, &resources, doctor.probe);
        found.extend(conditions.into_iter().map(|condition| (node.name.clone(), condition)));
    }
    if pipeline.nodes.iter().any(|node| node.needs.contains_key("gpu")) {
        found.extend(argent_operators::gpus::conditions().into_iter().map(|gpu| (String::new(), gpu)));
    }
    let is_well = found.iter().all(|(_, condition)| condition.advice.is_none());
    match doctor.json {
        true => println!("{}", as_json(is_well, &found)),
        false => print!("{}", as_text(&found)),
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn as_json(is_well: bool, found: &[(String, Condition)]) -> serde_json::Value {
    let conditions: Vec<serde_json::Value> = found
        .iter()
        .map(|(step, condition)| {
            json!({
                "step": (!step.is_empty()).then_some(step),
                "subject": condition.subject,
                "ok": condition.advice.is_none(),
                "found": condition.found,
                "advice": condition.advice,
            })
        })
        .collect();
    json!({ "ok": is_well, "conditions": conditions })
}

fn as_text(found: &[(String, Condition)]) -> String {
    let row = |(step, condition): &(String, Condition)| {
        let outcome = if condition.advice.is_none() { "ok" } else { "wrong" };
        let advice = condition.advice.iter().map(|advice| format!("; {advice}"));
        let said = std::iter::once(condition.found.clone()).chain(advice).collect();
        vec![outcome.to_owned(), step.clone(), condition.subject.clone(), said]
    };
    aligned(&["", "step", "what", "found"], &found.iter().map(row).collect::<Vec<_>>())
}

/// What a step needs of the machine.
fn step_conditions(pipeline: &Pipeline, node: &Node, resources: &Resources, probe: bool) -> Vec<Condition> {
    let mut all: Vec<Condition> = files(pipeline, node).into_iter().collect();
    if !node.needs.is_empty() {
        all.push(needs(node, resources));
    }
    all.extend(node.operator.surroundings(&pipeline.folder));
    // A server that is not there need not be probed.
    if probe && all.iter().all(|condition| condition.advice.is_none()) {
        all.extend(node.operator.probes());
    }
    all
}

/// The files that a step reads from disk; none where it reads none, or another step makes them.
fn files(pipeline: &Pipeline, node: &Node) -> Option<Condition> {
    let patterns = node.operator.patterns();
    if patterns.is_empty() || node.inputs.iter().any(|input| input.port == FILES) {
        return None;
    }
    let subject = format!("files {}", patterns.join(", "));
    let found = table::matching_paths(&pipeline.folder, &patterns).and_then(|paths| {
        let unreadable = paths.iter().filter(|path| std::fs::File::open(path).is_err()).count();
        anyhow::ensure!(
            unreadable == 0,
            "{} of {} do not open",
            unreadable,
            count(paths.len() as u64, "file")
        );
        Ok(paths.len() as u64)
    });
    Some(match found {
        Ok(0) => Condition::unmet(subject, "none", "put them there, or change the pattern"),
        Ok(number) => Condition::met(subject, count(number, "file")),
        Err(error) => Condition::unmet(subject, format!("{error:#}"), "make them readable for you"),
    })
}

/// Processors, memory and GPUs.
fn needs(node: &Node, resources: &Resources) -> Condition {
    let asked: Vec<String> = node.needs.iter().map(|(name, number)| format!("{name} {number}")).collect();
    let subject = format!("needs {}", asked.join(", "));
    match resources.lack(&node.needs) {
        None => Condition::met(subject, "this machine has it"),
        Some(lack) => Condition::unmet(subject, lack, "run it on a machine that has it"),
    }
}

/// The store: whether it can be written, and the space around it. Nothing is made where it is not there yet.
fn store_conditions(root: &Path) -> Vec<Condition> {
    let subject = format!("store {}", root.display());
    if !root.exists() {
        let parent = nearest_folder(root);
        let writable = tempfile::tempfile_in(&parent).is_ok();
        let condition = match writable {
            true => Condition::met(subject, "not there yet; the first run makes it"),
            false => Condition::unmet(
                subject,
                format!("not there yet, and {} cannot be written", parent.display()),
                "choose another place with --store",
            ),
        };
        return vec![condition, disk(&parent)];
    }
    let opened = Store::open(root).map(drop).and_then(|()| Ok(tempfile::tempfile_in(root).map(drop)?));
    let condition = match opened {
        Ok(()) => Condition::met(subject, "opens, and can be written"),
        Err(error) => {
            Condition::unmet(subject, format!("{error:#}"), "mend it, or choose another with --store")
        }
    };
    vec![condition, disk(root)]
}

/// The nearest folder upward that is there.
fn nearest_folder(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// The free space of the disk that a folder lies on.
fn disk(folder: &Path) -> Condition {
    let subject = "disk of the store";
    let free = match rustix::fs::statvfs(folder) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(error) => return Condition::unmet(subject, error.to_string(), "choose another with --store"),
    };
    let free_text = format!("{} free", bytes(free));
    if free < TOO_LITTLE_BYTES {
        let advice = "make room: `argent gc --plan` shows what is needed no more";
        return Condition::unmet(subject, free_text, advice);
    }
    let note = if free < LITTLE_BYTES { ", which is little: volumes on one grid take as much" } else { "" };
    Condition::met(subject, format!("{free_text}{note}"))
}
