//! What is damaged or gone in the store is noticed when it is read, and made again within the same run.

use std::path::PathBuf;

use argent_cache::Store;

use crate::chat_server::ChatServer;
use crate::sandbox::Sandbox;

const SPEC: &str = "argent: 1
name: chain
steps:
  reports: { use: reports.table, with: { path: reports.csv, id: id, text: text } }
  labels: { use: label.rules, from: reports, with: { findings: pack.yaml } }
  targets: { use: label.policy, from: labels, with: { uncertain: one } }
";

const PACK: &str = "name: small
findings:
  - { id: effusion, name: Pleural effusion, definition: Fluid in the pleural space., synonyms: [effusion], rules: { any: [effusions?] } }
";

fn sandbox(spec: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", spec).write("pack.yaml", PACK);
    sandbox.write("prompt.md", "Label the report.\nReport:\n{{ report.text }}");
    sandbox.write("reports.csv", "id,text\nr1,Small effusion.\nr2,No effusion.\n");
    sandbox
}

/// All blobs of the store.
fn blobs(sandbox: &Sandbox) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(sandbox.path(".argent/cas")).unwrap().map(|f| f.unwrap().path());
    folders.flat_map(|f| std::fs::read_dir(f).unwrap().map(|b| b.unwrap().path())).collect()
}

/// The blobs that hold tables.
fn parts(sandbox: &Sandbox) -> Vec<PathBuf> {
    let is_part = |blob: &PathBuf| std::fs::read(blob).unwrap().starts_with(b"PAR1");
    blobs(sandbox).into_iter().filter(is_part).collect()
}

/// Changes a byte in the middle.
fn flip(path: &PathBuf) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_changed_byte_upstream_is_mended_within_the_run_that_meets_it() {
    let sandbox = sandbox(SPEC);
    sandbox.run(&["p.yaml"]);
    let before = sandbox.sql("select * from labels order by id");
    parts(&sandbox).iter().for_each(flip);
    sandbox.write("p.yaml", &SPEC.replace("uncertain: one", "uncertain: zero"));
    let said = sandbox.succeeds(&["run", "p.yaml"]);
    assert!(said.err.contains("labels               damaged"), "{}", said.err);
    assert!(said.err.contains("reports              damaged"), "{}", said.err);
    assert!(said.err.contains("3 steps made, 0 reused"), "{}", said.err);
    assert_eq!(sandbox.sql("select * from labels order by id"), before);
    assert_eq!(sandbox.sql("select count(*) from targets"), ["2"]);
}

/// A reader of side files, after the files were damaged: a row operator that would call the row unreadable,
/// and training, which would fail.
#[test]
fn a_volume_that_was_damaged_is_resampled_again_for_its_readers() {
    let examples = crate::sandbox::root().join("pipelines/examples");
    let read = |name: &str| std::fs::read_to_string(examples.join(name)).unwrap();
    let spec = read("embed.images.yaml");
    let without_vectors = &spec[..spec.find("  vectors:").unwrap()];
    let sandbox = Sandbox::new();
    sandbox.write("data/findings.yaml", &read("data/findings.yaml")).write("p.yaml", without_vectors);
    sandbox.run(&["p.yaml"]);
    let volumes = || -> Vec<PathBuf> {
        let is_volume = |blob: &PathBuf| std::fs::read(blob).unwrap().starts_with(b"ARGENTHU");
        blobs(&sandbox).into_iter().filter(is_volume).collect()
    };
    let question = "select id, voxels from grid order by id";
    let before = sandbox.sql(question);
    assert!(volumes().len() > 2);

    volumes().iter().for_each(flip);
    sandbox.write("p.yaml", &spec);
    let said = sandbox.succeeds(&["run", "p.yaml"]);
    assert!(said.err.contains("grid                 damaged"), "{}", said.err);
    assert_eq!(sandbox.sql("select count(*) from argent.errors"), ["0"], "no row is to blame");
    let vectors = sandbox.sql("select id, vector from vectors order by id");
    assert_eq!(vectors.len(), before.len());

    volumes().iter().for_each(flip);
    sandbox.write("p.yaml", &without_vectors.replace("epochs: 1", "epochs: 2"));
    let said = sandbox.succeeds(&["run", "p.yaml"]);
    assert!(said.err.contains("grid                 damaged"), "{}", said.err);
    assert_eq!(sandbox.sql(question), before);
}

