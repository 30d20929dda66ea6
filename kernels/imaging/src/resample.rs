//! Resampling onto a grid of chosen spacing and orientation.
//!
//! The affine of the result says exactly where its voxels lie; `GridRule` says how size and place follow from
//! the spacing. Positions are computed in f64, weights and sums in f32 (error below 0.01 HU), results rounded
//! half to even.

mod separable;
mod sheared;
mod taps;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use crate::geometry::Geometry;
use crate::nifti::{ReadError, SliceReader};
use crate::orientation::{Orientation, Reordering};
use crate::rounding::round_half_even_f32;
use crate::stored::StoredVolume;
use crate::volume::{HOUNSFIELD_RANGE, Volume};
use taps::Taps;

/// What to resample to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// Distance in mm between voxel centres along each axis of the result, in the order of `orientation`'s
    /// letters.
    pub spacing_mm: [f64; 3],
    /// Where the result's axes point. A rotated volume keeps its rotation: its axes are exchanged and flipped
    /// to the nearest directions. A sheared one comes out exactly along the body's axes.
    pub orientation: Orientation,
    /// How size and place follow from the spacing.
    pub rule: GridRule,
    /// How a value between voxel centres is found.
    pub interpolation: Interpolation,
    /// When to smooth before taking fewer samples.
    pub antialias: Antialias,
    /// The value in HU of what lies outside of a sheared volume, in the box that holds it. A straight volume is held by its
    /// own edges.
    pub pad_hu: i16,
}

/// How many voxels a result has along an axis and where they lie, for `n` voxels of spacing `s` and a target
/// spacing `t`. Sizes are rounded half to even and are at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GridRule {
    /// `round(n s / t)` voxels of spacing exactly `t`, outer edges aligned at the low end: index `i` lies at
    /// source index `(i + 1/2) t / s - 1/2`.
    Extent,
    /// `round((n - 1) s / t + 1)` voxels of spacing exactly `t`, first centres aligned: `i t / s`. MONAI's
    /// `Spacing`.
    FirstVoxel,
    /// As many voxels as `Extent`, stretched to align the outer edges at both ends: `(i + 1/2) n / m - 1/2`
    /// for `m` voxels, so that the spacing is `n s / m`. PyTorch's `interpolate` without `align_corners`,
    /// nnU-Net.
    Stretch,
}

/// How a value between voxel centres is found. Outside the outermost centres the edge voxel's value holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// Linear along each axis.
    Linear,
    /// The nearest voxel, the later one of two equally near: for label maps. Never antialiased.
    Nearest,
}

/// When an axis on which samples become fewer is smoothed: by a triangle as wide on each side as the step
/// between samples, cut off at the volume's edge and normalised, as Pillow's `BILINEAR` and PyTorch's
/// `antialias=True`.
///
/// Without it, linear interpolation with a step of 3 reads one slice of 3 and a lesion of one slice may
/// vanish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Antialias {
    /// On axes whose step grows by more than a factor of 1.5.
    Auto,
    /// On every axis whose step grows.
    Always,
    /// On none.
    Never,
}

/// A step that grows by more than this loses whole voxels to plain linear interpolation.
const AUTO_ANTIALIAS_STEP: f64 = 1.5;

/// The largest result, 4 GiB of voxels: more is a mistaken spacing.
const MOST_VOXELS: f64 = (1_u64 << 31) as f64;

/// Resamples a volume, clipped to [`HOUNSFIELD_RANGE`] first.
///
/// A sheared volume (gantry tilt) goes through its whole affine onto the box, along the body's axes, that
/// holds all its voxels; what lies outside the volume becomes [`Grid::pad_hu`].
///
/// # Errors
///
/// [`ResampleError`], when the grid or the volume cannot be resampled.
pub fn resample(volume: &Volume, grid: &Grid) -> Result<Volume, ResampleError> {
    let (geometry, hounsfield) = resample_voxels(&volume.hounsfield, &volume.geometry, grid, load, store)?;
    Ok(Volume { geometry, hounsfield })
}

/// Resamples a file's volume, as [`resample`] does its [`StoredVolume::into_volume`]. Voxels that are 16-bit HU in the file are
/// clipped as they are read, without another pass over them.
///
/// # Errors
///
/// As [`resample`].
pub fn resample_stored(stored: StoredVolume, grid: &Grid) -> Result<Volume, ResampleError> {
    let Some(voxels) = stored.unclipped_i16() else { return resample(&stored.into_volume().0, grid) };
    let (geometry, hounsfield) = resample_voxels(voxels, &stored.geometry, grid, load, store)?;
    Ok(Volume { geometry, hounsfield })
}

