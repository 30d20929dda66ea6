//! `volumes.scan`: the volumes that there are, with their geometry and a look at their Hounsfield units.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use argent_engine::operator::{ConfigFiles, FILES};
use argent_engine::{Inputs, Io, Kind, Operator, Port, Problem, RowError, Signature, column};
use argent_imaging::dicom::Series;
use argent_imaging::nifti;
use argent_imaging::{Geometry, Histogram, HounsfieldStatistics, Orientation};
use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Float64Builder, Int64Array, Int64Builder, ListBuilder,
    RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::each_row::each_row;
use crate::ids::{IdReader, Ids};
use crate::one_or_many::OneOrMany;
use crate::pseudonyms::{self, Pseudonymise, Pseudonyms};
use crate::volumes::slices;
use crate::volumes::source::{AS_STORED, GeometrySource, HounsfieldSource, Reading, told_fields};
use crate::volumes::told::Told;

/// Finds volumes (NIfTI-1 and -2, `.nii`, `.nii.gz`, pairs; `.npz` archives; series of DICOM slices, from `dicom.series`),
/// reads each once and tells what it is.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumesScan {
    /// Glob patterns of the files, relative to the spec; left out, all files of the table at `files`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-not-in-key" = "files enter the key by their content and name"))]
    pub path: Option<OneOrMany>,
    /// How ids are made from file names; left out, the id is the name without its ending.
    #[serde(default)]
    pub ids: Option<Ids>,
    /// Ids that come in as pseudonyms: `[patient, id]`, or `{ columns: [patient, id], key: { env: NAME } }` for pseudonyms
    /// that are equal in several stores. An id out of which one of them could be read gets one too. `path` still says
    /// where the file lies, because its voxels are read from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudonymise: Option<Pseudonymise>,
    /// Where Hounsfield units come from: `header`, the file's own scaling (`scl_slope` and `scl_inter`, or each slice's
    /// rescale); `already`, stored values are Hounsfield units whatever the header says; or `{ table, id, slope, intercept }`,
    /// columns of a CSV file.
    #[serde(default)]
    pub hounsfield: HounsfieldSource,
    /// Where spacing and orientation come from: `header`, the file's own; `{ table, id, spacing_mm, orientation }`, columns
    /// of a CSV file, whatever headers say; or `{ assume: { spacing_mm, orientation, array } }`, for files that say nothing
    /// of it, such as `.npz` archives.
    #[serde(default)]
    pub geometry: GeometrySource,
    /// What becomes of a volume whose values do not look like Hounsfield units: `refuse`, it is an error row;
    /// or `warn`, it is kept with a warning, as crops that show no air must be.
    #[serde(default)]
    pub hounsfield_check: HounsfieldCheck,
    #[serde(skip)]
    told: Told,
}

/// What becomes of a volume whose values do not look like Hounsfield units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HounsfieldCheck {
    /// It is an error row.
    #[default]
    Refuse,
    /// It is kept with a warning.
    Warn,
}

/// The operator's kind in the registry.
pub const KIND: Kind = Kind::Row(FILES);

/// How many volumes are read, and remembered, at a time: as many as are worth losing to an interrupt.
const CHUNK: usize = 16;

impl VolumesScan {
    /// What makes ids of names has nothing to do where the table has them.
    fn only_given_ids(&self) -> Result<(), Vec<Problem>> {
        let idle = [("ids", self.ids.is_some()), ("pseudonymise", self.pseudonymise.is_some())];
        let problem = |name: &str| {
            let message = format!("the table of volumes has its ids, so `{name}` has nothing to do");
            Problem::at(["with", name], message)
                .help("leave it out; say how ids are made in the step that makes the table")
        };
        let problems: Vec<Problem> =
            idle.into_iter().filter(|(_, given)| *given).map(|(name, _)| problem(name)).collect();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn ids(&self) -> Result<IdReader, String> {
        IdReader::new(self.ids.as_ref())
    }
}

impl Operator for VolumesScan {
    fn ports(&self) -> Vec<Port> {
        vec![Port::files()]
    }

    fn patterns(&self) -> Vec<String> {
        self.path.as_ref().map(OneOrMany::to_vec).unwrap_or_default()
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        self.told = Told::load(files, &self.hounsfield, &self.geometry)?;
        pseudonyms::load(files, self.pseudonymise.as_mut())
    }

