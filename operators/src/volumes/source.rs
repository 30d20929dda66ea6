//! How a volume's file becomes a volume: where its Hounsfield units and its geometry come from.

use argent_engine::operator::{ConfigFiles, nearest};
use argent_engine::{Problem, RowError, column};
use argent_imaging::nifti::{self, SliceReader};
use argent_imaging::{AffineSource, Geometry, Orientation, StoredVolume, npz};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Float64Type};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// Where Hounsfield units come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum HounsfieldSource {
    /// By a word.
    Word(HounsfieldWord),
    /// From the columns of a CSV file.
    Table(HounsfieldTable),
}

impl Default for HounsfieldSource {
    fn default() -> HounsfieldSource {
        HounsfieldSource::Word(HounsfieldWord::Header)
    }
}

impl Default for GeometrySource {
    fn default() -> GeometrySource {
        GeometrySource::Word(GeometryWord::Header)
    }
}

/// Where Hounsfield units come from, by a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HounsfieldWord {
    /// The file's own scaling.
    Header,
    /// Stored values as they are.
    Already,
}

/// Slope and intercept of each volume, from the columns of a CSV file: HU = stored value * slope + intercept. The file's own
/// scaling is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HounsfieldTable {
    /// The CSV file, relative to the spec.
    pub table: String,
    /// Its column of ids, or of file names.
    pub id: String,
    /// Its column of slopes.
    pub slope: String,
    /// Its column of intercepts.
    pub intercept: String,
}

/// Where spacing and orientation come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum GeometrySource {
    /// By a word.
    Word(GeometryWord),
    /// From the columns of a CSV file.
    Table(GeometryTable),
    /// What is taken for granted.
    Assume(GeometryAssumption),
}

/// Where spacing and orientation come from, by a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GeometryWord {
    /// The file's own header.
    Header,
}

/// The spacing of each volume, from the columns of a CSV file, and the orientation that all have. Whatever headers say is
/// left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GeometryTable {
    /// The CSV file, relative to the spec.
    pub table: String,
    /// Its column of ids, or of file names.
    pub id: String,
    /// Its columns of spacings in millimetres, in the order of the file's axes; a cell may hold several, as in `[0.7, 0.7]`.
    pub spacing_mm: Vec<String>,
    /// The directions that the file's axes increase to, the fastest axis first, such as `LPS`.
    pub orientation: String,
}

/// What is taken for granted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GeometryAssumption {
    /// The spacing and orientation of volumes whose file says nothing of them. Other files keep what they say.
    pub assume: Assumed,
}

/// The geometry of a volume whose file says nothing of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Assumed {
    /// Distance in millimetres between voxel centres along the file's axes, the fastest one first: the last one of a numpy
    /// array.
    pub spacing_mm: [f64; 3],
    /// The directions that these axes increase to, such as `LPS`; RAD-ChestCT's arrays are `LPI`.
    pub orientation: String,
    /// The array of an `.npz` archive; left out, its only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<String>,
}

/// What decides how one file is read; `None` everywhere is what its header says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Reading {
    /// Slope and intercept in place of the file's own.
    pub(crate) rescale: Option<(f64, f64)>,
    /// Spacing and orientation in place of the file's own.
    pub(crate) geometry: Option<([f64; 3], Orientation)>,
    /// Whether the geometry is for files alone that say nothing of it.
    pub(crate) assumed: bool,
    /// The affine in place of all that, as a table of volumes has it.
    pub(crate) affine: Option<[[f64; 4]; 4]>,
    /// The array of an archive.
    pub(crate) array: Option<String>,
}

/// The identity: stored values are Hounsfield units.
pub(crate) const AS_STORED: (f64, f64) = (1.0, 0.0);

impl HounsfieldSource {
    /// The word for the column `hounsfield_source`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            HounsfieldSource::Word(HounsfieldWord::Already) => "already",
            HounsfieldSource::Table(_) => "table",
            HounsfieldSource::Word(HounsfieldWord::Header) => "header",
        }
    }
}

