//! The side file that keeps a volume: a header of 192 bytes, then 16-bit Hounsfield units in chunks that are packed without
//! loss, each by itself, so that a part is read without the rest.
//!
//! All numbers are little endian:
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | the magic `ARGENTHU` |
//! | 8..12 | `u32` version, 2 |
//! | 12..16 | `u32` length of the header, 192 |
//! | 16..40 | three `u64`: shape, x first |
//! | 40..136 | twelve `f64`: the first three rows of the affine, voxel index to RAS+ mm |
//! | 136..192 | zero |
//! | 192.. | for each chunk, x fastest: `u32` length of its frame in bytes |
//! | behind | the frames, one after another, to the end of the file |
//!
//! A chunk has 64 x 64 x 32 voxels, or what is left at the end of an axis; `side_file/chunk.rs` says what its frame holds. On a chest
//! CT at 1.5 x 1.5 x 3 mm a file has a third of the voxels' bytes (docs/performance.md has the measurement). A file of version 1
//! has plain `i16` voxels behind the same header, for programs that map it into memory or know nothing of chunks.

mod chunk;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;

use crate::geometry::Geometry;
use crate::volume::Volume;
use chunk::{LEAST_FRAME_BYTES, Packer, unpack};

const MAGIC: [u8; 8] = *b"ARGENTHU";
const PLAIN_VERSION: u32 = 1;
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 192;

/// Voxels of a chunk along each axis. The low bytes of a whole one are a block of Zstandard, and so are the high ones.
const CHUNK: [usize; 3] = [64, 64, 32];

/// How a side file keeps voxels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// In chunks that are packed without loss: version 2.
    Packed,
    /// As plain 16-bit numbers: version 1.
    Plain,
}

/// The bytes of a side file that keeps `volume` in this way. Equal volumes give equal bytes.
///
/// # Errors
/// When there is no memory for the compressor.
///
/// # Panics
/// If the voxels do not fill the shape.
pub fn encode(volume: &Volume, storage: Storage) -> io::Result<Vec<u8>> {
    let Geometry { shape, affine } = &volume.geometry;
    assert_eq!(volume.hounsfield.len(), volume.geometry.voxel_count(), "the voxels must fill the shape");
    let (version, room) = match storage {
        Storage::Packed => (VERSION, volume.hounsfield.len()),
        Storage::Plain => (PLAIN_VERSION, 2 * volume.hounsfield.len()),
    };
    let mut bytes = Vec::with_capacity(HEADER_BYTES + room);
    bytes.extend(MAGIC);
    bytes.extend(version.to_le_bytes());
    bytes.extend((HEADER_BYTES as u32).to_le_bytes());
    bytes.extend(shape.iter().flat_map(|&voxels| (voxels as u64).to_le_bytes()));
    bytes.extend(affine[..3].iter().flatten().flat_map(|value| value.to_le_bytes()));
    bytes.resize(HEADER_BYTES, 0);
    match storage {
        Storage::Packed => pack(volume, &mut bytes)?,
        Storage::Plain if cfg!(target_endian = "little") => {
            bytes.extend_from_slice(bytemuck::cast_slice(&volume.hounsfield));
        }
        Storage::Plain => bytes.extend(volume.hounsfield.iter().flat_map(|value| value.to_le_bytes())),
    }
    Ok(bytes)
}

/// Adds lengths and frames of a volume's chunks to the header.
fn pack(volume: &Volume, bytes: &mut Vec<u8>) -> io::Result<()> {
    let shape = volume.geometry.shape;
    let chunks = Chunks::of(shape);
    bytes.resize(HEADER_BYTES + 4 * chunks.count(), 0);
    let mut packer = Packer::new()?;
    let mut voxels = Vec::new();
    for number in 0..chunks.count() {
        let part = chunks.part(number);
        voxels.clear();
        for row in part.rows() {
            let start = place(row, shape);
            voxels.extend_from_slice(&volume.hounsfield[start..start + part.shape[0]]);
        }
        let frame = packer.pack(&voxels, part.shape)?;
        let length = HEADER_BYTES + 4 * number;
        bytes[length..length + 4].copy_from_slice(&(frame.len() as u32).to_le_bytes());
        bytes.extend_from_slice(frame);
    }
    Ok(())
}

