//! BERT (Devlin et al., 2019, arXiv:1810.04805): an encoder of texts that can be trained. The variables have the
//! names of Hugging Face's `BertModel`, without its pooler.
//!
//! The BERT of candle-transformers normalises by an operation that has no gradient, so that nothing before its last
//! layer could be trained; hence this one.

use candle_core::{Device, Tensor, Var};
use candle_nn::{Linear, Module};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::layers::{LayerNorm, linear};
use crate::parameters::{Builder, Init};
use crate::transformer::{attention, gelu};

/// The sizes of a BERT, with the names of its published `config.json`; other entries of that file are not read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BertConfig {
    /// The kind of model that a published configuration is of.
    #[serde(default = "bert")]
    pub model_type: String,
    /// Tokens that have an embedding.
    pub vocab_size: usize,
    /// Values of a token.
    pub hidden_size: usize,
    /// Blocks of attention and perceptron.
    pub num_hidden_layers: usize,
    /// Heads of the attention; they divide the values.
    pub num_attention_heads: usize,
    /// Values between the two linear layers of a block's perceptron.
    pub intermediate_size: usize,
    /// What is between them.
    #[serde(default = "gelu_name")]
    pub hidden_act: String,
    /// Positions that have an embedding: the longest text, in tokens.
    pub max_position_embeddings: usize,
    /// Kinds of text; only the first is used.
    #[serde(default = "two")]
    pub type_vocab_size: usize,
    /// How positions are seen.
    #[serde(default = "absolute")]
    pub position_embedding_type: String,
    /// Added to the variance of the layer normalisations.
    #[serde(default = "epsilon")]
    pub layer_norm_eps: f64,
}

fn bert() -> String {
    "bert".into()
}

fn gelu_name() -> String {
    "gelu".into()
}

fn absolute() -> String {
    "absolute".into()
}

fn two() -> usize {
    2
}

fn epsilon() -> f64 {
    1e-12
}

/// Models whose configuration and variables are those of a BERT, whatever else stands beside them.
const MODEL_TYPES: [&str; 2] = ["bert", "cxr-bert"];

impl BertConfig {
    /// A small encoder for texts of one kind and a CPU: two layers of 128 values, four heads, for texts of up to 128
    /// tokens out of `vocab_size`.
    pub fn small(vocab_size: usize) -> Self {
        Self {
            model_type: bert(),
            vocab_size,
            hidden_size: 128,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            intermediate_size: 256,
            hidden_act: gelu_name(),
            max_position_embeddings: 128,
            type_vocab_size: 1,
            position_embedding_type: absolute(),
            layer_norm_eps: epsilon(),
        }
    }

    /// Whether it is the configuration of a BERT as it is computed here.
    ///
    /// # Errors
    /// If a size is zero, the heads do not divide the values, or it is of a model that differs from BERT.
    pub fn check(&self) -> Result<(), Error> {
        let sizes = [
            self.vocab_size,
            self.hidden_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.intermediate_size,
            self.max_position_embeddings,
            self.type_vocab_size,
        ];
        let problem = if !MODEL_TYPES.contains(&self.model_type.as_str()) {
            // RoBERTa, for one, has the names and shapes of BERT, but counts positions from two.
            format!("the model_type is `{}`, expected one of {}", self.model_type, MODEL_TYPES.join(", "))
        } else if self.hidden_act != "gelu" {
            format!("the hidden_act is `{}`, expected gelu", self.hidden_act)
        } else if self.position_embedding_type != "absolute" {
            format!("the position_embedding_type is `{}`, expected absolute", self.position_embedding_type)
        } else if sizes.contains(&0) {
            format!("the sizes of the BERT are {sizes:?}, expected none of zero")
        } else if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let (values, heads) = (self.hidden_size, self.num_attention_heads);
            format!("the BERT has {values} values for {heads} heads, expected a multiple")
        } else {
            return Ok(());
        };
        Err(Error::Setting(problem))
    }
}

/// The network.
#[derive(Clone, Debug)]
pub(crate) struct Bert {
    words: Var,
    positions: Var,
    types: Var,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

/// What published BERTs are drawn from.
const INIT: Init = Init::Normal { deviation: 0.02 };

impl Bert {
    pub(crate) fn new(builder: &mut Builder, config: &BertConfig) -> Result<Self, Error> {
        let hidden = config.hidden_size;
        let mut table = |name: &str, rows: usize| {
            builder.trainable(format!("embeddings.{name}_embeddings.weight"), &[rows, hidden], INIT)
        };
        let words = table("word", config.vocab_size)?;
        let positions = table("position", config.max_position_embeddings)?;
        let types = table("token_type", config.type_vocab_size)?;
        let norm = LayerNorm::new(builder, "embeddings.LayerNorm", hidden, config.layer_norm_eps)?;
        let layers = (0..config.num_hidden_layers).map(|index| Layer::new(builder, config, index));
        Ok(Self { words, positions, types, norm, layers: layers.collect::<Result<_, Error>>()? })
    }

    /// Where its variables are.
    pub(crate) fn device(&self) -> &Device {
        self.words.device()
    }

