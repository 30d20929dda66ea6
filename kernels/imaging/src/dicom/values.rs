//! What elements say: text, numbers, names, by their value representation (PS3.5, section 6.2).

use std::borrow::Cow;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use encoding_rs::{BIG5, EUC_KR, GB18030, GBK, ISO_2022_JP, SHIFT_JIS, UTF_8, WINDOWS_1252};

use super::dataset::{DataSet, Value};
use super::dictionary;

impl DataSet<'_> {
    /// The text of an element without its padding; `None` where it is absent or empty. Several values stand between
    /// backslashes, as DICOM writes them; numbers in binary are written out.
    pub(super) fn text(&self, tag: Tag) -> Option<String> {
        let element = self.element(tag)?;
        let Value::Bytes(bytes) = element.value else { return None };
        let vr = self.representation(tag, element.vr);
        let text = match &vr {
            b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"UN" => return None,
            b"AT" => self.tags_in_words(bytes),
            _ if number_bytes(vr).is_some() => {
                let numbers = self.binary_numbers(bytes, vr);
                numbers.iter().map(f64::to_string).collect::<Vec<_>>().join("\\")
            }
            // Only these are written in the file's character set.
            b"LO" | b"LT" | b"PN" | b"SH" | b"ST" | b"UC" | b"UT" => self.decode(bytes),
            _ => String::from_utf8_lossy(bytes).into_owned(),
        };
        let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// The values of a text element.
    pub(super) fn texts(&self, tag: Tag) -> Vec<String> {
        self.text(tag)
            .map(|text| text.split('\\').map(|part| part.trim().to_owned()).collect())
            .unwrap_or_default()
    }

    /// The numbers of an element, in text or binary; `None` where it is absent, empty or holds something else.
    pub(super) fn numbers(&self, tag: Tag) -> Option<Vec<f64>> {
        let element = self.element(tag)?;
        let Value::Bytes(bytes) = element.value else { return None };
        let vr = self.representation(tag, element.vr);
        let numbers = match number_bytes(vr) {
            Some(_) => self.binary_numbers(bytes, vr),
            None => {
                let text = self.text(tag)?;
                let parsed: Option<Vec<f64>> =
                    text.split('\\').map(|number| number.trim().parse::<f64>().ok()).collect();
                parsed?
            }
        };
        (!numbers.is_empty() && numbers.iter().all(|number| number.is_finite())).then_some(numbers)
    }

    /// The first number of an element.
    pub(super) fn number(&self, tag: Tag) -> Option<f64> {
        self.numbers(tag)?.first().copied()
    }

    /// The only whole number of an element; `None` also where it has a fraction or is negative.
    pub(super) fn whole(&self, tag: Tag) -> Option<u32> {
        let number = self.number(tag)?;
        (number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number)).then_some(number as u32)
    }

    /// The numbers of an element, where there are exactly `N`.
    pub(super) fn array<const N: usize>(&self, tag: Tag) -> Option<[f64; N]> {
        self.numbers(tag)?.try_into().ok()
    }

    /// An explicit file may call an element `UN`, which the dictionary knows better.
    fn representation(&self, tag: Tag, vr: [u8; 2]) -> [u8; 2] {
        let vr = if vr == *b"UN" { dictionary::value_representation(tag) } else { vr };
        let signed_pixels = || self.bytes(tags::PIXEL_REPRESENTATION).is_some_and(|bytes| bytes.contains(&1));
        let of_pixels = [
            tags::PIXEL_PADDING_VALUE,
            tags::SMALLEST_IMAGE_PIXEL_VALUE,
            tags::LARGEST_IMAGE_PIXEL_VALUE,
            tags::PIXEL_PADDING_RANGE_LIMIT,
        ];
        if vr == *b"US" && of_pixels.contains(&tag) && signed_pixels() { *b"SS" } else { vr }
    }

    fn binary_numbers(&self, bytes: &[u8], vr: [u8; 2]) -> Vec<f64> {
        let Some(size) = number_bytes(vr) else { return Vec::new() };
        let number = |bytes: &[u8]| {
            let mut wide = [0; 8];
            wide[..size].copy_from_slice(bytes);
            if self.big_endian {
                wide[..size].reverse();
            }
            let unsigned = u64::from_le_bytes(wide);
            match &vr {
                b"FL" => f64::from(f32::from_bits(unsigned as u32)),
                b"FD" => f64::from_bits(unsigned),
                b"SS" => f64::from(unsigned as u16 as i16),
                b"SL" => f64::from(unsigned as u32 as i32),
                b"SV" => unsigned as i64 as f64,
                _ => unsigned as f64,
            }
        };
        bytes.chunks_exact(size).map(number).collect()
    }

    fn tags_in_words(&self, bytes: &[u8]) -> String {
        let numbers = self.binary_numbers(bytes, *b"US");
        let tags = numbers.chunks_exact(2).map(|pair| Tag(pair[0] as u16, pair[1] as u16).to_string());
        tags.collect::<Vec<_>>().join("\\")
    }

    /// Text in the character set that the file names. Of several, the one whose escapes all others are read by counts;
    /// the escapes that introduce a character set at a place are taken out.
    fn decode(&self, bytes: &[u8]) -> String {
        let named = self.bytes(tags::SPECIFIC_CHARACTER_SET).map(String::from_utf8_lossy).unwrap_or_default();
        let encoding = named
            .split('\\')
            .map(|name| encoding_named(name.trim_matches([' ', '\0'])))
            .max_by_key(|(rank, _)| *rank);
        let encoding = encoding.map_or(UTF_8, |(_, encoding)| encoding);
        if encoding == ISO_2022_JP {
            return ISO_2022_JP.decode_without_bom_handling(bytes).0.into_owned();
        }
        let bytes: Cow<[u8]> =
            if bytes.contains(&0x1b) { Cow::Owned(without_escapes(bytes)) } else { Cow::Borrowed(bytes) };
        match encoding.decode_without_bom_handling_and_without_replacement(&bytes) {
            Some(text) => text.into_owned(),
            // Files that name no character set, or another, are most often of Western Europe.
            None => WINDOWS_1252.decode_without_bom_handling(&bytes).0.into_owned(),
        }
    }
}

