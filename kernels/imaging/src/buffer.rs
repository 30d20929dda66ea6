//! A buffer that is filled as bytes and can end as 16-bit voxels without another of its size.
//!
//! Nearly every CT is int16. At 512 x 512 x 300 a second buffer costs 157 MB and, in page faults and copying,
//! a third of the time of inflating.

/// Bytes in memory aligned for 16-bit numbers.
#[derive(Debug, Clone)]
pub(crate) struct Buffer {
    words: Vec<i16>,
    /// How many bytes count; the last word may be half used.
    bytes: usize,
}

impl Buffer {
    /// `bytes` zeros.
    pub(crate) fn zeroed(bytes: usize) -> Buffer {
        Buffer { words: vec![0; bytes.div_ceil(2)], bytes }
    }

    /// A copy of these bytes.
    pub(crate) fn copy_of(bytes: &[u8]) -> Buffer {
        let mut buffer = Buffer::zeroed(bytes.len());
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
    pub(crate) fn into_words(self) -> Vec<i16> {
        self.words
    }
}
