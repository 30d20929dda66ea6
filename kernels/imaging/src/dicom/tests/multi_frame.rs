//! Enhanced CT: many slices in one file.

use std::path::Path;

use super::files::{Lengths, Made, Syntax, Value};
use crate::dicom::{Rescale, Series, SeriesError, Slice, Uneven, header, read_series, stacks};
use crate::reference::golden::numbers;

const SYNTAXES: [Syntax; 3] = [Syntax::Explicit, Syntax::Implicit, Syntax::Big];

fn read(files: &[Made], syntax: Syntax) -> Result<Series, SeriesError> {
    let folder = tempfile::tempdir().unwrap();
    let paths = files.iter().enumerate().map(|(number, made)| {
        let path = folder.path().join(number.to_string());
        std::fs::write(&path, made.file(syntax)).unwrap();
        path
    });
    let paths: Vec<_> = paths.collect();
    let named: Vec<(&Path, &str)> = paths.iter().map(|path| (path.as_path(), "a")).collect();
    read_series(&named, Rescale::Header)
}

fn refused(made: &Made) -> String {
    let header = header(&made.file(Syntax::Explicit), "a", &[]).unwrap();
    let found = stacks(&[Slice::from(&header)], Uneven::Refuse);
    found[0].stack.clone().unwrap_err().to_string()
}

#[test]
fn a_file_of_frames_is_read_like_a_series_of_files() {
    for (syntax, lengths) in
        SYNTAXES.into_iter().flat_map(|syntax| [(syntax, Lengths::Given), (syntax, Lengths::Undefined)])
    {
        // The frames lie in another order than that of their positions.
        let series = read(&[Made::enhanced(&[5.0, 0.0, 2.5], lengths)], syntax).unwrap();
        let geometry = series.volume.geometry;
        assert_eq!(geometry.shape, [4, 3, 3], "{syntax:?}, {lengths:?}");
        let affine =
            [[-0.75, 0.0, 0.0, -10.0], [0.0, -0.5, 0.0, -20.0], [0.0, 0.0, 2.5, 0.0], [0.0, 0.0, 0.0, 1.0]];
        assert_eq!(geometry.affine, affine);
        // Frame 1, then 2, then 0: ten times the number, and the number again as its intercept.
        let first_of_each = [0, 12, 24].map(|place| series.volume.hounsfield[place]);
        assert_eq!(first_of_each, [11, 22, 0], "{syntax:?}, {lengths:?}");
        assert_eq!((series.dtype, series.warnings.len()), ("uint16", 0));
    }
}

#[test]
fn several_files_of_frames_are_one_volume() {
    let files = [&[0.0, 2.0][..], &[4.0, 6.0]].map(|z| Made::enhanced(z, Lengths::Given));
    let series = read(&files, Syntax::Explicit).unwrap();
    assert_eq!(series.volume.geometry.shape, [4, 3, 4]);
    assert_eq!([0, 12, 24, 36].map(|place| series.volume.hounsfield[place]), [0, 11, 0, 11]);
}

#[test]
fn what_the_frames_share_stands_in_the_header() {
    let made = Made::enhanced(&[5.0, 0.0], Lengths::Undefined);
    let read = header(&made.file(Syntax::Explicit), "a", &[]).unwrap();
    assert_eq!((read.frames, read.position_mm), (2, None));
    assert_eq!(read.frame_positions_mm, [[10.0, 20.0, 5.0], [10.0, 20.0, 0.0]]);
    assert_eq!(read.direction_cosines, Some([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]));
    assert_eq!(read.pixel_spacing_mm, Some([0.5, 0.75]));
    assert_eq!(read.rescale_slope, Some(1.0));
    assert_eq!(read.frame_rescales, [Some((1.0, 0.0)), Some((1.0, 1.0))]);
    assert_eq!((read.rescale_type.as_deref(), read.stack_ids), (Some("HU"), vec!["1".to_owned()]));
    // A file of one frame is a slice as any other.
    let one = header(&Made::enhanced(&[7.0], Lengths::Given).file(Syntax::Explicit), "a", &[]).unwrap();
    assert_eq!((one.frames, one.position_mm), (1, Some([10.0, 20.0, 7.0])));
}

#[test]
fn frames_that_make_no_volume_say_why() {
    let made = Made::enhanced(&[0.0, 2.0, 4.0], Lengths::Given);
    let nowhere = made.clone().without(0x5200_9230);
    assert_eq!(
        refused(&nowhere),
        "a multi-frame object of 3 frames in one file, which does not say where each lies; expected a position for every \
         frame, or a file for each slice"
    );
    // Groups of two frames, for three.
    let two = Made::enhanced(&[0.0, 2.0], Lengths::Given).with(0x0028_0008, "IS", Value::Text("3"));
    assert_eq!(refused(&two), refused(&nowhere));
    assert!(refused(&Made::enhanced(&[0.0, 2.0, 2.0], Lengths::Given)).contains("they are different images"));
    assert!(
        refused(&Made::enhanced(&[0.0, 2.0, 6.0, 8.0], Lengths::Given)).starts_with("1 slice is missing")
    );
    let mut several = made.clone();
    let Some((_, _, Value::Items(frames, _))) =
        several.elements.iter_mut().find(|(tag, _, _)| *tag == 0x5200_9230)
    else {
        panic!("there are groups of frames")
    };
    let other = Made { elements: vec![(0x0020_9056, "SH", Value::Text("head"))] };
    frames[1] = frames[1].clone().with(0x0020_9111, "SQ", Value::Items(vec![other], Lengths::Given));
    assert_eq!(
        refused(&several),
        "a multi-frame object of 2 stacks in one file (`1`, `head`); expected one: write a file for each of them"
    );
}

#[test]
fn groups_that_are_cut_short_are_refused() {
    let mut bytes = Made::enhanced(&[0.0, 2.0], Lengths::Given).file(Syntax::Explicit);
    let item = bytes.windows(4).rposition(|window| window == [0xfe, 0xff, 0x00, 0xe0]).unwrap();
    bytes[item + 4..item + 8].copy_from_slice(&4000_u32.to_le_bytes());
    let said = header(&bytes, "a", &[]).unwrap_err().to_string();
    assert!(said.contains("truncated: the item of a sequence needs 4000 bytes"), "{said}");
}

/// `goldens/make_enhanced.py` wrote the file by pydicom, and what pydicom reads in it.
#[test]
fn a_file_of_pydicom_is_read_as_pydicom_reads_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens");
    let golden = std::fs::read_to_string(folder.join("enhanced_ct.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
    let slices = golden["slices"].as_array().unwrap();
    let series = read_series(&[(&folder.join("enhanced_ct.dcm"), "a")], Rescale::Header).unwrap();
    let geometry = series.volume.geometry;
    assert_eq!((geometry.shape, slices.len()), ([16, 16, 6], 6));
    assert!(!geometry.sheared() && series.warnings.is_empty(), "{:?}", series.warnings);
    for (k, (slice, found)) in slices.iter().zip(series.volume.hounsfield.chunks(256)).enumerate() {
        let hounsfield: Vec<f64> = found.iter().map(|&voxel| f64::from(voxel)).collect();
        assert_eq!(hounsfield, numbers(&slice["hounsfield"]), "slice {k}");
        let [x, y, z] = geometry.index_to_world([0.0, 0.0, k as f64]);
        for (found, expected) in [-x, -y, z].into_iter().zip(numbers(&slice["position_mm"])) {
            assert!((found - expected).abs() < 1e-4, "slice {k} lies at {found}, expected {expected}");
        }
    }
}
