//! Resampling against scipy and SimpleITK, and properties that hold whatever the reference.

use proptest::prelude::*;

use super::{
    Antialias, Grid, GridRule, Interpolation, ResampleError, StreamError, resample, resample_slices,
    resample_stored, resample_voxels,
};
use crate::geometry::Geometry;
use crate::nifti::{self, SliceReader, read_file};
use crate::orientation::Orientation;
use crate::reference::golden::{self, npy, numbers};
use crate::reference::{check_values, folder};
use crate::rounding::round_half_even_f32;
use crate::stored::StoredVolume;
use crate::volume::Volume;

/// Plain linear to RAS, as the golden values.
fn plain(spacing_mm: [f64; 3], rule: GridRule) -> Grid {
    Grid {
        spacing_mm,
        orientation: Orientation::RAS,
        rule,
        interpolation: Interpolation::Linear,
        antialias: Antialias::Never,
        pad_hu: -1024,
    }
}

/// The engine in f32 without the range clip.
fn resample_f32(nifti: &StoredVolume, grid: &Grid) -> (Geometry, Vec<f32>) {
    let values = nifti.to_f32();
    resample_voxels(&values, &nifti.geometry, grid, |value| value, |value| value).unwrap()
}

fn volume(geometry: Geometry, value: impl Fn([f64; 3]) -> i16) -> Volume {
    let [nx, ny, nz] = geometry.shape;
    let mut hounsfield = Vec::new();
    for k in 0..nz {
        for j in 0..ny {
            for i in 0..nx {
                hounsfield.push(value([i as f64, j as f64, k as f64]));
            }
        }
    }
    Volume { geometry, hounsfield }
}

#[test]
fn every_golden_grid_agrees_with_scipy_within_a_thousandth_hu() {
    let Some(folder) = folder() else { return };
    let golden = golden::read(&folder);
    let entries = golden["resample"].as_array().unwrap();
    assert_eq!(entries.len(), 15);
    for entry in entries {
        let (file, rule) = (entry["file"].as_str().unwrap(), entry["grid"].as_str().unwrap());
        let extent = match rule {
            "origin" => GridRule::FirstVoxel,
            "stretch" => GridRule::Stretch,
            _ => GridRule::Extent,
        };
        let spacing_mm = numbers(&entry["target_spacing"]).try_into().unwrap();
        let nifti = read_file(&folder.join(file)).unwrap();
        let (geometry, values) = resample_f32(&nifti, &plain(spacing_mm, extent));
        let what = format!("{file} {rule} {spacing_mm:?}");
        let affine = numbers(&entry["out_affine"]);
        for (found, expected) in geometry.affine.as_flattened().iter().zip(&affine) {
            assert!((found - expected).abs() < 1e-9, "{what}: {:?}, expected {affine:?}", geometry.affine);
        }
        check_values(&what, &values, geometry.shape, entry, 1e-3);
    }
}

#[test]
fn whole_golden_arrays_agree_in_f32_and_in_16_bits() {
    let Some(folder) = folder() else { return };
    for entry in golden::read(&folder)["resample"].as_array().unwrap() {
        let Some(array) = entry["npy"].as_str() else { continue };
        let (expected, shape) = npy(&folder.join("reference").join(array));
        let nifti = read_file(&folder.join(entry["file"].as_str().unwrap())).unwrap();
        let extent = match entry["grid"].as_str().unwrap() {
            "origin" => GridRule::FirstVoxel,
            "stretch" => GridRule::Stretch,
            _ => GridRule::Extent,
        };
        let grid = plain(numbers(&entry["target_spacing"]).try_into().unwrap(), extent);
        let (geometry, values) = resample_f32(&nifti, &grid);
        assert_eq!(geometry.shape.as_slice(), shape, "{array}");
        let stored: Vec<i16> = nifti.to_f32().iter().map(|&value| value as i16).collect();
        let store = |value| round_half_even_f32(value) as i16;
        let (_, stored) = resample_voxels(&stored, &nifti.geometry, &grid, f32::from, store).unwrap();
        let (mut apart, mut stored_apart) = (0_f32, 0_f32);
        for k in 0..shape[2] {
            for j in 0..shape[1] {
                for i in 0..shape[0] {
                    let golden = expected[(i * shape[1] + j) * shape[2] + k];
                    let place = i + shape[0] * (j + shape[1] * k);
                    apart = apart.max((values[place] - golden).abs());
                    stored_apart = stored_apart.max((f32::from(stored[place]) - golden).abs());
                }
            }
        }
        println!("{array}: f32 differs by {apart}, i16 by {stored_apart}");
        assert!(apart <= 1e-3, "{array}: {apart}");
        assert!(stored_apart <= 0.51, "{array}: {stored_apart}");
    }
}

