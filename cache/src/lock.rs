//! Locks that die with the process that holds them.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::durable::{is_at, storage_error};
use crate::scratch::private_file;
use crate::store::Store;

/// A lock that this process holds until the value is dropped or the process dies.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Store {
    /// Takes the lock `name`, waiting for whoever holds it, in this process or another.
    ///
    /// A thread that asks for a lock it holds waits for ever. It is an error if `name` is not made of
    /// letters, digits, `.`, `_` and `-`.
    pub fn lock(&self, name: &str) -> Result<Lock> {
        let path = self.lock_path(name)?;
        loop {
            let file = self.lock_file(&path)?;
            file.lock().map_err(|error| self.lock_error(error))?;
            // The last holder removes the file, and a lock on a removed file keeps nobody out.
            if is_at(&file, &path)? {
                return Ok(Lock { path, _file: file });
            }
        }
    }

    /// Takes the lock `name` if nobody holds it.
    ///
    /// The errors are those of [`Store::lock`].
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>> {
        let path = self.lock_path(name)?;
        loop {
            let file = self.lock_file(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(self.lock_error(error).into()),
            }
            if is_at(&file, &path)? {
                return Ok(Some(Lock { path, _file: file }));
            }
        }
    }

    fn lock_path(&self, name: &str) -> Result<PathBuf> {
        check_file_name("a lock", name)?;
        Ok(self.root().join("locks").join(name))
    }

    fn lock_file(&self, path: &Path) -> Result<File> {
        loop {
            match private_file(path) {
                Ok(file) => return Ok(file),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(self.lock_error(error).into()),
            }
            match File::options().read(true).write(true).open(path) {
                Ok(file) => return Ok(file),
                // Its holder removed it in between.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(self.lock_error(error).into()),
            }
        }
    }

    fn lock_error(&self, error: io::Error) -> io::Error {
        storage_error(self.root(), "take a lock", error)
    }
}

/// What every process that has a store open holds, shared with the others.
///
/// Collection and forgetting take blobs away, and no order of looking and removing is safe beside a process
/// that may decide in between to reuse one. So they hold this alone, and a process that opens the store
/// meanwhile waits for them. The kernel gives up the hold of a process that dies.
pub(crate) struct Presence {
    /// None in a store that cannot be written: nobody can take anything away from it either.
    file: Option<File>,
}

/// That no other process has the store open, until the value is dropped.
pub struct Alone {
    store: Store,
}

impl Presence {
    pub(crate) fn enter(root: &Path) -> io::Result<Presence> {
        let path = root.join("presence");
        let file = match private_file(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => File::open(&path),
            made => made,
        };
        let file = match file {
            Err(error) if is_read_only(error.kind()) => return Ok(Presence { file: None }),
            file => file?,
        };
        file.lock_shared()?;
        Ok(Presence { file: Some(file) })
    }
}

impl Store {
    /// Keeps every other process out of the store; none if one is in it now.
    ///
    /// A thread of this process that works on the store is not kept out. It is an error if the store cannot
    /// be written.
    pub fn alone(&self) -> Result<Option<Alone>> {
        let Some(file) = &self.presence().file else {
            return Err(self.lock_error(ErrorKind::ReadOnlyFilesystem.into()).into());
        };
        let enter = || -> io::Result<bool> {
            file.unlock()?;
            match file.try_lock() {
                Ok(()) => Ok(true),
                Err(TryLockError::WouldBlock) => file.lock_shared().map(|()| false),
                Err(TryLockError::Error(error)) => Err(error),
            }
        };
        let alone = enter().map_err(|error| self.lock_error(error))?;
        Ok(alone.then(|| Alone { store: self.clone() }))
    }
}

impl Drop for Alone {
    /// Lets the others in again.
    fn drop(&mut self) {
        if let Some(file) = &self.store.presence().file {
            // Should it fail, this process is no longer alone either, and holds nothing that others wait for.
            let _ = file.unlock().and_then(|()| file.lock_shared());
        }
    }
}

fn is_read_only(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied)
}

impl Drop for Lock {
    /// Removes the file while the lock is still held; those who wait for it notice and make a new one.
    fn drop(&mut self) {
        // A file that stays is an unlocked lock, which is as good.
        let _ = fs::remove_file(&self.path);
    }
}

/// Refuses a name that is not one plain file name.
pub(crate) fn check_file_name(what: &str, name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    ensure!(
        !name.is_empty() && name.len() <= 200 && name.bytes().all(plain) && !name.starts_with('.'),
        "{what} is named `{name}`, expected up to 200 letters, digits, `.`, `_` and `-`, not starting with `.`"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::digest::Secret;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_with_secret(folder.path(), Secret::from_bytes([1; 32])).unwrap();
        (folder, store)
    }

    #[test]
    fn a_held_lock_keeps_others_out_until_it_is_dropped() {
        let (_folder, store) = store();
        let other = Store::open(store.root()).unwrap();
        let held = store.lock("step-a").unwrap();
        assert!(other.try_lock("step-a").unwrap().is_none());
        assert!(other.try_lock("step-b").unwrap().is_some());
        drop(held);
        assert!(other.try_lock("step-a").unwrap().is_some());
        assert_eq!(fs::read_dir(store.root().join("locks")).unwrap().count(), 0);
    }

    #[test]
    fn many_threads_enter_one_at_a_time() {
        let (_folder, store) = store();
        let (inside, entered) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _held = store.lock("narrow").unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        entered.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(entered.load(Ordering::SeqCst), 200);
    }

    #[test]
    fn alone_means_that_nobody_else_has_the_store_open() {
        let (_folder, store) = store();
        let other = Store::open(store.root()).unwrap();
        assert!(store.alone().unwrap().is_none());
        drop(other);
        let alone = store.alone().unwrap().unwrap();
        let (root, opened) = (store.root().to_owned(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _late = Store::open(&root).unwrap();
                opened.store(1, Ordering::SeqCst);
            });
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert_eq!(opened.load(Ordering::SeqCst), 0, "whoever comes waits");
            drop(alone);
        });
        assert_eq!(opened.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_name_cannot_leave_the_folder() {
        let (_folder, store) = store();
        for wrong in ["", "../secret", "a/b", ".hidden", "a b"] {
            assert!(store.lock(wrong).is_err(), "{wrong:?}");
        }
    }
}
