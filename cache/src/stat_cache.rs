//! Digests of the user's own files, remembered by what `stat` says of them.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::store::{Store, hash_file};

/// A file changed this soon before it was hashed may have been changed again after, within one tick of the
/// file system's clock, without any sign in its times (ext4 ticks every 4 ms, FAT every 2 s).
const RACY_NS: i128 = 2_000_000_000;

/// A file that changes while it is read is read this many times before that is an error.
const ATTEMPTS: usize = 3;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// The digest of the content: that of a blob with the same bytes.
    pub digest: Digest,
    /// The length in bytes.
    pub bytes: u64,
}

impl Store {
    /// The digest and length of the file at `path`.
    ///
    /// A file whose size, times (ns) and inode are those of the last time is not read again, unless it had
    /// changed within 2 s of being hashed. It is an error if the file cannot be read, or keeps changing.
    pub fn file_digest(&self, path: &Path) -> Result<FileStat> {
        let path = std::path::absolute(path).with_context(|| format!("no such path: {}", path.display()))?;
        let seen = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if let Some(known) = self.with_stat_cache(|cache| cache.find(&path, &Stamp::of(&seen)))? {
            return Ok(known);
        }
        let (stat, entry) = self.hash_steady_file(&path)?;
        // The name of who was forgotten is not kept, though the file is still there.
        if !self.tombstones()?.holds_path(&path.to_string_lossy()) {
            self.with_stat_cache(|cache| cache.insert(path, entry))?;
        }
        Ok(stat)
    }

    /// Keeps what [`Store::file_digest`] has learnt for the next process.
    ///
    /// What other processes saved in the meantime is kept too. It is an error if the store cannot be written.
    pub fn save_stat_cache(&self) -> Result<()> {
        let mut guard = self.stat_cache();
        let Some(cache) = guard.as_mut().filter(|cache| cache.changed) else { return Ok(()) };
        let mut merged = load(&self.root().join(FILE_NAME))?;
        merged.extend(cache.entries.iter().map(|(path, entry)| (path.clone(), *entry)));
        let saved = Saved { version: VERSION, files: merged };
        self.replace_file(&self.root().join(FILE_NAME), &serde_json::to_vec(&saved)?)?;
        cache.entries = saved.files;
        cache.changed = false;
        Ok(())
    }

    /// Drops what is known of the files whose path `keep` refuses, and returns how many those are; a `trial`
    /// only counts.
    ///
    /// It is an error if the store cannot be read or written.
    pub fn prune_stat_cache(&self, keep: impl Fn(&Path) -> bool, trial: bool) -> Result<u64> {
        let mut guard = self.stat_cache();
        let mut files = load(&self.root().join(FILE_NAME))?;
        let before = files.len();
        files.retain(|path, _| keep(path));
        let dropped = (before - files.len()) as u64;
        if dropped > 0 && !trial {
            let saved = Saved { version: VERSION, files };
            self.replace_file(&self.root().join(FILE_NAME), &serde_json::to_vec(&saved)?)?;
            // What this process remembers is read again where it is needed.
            *guard = None;
        }
        Ok(dropped)
    }

    fn with_stat_cache<T>(&self, act: impl FnOnce(&mut StatCache) -> T) -> Result<T> {
        let mut guard = self.stat_cache();
        let cache = match &mut *guard {
            Some(cache) => cache,
            empty => empty.insert(StatCache { entries: load(&self.root().join(FILE_NAME))?, changed: false }),
        };
        Ok(act(cache))
    }

    /// Hashes a file that is the same before and after.
    fn hash_steady_file(&self, path: &Path) -> Result<(FileStat, Entry)> {
        let name = || format!("cannot read {}", path.display());
        for _ in 0..ATTEMPTS {
            let mut file = File::open(path).with_context(name)?;
            let hashed_ns = now_ns()?;
            let before = file.metadata().with_context(name)?;
            let (digest, bytes) = hash_file(self.secret(), &mut file).with_context(name)?;
            let stamp = Stamp::of(&file.metadata().with_context(name)?);
            if stamp == Stamp::of(&before) && stamp.bytes == bytes {
                return Ok((FileStat { digest, bytes }, Entry { stamp, hashed_ns, digest }));
            }
        }
        bail!(
            "{} changed each of the {ATTEMPTS} times it was read; run again when it is complete",
            path.display()
        )
    }
}

/// Where the cache lies in the store.
const FILE_NAME: &str = "stat-cache.json";

/// The number of this layout; a file of another layout is left unread, and files are hashed again.
const VERSION: u32 = 1;