/// A volume whose value is a linear function of the world position keeps it, on every grid, to rounding.
#[test]
fn a_linear_ramp_keeps_its_world_values() {
    let mut geometry = Geometry::from_spacing([40, 36, 30], [0.9, 0.8, 1.7], "PIL".parse().unwrap());
    let (sine, cosine) = (f64::sin(0.2), f64::cos(0.2));
    let turned = |[x, y, z]: [f64; 3]| [cosine * x - sine * y, sine * x + cosine * y, z];
    for axis in 0..3 {
        geometry.set_column(axis, turned(geometry.column(axis)));
    }
    geometry.set_column(3, [12.0, -7.0, 3.0]);
    let height = |[x, y, z]: [f64; 3]| 3.0 * x - 5.0 * y + 4.0 * z;
    let ramp = volume(geometry, |index| height(geometry.index_to_world(index)).round() as i16);
    for extent in [GridRule::Extent, GridRule::FirstVoxel, GridRule::Stretch] {
        for (antialias, spacing_mm) in
            [(Antialias::Never, [2.0, 1.1, 1.3]), (Antialias::Auto, [1.9, 2.5, 2.0])]
        {
            let grid = Grid { antialias, orientation: "SAR".parse().unwrap(), ..plain(spacing_mm, extent) };
            let result = resample(&ramp, &grid).unwrap();
            assert_eq!(result.geometry.orientation(), "SAR");
            let check = volume(result.geometry, |index| {
                let world = result.geometry.index_to_world(index);
                let at = geometry.world_to_index(world).unwrap();
                // Near the edges values are held or the triangle is cut off.
                let inner = (0..3).all(|axis| (4.0..geometry.shape[axis] as f64 - 5.0).contains(&at[axis]));
                if inner { height(world).round() as i16 } else { i16::MIN }
            });
            let compared =
                check.hounsfield.iter().zip(&result.hounsfield).filter(|(expected, _)| **expected > i16::MIN);
            let apart: Vec<i32> = compared.map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs()).collect();
            assert!(apart.len() > 1000);
            assert!(apart.iter().all(|&apart| apart <= 1), "{extent:?} {antialias:?}");
        }
    }
}

/// Pillow 13.0.0: `Image.fromarray(row, mode="F").resize((m, 1), Image.Resampling.BILINEAR)` of the row
/// `(i * i * 37) % 401 - 200`, `i` from 0 to `n - 1`.
#[test]
fn antialiasing_agrees_with_pillow() {
    let cases: [(usize, &[f64]); 2] = [
        (
            13,
            &[
                -128.46665954589844,
                15.545454978942871,
                -28.714284896850586,
                23.545454025268555,
                -105.19999694824219,
            ],
        ),
        (
            24,
            &[
                -86.07585906982422,
                -16.380367279052734,
                15.850299835205078,
                -81.3827133178711,
                18.041915893554688,
                71.18405151367188,
                87.53103637695312,
            ],
        ),
    ];
    for (n, expected) in cases {
        let row: Vec<f32> = (0..n).map(|i| ((i * i * 37) % 401) as f32 - 200.0).collect();
        let spacing = n as f64 / expected.len() as f64;
        for axis in 0..3 {
            let mut shape = [1; 3];
            shape[axis] = n;
            let mut spacing_mm = [1.0; 3];
            spacing_mm[axis] = spacing;
            let geometry = Geometry::from_spacing(shape, [1.0; 3], Orientation::RAS);
            let grid = Grid { antialias: Antialias::Always, ..plain(spacing_mm, GridRule::Stretch) };
            let (result, found) =
                resample_voxels(&row, &geometry, &grid, |value| value, |value| value).unwrap();
            assert_eq!(result.shape[axis], expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-3, "{found} {expected}");
            }
        }
    }
}

/// A lesion of one slice keeps its weight wherever it lies; without antialiasing it may vanish.
#[test]
fn an_impulse_keeps_its_energy() {
    let geometry = Geometry::from_spacing([1, 1, 61], [1.0; 3], Orientation::RAS);
    let energy = |slice: usize, antialias: Antialias, target: f64| {
        let mut impulse = vec![0_f32; 61];
        impulse[slice] = 1000.0;
        let grid = Grid { antialias, ..plain([1.0, 1.0, target], GridRule::Extent) };
        let (_, result) = resample_voxels(&impulse, &geometry, &grid, |value| value, |value| value).unwrap();
        f64::from(result.iter().sum::<f32>()) * target
    };
    for target in [1.6, 2.0, 3.0, 3.7, 5.0] {
        for slice in 15..45 {
            let kept = energy(slice, Antialias::Auto, target);
            assert!((kept / 1000.0 - 1.0).abs() < 0.1, "{target} mm, slice {slice}: {kept}");
        }
    }
    assert!((15..45).any(|slice| energy(slice, Antialias::Never, 3.0) == 0.0));
}