impl GeometrySource {
    /// What is wrong with it, at its place.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let (place, orientation, spacing): (&[&str], &String, &[f64]) = match self {
            GeometrySource::Table(table) => (&[], &table.orientation, &[]),
            GeometrySource::Assume(GeometryAssumption { assume }) => {
                (&["assume"], &assume.orientation, &assume.spacing_mm)
            }
            GeometrySource::Word(_) => return Vec::new(),
        };
        let at = |name: &'static str| [&["with", "geometry"], place, &[name]].concat();
        let mut problems = Vec::new();
        if let Err(error) = orientation.parse::<Orientation>() {
            problems.push(Problem::at(at("orientation"), error.to_string()));
        }
        if spacing.iter().any(|mm| !(mm.is_finite() && *mm > 0.0)) {
            problems.push(Problem::at(at("spacing_mm"), "a spacing must be above 0 mm"));
        }
        problems
    }

    fn orientation(&self) -> Option<Orientation> {
        match self {
            GeometrySource::Table(table) => table.orientation.parse().ok(),
            GeometrySource::Assume(GeometryAssumption { assume }) => assume.orientation.parse().ok(),
            GeometrySource::Word(_) => None,
        }
    }
}

impl Reading {
    /// How a file is read by these parameters, where a table does not say otherwise.
    pub(crate) fn of(hounsfield: &HounsfieldSource, geometry: &GeometrySource) -> Reading {
        let rescale = (hounsfield.name() == "already").then_some(AS_STORED);
        let assume = match geometry {
            GeometrySource::Assume(GeometryAssumption { assume }) => Some(assume),
            _ => None,
        };
        Reading {
            rescale,
            geometry: assume.and_then(|assume| Some((assume.spacing_mm, geometry.orientation()?))),
            assumed: assume.is_some(),
            affine: None,
            array: assume.and_then(|assume| assume.array.clone()),
        }
    }

    /// Reads a file whole.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn read(&self, local: &Path, name: &str) -> Result<StoredVolume, RowError> {
        let unreadable = |error: String| RowError::lasting("unreadable", error);
        let mut stored = if is_archive(name) {
            npz::read(local, self.array.as_deref()).map_err(|error| unreadable(error.to_string()))?
        } else {
            nifti::read_named(local, name)
                .map_err(|error| unreadable(format!("{}{}", error.problem, advice(local))))?
        };
        if let Some(rescale) = self.rescale {
            stored.scaling = Some(rescale).filter(|rescale| *rescale != AS_STORED);
        }
        if let Some(geometry) = self.geometry(stored.geometry, stored.affine_source) {
            stored.geometry = geometry;
        }
        Ok(stored)
    }

    /// Opens a file to read it slice by slice; `None` where it must be read whole.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn open(&self, local: &Path, name: &str) -> Result<Option<SliceReader>, RowError> {
        if is_archive(name) {
            return Ok(None);
        }
        let opened = SliceReader::open(local, name);
        let mut reader = opened.map_err(|error| {
            RowError::lasting("unreadable", format!("{}{}", error.problem, advice(local)))
        })?;
        if let Some(rescale) = self.rescale {
            reader.scaling = Some(rescale).filter(|rescale| *rescale != AS_STORED);
        }
        if let Some(geometry) = self.geometry(reader.geometry, reader.affine_source) {
            reader.geometry = geometry;
        }
        Ok(Some(reader))
    }

    /// The array that is read of a file, where it is an archive and one was named.
    pub(crate) fn array_of(&self, name: &str) -> Option<&str> {
        self.array.as_deref().filter(|_| is_archive(name))
    }

    /// The geometry in place of a file's own.
    fn geometry(&self, own: Geometry, source: AffineSource) -> Option<Geometry> {
        if let Some(affine) = self.affine {
            return Some(Geometry { affine, ..own });
        }
        let (spacing_mm, orientation) = self.geometry?;
        let applies = !self.assumed || source == AffineSource::None;
        applies.then(|| Geometry::from_spacing(own.shape, spacing_mm, orientation))
    }

    /// The word for where the affine comes from, or why it comes from nowhere.
    ///
    /// # Errors
    /// Where left and right are not known: resampling would only guess.
    pub(crate) fn affine_source(&self, source: AffineSource) -> Result<String, RowError> {
        match (self.geometry, source) {
            (Some(_), _) if !self.assumed => Ok("table".to_owned()),
            (Some(_), AffineSource::None) => Ok("assumed".to_owned()),
            (None, AffineSource::None) => {
                let message = "the file does not say where left and right are (a NIfTI header has neither sform nor qform, an \
                               archive says nothing), expected it to; tell spacing and orientation by `geometry`, or leave \
                               the volume out";
                Err(RowError::lasting("geometry", message))
            }
            (_, source) => Ok(source.to_string()),
        }
    }
}

