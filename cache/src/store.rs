//! The store: a folder of blobs named by their digest.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use rand::TryRngCore;
use rand::rngs::OsRng;
use tempfile::{NamedTempFile, TempDir};

use crate::digest::{Digest, Secret};
use crate::durable::{create_private_folder, is_at, storage_error, sync_folder};
use crate::format;
use crate::lock::Presence;
use crate::memo::WeakMemo;
use crate::scratch::{self, Scratch};
use crate::stat_cache::StatCache;
use crate::tombstones::Tombstones;

/// The folders of a store.
const FOLDERS: [&str; 8] = ["cas", "actions", "memo", "runs", "pipelines", "statics", "tmp", "locks"];

/// What keys the digests of blobs and of files.
pub(crate) const BLOB_DOMAIN: &str = "argent blob v1";

/// Big blobs are hashed in pieces of this many bytes, each spread over the cores.
const HASH_CHUNK_BYTES: usize = 1 << 20;

/// An open store; clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    secret: Secret,
    presence: Presence,
    scratch: Mutex<Option<Scratch>>,
    /// The blobs that this process has hashed, or written and named itself.
    verified: Mutex<HashSet<Digest>>,
    memos: Mutex<HashMap<Digest, WeakMemo>>,
    stat_cache: Mutex<Option<StatCache>>,
    tombstones: Mutex<Option<Arc<Tombstones>>>,
}

/// Why a blob cannot be read.
#[derive(Debug)]
pub enum BlobError {
    /// The store has no blob of this digest: what needs it is to be made again.
    Missing(Digest),
    /// The bytes no longer have this digest; the blob was removed, so that it can be made again.
    Damaged(Digest),
    /// The disk refused.
    Io(io::Error),
}

impl Store {
    /// Opens the store in the folder `root`, and makes it where there is none.
    ///
    /// Folders get mode 0700 and files 0600. What processes killed while writing left in `tmp/` is removed.
    /// It is an error if the folder cannot be written while something is lacking in it, or if it holds
    /// results whose secret is gone.
    pub fn open(root: &Path) -> Result<Store> {
        Store::prepare(root, None)
    }

    /// Opens the store in the folder `root` with this secret, so that tests have the same digests everywhere.
    ///
    /// It is an error if the store already has another secret.
    pub fn open_with_secret(root: &Path, secret: Secret) -> Result<Store> {
        Store::prepare(root, Some(secret))
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The secret that keys the store's digests.
    pub fn secret(&self) -> &Secret {
        &self.inner.secret
    }

    /// Keeps `bytes` and returns their digest; when it returns, they survive a power cut.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest> {
        let mut writer = self.writer()?;
        writer.write_all(bytes)?;
        writer.finish()
    }

    /// A blob to be written in pieces.
    pub fn writer(&self) -> Result<BlobWriter> {
        let sink = HashingFile { file: self.temporary_file()?, hasher: self.secret().hasher(BLOB_DOMAIN) };
        Ok(BlobWriter { store: self.clone(), sink: BufWriter::with_capacity(HASH_CHUNK_BYTES, sink) })
    }

