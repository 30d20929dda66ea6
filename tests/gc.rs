//! What nothing needs any more is removed, and nothing else: `argent gc`.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use expect_test::expect;

use crate::chat_server::{ChatServer, Reply};
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

/// A folder with a pipeline.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", PIPELINE).write("pack.yaml", PACK);
    sandbox
}

/// Runs the pipeline over one report with this text.
fn run(sandbox: &Sandbox, text: &str, words: &[&str]) -> Vec<String> {
    sandbox.write("reports.csv", &format!("id,text\nr1,{text}\n"));
    sandbox.run(&[&["p.yaml"], words].concat())
}

/// Lets two days pass for everything in the store.
fn age(sandbox: &Sandbox) {
    fn walk(folder: &Path, then: SystemTime) {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => walk(&path, then),
                false => std::fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap(),
            }
        }
    }
    walk(&sandbox.path(".argent"), SystemTime::now() - Duration::from_secs(2 * 24 * 3600));
}

/// What `argent gc` says, byte counts and times masked.
fn gc(sandbox: &Sandbox, words: &[&str]) -> String {
    let said = sandbox.succeeds(&[&["gc"], words].concat());
    let unit = |word: &str| ["B", "kB", "MB", "s"].contains(&word.trim_end_matches([':', ',']));
    let masked = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let next = words.iter().skip(1).map(|word| unit(word)).chain([false]);
        words.iter().zip(next).map(|(w, unit)| if unit { "#" } else { w }).collect::<Vec<_>>().join(" ")
    };
    said.out.lines().map(masked).collect::<Vec<_>>().join("\n")
}

