//! Real volumes through the program, against SimpleITK, nibabel and scipy: geometry from SQL, voxels from the
//! side files that the rows name, and refused files as rows with a reason.
//!
//! `reference/reference.json` and the `.npy` arrays lie beside the volumes: affines and shapes by nibabel 5.4,
//! values by `scipy.ndimage.map_coordinates(order=1, mode="nearest")` in float64, equal to SimpleITK's linear
//! resampling wherever a sample lies inside the input. They are in RAS order, x first.

/// The imaging kernel is checked against the same values, so they are read in one way.
#[path = "../kernels/imaging/src/reference/golden.rs"]
mod golden;

use std::collections::BTreeMap;
use std::path::Path;

use argent_imaging::{HOUNSFIELD_RANGE, Volume, nifti, side_file};
use serde_json::Value;

use crate::sandbox::{Sandbox, root, shared_data};
use golden::{npy, numbers};

const PIPELINE: &str = "pipelines/volumes.yaml";

/// Half a Hounsfield unit, because voxels are stored as whole ones.
const ROUNDING_HU: f64 = 0.51;

/// What a damaged file must be refused for: a part of its message.
const DAMAGED: [(&str, &str); 14] = [
    ("bad_crc.nii.gz", "corrupt gzip stream"),
    ("dim0_nine.nii", "dim[0] is 9"),
    ("dim0_zero.nii", "dim[0] is 0"),
    ("dim_overflow.nii", "expected one 3-D volume"),
    ("dim_zero.nii", "expected at least one voxel along each axis"),
    ("empty.nii", "it is empty"),
    ("empty.nii.gz", "it is empty"),
    ("gz_missing_trailer.nii.gz", "it ends before its trailer"),
    ("magic_bad.nii", "expected n+1, ni1, n+2 or ni2"),
    ("png_named_nii.nii", "it is a PNG image"),
    ("truncated.nii.gz", "it ends before its trailer"),
    ("truncated_data.nii", "needs 29024 bytes and 28024 are there"),
    ("truncated_header.nii", "needs 348 bytes and 200 are there"),
    ("vox_offset_huge.nii", "needs 1000028672 bytes"),
];

#[test]
fn what_is_damaged_is_an_error_row_and_everything_else_comes_through() {
    let Some(data) = shared_data("imaging") else { return };
    let sandbox = Sandbox::new();
    link(&sandbox, &data.join("nifti_ct"), "volumes/ct");
    link(&sandbox, &data.join("nifti_derived/errors"), "volumes/errors");
    let ran = run(&sandbox, &sandbox.path("volumes"), &["files=*/*.nii*"]);
    assert_eq!(ran, ["volumes made 19 0 15", "grid made 4 0 0", "refused made 2 0 0"]);
    let refused = answer(&sandbox, "select path, kind, message from volumes.errors order by path");
    assert_eq!(refused.len(), 15);
    for (file, reason) in DAMAGED {
        let row = refused.iter().find(|row| row.contains(&format!("/errors/{file},"))).unwrap();
        assert!(row.contains(",unreadable,") && row.contains(reason), "{row}");
    }
    // An intact file with a wrong ending reads, and is refused for what it shows: a crop without air.
    let crop = refused.iter().find(|row| row.contains("/nii_named_gz.nii.gz,")).unwrap();
    assert!(crop.contains(",hounsfield,") && crop.contains("`hounsfield_check: warn`"), "{crop}");
    assert_eq!(answer(&sandbox, "select * from refused"), ["volumes,hounsfield,1", "volumes,unreadable,14"]);
    let again = run(&sandbox, &sandbox.path("volumes"), &["files=*/*.nii*"]);
    assert_eq!(again, ["volumes reused 0 4 15", "grid reused 0 4 0", "refused reused 0 2 0"]);
}

#[test]
fn geometry_is_what_nibabel_reads() {
    let Some(data) = shared_data("imaging") else { return };
    let sandbox = Sandbox::new();
    run(&sandbox, &data.join("nifti_ct"), &[]);
    let rows = table(&sandbox, "select id, shape, spacing_mm, orientation, affine, dtype from volumes");
    assert_eq!(rows.len(), 4);
    for (id, row) in rows {
        let expected = &golden::read(&data)["nifti"][format!("nifti_ct/{id}.nii.gz")];
        assert_eq!(row["shape"], expected["stored_shape"], "{id}");
        assert_eq!(row["orientation"], expected["axcodes"], "{id}");
        assert_eq!(row["dtype"], expected["dtype"], "{id}");
        assert_near(&id, &numbers(&row["spacing_mm"]), &numbers(&expected["affine_column_norms"]), 1e-9);
        assert_near(&id, &numbers(&row["affine"]), &numbers(&expected["affine"]), 1e-9);
    }
}

