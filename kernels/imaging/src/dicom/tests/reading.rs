//! Headers and images of files that are written here.

use proptest::prelude::*;

use super::files::{Made, Syntax, Value};
use crate::dicom::{Tag, header, image, tag_of};

const SYNTAXES: [Syntax; 4] = [Syntax::Explicit, Syntax::Implicit, Syntax::Big, Syntax::Deflated];

fn stored(made: &Made, syntax: Syntax) -> Vec<i32> {
    image(&made.file(syntax), "a", 0).unwrap().values
}

fn refused(bytes: &[u8]) -> String {
    image(bytes, "a", 0).unwrap_err().to_string()
}

#[test]
fn a_slice_is_the_same_in_every_uncompressed_syntax() {
    let made = Made::slice(-7.5, 1000);
    for syntax in SYNTAXES {
        let bytes = made.file(syntax);
        let image = image(&bytes, "a", 0).unwrap();
        assert_eq!(image.values, (1000..1012).collect::<Vec<i32>>(), "{syntax:?}");
        assert_eq!((image.rows, image.columns, image.bits, image.signed), (3, 4, 12, false));
        let header = header(&bytes, "a", &[tag_of("PatientAge").unwrap(), Tag(0x0010, 0x0040)]).unwrap();
        assert_eq!(header.position_mm, Some([10.0, 20.0, -7.5]));
        assert_eq!(header.pixel_spacing_mm, Some([0.5, 0.75]));
        assert_eq!(header.rescale(), Some((1.0, -1024.0)));
        assert_eq!(header.image_type, ["ORIGINAL", "PRIMARY", "AXIAL"]);
        assert_eq!(header.kept, [Some("061Y".to_owned()), None]);
        assert!(header.has_pixels && !header.signed);
        let of_image = crate::dicom::Header { kept: header.kept.clone(), ..image.header };
        assert_eq!(of_image, header, "{syntax:?}");
    }
}

#[test]
fn a_file_without_preamble_meta_group_or_syntax_is_read_by_what_it_looks_like() {
    let made = Made::slice(0.0, 5);
    for syntax in [Syntax::Explicit, Syntax::Implicit, Syntax::Big] {
        let bare = image(&made.data_set(syntax), "a", 0).unwrap();
        assert_eq!(bare.values, (5..17).collect::<Vec<i32>>(), "{syntax:?}");
        assert_eq!(bare.header.transfer_syntax, None);
    }
    // One syntax named, the other written.
    let mut mistaken = made.file(Syntax::Explicit);
    let start = mistaken.len() - made.data_set(Syntax::Explicit).len();
    mistaken.truncate(start);
    mistaken.extend(made.data_set(Syntax::Implicit));
    assert_eq!(image(&mistaken, "a", 0).unwrap().values[0], 5);
}

#[test]
fn what_is_cut_short_is_refused_and_never_filled_up() {
    for syntax in SYNTAXES {
        let bytes = Made::slice(0.0, 5).file(syntax);
        for end in 0..bytes.len() {
            let cut = &bytes[..end];
            assert!(image(cut, "a", 0).is_err(), "{syntax:?} cut to {end}");
        }
    }
    let short = Made::slice(0.0, 5).with(0x7fe0_0010, "OW", Value::Bytes(vec![0; 22]));
    assert_eq!(
        refused(&short.file(Syntax::Explicit)),
        "a: truncated: the pixel data needs 24 bytes and 22 are there; copy the file again from its source"
    );
}

#[test]
fn bits_beside_the_stored_ones_are_masked_and_signs_extended() {
    let words = |values: &[u16]| Value::Bytes(values.iter().flat_map(|value| value.to_le_bytes()).collect());
    let twelve = |first: u16| words(&[first; 12]);
    let made = Made::slice(0.0, 0);
    let overlaid = made.clone().with(0x7fe0_0010, "OW", twelve(0xf123));
    assert_eq!(stored(&overlaid, Syntax::Explicit)[0], 0x123);
    let signed =
        overlaid.clone().with(0x0028_0103, "US", Value::Short(1)).with(0x7fe0_0010, "OW", twelve(0x0fff));
    assert_eq!(stored(&signed, Syntax::Big)[0], -1);
    let high = overlaid.with(0x0028_0102, "US", Value::Short(15)).with(0x7fe0_0010, "OW", twelve(0xabcf));
    assert_eq!(stored(&high, Syntax::Implicit)[0], 0xabc);
    let broken = made.with(0x0028_0101, "US", Value::Short(17));
    assert!(refused(&broken.file(Syntax::Explicit)).contains("17 bits stored"));
}

#[test]
fn run_lengths_are_decoded_and_damaged_ones_refused() {
    // Twelve high bytes of 3, then the low bytes 0 to 11 as they are.
    let mut stream: Vec<u8> = [2_u32, 64, 66].iter().flat_map(|word| word.to_le_bytes()).collect();
    stream.resize(64, 0);
    stream.extend([(1_i8 - 12) as u8, 3, 11]);
    stream.extend(0..12_u8);
    stream.push(0);
    let rle = |stream: &[u8]| {
        Made::slice(0.0, 0).with(0x7fe0_0010, "OB", Value::Fragments(vec![stream.to_vec()])).file(Syntax::Rle)
    };
    assert_eq!(image(&rle(&stream), "a", 0).unwrap().values, (0x300..0x30c).collect::<Vec<i32>>());
    assert!(refused(&rle(&stream[..70])).contains("damaged RLE codestream"));
    assert!(refused(&rle(&[9, 0, 0, 0])).contains("it has 9 segments; expected 2"));
}