/// What the store holds, as `argent verify` counts it: blobs, results, answers. It must be sound.
fn held(sandbox: &Sandbox) -> [u64; 3] {
    let said = sandbox.succeeds(&["verify", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    ["blobs", "results", "answers"].map(|name| json[name].as_u64().unwrap())
}

#[test]
fn what_no_kept_run_reaches_goes_and_the_rest_is_as_before() {
    let sandbox = sandbox();
    for text in ["A nodule.", "No nodule.", "Two nodules."] {
        run(&sandbox, text, &[]);
    }
    let all = held(&sandbox);
    expect!["freed # B: 0 results, 0 blobs of interrupted work, 0 memos of row operators"]
        .assert_eq(&gc(&sandbox, &["--keep-runs", "1"]));
    assert_eq!(held(&sandbox), all, "what is young stays");

    age(&sandbox);
    expect!["freed # B: 0 results, 0 blobs of interrupted work, 0 memos of row operators"]
        .assert_eq(&gc(&sandbox, &[]));
    let planned = gc(&sandbox, &["--keep-runs", "1", "--plan"]);
    expect![[r#"
        step operator results size cost time
        small.labels label.rules 2 # kB - # s
        small.reports reports.table 2 # kB - # s

        would free # kB: 4 results, 0 blobs of interrupted work, 0 memos of row operators
        would drop 2 answers that no kept table is about, and the digests of 0 files that are gone"#]]
    .assert_eq(&planned);
    assert_eq!(held(&sandbox), all, "a plan changes nothing");
    let done = gc(&sandbox, &["--keep-runs", "1"]);
    assert_eq!(done.replace("freed", "would free").replace("dropped", "would drop"), planned);
    assert_eq!(held(&sandbox), [7, 2, 1]);

    assert_eq!(sandbox.sql("select id, state from labels"), ["r1,present"]);
    assert_eq!(run(&sandbox, "Two nodules.", &[]), ["reports reused 0 1 0", "labels reused 0 1 0"]);
    assert_eq!(run(&sandbox, "A nodule.", &[]), ["reports made 1 0 0", "labels made 1 0 0"]);
}

#[test]
fn a_run_whose_results_are_gone_says_so() {
    let sandbox = sandbox();
    run(&sandbox, "A nodule.", &[]);
    run(&sandbox, "No nodule.", &[]);
    age(&sandbox);
    gc(&sandbox, &["--keep-runs", "1"]);
    let runs: serde_json::Value = serde_json::from_str(&sandbox.succeeds(&["runs", "--json"]).out).unwrap();
    let collected = |run: &serde_json::Value| {
        run["steps"].as_array().unwrap().iter().map(|s| s["collected"] == true).collect::<Vec<_>>()
    };
    let runs = runs.as_array().unwrap();
    assert_eq!([collected(&runs[0]), collected(&runs[1])], [[true, true], [false, false]]);
    let shown = sandbox.succeeds(&["runs", runs[0]["run"].as_str().unwrap()]).out;
    assert_eq!(shown.matches("made, collected").count(), 2, "{shown}");
    sandbox.succeeds(&["sql", "select * from argent.steps"]);
}

#[test]
fn the_results_of_a_named_run_stay_until_another_run_has_the_name() {
    let sandbox = sandbox();
    run(&sandbox, "A nodule.", &["-m", "paper"]);
    run(&sandbox, "No nodule.", &[]);
    age(&sandbox);
    let before = held(&sandbox);
    gc(&sandbox, &["--keep-runs", "1"]);
    assert_eq!(held(&sandbox), before);
    assert!(sandbox.succeeds(&["runs"]).out.contains("paper"));
    let shown = sandbox.succeeds(&["runs", "paper"]).out;
    assert_eq!(shown.lines().skip(1).filter(|line| line.contains(" made ")).count(), 2, "{shown}");

    run(&sandbox, "No nodule.", &["-m", "paper"]);
    age(&sandbox);
    gc(&sandbox, &["--keep-runs", "1"]);
    assert_eq!(held(&sandbox)[1], 2);
}

#[test]
fn what_was_paid_for_stays_unless_asked() {
    let server = ChatServer::start();
    let sandbox = sandbox();
    let spec = format!(
        "{}  silver:
    use: label.llm
    from: reports
    with:
      findings: pack.yaml
      prompt: prompt.md
      endpoint: {{ base_url: \"{}\", model: m }}
      price: {{ input: 1, output: 4 }}
",
        PIPELINE, server.base_url
    );
    sandbox.write("p.yaml", &spec.replace("findings: text", "text: text"));
    let prompt = |words: &str| {
        sandbox.write("pack.yaml", &PACK.replace("Lung nodule,", "Lung nodule, definition: any,"));
        sandbox.write("prompt.md", &format!("{words}\nReport:\n{{{{ report.text }}}}"));
        run(&sandbox, "A nodule.", &[])
    };
    prompt("Label.");
    prompt("Please label.");
    assert_eq!(server.take_reports().len(), 2);
    age(&sandbox);
    expect![[r#"
        freed # B: 0 results, 0 blobs of interrupted work, 0 memos of row operators
        kept because they were paid for: 1 result, $0.0001 (--paid collects them too)"#]]
    .assert_eq(&gc(&sandbox, &["--keep-runs", "1"]));
    assert_eq!(held(&sandbox)[1], 4);
    let json: serde_json::Value =
        serde_json::from_str(&sandbox.succeeds(&["gc", "--keep-runs", "1", "--plan", "--json"]).out).unwrap();
    assert_eq!(json["kept_paid"][0]["steps"], serde_json::json!(["small.silver"]));

    gc(&sandbox, &["--keep-runs", "1", "--paid"]);
    assert_eq!(held(&sandbox)[1], 3);
    assert_eq!(prompt("Please label.")[2], "silver reused 0 1 0");
    assert!(server.take_reports().is_empty());
    assert_eq!(prompt("Label.")[2], "silver made 1 0 0");
    assert_eq!(server.take_reports().len(), 1, "the first prompt's answer is gone too");
}

#[test]
fn nothing_is_removed_under_a_run_in_progress() {
    let server = ChatServer::start();
    server.behave(|_| Reply::Slow(Duration::from_millis(1500)));
    let sandbox = sandbox();
    run(&sandbox, "A nodule.", &[]);
    let llm = "use: label.llm, from: reports, with: { findings: pack.yaml, prompt: prompt.md";
    let asking = format!("{llm}, endpoint: {{ base_url: \"{}\", model: m }} }}", server.base_url);
    let spec = PIPELINE.replace("use: label.rules, from: reports, with: { findings: pack.yaml }", &asking);
    sandbox.write("slow.yaml", &spec.replace("name: small", "name: slow"));
    sandbox.write("pack.yaml", &PACK.replace("Lung nodule,", "Lung nodule, definition: any,"));
    sandbox.write("prompt.md", "Label.\nReport:\n{{ report.findings }}");
    age(&sandbox);
    let run = sandbox.command(&["run", "slow.yaml"]).stderr(Stdio::null()).stdout(Stdio::null()).spawn();
    let mut run = run.unwrap();
    let patience = SystemTime::now() + Duration::from_secs(20);
    while server.heard().is_empty() {
        assert!(SystemTime::now() < patience, "the run never asked");
        std::thread::sleep(Duration::from_millis(5));
    }
    let said = sandbox.argent(&["gc", "--keep-runs", "0"]);
    expect![[r#"
        error: another argent process has the store open and may be using what would go; collect when it has ended
    "#]].assert_eq(&said.err);
    assert_eq!(said.code, 1);
    sandbox.succeeds(&["gc", "--keep-runs", "0", "--plan"]);
    assert!(run.wait().unwrap().success());
    gc(&sandbox, &["--keep-runs", "0"]);
    assert_eq!(sandbox.sql("select state from slow.labels"), ["present"]);
}

#[test]
fn rows_whose_side_files_were_collected_are_made_again() {
    let sandbox = Sandbox::new();
    let grid = |path: &str| {
        let spec = format!(
            "argent: 1
name: grids
steps:
  demo: {{ use: demo.chest_ct, with: {{ patients: 3 }} }}
  volumes: {{ use: volumes.scan, from: {{ files: demo }}, with: {{ path: \"{path}\", ids: ct-rate }} }}
  grid: {{ use: volumes.resample, from: volumes, with: {{ spacing_mm: [16, 16, 16] }} }}
"
        );
        sandbox.write("p.yaml", &spec);
        sandbox.run(&["p.yaml"])[2].clone()
    };
    let all = grid("volumes/*.nii.gz");
    let count = |line: &str| line.split(' ').nth(2).unwrap().parse::<u64>().unwrap();
    let voxels = sandbox.sql("select id, voxels from grid order by id");
    assert_eq!(voxels.len() as u64, count(&all));
    let first = voxels[0].split(',').next().unwrap().to_owned();
    assert_eq!(grid(&format!("volumes/{first}.nii.gz")), "grid made 0 1 0");
    age(&sandbox);
    gc(&sandbox, &["--keep-runs", "1"]);
    let blob = |line: &str| {
        let digest = line.split(',').nth(1).unwrap();
        sandbox.path(".argent/cas").join(&digest[..2]).join(&digest[2..])
    };
    assert_eq!(voxels.iter().filter(|line| blob(line).exists()).count(), 1);
    assert_eq!(grid("volumes/*.nii.gz"), format!("grid made {} 1 0", voxels.len() - 1));
    assert_eq!(sandbox.sql("select id, voxels from grid order by id"), voxels);
    sandbox.succeeds(&["verify"]);
}

#[test]
fn what_no_record_names_goes_with_the_memos_that_nothing_uses() {
    let sandbox = sandbox();
    run(&sandbox, "A nodule.", &[]);
    sandbox.write("pack.yaml", &PACK.replace("[nodule]", "[nodule, lump]"));
    run(&sandbox, "A nodule.", &[]);
    age(&sandbox);
    let planned = gc(&sandbox, &["--keep-runs", "1"]);
    expect![[r#"
        step operator results size cost time
        small.labels label.rules 1 # kB - # s

        freed # kB: 1 result, 0 blobs of interrupted work, 1 memo of row operators"#]]
    .assert_eq(&planned);
    // As a run that was killed before it could publish leaves a store.
    for folder in ["actions", "runs", "pipelines"] {
        std::fs::remove_dir_all(sandbox.path(".argent").join(folder)).unwrap();
    }
    expect!["freed # kB: 0 results, 7 blobs of interrupted work, 1 memo of row operators"]
        .assert_eq(&gc(&sandbox, &[]));
    assert_eq!(held(&sandbox), [0; 3]);
}

#[test]
fn digests_of_files_that_are_gone_are_dropped() {
    let sandbox = sandbox();
    run(&sandbox, "A nodule.", &[]);
    assert!(sandbox.read(".argent/stat-cache.json").contains("reports.csv"));
    std::fs::remove_file(sandbox.path("reports.csv")).unwrap();
    gc(&sandbox, &[]);
    assert!(!sandbox.read(".argent/stat-cache.json").contains("reports.csv"));
}