/// The volume that a side file keeps.
///
/// # Errors
/// [`SideFileError`], if the bytes are not a side file or are damaged.
pub fn decode(bytes: &[u8]) -> Result<Volume, SideFileError> {
    Reader::new(bytes)?.volume()
}

/// A side file whose voxels are read whole or in part: its bytes in memory, or a memory map, of which only the chunks that are
/// asked for are touched.
#[derive(Debug)]
pub struct Reader<B> {
    bytes: B,
    geometry: Geometry,
    voxels: Voxels,
}

/// How the voxels are kept.
#[derive(Debug)]
enum Voxels {
    /// As they are, behind the header.
    Plain,
    /// In frames: where each begins, and where the last ends.
    Packed(Vec<usize>),
}

impl<B: AsRef<[u8]>> Reader<B> {
    /// Reads the header of a side file, of which `bytes` is the whole, and where its chunks lie.
    ///
    /// # Errors
    /// [`SideFileError`], if the bytes are not a side file or not as long as its header asks for.
    pub fn new(bytes: B) -> Result<Reader<B>, SideFileError> {
        let (version, geometry) = header(bytes.as_ref())?;
        let voxels = match version {
            PLAIN_VERSION => {
                expect_length(bytes.as_ref(), HEADER_BYTES as u128 + 2 * voxel_count(&geometry))?;
                Voxels::Plain
            }
            _ => Voxels::Packed(frames(bytes.as_ref(), &geometry)?),
        };
        Ok(Reader { bytes, geometry, voxels })
    }

    /// Shape and affine of the volume.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The whole volume.
    ///
    /// # Errors
    /// [`SideFileError::Chunk`], if one is damaged.
    pub fn volume(&self) -> Result<Volume, SideFileError> {
        let mut hounsfield = Vec::new();
        self.crop([0; 3], self.geometry.shape, &mut hounsfield)?;
        Ok(Volume { geometry: self.geometry, hounsfield })
    }

    /// Puts the `shape[0] * shape[1] * shape[2]` voxels from the index `start` on into `hounsfield`, x fastest, in place of what
    /// it holds.
    ///
    /// # Errors
    /// [`SideFileError::Crop`], if they do not lie in the volume; [`SideFileError::Chunk`], if one that they lie in is damaged.
    pub fn crop(
        &self,
        start: [usize; 3],
        shape: [usize; 3],
        hounsfield: &mut Vec<i16>,
    ) -> Result<(), SideFileError> {
        let whole = self.geometry.shape;
        if (0..3).any(|axis| start[axis].checked_add(shape[axis]).is_none_or(|end| end > whole[axis])) {
            return Err(SideFileError::Crop { start, shape, whole });
        }
        let wanted = Part { start, shape };
        // What is there already need not be cleared: every voxel is written.
        hounsfield.resize(shape.iter().product(), 0);
        if hounsfield.is_empty() {
            return Ok(());
        }
        match &self.voxels {
            Voxels::Plain => self.copy_plain(wanted, hounsfield),
            Voxels::Packed(frames) => self.unpack(wanted, frames, hounsfield)?,
        }
        Ok(())
    }

    fn copy_plain(&self, wanted: Part, hounsfield: &mut [i16]) {
        let (stored, _) = self.bytes.as_ref()[HEADER_BYTES..].as_chunks::<2>();
        for (row, out) in wanted.rows().zip(hounsfield.chunks_exact_mut(wanted.shape[0])) {
            let start = place(row, self.geometry.shape);
            for (voxel, &bytes) in out.iter_mut().zip(&stored[start..]) {
                *voxel = i16::from_le_bytes(bytes);
            }
        }
    }

    fn unpack(&self, wanted: Part, frames: &[usize], hounsfield: &mut [i16]) -> Result<(), SideFileError> {
        let chunks = Chunks::of(self.geometry.shape);
        for number in chunks.touched_by(wanted) {
            let part = chunks.part(number);
            let frame = &self.bytes.as_ref()[frames[number]..frames[number + 1]];
            let both = part.common(wanted);
            unpack(frame, part.shape, |voxels| {
                for row in both.rows() {
                    let from = place(less(row, part.start), part.shape);
                    let to = place(less(row, wanted.start), wanted.shape);
                    hounsfield[to..to + both.shape[0]].copy_from_slice(&voxels[from..from + both.shape[0]]);
                }
            })
            .map_err(|error| SideFileError::Chunk {
                number,
                count: chunks.count(),
                what: error.to_string(),
            })?;
        }
        Ok(())
    }
}