#[test]
fn a_constant_stays_constant_on_every_grid_and_kernel() {
    let geometry = Geometry::from_spacing([23, 17, 11], [0.7, 0.9, 2.5], Orientation::LPS);
    let constant = volume(geometry, |_| -437);
    for extent in [GridRule::Extent, GridRule::FirstVoxel, GridRule::Stretch] {
        for antialias in [Antialias::Auto, Antialias::Always, Antialias::Never] {
            for interpolation in [Interpolation::Linear, Interpolation::Nearest] {
                for spacing_mm in [[0.4, 3.0, 1.0], [50.0, 1.0, 100.0]] {
                    let grid = Grid { antialias, interpolation, ..plain(spacing_mm, extent) };
                    let result = resample(&constant, &grid).unwrap();
                    assert!(result.hounsfield.iter().all(|&value| value == -437), "{grid:?}");
                }
            }
        }
    }
}

#[test]
fn padding_is_clipped_before_it_is_interpolated() {
    let geometry = Geometry::from_spacing([2, 1, 1], [1.0; 3], Orientation::RAS);
    let padded = Volume { geometry, hounsfield: vec![-8192, 0] };
    let result = resample(&padded, &plain([0.5, 1.0, 1.0], GridRule::FirstVoxel)).unwrap();
    assert_eq!(result.hounsfield, [-1024, -512, 0]);
}

#[test]
fn nearest_takes_only_values_that_occur() {
    let geometry = Geometry::from_spacing([9, 8, 7], [1.0, 1.0, 2.0], "IPR".parse().unwrap());
    let labels = volume(geometry, |[i, j, k]| if (i + j * 3.0 + k) % 4.0 < 2.0 { 5 } else { 900 });
    let grid = Grid { interpolation: Interpolation::Nearest, ..plain([0.7, 1.9, 1.3], GridRule::Extent) };
    let result = resample(&labels, &grid).unwrap();
    assert!(result.hounsfield.iter().all(|value| [5, 900].contains(value)));
    let same = Grid { spacing_mm: [1.0, 1.0, 2.0], orientation: "IPR".parse().unwrap(), ..grid };
    assert_eq!(resample(&labels, &same).unwrap(), labels);
}

/// A volume sheared by 18 degrees whose value is its height: the box along the body's axes shows the same
/// heights.
#[test]
fn a_sheared_volume_is_resampled_through_its_whole_affine() {
    let mut geometry = Geometry::from_spacing([30, 30, 20], [1.0, 1.0, 2.0], Orientation::LPS);
    geometry.affine[1][2] = 0.65;
    assert!(geometry.sheared());
    let tilted = volume(geometry, |index| (10.0 * geometry.index_to_world(index)[2]).round() as i16);
    for (antialias, orientation) in [(Antialias::Never, "RAS"), (Antialias::Auto, "ILP")] {
        let orientation: Orientation = orientation.parse().unwrap();
        let grid = Grid { antialias, orientation, ..plain([1.6; 3], GridRule::Extent) };
        let result = resample(&tilted, &grid).unwrap();
        assert!(!result.geometry.sheared());
        assert_eq!(result.geometry.orientation(), orientation.to_string());
        let mut compared = 0;
        let expected =
            volume(result.geometry, |index| (10.0 * result.geometry.index_to_world(index)[2]).round() as i16);
        for (found, expected) in result.hounsfield.iter().zip(&expected.hounsfield) {
            if (40..340).contains(expected) && *found != -1024 {
                assert!((found - expected).abs() <= 1, "{found} {expected}");
                compared += 1;
            }
        }
        assert!(compared > 3000, "{compared}");
    }
    let other = plain([1.6; 3], GridRule::Stretch);
    assert_eq!(resample(&tilted, &other), Err(ResampleError::ShearedGrid));
}