    /// Token numbers `(N, L)` and a mask `(N, L)`, 1 for a token and 0 for padding, to `(N, L, hidden)`. What lies
    /// under the padding means nothing.
    pub(crate) fn forward(&self, ids: &Tensor, mask: &Tensor) -> Result<Tensor, Error> {
        let (batch, length) = ids.dims2()?;
        let hidden = self.words.dim(1)?;
        let words = self.words.embedding(&ids.flatten_all()?)?.reshape((batch, length, hidden))?;
        let positions = self.positions.narrow(0, 0, length)?;
        let places = positions.broadcast_add(&self.types.narrow(0, 0, 1)?)?;
        let mut tokens = self.norm.forward(&words.broadcast_add(&places)?)?;
        for layer in &self.layers {
            tokens = layer.forward(&tokens, mask)?;
        }
        Ok(tokens)
    }
}

/// Attention and a perceptron, each beside a shortcut and before a normalisation.
#[derive(Clone, Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    inner: Linear,
    output: Linear,
    norm: LayerNorm,
    heads: usize,
}

impl Layer {
    fn new(builder: &mut Builder, config: &BertConfig, index: usize) -> Result<Self, Error> {
        let (hidden, inner, epsilon) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        Ok(Self {
            query: linear(builder, &name("attention.self.query"), [hidden; 2], INIT)?,
            key: linear(builder, &name("attention.self.key"), [hidden; 2], INIT)?,
            value: linear(builder, &name("attention.self.value"), [hidden; 2], INIT)?,
            attention_output: linear(builder, &name("attention.output.dense"), [hidden; 2], INIT)?,
            attention_norm: LayerNorm::new(builder, &name("attention.output.LayerNorm"), hidden, epsilon)?,
            inner: linear(builder, &name("intermediate.dense"), [hidden, inner], INIT)?,
            output: linear(builder, &name("output.dense"), [inner, hidden], INIT)?,
            norm: LayerNorm::new(builder, &name("output.LayerNorm"), hidden, epsilon)?,
            heads: config.num_attention_heads,
        })
    }

    fn forward(&self, tokens: &Tensor, mask: &Tensor) -> Result<Tensor, Error> {
        let [query, key, value] =
            [self.query.forward(tokens)?, self.key.forward(tokens)?, self.value.forward(tokens)?];
        let attended = attention(&query, &key, &value, self.heads, Some(mask))?;
        let attended = self.attention_output.forward(&attended)?;
        let tokens = self.attention_norm.forward(&tokens.add(&attended)?)?;
        let inner = gelu(&self.inner.forward(&tokens)?)?;
        self.norm.forward(&tokens.add(&self.output.forward(&inner)?)?)
    }
}

/// The name here of a variable that a published BERT calls so; the oldest files call the parts of a normalisation
/// as the paper does.
pub(crate) fn published_name(name: &str) -> String {
    match name.rsplit_once(".LayerNorm.") {
        Some((layer, "gamma")) => format!("{layer}.LayerNorm.weight"),
        Some((layer, "beta")) => format!("{layer}.LayerNorm.bias"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{assert_close, assert_gradients, fill, network_golden, numbers, values, wave_var};
    use candle_core::{DType, Device};

    /// A BERT of two layers against `BertModel` of transformers, which computes in f64, this one in f32.
    #[test]
    fn hidden_states_and_gradients_of_transformers() {
        let case = network_golden("bert");
        let config: BertConfig = serde_json::from_value(case["config"].clone()).unwrap();
        config.check().unwrap();
        let mut builder = Builder::seeded(0);
        Bert::new(&mut builder, &config).unwrap();
        let parameters = builder.finish().unwrap();
        let mut arrays = parameters.arrays().unwrap();
        fill(arrays.iter_mut().map(|(name, array)| (name, &mut array.values, array.shape.clone())));
        let mut builder = Builder::stored(arrays);
        let bert = Bert::new(&mut builder, &config).unwrap();
        let parameters = builder.finish().unwrap();
        let rows = |key: &str| -> Vec<u32> {
            let rows = case[key].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
            rows.map(|number| number.as_u64().unwrap() as u32).collect()
        };
        let ids = Tensor::from_vec(rows("ids"), (2, 6), &Device::Cpu).unwrap();
        let mask = Tensor::from_vec(rows("mask"), (2, 6), &Device::Cpu).unwrap();
        let mask = mask.to_dtype(DType::F32).unwrap();
        let hidden = bert.forward(&ids, &mask).unwrap();
        let kept = hidden.broadcast_mul(&mask.unsqueeze(2).unwrap()).unwrap();
        assert_close("hidden", &values(&kept), &numbers(&case["hidden"]), 1e-5);
        let class = hidden.narrow(1, 0, 1).unwrap().squeeze(1).unwrap();
        let upstream = wave_var(&[2, 32], 0.9, 1.0, 0.0).to_dtype(DType::F32).unwrap();
        let gradients = (class * upstream).unwrap().sum_all().unwrap().backward().unwrap();
        assert_gradients("bert", &case["gradients"], parameters.trainable.iter(), &gradients, 1e-3);
    }

    #[test]
    fn configurations_of_other_models() {
        let fail = |change: fn(&mut BertConfig)| {
            let mut config = BertConfig::small(100);
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert_eq!(
            fail(|config| config.model_type = "roberta".into()),
            "the model_type is `roberta`, expected one of bert, cxr-bert"
        );
        assert_eq!(
            fail(|config| config.hidden_act = "relu".into()),
            "the hidden_act is `relu`, expected gelu"
        );
        assert!(fail(|config| config.num_attention_heads = 5).contains("128 values for 5 heads"));
        assert!(fail(|config| config.vocab_size = 0).contains("expected none of zero"));
    }
}