/// The version and geometry of a side file.
fn header(bytes: &[u8]) -> Result<(u32, Geometry), SideFileError> {
    if !bytes.starts_with(&MAGIC) {
        return Err(SideFileError::Magic);
    }
    let header = bytes
        .get(..HEADER_BYTES)
        .ok_or(SideFileError::Length { expected: HEADER_BYTES as u128, actual: bytes.len() })?;
    let version = u32::from_le_bytes(array(header, 8));
    let header_bytes = u32::from_le_bytes(array(header, 12));
    if ![PLAIN_VERSION, VERSION].contains(&version) || header_bytes as usize != HEADER_BYTES {
        return Err(SideFileError::Version { version, header_bytes });
    }
    let lengths: [u64; 3] = std::array::from_fn(|axis| u64::from_le_bytes(array(header, 16 + 8 * axis)));
    // A length of zero makes no voxels, and must not hide that the others cannot be counted.
    let spanned = lengths.iter().try_fold(2_usize, |product, &voxels| {
        product.checked_mul(usize::try_from(voxels).ok()?.max(1))?.checked_add(HEADER_BYTES)
    });
    if spanned.is_none() {
        return Err(SideFileError::Length { expected: u128::MAX, actual: bytes.len() });
    }
    let mut affine = [[0.0, 0.0, 0.0, 1.0]; 4];
    for (place, value) in affine[..3].iter_mut().flatten().enumerate() {
        *value = f64::from_le_bytes(array(header, 40 + 8 * place));
    }
    Ok((version, Geometry { shape: lengths.map(|voxels| voxels as usize), affine }))
}

fn array<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    header[at..at + N].try_into().expect("a slice of N bytes makes an array of N")
}

fn voxel_count(geometry: &Geometry) -> u128 {
    geometry.shape.iter().map(|&voxels| voxels as u128).product()
}

fn expect_length(bytes: &[u8], expected: u128) -> Result<(), SideFileError> {
    let actual = bytes.len();
    if actual as u128 == expected { Ok(()) } else { Err(SideFileError::Length { expected, actual }) }
}

/// Where the frames of a side file begin, and where the last ends.
fn frames(bytes: &[u8], geometry: &Geometry) -> Result<Vec<usize>, SideFileError> {
    let count = Chunks::of(geometry.shape).counts.iter().map(|&chunks| chunks as u128).product::<u128>();
    // Before anything is made room for: every chunk has a length and a frame.
    let least = HEADER_BYTES as u128 + count * (4 + LEAST_FRAME_BYTES as u128);
    if (bytes.len() as u128) < least {
        return Err(SideFileError::Length { expected: least, actual: bytes.len() });
    }
    let (lengths, _) = bytes[HEADER_BYTES..HEADER_BYTES + 4 * count as usize].as_chunks::<4>();
    let mut frames = Vec::with_capacity(lengths.len() + 1);
    let mut end = (HEADER_BYTES + 4 * lengths.len()) as u128;
    frames.push(end as usize);
    for (number, &length) in lengths.iter().enumerate() {
        let length = u32::from_le_bytes(length) as usize;
        if length < LEAST_FRAME_BYTES {
            let what = format!("its frame has {length} bytes; expected at least {LEAST_FRAME_BYTES}");
            return Err(SideFileError::Chunk { number, count: lengths.len(), what });
        }
        end += length as u128;
        frames.push(end as usize);
    }
    expect_length(bytes, end)?;
    Ok(frames)
}

/// How a volume is divided.
#[derive(Debug, Clone, Copy)]
struct Chunks {
    whole: [usize; 3],
    /// Chunks along each axis.
    counts: [usize; 3],
}

impl Chunks {
    fn of(whole: [usize; 3]) -> Chunks {
        Chunks { whole, counts: std::array::from_fn(|axis| whole[axis].div_ceil(CHUNK[axis])) }
    }

    fn count(&self) -> usize {
        self.counts.iter().product()
    }

