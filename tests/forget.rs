//! Who is forgotten leaves no trace and does not come back, and nobody else pays for it: `argent forget`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use argent_cache::table::read_parquet_file;
use arrow::array::AsArray;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use expect_test::expect;

use crate::chat_server::{ChatServer, Reply};
use crate::sandbox::Sandbox;

const PACK: &str = "name: small
findings:
  - { id: effusion, name: Pleural effusion, definition: Fluid., synonyms: [effusion], rules: { any: [effusions?] } }
  - { id: nodule, name: Lung nodule, definition: A nodule., synonyms: [nodule], rules: { any: [nodules?] } }
";

/// Reports with ids such as `mueller-1`, labels by a model and by rules, and what SQL makes of them.
const SPEC: &str = "argent: 1
name: clinic
steps:
  reports:
    use: reports.table
    with:
      path: reports.csv
      id: id
      ids: { pattern: '^(?<patient>[a-z]+)-(?<number>[0-9]+)$' }
      sections: { findings: text }
  labels:
    use: label.llm
    from: reports
    with:
      findings: pack.yaml
      prompt: prompt.md
      endpoint: { base_url: \"@URL\", model: m }
      price: { input: 1, output: 4 }
  rules: { use: label.rules, from: reports, with: { findings: pack.yaml } }
  targets: { use: label.policy, from: labels }
  counts:
    use: sql
    from: { labels: labels }
    with: { keys: [finding], query: \"select finding, count(*) as n from labels group by finding\" }
  quotes: { use: sql, from: { reports: reports }, with: { query: select findings from reports } }
  gold:
    use: labels.table
    with: { path: gold.csv, id: who, findings: pack.yaml, values: { \"1\": present, \"0\": absent } }
  renamed: { use: sql, from: { reports: reports }, with: { query: \"select id as who, findings from reports\" } }
";

/// What must not be found anywhere afterwards: ids, and words that only his reports have.
const TRACES: [&str; 5] = ["mueller", "granuloma", "cavernous", "horseshoe", "\u{fc}berall"];

/// The reports of the first version and of the second. One of his has the text of another patient's, the model
/// refuses another, and there is a patient whose name begins as his.
fn reports(first: bool) -> String {
    let one = if first { "A granuloma and an effusion." } else { "A \"\"cavernous\"\" nodule \u{fc}berall." };
    format!(
        "id,text
mueller-1,\"{one}\"
mueller-2,A horseshoe and an effusion: refused.
mueller-3,\"No effusion, no nodule.\"
muellerin-1,\"No effusion, no nodule.\"
schmidt-1,A nodule of 3 mm.
schmidt-2,\"Another effusion, refused.\"
"
    )
}

/// A folder whose store has seen both versions, the first under a name.
fn sandbox(server: &ChatServer) -> Sandbox {
    server.behave(|heard| if heard.report().contains("refused") { Reply::Refusal } else { Reply::Good });
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", &SPEC.replace("@URL", &server.base_url)).write("pack.yaml", PACK);
    sandbox.write("prompt.md", "Label.\nReport:\n{{ report.findings }}");
    // Labels per patient, whose ids are the patients'.
    sandbox.write("gold.csv", "who,effusion,nodule\nmueller,1,1\nschmidt,0,1\n");
    sandbox.write("reports.csv", &reports(true));
    sandbox.run(&["p.yaml", "-m", "baseline"]);
    sandbox.write("reports.csv", &reports(false));
    sandbox.run(&["p.yaml"]);
    server.take_reports();
    sandbox
}

/// Every file of the store, as it is and with Parquet decoded.
pub(crate) fn store_texts(store: &Path) -> Vec<(PathBuf, String)> {
    let mut folders = vec![store.to_owned()];
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let mut text = format!("{}\n{}", path.display(), String::from_utf8_lossy(&bytes));
            if bytes.starts_with(b"PAR1") {
                text.push_str(&decoded(&path));
            }
            texts.push((path, text));
        }
    }
    texts
}

/// All cells of a Parquet file.
fn decoded(path: &Path) -> String {
    let rows = read_parquet_file(path).unwrap();
    let options = FormatOptions::default();
    let mut text = String::new();
    for column in rows.columns() {
        if let Some(cells) = column.as_binary_opt::<i32>() {
            cells.iter().flatten().for_each(|cell| text.push_str(&String::from_utf8_lossy(cell)));
            continue;
        }
        let cells = ArrayFormatter::try_new(column.as_ref(), &options).unwrap();
        (0..rows.num_rows()).for_each(|row| text.push_str(&format!("{}\n", cells.value(row))));
    }
    text
}

/// The traces that are in the store, each once; `muellerin` is somebody else.
fn traces(sandbox: &Sandbox, wanted: &[&str]) -> Vec<String> {
    let texts = store_texts(&sandbox.path(".argent"));
    let texts: Vec<String> = texts.into_iter().map(|(_, text)| text.replace("muellerin", "")).collect();
    let found = wanted.iter().filter(|trace| texts.iter().any(|text| text.contains(**trace)));
    found.map(|trace| (*trace).to_owned()).collect()
}

const FORGET: [&str; 3] = ["forget", "--where", "patient = 'mueller'"];

/// Lines with runs of spaces as one, and times masked.
fn plain(text: &str) -> String {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    let lines = text.lines().map(words).map(|line| match line.rsplit_once(" 0.") {
        Some((start, _)) if line.ends_with(" s") => format!("{start} #"),
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn no_byte_of_a_forgotten_patient_stays_and_nobody_else_is_asked_again() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server);
    let others = "select id, finding, state from labels where patient <> 'mueller' order by id, finding";
    let before = sandbox.sql(others);
    assert_eq!(traces(&sandbox, &TRACES), TRACES);

    let planned = sandbox.succeeds(&[&FORGET[..], &["--plan"]].concat()).out;
    expect![[r#"
        step table versions rows
        clinic.gold main 1 2
        clinic.labels main 2 12
        clinic.labels calls 2 4
        clinic.labels errors 1 1
        clinic.quotes main 2 12
        clinic.renamed main 2 6
        clinic.reports main 2 6
        clinic.rules main 2 12
        clinic.targets main 2 12

        made from them operator cost time
        clinic.counts sql - #
        These stay to be asked and are not used again: the next run makes them anew.

        would remove 6 answers, 3 requests of $0.0004, 0 side files
        the store would refuse to take in again: 3 of `id`, 1 of `patient`"#]]
    .assert_eq(&plain(&planned));
    assert_eq!(traces(&sandbox, &TRACES), TRACES, "a plan changes nothing");

    let done = sandbox.succeeds(&FORGET);
    assert_eq!(
        done.out.replace("removed", "would remove").replace("store refuses", "store would refuse"),
        planned
    );
    assert_eq!(done.err, "");
    assert_eq!(traces(&sandbox, &TRACES), [""; 0]);
    sandbox.succeeds(&["verify"]);
    assert_eq!(sandbox.sql(others), before);
    assert_eq!(
        sandbox.sql("select distinct patient from reports order by patient"),
        ["muellerin", "schmidt"]
    );

    // He still stands in the file, with a new report; so does a new one of another patient.
    let more = "mueller-9,A cavernous effusion.\nschmidt-9,A new effusion.\n";
    sandbox.write("reports.csv", &(reports(false) + more));
    let said = sandbox.run(&["p.yaml"]).join("\n");
    expect![[r#"
        reports made 4 0 1
        labels made 1 3 1
        rules made 1 3 0
        targets made 0 8 0
        counts made 2 0 0
        quotes made 4 0 0
        gold made 2 0 1
        renamed made 4 0 0"#]]
    .assert_eq(&said);
    assert_eq!(server.take_reports(), ["A new effusion."]);
    assert_eq!(sandbox.sql(&others.replace("order", "and id <> 'schmidt-9' order")), before);
    expect![[
        r#",forgotten,"rows left out: 4; the subject was forgotten, so its rows are not taken in again""#
    ]]
    .assert_eq(&sandbox.sql("select id, kind, message from reports.errors").join("\n"));
    assert_eq!(traces(&sandbox, &TRACES), [""; 0], "nor does a run bring him back");
    sandbox.succeeds(&["verify"]);
    let again = sandbox.run(&["p.yaml"]);
    assert!(again.iter().all(|line| line.contains(" reused ")), "{again:?}");
}

#[test]
fn one_report_is_forgotten_and_the_patients_others_stay() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server);
    sandbox.succeeds(&["forget", "--where", "id = 'mueller-2'"]);
    assert_eq!(traces(&sandbox, &["mueller-2", "horseshoe"]), [""; 0]);
    sandbox.run(&["p.yaml"]);
    assert!(server.take_reports().is_empty());
    let ids = sandbox.sql("select id from reports where patient = 'mueller' order by id");
    assert_eq!(ids, ["mueller-1", "mueller-3"]);
}

#[test]
fn killed_at_any_moment_a_second_go_finishes_it() {
    let server = ChatServer::start();
    let undisturbed = sandbox(&server);
    let begun = Instant::now();
    undisturbed.succeeds(&FORGET);
    let whole = begun.elapsed();
    for part in 1..9 {
        let sandbox = sandbox(&server);
        let quiet = || Stdio::null();
        let mut first = sandbox.command(&FORGET).stdout(quiet()).stderr(quiet()).spawn().unwrap();
        std::thread::sleep(whole * part / 9);
        first.kill().unwrap();
        first.wait().unwrap();
        sandbox.succeeds(&FORGET);
        assert_eq!(traces(&sandbox, &TRACES), [""; 0], "killed after {part} of 9 parts");
        sandbox.succeeds(&["verify"]);
        sandbox.run(&["p.yaml"]);
        assert!(server.take_reports().is_empty(), "killed after {part} of 9 parts");
        assert_eq!(traces(&sandbox, &TRACES), [""; 0], "killed after {part} of 9 parts");
    }
}

#[test]
fn answers_that_a_killed_run_left_are_forgotten_too() {
    let server = ChatServer::start();
    let sandbox = Sandbox::new();
    sandbox.write("p.yaml", &SPEC.replace("@URL", &server.base_url)).write("pack.yaml", PACK);
    sandbox
        .write("prompt.md", "Label.\nReport:\n{{ report.findings }}")
        .write("reports.csv", &reports(false));
    sandbox.write("gold.csv", "who,effusion,nodule\nmueller,1,1\n");
    server.behave(|heard| match heard.report().contains("nodule of 3 mm") {
        true => Reply::Slow(Duration::from_secs(60)),
        false => Reply::Good,
    });
    let quiet = || Stdio::null();
    let mut run = sandbox.command(&["run", "p.yaml"]).stdout(quiet()).stderr(quiet()).spawn().unwrap();
    server.wait_for_answers(4);
    std::thread::sleep(Duration::from_millis(300));
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(traces(&sandbox, &["cavernous"]).len() == 1);
    let nobody = sandbox.succeeds(&["forget", "--where", "patient = 'nobody'"]).out;
    assert!(nobody.starts_with("removed 0 answers"), "a slip of the pen takes no answers away: {nobody}");
    sandbox.succeeds(&FORGET);
    assert_eq!(traces(&sandbox, &TRACES), [""; 0]);
    server.take_reports();
    server.behave(|_| Reply::Good);
    sandbox.run(&["p.yaml"]);
    assert_eq!(server.take_reports(), ["A nodule of 3 mm."], "the answers about others were there");
}

#[test]
fn volumes_are_forgotten_with_their_voxels_paths_and_listed_names() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "demo.yaml",
        "argent: 1\nname: demo\nsteps: { demo: { use: demo.chest_ct, with: { patients: 3 } } }\n",
    );
    sandbox.succeeds(&["run", "demo.yaml", "--store", "elsewhere"]);
    let files = ["sql", "select path, digest from demo", "--store", "elsewhere", "--format", "csv", "--phi"];
    for line in sandbox.succeeds(&files).out.lines().skip(1) {
        let (path, digest) = line.split_once(',').unwrap();
        let bytes =
            std::fs::read(sandbox.path("elsewhere/cas").join(&digest[..2]).join(&digest[2..])).unwrap();
        std::fs::create_dir_all(sandbox.path("volumes")).unwrap();
        std::fs::write(sandbox.path(path), bytes).unwrap();
    }
    let spec = "argent: 1
name: grids
steps:
  volumes: { use: volumes.scan, with: { path: 'volumes/*.nii.gz', ids: ct-rate } }
  grid: { use: volumes.resample, from: volumes, with: { spacing_mm: [16, 16, 16] } }
  split: { use: split.groups, from: grid, with: { by: patient, parts: { train: 0.5, test: 0.5 } } }
  bare: { use: sql, from: { grid: grid }, with: { query: select voxels from grid } }
  number: { use: sql, from: { bare: bare }, with: { query: select count(*) as n from bare } }
";
    sandbox.write("p.yaml", spec);
    let patients = "select distinct patient from grid order by patient";
    sandbox.run(&["p.yaml"]);
    let first = sandbox.sql(patients)[0].clone();
    let id = sandbox.sql(&format!("select id from grid where patient = '{first}' order by id"))[0].clone();
    let voxels = sandbox.sql(&format!("select voxels from grid where patient = '{first}'"));
    let trace = format!("{first}_");
    assert_eq!(traces(&sandbox, &[&trace]).len(), 1);

    sandbox.succeeds(&["forget", "--where", &format!("patient = '{first}'")]);
    let is_there =
        |digest: &String| sandbox.path(".argent/cas").join(&digest[..2]).join(&digest[2..]).exists();
    assert_eq!(voxels.iter().filter(|digest| is_there(digest)).count(), 0);
    assert_eq!(traces(&sandbox, &[&trace]), [""; 0]);
    sandbox.succeeds(&["verify"]);
    let others = sandbox.sql("select voxels from grid order by voxels");
    assert_eq!(others.iter().filter(|digest| !is_there(digest)).count(), 0, "the others' voxels are there");
    assert_eq!(sandbox.sql("select voxels from bare order by voxels"), others, "his are in no table");

    // His files are still there, one of them damaged meanwhile.
    sandbox.write(&format!("volumes/{id}.nii.gz"), "no volume");
    let said = sandbox.run(&["p.yaml"]);
    assert!(said[1].starts_with("grid made 0 "), "{said:?}");
    assert!(!sandbox.sql(patients).contains(&first));
    let errors = sandbox.sql("select path, kind, message, count(*) from volumes.errors group by all");
    expect![[r#",forgotten,"the subject was forgotten, so its rows are not taken in again",#"#]]
        .assert_eq(&errors.join("\n").replace(&format!(",{}", voxels.len()), ",#"));
    assert_eq!(traces(&sandbox, &[&trace]), [""; 0]);
}

#[test]
fn a_result_made_from_forgotten_rows_is_not_accepted_as_hardly_changed() {
    let server = ChatServer::start();
    let lenient = |sandbox: &Sandbox| {
        let rerun = "  counts:\n    rerun: { if: \"changed_rows > 0.99\" }\n";
        sandbox.write("p.yaml", &sandbox.read("p.yaml").replace("  counts:\n", rerun));
    };
    let counts = |sandbox: &Sandbox| {
        let said = sandbox.run(&["p.yaml"]);
        said.iter().find(|line| line.starts_with("counts ")).unwrap().split(' ').nth(1).unwrap().to_owned()
    };
    let without = sandbox(&server);
    lenient(&without);
    let others =
        reports(false).lines().filter(|line| !line.starts_with("mueller-")).collect::<Vec<_>>().join("\n");
    without.write("reports.csv", &others);
    assert_eq!(counts(&without), "accepted", "rows that only left the file are drift");

    let forgotten = sandbox(&server);
    lenient(&forgotten);
    forgotten.succeeds(&FORGET);
    assert_eq!(counts(&forgotten), "made");
}

#[test]
fn a_result_whose_parameters_name_the_patient_goes_as_a_whole() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server);
    let others = "  others:
    use: sql
    from: { reports: reports }
    with: { query: \"select count(*) as n from reports where patient <> 'mueller'\" }
";
    sandbox.write("p.yaml", &(SPEC.replace("@URL", &server.base_url) + others));
    sandbox.run(&["p.yaml"]);
    let said = sandbox.succeeds(&FORGET).out;
    assert!(said.contains("which go as a whole: clinic.others; take the names out of the spec"), "{said}");
    assert_eq!(traces(&sandbox, &TRACES), [""; 0]);
    sandbox.succeeds(&["verify"]);
    assert_eq!(sandbox.argent(&["sql", "select * from others"]).code, 1, "no name stands for it");
    sandbox.succeeds(&["runs"]);
    sandbox.run(&["p.yaml"]);
    assert_eq!(sandbox.sql("select n from others"), ["3"]);
}

#[test]
fn a_file_that_a_step_makes_is_told_of_and_its_rows_are_refused() {
    let sandbox = Sandbox::new();
    let spec = "argent: 1
name: drawn
steps:
  demo: { use: demo.chest_ct, with: { patients: 2 } }
  reports:
    use: reports.table
    from: { files: demo }
    with: { path: reports.csv, id: VolumeName, ids: ct-rate, sections: { findings: Findings_EN } }
";
    sandbox.write("p.yaml", spec);
    sandbox.run(&["p.yaml"]);
    let said = sandbox.succeeds(&["forget", "--where", "patient = 'demo_1'"]).out;
    assert!(said.contains("2 text files that a step of a pipeline made still name them"), "{said}");
    sandbox.run(&["p.yaml"]);
    assert_eq!(sandbox.sql("select distinct patient from reports"), ["demo_2"]);
    let drawn = sandbox.sql("select path from demo where path like 'volumes/demo_1_%'");
    assert_eq!(drawn, [""; 0]);
    assert_eq!(sandbox.sql("select kind from demo.errors"), ["forgotten"]);
}

#[test]
fn what_cannot_be_meant_is_said() {
    let server = ChatServer::start();
    let sandbox = sandbox(&server);
    let refused = |predicate: &str| {
        let said = sandbox.argent(&["forget", "--where", predicate]);
        assert_eq!((said.code, said.out.as_str()), (2, ""));
        said.err
    };
    let said = [refused("pateint = 'mueller'"), refused("1 = 1"), refused("patient = ")].concat();
    expect![[r#"
        error: there is no column `pateint`; the tables of this store have the id columns id, number, patient, who
        error: the predicate names no id column, expected one such as `patient`
        error: the predicate does not read: expected an expression, found `)`; the tables of this store have the id columns id, number, patient, who
    "#]].assert_eq(&said);
    let nobody = sandbox.succeeds(&["forget", "--where", "patient = 'nobody'"]).out;
    expect![[r#"
        removed 0 answers, 0 requests, 0 side files
        no row that is still there has ids of its own that the predicate names
    "#]]
    .assert_eq(&nobody);
    assert_eq!(traces(&sandbox, &TRACES), TRACES);
}
