//! `volumes.scan`: the volumes that there are, with their geometry and a look at their Hounsfield units.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use argent_engine::operator::{ConfigFiles, FILES};
use argent_engine::{Inputs, Io, Kind, Operator, Port, Problem, RowError, Signature, column};
use argent_imaging::dicom::{self, Series};
use argent_imaging::nifti::{self, AffineSource, Nifti};
use argent_imaging::{HounsfieldStatistics, Volume};
use arrow::array::{
    ArrayRef, AsArray, Float64Array, Float64Builder, Int64Array, Int64Builder, ListBuilder, RecordBatch,
    StringArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{IdReader, Ids};
use crate::one_or_many::OneOrMany;
use crate::pseudonyms::{self, Pseudonymise, Pseudonyms};
use crate::volumes::slices;

/// Finds volumes (NIfTI-1 and -2, `.nii`, `.nii.gz`; series of DICOM slices, from `dicom.series`), reads each once and tells
/// what it is.
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
    /// Where Hounsfield units come from: `header`, the file's own scaling (`scl_slope`, `scl_inter`); or
    /// `already`, stored values are Hounsfield units whatever the header says.
    #[serde(default)]
    pub hounsfield: HounsfieldSource,
    /// What becomes of a volume whose values do not look like Hounsfield units: `refuse`, it is an error row;
    /// or `warn`, it is kept with a warning, as crops that show no air must be.
    #[serde(default)]
    pub hounsfield_check: HounsfieldCheck,
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

/// Where Hounsfield units come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HounsfieldSource {
    /// The file's own scaling.
    #[default]
    Header,
    /// Stored values as they are.
    Already,
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
        pseudonyms::load(files, self.pseudonymise.as_mut())
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let ids = self.ids().map_err(|e| vec![Problem::at(["with", "ids"], e)])?;
        let read = ["path", "digest", column::SLICES];
        let given = given_ids(&inputs.port(FILES).schema);
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
        let slices = slices::of_rows(&files)?;
        let pseudonyms = Pseudonyms::new(io, &ids, self.pseudonymise.as_ref())?;
        let schema = io.schema("")?;
        let makes_ids = schema.field_with_name("id").is_ok();
        for start in (0..files.num_rows()).step_by(CHUNK) {
            let rows: Vec<usize> = (start..(start + CHUNK).min(files.num_rows())).collect();
            let scanned: Vec<Result<Scanned, RowError>> = rows
                .par_iter()
                .map(|row| {
                    let ids = if makes_ids { Some((&ids, &pseudonyms)) } else { None };
                    self.scan(ids, &find, paths.value(*row), digests.value(*row), slices[*row].as_deref())
                })
                .collect();
            for (row, scanned) in rows.iter().zip(scanned) {
                match scanned {
                    Ok(scanned) => {
                        io.answer(&[*row], &[1], &RecordBatch::try_new(schema.clone(), scanned.columns()?)?)?
                    }
                    Err(error) => io.refuse(*row, error)?,
                }
            }
            io.progress((start + rows.len()) as u64, files.num_rows() as u64, "");
            if io.cancelled() {
                break;
            }
        }
        Ok(())
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
        column::text("hounsfield_source"),
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
    nifti: Described,
    statistics: HounsfieldStatistics,
    saturated: u64,
    warnings: Vec<String>,
    source: HounsfieldSource,
    slices: Option<Vec<slices::File>>,
}

/// What is kept of a file once its voxels are dropped.
struct Described {
    shape: [usize; 3],
    spacing_mm: [f64; 3],
    orientation: String,
    affine: [[f64; 4]; 4],
    affine_source: String,
    dtype: &'static str,
}

impl VolumesScan {
    fn scan(
        &self,
        ids: Option<(&IdReader, &Pseudonyms)>,
        find: &(dyn Fn(&str, &str) -> anyhow::Result<std::path::PathBuf> + Sync),
        path: &str,
        digest: &str,
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
        let (described, volume, saturated, mut warnings) = match slices {
            Some(files) => {
                let series = slices::read(files, find, self.hounsfield)?;
                (of_series(&series), series.volume, series.saturated, series.warnings)
            }
            None => {
                let local = find(path, digest).map_err(|e| RowError {
                    retryable: true,
                    ..RowError::lasting("file", format!("{e:#}"))
                })?;
                let nifti = read(&local, name, self.hounsfield)?;
                oriented(&nifti)?;
                let (described, warnings) = (described(&nifti), nifti.warnings.clone());
                let (volume, saturated) = volume(nifti);
                (described, volume, saturated, warnings)
            }
        };
        let statistics = volume.statistics();
        match (&statistics.suspicion, self.hounsfield_check) {
            (Some(reason), HounsfieldCheck::Refuse) => {
                let message =
                    format!("{reason}; where that is right, keep such volumes with `hounsfield_check: warn`");
                return Err(RowError::lasting("hounsfield", message));
            }
            (reason, _) => warnings.extend(reason.clone()),
        }
        let (path, digest) = (path.to_owned(), digest.to_owned());
        Ok(Scanned {
            ids: id,
            path,
            digest,
            nifti: described,
            statistics,
            saturated,
            warnings,
            source: self.hounsfield,
            slices: slices.map(<[slices::File]>::to_vec),
        })
    }
}

