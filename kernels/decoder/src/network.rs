//! The network: token numbers in, hidden states and logits out.

use candle_core::{DType, Tensor};
use candle_nn::ops::{rms_norm, silu};
use candle_nn::rotary_emb::rope_thd;

use crate::attention::{KeysValues, Masks, attend};
use crate::config::Config;
use crate::error::Error;
use crate::layout::Layout;
use crate::rope::rotations;
use crate::weights::Weights;

/// Where a model computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The processor, in f32.
    Cpu,
    /// A GPU by its index, in bf16; needs the feature `cuda`.
    Cuda(usize),
}

impl Device {
    fn open(self) -> Result<(candle_core::Device, DType), Error> {
        match self {
            Self::Cpu => Ok((candle_core::Device::Cpu, DType::F32)),
            Self::Cuda(index) => match candle_core::Device::new_cuda(index) {
                Ok(device) => Ok((device, DType::BF16)),
                Err(error) => Err(Error::Device(format!("there is no GPU {index}: {error}"))),
            },
        }
    }
}

/// A decoder of the Llama family.
pub(crate) struct Network {
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    /// The output layer, (vocabulary, hidden).
    head: Tensor,
    /// By position encoding, the angle per position.
    frequencies: Vec<f32>,
    config: Config,
    device: candle_core::Device,
    dtype: DType,
}

struct Layer {
    attention_norm: Tensor,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    /// The norms of each head of queries and keys, where the model has them.
    head_norms: Option<(Tensor, Tensor)>,
    feed_forward_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
    window: Option<usize>,
}

struct Linear {
    /// (outputs, inputs)
    weight: Tensor,
    bias: Option<Tensor>,
}

/// What a layer needs besides its input, the same for all layers.
struct Pass<'a> {
    layout: &'a Layout,
    cosines: Tensor,
    sines: Tensor,
    epsilon: f32,
    heads: usize,
    key_value_heads: usize,
    head_dim: usize,
}

impl Network {
    /// Reads the weights of a network.
    ///
    /// # Errors
    /// If they do not cover the configuration, or if the device is not there.
    pub(crate) fn open(
        config: Config,
        weights: &[std::path::PathBuf],
        device: Device,
    ) -> Result<Self, Error> {
        let (device, dtype) = device.open()?;
        let weights = Weights::open(weights, &config, dtype, &device)?;
        let embedding = weights.read("model.embed_tokens.weight")?;
        let head = match config.tied {
            true => embedding.clone(),
            false => weights.read("lm_head.weight")?,
        };
        let layers = (0..config.layers).map(|index| Layer::read(index, &config, &weights));
        Ok(Self {
            embedding,
            layers: layers.collect::<Result<_, Error>>()?,
            norm: weights.read("model.norm.weight")?,
            head,
            frequencies: config.rope.frequencies(config.head_dim),
            config,
            device,
            dtype,
        })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn on_gpu(&self) -> bool {
        self.device.is_cuda()
    }

    /// The hidden states, (rows * length, hidden), behind the last layer and before the last norm, of `tokens`, which
    /// are the rows of `layout` one behind another. `prefix` has the keys and values of each layer for the prefix of
    /// the layout. `keep` is given those of the tokens, layer by layer, in shapes (key-value heads, rows, length, head
    /// size).
    pub(crate) fn forward(
        &self,
        tokens: &[u32],
        layout: &Layout,
        prefix: &[KeysValues],
        mut keep: impl FnMut(KeysValues),
    ) -> candle_core::Result<Tensor> {
        let (cosines, sines) =
            rotations(&self.frequencies, &layout.positions(), layout.rows(), self.dtype, &self.device)?;
        let pass = Pass {
            layout,
            cosines,
            sines,
            epsilon: self.config.norm_epsilon as f32,
            heads: self.config.heads,
            key_value_heads: self.config.key_value_heads,
            head_dim: self.config.head_dim,
        };
        let masks = |window| Masks::new(layout, self.config.heads, window, self.dtype, &self.device);
        let whole = masks(None)?;
        let windows = self.layers.iter().find_map(|layer| layer.window).map(|window| masks(Some(window)));
        let windowed = windows.transpose()?;
        let tokens = Tensor::new(tokens, &self.device)?;
        let mut hidden = self.embedding.index_select(&tokens, 0)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let masks = windowed.as_ref().filter(|_| layer.window.is_some()).unwrap_or(&whole);
            let own;
            (hidden, own) = layer.forward(&hidden, prefix.get(index), masks, &pass)?;
            keep(own);
        }
        Ok(hidden)
    }

