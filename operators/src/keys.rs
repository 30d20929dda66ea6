//! Proves that whatever can change a result changes its key: each field of each operator's parameters is changed in
//! turn, and so is each part of the configuration files that parameters name.

mod fields;
mod flawed;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use argent_engine::check::check;
use argent_engine::diagnostic::Sources;
use argent_engine::operator::{FILES, NOT_IN_KEY};
use argent_engine::spec::{self, Given, Spec};
use argent_engine::{Entry, Kind, Pipeline, Registry, StaticAnswers};
use argent_reports::Pack;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::registry;
use fields::Fields;
use flawed::Flawed;

#[test]
fn every_parameter_changes_the_key_or_says_why_not() {
    let shipped = shipped_parameters();
    let registry = registry();
    let mut wrong = BTreeSet::new();
    for entry in registry.entries() {
        let examples = shipped.get(entry.name).map_or(&[][..], Vec::as_slice);
        wrong.extend(Fields::change_each(entry, examples));
    }
    assert!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_parameter_that_is_forgotten_in_the_key_is_found_at_any_depth() {
    let entry = Entry::new::<Flawed>("flawed", 1, Kind::Table);
    let wrong = Fields::change_each(&entry, &[json!({ "good": "a" })]);
    let not_in_key =
        "is changed and the key is not: put it into the key, or mark it x-not-in-key and say why";
    let no_reason = "is marked x-not-in-key and does not say why";
    assert_eq!(
        wrong.into_iter().collect::<Vec<_>>(),
        [
            format!("flawed: `forgotten` {not_in_key}"),
            format!("flawed: `inner[].forgotten` {not_in_key}"),
            format!("flawed: `unexplained` {no_reason}"),
        ]
    );
    let unused = Fields::change_each(&entry, &[]);
    assert!(unused.contains("flawed: no shipped pipeline uses it"), "{unused:?}");
    assert!(unused.contains("flawed: `inner[].forgotten` was never changed"), "{unused:?}");
}

/// By part of a pack: the steps whose key it enters.
const DECIDES: &str = "\
cues.affirmation[]: label.rules
cues.clause_end[]: label.rules
cues.negation_after[]: label.rules
cues.negation_before[]: label.rules
cues.pseudo_negation[]: label.rules
cues.scope_end[]: label.rules
cues.skip[]: label.rules
cues.skip_sections[]: label.rules
cues.uncertain_after[]: label.rules
cues.uncertain_before[]: label.rules
findings[].definition: label.llm prompt.sweep
findings[].id: eval.agreement label.llm label.policy label.rules labels.table prompt.sweep review.export review.import
findings[].name: label.llm labels.table prompt.sweep review.export
findings[].not_mentioned: eval.agreement label.policy prompt.sweep
findings[].rules.absent[]: label.rules
findings[].rules.any[]: label.rules
findings[].rules.except[]: label.rules
findings[].rules.taken_back[].by: label.rules
findings[].rules.taken_back[].phrase: label.rules
findings[].rules.with[].context: label.rules
findings[].rules.with[].term: label.rules
findings[].rules.without[]: label.rules
findings[].synonyms[]: label.llm label.rules prompt.sweep
findings[].uncertain: eval.agreement label.policy prompt.sweep
language: label.rules
maps.other.drop[]: label.map
maps.other.from.effusion[]: label.map
name:
";

#[test]
fn a_finding_pack_enters_the_keys_of_the_steps_that_it_decides() {
    let folder = folder();
    let pack = pack();
    let read: Pack = serde_json::from_value(pack.clone()).expect("it is a pack");
    assert_eq!(
        serde_json::to_value(&read).expect("it is JSON"),
        pack,
        "the pack of this test has every part"
    );
    let before = file_parts(&folder);
    let mut decides: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (pointer, part) in texts_in(&pack, "", "") {
        let mut edited = pack.clone();
        let place = edited.pointer_mut(&pointer).expect("the pack has this part");
        *place = another_text(&part, place.as_str().expect("it is a text"));
        write(&folder, "pack.yaml", &edited.to_string());
        decides.entry(part).or_default().extend(changed(&before, &file_parts(&folder)));
    }
    let mut shown = String::new();
    for (part, steps) in decides {
        let steps: String = steps.iter().map(|step| format!(" {step}")).collect();
        writeln!(shown, "{part}:{steps}").expect("a text grows");
    }
    assert_eq!(shown, DECIDES);
}

#[test]
fn a_prompt_and_a_query_enter_the_key_by_what_they_say() {
    let folder = folder();
    let before = file_parts(&folder);
    write(&folder, "prompt.md", "Label this report: {{ report.text }}");
    assert_eq!(changed(&before, &file_parts(&folder)), ["label.llm"]);
    write(&folder, "prompt.md", PROMPT);
    write(&folder, "swept.md", "Label this report: {{ report.text }}");
    assert_eq!(changed(&before, &file_parts(&folder)), ["prompt.sweep"]);
    write(&folder, "swept.md", PROMPT);
    if cfg!(feature = "sql") {
        write(&folder, "p.yaml", &spec_text().replace("'present'", "'absent'"));
        assert_eq!(changed(&before, &file_parts(&folder)), ["sql"]);
        write(&folder, "p.yaml", &spec_text().replace("select id", "SELECT  id"));
        assert_eq!(
            changed(&before, &file_parts(&folder)),
            Vec::<String>::new(),
            "white space is not a value"
        );
    }
    for (name, other) in [("pack.yaml", "same-pack.yaml"), ("prompt.md", "same-prompt.md")] {
        std::fs::rename(folder.path().join(name), folder.path().join(other)).expect("the file moves");
        write(&folder, "p.yaml", &spec_text().replace(name, other));
        assert_eq!(
            changed(&before, &file_parts(&folder)),
            Vec::<String>::new(),
            "a file's name is not a value"
        );
        std::fs::rename(folder.path().join(other), folder.path().join(name)).expect("the file moves back");
    }
}

#[test]
fn a_parameter_that_enters_the_key_in_another_way_does_so() {
    let folder = folder();
    let pipeline = checked(&folder, &registry());
    for entry in registry().entries() {
        let schema = entry.schema();
        for (parameter, field) in schema["properties"].as_object().into_iter().flatten() {
            let reason = field.get(NOT_IN_KEY).and_then(Value::as_str).unwrap_or("");
            if !(reason.contains("enter the key by") || reason.contains("enters the key by")) {
                continue;
            }
            let node = pipeline.nodes.iter().find(|node| node.operator_name == entry.name);
            let node =
                node.unwrap_or_else(|| panic!("the pipeline of this test has no step of {}", entry.name));
            let by_content = node.files.contains_key(parameter);
            let reads = node.signature.reads.get(FILES);
            let by_rows = ["path", "inputs"].contains(&parameter.as_str())
                && reads.is_some_and(|read| read.contains(&"digest".to_owned()));
            assert!(by_content || by_rows, "{}: `{parameter}` says `{reason}`, and does not", entry.name);
        }
    }
}

const PROMPT: &str = "Label the report: {{ report.text }}";

/// A pack with every part that packs have.
fn pack() -> Value {
    let cues = [
        "negation_before",
        "negation_after",
        "pseudo_negation",
        "uncertain_before",
        "uncertain_after",
        "skip",
        "scope_end",
        "affirmation",
        "clause_end",
        "skip_sections",
    ];
    let cues: serde_json::Map<String, Value> =
        cues.map(|cue| (cue.to_owned(), json!(["word"]))).into_iter().collect();
    let rules = json!({
        "any": ["effusions?"],
        "with": [{ "term": "fluid", "context": "pleural" }],
        "without": ["pericardial"],
        "except": ["effusion score"],
        "absent": ["lungs are clear"],
        "taken_back": [{ "phrase": "old effusion", "by": "has resolved" }],
    });
    json!({
        "name": "small",
        "language": "en",
        "cues": cues,
        "findings": [{
            "id": "effusion",
            "name": "Pleural effusion",
            "definition": "Fluid in the pleural space.",
            "synonyms": ["effusion"],
            "rules": rules,
            "uncertain": "present",
            "not_mentioned": "mask",
        }],
        "maps": { "other": { "from": { "effusion": ["fluid"] }, "drop": ["mass"] } },
    })
}

/// A pipeline with a step of every operator that reads a configuration file or files of data.
fn spec_text() -> String {
    let query = "  query: { use: sql, from: { rules: rules }, with: { query: \"select id from rules where state = 'present'\" } }\n";
    let steps = "argent: 1
name: keys
steps:
  reports: { use: reports.table, with: { path: reports.csv, id: id, text: text } }
  letters: { use: reports.folder, with: { path: \"*.txt\" } }
  resources: { use: reports.fhir, with: { path: \"*.ndjson\" } }
  messages: { use: reports.hl7, with: { path: \"*.hl7\" } }
  truth: { use: labels.table, with: { path: labels.csv, id: id, findings: pack.yaml, values: { \"1\": present } } }
  headers: { use: dicom.headers, with: { path: \"*.dcm\" } }
  volumes: { use: volumes.scan, with: { path: \"*.nii\" } }
  images: { use: images.scan, with: { path: \"*.png\" } }
  rules: { use: label.rules, from: reports, with: { findings: pack.yaml } }
  llm: { use: label.llm, from: reports, with: { findings: pack.yaml, prompt: prompt.md, endpoint: { base_url: \"http://127.0.0.1:1/v1\", model: m } } }
  policy: { use: label.policy, from: rules, with: { findings: pack.yaml } }
  program: { use: command, from: rules, with: { run: \"sh count.sh {in} {out}\", inputs: [count.sh], outputs: { main: { columns: { n: whole } } } } }
  mapped: { use: label.map, from: rules, with: { findings: pack.yaml, mapping: other } }
  agreement: { use: eval.agreement, from: { labels: rules, truth: truth }, with: { findings: pack.yaml } }
  review: { use: review.export, from: { labels: rules, reports: reports }, with: { findings: pack.yaml } }
  reviewed: { use: review.import, from: { reports: reports }, with: { path: reviewed.csv, findings: pack.yaml } }
  split: { use: split.groups, from: reports, with: { by: id, parts: { dev: 0.5, test: 0.5 } } }
  pairs: { use: command, from: rules, with: { run: \"sh count.sh {in} {out}\", inputs: [count.sh], outputs: { main: { columns: { id: id, weights: file, voxels: file }, keys: [id] } } } }
  prompted: { use: eval.zero_shot, from: { weights: pairs, volumes: pairs, labels: rules, split: split }, with: { template: p1, findings: pack.yaml } }
  sweep: { use: prompt.sweep, from: { reports: reports, truth: truth, split: split }, with: { prompts: swept.md, findings: pack.yaml, endpoint: { base_url: \"http://127.0.0.1:1/v1\", model: m } } }
";
    if cfg!(feature = "sql") { format!("{steps}{query}") } else { steps.to_owned() }
}

/// A folder with that pipeline and its files.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder, "p.yaml", &spec_text());
    write(&folder, "pack.yaml", &pack().to_string());
    write(&folder, "prompt.md", PROMPT);
    write(&folder, "reports.csv", "id,text\nr1,A small effusion.\n");
    write(&folder, "swept.md", PROMPT);
    write(&folder, "reviewed.csv", "text,finding,review\n");
    write(&folder, "labels.csv", "id,effusion\nr1,1\n");
    write(&folder, "count.sh", "checking runs no program");
    write(&folder, "v.nii", "checking reads no volume");
    write(&folder, "slice.dcm", "checking reads no image");
    write(&folder, "x.png", "checking reads no image");
    for file in ["letter.txt", "resources.ndjson", "messages.hl7"] {
        write(&folder, file, "checking reads no text");
    }
    folder
}

fn write(folder: &TempDir, name: &str, text: &str) {
    std::fs::write(folder.path().join(name), text).expect("the file is written");
}

fn spec(path: &Path) -> Spec {
    let (spec, mistakes) = spec::read(path, &Given::default(), &mut Sources::default());
    assert!(mistakes.is_empty(), "{}: {mistakes:?}", path.display());
    spec.expect("it reads")
}

fn checked(folder: &TempDir, registry: &Registry) -> Pipeline {
    let spec = spec(&folder.path().join("p.yaml"));
    let (pipeline, mistakes) = check(&spec, registry, StaticAnswers::default(), &mut Sources::default());
    pipeline.unwrap_or_else(|| panic!("{mistakes:?}"))
}

/// By operator: what its configuration files put into the key.
fn file_parts(folder: &TempDir) -> BTreeMap<String, BTreeMap<String, Value>> {
    let nodes = checked(folder, &registry()).nodes;
    nodes.into_iter().map(|node| (node.operator_name.to_owned(), node.files)).collect()
}

/// The operators whose part of the key differs.
fn changed<T: PartialEq>(before: &BTreeMap<String, T>, after: &BTreeMap<String, T>) -> Vec<String> {
    assert!(before.keys().eq(after.keys()), "the pipeline has the same steps");
    before.iter().filter(|(name, part)| after[*name] != **part).map(|(name, _)| name.clone()).collect()
}

/// The texts in a JSON value: their pointers, and their names without the places in lists.
fn texts_in(value: &Value, pointer: &str, name: &str) -> Vec<(String, String)> {
    match value {
        Value::Object(fields) => {
            let inner = fields.iter().flat_map(|(key, field)| {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                texts_in(field, &format!("{pointer}/{key}"), &name)
            });
            inner.collect()
        }
        Value::Array(items) => {
            let inner = items.iter().enumerate();
            inner
                .flat_map(|(at, item)| texts_in(item, &format!("{pointer}/{at}"), &format!("{name}[]")))
                .collect()
        }
        _ => vec![(pointer.to_owned(), name.to_owned())],
    }
}

/// Another text that may stand in this part of a pack.
fn another_text(part: &str, text: &str) -> Value {
    match part {
        "language" => json!("de"),
        "findings[].uncertain" | "findings[].not_mentioned" => json!("absent"),
        _ => json!(format!("{text}x")),
    }
}

/// By operator: the parameters that the shipped pipelines and examples give it.
fn shipped_parameters() -> BTreeMap<String, Vec<Value>> {
    let pipelines = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines");
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for folder in [pipelines.clone(), pipelines.join("examples")] {
        let files = std::fs::read_dir(folder)
            .expect("pipelines are shipped")
            .map(|file| file.expect("a file").path());
        for path in files.filter(|path| path.extension().is_some_and(|ending| ending == "yaml")) {
            for step in spec(&path).steps {
                let with = Some(step.with.to_json()).filter(Value::is_object).unwrap_or_else(|| json!({}));
                all.entry(step.operator).or_default().push(with);
            }
        }
    }
    all
}
