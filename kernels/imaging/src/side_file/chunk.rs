//! The codec of one chunk of voxels.
//!
//! 1. Each voxel is predicted from its neighbours, `left + above - above left` in its slice (the second-order Lorenzo
//!    predictor, as in PNG's Paeth without its choice): what is left of a smooth tissue is its noise.
//! 2. The difference, modulo 2^16, is folded so that small ones of either sign are small: 0, -1, 1, -2, ... become 0, 1, 2, 3.
//! 3. The low bytes stand before the high bytes, which are nearly all zero.
//! 4. Both are one frame of Zstandard (RFC 8878) with its content's size and checksum.

use std::cell::RefCell;
use std::io;

use zstd::bulk::{Compressor, Decompressor};

use super::CHUNK;

/// The fewest bytes of a frame: magic, descriptor, content size of two bytes, one block of a repeated byte, checksum. A frame
/// of a smaller content has a shorter size field.
pub(super) const LEAST_FRAME_BYTES: usize = 14;

/// Zstandard's fastest level that packs literals. Level 3 saves one byte in a hundred more and takes twice as long to write.
const LEVEL: i32 = 1;

/// Voxels of a whole chunk.
const CHUNK_VOXELS: usize = CHUNK[0] * CHUNK[1] * CHUNK[2];

/// Packs chunks one after another with the same memory.
pub(super) struct Packer {
    compressor: Compressor<'static>,
    planes: Vec<u8>,
    frame: Vec<u8>,
}

impl Packer {
    pub(super) fn new() -> io::Result<Packer> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        Ok(Packer { compressor, planes: Vec::new(), frame: Vec::new() })
    }

    /// The frame of the voxels of a chunk, x fastest.
    pub(super) fn pack(&mut self, voxels: &[i16], shape: [usize; 3]) -> io::Result<&[u8]> {
        self.planes.resize(2 * voxels.len(), 0);
        let (low, high) = self.planes.split_at_mut(voxels.len());
        let mut differences = [0; CHUNK[0] + 1];
        for row in 0..shape[1] * shape[2] {
            let start = row * shape[0];
            let here = &voxels[start..start + shape[0]];
            match place_above(row, shape) {
                Some(above) => {
                    let above = &voxels[above..above + shape[0]];
                    for ((difference, voxel), above) in differences[1..].iter_mut().zip(here).zip(above) {
                        *difference = voxel.wrapping_sub(*above);
                    }
                }
                None => differences[1..=shape[0]].copy_from_slice(here),
            }
            let bytes = low[start..].iter_mut().zip(&mut high[start..]);
            for (pair, (low, high)) in differences[..=shape[0]].windows(2).zip(bytes) {
                [*low, *high] = fold(pair[1].wrapping_sub(pair[0])).to_le_bytes();
            }
        }
        self.frame.clear();
        self.frame.reserve(zstd::zstd_safe::compress_bound(self.planes.len()));
        self.compressor.compress_to_buffer(&self.planes, &mut self.frame)?;
        Ok(&self.frame)
    }
}

/// Unpacks the frame of a chunk of this shape and shows its voxels, x fastest. Each thread keeps its memory.
///
/// # Errors
/// When the frame is damaged or holds another number of voxels.
pub(super) fn unpack<T>(frame: &[u8], shape: [usize; 3], show: impl FnOnce(&[i16]) -> T) -> io::Result<T> {
    UNPACKER.with_borrow_mut(|unpacker| {
        let unpacker = match unpacker {
            Some(unpacker) => unpacker,
            none => none.insert(Unpacker {
                decompressor: Decompressor::new()?,
                planes: vec![0; 2 * CHUNK_VOXELS],
                voxels: vec![0; CHUNK_VOXELS],
            }),
        };
        unpacker.unpack(frame, shape)?;
        Ok(show(&unpacker.voxels[..shape.iter().product()]))
    })
}

struct Unpacker {
    decompressor: Decompressor<'static>,
    planes: Vec<u8>,
    voxels: Vec<i16>,
}

thread_local! {
    static UNPACKER: RefCell<Option<Unpacker>> = const { RefCell::new(None) };
}

impl Unpacker {
    fn unpack(&mut self, frame: &[u8], shape: [usize; 3]) -> io::Result<()> {
        let count: usize = shape.iter().product();
        let planes = &mut self.planes[..2 * count];
        let bytes = self.decompressor.decompress_to_buffer(frame, planes)?;
        if bytes != planes.len() {
            let message = format!("it holds {bytes} bytes; expected {}", planes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let (low, high) = planes.split_at(count);
        let voxels = &mut self.voxels[..count];
        for ((voxel, &low), &high) in voxels.iter_mut().zip(low).zip(high) {
            *voxel = unfold(u16::from_le_bytes([low, high]));
        }
        for row in 0..shape[1] * shape[2] {
            let start = row * shape[0];
            let (before, here) = voxels.split_at_mut(start);
            let here = &mut here[..shape[0]];
            // Sums along a row wait for each other, so they are a loop of their own beside the ones that need not.
            let mut sum = 0_i16;
            for voxel in here.iter_mut() {
                sum = sum.wrapping_add(*voxel);
                *voxel = sum;
            }
            if let Some(above) = place_above(row, shape) {
                for (voxel, above) in here.iter_mut().zip(&before[above..above + shape[0]]) {
                    *voxel = voxel.wrapping_add(*above);
                }
            }
        }
        Ok(())
    }
}

/// Where the row begins that predicts a row: the one before it in the slice, and of a slice's first row that of the slice before.
fn place_above(row: usize, [columns, rows, _]: [usize; 3]) -> Option<usize> {
    let rows_back = if row.is_multiple_of(rows) { rows } else { 1 };
    row.checked_sub(rows_back).map(|above| above * columns)
}

fn fold(difference: i16) -> u16 {
    ((difference << 1) ^ (difference >> 15)) as u16
}

fn unfold(folded: u16) -> i16 {
    (folded >> 1) as i16 ^ -((folded & 1) as i16)
}