    fn annotate(&self, files: RecordBatch) -> anyhow::Result<RecordBatch> {
        let ids = self.ids().map_err(anyhow::Error::msg)?;
        self.told.annotate(&files, &ids, self.ids.is_some())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let ids = self.ids().map_err(|e| vec![Problem::at(["with", "ids"], e)])?;
        let files = &inputs.port(FILES).schema;
        let told = told_fields().map(|field| field.name().clone());
        let told = told.into_iter().filter(|name| files.field_with_name(name).is_ok());
        let read: Vec<String> =
            ["path", "digest", column::SLICES].map(str::to_owned).into_iter().chain(told).collect();
        let given = given_ids(files);
        if inputs.files_on_disk && self.path.is_none() {
            let problem =
                Problem::at(["with"], "nothing says which files: `path` is left out, and no table is read");
            return Err(vec![
                problem.help("add path: volumes/**/*.nii.gz, or read a step of `dicom.series`"),
            ]);
        }
        if !given.is_empty() {
            self.only_given_ids()?;
            let own = column::schema(volume_fields());
            return Ok(Signature::new(own, &["id"]).reads(FILES, read).carries(given));
        }
        let fields = pseudonyms::fields(ids.fields(), &ids, self.pseudonymise.as_ref())?;
        let fields = fields.into_iter().chain(volume_fields());
        let own = column::schema(fields);
        // The name is read, because the id comes from it.
        Ok(Signature::new(own, &["id"]).reads(FILES, read))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let ids = self.ids().map_err(anyhow::Error::msg)?;
        let files = io.rows().clone();
        let paths = files.column_by_name("path").context("files have paths")?.as_string::<i32>();
        let digests = files.column_by_name("digest").context("files have digests")?.as_string::<i32>();
        let find = io.source_finder();
        let (slices, told) = (slices::of_rows(&files)?, self.told_readings(&files)?);
        let pseudonyms = Pseudonyms::new(io, &ids, self.pseudonymise.as_ref())?;
        let makes_ids = io.schema("")?.field_with_name("id").is_ok();
        each_row(io, CHUNK, |row| {
            let ids = if makes_ids { Some((&ids, &pseudonyms)) } else { None };
            let (path, digest) = (paths.value(row), digests.value(row));
            let reading = told[row].clone().map_err(|reason| RowError::lasting("table", reason))?;
            let scanned = self.scan(ids, &find, (path, digest), reading, slices[row].as_deref())?;
            let cells =
                scanned.columns().map_err(|error| RowError::lasting("slices", format!("{error:#}")))?;
            Ok(Some(cells))
        })
    }
}

/// The id columns that a table of volumes has already; those of a list of files are made of names.
fn given_ids(files: &Schema) -> Vec<String> {
    let mut ids = column::names_with_role(files, "id");
    ids.retain(|name| name != "path");
    ids
}

/// The columns of a volume behind its ids.
pub(crate) fn volume_fields() -> Vec<Field> {
    let list = |name: &str, item: DataType| {
        Field::new(name, DataType::List(Arc::new(Field::new_list_field(item, true))), true)
    };
    vec![
        column::phi("path"),
        column::source("digest"),
        list("shape", DataType::Int64),
        list("spacing_mm", DataType::Float64),
        column::text("orientation"),
        list("affine", DataType::Float64),
        column::text("affine_source"),
        column::text("dtype"),
        column::text("array"),
        column::text("hounsfield_source"),
        column::number("rescale_slope"),
        column::number("rescale_intercept"),
        column::number("hounsfield_min"),
        column::number("hounsfield_max"),
        column::number("hounsfield_mean"),
        column::number("air_peak_hu"),
        column::whole("saturated_voxels"),
        column::text("warnings"),
        column::slices(column::SLICES),
    ]
}

struct Scanned {
    ids: Vec<String>,
    path: String,
    digest: String,
    found: Found,
    reading: Reading,
    source: &'static str,
    slices: Option<Vec<slices::File>>,
}

/// What is kept of a volume once its voxels are dropped.
struct Found {
    geometry: Geometry,
    affine_source: String,
    dtype: &'static str,
    /// Slope and intercept that were applied; `None` where each slice has its own.
    rescale: Option<(f64, f64)>,
    statistics: HounsfieldStatistics,
    saturated: u64,
    warnings: Vec<String>,
}

impl VolumesScan {
    /// By row: how its file is read, or why the tables do not say.
    fn told_readings(&self, files: &RecordBatch) -> anyhow::Result<Vec<Result<Reading, String>>> {
        let plain = Reading::of(&self.hounsfield, &self.geometry);
        let orientation = match &self.geometry {
            GeometrySource::Table(table) => Some(table.orientation.parse::<Orientation>()?),
            GeometrySource::Word(_) | GeometrySource::Assume(_) => None,
        };
        let number =
            |name: &str| files.column_by_name(name).and_then(|c| c.as_primitive_opt::<Float64Type>());
        let problems = files.column_by_name("told_problem").and_then(|c| c.as_string_opt::<i32>());
        let spacings = files.column_by_name("told_spacing_mm").and_then(|c| c.as_list_opt::<i32>());
        let of = |row: usize| {
            if let Some(problems) = problems.filter(|problems| problems.is_valid(row)) {
                return Err(problems.value(row).to_owned());
            }
            let mut reading = plain.clone();
            let at = |name: &str| {
                number(name).filter(|numbers| numbers.is_valid(row)).map(|numbers| numbers.value(row))
            };
            if let (Some(slope), Some(intercept)) = (at("told_slope"), at("told_intercept")) {
                if slope == 0.0 {
                    return Err(
                        "the table of `hounsfield` says a slope of 0, expected another number".to_owned()
                    );
                }
                reading.rescale = Some((slope, intercept));
            }
            if let (Some(spacings), Some(orientation)) = (spacings.filter(|s| s.is_valid(row)), orientation) {
                let cells = spacings.value(row);
                let cells = cells.as_primitive::<Float64Type>();
                let spacing_mm = std::array::from_fn(|axis| cells.value(axis));
                if let Some(mm) = spacing_mm.iter().find(|mm| **mm <= 0.0) {
                    return Err(format!(
                        "the table of `geometry` says a spacing of {mm} mm, expected more than 0"
                    ));
                }
                reading.geometry = Some((spacing_mm, orientation));
            }
            Ok(reading)
        };
        Ok((0..files.num_rows()).map(of).collect())
    }

