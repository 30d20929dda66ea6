//! A file's elements, as slices of its bytes (PS3.5, section 7).
//!
//! Our own reader, because `dicom-object` 0.10 refuses a whole file for one over-long title in its meta group, and fills a
//! buffer of the length that an element claims, up to 4 GiB, before it looks whether the file is that long. Here a value
//! is a slice of the file, so a claim costs nothing.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::dictionary;
use super::error::DicomProblem;
use super::transfer_syntax::Encoding;

/// Elements in the order of the file.
#[derive(Debug, Clone, Default)]
pub(super) struct DataSet<'a> {
    elements: Vec<Element<'a>>,
    pub(super) big_endian: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Element<'a> {
    pub(super) tag: Tag,
    /// The value representation: the file's own, or the dictionary's where the file names none.
    pub(super) vr: [u8; 2],
    pub(super) value: Value<'a>,
}

#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Bytes(&'a [u8]),
    /// A sequence, whose items are read by [`DataSet::items`] where they are asked for.
    Sequence(Items<'a>),
    /// The fragments of encapsulated pixel data, the basic offset table first.
    Fragments(Vec<&'a [u8]>),
    /// Pixel data that are not to be read.
    Unread,
}

/// The items of a sequence as they are written, with or without its end mark.
#[derive(Debug, Clone, Copy)]
pub(super) struct Items<'a> {
    bytes: &'a [u8],
    encoding: Encoding,
}

/// How far to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Up to the pixel data, whose value is left alone.
    Header,
    /// Up to the end of the pixel data.
    Pixels,
}

/// Sequences within sequences; the standard's deepest have about ten.
const DEEPEST: usize = 32;

const UNDEFINED: u32 = u32::MAX;
const ITEM: Tag = Tag(0xfffe, 0xe000);
const ITEM_END: Tag = Tag(0xfffe, 0xe00d);
const SEQUENCE_END: Tag = Tag(0xfffe, 0xe0dd);

impl<'a> DataSet<'a> {
    /// Reads the elements of a file behind its meta group. What stands behind the pixel data is not looked at.
    pub(super) fn parse(
        bytes: &'a [u8],
        encoding: Encoding,
        extent: Extent,
    ) -> Result<DataSet<'a>, DicomProblem> {
        let mut cursor = Cursor { rest: bytes, encoding };
        let mut elements = Vec::new();
        // Some writers fill the file up with zeros; no tag of a file is (0000,0000).
        while cursor.rest.iter().take(8).any(|&byte| byte != 0) {
            let header = cursor.header()?;
            let last = is_pixel_data(header.tag);
            let value = match (last, extent) {
                (true, Extent::Header) => Value::Unread,
                (true, Extent::Pixels) if header.length == UNDEFINED => Value::Fragments(cursor.fragments()?),
                _ => cursor.value(&header, 0)?,
            };
            elements.push(Element { tag: header.tag, vr: header.vr, value });
            if last {
                break;
            }
        }
        Ok(DataSet { elements, big_endian: encoding.big_endian })
    }

    /// Reads the elements of one group at the start of `bytes`, and says where they end.
    pub(super) fn parse_group(bytes: &'a [u8], group: u16) -> Result<(DataSet<'a>, usize), DicomProblem> {
        let mut cursor = Cursor { rest: bytes, encoding: Encoding::EXPLICIT };
        let mut elements = Vec::new();
        while cursor.rest.len() >= 8 && u16::from_le_bytes([cursor.rest[0], cursor.rest[1]]) == group {
            let header = cursor.header()?;
            let value = cursor.value(&header, 0)?;
            elements.push(Element { tag: header.tag, vr: header.vr, value });
        }
        Ok((DataSet { elements, big_endian: false }, bytes.len() - cursor.rest.len()))
    }

    /// The element of a tag.
    pub(super) fn element(&self, tag: Tag) -> Option<&Element<'a>> {
        self.elements.iter().find(|element| element.tag == tag)
    }

    /// The bytes of an element's value, where it is no sequence.
    pub(super) fn bytes(&self, tag: Tag) -> Option<&'a [u8]> {
        match self.element(tag)?.value {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The items of a sequence, in their order; none where the element is absent or no sequence.
    ///
    /// # Errors
    /// When an item is cut short or holds something else than elements.
    pub(super) fn items(&self, tag: Tag) -> Result<Vec<DataSet<'a>>, DicomProblem> {
        let Some(element) = self.element(tag) else { return Ok(Vec::new()) };
        let items = match element.value {
            Value::Sequence(items) => items,
            // Elements of unknown representation are written implicitly, whatever the file is (PS3.5, 6.2.2).
            Value::Bytes(bytes) if dictionary::value_representation(tag) == *b"SQ" => {
                Items { bytes, encoding: Encoding { explicit: false, big_endian: self.big_endian } }
            }
            _ => return Ok(Vec::new()),
        };
        let mut cursor = Cursor { rest: items.bytes, encoding: items.encoding };
        let mut sets = Vec::new();
        while let Some(item) = cursor.item()? {
            let mut inner = Cursor { rest: item, encoding: items.encoding };
            let mut elements = Vec::new();
            while !inner.rest.is_empty() {
                let header = inner.header()?;
                if header.tag == ITEM_END {
                    break;
                }
                let value = inner.value(&header, 0)?;
                elements.push(Element { tag: header.tag, vr: header.vr, value });
            }
            sets.push(DataSet { elements, big_endian: self.big_endian });
        }
        Ok(sets)
    }

    /// The tags of all elements.
    pub(super) fn tags(&self) -> impl Iterator<Item = Tag> {
        self.elements.iter().map(|element| element.tag)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }
}

