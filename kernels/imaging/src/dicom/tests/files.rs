//! A writer of small DICOM files.

/// A value of an element.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(&'static str),
    Owned(String),
    Short(u16),
    Bytes(Vec<u8>),
    /// A sequence of items, each of its own elements; with lengths, or with marks at their ends.
    Items(Vec<Made>, Lengths),
    /// Encapsulated pixel data: the fragments behind an empty offset table.
    Fragments(Vec<Vec<u8>>),
}

/// Whether sequences and items say how long they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lengths {
    Given,
    Undefined,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    Explicit,
    Implicit,
    Big,
    Deflated,
    Rle,
    Jpeg2000,
}

impl Syntax {
    fn uid(self) -> &'static str {
        match self {
            Syntax::Explicit => "1.2.840.10008.1.2.1",
            Syntax::Implicit => "1.2.840.10008.1.2",
            Syntax::Big => "1.2.840.10008.1.2.2",
            Syntax::Deflated => "1.2.840.10008.1.2.1.99",
            Syntax::Rle => "1.2.840.10008.1.2.5",
            Syntax::Jpeg2000 => "1.2.840.10008.1.2.4.90",
        }
    }
}

/// The elements of a file.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) elements: Vec<(u32, &'static str, Value)>,
}

impl Made {
    /// A CT slice of 4 columns and 3 rows at `z` mm, whose stored values are 0 to 11 plus `first`.
    pub(super) fn slice(z: f64, first: u16) -> Made {
        let values: Vec<u8> = (first..first + 12).flat_map(u16::to_le_bytes).collect();
        let texts = [
            (0x0008_0008, "CS", "ORIGINAL\\PRIMARY\\AXIAL"),
            (0x0008_0016, "UI", "1.2.840.10008.5.1.4.1.1.2"),
            (0x0008_0060, "CS", "CT"),
            (0x0010_0010, "PN", "Doe^Jane"),
            (0x0010_0020, "LO", "patient-1"),
            (0x0010_1010, "AS", "061Y"),
            (0x0020_000d, "UI", "1.2.3"),
            (0x0020_000e, "UI", "1.2.3.4"),
            (0x0020_0037, "DS", "1\\0\\0\\0\\1\\0"),
            (0x0028_0004, "CS", "MONOCHROME2"),
            (0x0028_0030, "DS", "0.5\\0.75"),
            (0x0028_1052, "DS", "-1024"),
            (0x0028_1053, "DS", "1"),
        ];
        let shorts = [
            (0x0028_0002, 1),
            (0x0028_0010, 3),
            (0x0028_0011, 4),
            (0x0028_0100, 16),
            (0x0028_0101, 12),
            (0x0028_0102, 11),
            (0x0028_0103, 0),
        ];
        let mut made = Made { elements: Vec::new() };
        for (tag, vr, text) in texts {
            made = made.with(tag, vr, Value::Text(text));
        }
        for (tag, number) in shorts {
            made = made.with(tag, "US", Value::Short(number));
        }
        made.with(0x0020_0032, "DS", Value::Owned(format!("10\\20\\{z}")))
            .with(0x0008_0018, "UI", Value::Owned(format!("1.2.3.4.{}", (z * 10.0).abs() as i64)))
            .with(0x7fe0_0010, "OW", Value::Bytes(values))
    }

    /// An enhanced CT image of one stack: a frame of 4 columns and 3 rows at each `z` mm, whose stored values are 0 to 11 plus
    /// ten times its number in the file, and whose intercept is that number.
    pub(super) fn enhanced(along_mm: &[f64], lengths: Lengths) -> Made {
        let pixels = (0..along_mm.len() as u16).flat_map(|frame| 10 * frame..10 * frame + 12);
        let items = |made: Made| Value::Items(vec![made], lengths);
        let of = |tag: u32, vr: &'static str, value: Value| Made { elements: vec![(tag, vr, value)] };
        let frame = |(number, z): (usize, &f64)| {
            let position = of(0x0020_0032, "DS", Value::Owned(format!("10\\20\\{z}")));
            let content = of(0x0020_9056, "SH", Value::Text("1"));
            let values = of(0x0028_1052, "DS", Value::Owned(number.to_string()))
                .with(0x0028_1053, "DS", Value::Text("1"))
                .with(0x0028_1054, "LO", Value::Text("HU"));
            of(0x0020_9111, "SQ", items(content)).with(0x0020_9113, "SQ", items(position)).with(
                0x0028_9145,
                "SQ",
                items(values),
            )
        };
        let shared = of(0x0020_9116, "SQ", items(of(0x0020_0037, "DS", Value::Text("1\\0\\0\\0\\1\\0"))))
            .with(0x0028_9110, "SQ", items(of(0x0028_0030, "DS", Value::Text("0.5\\0.75"))));
        let mut made = Made::slice(0.0, 0);
        for tag in [0x0020_0032, 0x0020_0037, 0x0028_0030, 0x0028_1052, 0x0028_1053] {
            made = made.without(tag);
        }
        made.with(0x0008_0016, "UI", Value::Text("1.2.840.10008.5.1.4.1.1.2.1"))
            .with(0x0028_0008, "IS", Value::Owned(along_mm.len().to_string()))
            .with(0x5200_9229, "SQ", items(shared))
            .with(0x5200_9230, "SQ", Value::Items(along_mm.iter().enumerate().map(frame).collect(), lengths))
            .with(0x7fe0_0010, "OW", Value::Bytes(pixels.flat_map(u16::to_le_bytes).collect()))
    }