    fn scan(
        &self,
        ids: Option<(&IdReader, &Pseudonyms)>,
        find: &(dyn Fn(&str, &str) -> anyhow::Result<std::path::PathBuf> + Sync),
        (path, digest): (&str, &str),
        reading: Reading,
        slices: Option<&[slices::File]>,
    ) -> Result<Scanned, RowError> {
        let name = file_name(path);
        let mut id = Vec::new();
        if let Some((ids, pseudonyms)) = ids {
            id = ids
                .read(if self.ids.is_some() { name } else { stem(name) })
                .map_err(|e| RowError::lasting("id", e))?;
            pseudonyms.put(&mut id);
        }
        let mut found = match slices {
            Some(files) => of_series(slices::read(files, find, reading.rescale)?, &reading),
            None => {
                let local = find(path, digest).map_err(|e| RowError {
                    retryable: true,
                    ..RowError::lasting("file", format!("{e:#}"))
                })?;
                of_file(&local, name, &reading)?
            }
        };
        match (&found.statistics.suspicion, self.hounsfield_check) {
            (Some(reason), HounsfieldCheck::Refuse) => {
                let message =
                    format!("{reason}; where that is right, keep such volumes with `hounsfield_check: warn`");
                return Err(RowError::lasting("hounsfield", message));
            }
            (reason, _) => found.warnings.extend(reason.clone()),
        }
        let (path, digest) = (path.to_owned(), digest.to_owned());
        let (source, slices) = (self.hounsfield.name(), slices.map(<[slices::File]>::to_vec));
        Ok(Scanned { ids: id, path, digest, found, reading, source, slices })
    }
}

/// Looks at a volume of one file, slice by slice where the format allows it: no more than a slice is in memory.
fn of_file(local: &Path, name: &str, reading: &Reading) -> Result<Found, RowError> {
    let Some(mut slices) = reading.open(local, name)? else {
        let stored = reading.read(local, name)?;
        let (affine_source, dtype) = (reading.affine_source(stored.affine_source)?, stored.dtype);
        let (rescale, warnings) = (Some(stored.scaling.unwrap_or(AS_STORED)), stored.warnings.clone());
        let (volume, saturated) = stored.into_volume();
        let (geometry, statistics) = (volume.geometry, volume.statistics());
        return Ok(Found { geometry, affine_source, dtype, rescale, statistics, saturated, warnings });
    };
    // The name of a file may be a person's: it stays out of what is said of it.
    let unreadable = |error: nifti::ReadError| RowError::lasting("unreadable", error.problem.to_string());
    let affine_source = reading.affine_source(slices.affine_source)?;
    let mut histogram = Histogram::default();
    while let Some(slice) = slices.next_slice().map_err(unreadable)? {
        histogram.add(&slice);
    }
    let (geometry, dtype, saturated) = (slices.geometry, slices.dtype, slices.saturated);
    let (rescale, warnings) = (Some(slices.scaling.unwrap_or(AS_STORED)), slices.warnings.clone());
    slices.finish().map_err(unreadable)?;
    let statistics = HounsfieldStatistics::of_histogram(&histogram);
    Ok(Found { geometry, affine_source, dtype, rescale, statistics, saturated, warnings })
}

fn of_series(series: Series, reading: &Reading) -> Found {
    Found {
        geometry: series.volume.geometry,
        affine_source: "slices".to_owned(),
        dtype: series.dtype,
        rescale: reading.rescale,
        statistics: series.volume.statistics(),
        saturated: series.saturated,
        warnings: series.warnings,
    }
}

pub(crate) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

pub(crate) fn stem(name: &str) -> &str {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let endings = [".nii", ".hdr", ".img", ".npz"];
    endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

impl Scanned {
    fn columns(&self) -> anyhow::Result<Vec<ArrayRef>> {
        let text = |t: &str| Arc::new(StringArray::from(vec![t])) as ArrayRef;
        let number = |n: Option<f64>| Arc::new(Float64Array::from(vec![n])) as ArrayRef;
        let mut columns: Vec<ArrayRef> = self.ids.iter().map(|id| text(id)).collect();
        let Found { geometry, statistics, warnings, .. } = &self.found;
        columns.extend([
            text(&self.path),
            text(&self.digest),
            whole_list(&geometry.shape.map(|n| n as i64)),
            number_list(&geometry.spacing_mm()),
            text(&geometry.orientation()),
            number_list(&geometry.affine.concat()),
            text(&self.found.affine_source),
            text(self.found.dtype),
            Arc::new(StringArray::from(vec![self.reading.array_of(file_name(&self.path))])) as ArrayRef,
            text(self.source),
            number(self.found.rescale.map(|(slope, _)| slope)),
            number(self.found.rescale.map(|(_, intercept)| intercept)),
            number(Some(f64::from(statistics.min))),
            number(Some(f64::from(statistics.max))),
            number(Some(statistics.mean)),
            number(statistics.air_peak_hu.map(f64::from)),
            Arc::new(Int64Array::from(vec![self.found.saturated as i64])) as ArrayRef,
            Arc::new(StringArray::from(vec![(!warnings.is_empty()).then(|| warnings.join("; "))]))
                as ArrayRef,
            slices::column_of(std::slice::from_ref(&self.slices))?,
        ]);
        Ok(columns)
    }
}

/// One row with a list of numbers.
pub(crate) fn number_list(values: &[f64]) -> ArrayRef {
    let mut builder = ListBuilder::new(Float64Builder::new());
    builder.append_value(values.iter().map(|v| Some(*v)));
    Arc::new(builder.finish())
}

/// One row with a list of whole numbers.
pub(crate) fn whole_list(values: &[i64]) -> ArrayRef {
    let mut builder = ListBuilder::new(Int64Builder::new());
    builder.append_value(values.iter().map(|v| Some(*v)));
    Arc::new(builder.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stem_is_the_name_without_its_ending() {
        assert_eq!(stem(file_name("a/b/scan.1.nii.gz")), "scan.1");
        assert_eq!(stem("x.hdr"), "x");
    }
}
