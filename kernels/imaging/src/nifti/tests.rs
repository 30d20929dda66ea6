//! Reading against nibabel and SimpleITK, refusing what is broken, and writing.

use std::path::Path;

use proptest::prelude::*;

use super::{ReadProblem, read, read_file, write};
use crate::geometry::Geometry;
use crate::orientation::Orientation;
use crate::reference::golden::{self, numbers};
use crate::reference::{canonical, check_values, folder, triple};
use crate::stored::{AffineSource, StoredVolume};
use crate::volume::Volume;

/// A small volume with a different value in every voxel, 0.8 x 0.7 x 2.5 mm.
fn ramp(shape: [usize; 3], orientation: &str) -> Volume {
    let mut geometry = Geometry::from_spacing(shape, [0.8, 0.7, 2.5], orientation.parse().unwrap());
    geometry.set_column(3, [-12.5, 30.25, -1204.75]);
    let hounsfield = (0..geometry.voxel_count()).map(|place| place as i16 - 1024).collect();
    Volume { geometry, hounsfield }
}

fn patched(bytes: &[u8], at: usize, field: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + field.len()].copy_from_slice(field);
    bytes
}

fn problem(bytes: &[u8]) -> ReadProblem {
    read(bytes, "test.nii").expect_err("the file must be refused").problem
}

fn close(found: &[f64], expected: &[f64], tolerance: f64) -> bool {
    found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= tolerance)
}

