//! Encoders of texts: a BERT with its vocabulary, published or small and drawn from a seed.

use std::path::{Component, Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::bert::{self, Bert, BertConfig};
use crate::error::Error;
use crate::parameters::{Arrays, Builder, Parameters};
use crate::pretrained::{Coverage, Rule, Rules, StateDict, transfer};
use crate::vocabulary::{Tokens, Vocabulary};
use crate::weights::{read_arrays, write_arrays};

/// A BERT whose embedding of a text is the last hidden state of its class token. It can be trained.
#[derive(Clone, Debug)]
pub struct TextEncoder {
    config: BertConfig,
    vocabulary: Vocabulary,
    max_length: usize,
    bert: Bert,
    pub(crate) parameters: Parameters,
}

/// What besides its arrays makes a text encoder again, as JSON beside weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextHeader {
    /// The sizes of the network.
    pub config: BertConfig,
    /// The longest text, in tokens; the rest of a longer one is not seen.
    pub max_length: usize,
    /// The JSON of the tokenizer.
    pub tokenizer: String,
}

impl TextEncoder {
    /// An encoder with weights drawn from `seed`, for texts as long as the configuration has positions.
    ///
    /// # Errors
    /// If the configuration cannot work or has fewer tokens than the vocabulary.
    pub fn seeded(config: BertConfig, vocabulary: Vocabulary, seed: u64) -> Result<Self, Error> {
        let max_length = config.max_position_embeddings;
        Self::build(config, vocabulary, max_length, Builder::seeded(seed))
    }

    /// A published BERT from a folder: `config.json`, `tokenizer.json` or `vocab.txt`, and `model.safetensors` or
    /// `pytorch_model.bin`; and where every array came from. The pooler and the heads of a file are left over. Texts
    /// are cut to `max_length` tokens. [`model_folder`] finds the folder of a model in the hub's cache.
    ///
    /// # Errors
    /// If a file is missing or cannot be read, is of another kind of model, or lacks an array of it.
    pub fn load(folder: &Path, max_length: usize) -> Result<(Self, Coverage), Error> {
        let path = folder.join("config.json");
        let text = std::fs::read(&path)
            .map_err(|error| Error::Format(format!("{} cannot be read: {error}", path.display())))?;
        let config: BertConfig = serde_json::from_slice(&text)
            .map_err(|error| Error::Format(format!("{} is not as expected: {error}", path.display())))?;
        config.check()?;
        let vocabulary = Vocabulary::from_folder(folder)?;
        let names = ["model.safetensors", "pytorch_model.bin"];
        let Some(weights) = names.map(|name| folder.join(name)).into_iter().find(|path| path.is_file())
        else {
            return Err(Error::Format(format!(
                "{} has none of {}, expected the weights in one file",
                folder.display(),
                names.join(", ")
            )));
        };
        let mut builder = Builder::zeroed();
        Bert::new(&mut builder, &config)?;
        let mut arrays = builder.finish()?.arrays()?;
        let rules = Rules { network: "the BERT", rename: &bert::published_name, rule: &|_| Rule::Taken };
        let coverage = transfer(&StateDict::read(&weights)?, &mut arrays, &rules)?;
        let tokenizer = vocabulary.json().to_owned();
        let header = TextHeader { config, max_length, tokenizer };
        Ok((Self::stored(header, arrays, &Device::Cpu)?, coverage))
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// If the bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (header, arrays): (FileHeader, Arrays) = read_arrays(bytes)?;
        if header.kind != HEADER_KIND {
            return Err(Error::Format(format!("the file is `{}`, expected `{HEADER_KIND}`", header.kind)));
        }
        Self::stored(header.text, arrays, &Device::Cpu)
    }

