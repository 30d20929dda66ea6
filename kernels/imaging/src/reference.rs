//! Reference volumes and golden values for tests: `shared/data/imaging` beside the project, where it is
//! present.
//!
//! `reference.json` was made with SimpleITK 2.5.7, nibabel 5.4.2, scipy and numpy 2.4.6. Its arrays are in
//! RAS order, values after slope and intercept, resampled by `scipy.ndimage.map_coordinates(order=1,
//! mode="nearest")` in f64 and equal to SimpleITK's linear resampling to 2e-10 wherever a sample lies inside
//! the input.

pub(crate) mod golden;

use std::path::{Path, PathBuf};

use serde_json::Value;

use self::golden::numbers;
use crate::orientation::{Orientation, Reordering};
use crate::stored::StoredVolume;

/// The folder of reference volumes; says so and gives `None` where it is absent.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/imaging");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no reference volumes at {}", folder.display());
    None
}

/// A JSON array of three whole numbers.
pub(crate) fn triple(value: &Value) -> [usize; 3] {
    let values: Vec<usize> = numbers(value).into_iter().map(|number| number as usize).collect();
    values.try_into().unwrap()
}

/// The values of a file in RAS order with their shape, its axes read as `stored`.
pub(crate) fn canonical(nifti: &StoredVolume, stored: Orientation) -> (Vec<f32>, [usize; 3]) {
    let reordering = Reordering::between(stored, Orientation::RAS);
    let values = reordering.voxels(nifti.to_f32().into(), nifti.geometry.shape);
    (values, reordering.geometry(&nifti.geometry).shape)
}

/// Checks the 16 values that a golden entry gives, and its moments and extremes.
pub(crate) fn check_values(what: &str, values: &[f32], shape: [usize; 3], entry: &Value, tolerance: f64) {
    assert_eq!(shape, triple(&entry["shape"]), "{what}: shape");
    for probe in entry["probes"].as_array().unwrap() {
        let [i, j, k] = triple(&probe["ijk"]);
        let found = f64::from(values[i + shape[0] * (j + shape[1] * k)]);
        let expected = probe["value"].as_f64().unwrap();
        assert!(
            (found - expected).abs() <= tolerance,
            "{what}: {found} at ({i}, {j}, {k}), expected {expected}"
        );
    }
    let count = values.len() as f64;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let variance = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
    let extreme = |pick: fn(f32, f32) -> f32| f64::from(values.iter().copied().reduce(pick).unwrap());
    for (name, found) in
        [("mean", mean), ("std", variance.sqrt()), ("min", extreme(f32::min)), ("max", extreme(f32::max))]
    {
        let expected = entry[name].as_f64().unwrap();
        assert!((found - expected).abs() <= tolerance, "{what}: {name} {found}, expected {expected}");
    }
}