/// Whether a tag is that of pixels, whole, float or double.
pub(super) fn is_pixel_data(tag: Tag) -> bool {
    [tags::PIXEL_DATA, tags::FLOAT_PIXEL_DATA, tags::DOUBLE_FLOAT_PIXEL_DATA].contains(&tag)
}

struct Header {
    tag: Tag,
    vr: [u8; 2],
    length: u32,
}

/// The bytes that are still to be read.
struct Cursor<'a> {
    rest: &'a [u8],
    encoding: Encoding,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize, part: &'static str) -> Result<&'a [u8], DicomProblem> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            let (expected, actual) = (count as u64, self.rest.len() as u64);
            return Err(DicomProblem::Truncated { part, expected, actual });
        };
        self.rest = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, DicomProblem> {
        let bytes = self.take(2, "element header")?;
        let bytes = [bytes[0], bytes[1]];
        Ok(if self.encoding.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32(&mut self) -> Result<u32, DicomProblem> {
        let bytes = self.take(4, "element header")?;
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        Ok(if self.encoding.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn tag(&mut self) -> Result<Tag, DicomProblem> {
        Ok(Tag(self.u16()?, self.u16()?))
    }

    /// Tag, value representation and length of the next element.
    fn header(&mut self) -> Result<Header, DicomProblem> {
        let tag = self.tag()?;
        // Items and their ends name no value representation. Neither do elements of some writers amid explicit ones:
        // what is not two capital letters there belongs to the length.
        let named = self.rest.first_chunk::<2>().filter(|vr| vr.iter().all(u8::is_ascii_uppercase)).copied();
        let Some(vr) = named.filter(|_| self.encoding.explicit && tag.group() != 0xfffe) else {
            return Ok(Header { tag, vr: dictionary::value_representation(tag), length: self.u32()? });
        };
        self.take(2, "element header")?;
        let length = if has_long_length(vr) {
            self.take(2, "element header")?;
            self.u32()?
        } else {
            u32::from(self.u16()?)
        };
        Ok(Header { tag, vr, length })
    }

    fn value(&mut self, header: &Header, depth: usize) -> Result<Value<'a>, DicomProblem> {
        if header.length == UNDEFINED && is_pixel_data(header.tag) {
            return Ok(Value::Fragments(self.fragments()?));
        }
        if header.length == UNDEFINED {
            // Elements of unknown representation are written implicitly, whatever the file is (PS3.5, 6.2.2).
            let outer = self.encoding;
            if header.vr == *b"UN" {
                self.encoding.explicit = false;
            }
            let (start, encoding) = (self.rest, self.encoding);
            let passed = self.pass_items(depth + 1);
            self.encoding = outer;
            let bytes = &start[..start.len() - self.rest.len()];
            return passed.map(|()| Value::Sequence(Items { bytes, encoding }));
        }
        let part = if is_pixel_data(header.tag) { "pixel data" } else { "value of an element" };
        let bytes = self.take(header.length as usize, part)?;
        let items = Items { bytes, encoding: self.encoding };
        Ok(if header.vr == *b"SQ" { Value::Sequence(items) } else { Value::Bytes(bytes) })
    }

    /// The bytes of the next item of a sequence; `None` at its end.
    fn item(&mut self) -> Result<Option<&'a [u8]>, DicomProblem> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        match (self.tag()?, self.u32()?) {
            (SEQUENCE_END, _) => Ok(None),
            (ITEM, UNDEFINED) => {
                let start = self.rest;
                self.pass_item(0)?;
                Ok(Some(&start[..start.len() - self.rest.len()]))
            }
            (ITEM, length) => Ok(Some(self.take(length as usize, "item of a sequence")?)),
            (tag, _) => Err(not_an_item(tag)),
        }
    }

    /// Passes over the items of a sequence whose length is not given, up to its end mark.
    fn pass_items(&mut self, depth: usize) -> Result<(), DicomProblem> {
        if depth > DEEPEST {
            return Err(DicomProblem::Header(format!(
                "sequences lie within sequences more than {DEEPEST} deep; expected a tenth of that"
            )));
        }
        loop {
            match (self.tag()?, self.u32()?) {
                (SEQUENCE_END, _) => return Ok(()),
                (ITEM, UNDEFINED) => self.pass_item(depth)?,
                (ITEM, length) => {
                    self.take(length as usize, "item of a sequence")?;
                }
                (tag, _) => return Err(not_an_item(tag)),
            }
        }
    }

    /// Passes over the elements of an item whose length is not given, up to its end mark.
    fn pass_item(&mut self, depth: usize) -> Result<(), DicomProblem> {
        loop {
            let header = self.header()?;
            if header.tag == ITEM_END {
                return Ok(());
            }
            self.value(&header, depth)?;
        }
    }

    /// The fragments of encapsulated pixel data, which end with a mark.
    fn fragments(&mut self) -> Result<Vec<&'a [u8]>, DicomProblem> {
        let mut fragments = Vec::new();
        loop {
            if self.rest.is_empty() {
                return Err(DicomProblem::Truncated {
                    part: "end of the pixel data",
                    expected: 8,
                    actual: 0,
                });
            }
            let (tag, length) = (self.tag()?, self.u32()?);
            match tag {
                ITEM => fragments.push(self.take(length as usize, "fragment of the pixel data")?),
                SEQUENCE_END => return Ok(fragments),
                tag => {
                    return Err(DicomProblem::Header(format!(
                        "the element {tag} stands among fragments of pixel data; expected an item"
                    )));
                }
            }
        }
    }
}

fn not_an_item(tag: Tag) -> DicomProblem {
    DicomProblem::Header(format!("the element {tag} stands in a sequence; expected an item"))
}

/// Whether an explicit element of this representation has a length of 32 bits (PS3.5, 7.1.2).
fn has_long_length(vr: [u8; 2]) -> bool {
    [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"].contains(&&vr)
}
