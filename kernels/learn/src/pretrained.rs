//! Published weights: which array of a file goes into which variable of a network, and a report of all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use candle_core::pickle::PthTensors;
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use crate::error::Error;
use crate::model::ModelKind;
use crate::parameters::{Array, Arrays};
use crate::weights::header_if_any;

/// The arrays of a file: safetensors, or what `torch.save` wrote of a state dict.
#[derive(Clone, Debug)]
pub struct StateDict {
    arrays: BTreeMap<String, Tensor>,
    /// The key under which the file keeps them, where they are not at its top.
    wrapper: Option<&'static str>,
    /// What the file says of itself, where a training of this program wrote it.
    pub(crate) origin: Option<Origin>,
}

/// What weights of this program say of themselves.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Origin {
    /// The network.
    pub(crate) model: ModelKind,
    /// Names of the classes that its head tells; none where it has no such head.
    pub(crate) classes: Option<Vec<String>>,
}

/// Keys under which trainers keep the state dict of a network, beside that of the optimiser and others. The first
/// one that has arrays is taken.
const WRAPPERS: [&str; 6] = ["state_dict", "model_state_dict", "encoder", "model", "network", "net"];

impl StateDict {
    /// Reads all arrays of a file. Pickled code is never run: `torch.save`d files are read for their arrays only.
    ///
    /// # Errors
    /// If the file cannot be read, is of neither form, or holds no array. Files of `torch.save` before PyTorch 1.6
    /// are of another form.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let unreadable = |error: &dyn fmt::Display| {
            Error::Format(format!("{} cannot be read as weights: {error}", path.display()))
        };
        let mut start = [0; 2];
        let read =
            std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
        read.map_err(|error| unreadable(&error))?;
        if start != *b"PK" {
            let bytes = std::fs::read(path).map_err(|error| unreadable(&error))?;
            let arrays = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|error| {
                unreadable(&format!(
                    "{error}; expected safetensors, or what torch.save writes since PyTorch 1.6"
                ))
            })?;
            let origin = header_if_any(&bytes).map_err(|error| unreadable(&error))?;
            return Self::new(&path.display(), arrays.into_iter().collect(), None, origin);
        }
        let top = PthTensors::new(path, None).map_err(|error| unreadable(&error))?;
        let mut found = (top, None);
        for key in WRAPPERS {
            if !found.0.tensor_infos().is_empty() {
                break;
            }
            // That there is no such key is the one error left: the file was read before.
            if let Ok(inside) = PthTensors::new(path, Some(key)) {
                found = (inside, Some(key));
            }
        }
        let (tensors, wrapper) = found;
        let mut arrays = BTreeMap::new();
        for name in tensors.tensor_infos().keys() {
            if let Some(tensor) = tensors.get(name).map_err(|error| unreadable(&error))? {
                arrays.insert(name.clone(), tensor);
            }
        }
        Self::new(&path.display(), arrays, wrapper, None)
    }

    /// Reads the weights that a training of this program returned.
    ///
    /// # Errors
    /// If the bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let unreadable =
            |error: &dyn fmt::Display| Error::Format(format!("the weights cannot be read: {error}"));
        let arrays = candle_core::safetensors::load_buffer(bytes, &Device::Cpu);
        let arrays = arrays.map_err(|error| unreadable(&error))?.into_iter().collect();
        let origin = header_if_any(bytes).map_err(|error| unreadable(&error))?;
        Self::new(&"the file of weights", arrays, None, origin)
    }

    fn new(
        what: &dyn fmt::Display,
        arrays: BTreeMap<String, Tensor>,
        wrapper: Option<&'static str>,
        origin: Option<Origin>,
    ) -> Result<Self, Error> {
        if arrays.is_empty() {
            return Err(Error::Format(format!(
                "{what} holds no arrays, expected a state dict at its top or under one of {}",
                WRAPPERS.join(", ")
            )));
        }
        Ok(Self { arrays, wrapper, origin })
    }
}

/// What is taken of a published network besides its encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The first convolution, or the patch embedding.
    pub stem: Stem,
    /// The linear layer behind the encoder.
    pub head: Head,
}

/// What becomes of the weight of the first convolution, or of the patch embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stem {
    /// It is taken as it is, which needs a file of a network for one channel.
    Published,
    /// It is summed over its input channels: a grey image gives what the published network gives for an image whose
    /// channels are all equal to it. Where the published network saw channels that were normalised apart, the mean
    /// and deviation of the grey image can only follow one of them.
    Summed,
    /// It is drawn from the seed, as published work on chest CT does with another stem.
    New,
}