#[test]
fn what_cost_dollars_is_made_again_only_with_leave() {
    let server = ChatServer::start();
    let spec = asking(&server);
    let sandbox = sandbox(&spec);
    sandbox.run(&["p.yaml"]);
    assert_eq!(server.take_reports().len(), 2);
    parts(&sandbox).iter().for_each(flip);
    sandbox.write("p.yaml", &spec.replace("uncertain: one", "uncertain: zero"));
    // The answers are in the memo, so making the table again costs nothing.
    sandbox.succeeds(&["run", "p.yaml"]);
    assert_eq!(server.take_reports().len(), 0);
    // Without the memo the answers would have to be bought again.
    parts(&sandbox).iter().for_each(flip);
    std::fs::remove_dir_all(sandbox.path(".argent/memo")).unwrap();
    sandbox.write("p.yaml", &spec.replace("uncertain: one", "uncertain: 0.5"));
    let said = sandbox.argent(&["run", "p.yaml"]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("making it again sends 2 requests for up to $0.0"), "{}", said.err);
    assert!(said.err.contains("allow that with --max-usd"), "{}", said.err);
    assert_eq!(server.take_reports().len(), 0);
    sandbox.succeeds(&["run", "p.yaml", "--max-usd", "1"]);
    assert_eq!(server.take_reports().len(), 2);
}

#[test]
fn labels_whose_answers_are_gone_are_asked_for_again() {
    let server = ChatServer::start();
    let sandbox = sandbox(&asking(&server));
    sandbox.run(&["p.yaml"]);
    assert_eq!(server.take_reports().len(), 2);
    let store = Store::open(&sandbox.path(".argent")).unwrap();
    let answers = store.secret().digest("argent shared memo", b"llm answers");
    std::fs::remove_dir_all(store.root().join("memo").join(answers.to_string())).unwrap();
    sandbox.write("reports.csv", "id,text\nr1,Small effusion.\nr2,No effusion.\nr3,Large effusion.\n");
    assert_eq!(sandbox.run(&["p.yaml"])[1], "labels made 3 0 0");
    assert_eq!(server.take_reports().len(), 3);
    let calls = "select count(*) from labels l join labels.calls c on l.call = c.call";
    assert_eq!(sandbox.sql(calls), ["3"], "every label shows its answer");
}

/// The pipeline with labels that cost dollars.
fn asking(server: &ChatServer) -> String {
    let llm = format!(
        "use: label.llm, from: reports, with: {{ findings: pack.yaml, prompt: prompt.md, endpoint: {{ base_url: \"{}\", model: m }}, price: {{ input: 1, output: 4 }} }}",
        server.base_url
    );
    SPEC.replace("use: label.rules, from: reports, with: { findings: pack.yaml }", &llm)
}

#[test]
fn the_record_of_what_names_stand_for_is_worked_out_from_the_runs_where_it_is_damaged() {
    let sandbox = sandbox(SPEC);
    sandbox.run(&["p.yaml"]);
    let before = sandbox.read(".argent/pipelines/chain.json");
    sandbox.write(".argent/pipelines/chain.json", &before[..before.len() / 2]);
    assert_eq!(sandbox.sql("select count(*) from targets"), ["2"]);
    assert!(sandbox.run(&["p.yaml"]).iter().all(|line| line.contains(" reused ")));
    assert_eq!(sandbox.read(".argent/pipelines/chain.json"), before);
}
