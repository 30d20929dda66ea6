//! `images.prepare`: X-ray images of one size, ready for a network.

use std::sync::Arc;

use anyhow::Context;
use argent_engine::{Inputs, Io, Kind, Needed, Operator, Port, Problem, RowError, Signature, column};
use argent_imaging::image::png;
use argent_imaging::image::prepare::{self, Crop, Fit, Preparation, PrepareError, Prepared, WindowRule};
use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::each_row::each_row;
use crate::images::scan::{self, number_list, number_list_field};
use crate::volumes::scan::whole_list;

/// Brings X-ray images to one size: window, crop to the foreground, resizing by averaging over areas, padding, in this
/// order. Each result is a grey PNG file in the store, so that any program opens it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImagesPrepare {
    /// Columns and rows of the result.
    #[serde(default = "size")]
    pub size: [u32; 2],
    /// How an image comes to that size.
    #[serde(default)]
    pub fit: FitName,
    /// Which values become black and white: those at two percentiles of the whole image, `[0, 100]` for the smallest and
    /// the largest value; or `voi`, those that the DICOM file asks for by a lookup table, a sigmoid or a window, and a file
    /// without any is an error row.
    #[serde(default)]
    pub window: Window,
    /// Which part is kept: `none`, all of it; or bounds of the foreground.
    #[serde(default)]
    pub crop: CropRule,
    /// Bits of a pixel: 8 or 16.
    #[serde(default = "bits")]
    #[schemars(extend("enum" = [8, 16]))]
    pub bits: u8,
}

/// How an image comes to another size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FitName {
    /// By one factor, so that the patient's proportions are kept; black fills what is left.
    #[default]
    Pad,
    /// Each axis by itself, as in the ankle study: the patient's proportions change.
    Stretch,
}

/// Which values become black and white.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Window {
    /// Those that the file asks for.
    OfFile(OfFile),
    /// Those at two percentiles.
    Percentiles(Percentiles),
}

/// The window of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OfFile {
    /// The first window of a DICOM file.
    Voi,
}

/// A window by percentiles of the image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Percentiles {
    /// The lower and the upper percentile, from 0 to 100.
    pub percentiles: [f64; 2],
}

/// Which part of an image is kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CropRule {
    /// All of it.
    All(NoCrop),
    /// The smallest box around the foreground.
    Foreground(Foreground),
}

/// Nothing is cut away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoCrop {
    /// Nothing is cut away.
    None,
}

/// What counts as foreground. Bounds are shares of the window: 0 is black, 1 is white.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Foreground {
    /// The darkest pixel that counts.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub from: f64,
    /// The lightest pixel that counts: below 1 where white letters and borders do not.
    #[serde(default = "white")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub to: f64,
    /// How many pixels of the original are kept around the box.
    #[serde(default)]
    pub margin: u32,
}

impl Default for Window {
    fn default() -> Window {
        Window::Percentiles(Percentiles { percentiles: [1.0, 99.0] })
    }
}

impl Default for CropRule {
    fn default() -> CropRule {
        CropRule::Foreground(Foreground { from: 0.05, to: white(), margin: 0 })
    }
}

fn size() -> [u32; 2] {
    [640, 640]
}

fn white() -> f64 {
    1.0
}

fn bits() -> u8 {
    8
}

/// The operator's kind in the registry.
pub const KIND: Kind = Kind::Row("images");

/// As many pixels as the longest X-ray images have along an axis.
const LARGEST_SIZE: u32 = 8192;

/// How many images are in memory at a time.
const CHUNK: usize = 64;

