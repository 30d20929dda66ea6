//! The `text_encoder` parameter, and the texts that text encoders read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::Context;
use argent_engine::Problem;
use argent_engine::operator::ConfigFiles;
use argent_learn::bert::BertConfig;
use argent_learn::text_encoder::{TextEncoder, hub_cache, model_folder};
use argent_learn::vocabulary::Vocabulary;
use arrow::array::RecordBatch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::label::rules::{section_texts, sections_of};

/// The text encoder that a training starts from.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TextEncoderChoice {
    /// A published BERT.
    Published(Published),
    /// A small BERT that is trained from nothing, with the words of the training reports.
    Small(Small),
}

/// A published BERT: its folder, or its name in the hub's cache.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// A folder with `config.json`, `tokenizer.json` or `vocab.txt`, and `model.safetensors` or `pytorch_model.bin`; or a
    /// name such as `microsoft/BiomedVLP-CXR-BERT-specialized` that lies in the hub's cache.
    #[schemars(extend("x-not-in-key" = "the model enters the key by its files"))]
    pub model: String,
    /// The longest text, in tokens; the rest of a longer one is not seen.
    #[serde(default = "max_length")]
    #[schemars(range(min = 3))]
    pub max_length: usize,
}

/// A small BERT that is trained from nothing.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Small {
    /// Its sizes; `small: {}` for the usual ones.
    pub small: Sizes,
}

/// The sizes of a small BERT.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sizes {
    /// Values of a token; a multiple of four.
    #[schemars(range(min = 4))]
    pub values: usize,
    /// Layers.
    #[schemars(range(min = 1))]
    pub layers: usize,
    /// Words and characters that it knows at most.
    #[schemars(range(min = 100))]
    pub vocabulary: usize,
    /// The longest text, in tokens.
    #[schemars(range(min = 3))]
    pub max_length: usize,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes { values: 128, layers: 2, vocabulary: 5000, max_length: max_length() }
    }
}

/// As MPS-CT and GreenRFM have it.
fn max_length() -> usize {
    128
}

/// The parameter's name, for messages and for the key.
const PARAMETER: &str = "text_encoder.model";

impl TextEncoderChoice {
    /// Finds the files of a published model. They decide the step's result, and enter its key by their names, sizes and
    /// times, because reading them at every command would take longer than the command.
    ///
    /// # Errors
    /// A problem where there is no such model, or one of its files cannot be looked at.
    pub(crate) fn find(&self, files: &mut ConfigFiles) -> Result<Option<PathBuf>, Problem> {
        let TextEncoderChoice::Published(published) = self else { return Ok(None) };
        let at = |message: String| Problem::at(["with", "text_encoder", "model"], message);
        let beside = files.folder().join(&published.model);
        let folder = match beside.is_dir() {
            true => beside,
            false => model_folder(&published.model, &hub_cache()).map_err(|error| {
                let error = error.to_string();
                match error.split_once("; ") {
                    Some((message, help)) => at(message.to_owned()).help(help),
                    None => at(error),
                }
            })?,
        };
        let stamps = stamps(&folder).map_err(|error| at(format!("{error:#}")))?;
        files.uses_folder(PARAMETER, &published.model, stamps);
        Ok(Some(folder))
    }

    /// The encoder, and what is to be told of it.
    ///
    /// `folder` is what [`TextEncoderChoice::find`] found; `texts` are those of the training part.
    ///
    /// # Errors
    /// What is wrong with the model or the texts.
    pub(crate) fn encoder(
        &self,
        folder: Option<&Path>,
        texts: &[&str],
        seed: u64,
    ) -> anyhow::Result<(TextEncoder, String)> {
        match self {
            TextEncoderChoice::Published(published) => {
                let folder = folder.context("the engine finds the model before anything else")?;
                let (encoder, coverage) = TextEncoder::load(folder, published.max_length)?;
                Ok((encoder, coverage.to_string()))
            }
            TextEncoderChoice::Small(Small { small }) => {
                let vocabulary = Vocabulary::learn(texts, small.vocabulary)?;
                let words = vocabulary.size();
                let config = BertConfig {
                    hidden_size: small.values,
                    num_hidden_layers: small.layers,
                    intermediate_size: 2 * small.values,
                    max_position_embeddings: small.max_length,
                    ..BertConfig::small(words)
                };
                let told = format!("{words} tokens, learned from the training reports");
                Ok((TextEncoder::seeded(config, vocabulary, seed)?, told))
            }
        }
    }
}

/// The sizes and times of the files of a model.
fn stamps(folder: &Path) -> anyhow::Result<Value> {
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).context("the model's folder does not list")? {
        let entry = entry?;
        // The hub's cache holds links to its files.
        let metadata = std::fs::metadata(entry.path()).context("a file of the model does not read")?;
        if metadata.is_file() {
            let modified = metadata.modified()?.duration_since(UNIX_EPOCH)?.as_nanos();
            let stamp = json!({ "bytes": metadata.len(), "modified_ns": modified.to_string() });
            all.insert(entry.file_name().to_string_lossy().into_owned(), stamp);
        }
    }
    Ok(Value::Object(all.into_iter().collect::<Map<_, _>>()))
}

/// By row of a batch of section columns: the sections that are written, one behind the other.
///
/// # Errors
/// When a column does not hold text.
pub(crate) fn joined(sections: &RecordBatch) -> anyhow::Result<Vec<String>> {
    let texts = section_texts(sections)?;
    let of_row = |row: usize| {
        let written = sections_of(&texts, row);
        written.iter().map(|(_, text)| text.trim()).filter(|t| !t.is_empty()).collect::<Vec<_>>().join(" ")
    };
    Ok((0..sections.num_rows()).map(of_row).collect())
}
