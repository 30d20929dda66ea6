//! What `config.json` says about a model: which network it is, and how large.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;
use crate::files::read_json;
use crate::rope::{Rope, RopeScaling};

/// A decoder of the Llama family.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) architecture: Architecture,
    pub(crate) vocabulary: usize,
    pub(crate) hidden: usize,
    /// Width of the feed-forward layers.
    pub(crate) intermediate: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    /// Heads of keys and values; each serves `heads / key_value_heads` heads of queries.
    pub(crate) key_value_heads: usize,
    pub(crate) head_dim: usize,
    /// The most tokens of a prompt.
    pub(crate) context: usize,
    pub(crate) norm_epsilon: f64,
    pub(crate) rope: Rope,
    /// Whether the output layer is the embedding.
    pub(crate) tied: bool,
    /// Which linear layers have a bias.
    pub(crate) bias: Bias,
    /// Whether queries and keys are normalised per head.
    pub(crate) query_key_norm: bool,
    /// By layer, how many tokens back it sees, itself included; `None` sees all.
    pub(crate) windows: Vec<Option<usize>>,
}

/// Which linear layers have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bias {
    pub(crate) query_key_value: bool,
    pub(crate) attention_output: bool,
    pub(crate) feed_forward: bool,
}

impl Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If the architecture, its activation, its position encoding or its quantisation is not computed here, or if
    /// sizes do not fit each other.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let json: Value = read_json(path)?;
        // Other architectures have other keys, which are not what is wrong.
        let architecture = Architecture::named(json["architectures"][0].as_str())?;
        let stored = serde_json::from_value(json)
            .map_err(|error| Error::Format(format!("{} is not as expected: {error}", path.display())))?;
        Self::from_stored(architecture, stored)
    }

    fn from_stored(architecture: Architecture, stored: Stored) -> Result<Self, Error> {
        if let Some(quantisation) = &stored.quantization_config {
            let method = quantisation["quant_method"].as_str().unwrap_or("of some kind");
            return Err(Error::Unsupported(format!(
                "the model's weights are quantised ({method}), expected f32, f16 or bf16"
            )));
        }
        if stored.hidden_act != "silu" {
            return Err(Error::Unsupported(format!(
                "the model's activation is {}, expected silu",
                stored.hidden_act
            )));
        }
        let head_dim = stored.head_dim.unwrap_or(stored.hidden_size / stored.num_attention_heads.max(1));
        let config = Self {
            architecture,
            vocabulary: stored.vocab_size,
            hidden: stored.hidden_size,
            intermediate: stored.intermediate_size,
            layers: stored.num_hidden_layers,
            heads: stored.num_attention_heads,
            key_value_heads: stored.num_key_value_heads.unwrap_or(stored.num_attention_heads),
            head_dim,
            context: stored.max_position_embeddings,
            norm_epsilon: stored.rms_norm_eps,
            rope: rope(&stored)?,
            tied: stored.tie_word_embeddings,
            bias: bias(architecture, &stored),
            query_key_norm: architecture == Architecture::Qwen3,
            windows: windows(architecture, &stored)?,
        };
        config.checked()
    }

    fn checked(self) -> Result<Self, Error> {
        let sizes = [
            ("vocab_size", self.vocabulary),
            ("hidden_size", self.hidden),
            ("intermediate_size", self.intermediate),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.key_value_heads),
            ("max_position_embeddings", self.context),
        ];
        if let Some((name, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(Error::Format(format!("config.json has {name} 0, expected at least 1")));
        }
        if !self.heads.is_multiple_of(self.key_value_heads) {
            return Err(Error::Format(format!(
                "config.json has {} heads for {} of keys and values, expected a multiple",
                self.heads, self.key_value_heads
            )));
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(2) {
            return Err(Error::Format(format!(
                "config.json has heads of size {}, expected an even one",
                self.head_dim
            )));
        }
        Ok(self)
    }

    /// The name and shape of every weight that the network needs.
    pub(crate) fn weights(&self) -> Vec<(String, Vec<usize>)> {
        let (queries, keys) = (self.heads * self.head_dim, self.key_value_heads * self.head_dim);
        let mut all = vec![
            ("model.embed_tokens.weight".to_owned(), vec![self.vocabulary, self.hidden]),
            ("model.norm.weight".to_owned(), vec![self.hidden]),
        ];
        if !self.tied {
            all.push(("lm_head.weight".to_owned(), vec![self.vocabulary, self.hidden]));
        }
        for layer in 0..self.layers {
            let linear = [
                ("self_attn.q_proj", queries, self.hidden, self.bias.query_key_value),
                ("self_attn.k_proj", keys, self.hidden, self.bias.query_key_value),
                ("self_attn.v_proj", keys, self.hidden, self.bias.query_key_value),
                ("self_attn.o_proj", self.hidden, queries, self.bias.attention_output),
                ("mlp.gate_proj", self.intermediate, self.hidden, self.bias.feed_forward),
                ("mlp.up_proj", self.intermediate, self.hidden, self.bias.feed_forward),
                ("mlp.down_proj", self.hidden, self.intermediate, self.bias.feed_forward),
            ];
            for (name, outputs, inputs, bias) in linear {
                all.push((format!("model.layers.{layer}.{name}.weight"), vec![outputs, inputs]));
                if bias {
                    all.push((format!("model.layers.{layer}.{name}.bias"), vec![outputs]));
                }
            }
            let norms = [("input_layernorm", self.hidden), ("post_attention_layernorm", self.hidden)];
            let head_norms = [("self_attn.q_norm", self.head_dim), ("self_attn.k_norm", self.head_dim)];
            let head_norms = head_norms.into_iter().filter(|_| self.query_key_norm);
            for (name, size) in norms.into_iter().chain(head_norms) {
                all.push((format!("model.layers.{layer}.{name}.weight"), vec![size]));
            }
        }
        all
    }
}

