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
        orientation: None,
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
    assert_eq!(problem(b"BM____"), "x: not an image: it is a BMP image; expected PNG or JPEG");
    assert_eq!(problem(b"abc"), "x: not an image: its first bytes are unknown; expected PNG or JPEG");
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
        let (least, most) = (image.pixels.iter().min().unwrap(), image.pixels.iter().max().unwrap());
        for row in pixels.chunks_exact(width).skip(y).take(rows) {
            let inside = row[x..x + columns].iter().all(|pixel| pixel + 1 >= *least && *pixel <= most.saturating_add(1));
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
