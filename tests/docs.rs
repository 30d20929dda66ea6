//! Reference pages are what the program says, word for word. `UPDATE_EXPECT=1` writes them.

use std::collections::BTreeSet;

use expect_test::expect_file;
use serde_json::Value;

use crate::sandbox::{Sandbox, root};

fn operators() -> Vec<String> {
    let listed: Value = serde_json::from_str(&Sandbox::new().succeeds(&["ops", "--json"]).out).unwrap();
    listed.as_array().unwrap().iter().map(|o| o["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_operator_has_a_page_and_every_page_its_operator() {
    let sandbox = Sandbox::new();
    let folder = root().join("docs/operators");
    let said = |words: &[&str]| sandbox.succeeds(words).out;
    expect_file![folder.join("README.md")].assert_eq(&said(&["ops", "--markdown"]));
    let mut pages = BTreeSet::from(["README.md".to_owned()]);
    for name in operators() {
        let page = format!("{name}.md");
        expect_file![folder.join(&page)].assert_eq(&said(&["ops", &name, "--markdown"]));
        pages.insert(page);
    }
    let there = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    assert_eq!(there.collect::<BTreeSet<_>>(), pages);
}

#[test]
fn the_command_line_has_its_reference() {
    let text = Sandbox::new().succeeds(&["man", "--markdown"]).out;
    expect_file![root().join("docs/cli.md")].assert_eq(&text);
}

#[test]
fn the_page_at_the_terminal_tells_what_a_step_reads_and_makes() {
    let page = Sandbox::new().succeeds(&["ops", "label.policy"]).out;
    let parts: Vec<&str> = page.split("\n\n").collect();
    let part = |title: &str| *parts.iter().find(|part| part.starts_with(title)).unwrap();
    expect_test::expect![[r#"
        reads
          labels (required)
              A table of labels.
              id       text  id phi  The row's id.
              finding  text          The finding's id in its pack.
              state    text          What the report says: `present`, `absent`, `uncertain`, `not_mentioned`; or `failed`."#]].assert_eq(part("reads\n"));
    expect_test::expect![[r#"
        makes
          the step's table, a row per id, finding
              id       text    id phi  Carried along.
              finding  text            Carried along.
              target   number          What a model is to learn, from 0 to 1; null where the weight is 0.
              weight   number          How much the row counts in training: 1, or 0 where the target is masked.
          errors
              id         text           id phi  The row's id.
              kind       text                   A word for the kind of failure.
              message    text                   What is there and what was expected.
              attempts   whole number           How often it was tried.
              retryable  true or false          Whether the next run tries again by itself."#]].assert_eq(part("makes\n"));
    expect_test::expect![[r#"
        what enters the key
          - The operator `label.policy` and its revision, 2.
          - Its parameters, defaults filled in, but for those that say why not.
          - What `findings` says, as far as it decides the result.
          - Of `labels`, row by row: the values of `finding`, `state`."#]]
    .assert_eq(part("what enters the key\n"));
}

#[test]
fn ops_as_json_carries_ports_and_columns() {
    let said = Sandbox::new().succeeds(&["ops", "volumes.resample", "--json"]).out;
    let operator: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(operator["ports"][0]["name"], "volumes");
    assert_eq!(operator["ports"][0]["columns"][0]["type"], "text");
    let outputs = operator["outputs"].as_array().unwrap();
    let main = outputs.iter().find(|output| output["name"] == "").unwrap();
    let spacing = main["columns"].as_array().unwrap().iter().find(|c| c["name"] == "spacing_mm").unwrap();
    assert_eq!((spacing["unit"].as_str(), spacing["carried"].as_bool()), (Some("mm"), Some(false)));
    let patient = main["columns"].as_array().unwrap().iter().find(|c| c["name"] == "patient").unwrap();
    assert_eq!(patient["carried"], true);
}

#[test]
fn every_link_of_the_docs_leads_somewhere() {
    let mut folders = vec![root().join("docs")];
    let mut documents =
        vec![root().join("README.md"), root().join("CONTRIBUTING.md"), root().join("ARCHITECTURE.md")];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(ending) if ending == "md" => documents.push(path),
                _ => {}
            }
        }
    }
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap()) {
            let is_outside = link.is_empty() || link.contains("://");
            let target = document.parent().unwrap().join(link);
            assert!(is_outside || target.exists(), "{}: {link}", document.display());
        }
    }
}
