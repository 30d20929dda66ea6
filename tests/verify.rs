//! What the disk did to a store is found and named: `argent verify`.

use std::path::PathBuf;

use expect_test::{Expect, expect};

use crate::sandbox::Sandbox;

const PIPELINE: &str = "argent: 1
name: small
steps:
  reports: { use: reports.table, with: { path: reports.csv, id: id, sections: { findings: text } } }
  labels: { use: label.rules, from: reports, with: { findings: pack.yaml } }
";

const PACK: &str = "name: one
findings:
  - { id: nodule, name: Lung nodule, synonyms: [nodule] }
";

/// A folder with a store that holds one run.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", PIPELINE).write("pack.yaml", PACK);
    sandbox.write("reports.csv", "id,text\nr1,There is a nodule.\nr2,No nodule.\n");
    sandbox.run(&["p.yaml"]);
    sandbox
}

/// All files of a folder of the store, in order.
fn files(sandbox: &Sandbox, folder: &str) -> Vec<PathBuf> {
    let mut folders = vec![sandbox.path(".argent").join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// Changes the last byte of a file.
fn damage(path: &PathBuf) {
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// The blob whose bytes hold this text.
fn blob_with(sandbox: &Sandbox, text: &str) -> PathBuf {
    let holds = |path: &PathBuf| String::from_utf8_lossy(&std::fs::read(path).unwrap()).contains(text);
    files(sandbox, "cas").into_iter().find(holds).unwrap()
}

/// What `argent verify` says, its digests and byte counts masked.
fn verify(sandbox: &Sandbox, code: i32, expected: Expect) {
    let said = sandbox.argent(&["verify"]);
    let masked = |word: &str| match word {
        word if word.len() == 8 && word.bytes().all(|b| b.is_ascii_hexdigit()) => "########".to_owned(),
        word if word.starts_with('(') => "(#".to_owned(),
        word => word.to_owned(),
    };
    let words = |line: &str| line.split(' ').map(masked).collect::<Vec<_>>().join(" ");
    expected.assert_eq(&said.out.lines().map(words).collect::<Vec<_>>().join("\n"));
    assert_eq!((said.code, said.err.as_str()), (code, ""));
}

#[test]
fn a_store_that_a_run_left_is_sound() {
    let sandbox = sandbox();
    verify(
        &sandbox,
        0,
        expect!["sound: 7 sound blobs (# kB), 2 results, 5 tables, 2 answers, 1 run, 1 pipeline"],
    );
    let json: serde_json::Value = serde_json::from_str(&sandbox.succeeds(&["verify", "--json"]).out).unwrap();
    assert_eq!((&json["runs"], &json["damage"]), (&1.into(), &serde_json::json!([])));
}

#[test]
fn a_changed_blob_is_named_with_its_step_and_left_for_the_next_run_to_mend() {
    let sandbox = sandbox();
    let is_part = |path: &PathBuf| std::fs::read(path).unwrap().starts_with(b"PAR1");
    let holds = |path: &PathBuf| String::from_utf8_lossy(&std::fs::read(path).unwrap()).contains("evidence");
    let part = files(&sandbox, "cas").into_iter().find(|path| is_part(path) && holds(path)).unwrap();
    damage(&part);
    verify(
        &sandbox,
        1,
        expect![[r#"
            step          what           problem                 do
            small.labels  blob ########  its bytes have changed  put it back from a copy, or run the pipeline: it is removed and made again
            small.labels  table main     parts damaged: 1 of 1   run the pipeline: the step is made again

            not sound: 2 problems; read were 6 sound blobs (# kB), 2 results, 4 tables, 2 answers, 1 run, 1 pipeline. Nothing was changed."#]],
    );
    assert!(part.exists(), "whoever verifies may have a copy to put back");
    assert_eq!(sandbox.argent(&["sql", "select * from labels"]).code, 1);
    let mended = sandbox.run(&["p.yaml"]);
    assert!(mended[0].contains(" reused ") && mended[1].contains(" made "), "{mended:?}");
    sandbox.succeeds(&["verify"]);
}

#[test]
fn a_version_that_is_lost_for_good_is_told_until_collection_notes_it() {
    let sandbox = sandbox();
    std::fs::remove_file(blob_with(&sandbox, "label.rules")).unwrap();
    assert_eq!(sandbox.argent(&["verify"]).code, 1);
    assert_eq!(sandbox.run(&["p.yaml"])[1], "labels made 0 2 0");
    verify(
        &sandbox,
        1,
        expect![[r#"
            step          what               problem              do
            small.labels  manifest ########  its blob is missing  put it back from a copy, or have `argent gc` note that this version is gone

            not sound: 1 problem; read were 7 sound blobs (# kB), 2 results, 5 tables, 2 answers, 2 runs, 1 pipeline. Nothing was changed."#]],
    );
    sandbox.succeeds(&["gc"]);
    sandbox.succeeds(&["verify"]);
}

#[test]
fn missing_blobs_and_records_that_do_not_read_are_all_told_at_once() {
    let sandbox = sandbox();
    std::fs::remove_file(blob_with(&sandbox, "label.rules")).unwrap();
    std::fs::write(&files(&sandbox, "actions")[0], "half a dig").unwrap();
    std::fs::write(&files(&sandbox, "runs")[0], "{").unwrap();
    sandbox.write(".argent/cas/ab/notes.txt", "mine");
    let said = sandbox.argent(&["verify", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let line = |d: &serde_json::Value| {
        format!("{} {}: {}", d["steps"], d["what"].as_str().unwrap(), d["problem"].as_str().unwrap())
    };
    let lines: Vec<String> = json["damage"].as_array().unwrap().iter().map(line).collect();
    expect![[r#"
        [] action: the record does not read, expected the digest of a manifest
        [] blob: files whose name is no digest: 1
        [] run: the record does not read, expected JSON of this version
        ["small.labels"] manifest: its blob is missing"#]]
    .assert_eq(&lines.join("\n"));
    assert_eq!(said.code, 1);
}

#[test]
fn a_damaged_memo_is_named_with_the_step_that_uses_it() {
    let sandbox = sandbox();
    let segment = &files(&sandbox, "memo")[0];
    damage(segment);
    verify(
        &sandbox,
        1,
        expect![[r#"
            step          what           problem                                        do
            small.labels  memo ########  damaged records, or stretches between them: 1  the sound answers are used; a run that needs the others makes them again

            not sound: 1 problem; read were 7 sound blobs (# kB), 2 results, 5 tables, 0 answers, 1 run, 1 pipeline. Nothing was changed."#]],
    );
}
