//! The guides are run: what they tell to write is written, what they tell to type is typed, and what came out is what
//! they show. `UPDATE_EXPECT=1` puts into them what comes out now.
//!
//! A fenced block says by its first line what it is:
//! - a language and a file (`yaml pipeline.yaml`): the text of that file, which is written;
//! - `console`: lines behind `$ `, which a shell runs, each with what it says below it; where it is to end with
//!   another exit code than 0, the line ends in `# exits 2`;
//! - `text`: something to look at;
//! - `sh elsewhere`: lines for another machine, which are not run.

use std::process::Command;

use expect_test::expect_file;
use regex::Regex;

use crate::chat_server::ChatServer;
use crate::sandbox::{Sandbox, has_python, root};
use crate::tiny_model;

/// Runs a guide in an empty folder, and holds it against what it shows.
fn runs(name: &str, sandbox: &Sandbox) {
    let path = root().join("docs/guides").join(name);
    let shown = std::fs::read_to_string(&path).unwrap();
    let said = told(&shown, sandbox, name);
    if alike(&said) != alike(&shown) {
        expect_file![path].assert_eq(&said);
    }
}

/// The guide with what its commands say now.
fn told(guide: &str, sandbox: &Sandbox, name: &str) -> String {
    let mut told = String::new();
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        told += &format!("{line}\n");
        let Some(kind) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let words: Vec<&str> = kind.split(' ').collect();
        match words.as_slice() {
            ["console"] => told += &session(&block, sandbox, name),
            ["sh", "elsewhere"] | ["text"] => told += &text(&block),
            [_, file] => {
                sandbox.write(file, &text(&block));
                told += &text(&block);
            }
            _ => panic!(
                "{name}: a block begins with ```{kind}, which says not what it is; see tests/guides.rs"
            ),
        }
        told += "```\n";
    }
    told
}

fn text(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Types the lines behind `$ ` and tells them with what came out.
fn session(block: &[&str], sandbox: &Sandbox, name: &str) -> String {
    let mut told = String::new();
    for line in block.iter().filter(|line| line.starts_with("$ ")) {
        let (said, code) = typed(&line[2..], sandbox);
        let expected = line.rsplit_once("# exits ").map_or(0, |(_, code)| code.parse().unwrap());
        assert_eq!(code, expected, "{name}: {line}\n{said}");
        told += &format!("{line}\n{said}");
    }
    told
}

/// What a line says at a terminal, talk first, and its exit code.
fn typed(line: &str, sandbox: &Sandbox) -> (String, i32) {
    let argent = sandbox.command(&[]);
    let folder = std::path::Path::new(argent.get_program()).parent().unwrap().to_owned();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(sandbox.path("")).env_clear();
    shell.envs(argent.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("PATH", path);
    let said = shell.output().unwrap();
    let words = [said.stderr, said.stdout].map(|bytes| String::from_utf8(bytes).unwrap());
    // The server of the tests listens where it can, the one of the guides where servers do.
    let port = Regex::new(r"http://127\.0\.0\.1:\d+/").unwrap();
    let text = port.replace_all(&words.concat(), "http://127.0.0.1:8000/").into_owned();
    (text, said.status.code().unwrap())
}

/// A text without what differs from run to run and is nobody's promise: times, names of runs, and how wide they
/// make a column.
fn alike(text: &str) -> String {
    let varying =
        [r"\d+(\.\d+)? (s|min|h)\b", r"\d{8}T[0-9.]+Z-[0-9a-f]+", r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "[ -]{2,}"];
    varying.iter().fold(text.to_owned(), |text, pattern| {
        Regex::new(pattern).unwrap().replace_all(&text, " # ").into_owned()
    })
}

#[test]
fn every_guide_is_run_here() {
    let source = std::fs::read_to_string(root().join("tests/guides.rs")).unwrap();
    for guide in std::fs::read_dir(root().join("docs/guides")).unwrap() {
        let name = guide.unwrap().file_name().into_string().unwrap();
        assert!(source.contains(&format!("runs(\"{name}\"")), "tests/guides.rs does not run {name}");
    }
}

#[test]
fn a_pipeline_is_written() {
    runs("write-a-pipeline.md", &Sandbox::new());
}

#[test]
fn a_prompt_is_changed() {
    let server = ChatServer::start();
    runs("change-a-prompt.md", &Sandbox::new().with_variable("LLM_URL", &server.base_url));
}

#[test]
fn a_prompt_is_tried() {
    let server = ChatServer::start();
    runs("try-a-prompt.md", &Sandbox::new().with_variable("LLM_URL", &server.base_url));
}

#[test]
fn a_server_is_worked_with() {
    let server = ChatServer::start();
    runs("work-with-an-llm-server.md", &Sandbox::new().with_variable("LLM_URL", &server.base_url));
}

#[test]
fn a_local_model_is_worked_with() {
    let sandbox = Sandbox::new();
    tiny_model::write(&sandbox.path("models/tiny"), 1);
    runs("work-with-a-local-model.md", &sandbox);
}

#[test]
fn a_plan_is_read() {
    runs("read-the-plan.md", &Sandbox::new());
}

#[test]
fn analysts_ask_sql() {
    runs("sql-for-analysts.md", &Sandbox::new());
}

#[test]
fn an_operator_is_added() {
    runs("add-an-operator.md", &Sandbox::new());
}

#[test]
fn a_gpu_is_worked_with() {
    if has_python() {
        runs("../gpu.md", &Sandbox::new());
    }
}

#[test]
fn volumes_and_x_rays_are_looked_at() {
    let sandbox = Sandbox::new();
    std::fs::create_dir_all(sandbox.path("xrays")).unwrap();
    for image in std::fs::read_dir(root().join("pipelines/examples/data/xrays")).unwrap() {
        let image = image.unwrap();
        std::fs::copy(image.path(), sandbox.path("xrays").join(image.file_name())).unwrap();
    }
    runs("look-at-volumes-and-x-rays.md", &sandbox);
}

#[test]
fn volumes_without_headers_are_read() {
    if has_python() {
        runs("read-volumes-without-headers.md", &Sandbox::new());
    }
}

#[test]
fn dicom_is_read() {
    if has_python() {
        runs("read-dicom.md", &Sandbox::new());
    }
}
