//! Reading what other processes wrote: their journals, and the segments that hold them later.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};

use super::journal::{self, JOURNAL_SUFFIX};
use super::segment::{SEGMENT_SUFFIX, Segment};
use super::{Kind, Place, Shared, Source};
use crate::digest::Digest;
use crate::store::{hash_file, lock};

/// How often the folder is listed before a memo that keeps changing is an error.
const REFRESH_ATTEMPTS: usize = 20;

impl Shared {
    pub(super) fn refresh(&self) -> Result<()> {
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
    pub(super) fn read_on(&self, number: usize, source: &Source) -> Result<()> {
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
        index.places.reserve(rows.len());
        for (row, key) in rows {
            index.places.entry(key).or_insert(Place { source, at: row, bytes: 0 });
        }
        index.damaged += lost;
        Ok(())
    }
}

/// The digest of the file's bytes that a segment's name holds.
fn segment_digest(name: &str) -> Option<Digest> {
    name.split_once('-')?.1.split_once('.')?.0.parse().ok()
}
