//! The row memo: for one operator, the answers it gave, by row key.

mod journal;
mod many;
mod prune;
mod reading;
mod sealing;
mod segment;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::digest::{Digest, DigestMap};
use crate::durable::storage_error;
use crate::store::{Store, lock};
use journal::{Checker, Journal};
pub use many::Answers;
use segment::{Group, Segment};

/// A put is durable after this long at most, and a little for the sync itself: 50 ms together.
const GROUP_SYNC_DELAY: Duration = Duration::from_millis(40);

/// A journal of this many bytes is sealed while the run goes on.
const JOURNAL_SEAL_BYTES: u64 = 64 << 20;

/// Row groups that are kept decompressed for [`Memo::get`].
const CACHED_GROUPS: usize = 8;

/// The answers of one operator, by row key; clones share them.
///
/// The first value of a key stays: of several processes that put one, every later reader sees the one in
/// the file that was begun first.
#[derive(Clone)]
pub struct Memo {
    handle: Arc<Handle>,
}

/// How the store remembers a memo that is open, so that one operator has one.
pub(crate) type WeakMemo = Weak<Handle>;

/// Syncs when the last clone is dropped.
pub(crate) struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    folder: PathBuf,
    checker: Checker,
    index: RwLock<Index>,
    writer: Mutex<Writer>,
    /// Told whenever a sync ends.
    sync_ended: Condvar,
    /// Held while the folder is read.
    refresh: Mutex<()>,
    groups: Mutex<VecDeque<(GroupName, Arc<Group>)>>,
}

/// A row group: its source and its number.
type GroupName = (usize, usize);

/// Where each value lies.
#[derive(Default)]
struct Index {
    places: DigestMap<Place>,
    sources: Vec<Arc<Source>>,
    /// The sources by the name of their file.
    names: HashMap<String, usize>,
    damaged: u64,
}

#[derive(Clone, Copy, PartialEq)]
struct Place {
    source: usize,
    /// The offset of the payload in a journal, the row in a segment.
    at: u64,
    /// The payload's length in a journal.
    bytes: u32,
}

struct Source {
    name: String,
    kind: Kind,
}

enum Kind {
    /// A journal that this process wrote.
    Own(Arc<File>),
    /// Another process's journal, and how far it has been read.
    Other {
        file: File,
        next: Mutex<u64>,
    },
    Segment {
        segment: Segment,
        bytes: u64,
        damaged: bool,
    },
    /// A segment whose footer is damaged. The file stays: someone may know how to repair it.
    Unreadable,
    /// A file that was sealed into another.
    Gone,
}

#[derive(Default)]
struct Writer {
    journal: Option<Journal>,
    /// Which source the journal is.
    source: usize,
    /// Records put, and of those how many are durable.
    put: u64,
    synced: u64,
    /// The records put and not yet durable, in case the journal fails and another must take them.
    pending: Vec<(Digest, Vec<u8>)>,
    /// Whether a thread is in a sync.
    syncing: bool,
    /// Whether a thread will sync soon.
    sync_planned: bool,
    /// Whether the last planned sync failed.
    failed: bool,
}

impl Store {
    /// The memo of the operator with this digest, with all that any process has put so far.
    pub fn memo(&self, op: &Digest) -> Result<Memo> {
        let mut memos = self.memos();
        if let Some(handle) = memos.get(op).and_then(Weak::upgrade) {
            drop(memos);
            let memo = Memo { handle };
            memo.refresh()?;
            return Ok(memo);
        }
        let folder = self.root().join("memo").join(op.to_string());
        let shared = Shared {
            store: self.clone(),
            folder,
            checker: Checker::new(self.secret(), op),
            index: RwLock::default(),
            writer: Mutex::default(),
            sync_ended: Condvar::new(),
            refresh: Mutex::default(),
            groups: Mutex::default(),
        };
        shared.refresh()?;
        let handle = Arc::new(Handle { shared: Arc::new(shared) });
        memos.insert(*op, Arc::downgrade(&handle));
        Ok(Memo { handle })
    }
}

impl Memo {
    /// Whether there is an answer for this row key.
    pub fn contains(&self, key: &Digest) -> bool {
        self.shared().read_index().places.contains_key(key)
    }

    /// The answer for this row key; none if there is none, or if it turns out to be damaged.
    ///
    /// It is an error if the disk refuses.
    pub fn get(&self, key: &Digest) -> Result<Option<Vec<u8>>> {
        self.shared().get(key)
    }

    /// The answers for these row keys, in their order; much faster than one by one where many are sealed.
    ///
    /// It is an error if the disk refuses.
    pub fn get_many(&self, keys: &[Digest]) -> Result<Answers> {
        self.shared().get_many(keys)
    }

