//! The canonical encoding of values, which digests are made of and memo payloads are written in.
//!
//! # Specification
//!
//! A value is one tag byte, the length of its body in bytes (unsigned LEB128, shortest form), and its body:
//!
//! | tag | value | body |
//! |---|---|---|
//! | 0 | null | empty |
//! | 1 | boolean | one byte, 0 or 1 |
//! | 2 | integer | two's complement, little endian, as few bytes as hold it; 0 is empty |
//! | 3 | floating point | IEEE 754 binary64, little endian; -0 is written as +0, every NaN as `7ff8000000000000` |
//! | 4 | text | UTF-8, as it is: no Unicode normalisation |
//! | 5 | bytes | as they are |
//! | 6 | time | kind and unit (one byte), the count of units (i64, little endian), the time zone's name |
//! | 7 | list | the items, encoded one after another |
//! | 8 | packed list | element type (one byte), then the elements at their own width, little endian |
//! | 9 | map | name and value of each entry, encoded one after another, in byte order of the names |
//!
//! Kind and unit of a time: 0–3 timestamp in s, ms, µs, ns; 4–7 time of day in s, ms, µs, ns; 8–11 duration
//! in s, ms, µs, ns; 12 date in days; 13 date in ms. Timestamps count from 1970-01-01 UTC; only they have a
//! time zone, and its name is empty where there is none.
//!
//! From Arrow: integers of every width are integers, binary16 is not known, binary32 is widened (which is
//! exact), a dictionary or view is the value it stands for, a struct is a map of its fields (fields of one
//! name stay in order). A list whose elements are integers or floating-point numbers, none of them null, is
//! packed; its element types are 0–3 for i8 to i64, 4–7 for u8 to u64, 8 for binary32 and 9 for binary64,
//! with -0 and NaN as above (binary32's NaN is `7fc00000`). Every other list is a list.
//!
//! From JSON: an object is a map, an array is a list. A number is an integer if it is one (`1.0` is `1`) and
//! at least -2^63 and less than 2^64, else floating point: JSON does not tell 1 from 1.0, columns do.
//!
//! A row is its cells, one after another. A payload of rows is the number of rows, the number of columns
//! (both LEB128) and the rows.
//!
//! Total: every value above has exactly one encoding. Injective: since each encoding says where it ends,
//! different sequences of values have different encodings, but for what is declared equal here (±0, NaNs,
//! widths of single integers and floating-point numbers).

mod decode;
mod encode;

pub use decode::decode_rows;
pub use encode::{RowEncoder, encode_cell, encode_json, encode_rows};

pub(crate) use encode::{Encoder, encode_json_object};

const NULL: u8 = 0;
const BOOLEAN: u8 = 1;
const INTEGER: u8 = 2;
const FLOAT: u8 = 3;
const TEXT: u8 = 4;
const BYTES: u8 = 5;
const TIME: u8 = 6;
const LIST: u8 = 7;
const PACKED: u8 = 8;
const MAP: u8 = 9;

/// The kind and unit byte of a time.
mod time {
    use arrow::datatypes::TimeUnit;

    pub(super) const TIMESTAMP: u8 = 0;
    pub(super) const OF_DAY: u8 = 4;
    pub(super) const DURATION: u8 = 8;
    pub(super) const DATE_DAYS: u8 = 12;
    pub(super) const DATE_MS: u8 = 13;

    pub(super) fn unit(unit: TimeUnit) -> u8 {
        match unit {
            TimeUnit::Second => 0,
            TimeUnit::Millisecond => 1,
            TimeUnit::Microsecond => 2,
            TimeUnit::Nanosecond => 3,
        }
    }
}

/// A number that lists hold packed: its element type byte, and its canonical bytes.
trait PackedNumber: Copy {
    const ELEMENT: u8;
    const WIDTH_BYTES: usize = size_of::<Self>();

    fn write(self, out: &mut Vec<u8>);

    /// `bytes` are [`PackedNumber::WIDTH_BYTES`] long.
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! packed_number {
    ($native:ty, $element:literal, $canonical:expr) => {
        impl PackedNumber for $native {
            const ELEMENT: u8 = $element;

            fn write(self, out: &mut Vec<u8>) {
                let canonical: fn($native) -> $native = $canonical;
                out.extend_from_slice(&canonical(self).to_le_bytes());
            }

            fn read(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<Self>()];
                own.copy_from_slice(bytes);
                Self::from_le_bytes(own)
            }
        }
    };
}

packed_number!(i8, 0, |number| number);
packed_number!(i16, 1, |number| number);
packed_number!(i32, 2, |number| number);
packed_number!(i64, 3, |number| number);
packed_number!(u8, 4, |number| number);
packed_number!(u16, 5, |number| number);
packed_number!(u32, 6, |number| number);
packed_number!(u64, 7, |number| number);
packed_number!(f32, 8, canonical_f32);
packed_number!(f64, 9, canonical_f64);

fn canonical_f32(number: f32) -> f32 {
    if number.is_nan() {
        f32::from_bits(0x7fc0_0000)
    } else {
        // -0 + 0 is +0, and nothing else changes (IEEE 754, 6.3).
        number + 0.0
    }
}

fn canonical_f64(number: f64) -> f64 {
    if number.is_nan() { f64::from_bits(0x7ff8_0000_0000_0000) } else { number + 0.0 }
}

#[cfg(test)]
mod tests;
