//! Files being written: each lies in a folder whose owner is known to be alive.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempDir};

use crate::durable::{create_private_folder, is_at};

/// The suffix of the file whose lock says that the folder beside it has a living owner.
const OWNER_SUFFIX: &str = "owner";

/// A folder under `tmp/` for the unfinished files of one open store.
///
/// Its owner file is locked as long as the process lives, and the kernel drops the lock when it dies, so
/// [`sweep`] can tell leftovers from work in progress without process ids, which are reused, or clocks.
pub(crate) struct Scratch {
    folder: PathBuf,
    owner_path: PathBuf,
    _owner: File,
}

impl Scratch {
    /// Makes a folder of its own below `tmp`.
    pub(crate) fn create(tmp: &Path) -> io::Result<Scratch> {
        loop {
            let name = format!("{:016x}", rand::random::<u64>());
            let owner_path = tmp.join(&name).with_extension(OWNER_SUFFIX);
            let owner = private_file(&owner_path)?;
            owner.lock()?;
            // Between creation and lock another process may have swept the file as a leftover.
            if is_at(&owner, &owner_path)? {
                let folder = tmp.join(name);
                create_private_folder(&folder)?;
                return Ok(Scratch { folder, owner_path, _owner: owner });
            }
        }
    }

    /// A new file readable by the owner alone (mode 0600), removed when dropped.
    pub(crate) fn file(&self) -> io::Result<NamedTempFile> {
        Builder::new().prefix("").tempfile_in(&self.folder)
    }

    /// A new folder open to the owner alone (mode 0700), removed when dropped.
    pub(crate) fn folder(&self) -> io::Result<TempDir> {
        Builder::new().prefix("").tempdir_in(&self.folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove_owned(&self.folder, &self.owner_path);
    }
}

/// Removes what dead processes left in `tmp`.
///
/// What cannot be removed is left for the next time: leftovers cost space and nothing else.
pub(crate) fn sweep(tmp: &Path) {
    let Ok(entries) = fs::read_dir(tmp) else { return };
    for owner_path in entries.flatten().map(|entry| entry.path()) {
        if owner_path.extension().is_some_and(|suffix| suffix == OWNER_SUFFIX) && is_dead(&owner_path) {
            remove_owned(&owner_path.with_extension(""), &owner_path);
        }
    }
}

/// Whether nobody holds the lock on the file at `owner_path`.
fn is_dead(owner_path: &Path) -> bool {
    let Ok(owner) = File::open(owner_path) else { return false };
    match owner.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    }
}

/// Removes a folder, then its owner file: in this order no folder is ever without one.
fn remove_owned(folder: &Path, owner_path: &Path) {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {}
        Ok(()) | Err(_) => {
            // Failure leaves an empty leftover, which the next sweep finds.
            let _ = fs::remove_file(owner_path);
        }
    }
}

/// A new file at `path` with mode 0600; it is an error if there is one.
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_sweep_spares_the_living_and_removes_the_dead() {
        let tmp = tempfile::tempdir().unwrap();
        let living = Scratch::create(tmp.path()).unwrap();
        let mut file = living.file().unwrap();
        file.write_all(b"unfinished").unwrap();
        // What a killed process leaves: an owner file that nobody locks, and a folder.
        fs::write(tmp.path().join("dead.owner"), b"").unwrap();
        fs::create_dir(tmp.path().join("dead")).unwrap();
        fs::write(tmp.path().join("dead/half"), b"x").unwrap();

        sweep(tmp.path());

        assert!(file.path().exists());
        assert!(!tmp.path().join("dead").exists());
        assert!(!tmp.path().join("dead.owner").exists());
        drop(file);
        drop(living);
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    }
}