    /// A safetensors file of f32 arrays with the names of Hugging Face's `BertModel`, and the header in its metadata.
    ///
    /// # Errors
    /// If the arrays cannot be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let header = FileHeader { kind: HEADER_KIND.into(), text: self.header() };
        write_arrays(&self.parameters.arrays()?, &header)
    }

    /// What besides its arrays makes this encoder again.
    pub fn header(&self) -> TextHeader {
        TextHeader {
            config: self.config.clone(),
            max_length: self.max_length,
            tokenizer: self.vocabulary.json().to_owned(),
        }
    }

    /// An encoder with stored weights.
    pub(crate) fn stored(header: TextHeader, arrays: Arrays, device: &Device) -> Result<Self, Error> {
        let vocabulary = Vocabulary::from_json(header.tokenizer)?;
        Self::build(header.config, vocabulary, header.max_length, Builder::stored(arrays).on(device))
    }

    /// The same encoder, in the memory of `device`.
    pub(crate) fn on(self, device: &Device) -> Result<Self, Error> {
        if self.bert.device().same_device(device) {
            return Ok(self);
        }
        let builder = Builder::stored(self.parameters.arrays()?).on(device);
        Self::build(self.config, self.vocabulary, self.max_length, builder)
    }

    fn build(
        config: BertConfig,
        vocabulary: Vocabulary,
        max_length: usize,
        mut builder: Builder,
    ) -> Result<Self, Error> {
        config.check()?;
        let (tokens, rows) = (vocabulary.size(), config.vocab_size);
        if tokens > rows {
            return Err(Error::Setting(format!(
                "the tokenizer has {tokens} tokens and the network {rows}, expected no more"
            )));
        }
        let positions = config.max_position_embeddings;
        if max_length > positions {
            return Err(Error::Setting(format!(
                "texts have up to {max_length} tokens and the network {positions} positions, expected no more"
            )));
        }
        let bert = Bert::new(&mut builder, &config)?;
        Ok(Self { config, vocabulary, max_length, bert, parameters: builder.finish()? })
    }

    /// Values in the embedding of a text.
    pub fn embedding_dim(&self) -> usize {
        self.config.hidden_size
    }

    /// The tokens of texts; case and punctuation are as the tokenizer says.
    ///
    /// # Errors
    /// If a text cannot be tokenised.
    pub fn tokenise(&self, texts: &[&str]) -> Result<Tokens, Error> {
        self.vocabulary.tokenise(texts, self.max_length)
    }

    /// The embeddings of texts, `(N, embedding)`, not normalised, with a gradient.
    ///
    /// # Errors
    /// If there are no tokens.
    pub fn encode(&self, tokens: &Tokens) -> Result<Tensor, Error> {
        let shape = (tokens.texts, tokens.length);
        if tokens.ids.is_empty() {
            return Err(Error::Data(format!("{shape:?} texts and tokens, expected some")));
        }
        let ids = Tensor::from_slice(&tokens.ids, shape, self.bert.device())?;
        let mask = Tensor::from_slice(&tokens.mask, shape, self.bert.device())?.to_dtype(DType::F32)?;
        let hidden = self.bert.forward(&ids, &mask)?;
        Ok(hidden.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?)
    }
}

const HEADER_KIND: &str = "text/1";

#[derive(Serialize, Deserialize)]
struct FileHeader {
    kind: String,
    #[serde(flatten)]
    text: TextHeader,
}

/// The folder of a model: `model` itself if it is one, else that of a model such as `org/name` or `org/name@revision`
/// in the hub's cache `hub`.
///
/// # Errors
/// If there is neither.
pub fn model_folder(model: &str, hub: &Path) -> Result<PathBuf, Error> {
    if Path::new(model).is_dir() {
        return Ok(PathBuf::from(model));
    }
    let (name, revision) = model.split_once('@').unwrap_or((model, "main"));
    let is_name = |text: &str| {
        let mut components = Path::new(text).components();
        !text.is_empty() && components.all(|component| matches!(component, Component::Normal(_)))
    };
    if name.split('/').count() > 2 || !is_name(name) || !is_name(revision) {
        return Err(Error::Setting(format!(
            "{model} is no folder, expected one, or the name of a model such as org/name"
        )));
    }
    let repository = hub.join(format!("models--{}", name.replace('/', "--")));
    // A revision that is no branch or tag may be the commit itself.
    let commit = std::fs::read_to_string(repository.join("refs").join(revision));
    let commit = commit.map_or_else(|_| revision.to_owned(), |commit| commit.trim().to_owned());
    let folder = repository.join("snapshots").join(&commit);
    match is_name(&commit) && folder.is_dir() {
        true => Ok(folder),
        false => Err(Error::Setting(format!(
            "{model} is neither a folder nor in the hub's cache {}; `hf download {name} --revision {revision}` \
             puts it there, HF_HUB_CACHE names another cache",
            hub.display()
        ))),
    }
}

