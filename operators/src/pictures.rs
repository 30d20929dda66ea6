//! Pictures of a table's rows: the volumes and images that they name, drawn on one sheet.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::Context;
use argent_cache::{Store, TableRecord};
use argent_engine::{RowError, column, find_source};
use argent_imaging::image::prepare::WindowRule;
use argent_imaging::image::{self, Image};
use argent_imaging::sheet::{self, CenterWidth, Sheet};
use argent_imaging::{Volume, side_file};
use arrow::array::{Array, AsArray, RecordBatch};

use crate::volumes::scan::file_name;
use crate::volumes::slices;
use crate::volumes::source::{READING, readings};

/// What to draw of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// The rows of these ids; empty, the first ones.
    pub ids: Vec<String>,
    /// How many rows are drawn where no id is given.
    pub rows: usize,
    /// The middle and the width of the window, of volumes in HU; left out, volumes are drawn in one for lung and one for
    /// soft tissue, and images from their first to their 99th percentile.
    pub window: Option<[f64; 2]>,
}

/// A sheet of pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// The sheet as a PNG file.
    pub png: Vec<u8>,
    /// Columns and rows of the sheet.
    pub size: [usize; 2],
    /// How many rows of the table are on it.
    pub rows: usize,
    /// How many different ids the table has.
    pub ids: usize,
}

/// A look that the table does not allow: it has no pictures, or no row of that id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongLook(pub String);

impl fmt::Display for WrongLook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongLook {}

/// Draws rows of a step's table. Files that stay where the user keeps them are looked up from `folder`, that of the spec.
///
/// # Errors
/// A [`WrongLook`]; or what is wrong with a file.
pub fn draw(
    store: &Store,
    folder: &Path,
    step: &str,
    table: &TableRecord,
    look: &Look,
) -> anyhow::Result<Drawn> {
    let (kind, needed) = kind(table).ok_or_else(|| without_pictures(step, table))?;
    let rows = store.read_table(table, Some(&needed))?;
    let all = Named::of(&rows)?;
    let chosen = all.chosen(step, look)?;
    let source = Source { store, folder, kind, rows: &rows };
    let sheet = match chosen.as_slice() {
        [] => {
            return Err(
                WrongLook(format!("the table of `{step}` has no rows, so there is nothing to draw")).into()
            );
        }
        [only] => source.picture(*only)?.alone(all.ids[*only], look)?,
        several => {
            let parts = several.iter().map(|row| source.picture(*row)?.among_others(all.ids[*row], look));
            arranged(parts.collect::<anyhow::Result<Vec<Part>>>()?)
        }
    };
    let sheet = sheet.framed();
    Ok(Drawn {
        png: sheet.to_png(),
        size: [sheet.width(), sheet.height()],
        rows: chosen.len(),
        ids: all.first_rows().len(),
    })
}

/// What names the pictures of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Side files of voxels.
    Voxels,
    /// Side files of pixels.
    Pixels,
    /// Files that stay where the user keeps them.
    Sources {
        /// Whether all of them are images.
        are_images: bool,
    },
}

/// The kind of a table's pictures, and the columns that tell of them.
fn kind(table: &TableRecord) -> Option<(Kind, Vec<&'static str>)> {
    let has = |name: &str| table.columns.iter().any(|column| column.name == name);
    if !has("id") {
        return None;
    }
    if has("voxels") {
        return Some((Kind::Voxels, vec!["id", "voxels"]));
    }
    if has("pixels") {
        return Some((Kind::Pixels, vec!["id", "pixels"]));
    }
    let mut sources = vec!["id", "path", "digest"];
    if !sources.iter().all(|name| has(name)) {
        return None;
    }
    let how = ["hounsfield_source", column::SLICES].into_iter().chain(READING);
    sources.extend(how.filter(|name| has(name)));
    Some((Kind::Sources { are_images: has("photometric") }, sources))
}

fn without_pictures(step: &str, table: &TableRecord) -> WrongLook {
    let columns: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    WrongLook(format!(
        "the table of `{step}` names no pictures: it has the columns {}; expected `id`, and `voxels` (as of volumes.resample), \
         `pixels` (as of images.prepare), or `path` and `digest` (as of volumes.scan and images.scan)",
        columns.join(", ")
    ))
}

/// The ids of a table's rows.
struct Named<'a> {
    ids: Vec<&'a str>,
}

impl<'a> Named<'a> {
    fn of(rows: &'a RecordBatch) -> anyhow::Result<Named<'a>> {
        let ids = rows.column_by_name("id").context("the table has ids")?;
        let ids = ids.as_string_opt::<i32>().context("ids are text")?;
        Ok(Named { ids: ids.iter().map(Option::unwrap_or_default).collect() })
    }

    /// The first row of each id, in the table's order.
    fn first_rows(&self) -> Vec<usize> {
        let mut seen = BTreeSet::new();
        (0..self.ids.len()).filter(|row| seen.insert(self.ids[*row])).collect()
    }

    fn chosen(&self, step: &str, look: &Look) -> Result<Vec<usize>, WrongLook> {
        if look.ids.is_empty() {
            return Ok(self.first_rows().into_iter().take(look.rows).collect());
        }
        let row = |wanted: &String| {
            let row = self.ids.iter().position(|id| id == wanted);
            row.ok_or_else(|| self.unknown(step, wanted))
        };
        look.ids.iter().map(row).collect()
    }

    /// Other ids are not told, near as they may be: they name patients.
    fn unknown(&self, step: &str, wanted: &str) -> WrongLook {
        let help = format!("`argent sql \"select id from {step}\" --phi` lists those that there are");
        WrongLook(format!("no row of `{step}` has the id `{wanted}`; {help}"))
    }
}

/// Where the pictures of a table's rows are found.
struct Source<'a> {
    store: &'a Store,
    folder: &'a Path,
    kind: Kind,
    rows: &'a RecordBatch,
}

