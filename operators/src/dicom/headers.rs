//! `dicom.headers`: what DICOM files say of their images, a row for each file.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use argent_engine::operator::{ConfigFiles, FILES, nearest};
use argent_engine::{Inputs, Io, Kind, Operator, Port, Problem, RowError, Signature, column};
use argent_imaging::dicom::{self, Header, Tag};
use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, Float64Builder, Int64Array, ListBuilder, StringArray,
};
use arrow::datatypes::{DataType, Field};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::each_row::each_row;
use crate::ids::IdReader;
use crate::one_or_many::OneOrMany;
use crate::pseudonyms::{self, Pseudonymise, Pseudonyms};

/// Reads what DICOM files say of their images, up to the pixel data: a row for each file. A DICOMDIR, which lists the files
/// of a disc, has none.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DicomHeaders {
    /// Glob patterns of the files, relative to the spec. DICOM files often have no ending: `dicom/**/*`.
    #[schemars(extend("x-not-in-key" = "files enter the key by their content and name"))]
    pub path: OneOrMany,
    /// Further attributes by their DICOM keyword, such as `PatientAge`; each is a column of text, `patient_age`. Several
    /// values stand between backslashes.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Columns that come in as pseudonyms: `[patient_id]`, or `{ columns: [patient_id], key: { env: NAME } }` for pseudonyms
    /// that are equal in several stores. `path` still says where the file lies, because its pixels are read from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudonymise: Option<Pseudonymise>,
}

/// The operator's kind in the registry.
pub const KIND: Kind = Kind::Row(FILES);

/// How many files are read, and remembered, at a time.
const CHUNK: usize = 256;

/// How far a keyword may be from one of the dictionary that is meant.
const NEAR: usize = 3;

impl DicomHeaders {
    /// The tags to keep.
    fn tags(&self) -> Result<Vec<Tag>, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut tags = Vec::new();
        for (number, keyword) in self.keep.iter().enumerate() {
            let place = ["with".to_owned(), "keep".to_owned(), number.to_string()];
            let name = column_name(keyword);
            let taken = columns_of(Header::default()).iter().any(|column| column.field.name() == &name)
                || self.keep[..number].contains(keyword);
            match dicom::tag_of(keyword) {
                Some(_) if taken => {
                    let message = format!("there is a column `{name}` already");
                    problems.push(Problem::at(place, message).help("leave it out"));
                }
                Some(tag) if dicom::is_textual(tag) => tags.push(tag),
                Some(_) => {
                    let message = format!("`{keyword}` holds bytes or a sequence, expected text or numbers");
                    problems.push(Problem::at(place, message).help("leave it out"));
                }
                None => {
                    let problem = Problem::at(place, format!("DICOM has no attribute `{keyword}`"));
                    problems.push(problem.help(advice(keyword)));
                }
            }
        }
        if problems.is_empty() { Ok(tags) } else { Err(problems) }
    }

    fn fields(&self) -> Vec<Field> {
        let kept = self.keep.iter().map(|keyword| column::phi(&column_name(keyword)));
        columns_of(Header::default()).into_iter().map(|column| column.field).chain(kept).collect()
    }
}

fn advice(keyword: &str) -> String {
    // A keyword in another spelling is the nearest one by far.
    let distance = |one: &str, other: &str| match one.eq_ignore_ascii_case(other) {
        true => 0,
        false => strsim::damerau_levenshtein(one, other),
    };
    match dicom::keyword_like(keyword, distance, NEAR) {
        Some(near) => nearest(keyword, &[near], "attributes"),
        None => "keywords are those of DICOM's data dictionary, such as `PatientAge`".to_owned(),
    }
}

impl Operator for DicomHeaders {
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
        self.tags()?;
        let ids = IdReader::new(None).map_err(|e| vec![Problem::at(["with"], e)])?;
        let fields = pseudonyms::fields(self.fields(), &ids, self.pseudonymise.as_ref())?;
        // A file that was moved says the same.
        Ok(Signature::new(column::schema(fields), &["path"])
            .reads(FILES, ["digest"])
            .sees(FILES, ["path"])
            .carries(vec!["path".to_owned(), "digest".to_owned()]))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let tags =
            self.tags().map_err(|_| anyhow::anyhow!("`keep` names attributes that DICOM does not have"))?;
        let files = io.rows().clone();
        let paths = files.column_by_name("path").context("files have paths")?.as_string::<i32>();
        let digests = files.column_by_name("digest").context("files have digests")?.as_string::<i32>();
        let find = io.source_finder();
        let ids = IdReader::new(None).map_err(anyhow::Error::msg)?;
        let pseudonyms = Pseudonyms::new(io, &ids, self.pseudonymise.as_ref())?;
        each_row(io, CHUNK, |row| {
            let header = header(&find, paths.value(row), digests.value(row), &tags)?;
            let is_directory = header.sop_class_uid.as_deref() == Some(dicom::DIRECTORY);
            Ok((!is_directory).then(|| cells(header, &pseudonyms)))
        })
    }
}