    /// Sorts row keys by where their answers lie. Taken in this order, many answers are read in pieces that each
    /// decompress little; in any other order each piece would decompress nearly all.
    pub fn sort_by_place(&self, keys: &mut [Digest]) {
        self.shared().sort_by_place(keys);
    }

    /// Keeps an answer, unless there is one for this row key; it is durable 50 ms later at most.
    ///
    /// It is an error if it cannot be written, or if what was put before could not be made durable.
    pub fn put(&self, key: Digest, payload: &[u8]) -> Result<()> {
        self.shared().put(key, payload)?;
        Ok(())
    }

    /// Keeps an answer, unless there is one for this row key, and returns once it is durable.
    ///
    /// Callers that wait at the same time share one sync of the disk. It is an error if it cannot be written.
    pub fn put_durable(&self, key: Digest, payload: &[u8]) -> Result<()> {
        let put = self.shared().put(key, payload)?;
        self.shared().sync(put)
    }

    /// Returns once everything put so far is durable.
    ///
    /// It is an error if it cannot be written; what was put is then kept in memory and tried again.
    pub fn sync(&self) -> Result<()> {
        let put = self.shared().lock_writer().put;
        self.shared().sync(put)
    }

    /// The number of answers.
    pub fn len(&self) -> usize {
        self.shared().read_index().places.len()
    }

    /// Whether there is no answer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many damaged records were met and left out, for a warning.
    pub fn damaged(&self) -> u64 {
        self.shared().read_index().damaged
    }

    /// Looks for what other processes have put since.
    ///
    /// It is an error if the memo's files cannot be read.
    pub fn refresh(&self) -> Result<()> {
        self.shared().refresh()
    }

    /// Makes the journals of this process, and those of dead ones, a Parquet segment, and merges small
    /// segments. A journal is removed once its segment has its name, so nothing is ever in neither.
    ///
    /// It is an error if the segment cannot be written; the journals then stay.
    pub fn seal(&self) -> Result<()> {
        self.shared().seal()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }
}

impl Drop for Handle {
    /// Makes durable what was put last; if that fails, what waits is what a power cut would have taken too.
    fn drop(&mut self) {
        let _ = self.shared.close_journal();
        // A planned sync keeps the files open for some milliseconds more, but nobody writes them now.
        for source in &self.shared.read_index().sources {
            if let Kind::Own(file) = &source.kind {
                let _ = file.unlock();
            }
        }
    }
}

/// Getting.
impl Shared {
    fn get(&self, key: &Digest) -> Result<Option<Vec<u8>>> {
        let Some((place, source)) = self.place(key) else { return Ok(None) };
        let value = self.read(key, place, &source)?;
        if value.is_none() {
            let mut index = self.write_index();
            if index.places.get(key) == Some(&place) {
                index.places.remove(key);
                index.damaged += 1;
            }
        }
        Ok(value)
    }

    fn place(&self, key: &Digest) -> Option<(Place, Arc<Source>)> {
        let index = self.read_index();
        let place = *index.places.get(key)?;
        Some((place, Arc::clone(&index.sources[place.source])))
    }

    fn read(&self, key: &Digest, place: Place, source: &Source) -> Result<Option<Vec<u8>>> {
        let file = match &source.kind {
            Kind::Own(file) => file.as_ref(),
            Kind::Other { file, .. } => file,
            Kind::Unreadable | Kind::Gone => return Ok(None),
            Kind::Segment { segment, .. } => {
                let group = self.group((place.source, segment.group_of(place.at)), segment)?;
                return Ok(group.value(&self.checker, place.at, key));
            }
        };
        let read = journal::read_payload(&self.checker, file, key, place.at, place.bytes);
        Ok(read.map_err(|error| self.refused("read a memo journal", error))?)
    }

    fn group(&self, name: GroupName, segment: &Segment) -> Result<Arc<Group>> {
        let mut groups = lock(&self.groups);
        if let Some(position) = groups.iter().position(|(cached, _)| *cached == name) {
            return Ok(Arc::clone(&groups[position].1));
        }
        let group = Arc::new(segment.read_group(name.1)?);
        groups.push_front((name, Arc::clone(&group)));
        groups.truncate(CACHED_GROUPS);
        Ok(group)
    }
}

/// Putting.
impl Shared {
    /// Appends a record unless there is one, and returns the number to [`Shared::sync`] to.
    fn put(self: &Arc<Shared>, key: Digest, payload: &[u8]) -> Result<u64> {
        let mut writer = self.lock_writer();
        if writer.failed {
            let put = writer.put;
            drop(writer);
            self.sync(put)?;
            writer = self.lock_writer();
        }
        if self.read_index().places.contains_key(&key) {
            return Ok(writer.put);
        }
        self.append(&mut writer, &key, payload)?;
        writer.pending.push((key, payload.to_vec()));
        writer.put += 1;
        self.plan_sync(&mut writer)?;
        Ok(writer.put)
    }