/// The hub's cache on this machine: `HF_HUB_CACHE`, else `hub` under `HF_HOME`, else that of the home folder.
pub fn hub_cache() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("HF_HUB_CACHE").unwrap_or_else(|| {
        let home = || std::env::home_dir().unwrap_or_default();
        let caches = || variable("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache"));
        variable("HF_HOME").unwrap_or_else(|| caches().join("huggingface")).join("hub")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{assert_close, published_file, values};
    use crate::parameters::Array;

    const TEXTS: [&str; 3] = ["no pleural effusion", "a small pleural effusion is seen on the left", "clear"];

    fn small() -> TextEncoder {
        let vocabulary = Vocabulary::learn(&TEXTS, 100).unwrap();
        let config = BertConfig { hidden_size: 32, ..BertConfig::small(vocabulary.size()) };
        TextEncoder::seeded(config, vocabulary, 3).unwrap()
    }

    #[test]
    fn padding_does_not_change_an_embedding() {
        let encoder = small();
        let all = encoder.encode(&encoder.tokenise(&TEXTS).unwrap()).unwrap();
        assert_eq!(all.dims(), [3, encoder.embedding_dim()]);
        for (index, text) in TEXTS.iter().enumerate() {
            let alone = encoder.encode(&encoder.tokenise(&[text]).unwrap()).unwrap();
            assert_close(text, &values(&alone), &values(&all.get(index).unwrap()), 1e-5);
        }
    }

    #[test]
    fn a_gradient_reaches_every_variable() {
        let encoder = small();
        let embedding = encoder.encode(&encoder.tokenise(&TEXTS).unwrap()).unwrap();
        let first = embedding.narrow(1, 0, 5).unwrap();
        let gradients = first.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        for (name, var) in &encoder.parameters.trainable {
            let gradient = gradients.get(var).unwrap_or_else(|| panic!("none for {name}"));
            let largest = gradient.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(largest > 0.0, "the gradient of {name} is {largest}");
        }
    }

    #[test]
    fn an_encoder_survives_its_file_form() {
        let encoder = small();
        let bytes = encoder.to_bytes().unwrap();
        let again = TextEncoder::from_bytes(&bytes).unwrap();
        assert!(again.to_bytes().unwrap() == bytes, "the bytes differ");
        let encode =
            |encoder: &TextEncoder| values(&encoder.encode(&encoder.tokenise(&TEXTS).unwrap()).unwrap());
        assert_eq!(encode(&again), encode(&encoder));
        let error = crate::infer::Model::load(&bytes, crate::device::Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("metadata is not as expected"), "{error}");
    }

    /// A folder as the hub has it: a BERT with its pooler behind `bert.`, the oldest names of the normalisations.
    #[test]
    fn a_published_folder_from_the_cache() {
        let encoder = small();
        let hub = tempfile::tempdir().unwrap();
        let repository = hub.path().join("models--lab--bert");
        let folder = repository.join("snapshots/0a1b");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::create_dir_all(repository.join("refs")).unwrap();
        std::fs::write(repository.join("refs/main"), "0a1b\n").unwrap();
        let mut arrays: Arrays = Arrays::new();
        for (name, array) in encoder.parameters.arrays().unwrap() {
            let name = name
                .replace("LayerNorm.weight", "LayerNorm.gamma")
                .replace("LayerNorm.bias", "LayerNorm.beta");
            arrays.insert(format!("bert.{name}"), array);
        }
        let extra = Array { shape: vec![1], values: vec![0.0] };
        arrays.insert("bert.pooler.dense.bias".into(), extra.clone());
        arrays.insert("cls.predictions.bias".into(), extra);
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
        write("model.safetensors", &published_file(&arrays));
        write("config.json", &serde_json::to_vec(&encoder.config).unwrap());
        write("tokenizer.json", encoder.vocabulary.json().as_bytes());
        let found = model_folder("lab/bert", hub.path()).unwrap();
        let (loaded, coverage) = TextEncoder::load(&found, 32).unwrap();
        let report = format!(
            "{} arrays taken by the prefix `bert.`; left over: bert.pooler.dense.bias, cls.predictions.bias",
            arrays.len() - 2
        );
        assert_eq!(coverage.to_string(), report);
        assert_eq!(loaded.parameters.arrays().unwrap(), encoder.parameters.arrays().unwrap());
        assert_eq!(loaded.header(), TextHeader { max_length: 32, ..encoder.header() });
        arrays.remove("bert.encoder.layer.1.output.dense.bias");
        write("model.safetensors", &published_file(&arrays));
        let error = TextEncoder::load(&found, 32).unwrap_err().to_string();
        assert!(
            error.contains("of the BERT and lacks 1 array (encoder.layer.1.output.dense.bias)"),
            "{error}"
        );
        std::fs::remove_file(folder.join("model.safetensors")).unwrap();
        let error = TextEncoder::load(&found, 32).unwrap_err().to_string();
        assert!(error.contains("has none of model.safetensors, pytorch_model.bin"), "{error}");
    }

    #[test]
    fn models_that_are_not_there() {
        let hub = tempfile::tempdir().unwrap();
        let error = |model: &str| model_folder(model, hub.path()).unwrap_err().to_string();
        assert!(error("lab/bert@v2").contains("`hf download lab/bert --revision v2` puts it there"));
        assert!(error("../bert").contains("expected one, or the name of a model such as org/name"));
        assert!(error("lab/bert@../x").contains("expected one, or the name of a model such as org/name"));
    }

    #[test]
    fn parts_that_do_not_fit_together() {
        let encoder = small();
        let config = BertConfig { vocab_size: 10, ..encoder.config.clone() };
        let error = TextEncoder::seeded(config, encoder.vocabulary.clone(), 0).unwrap_err().to_string();
        assert!(error.contains(" tokens and the network 10, expected no more"), "{error}");
        let header = TextHeader { max_length: 1000, ..encoder.header() };
        let arrays = encoder.parameters.arrays().unwrap();
        let error = TextEncoder::stored(header, arrays, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("up to 1000 tokens and the network 128 positions"), "{error}");
    }
}
