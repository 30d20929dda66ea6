//! Taking answers out of a memo.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::sync::Arc;

use anyhow::Result;

use super::sealing::stem_of;
use super::{Memo, Place, Shared, Source};
use crate::digest::Digest;
use crate::durable::sync_folder;
use crate::lock::Alone;

impl Memo {
    /// Removes the answers that `keep` refuses, and returns how many those are. Records that do not read go
    /// too: nothing tells whose they are.
    ///
    /// The files are written anew, so that no byte of a removed answer stays in them. That nobody else has
    /// the store open is a condition: another process would go on reading, and sealing, the old files.
    /// Killed half-way, the old files are there beside the new ones, and removing again finishes it. It is
    /// an error if the memo cannot be read or written.
    pub fn retain(&self, _alone: &Alone, keep: &dyn Fn(&Digest, &[u8]) -> bool) -> Result<u64> {
        self.shared().retain(keep)
    }

    /// Calls `see` with every answer.
    ///
    /// It is an error if the memo cannot be read.
    pub fn each(&self, see: &mut dyn FnMut(&Digest, &[u8])) -> Result<()> {
        let shared = self.shared();
        for (key, _) in shared.records_of(&shared.all_sources()) {
            if let Some(value) = shared.get(&key)? {
                see(&key, &value);
            }
        }
        Ok(())
    }
}

impl Shared {
    fn retain(&self, keep: &dyn Fn(&Digest, &[u8]) -> bool) -> Result<u64> {
        if !self.folder.exists() {
            return Ok(0);
        }
        let folder = File::open(&self.folder).map_err(|error| self.refused("prune a memo", error))?;
        folder.lock().map_err(|error| self.refused("prune a memo", error))?;
        self.close_journal()?;
        self.refresh()?;
        let before = self.all_sources();
        let records = self.records_of(&before);
        let mut staying: Vec<(Digest, Place)> = Vec::new();
        for (key, place) in &records {
            if self.get(key)?.is_some_and(|value| keep(key, &value)) {
                staying.push((*key, *place));
            }
        }
        let removed = (records.len() - staying.len()) as u64;
        if removed == 0 && self.read_index().damaged == 0 {
            return Ok(0);
        }
        let kept: HashSet<Digest> = staying.iter().map(|(key, _)| *key).collect();
        self.write_index().places.retain(|key, _| kept.contains(key));
        if let Some(stem) = before.iter().map(|(_, source)| stem_of(&source.name)).min() {
            while !staying.is_empty() {
                staying = self.seal_some(stem, &staying)?;
            }
        }
        self.remove_old(&before)?;
        self.write_index().damaged = 0;
        Ok(removed)
    }

    fn all_sources(&self) -> Vec<(usize, Arc<Source>)> {
        let index = self.read_index();
        index.names.values().map(|number| (*number, Arc::clone(&index.sources[*number]))).collect()
    }

    /// Removes the files that have been written anew.
    fn remove_old(&self, before: &[(usize, Arc<Source>)]) -> Result<()> {
        for (number, source) in before {
            // A segment that lost nothing has been written again under the same name: it is the new one.
            if self.read_index().names.get(&source.name) != Some(number) {
                continue;
            }
            match fs::remove_file(self.folder.join(&source.name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(self.refused("remove a memo file", error).into());
                }
                Ok(()) | Err(_) => self.write_index().forget(*number),
            }
        }
        Ok(sync_folder(&self.folder).map_err(|error| self.refused("prune a memo", error))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Secret;
    use crate::store::Store;

    const OP: Digest = Digest([5; 32]);

    fn key(number: u8) -> Digest {
        Digest([number; 32])
    }

    fn value(number: u8) -> Vec<u8> {
        format!("the answer numbered {number}").into_bytes()
    }

    /// A memo of the answers 0 to 5, some sealed and some in a journal.
    fn filled(store: &Store) -> Memo {
        let memo = store.memo(&OP).unwrap();
        (0..3).for_each(|number| memo.put(key(number), &value(number)).unwrap());
        memo.seal().unwrap();
        (3..6).for_each(|number| memo.put_durable(key(number), &value(number)).unwrap());
        memo
    }

    fn held(store: &Store) -> Vec<Option<Vec<u8>>> {
        let memo = Store::open(store.root()).unwrap().memo(&OP).unwrap();
        let answers = memo.get_many(&(0..6).map(key).collect::<Vec<_>>()).unwrap();
        (0..6).map(|place| answers.get(place).map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn removed_answers_are_in_no_file_and_the_others_stay() {
        // By number: which stay. The third keeps a whole segment, which is written again under its own name.
        for staying in [vec![0, 4, 5], vec![], vec![0, 1, 2], (0..6).collect()] {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open_with_secret(folder.path(), Secret::from_bytes([1; 32])).unwrap();
            let memo = filled(&store);
            let alone = store.alone().unwrap().unwrap();
            let removed = memo.retain(&alone, &|key, _| staying.contains(&key.0[0])).unwrap();
            assert_eq!(removed, 6 - staying.len() as u64);
            let expected: Vec<_> = (0..6).map(|n| staying.contains(&n).then(|| value(n))).collect();
            let found = (0..6).map(|number| memo.get(&key(number)).unwrap()).collect::<Vec<_>>();
            assert_eq!(found, expected, "in this process");
            drop(alone);
            assert_eq!(held(&store), expected, "in another");
            assert_eq!(memo.retain(&store.alone().unwrap().unwrap(), &|_, _| true).unwrap(), 0);
            memo.put_durable(key(9), b"later").unwrap();
            assert_eq!(memo.get(&key(9)).unwrap(), Some(b"later".to_vec()));
        }
    }

    #[test]
    fn what_does_not_read_goes_too() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_with_secret(folder.path(), Secret::from_bytes([1; 32])).unwrap();
        drop(filled(&store));
        let memo_folder = store.root().join("memo").join(OP.to_string());
        let mut files = fs::read_dir(&memo_folder).unwrap().map(|entry| entry.unwrap().path());
        let segment = files.find(|path| path.extension().is_some_and(|e| e == "parquet")).unwrap();
        fs::write(&segment, b"the answer numbered 1, and no footer").unwrap();
        let memo = store.memo(&OP).unwrap();
        memo.retain(&store.alone().unwrap().unwrap(), &|_, _| true).unwrap();
        assert!(!segment.exists());
        assert_eq!((memo.len(), memo.damaged()), (3, 0));
    }
}
