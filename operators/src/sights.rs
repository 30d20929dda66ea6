//! What networks look at: the ports `volumes` and `images`, and the voxels and pixels that their rows name.

use anyhow::Context;
use argent_engine::joining::texts;
use argent_engine::operator::one_of;
use argent_engine::{Inputs, Needed, Port, Problem, RowError};
use argent_imaging::{image, side_file};
use argent_learn::batches::Voxels;
use argent_learn::model::{Axes, ModelKind};
use arrow::array::{RecordBatch, StringArray};

/// The ports of which a step fills one.
pub(crate) const PORTS: [&str; 2] = [VOLUMES, IMAGES];

const VOLUMES: &str = "volumes";
const IMAGES: &str = "images";

/// Which of the two ports a step fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Volumes on one grid, in Hounsfield units.
    Volumes,
    /// Grey images of one size.
    Images,
}

/// The two ports of an operator that applies weights.
pub(crate) fn ports() -> Vec<Port> {
    with_volumes_of(&[Needed::text("id"), Needed::files("voxels")])
}

/// The two ports of an operator that trains, which must know that volumes lie on one grid.
pub(crate) fn training_ports() -> Vec<Port> {
    with_volumes_of(&[Needed::text("id"), Needed::files("voxels"), Needed::lists("spacing_mm")])
}

fn with_volumes_of(columns: &[Needed]) -> Vec<Port> {
    let optional = |name, doc, columns: &[Needed]| Port { optional: true, ..Port::new(name, doc, columns) };
    vec![
        optional(
            VOLUMES,
            "Volumes on one grid, as `volumes.resample` makes them; or fill `images`.",
            columns,
        ),
        optional(
            IMAGES,
            "Images of one size, as `images.prepare` makes them; or fill `volumes`.",
            &[Needed::text("id"), Needed::files("pixels")],
        ),
    ]
}

impl Sight {
    /// What a step looks at, by the port that it fills.
    ///
    /// # Errors
    /// A problem where it fills neither or both.
    pub(crate) fn of(inputs: &Inputs) -> Result<Sight, Problem> {
        match PORTS.map(|port| inputs.ports.contains_key(port)) {
            [true, false] => Ok(Sight::Volumes),
            [false, true] => Ok(Sight::Images),
            _ => Err(one_of(&PORTS, inputs)),
        }
    }

    /// What a working step looks at.
    pub(crate) fn filled(has_input: impl Fn(&str) -> bool) -> Sight {
        if has_input(IMAGES) { Sight::Images } else { Sight::Volumes }
    }

    /// The port's name.
    pub(crate) fn port(self) -> &'static str {
        match self {
            Sight::Volumes => VOLUMES,
            Sight::Images => IMAGES,
        }
    }

    /// The column of the side files.
    pub(crate) fn column(self) -> &'static str {
        match self {
            Sight::Volumes => "voxels",
            Sight::Images => "pixels",
        }
    }

    /// Whether a network looks at these.
    pub(crate) fn fits(self, model: ModelKind) -> bool {
        match self {
            Sight::Volumes => model.axes() == Axes::Volume,
            Sight::Images => model.axes() == Axes::Image,
        }
    }

    /// The digests of the side files.
    ///
    /// # Errors
    /// When the table does not have them.
    pub(crate) fn files(self, rows: &RecordBatch) -> anyhow::Result<StringArray> {
        texts(rows, self.column()).cloned().with_context(|| format!("the table has no `{}`", self.column()))
    }

    /// The voxels of a side file, x fastest, and their size along x, y, z.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(crate) fn decode(self, bytes: &[u8]) -> Result<(Voxels, [usize; 3]), String> {
        match self {
            Sight::Volumes => {
                let volume = side_file::decode(bytes).map_err(|error| error.to_string())?;
                Ok((Voxels::Hounsfield(volume.hounsfield), volume.geometry.shape))
            }
            Sight::Images => {
                let image = image::read(bytes, "").map_err(|error| error.problem.to_string())?;
                let largest = u32::from(image.largest_value()).max(1);
                // Eight bits and sixteen show the same picture.
                let grey = |pixel: &u16| (u32::from(*pixel) * 65535 / largest) as u16;
                let shape = [image.width, image.height, 1];
                Ok((Voxels::Grey(image.pixels.iter().map(grey).collect()), shape))
            }
        }
    }

    /// Reads the side file of a row.
    ///
    /// # Errors
    /// Why the row has no voxels.
    pub(crate) fn read(
        self,
        find: &(impl Fn(&str) -> anyhow::Result<std::path::PathBuf> + Sync),
        digest: &str,
    ) -> Result<(Voxels, [usize; 3]), RowError> {
        let bytes = find(digest).and_then(|path| Ok(std::fs::read(path)?));
        let bytes =
            bytes.map_err(|e| RowError { retryable: true, ..RowError::lasting("file", format!("{e:#}")) })?;
        self.decode(&bytes).map_err(|message| RowError::lasting("unreadable", message))
    }
}
