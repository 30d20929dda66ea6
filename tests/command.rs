//! Any program is a step: it is given what was declared, held to what it promised, and stopped with all it started.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use expect_test::expect;

use crate::sandbox::Sandbox;

/// A pipeline of three reports and a step of a program.
fn spec(with: &str) -> String {
    format!(
        "argent: 1
name: p
steps:
  reports: {{ use: reports.table, with: {{ path: reports.csv, id: id, text: text }} }}
  made:
    use: command
    from: reports
    with: {with}
"
    )
}

const REPORTS: &str = "id,text\na,No effusion.\nb,\"An effusion, small.\"\nc,Lungs are clear.\n";

/// Writes the line of names and a line per report.
const COUNT: &str = "echo id,n > \"$2\"\ntail -n +2 \"$1\" | cut -d, -f1 | sed 's/$/,1/' >> \"$2\"\n";

const COUNTED: &str = "{ run: \"sh count.sh {in} {out}\", inputs: [count.sh], format: csv, outputs: { main: { columns: { id: id, n: whole }, keys: [id] } } }";

fn sandbox(with: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("reports.csv", REPORTS).write("count.sh", COUNT).write("p.yaml", &spec(with));
    sandbox
}

#[test]
fn a_program_runs_again_when_its_files_or_tables_change_and_else_not() {
    let sandbox = sandbox(COUNTED);
    assert_eq!(sandbox.run(&["p.yaml"])[1], "made made 3 0 0");
    assert_eq!(sandbox.sql("select id, n from made"), ["a,1", "b,1", "c,1"]);
    assert_eq!(sandbox.run(&["p.yaml"])[1], "made reused 0 3 0");
    sandbox.write("count.sh", &COUNT.replace(",1/", ",2/"));
    let why = sandbox.succeeds(&["why", "p.yaml", "made"]).out;
    assert!(why.contains("made: runs\n  input `files`: column digest changed\n"), "{why}");
    sandbox.run(&["p.yaml"]);
    assert_eq!(sandbox.sql("select distinct n from made"), ["2"]);
    // Neither a comment in the spec nor how long the program may take is what it makes.
    sandbox.write("p.yaml", &spec(&COUNTED.replace("{ run", "{ timeout_s: 60, run")));
    assert_eq!(sandbox.run(&["p.yaml"])[1], "made reused 0 3 0");
    sandbox.write("reports.csv", &format!("{REPORTS}d,New.\n"));
    assert_eq!(sandbox.run(&["p.yaml"])[1], "made made 4 0 0");
}

