//! Sealing: journals that nobody writes any more become a segment, and small segments one.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::sync::{Arc, PoisonError};

use anyhow::Result;

use super::segment::{self, Record, SEGMENT_SUFFIX, Segment};
use super::{Kind, Place, Shared, Source};
use crate::digest::Digest;
use crate::durable::sync_folder;
use crate::store::BLOB_DOMAIN;

/// A segment holds about this many bytes of values, so that one is written from memory.
const SEGMENT_BYTES: usize = 256 << 20;

/// Segments of less than this many bytes are merged when there are [`SMALL_SEGMENTS`] of them.
const SMALL_SEGMENT_BYTES: u64 = 32 << 20;
pub(super) const SMALL_SEGMENTS: usize = 8;

impl Shared {
    pub(super) fn seal(&self) -> Result<()> {
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
    pub(super) fn close_journal(&self) -> Result<()> {
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
    pub(super) fn records_of(&self, picked: &[(usize, Arc<Source>)]) -> Vec<(Digest, Place)> {
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
    pub(super) fn seal_some(&self, stem: &str, moving: &[(Digest, Place)]) -> Result<Vec<(Digest, Place)>> {
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

pub(super) fn stem_of(name: &str) -> &str {
    name.split_once('-').map_or(name, |(stem, _)| stem)
}