#[test]
fn every_reference_file_has_the_reference_geometry_and_values() {
    let Some(folder) = folder() else { return };
    for (file, entry) in golden::read(&folder)["nifti"].as_object().unwrap() {
        let nifti = read_file(&folder.join(file)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(nifti.geometry.shape, triple(&entry["stored_shape"]), "{file}");
        assert_eq!(nifti.dtype, numpy_name(entry["dtype"].as_str().unwrap()), "{file}");
        let scaling = nifti.scaling.unwrap_or((1.0, 0.0));
        let expected = (entry["slope"].as_f64().unwrap_or(1.0), entry["inter"].as_f64().unwrap_or(0.0));
        assert_eq!(scaling, expected, "{file}");
        let coded = |key: &str| entry[key].as_i64().unwrap() > 0;
        let stored = if coded("sform_code") || coded("qform_code") {
            let geometry = &nifti.geometry;
            let source = if coded("sform_code") { AffineSource::Sform } else { AffineSource::Qform };
            assert_eq!(nifti.affine_source, source, "{file}");
            assert_eq!(entry["axcodes"], geometry.orientation(), "{file}");
            assert!(
                close(geometry.affine.as_flattened(), &numbers(&entry["affine"]), 1e-6),
                "{file}: {geometry:?}"
            );
            assert!(close(&geometry.spacing_mm(), &numbers(&entry["affine_column_norms"]), 1e-9), "{file}");
            assert_eq!(geometry.sheared(), entry["max_nonorthogonality"].as_f64().unwrap() > 1e-3, "{file}");
            let ras =
                crate::orientation::Reordering::between(geometry.closest_orientation(), Orientation::RAS)
                    .geometry(geometry);
            assert!(close(ras.affine.as_flattened(), &numbers(&entry["canonical_affine"]), 1e-4), "{file}");
            geometry.closest_orientation()
        } else {
            assert_eq!(nifti.affine_source, AffineSource::None, "{file}");
            assert!(nifti.warnings.iter().any(|warning| warning.starts_with("no orientation")), "{file}");
            // The golden values follow nibabel, which invents LAS for such a file.
            "LAS".parse().unwrap()
        };
        let (values, shape) = canonical(&nifti, stored);
        check_values(file, &values, shape, &entry["canonical"], 1e-3);
    }
}

/// The golden values name a big-endian type by its numpy code.
fn numpy_name(dtype: &str) -> &str {
    match dtype {
        ">i2" => "int16",
        ">f4" => "float32",
        plain => plain,
    }
}

/// 28 storages of one volume: containers, byte orders, types, scalings, axes, transforms, superfluous axes.
#[test]
fn every_storage_of_one_volume_reads_the_same() {
    let Some(folder) = folder() else { return };
    let base = read_file(&folder.join("nifti_derived/same_physical/00_base_LPS_i16.nii")).unwrap();
    let mut files = golden::read(&folder)["derived"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    files.retain(|file| file.contains("/same_physical/"));
    files.extend(
        ["05_pair.hdr", "06_pair_gz.hdr.gz"].map(|name| format!("nifti_derived/same_physical/{name}")),
    );
    files.push("nifti_derived/special/units_micron.nii".to_owned());
    files.push("nifti_derived/special/vox_offset_0.nii".to_owned());
    files.push("nifti_derived/special/units_unknown.nii".to_owned());
    files.push("nifti_derived/errors/nii_named_gz.nii.gz".to_owned());
    assert!(files.len() >= 34, "{}", files.len());
    for file in files {
        let nifti = read_file(&folder.join(&file)).unwrap_or_else(|error| panic!("{error}"));
        same_when_oriented(&file, &nifti, &base);
    }
}

fn same_when_oriented(file: &str, nifti: &StoredVolume, base: &StoredVolume) {
    let stored = nifti.geometry.closest_orientation();
    let (found, shape) = canonical(nifti, stored);
    let (expected, expected_shape) = canonical(base, base.geometry.closest_orientation());
    assert_eq!(shape, expected_shape, "{file}");
    let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart <= 1e-4, "{file}: values differ by {apart}");
    let ras = |nifti: &StoredVolume, stored| {
        crate::orientation::Reordering::between(stored, Orientation::RAS).geometry(&nifti.geometry).affine
    };
    let (a, b) = (ras(nifti, stored), ras(base, base.geometry.closest_orientation()));
    assert!(close(a.as_flattened(), b.as_flattened(), 1e-3), "{file}: {a:?} {b:?}");
}

#[test]
fn odd_files_are_read_with_a_warning() {
    let Some(folder) = folder() else { return };
    let warned = [
        ("nifti_derived/special/no_codes_pixdim_only.nii", "no orientation"),
        ("nifti_derived/special/units_unknown.nii", "taken as mm"),
        ("nifti_derived/special/vox_offset_0.nii", "vox_offset is 0"),
        ("nifti_derived/errors/nii_named_gz.nii.gz", "not gzip, unlike its name"),
        ("nifti_derived/same_physical/27_sform_wins_over_different_qform.nii", "mm apart; the sform is used"),
        ("nifti_odd/niivue_shear.nii.gz", "mm apart; the sform is used"),
    ];
    for (file, words) in warned {
        let nifti = read_file(&folder.join(file)).unwrap_or_else(|error| panic!("{error}"));
        assert!(nifti.warnings.iter().any(|warning| warning.contains(words)), "{file}: {:?}", nifti.warnings);
    }
    let unwarned = read_file(&folder.join("nifti_derived/same_physical/02_gz.nii.gz")).unwrap();
    assert_eq!(unwarned.warnings, Vec::<String>::new());
}

#[test]
fn values_beyond_16_bits_do_not_wrap() {
    let Some(folder) = folder() else { return };
    for (file, value) in [("i16_slope2_exceeds_int16.nii", 65534.0), ("u16_60000.nii", 60000.0)] {
        let nifti = read_file(&folder.join("nifti_derived/special").join(file)).unwrap();
        assert!(nifti.to_f32().iter().all(|&found| found == value), "{file}");
        let (hounsfield, saturated) = nifti.hounsfield_i16();
        assert_eq!((hounsfield, saturated), (vec![3071; 64], 64), "{file}");
    }
}

#[test]
fn tilted_and_single_slice_files_keep_their_geometry() {
    let Some(folder) = folder() else { return };
    let sheared = read_file(&folder.join("nifti_derived/special/shear15_sform_only.nii")).unwrap();
    assert!(sheared.geometry.sheared());
    let single = read_file(&folder.join("nifti_derived/special/single_slice.nii")).unwrap();
    assert_eq!(single.geometry.shape, [32, 28, 1]);
}

#[test]
fn what_is_broken_or_no_volume_is_refused_with_its_reason() {
    let Some(folder) = folder() else { return };
    let refused = [
        ("nifti_derived/errors/bad_crc.nii.gz", "damaged gzip stream"),
        ("nifti_derived/errors/gz_missing_trailer.nii.gz", "ends before its trailer"),
        ("nifti_derived/errors/truncated.nii.gz", "ends before its trailer"),
        ("nifti_derived/errors/truncated_data.nii", "needs 29024 bytes and 28024 are there"),
        ("nifti_derived/errors/truncated_header.nii", "the header needs 348 bytes and 200 are there"),
        ("nifti_derived/errors/dim0_nine.nii", "dim[0] is 9"),
        ("nifti_derived/errors/dim0_zero.nii", "dim[0] is 0"),
        ("nifti_derived/errors/dim_zero.nii", "at least one voxel along each axis"),
        ("nifti_derived/errors/dim_overflow.nii", "a 7-D image of 32767 x 32767"),
        ("nifti_derived/errors/empty.nii", "it is empty"),
        ("nifti_derived/errors/empty.nii.gz", "it is empty"),
        ("nifti_derived/errors/magic_bad.nii", "the magic"),
        ("nifti_derived/errors/png_named_nii.nii", "it is a PNG image"),
        ("nifti_derived/errors/vox_offset_huge.nii", "bytes"),
        ("nifti_derived/special/4d_two_volumes.nii", "32 x 28 x 16 x 2; expected one 3-D volume"),
        ("nifti_derived/special/dim2d.nii", "a 2-D image of 32 x 28"),
        ("nifti_derived/special/nan_inf_voxels.nii", "3 of 14336 voxels are NaN or infinite"),
        ("nifti_odd/nibabel_functional.nii", "expected one 3-D volume"),
        ("nifti_odd/nibabel_example4d.nii.gz", "expected one 3-D volume"),
        ("nifti_odd/nibabel_example_nifti2.nii.gz", "expected one 3-D volume"),
        ("nifti_odd/nibabel_resampled_anat_moved.nii", "voxels are NaN or infinite"),
        ("nifti_odd/nibabel_analyze.hdr", "Analyze 7.5"),
        ("nifti_odd/nibabel_nifti1.hdr", "expected the .img or .img.gz"),
        ("nifti_odd/niivue_ct_perfusion_4d.nii.gz", "expected"),
        ("nifti_odd/nifti-rs/rgb/3D.nii", "RGB colour voxels"),
        ("nifti_odd/nifti-rs/rgba/4D.nii", "expected"),
        ("nifti_odd/nifti-rs/complex/complex32.nii", "a 2-D image of 3 x 3"),
        ("nifti_odd/no_such_file.nii", "cannot be read"),
    ];
    for (file, reason) in refused {
        let error = read_file(&folder.join(file)).expect_err(file).to_string();
        println!("{}", error.trim_start_matches(folder.to_str().unwrap()));
        assert!(error.contains(file) && error.contains(reason), "{error}");
    }
}

#[test]
fn crash_inputs_of_another_reader_do_no_harm() {
    let Some(folder) = folder() else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(folder.join("nifti_odd/nifti-rs/fuzz")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        if let Err(error) = read(&bytes, "fuzz") {
            assert!(!error.to_string().is_empty());
        }
        seen += 1;
    }
    assert!(seen >= 5);
}

#[test]
fn pairs_are_found_from_either_half_and_across_compression() {
    let Some(folder) = folder() else { return };
    let folder = folder.join("nifti_odd/nifti-rs");
    let expected = read_file(&folder.join("minimal.nii")).unwrap().to_f32();
    for half in
        ["minimal.hdr", "minimal.img", "minimal.hdr.gz", "minimal.img.gz", "minimal2.hdr", "minimal2.img.gz"]
    {
        let nifti = read_file(&folder.join(half)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(nifti.to_f32(), expected, "{half}");
    }
    let header = std::fs::read(folder.join("minimal.hdr")).unwrap();
    assert!(matches!(problem(&header), ReadProblem::Pair(_)));
}

#[test]
fn what_is_written_is_read_back_from_every_orientation() {
    for orientation in all_orientations() {
        let volume = ramp([5, 4, 3], &orientation.to_string());
        for gz in [false, true] {
            let bytes = write(&volume, gz);
            assert_eq!(bytes, write(&volume, gz), "the same bytes every time");
            let name = if gz { "ramp.nii.gz" } else { "ramp.nii" };
            let nifti = read(&bytes, name).unwrap();
            assert_eq!(nifti.warnings, Vec::<String>::new(), "sform and qform agree for {orientation}");
            assert_eq!(nifti.geometry.orientation(), orientation.to_string());
            assert!(close(nifti.geometry.affine.as_flattened(), volume.geometry.affine.as_flattened(), 1e-4));
            assert_eq!(nifti.hounsfield_i16(), (volume.hounsfield.clone(), 0));
            let (read, saturated) = nifti.into_volume();
            assert_eq!((read.hounsfield, saturated), (volume.hounsfield.clone(), 0));
        }
    }
}

#[test]
fn the_written_qform_alone_places_an_oblique_volume() {
    let mut volume = ramp([5, 4, 3], "RAS");
    let (sine, cosine) = (f64::sin(0.3), f64::cos(0.3));
    for mirrored in [1.0, -1.0] {
        volume.geometry.set_column(0, [0.8 * cosine, 0.8 * sine, 0.0]);
        volume.geometry.set_column(1, [-0.7 * sine, 0.7 * cosine, 0.0]);
        volume.geometry.set_column(2, [0.0, 0.0, 2.5 * mirrored]);
        let bytes = patched(&write(&volume, false), 254, &0_i16.to_le_bytes());
        let nifti = read(&bytes, "oblique.nii").unwrap();
        assert_eq!(nifti.affine_source, AffineSource::Qform);
        assert!(close(nifti.geometry.affine.as_flattened(), volume.geometry.affine.as_flattened(), 1e-4));
    }
}

#[test]
fn a_sheared_volume_is_written_without_a_qform() {
    let mut volume = ramp([5, 4, 3], "RAS");
    volume.geometry.affine[1][2] = 0.67;
    let bytes = write(&volume, false);
    assert_eq!(bytes[252..256], [0, 0, 1, 0]);
    assert!(read(&bytes, "sheared.nii").unwrap().geometry.sheared());
}

#[test]
fn every_number_type_and_byte_order_reads_the_same_values() {
    let volume = ramp([3, 2, 2], "LPS");
    let header = write(&volume, false)[..352].to_vec();
    macro_rules! check {
        ($($code:literal $number:ty),*) => {$(
            let values: [$number; 12] = std::array::from_fn(|place| (place * 10) as $number);
            let mut header = patched(&header, 70, &i16::to_le_bytes($code));
            header[72] = 8 * size_of::<$number>() as u8;
            header[112..120].copy_from_slice(&[2_f32.to_le_bytes(), (-100_f32).to_le_bytes()].concat());
            let little = [header.clone(), values.iter().flat_map(|v| v.to_le_bytes()).collect()].concat();
            let big = [big_endian(&header), values.iter().flat_map(|v| v.to_be_bytes()).collect()].concat();
            let expected: [f32; 12] = std::array::from_fn(|place| place as f32 * 20.0 - 100.0);
            for bytes in [little, big] {
                let nifti = read(&bytes, "types.nii").unwrap();
                assert_eq!(nifti.dtype.trim_start_matches("uint").trim_start_matches("int").trim_start_matches("float"),
                    (8 * size_of::<$number>()).to_string());
                assert_eq!(nifti.to_f32(), expected);
                assert_eq!(nifti.geometry.orientation(), "LPS");
                assert_eq!(nifti.voxels.to_i16(nifti.scaling, (0, 50)).1, 9);
            }
        )*};
    }
    check!(2 u8, 256 i8, 512 u16, 4 i16, 768 u32, 8 i32, 1280 u64, 1024 i64, 16 f32, 64 f64);
}

/// A NIfTI-1 header with the bytes of every field that the reader looks at reversed.
fn big_endian(header: &[u8]) -> Vec<u8> {
    let mut bytes = header.to_vec();
    let mut reverse =
        |from: usize, to: usize, size: usize| bytes[from..to].chunks_mut(size).for_each(<[u8]>::reverse);
    reverse(0, 4, 4);
    reverse(40, 56, 2);
    reverse(70, 74, 2);
    reverse(76, 120, 4);
    reverse(252, 256, 2);
    reverse(256, 328, 4);
    bytes
}

#[test]
fn slope_zero_or_not_a_number_means_no_scaling() {
    let bytes = write(&ramp([3, 2, 2], "RAS"), false);
    for slope in [0.0, f32::NAN, f32::INFINITY] {
        let bytes = patched(&bytes, 112, &[slope.to_le_bytes(), 7_f32.to_le_bytes()].concat());
        let nifti = read(&bytes, "slope.nii").unwrap();
        assert_eq!((nifti.scaling, nifti.to_f32()[0]), (None, -1024.0));
    }
    let bytes = patched(&bytes, 112, &[2_f32.to_le_bytes(), f32::NAN.to_le_bytes()].concat());
    assert!(matches!(problem(&bytes), ReadProblem::Header(_)));
}

#[test]
fn voxels_that_are_not_one_real_number_are_refused() {
    let bytes = write(&ramp([3, 2, 2], "RAS"), false);
    for (code, kind) in [
        (1_i16, "one bit"),
        (32, "complex"),
        (128, "RGB colour"),
        (1536, "128-bit"),
        (2304, "RGBA"),
        (7, "unknown"),
    ] {
        let refused = problem(&patched(&bytes, 70, &code.to_le_bytes()));
        assert!(
            matches!(refused, ReadProblem::Unsupported(_)) && refused.to_string().contains(kind),
            "{refused}"
        );
    }
}

#[test]
fn scaled_values_that_overflow_are_refused() {
    let bytes = write(&ramp([3, 2, 2], "RAS"), false);
    let bytes = patched(&bytes, 112, &f32::MAX.to_le_bytes());
    assert!(matches!(problem(&bytes), ReadProblem::NotFinite { count: 12, of: 12, first: [0, 0, 0] }));
}

#[test]
fn half_way_values_round_to_even_and_the_ends_saturate() {
    let volume = ramp([3, 2, 2], "RAS");
    let values: [f32; 12] =
        [-1024.5, -1024.6, -1.5, -0.5, 0.5, 1.5, 2.5, 3071.4, 3071.5, 3071.6, 1e30, -1e30];
    let header = patched(&write(&volume, false)[..352], 70, &[16, 0, 32, 0]);
    let bytes = [header, values.iter().flat_map(|value| value.to_le_bytes()).collect()].concat();
    let (hounsfield, saturated) = read(&bytes, "half.nii").unwrap().hounsfield_i16();
    assert_eq!(hounsfield, [-1024, -1024, -2, 0, 0, 2, 2, 3071, 3071, 3071, 3071, -1024]);
    assert_eq!(saturated, 4);
}

#[test]
fn conversion_in_place_equals_the_general_one() {
    let geometry = Geometry::from_spacing([61, 37, 29], [0.8, 0.7, 2.5], Orientation::RAS);
    let hounsfield =
        (0..geometry.voxel_count()).map(|place| (place as u16).wrapping_mul(7919) as i16).collect();
    let volume = Volume { geometry, hounsfield };
    let nifti = read(&write(&volume, true), "in_place.nii.gz").unwrap();
    let (general, saturated) = nifti.hounsfield_i16();
    assert!(saturated > 1000);
    let (in_place, count) = nifti.into_volume();
    assert!(in_place.hounsfield == general && count == saturated);
}

#[test]
fn a_scaling_that_is_taken_away_is_not_applied() {
    let bytes = patched(&write(&ramp([3, 2, 2], "RAS"), false), 112, &2_f32.to_le_bytes());
    let mut nifti = read(&bytes, "already.nii").unwrap();
    assert_eq!((nifti.scaling, nifti.to_f32()[11]), (Some((2.0, 0.0)), -2026.0));
    nifti.scaling = None;
    assert_eq!(
        (nifti.to_f32()[11], nifti.hounsfield_i16().0[11], nifti.into_volume().0.hounsfield[11]),
        (-1013.0, -1013, -1013)
    );
}

#[test]
fn metres_become_millimetres() {
    let bytes = patched(&write(&ramp([3, 2, 2], "RAS"), false), 123, &[1]);
    let spacing = read(&bytes, "metres.nii").unwrap().geometry.spacing_mm();
    assert!(close(&spacing, &[800.0, 700.0, 2500.0], 1e-3));
}

#[test]
fn a_transform_that_does_not_span_space_is_refused() {
    let bytes = patched(&write(&ramp([3, 2, 2], "RAS"), false), 280, &[0; 48]);
    assert!(problem(&bytes).to_string().contains("source: sform"));
}

#[test]
fn garbage_between_gzip_members_is_refused_and_zeros_are_not() {
    let packed = write(&ramp([5, 4, 3], "RAS"), true);
    assert!(read(&[packed.clone(), vec![0; 512]].concat(), "padded.nii.gz").is_ok());
    let followed = read(&[packed, b"garbage".to_vec()].concat(), "followed.nii.gz").unwrap_err();
    assert!(followed.to_string().contains("bytes after the last member"));
}

#[test]
fn a_small_file_that_claims_a_huge_volume_is_refused_at_once() {
    let bytes = patched(&write(&ramp([5, 4, 3], "RAS"), false), 42, &[0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f]);
    let ReadProblem::Truncated { expected, actual, .. } = problem(&bytes) else {
        panic!("expected truncated")
    };
    assert_eq!((expected, actual), (352 + 2 * 32767_u64.pow(3), bytes.len() as u64));
}

#[test]
fn a_missing_half_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let header = patched(&write(&ramp([3, 2, 2], "RAS"), false)[..348], 344, b"ni1\0");
    let header = patched(&header, 108, &0_f32.to_le_bytes());
    let path = folder.path().join("scan.hdr");
    std::fs::write(&path, header).unwrap();
    let error = read_file(&path).unwrap_err().to_string();
    assert!(error.contains("expected the .img or .img.gz"), "{error}");
    std::fs::write(folder.path().join("scan.img"), vec![0; 23]).unwrap();
    let error = read_file(Path::new(&path)).unwrap_err().to_string();
    assert!(error.contains("needs 24 bytes and 23 are there"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn no_prefix_of_a_file_is_a_volume(cut in 0.0..1.0_f64, gz in any::<bool>()) {
        let bytes = write(&ramp([5, 4, 3], "LPS"), gz);
        let prefix = &bytes[..(cut * bytes.len() as f64) as usize];
        prop_assert!(read(prefix, "prefix").is_err());
    }

    /// A changed bit either fails a check or, like the padding of the last deflate block, carries nothing.
    #[test]
    fn damaged_gzip_never_changes_a_voxel(place in 10..100_usize, bit in 0..8_u32) {
        let volume = ramp([5, 4, 3], "LPS");
        let mut bytes = write(&volume, true);
        bytes[place] ^= 1 << bit;
        if let Ok(nifti) = read(&bytes, "damaged") {
            prop_assert_eq!(nifti.hounsfield_i16().0, volume.hounsfield);
        }
    }

    #[test]
    fn a_damaged_header_does_no_harm(changes in prop::collection::vec((0..352_usize, any::<u8>()), 1..6)) {
        let mut bytes = write(&ramp([5, 4, 3], "LPS"), false);
        for (place, value) in changes {
            bytes[place] = value;
        }
        if let Ok(nifti) = read(&bytes, "damaged") {
            prop_assert_eq!(nifti.voxels.len(), nifti.geometry.voxel_count());
            prop_assert!(nifti.geometry.spacing_mm().iter().all(|mm| mm.is_finite() && *mm > 0.0));
        }
    }
}

fn all_orientations() -> Vec<Orientation> {
    let lines = [['L', 'R'], ['P', 'A'], ['I', 'S']];
    let mut all = Vec::new();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for signs in 0..8 {
            let letters: String = (0..3).map(|axis| lines[order[axis]][signs >> axis & 1]).collect();
            all.push(letters.parse().unwrap());
        }
    }
    all
}