    /// The bytes of a blob, checked against its digest.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, BlobError> {
        let mut file = self.open_blob(digest)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| self.blob_io("read a blob", error))?;
        let mut hasher = self.secret().hasher(BLOB_DOMAIN);
        hash_piece(&mut hasher, &bytes);
        self.accept(digest, Digest::from(hasher.finalize()), &file)?;
        Ok(bytes)
    }

    /// Where a blob lies, for a reader that needs a local file.
    ///
    /// Its bytes are checked against the digest the first time this process asks for it.
    pub fn path(&self, digest: &Digest) -> Result<PathBuf, BlobError> {
        self.open_verified(digest)?;
        Ok(self.blob_path(digest))
    }

    /// Whether the store has a blob of this digest; its bytes are not looked at.
    pub fn has(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    fn prepare(root: &Path, secret: Option<Secret>) -> Result<Store> {
        let root = std::path::absolute(root).with_context(|| format!("no such path: {}", root.display()))?;
        if root.exists() && !root.is_dir() {
            bail!("{} is a file, and a store is a folder; choose another with --store", root.display());
        }
        for folder in FOLDERS {
            create_private_folder(&root.join(folder))
                .map_err(|error| storage_error(&root, &format!("make the folder {folder}"), error))?;
        }
        format::check(&root)?;
        let presence =
            Presence::enter(&root).map_err(|error| storage_error(&root, "enter the store", error))?;
        scratch::sweep(&root.join("tmp"));
        let secret = keep_secret(&root, secret)?;
        Ok(Store {
            inner: Arc::new(Inner {
                root,
                secret,
                presence,
                scratch: Mutex::default(),
                verified: Mutex::default(),
                memos: Mutex::default(),
                stat_cache: Mutex::default(),
                tombstones: Mutex::default(),
            }),
        })
    }

    /// Checks the digest found against the one asked for; a damaged blob loses its name.
    fn accept(&self, digest: &Digest, found: Digest, file: &File) -> Result<(), BlobError> {
        if found == *digest {
            lock(&self.inner.verified).insert(*digest);
            return Ok(());
        }
        lock(&self.inner.verified).remove(digest);
        let path = self.blob_path(digest);
        // Another process may have replaced the blob by a good one since it was opened. In a store that
        // cannot be written the damaged blob stays, and is found damaged again.
        if is_at(file, &path).unwrap_or(false) {
            let _ = fs::remove_file(&path);
        }
        Err(BlobError::Damaged(*digest))
    }

    /// An open blob, whose bytes this process has checked now or before.
    pub(crate) fn open_verified(&self, digest: &Digest) -> Result<File, BlobError> {
        let mut file = self.open_blob(digest)?;
        if !lock(&self.inner.verified).contains(digest) {
            let (found, _) =
                hash_file(self.secret(), &mut file).map_err(|error| self.blob_io("read a blob", error))?;
            self.accept(digest, found, &file)?;
            file.rewind().map_err(|error| self.blob_io("read a blob", error))?;
        }
        Ok(file)
    }

    /// Takes a blob out of the store, for good; one that is not there is none.
    pub(crate) fn remove_blob(&self, digest: &Digest) -> Result<()> {
        lock(&self.inner.verified).remove(digest);
        match fs::remove_file(self.blob_path(digest)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(storage_error(self.root(), "remove a blob", error).into())
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn open_blob(&self, digest: &Digest) -> Result<File, BlobError> {
        File::open(self.blob_path(digest)).map_err(|error| match error.kind() {
            ErrorKind::NotFound => BlobError::Missing(*digest),
            _ => self.blob_io("open a blob", error),
        })
    }

    fn blob_io(&self, doing: &str, error: io::Error) -> BlobError {
        BlobError::Io(storage_error(self.root(), doing, error))
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        sharded(&self.root().join("cas"), digest)
    }

    /// Gives the finished `file` the name `path`, unless that is taken; returns whether it was free.
    pub(crate) fn link_new(&self, file: &NamedTempFile, path: &Path) -> io::Result<bool> {
        let folder = path.parent().unwrap_or(self.root());
        self.create_folder(folder)?;
        let free = match fs::hard_link(file.path(), path) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error),
        };
        // Also when it was taken: the other writer may not have come to its own sync yet.
        sync_folder(folder)?;
        Ok(free)
    }

    /// Puts a file with these bytes at `path`, whole or not at all, in place of what is there.
    pub(crate) fn replace_file(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.replace_file_of(path, &[bytes])
    }

    /// As [`Store::replace_file`], with these pieces one after another.
    pub(crate) fn replace_file_of(&self, path: &Path, pieces: &[&[u8]]) -> Result<()> {
        let write = || -> io::Result<()> {
            let folder = path.parent().unwrap_or(self.root());
            self.create_folder(folder)?;
            let mut file = self.scratch_file()?;
            pieces.iter().try_for_each(|piece| file.write_all(piece))?;
            file.as_file().sync_data()?;
            file.persist(path)?;
            sync_folder(folder)
        };
        Ok(write().map_err(|error| storage_error(self.root(), "write a record", error))?)
    }

    /// Makes a folder one level below an existing one, durably.
    pub(crate) fn create_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        create_private_folder(folder)?;
        sync_folder(folder.parent().unwrap_or(self.root()))
    }

    /// A file that is removed when dropped, and by the next process if this one is killed.
    pub(crate) fn temporary_file(&self) -> Result<NamedTempFile> {
        Ok(self.scratch_file().map_err(|error| storage_error(self.root(), "make a temporary file", error))?)
    }

    /// A folder for unfinished files, removed when dropped, and by the next process if this one is killed.
    ///
    /// It is an error if the store cannot be written.
    pub fn temporary_folder(&self) -> Result<TempDir> {
        let made = self.in_scratch(Scratch::folder);
        Ok(made.map_err(|error| storage_error(self.root(), "make a temporary folder", error))?)
    }

    fn scratch_file(&self) -> io::Result<NamedTempFile> {
        self.in_scratch(Scratch::file)
    }

    fn in_scratch<T>(&self, make: impl Fn(&Scratch) -> io::Result<T>) -> io::Result<T> {
        let mut scratch = lock(&self.inner.scratch);
        match &*scratch {
            Some(scratch) => make(scratch),
            // Not made when the store is opened: a store that cannot be written can still be read.
            None => make(scratch.insert(Scratch::create(&self.root().join("tmp"))?)),
        }
    }

    pub(crate) fn presence(&self) -> &Presence {
        &self.inner.presence
    }

    pub(crate) fn memos(&self) -> MutexGuard<'_, HashMap<Digest, WeakMemo>> {
        lock(&self.inner.memos)
    }

    pub(crate) fn cached_tombstones(&self) -> MutexGuard<'_, Option<Arc<Tombstones>>> {
        lock(&self.inner.tombstones)
    }

    pub(crate) fn stat_cache(&self) -> MutexGuard<'_, Option<StatCache>> {
        lock(&self.inner.stat_cache)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Store({})", self.root().display())
    }
}

