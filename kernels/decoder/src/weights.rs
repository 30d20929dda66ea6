//! Weights from safetensors, read one array at a time, with nothing missing and nothing left over.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, TensorInfo};
use serde::Deserialize;

use crate::config::Config;
use crate::error::Error;
use crate::files::unreadable;

/// The longest header that is read; the format allows no longer one.
const HEADER_BYTES: u64 = 100_000_000;
/// How many names of weights a message shows.
const NAMES: usize = 5;

/// The weights of a model, all of which its configuration needs.
pub(crate) struct Weights {
    shards: Vec<Shard>,
    /// By name of a weight, the shard that holds it.
    place: HashMap<String, usize>,
    dtype: DType,
    device: Device,
}

struct Shard {
    path: PathBuf,
    arrays: HashMap<String, TensorInfo>,
    /// Where the arrays' bytes begin.
    start: u64,
}

impl Weights {
    /// Reads the headers of `paths`. The arrays will have `dtype` and lie on `device`.
    ///
    /// # Errors
    /// If a weight that `config` needs is missing, has another shape or no float type, or if there are weights that
    /// it has no use for: such a model would answer, but not as it was trained.
    pub(crate) fn open(
        paths: &[PathBuf],
        config: &Config,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, Error> {
        let shards = paths.iter().map(Shard::open).collect::<Result<Vec<Shard>, Error>>()?;
        let mut place = HashMap::new();
        for (index, shard) in shards.iter().enumerate() {
            for name in shard.arrays.keys() {
                if let Some(other) = place.insert(name.clone(), index) {
                    let (one, two) = (shards[other].path.display(), shard.path.display());
                    return Err(Error::Weights(format!(
                        "{name} is both in {one} and {two}, expected it once"
                    )));
                }
            }
        }
        let weights = Self { shards, place, dtype, device: device.clone() };
        weights.check(config)?;
        Ok(weights)
    }

    /// Reads the headers alone.
    ///
    /// # Errors
    /// Those of [`Weights::open`].
    pub(crate) fn check_headers(paths: &[PathBuf], config: &Config) -> Result<(), Error> {
        Self::open(paths, config, DType::F32, &Device::Cpu).map(drop)
    }

    fn check(&self, config: &Config) -> Result<(), Error> {
        let needed = config.weights();
        let missing = needed.iter().map(|(name, _)| name).filter(|name| !self.place.contains_key(*name));
        let missing: Vec<&String> = missing.collect();
        if !missing.is_empty() {
            return Err(Error::Weights(format!("the model has no weight {}", named(&missing))));
        }
        for (name, shape) in &needed {
            let info = self.info(name);
            if info.shape != *shape {
                return Err(Error::Weights(format!(
                    "{name} has the shape {:?}, expected {shape:?} by config.json",
                    info.shape
                )));
            }
            float(name, info.dtype)?;
        }
        let known: BTreeSet<&String> = needed.iter().map(|(name, _)| name).collect();
        let mut unknown: Vec<&String> =
            self.place.keys().filter(|name| !known.contains(name) && !harmless(name, config)).collect();
        unknown.sort();
        if !unknown.is_empty() {
            return Err(Error::Weights(format!(
                "the model has {}, for which its architecture in config.json has no use",
                named(&unknown)
            )));
        }
        Ok(())
    }

    /// The array of a weight, which is one of [`Config::weights`].
    ///
    /// # Errors
    /// If its file cannot be read any more.
    pub(crate) fn read(&self, name: &str) -> Result<Tensor, Error> {
        let shard = &self.shards[self.place[name]];
        let info = &shard.arrays[name];
        let bytes = shard.bytes(info).map_err(|error| unreadable(&shard.path, &error))?;
        let stored = Tensor::from_raw_buffer(&bytes, float(name, info.dtype)?, &info.shape, &Device::Cpu)?;
        Ok(stored.to_dtype(self.dtype)?.to_device(&self.device)?)
    }

    fn info(&self, name: &str) -> &TensorInfo {
        &self.shards[self.place[name]].arrays[name]
    }
}

impl Shard {
    fn open(path: &PathBuf) -> Result<Self, Error> {
        let failed =
            |what: String| Error::Format(format!("{} is no safetensors file: {what}", path.display()));
        let mut file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let total = file.metadata().map_err(|error| unreadable(path, &error))?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|_| failed("it is shorter than 8 bytes".into()))?;
        let length = u64::from_le_bytes(length);
        if length > HEADER_BYTES || length + 8 > total {
            return Err(failed(format!("its header would have {length} bytes, and the file has {total}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(|error| unreadable(path, &error))?;
        let arrays: HashMap<String, Entry> = serde_json::from_slice(&header)
            .map_err(|error| failed(format!("its header is no such JSON: {error}")))?;
        let arrays = arrays.into_iter().filter_map(|(name, entry)| match entry {
            Entry::Array(info) => Some((name, info)),
            Entry::Metadata(_) => None,
        });
        let shard = Self { path: path.clone(), arrays: arrays.collect(), start: 8 + length };
        for (name, info) in &shard.arrays {
            let (from, to) = info.data_offsets;
            let bytes = info.shape.iter().product::<usize>().checked_mul(info.dtype.bitsize() / 8);
            if to < from || Some(to - from) != bytes || shard.start + to as u64 > total {
                return Err(failed(format!(
                    "{name} lies at {from} to {to} of {} bytes, which does not fit its shape {:?}; \
                     was it downloaded fully?",
                    total - shard.start,
                    info.shape
                )));
            }
        }
        Ok(shard)
    }

    fn bytes(&self, info: &TensorInfo) -> std::io::Result<Vec<u8>> {
        let (from, to) = info.data_offsets;
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.start + from as u64))?;
        let mut bytes = vec![0; to - from];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// An entry of a header: an array, or the free text under `__metadata__`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Array(TensorInfo),
    Metadata(
        #[expect(dead_code, reason = "it must be read to be told apart from an array")]
        HashMap<String, String>,
    ),
}

/// The type of a weight that can be computed with as it is.
fn float(name: &str, dtype: Dtype) -> Result<DType, Error> {
    match dtype {
        Dtype::F32 => Ok(DType::F32),
        Dtype::F16 => Ok(DType::F16),
        Dtype::BF16 => Ok(DType::BF16),
        other => Err(Error::Unsupported(format!("{name} is stored as {other:?}, expected F32, F16 or BF16"))),
    }
}

/// Whether a weight is stored by habit and says nothing: the table of frequencies of old files, and the output layer
/// beside an embedding that takes its place.
fn harmless(name: &str, config: &Config) -> bool {
    name.ends_with("rotary_emb.inv_freq") || (config.tied && name == "lm_head.weight")
}

/// The first names of a list, and how many more there are.
fn named(names: &[&String]) -> String {
    let first: Vec<&str> = names.iter().take(NAMES).map(|name| name.as_str()).collect();
    match names.len().saturating_sub(NAMES) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
