//! The journal: records appended one after another, each of which stands or falls alone.
//!
//! ```text
//! file    magic (16 bytes), then records
//! record  mark (4), payload length (u32), key (32), header check (8), payload, payload check (16)
//! ```
//!
//! Numbers are little endian. Both checks are BLAKE3 keyed for the operator, so no payload can pass for a
//! record. The header check covers the record's offset, length and key: after damage, reading goes on at the
//! next header that checks. The payload check covers key and payload. A record at the end that is not all
//! there is one being written, or a tail torn by a crash: it is not read.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};

use crate::digest::{Digest, Secret};
use crate::durable::{storage_error, sync_folder};
use crate::store::Store;

const MAGIC: &[u8; 16] = b"argent journal 1";
const MARK: [u8; 4] = [0xa7, 0xc3, 0x5e, 0x19];
const KEY_AT: usize = 8;
const HEADER_CHECK_AT: usize = 40;
const HEADER_BYTES: usize = 48;
const HEADER_CHECK_BYTES: usize = 8;

/// The length of a payload check.
pub(super) const CHECK_BYTES: usize = 16;

/// What one operator's records are checked by.
pub(super) struct Checker {
    header: blake3::Hasher,
    payload: blake3::Hasher,
}

impl Checker {
    pub(super) fn new(secret: &Secret, op: &Digest) -> Checker {
        let keyed = |domain| {
            let mut hasher = secret.hasher(domain);
            hasher.update(&op.0);
            hasher
        };
        Checker {
            header: keyed("argent memo record header v1"),
            payload: keyed("argent memo record payload v1"),
        }
    }

    /// What shows that this payload belongs to this key.
    pub(super) fn check(&self, key: &Digest, payload: &[u8]) -> [u8; CHECK_BYTES] {
        truncated(self.payload.clone().update(&key.0).update(payload))
    }

    fn header_check(&self, offset: u64, header: &[u8]) -> [u8; HEADER_CHECK_BYTES] {
        truncated(self.header.clone().update(&offset.to_le_bytes()).update(&header[..HEADER_CHECK_AT]))
    }

    fn write_record(&self, offset: u64, key: &Digest, payload: &[u8]) -> Result<Vec<u8>> {
        let Ok(length) = u32::try_from(payload.len()) else {
            bail!("an answer of {} bytes to remember, expected less than 4 GiB", payload.len());
        };
        let mut record = Vec::with_capacity(record_bytes(payload.len()));
        record.extend_from_slice(&MARK);
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(&key.0);
        record.extend_from_slice(&self.header_check(offset, &record));
        record.extend_from_slice(payload);
        record.extend_from_slice(&self.check(key, payload));
        Ok(record)
    }

    /// Key and payload length of the record whose header begins `bytes`, if one does.
    fn read_header(&self, offset: u64, bytes: &[u8]) -> Option<(Digest, usize)> {
        let header = bytes.first_chunk::<HEADER_BYTES>()?;
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        // The mark is looked at first because almost every candidate fails it.
        if !header.starts_with(&MARK) || header[HEADER_CHECK_AT..] != self.header_check(offset, header) {
            return None;
        }
        let mut key = [0; 32];
        key.copy_from_slice(&header[KEY_AT..HEADER_CHECK_AT]);
        Some((Digest(key), length as usize))
    }
}

/// A journal that this process writes. As long as it is open it is locked, which tells others so.
pub(super) struct Journal {
    /// The file's name in the memo's folder.
    pub(super) name: String,
    pub(super) file: Arc<File>,
    /// Where the next record begins.
    pub(super) length_bytes: u64,
}

impl Journal {
    /// Makes an empty journal in `folder`; `stem` is the part of its name that says when.
    pub(super) fn create(store: &Store, folder: &Path, stem: &str) -> Result<Journal> {
        let name = format!("{stem}-{:08x}.{JOURNAL_SUFFIX}", rand::random::<u32>());
        let temporary = store.temporary_file()?;
        let publish = || -> io::Result<()> {
            // Locked before it has its name: nobody may take it for a dead process's.
            temporary.as_file().lock()?;
            temporary.as_file().write_all_at(MAGIC, 0)?;
            temporary.as_file().sync_data()?;
            fs::hard_link(temporary.path(), folder.join(&name))?;
            sync_folder(folder)
        };
        publish().map_err(|error| storage_error(store.root(), "make a memo journal", error))?;
        let (file, _removes_the_temporary_name) = temporary.into_parts();
        Ok(Journal { name, file: Arc::new(file), length_bytes: MAGIC.len() as u64 })
    }

