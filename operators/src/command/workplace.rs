//! The folder that a program works in: its input tables, its declared files, and room for what it writes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;
use argent_cache::table::write_parquet_file;
use argent_engine::operator::FILES;
use argent_engine::{Io, column};
use arrow::array::{Array, AsArray};

use crate::command::line::{self, Placeholder};
use crate::command::outputs::MAIN;
use crate::command::{Command, Format};
use crate::records;

/// A folder of the step's own, gone when dropped.
pub(super) struct Workplace {
    _scratch: tempfile::TempDir,
    root: PathBuf,
    /// The folder that the program starts in: it lies as deep as relative paths with `..` ask for.
    pub(super) folder: PathBuf,
    extension: &'static str,
    /// The only input table's name, where there is one.
    only_table: Option<String>,
}

impl Workplace {
    /// Lays out everything that the program reads.
    ///
    /// # Errors
    /// When a declared file changed since it was listed, or the disk refuses.
    pub(super) fn prepare(command: &Command, io: &Io) -> anyhow::Result<Workplace> {
        let scratch = io.scratch()?;
        let root = scratch.path().canonicalize()?;
        let tables: Vec<String> = io.ports().into_iter().filter(|port| port != FILES).collect();
        let files = declared_files(io)?;
        let mut folder = root.join("work");
        for _ in 0..files.iter().map(|(path, _)| steps_up(path)).max().unwrap_or(0) {
            folder.push("below");
        }
        let extension = match command.format {
            Format::Parquet => "parquet",
            Format::Csv => "csv",
        };
        for folder in [&folder, &root.join("in"), &root.join("out"), &root.join("tmp")] {
            fs::create_dir_all(folder)?;
        }
        let only_table = tables.first().filter(|_| tables.len() == 1).cloned();
        let place = Workplace { _scratch: scratch, root, folder, extension, only_table };
        for (path, digest) in &files {
            place.copy(path, &io.source_file(path, digest)?)?;
        }
        for table in &tables {
            place.write_table(table, command.format, io)?;
        }
        let wants_files =
            command.run.words().iter().any(|word| line::placeholders(word).contains(&Placeholder::Files));
        if wants_files {
            place.link_side_files(&tables, io)?;
        }
        Ok(place)
    }

    /// What a placeholder stands for.
    pub(super) fn path(&self, placeholder: &Placeholder) -> String {
        let path = match placeholder {
            Placeholder::In(name) => {
                self.table_path(name.as_deref().or(self.only_table.as_deref()).unwrap_or_default())
            }
            Placeholder::Out(name) => self.output_path(name.as_deref().unwrap_or(MAIN)),
            Placeholder::Files => self.root.join("files"),
        };
        path.to_string_lossy().into_owned()
    }

    /// Where an output table is to be written.
    pub(super) fn output_path(&self, name: &str) -> PathBuf {
        self.root.join("out").join(format!("{name}.{}", self.extension))
    }

    /// What the program prints.
    pub(super) fn log_path(&self) -> PathBuf {
        self.root.join("log")
    }

    /// A folder for the program's own temporary files.
    pub(super) fn temporary_folder(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// The file that a path of the program's means, where it lies in this folder.
    ///
    /// # Errors
    /// When there is no such file here.
    pub(super) fn own_file(&self, path: &str) -> anyhow::Result<PathBuf> {
        let real = self.folder.join(path).canonicalize().ok();
        let inside = real.filter(|path| path.starts_with(&self.root) && path.is_file());
        inside.context("it is no file in the folder that the program worked in")
    }

    fn table_path(&self, name: &str) -> PathBuf {
        self.root.join("in").join(format!("{name}.{}", self.extension))
    }

    fn copy(&self, path: &str, from: &Path) -> anyhow::Result<()> {
        let target = self.folder.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(from, &target).with_context(|| format!("the file {path} is not copied"))?;
        Ok(())
    }

    fn write_table(&self, name: &str, format: Format, io: &Io) -> anyhow::Result<()> {
        let (path, batch) = (self.table_path(name), io.input(name)?);
        match format {
            Format::Parquet => write_parquet_file(&path, batch),
            Format::Csv => records::write_csv(&path, batch),
        }
    }

    /// Links the side files that input tables name, so that big ones are not copied.
    fn link_side_files(&self, tables: &[String], io: &Io) -> anyhow::Result<()> {
        let folder = self.root.join("files");
        fs::create_dir_all(&folder)?;
        for table in tables {
            let batch = io.input(table)?;
            for (field, cells) in batch.schema_ref().fields().iter().zip(batch.columns()) {
                if !column::has_role(field, "file") {
                    continue;
                }
                let digests = cells.as_string_opt::<i32>().context("side files are named by texts")?;
                for digest in digests.iter().flatten() {
                    let link = folder.join(digest);
                    if !link.exists() {
                        symlink(io.side_file(digest)?, &link)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The declared files: paths relative to the spec, and digests.
fn declared_files(io: &Io) -> anyhow::Result<Vec<(String, String)>> {
    if !io.has_input(FILES) {
        return Ok(Vec::new());
    }
    let files = io.input(FILES)?;
    let cells = |name: &str| {
        let cells = files.column_by_name(name).and_then(|cells| cells.as_string_opt::<i32>());
        cells.with_context(|| format!("files have a column `{name}`"))
    };
    let (paths, digests) = (cells("path")?, cells("digest")?);
    Ok((0..paths.len()).map(|row| (paths.value(row).to_owned(), digests.value(row).to_owned())).collect())
}

/// How many folders above its start a relative path reaches.
fn steps_up(path: &str) -> usize {
    let (mut depth, mut lowest) = (0_isize, 0_isize);
    for component in Path::new(path).components() {
        match component {
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            _ => {}
        }
        lowest = lowest.min(depth);
    }
    lowest.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reaches_as_far_up_as_its_deepest_turn() {
        let reached = ["a/b.py", "../a.py", "a/../../b.py", "../../x", "./a"].map(steps_up);
        assert_eq!(reached, [0, 1, 1, 2, 0]);
    }
}