/// What becomes of the linear layer behind the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// It is taken, which needs as many classes.
    Published,
    /// It is drawn from the seed.
    New,
}

/// Where every array of a network came from, and what of a file was not used. Names are in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The key under which the file keeps its arrays, if they are not at its top.
    pub wrapper: Option<String>,
    /// What stood before the names in the file.
    pub prefix: String,
    /// Arrays of the network that were taken as they are.
    pub taken: Vec<String>,
    /// Arrays of the network that were summed over the input channels of the file's.
    pub summed: Vec<String>,
    /// Arrays of the network that were not taken from the file.
    pub new: Vec<String>,
    /// Arrays of the file that the network has no use for, by their full names.
    pub left_over: Vec<String>,
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} arrays taken", self.taken.len() + self.summed.len())?;
        if let Some(wrapper) = &self.wrapper {
            write!(f, " from `{wrapper}`")?;
        }
        if !self.prefix.is_empty() {
            write!(f, " by the prefix `{}`", self.prefix)?;
        }
        // Nobody reads the names of the counters that batch normalisations keep for a schedule that is not used here.
        let (counters, others): (Vec<&String>, Vec<&String>) =
            self.left_over.iter().partition(|name| name.ends_with(COUNTER));
        let mut left_over: Vec<String> = others.into_iter().cloned().collect();
        if !counters.is_empty() {
            left_over.push(format!("{} of {COUNTER}", counters.len()));
        }
        for (what, names) in
            [("summed over channels", &self.summed), ("new", &self.new), ("left over", &left_over)]
        {
            if !names.is_empty() {
                write!(f, "; {what}: {}", names.join(", "))?;
            }
        }
        Ok(())
    }
}

/// How PyTorch calls the count of the batches that a normalisation has seen.
const COUNTER: &str = "num_batches_tracked";

/// How the arrays of a file belong to a network.
pub(crate) struct Rules<'a> {
    /// The network, for messages.
    pub(crate) network: &'a str,
    /// Our name of a variable that the file calls so; without its prefix.
    pub(crate) rename: &'a dyn Fn(&str) -> String,
    /// What becomes of a variable.
    pub(crate) rule: &'a dyn Fn(&str) -> Rule,
}

/// What becomes of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// It is taken, in the same shape.
    Taken,
    /// It is taken where the file has it.
    Optional,
    /// It is taken and summed over its input channels.
    Summed,
    /// It stays as it is.
    New,
}

/// Puts the arrays of a file into those of a network, or says why it is not the file of this network.
pub(crate) fn transfer(dict: &StateDict, arrays: &mut Arrays, rules: &Rules) -> Result<Coverage, Error> {
    let prefix = prefix(dict, arrays, rules);
    let mut published: BTreeMap<String, &String> = BTreeMap::new();
    for name in dict.arrays.keys() {
        if let Some(rest) = name.strip_prefix(&prefix) {
            published.entry((rules.rename)(rest)).or_insert(name);
        }
    }
    let mut coverage =
        Coverage { wrapper: dict.wrapper.map(str::to_owned), prefix: prefix.clone(), ..Default::default() };
    let mut unused = dict.arrays.clone();
    let mut missing = Vec::new();
    for (name, array) in arrays.iter_mut() {
        let rule = (rules.rule)(name);
        let source = published.get(name).filter(|_| rule != Rule::New);
        match (source, rule) {
            (Some(source), _) => {
                *array = fitted(source, &dict.arrays[*source], &array.shape, rule)?;
                unused.remove(*source);
                let list = if rule == Rule::Summed { &mut coverage.summed } else { &mut coverage.taken };
                list.push(name.clone());
            }
            (None, Rule::New | Rule::Optional) => coverage.new.push(name.clone()),
            (None, Rule::Taken | Rule::Summed) => missing.push(name.clone()),
        }
    }
    coverage.left_over = unused.into_keys().collect();
    match (missing.first(), coverage.taken.len() + coverage.summed.len()) {
        (None, 1..) => Ok(coverage),
        (_, 0) => {
            let (held, wanted) = (name_list(dict.arrays.keys()), name_list(arrays.keys()));
            let network = rules.network;
            Err(Error::Format(format!(
                "no array of the file is one of {network}: it holds {held}, expected {wanted}"
            )))
        }
        (Some(_), taken) => {
            let left = match coverage.left_over.len() {
                0 => "nothing else".into(),
                _ => name_list(coverage.left_over.iter()),
            };
            Err(Error::Format(format!(
                "the file has {taken} of the arrays of {} and lacks {}; besides them it holds {left}",
                rules.network,
                name_list(missing.iter()),
            )))
        }
    }
}

