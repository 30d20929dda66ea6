//! Resampling a sheared volume (gantry tilt) through its whole affine.

use rayon::prelude::*;

use super::taps::Taps;
use super::{Grid, GridRule, Interpolation, ResampleError, check_size, separable};
use crate::geometry::{Geometry, inverse, transform};

/// Resamples onto the box along the body's axes that holds every voxel's corners. The caller has checked the
/// affine.
///
/// Where antialiasing applies, the source is first smoothed along its own axes by the same triangle as a
/// straight volume.
pub(super) fn resample<S, D>(
    source: &[S],
    geometry: &Geometry,
    grid: &Grid,
    load: impl Fn(S) -> f32 + Copy + Send + Sync,
    store: impl Fn(f32) -> D + Copy + Send + Sync,
) -> Result<(Geometry, Vec<D>), ResampleError>
where
    S: Copy + Sync,
    D: Copy + Default + Send + Sync,
{
    if grid.rule != GridRule::Extent {
        return Err(ResampleError::ShearedGrid);
    }
    let result = bounding_box(geometry, grid)?;
    let to_source = compose(&inverse(&geometry.affine).ok_or(ResampleError::Affine)?, &result.affine);
    let voxels = match smoothing_taps(geometry, grid) {
        Some(taps) => {
            let smooth = separable::resample(source, geometry.shape, &taps, load, |value| value);
            sample(&smooth, |value| value, geometry.shape, &to_source, result.shape, grid, store)
        }
        None => sample(source, load, geometry.shape, &to_source, result.shape, grid, store),
    };
    Ok((result, voxels))
}

/// The grid: `ceil(length / spacing)` voxels along each axis of the body, the first edge on the box's.
fn bounding_box(geometry: &Geometry, grid: &Grid) -> Result<Geometry, ResampleError> {
    let mut low = [f64::INFINITY; 3];
    let mut high = [f64::NEG_INFINITY; 3];
    for corner in 0..8 {
        let index = std::array::from_fn(|axis| {
            if corner >> axis & 1 == 1 { geometry.shape[axis] as f64 - 0.5 } else { -0.5 }
        });
        for (axis, mm) in geometry.index_to_world(index).into_iter().enumerate() {
            low[axis] = low[axis].min(mm);
            high[axis] = high[axis].max(mm);
        }
    }
    let mut result = Geometry::from_spacing([0; 3], grid.spacing_mm, grid.orientation);
    let mut sizes = [0.0; 3];
    let mut origin = [0.0; 3];
    for (axis, direction) in grid.orientation.axes().iter().enumerate() {
        let (world, spacing_mm) = (direction.world_axis, grid.spacing_mm[axis]);
        // A box that is a whole number of voxels but for rounding must not gain one.
        sizes[axis] = ((high[world] - low[world]) / spacing_mm - 1e-6).ceil().max(1.0);
        let first = low[world] + spacing_mm / 2.0;
        origin[world] = if direction.positive { first } else { first + (sizes[axis] - 1.0) * spacing_mm };
    }
    check_size(sizes)?;
    result.shape = sizes.map(|size| size as usize);
    result.set_column(3, origin);
    Ok(result)
}

/// Taps that smooth each source axis without moving a voxel, where the grid's step asks for it; `None` if on
/// no axis.
fn smoothing_taps(geometry: &Geometry, grid: &Grid) -> Option<[Taps; 3]> {
    if grid.interpolation == Interpolation::Nearest {
        return None;
    }
    let spacing_mm = geometry.spacing_mm();
    let steps: [f64; 3] = std::array::from_fn(|axis| {
        let world_axis = geometry.closest_orientation().axes()[axis].world_axis;
        let target = grid.orientation.axes().iter().position(|direction| direction.world_axis == world_axis);
        grid.spacing_mm[target.expect("an orientation names every world axis once")] / spacing_mm[axis]
    });
    let smoothed = steps.map(|step| grid.antialias.applies(step));
    smoothed.contains(&true).then(|| {
        std::array::from_fn(|axis| {
            let voxels = geometry.shape[axis];
            let centres = (0..voxels).map(|index| index as f64);
            if smoothed[axis] {
                Taps::triangle(centres, voxels, steps[axis])
            } else {
                Taps::nearest(centres, voxels)
            }
        })
    })
}

/// Takes a value at every voxel of `out_shape`, whose index `to_source` maps to a source index; outside, the grid's
/// value for that.
fn sample<S, D>(
    source: &[S],
    load: impl Fn(S) -> f32 + Sync,
    shape: [usize; 3],
    to_source: &[[f64; 4]; 4],
    out_shape: [usize; 3],
    grid: &Grid,
    store: impl Fn(f32) -> D + Sync,
) -> Vec<D>
where
    S: Copy + Sync,
    D: Copy + Default + Send,
{
    let outside = f32::from(grid.pad_hu);
    let inside = |at: &[f64; 3]| (0..3).all(|axis| (-0.5..=shape[axis] as f64 - 0.5).contains(&at[axis]));
    let value = |at: [f64; 3]| match grid.interpolation {
        _ if !inside(&at) => outside,
        Interpolation::Linear => trilinear(source, &load, shape, at),
        Interpolation::Nearest => {
            let [i, j, k] =
                std::array::from_fn(|axis| ((at[axis] + 0.5).floor() as usize).min(shape[axis] - 1));
            load(source[i + shape[0] * (j + shape[1] * k)])
        }
    };
    let mut out = vec![D::default(); out_shape.iter().product()];
    out.par_chunks_mut(out_shape[0] * out_shape[1]).enumerate().for_each(|(k, plane)| {
        for (j, row) in plane.chunks_mut(out_shape[0]).enumerate() {
            for (i, voxel) in row.iter_mut().enumerate() {
                *voxel = store(value(transform(to_source, [i as f64, j as f64, k as f64])));
            }
        }
    });
    out
}

/// The value at a source index, the edge voxel's value within half a voxel outside the outermost centres.
fn trilinear<S: Copy>(source: &[S], load: &impl Fn(S) -> f32, shape: [usize; 3], at: [f64; 3]) -> f32 {
    let mut place = [[0; 2]; 3];
    let mut share = [0.0; 3];
    for axis in 0..3 {
        let last = shape[axis] - 1;
        let clamped = at[axis].clamp(0.0, last as f64);
        let below = clamped.floor();
        place[axis] = [below as usize, (below as usize + 1).min(last)];
        share[axis] = clamped - below;
    }
    let voxel = |i: usize, j: usize, k: usize| {
        let [x, y, z] = [place[0][i], place[1][j], place[2][k]];
        f64::from(load(source[x + shape[0] * (y + shape[1] * z)]))
    };
    let mix = |low: f64, high: f64, share: f64| low + (high - low) * share;
    let row = |j: usize, k: usize| mix(voxel(0, j, k), voxel(1, j, k), share[0]);
    let plane = |k: usize| mix(row(0, k), row(1, k), share[1]);
    mix(plane(0), plane(1), share[2]) as f32
}

/// The affine that applies `second`, then `first`.
fn compose(first: &[[f64; 4]; 4], second: &[[f64; 4]; 4]) -> [[f64; 4]; 4] {
    std::array::from_fn(|row| {
        std::array::from_fn(|column| (0..4).map(|k| first[row][k] * second[k][column]).sum())
    })
}