/// Resamples a volume while it is read, with the result of [`resample`]: one slice of the source and the slices of the
/// result are in memory, and never the source itself. It takes one thread.
///
/// # Errors
///
/// [`StreamError`]: those of [`resample`] and of reading, and [`StreamError::Sheared`].
pub fn resample_slices(mut slices: SliceReader, grid: &Grid) -> Result<Volume, StreamError> {
    let geometry = slices.geometry;
    check(geometry.voxel_count(), &geometry, grid)?;
    if geometry.sheared() {
        return Err(StreamError::Sheared);
    }
    let plan = Plan::new(&geometry, grid)?;
    let mut sums = separable::Sums::new(&plan.taps, geometry.shape[0], load, store);
    while let Some(slice) = slices.next_slice()? {
        sums.add(&slice);
    }
    slices.finish()?;
    let (geometry, hounsfield) = plan.finish(sums.finish());
    Ok(Volume { geometry, hounsfield })
}

#[inline(always)]
fn load(value: i16) -> f32 {
    f32::from(value).clamp(f32::from(HOUNSFIELD_RANGE.0), f32::from(HOUNSFIELD_RANGE.1))
}

#[inline(always)]
fn store(value: f32) -> i16 {
    round_half_even_f32(value) as i16
}

/// The work of [`resample`] for any voxel type: `load` makes a stored voxel a number, `store` a number a
/// stored voxel.
fn resample_voxels<S, D>(
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
    check(source.len(), geometry, grid)?;
    if geometry.sheared() {
        return sheared::resample(source, geometry, grid, load, store);
    }
    let plan = Plan::new(geometry, grid)?;
    let stored = separable::resample(source, geometry.shape, &plan.taps, load, store);
    Ok(plan.finish(stored))
}

/// How a volume that is not sheared is resampled.
struct Plan {
    result: Geometry,
    /// Per stored axis.
    taps: [Taps; 3],
    /// Which stored axis becomes which.
    exchange: Reordering,
}

impl Plan {
    fn new(geometry: &Geometry, grid: &Grid) -> Result<Plan, ResampleError> {
        let reordering = Reordering::between(geometry.closest_orientation(), grid.orientation);
        let canonical = reordering.geometry(geometry);
        let axes: [AxisPlan; 3] = std::array::from_fn(|axis| {
            AxisPlan::new(
                canonical.shape[axis],
                canonical.spacing_mm()[axis],
                grid.spacing_mm[axis],
                grid.rule,
            )
        });
        check_size(axes.map(|axis| axis.voxels))?;
        // Flips live in the weights; axes change places last, when there are usually fewer voxels.
        let mut taps: [Taps; 3] = std::array::from_fn(|_| Taps::default());
        for (axis, along) in axes.iter().enumerate() {
            let along = along.taps(grid.interpolation, grid.antialias);
            taps[reordering.source_axis[axis]] =
                if reordering.flipped[axis] { along.reversed() } else { along };
        }
        let exchange = Reordering { source_axis: reordering.source_axis, flipped: [false; 3] };
        Ok(Plan { result: planned_geometry(&canonical, &axes), taps, exchange })
    }

    /// The result, from its voxels in the order of the stored axes.
    fn finish<D: Copy + Default + Send + Sync>(&self, stored: Vec<D>) -> (Geometry, Vec<D>) {
        let stored_shape = std::array::from_fn(|axis| self.taps[axis].len());
        (self.result, self.exchange.voxels(Cow::from(stored), stored_shape))
    }
}

/// Where the samples of one axis lie.
#[derive(Debug, Clone, Copy)]
struct AxisPlan {
    source_voxels: usize,
    voxels: f64,
    /// Source index of sample 0.
    first: f64,
    /// Source voxels from one sample to the next.
    step: f64,
}

impl AxisPlan {
    fn new(source_voxels: usize, source_mm: f64, target_mm: f64, rule: GridRule) -> AxisPlan {
        let n = source_voxels as f64;
        let ratio = target_mm / source_mm;
        let whole = |size: f64| size.round_ties_even().max(1.0);
        let extent = whole(n * source_mm / target_mm);
        let (voxels, step, first) = match rule {
            GridRule::Extent => (extent, ratio, 0.5 * ratio - 0.5),
            GridRule::FirstVoxel => (whole((n - 1.0) * source_mm / target_mm + 1.0), ratio, 0.0),
            GridRule::Stretch => (extent, n / extent, 0.5 * n / extent - 0.5),
        };
        AxisPlan { source_voxels, voxels, first, step }
    }

