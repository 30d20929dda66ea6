//! A store that cannot be used says so and why, and loses nothing.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use crate::sandbox::Sandbox;

const SPEC: &str = "argent: 1
name: p
steps:
  reports: { use: reports.table, with: { path: reports.csv, id: id, text: text } }
  number: { use: sql, from: reports, with: { query: select count(*) as n from reports } }
";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let rows: String = (0..500).map(|n| format!("{n},report {} of many\n", n * 7919)).collect();
    sandbox.write("p.yaml", SPEC).write("reports.csv", &format!("id,text\n{rows}"));
    sandbox
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The disk is full after any number of bytes: here, no file may grow beyond a limit.
#[test]
fn a_full_disk_ends_in_a_clear_error_and_a_store_that_goes_on() {
    for blocks in [1, 2, 4, 8, 16, 64] {
        let sandbox = sandbox();
        let limit = format!("ulimit -f {blocks}; trap '' XFSZ; exec \"$0\" run p.yaml --jobs 1");
        let mut command = Command::new("sh");
        command.args(["-c", &limit, env!("CARGO_BIN_EXE_argent")]).current_dir(sandbox.path("")).env_clear();
        let said = command.output().unwrap();
        if said.status.code() != Some(0) {
            let text = error(&said);
            assert!(text.contains("free some space and run the same command again"), "{blocks}: {text}");
        }
        sandbox.succeeds(&["run", "p.yaml"]);
        assert_eq!(sandbox.sql("select n from number"), ["500"], "{blocks}");
    }
}

#[test]
fn a_store_that_cannot_be_written_is_read_and_says_what_it_cannot() {
    let sandbox = sandbox();
    sandbox.succeeds(&["run", "p.yaml"]);
    let folders = |mode: u32| {
        for name in ["", "actions", "cas", "locks", "memo", "pipelines", "runs", "statics", "tmp"] {
            let folder = sandbox.path(".argent").join(name);
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    folders(0o500);
    if std::fs::write(sandbox.path(".argent/probe"), "").is_ok() {
        println!("skipped: this user may write everywhere");
        return;
    }
    assert_eq!(sandbox.sql("select n from number"), ["500"]);
    let said = sandbox.argent(&["run", "p.yaml"]);
    folders(0o700);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("make the folder writable for this user, or choose another store"),
        "{}",
        said.err
    );
}

#[test]
fn a_file_is_no_store_and_a_newer_store_is_not_touched() {
    let sandbox = sandbox();
    sandbox.write("file", "");
    let said = sandbox.argent(&["run", "p.yaml", "--store", "file"]);
    assert_eq!(said.code, 1);
    assert_eq!(
        said.err.lines().last().unwrap(),
        "error: the store file does not open: @/file is a file, and a store is a folder; choose another with --store"
    );
    sandbox.succeeds(&["run", "p.yaml"]);
    assert_eq!(sandbox.read(".argent/format"), "1\n");
    sandbox.write(".argent/format", "2\n");
    let said = sandbox.argent(&["run", "p.yaml"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err
            .contains("has format 2, and this argent reads up to 1; update argent, or choose another store"),
        "{}",
        said.err
    );
}

#[test]
fn an_input_that_vanishes_after_the_plan_fails_its_step_by_name() {
    let sandbox = sandbox();
    sandbox.succeeds(&["plan", "p.yaml"]);
    std::fs::remove_file(sandbox.path("reports.csv")).unwrap();
    let said = sandbox.argent(&["run", "p.yaml"]);
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("no file matches reports.csv"), "{}", said.err);
    assert!(sandbox.path(".argent").exists(), "what the plan made is kept");
}
