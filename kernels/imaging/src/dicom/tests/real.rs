//! Real files against pydicom 3.0.2 with Pillow and GDCM, where they are: geometry, Hounsfield units, and one slice in 15
//! transfer syntaxes.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::dicom::{
    Found, Image, Rescale, Slice, Uneven, image, read_header, read_image, read_series, stacks,
};
use crate::reference::{self, golden};

/// The files of a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn slices(files: &[PathBuf]) -> Vec<Slice> {
    files.iter().map(|path| Slice::from(&read_header(path, "a", &[]).unwrap())).collect()
}

fn only(slices: &[Slice]) -> Found {
    let mut found = stacks(slices, Uneven::Refuse);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Compares the Hounsfield units of a slice with pydicom's.
fn check_slice(what: &str, image: &Image, expected: &Value, tolerance_hu: f64) {
    let (slope, intercept) = image.header.rescale().unwrap();
    let values: Vec<f64> = image.values.iter().map(|&stored| f64::from(stored) * slope + intercept).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let near = |found: f64, name: &str| {
        let expected = expected[name].as_f64().unwrap();
        assert!((found - expected).abs() <= tolerance_hu, "{what}: {name} is {found}, expected {expected}");
    };
    near(mean, "hu_mean");
    near(least, "hu_min");
    near(most, "hu_max");
    let Some(_) = expected.get("hu_at_256_256") else { return };
    let middle = image.rows / 2 * image.columns + image.columns / 2;
    near(values[middle], "hu_at_256_256");
}

#[test]
fn series_are_placed_and_scaled_as_pydicom_does() {
    let Some(data) = reference::folder() else { return };
    let reference = golden::read(&data);
    for name in ["totalseg_j2k_series", "philips_tilt_regular", "pydicom_CT5N_tiny"] {
        let expected = &reference["dicom"][format!("dicom_ct/{name}")];
        let files = files(&data.join("dicom_ct").join(name));
        let found = only(&slices(&files));
        let ordered: Vec<&PathBuf> = found.slices.iter().map(|&place| &files[place]).collect();
        let geometry = found.stack.unwrap().geometry;
        let file_name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(Value::from(file_name(ordered[0])), expected["first_file"], "{name}");
        assert_eq!(Value::from(file_name(ordered[ordered.len() - 1])), expected["last_file"], "{name}");
        let step = golden::numbers(&expected["ipp_step_first"]);
        let first = golden::numbers(&expected["ipp_first"]);
        for (axis, sign) in [-1.0, -1.0, 1.0].into_iter().enumerate() {
            assert!((geometry.affine[axis][2] - sign * step[axis]).abs() < 1e-4, "{name}: {geometry:?}");
            assert!((geometry.affine[axis][3] - sign * first[axis]).abs() < 1e-9, "{name}: {geometry:?}");
        }
        let tilt = expected["shear_deg"].as_f64().unwrap();
        assert_eq!(geometry.sheared(), tilt > 0.1, "{name}");
        for (path, slice) in ordered.iter().zip(expected["slices"].as_array().unwrap()) {
            check_slice(name, &read_image(path, "a", 0).unwrap(), slice, 1e-6);
        }
        let named: Vec<(&Path, &str)> = ordered.iter().map(|path| (path.as_path(), "a")).collect();
        let series = read_series(&named, Rescale::Header).unwrap();
        assert_eq!(series.volume.geometry, geometry, "{name}");
    }
}

#[test]
fn series_that_are_no_volume_say_why() {
    let Some(data) = reference::folder() else { return };
    let said = |name: &str| {
        let found = stacks(&slices(&files(&data.join("dicom_ct").join(name))), Uneven::Refuse);
        let said: Vec<String> = found
            .into_iter()
            .map(|found| found.stack.map_or_else(|e| e.to_string(), |_| "volume".into()))
            .collect();
        said.join("\n")
    };
    assert!(
        said("monai_CT_DICOM_tiny").starts_with("161 slices are missing: behind slice 1"),
        "{}",
        said("monai_CT_DICOM_tiny")
    );
    assert!(
        said("ge_tilt_variable_spacing").starts_with("the gaps between slices are 1.081 to 6.999 mm"),
        "{}",
        said("ge_tilt_variable_spacing")
    );
    let scout = said("philips_scout");
    assert!(scout.contains("a localizer") && scout.contains("a secondary capture"), "{scout}");
    let mut regular = files(&data.join("dicom_ct/totalseg_j2k_series"));
    regular.remove(7);
    let missing = only(&slices(&regular)).stack.unwrap_err().to_string();
    assert!(missing.starts_with("1 slice is missing: behind slice"), "{missing}");
    assert!(missing.contains("a gap of 4.000 mm where others are 2.000 mm"), "{missing}");
}

#[test]
fn one_slice_in_fifteen_transfer_syntaxes() {
    let Some(data) = reference::folder() else { return };
    let reference = golden::read(&data);
    // DCT and wavelet transforms are rounded in other places than libjpeg and OpenJPEG do.
    let tolerance = |name: &str| if name.ends_with("4.50.dcm") { 1.0 } else { 1e-6 };
    let mut refused = Vec::new();
    for path in files(&data.join("dicom_ct/one_slice_all_syntaxes")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let expected = &reference["dicom"]["dicom_ct/one_slice_all_syntaxes"][name];
        match read_image(&path, "a", 0) {
            Ok(image) if expected["hu_mean"].is_number() => {
                check_slice(name, &image, expected, tolerance(name))
            }
            // pydicom does not decode it; what was compressed to 12 bits without a sign shows a chest again.
            Ok(image) => {
                assert!(name.ends_with("4.51.dcm"));
                let (low, high) = (image.values.iter().min().unwrap(), image.values.iter().max().unwrap());
                assert_eq!((image.bits, *low, *high), (12, 497, 2708));
            }
            Err(error) => refused.push(error.to_string()),
        }
    }
    let refusal = |uid: &str, codec: &str| {
        format!(
            "a: 12-bit JPEG frame type SOF2 (only sequential Huffman frames are decoded) is not decoded (transfer syntax \
             1.2.840.10008.1.2.{uid}, {codec}); convert the file to an uncompressed or losslessly compressed one first"
        )
    };
    assert_eq!(
        refused,
        [refusal("4.55", "JPEG full progression"), refusal("4.53", "JPEG spectral selection")]
    );
}

/// Decoders put zeros where data is missing; a slice that lost its middle must not come out grey.
#[test]
fn a_jpeg_codestream_that_lost_its_middle_is_refused() {
    let Some(data) = reference::folder() else { return };
    for uid in ["4.50", "4.51", "4.57", "4.70"] {
        let paths = files(&data.join("dicom_ct/one_slice_all_syntaxes"));
        let path = paths
            .iter()
            .find(|path| path.to_string_lossy().ends_with(&format!("1.2.840.10008.1.2.{uid}.dcm")));
        let mut bytes = std::fs::read(path.unwrap()).unwrap();
        let start = bytes.windows(2).position(|marker| marker == [0xff, 0xd8]).unwrap();
        let end = bytes.windows(2).rposition(|marker| marker == [0xff, 0xd9]).unwrap();
        // An even number, whose place in the length of the last fragment is mended.
        let lost = (end - start) / 4 * 2;
        let fragment = bytes[..start].len() - 4;
        let length = u32::from_le_bytes(bytes[fragment..start].try_into().unwrap());
        bytes[fragment..start].copy_from_slice(&(length - lost as u32).to_le_bytes());
        bytes.drain(end - lost..end);
        let said = image(&bytes, "a", 0).map(|image| image.values.len()).unwrap_err().to_string();
        assert!(said.starts_with("a: damaged JPEG"), "{uid}: {said}");
    }
}

#[test]
fn odd_files_are_read_or_refused_with_a_reason() {
    let Some(data) = reference::folder() else { return };
    let mut said = String::new();
    for path in files(&data.join("dicom_odd")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let read = match read_image(&path, "it", 0) {
            Ok(image) => {
                let (low, high) = (image.values.iter().min().unwrap(), image.values.iter().max().unwrap());
                format!("{} x {}, {} bits, {low} to {high}", image.columns, image.rows, image.bits)
            }
            Err(error) => error.to_string(),
        };
        said += &format!("{}: {read}\n", name.trim_start_matches("pydicom_"));
    }
    // Where two files hold one image in two syntaxes, both have its values; -2000 is the padding of the mismatched one.
    assert_eq!(said, ODD);
}

/// What is read of each, by its name less the word `pydicom_`.
const ODD: &str = "\
no-pixel-data.dcm: it: there are no pixel data; expected an image
693_J2KI.dcm: 512 x 512, 16 bits, -2971 to 2836
CT_small.dcm: 128 x 128, 16 bits, 128 to 2191
ExplVR_BigEnd.dcm: it: an image in colours; expected a grey one
J2K_pixelrep_mismatch.dcm: 512 x 512, 13 bits, -2000 to 1896
JPEG2000.dcm: 256 x 1024, 16 bits, -30 to 245
JPGExtended.dcm: 256 x 1024, 12 bits, 0 to 264
MR_small_RLE.dcm: 64 x 64, 16 bits, 127 to 2145
MR_small_bigendian.dcm: 64 x 64, 16 bits, 127 to 2145
MR_small_jp2klossless.dcm: 64 x 64, 16 bits, 127 to 2145
MR_small_jpeg_ls_lossless.dcm: 64 x 64, 16 bits, 127 to 2145
MR_small_padded.dcm: 64 x 64, 16 bits, 127 to 2145
MR_truncated.dcm: it: truncated: the pixel data needs 8192 bytes and 8130 are there; copy the file again from its source
badVR.dcm: it: 32 bits allocated; expected 8 or 16
image_dfl.dcm: 512 x 512, 8 bits, 0 to 255
meta_missing_tsyntax.dcm: it: broken header: it has no rows and no columns; expected at least one of each
no_meta.dcm: 128 x 128, 16 bits, 128 to 2191
";

#[test]
fn real_files_that_are_cut_or_changed_are_refused_or_read() {
    let Some(data) = reference::folder() else { return };
    for path in files(&data.join("dicom_odd")) {
        let bytes = std::fs::read(&path).unwrap();
        let whole = image(&bytes, "a", 0).ok();
        for part in 1..12 {
            let cut = &bytes[..bytes.len() * part / 12];
            if let (Ok(read), Some(whole)) = (image(cut, "a", 0), &whole) {
                assert_eq!(read.values, whole.values, "{}", path.display());
            }
        }
        // A fixed sequence of changes: multiplier and increment of Knuth's MMIX generator.
        let mut state = 7_u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize
        };
        for _ in 0..20 {
            let mut changed = bytes.clone();
            for _ in 0..1 + next() % 3 {
                let place = next() % bytes.len();
                changed[place] = next() as u8;
            }
            if let Ok(read) = image(&changed, "a", 0) {
                assert_eq!(read.values.len(), read.rows * read.columns, "{}", path.display());
            }
        }
    }
}