/// The files hashed so far, by absolute path.
pub(crate) struct StatCache {
    entries: HashMap<PathBuf, Entry>,
    changed: bool,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    files: HashMap<PathBuf, Entry>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Entry {
    stamp: Stamp,
    /// When hashing began, in nanoseconds since 1970.
    hashed_ns: i64,
    digest: Digest,
}

/// What changes whenever a file does, but for the racy case.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    mtime_ns: i128,
    ctime_ns: i128,
    inode: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        let ns =
            |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        Stamp {
            bytes: metadata.len(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        }
    }
}

impl StatCache {
    fn find(&self, path: &Path, stamp: &Stamp) -> Option<FileStat> {
        let entry = self.entries.get(path)?;
        let settled = stamp.mtime_ns.max(stamp.ctime_ns) + RACY_NS <= i128::from(entry.hashed_ns);
        (settled && entry.stamp == *stamp).then_some(FileStat { digest: entry.digest, bytes: stamp.bytes })
    }

    fn insert(&mut self, path: PathBuf, entry: Entry) {
        // JSON holds text: a file whose name is not UTF-8 is hashed by each process again.
        if path.to_str().is_some() {
            self.entries.insert(path, entry);
            self.changed = true;
        }
    }
}

/// The saved entries. A file that cannot be understood only costs time: everything is hashed again.
fn load(path: &Path) -> Result<HashMap<PathBuf, Entry>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    Ok(match serde_json::from_slice::<Saved>(&bytes) {
        Ok(saved) if saved.version == VERSION => saved.files,
        Ok(_) | Err(_) => HashMap::new(),
    })
}

fn now_ns() -> Result<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the system's clock is before 1970")?;
    i64::try_from(since.as_nanos()).context("the system's clock is after 2262")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::digest::Secret;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_with_secret(folder.path(), Secret::from_bytes([1; 32])).unwrap();
        (folder, store)
    }

    /// Changes the entry of `path` so that a second read of the file would be noticed.
    fn mark(store: &Store, path: &Path, digest: Digest, hashed_later: Duration) {
        store
            .with_stat_cache(|cache| {
                let entry = cache.entries.get_mut(path).unwrap();
                entry.digest = digest;
                entry.hashed_ns += hashed_later.as_nanos() as i64;
            })
            .unwrap();
    }

    #[test]
    fn a_file_has_the_digest_of_its_blob() {
        let (_folder, store) = store();
        let source = tempfile::NamedTempFile::new().unwrap();
        fs::write(source.path(), vec![3u8; 3 << 20]).unwrap();
        let stat = store.file_digest(source.path()).unwrap();
        assert_eq!(stat, FileStat { digest: store.put_bytes(&vec![3u8; 3 << 20]).unwrap(), bytes: 3 << 20 });
    }

    #[test]
    fn a_settled_file_is_not_read_again_and_a_racy_one_is() {
        let (_folder, store) = store();
        let source = tempfile::NamedTempFile::new().unwrap();
        fs::write(source.path(), b"one").unwrap();
        let truth = store.file_digest(source.path()).unwrap();
        let marker = Digest([9; 32]);

        mark(&store, source.path(), marker, Duration::ZERO);
        assert_eq!(
            store.file_digest(source.path()).unwrap(),
            truth,
            "changed less than 2 s before it was hashed"
        );

        mark(&store, source.path(), marker, Duration::from_secs(3));
        assert_eq!(store.file_digest(source.path()).unwrap().digest, marker, "known, so not read");

        fs::write(source.path(), b"two").unwrap();
        assert_eq!(store.file_digest(source.path()).unwrap().digest, store.put_bytes(b"two").unwrap());
    }

    #[test]
    fn what_was_learnt_outlives_the_process() {
        let (_folder, store) = store();
        let source = tempfile::NamedTempFile::new().unwrap();
        fs::write(source.path(), b"one").unwrap();
        store.file_digest(source.path()).unwrap();
        mark(&store, source.path(), Digest([9; 32]), Duration::from_secs(3));
        store.save_stat_cache().unwrap();

        let next = Store::open(store.root()).unwrap();
        assert_eq!(next.file_digest(source.path()).unwrap().digest, Digest([9; 32]));

        fs::write(store.root().join(FILE_NAME), b"{ half").unwrap();
        let damaged = Store::open(store.root()).unwrap();
        assert_eq!(damaged.file_digest(source.path()).unwrap().digest, store.put_bytes(b"one").unwrap());
    }

    #[test]
    fn a_missing_file_is_named() {
        let (_folder, store) = store();
        let error = store.file_digest(Path::new("/no/such/file.csv")).unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot read /no/such/file.csv: "), "{error:#}");
    }
}
