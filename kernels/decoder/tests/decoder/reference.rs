//! The network once more, as plainly as it can be written: one sequence at a time, in f64, every token anew. No
//! cache, no batch, no mask, nothing of the crate.

use serde_json::Value;

use crate::tiny::{Arrays, Tiny};

type Rows = Vec<Vec<f64>>;

/// The logits of the whole vocabulary behind the last of `tokens`.
pub(crate) fn logits(model: &Tiny, tokens: &[u32]) -> Vec<f64> {
    let network = Plain { config: &model.config, arrays: &model.arrays };
    let embedding = network.matrix("model.embed_tokens.weight");
    let mut hidden: Rows = tokens.iter().map(|token| embedding[*token as usize].clone()).collect();
    for layer in 0..network.size("num_hidden_layers") {
        hidden = network.layer(layer, hidden);
    }
    let last = network.norm("model.norm.weight", hidden.last().unwrap());
    let head = if model.config["tie_word_embeddings"] == true {
        embedding
    } else {
        network.matrix("lm_head.weight")
    };
    head.iter().map(|row| dot(row, &last)).collect()
}

struct Plain<'a> {
    config: &'a Value,
    arrays: &'a Arrays,
}

impl Plain<'_> {
    fn layer(&self, layer: usize, hidden: Rows) -> Rows {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let input = self.norms(&name("input_layernorm.weight"), &hidden);
        let queries = self.heads(&name("self_attn.q_proj"), Some(&name("self_attn.q_norm.weight")), &input);
        let keys = self.heads(&name("self_attn.k_proj"), Some(&name("self_attn.k_norm.weight")), &input);
        let values = self.heads(&name("self_attn.v_proj"), None, &input);
        let drawn: Rows = (0..hidden.len())
            .map(|position| {
                let first = (position + 1).saturating_sub(self.window(layer));
                self.drawn(&queries[position], &keys[first..=position], &values[first..=position])
            })
            .collect();
        let hidden = sums(&hidden, &self.linear(&name("self_attn.o_proj"), &drawn));
        let input = self.norms(&name("post_attention_layernorm.weight"), &hidden);
        let (gate, up) =
            (self.linear(&name("mlp.gate_proj"), &input), self.linear(&name("mlp.up_proj"), &input));
        let gated = |(gate, up): (&Vec<f64>, &Vec<f64>)| {
            gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect()
        };
        let gated: Rows = gate.iter().zip(&up).map(gated).collect();
        sums(&hidden, &self.linear(&name("mlp.down_proj"), &gated))
    }

    /// By position and head, a projection; turned by position if it is one of queries or keys.
    fn heads(&self, name: &str, norm: Option<&str>, input: &Rows) -> Vec<Rows> {
        let split = |(position, whole): (usize, &Vec<f64>)| {
            let head = |head: &[f64]| match norm {
                Some(norm) => self.turned(position, &self.head_norm(norm, head)),
                None => head.to_vec(),
            };
            whole.chunks(self.head_dim()).map(head).collect()
        };
        self.linear(name, input).iter().enumerate().map(split).collect()
    }

    /// What one position draws from those that it sees, all heads behind each other.
    fn drawn(&self, queries: &Rows, keys: &[Rows], values: &[Rows]) -> Vec<f64> {
        let shared = queries.len() / keys[0].len();
        let head = |(head, query): (usize, &Vec<f64>)| {
            let score = |key: &Rows| dot(query, &key[head / shared]) / (query.len() as f64).sqrt();
            let weights = softmax(&keys.iter().map(score).collect::<Vec<f64>>());
            let mut sum = vec![0.0; query.len()];
            for (weight, value) in weights.iter().zip(values) {
                for (sum, value) in sum.iter_mut().zip(&value[head / shared]) {
                    *sum += weight * value;
                }
            }
            sum
        };
        queries.iter().enumerate().flat_map(head).collect()
    }

    /// How many tokens a layer sees.
    fn window(&self, layer: usize) -> usize {
        let window = self.config["sliding_window"].as_u64().map_or(usize::MAX, |window| window as usize);
        match self.config["architectures"][0].as_str().unwrap() {
            "MistralForCausalLM" => window,
            _ if self.config["use_sliding_window"] != true => usize::MAX,
            _ if layer >= self.size("max_window_layers") => window,
            _ => usize::MAX,
        }
    }

    /// A head of a query or a key, turned by its position. Only the plain rotation is here.
    fn turned(&self, position: usize, head: &[f64]) -> Vec<f64> {
        assert!(self.config.get("rope_scaling").is_none(), "the reference has no scaled positions");
        let parameters = self.config.get("rope_parameters").unwrap_or(self.config);
        let theta = parameters["rope_theta"].as_f64().unwrap();
        let half = head.len() / 2;
        let angle = |pair: usize| position as f64 / theta.powf(2.0 * pair as f64 / head.len() as f64);
        let low = (0..half).map(|i| head[i] * angle(i).cos() - head[i + half] * angle(i).sin());
        let high = (0..half).map(|i| head[i + half] * angle(i).cos() + head[i] * angle(i).sin());
        low.chain(high).collect()
    }

    fn head_norm(&self, name: &str, head: &[f64]) -> Vec<f64> {
        if self.arrays.contains_key(name) { self.norm(name, head) } else { head.to_vec() }
    }

    fn norm(&self, name: &str, values: &[f64]) -> Vec<f64> {
        let square = values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64;
        let scale = (square + self.config["rms_norm_eps"].as_f64().unwrap()).sqrt();
        let weight = &self.arrays[name].1;
        values.iter().zip(weight).map(|(value, weight)| value / scale * f64::from(*weight)).collect()
    }

    fn norms(&self, name: &str, rows: &Rows) -> Rows {
        rows.iter().map(|row| self.norm(name, row)).collect()
    }

    fn linear(&self, name: &str, input: &Rows) -> Rows {
        let outputs = self.matrix(&format!("{name}.weight"));
        let bias = self.arrays.get(&format!("{name}.bias"));
        let bias =
            bias.map_or(vec![0.0; outputs.len()], |(_, bias)| bias.iter().map(|b| f64::from(*b)).collect());
        let row = |row: &Vec<f64>| {
            outputs.iter().zip(&bias).map(|(output, bias)| dot(output, row) + bias).collect::<Vec<f64>>()
        };
        input.iter().map(row).collect()
    }

    fn matrix(&self, name: &str) -> Rows {
        let (shape, values) = &self.arrays[name];
        values.chunks(shape[1]).map(|row| row.iter().map(|value| f64::from(*value)).collect()).collect()
    }

    fn size(&self, key: &str) -> usize {
        self.config[key].as_u64().unwrap() as usize
    }

    fn head_dim(&self) -> usize {
        let whole = self.size("hidden_size") / self.size("num_attention_heads");
        self.config["head_dim"].as_u64().map_or(whole, |size| size as usize)
    }
}

pub(crate) fn softmax(values: &[f64]) -> Vec<f64> {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = values.iter().map(|value| (value - largest).exp()).sum();
    values.iter().map(|value| (value - largest).exp() / sum).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn sums(a: &Rows, b: &Rows) -> Rows {
    let sum = |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| a + b).collect();
    a.iter().zip(b).map(sum).collect()
}