#[test]
fn resampled_voxels_agree_with_scipy_and_simpleitk_on_every_golden_grid() {
    let Some(data) = shared_data("imaging") else { return };
    let reference = golden::read(&data);
    let goldens = reference["resample"].as_array().unwrap();
    assert_eq!(goldens.len(), 15);
    let sandbox = Sandbox::new();
    for golden in goldens {
        let file = golden["file"].as_str().unwrap();
        let grid = match golden["grid"].as_str().unwrap() {
            "origin" => "first_voxel",
            "stretch" => "stretch",
            // A sheared volume comes onto the upright box around it.
            _ => "extent",
        };
        let what = format!("{file} {grid} {}", golden["target_spacing"]);
        let spacing_mm = format!("spacing_mm={}", golden["target_spacing"]);
        let grid = format!("grid={grid}");
        // The crops of `nifti_derived` show no air; the goldens are plain linear, without averaging.
        run(
            &sandbox,
            &data,
            &[&format!("files={file}"), &spacing_mm, &grid, "antialias=never", "hounsfield_check=warn"],
        );
        let rows = table(&sandbox, "select id, shape, affine, orientation, voxels from grid");
        let row = rows.values().next().unwrap();
        assert_eq!(
            (rows.len(), &row["shape"], &row["orientation"]),
            (1, &golden["shape"], &Value::from("RAS")),
            "{what}"
        );
        assert_near(&what, &numbers(&row["affine"]), &numbers(&golden["out_affine"]), 1e-9);
        let volume = side_file_of(&sandbox, row);
        assert_eq!(volume.geometry.affine.concat(), numbers(&row["affine"]), "{what}");
        // Values that a file keeps in fractions are rounded before they are resampled, and once more after.
        let in_fractions =
            reference["nifti"][file]["slope"].as_f64().is_some_and(|slope| slope.fract() != 0.0);
        check_probes(&what, &volume, golden, if in_fractions { 2.0 * ROUNDING_HU } else { ROUNDING_HU });
        if let Some(array) = golden["npy"].as_str() {
            let apart = places_apart(&volume, &data.join("reference").join(array), ROUNDING_HU);
            let clipped = clipped_voxels(&data.join(file));
            assert!(apart <= clipped, "{what}: {apart} voxels apart, and {clipped} were clipped before");
        }
    }
}

#[test]
fn one_volume_stored_in_many_ways_is_one_volume() {
    let Some(data) = shared_data("imaging") else { return };
    let sandbox = Sandbox::new();
    let folder = data.join("nifti_derived/same_physical");
    let ran = run(&sandbox, &folder, &["antialias=never", "hounsfield_check=warn"]);
    assert_eq!(ran[1], "grid made 26 0 0");
    let array = data.join("reference/00_base_LPS_i16_extent_1.5x1.5x3.0.npy");
    for (id, row) in table(&sandbox, "select id, shape, affine, voxels from grid") {
        // An affine that was stored in another way differs in the seventh digit, and with it a value at a half.
        assert_eq!(places_apart(&side_file_of(&sandbox, &row), &array, 2.0 * ROUNDING_HU), 0, "{id}");
    }
}

#[test]
fn a_volume_that_does_not_say_left_from_right_is_refused_with_advice() {
    let Some(data) = shared_data("imaging") else { return };
    let sandbox = Sandbox::new();
    let folder = data.join("nifti_derived/special");
    run(&sandbox, &folder, &["files=no_codes_pixdim_only.nii", "hounsfield_check=warn"]);
    let refused = answer(&sandbox, "select kind, message, retryable from volumes.errors");
    let reason = "the file does not say where left and right are (a NIfTI header has neither sform nor qform, an archive \
                  says nothing), expected it to; tell spacing and orientation by `geometry`, or leave the volume out";
    assert_eq!(refused, [format!("geometry,\"{reason}\",false")]);
    assert_eq!(answer(&sandbox, "select count(*) from grid"), ["0"]);
}