#[test]
fn mistakes_of_a_command_line_are_found_before_it_runs() {
    let sandbox = sandbox(
        "{ run: \"sh count.sh {in.report} > {out.x}\", inputs: [abc.sh, reports.csv], env: [A], outputs: { x: { columns: { n: whole }, keys: [m] }, errors: { columns: {} } } }",
    );
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2);
    let lines = said.err.lines().filter(|line| line.starts_with("error") || line.starts_with("help"));
    expect![[r#"
        error: `run` names `report`, which is not one of the step's inputs
        help: did you mean `reports`?
        error: `>` has no meaning here: no shell reads `run`
        help: give the program the path, as {out} or as an option
        error: `run` does not say where the program finds the input `reports`
        help: add {in.reports} to the words, or take it out of `from`
        error: `run` does not say where the program writes the output `errors`
        help: add {out.errors} to the words
        error: `run` names the file count.sh, which `inputs` does not declare
        help: add count.sh to `inputs`: then a change of it runs the step again
        error: no file matches abc.sh
        help: paths are relative to the spec, here .
        error: no output is named `main`
        help: `main` is the step's own table: main: { columns: { … } }
        error: the key `m` is not a column of the output `x`
        help: did you mean `n`?
        error: the engine itself names a table `errors`
        error: the output `errors` has no columns"#]]
    .assert_eq(&lines.collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_placeholder_that_could_mean_several_tables_is_asked_for_a_name() {
    let with = "{ run: \"sh count.sh {in} {in.a} {out}\", inputs: [count.sh], outputs: { main: { columns: { n: whole } } } }";
    let sandbox = sandbox(with);
    sandbox.write("p.yaml", &spec(with).replace("from: reports", "from: { a: reports, b: reports }"));
    let said = sandbox.argent(&["check", "p.yaml"]);
    let lines = said.err.lines().filter(|line| line.starts_with("error") || line.starts_with("help"));
    expect![[r#"
        error: `{in}` could be any of the step's 2 inputs
        help: name the one that is meant: a, b
        error: `run` does not say where the program finds the input `b`
        help: add {in.b} to the words, or take it out of `from`"#]]
    .assert_eq(&lines.collect::<Vec<_>>().join("\n"));
    sandbox.write("p.yaml", &spec(with).replace("    from: reports\n", "").replace("{in.a} ", ""));
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert!(said.err.contains("`{in}` means none: the step has no inputs"), "{}", said.err);
}

#[test]
fn a_file_that_is_named_and_not_declared_is_pointed_at() {
    let sandbox = sandbox(&COUNTED.replace("inputs: [count.sh], ", ""));
    let said = sandbox.argent(&["check", "p.yaml"]);
    assert_eq!(said.code, 2);
    expect![[r#"
        error: `run` names the file count.sh, which `inputs` does not declare
         --> p.yaml:8:18
          |
        8 |     with: { run: "sh count.sh {in} {out}", format: csv, outputs: { main: { columns: { id: id, n: whole }, keys: [id] } } }
          |                  ^^^^^^^^^^^^^^^^^^^^^^^^
          |
        help: add count.sh to `inputs`: then a change of it runs the step again

        1 mistake in p.yaml

    "#]].assert_eq(&said.err);
}

/// What a run says of the failing step, its log's name taken out.
fn failure(sandbox: &Sandbox) -> String {
    let said = sandbox.argent(&["run", "p.yaml", "--json"]);
    assert_eq!(said.code, 1, "{}", said.out);
    let last: serde_json::Value = serde_json::from_str(said.out.lines().last().unwrap()).unwrap();
    last["steps"][1]["error"].as_str().unwrap().to_owned()
}

/// The same step with a script that writes this text.
fn writing(text: &str) -> Sandbox {
    let sandbox = sandbox(COUNTED);
    sandbox.write("count.sh", &format!("cat > \"$2\" <<'END'\n{text}END\n"));
    sandbox
}

#[test]
fn what_a_program_writes_is_held_against_what_was_declared() {
    let failures = [
        "id\na\n",
        "id,n,extra\na,1,2\n",
        "id,n\na,many\n",
        "id,n\na,1.5\n",
        "id,n\n,1\n",
        "id,n\na,1\nb,2\na,3\n",
        "id,n\na,1,2\n",
    ]
    .map(|text| failure(&writing(text)));
    expect![[r#"
        the output `main` is not what was declared: the column `n` is not there; there are id
        the output `main` is not what was declared: the column `extra` was not declared; declare it in `outputs`, or do not write it
        the output `main` is not what was declared: line 2: `n` is not a whole number
        the output `main` is not what was declared: line 2: `n` is not a whole number
        the output `main` is not what was declared: `id` is null in row 1, and a key or an id must not be
        the output `main` is not what was declared: rows 1 and 3 have the same key (id)
        the output `main` is not what was declared: line 2: 3 cells where the header has 2"#]].assert_eq(&failures.join("\n"));
    let sandbox = sandbox(COUNTED);
    sandbox.write("count.sh", "exit 0\n");
    expect!["the program did not write the output `main`, which `run` calls {out.main}"]
        .assert_eq(&failure(&sandbox));
    // Nothing of a failed step is left to be read.
    let said = sandbox.argent(&["sql", "select * from made"]);
    assert!(said.err.contains("there are reports"), "{}", said.err);
}

#[test]
fn a_program_that_fails_says_why_in_a_file_and_never_at_the_terminal() {
    let sandbox = sandbox(COUNTED);
    sandbox.write("count.sh", "echo cannot read the report of Mr Smith >&2\nexit 3\n");
    let error = failure(&sandbox);
    let (before, rest) = error.split_once("printed is in ").unwrap();
    let (log, after) = rest.split_once(' ').unwrap();
    assert_eq!((before, after), ("`sh` ended with exit code 3; what it ", "and may hold patient text"));
    assert_eq!(std::fs::read_to_string(log).unwrap(), "cannot read the report of Mr Smith\n");
    std::fs::remove_file(log).unwrap();
    sandbox.write("count.sh", "kill -9 $$\n");
    assert_eq!(failure(&sandbox), "`sh` was killed by signal 9; it printed nothing");
    sandbox.write("p.yaml", &spec(&COUNTED.replace("sh count.sh", "no-such-program count.sh")));
    assert_eq!(failure(&sandbox), "the program `no-such-program` is not there: it is on no folder of PATH");
    let with = COUNTED.replace("{ run", "{ env: [ABSENT], run");
    sandbox.write("p.yaml", &spec(&with));
    assert_eq!(failure(&sandbox), "the environment variable ABSENT is not set");
}

#[test]
fn a_program_sees_its_own_folder_and_the_variables_that_were_named() {
    let with = "{ run: \"sh look.sh {out} ../up.txt\", inputs: [look.sh, \"../up.txt\", deep/*.txt], env: [TOKEN], format: csv, outputs: { main: { columns: { line: text } } } }";
    let sandbox = Sandbox::new().with_variable("TOKEN", "t").with_variable("OTHER", "o");
    sandbox.write("in/reports.csv", REPORTS).write("up.txt", "up\n").write("in/deep/a.txt", "deep\n");
    sandbox.write(
        "in/look.sh",
        "{ echo line; env | cut -d= -f1 | sort; find . -type f | sort; cat \"$2\" deep/a.txt; } > \"$1\"\n",
    );
    sandbox.write("in/p.yaml", &spec(with).replace("    from: reports\n", ""));
    sandbox.run(&["in/p.yaml", "--store", "store"]);
    let said = sandbox.succeeds(&["sql", "select line from made", "--store", "store", "--format", "csv"]);
    let lines = said.out.lines().filter(|line| !["_", "SHLVL"].contains(line));
    expect![[r#"
        line
        ./deep/a.txt
        ./look.sh
        LC_ALL
        PATH
        PWD
        PYTHONDONTWRITEBYTECODE
        PYTHONHASHSEED
        TMPDIR
        TOKEN
        TZ
        deep
        up"#]]
    .assert_eq(&lines.collect::<Vec<_>>().join("\n"));
}

#[test]
fn parquet_goes_in_and_out_and_side_files_with_it() {
    let with = "{ run: \"sh write.sh {out}\", inputs: [write.sh, weights.parquet], outputs: { main: { columns: { name: text, weights: file }, keys: [name] } } }";
    let sandbox = Sandbox::new();
    sandbox.write("names.csv", "name,weights\none,model.bin\n");
    // A table in Parquet, as pyarrow would write it.
    sandbox.write("names.yaml", "argent: 1\nname: names\nsteps:\n  names: { use: reports.table, with: { path: names.csv, id: name, text: weights } }\n");
    sandbox.succeeds(&["run", "names.yaml", "--store", "other"]);
    let file = sandbox.path("weights.parquet");
    let question = "select id as name, text as weights from names";
    sandbox.succeeds(&[
        "sql",
        question,
        "--store",
        "other",
        "--phi",
        "--format",
        "parquet",
        "-o",
        file.to_str().unwrap(),
    ]);
    sandbox.write("write.sh", "printf 'so many weights' > model.bin\ncp weights.parquet \"$1\"\n");
    let read = "{ run: \"sh read.sh {in} {files} {out}\", inputs: [read.sh], format: csv, outputs: { main: { columns: { size: whole } } } }";
    sandbox.write("read.sh", "{ echo size; cat \"$2\"/* | wc -c; } > \"$3\"\n");
    let spec = format!(
        "argent: 1\nname: p\nsteps:\n  encoder: {{ use: command, with: {with} }}\n  sizes: {{ use: command, from: encoder, with: {read} }}\n"
    );
    sandbox.write("p.yaml", &spec);
    sandbox.run(&["p.yaml"]);
    assert_eq!(sandbox.sql("select size from sizes"), ["15"]);
    assert_eq!(sandbox.sql("select length(weights) from encoder"), ["64"]);
    sandbox.write("write.sh", "cp weights.parquet \"$1\"\n");
    let said = sandbox.argent(&["run", "p.yaml"]);
    assert!(
        said.err.contains(
            "the column `weights`: the path in row 1: it is no file in the folder that the program worked in"
        ),
        "{}",
        said.err
    );
}

/// A program that says it has begun, and then does nothing for a minute, in a process of its own.
const SLOW: &str = "touch \"$1/begun\"\nsleep 60 &\necho $! > \"$1/sleeper\"\nwait\n";

fn slow(more: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let notes = sandbox.path("notes");
    std::fs::create_dir(&notes).unwrap();
    let with = format!(
        "{{ run: \"sh slow.sh {} {{out}}\", inputs: [slow.sh], {more}outputs: {{ main: {{ columns: {{ n: whole }} }} }} }}",
        notes.display()
    );
    sandbox
        .write("p.yaml", &format!("argent: 1\nname: p\nsteps:\n  slow: {{ use: command, with: {with} }}\n"));
    sandbox.write("slow.sh", SLOW);
    sandbox
}

/// Whether the process that the program started still runs.
fn sleeps(sandbox: &Sandbox) -> bool {
    let sleeper = sandbox.read("notes/sleeper");
    let status = std::fs::read_to_string(format!("/proc/{}/stat", sleeper.trim()));
    status.is_ok_and(|status| !status.contains(") Z "))
}

fn waits_for(what: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < patience, "it never happened");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_interrupted_run_stops_the_program_and_all_that_it_started() {
    for signal in ["INT", "TERM"] {
        let sandbox = slow("");
        let mut run = sandbox.command(&["run", "p.yaml", "--json"]);
        let run = run.stdout(Stdio::piped()).spawn().unwrap();
        waits_for(|| sandbox.path("notes/sleeper").exists() && !sandbox.read("notes/sleeper").is_empty());
        assert!(sleeps(&sandbox));
        let started = Instant::now();
        assert!(
            Command::new("kill")
                .args([format!("-{signal}"), run.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
        let said = run.wait_with_output().unwrap();
        assert_eq!(said.status.code(), Some(130));
        assert!(started.elapsed() < Duration::from_secs(5), "it did not wait for the program");
        waits_for(|| !sleeps(&sandbox));
        let last = String::from_utf8(said.stdout).unwrap();
        assert!(last.lines().last().unwrap().contains("\"action\":\"pending\""), "{last}");
        // The next run begins anew, and has its result.
        sandbox.write("slow.sh", "exit 0\n");
        assert!(
            sandbox.argent(&["run", "p.yaml"]).err.contains("the program did not write the output `main`")
        );
        let leftovers = std::fs::read_dir(sandbox.path(".argent/tmp")).unwrap().count();
        assert_eq!(leftovers, 0, "nothing unfinished is left");
    }
}

#[test]
fn a_program_that_takes_too_long_is_stopped() {
    let sandbox = slow("timeout_s: 1, ");
    let said = sandbox.argent(&["run", "p.yaml"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("`sh` took longer than 1 s (`timeout_s`) and was stopped; it printed nothing"),
        "{}",
        said.err
    );
    waits_for(|| !sleeps(&sandbox));
}
