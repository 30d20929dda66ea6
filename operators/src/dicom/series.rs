//! `dicom.series`: which files are the slices of one volume.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use argent_engine::operator::nearest;
use argent_engine::{Inputs, Io, Needed, Operator, Port, Problem, Signature, column};
use argent_imaging::dicom::{Found, Slice, Stack, StackProblem, Uneven, stacks};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::volumes::scan::{number_list, whole_list};
use crate::volumes::slices::{self, File};

/// Finds the volumes in a table of DICOM headers: the slices of a series in the order of their positions, and where they
/// lie. Files that name no series are one by their folder. A file of many frames (enhanced CT) is as many slices. What is no
/// volume (a scout, a gap, two slices at one position) is an error row with its reason.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DicomSeries {
    /// How a volume's id is made: columns of the headers in braces, such as `{patient_id}_{series_number}`; left out, it is
    /// the UID of the series, or the folder of files that name none.
    #[serde(default)]
    pub id: Option<String>,
    /// What becomes of a series whose slices are not at equal distances: `refuse`, it is an error row with the gaps and the place
    /// of the first odd one; or `resample`, slices at even steps are interpolated between the real ones. A step is the narrowest
    /// gap, but no less than a quarter of the mean one. A gap as wide as several others, where slices are missing, is refused
    /// in any case.
    #[serde(default)]
    pub uneven: UnevenGaps,
}

/// What becomes of a series whose slices are not at equal distances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnevenGaps {
    /// It is an error row.
    #[default]
    Refuse,
    /// It is brought to even steps.
    Resample,
}

/// Columns of the headers that tell a slice's place and what it belongs to.
const TEXTS: [&str; 9] = [
    "path",
    "digest",
    "patient_id",
    "study_instance_uid",
    "series_instance_uid",
    "series_description",
    "sop_instance_uid",
    "sop_class_uid",
    "modality",
];
const MORE: [&str; 9] = [
    "image_type",
    "photometric_interpretation",
    "pixel_data",
    "frames",
    "rows",
    "columns",
    "pixel_spacing_mm",
    "position_mm",
    "direction_cosines",
];

/// Columns that say where the images of one file lie; a table without them has files of one image.
const OF_FRAMES: [&str; 2] = ["frame_positions_mm", "stack_ids"];

impl DicomSeries {
    /// The id's parts: texts, and columns in braces; none where the series names itself.
    fn parts(&self) -> Result<Vec<Part<'_>>, String> {
        let Some(mut rest) = self.id.as_deref() else { return Ok(Vec::new()) };
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let Some((text, behind)) = rest.split_once('{') else {
                parts.push(Part::Text(rest));
                break;
            };
            let (column, behind) = behind.split_once('}').ok_or("a brace is opened and not closed")?;
            parts.extend([Part::Text(text), Part::Column(column)]);
            rest = behind;
        }
        match parts.iter().any(|part| matches!(part, Part::Column(_))) {
            true => Ok(parts),
            false => Err("it names no column in braces, so every volume would have one id".to_owned()),
        }
    }

    fn columns(&self) -> Result<Vec<&str>, String> {
        let of = |part: &Part<'_>| matches!(part, Part::Column(_));
        let parts = self.parts()?;
        Ok(parts.iter().filter(|part| of(part)).map(|part| part.text()).collect())
    }

    fn problems(&self, inputs: &Inputs) -> Vec<Problem> {
        let schema = &inputs.port("headers").schema;
        let columns = match self.columns() {
            Ok(columns) => columns,
            Err(message) => {
                return vec![
                    Problem::at(["with", "id"], message).help("write it as `{patient_id}_{series_number}`"),
                ];
            }
        };
        let usable = |field: &Field| matches!(field.data_type(), DataType::Utf8 | DataType::Int64);
        let names: Vec<&str> =
            schema.fields().iter().filter(|f| usable(f)).map(|f| f.name().as_str()).collect();
        let absent = columns.into_iter().filter(|column| !names.contains(column));
        absent
            .map(|column| {
                let message = match schema.field_with_name(column) {
                    Ok(_) => format!("the column `{column}` holds neither text nor whole numbers"),
                    Err(_) => format!("the headers have no column `{column}`"),
                };
                Problem::at(["with", "id"], message).help(nearest(column, &names, "columns"))
            })
            .collect()
    }
}