/// A blob being written; dropped before it is finished, it never was.
pub struct BlobWriter {
    store: Store,
    sink: BufWriter<HashingFile>,
}

struct HashingFile {
    file: NamedTempFile,
    hasher: blake3::Hasher,
}

impl BlobWriter {
    /// Makes what was written a blob and returns its digest; when it returns, the blob survives a power cut.
    ///
    /// If the store has the blob already and this process has checked it, that one is kept.
    pub fn finish(self) -> Result<Digest> {
        let BlobWriter { store, sink } = self;
        let name = |error| storage_error(store.root(), "write a blob", error);
        let HashingFile { file, hasher } = sink.into_inner().map_err(|error| name(error.into_error()))?;
        let digest = Digest::from(hasher.finalize());
        let path = store.blob_path(&digest);
        let bytes = file.as_file().metadata().map_err(name)?.len();
        file.as_file().sync_data().map_err(name)?;
        if store.link_new(&file, &path).map_err(name)? {
            lock(&store.inner.verified).insert(digest);
        } else if !lock(&store.inner.verified).contains(&digest)
            || fs::metadata(&path).map_err(name)?.len() != bytes
        {
            // Nobody here knows whether the one that is there is whole, or it is known not to be. This one is.
            file.persist(&path).map_err(|error| name(error.error))?;
            sync_folder(path.parent().unwrap_or(store.root())).map_err(name)?;
            lock(&store.inner.verified).insert(digest);
        }
        Ok(digest)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes);
        written.map_err(|error| storage_error(self.store.root(), "write a blob", error))
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.sink.flush();
        flushed.map_err(|error| storage_error(self.store.root(), "write a blob", error))
    }
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        hash_piece(&mut self.hasher, &bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl fmt::Display for BlobError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlobError::Missing(digest) => {
                write!(out, "the store has no blob {}; run the step that makes it again", digest.short())
            }
            BlobError::Damaged(digest) => {
                write!(
                    out,
                    "the bytes of blob {} had changed, so it was removed; run the step that makes it again",
                    digest.short()
                )
            }
            BlobError::Io(error) => error.fmt(out),
        }
    }
}

impl Error for BlobError {}

/// `folder/ab/cd…`: folders of a few hundred thousand names are slow to list, 256 smaller ones are not.
pub(crate) fn sharded(folder: &Path, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    folder.join(&name[..2]).join(&name[2..])
}

/// The digest and length in bytes of what remains to be read of `file`, in the domain of blobs.
pub(crate) fn hash_file(secret: &Secret, file: &mut File) -> io::Result<(Digest, u64)> {
    let mut hasher = secret.hasher(BLOB_DOMAIN);
    let mut piece = Vec::with_capacity(HASH_CHUNK_BYTES);
    let mut bytes = 0;
    loop {
        piece.clear();
        let read = Read::by_ref(file).take(HASH_CHUNK_BYTES as u64).read_to_end(&mut piece)?;
        if read == 0 {
            return Ok((Digest::from(hasher.finalize()), bytes));
        }
        hash_piece(&mut hasher, &piece);
        bytes += read as u64;
    }
}