#[test]
fn mistaken_grids_and_volumes_are_refused() {
    let geometry = Geometry::from_spacing([4, 4, 4], [1.0; 3], Orientation::RAS);
    let good = volume(geometry, |_| 0);
    for spacing_mm in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let refused = resample(&good, &plain([1.0, spacing_mm, 1.0], GridRule::Extent));
        assert!(matches!(refused, Err(ResampleError::Spacing { .. })), "{spacing_mm}");
    }
    let tiny = resample(&good, &plain([1e-4; 3], GridRule::Extent));
    assert!(matches!(tiny, Err(ResampleError::Size { .. })));
    let short = Volume { hounsfield: vec![0; 63], ..good.clone() };
    let refused = resample(&short, &plain([1.0; 3], GridRule::Extent));
    assert_eq!(refused, Err(ResampleError::Shape { shape: [4; 3], voxels: 63 }));
    let flat = Volume { geometry: Geometry { affine: [[0.0; 4]; 4], ..geometry }, ..good };
    assert_eq!(resample(&flat, &plain([1.0; 3], GridRule::Extent)), Err(ResampleError::Affine));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    /// Storing a volume along other axes first makes no difference.
    #[test]
    fn resampling_does_not_see_the_stored_orientation(
        stored in "[LR][AP][IS]", order in 0..6_usize, seed in any::<u32>(), spacing in 0.4..4.0_f64,
    ) {
        let letters: Vec<char> = stored.chars().collect();
        let order = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]][order];
        let stored: Orientation = order.map(|axis| letters[axis]).iter().collect::<String>().parse().unwrap();
        let geometry = Geometry::from_spacing([7, 6, 5], [0.8, 1.1, 2.0], Orientation::RAS);
        let noise = |index: [f64; 3]| {
            let mixed = (index[0] as u32 * 73 + index[1] as u32 * 1999 + index[2] as u32 * 91_099).wrapping_mul(seed | 1);
            (mixed >> 20) as i16 - 1024
        };
        let straight = volume(geometry, noise);
        let other = crate::orientation::orient(&straight, stored);
        let grid = Grid { antialias: Antialias::Auto, ..plain([spacing, 1.0, spacing], GridRule::Extent) };
        let (a, b) = (resample(&straight, &grid).unwrap(), resample(&other, &grid).unwrap());
        prop_assert_eq!(a.geometry.shape, b.geometry.shape);
        let apart = a.hounsfield.iter().zip(&b.hounsfield).map(|(a, b)| (a - b).abs()).max().unwrap();
        // The axes are summed in another order, so a tie may round the other way.
        prop_assert!(apart <= 1, "{}", apart);
    }
}

/// Slice by slice the same sums are formed in the same order, so the results are equal to the last bit.
#[test]
fn a_volume_is_resampled_while_it_is_read_as_when_it_was_read_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut geometry = Geometry::from_spacing([13, 11, 17], [0.7, 0.8, 1.25], "LPS".parse().unwrap());
    geometry.set_column(3, [12.5, -8.0, 100.0]);
    let voxels = (0..geometry.voxel_count()).map(|place| (place * 7919 % 5003) as i16 - 1500).collect();
    let plain_path = folder.path().join("scan.nii");
    let packed_path = folder.path().join("scan.nii.gz");
    let volume = Volume { geometry, hounsfield: voxels };
    let bytes = nifti::write(&volume, false);
    std::fs::write(&plain_path, &bytes).unwrap();
    std::fs::write(&packed_path, nifti::write(&volume, true)).unwrap();
    for (orientation, rule, interpolation, antialias) in [
        ("RAS", GridRule::Extent, Interpolation::Linear, Antialias::Auto),
        ("RAS", GridRule::FirstVoxel, Interpolation::Linear, Antialias::Never),
        ("SLP", GridRule::Stretch, Interpolation::Linear, Antialias::Always),
        ("AIL", GridRule::Extent, Interpolation::Nearest, Antialias::Auto),
    ] {
        for spacing_mm in [[1.5, 1.6, 3.0], [0.5, 0.4, 0.6]] {
            let orientation = orientation.parse().unwrap();
            let grid = Grid { spacing_mm, orientation, rule, interpolation, antialias, pad_hu: 0 };
            for path in [&plain_path, &packed_path] {
                let (whole, _) = nifti::read_file(path).unwrap().into_volume();
                let at_once = resample_stored(nifti::read_file(path).unwrap(), &grid).unwrap();
                assert_eq!(at_once, resample(&whole, &grid).unwrap());
                let slices = SliceReader::open(path, "scan").unwrap();
                assert_eq!(resample_slices(slices, &grid).unwrap(), resample(&whole, &grid).unwrap());
            }
        }
    }
    let packed = std::fs::read(&packed_path).unwrap();
    let grid = plain([1.5; 3], GridRule::Extent);
    for (cut, said) in
        [(packed.len() - 1, "it ends before its trailer"), (packed.len() / 2, "damaged gzip stream")]
    {
        std::fs::write(&packed_path, &packed[..cut]).unwrap();
        let error = resample_slices(SliceReader::open(&packed_path, "scan").unwrap(), &grid).unwrap_err();
        assert!(matches!(&error, StreamError::Read(error) if error.to_string().contains(said)), "{error:?}");
    }
    std::fs::write(&plain_path, &bytes[..bytes.len() - 1]).unwrap();
    let error = resample_slices(SliceReader::open(&plain_path, "scan").unwrap(), &grid).unwrap_err();
    assert!(
        matches!(&error, StreamError::Read(error) if error.to_string().contains("truncated")),
        "{error:?}"
    );
}