    fn taps(&self, interpolation: Interpolation, antialias: Antialias) -> Taps {
        let positions = (0..self.voxels as usize).map(|index| self.first + index as f64 * self.step);
        match interpolation {
            Interpolation::Nearest => Taps::nearest(positions, self.source_voxels),
            Interpolation::Linear if antialias.applies(self.step) => {
                Taps::triangle(positions, self.source_voxels, self.step)
            }
            Interpolation::Linear => Taps::linear(positions, self.source_voxels),
        }
    }
}

impl Antialias {
    /// Whether an axis with this many source voxels from sample to sample is smoothed.
    fn applies(self, step: f64) -> bool {
        match self {
            Antialias::Auto => step > AUTO_ANTIALIAS_STEP,
            Antialias::Always => step > 1.0,
            Antialias::Never => false,
        }
    }
}

/// The geometry of a plan's samples.
fn planned_geometry(canonical: &Geometry, plan: &[AxisPlan; 3]) -> Geometry {
    let mut result = Geometry { shape: plan.map(|axis| axis.voxels as usize), ..*canonical };
    for (axis, along) in plan.iter().enumerate() {
        result.set_column(axis, canonical.column(axis).map(|mm| mm * along.step));
    }
    result.set_column(3, canonical.index_to_world(plan.map(|axis| axis.first)));
    result
}

fn check(voxels: usize, geometry: &Geometry, grid: &Grid) -> Result<(), ResampleError> {
    if let Some(&spacing_mm) = grid.spacing_mm.iter().find(|&&mm| !mm.is_finite() || mm <= 0.0) {
        return Err(ResampleError::Spacing { spacing_mm });
    }
    if voxels != geometry.voxel_count() || voxels == 0 {
        return Err(ResampleError::Shape { shape: geometry.shape, voxels });
    }
    if crate::geometry::inverse(&geometry.affine).is_none() {
        return Err(ResampleError::Affine);
    }
    Ok(())
}

fn check_size(shape: [f64; 3]) -> Result<(), ResampleError> {
    let voxels: f64 = shape.iter().product();
    if voxels > MOST_VOXELS {
        return Err(ResampleError::Size { voxels });
    }
    Ok(())
}

/// A volume that cannot be resampled while it is read.
#[derive(Debug)]
pub enum StreamError {
    /// Its file is refused.
    Read(ReadError),
    /// It cannot be resampled onto the grid.
    Resample(ResampleError),
    /// It is sheared: such a volume goes through its whole affine and must be in memory.
    Sheared,
}

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> StreamError {
        StreamError::Read(error)
    }
}

impl From<ResampleError> for StreamError {
    fn from(error: ResampleError) -> StreamError {
        StreamError::Resample(error)
    }
}

/// A volume that cannot be resampled onto a grid.
#[derive(Debug, Clone, PartialEq)]
pub enum ResampleError {
    /// A target spacing is not a positive number.
    Spacing {
        /// The spacing asked for, in mm.
        spacing_mm: f64,
    },
    /// The voxels do not fill the shape, or there are none.
    Shape {
        /// What the geometry says.
        shape: [usize; 3],
        /// How many voxels there are.
        voxels: usize,
    },
    /// The volume's affine does not span space.
    Affine,
    /// The result would be absurdly large.
    Size {
        /// How many voxels it would have.
        voxels: f64,
    },
    /// A sheared volume was asked onto a grid other than [`GridRule::Extent`], which is not defined for it.
    ShearedGrid,
}

impl fmt::Display for ResampleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResampleError::Spacing { spacing_mm } => {
                write!(f, "a target spacing of {spacing_mm} mm; expected a positive number such as 1.5")
            }
            ResampleError::Shape { shape: [x, y, z], voxels } => {
                write!(
                    f,
                    "{voxels} voxels in a volume of shape {x} x {y} x {z}; expected one or more, filling the shape"
                )
            }
            ResampleError::Affine => {
                write!(f, "the volume's affine does not span space; expected three independent axes")
            }
            ResampleError::Size { voxels } => write!(
                f,
                "the result would have {voxels:.3e} voxels; expected at most {MOST_VOXELS:.3e}: check that the target spacing \
                 and the volume's spacing are both in mm"
            ),
            ResampleError::ShearedGrid => write!(
                f,
                "the volume is sheared (gantry tilt), and only the grid rule `extent` is defined for it; use that rule or \
                 leave the volume out"
            ),
        }
    }
}

impl std::error::Error for ResampleError {}