/// Refuses a volume whose header does not say where left and right are: resampling would only guess.
fn oriented(nifti: &Nifti) -> Result<(), RowError> {
    if nifti.affine_source != AffineSource::None {
        return Ok(());
    }
    let message = "the header has neither sform nor qform, expected one of them, so left and right are not known; write the \
                   orientation into the header at its source, or leave the volume out";
    Err(RowError::lasting("geometry", message))
}

fn described(nifti: &Nifti) -> Described {
    Described {
        shape: nifti.geometry.shape,
        spacing_mm: nifti.geometry.spacing_mm(),
        orientation: nifti.geometry.orientation(),
        affine: nifti.geometry.affine,
        affine_source: nifti.affine_source.to_string(),
        dtype: nifti.dtype,
    }
}

fn of_series(series: &Series) -> Described {
    let geometry = &series.volume.geometry;
    Described {
        shape: geometry.shape,
        spacing_mm: geometry.spacing_mm(),
        orientation: geometry.orientation(),
        affine: geometry.affine,
        affine_source: "slices".to_owned(),
        dtype: series.dtype,
    }
}

/// Reads a volume's file with the Hounsfield units that the parameter asks for.
pub(crate) fn read(local: &Path, name: &str, source: HounsfieldSource) -> Result<Nifti, RowError> {
    let mut nifti = nifti::read_named(local, name).map_err(|e| {
        let advice = match is_dicom(local) {
            true => ", a slice of a series: read the files with `dicom.headers` and `dicom.series`, and that table here",
            false => "",
        };
        RowError::lasting("unreadable", format!("{e}{advice}"))
    })?;
    if source == HounsfieldSource::Already {
        nifti.scaling = None;
    }
    Ok(nifti)
}

fn is_dicom(local: &Path) -> bool {
    let mut start = Vec::new();
    let read = std::fs::File::open(local).and_then(|file| file.take(132).read_to_end(&mut start));
    read.is_ok() && dicom::is_dicom(&start)
}

/// The volume in 16-bit Hounsfield units, and how many voxels were outside their range.
pub(crate) fn volume(nifti: Nifti) -> (Volume, u64) {
    let (hounsfield, saturated) = nifti.hounsfield_i16();
    (Volume { geometry: nifti.geometry, hounsfield }, saturated)
}

pub(crate) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn stem(name: &str) -> &str {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    name.strip_suffix(".nii").or(name.strip_suffix(".hdr")).unwrap_or(name)
}

impl Scanned {
    fn columns(&self) -> anyhow::Result<Vec<ArrayRef>> {
        let text = |t: &str| Arc::new(StringArray::from(vec![t])) as ArrayRef;
        let number = |n: Option<f64>| Arc::new(Float64Array::from(vec![n])) as ArrayRef;
        let mut columns: Vec<ArrayRef> = self.ids.iter().map(|id| text(id)).collect();
        columns.extend([
            text(&self.path),
            text(&self.digest),
            whole_list(&self.nifti.shape.map(|n| n as i64)),
            number_list(&self.nifti.spacing_mm),
            text(&self.nifti.orientation),
            number_list(&self.nifti.affine.concat()),
            text(&self.nifti.affine_source),
            text(self.nifti.dtype),
            text(match self.source {
                HounsfieldSource::Header => "header",
                HounsfieldSource::Already => "already",
            }),
            number(Some(f64::from(self.statistics.min))),
            number(Some(f64::from(self.statistics.max))),
            number(Some(self.statistics.mean)),
            number(self.statistics.air_peak_hu.map(f64::from)),
            Arc::new(Int64Array::from(vec![self.saturated as i64])) as ArrayRef,
            Arc::new(StringArray::from(vec![(!self.warnings.is_empty()).then(|| self.warnings.join("; "))]))
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