    /// The voxels of a chunk.
    fn part(&self, number: usize) -> Part {
        let [across, down, _] = self.counts;
        let chunk = [number % across, number / across % down, number / across / down];
        let start: [usize; 3] = std::array::from_fn(|axis| chunk[axis] * CHUNK[axis]);
        Part { start, shape: std::array::from_fn(|axis| CHUNK[axis].min(self.whole[axis] - start[axis])) }
    }

    /// The chunks in which the voxels of a part lie that has some, in the order of the file.
    fn touched_by(self, part: Part) -> impl Iterator<Item = usize> {
        let [x, y, z] = std::array::from_fn(|axis| {
            part.start[axis] / CHUNK[axis]..(part.start[axis] + part.shape[axis]).div_ceil(CHUNK[axis])
        });
        let [across, down, _] = self.counts;
        z.flat_map(move |k| {
            let x = x.clone();
            y.clone().flat_map(move |j| x.clone().map(move |i| i + across * (j + down * k)))
        })
    }
}

/// A box of voxels.
#[derive(Debug, Clone, Copy)]
struct Part {
    start: [usize; 3],
    shape: [usize; 3],
}

impl Part {
    /// The index of the first voxel of each row along x.
    fn rows(self) -> impl Iterator<Item = [usize; 3]> {
        let [x, y, z] = self.start;
        (z..z + self.shape[2]).flat_map(move |k| (y..y + self.shape[1]).map(move |j| [x, j, k]))
    }

    /// The voxels that are in both of two boxes that have some in common.
    fn common(self, other: Part) -> Part {
        let start = std::array::from_fn(|axis| self.start[axis].max(other.start[axis]));
        let end =
            |axis: usize| (self.start[axis] + self.shape[axis]).min(other.start[axis] + other.shape[axis]);
        Part { start, shape: std::array::from_fn(|axis| end(axis) - start[axis]) }
    }
}

/// The place in memory of a voxel by its index.
fn place([i, j, k]: [usize; 3], shape: [usize; 3]) -> usize {
    i + shape[0] * (j + shape[1] * k)
}

fn less(index: [usize; 3], start: [usize; 3]) -> [usize; 3] {
    std::array::from_fn(|axis| index[axis] - start[axis])
}

/// Bytes that are no side file of a volume, or voxels that are not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SideFileError {
    /// The magic bytes are missing.
    Magic,
    /// Another version of the format.
    Version {
        /// The version that the file names.
        version: u32,
        /// The length of the header that it names, in bytes.
        header_bytes: u32,
    },
    /// The file is longer or shorter than its header asks for.
    Length {
        /// Bytes that the header asks for, at least.
        expected: u128,
        /// Bytes that are there.
        actual: usize,
    },
    /// A chunk is damaged.
    Chunk {
        /// Which, counted from 0.
        number: usize,
        /// How many there are.
        count: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A part was asked for that does not lie in the volume.
    Crop {
        /// The index of its first voxel.
        start: [usize; 3],
        /// Its voxels along each axis.
        shape: [usize; 3],
        /// The volume's.
        whole: [usize; 3],
    },
}

impl fmt::Display for SideFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SideFileError::Magic => {
                write!(f, "not a volume side file; expected it to begin with `{}`", MAGIC.escape_ascii())
            }
            SideFileError::Version { version, header_bytes } => write!(
                f,
                "a volume side file of version {version} with a header of {header_bytes} bytes; expected version {PLAIN_VERSION} \
                 or {VERSION} and {HEADER_BYTES}: make the volume again with this version of argent"
            ),
            SideFileError::Length { expected, actual } => write!(
                f,
                "a volume side file of {actual} bytes; its header asks for {expected}: it was cut short or overwritten, \
                 make the volume again"
            ),
            SideFileError::Chunk { number, count, what } => write!(
                f,
                "chunk {} of {count} of a volume side file is damaged ({what}): make the volume again",
                number + 1
            ),
            SideFileError::Crop { start, shape, whole } => write!(
                f,
                "{} voxels from {} on were asked for in a volume of {}; expected a part of it",
                by(*shape, " x "),
                by(*start, ", "),
                by(*whole, " x ")
            ),
        }
    }
}

fn by(numbers: [usize; 3], between: &str) -> String {
    numbers.map(|number| number.to_string()).join(between)
}

impl std::error::Error for SideFileError {}