    /// The same file with an element put in or replaced.
    pub(super) fn with(mut self, tag: u32, vr: &'static str, value: Value) -> Made {
        self.elements.retain(|(known, _, _)| *known != tag);
        self.elements.push((tag, vr, value));
        self.elements.sort_by_key(|(tag, _, _)| *tag);
        self
    }

    /// The same file without an element.
    pub(super) fn without(mut self, tag: u32) -> Made {
        self.elements.retain(|(known, _, _)| *known != tag);
        self
    }

    /// The data set without what stands before it.
    pub(super) fn data_set(&self, syntax: Syntax) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (tag, vr, value) in &self.elements {
            element(&mut bytes, *tag, vr, value, syntax);
        }
        if syntax == Syntax::Deflated {
            use std::io::Write;
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&bytes).unwrap();
            return encoder.finish().unwrap();
        }
        bytes
    }

    /// The file: a preamble, a meta group with a title that is too long, the data set.
    pub(super) fn file(&self, syntax: Syntax) -> Vec<u8> {
        let mut bytes = vec![0; 128];
        bytes.extend_from_slice(b"DICM");
        let title = Value::Text("A-TITLE-OF-MORE-THAN-SIXTEEN-LETTERS");
        element(&mut bytes, 0x0002_0010, "UI", &Value::Text(syntax.uid()), Syntax::Explicit);
        element(&mut bytes, 0x0002_0016, "AE", &title, Syntax::Explicit);
        bytes.extend(self.data_set(syntax));
        bytes
    }
}

fn element(bytes: &mut Vec<u8>, tag: u32, vr: &str, value: &Value, syntax: Syntax) {
    let big = syntax == Syntax::Big;
    let short = |number: u16| if big { number.to_be_bytes() } else { number.to_le_bytes() };
    let long = |number: u32| if big { number.to_be_bytes() } else { number.to_le_bytes() };
    let content = match value {
        Value::Text(text) => text.as_bytes().to_vec(),
        Value::Owned(text) => text.as_bytes().to_vec(),
        Value::Short(number) => short(*number).to_vec(),
        Value::Bytes(words) if big && vr == "OW" => {
            words.as_chunks::<2>().0.iter().flat_map(|&[low, high]| [high, low]).collect()
        }
        Value::Bytes(bytes) => bytes.clone(),
        Value::Items(items, lengths) => {
            let mut content = Vec::new();
            let mark = |content: &mut Vec<u8>, element: u16, length: u32| {
                content.extend(short(0xfffe));
                content.extend(short(element));
                content.extend(long(length));
            };
            for item in items {
                let elements = item.data_set(syntax);
                let given = if *lengths == Lengths::Given { elements.len() as u32 } else { u32::MAX };
                mark(&mut content, 0xe000, given);
                content.extend(elements);
                if *lengths == Lengths::Undefined {
                    mark(&mut content, 0xe00d, 0);
                }
            }
            if *lengths == Lengths::Undefined {
                mark(&mut content, 0xe0dd, 0);
            }
            content
        }
        Value::Fragments(fragments) => {
            let mut content = vec![0xfe, 0xff, 0x00, 0xe0, 0, 0, 0, 0];
            for fragment in fragments {
                content.extend([0xfe, 0xff, 0x00, 0xe0]);
                content.extend((fragment.len() as u32).to_le_bytes());
                content.extend(fragment);
            }
            content.extend([0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0]);
            content
        }
    };
    let padded = content.len() + content.len() % 2;
    let undefined = matches!(value, Value::Fragments(_) | Value::Items(_, Lengths::Undefined));
    let length = if undefined { u32::MAX } else { padded as u32 };
    bytes.extend(short((tag >> 16) as u16));
    bytes.extend(short(tag as u16));
    if syntax == Syntax::Implicit {
        bytes.extend(long(length));
    } else if ["OB", "OW", "SQ", "UN"].contains(&vr) {
        bytes.extend(vr.as_bytes());
        bytes.extend([0, 0]);
        bytes.extend(long(length));
    } else {
        bytes.extend(vr.as_bytes());
        bytes.extend(short(padded as u16));
    }
    bytes.extend(&content);
    if content.len() % 2 == 1 {
        bytes.push(if vr == "UI" { 0 } else { b' ' });
    }
}