#[test]
fn colours_are_refused_unless_they_are_grey() {
    let colours = |pixels: Vec<u8>, photometric| {
        Made::slice(0.0, 0)
            .with(0x0028_0002, "US", Value::Short(3))
            .with(0x0028_0004, "CS", Value::Text(photometric))
            .with(0x0028_0100, "US", Value::Short(8))
            .with(0x0028_0101, "US", Value::Short(8))
            .with(0x0028_0102, "US", Value::Short(7))
            .with(0x7fe0_0010, "OB", Value::Bytes(pixels))
    };
    let grey = image(&colours([7, 7, 7].repeat(12), "RGB").file(Syntax::Explicit), "a", 0).unwrap();
    assert_eq!((grey.values, grey.from_color), (vec![7; 12], true));
    let luma = colours([9, 128, 128].repeat(12), "YBR_FULL").file(Syntax::Explicit);
    assert_eq!(image(&luma, "a", 0).unwrap().values, vec![9; 12]);
    let coloured = colours([7, 8, 7].repeat(12), "RGB").file(Syntax::Explicit);
    assert_eq!(refused(&coloured), "a: an image in colours; expected a grey one");
    let planes =
        colours([[1; 12], [1; 12], [1; 12]].concat(), "RGB").with(0x0028_0006, "US", Value::Short(1));
    assert_eq!(stored(&planes, Syntax::Explicit), vec![1; 12]);
    let palette = Made::slice(0.0, 0).with(0x0028_0004, "CS", Value::Text("PALETTE COLOR"));
    assert!(refused(&palette.file(Syntax::Explicit)).contains("1 samples a pixel in PALETTE COLOR"));
}

#[test]
fn frames_are_found_by_their_place() {
    let values = |range: std::ops::Range<u16>| range.flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let two = Made::slice(0.0, 0)
        .with(0x0028_0008, "IS", Value::Text("2"))
        .with(0x7fe0_0010, "OW", Value::Bytes(values(0..24)))
        .file(Syntax::Explicit);
    assert_eq!(image(&two, "a", 1).unwrap().values[0], 12);
    assert!(image(&two, "a", 2).unwrap_err().to_string().contains("there are 2 frames"));
}

#[test]
fn a_claim_costs_nothing() {
    // Four thousand million bytes of a text, and as many pixels.
    let bare = Made { elements: Vec::new() }.file(Syntax::Explicit);
    let claim = [bare, vec![0x08, 0, 5, 0, b'U', b'T', 0, 0, 0xf0, 0xff, 0xff, 0xff, 1]].concat();
    assert!(refused(&claim).contains("the value of an element needs 4294967280 bytes and 1 are there"));
    let vast = Made::slice(0.0, 5)
        .with(0x0028_0010, "US", Value::Short(65535))
        .with(0x0028_0011, "US", Value::Short(65535))
        .with(0x7fe0_0010, "OB", Value::Fragments(vec![vec![0xff, 0x4f, 0xff, 0x51]]));
    assert!(refused(&vast.file(Syntax::Jpeg2000)).contains("expected at most"));
}

#[test]
fn names_are_read_in_the_character_set_of_the_file() {
    let name = |set: &'static str, bytes: &[u8]| {
        let made = Made::slice(0.0, 5).with(0x0008_0005, "CS", Value::Text(set)).with(
            0x0010_0010,
            "PN",
            Value::Bytes(bytes.to_vec()),
        );
        let read = header(&made.file(Syntax::Explicit), "a", &[Tag(0x0010, 0x0010)]).unwrap();
        read.kept[0].clone().unwrap()
    };
    assert_eq!(name("ISO_IR 100", b"Buc^J\xe9r\xf4me"), "Buc^Jérôme");
    assert_eq!(name("ISO_IR 192", "Wang^小东".as_bytes()), "Wang^小东");
    assert_eq!(
        name("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
        "Yamada^Tarou=山田^太郎"
    );
    assert_eq!(name("\\ISO 2022 IR 149", b"Hong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7"), "Hong=洪^吉洞");
    assert_eq!(name("", b"\xe4"), "ä");
}

#[test]
fn what_is_not_dicom_is_called_what_it_is() {
    let said = |bytes: &[u8]| header(bytes, "a", &[]).unwrap_err().to_string();
    assert_eq!(said(b""), "a: not a DICOM file: it is empty");
    assert_eq!(said(b"id,age\n1,60\n"), "a: not a DICOM file: it is a text file");
    assert_eq!(said(&[0x1f, 0x8b, 8, 0]), "a: not a DICOM file: it is a gzip file, such as .nii.gz");
    let none = Made::slice(0.0, 5).without(0x7fe0_0010).file(Syntax::Explicit);
    assert!(!header(&none, "a", &[]).unwrap().has_pixels);
    assert_eq!(refused(&none), "a: there are no pixel data; expected an image");
    let video = Made::slice(0.0, 5).with(0x7fe0_0010, "OB", Value::Fragments(vec![vec![0; 8]]));
    let mut video = video.file(Syntax::Jpeg2000);
    let place = video.windows(2).position(|pair| pair == b"90").unwrap();
    video[place..place + 2].copy_from_slice(b"57");
    assert!(refused(&video).contains("damaged JPEG lossless codestream"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = header(&bytes, "a", &[]);
        let _ = image(&bytes, "a", 0);
    }

    #[test]
    fn any_change_of_a_file_is_read_or_refused(
        syntax in prop::sample::select(SYNTAXES.to_vec()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = Made::slice(0.0, 5).file(syntax);
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let read = image(&bytes, "a", 0);
        if let Ok(image) = read {
            prop_assert_eq!(image.values.len(), image.rows * image.columns);
        }
    }
}
