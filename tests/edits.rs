//! After any edit a run leaves what a run from nothing leaves, does what the plan said, and leaves nothing to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, OnceLock};

use argent_cache::{Secret, Store, TableRecord};
use argent_engine::diagnostic::Sources;
use argent_engine::plan::PlannedStep;
use argent_engine::spec::{self, Given};
use argent_engine::{End, Engine, Event, Kind, Options, Outcome, Pipeline, StaticAnswers, check};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use tempfile::TempDir;

use crate::torture::times_longer;

/// Sequences of edits in the ordinary tests.
const SEQUENCES: u32 = 5;

/// What reports are made of.
const SENTENCES: [&str; 8] = [
    "There is a nodule.",
    "No nodule.",
    "No pleural effusion.",
    "Pleural effusion on the left.",
    "A lump cannot be excluded.",
    "Hydrothorax.",
    "The heart is not enlarged.",
    "",
];

/// Words that an edit makes synonyms, of `effusion` and of `nodule`.
const SYNONYMS: [[&str; 2]; 2] = [["hydrothorax", "pleural fluid"], ["lump", "opacity"]];

const UNCERTAIN: [&str; 3] = ["mask", "one", "0.5"];

/// Spellings of one place, which are in no key.
const PATHS: [&str; 3] = ["reports/*.csv", "reports/?*.csv", "[reports/*.csv, reports/f*]"];

/// The last one is breached by every table of five or more reports.
const CONTRACTS: [&str; 3] = ["count(*) >= 0", "count(*) >= 0 and count(score) = count(*)", "count(*) < 10"];

/// Spellings of one query.
const QUERIES: [&str; 3] = [
    "select finding, count(*) as n from labels where state = 'present' group by finding",
    "SELECT finding, count(*) AS n  FROM labels   WHERE state = 'present'  GROUP BY finding",
    "select finding , count( * ) as n from labels where state='present' group by finding -- by finding",
];

