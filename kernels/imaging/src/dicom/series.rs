//! Reading the slices of a series as a volume in Hounsfield units.

use std::fmt;
use std::path::Path;

use rayon::prelude::*;

use super::error::{DicomError, DicomProblem};
use super::image::{Image, read_image};
use super::stack::{Slice, StackProblem, cross, dot, stacks};
use crate::geometry::Geometry;
use crate::rounding::round_half_even_f64;
use crate::volume::{HOUNSFIELD_RANGE, Volume};

/// A series read as a volume.
#[derive(Debug, Clone)]
pub struct Series {
    /// Shape, affine, and voxels in Hounsfield units: rounded half to even and clipped to [`HOUNSFIELD_RANGE`].
    pub volume: Volume,
    /// Values that lay more than half a unit outside of that range.
    pub saturated: u64,
    /// The type of the stored values, by numpy's name, such as `int16`.
    pub dtype: &'static str,
    /// What a person should know of the series, one sentence each.
    pub warnings: Vec<String>,
}

/// Whether stored values are rescaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rescale {
    /// By each slice's own slope and intercept.
    Header,
    /// Not at all.
    None,
}

/// Why files make no volume.
#[derive(Debug)]
pub enum SeriesError {
    /// One of the files cannot be read.
    File(DicomError),
    /// The slices make no volume.
    Stack(StackProblem),
    /// The slices are of several series or orientations, or come in another order than that of their positions.
    Order,
}

/// Reads the files of a series, which come in the order of their positions with a name each for errors. Every slice is
/// decoded and scaled by itself: slope and intercept may differ between slices.
///
/// # Errors
/// When a file cannot be read as a slice, or the slices are no volume in this order.
pub fn read_series(files: &[(&Path, &str)], rescale: Rescale) -> Result<Series, SeriesError> {
    let mut voxels: Vec<i16> = Vec::new();
    let mut slices = Vec::with_capacity(files.len());
    let (mut saturated, mut unscaled, mut other_units) = (0, 0, 0);
    let mut dtype = "int16";
    for files_at_once in files.chunks(DECODED_AT_ONCE) {
        let images: Vec<Result<Image, DicomError>> =
            files_at_once.par_iter().map(|&(path, name)| read_slice(path, name)).collect();
        for image in images {
            let image = image.map_err(SeriesError::File)?;
            if slices.is_empty() {
                dtype = dtype_of(&image);
                // What the first slice has, all have: one that differs is refused below.
                voxels.reserve_exact(image.values.len().saturating_mul(files.len().min(MOST_SLICES)));
            }
            let scaling = match rescale {
                Rescale::Header => image.header.rescale(),
                Rescale::None => None,
            };
            unscaled += usize::from(rescale == Rescale::Header && scaling.is_none());
            let units = image.header.rescale_type.as_deref();
            other_units += usize::from(units.is_some_and(|units| units != "HU"));
            saturated += append(&mut voxels, &image, scaling);
            slices.push(Slice::from(&image.header));
        }
    }
    let found = stacks(&slices);
    let [stack] = found.as_slice() else { return Err(SeriesError::Order) };
    let geometry = stack.stack.clone().map_err(SeriesError::Stack)?.geometry;
    if !stack.slices.iter().copied().eq(0..files.len()) || voxels.len() != geometry.voxel_count() {
        return Err(SeriesError::Order);
    }
    let counted =
        |count: usize, what: &str| (count > 0).then(|| format!("{count} of {} slices {what}", files.len()));
    let warnings = [
        counted(unscaled, "give no rescale slope and intercept; their stored values are taken as they are"),
        counted(other_units, "say that their rescaled values are no Hounsfield units"),
        tilt_degrees(&geometry).filter(|degrees| *degrees > TILT_DEGREES).map(|degrees| {
            format!(
                "the slices are tilted by {degrees:.1} degrees; the volume is sheared until it is resampled"
            )
        }),
    ];
    let volume = Volume { geometry, hounsfield: voxels };
    Ok(Series { volume, saturated, dtype, warnings: warnings.into_iter().flatten().collect() })
}

/// Slices that are decoded side by side; more would only fill the memory.
const DECODED_AT_ONCE: usize = 32;

fn read_slice(path: &Path, name: &str) -> Result<Image, DicomError> {
    let image = read_image(path, name, 0)?;
    if image.from_color {
        let problem = DicomProblem::Unsupported("an image in colours; expected a slice".to_owned());
        return Err(problem.in_file(name));
    }
    Ok(image)
}

/// More slices than any series has; the memory for them is only reserved, and grows if need be.
const MOST_SLICES: usize = 2048;

/// Adds the scaled values of a slice, and counts those outside of the range. They are computed in f64 and rounded once.
fn append(voxels: &mut Vec<i16>, image: &Image, scaling: Option<(f64, f64)>) -> u64 {
    let (slope, intercept) = scaling.unwrap_or((1.0, 0.0));
    let (low, high) = (f64::from(HOUNSFIELD_RANGE.0), f64::from(HOUNSFIELD_RANGE.1));
    let mut saturated = 0;
    voxels.extend(image.values.iter().map(|&stored| {
        let value = f64::from(stored) * slope + intercept;
        saturated += u64::from(value < low - 0.5 || value > high + 0.5);
        round_half_even_f64(value.clamp(low, high)) as i16
    }));
    saturated
}

/// A smaller tilt is rounding.
const TILT_DEGREES: f64 = 0.1;

/// The angle between the way from slice to slice and the normal of the slices.
fn tilt_degrees(geometry: &Geometry) -> Option<f64> {
    let [row, column, step] = [0, 1, 2].map(|axis| geometry.column(axis));
    let normal = cross(row, column);
    let cosine = dot(normal, step).abs() / (dot(normal, normal) * dot(step, step)).sqrt();
    cosine.is_finite().then(|| cosine.min(1.0).acos().to_degrees())
}

fn dtype_of(image: &Image) -> &'static str {
    match (image.bits, image.signed) {
        (..=8, false) => "uint8",
        (..=8, true) => "int8",
        (_, false) => "uint16",
        (_, true) => "int16",
    }
}

impl fmt::Display for SeriesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SeriesError::File(error) => write!(f, "{error}"),
            SeriesError::Stack(problem) => write!(f, "{problem}"),
            SeriesError::Order => write!(
                f,
                "the files are not the slices of one volume in the order of their positions; arrange them by their headers again"
            ),
        }
    }
}

impl std::error::Error for SeriesError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SeriesError::File(error) => Some(error),
            SeriesError::Stack(_) | SeriesError::Order => None,
        }
    }
}
