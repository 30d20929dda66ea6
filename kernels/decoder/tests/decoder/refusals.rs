//! What is not computed, and how that is told.

use argent_decoder::{Device, TooLong};
use expect_test::expect;
use serde_json::json;

use crate::tiny::{Tiny, asked, find, safetensors, strings};

#[test]
fn models_of_other_kinds_are_refused() {
    let refusal = |key: &str, value| Tiny::of("llama").with(key, value).refusal();
    expect!["the model's architecture is Gemma3ForCausalLM, expected LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM or Qwen3ForCausalLM"].assert_eq(&refusal("architectures", json!(["Gemma3ForCausalLM"])));
    expect!["the model's architecture is not told, expected LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM or Qwen3ForCausalLM"].assert_eq(&refusal("architectures", json!([])));
    expect!["the model's weights are quantised (awq), expected f32, f16 or bf16"]
        .assert_eq(&refusal("quantization_config", json!({ "quant_method": "awq", "bits": 4 })));
    expect!["the model's activation is gelu, expected silu"].assert_eq(&refusal("hidden_act", json!("gelu")));
    expect!["the model scales positions by yarn, expected default, linear or llama3"]
        .assert_eq(&refusal("rope_scaling", json!({ "rope_type": "yarn", "factor": 4.0 })));
    expect!["config.json scales positions by linear without factor, expected one above 0"]
        .assert_eq(&refusal("rope_scaling", json!({ "rope_type": "linear" })));
    expect!["the model rotates 0.5 of each head, expected all of it (partial_rotary_factor 1)"]
        .assert_eq(&refusal("rope_parameters", json!({ "partial_rotary_factor": 0.5 })));
    expect!["config.json has 4 heads for 3 of keys and values, expected a multiple"]
        .assert_eq(&refusal("num_key_value_heads", json!(3)));
    expect!["config.json has num_hidden_layers 0, expected at least 1"]
        .assert_eq(&refusal("num_hidden_layers", json!(0)));
    expect!["config.json has heads of size 7, expected an even one"]
        .assert_eq(&refusal("head_dim", json!(7)));
    expect!["config.json tells the type of 1 layers, expected 3"]
        .assert_eq(&Tiny::of("qwen2").with("layer_types", json!(["full_attention"])).refusal());
}

#[test]
fn every_weight_is_there_has_its_shape_and_is_used() {
    let refusal = |change: &dyn Fn(&mut Tiny)| {
        let mut tiny = Tiny::of("qwen3");
        change(&mut tiny);
        tiny.refusal()
    };
    expect!["the model has no weight model.layers.1.self_attn.k_norm.weight"].assert_eq(&refusal(&|tiny| {
        tiny.arrays.remove("model.layers.1.self_attn.k_norm.weight");
    }));
    expect!["the model has no weight model.layers.2.self_attn.q_proj.weight, model.layers.2.self_attn.k_proj.weight, model.layers.2.self_attn.v_proj.weight, model.layers.2.self_attn.o_proj.weight, model.layers.2.mlp.gate_proj.weight and 6 more"].assert_eq(&refusal(&|tiny| tiny.arrays.retain(|name, _| !name.contains("layers.2"))));
    expect!["model.norm.weight has the shape [31], expected [32] by config.json"].assert_eq(&refusal(
        &|tiny| {
            tiny.arrays.insert("model.norm.weight".into(), (vec![31], vec![0.0; 31]));
        },
    ));
    expect!["the model has model.layers.0.self_attn.q_proj.bias, for which its architecture in config.json has no use"].assert_eq(&refusal(&|tiny| {
        tiny.arrays.insert("model.layers.0.self_attn.q_proj.bias".into(), (vec![64], vec![0.0; 64]));
    }));
}

#[test]
fn weights_that_are_stored_by_habit_do_no_harm() {
    let mut tiny = Tiny::of("qwen3");
    tiny.arrays.insert("lm_head.weight".into(), (vec![272, 32], vec![f32::NAN; 272 * 32]));
    tiny.arrays.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), (vec![8], vec![1.0; 8]));
    let (mut with, mut without) = (tiny.open(), Tiny::of("qwen3").open());
    let sheet = with.sheet(&strings(&["x:"]), &strings(&[" A", " B"])).unwrap();
    let prompts = [asked("a report")];
    assert_eq!(with.decide(&prompts, &sheet).unwrap(), without.decide(&prompts, &sheet).unwrap());
}

