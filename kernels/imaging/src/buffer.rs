//! A buffer that is filled as bytes and can end as 16-bit voxels without another of its size.
//!
//! Nearly every CT is int16. At 512 x 512 x 300 a second buffer costs 157 MB and, in page faults and copying,
//! a third of the time of inflating.

use std::cell::Cell;

/// Bytes in memory aligned for 16-bit numbers.
#[derive(Debug, Clone)]
pub(crate) struct Buffer {
    words: Vec<i16>,
    /// How many bytes count; the last word may be half used.
    bytes: usize,
}

impl Buffer {
    /// So many bytes, of which nothing is known: the caller writes all of them.
    pub(crate) fn of_length(bytes: usize) -> Buffer {
        let count = bytes.div_ceil(2);
        let mut words = if count < LARGE_WORDS { Vec::new() } else { SPARE.take() };
        if words.capacity() < count {
            words = vec![0; count];
        } else {
            words.resize(count, 0);
        }
        Buffer { words, bytes }
    }

    /// A copy of these bytes.
    pub(crate) fn copy_of(bytes: &[u8]) -> Buffer {
        let mut buffer = Buffer::of_length(bytes.len());
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Forgets all but the first `bytes`.
    pub(crate) fn truncate(&mut self, bytes: usize) {
        self.bytes = self.bytes.min(bytes);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.bytes]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.bytes]
    }

    /// The bytes as the 16-bit numbers that they are on this machine.
    pub(crate) fn words(&self) -> &[i16] {
        &self.words
    }

    /// The buffer as the 16-bit numbers that its bytes are on this machine.
    pub(crate) fn into_words(mut self) -> Vec<i16> {
        std::mem::take(&mut self.words)
    }
}

/// A buffer of this size is kept for the next one: to the operating system's clearing of its pages goes a third of the time
/// of inflating, and far more where several threads ask for such buffers at once.
const LARGE_WORDS: usize = 1 << 20;

thread_local! {
    /// The memory of the last large buffer that was dropped on this thread.
    static SPARE: Cell<Vec<i16>> = const { Cell::new(Vec::new()) };
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.words.len() >= LARGE_WORDS {
            SPARE.set(std::mem::take(&mut self.words));
        }
    }
}

/// Gives up the memory that the threads of the pool keep for their next volumes.
pub fn release_spare_memory() {
    rayon::broadcast(|_| drop(SPARE.take()));
}
