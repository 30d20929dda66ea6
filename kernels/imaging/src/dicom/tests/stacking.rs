//! Which slices make a volume, and why others do not.

use std::path::{Path, PathBuf};

use super::files::{Made, Syntax, Value};
use crate::dicom::{Found, Rescale, Series, SeriesError, Slice, Uneven, header, read_series, stacks};

fn slice(made: &Made) -> Slice {
    Slice::from(&header(&made.file(Syntax::Explicit), "a", &[]).unwrap())
}

fn at(positions: &[f64]) -> Vec<Slice> {
    positions.iter().map(|&z| slice(&Made::slice(z, 0))).collect()
}

fn only(slices: &[Slice]) -> Found {
    let mut found = stacks(slices, Uneven::Refuse);
    assert_eq!(found.len(), 1);
    found.remove(0)
}

fn refused(slices: &[Slice]) -> String {
    only(slices).stack.unwrap_err().to_string()
}

#[test]
fn slices_are_sorted_by_position_and_placed_in_the_world() {
    let found = only(&at(&[7.0, 2.0, 4.5]));
    assert_eq!(found.slices, [1, 2, 0]);
    let geometry = found.stack.unwrap().geometry;
    assert_eq!(geometry.shape, [4, 3, 3]);
    // Columns 0.75 mm apart run to the left, rows 0.5 mm apart to posterior; x and y change their sign.
    let affine =
        [[-0.75, 0.0, 0.0, -10.0], [0.0, -0.5, 0.0, -20.0], [0.0, 0.0, 2.5, 2.0], [0.0, 0.0, 0.0, 1.0]];
    assert_eq!(geometry.affine, affine);
    assert_eq!(geometry.orientation(), "LPS");
}

#[test]
fn the_tilt_of_a_gantry_is_the_volumes_own_shear() {
    let (sine, cosine) = 18.5_f64.to_radians().sin_cos();
    let mut slices = at(&[0.0, 2.5, 5.0]);
    for slice in &mut slices {
        slice.direction_cosines = Some([1.0, 0.0, 0.0, 0.0, cosine, -sine]);
    }
    let geometry = only(&slices).stack.unwrap().geometry;
    assert!(geometry.sheared());
    assert_eq!([0, 1, 2].map(|row| geometry.affine[row][2]), [0.0, 0.0, 2.5]);
    assert!((geometry.spacing_mm()[2] - 2.5).abs() < 1e-12);
}

#[test]
fn gaps_and_duplicates_say_where_they_are() {
    assert_eq!(
        refused(&at(&[0.0, 2.0, 4.0, 8.0, 10.0])),
        "1 slice is missing: behind slice 3, in the order of positions, is a gap of 4.000 mm where others are 2.000 mm; copy \
         the series again from its source"
    );
    assert_eq!(
        refused(&at(&[0.0, 4.0, 8.0, 9.1, 16.0])),
        "the gaps between slices are 1.100 to 6.900 mm, the first odd one behind slice 3 in the order of positions; expected \
         equal ones: take the parts of equal gaps"
    );
    assert!(refused(&at(&[0.0, 2.0, 2.0, 4.0])).starts_with(
        "2 slices lie at 2.000 mm along the normal; expected one at each position: they are the same image"
    ));
    let mut over_time = at(&[0.0, 2.0, 0.0, 2.0]);
    for (number, slice) in over_time.iter_mut().enumerate() {
        slice.sop_instance_uid = Some(number.to_string());
    }
    let said = refused(&over_time);
    assert!(said.starts_with("2 slices lie at 0.000 mm along the normal, and 1 more positions"), "{said}");
    assert!(said.contains("different images"), "{said}");
    assert!(refused(&at(&[0.0])).starts_with("one slice; expected at least two"));
    // What rounding to hundredths does is no gap.
    assert!(only(&at(&[0.0, 1.67, 3.33, 5.0])).stack.is_ok());
    let mut shifted = at(&[0.0, 2.0, 4.0]);
    shifted[1].position_mm = Some([12.0, 20.0, 2.0]);
    assert!(refused(&shifted).contains("slice 2, in the order of positions, lies 2.000 mm beside the line"));
}