#[test]
fn a_file_that_was_not_downloaded_fully_is_refused() {
    let refusal = |change: &dyn Fn(&mut Vec<u8>)| {
        let folder = tempfile::TempDir::new().unwrap();
        let tiny = Tiny::of("llama");
        tiny.write(folder.path());
        let mut bytes = safetensors(&tiny.arrays);
        change(&mut bytes);
        std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        let opened = argent_decoder::Model::open(&find(folder.path()).unwrap(), Device::Cpu);
        opened.err().unwrap().to_string().replace(folder.path().to_str().unwrap(), "FOLDER")
    };
    expect!["FOLDER/model.safetensors is no safetensors file: model.norm.weight lies at 162560 to 162688 of 162687 bytes, which does not fit its shape [32]; was it downloaded fully?"].assert_eq(&refusal(&|bytes| bytes.truncate(bytes.len() - 1)));
    expect!["FOLDER/model.safetensors is no safetensors file: its header would have 3040 bytes, and the file has 100"].assert_eq(&refusal(&|bytes| bytes.truncate(100)));
    expect!["FOLDER/model.safetensors is no safetensors file: it is shorter than 8 bytes"]
        .assert_eq(&refusal(&|bytes| bytes.truncate(5)));
    // What git leaves of a large file where it was not fetched.
    expect!["FOLDER/model.safetensors is no safetensors file: its header would have 2336927755350992246 bytes, and the file has 43"].assert_eq(&refusal(&|bytes| *bytes = b"version https://git-lfs.github.com/spec/v1\n".to_vec()));
}

#[test]
fn a_token_that_the_model_does_not_know_is_an_error_and_one_that_no_text_has_is_none() {
    let mut tiny = Tiny { template: None, ..Tiny::of("llama").with("vocab_size", json!(260)) };
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        let (shape, values) = tiny.arrays.get_mut(name).unwrap();
        shape[0] = 260;
        values.truncate(260 * 32);
    }
    let mut model = tiny.open();
    let sheet = model.sheet(&strings(&["x:"]), &strings(&[" A", " B"])).unwrap();
    assert!(model.decide(&[asked("a text of bytes")], &sheet).unwrap()[0].is_ok());
    let error = model.decide(&[asked("a secret nodule")], &sheet).unwrap_err();
    expect!["a text has the token number 261, and the model knows 260 from 0 on; are its tokenizer.json and its config.json of one model?"].assert_eq(&error.to_string());
}

#[test]
fn a_prompt_that_is_too_long_is_told_and_the_others_are_answered() {
    let mut model = Tiny::of("llama").with("max_position_embeddings", json!(120)).open();
    let sheet = model.sheet(&strings(&["x:", "longest:"]), &strings(&[" A", " B"])).unwrap();
    let (short, long) = (asked("no effusion"), asked("x".repeat(100)));
    let answers = model.decide(&[short.clone(), long, short], &sheet).unwrap();
    assert_eq!(answers[1], Err(TooLong { tokens: 145, limit: 120 }));
    expect!["the prompt has 145 tokens, expected at most 120"]
        .assert_eq(&answers[1].as_ref().unwrap_err().to_string());
    assert_eq!(answers[0], answers[2]);
    assert_eq!(answers[0].as_ref().unwrap().decisions.len(), 2);
    // The longest that fits leaves no token.
    let fits = asked("x".repeat(100 - 25));
    assert!(model.decide(&[fits], &sheet).unwrap()[0].is_ok());
}

#[test]
fn an_option_is_one_token_of_its_own_behind_each_question() {
    let model = Tiny::of("llama").open();
    let refusal = |questions: &[&str], options: &[&str]| {
        model.sheet(&strings(questions), &strings(options)).unwrap_err().to_string()
    };
    expect!["the option ` present` is 8 tokens of this model behind the question `nodule:`, expected 1; a single letter is one with most models"].assert_eq(&refusal(&["nodule:"], &[" A", " present"]));
    expect!["the option `A` changes the tokens of the question `nodule: ` before it, expected to add one; where words are joined with the blank before them, let the option begin with it and not the question end with it"].assert_eq(&refusal(&["nodule: "], &["A", "B"]));
    expect!["two options behind the question `nodule:` are the same token, expected one token each"]
        .assert_eq(&refusal(&["nodule:"], &[" A", "A", " A"]));
    expect!["the option `` is 0 tokens of this model behind the question `nodule:`, expected 1; a single letter is one with most models"].assert_eq(&refusal(&["nodule:"], &[" A", ""]));
    expect!["the question `` has no token, expected some"]
        .assert_eq(&refusal(&["nodule:", ""], &[" A", " B"]));
    expect!["there are 0 questions and 2 options, expected at least 1 and 2"]
        .assert_eq(&refusal(&[], &[" A", " B"]));
    expect!["there are 1 questions and 1 options, expected at least 1 and 2"]
        .assert_eq(&refusal(&["nodule:"], &[" A"]));
}

#[test]
fn a_logit_that_is_no_number_is_an_error() {
    let mut tiny = Tiny::of("llama");
    tiny.arrays.get_mut("model.norm.weight").unwrap().1[3] = f32::NAN;
    let mut model = tiny.open();
    let sheet = model.sheet(&strings(&["x:"]), &strings(&[" A", " B"])).unwrap();
    let error = model.decide(&[asked("a secret report")], &sheet).unwrap_err();
    expect![
        "the model gave a logit that is not a finite number for prompt 0; check that its weights are whole"
    ]
    .assert_eq(&error.to_string());
}

#[test]
fn a_gpu_that_is_not_there_is_told() {
    let folder = tempfile::TempDir::new().unwrap();
    Tiny::of("llama").write(folder.path());
    let opened = argent_decoder::Model::open(&find(folder.path()).unwrap(), Device::Cuda(99));
    let error = opened.err().unwrap().to_string();
    assert!(error.starts_with("there is no GPU 99: "), "{error}");
}
