//! The house is in order: the ladder of crates, one place for each heavy dependency, and files that can be read.

use std::collections::BTreeSet;

use crate::sandbox::root;

/// By manifest: the crates of ours that it may stand on.
const LADDER: [(&str, &[&str]); 11] = [
    ("cache/Cargo.toml", &[]),
    ("engine/Cargo.toml", &["cache"]),
    ("operators/Cargo.toml", &["cache", "decoder", "engine", "imaging", "learn", "llm", "reports", "stats"]),
    ("kernels/decoder/Cargo.toml", &[]),
    ("kernels/imaging/Cargo.toml", &[]),
    ("kernels/imaging/fuzz/Cargo.toml", &["imaging"]),
    ("kernels/learn/Cargo.toml", &[]),
    ("kernels/llm/Cargo.toml", &[]),
    ("kernels/reports/Cargo.toml", &[]),
    ("kernels/stats/Cargo.toml", &[]),
    ("Cargo.toml", &["cache", "engine", "operators"]),
];

/// By heavy dependency: the manifests that name it, each with where its code that does may lie. Networks are computed
/// by two kernels, both of which read texts, and templates rendered for two reasons: a user's prompt, and the form that
/// a model reads.
const HEAVY: [(&str, &[(&str, &str)]); 11] = [
    ("datafusion", &[("operators/Cargo.toml", "operators/src/sql/")]),
    ("reqwest", &[("kernels/llm/Cargo.toml", "kernels/llm/")]),
    ("candle-core", &NETWORKS),
    ("candle-nn", &NETWORKS),
    ("cudarc", &[("kernels/learn/Cargo.toml", "kernels/learn/src/")]),
    (
        "tokenizers",
        &[
            ("kernels/decoder/Cargo.toml", "kernels/decoder/"),
            ("kernels/learn/Cargo.toml", "kernels/learn/src/vocabulary.rs"),
        ],
    ),
    (
        "parquet",
        &[
            ("cache/Cargo.toml", "cache/src/table/parquet_file.rs"),
            // What keeping voxels in the format would cost is measured beside what is kept in it.
            ("cache/Cargo.toml", "cache/benches/volumes.rs"),
        ],
    ),
    ("annotate-snippets", &[("Cargo.toml", "cli/render.rs")]),
    ("indicatif", &[("Cargo.toml", "cli/progress.rs")]),
    (
        "minijinja",
        &[
            ("operators/Cargo.toml", "operators/src/label/llm"),
            ("kernels/decoder/Cargo.toml", "kernels/decoder/src/chat.rs"),
        ],
    ),
    ("serde-saphyr", &[("engine/Cargo.toml", "engine/src/yaml")]),
];

const NETWORKS: [(&str, &str); 2] =
    [("kernels/decoder/Cargo.toml", "kernels/decoder/src/"), ("kernels/learn/Cargo.toml", "kernels/learn/")];

#[test]
fn each_crate_stands_only_on_those_below_it() {
    for (manifest, allowed) in LADDER {
        let all = dependencies(manifest);
        let ours = all.iter().filter_map(|name| name.strip_prefix("argent-"));
        let above: Vec<&str> = ours.filter(|name| !allowed.contains(name)).collect();
        assert!(above.is_empty(), "{manifest} stands on {above:?}, expected only {allowed:?}");
    }
    let manifests = files("toml").into_iter().filter(|file| file.ends_with("Cargo.toml"));
    let known: BTreeSet<String> = LADDER.iter().map(|l| l.0.to_owned()).collect();
    assert_eq!(manifests.collect::<BTreeSet<_>>(), known, "every crate has its place on the ladder");
}

#[test]
fn each_heavy_dependency_lives_in_one_place() {
    for (name, homes) in HEAVY {
        let naming = LADDER.iter().map(|l| l.0).filter(|manifest| dependencies(manifest).contains(name));
        let manifests: BTreeSet<&str> = homes.iter().map(|home| home.0).collect();
        assert_eq!(naming.collect::<BTreeSet<_>>(), manifests, "the manifests that depend on {name}");
        let path = format!("{}::", name.replace('-', "_"));
        let users: Vec<String> = files("rs").into_iter().filter(|file| code(file).contains(&path)).collect();
        for (manifest, place) in homes {
            let used = users.iter().any(|file| file.starts_with(place));
            assert!(used, "nothing in {place} uses {name}: take it out of {manifest}");
        }
        let astray = users.iter().filter(|file| !homes.iter().any(|home| file.starts_with(home.1)));
        assert_eq!(
            astray.collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "{name} is used, expected only {homes:?}"
        );
    }
}

#[test]
fn every_source_file_says_what_it_is_and_is_short_enough_to_read() {
    let sources = files("rs");
    let silent: Vec<&String> = sources.iter().filter(|file| !read(file).starts_with("//! ")).collect();
    assert!(silent.is_empty(), "these begin without a `//! ` line: {silent:?}");
    let long = sources.iter().filter(|file| read(file).lines().count() > 1000);
    assert_eq!(long.collect::<Vec<_>>(), Vec::<&String>::new(), "these have more than 1,000 lines");
}

#[test]
fn no_line_ends_in_white_space() {
    for file in ["rs", "md", "yaml"].into_iter().flat_map(files) {
        let lines = read(&file).lines().filter(|line| line.ends_with([' ', '\t'])).count();
        assert_eq!(lines, 0, "{file}: so many lines end in white space");
    }
}

#[test]
fn no_test_module_is_forgotten() {
    let main = read("tests/main.rs");
    for file in files("rs").into_iter().filter(|f| f.starts_with("tests/") && f.matches('/').count() == 1) {
        let module = file.trim_start_matches("tests/").trim_end_matches(".rs");
        let named = module == "main" || main.contains(&format!("\nmod {module};"));
        assert!(named, "tests/main.rs does not name {file}");
    }
}

#[test]
fn the_documents_name_every_folder_and_no_absent_file() {
    for document in ["README.md", "ARCHITECTURE.md"].into_iter().filter(|d| root().join(d).is_file()) {
        let text = read(document);
        for folder in top_folders() {
            assert!(text.contains(&format!("{folder}/")), "{document} does not mention {folder}/");
        }
        for path in text.split('`').skip(1).step_by(2).filter(|quoted| is_path(quoted)) {
            assert!(root().join(path).exists(), "{document} names {path}, which is not there");
        }
    }
}

/// Whether quoted words of a document name a file or folder of the project: a plain path that begins at one
/// of its top folders.
fn is_path(quoted: &str) -> bool {
    let plain = quoted.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    plain && top_folders().contains(quoted.split('/').next().unwrap())
}

/// The folders at the root that hold files of the project.
fn top_folders() -> BTreeSet<String> {
    let all = ["rs", "md", "yaml"].into_iter().flat_map(files);
    all.filter_map(|file| file.split_once('/').map(|(folder, _)| folder.to_owned())).collect()
}

/// The names under `[dependencies]` of a manifest; what only tests need is free.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let manifest = read(manifest);
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let names = section.lines().filter_map(|line| line.split_once([' ', '.', '=']));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// The source of a file without its comments.
fn code(file: &str) -> String {
    read(file).lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

/// The project's files with an ending, as paths from its root in order; what is built or hidden is left out.
fn files(ending: &str) -> Vec<String> {
    let mut folders = vec![root().to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            let hidden = name == "target" || name.split('/').any(|part| part.starts_with('.'));
            if path.is_dir() && !hidden {
                folders.push(path);
            } else if path.is_file() && path.extension().is_some_and(|e| e == ending) {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}