/// Runs the shipped pipeline on a folder.
fn run(sandbox: &Sandbox, data: &Path, set: &[&str]) -> Vec<String> {
    let spec = root().join(PIPELINE);
    let data = format!("data={}", data.display());
    let mut words = vec![spec.to_str().unwrap(), "--store", "store", "--set", &data];
    words.extend(set.iter().flat_map(|s| ["--set", *s]));
    sandbox.run(&words)
}

fn link(sandbox: &Sandbox, folder: &Path, name: &str) {
    let path = sandbox.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(folder, path).unwrap();
}

fn ask(sandbox: &Sandbox, question: &str, format: &str) -> String {
    let spec = root().join(PIPELINE);
    let words =
        ["sql", question, "--store", "store", "-p", spec.to_str().unwrap(), "--format", format, "--phi"];
    sandbox.succeeds(&words).out
}

/// The answer's rows as CSV.
fn answer(sandbox: &Sandbox, question: &str) -> Vec<String> {
    ask(sandbox, question, "csv").lines().skip(1).map(str::to_owned).collect()
}

/// The answer's rows as JSON, by their id.
fn table(sandbox: &Sandbox, question: &str) -> BTreeMap<String, Value> {
    let said = ask(sandbox, question, "json");
    let rows = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|row| (row["id"].as_str().unwrap().to_owned(), row)).collect()
}

/// The volume whose side file a row names.
fn side_file_of(sandbox: &Sandbox, row: &Value) -> Volume {
    let digest = row["voxels"].as_str().unwrap();
    let path = sandbox.path("store/cas").join(&digest[..2]).join(&digest[2..]);
    let volume = side_file::decode(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(Value::from(volume.geometry.shape.to_vec()), row["shape"]);
    volume
}

fn voxel(volume: &Volume, [i, j, k]: [usize; 3]) -> f64 {
    let [nx, ny, _] = volume.geometry.shape;
    f64::from(volume.hounsfield[i + nx * (j + ny * k)])
}

/// Checks the 16 values that a golden gives.
fn check_probes(what: &str, volume: &Volume, golden: &Value, tolerance_hu: f64) {
    let probes = golden["probes"].as_array().unwrap();
    assert_eq!(probes.len(), 16);
    for probe in probes {
        let place: Vec<usize> = numbers(&probe["ijk"]).into_iter().map(|n| n as usize).collect();
        let found = voxel(volume, place.clone().try_into().unwrap());
        let expected = in_range(probe["value"].as_f64().unwrap());
        assert!(
            (found - expected).abs() <= tolerance_hu,
            "{what}: {found} HU at {place:?}, expected {expected}"
        );
    }
}

/// How many voxels lie farther than `tolerance_hu` from a golden array.
fn places_apart(volume: &Volume, array: &Path, tolerance_hu: f64) -> usize {
    let (golden, shape) = npy(array);
    assert_eq!(volume.geometry.shape.as_slice(), shape, "{}", array.display());
    let apart = |place: usize, expected: f32| {
        // The array is in C order: its last axis runs fastest.
        let index = [place / (shape[1] * shape[2]), place / shape[2] % shape[1], place % shape[2]];
        (voxel(volume, index) - in_range(f64::from(expected))).abs() > tolerance_hu
    };
    golden.iter().enumerate().filter(|(place, expected)| apart(*place, **expected)).count()
}

/// How many voxels of a file lie outside the range that volumes are clipped to before they are resampled. The
/// golden arrays are not clipped; on their grids each input voxel has a part in one output voxel at most.
fn clipped_voxels(file: &Path) -> usize {
    let values = nifti::read_file(file).unwrap().to_f32();
    values.iter().filter(|value| in_range(f64::from(**value)) != f64::from(**value)).count()
}

/// Stored volumes are clipped to what a 12-bit scanner can say.
fn in_range(hounsfield: f64) -> f64 {
    hounsfield.clamp(f64::from(HOUNSFIELD_RANGE.0), f64::from(HOUNSFIELD_RANGE.1))
}

fn assert_near(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= tolerance);
    assert!(found.len() == expected.len() && near, "{what}: {found:?}, expected {expected:?}");
}