    /// The logits of the whole vocabulary, (tokens, vocabulary) in f32, for the hidden states of `forward` at `rows`.
    pub(crate) fn logits(&self, hidden: &Tensor, rows: &[u32]) -> candle_core::Result<Tensor> {
        let rows = Tensor::new(rows, &self.device)?;
        let hidden = hidden.index_select(&rows, 0)?;
        let hidden = rms_norm(&hidden, &self.norm, self.config.norm_epsilon as f32)?;
        hidden.matmul(&self.head.t()?)?.to_dtype(DType::F32)
    }
}

impl Layer {
    fn read(index: usize, config: &Config, weights: &Weights) -> Result<Self, Error> {
        let read = |name: &str| weights.read(&format!("model.layers.{index}.{name}"));
        let linear = |name: &str, bias: bool| {
            let weight = read(&format!("{name}.weight"))?;
            let bias = bias.then(|| read(&format!("{name}.bias"))).transpose()?;
            Ok::<Linear, Error>(Linear { weight, bias })
        };
        let head_norms =
            || Ok::<_, Error>((read("self_attn.q_norm.weight")?, read("self_attn.k_norm.weight")?));
        Ok(Self {
            attention_norm: read("input_layernorm.weight")?,
            query: linear("self_attn.q_proj", config.bias.query_key_value)?,
            key: linear("self_attn.k_proj", config.bias.query_key_value)?,
            value: linear("self_attn.v_proj", config.bias.query_key_value)?,
            output: linear("self_attn.o_proj", config.bias.attention_output)?,
            head_norms: config.query_key_norm.then(head_norms).transpose()?,
            feed_forward_norm: read("post_attention_layernorm.weight")?,
            gate: linear("mlp.gate_proj", config.bias.feed_forward)?,
            up: linear("mlp.up_proj", config.bias.feed_forward)?,
            down: linear("mlp.down_proj", config.bias.feed_forward)?,
            window: config.windows[index],
        })
    }

    /// The layer's output and its keys and values of the tokens.
    fn forward(
        &self,
        hidden: &Tensor,
        prefix: Option<&KeysValues>,
        masks: &Masks,
        pass: &Pass,
    ) -> candle_core::Result<(Tensor, KeysValues)> {
        let input = rms_norm(hidden, &self.attention_norm, pass.epsilon)?;
        let norms = self.head_norms.as_ref();
        let queries = self.query.forward(&input)?;
        let queries = pass.rotated(&pass.split(&queries, pass.heads, norms.map(|norms| &norms.0))?)?;
        let keys = self.key.forward(&input)?;
        let keys = pass.rotated(&pass.split(&keys, pass.key_value_heads, norms.map(|norms| &norms.1))?)?;
        let values =
            pass.by_head(&pass.split(&self.value.forward(&input)?, pass.key_value_heads, None)?)?;
        let own = KeysValues { keys, values };
        let drawn = attend(&queries, &own, prefix, masks)?;
        let drawn = drawn.permute((1, 2, 0, 3))?.reshape((hidden.dim(0)?, pass.heads * pass.head_dim))?;
        let hidden = (hidden + self.output.forward(&drawn)?)?;
        let input = rms_norm(&hidden, &self.feed_forward_norm, pass.epsilon)?;
        // SwiGLU: Shazeer, arXiv 2002.05202.
        let gated = (silu(&self.gate.forward(&input)?)? * self.up.forward(&input)?)?;
        Ok(((hidden + self.down.forward(&gated)?)?, own))
    }
}

impl Pass<'_> {
    /// (rows * length, heads * head size) as (rows, length, heads, head size), each head normalised where the model
    /// does so.
    fn split(&self, tensor: &Tensor, heads: usize, norm: Option<&Tensor>) -> candle_core::Result<Tensor> {
        let shape = (self.layout.rows(), self.layout.length(), heads, self.head_dim);
        let tensor = tensor.reshape(shape)?;
        match norm {
            Some(norm) => rms_norm(&tensor, norm, self.epsilon),
            None => Ok(tensor),
        }
    }

    /// (rows, length, heads, head size), turned by position, as (heads, rows, length, head size).
    fn rotated(&self, tensor: &Tensor) -> candle_core::Result<Tensor> {
        self.by_head(&rope_thd(tensor, &self.cosines, &self.sines)?)
    }

    /// (rows, length, heads, head size) as (heads, rows, length, head size).
    fn by_head(&self, tensor: &Tensor) -> candle_core::Result<Tensor> {
        tensor.permute((2, 0, 1, 3))?.contiguous()
    }
}

impl Linear {
    fn forward(&self, input: &Tensor) -> candle_core::Result<Tensor> {
        let output = input.matmul(&self.weight.t()?)?;
        match &self.bias {
            Some(bias) => output.broadcast_add(bias),
            None => Ok(output),
        }
    }
}
