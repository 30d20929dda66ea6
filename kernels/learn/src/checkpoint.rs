//! The state of a training under way, as bytes.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::history::History;
use crate::optimiser::OptimiserState;
use crate::parameters::{Array, Arrays};
use crate::weights::{read_arrays, write_arrays};

/// Everything that the remaining steps of a training depend on, besides its settings and data.
///
/// The order of the samples and all random choices are functions of the seed, the epoch and the sample, so that the
/// step says where they stand.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    /// Digest of the settings and targets: a checkpoint only goes on with the same ones.
    pub(crate) run: String,
    pub(crate) history: History,
    /// Weights and running statistics.
    pub(crate) weights: Arrays,
    pub(crate) optimiser: OptimiserState,
    /// The weights that are the best so far, and how good they are, where weights are chosen.
    pub(crate) best: Option<(f64, Arrays)>,
}

impl Checkpoint {
    /// A safetensors file with the arrays `weight/…`, `optimiser/…` and `best/…`.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut arrays = Arrays::new();
        for (name, array) in &self.weights {
            arrays.insert(format!("weight/{name}"), array.clone());
        }
        for (name, values) in &self.optimiser.arrays {
            let array = Array { shape: vec![values.len()], values: values.clone() };
            arrays.insert(format!("optimiser/{name}"), array);
        }
        for (name, array) in self.best.iter().flat_map(|(_, arrays)| arrays) {
            arrays.insert(format!("best/{name}"), array.clone());
        }
        let header = Header {
            kind: HEADER_KIND.into(),
            run: self.run.clone(),
            best: self.best.as_ref().map(|(score, _)| *score),
            step: self.optimiser.step,
            history: self.history.clone(),
        };
        write_arrays(&arrays, &header)
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (header, arrays): (Header, Arrays) = read_arrays(bytes)?;
        if header.kind != HEADER_KIND {
            return Err(Error::Format(format!("the file is `{}`, expected `{HEADER_KIND}`", header.kind)));
        }
        let mut parts: [Arrays; 3] = Default::default();
        for (name, array) in arrays {
            let part = PARTS
                .iter()
                .zip(&mut parts)
                .find_map(|(part, arrays)| Some((name.strip_prefix(part)?, arrays)));
            let Some((name, part)) = part else {
                return Err(Error::Format(format!(
                    "the checkpoint holds `{name}`, expected names in {PARTS:?}"
                )));
            };
            part.insert(name.to_owned(), array);
        }
        let [weights, optimiser, best] = parts;
        let arrays = optimiser.into_iter().map(|(name, array)| (name, array.values)).collect();
        let optimiser = OptimiserState { step: header.step, arrays };
        let best = header.best.map(|score| (score, best));
        Ok(Self { run: header.run, history: header.history, weights, optimiser, best })
    }
}

const HEADER_KIND: &str = "checkpoint/2";

/// Prefixes of the arrays.
const PARTS: [&str; 3] = ["weight/", "optimiser/", "best/"];

#[derive(Serialize, Deserialize)]
struct Header {
    kind: String,
    run: String,
    step: usize,
    history: History,
    best: Option<f64>,
}