impl ImagesPrepare {
    fn preparation(&self) -> Result<Preparation, Problem> {
        let window = match self.window {
            Window::OfFile(OfFile::Voi) => WindowRule::Voi,
            Window::Percentiles(Percentiles { percentiles: [lower, upper] }) => {
                if !(0.0 <= lower && lower < upper && upper <= 100.0) {
                    let message = format!(
                        "{lower} and {upper}; expected two percentiles from 0 to 100, the lower one first"
                    );
                    return Err(Problem::at(["with", "window", "percentiles"], message));
                }
                WindowRule::Percentiles(lower, upper)
            }
        };
        if let Some(place) = self.size.iter().position(|pixels| !(1..=LARGEST_SIZE).contains(pixels)) {
            let message = format!("{} pixels; expected 1 to {LARGEST_SIZE}", self.size[place]);
            return Err(Problem::at(["with".to_owned(), "size".into(), place.to_string()], message));
        }
        let crop = match self.crop {
            CropRule::All(NoCrop::None) => None,
            CropRule::Foreground(Foreground { from, to, margin }) => {
                if !(0.0 <= from && from <= to && to <= 1.0) {
                    let message = format!(
                        "from {from} to {to}; expected shares of the window from 0 to 1, the lower one first"
                    );
                    return Err(Problem::at(["with", "crop"], message));
                }
                Some(Crop { from, to, margin: margin as usize })
            }
        };
        Ok(Preparation {
            window,
            crop,
            size: self.size.map(|pixels| pixels as usize),
            fit: match self.fit {
                FitName::Pad => Fit::Pad,
                FitName::Stretch => Fit::Stretch,
            },
            bits: self.bits,
        })
    }
}

impl Operator for ImagesPrepare {
    fn ports(&self) -> Vec<Port> {
        vec![Port::new(
            "images",
            "A table of images, as `images.scan` makes it.",
            &[Needed::text("id"), Needed::text("path"), Needed::files("digest")],
        )]
    }

    fn signature(&self, inputs: &Inputs) -> Result<Signature, Vec<Problem>> {
        self.preparation().map_err(|p| vec![p])?;
        let whole_list = |name: &str| {
            Field::new(name, DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true))), true)
        };
        let own = column::schema([
            column::file("pixels"),
            column::whole("width"),
            column::whole("height"),
            column::whole("bits"),
            number_list_field("spacing_mm"),
            number_list_field("window"),
            whole_list("crop"),
            whole_list("content"),
        ]);
        Ok(Signature::new(own, &["id"])
            .reads("images", ["digest"])
            .sees("images", ["path"])
            .carries(inputs.ids("images")))
    }

    fn run(&self, io: &mut Io) -> anyhow::Result<()> {
        let preparation = self.preparation().map_err(|p| anyhow::anyhow!(p.message))?;
        let rows = io.rows().clone();
        let paths = rows.column_by_name("path").context("images have paths")?.as_string::<i32>();
        let digests = rows.column_by_name("digest").context("images have digests")?.as_string::<i32>();
        let (find, keep) = (io.source_finder(), io.keeper());
        each_row(io, CHUNK, |row| {
            let image = scan::read(&find, paths.value(row), digests.value(row))?;
            let prepared = prepare::prepare(&image, &preparation)
                .map_err(|error| RowError::lasting(kind_of(&error), error.to_string()))?;
            let [width, height] = preparation.size;
            let file = png::encode_grey(width, height, &prepared.pixels, preparation.bits);
            let kept = keep(&file).map_err(|error| RowError {
                retryable: true,
                ..RowError::lasting("store", format!("{error:#}"))
            })?;
            Ok(Some(columns(&prepared, &preparation, &kept.to_string())))
        })
    }
}

/// A word for why an image was not prepared.
fn kind_of(error: &PrepareError) -> &'static str {
    match error {
        PrepareError::NoContrast { .. } | PrepareError::NoForeground(_) => "blank",
        PrepareError::NoVoiWindow => "window",
    }
}

fn columns(prepared: &Prepared, preparation: &Preparation, pixels: &str) -> Vec<ArrayRef> {
    let whole = |number: i64| Arc::new(Int64Array::from(vec![number])) as ArrayRef;
    vec![
        Arc::new(StringArray::from(vec![pixels])),
        whole(preparation.size[0] as i64),
        whole(preparation.size[1] as i64),
        whole(i64::from(preparation.bits)),
        number_list(prepared.spacing_mm.as_ref().map(|mm| mm.as_slice())),
        number_list(Some(&prepared.window)),
        whole_list(&prepared.crop.map(|pixels| pixels as i64)),
        whole_list(&prepared.content.map(|pixels| pixels as i64)),
    ]
}
