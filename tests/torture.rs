//! A kill at any moment loses nothing, and what is damaged is made again and never believed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use argent_cache::{Secret, Store, TableRecord};
use argent_imaging::{Geometry, Orientation, Volume, nifti};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::chat_server::{ChatServer, Reply};
use crate::sandbox::Sandbox;

/// Kills in the ordinary tests.
const KILLS: usize = 20;

/// Damaged stores in the ordinary tests.
const DAMAGED_STORES: usize = 8;

/// Requests that the pipeline has under way at once.
const CONCURRENCY: usize = 4;

const REPORTS: usize = 24;

const VOLUMES: usize = 6;

/// Row operators with and without side files, answers that cost, and whole tables below both.
const PIPELINE: &str = "argent: 1
name: torture
steps:
  reports: { use: reports.table, with: { path: reports.csv, id: id, text: text } }
  rules: { use: label.rules, from: reports, with: { findings: pack.yaml } }
  labels:
    use: label.llm
    from: reports
    with:
      findings: pack.yaml
      prompt: prompt.md
      endpoint: { base_url: \"@URL\", model: m }
      price: { input: 1, output: 4 }
      concurrency: 4
  targets: { use: label.policy, from: labels, with: { uncertain: one } }
  agreement:
    use: sql
    from: { l: labels, r: rules }
    with:
      keys: [finding]
      query: select l.finding, count(*) as n from l join r on l.id = r.id and l.finding = r.finding where l.state = r.state group by l.finding
  volumes: { use: volumes.scan, with: { path: volumes/*.nii } }
  grid: { use: volumes.resample, from: volumes, with: { spacing_mm: [4, 4, 4] } }
  cohort: { use: sql, from: { grid: grid }, with: { keys: [id], query: \"select * from grid where spacing_mm[1] > 3\" } }
";

const PACK: &str = "name: small
findings:
  - { id: effusion, name: Pleural effusion, definition: Fluid in the pleural space., synonyms: [effusion] }
  - { id: nodule, name: Lung nodule, definition: A nodule of any size., synonyms: [nodule] }
";

const PROMPT: &str = "Label {% for f in findings %}{{ f.id }} {% endfor %}\nReport:\n{{ report.text }}";

/// How many times longer than usual these tests are to be: the variable `ARGENT_TORTURE`, else 1.
pub(crate) fn times_longer() -> u32 {
    let given = std::env::var("ARGENT_TORTURE").ok();
    given.map_or(1, |times| times.parse().expect("ARGENT_TORTURE is a whole number"))
}

#[test]
fn a_run_killed_at_any_moment_goes_on_to_the_same_results() {
    let server = ChatServer::start();
    let (expected, time) = undisturbed(&server);
    let mut chance = Chance::new();
    let (mut kills, goal) = (0, KILLS * times_longer() as usize);
    while kills < goal {
        let sandbox = project(&server);
        // What was asked in each attempt.
        let mut asked: Vec<BTreeSet<String>> = Vec::new();
        for moment in chance.draw(prop::collection::vec(0.0..1.1f64, 1..5)) {
            let killed = killed_after(&sandbox, time.mul_f64(moment));
            asked.push(take_asked(&server));
            kills += usize::from(killed);
        }
        let done = sandbox.succeeds(&["run", "p.yaml", "--json"]);
        asked.push(take_asked(&server));
        assert_eq!(results(&sandbox), Ok(expected.clone()), "{}", done.out);
        for (attempt, texts) in asked.iter().enumerate() {
            let later: BTreeSet<&String> = asked[attempt + 1..].iter().flatten().collect();
            let again = texts.iter().filter(|text| later.contains(text)).count();
            assert!(again <= CONCURRENCY, "{again} requests were asked again, of {asked:?}");
        }
        let left = sandbox.run(&["p.yaml"]);
        assert!(left.iter().all(|step| step.contains(" reused ")), "{left:?}");
        assert!(server.heard().is_empty());
    }
}

#[test]
fn a_damaged_store_gives_the_same_results_or_none() {
    let server = ChatServer::start();
    let (expected, time) = undisturbed(&server);
    let mut chance = Chance::new();
    let whole = project(&server);
    whole.succeeds(&["run", "p.yaml"]);
    for round in 0..DAMAGED_STORES * times_longer() as usize {
        // A killed run leaves journals, a finished one only segments.
        let killed = (round % 2 == 1).then(|| project(&server));
        if let Some(sandbox) = &killed {
            killed_after(sandbox, time.mul_f64(chance.draw(0.2..1.1f64)));
        }
        let sandbox = killed.as_ref().unwrap_or(&whole);
        let harms = chance.draw(prop::collection::vec(harm(), 1..6));
        let done: Vec<String> =
            harms.iter().filter_map(|harm| harm.inflict(&sandbox.path(".argent"))).collect();
        heals(sandbox, &expected, &done);
    }
}

/// Runs until all results can be read. A run makes again what it meets; what it had no need to read is met here, and
/// made again by the next run. Results that are there must be the right ones every time.
fn heals(sandbox: &Sandbox, expected: &Results, harms: &[String]) {
    let mut said = Vec::new();
    for _ in 0..=harms.len() {
        // Answers that are gone are paid for again, which a damaged result is only with leave.
        let run = sandbox.argent(&["run", "p.yaml", "--max-usd", "1"]);
        assert_eq!(run.code, 0, "after {harms:#?}:\n{}{}", said.join("\n"), run.err);
        said.push(run.err);
        match results(sandbox) {
            Ok(found) => {
                assert_eq!(found, *expected, "after {harms:#?}");
                return;
            }
            Err(unreadable) => said.push(unreadable),
        }
    }
    panic!("after {harms:#?} the runs said:\n{}", said.join("\n"));
}

/// By step: its tables by name.
type Results = BTreeMap<String, BTreeMap<String, TableRecord>>;

/// Everything that the pipeline's names stand for, once all of it has been read.
fn results(sandbox: &Sandbox) -> Result<Results, String> {
    let store = Store::open_with_secret(&sandbox.path(".argent"), secret()).unwrap();
    let mut results = Results::new();
    for (step, digest) in store.head("torture").unwrap().unwrap().steps {
        let manifest = store.manifest(&digest).map_err(|error| format!("{step}: {error:#}"))?;
        for table in manifest.outputs.values() {
            store.read_table(table, None).map_err(|error| format!("{step}: {error:#}"))?;
            for file in &table.files {
                store.path(file).map_err(|error| format!("{step}: {error:#}"))?;
            }
        }
        results.insert(step, manifest.outputs);
    }
    Ok(results)
}

/// The results of a run in peace, and how long it took.
fn undisturbed(server: &ChatServer) -> (Results, Duration) {
    server.behave(|_| Reply::Slow(Duration::from_millis(10)));
    let sandbox = project(server);
    let started = Instant::now();
    let steps = sandbox.run(&["p.yaml"]);
    let time = started.elapsed();
    assert_eq!(
        steps,
        [
            format!("reports made {REPORTS} 0 0"),
            format!("rules made {REPORTS} 0 0"),
            format!("labels made {REPORTS} 0 0"),
            format!("targets made {} 0 0", 2 * REPORTS),
            "agreement made 2 0 0".to_owned(),
            format!("volumes made {VOLUMES} 0 0"),
            format!("grid made {VOLUMES} 0 0"),
            format!("cohort made {VOLUMES} 0 0"),
        ]
    );
    assert_eq!(take_asked(server).len(), REPORTS);
    (results(&sandbox).unwrap(), time)
}

fn project(server: &ChatServer) -> Sandbox {
    let sandbox = Sandbox::new();
    Store::open_with_secret(&sandbox.path(".argent"), secret()).unwrap();
    let state = |n: usize| ["effusion", "possible nodule", "no effusion", "nodule"][n % 4];
    let rows: String = (0..REPORTS).map(|n| format!("r{n:02},Case {n:02} with {}.\n", state(n))).collect();
    sandbox
        .write("reports.csv", &format!("id,text\n{rows}"))
        .write("pack.yaml", PACK)
        .write("prompt.md", PROMPT);
    sandbox.write("p.yaml", &PIPELINE.replace("@URL", &server.base_url));
    std::fs::create_dir(sandbox.path("volumes")).unwrap();
    for number in 0..VOLUMES {
        let path = sandbox.path(&format!("volumes/v{number}.nii"));
        std::fs::write(path, nifti::write(&volume(number), false)).unwrap();
    }
    sandbox
}

/// Soft tissue in air, in a box whose size tells the volumes apart.
fn volume(number: usize) -> Volume {
    let side = 24 + number;
    let geometry = Geometry::from_spacing([side; 3], [2.0; 3], "RAS".parse::<Orientation>().unwrap());
    let inside = |at: usize| (6..18).contains(&(at % side)) && (6..18).contains(&(at / side % side));
    let hounsfield = (0..side.pow(3)).map(|at| if inside(at) { 40 } else { -1000 });
    Volume { geometry, hounsfield: hounsfield.collect() }
}

fn secret() -> Secret {
    Secret::from_bytes([7; 32])
}

/// Starts a run and kills it after a while; tells whether it was still running.
fn killed_after(sandbox: &Sandbox, time: Duration) -> bool {
    let mut command = sandbox.command(&["run", "p.yaml"]);
    let mut run = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(time);
    run.kill().unwrap();
    !run.wait().unwrap().success()
}

/// The reports asked about since the last call, once the server has dealt with all requests that it got; it is an
/// error if one of them was asked twice.
fn take_asked(server: &ChatServer) -> BTreeSet<String> {
    let settled = || server.heard().iter().all(|heard| heard.answered_at.is_some());
    // A request may lie in a socket that the server has not read yet.
    std::thread::sleep(Duration::from_millis(40));
    while !settled() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let reports = server.take_reports();
    let asked: BTreeSet<String> = reports.iter().cloned().collect();
    assert_eq!(asked.len(), reports.len(), "one attempt asked twice: {reports:?}");
    asked
}

/// One way to damage a store; numbers that choose something are taken modulo how many there are.
#[derive(Clone, Debug)]
struct Harm {
    folder: &'static str,
    file: usize,
    kind: HarmKind,
}

#[derive(Clone, Copy, Debug)]
enum HarmKind {
    Delete,
    FlipBit(usize),
    CutAt(usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    let folder = prop_oneof![Just("cas"), Just("actions"), Just("memo")];
    let kind = prop_oneof![
        Just(HarmKind::Delete),
        any::<usize>().prop_map(HarmKind::FlipBit),
        any::<usize>().prop_map(HarmKind::CutAt),
    ];
    (folder, any::<usize>(), kind).prop_map(|(folder, file, kind)| Harm { folder, file, kind })
}

impl Harm {
    /// Damages one file of the store and says which; nothing where the store has none.
    fn inflict(&self, store: &Path) -> Option<String> {
        let files = files(&store.join(self.folder));
        let path = &files[self.file % files.len().max(1)..].first()?;
        let mut bytes = std::fs::read(path).unwrap();
        match self.kind {
            _ if bytes.is_empty() => std::fs::remove_file(path).unwrap(),
            HarmKind::Delete => std::fs::remove_file(path).unwrap(),
            HarmKind::FlipBit(bit) => {
                let bit = bit % (8 * bytes.len());
                bytes[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(path, bytes).unwrap();
            }
            HarmKind::CutAt(end) => std::fs::write(path, &bytes[..end % bytes.len()]).unwrap(),
        }
        Some(format!("{:?} of {}", self.kind, path.strip_prefix(store).unwrap().display()))
    }
}

/// All files below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// Random values: the same each time in the ordinary tests, others in the long ones.
struct Chance(TestRunner);

impl Chance {
    fn new() -> Chance {
        Chance(if times_longer() == 1 { TestRunner::deterministic() } else { TestRunner::default() })
    }

    fn draw<T: std::fmt::Debug>(&mut self, strategy: impl Strategy<Value = T>) -> T {
        strategy.new_tree(&mut self.0).unwrap().current()
    }
}