#[test]
fn scouts_and_captures_stand_apart_and_the_largest_part_is_the_volume() {
    let mut slices = at(&[0.0, 2.0, 4.0, 6.0]);
    let mut scout = slice(&Made::slice(50.0, 0));
    scout.image_type = vec!["ORIGINAL".into(), "PRIMARY".into(), "LOCALIZER".into()];
    let mut sagittal = slice(&Made::slice(60.0, 0));
    sagittal.direction_cosines = Some([0.0, 1.0, 0.0, 0.0, 0.0, -1.0]);
    let mut capture = slice(&Made::slice(70.0, 0));
    capture.sop_class_uid = Some("1.2.840.10008.5.1.4.1.1.7".into());
    let report = slice(&Made::slice(80.0, 0).without(0x7fe0_0010));
    let mut unplaced = slice(&Made::slice(90.0, 0));
    unplaced.pixel_spacing_mm = None;
    let mut enhanced = slice(&Made::slice(95.0, 0));
    enhanced.frames = 30;
    slices.extend([scout, sagittal, capture, report, unplaced, enhanced]);
    let said: Vec<(Vec<usize>, String)> = stacks(&slices, Uneven::Refuse)
        .into_iter()
        .map(|found| (found.slices, found.stack.map_or_else(|e| e.to_string(), |_| "a volume".to_owned())))
        .collect();
    let expected = [
        (vec![0, 1, 2, 3], "a volume"),
        (
            vec![5],
            "1 slice is of another orientation, shape, spacing or kind than the 4 that make the volume of the series",
        ),
        (vec![4], "a localizer; expected slices of a volume"),
        (vec![6], "a secondary capture; expected slices of a volume"),
        (vec![7], "an object without pixels; expected slices of a volume"),
        (
            vec![8],
            "the header does not give the pixel spacing, so the slices have no place; repair it at its source",
        ),
        (
            vec![9],
            "a multi-frame object of 30 frames in one file, which does not say where each lies; expected a position for every \
             frame, or a file for each slice",
        ),
    ];
    assert_eq!(said, expected.map(|(places, said)| (places, said.to_owned())));
}

/// Writes slices to files.
fn written(folder: &Path, slices: &[Made]) -> Vec<PathBuf> {
    let write = |(number, made): (usize, &Made)| {
        let path = folder.join(format!("{number}"));
        std::fs::write(&path, made.file(Syntax::Explicit)).unwrap();
        path
    };
    slices.iter().enumerate().map(write).collect()
}

fn read(files: &[PathBuf], rescale: Rescale) -> Result<Series, SeriesError> {
    let named: Vec<(&Path, &str)> = files.iter().map(|path| (path.as_path(), "a")).collect();
    read_series(&named, rescale)
}

#[test]
fn every_slice_is_rescaled_by_its_own_header() {
    let folder = tempfile::tempdir().unwrap();
    let second = Made::slice(2.0, 1000).with(0x0028_1053, "DS", Value::Text("2.5"));
    let files = written(folder.path(), &[Made::slice(0.0, 1000), second, Made::slice(4.0, 4084)]);
    let series = read(&files, Rescale::Header).unwrap();
    assert_eq!((series.dtype, series.saturated, series.warnings.len()), ("uint16", 0, 0));
    let voxels = &series.volume.hounsfield;
    // 1001 * 2.5 - 1024 is 1478.5: half to even.
    assert_eq!((voxels[0], voxels[12], voxels[13], voxels[24]), (-24, 1476, 1478, 3060));
    let stored = read(&files, Rescale::Told { slope: 1.0, intercept: 0.0 }).unwrap();
    assert_eq!(
        (stored.volume.hounsfield[0], stored.volume.hounsfield[24], stored.saturated),
        (1000, 3071, 12)
    );
}

