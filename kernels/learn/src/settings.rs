//! The settings that all trainings have: how long, how fast, in what order, and how samples are shown.

use std::collections::BTreeMap;

use candle_core::Var;
use serde::{Deserialize, Serialize};

use crate::augment::Augment;
use crate::error::Error;
use crate::optimiser::{AdamW, AdamWSettings, Optimiser, Sgd, SgdSettings};
use crate::schedule::{FINAL_LR, Schedule};
use crate::view::View;

/// The settings that all trainings have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Passes over the training part.
    pub epochs: usize,
    /// Optimiser steps after which the training ends in any case; none: the epochs decide.
    pub steps: Option<usize>,
    /// Samples per optimiser step; the last step of an epoch may have fewer.
    pub batch: usize,
    /// Samples that go through the network at once, where that is fewer than `batch`: their gradients are added up.
    /// Batch normalisation then sees these alone.
    pub micro_batch: Option<usize>,
    /// Highest learning rate.
    pub lr: f64,
    /// How the learning rate goes over the steps.
    pub schedule: Schedule,
    /// What moves the weights.
    pub optimiser: OptimiserKind,
    /// Weight decay, for all variables.
    pub weight_decay: f64,
    /// The largest Euclidean norm of the whole gradient; a longer one is scaled down to it.
    pub clip_norm: Option<f64>,
    /// Decides the first weights, the order of the samples and all that augmentation draws.
    pub seed: u64,
    /// How samples are shown to the network.
    pub view: View,
    /// How training samples are varied.
    pub augment: Augment,
    /// Which weights are the result.
    pub select: Select,
}

/// Which weights are the result of a training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// Those after the last step.
    #[default]
    Last,
    /// Those after the epoch with the lowest validation loss; of equal ones the first.
    LowestLoss,
    /// Those after the epoch with the highest Matthews correlation on the validation part, at a score of 0.5 and as
    /// the mean over the classes that have one; of equal ones the first.
    HighestMcc,
}

/// What moves the weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimiserKind {
    /// AdamW with beta 0.9 and 0.999 and epsilon 1e-8; decoupled weight decay.
    AdamW,
    /// Gradient descent; the weight decay is added to the gradient.
    Sgd {
        /// What remains of the momentum in each step.
        momentum: f64,
        /// Nesterov's form of it.
        nesterov: bool,
    },
}

impl Default for Settings {
    /// The published supervised pre-training for chest CT: batch 10, five epochs, learning rate and weight decay 1e-4,
    /// no warm-up, random crops.
    fn default() -> Self {
        Self {
            epochs: 5,
            steps: None,
            batch: 10,
            micro_batch: None,
            lr: 1e-4,
            schedule: Schedule::Cosine { warmup_steps: 0 },
            optimiser: OptimiserKind::AdamW,
            weight_decay: 1e-4,
            clip_norm: None,
            seed: 0,
            view: View::default(),
            augment: Augment::default(),
            select: Select::Last,
        }
    }
}

impl Settings {
    /// Samples that go through the network at once.
    pub fn micro_batch(&self) -> usize {
        self.micro_batch.unwrap_or(self.batch).min(self.batch)
    }

    /// The optimiser before its first step.
    pub(crate) fn optimiser(&self, variables: &BTreeMap<String, Var>) -> Optimiser {
        let weight_decay = self.weight_decay;
        match self.optimiser {
            OptimiserKind::AdamW => {
                let settings = AdamWSettings { weight_decay, ..AdamWSettings::default() };
                Optimiser::AdamW(AdamW::new(variables, settings))
            }
            OptimiserKind::Sgd { momentum, nesterov } => {
                Optimiser::Sgd(Sgd::new(variables, SgdSettings { momentum, nesterov, weight_decay }))
            }
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let problem = if self.epochs == 0 || self.batch == 0 {
            format!("{} epochs with batches of {}, expected at least one of each", self.epochs, self.batch)
        } else if self.steps == Some(0) || self.micro_batch == Some(0) {
            format!(
                "{:?} steps with {:?} samples at once, expected at least one of each",
                self.steps, self.micro_batch
            )
        } else if !(self.lr.is_finite() && self.lr > FINAL_LR) {
            format!("the learning rate is {}, expected more than the final {FINAL_LR}", self.lr)
        } else if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            format!("the weight decay is {}, expected zero or more", self.weight_decay)
        } else if let OptimiserKind::Sgd { momentum, .. } = self.optimiser
            && !(momentum.is_finite() && (0.0..1.0).contains(&momentum))
        {
            format!("the momentum is {momentum}, expected zero or more and less than one")
        } else if let Some(norm) = self.clip_norm.filter(|norm| !positive(*norm)) {
            format!("gradients are clipped to {norm}, expected a number above zero")
        } else {
            self.augment.check()?;
            return self.view.check();
        };
        Err(Error::Setting(problem))
    }
}