fn is_archive(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npz"))
}

/// What to do with a file of another kind.
fn advice(local: &Path) -> &'static str {
    use std::io::Read;
    let mut start = Vec::new();
    let read = std::fs::File::open(local).and_then(|file| file.take(132).read_to_end(&mut start));
    match read.is_ok() && argent_imaging::dicom::is_dicom(&start) {
        true => {
            ", a slice of a series: read the files with `dicom.headers` and `dicom.series`, and that table here"
        }
        false => "",
    }
}

/// The columns that say of each file how it is read, where a table does.
pub(crate) fn told_fields() -> [Field; 4] {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)));
    [
        column::number("told_slope"),
        column::number("told_intercept"),
        Field::new("told_spacing_mm", list, true),
        column::text("told_problem"),
    ]
}

/// The columns by which another step reads a volume as `volumes.scan` read it.
pub(crate) const READING: [&str; 5] =
    ["rescale_slope", "rescale_intercept", "affine", "affine_source", "array"];

/// By row of a table of volumes: how each is read.
///
/// # Errors
/// When a column is of another type than `volumes.scan` gives it.
pub(crate) fn readings(rows: &RecordBatch) -> anyhow::Result<Vec<Reading>> {
    let text = |name: &str| rows.column_by_name(name).and_then(|c| c.as_string_opt::<i32>()).cloned();
    let number =
        |name: &str| rows.column_by_name(name).and_then(|c| c.as_primitive_opt::<Float64Type>()).cloned();
    let (slopes, intercepts) = (number("rescale_slope"), number("rescale_intercept"));
    let (sources, arrays, hounsfield) = (text("affine_source"), text("array"), text("hounsfield_source"));
    let affines = rows.column_by_name("affine").and_then(|c| c.as_list_opt::<i32>()).cloned();
    let of = |row: usize| {
        let cell = |column: &Option<arrow::array::StringArray>| {
            column.as_ref().filter(|c| c.is_valid(row)).map(|c| c.value(row).to_owned())
        };
        let at = |column: &Option<arrow::array::Float64Array>| {
            column.as_ref().filter(|c| c.is_valid(row)).map(|c| c.value(row))
        };
        let rescale = match (at(&slopes), at(&intercepts)) {
            (Some(slope), Some(intercept)) => Some((slope, intercept)),
            _ => cell(&hounsfield).filter(|source| source == "already").map(|_| AS_STORED),
        };
        let told = cell(&sources).is_some_and(|source| source == "table" || source == "assumed");
        let affine = affines.as_ref().filter(|affines| told && affines.is_valid(row));
        let affine = affine.map(|affines| square(&affines.value(row))).transpose()?;
        Ok(Reading { rescale, array: cell(&arrays), affine, ..Reading::default() })
    };
    (0..rows.num_rows()).map(of).collect()
}

fn square(cells: &ArrayRef) -> anyhow::Result<[[f64; 4]; 4]> {
    let cells = cells.as_primitive_opt::<Float64Type>().filter(|cells| cells.len() == 16);
    let cells = cells.ok_or_else(|| anyhow::anyhow!("an `affine` is not of 16 numbers"))?;
    Ok(std::array::from_fn(|row| std::array::from_fn(|column| cells.value(4 * row + column))))
}

/// The columns of CSV files that parameters name, looked up at check.
pub(crate) fn check_table(
    files: &mut ConfigFiles,
    parameter: &str,
    table: &str,
    columns: &[(&str, &str)],
) -> Result<Arc<str>, Vec<Problem>> {
    let file = files.read(parameter, table).map_err(|problem| vec![problem])?;
    let mut reader = csv::Reader::from_reader(file.text.as_bytes());
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(error) => {
            return Err(vec![Problem::at(
                ["with", parameter, "table"],
                format!("`{table}` is no CSV file: {error}"),
            )]);
        }
    };
    let names: Vec<&str> = header.iter().collect();
    let absent = columns.iter().filter(|(_, column)| !names.contains(column));
    let problems: Vec<Problem> = absent
        .map(|(key, column)| {
            Problem::at(["with", parameter, key], format!("`{table}` has no column `{column}`"))
                .help(nearest(column, &names, "columns"))
        })
        .collect();
    if problems.is_empty() { Ok(file.text) } else { Err(problems) }
}