/// A poisoned lock is taken all the same: everything under these locks is whole after each statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Spreads a big piece over the cores; below 128 KiB that costs more than it saves (blake3's own advice).
fn hash_piece(hasher: &mut blake3::Hasher, piece: &[u8]) {
    if piece.len() < 128 << 10 {
        hasher.update(piece);
    } else {
        hasher.update_rayon(piece);
    }
}

/// The store's secret, made once: `wanted` if given, else random.
fn keep_secret(root: &Path, wanted: Option<Secret>) -> Result<Secret> {
    let actions = root.join("actions");
    // Asked before the secret is looked for: results are only made after it, so if there are some and it
    // is not there afterwards, it is lost.
    let has_results = fs::read_dir(&actions)
        .map_err(|error| storage_error(root, "list the actions", error))?
        .next()
        .is_some();
    let found = match read_secret(root)? {
        Some(found) => found,
        None if has_results => bail!(
            "the store at {} holds results, but its file `secret` is gone; put the file back or choose another store",
            root.display()
        ),
        None => {
            let fresh = wanted.clone().map_or_else(random_secret, Ok)?;
            create_secret(root, &fresh).map_err(|error| storage_error(root, "write the secret", error))?;
            // Another process may have been first, and then its secret counts.
            read_secret(root)?.context("the store's secret vanished while the store was opened")?
        }
    };
    if wanted.is_some_and(|wanted| wanted != found) {
        bail!("the store at {} has another secret than the one given; choose another store", root.display());
    }
    Ok(found)
}

fn read_secret(root: &Path) -> Result<Option<Secret>> {
    let bytes = match fs::read(root.join("secret")) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(storage_error(root, "read the secret", error).into()),
    };
    let bytes: [u8; 32] = bytes.as_slice().try_into().ok().with_context(|| {
        format!(
            "the secret of the store at {} has {} bytes, expected 32; restore the file `secret` or choose another store",
            root.display(),
            bytes.len()
        )
    })?;
    Ok(Some(Secret::from_bytes(bytes)))
}

/// Gives the store this secret, unless it has one.
fn create_secret(root: &Path, secret: &Secret) -> io::Result<()> {
    let scratch = Scratch::create(&root.join("tmp"))?;
    let mut file = scratch.file()?;
    file.write_all(secret.as_bytes())?;
    file.as_file().sync_data()?;
    match fs::hard_link(file.path(), root.join("secret")) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => sync_folder(root),
    }
}

