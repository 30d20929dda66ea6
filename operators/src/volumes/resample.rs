//! `volumes.resample`: volumes on one grid.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use argent_engine::{Inputs, Io, Kind, Needed, Operator, Port, Problem, RowError, Signature, column};
use argent_imaging::resample::{
    Antialias, Grid, GridRule, Interpolation, ResampleError, StreamError, resample, resample_slices,
    resample_stored,
};
use argent_imaging::side_file::{self, Storage};
use argent_imaging::{HOUNSFIELD_RANGE, Orientation, Volume, release_spare_memory};
use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Field};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::each_row::each_row;
use crate::volumes::scan::{self, number_list, whole_list};
use crate::volumes::slices;
use crate::volumes::source::{self, READING, Reading};

/// Brings volumes to one orientation and spacing, once, on their original grid; voxels become 16-bit
/// Hounsfield units in a side file. Windowing and cropping come later, in a model's `view`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumesResample {
    /// The new voxel spacing along the axes of `orientation`, in millimetres.
    pub spacing_mm: [f64; 3],
    /// The anatomical directions of the axes, such as `RAS` or `LPS`.
    #[serde(default = "ras")]
    pub orientation: String,
    /// Where the new grid lies.
    #[serde(default)]
    pub grid: GridName,
    /// How values between voxels are found.
    #[serde(default)]
    pub interpolation: InterpolationName,
    /// Whether voxels are averaged where the new grid is coarser: `auto` does so from a factor of 1.5 on.
    #[serde(default)]
    pub antialias: AntialiasName,
    /// The value in Hounsfield units of what lies outside of a sheared volume (gantry tilt), in the box that holds it. A
    /// straight volume is held by its own edges.
    #[serde(default = "pad_hu")]
    #[schemars(range(min = -1024, max = 3071))]
    pub pad_hu: i16,
    /// How voxels are kept: `packed`, without loss in a third of the bytes, which every step of argent reads whole and in part;
    /// or `plain`, for programs of yours that read 16-bit numbers behind a header of 192 bytes, or map them into memory.
    #[serde(default)]
    pub storage: StorageName,
    /// The memory in MiB that volumes take together while they are resampled. Where they would take more, they are read
    /// slice by slice, which gives the same result, about a third slower.
    #[serde(default = "memory_mb")]
    #[schemars(range(min = 1), extend("x-not-in-key" = "how it is computed is not what comes out"))]
    pub memory_mb: u64,
}

fn pad_hu() -> i16 {
    HOUNSFIELD_RANGE.0
}

fn memory_mb() -> u64 {
    4096
}

/// Where the new grid lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GridName {
    /// Outer edges of the volume are kept.
    #[default]
    Extent,
    /// The first voxel's centre is kept.
    FirstVoxel,
    /// Both edges are kept exactly and the spacing gives way.
    Stretch,
}

/// How values between voxels are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterpolationName {
    /// Trilinear.
    #[default]
    Linear,
    /// The nearest voxel.
    Nearest,
}

/// Whether voxels are averaged where the new grid is coarser.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AntialiasName {
    /// From a factor of 1.5 on.
    #[default]
    Auto,
    /// Along every axis that shrinks.
    Always,
    /// Never.
    Never,
}

/// How voxels are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StorageName {
    /// In chunks that are packed without loss.
    #[default]
    Packed,
    /// As plain 16-bit numbers.
    Plain,
}

fn ras() -> String {
    "RAS".to_owned()
}

/// The operator's kind in the registry.
pub const KIND: Kind = Kind::Row("volumes");

/// How many volumes are in memory at a time.
const CHUNK: usize = 8;

impl VolumesResample {
    fn grid(&self) -> Result<Grid, Problem> {
        let orientation: Orientation =
            self.orientation.parse().map_err(|e| Problem::at(["with", "orientation"], format!("{e}")))?;
        if let Some(place) = self.spacing_mm.iter().position(|s| !(s.is_finite() && *s > 0.0)) {
            let message = "a spacing must be above 0 mm";
            return Err(Problem::at(["with".to_owned(), "spacing_mm".into(), place.to_string()], message));
        }
        Ok(Grid {
            spacing_mm: self.spacing_mm,
            orientation,
            rule: match self.grid {
                GridName::Extent => GridRule::Extent,
                GridName::FirstVoxel => GridRule::FirstVoxel,
                GridName::Stretch => GridRule::Stretch,
            },
            interpolation: match self.interpolation {
                InterpolationName::Linear => Interpolation::Linear,
                InterpolationName::Nearest => Interpolation::Nearest,
            },
            antialias: match self.antialias {
                AntialiasName::Auto => Antialias::Auto,
                AntialiasName::Always => Antialias::Always,
                AntialiasName::Never => Antialias::Never,
            },
            pad_hu: self.pad_hu,
        })
    }
}

