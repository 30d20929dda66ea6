//! The state of a training under way, as bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::history::History;
use crate::optimiser::Moments;
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
    /// Optimiser steps done.
    pub(crate) step: usize,
    pub(crate) history: History,
    /// Weights and running statistics.
    pub(crate) weights: Arrays,
    pub(crate) moments: BTreeMap<String, Moments>,
    /// The weights that are the best so far, and how good they are, where weights are chosen.
    pub(crate) best: Option<(f64, Arrays)>,
}

impl Checkpoint {
    /// A safetensors file with the arrays `weight/…`, `first/…`, `second/…` and `best/…`.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut arrays = Arrays::new();
        for (name, array) in &self.weights {
            arrays.insert(format!("weight/{name}"), array.clone());
        }
        for (name, moments) in &self.moments {
            for (kind, values) in [("first", &moments.first), ("second", &moments.second)] {
                let array = Array { shape: vec![values.len()], values: values.clone() };
                arrays.insert(format!("{kind}/{name}"), array);
            }
        }
        for (name, array) in self.best.iter().flat_map(|(_, arrays)| arrays) {
            arrays.insert(format!("best/{name}"), array.clone());
        }
        let header = Header {
            kind: HEADER_KIND.into(),
            run: self.run.clone(),
            best: self.best.as_ref().map(|(score, _)| *score),
            step: self.step,
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
        let mut parts: [Arrays; 4] = Default::default();
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
        let [weights, first, mut second, best] = parts;
        let mut moments = BTreeMap::new();
        for (name, first) in first {
            let fits = |second: &Array| second.values.len() == first.values.len();
            let Some(second) = second.remove(&name).filter(fits) else {
                return Err(Error::Format(format!(
                    "the checkpoint lacks the second moment of `{name}`, expected both"
                )));
            };
            moments.insert(name, Moments { first: first.values, second: second.values });
        }
        let best = header.best.map(|score| (score, best));
        Ok(Self { run: header.run, step: header.step, history: header.history, weights, moments, best })
    }
}

const HEADER_KIND: &str = "checkpoint/2";

/// Prefixes of the arrays.
const PARTS: [&str; 4] = ["weight/", "first/", "second/", "best/"];

#[derive(Serialize, Deserialize)]
struct Header {
    kind: String,
    run: String,
    step: usize,
    history: History,
    best: Option<f64>,
}
