//! The state of steps that take long, so that a killed one goes on where it was: one checkpoint per step key.
//!
//! A checkpoint is not a result. Nothing names it but the key of the step that is under way, a newer one takes its
//! place, and it goes when the step has its result. It holds what the step learned from its inputs, so whoever
//! forgets a subject drops all of them.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Result;

use crate::census::Named;
use crate::digest::Digest;
use crate::durable::{storage_error, sync_folder};
use crate::lock::Alone;
use crate::store::{Store, sharded};

/// How long the checkpoint of a step without a result is kept: it may stand for weeks on a GPU.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What was found where a checkpoint lies.
#[derive(Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// The bytes that were kept last.
    Whole(Vec<u8>),
    /// There is a file, and its bytes are not what was kept; it was removed.
    Damaged,
}

/// The domain of a checkpoint's own digest, which stands in front of its bytes.
const DOMAIN: &str = "argent checkpoint v1";

/// The folder of checkpoints; a store has none before its first.
const FOLDER: &str = "checkpoints";

/// The letters of a digest, in front of what was kept.
const DIGEST_BYTES: usize = 64;

impl Store {
    /// What was last kept under the key of a step that is under way; none where nothing was.
    ///
    /// It is an error if the disk refuses.
    pub fn checkpoint(&self, key: &Digest) -> Result<Option<Checkpoint>> {
        let path = self.checkpoint_path(key);
        let mut bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(storage_error(self.root(), "read a checkpoint", error).into()),
        };
        if bytes.len() >= DIGEST_BYTES {
            let kept = bytes.split_off(DIGEST_BYTES);
            if self.secret().digest(DOMAIN, &kept).to_string().as_bytes() == bytes {
                return Ok(Some(Checkpoint::Whole(kept)));
            }
        }
        self.drop_checkpoint(key)?;
        Ok(Some(Checkpoint::Damaged))
    }

    /// Keeps the state of a step that is under way, in place of an earlier one; when it returns, it survives a kill.
    ///
    /// It is an error if the disk refuses; the earlier one then stays.
    pub fn keep_checkpoint(&self, key: &Digest, bytes: &[u8]) -> Result<()> {
        let digest = self.secret().digest(DOMAIN, bytes).to_string();
        self.create_folder(&self.root().join(FOLDER))
            .map_err(|error| storage_error(self.root(), "write a checkpoint", error))?;
        self.replace_file_of(&self.checkpoint_path(key), &[digest.as_bytes(), bytes])
    }

    /// Takes a checkpoint away; one that is not there is none.
    ///
    /// It is an error if the disk refuses.
    pub fn drop_checkpoint(&self, key: &Digest) -> Result<()> {
        match fs::remove_file(self.checkpoint_path(key)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(storage_error(self.root(), "remove a checkpoint", error).into())
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Takes every checkpoint away and returns how many those were: any of them may be made of what is forgotten.
    ///
    /// It is an error if the disk refuses.
    pub fn drop_checkpoints(&self, _alone: &Alone) -> Result<u64> {
        let files = self.checkpoint_files()?;
        for file in &files {
            remove(file).map_err(|error| storage_error(self.root(), "remove a checkpoint", error))?;
        }
        Ok(files.len() as u64)
    }

    /// The checkpoints that nobody will ask for: of steps that have a result, and those that are too old.
    pub(crate) fn idle_checkpoints(&self) -> Result<Vec<Named>> {
        let mut idle = Vec::new();
        for file in self.checkpoint_files()? {
            let finished = match &file.digest {
                Some(key) => self.action(key)?.is_some(),
                None => false,
            };
            let modified = file.metadata.modified().ok();
            let age = modified.and_then(|then| SystemTime::now().duration_since(then).ok());
            if finished || age.is_some_and(|age| age >= KEPT) {
                idle.push(file);
            }
        }
        Ok(idle)
    }

    fn checkpoint_files(&self) -> Result<Vec<Named>> {
        match self.root().join(FOLDER).exists() {
            true => self.named_files(FOLDER),
            false => Ok(Vec::new()),
        }
    }

    fn checkpoint_path(&self, key: &Digest) -> PathBuf {
        sharded(&self.root().join(FOLDER), key)
    }
}

pub(crate) fn remove(file: &Named) -> std::io::Result<()> {
    fs::remove_file(&file.path)?;
    file.path.parent().map_or(Ok(()), sync_folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Secret;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_with_secret(folder.path(), Secret::from_bytes([1; 32])).unwrap();
        (folder, store)
    }

    #[test]
    fn the_last_one_kept_is_found_until_it_is_dropped() {
        let (_folder, store) = store();
        let [key, other] = [b"one", b"two"].map(|name| store.secret().digest("test", name));
        assert_eq!(store.checkpoint(&key).unwrap(), None);
        store.drop_checkpoint(&key).unwrap();
        for bytes in [&b"first"[..], b"", b"second"] {
            store.keep_checkpoint(&key, bytes).unwrap();
            assert_eq!(store.checkpoint(&key).unwrap(), Some(Checkpoint::Whole(bytes.to_vec())));
        }
        assert_eq!(store.checkpoint(&other).unwrap(), None);
        store.drop_checkpoint(&key).unwrap();
        assert_eq!(store.checkpoint(&key).unwrap(), None);
    }

    #[test]
    fn a_damaged_one_is_said_to_be_so_once_and_never_believed() {
        let (_folder, store) = store();
        let key = store.secret().digest("test", b"one");
        store.keep_checkpoint(&key, b"weights").unwrap();
        let path = store.checkpoint_path(&key);
        let mut bytes = fs::read(&path).unwrap();
        for length in [0, 63, 64, bytes.len() - 1] {
            fs::write(&path, &bytes[..length]).unwrap();
            assert_eq!(store.checkpoint(&key).unwrap(), Some(Checkpoint::Damaged), "{length}");
            assert_eq!(store.checkpoint(&key).unwrap(), None);
        }
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(store.checkpoint(&key).unwrap(), Some(Checkpoint::Damaged));
    }

    #[test]
    fn only_old_ones_are_idle_before_there_is_a_result() {
        let (_folder, store) = store();
        let [new, old] = [b"new", b"old"].map(|name| store.secret().digest("test", name));
        for key in [&new, &old] {
            store.keep_checkpoint(key, b"weights").unwrap();
        }
        let file = fs::File::options().write(true).open(store.checkpoint_path(&old)).unwrap();
        file.set_modified(SystemTime::now() - KEPT).unwrap();
        let idle: Vec<_> = store.idle_checkpoints().unwrap().into_iter().map(|file| file.digest).collect();
        assert_eq!(idle, [Some(old)]);
        let alone = store.alone().unwrap().unwrap();
        assert_eq!(store.drop_checkpoints(&alone).unwrap(), 2);
        assert_eq!(store.checkpoint(&new).unwrap(), None);
    }
}