/// A part of an id.
enum Part<'a> {
    Text(&'a str),
    Column(&'a str),
}

impl<'a> Part<'a> {
    fn text(&self) -> &'a str {
        match self {
            Part::Text(text) | Part::Column(text) => text,
        }
    }
}

impl Operator for DicomSeries {
    fn ports(&self) -> Vec<Port> {
        vec![Port::new(
            "headers",
            "A table of DICOM headers, as `dicom.headers` makes it.",
            &[
                Needed::text("path"),
                Needed::files("digest"),
                Needed::text("patient_id"),
                Needed::text("series_instance_uid"),
                Needed::text("image_type"),
                Needed::number("rows"),
                Needed::number("columns"),
                Needed::lists("pixel_spacing_mm"),
                Needed::lists("position_mm"),
                Needed::lists("direction_cosines"),
            ],
        )]
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        let needed: Vec<&str> = TEXTS.into_iter().chain(MORE).collect();
        let problems: Vec<Problem> =
            self.problems(inputs).into_iter().chain(inputs.missing("headers", &needed)).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let of_id = self.columns().map_err(|e| vec![Problem::at(["with", "id"], e)])?;
        let has = |name: &&str| inputs.port("headers").schema.field_with_name(name).is_ok();
        let read: BTreeSet<&str> =
            needed.into_iter().chain(of_id).chain(OF_FRAMES.into_iter().filter(has)).collect();
        Ok(Signature::new(column::schema(fields()), &["id"]).reads("headers", read))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let rows = io.input("headers")?.clone();
        let headers = Headers::new(&rows)?;
        let parts = self.parts().map_err(anyhow::Error::msg)?;
        let all: Vec<Slice> = (0..rows.num_rows()).map(|row| headers.slice(row)).collect();
        let mut volumes: BTreeMap<String, Vec<ArrayRef>> = BTreeMap::new();
        let rule = match self.uneven {
            UnevenGaps::Refuse => Uneven::Refuse,
            UnevenGaps::Resample => Uneven::Resample,
        };
        for Found { slices: rows, stack } in stacks(&all, rule) {
            let series = &all[rows[0]].series_instance_uid;
            let stack = match stack {
                Ok(stack) => stack,
                Err(problem) => {
                    let advice = match problem {
                        StackProblem::Uneven { .. } => "; or let `uneven: resample` interpolate between them",
                        _ => "",
                    };
                    let message = format!("{}: {problem}{advice}", count(rows.len()));
                    io.fault("headers", series, problem.kind(), message);
                    continue;
                }
            };
            let id = if parts.is_empty() { Ok(series.clone()) } else { headers.id(&parts, &rows) };
            match id {
                Err(message) => io.fault("headers", series, "id", message),
                Ok(id) if volumes.contains_key(&id) => {
                    let message = "another series has the same id; name more columns in `id`";
                    io.fault("headers", series, "id", message);
                }
                Ok(id) => {
                    let cells = headers.volume(&id, &rows, &stack)?;
                    volumes.insert(id, cells);
                }
            }
        }
        let schema = io.schema("")?;
        if volumes.is_empty() {
            return io.emit("", RecordBatch::new_empty(schema));
        }
        let column = |place: usize| {
            let cells: Vec<&dyn Array> = volumes.values().map(|cells| cells[place].as_ref()).collect();
            concat(&cells)
        };
        let columns = (0..schema.fields().len()).map(column).collect::<Result<Vec<_>, _>>()?;
        io.emit("", RecordBatch::try_new(schema, columns)?)
    }
}

fn count(files: usize) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}