fn header(
    find: &(dyn Fn(&str, &str) -> anyhow::Result<PathBuf> + Sync),
    path: &str,
    digest: &str,
    tags: &[Tag],
) -> Result<Header, RowError> {
    let local = find(path, digest)
        .map_err(|e| RowError { retryable: true, ..RowError::lasting("file", format!("{e:#}")) })?;
    // The row has the path; a name in the message would say it again.
    dicom::read_header(&local, "", tags).map_err(|e| RowError::lasting("unreadable", e.problem.to_string()))
}

/// A header's row of cells, with pseudonyms in their places.
fn cells(mut header: Header, pseudonyms: &Pseudonyms) -> Vec<ArrayRef> {
    let kept = std::mem::take(&mut header.kept).into_iter().map(Cell::Text);
    let mut cells: Vec<Cell> = columns_of(header).into_iter().map(|column| column.cell).chain(kept).collect();
    let texts: Vec<Option<&str>> = cells.iter().map(Cell::text).collect();
    for (place, pseudonym) in pseudonyms.of_row(&texts) {
        cells[place] = Cell::Text(Some(pseudonym));
    }
    cells.into_iter().map(Cell::array).collect()
}

/// A column of the table, and the cell of the header that was given.
struct Column {
    field: Field,
    cell: Cell,
}

enum Cell {
    Text(Option<String>),
    Whole(Option<i64>),
    Number(Option<f64>),
    Numbers(Option<Vec<f64>>),
    Flag(bool),
}

impl Cell {
    fn text(&self) -> Option<&str> {
        match self {
            Cell::Text(text) => text.as_deref(),
            _ => None,
        }
    }

    fn array(self) -> ArrayRef {
        match self {
            Cell::Text(text) => Arc::new(StringArray::from(vec![text])),
            Cell::Whole(number) => Arc::new(Int64Array::from(vec![number])),
            Cell::Number(number) => Arc::new(Float64Array::from(vec![number])),
            Cell::Flag(flag) => Arc::new(BooleanArray::from(vec![flag])),
            Cell::Numbers(numbers) => {
                let mut builder = ListBuilder::new(Float64Builder::new());
                builder.append_option(numbers.map(|numbers| numbers.into_iter().map(Some)));
                Arc::new(builder.finish())
            }
        }
    }
}