/// Everything that the user has written.
#[derive(Clone, Debug)]
struct Project {
    /// By file: its rows.
    files: BTreeMap<usize, Vec<Report>>,
    synonyms: [BTreeSet<&'static str>; 2],
    definition: usize,
    uncertain: usize,
    seed: usize,
    path: usize,
    contract: usize,
    query: usize,
    renamed: bool,
}

#[derive(Clone, Debug)]
struct Report {
    id: usize,
    patient: usize,
    sentences: Vec<usize>,
}

/// One change of a project; numbers that choose something are taken modulo how many there are.
#[derive(Clone, Debug)]
enum Edit {
    AddRow(usize, Report),
    ChangeRow(usize, usize, Vec<usize>),
    RemoveRow(usize, usize),
    ReverseRows(usize),
    AddFile(usize, Vec<Report>),
    RemoveFile(usize),
    AddSynonym(usize, usize),
    ChangeDefinition(usize),
    ChangeUncertain(usize),
    ChangeSeed(usize),
    ChangePath(usize),
    ChangeContract(usize),
    ChangeQuery(usize),
    RenameStep,
}

#[test]
fn after_any_edit_a_run_is_a_clean_run_and_does_what_its_plan_said() {
    let long = times_longer();
    // The ordinary tests try the same sequences each time, with every kind of edit and a breached contract; the
    // long ones try others.
    let seed = if long == 1 { RngSeed::Fixed(1014) } else { RngSeed::Random };
    let config = Config {
        cases: SEQUENCES * long,
        rng_seed: seed,
        failure_persistence: None,
        max_shrink_iters: 60,
        ..Config::default()
    };
    let edits = prop::collection::vec((edit(), any::<bool>()), 4..10);
    let tried = TestRunner::new(config).run(&(project(), edits), |(project, edits)| {
        try_edits(project, &edits);
        Ok(())
    });
    if let Err(error) = tried {
        panic!("{error}");
    }
}

fn try_edits(mut project: Project, edits: &[(Edit, bool)]) {
    let bench = Bench::new();
    bench.proves(&project, true);
    for (edit, quick) in edits {
        project.apply(edit);
        println!("{edit:?}");
        bench.proves(&project, *quick);
    }
}

/// A folder with a project and the store that all its runs share.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench { folder: quick_folder() }
    }

    /// Writes the project, plans and runs it, and compares with what was planned and with a clean run. A `quick`
    /// plan runs what is cheap, so it does so on a copy of the store.
    fn proves(&self, project: &Project, quick: bool) {
        project.write(self.folder.path());
        let store = self.folder.path().join("store");
        let planned = match quick {
            true => {
                let copy = quick_folder();
                copy_folder(&store, copy.path());
                let planned = self.plan(copy.path(), true);
                let (after, ran) = self.run(copy.path());
                assert!(ran.is_empty() || after.end != End::Done, "the plan had made {ran:?} already");
                planned
            }
            false => self.plan(&store, false),
        };
        let (outcome, ran) = self.run(&store);
        check_plan(&planned, quick, &outcome, &ran);
        if outcome.end == End::Done {
            let left = self.plan(&store, false);
            assert!(left.iter().all(|step| step.action == "reuse"), "a plan after the run: {left:?}");
            check_names(&store, &outcome);
        }
        let clean = quick_folder();
        let (expected, _) = self.run(clean.path());
        assert_eq!(outcome.end, expected.end);
        assert_eq!(results(&store, &outcome), results(clean.path(), &expected));
    }

    /// Plans; a plan that is `quick` runs the steps, which all are, and any other runs none.
    fn plan(&self, store: &Path, quick: bool) -> Vec<PlannedStep> {
        self.with_engine(store, quick, |engine| engine.plan().unwrap()).0
    }

    /// Runs the pipeline; tells the outcome and which steps ran.
    fn run(&self, store: &Path) -> (Outcome, BTreeSet<String>) {
        self.with_engine(store, true, |engine| engine.run().unwrap())
    }

    /// Does something as a process of its own would; tells which steps ran.
    fn with_engine<T>(
        &self,
        store: &Path,
        quick: bool,
        act: impl FnOnce(&Engine) -> T,
    ) -> (T, BTreeSet<String>) {
        let store = open(store);
        let mut pipeline = self.pipeline(&store);
        pipeline.nodes.iter_mut().for_each(|node| node.quick = quick);
        let ran = Mutex::new(BTreeSet::new());
        let events = |event| {
            if let Event::Running { step, .. } = event {
                assert!(ran.lock().unwrap().insert(step.clone()), "`{step}` ran twice");
            }
        };
        let done = act(&Engine {
            pipeline: &pipeline,
            store: &store,
            options: Options::default(),
            events: &events,
            on_thread: &|work| {
                let _entered = runtime().enter();
                work();
            },
            cancelled: &AtomicBool::new(false),
        });
        (done, ran.into_inner().unwrap())
    }

    /// The pipeline, checked with what the store remembers of earlier checks.
    fn pipeline(&self, store: &Store) -> Pipeline {
        let spec = self.folder.path().join("p.yaml");
        let mut sources = Sources::default();
        let (spec, mut wrong) = spec::read(&spec, &Given::default(), &mut sources);
        let statics = StaticAnswers::read(store, "edits");
        let (pipeline, more) =
            check::check(&spec.unwrap(), &argent_operators::registry(), statics, &mut sources);
        wrong.extend(more);
        pipeline.unwrap_or_else(|| panic!("{wrong:?}"))
    }
}