/// What a row shows.
enum Picture {
    /// A volume.
    Volume(Volume),
    /// An image, and the window in which it is looked at where the user asks for none.
    Image(Image, WindowRule),
    /// Nothing: its cell is null.
    Absent,
}

impl Source<'_> {
    fn picture(&self, row: usize) -> anyhow::Result<Picture> {
        let digest = match self.kind {
            Kind::Voxels => self.cell("voxels", row)?,
            Kind::Pixels => self.cell("pixels", row)?,
            Kind::Sources { .. } => self.cell("digest", row)?,
        };
        let Some(digest) = digest else { return Ok(Picture::Absent) };
        let stored = || self.store.read(&digest.parse()?).context("a side file that the row names");
        Ok(match self.kind {
            Kind::Voxels => Picture::Volume(side_file::decode(&stored()?)?),
            Kind::Pixels => {
                let image = image::read(&stored()?, "the side file")?;
                // Its window was chosen when it was prepared.
                let whole = WindowRule::Range(0.0, f64::from(image.largest_value()));
                Picture::Image(image, whole)
            }
            Kind::Sources { are_images } => self.source(row, digest, are_images)?,
        })
    }

    /// The picture in a file that stays where the user keeps it: where the table does not tell, an image by its first bytes,
    /// else a volume.
    fn source(&self, row: usize, digest: &str, is_image: bool) -> anyhow::Result<Picture> {
        let path = self.cell("path", row)?.context("the row has a digest and no path")?;
        let reading = &readings(&self.rows.slice(row, 1))?[0];
        let in_words = |error: RowError| anyhow::anyhow!(error.message);
        let find = |path: &str, digest: &str| find_source(self.store, self.folder, path, digest);
        if let Some(files) = &slices::of_rows(&self.rows.slice(row, 1))?[0] {
            return Ok(Picture::Volume(
                slices::read(files, &find, reading.rescale).map_err(in_words)?.volume,
            ));
        }
        let local = find(path, digest)?;
        if is_image || image::is_image(&local)? {
            let image = image::read_named(&local, file_name(path))?;
            return Ok(Picture::Image(image, WindowRule::Percentiles(1.0, 99.0)));
        }
        let stored = reading.read(&local, file_name(path)).map_err(in_words)?;
        Ok(Picture::Volume(stored.into_volume().0))
    }

    fn cell(&self, name: &str, row: usize) -> anyhow::Result<Option<&str>> {
        let column = self.rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        let column = column.with_context(|| format!("the column `{name}` is text"))?;
        Ok(column.is_valid(row).then(|| column.value(row)))
    }
}

/// A part of a sheet of several rows.
enum Part {
    /// As wide as the sheet.
    Strip(Sheet),
    /// One of several beside each other.
    Tile(Sheet),
}

/// Pixels of an image's longer side, alone and among others.
const LONGEST: [usize; 2] = [1024, 320];

/// How many images stand beside each other at most.
const COLUMNS: usize = 4;

impl Picture {
    fn alone(&self, id: &str, look: &Look) -> anyhow::Result<Sheet> {
        Ok(match self {
            Picture::Volume(volume) => {
                let windows = windows(look);
                sheet::slices(volume, id, &windows, if windows.len() == 1 { 6 } else { 3 })
            }
            Picture::Image(image, usual) => sheet::image(image, id, window(look, *usual), LONGEST[0])?,
            Picture::Absent => without(id),
        })
    }

    fn among_others(&self, id: &str, look: &Look) -> anyhow::Result<Part> {
        Ok(match self {
            Picture::Volume(volume) => Part::Strip(sheet::strip(volume, id, &windows(look))),
            Picture::Image(image, usual) => {
                Part::Tile(sheet::image(image, id, window(look, *usual), LONGEST[1])?)
            }
            Picture::Absent => Part::Strip(without(id)),
        })
    }
}

fn without(id: &str) -> Sheet {
    Sheet::text(&format!("{id}: no picture"))
}

/// The window of an image.
fn window(look: &Look, usual: WindowRule) -> WindowRule {
    look.window.map_or(usual, |[center, width]| WindowRule::Range(center - width / 2.0, center + width / 2.0))
}

/// The windows of a volume.
fn windows(look: &Look) -> Vec<CenterWidth> {
    match look.window {
        Some([center, width]) => vec![CenterWidth { center, width }],
        None => vec![CenterWidth::LUNG, CenterWidth::SOFT_TISSUE],
    }
}

/// Strips below each other, tiles in rows.
fn arranged(parts: Vec<Part>) -> Sheet {
    let tiles = parts.iter().filter(|part| matches!(part, Part::Tile(_))).count();
    let columns = (tiles as f64).sqrt().ceil().clamp(1.0, COLUMNS as f64) as usize;
    let (mut rows, mut row) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            Part::Tile(tile) => row.push(tile),
            Part::Strip(strip) => rows.push(strip),
        }
        if row.len() == columns {
            rows.push(Sheet::beside(std::mem::take(&mut row)));
        }
    }
    if !row.is_empty() {
        rows.push(Sheet::beside(row));
    }
    Sheet::below(rows)
}