/// What stands before the names of the file: with it, most arrays of the network are found; the shortest of several.
fn prefix(dict: &StateDict, arrays: &Arrays, rules: &Rules) -> String {
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for name in dict.arrays.keys() {
        let starts = name.match_indices('.').map(|(dot, _)| dot + 1);
        for start in [0].into_iter().chain(starts) {
            if arrays.contains_key(&(rules.rename)(&name[start..])) {
                *found.entry(&name[..start]).or_default() += 1;
            }
        }
    }
    let best = found.iter().max_by_key(|(prefix, count)| (**count, std::cmp::Reverse(prefix.len())));
    best.map(|(prefix, _)| (*prefix).to_owned()).unwrap_or_default()
}

/// An array of the file in the shape that the network has for it.
fn fitted(name: &str, tensor: &Tensor, shape: &[usize], rule: Rule) -> Result<Array, Error> {
    let summable = |found: &[usize]| {
        found.len() == shape.len() && found.len() > 1 && found[0] == shape[0] && found[2..] == shape[2..]
    };
    let tensor = match rule {
        Rule::Summed if summable(tensor.dims()) => tensor.to_dtype(DType::F32)?.sum_keepdim(1)?,
        _ => tensor.to_dtype(DType::F32)?,
    };
    if tensor.dims() != shape {
        let help = match summable(tensor.dims()) {
            true => "; it can be summed over its input channels, or be new",
            false => "",
        };
        return Err(Error::Format(format!(
            "`{name}` has shape {:?} in the file, expected {shape:?}{help}",
            tensor.dims()
        )));
    }
    Array::from_tensor(&tensor)
}

