//! Small models on disk, with weights made by the formula of `goldens/make.py`.

use std::collections::BTreeMap;
use std::path::Path;

use argent_decoder::{Device, Message, Model, ModelFiles, Role};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::golden::{TOKENIZER, golden};

/// Weights by name: shape and values.
pub(crate) type Arrays = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A model that is yet to be written.
#[derive(Clone)]
pub(crate) struct Tiny {
    pub(crate) config: Value,
    pub(crate) arrays: Arrays,
    /// The chat template, if it has one.
    pub(crate) template: Option<String>,
}

impl Tiny {
    /// The model of one of the golden cases.
    pub(crate) fn of(case: &str) -> Self {
        let golden = golden();
        let config = golden.cases[case].config.clone();
        Self { arrays: arrays(&config), config, template: Some(golden.template) }
    }

    /// Itself with another value in `config.json`; the arrays stay.
    pub(crate) fn with(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// Writes the model with one safetensors file.
    pub(crate) fn write(&self, folder: &Path) {
        self.write_texts(folder);
        std::fs::write(folder.join("model.safetensors"), safetensors(&self.arrays)).unwrap();
    }

    /// Writes the model with its weights in two files and their index.
    pub(crate) fn write_sharded(&self, folder: &Path) {
        self.write_texts(folder);
        let mut place = BTreeMap::new();
        for (index, name) in ["model-1-of-2.safetensors", "model-2-of-2.safetensors"].into_iter().enumerate()
        {
            let half = self.arrays.iter().enumerate().filter(|(array, _)| array % 2 == index);
            let half: Arrays = half.map(|(_, (name, array))| (name.clone(), array.clone())).collect();
            place.extend(half.keys().map(|array| (array.clone(), name)));
            std::fs::write(folder.join(name), safetensors(&half)).unwrap();
        }
        let index = json!({ "metadata": { "total_size": 1 }, "weight_map": place });
        std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    }

    fn write_texts(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        std::fs::write(folder.join("tokenizer.json"), TOKENIZER).unwrap();
        if let Some(template) = &self.template {
            let config = json!({ "chat_template": template, "bos_token": { "content": "<|begin|>" } });
            std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
        }
    }

    /// The model, opened on the processor.
    pub(crate) fn open(&self) -> Model {
        self.open_on(Device::Cpu)
    }

    /// The model, opened on a device.
    pub(crate) fn open_on(&self, device: Device) -> Model {
        self.try_open(device).unwrap()
    }

    /// What is said of the model, which does not open.
    pub(crate) fn refusal(&self) -> String {
        self.try_open(Device::Cpu).err().unwrap().to_string()
    }

    fn try_open(&self, device: Device) -> Result<Model, argent_decoder::Error> {
        let folder = TempDir::new().unwrap();
        self.write(folder.path());
        Model::open(&find(folder.path())?, device)
    }
}

/// A model by its folder, where no hub cache is.
pub(crate) fn find(folder: &Path) -> Result<ModelFiles, argent_decoder::Error> {
    ModelFiles::find(folder.to_str().unwrap(), Path::new("/"), Path::new("/no hub cache"))
}

/// A conversation of one message.
pub(crate) fn asked(content: impl Into<String>) -> Vec<Message> {
    vec![Message { role: Role::User, content: content.into() }]
}

pub(crate) fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The weights that a configuration asks for, written down once more.
fn arrays(config: &Value) -> Arrays {
    let size = |key: &str| config[key].as_u64().unwrap() as usize;
    let (hidden, wide, vocabulary) = (size("hidden_size"), size("intermediate_size"), size("vocab_size"));
    let heads = size("num_attention_heads");
    let head = config["head_dim"].as_u64().map_or(hidden / heads, |size| size as usize);
    let (queries, keys) = (heads * head, size("num_key_value_heads") * head);
    let architecture = config["architectures"][0].as_str().unwrap();
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    if config["tie_word_embeddings"] != json!(true) {
        shapes.push(("lm_head.weight".to_owned(), vec![vocabulary, hidden]));
    }
    for layer in 0..size("num_hidden_layers") {
        let mut push = |name: &str, shape: &[usize]| {
            shapes.push((format!("model.layers.{layer}.{name}"), shape.to_vec()));
        };
        let qwen2 = architecture == "Qwen2ForCausalLM";
        let all = config["attention_bias"] == json!(true);
        for (name, outputs, inputs, bias) in [
            ("self_attn.q_proj", queries, hidden, qwen2 || all),
            ("self_attn.k_proj", keys, hidden, qwen2 || all),
            ("self_attn.v_proj", keys, hidden, qwen2 || all),
            ("self_attn.o_proj", hidden, queries, all),
            ("mlp.gate_proj", wide, hidden, config["mlp_bias"] == json!(true)),
            ("mlp.up_proj", wide, hidden, config["mlp_bias"] == json!(true)),
            ("mlp.down_proj", hidden, wide, config["mlp_bias"] == json!(true)),
        ] {
            push(&format!("{name}.weight"), &[outputs, inputs]);
            if bias {
                push(&format!("{name}.bias"), &[outputs]);
            }
        }
        push("input_layernorm.weight", &[hidden]);
        push("post_attention_layernorm.weight", &[hidden]);
        if architecture == "Qwen3ForCausalLM" {
            push("self_attn.q_norm.weight", &[head]);
            push("self_attn.k_norm.weight", &[head]);
        }
    }
    shapes.into_iter().map(|(name, shape)| (name.clone(), (shape.clone(), weight(&name, &shape)))).collect()
}

/// `weight` of `goldens/make.py`.
fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let scaled = |value: f64| match name {
        _ if name.contains("norm") => 1.0 + value / 4.0,
        _ if name.ends_with("bias") => value / 2.0,
        _ if name.contains("embed") => value,
        _ => value * 2.0 / (shape[1] as f64).sqrt(),
    };
    uniform(name, shape.iter().product()).into_iter().map(|value| scaled(value) as f32).collect()
}

/// `uniform` of `goldens/make.py`.
fn uniform(name: &str, count: usize) -> Vec<f64> {
    let seed = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |seed, byte| {
        (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    let number = |index: u64| {
        let x = seed.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) >> 40) as f64 / f64::from(1 << 23) - 1.0
    };
    (0..count as u64).map(number).collect()
}

/// A safetensors file of bf16 arrays: the upper halves of f32.
pub(crate) fn safetensors_bf16(arrays: &Arrays) -> Vec<u8> {
    let upper = |value: &f32| ((value.to_bits() >> 16) as u16).to_le_bytes();
    serialized(arrays, Dtype::BF16, |values| values.iter().flat_map(upper).collect())
}

/// A safetensors file of f32 arrays.
pub(crate) fn safetensors(arrays: &Arrays) -> Vec<u8> {
    serialized(arrays, Dtype::F32, |values| values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

fn serialized(arrays: &Arrays, dtype: Dtype, bytes: impl Fn(&[f32]) -> Vec<u8>) -> Vec<u8> {
    let arrays: Vec<_> = arrays.iter().map(|(name, (shape, values))| (name, shape, bytes(values))).collect();
    let views = arrays
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(dtype, shape.to_vec(), bytes).unwrap()));
    let format = Some([("format".to_owned(), "pt".to_owned())].into());
    safetensors::serialize(views, format).unwrap()
}