    /// Appends a record and returns where its payload begins. A record that does not fit the disk leaves
    /// the journal as it was.
    pub(super) fn append(&mut self, checker: &Checker, key: &Digest, payload: &[u8]) -> Result<u64> {
        let record = checker.write_record(self.length_bytes, key, payload)?;
        if let Err(error) = self.file.write_all_at(&record, self.length_bytes) {
            // Should this fail too, the next record overwrites what was written of this one.
            let _ = self.file.set_len(self.length_bytes);
            return Err(error.into());
        }
        let payload_at = self.length_bytes + HEADER_BYTES as u64;
        self.length_bytes += record.len() as u64;
        Ok(payload_at)
    }
}

/// The ending of a journal's file name.
pub(super) const JOURNAL_SUFFIX: &str = "journal";

/// A record that was found sound.
pub(super) struct Found {
    pub(super) key: Digest,
    pub(super) payload_at: u64,
    pub(super) payload_bytes: u32,
}

/// What a journal holds from some offset on.
#[derive(Default)]
pub(super) struct Scan {
    pub(super) found: Vec<Found>,
    /// Where to go on when the journal has grown.
    pub(super) next: u64,
    /// Records or stretches between records that were damaged.
    pub(super) damaged: u64,
}

/// Reads the sound records from offset `from` on; 0 is the beginning of the file.
pub(super) fn scan(checker: &Checker, file: &File, from: u64) -> io::Result<Scan> {
    let from = from.max(MAGIC.len() as u64);
    let end = file.metadata()?.len();
    let mut bytes = vec![0; usize::try_from(end.saturating_sub(from)).map_err(io::Error::other)?];
    // Not read_exact: a writer that gives up a record may shorten the file meanwhile.
    let read = read_at_most(file, &mut bytes, from)?;
    bytes.truncate(read);

    let mut scan = Scan::default();
    let mut at = 0;
    while let Some((header_at, (key, length))) = next_header(checker, &bytes, from, at) {
        scan.damaged += u64::from(header_at > at);
        at = header_at;
        let Some(record) = bytes[at..].get(..record_bytes(length)) else { break };
        let (payload, check) = record[HEADER_BYTES..].split_at(length);
        if check == checker.check(&key, payload) {
            let payload_at = from + (at + HEADER_BYTES) as u64;
            scan.found.push(Found { key, payload_at, payload_bytes: length as u32 });
        } else {
            scan.damaged += 1;
        }
        at += record.len();
    }
    scan.next = from + at as u64;
    Ok(scan)
}

/// The payload of a record, if it is still sound.
pub(super) fn read_payload(
    checker: &Checker,
    file: &File,
    key: &Digest,
    payload_at: u64,
    payload_bytes: u32,
) -> io::Result<Option<Vec<u8>>> {
    let mut payload = vec![0; payload_bytes as usize + CHECK_BYTES];
    if read_at_most(file, &mut payload, payload_at)? < payload.len() {
        return Ok(None);
    }
    let check = payload.split_off(payload_bytes as usize);
    Ok((check == checker.check(key, &payload)).then_some(payload))
}

fn record_bytes(payload_bytes: usize) -> usize {
    HEADER_BYTES + payload_bytes + CHECK_BYTES
}

/// The first sound header at or after `at`: where, and what it says.
fn next_header(checker: &Checker, bytes: &[u8], from: u64, at: usize) -> Option<(usize, (Digest, usize))> {
    (at..bytes.len().saturating_sub(HEADER_BYTES - 1)).find_map(|candidate| {
        let header = checker.read_header(from + candidate as u64, &bytes[candidate..])?;
        Some((candidate, header))
    })
}

fn read_at_most(file: &File, bytes: &mut [u8], from: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], from + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

fn truncated<const BYTES: usize>(hasher: &mut blake3::Hasher) -> [u8; BYTES] {
    let mut check = [0; BYTES];
    hasher.finalize_xof().fill(&mut check);
    check
}
