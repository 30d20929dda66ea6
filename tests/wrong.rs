//! What is said of wrong specs, word for word: each folder of `tests/wrong/` holds a spec, the files beside it, and
//! the text that `argent check` says of it. `words.txt` holds further words of the command line.
//!
//! `UPDATE_EXPECT=1` writes the texts anew; read them as the person who made the mistake.

use std::path::{Path, PathBuf};

use crate::sandbox::{Sandbox, root};

#[test]
fn every_wrong_spec_is_told_what_is_there_what_was_expected_and_how_to_mend_it() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let cases = folders(&root().join("tests/wrong"));
    assert!(cases.len() >= 60, "there are {} wrong specs, expected at least 60", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let said = said_of(&case);
        let expected = case.join("expected.txt");
        if update {
            std::fs::write(&expected, &said).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("{}\n{said}", case.file_name().unwrap().to_string_lossy()));
        }
    }
    assert!(wrong.is_empty(), "{} texts differ:\n\n{}", wrong.len(), wrong.join("\n----\n"));
}

/// What `argent check` says of a case, in a folder of its own.
fn said_of(case: &Path) -> String {
    let sandbox = Sandbox::new();
    copy(case, &sandbox.path(""));
    let words = std::fs::read_to_string(case.join("words.txt")).unwrap_or_default();
    let mut all = vec!["check", "spec.yaml"];
    all.extend(words.split_whitespace());
    let said = sandbox.argent(&all);
    assert_eq!(said.code, 2, "{} is not wrong:\n{}", case.display(), said.err);
    assert_eq!(said.out, "", "{}", case.display());
    said.err.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}