/// Compares a run with its plan. A plan that runs nothing knows no answer of a new contract, so that steps below a
/// breached one come as a surprise; a `quick` plan knows.
fn check_plan(planned: &[PlannedStep], quick: bool, outcome: &Outcome, ran: &BTreeSet<String>) {
    assert_eq!(planned.len(), outcome.record.steps.len());
    let registry = argent_operators::registry();
    for plan in planned {
        let step = outcome.record.steps.iter().find(|step| step.step == plan.step).unwrap();
        let (name, stats) = (&step.step, &step.stats);
        if quick && plan.action != "maybe" {
            assert_ne!(step.action, "blocked", "`{name}` was to {}", plan.action);
        }
        match plan.action {
            "reuse" => assert!(!ran.contains(name), "`{name}` ran, and was to be reused"),
            "run" if step.action == "blocked" => {}
            "run" => {
                assert!(ran.contains(name), "`{name}` did not run: {}", step.action);
                let rows = (plan.rows.run_min, plan.rows.run.unwrap(), plan.rows.reuse);
                if matches!(registry.get(&plan.r#use).unwrap().kind, Kind::Row(_)) {
                    assert_eq!((stats.made, stats.made, stats.reused), rows, "rows of `{name}`");
                }
            }
            // How many rows there will be is not known, so the plan's upper bound is the last result's.
            action => assert_eq!((action, plan.rows.run_min, plan.rows.reuse), ("maybe", 0, 0)),
        }
    }
}

/// The pipeline's names stand for the results of the run, and for nothing else.
fn check_names(store: &Path, outcome: &Outcome) {
    let steps = outcome.record.steps.iter().map(|step| (step.step.clone(), step.manifest.unwrap()));
    assert_eq!(open(store).head("edits").unwrap().unwrap().steps, steps.collect());
}

/// By step: what became of it and its tables by name, as far as a run from nothing must have the same.
fn results(store: &Path, outcome: &Outcome) -> BTreeMap<String, (bool, BTreeMap<String, TableRecord>)> {
    let store = open(store);
    let tables = |step: &argent_cache::StepRecord| {
        let usable = matches!(step.action.as_str(), "made" | "reused");
        let manifest = step.manifest.map(|digest| store.manifest(&digest).unwrap());
        (step.step.clone(), (usable, manifest.map(|m| m.outputs).unwrap_or_default()))
    };
    outcome.record.steps.iter().map(tables).collect()
}

/// A folder in memory where there is one: what is compared here does not depend on the disk, and a store waits for
/// it often.
fn quick_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::tempdir_in(folder).unwrap()
}

fn open(store: &Path) -> Store {
    Store::open_with_secret(store, Secret::from_bytes([7; 32])).unwrap()
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().unwrap())
}

