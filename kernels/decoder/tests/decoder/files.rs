//! Where models are found, and what tells them apart.

use std::path::Path;

use argent_decoder::{Device, Model, ModelFiles, Outline};
use expect_test::expect;
use tempfile::TempDir;

use crate::golden::{golden, numbers};
use crate::tiny::{Tiny, find, safetensors_bf16, strings};

#[test]
fn weights_in_several_files_answer_as_in_one() {
    let (one, several) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let tiny = Tiny::of("qwen3");
    tiny.write(one.path());
    tiny.write_sharded(several.path());
    assert!(!several.path().join("model.safetensors").exists());
    assert_eq!(answers(one.path()), answers(several.path()));
    std::fs::remove_file(several.path().join("model-2-of-2.safetensors")).unwrap();
    let refusal = find(several.path()).unwrap_err().to_string();
    expect!["FOLDER has no model-2-of-2.safetensors, which its index names; was it downloaded fully?"]
        .assert_eq(&refusal.replace(several.path().to_str().unwrap(), "FOLDER"));
}

#[test]
fn weights_of_16_bits_answer_as_their_values_do() {
    let (short, long) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut tiny = Tiny::of("qwen2");
    tiny.write(short.path());
    std::fs::write(short.path().join("model.safetensors"), safetensors_bf16(&tiny.arrays)).unwrap();
    for value in tiny.arrays.values_mut().flat_map(|array| &mut array.1) {
        *value = f32::from_bits(value.to_bits() >> 16 << 16);
    }
    tiny.write(long.path());
    assert_eq!(answers(short.path()), answers(long.path()));
}

#[test]
fn a_model_is_found_in_the_hub_cache_by_name_branch_tag_and_commit() {
    let hub = TempDir::new().unwrap();
    let repository = hub.path().join("models--org--tiny");
    for (commit, case) in [("aaa111", "llama"), ("bbb222", "qwen3")] {
        Tiny::of(case).write(&repository.join("snapshots").join(commit));
    }
    std::fs::create_dir_all(repository.join("refs")).unwrap();
    std::fs::write(repository.join("refs/main"), "bbb222").unwrap();
    std::fs::write(repository.join("refs/v1"), "aaa111\n").unwrap();
    let identity = |model: &str| {
        ModelFiles::find(model, Path::new("/no folder"), hub.path()).unwrap().identity().unwrap()
    };
    let folder = |commit: &str| {
        let folder = repository.join("snapshots").join(commit);
        find(&folder).unwrap().identity().unwrap()
    };
    assert_eq!(identity("org/tiny"), folder("bbb222"));
    assert_eq!(identity("org/tiny@v1"), folder("aaa111"));
    assert_eq!(identity("org/tiny@aaa111"), folder("aaa111"));
    assert_ne!(folder("aaa111"), folder("bbb222"));

    let refusal = |model: &str| {
        let error = ModelFiles::find(model, Path::new("/no folder"), hub.path()).unwrap_err().to_string();
        error.replace(hub.path().to_str().unwrap(), "HUB")
    };
    expect!["org/other is neither a folder nor a model in the hub cache HUB; `hf download org/other` puts one there, HF_HUB_CACHE names another cache"].assert_eq(&refusal("org/other"));
    expect!["the hub cache HUB has org/tiny but not its revision v2; `hf download org/tiny --revision v2` puts it there"].assert_eq(&refusal("org/tiny@v2"));
    expect!["../models/x is no folder, expected one, or a model's name such as org/name"]
        .assert_eq(&refusal("../models/x"));
    expect!["org/tiny@../../../etc is no folder, expected one, or a model's name such as org/name"]
        .assert_eq(&refusal("org/tiny@../../../etc"));
}

#[test]
fn a_folder_that_lacks_a_file_is_refused() {
    let folder = TempDir::new().unwrap();
    let refusal = |name: &str| {
        Tiny::of("llama").write(folder.path());
        std::fs::remove_file(folder.path().join(name)).unwrap();
        find(folder.path()).unwrap_err().to_string().replace(folder.path().to_str().unwrap(), "FOLDER")
    };
    expect!["FOLDER has no config.json, expected a model with one"].assert_eq(&refusal("config.json"));
    expect!["FOLDER has no tokenizer.json, expected a model with one"].assert_eq(&refusal("tokenizer.json"));
    expect!["FOLDER has no model.safetensors and no index of several, expected one of them; weights in other formats are not read"].assert_eq(&refusal("model.safetensors"));
}

#[test]
fn the_identity_is_that_of_every_file_and_not_of_the_place() {
    let folder = |change: &dyn Fn(&Path)| {
        let folder = TempDir::new().unwrap();
        Tiny::of("llama").write(folder.path());
        change(folder.path());
        find(folder.path()).unwrap().identity().unwrap()
    };
    let append = |name: &'static str| {
        move |folder: &Path| {
            let mut bytes = std::fs::read(folder.join(name)).unwrap_or_default();
            bytes.push(b' ');
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    };
    let plain = folder(&|_| ());
    assert_eq!(plain, folder(&|_| ()));
    let files = [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "model.safetensors",
    ];
    for name in files {
        assert_ne!(plain, folder(&append(name)), "{name}");
    }
    // What a download leaves beside a model is not part of it.
    assert_eq!(plain, folder(&append("README.md")));
}

#[test]
fn a_model_is_told_and_checked_without_reading_its_weights() {
    let folder = TempDir::new().unwrap();
    let tiny = Tiny::of("llama");
    tiny.write(folder.path());
    let files = find(folder.path()).unwrap();
    let outline = files.outline().unwrap();
    let parameters: usize = tiny.arrays.values().map(|(_, values)| values.len()).sum();
    assert_eq!(
        outline,
        Outline { architecture: "LlamaForCausalLM".into(), parameters: parameters as u64, context: 2048 }
    );
    let check = |options: &[&str]| files.check(&strings(&["nodule:"]), &strings(options));
    check(&[" A", " B"]).unwrap();
    let refusal = check(&[" A", " present"]).unwrap_err().to_string();
    assert!(refusal.starts_with("the option ` present` is 8 tokens of this model"), "{refusal}");
    std::fs::write(folder.path().join("model.safetensors"), safetensors_bf16(&Default::default())).unwrap();
    let refusal = check(&[" A", " B"]).unwrap_err().to_string();
    assert!(refusal.starts_with("the model has no weight model.embed_tokens.weight"), "{refusal}");
}

fn answers(folder: &Path) -> Vec<Vec<f64>> {
    let golden = golden();
    let mut model = Model::open(&find(folder).unwrap(), Device::Cpu).unwrap();
    let sheet = model.sheet(&golden.questions, &golden.options).unwrap();
    let answers = model.decide(&golden.prompts(true), &sheet).unwrap();
    answers.into_iter().map(|answer| numbers(&answer.unwrap())).collect()
}
