//! A small language model on disk, as Hugging Face lays one out: a Llama of one layer, whose weights are drawn from a
//! seed. What it says means nothing, and is always the same.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::sandbox::root;

/// The most tokens that it reads; a byte is about one.
pub(crate) const CONTEXT: usize = 512;

const HIDDEN: usize = 16;
const WIDE: usize = 24;
const KEYS: usize = 8;
const VOCABULARY: usize = 272;

const TEMPLATE: &str = "{% for message in messages %}<|turn|>{{ message.role }}\n{{ message.content }}<|end|>\n\
                        {% endfor %}<|turn|>assistant\n";

/// Writes the model with the weights of a seed.
pub(crate) fn write(folder: &Path, seed: u64) {
    let config = json!({
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN, "intermediate_size": WIDE, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "vocab_size": VOCABULARY,
        "hidden_act": "silu", "tie_word_embeddings": true, "rope_theta": 10000.0,
    });
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let tokenizer = root().join("kernels/decoder/goldens/tokenizer.json");
    std::fs::copy(tokenizer, folder.join("tokenizer.json")).unwrap();
    let template = json!({ "chat_template": TEMPLATE });
    std::fs::write(folder.join("tokenizer_config.json"), template.to_string()).unwrap();
    std::fs::write(folder.join("model.safetensors"), safetensors(seed)).unwrap();
}

/// The weights: the length of a header, the header, which says where each array lies, and the arrays in f32.
fn safetensors(seed: u64) -> Vec<u8> {
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let arrays = [
        ("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
        (layer("input_layernorm"), vec![HIDDEN]),
        (layer("post_attention_layernorm"), vec![HIDDEN]),
        (layer("self_attn.q_proj"), vec![HIDDEN, HIDDEN]),
        (layer("self_attn.k_proj"), vec![KEYS, HIDDEN]),
        (layer("self_attn.v_proj"), vec![KEYS, HIDDEN]),
        (layer("self_attn.o_proj"), vec![HIDDEN, HIDDEN]),
        (layer("mlp.gate_proj"), vec![WIDE, HIDDEN]),
        (layer("mlp.up_proj"), vec![WIDE, HIDDEN]),
        (layer("mlp.down_proj"), vec![HIDDEN, WIDE]),
    ];
    let (mut header, mut bytes, mut state) = (Map::new(), Vec::new(), seed);
    for (name, shape) in arrays {
        let from = bytes.len();
        for _ in 0..shape.iter().product::<usize>() {
            let drawn = drawn(&mut state);
            let value = if name.contains("norm") { 1.0 + drawn / 4.0 } else { drawn };
            bytes.extend(value.to_le_bytes());
        }
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [from, bytes.len()] });
        header.insert(name, entry);
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes].concat()
}

/// The next number of a linear congruential generator, from -1 to 1.
fn drawn(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 40) as f32 / (1 << 23) as f32 - 1.0
}
