//! `images.scan`: the X-ray images that there are, and what their files say of them.

use std::sync::Arc;

use anyhow::Context;
use argent_engine::operator::{ConfigFiles, FILES};
use argent_engine::{Inputs, Io, Kind, Operator, Port, Problem, RowError, Signature, column};
use argent_imaging::image::{self, ImageProblem};
use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, Float64Builder, Int64Array, ListBuilder, StringArray,
};
use arrow::datatypes::{DataType, Field};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::each_row::each_row;
use crate::ids::{IdReader, Ids};
use crate::one_or_many::OneOrMany;
use crate::pseudonyms::{self, Pseudonymise, Pseudonyms};
use crate::volumes::scan::file_name;

/// Finds X-ray images (DICOM, PNG of 8 and 16 bits, JPEG), reads each once and tells what it is. Pictures in colour are
/// refused, and so are files that were cut.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImagesScan {
    /// Glob patterns of the files, relative to the spec.
    #[schemars(extend("x-not-in-key" = "files enter the key by their content and name"))]
    pub path: OneOrMany,
    /// How ids are made from file names; left out, the id is the name without its ending.
    #[serde(default)]
    pub ids: Option<Ids>,
    /// Ids that come in as pseudonyms: `[patient, id]`, or `{ columns: [patient, id], key: { env: NAME } }` for pseudonyms
    /// that are equal in several stores. An id out of which one of them could be read gets one too. `path` still says
    /// where the file lies, because its pixels are read from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudonymise: Option<Pseudonymise>,
}

/// The operator's kind in the registry.
pub const KIND: Kind = Kind::Row(FILES);

/// How many images are read, and remembered, at a time: as many as are worth losing to an interrupt.
const CHUNK: usize = 64;

impl ImagesScan {
    fn ids(&self) -> Result<IdReader, String> {
        IdReader::new(self.ids.as_ref())
    }

    /// The ids of a file's name.
    fn read_ids(&self, ids: &IdReader, name: &str) -> Result<Vec<String>, RowError> {
        let text = if self.ids.is_some() { name } else { stem(name) };
        ids.read(text).map_err(|error| RowError::lasting("id", error))
    }
}

impl Operator for ImagesScan {
    fn ports(&self) -> Vec<Port> {
        vec![Port::files()]
    }

    fn patterns(&self) -> Vec<String> {
        self.path.to_vec()
    }

    fn load(&mut self, files: &mut ConfigFiles) -> Result<(), Vec<Problem>> {
        pseudonyms::load(files, self.pseudonymise.as_mut())
    }

    fn signature(&self, _inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let ids = self.ids().map_err(|e| vec![Problem::at(["with", "ids"], e)])?;
        let fields = pseudonyms::fields(ids.fields(), &ids, self.pseudonymise.as_ref())?;
        let own = column::schema(fields.into_iter().chain(image_fields()));
        // The name is read, because the id comes from it.
        Ok(Signature::new(own, &["id"]).reads(FILES, ["path", "digest"]))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let ids = self.ids().map_err(anyhow::Error::msg)?;
        let files = io.rows().clone();
        let paths = files.column_by_name("path").context("files have paths")?.as_string::<i32>();
        let digests = files.column_by_name("digest").context("files have digests")?.as_string::<i32>();
        let find = io.source_finder();
        let pseudonyms = Pseudonyms::new(io, &ids, self.pseudonymise.as_ref())?;
        each_row(io, CHUNK, |row| {
            let (path, digest) = (paths.value(row), digests.value(row));
            let mut id = self.read_ids(&ids, file_name(path))?;
            pseudonyms.put(&mut id);
            let image = read(&find, path, digest)?;
            Ok(Some(columns(&id, path, digest, &image)))
        })
    }
}

/// Reads the image that a row names.
pub(crate) fn read(
    find: &(impl Fn(&str, &str) -> anyhow::Result<std::path::PathBuf> + Sync),
    path: &str,
    digest: &str,
) -> Result<image::Image, RowError> {
    let passing = |message: String| RowError { retryable: true, ..RowError::lasting("file", message) };
    let local = find(path, digest).map_err(|error| passing(format!("{error:#}")))?;
    // The row has the path; a name may be a patient's, and messages are shown to everybody.
    image::read_named(&local, "").map_err(|error| {
        let message = error.problem.to_string();
        match error.problem {
            ImageProblem::Io(_) => passing(message),
            ImageProblem::Colour { .. } => RowError::lasting("colour", message),
            _ => RowError::lasting("unreadable", message),
        }
    })
}

/// The columns of an image behind its ids.
fn image_fields() -> Vec<Field> {
    vec![
        column::phi("path"),
        column::source("digest"),
        column::whole("width"),
        column::whole("height"),
        column::whole("bits"),
        column::text("format"),
        column::text("photometric"),
        Field::new("inverted", DataType::Boolean, true),
        column::text("modality"),
        number_list_field("spacing_mm"),
        column::whole("exif_orientation"),
        number_list_field("voi_window"),
        column::number("p1"),
        column::number("p50"),
        column::number("p99"),
        column::text("warnings"),
    ]
}

fn columns(ids: &[String], path: &str, digest: &str, image: &image::Image) -> Vec<ArrayRef> {
    let text = |text: Option<&str>| Arc::new(StringArray::from(vec![text])) as ArrayRef;
    let whole = |number: Option<i64>| Arc::new(Int64Array::from(vec![number])) as ArrayRef;
    let percentiles = image.percentiles();
    let percentile = |percent: f64| Arc::new(Float64Array::from(vec![percentiles.at(percent)])) as ArrayRef;
    let mut columns: Vec<ArrayRef> = ids.iter().map(|id| text(Some(id))).collect();
    columns.extend([
        text(Some(path)),
        text(Some(digest)),
        whole(Some(image.width as i64)),
        whole(Some(image.height as i64)),
        whole(Some(i64::from(image.bits))),
        text(Some(&image.format.to_string())),
        text(Some(&image.photometric.to_string())),
        Arc::new(BooleanArray::from(vec![image.inverted])) as ArrayRef,
        text(image.modality.as_deref()),
        number_list(image.spacing_mm.as_ref().map(|mm| mm.as_slice())),
        whole(image.orientation.map(|orientation| i64::from(orientation.number()))),
        number_list(image.voi_window.as_ref().map(|values| values.as_slice())),
        percentile(1.0),
        percentile(50.0),
        percentile(99.0),
        text((!image.warnings.is_empty()).then(|| image.warnings.join("; ")).as_deref()),
    ]);
    columns
}

/// A column of lists of numbers.
pub(crate) fn number_list_field(name: &str) -> Field {
    Field::new(name, DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true))), true)
}

/// One row with a list of numbers, or with none.
pub(crate) fn number_list(values: Option<&[f64]>) -> ArrayRef {
    let mut builder = ListBuilder::new(Float64Builder::new());
    builder.append_option(values.map(|values| values.iter().map(|value| Some(*value))));
    Arc::new(builder.finish())
}

/// A file's name without the ending of an image.
fn stem(name: &str) -> &str {
    let ending = |(_, ending): &(&str, &str)| {
        ["png", "jpg", "jpeg", "jpe", "dcm", "dicom"].iter().any(|known| ending.eq_ignore_ascii_case(known))
    };
    name.rsplit_once('.').filter(ending).map_or(name, |(stem, _)| stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stem_is_the_name_without_its_ending() {
        let stems = ["00000001_000.png", "a.1.JPG", "1.2.840.113", "1.2.dcm"].map(stem);
        assert_eq!(stems, ["00000001_000", "a.1", "1.2.840.113", "1.2"]);
    }
}