    fn append(&self, writer: &mut Writer, key: &Digest, payload: &[u8]) -> Result<()> {
        self.open_journal(writer)?;
        let journal = writer.journal.as_mut().context("the memo's journal is closed")?;
        let at = journal.append(&self.checker, key, payload).map_err(|error| {
            match error.downcast::<io::Error>() {
                Ok(error) => self.refused("write a memo journal", error).into(),
                Err(error) => error,
            }
        })?;
        let place = Place { source: writer.source, at, bytes: payload.len() as u32 };
        self.write_index().places.insert(*key, place);
        Ok(())
    }

    /// Begins a journal if none is open; it takes over what an earlier one could not make durable.
    fn open_journal(&self, writer: &mut Writer) -> Result<()> {
        if writer.journal.is_some() {
            return Ok(());
        }
        self.store.create_folder(&self.folder).map_err(|error| self.refused("make a memo folder", error))?;
        let journal = Journal::create(&self.store, &self.folder, &time_stem()?)?;
        let source = Source { name: journal.name.clone(), kind: Kind::Own(Arc::clone(&journal.file)) };
        writer.source = self.write_index().add(source);
        writer.journal = Some(journal);
        let pending = std::mem::take(&mut writer.pending);
        let moved = pending.iter().try_for_each(|(key, payload)| self.append(writer, key, payload));
        writer.pending = pending;
        moved
    }

    /// Has a thread sync soon, unless one will already.
    fn plan_sync(self: &Arc<Shared>, writer: &mut Writer) -> Result<()> {
        if writer.sync_planned {
            return Ok(());
        }
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new().name("argent-memo-sync".to_owned());
        thread.spawn(move || shared.sync_in_background()).context("cannot start a thread")?;
        writer.sync_planned = true;
        Ok(())
    }

    /// Syncs in groups until nothing was put for one delay.
    fn sync_in_background(&self) {
        loop {
            std::thread::sleep(GROUP_SYNC_DELAY);
            let mut writer = self.lock_writer();
            let put = writer.put;
            if writer.synced == put {
                writer.sync_planned = false;
                return;
            }
            let is_big =
                writer.journal.as_ref().is_some_and(|journal| journal.length_bytes > JOURNAL_SEAL_BYTES);
            drop(writer);
            let outcome = self.sync(put).and_then(|()| if is_big { self.seal() } else { Ok(()) });
            if outcome.is_err() {
                // The next put tries again at once and reports what is wrong.
                let mut writer = self.lock_writer();
                writer.failed = true;
                writer.sync_planned = false;
                return;
            }
        }
    }

    /// Returns once the first `wanted` records are durable: one of the callers syncs for all that wait.
    fn sync(&self, wanted: u64) -> Result<()> {
        let mut writer = self.lock_writer();
        while writer.synced < wanted {
            if writer.syncing {
                writer = self.sync_ended.wait(writer).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            self.open_journal(&mut writer)?;
            let (put, covered) = (writer.put, writer.pending.len());
            let file = writer.journal.as_ref().map(|journal| Arc::clone(&journal.file));
            writer.syncing = true;
            drop(writer);
            let outcome = file.map_or(Ok(()), |file| file.sync_data());
            writer = self.lock_writer();
            writer.syncing = false;
            self.sync_ended.notify_all();
            if let Err(error) = outcome {
                // What a failed sync left of this file is unknown, and a second sync of it may lie
                // (fsync reports an error once), so all that is pending goes into another.
                writer.journal = None;
                return Err(self.refused("write a memo journal", error).into());
            }
            writer.synced = put;
            writer.pending.drain(..covered);
        }
        writer.failed = false;
        Ok(())
    }
}

impl Shared {
    fn read_index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_index(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        lock(&self.writer)
    }

    fn refused(&self, doing: &str, error: io::Error) -> io::Error {
        storage_error(self.store.root(), doing, error)
    }
}

impl Writer {
    /// The source that is being written, if one is.
    fn open_source(&self) -> Option<usize> {
        self.journal.as_ref().map(|_| self.source)
    }
}

impl Index {
    fn add(&mut self, source: Source) -> usize {
        let number = self.sources.len();
        self.names.insert(source.name.clone(), number);
        self.sources.push(Arc::new(source));
        number
    }

    /// Closes a source that no place names any more; its number is not given again.
    fn forget(&mut self, number: usize) {
        let gone = Source { name: String::new(), kind: Kind::Gone };
        let source = std::mem::replace(&mut self.sources[number], Arc::new(gone));
        self.names.remove(&source.name);
    }
}

/// The part of a file's name that says when it was begun, 16 hexadecimal digits of microseconds since 1970:
/// names sort by time.
fn time_stem() -> Result<String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the system's clock is before 1970")?;
    Ok(format!("{:016x}", since.as_micros()))
}

#[cfg(test)]
mod tests;