/// The encoding of a defined term (PS3.3, C.12.1.1.2), and its rank: what has several bytes a character reads the ASCII of
/// the others.
fn encoding_named(name: &str) -> (u8, &'static encoding_rs::Encoding) {
    let number = name.strip_prefix("ISO_IR ").or(name.strip_prefix("ISO 2022 IR ")).unwrap_or(name);
    match number {
        "100" => (1, WINDOWS_1252),
        "101" => (1, encoding_rs::ISO_8859_2),
        "109" => (1, encoding_rs::ISO_8859_3),
        "110" => (1, encoding_rs::ISO_8859_4),
        "126" => (1, encoding_rs::ISO_8859_7),
        "127" => (1, encoding_rs::ISO_8859_6),
        "138" => (1, encoding_rs::ISO_8859_8),
        "144" => (1, encoding_rs::ISO_8859_5),
        "148" => (1, encoding_rs::WINDOWS_1254),
        "166" => (1, encoding_rs::WINDOWS_874),
        "203" => (1, encoding_rs::ISO_8859_15),
        "13" => (1, SHIFT_JIS),
        "87" | "159" => (2, ISO_2022_JP),
        "149" => (2, EUC_KR),
        "58" | "GBK" => (2, GBK),
        "GB18030" => (2, GB18030),
        "BIG5" => (2, BIG5),
        _ => (0, UTF_8),
    }
}

/// Text without the escapes `ESC ( B`, `ESC $ ) C` and the like: an intermediate byte or two and a final one.
fn without_escapes(bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied();
    while let Some(byte) = rest.next() {
        if byte == 0x1b {
            // Intermediates are 0x20 to 0x2f; the first byte that is none ends the escape.
            rest.by_ref().find(|byte| !(0x20..0x30).contains(byte));
        } else {
            kept.push(byte);
        }
    }
    kept
}

/// Bytes of one number of a binary representation.
fn number_bytes(vr: [u8; 2]) -> Option<usize> {
    match &vr {
        b"US" | b"SS" => Some(2),
        b"UL" | b"SL" | b"FL" => Some(4),
        b"FD" | b"UV" | b"SV" => Some(8),
        _ => None,
    }
}
