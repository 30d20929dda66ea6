//! Reading the slices of a series as a volume in Hounsfield units.

use std::fmt;
use std::path::Path;

use rayon::prelude::*;

use super::error::{DicomError, DicomProblem};
use super::header::{header, read_header};
use super::image::{Image, frames_of, read_image};
use super::stack::{Slice, Stack, StackProblem, Uneven, cross, dot, stacks};
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rescale {
    /// By each slice's own slope and intercept.
    Header,
    /// All by these, in place of their own: 1 and 0 where stored values are Hounsfield units.
    Told {
        /// HU per stored unit.
        slope: f64,
        /// HU of the stored value 0.
        intercept: f64,
    },
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

/// Reads the files of a series, which come in the order of their positions with a name each for errors: a file for each slice,
/// or files of several images, which say themselves where each lies. Every image is decoded and scaled by itself: slope and
/// intercept may differ between slices. Where gaps are uneven, slices at even steps are interpolated between those that there
/// are, as [`Uneven::Resample`] has it; whoever wants no such volume asks [`stacks`] first.
///
/// # Errors
/// When a file cannot be read as a slice, or the slices are no volume in this order.
pub fn read_series(files: &[(&Path, &str)], rescale: Rescale) -> Result<Series, SeriesError> {
    let mut values = Values::new(rescale);
    let Some(&(first, name)) = files.first() else { return Err(SeriesError::Order) };
    let several = read_header(first, name, &[]).map_err(SeriesError::File)?.frames > 1;
    let stack = if several { read_frames(files, &mut values)? } else { read_slices(files, &mut values)? };
    let images = stack.images.len();
    let Some(voxels_each) = values.voxels.len().checked_div(images) else { return Err(SeriesError::Order) };
    let hounsfield = match &stack.between {
        Some(places) => interpolated(&values.voxels, voxels_each, places),
        None => std::mem::take(&mut values.voxels),
    };
    if hounsfield.len() != stack.geometry.voxel_count() {
        return Err(SeriesError::Order);
    }
    let counted =
        |count: usize, what: &str| (count > 0).then(|| format!("{count} of {images} slices {what}"));
    let warnings = [
        counted(
            values.unscaled,
            "give no rescale slope and intercept; their stored values are taken as they are",
        ),
        counted(values.other_units, "say that their rescaled values are no Hounsfield units"),
        tilt_degrees(&stack.geometry).filter(|degrees| *degrees > TILT_DEGREES).map(|degrees| {
            format!(
                "the slices are tilted by {degrees:.1} degrees; the volume is sheared until it is resampled"
            )
        }),
        stack.between.as_ref().map(|places| {
            let step_mm = stack.geometry.spacing_mm()[2];
            format!(
                "the gaps between the {images} slices are uneven; {} slices at even steps of {step_mm:.3} mm were interpolated \
                 between them",
                places.len()
            )
        }),
    ];
    let volume = Volume { geometry: stack.geometry, hounsfield };
    Ok(Series {
        volume,
        saturated: values.saturated,
        dtype: values.dtype,
        warnings: warnings.into_iter().flatten().collect(),
    })
}

/// Images that are decoded side by side; more would only fill the memory.
const DECODED_AT_ONCE: usize = 32;

/// Reads files of one image each, which must come in the order of their positions.
fn read_slices(files: &[(&Path, &str)], values: &mut Values) -> Result<Stack, SeriesError> {
    let mut slices = Vec::with_capacity(files.len());
    for files_at_once in files.chunks(DECODED_AT_ONCE) {
        let images: Vec<Result<Image, DicomError>> =
            files_at_once.par_iter().map(|&(path, name)| grey(read_image(path, name, 0)?, name)).collect();
        for image in images {
            let image = image.map_err(SeriesError::File)?;
            values.add(&image, 0, files.len());
            slices.push(Slice::from(&image.header));
        }
    }
    let stack = only_stack(&slices)?;
    let in_order = stack.images.iter().map(|(file, _)| *file).eq(0..files.len());
    if in_order { Ok(stack) } else { Err(SeriesError::Order) }
}

/// Reads files of several images each, which stay in memory until all of them are decoded in the order of their positions.
fn read_frames(files: &[(&Path, &str)], values: &mut Values) -> Result<Stack, SeriesError> {
    let mut contents = Vec::with_capacity(files.len());
    let mut slices = Vec::with_capacity(files.len());
    for &(path, name) in files {
        let bytes = std::fs::read(path).map_err(DicomProblem::Io);
        let bytes = bytes.map_err(|problem| SeriesError::File(problem.in_file(name)))?;
        slices.push(Slice::from(&header(&bytes, name, &[]).map_err(SeriesError::File)?));
        contents.push(bytes);
    }
    let stack = only_stack(&slices)?;
    for of_one_file in stack.images.chunk_by(|one, other| one.0 == other.0) {
        for at_once in of_one_file.chunks(DECODED_AT_ONCE) {
            let (file, name) = (at_once[0].0, files[at_once[0].0].1);
            let frames: Vec<u32> = at_once.iter().map(|(_, frame)| *frame).collect();
            let images = frames_of(&contents[file], &frames);
            for (image, &frame) in
                images.map_err(|problem| SeriesError::File(problem.in_file(name)))?.into_iter().zip(&frames)
            {
                let image = grey(image, name).map_err(SeriesError::File)?;
                values.add(&image, frame as usize, stack.images.len());
            }
        }
    }
    Ok(stack)
}

/// The volume of slices that are to be one.
fn only_stack(slices: &[Slice]) -> Result<Stack, SeriesError> {
    let mut found = stacks(slices, Uneven::Resample);
    match (found.pop(), found.is_empty()) {
        (Some(found), true) => found.stack.map_err(SeriesError::Stack),
        _ => Err(SeriesError::Order),
    }
}

fn grey(image: Image, name: &str) -> Result<Image, DicomError> {
    if image.from_color {
        let problem = DicomProblem::Unsupported("an image in colours; expected a slice".to_owned());
        return Err(problem.in_file(name));
    }
    Ok(image)
}

/// The voxels of a series, slice by slice, and what is counted on the way.
struct Values {
    rescale: Rescale,
    voxels: Vec<i16>,
    dtype: &'static str,
    saturated: u64,
    unscaled: usize,
    other_units: usize,
}

impl Values {
    fn new(rescale: Rescale) -> Values {
        let (voxels, dtype) = (Vec::new(), "int16");
        Values { rescale, voxels, dtype, saturated: 0, unscaled: 0, other_units: 0 }
    }

    /// Adds an image, which is a frame of its file, to a volume of so many.
    fn add(&mut self, image: &Image, frame: usize, of: usize) {
        if self.voxels.is_empty() {
            self.dtype = dtype_of(image);
            // What the first slice has, all have: one that differs is refused by its place.
            self.voxels.reserve_exact(image.values.len().saturating_mul(of.min(MOST_SLICES)));
        }
        let scaling = match self.rescale {
            Rescale::Header => image.header.rescale_of(frame),
            Rescale::Told { slope, intercept } => Some((slope, intercept)),
        };
        self.unscaled += usize::from(self.rescale == Rescale::Header && scaling.is_none());
        let units = image.header.rescale_type.as_deref();
        self.other_units += usize::from(units.is_some_and(|units| units != "HU"));
        self.saturated += append(&mut self.voxels, image, scaling);
    }
}

/// Slices between slices of so many voxels each, by their places among them: linear, rounded half to even.
fn interpolated(voxels: &[i16], voxels_each: usize, places: &[f64]) -> Vec<i16> {
    let slice = |number: usize| &voxels[number * voxels_each..(number + 1) * voxels_each];
    let mut between = Vec::with_capacity(places.len() * voxels_each);
    for place in places {
        let (below, share) = (slice(place.floor() as usize), place.fract());
        if share == 0.0 {
            between.extend_from_slice(below);
            continue;
        }
        let above = slice(place.floor() as usize + 1);
        between.extend(below.iter().zip(above).map(|(&low, &high)| {
            let (low, high) = (f64::from(low), f64::from(high));
            round_half_even_f64(low + (high - low) * share) as i16
        }));
    }
    between
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