fn copy_folder(from: &Path, to: &Path) {
    if !from.exists() {
        return;
    }
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

impl Project {
    fn apply(&mut self, edit: &Edit) {
        match edit {
            Edit::AddRow(file, report) => self.file(*file).push(report.clone()),
            Edit::ChangeRow(file, row, sentences) => {
                if let Some(report) = nth(self.file(*file), *row) {
                    report.sentences.clone_from(sentences);
                }
            }
            Edit::RemoveRow(file, row) => {
                let rows = self.file(*file);
                if !rows.is_empty() {
                    rows.remove(row % rows.len());
                }
            }
            Edit::ReverseRows(file) => self.file(*file).reverse(),
            Edit::AddFile(file, rows) => drop(self.files.insert(*file, rows.clone())),
            // The last file stays: without files there is no pipeline to speak of.
            Edit::RemoveFile(file) if self.files.len() > 1 => {
                let file = *self.files.keys().nth(file % self.files.len()).unwrap();
                self.files.remove(&file);
            }
            Edit::RemoveFile(_) => {}
            Edit::AddSynonym(finding, word) => {
                self.synonyms[*finding].insert(SYNONYMS[*finding][*word]);
            }
            Edit::ChangeDefinition(definition) => self.definition = *definition,
            Edit::ChangeUncertain(uncertain) => self.uncertain = *uncertain,
            Edit::ChangeSeed(seed) => self.seed = *seed,
            Edit::ChangePath(path) => self.path = *path,
            Edit::ChangeContract(contract) => self.contract = *contract,
            Edit::ChangeQuery(query) => self.query = *query,
            Edit::RenameStep => self.renamed = !self.renamed,
        }
    }

    fn file(&mut self, number: usize) -> &mut Vec<Report> {
        let number = number % self.files.len();
        self.files.values_mut().nth(number).unwrap()
    }

    fn write(&self, folder: &Path) {
        let reports = folder.join("reports");
        if reports.exists() {
            std::fs::remove_dir_all(&reports).unwrap();
        }
        std::fs::create_dir(&reports).unwrap();
        for (number, rows) in &self.files {
            let rows: String = rows.iter().map(Report::line).collect();
            std::fs::write(reports.join(format!("f{number}.csv")), format!("id,patient,text\n{rows}"))
                .unwrap();
        }
        std::fs::write(folder.join("pack.yaml"), self.pack()).unwrap();
        std::fs::write(folder.join("p.yaml"), self.spec()).unwrap();
    }

    fn pack(&self) -> String {
        let words = |finding: usize| {
            let all: Vec<&str> = self.synonyms[finding].iter().copied().collect();
            all.join(", ")
        };
        format!(
            "name: two\nfindings:\n  - {{ id: effusion, name: Pleural effusion, definition: Text {}., synonyms: [pleural effusion, {}] }}\n  - {{ id: nodule, name: Lung nodule, synonyms: [nodule, {}] }}\n",
            self.definition,
            words(0),
            words(1),
        )
    }

    fn spec(&self) -> String {
        let targets = if self.renamed { "goals" } else { "targets" };
        format!(
            "argent: 1
name: edits
steps:
  reports:
    use: reports.table
    with: {{ path: {path}, id: id, sections: {{ findings: text }}, keep: [patient] }}
  labels:
    use: label.rules
    from: reports
    with: {{ findings: pack.yaml }}
    expect: [\"{contract}\"]
  {targets}: {{ use: label.policy, from: labels, with: {{ uncertain: {uncertain} }} }}
  split:
    use: split.groups
    from: reports
    with: {{ by: patient, parts: {{ train: 0.5, test: 0.5 }}, seed: {seed} }}
  counts:
    use: sql
    from: {{ labels: labels }}
    with:
      keys: [finding]
      query: \"{query}\"
  training:
    use: sql
    from: {{ t: {targets}, s: split }}
    with:
      keys: [id, finding]
      query: select t.id, t.finding, t.target, s.part from t join s on t.id = s.id
  size: {{ use: sql, from: {{ reports: reports }}, with: {{ query: select count(*) as n from reports }} }}
",
            path = PATHS[self.path],
            contract = CONTRACTS[self.contract],
            uncertain = UNCERTAIN[self.uncertain],
            seed = self.seed,
            query = QUERIES[self.query],
        )
    }
}

impl Report {
    fn line(&self) -> String {
        let text: Vec<&str> = self.sentences.iter().map(|s| SENTENCES[*s]).collect();
        format!("r{},p{},{}\n", self.id, self.patient, text.join(" "))
    }
}

fn nth(rows: &mut [Report], row: usize) -> Option<&mut Report> {
    let row = row % rows.len().max(1);
    rows.get_mut(row)
}

fn project() -> impl Strategy<Value = Project> {
    prop::collection::vec(report(), 0..7).prop_map(|rows| Project {
        files: BTreeMap::from([(0, rows)]),
        synonyms: Default::default(),
        definition: 0,
        uncertain: 0,
        seed: 0,
        path: 0,
        contract: 0,
        query: 0,
        renamed: false,
    })
}

/// Ids are few, so that files come to contradict each other.
fn report() -> impl Strategy<Value = Report> {
    (0..9usize, 0..4usize, sentences()).prop_map(|(id, patient, sentences)| Report { id, patient, sentences })
}

fn sentences() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..SENTENCES.len(), 0..3)
}

fn edit() -> impl Strategy<Value = Edit> {
    let place = || 0..12usize;
    prop_oneof![
        4 => (place(), report()).prop_map(|(file, report)| Edit::AddRow(file, report)),
        3 => (place(), place(), sentences()).prop_map(|(file, row, text)| Edit::ChangeRow(file, row, text)),
        2 => (place(), place()).prop_map(|(file, row)| Edit::RemoveRow(file, row)),
        1 => place().prop_map(Edit::ReverseRows),
        2 => (0..3usize, prop::collection::vec(report(), 0..3)).prop_map(|(file, rows)| Edit::AddFile(file, rows)),
        1 => place().prop_map(Edit::RemoveFile),
        2 => (0..2usize, 0..2usize).prop_map(|(finding, word)| Edit::AddSynonym(finding, word)),
        1 => (0..3usize).prop_map(Edit::ChangeDefinition),
        1 => (0..UNCERTAIN.len()).prop_map(Edit::ChangeUncertain),
        1 => (0..3usize).prop_map(Edit::ChangeSeed),
        1 => (0..PATHS.len()).prop_map(Edit::ChangePath),
        2 => (0..CONTRACTS.len()).prop_map(Edit::ChangeContract),
        1 => (0..QUERIES.len()).prop_map(Edit::ChangeQuery),
        1 => Just(Edit::RenameStep),
    ]
}
