//! The `init` parameter and port: the weights that a training starts from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use argent_engine::joining::texts;
use argent_engine::operator::ConfigFiles;
use argent_engine::{Inputs, Io, Needed, Port, Problem, column};
use argent_learn::classifier::ClassifierConfig;
use argent_learn::pretrained::{Coverage, Head, StateDict, Stem, Transfer};
use argent_learn::weights::Weights;
use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The port of weights to start from.
pub(crate) const INIT: &str = "init";

/// What a training starts from instead of random weights, and what is taken of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Init {
    /// A file of weights: safetensors, or a state dict as `torch.save` writes it (`.pth`, `.pt`), with the names of
    /// torchvision, MONAI or this program. Left out, the weights come from the port `init`.
    #[schemars(extend("x-not-in-key" = "the file enters the key by its content"))]
    pub path: Option<String>,
    /// What becomes of the first convolution, or of the patch embedding: `published`, it is taken as it is; `summed`, it
    /// is summed over its input channels, for networks that saw colours; `new`, it is drawn from the seed.
    pub stem: StemName,
    /// What becomes of the layer behind the encoder: `new`, it is drawn from the seed; `published`, it is taken, which
    /// needs weights that tell the same findings in the same order.
    pub head: HeadName,
}

/// What becomes of the first convolution, or of the patch embedding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StemName {
    /// It is taken as it is.
    #[default]
    Published,
    /// It is summed over its input channels.
    Summed,
    /// It is drawn from the seed.
    New,
}

/// What becomes of the layer behind the encoder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadName {
    /// It is drawn from the seed.
    #[default]
    New,
    /// It is taken.
    Published,
}

/// The port, which may stay empty.
pub(crate) fn port() -> Port {
    let doc =
        "One row of weights of an earlier `train` step of the same network, whose encoder it starts from.";
    Port { optional: true, ..Port::new(INIT, doc, &[Needed::files("weights")]) }
}

/// The columns of the table that says where each array came from.
pub(crate) fn coverage_fields() -> Vec<Field> {
    vec![column::text("array"), column::text("origin")]
}

/// A row for each array of the network, and for each of the file that it has no use for.
pub(crate) fn coverage_columns(coverage: &Coverage) -> Vec<ArrayRef> {
    let lists = [
        (&coverage.taken, "taken"),
        (&coverage.summed, "summed"),
        (&coverage.new, "new"),
        (&coverage.left_over, "left_over"),
    ];
    let rows =
        lists.iter().flat_map(|(names, origin)| names.iter().map(move |name| (name.as_str(), *origin)));
    let (arrays, origins): (Vec<&str>, Vec<&str>) = rows.unzip();
    vec![Arc::new(StringArray::from(arrays)), Arc::new(StringArray::from(origins))]
}

/// What is wrong with the weights to start from, if anything.
pub(crate) fn problem(init: Option<&Init>, inputs: &Inputs) -> Option<Problem> {
    let file = init.and_then(|init| init.path.as_deref());
    match (init, file, inputs.ports.contains_key(INIT)) {
        (_, Some(_), true) => Some(
            Problem::at(
                ["with", INIT, "path"],
                "the weights to start from come from a file and from the port `init`",
            )
            .help("take one of them away"),
        ),
        (Some(_), None, false) => Some(
            Problem::at(["with", INIT], "there are no weights to start from")
                .help("name a file with `path`, or fill the port `init`"),
        ),
        _ => None,
    }
}

impl Init {
    /// Finds the file, whose content decides the step's result: a training costs more than reading a file at every
    /// command, so that one that was only touched or renamed is the same.
    ///
    /// # Errors
    /// A problem where it cannot be read.
    pub(crate) fn find(&self, files: &mut ConfigFiles) -> Result<Option<PathBuf>, Problem> {
        let Some(path) = &self.path else { return Ok(None) };
        let full = files.folder().join(path);
        let digest = digest(&full).map_err(|error| {
            Problem::at(["with", INIT, "path"], format!("`{path}` cannot be read: {error}"))
                .help(format!("paths are relative to the spec; this one means {}", full.display()))
        })?;
        files.uses_folder("init.path", path, json!(digest));
        Ok(Some(full))
    }

    fn transfer(&self) -> Transfer {
        Transfer {
            stem: match self.stem {
                StemName::Published => Stem::Published,
                StemName::Summed => Stem::Summed,
                StemName::New => Stem::New,
            },
            head: match self.head {
                HeadName::Published => Head::Published,
                HeadName::New => Head::New,
            },
        }
    }
}

/// The weights before the first step, and where each array came from; none where they are drawn from the seed.
///
/// `file` is what [`Init::find`] found.
///
/// # Errors
/// Where the weights do not read, or are those of another network.
pub(crate) fn start(
    init: Option<&Init>,
    file: Option<&Path>,
    io: &Io,
    config: &ClassifierConfig,
) -> anyhow::Result<Option<(Weights, Coverage)>> {
    let dict = match file {
        Some(path) => StateDict::read(path)?,
        None if io.has_input(INIT) => {
            let rows = io.input(INIT)?;
            ensure!(rows.num_rows() == 1, "`{INIT}` has {} rows, expected one", rows.num_rows());
            let path = io.side_file(texts(rows, "weights")?.value(0))?;
            let bytes = std::fs::read(path).context("the weights to start from do not read")?;
            StateDict::from_bytes(&bytes)?
        }
        None => return Ok(None),
    };
    let transfer = init.cloned().unwrap_or_default().transfer();
    let (classes, settings) = (config.classes.clone(), &config.settings);
    let view = settings.view.clone();
    Ok(Some(Weights::pretrained(config.model, classes, view, settings.seed, &dict, transfer)?))
}

/// The digest of a file's content.
fn digest(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(std::fs::File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}