#[test]
fn files_in_another_order_are_no_series() {
    let folder = tempfile::tempdir().unwrap();
    let files = written(folder.path(), &[Made::slice(4.0, 0), Made::slice(2.0, 0), Made::slice(0.0, 0)]);
    assert!(matches!(read(&files, Rescale::Header), Err(SeriesError::Order)));
    assert!(matches!(read(&[], Rescale::Header), Err(SeriesError::Order)));
}

#[test]
fn a_tilt_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let tilted =
        |z| Made::slice(z, 0).with(0x0020_0037, "DS", Value::Text("1\\0\\0\\0\\0.9483237\\-0.3173047"));
    let files = written(folder.path(), &[tilted(0.0), tilted(2.5)]);
    let series = read(&files, Rescale::Header).unwrap();
    assert_eq!(
        series.warnings,
        ["the slices are tilted by 18.5 degrees; the volume is sheared until it is resampled"]
    );
}

#[test]
fn a_series_without_rescale_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let plain = |z| Made::slice(z, 0).without(0x0028_1052).without(0x0028_1053);
    let files = written(folder.path(), &[plain(0.0), plain(1.0)]);
    let series = read(&files, Rescale::Header).unwrap();
    assert_eq!(
        series.warnings,
        ["2 of 2 slices give no rescale slope and intercept; their stored values are taken as they are"]
    );
}

#[test]
fn uneven_gaps_are_interpolated_where_that_is_asked_for() {
    let slices = at(&[0.0, 4.0, 8.0, 9.0, 16.0]);
    let found = stacks(&slices, Uneven::Resample).remove(0);
    let stack = found.stack.unwrap();
    // The mean gap is 4 mm, and the narrowest a quarter of it.
    assert_eq!((stack.geometry.shape, stack.geometry.spacing_mm()[2]), ([4, 3, 17], 1.0));
    let between = stack.between.unwrap();
    assert_eq!(between[..5], [0.0, 0.25, 0.5, 0.75, 1.0]);
    assert_eq!(between[8..10], [2.0, 3.0]);
    assert!((between[10] - (3.0 + 1.0 / 7.0)).abs() < 1e-12, "{between:?}");
    assert_eq!(between[16], 4.0);
    // What is missing stays missing, and what is even is left alone.
    let missing = stacks(&at(&[0.0, 2.0, 4.0, 8.0]), Uneven::Resample).remove(0);
    assert!(missing.stack.unwrap_err().to_string().starts_with("1 slice is missing"));
    assert_eq!(stacks(&at(&[0.0, 2.0, 4.0]), Uneven::Resample).remove(0).stack.unwrap().between, None);
}

#[test]
fn slices_at_even_steps_lie_where_a_ramp_has_their_values() {
    let folder = tempfile::tempdir().unwrap();
    // Stored values count with the position: ten a millimetre.
    let places = [0.0, 2.5, 5.0, 8.1, 10.0, 11.9];
    let made: Vec<Made> = places.iter().map(|&z| Made::slice(z, 1000 + (10.0 * z) as u16)).collect();
    let series = read(&written(folder.path(), &made), Rescale::Header).unwrap();
    let geometry = series.volume.geometry;
    assert_eq!(geometry.shape, [4, 3, 7]);
    for (k, slice) in series.volume.hounsfield.chunks(12).enumerate() {
        let [_, _, z] = geometry.index_to_world([0.0, 0.0, k as f64]);
        let expected = 10.0 * z + 1000.0 - 1024.0;
        assert!(
            (f64::from(slice[0]) - expected).abs() <= 0.5,
            "{} HU at {z} mm, expected {expected}",
            slice[0]
        );
    }
    assert_eq!(
        series.warnings,
        [
            "the gaps between the 6 slices are uneven; 7 slices at even steps of 1.983 mm were interpolated between them"
        ]
    );
}
