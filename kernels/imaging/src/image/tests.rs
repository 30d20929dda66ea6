//! Image files and preparations against what Pillow, pypng, numpy and OpenCV make of them: `goldens/make.py` says how.

use proptest::prelude::*;
use serde_json::Value;

use super::prepare::{Crop, Fit, Preparation, PrepareError, Prepared, WindowRule, prepare};
use super::{Format, Image, ImageProblem, Photometric, png, read};

fn golden() -> Value {
    serde_json::from_str(include_str!("../../goldens/images.json")).unwrap()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let digits = hex.as_str().unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn file(name: &str) -> Vec<u8> {
    bytes(&golden()["files"][name]["hex"])
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn grey(width: usize, pixels: Vec<u16>, bits: u8) -> Image {
    Image {
        width,
        height: pixels.len() / width,
        pixels,
        bits,
        spacing_mm: None,
        format: Format::Png,
        photometric: Photometric::Grey,
        inverted: false,
        orientation: None,
        voi_window: None,
        voi_shades: None,
        modality: None,
        warnings: Vec::new(),
    }
}

fn problem(bytes: &[u8]) -> String {
    read(bytes, "x").unwrap_err().to_string()
}

#[test]
fn files_hold_what_pillow_finds_in_them() {
    for (name, golden) in golden()["files"].as_object().unwrap() {
        let image = read(&bytes(&golden["hex"]), name).unwrap();
        assert_eq!(image.width as u64, golden["width"].as_u64().unwrap(), "{name}");
        assert_eq!(image.pixels.len(), image.width * image.height, "{name}");
        // Decoders of JPEG may differ by one level.
        let tolerance = if image.format == Format::Jpeg { 1.0 } else { 0.0 };
        for (place, (found, expected)) in image.pixels.iter().zip(numbers(&golden["pixels"])).enumerate() {
            let apart = (f64::from(*found) - expected).abs();
            assert!(apart <= tolerance, "{name}: {found} at {place}, expected {expected}");
        }
    }
}

#[test]
fn what_the_samples_were_is_told() {
    let told = |name: &str| {
        let image = read(&file(name), name).unwrap();
        (image.photometric.to_string(), image.bits, image.warnings.join("; "))
    };
    let plain = |photometric: &str, bits: u8| (photometric.to_owned(), bits, String::new());
    assert_eq!(told("grey8.png"), plain("grey", 8));
    assert_eq!(told("interlaced16.png"), plain("grey", 16));
    assert_eq!(told("bits1.png"), plain("grey", 8));
    assert_eq!(told("palette.png"), plain("palette", 8));
    assert_eq!(told("rgb.png"), plain("rgb", 8));
    assert_eq!(told("ycbcr420.jpg"), plain("ycbcr", 8));
    let dropped = "the opacity channel was dropped; 0 of 513 pixels are not opaque".to_owned();
    assert_eq!(told("rgba.png"), ("rgba".to_owned(), 8, dropped));
    let dropped = "the opacity channel was dropped; 76 of 513 pixels are not opaque".to_owned();
    assert_eq!(told("grey_alpha.png"), ("grey_alpha".to_owned(), 8, dropped));
}

#[test]
fn an_orientation_is_applied_and_told() {
    for number in 1..=8 {
        let image = read(&file(&format!("exif{number}.png")), "x").unwrap();
        assert_eq!(image.orientation.unwrap().number(), number);
        assert_eq!((image.width, image.height), if number < 5 { (27, 19) } else { (19, 27) });
    }
    assert_eq!(read(&file("grey8.png"), "x").unwrap().orientation, None);
}

#[test]
fn colour_is_refused() {
    assert_eq!(
        problem(&bytes(&golden()["tinted.png"])),
        "x: 2 of 513 pixels are in colour, the first at column 5, row 17; expected grey: a photograph, an overlay or a \
         colour map is no X-ray image"
    );
}

#[test]
fn no_file_that_was_cut_is_read() {
    for (name, golden) in golden()["files"].as_object().unwrap() {
        let whole = bytes(&golden["hex"]);
        for length in 0..whole.len() {
            assert!(read(&whole[..length], name).is_err(), "{name} cut to {length} of {} bytes", whole.len());
        }
    }
}

/// Decoders put zeros where compressed data ends early.
#[test]
fn a_jpeg_file_that_lost_its_middle_is_refused() {
    for name in ["grey.jpg", "progressive.jpg", "ycbcr420.jpg", "restarts.jpg"] {
        let whole = file(name);
        let scan = whole.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap() + 12;
        let spared = whole.len() - 6;
        for length in scan..spared {
            let spliced = [&whole[..length], &[0xff, 0xd9]].concat();
            assert!(read(&spliced, name).is_err(), "{name} spliced at {length} of {}", whole.len());
        }
    }
    assert_eq!(
        problem(&[&file("grey.jpg")[..450], &[0xff, 0xd9]].concat()),
        "x: damaged jpeg file: its compressed data ends before the image does; copy the file again from its source"
    );
}

#[test]
fn a_png_file_with_a_changed_byte_is_refused() {
    for name in ["grey8.png", "interlaced16.png", "palette.png"] {
        let whole = file(name);
        for place in 0..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 0x10;
            assert!(read(&changed, name).is_err(), "{name} with another byte {place}");
        }
    }
}

#[test]
fn what_is_no_image_is_named() {
    assert_eq!(problem(b""), "x: not an image: it is empty");
    assert_eq!(problem(b"BM____"), "x: not an image: it is a BMP image; expected PNG, JPEG or DICOM");
    assert_eq!(problem(b"abc"), "x: not an image: its first bytes are unknown; expected PNG, JPEG or DICOM");
}

/// The header of a PNG file is its own to write, and 13 bytes of it must not cost gigabytes.
#[test]
fn a_size_that_the_bytes_cannot_hold_is_refused() {
    let claimed = |width: u32, height: u32| {
        let mut file = png::encode_grey(1, 1, &[0], 8);
        file[16..20].copy_from_slice(&width.to_be_bytes());
        file[20..24].copy_from_slice(&height.to_be_bytes());
        let mut crc = libdeflater::Crc::new();
        crc.update(&file[12..29]);
        file[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        problem(&file)
    };
    assert_eq!(
        claimed(8000, 8000),
        "x: damaged png file: 8000 x 8000 pixels, more than the bytes that are there can hold; copy the file again from its \
         source"
    );
    assert!(claimed(100_000, 100_000).contains("expected at most 67108864"), "{}", claimed(100_000, 100_000));
    let mut jpeg = file("grey.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x1f, 0xff, 0x1f, 0xff]);
    assert!(problem(&jpeg).contains("8191 x 8191 pixels, more than the bytes"), "{}", problem(&jpeg));
}

#[test]
fn percentiles_are_those_of_numpy() {
    let golden = golden();
    let percentiles = image(&golden).percentiles();
    for (percent, expected) in golden["percentiles"].as_object().unwrap() {
        let found = percentiles.at(percent.parse().unwrap());
        assert!((found - expected.as_f64().unwrap()).abs() < 1e-9, "{percent}: {found}, expected {expected}");
    }
}

/// The values differ by the rounding of f32, at most a 16-bit level where OpenCV rounds otherwise than this does.
#[test]
fn preparations_are_those_of_opencv() {
    let golden = golden();
    for golden in golden["preparations"].as_array().unwrap() {
        let prepared = prepare(&image(&self::golden()), &preparation(golden)).unwrap();
        let what = format!("{} {}", golden["crop_rule"], golden["size"]);
        assert_eq!(prepared.window.to_vec(), numbers(&golden["window"]), "{what}");
        assert_eq!(prepared.crop.map(|n| n as f64).to_vec(), numbers(&golden["crop"]), "{what}");
        assert_eq!(prepared.content.map(|n| n as f64).to_vec(), numbers(&golden["content"]), "{what}");
        for (place, (found, expected)) in prepared.pixels.iter().zip(numbers(&golden["pixels"])).enumerate() {
            let apart = (f64::from(*found) - expected).abs();
            assert!(apart <= 0.55, "{what}: {found} at {place}, expected {expected}");
        }
    }
}

fn image(golden: &Value) -> Image {
    let pixels = numbers(&golden["image"]["pixels"]).into_iter().map(|value| value as u16).collect();
    grey(golden["image"]["width"].as_u64().unwrap() as usize, pixels, 16)
}

fn preparation(golden: &Value) -> Preparation {
    let percentiles = numbers(&golden["percentiles"]);
    let crop = golden["crop_rule"].as_array().map(|_| numbers(&golden["crop_rule"]));
    let size = numbers(&golden["size"]);
    Preparation {
        window: WindowRule::Percentiles(percentiles[0], percentiles[1]),
        crop: crop.map(|crop| Crop { from: crop[0], to: crop[1], margin: crop[2] as usize }),
        size: [size[0] as usize, size[1] as usize],
        fit: if golden["pad"].as_bool().unwrap() { Fit::Pad } else { Fit::Stretch },
        bits: golden["bits"].as_u64().unwrap() as u8,
    }
}

#[test]
fn pixels_that_are_no_squares_become_squares() {
    let mut image = grey(8, (0..32).collect(), 16);
    image.spacing_mm = Some([0.2, 0.4]);
    let preparation = Preparation {
        window: WindowRule::Range(0.0, 31.0),
        crop: None,
        size: [16, 16],
        fit: Fit::Pad,
        bits: 8,
    };
    let prepared = prepare(&image, &preparation).unwrap();
    assert_eq!((prepared.content, prepared.spacing_mm), ([0, 0, 16, 16], Some([0.1, 0.1])));
    let stretched = prepare(&image, &Preparation { fit: Fit::Stretch, size: [4, 4], ..preparation }).unwrap();
    assert_eq!(stretched.spacing_mm, Some([0.4, 0.4]));
}

#[test]
fn an_image_without_contrast_or_foreground_is_refused() {
    let rule = |window, crop| Preparation { window, crop, size: [4, 4], fit: Fit::Pad, bits: 8 };
    let blank = prepare(&grey(4, vec![7; 16], 8), &rule(WindowRule::Percentiles(1.0, 99.0), None));
    assert_eq!(blank, Err(PrepareError::NoContrast { window: [7.0, 7.0], range: [7.0, 7.0] }));
    let crop = Crop { from: 0.4, to: 0.6, margin: 0 };
    let halves = grey(4, (0..16).map(|place| if place < 8 { 0 } else { 255 }).collect(), 8);
    let nothing = prepare(&halves, &rule(WindowRule::Percentiles(0.0, 100.0), Some(crop)));
    assert_eq!(nothing, Err(PrepareError::NoForeground(crop)));
}

fn any_image() -> impl Strategy<Value = Image> {
    (1..9_usize, 1..9_usize).prop_flat_map(|(width, height)| {
        prop::collection::vec(any::<u16>(), width * height).prop_map(move |pixels| grey(width, pixels, 16))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn what_is_encoded_is_decoded(image in any_image()) {
        let file = png::encode_grey(image.width, image.height, &image.pixels, 16);
        prop_assert_eq!(read(&file, "x").unwrap(), image);
    }

    #[test]
    fn any_bytes_are_read_or_refused(head in 0..3_usize, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let head = [&b""[..], png::MAGIC, b"\xff\xd8\xff\xe0\x00\x04__"][head];
        let _ = read(&[head, &bytes].concat(), "x");
    }

    #[test]
    fn any_change_of_a_jpeg_file_is_read_or_refused(place in 2..600_usize, value in any::<u8>()) {
        for name in ["progressive.jpg", "ycbcr420.jpg", "exif6.jpg"] {
            let mut file = file(name);
            let place = place % file.len();
            file[place] = value;
            if let Ok(image) = read(&file, "x") {
                prop_assert_eq!(image.pixels.len(), image.width * image.height);
            }
        }
    }

    /// Every pixel of the result lies within the values of the original, whatever the sizes.
    #[test]
    fn any_image_is_prepared_within_its_window(
        image in any_image(), width in 1..20_usize, height in 1..20_usize, pads in any::<bool>(),
    ) {
        let fit = if pads { Fit::Pad } else { Fit::Stretch };
        let window = WindowRule::Range(0.0, 65535.0);
        let preparation = Preparation { window, crop: None, size: [width, height], fit, bits: 16 };
        let Prepared { pixels, content: [x, y, columns, rows], .. } = prepare(&image, &preparation).unwrap();
        prop_assert_eq!(pixels.len(), width * height);
        prop_assert!(columns >= 1 && rows >= 1 && x + columns <= width && y + rows <= height);
        let wide = |pixel: &u16| u32::from(*pixel);
        let (least, most) = (image.pixels.iter().map(wide).min().unwrap(), image.pixels.iter().map(wide).max().unwrap());
        for row in pixels.chunks_exact(width).skip(y).take(rows) {
            let inside = row[x..x + columns].iter().map(wide).all(|pixel| pixel + 1 >= least && pixel <= most + 1);
            prop_assert!(inside, "{:?}", row);
        }
    }
}

#[test]
fn a_problem_keeps_its_cause() {
    let error = super::read_named(std::path::Path::new("/nowhere/at/all.png"), "all.png").unwrap_err();
    assert!(matches!(error.problem, ImageProblem::Io(_)));
    assert_eq!(error.to_string(), "all.png: cannot be read: No such file or directory (os error 2)");
}

/// A DICOM X-ray of 4 x 2 pixels of 12 bits, the values 0, 100 to 700, with further elements of text.
fn x_ray(texts: &[(u32, &'static str, &str)], signed: bool) -> Vec<u8> {
    let mut elements = vec![
        (0x0008_0016, "UI", b"1.2.840.10008.5.1.4.1.1.1.1\0".to_vec()),
        (0x0008_0060, "CS", b"DX".to_vec()),
        (
            0x7fe0_0010,
            "OW",
            (0..8_i16).flat_map(|place| (100 * place - 400 * i16::from(signed)).to_le_bytes()).collect(),
        ),
    ];
    let shorts = [(0x0002, 1), (0x0010, 2), (0x0011, 4), (0x0100, 16), (0x0101, 12), (0x0102, 11)];
    let shorts = shorts.into_iter().chain([(0x0103, u16::from(signed))]);
    elements.extend(shorts.map(|(tag, number)| (0x0028_0000 + tag, "US", number.to_le_bytes().to_vec())));
    elements.extend(texts.iter().map(|(tag, vr, text)| {
        let padding = if text.len().is_multiple_of(2) { "" } else { " " };
        (*tag, *vr, format!("{text}{padding}").into_bytes())
    }));
    elements.sort_by_key(|element| element.0);
    let mut file = [&[0; 128][..], b"DICM\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0"].concat();
    for (tag, vr, content) in elements {
        file.extend(((tag >> 16) as u16).to_le_bytes());
        file.extend((tag as u16).to_le_bytes());
        file.extend(vr.as_bytes());
        match vr {
            "OW" => file.extend([&[0, 0][..], &(content.len() as u32).to_le_bytes()].concat()),
            _ => file.extend((content.len() as u16).to_le_bytes()),
        }
        file.extend(content);
    }
    file
}

const PHOTOMETRIC: u32 = 0x0028_0004;

#[test]
fn a_dicom_x_ray_is_light_on_dark() {
    let plain = read(&x_ray(&[(PHOTOMETRIC, "CS", "MONOCHROME2")], false), "x").unwrap();
    assert_eq!((plain.width, plain.height, plain.bits, plain.inverted), (4, 2, 12, false));
    assert_eq!(plain.pixels, [0, 100, 200, 300, 400, 500, 600, 700]);
    assert_eq!((plain.format, plain.photometric), (Format::Dicom, Photometric::Monochrome2));
    assert_eq!(plain.modality.as_deref(), Some("DX"));
    let upside_down = [4095, 3995, 3895, 3795, 3695, 3595, 3495, 3395];
    let inverted = read(&x_ray(&[(PHOTOMETRIC, "CS", "MONOCHROME1")], false), "x").unwrap();
    assert_eq!((inverted.pixels.as_slice(), inverted.inverted), (&upside_down[..], true));
    let shaped = [(PHOTOMETRIC, "CS", "MONOCHROME2"), (0x2050_0020, "CS", "INVERSE")];
    assert_eq!(read(&x_ray(&shaped, false), "x").unwrap().pixels, upside_down);
    let signed = read(&x_ray(&[(PHOTOMETRIC, "CS", "MONOCHROME2")], true), "x").unwrap();
    assert_eq!(signed.pixels, [1648, 1748, 1848, 1948, 2048, 2148, 2248, 2348]);
}

/// PS3.3, C.11.2.1.2.1: a linear window of center 2048 and width 4096 takes 0 to black and 4095 to white.
#[test]
fn the_window_of_a_dicom_x_ray_is_in_its_pixels() {
    let window = |texts: &[(u32, &'static str, &str)], signed| {
        let center = [
            (PHOTOMETRIC, "CS", "MONOCHROME2"),
            (0x0028_1050, "DS", "2048\\1"),
            (0x0028_1051, "DS", "4096\\2"),
        ];
        let of = |tag: u32| !texts.iter().any(|text| text.0 == tag);
        let texts: Vec<_> =
            center.into_iter().filter(|text| of(text.0)).chain(texts.iter().copied()).collect();
        read(&x_ray(&texts, signed), "x").unwrap().voi_window
    };
    assert_eq!(window(&[], false), Some([0.0, 4095.0]));
    let exact = (0x0028_1056, "CS", "LINEAR_EXACT");
    assert_eq!(window(&[exact], false), Some([0.0, 4096.0]));
    let (center, width) = ((0x0028_1050, "DS", "300"), (0x0028_1051, "DS", "200"));
    assert_eq!(window(&[exact, center, width], false), Some([200.0, 400.0]));
    let inverted = (PHOTOMETRIC, "CS", "MONOCHROME1");
    assert_eq!(window(&[exact, center, width, inverted], false), Some([3695.0, 3895.0]));
    assert_eq!(window(&[exact, center, width], true), Some([2248.0, 2448.0]));
    let (intercept, slope) = ((0x0028_1052, "DS", "100"), (0x0028_1053, "DS", "-2"));
    assert_eq!(window(&[exact, center, width, intercept, slope], false), Some([-150.0, -50.0]));
    assert_eq!(window(&[(0x0028_1051, "DS", "0")], false), None);
}

#[test]
fn the_spacing_of_a_dicom_x_ray_is_the_patients_or_the_detectors() {
    let spacing = |texts: &[(u32, &'static str, &str)]| {
        let image =
            read(&x_ray(&[&[(PHOTOMETRIC, "CS", "MONOCHROME2")], texts].concat(), false), "x").unwrap();
        (image.spacing_mm, image.warnings)
    };
    let (patient, detector) = ((0x0028_0030, "DS", "0.2\\0.1"), (0x0018_1164, "DS", "0.4\\0.3"));
    assert_eq!(spacing(&[patient, detector]), (Some([0.1, 0.2]), vec![]));
    let told =
        "the spacing is that at the detector; the patient is nearer to the source and smaller".to_owned();
    assert_eq!(spacing(&[(0x0028_0030, "DS", "0.000\\0.000"), detector]), (Some([0.3, 0.4]), vec![told]));
    assert_eq!(spacing(&[(0x0028_0030, "DS", "0.000\\0.000")]), (None, vec![]));
}

#[test]
fn padding_is_black_also_where_the_lowest_value_is_white() {
    let texts = [(PHOTOMETRIC, "CS", "MONOCHROME1"), (0x0028_0120, "US", "\0\0")];
    let image = read(&x_ray(&texts, false), "x").unwrap();
    assert_eq!(image.pixels, [0, 3995, 3895, 3795, 3695, 3595, 3495, 3395]);
    assert_eq!(image.warnings, ["1 of 8 pixels have the padding value and were made black"]);
}

#[test]
fn a_dicom_file_that_is_no_one_image_is_refused() {
    let whole = x_ray(&[(PHOTOMETRIC, "CS", "MONOCHROME2")], false);
    for length in 0..whole.len() {
        assert!(read(&whole[..length], "x").is_err(), "cut to {length} of {}", whole.len());
    }
    let frames = [(PHOTOMETRIC, "CS", "MONOCHROME2"), (0x0028_0008, "IS", "2")];
    assert!(problem(&x_ray(&frames, false)).contains("pixel data needs 32 bytes and 16 are there"));
}

#[test]
fn a_window_that_the_file_lacks_is_told() {
    let rule = Preparation { window: WindowRule::Voi, crop: None, size: [4, 2], fit: Fit::Pad, bits: 8 };
    assert_eq!(prepare(&grey(4, vec![0, 1, 2, 3], 8), &rule), Err(PrepareError::NoVoiWindow));
    let texts = [(PHOTOMETRIC, "CS", "MONOCHROME1"), (0x0028_1050, "DS", "350"), (0x0028_1051, "DS", "501")];
    let prepared = prepare(&read(&x_ray(&texts, false), "x").unwrap(), &rule).unwrap();
    assert_eq!(prepared.pixels, [255, 255, 204, 153, 102, 51, 0, 0]);
}

/// PS3.3, C.11.2.1.3.1 and C.11.2.1.1: half white at the center of a sigmoid; a table's own shades, and its ends beyond it.
#[test]
fn sigmoids_and_tables_are_no_straight_lines() {
    let rule = Preparation { window: WindowRule::Voi, crop: None, size: [4, 2], fit: Fit::Stretch, bits: 8 };
    let sigmoid = |photometric| {
        let texts = [
            (PHOTOMETRIC, "CS", photometric),
            (0x0028_1050, "DS", "300"),
            (0x0028_1051, "DS", "400"),
            (0x0028_1056, "CS", "SIGMOID"),
        ];
        prepare(&read(&x_ray(&texts, false), "x").unwrap(), &rule).unwrap()
    };
    let expected = (0..8)
        .map(|n| (255.0 / (1.0 + (-4.0 * (100.0 * f64::from(n) - 300.0) / 400.0).exp())).round() as u16);
    let expected: Vec<u16> = expected.collect();
    assert_eq!(sigmoid("MONOCHROME2").pixels, expected);
    assert_eq!(sigmoid("MONOCHROME2").window, [100.0, 500.0]);
    let inverted: Vec<u16> =
        expected.iter().map(|&shade| if shade == 128 { 128 } else { 255 - shade }).collect();
    assert_eq!(sigmoid("MONOCHROME1").pixels, inverted);
    // Three entries of 10 bits from 200 on: 0, then half, then white. An item of two elements of explicit length.
    let table = |count: u8| {
        let mut item = vec![0x28, 0, 2, 0x30, b'U', b'S', 6, 0, count, 0, 200, 0, 10, 0];
        item.extend([0x28, 0, 6, 0x30, b'U', b'S', 6, 0, 0, 0, 0xff, 1, 0xff, 3]);
        let mut sequence = vec![0xfe, 0xff, 0, 0xe0, item.len() as u8, 0, 0, 0];
        sequence.extend(item);
        let plain = x_ray(&[(PHOTOMETRIC, "CS", "MONOCHROME2")], false);
        let pixels = plain.windows(4).position(|tag| tag == [0xe0, 0x7f, 0x10, 0]).unwrap();
        let header = [0x28, 0, 0x10, 0x30, b'S', b'Q', 0, 0, sequence.len() as u8, 0, 0, 0];
        read(&[&plain[..pixels], &header, &sequence, &plain[pixels..]].concat(), "x").unwrap()
    };
    let image = table(3);
    assert_eq!((image.voi_window, image.warnings.len()), (Some([200.0, 202.0]), 0));
    let shades = image.voi_shades.as_ref().unwrap();
    assert_eq!([0, 200, 202, 4095].map(|value| shades[value]), [0.0, 0.0, 1.0, 1.0]);
    assert!((shades[201] - 511.0 / 1023.0).abs() < 1e-12);
    assert_eq!(prepare(&image, &rule).unwrap().pixels, [0, 0, 0, 255, 255, 255, 255, 255]);
    let broken = table(9);
    assert_eq!((broken.voi_window, broken.voi_shades), (None, None));
    assert_eq!(
        broken.warnings,
        [
            "broken header: its VOI lookup table has 3 entries of 10 bits; expected 9 of 8 to 16; the table was left out"
        ]
    );
}

/// pydicom's and GDCM's test files: sizes and bits as pydicom 3.0.2 tells them, but for one whose codestream has 16 bits.
#[test]
fn odd_dicom_files_are_read_or_refused() {
    let Some(folder) = crate::reference::folder() else { return };
    let found = |name: &str| {
        let image = super::read_named(&folder.join("dicom_odd").join(name), name);
        match image {
            Ok(image) => {
                format!("{}x{} {} bits {}", image.width, image.height, image.bits, image.photometric)
            }
            Err(error) => error.to_string(),
        }
    };
    for (name, expected) in ODD {
        assert_eq!(found(name), expected, "{name}");
    }
}

const ODD: [(&str, &str); 17] = [
    ("no-pixel-data.dcm", "no-pixel-data.dcm: there are no pixel data; expected an image"),
    ("pydicom_693_J2KI.dcm", "512x512 16 bits MONOCHROME2"),
    ("pydicom_CT_small.dcm", "128x128 16 bits MONOCHROME2"),
    ("pydicom_ExplVR_BigEnd.dcm", "pydicom_ExplVR_BigEnd.dcm: an image in colours; expected a grey one"),
    ("pydicom_J2K_pixelrep_mismatch.dcm", "512x512 13 bits MONOCHROME2"),
    ("pydicom_JPEG2000.dcm", "256x1024 16 bits MONOCHROME2"),
    ("pydicom_JPGExtended.dcm", "256x1024 12 bits MONOCHROME2"),
    ("pydicom_MR_small_RLE.dcm", "64x64 16 bits MONOCHROME2"),
    ("pydicom_MR_small_bigendian.dcm", "64x64 16 bits MONOCHROME2"),
    ("pydicom_MR_small_jp2klossless.dcm", "64x64 16 bits MONOCHROME2"),
    ("pydicom_MR_small_jpeg_ls_lossless.dcm", "64x64 16 bits MONOCHROME2"),
    ("pydicom_MR_small_padded.dcm", "64x64 16 bits MONOCHROME2"),
    (
        "pydicom_MR_truncated.dcm",
        "pydicom_MR_truncated.dcm: truncated: the pixel data needs 8192 bytes and 8130 are there; copy the file again from \
         its source",
    ),
    ("pydicom_badVR.dcm", "pydicom_badVR.dcm: 32 bits allocated; expected 8 or 16"),
    ("pydicom_image_dfl.dcm", "512x512 8 bits MONOCHROME2"),
    (
        "pydicom_meta_missing_tsyntax.dcm",
        "pydicom_meta_missing_tsyntax.dcm: broken header: it has no rows and no columns; expected at least one of each",
    ),
    ("pydicom_no_meta.dcm", "128x128 16 bits MONOCHROME2"),
];
