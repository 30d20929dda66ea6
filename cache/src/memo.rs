//! The row memo: for one operator, the answers it gave, by row key.

mod journal;
mod segment;

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::digest::Digest;
use crate::durable::{storage_error, sync_folder};
use crate::store::{BLOB_DOMAIN, Store, hash_file, lock};
use journal::{Checker, JOURNAL_SUFFIX, Journal};
use segment::{Group, Record, SEGMENT_SUFFIX, Segment};

/// A put is durable after this long at most, and a little for the sync itself: 50 ms together.
const GROUP_SYNC_DELAY: Duration = Duration::from_millis(40);

/// A journal of this many bytes is sealed while the run goes on.
const JOURNAL_SEAL_BYTES: u64 = 64 << 20;

/// A segment holds about this many bytes of values, so that one is written from memory.
const SEGMENT_BYTES: usize = 256 << 20;

/// Segments of less than this many bytes are merged when there are [`SMALL_SEGMENTS`] of them.
const SMALL_SEGMENT_BYTES: u64 = 32 << 20;
const SMALL_SEGMENTS: usize = 8;

/// Row groups that are kept decompressed; with [`Memo::get_many`] one is enough.
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
    places: HashMap<Digest, Place>,
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
    pub fn get_many(&self, keys: &[Digest]) -> Result<Vec<Option<Vec<u8>>>> {
        self.shared().get_many(keys)
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

    fn get_many(&self, keys: &[Digest]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        {
            let index = self.read_index();
            order.sort_by_key(|&position| {
                index.places.get(&keys[position]).map(|place| (place.source, place.at))
            });
        }
        let mut values = vec![None; keys.len()];
        for position in order {
            values[position] = self.get(&keys[position])?;
        }
        Ok(values)
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

/// Reading what others wrote.
impl Shared {
    fn refresh(&self) -> Result<()> {
        let _alone = lock(&self.refresh);
        // A file can go between listing and opening, when its records have moved to a segment: list again.
        for _ in 0..REFRESH_ATTEMPTS {
            if self.load_all()? {
                return Ok(());
            }
        }
        bail!("the memo at {} keeps changing while it is read; run again", self.folder.display())
    }

    /// Reads new files and new records; false if a file vanished meanwhile.
    fn load_all(&self) -> Result<bool> {
        let mut names = self.list()?;
        // By time, so that the first value of a key is the same for every reader.
        names.sort();
        for name in names {
            let known = {
                let index = self.read_index();
                index.names.get(&name).map(|source| (*source, Arc::clone(&index.sources[*source])))
            };
            match known {
                Some((number, source)) => self.read_on(number, &source)?,
                None => {
                    if !self.load(&name)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn list(&self) -> Result<Vec<String>> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.folder)? {
                names.extend(entry?.file_name().into_string());
            }
            Ok(names)
        };
        match list() {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            listed => Ok(listed.map_err(|error| self.refused("list a memo", error))?),
        }
    }

    /// Reads a file for the first time; false if it is gone.
    fn load(&self, name: &str) -> Result<bool> {
        let path = self.folder.join(name);
        let suffix = path.extension().and_then(|suffix| suffix.to_str());
        if !matches!(suffix, Some(JOURNAL_SUFFIX | SEGMENT_SUFFIX)) {
            return Ok(true);
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.refused("read a memo", error).into()),
        };
        if suffix == Some(SEGMENT_SUFFIX) {
            self.load_segment(name, file)?;
        } else {
            let kind = Kind::Other { file, next: Mutex::new(0) };
            let number = self.write_index().add(Source { name: name.to_owned(), kind });
            let source = Arc::clone(&self.read_index().sources[number]);
            self.read_on(number, &source)?;
        }
        Ok(true)
    }

    /// Reads what another process has added to its journal.
    fn read_on(&self, number: usize, source: &Source) -> Result<()> {
        let Kind::Other { file, next } = &source.kind else { return Ok(()) };
        let mut next = lock(next);
        let scan = journal::scan(&self.checker, file, *next)
            .map_err(|error| self.refused("read a memo journal", error))?;
        let mut index = self.write_index();
        for found in scan.found {
            let place = Place { source: number, at: found.payload_at, bytes: found.payload_bytes };
            index.places.entry(found.key).or_insert(place);
        }
        index.damaged += scan.damaged;
        *next = scan.next;
        Ok(())
    }

    fn load_segment(&self, name: &str, mut file: File) -> Result<()> {
        let (digest, bytes) = hash_file(self.store.secret(), &mut file)
            .map_err(|error| self.refused("read a memo segment", error))?;
        let sound = segment_digest(name) == Some(digest);
        let segment = match Segment::open(file) {
            Ok(segment) => segment,
            Err(error) if sound => return Err(error).with_context(|| format!("memo segment {name}")),
            Err(_) => {
                let mut index = self.write_index();
                index.add(Source { name: name.to_owned(), kind: Kind::Unreadable });
                index.damaged += 1;
                return Ok(());
            }
        };
        let (rows, lost) =
            if sound { ((0..).zip(segment.keys()?).collect(), 0) } else { segment.salvage(&self.checker) };
        let mut index = self.write_index();
        let kind = Kind::Segment { segment, bytes, damaged: !sound };
        let source = index.add(Source { name: name.to_owned(), kind });
        for (row, key) in rows {
            index.places.entry(key).or_insert(Place { source, at: row, bytes: 0 });
        }
        index.damaged += lost;
        Ok(())
    }
}

/// How often the folder is listed before a memo that keeps changing is an error.
const REFRESH_ATTEMPTS: usize = 20;

/// Sealing.
impl Shared {
    fn seal(&self) -> Result<()> {
        if !self.folder.exists() {
            return Ok(());
        }
        let folder = File::open(&self.folder).map_err(|error| self.refused("seal a memo", error))?;
        // One process seals at a time; those that read or put need not wait.
        folder.lock().map_err(|error| self.refused("seal a memo", error))?;
        self.close_journal()?;
        self.refresh()?;
        let picked = self.pick()?;
        let Some(stem) = picked.iter().map(|(_, source)| stem_of(&source.name)).min() else { return Ok(()) };
        let mut moving = self.records_of(&picked);
        while !moving.is_empty() {
            moving = self.seal_some(stem, &moving)?;
        }
        self.remove(&picked)
    }

    /// Ends the journal of this process, all its records durable; the next put begins another.
    ///
    /// Puts wait for this sync: between the usual ones there is always a record that is not durable yet.
    fn close_journal(&self) -> Result<()> {
        let mut writer = self.lock_writer();
        while writer.syncing {
            writer = self.sync_ended.wait(writer).unwrap_or_else(PoisonError::into_inner);
        }
        if writer.journal.is_none() && writer.pending.is_empty() {
            return Ok(());
        }
        self.open_journal(&mut writer)?;
        let Some(journal) = writer.journal.take() else { return Ok(()) };
        journal.file.sync_data().map_err(|error| self.refused("write a memo journal", error))?;
        writer.synced = writer.put;
        writer.pending.clear();
        Ok(())
    }

    /// What to seal: the journals that nobody writes any more, and small or damaged segments.
    fn pick(&self) -> Result<Vec<(usize, Arc<Source>)>> {
        let sources: Vec<_> = self.read_index().names.values().copied().collect();
        let current = self.lock_writer().open_source();
        let mut picked = Vec::new();
        let mut small = Vec::new();
        for number in sources {
            let source = Arc::clone(&self.read_index().sources[number]);
            match &source.kind {
                Kind::Own(_) if current == Some(number) => {}
                Kind::Own(_) => picked.push((number, source)),
                Kind::Other { file, .. } => match file.try_lock() {
                    Ok(()) => {
                        // Its writer may have added something since it was read last, and then died.
                        self.read_on(number, &source)?;
                        picked.push((number, source));
                    }
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => return Err(self.refused("seal a memo", error).into()),
                },
                Kind::Segment { damaged: true, .. } => picked.push((number, source)),
                Kind::Segment { bytes, .. } if *bytes < SMALL_SEGMENT_BYTES => small.push((number, source)),
                Kind::Segment { .. } | Kind::Unreadable | Kind::Gone => {}
            }
        }
        if small.len() >= SMALL_SEGMENTS {
            picked.extend(small);
        }
        Ok(picked)
    }

    /// The records whose value counts and lies in one of these sources, in the order in which they were put.
    fn records_of(&self, picked: &[(usize, Arc<Source>)]) -> Vec<(Digest, Place)> {
        let names: HashMap<usize, &str> =
            picked.iter().map(|(number, source)| (*number, source.name.as_str())).collect();
        let index = self.read_index();
        let mut records: Vec<_> = index
            .places
            .iter()
            .filter(|(_, place)| names.contains_key(&place.source))
            .map(|(key, place)| (*key, *place))
            .collect();
        records.sort_by_key(|(_, place)| (names[&place.source], place.at));
        records
    }

    /// Makes a segment of the first of `moving`, as many as fit, and returns the others.
    fn seal_some(&self, stem: &str, moving: &[(Digest, Place)]) -> Result<Vec<(Digest, Place)>> {
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut taken = 0;
        for (key, _) in moving {
            if bytes >= SEGMENT_BYTES {
                break;
            }
            taken += 1;
            // None is a damaged record, which `get` has just left out of the index.
            if let Some(value) = self.get(key)? {
                bytes += value.len();
                records.push(Record { key: *key, value });
            }
        }
        if !records.is_empty() {
            let source = self.publish_segment(stem, &records)?;
            let before: HashMap<Digest, Place> = moving[..taken].iter().copied().collect();
            let mut index = self.write_index();
            for (row, record) in (0..).zip(&records) {
                if let Some(place) = index.places.get_mut(&record.key)
                    && before.get(&record.key) == Some(place)
                {
                    *place = Place { source, at: row, bytes: 0 };
                }
            }
        }
        Ok(moving[taken..].to_vec())
    }

    /// Writes a segment, gives it its name, and returns its number among the sources.
    fn publish_segment(&self, stem: &str, records: &[Record]) -> Result<usize> {
        let refused = |error| self.refused("write a memo segment", error);
        let encoded = segment::encode(&self.checker, records)?;
        let digest = self.store.secret().digest(BLOB_DOMAIN, &encoded);
        let bytes = encoded.len() as u64;
        let mut temporary = self.store.temporary_file()?;
        temporary.write_all(&encoded).map_err(refused)?;
        temporary.as_file().sync_data().map_err(refused)?;
        let file = temporary.reopen().map_err(refused)?;
        let name = format!("{stem}-{digest}.{SEGMENT_SUFFIX}");
        self.store.link_new(&temporary, &self.folder.join(&name)).map_err(refused)?;
        let kind = Kind::Segment { segment: Segment::open(file)?, bytes, damaged: false };
        Ok(self.write_index().add(Source { name, kind }))
    }

    /// Removes files whose records are all in a segment that has its name.
    fn remove(&self, picked: &[(usize, Arc<Source>)]) -> Result<()> {
        let refused = |error| self.refused("remove a sealed journal", error);
        for (number, source) in picked {
            match fs::remove_file(self.folder.join(&source.name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(refused(error).into()),
                Ok(()) | Err(_) => self.write_index().forget(*number),
            }
        }
        Ok(sync_folder(&self.folder).map_err(refused)?)
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

fn stem_of(name: &str) -> &str {
    name.split_once('-').map_or(name, |(stem, _)| stem)
}

/// The digest of the file's bytes that a segment's name holds.
fn segment_digest(name: &str) -> Option<Digest> {
    name.split_once('-')?.1.split_once('.')?.0.parse().ok()
}

#[cfg(test)]
mod tests;
