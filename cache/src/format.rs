//! The number of the rules by which a store is laid out, kept in its file `format`.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::durable::{storage_error, sync_folder};
use crate::scratch::Scratch;

/// The rules that this version knows; a higher number is a newer argent's.
const FORMAT: u32 = 1;

/// Writes the number into a store that has none, and refuses a store of a newer version.
///
/// A store that has none and cannot be written is read as it is: it was made before the number was kept.
pub(crate) fn check(root: &Path) -> Result<()> {
    let text = match fs::read_to_string(root.join("format")) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return match write(root) {
                Err(error) if !is_refusal(error.kind()) => {
                    Err(storage_error(root, "write its format", error).into())
                }
                Ok(()) | Err(_) => Ok(()),
            };
        }
        Err(error) => return Err(storage_error(root, "read its format", error).into()),
    };
    let number = text.trim().parse::<u32>().ok();
    let number = number.with_context(|| {
        format!("the file `format` of the store at {} holds no number; expected {FORMAT}", root.display())
    })?;
    if number > FORMAT {
        bail!(
            "the store at {} has format {number}, and this argent reads up to {FORMAT}; \
             update argent, or choose another store",
            root.display()
        );
    }
    Ok(())
}

fn is_refusal(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied)
}

fn write(root: &Path) -> std::io::Result<()> {
    let scratch = Scratch::create(&root.join("tmp"))?;
    let mut file = scratch.file()?;
    writeln!(file, "{FORMAT}")?;
    file.as_file().sync_data()?;
    match fs::hard_link(file.path(), root.join("format")) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => sync_folder(root),
    }
}
