//! Where the files of a model lie, and what tells models apart.

use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::error::Error;

/// The files of a model: a folder as Hugging Face lays it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFiles {
    pub(crate) config: PathBuf,
    pub(crate) tokenizer: PathBuf,
    /// Where the chat template and the special tokens stand; base models may have neither.
    pub(crate) tokenizer_config: Option<PathBuf>,
    pub(crate) chat_template: Option<PathBuf>,
    /// The safetensors, in the order of their names.
    pub(crate) weights: Vec<PathBuf>,
}

impl ModelFiles {
    /// Finds a model by its folder, relative to `beside`, or by its name in a hub cache: `org/name` or
    /// `org/name@revision`, where a revision is a branch, a tag or a commit, and `main` if left out. Nothing is
    /// downloaded.
    ///
    /// # Errors
    /// If there is no such model, or if it lacks a file.
    pub fn find(model: &str, beside: &Path, hub: &Path) -> Result<Self, Error> {
        let folder = beside.join(model);
        if folder.is_dir() {
            return Self::in_folder(&folder);
        }
        Self::in_folder(&snapshot(model, hub)?)
    }

    fn in_folder(folder: &Path) -> Result<Self, Error> {
        let required = |name: &str| {
            let path = folder.join(name);
            path.is_file().then_some(path).ok_or_else(|| {
                Error::Files(format!("{} has no {name}, expected a model with one", folder.display()))
            })
        };
        let optional = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
        Ok(Self {
            config: required("config.json")?,
            tokenizer: required("tokenizer.json")?,
            tokenizer_config: optional("tokenizer_config.json"),
            chat_template: optional("chat_template.jinja"),
            weights: weights(folder)?,
        })
    }

    /// The paths of all files, the weights last.
    pub fn paths(&self) -> Vec<&Path> {
        let optional = [&self.tokenizer_config, &self.chat_template].into_iter().flatten();
        let all = [&self.config, &self.tokenizer].into_iter().chain(optional).chain(&self.weights);
        all.map(PathBuf::as_path).collect()
    }

    /// A digest of everything that can change an answer: weights, configuration, tokenizer and chat template. Two
    /// folders of equal files have the same, wherever they lie. It reads all of them.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn identity(&self) -> Result<String, Error> {
        let optional = [("tokenizer_config", &self.tokenizer_config), ("chat_template", &self.chat_template)];
        let optional = optional.into_iter().filter_map(|(kind, path)| Some((kind, path.as_ref()?)));
        let files = [("config", &self.config), ("tokenizer", &self.tokenizer)];
        let weights = self.weights.iter().map(|path| ("weights", path));
        let mut all = blake3::Hasher::new_derive_key("argent 2026 model identity");
        for (kind, path) in files.into_iter().chain(optional).chain(weights) {
            let mut one = blake3::Hasher::new();
            let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
            one.update_reader(file).map_err(|error| unreadable(path, &error))?;
            // The colon ends the kind and a digest has one length: no two lists of files give equal bytes.
            all.update(kind.as_bytes()).update(b":").update(one.finalize().as_bytes());
        }
        Ok(all.finalize().to_hex().to_string())
    }
}

/// The hub cache of this machine: `HF_HUB_CACHE`, else `hub` under `HF_HOME`, else that of the home folder.
pub fn hub_cache() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || std::env::home_dir().unwrap_or_default();
    variable("HF_HUB_CACHE").unwrap_or_else(|| {
        let hugging_face = variable("HF_HOME").unwrap_or_else(|| {
            variable("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache")).join("huggingface")
        });
        hugging_face.join("hub")
    })
}

/// The folder of a model in a hub cache: `models--org--name/snapshots/<commit>`, by way of `refs/<revision>`.
fn snapshot(model: &str, hub: &Path) -> Result<PathBuf, Error> {
    let (name, revision) = model.split_once('@').unwrap_or((model, "main"));
    let parts: Vec<&str> = name.split('/').collect();
    let plain = |text: &str| !text.is_empty() && Path::new(text).components().all(is_name);
    if parts.len() > 2 || !parts.iter().all(|part| plain(part)) || !plain(revision) {
        return Err(Error::Files(format!(
            "{model} is no folder, expected one, or a model's name such as org/name"
        )));
    }
    let repository = hub.join(format!("models--{}", parts.join("--")));
    if !repository.is_dir() {
        return Err(Error::Files(format!(
            "{model} is neither a folder nor a model in the hub cache {}; \
             `hf download {name}` puts one there, HF_HUB_CACHE names another cache",
            hub.display()
        )));
    }
    let commit = match std::fs::read_to_string(repository.join("refs").join(revision)) {
        Ok(commit) => commit.trim().to_owned(),
        // No branch or tag: it may be the commit itself.
        Err(_) => revision.to_owned(),
    };
    let folder = repository.join("snapshots").join(&commit);
    if !plain(&commit) || !folder.is_dir() {
        return Err(Error::Files(format!(
            "the hub cache {} has {name} but not its revision {revision}; \
             `hf download {name} --revision {revision}` puts it there",
            hub.display()
        )));
    }
    Ok(folder)
}

/// The safetensors of a model: one file, or those that an index names.
fn weights(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let path = folder.join("model.safetensors.index.json");
    if !path.is_file() {
        return Err(Error::Files(format!(
            "{} has no model.safetensors and no index of several, expected one of them; \
             weights in other formats are not read",
            folder.display()
        )));
    }
    let index: Index = read_json(&path)?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    let shard = |name: String| {
        if !Path::new(&name).components().all(is_name) || name.contains('/') {
            return Err(Error::Format(format!(
                "{} names `{name}`, expected a file beside it",
                path.display()
            )));
        }
        let shard = folder.join(&name);
        shard.is_file().then_some(shard).ok_or_else(|| {
            Error::Files(format!(
                "{} has no {name}, which its index names; was it downloaded fully?",
                folder.display()
            ))
        })
    };
    names.into_iter().map(shard).collect()
}

fn is_name(component: Component) -> bool {
    matches!(component, Component::Normal(_))
}

/// A JSON file of a model.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::Format(format!("{} is not as expected: {error}", path.display())))
}

pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::Format(format!("{} cannot be read: {error}", path.display()))
}