/// `3 arrays (a, b, c)`, the first few of them by name.
fn name_list<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    const SHOWN: usize = 3;
    let count = names.len();
    let shown: Vec<&str> = names.take(SHOWN).map(String::as_str).collect();
    let more = if count > SHOWN { ", …" } else { "" };
    let arrays = if count == 1 { "array" } else { "arrays" };
    format!("{count} {arrays} ({}{more})", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{assert_close, network_golden, published_file, values, wave};
    use crate::model::ModelKind;
    use crate::network::{Mode, Network};

    const ALL: Transfer = Transfer { stem: Stem::Published, head: Head::Published };

    fn arrays(kind: ModelKind, seed: u64) -> Arrays {
        Network::seeded(kind, 3, seed).unwrap().parameters.arrays().unwrap()
    }

    /// The arrays under other names, as a file.
    fn file(arrays: &Arrays, rename: impl Fn(&str) -> String) -> StateDict {
        let renamed: Arrays = arrays.iter().map(|(name, array)| (rename(name), array.clone())).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        std::fs::write(&path, published_file(&renamed)).unwrap();
        StateDict::read(&path).unwrap()
    }

    fn embedding(network: &Network) -> Vec<f64> {
        let input: Vec<f32> = wave(40 * 40, 0.3, 1.0).into_iter().map(|value| value as f32).collect();
        let input = Tensor::from_vec(input, (1, 1, 1, 40, 40), &Device::Cpu).unwrap();
        values(&network.embed(&input, Mode::Eval).unwrap())
    }

    fn error(kind: ModelKind, dict: &StateDict, transfer: Transfer) -> String {
        Network::pretrained(kind, 3, 1, dict, transfer).unwrap_err().to_string()
    }

    /// The file was made by PyTorch; see `goldens/make_layers_torch.py`.
    #[test]
    fn a_checkpoint_of_torch_save() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/wrapped.pth");
        let mut dict = StateDict::read(&path).unwrap();
        assert_eq!(dict.wrapper, Some("state_dict"));
        let part = &dict.arrays["module.part"];
        assert_close("part", &values(part), &wave(6, 0.2, 1.0)[2..5], 1e-3);
        let turned = wave(12, 0.3, 1.0);
        let turned: Vec<f64> = (0..12).map(|index| turned[index % 3 * 4 + index / 3]).collect();
        assert_eq!(dict.arrays["module.turned"].dims(), [4, 3]);
        assert_close("turned", &values(&dict.arrays["module.turned"]), &turned, 1e-6);
        dict.arrays.remove("module.turned");
        let empty =
            |shape: &[usize]| Array { shape: shape.to_vec(), values: vec![0.0; shape.iter().product()] };
        let mut arrays = Arrays::from([
            ("bias".into(), empty(&[2])),
            ("part".into(), empty(&[3])),
            ("weight".into(), empty(&[2, 3])),
        ]);
        let rule = |name: &str| if name == "bias" { Rule::New } else { Rule::Taken };
        let rules = Rules { network: "a test", rename: &str::to_owned, rule: &rule };
        let coverage = transfer(&dict, &mut arrays, &rules).unwrap();
        assert_eq!(
            coverage.to_string(),
            "2 arrays taken from `state_dict` by the prefix `module.`; new: bias; left over: 1 of num_batches_tracked"
        );
        let weight: Vec<f64> = arrays["weight"].values.iter().map(|&value| f64::from(value)).collect();
        assert_close("weight", &weight, &wave(6, 0.1, 1.0), 1e-6);
    }

    #[test]
    fn torchvision_names_of_a_densenet_behind_a_prefix() {
        let kind = ModelKind::DenseNetTiny;
        let published = arrays(kind, 7);
        let torchvision = |name: &str| {
            let name = name.replace(".layers.", ".").replace("class_layers.out", "classifier");
            format!("module.encoder.{}", name.replace("denselayer1.norm1", "denselayer1.norm.1"))
        };
        let dict = file(&published, torchvision);
        let (network, coverage) = Network::pretrained(kind, 3, 1, &dict, ALL).unwrap();
        let report = format!("{} arrays taken by the prefix `module.encoder.`", published.len());
        assert_eq!(coverage.to_string(), report);
        assert_eq!(network.parameters.arrays().unwrap(), published);
        let transfer = Transfer { head: Head::New, ..ALL };
        let (network, coverage) = Network::pretrained(kind, 5, 1, &dict, transfer).unwrap();
        assert_eq!(coverage.new, ["class_layers.out.bias", "class_layers.out.weight"]);
        assert_eq!(
            coverage.left_over,
            ["module.encoder.classifier.bias", "module.encoder.classifier.weight"]
        );
        assert_eq!(embedding(&network), embedding(&Network::stored(kind, 3, published).unwrap()));
    }

    #[test]
    fn a_stem_for_three_channels_is_summed_where_asked() {
        let kind = ModelKind::ResNetTiny;
        let grey = arrays(kind, 7);
        let mut colour = grey.clone();
        let stem = colour.get_mut("conv1.weight").unwrap();
        let taps = 49;
        stem.shape[1] = 3;
        stem.values = stem
            .values
            .chunks(taps)
            .flat_map(|channel| [0.5, 0.25, 0.25].map(|share| channel.iter().map(move |value| value * share)))
            .flatten()
            .collect();
        let dict = file(&colour, str::to_owned);
        let summed = Transfer { stem: Stem::Summed, ..ALL };
        let (network, coverage) = Network::pretrained(kind, 3, 1, &dict, summed).unwrap();
        assert_eq!(
            coverage.to_string(),
            format!("{} arrays taken; summed over channels: conv1.weight", grey.len())
        );
        let expected = embedding(&Network::stored(kind, 3, grey).unwrap());
        assert_close("embedding", &embedding(&network), &expected, 1e-5);
        assert_eq!(
            error(kind, &dict, ALL),
            "`conv1.weight` has shape [8, 3, 7, 7] in the file, expected [8, 1, 7, 7]; \
             it can be summed over its input channels, or be new"
        );
    }

    #[test]
    fn another_stem_is_new_where_asked() {
        let kind = ModelKind::ResNet3dTiny;
        let mut published = arrays(kind, 7);
        let stem = published.get_mut("stem.0.weight").unwrap();
        *stem = Array { shape: vec![8, 3, 3, 7, 7], values: vec![0.0; 8 * 3 * 3 * 49] };
        let dict = file(&published, str::to_owned);
        let transfer = Transfer { stem: Stem::New, ..ALL };
        let (network, coverage) = Network::pretrained(kind, 3, 1, &dict, transfer).unwrap();
        assert_eq!(
            (coverage.new, coverage.left_over),
            (vec!["stem.0.weight".to_owned()], vec!["stem.0.weight".to_owned()])
        );
        let found = network.parameters.arrays().unwrap();
        assert_eq!(found["stem.0.weight"], arrays(kind, 1)["stem.0.weight"]);
        assert_eq!(found["layer1.0.conv1.0.weight"], published["layer1.0.conv1.0.weight"]);
    }

    #[test]
    fn names_of_vision_transformers() {
        let older = file(&arrays(ModelKind::VitTiny, 7), |name| {
            name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2.")
        });
        let (_, coverage) = Network::pretrained(ModelKind::VitTiny, 3, 1, &older, ALL).unwrap();
        assert_eq!((coverage.new.len(), coverage.left_over.len()), (0, 0));
        // As MONAI writes it for a network that classifies with a hyperbolic tangent.
        let mut monai = arrays(ModelKind::Vit3dTiny, 7);
        monai
            .insert("blocks.0.norm_cross_attn.bias".into(), Array { shape: vec![64], values: vec![0.0; 64] });
        let dict = file(&monai, |name| name.replace("classification_head.", "classification_head.0."));
        let (_, coverage) = Network::pretrained(ModelKind::Vit3dTiny, 3, 1, &dict, ALL).unwrap();
        assert_eq!(coverage.left_over, ["blocks.0.norm_cross_attn.bias"]);
        // And for one that does not classify.
        monai.retain(|name, _| name != "cls_token" && !name.starts_with("classification_head"));
        let dict = file(&monai, str::to_owned);
        let transfer = Transfer { head: Head::New, ..ALL };
        let (_, coverage) = Network::pretrained(ModelKind::Vit3dTiny, 3, 1, &dict, transfer).unwrap();
        assert_eq!(coverage.new, ["classification_head.bias", "classification_head.weight", "cls_token"]);
        let message = error(ModelKind::Vit3dTiny, &dict, ALL);
        assert!(message.contains("lacks 3 arrays (classification_head.bias, "), "{message}");
    }

    /// Names and shapes as torchvision's modules have them, for three channels.
    #[test]
    fn the_names_of_torchvision() {
        let load = |key: &str, kind: ModelKind, stem: Stem| {
            let shapes: BTreeMap<String, Vec<usize>> =
                serde_json::from_value(network_golden("published")[key].clone()).unwrap();
            let arrays = shapes
                .into_iter()
                .map(|(name, shape)| (name, Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()));
            let dict = StateDict { arrays: arrays.collect(), wrapper: None, origin: None };
            let transfer = Transfer { stem, head: Head::New };
            Network::pretrained(kind, 3, 1, &dict, transfer).unwrap().1.to_string()
        };
        assert_eq!(
            load("r3d_18", ModelKind::ResNet3d18, Stem::New),
            "99 arrays taken; new: fc.bias, fc.weight, stem.0.weight; \
             left over: fc.bias, fc.weight, stem.0.weight, 20 of num_batches_tracked"
        );
        assert_eq!(
            load("densenet", ModelKind::DenseNetTiny, Stem::Summed),
            "79 arrays taken; summed over channels: features.conv0.weight; \
             new: class_layers.out.bias, class_layers.out.weight; \
             left over: classifier.bias, classifier.weight, 16 of num_batches_tracked"
        );
    }

    #[test]
    fn files_of_other_networks_are_errors_that_name_both_sides() {
        let dict = file(&arrays(ModelKind::ResNetTiny, 7), str::to_owned);
        assert_eq!(
            error(ModelKind::DenseNetTiny, &dict, ALL),
            "no array of the file is one of densenet-tiny: \
             it holds 62 arrays (bn1.bias, bn1.running_mean, bn1.running_var, …), \
             expected 81 arrays (class_layers.out.bias, class_layers.out.weight, features.conv0.weight, …)"
        );
        let mut some = arrays(ModelKind::ResNetTiny, 7);
        some.remove("layer2.0.bn1.bias");
        some.insert("layer9.weight".into(), some["fc.bias"].clone());
        assert_eq!(
            error(ModelKind::ResNetTiny, &file(&some, str::to_owned), ALL),
            "the file has 61 of the arrays of resnet-tiny and lacks 1 array (layer2.0.bn1.bias); \
             besides them it holds 1 array (layer9.weight)"
        );
        let error = Network::pretrained(ModelKind::ResNetTiny, 4, 1, &dict, ALL).unwrap_err().to_string();
        assert_eq!(error, "`fc.bias` has shape [3] in the file, expected [4]");
    }

    #[test]
    fn files_that_are_no_weights() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.pth");
        let error = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            StateDict::read(&path).unwrap_err().to_string().replace(&*path.to_string_lossy(), "w.pth")
        };
        assert!(error(b"\x80\x02legacy pickle, with some bytes behind it").contains("since PyTorch 1.6"));
        assert!(error(b"PK but no archive").starts_with("w.pth cannot be read as weights: "));
        assert!(error(b"").starts_with("w.pth cannot be read as weights: "));
        let nothing = error(&published_file(&Arrays::new()));
        assert!(nothing.starts_with("w.pth holds no arrays, expected a state dict"), "{nothing}");
    }
}