fn random_secret() -> Result<Secret> {
    let mut bytes = [0; 32];
    OsRng.try_fill_bytes(&mut bytes).context("the system gives no random bytes for the store's secret")?;
    Ok(Secret::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open_with_secret(&folder.path().join("store"), Secret::from_bytes([1; 32])).unwrap();
        (folder, store)
    }

    /// Changes one byte of a blob in place, as a bad disk does.
    fn damage(store: &Store, digest: &Digest) {
        let path = store.blob_path(digest);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }

    fn unfinished_files(store: &Store) -> usize {
        let owned = fs::read_dir(store.root().join("tmp")).unwrap().map(|entry| entry.unwrap().path());
        owned.filter(|path| path.is_dir()).map(|folder| fs::read_dir(folder).unwrap().count()).sum()
    }

    // The digests were made with the Python package blake3 1.0: `blake3(data, key=k)`, where k is
    // `blake3(secret, derive_key_context="argent blob v1")`.
    #[test]
    fn a_blob_has_the_digest_of_the_reference_implementation() {
        let (_folder, store) = store();
        let short = store.put_bytes(b"abc").unwrap();
        assert_eq!(short.to_string(), "9bb3073c5acc1999802538a35b43c76883a82420a757398c6f5e8f2acebc2aec");
        let long: Vec<u8> = (0..300_000u32).map(|byte| (byte % 251) as u8).collect();
        let whole = store.put_bytes(&long).unwrap();
        assert_eq!(whole.to_string(), "6e2a2201979b203a5fe82dfa68bbd9867c1bf504aa8535dc5d5f631134dfcd5f");
        let mut writer = store.writer().unwrap();
        long.chunks(777).for_each(|piece| writer.write_all(piece).unwrap());
        assert_eq!(writer.finish().unwrap(), whole);
        assert_eq!(store.read(&whole).unwrap(), long);
        assert_eq!(fs::read(store.path(&whole).unwrap()).unwrap(), long);
        assert_eq!(unfinished_files(&store), 0);
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_nothing() {
        let (_folder, store) = store();
        let mut writer = store.writer().unwrap();
        writer.write_all(&vec![0; 3 << 20]).unwrap();
        assert_eq!(unfinished_files(&store), 1);
        drop(writer);
        assert_eq!(unfinished_files(&store), 0);
        assert_eq!(fs::read_dir(store.root().join("cas")).unwrap().count(), 0);
    }

    #[test]
    fn only_the_owner_can_look_in() {
        let (_folder, store) = store();
        let digest = store.put_bytes(b"report").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(store.root()), 0o700);
        assert_eq!(mode(&store.root().join("cas")), 0o700);
        assert_eq!(mode(&store.root().join("secret")), 0o600);
        assert_eq!(mode(&store.blob_path(&digest)), 0o600);
        assert_eq!(mode(store.blob_path(&digest).parent().unwrap()), 0o700);
    }

    #[test]
    fn a_damaged_blob_is_found_and_can_be_made_again() {
        let (_folder, store) = store();
        let digest = store.put_bytes(b"some bytes").unwrap();
        damage(&store, &digest);
        assert!(matches!(store.read(&digest), Err(BlobError::Damaged(found)) if found == digest));
        assert!(!store.has(&digest));
        assert!(matches!(store.read(&digest), Err(BlobError::Missing(_))));
        assert_eq!(store.put_bytes(b"some bytes").unwrap(), digest);
        assert_eq!(store.read(&digest).unwrap(), b"some bytes");

        damage(&store, &digest);
        let next = Store::open(store.root()).unwrap();
        assert!(matches!(next.path(&digest), Err(BlobError::Damaged(_))));
        assert!(matches!(next.path(&digest), Err(BlobError::Missing(_))));
    }

    #[test]
    fn a_blob_cut_short_is_replaced_when_it_is_made_again() {
        let (_folder, store) = store();
        let digest = store.put_bytes(b"some bytes").unwrap();
        fs::write(store.blob_path(&digest), b"some").unwrap();
        store.put_bytes(b"some bytes").unwrap();
        assert_eq!(store.read(&digest).unwrap(), b"some bytes");
    }

    #[test]
    fn threads_and_stores_that_put_the_same_agree() {
        let (_folder, store) = store();
        let bytes = vec![7; 200_000];
        let digests: Vec<Digest> = std::thread::scope(|scope| {
            let put = || {
                let store = Store::open(store.root()).unwrap();
                (0..20).map(|_| store.put_bytes(&bytes).unwrap()).next_back().unwrap()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(put)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(digests.iter().all(|digest| *digest == digests[0]));
        assert_eq!(store.read(&digests[0]).unwrap(), bytes);
        assert_eq!(unfinished_files(&store), 0);
    }

    #[test]
    fn stores_opened_at_once_have_one_secret() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Store::open(folder.path()).unwrap();
        let secrets: Vec<Store> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(secrets.iter().all(|store| store.secret() == secrets[0].secret()));
        let other = Store::open_with_secret(folder.path(), Secret::from_bytes([9; 32]));
        assert!(other.unwrap_err().to_string().contains("has another secret than the one given"));
    }

    #[test]
    fn a_lost_secret_is_not_replaced() {
        let (_folder, store) = store();
        fs::create_dir(store.root().join("actions/ab")).unwrap();
        fs::remove_file(store.root().join("secret")).unwrap();
        let error = Store::open(store.root()).unwrap_err().to_string();
        assert!(error.contains("holds results, but its file `secret` is gone"), "{error}");
        fs::write(store.root().join("secret"), b"short").unwrap();
        let error = Store::open(store.root()).unwrap_err().to_string();
        assert!(error.contains("has 5 bytes, expected 32"), "{error}");
    }

    #[test]
    fn a_store_that_cannot_be_made_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Store::open(&file.path().join("store")).unwrap_err().to_string();
        assert!(error.starts_with("cannot make the folder cas in the store at /"), "{error}");
    }
}