/// The columns in their order, each with its cell of a header.
fn columns_of(header: Header) -> Vec<Column> {
    let id = |name: &str| column::with_roles(column::text(name), &["id", "phi"]);
    let list = |name: &str| {
        Field::new(name, DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true))), true)
    };
    let flag = |name: &str| Field::new(name, DataType::Boolean, true);
    let whole = |number: Option<u32>| Cell::Whole(number.map(i64::from));
    let several = |numbers: Vec<f64>| Cell::Numbers((!numbers.is_empty()).then_some(numbers));
    let several_texts = |texts: Vec<String>| Cell::Text((!texts.is_empty()).then(|| texts.join("\\")));
    let columns = [
        (id("patient_id"), Cell::Text(header.patient_id)),
        (column::phi("study_instance_uid"), Cell::Text(header.study_instance_uid)),
        (column::phi("series_instance_uid"), Cell::Text(header.series_instance_uid)),
        (column::whole("series_number"), Cell::Whole(header.series_number)),
        (column::phi("series_description"), Cell::Text(header.series_description)),
        (column::phi("sop_instance_uid"), Cell::Text(header.sop_instance_uid)),
        (column::text("sop_class_uid"), Cell::Text(header.sop_class_uid)),
        (column::text("transfer_syntax_uid"), Cell::Text(header.transfer_syntax)),
        (column::text("modality"), Cell::Text(header.modality)),
        (column::text("image_type"), several_texts(header.image_type)),
        (column::whole("instance_number"), Cell::Whole(header.instance_number)),
        (flag("pixel_data"), Cell::Flag(header.has_pixels)),
        (column::whole("frames"), Cell::Whole(Some(i64::from(header.frames)))),
        (column::whole("rows"), whole(header.rows)),
        (column::whole("columns"), whole(header.columns)),
        (list("pixel_spacing_mm"), Cell::Numbers(header.pixel_spacing_mm.map(Into::into))),
        (list("imager_pixel_spacing_mm"), Cell::Numbers(header.imager_pixel_spacing_mm.map(Into::into))),
        (list("position_mm"), Cell::Numbers(header.position_mm.map(Into::into))),
        (list("direction_cosines"), Cell::Numbers(header.direction_cosines.map(Into::into))),
        (list("frame_positions_mm"), several(header.frame_positions_mm.concat())),
        (column::text("stack_ids"), several_texts(header.stack_ids)),
        (column::number("slice_thickness_mm"), Cell::Number(header.slice_thickness_mm)),
        (column::number("gantry_tilt_degrees"), Cell::Number(header.gantry_tilt_degrees)),
        (column::text("photometric_interpretation"), Cell::Text(header.photometric_interpretation)),
        (column::text("presentation_lut_shape"), Cell::Text(header.presentation_lut_shape)),
        (column::whole("samples_per_pixel"), Cell::Whole(Some(i64::from(header.samples_per_pixel)))),
        (column::whole("bits_allocated"), whole(header.bits_allocated)),
        (column::whole("bits_stored"), whole(header.bits_stored)),
        (column::whole("high_bit"), whole(header.high_bit)),
        (flag("signed"), Cell::Flag(header.signed)),
        (column::number("rescale_slope"), Cell::Number(header.rescale_slope)),
        (column::number("rescale_intercept"), Cell::Number(header.rescale_intercept)),
        (column::text("rescale_type"), Cell::Text(header.rescale_type)),
        (list("window_center"), several(header.window_center)),
        (list("window_width"), several(header.window_width)),
        (column::number("padding_value"), Cell::Number(header.padding_value)),
    ];
    columns.into_iter().map(|(field, cell)| Column { field, cell }).collect()
}

/// The column's name for a keyword: `patient_age` for `PatientAge`, `series_instance_uid` for `SeriesInstanceUID`.
fn column_name(keyword: &str) -> String {
    let letters: Vec<char> = keyword.chars().collect();
    let mut name = String::new();
    for (place, letter) in letters.iter().enumerate() {
        let begins_word = letter.is_uppercase()
            && place > 0
            && (!letters[place - 1].is_uppercase()
                || letters.get(place + 1).is_some_and(|next| next.is_lowercase()));
        if begins_word {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyword_is_a_column_in_small_letters() {
        let names = ["PatientAge", "KVP", "SeriesInstanceUID", "CTDIvol", "PixelSpacing"].map(column_name);
        assert_eq!(names, ["patient_age", "kvp", "series_instance_uid", "ctd_ivol", "pixel_spacing"]);
    }

    #[test]
    fn attributes_that_cannot_be_kept_are_told_at_once() {
        let keep =
            ["PatientAgee", "patientage", "IconImageSequence", "SeriesNumber", "KVP", "KVP", "Nonsense"];
        let headers = DicomHeaders {
            path: OneOrMany::One("*".to_owned()),
            keep: keep.map(str::to_owned).to_vec(),
            pseudonymise: None,
        };
        let problems = headers.tags().expect_err("most are wrong");
        let said: Vec<String> = problems
            .iter()
            .map(|p| format!("{}: {} ({})", p.path[2], p.message, p.help.as_deref().unwrap_or("")))
            .collect();
        assert_eq!(
            said,
            [
                "0: DICOM has no attribute `PatientAgee` (did you mean `PatientAge`?)",
                "1: DICOM has no attribute `patientage` (did you mean `PatientAge`?)",
                "2: `IconImageSequence` holds bytes or a sequence, expected text or numbers (leave it out)",
                "3: there is a column `series_number` already (leave it out)",
                "5: there is a column `kvp` already (leave it out)",
                "6: DICOM has no attribute `Nonsense` (keywords are those of DICOM's data dictionary, such as `PatientAge`)",
            ]
        );
    }
}
