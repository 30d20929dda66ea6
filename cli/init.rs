//! `argent init`: a folder with a pipeline that runs, to begin from.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use crate::args::InitArguments;
use crate::schema;
use crate::session::WRONG;

/// By path in the new folder: the text, in which `@NAME` stands for the folder's name.
const PROJECT: [(&str, &str); 7] = [
    ("pipeline.yaml", include_str!("init/project/pipeline.yaml")),
    ("llm.yaml", include_str!("init/project/llm.yaml")),
    ("findings.yaml", include_str!("init/project/findings.yaml")),
    ("prompts/chest-ct.md", include_str!("init/project/prompts/chest-ct.md")),
    ("data/reports.csv", include_str!("init/project/data/reports.csv")),
    ("README.md", include_str!("init/project/README.md")),
    // Under its own name it would be obeyed here.
    (".gitignore", include_str!("init/project/gitignore")),
];

/// So many of the names in the way are told.
const TOLD: usize = 5;

/// Makes the project.
pub(crate) fn init(wanted: &InitArguments) -> anyhow::Result<ExitCode> {
    let folder = &wanted.folder;
    if folder.is_file() {
        eprintln!("error: {} is a file, expected a new or an empty folder", folder.display());
        return Ok(ExitCode::from(WRONG));
    }
    let in_the_way = names_in(folder)?;
    if !in_the_way.is_empty() {
        eprintln!("error: the folder {} is not empty: it has {}", folder.display(), some(&in_the_way));
        eprintln!("help: name a new folder, or one that is empty");
        return Ok(ExitCode::from(WRONG));
    }
    let name = pipeline_name(folder);
    for (path, text) in PROJECT {
        write(&folder.join(path), &text.replace("@NAME", &name))?;
        println!("{}", folder.join(path).display());
    }
    let path = folder.join("argent.schema.json");
    write(&path, &format!("{}\n", serde_json::to_string_pretty(&schema::pipelines()?)?))?;
    println!("{}", path.display());
    let spec = quoted(&folder.join("pipeline.yaml"));
    eprintln!("\nnext: argent run {spec}");
    Ok(ExitCode::SUCCESS)
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    if is_plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// What lies in a folder, sorted; nothing where there is no folder.
fn names_in(folder: &Path) -> anyhow::Result<Vec<String>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).with_context(|| format!("{} does not read", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn some(names: &[String]) -> String {
    let told = names.iter().take(TOLD).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(TOLD) {
        0 => told,
        more => format!("{told} and {more} more"),
    }
}

/// The folder's name as a pipeline's: letters, digits, hyphens and underscores, the first a letter.
fn pipeline_name(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let name = absolute.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = name.chars().map(plain).collect();
    let name = name.trim_matches('-');
    match name.chars().next() {
        Some(first) if first.is_ascii_alphabetic() => name.to_owned(),
        Some(_) => format!("p-{name}"),
        None => "reports".to_owned(),
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("{} is not made", parent.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("{} is not written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_is_called_as_its_folder_as_far_as_it_may() {
        let name = |path: &str| pipeline_name(Path::new(path));
        assert_eq!(name("/a/chest ct"), "chest-ct");
        assert_eq!(name("/a/2026-labels"), "p-2026-labels");
        assert_eq!(name("/"), "reports");
    }

    #[test]
    fn only_some_of_many_names_are_told() {
        let names: Vec<String> = (0..7).map(|n| format!("f{n}")).collect();
        assert_eq!(some(&names[..2]), "f0, f1");
        assert_eq!(some(&names), "f0, f1, f2, f3, f4 and 2 more");
    }
}