fn fields() -> Vec<Field> {
    let list = |name: &str, item: DataType| {
        Field::new(name, DataType::List(Arc::new(Field::new_list_field(item, true))), true)
    };
    vec![
        column::id("id"),
        column::with_roles(column::text("patient"), &["id", "phi"]),
        column::phi("study_instance_uid"),
        column::phi("series_instance_uid"),
        column::phi("series_description"),
        column::text("modality"),
        column::phi("path"),
        column::source("digest"),
        list("shape", DataType::Int64),
        list("spacing_mm", DataType::Float64),
        column::text("orientation"),
        list("affine", DataType::Float64),
        column::slices(column::SLICES),
    ]
}

/// The cells of a table of headers.
struct Headers<'a> {
    rows: &'a RecordBatch,
}

impl<'a> Headers<'a> {
    fn new(rows: &'a RecordBatch) -> anyhow::Result<Headers<'a>> {
        for name in TEXTS {
            let column = rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            column.with_context(|| format!("the column `{name}` of the headers holds no text"))?;
        }
        Ok(Headers { rows })
    }

    fn text(&self, name: &str, row: usize) -> Option<String> {
        let cells = self.rows.column_by_name(name)?.as_string_opt::<i32>()?;
        cells.is_valid(row).then(|| cells.value(row).to_owned())
    }

    fn whole(&self, name: &str, row: usize) -> Option<i64> {
        let cells = self.rows.column_by_name(name)?.as_primitive_opt::<Int64Type>()?;
        cells.is_valid(row).then(|| cells.value(row))
    }

    fn count(&self, name: &str, row: usize) -> Option<u32> {
        self.whole(name, row).and_then(|number| u32::try_from(number).ok())
    }

    fn numbers<const N: usize>(&self, name: &str, row: usize) -> Option<[f64; N]> {
        let lists = self.rows.column_by_name(name)?.as_list_opt::<i32>()?;
        if lists.is_null(row) {
            return None;
        }
        let items = lists.value(row);
        let numbers = items.as_primitive_opt::<Float64Type>()?;
        (numbers.null_count() == 0).then(|| numbers.values().to_vec().try_into().ok())?
    }

    /// The positions of a file's images, three numbers each.
    fn frame_positions(&self, row: usize) -> Vec<[f64; 3]> {
        let lists = self.rows.column_by_name("frame_positions_mm").and_then(|c| c.as_list_opt::<i32>());
        let Some(lists) = lists.filter(|lists| lists.is_valid(row)) else { return Vec::new() };
        let items = lists.value(row);
        let numbers = items.as_primitive_opt::<Float64Type>().filter(|numbers| numbers.null_count() == 0);
        numbers.map(|numbers| numbers.values().as_chunks().0.to_vec()).unwrap_or_default()
    }

    fn slice(&self, row: usize) -> Slice {
        let pixels = self.rows.column_by_name("pixel_data").and_then(|column| column.as_boolean_opt());
        let image_type = self.text("image_type", row).unwrap_or_default();
        Slice {
            // Anonymisers take UIDs away; the files of a series are then told by where they lie.
            series_instance_uid: self
                .text("series_instance_uid", row)
                .or_else(|| self.text("path", row).map(|path| folder_of(&path)))
                .unwrap_or_default(),
            sop_instance_uid: self.text("sop_instance_uid", row),
            sop_class_uid: self.text("sop_class_uid", row),
            image_type: image_type.split('\\').map(str::to_owned).collect(),
            photometric_interpretation: self.text("photometric_interpretation", row),
            has_pixels: pixels.is_some_and(|pixels| pixels.is_valid(row) && pixels.value(row)),
            frames: self.count("frames", row).unwrap_or(1),
            rows: self.count("rows", row),
            columns: self.count("columns", row),
            pixel_spacing_mm: self.numbers("pixel_spacing_mm", row),
            position_mm: self.numbers("position_mm", row),
            direction_cosines: self.numbers("direction_cosines", row),
            frame_positions_mm: self.frame_positions(row),
            stack_ids: self
                .text("stack_ids", row)
                .map(|ids| ids.split('\\').map(str::to_owned).collect())
                .unwrap_or_default(),
        }
    }

    /// The id of a volume, which all of its slices must give.
    fn id(&self, parts: &[Part], rows: &[usize]) -> Result<String, String> {
        let mut id = String::new();
        for part in parts {
            let Part::Column(column) = part else {
                id += part.text();
                continue;
            };
            let cell = |row: usize| self.text(column, row).or(self.whole(column, row).map(|n| n.to_string()));
            let value =
                cell(rows[0]).ok_or_else(|| format!("the slices have no `{column}`, which makes the id"))?;
            if rows.iter().any(|row| cell(*row).as_ref() != Some(&value)) {
                return Err(format!("the slices differ in `{column}`, which makes the id"));
            }
            id += &value;
        }
        Ok(id)
    }

    /// The cells of a volume's row, in the order of [`fields`].
    fn volume(&self, id: &str, rows: &[usize], stack: &Stack) -> anyhow::Result<Vec<ArrayRef>> {
        let text = |text: Option<String>| Arc::new(StringArray::from(vec![text])) as ArrayRef;
        let of_first = |name: &str| text(self.text(name, rows[0]));
        let cell =
            |name: &str, row: usize| self.text(name, row).with_context(|| format!("a file has no `{name}`"));
        let files =
            rows.iter().map(|&row| Ok(File { path: cell("path", row)?, digest: cell("digest", row)? }));
        let files = files.collect::<anyhow::Result<Vec<File>>>()?;
        let geometry = &stack.geometry;
        Ok(vec![
            text(Some(id.to_owned())),
            of_first("patient_id"),
            of_first("study_instance_uid"),
            of_first("series_instance_uid"),
            of_first("series_description"),
            of_first("modality"),
            text(Some(common_folder(&files))),
            text(Some(digest(&files))),
            whole_list(&geometry.shape.map(|n| n as i64)),
            number_list(&geometry.spacing_mm()),
            text(Some(geometry.orientation())),
            number_list(&geometry.affine.concat()),
            slices::column_of(&[Some(files)])?,
        ])
    }
}

/// The digest that stands for a volume of several files: that of theirs, in their order.
fn digest(files: &[File]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("argent dicom.series 1");
    for file in files {
        hasher.update(file.digest.as_bytes());
    }
    hasher.finalize().to_string()
}

/// The folder that all files lie in.
fn common_folder(files: &[File]) -> String {
    let folder = |file: &File| PathBuf::from(folder_of(&file.path));
    let common = |one: PathBuf, other: PathBuf| -> PathBuf {
        let both = one.components().zip(other.components());
        both.take_while(|(one, other)| one == other).map(|(one, _): (Component, _)| one).collect()
    };
    let folder = files.iter().map(folder).reduce(common).unwrap_or_default();
    named(&folder)
}

/// The folder that a file lies in.
fn folder_of(path: &str) -> String {
    named(Path::new(path).parent().unwrap_or(Path::new("")))
}

fn named(folder: &Path) -> String {
    match folder.to_str() {
        None | Some("") => ".".to_owned(),
        Some(folder) => folder.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_of_texts_and_columns() {
        let read = |id: &str| {
            let series = DicomSeries { id: Some(id.to_owned()), uneven: UnevenGaps::Refuse };
            series.columns().map(|columns| columns.into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(
            read("{patient_id}_{series_number}"),
            Ok(vec!["patient_id".into(), "series_number".into()])
        );
        assert_eq!(read("ct-{series_number}").map(|columns| columns.len()), Ok(1));
        assert_eq!(read("{patient_id"), Err("a brace is opened and not closed".into()));
        assert!(read("volume").is_err());
    }

    #[test]
    fn a_volume_lies_in_the_folder_that_its_files_share() {
        let folder = |paths: &[&str]| {
            let file = |path: &&str| File { path: (*path).to_owned(), digest: String::new() };
            common_folder(&paths.iter().map(file).collect::<Vec<_>>())
        };
        assert_eq!(folder(&["a/b/1", "a/b/2"]), "a/b");
        assert_eq!(folder(&["a/b/1", "a/c/2"]), "a");
        assert_eq!(folder(&["1", "2"]), ".");
        assert_eq!(folder(&["/a/1", "/a/2"]), "/a");
    }
}