/// The architectures that differ in nothing but biases, norms and windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

/// `config.json` as it is stored, with the keys of transformers 4 and 5.
#[derive(Debug, Deserialize)]
struct Stored {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    hidden_act: String,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeParameters>,
    rope_parameters: Option<RopeParameters>,
    partial_rotary_factor: Option<f64>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    quantization_config: Option<serde_json::Value>,
}

/// `rope_scaling` of transformers 4, `rope_parameters` of transformers 5.
#[derive(Debug, Deserialize)]
struct RopeParameters {
    rope_type: Option<String>,
    /// The older name of `rope_type`; some files have both.
    r#type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    partial_rotary_factor: Option<f64>,
}

impl Architecture {
    const ALL: [Self; 4] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    fn named(name: Option<&str>) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|known| Some(known.name()) == name).ok_or_else(|| {
            Error::Unsupported(format!(
                "the model's architecture is {}, expected LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM or \
                 Qwen3ForCausalLM",
                name.unwrap_or("not told")
            ))
        })
    }

    /// The name in `config.json`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }
}

fn bias(architecture: Architecture, stored: &Stored) -> Bias {
    let (query_key_value, attention_output, feed_forward) = match architecture {
        Architecture::Llama => (stored.attention_bias, stored.attention_bias, stored.mlp_bias),
        Architecture::Mistral => (false, false, false),
        Architecture::Qwen2 => (true, false, false),
        Architecture::Qwen3 => (stored.attention_bias, stored.attention_bias, false),
    };
    Bias { query_key_value, attention_output, feed_forward }
}

/// By layer, how far back it sees. Llama has no windows; those of Mistral hold for all layers, those of Qwen for
/// the layers that `layer_types` names, or for those from `max_window_layers` on.
fn windows(architecture: Architecture, stored: &Stored) -> Result<Vec<Option<usize>>, Error> {
    let on = match architecture {
        Architecture::Llama => false,
        Architecture::Mistral => true,
        Architecture::Qwen2 | Architecture::Qwen3 => stored.use_sliding_window.unwrap_or(false),
    };
    let Some(window) = stored.sliding_window.filter(|_| on) else {
        return Ok(vec![None; stored.num_hidden_layers]);
    };
    if window == 0 {
        return Err(Error::Format("config.json has sliding_window 0, expected at least 1".into()));
    }
    let Some(kinds) = stored.layer_types.as_ref().filter(|_| architecture != Architecture::Mistral) else {
        let first = match architecture {
            Architecture::Mistral => 0,
            _ => stored.max_window_layers.unwrap_or(0),
        };
        return Ok((0..stored.num_hidden_layers).map(|layer| (layer >= first).then_some(window)).collect());
    };
    if kinds.len() != stored.num_hidden_layers {
        return Err(Error::Format(format!(
            "config.json tells the type of {} layers, expected {}",
            kinds.len(),
            stored.num_hidden_layers
        )));
    }
    let window_of = |kind: &String| match kind.as_str() {
        "full_attention" => Ok(None),
        "sliding_attention" => Ok(Some(window)),
        other => Err(Error::Unsupported(format!(
            "a layer's type is {other}, expected full_attention or sliding_attention"
        ))),
    };
    kinds.iter().map(window_of).collect()
}

fn rope(stored: &Stored) -> Result<Rope, Error> {
    let parameters = stored.rope_parameters.as_ref().or(stored.rope_scaling.as_ref());
    let inner = |get: fn(&RopeParameters) -> Option<f64>| parameters.and_then(get);
    let partial = stored.partial_rotary_factor.or(inner(|p| p.partial_rotary_factor)).unwrap_or(1.0);
    if partial != 1.0 {
        return Err(Error::Unsupported(format!(
            "the model rotates {partial} of each head, expected all of it (partial_rotary_factor 1)"
        )));
    }
    // 10,000 is the default of every one of these architectures.
    let theta = inner(|p| p.rope_theta).or(stored.rope_theta).unwrap_or(10_000.0);
    let scaling = match parameters {
        Some(parameters) => scaling(parameters)?,
        None => RopeScaling::None,
    };
    Ok(Rope { theta, scaling })
}

fn scaling(parameters: &RopeParameters) -> Result<RopeScaling, Error> {
    let kind = parameters.rope_type.as_ref().or(parameters.r#type.as_ref()).map_or("default", String::as_str);
    let needed = |name: &str, value: Option<f64>| {
        value.filter(|value| *value > 0.0).ok_or_else(|| {
            Error::Format(format!(
                "config.json scales positions by {kind} without {name}, expected one above 0"
            ))
        })
    };
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: needed("factor", parameters.factor)? }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: needed("factor", parameters.factor)?,
            low_frequency_factor: needed("low_freq_factor", parameters.low_freq_factor)?,
            high_frequency_factor: needed("high_freq_factor", parameters.high_freq_factor)?,
            original_context: needed(
                "original_max_position_embeddings",
                parameters.original_max_position_embeddings.map(|context| context as f64),
            )?,
        }),
        other => Err(Error::Unsupported(format!(
            "the model scales positions by {other}, expected default, linear or llama3"
        ))),
    }
}
