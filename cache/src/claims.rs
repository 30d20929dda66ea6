//! Claims: of many things, which one this run is working on, so that no other run does the same.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

use anyhow::Result;

use crate::digest::Digest;
use crate::durable::storage_error;
use crate::scratch::private_file;
use crate::store::{Store, lock};

/// Claims share this many lock files. Making and removing a file for each claim costs more than the claim is worth; two
/// runs that work on different things of one file wait for each other for a moment, which is rare and does no harm.
const FILES: u16 = 1024;

/// What one run works on, among all that it might.
#[derive(Clone)]
pub struct Claims {
    store: Store,
    what: String,
    held: Arc<Mutex<HashMap<u16, Held>>>,
}

/// A lock file that is locked, and how many claims rest on it.
struct Held {
    _file: File,
    claims: usize,
}

/// That this run works on something, until the value is dropped or the process dies.
pub struct Claim {
    number: u16,
    held: Arc<Mutex<HashMap<u16, Held>>>,
}

impl Store {
    /// The claims of one run on things of a kind, such as `question`; another call is another run. `what` is made of
    /// letters and `-`.
    pub fn claims(&self, what: &str) -> Claims {
        Claims { store: self.clone(), what: what.to_owned(), held: Arc::default() }
    }
}

impl Claims {
    /// Claims a thing; none where another run works on it, or on one that shares its file. What this run has claimed
    /// it can claim again.
    ///
    /// It is an error if the store cannot be written.
    pub fn claim(&self, thing: &Digest) -> Result<Option<Claim>> {
        let number = u16::from_be_bytes([thing.0[0], thing.0[1]]) % FILES;
        let mut held = lock(&self.held);
        match held.entry(number) {
            Entry::Occupied(mut held) => held.get_mut().claims += 1,
            Entry::Vacant(vacant) => {
                let Some(file) = self.locked(number)? else { return Ok(None) };
                vacant.insert(Held { _file: file, claims: 1 });
            }
        }
        Ok(Some(Claim { number, held: Arc::clone(&self.held) }))
    }

    /// The lock file of a number, locked; none where another run has it.
    fn locked(&self, number: u16) -> Result<Option<File>> {
        let path = self.store.root().join("locks").join(format!("{}-{number:03x}", self.what));
        let refused = |error| storage_error(self.store.root(), "take a lock", error);
        let file = match File::options().read(true).write(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => private_file(&path).or_else(|error| {
                // Another run made it in between.
                if error.kind() == ErrorKind::AlreadyExists { File::open(&path) } else { Err(error) }
            }),
            opened => opened,
        };
        let file = file.map_err(refused)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(refused(error).into()),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        if let Entry::Occupied(mut entry) = held.entry(self.number) {
            entry.get_mut().claims -= 1;
            if entry.get().claims == 0 {
                // Closing the file gives up the lock.
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(first: u8, last: u8) -> Digest {
        let mut bytes = [0; 32];
        (bytes[1], bytes[31]) = (first, last);
        Digest(bytes)
    }

    #[test]
    fn a_thing_is_claimed_by_one_run_until_its_last_claim_ends() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (one, other) = (store.claims("question"), store.claims("question"));
        let claim = one.claim(&thing(1, 1)).unwrap().unwrap();
        let beside = one.claim(&thing(1, 2)).unwrap().unwrap();
        assert!(other.claim(&thing(1, 1)).unwrap().is_none());
        assert!(other.claim(&thing(2, 1)).unwrap().is_some());
        drop(claim);
        assert!(other.claim(&thing(1, 1)).unwrap().is_none(), "a claim beside it holds the file");
        drop(beside);
        assert!(other.claim(&thing(1, 1)).unwrap().is_some());
        assert!(store.claims("other").claim(&thing(1, 1)).unwrap().is_some());
    }
}
