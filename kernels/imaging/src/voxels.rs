//! Voxels as a file stores them, and their values.

use crate::buffer::Buffer;
use crate::rounding::round_half_even_f64;

/// The stored voxels of a volume, x fastest: the bytes of the file and their type.
///
/// They become values through [`StoredVolume`](crate::StoredVolume), which knows the scaling.
#[derive(Debug, Clone)]
pub struct Voxels {
    buffer: Buffer,
    /// Where the first voxel begins in `buffer`.
    offset: usize,
    count: usize,
    dtype: Dtype,
    endian: Endian,
}

impl Voxels {
    /// Voxels that begin at `offset` of `buffer`; the caller has checked that `count` of them fit.
    pub(crate) fn new(buffer: Buffer, offset: usize, count: usize, dtype: Dtype, endian: Endian) -> Voxels {
        Voxels { buffer, offset, count, dtype, endian }
    }

    /// Number of voxels.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no voxels; never so for a file that was read.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Values after `scaling`, computed in f64 and rounded once.
    pub(crate) fn to_f32(&self, scaling: Option<(f64, f64)>) -> Vec<f32> {
        let mut values = Vec::with_capacity(self.count);
        self.for_each(scaling, |value| values.push(value as f32));
        values
    }

    /// Values after `scaling`, rounded half to even and clipped to `clip`, and how many lay more than half a
    /// unit outside.
    pub(crate) fn into_i16(self, scaling: Option<(f64, f64)>, clip: (i16, i16)) -> (Vec<i16>, u64) {
        if self.dtype == Dtype::I16
            && self.endian == Endian::Little
            && scaling.is_none()
            && self.offset.is_multiple_of(2)
        {
            let mut words = self.buffer.into_words();
            let saturated = clip_in_place(&mut words, self.offset / 2, self.count, clip);
            return (words, saturated);
        }
        self.to_i16(scaling, clip)
    }

    /// The stored values, where they are 16-bit HU as they lie in memory, and nothing has been clipped.
    pub(crate) fn as_i16(&self, scaling: Option<(f64, f64)>) -> Option<&[i16]> {
        let as_they_lie = self.dtype == Dtype::I16
            && self.endian == Endian::Little
            && cfg!(target_endian = "little")
            && scaling.is_none()
            && self.offset.is_multiple_of(2);
        as_they_lie.then(|| &self.buffer.words()[self.offset / 2..self.offset / 2 + self.count])
    }

    /// As [`Voxels::into_i16`], which is faster for most files.
    pub(crate) fn to_i16(&self, scaling: Option<(f64, f64)>, (low, high): (i16, i16)) -> (Vec<i16>, u64) {
        let (least, most) = (f64::from(low), f64::from(high));
        let mut saturated = 0;
        let mut values = Vec::with_capacity(self.count);
        self.for_each(scaling, |value| {
            saturated += u64::from(value < least - 0.5 || value > most + 0.5);
            values.push(round_half_even_f64(value.clamp(least, most)) as i16);
        });
        (values, saturated)
    }

    /// How many values are NaN or infinite as f32, and the place of the first.
    pub(crate) fn non_finite(&self, scaling: Option<(f64, f64)>) -> Option<(usize, usize)> {
        let (slope, intercept) = scaling.unwrap_or((1.0, 0.0));
        if self.dtype.largest_magnitude() * slope.abs() + intercept.abs() <= f64::from(f32::MAX) {
            return None;
        }
        let (mut place, mut count, mut first) = (0, 0, 0);
        self.for_each(scaling, |value| {
            if !(value as f32).is_finite() {
                first = if count == 0 { place } else { first };
                count += 1;
            }
            place += 1;
        });
        (count > 0).then_some((count, first))
    }

    /// Visits every value in file order after slope and intercept.
    fn for_each(&self, scaling: Option<(f64, f64)>, mut visit: impl FnMut(f64)) {
        match scaling {
            Some((slope, intercept)) => self.for_each_stored(|stored| visit(stored * slope + intercept)),
            None => self.for_each_stored(visit),
        }
    }

    /// Visits every stored number, widened to f64 (64-bit integers beyond 2^53 are rounded).
    fn for_each_stored(&self, mut visit: impl FnMut(f64)) {
        let raw = &self.buffer.bytes()[self.offset..self.offset + self.count * self.dtype.bytes()];
        macro_rules! decode {
            ($number:ty) => {{
                let (voxels, _) = raw.as_chunks::<{ size_of::<$number>() }>();
                match self.endian {
                    Endian::Little => voxels.iter().for_each(|&v| visit(<$number>::from_le_bytes(v) as f64)),
                    Endian::Big => voxels.iter().for_each(|&v| visit(<$number>::from_be_bytes(v) as f64)),
                }
            }};
        }
        match self.dtype {
            Dtype::U8 => decode!(u8),
            Dtype::I8 => decode!(i8),
            Dtype::U16 => decode!(u16),
            Dtype::I16 => decode!(i16),
            Dtype::U32 => decode!(u32),
            Dtype::I32 => decode!(i32),
            Dtype::U64 => decode!(u64),
            Dtype::I64 => decode!(i64),
            Dtype::F32 => decode!(f32),
            Dtype::F64 => decode!(f64),
        }
    }
}

/// Moves `count` little-endian voxels from `offset` to the front and clips them there: how nearly every CT is
/// stored, without the detour through f64.
fn clip_in_place(words: &mut Vec<i16>, offset: usize, count: usize, (low, high): (i16, i16)) -> u64 {
    // A block stays in the nearest cache through three loops, each of which is vectorised; one loop for all
    // is not. A count per block fits the 16 bits of a voxel's lane.
    const BLOCK_VOXELS: usize = 1 << 13;
    let mut saturated = 0;
    for start in (0..count).step_by(BLOCK_VOXELS) {
        let end = (start + BLOCK_VOXELS).min(count);
        words.copy_within(offset + start..offset + end, start);
        let block = &mut words[start..end];
        block.iter_mut().for_each(|voxel| *voxel = i16::from_le(*voxel));
        saturated +=
            u64::from(block.iter().map(|&value| u16::from((value < low) | (value > high))).sum::<u16>());
        block.iter_mut().for_each(|value| *value = (*value).clamp(low, high));
    }
    words.truncate(count);
    saturated
}

/// Byte order of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endian {
    Little,
    Big,
}

/// The real number types of NIfTI and numpy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dtype {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl Dtype {
    /// The name numpy gives it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Dtype::U8 => "uint8",
            Dtype::I8 => "int8",
            Dtype::U16 => "uint16",
            Dtype::I16 => "int16",
            Dtype::U32 => "uint32",
            Dtype::I32 => "int32",
            Dtype::U64 => "uint64",
            Dtype::I64 => "int64",
            Dtype::F32 => "float32",
            Dtype::F64 => "float64",
        }
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Dtype::U8 | Dtype::I8 => 1,
            Dtype::U16 | Dtype::I16 => 2,
            Dtype::U32 | Dtype::I32 | Dtype::F32 => 4,
            Dtype::U64 | Dtype::I64 | Dtype::F64 => 8,
        }
    }

    /// A bound on the magnitude of its numbers, infinite for floats.
    fn largest_magnitude(self) -> f64 {
        match self {
            Dtype::F32 | Dtype::F64 => f64::INFINITY,
            integer => 256_f64.powi(integer.bytes() as i32),
        }
    }
}