/// The columns of a volume whose voxels lie in a side file.
pub(crate) fn grid_fields() -> Vec<Field> {
    let list = |name: &str, item: DataType| {
        Field::new(name, DataType::List(Arc::new(Field::new_list_field(item, true))), true)
    };
    vec![
        column::file("voxels"),
        list("shape", DataType::Int64),
        list("spacing_mm", DataType::Float64),
        column::text("orientation"),
        list("affine", DataType::Float64),
    ]
}

impl Operator for VolumesResample {
    fn ports(&self) -> Vec<Port> {
        vec![Port::new(
            "volumes",
            "A table of volumes, as `volumes.scan` makes it.",
            &[
                Needed::text("id"),
                Needed::text("path"),
                Needed::files("digest"),
                Needed::text("hounsfield_source"),
            ],
        )]
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        self.grid().map_err(|p| vec![p])?;
        let own = column::schema(grid_fields());
        // What a table does not say, files do.
        let has = |name: &&str| inputs.port("volumes").schema.field_with_name(name).is_ok();
        let reads = ["digest", "hounsfield_source"].into_iter().chain(READING.into_iter().filter(has));
        Ok(Signature::new(own, &["id"])
            .reads("volumes", reads)
            .sees("volumes", ["path", column::SLICES].into_iter().filter(has))
            .carries(inputs.ids("volumes")))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let grid = self.grid().map_err(|p| anyhow::anyhow!(p.message))?;
        let rows = io.rows().clone();
        let cell = |name: &str| {
            Ok::<_, anyhow::Error>(
                rows.column_by_name(name).context("a volume's column")?.as_string::<i32>().clone(),
            )
        };
        let (paths, digests) = (cell("path")?, cell("digest")?);
        let (slices, readings) = (slices::of_rows(&rows)?, source::readings(&rows)?);
        let at_a_time = CHUNK.min(rayon::current_num_threads()) as u64;
        let bytes_each = self.memory_mb * MIB / at_a_time;
        let (find, keep) = (io.source_finder(), io.keeper());
        let storage = match self.storage {
            StorageName::Packed => Storage::Packed,
            StorageName::Plain => Storage::Plain,
        };
        let made = each_row(io, CHUNK, |row| {
            let (path, digest, reading) = (paths.value(row), digests.value(row), &readings[row]);
            let volume = match &slices[row] {
                Some(files) => {
                    let volume = slices::read(files, &find, reading.rescale)?.volume;
                    resample(&volume, &grid).map_err(|e| on_no_grid(&e))?
                }
                None => {
                    let local = find(path, digest).map_err(|e| RowError {
                        retryable: true,
                        ..RowError::lasting("file", format!("{e:#}"))
                    })?;
                    resampled((&*local, scan::file_name(path)), reading, &grid, bytes_each)?
                }
            };
            let stored = side_file::encode(&volume, storage)
                .map_err(anyhow::Error::from)
                .and_then(|bytes| keep(&bytes));
            let voxels = stored
                .map_err(|e| RowError { retryable: true, ..RowError::lasting("store", format!("{e:#}")) })?;
            Ok(Some(columns(&volume, &voxels.to_string())))
        });
        release_spare_memory();
        made
    }
}

const MIB: u64 = 1 << 20;

/// Reads a file and resamples it: whole, or slice by slice where it would take more than so many bytes.
fn resampled(
    (local, name): (&Path, &str),
    reading: &Reading,
    grid: &Grid,
    most_bytes: u64,
) -> Result<Volume, RowError> {
    if let Some(slices) = reading.open(local, name)? {
        // The file, what it inflates to, and a little for the result.
        let packed = std::fs::metadata(local).map_or(0, |file| file.len());
        let whole = packed + slices.content_bytes() / 4 * 5;
        if whole > most_bytes && !slices.geometry.sheared() {
            return resample_slices(slices, grid).map_err(|error| match error {
                StreamError::Read(error) => RowError::lasting("unreadable", error.problem.to_string()),
                StreamError::Resample(error) => on_no_grid(&error),
                StreamError::Sheared => RowError::lasting("geometry", "a sheared volume is resampled whole"),
            });
        }
    }
    let stored = reading.read(local, name)?;
    resample_stored(stored, grid).map_err(|error| on_no_grid(&error))
}

fn on_no_grid(error: &ResampleError) -> RowError {
    RowError::lasting("geometry", error.to_string())
}

fn columns(volume: &Volume, voxels: &str) -> Vec<ArrayRef> {
    let geometry = &volume.geometry;
    vec![
        Arc::new(StringArray::from(vec![voxels])),
        whole_list(&geometry.shape.map(|n| n as i64)),
        number_list(&geometry.spacing_mm()),
        Arc::new(StringArray::from(vec![geometry.orientation()])),
        number_list(&geometry.affine.concat()),
    ]
}
