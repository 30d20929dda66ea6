//! A folder of a test's own, and the program run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A folder that is gone when the test ends; the store lies in it.
pub(crate) struct Sandbox {
    folder: TempDir,
    variables: Vec<(String, String)>,
}

/// What the program said.
#[derive(Debug)]
pub(crate) struct Said {
    /// The exit code.
    pub(crate) code: i32,
    /// Standard output: data.
    pub(crate) out: String,
    /// Standard error: talk.
    pub(crate) err: String,
}

impl Sandbox {
    /// An empty folder.
    pub(crate) fn new() -> Sandbox {
        Sandbox { folder: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    /// The same folder with an environment variable for the program.
    pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Sandbox {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, making its folders.
    pub(crate) fn write(&self, name: &str, text: &str) -> &Sandbox {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// Reads a file.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// The program with these words, ready to start; the environment holds nothing that it could mistake.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_argent"));
        command.args(words).current_dir(self.folder.path()).env_clear().env("NO_COLOR", "1");
        // Steps may be programs, which are looked for where the user's are.
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        // One step at a time, so that what is said comes in one order; a test of parallel steps says otherwise.
        command.env("ARGENT_JOBS", "1");
        command.envs(self.variables.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Runs the program to its end.
    pub(crate) fn argent(&self, words: &[&str]) -> Said {
        said(self.command(words).output().unwrap(), self.folder.path())
    }

    /// Runs the program and expects exit code 0.
    pub(crate) fn succeeds(&self, words: &[&str]) -> Said {
        let said = self.argent(words);
        assert_eq!(said.code, 0, "argent {} said:\n{}\n{}", words.join(" "), said.out, said.err);
        said
    }

    /// The last line of `run --json`, with what each step did: `name action made reused failed`.
    pub(crate) fn run(&self, words: &[&str]) -> Vec<String> {
        let mut all = vec!["run"];
        all.extend(words);
        all.push("--json");
        steps(&self.succeeds(&all).out)
    }

    /// The rows of an SQL question as CSV, without the header.
    pub(crate) fn sql(&self, question: &str) -> Vec<String> {
        let said = self.succeeds(&["sql", question, "--format", "csv", "--phi"]);
        said.out.lines().skip(1).map(str::to_owned).collect()
    }
}

/// What each step did, from the output of `run --json`: `name action made reused failed`.
pub(crate) fn steps(out: &str) -> Vec<String> {
    let last: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "finished");
    let line = |s: &serde_json::Value| {
        let word = |name: &str| s[name].as_str().unwrap().to_owned();
        format!("{} {} {} {} {}", word("step"), word("action"), s["made"], s["reused"], s["failed"])
    };
    last["steps"].as_array().unwrap().iter().map(line).collect()
}

/// The project's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether there is a Python to run scripts with; else a word about it.
pub(crate) fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|said| said.status.success());
    if !found {
        println!("skipped: there is no python3");
    }
    found
}

/// A folder of real data beside the project; none, with a word about it, where it is absent.
pub(crate) fn shared_data(name: &str) -> Option<PathBuf> {
    let path = root().join("../shared/data").join(name);
    if path.is_dir() {
        return Some(path.canonicalize().unwrap());
    }
    println!("skipped: there is no ../shared/data/{name}");
    None
}

fn said(output: Output, folder: &Path) -> Said {
    let folder = folder.to_string_lossy().into_owned();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&folder, "@");
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}
