//! `argent show`: a step's volumes and images as a picture, or its plots.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use argent_operators::pictures::{Drawn, Look, WrongLook, draw};
use argent_operators::plot::stored::{self, Plot};

use crate::args::{Arguments, ShowArguments};
use crate::inline;
use crate::session::{WRONG, existing_store, pipeline};

/// Writes the plots of a step that has some; else draws rows of its table, and prints the picture in terminals that can.
pub(crate) fn show(arguments: &Arguments, wanted: &ShowArguments) -> anyhow::Result<ExitCode> {
    let pipeline = match pipeline(arguments, &wanted.spec) {
        Ok(pipeline) => pipeline,
        Err(code) => return Ok(code),
    };
    let step = match pipeline.step(&wanted.step) {
        Ok(node) => node.name.clone(),
        Err(mistake) => {
            eprintln!("error: {mistake}");
            return Ok(ExitCode::from(WRONG));
        }
    };
    let store = existing_store(arguments, Some(&wanted.spec.spec))?;
    let head = store.head(&pipeline.name)?;
    let Some(made) = head.and_then(|head| head.steps.get(&step).copied()) else {
        return Err(WrongLook(format!("no run has a result of `{step}` yet; `argent run` makes one")).into());
    };
    let manifest = store.manifest(&made)?;
    if let Some(plots) = manifest.outputs.get(stored::OUTPUT) {
        return show_plots(&step, stored::read(&store, plots)?, wanted);
    }
    let table = manifest.outputs.get("").context("a result has a main table")?;
    let look = Look { ids: wanted.ids.clone(), rows: wanted.rows, window: wanted.window };
    let drawn = draw(&store, &pipeline.folder, &step, table, &look)?;
    let path = wanted.output.clone().unwrap_or_else(|| PathBuf::from(file_name(&step, "png")));
    write(&path, &drawn.png)?;
    tell(&drawn, &path, wanted.ids.is_empty())?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the plots of a step, those that are named or all of them, and prints their paths.
fn show_plots(step: &str, plots: Vec<Plot>, wanted: &ShowArguments) -> anyhow::Result<ExitCode> {
    let names: Vec<&str> = plots.iter().map(|plot| plot.name.as_str()).collect();
    if let Some(unknown) = wanted.ids.iter().find(|id| !names.contains(&id.as_str())) {
        let there = names.join(", ");
        return Err(WrongLook(format!("`{step}` has no plot `{unknown}`; its plots are: {there}")).into());
    }
    let is_wanted = |plot: &&Plot| wanted.ids.is_empty() || wanted.ids.contains(&plot.name);
    let chosen: Vec<&Plot> = plots.iter().filter(is_wanted).collect();
    if wanted.output.is_some() && chosen.len() > 1 {
        let (count, there) = (chosen.len(), names.join(", "));
        let message = format!("{count} plots of `{step}` do not fit into one file; name one of: {there}");
        return Err(WrongLook(message).into());
    }
    for plot in chosen {
        let usual = || PathBuf::from(file_name(&format!("{step}.{}", plot.name), "svg"));
        let path = wanted.output.clone().unwrap_or_else(usual);
        write(&path, &plot.svg)?;
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// A file's name for the picture of a step. Ids, which may name patients, are not in it.
fn file_name(step: &str, ending: &str) -> String {
    let plain = |letter: char| if letter.is_alphanumeric() || "._-".contains(letter) { letter } else { '-' };
    format!("{}.{ending}", step.chars().map(plain).collect::<String>().trim_end_matches('-'))
}

/// Writes the picture for the user's eyes only: it shows patients, or what came of them.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(bytes));
    written.with_context(|| format!("{} cannot be written", path.display()))
}

/// Prints the path, and the picture before it where the terminal can.
fn tell(drawn: &Drawn, path: &Path, are_first: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if let Some(protocol) =
        out.is_terminal().then(|| inline::protocol(&|name| std::env::var(name).ok())).flatten()
    {
        writeln!(out, "{}", inline::picture(&drawn.png, drawn.size[0], protocol, inline::terminal()))?;
    }
    writeln!(out, "{}", path.display())?;
    if are_first && drawn.rows < drawn.ids {
        eprintln!("the first {} of {} ids; name others, or ask for more with --rows", drawn.rows, drawn.ids);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn a_combination_of_a_matrix_makes_a_plain_name() {
        assert_eq!(file_name("grid", "png"), "grid.png");
        assert_eq!(file_name("grid[spacing=fine,seed=1]", "png"), "grid-spacing-fine-seed-1.png");
    }
}
