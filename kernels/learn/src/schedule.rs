//! The learning rate over the steps of a training, and the momentum where it goes with it.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// How the learning rate goes over a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// The highest rate at every step.
    Constant,
    /// A linear rise over `warmup_steps`, then half a cosine to [`FINAL_LR`] ([`cosine_lr`]).
    Cosine {
        /// Steps of the rise; zero begins with the highest rate.
        warmup_steps: usize,
    },
    /// The one-cycle policy (Smith and Topin, 2019, arXiv:1708.07120) with PyTorch's `OneCycleLR` as its reference, in its
    /// two phases of half a cosine each: over the first 30 % of the steps the rate rises from a 25th to its highest
    /// value, then it falls to a 250,000th of that. Momentum goes the other way, from 0.95 to 0.85 and back; it is
    /// Adam's first beta.
    OneCycle,
}

/// What a schedule says of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Learning rate.
    pub lr: f64,
    /// Momentum, or Adam's first beta; nothing leaves the optimiser's own.
    pub momentum: Option<f64>,
}

impl Schedule {
    /// The rates at step `step` (from 0) of `steps`, where `lr` is the highest learning rate.
    pub fn rates(self, lr: f64, step: usize, steps: usize) -> Rates {
        match self {
            Self::Constant => Rates { lr, momentum: None },
            Self::Cosine { warmup_steps } => {
                Rates { lr: cosine_lr(lr, step, steps, warmup_steps), momentum: None }
            }
            Self::OneCycle => one_cycle(lr, step, steps),
        }
    }
}

/// The learning rate at step `step` (from 0) of `steps`: linear from `lr / warmup_steps` to `lr`, then half a cosine
/// to [`FINAL_LR`] (Loshchilov and Hutter, 2017, arXiv:1608.03983, without restarts).
pub fn cosine_lr(lr: f64, step: usize, steps: usize, warmup_steps: usize) -> f64 {
    if step < warmup_steps {
        return lr * (step + 1) as f64 / warmup_steps as f64;
    }
    let progress = (step - warmup_steps) as f64 / (steps - warmup_steps).max(1) as f64;
    half_cosine([lr, FINAL_LR], progress)
}

/// Where the cosine ends, after the last step.
pub const FINAL_LR: f64 = 1e-6;

/// Share of the steps in which the one-cycle rate rises.
const RISE: f64 = 0.3;
/// The highest rate over the first one.
const DIV_FACTOR: f64 = 25.0;
/// The first rate over the last one.
const FINAL_DIV_FACTOR: f64 = 1e4;
/// Momentum at the lowest and at the highest rate.
const MOMENTA: [f64; 2] = [0.95, 0.85];

fn one_cycle(lr: f64, step: usize, steps: usize) -> Rates {
    let first = lr / DIV_FACTOR;
    let last = first / FINAL_DIV_FACTOR;
    let (step, end) = (step as f64, steps as f64 - 1.0);
    // With less than one step in the rise, its end lies before the first step, which PyTorch allows too.
    let top = RISE * steps as f64 - 1.0;
    let (rates, momenta, progress) = match step <= top {
        true => ([first, lr], MOMENTA, if top > 0.0 { step / top } else { 1.0 }),
        false => ([lr, last], [MOMENTA[1], MOMENTA[0]], (step - top) / (end - top)),
    };
    Rates { lr: half_cosine(rates, progress), momentum: Some(half_cosine(momenta, progress)) }
}

/// From the first value to the second, as half a cosine.
fn half_cosine([from, to]: [f64; 2], progress: f64) -> f64 {
    to + (from - to) * (1.0 + (PI * progress).cos()) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{assert_close, golden, numbers, step_golden};

    #[test]
    fn cosine_of_the_reference_after_a_linear_rise() {
        let expected = numbers(&golden("schedule")["lr"]);
        let cosine =
            |warmup_steps, step, steps| Schedule::Cosine { warmup_steps }.rates(1e-4, step, steps).lr;
        let found: Vec<f64> = (0..=50).map(|step| cosine(0, step, 50)).collect();
        // optax computes the schedule in f32 steps.
        assert_close("lr", &found, &expected, 1e-6);
        let rise: Vec<f64> = (0..4).map(|step| cosine(4, step, 54)).collect();
        assert_close("rise", &rise, &[0.25e-4, 0.5e-4, 0.75e-4, 1e-4], 1e-12);
        assert_eq!(cosine(4, 4 + 20, 54), cosine(0, 20, 50));
    }

    #[test]
    fn one_cycle_of_the_reference() {
        for case in step_golden("one_cycle").as_array().unwrap() {
            let steps = case["steps"].as_u64().unwrap() as usize;
            let found: Vec<Rates> =
                (0..steps).map(|step| Schedule::OneCycle.rates(1e-3, step, steps)).collect();
            let lr: Vec<f64> = found.iter().map(|rates| rates.lr).collect();
            let momentum: Vec<f64> = found.iter().filter_map(|rates| rates.momentum).collect();
            assert_close(&format!("lr of {steps}"), &lr, &numbers(&case["lr"]), 1e-11);
            assert_close(&format!("momentum of {steps}"), &momentum, &numbers(&case["momentum"]), 1e-11);
        }
    }

    #[test]
    fn constant_stays() {
        assert_eq!(Schedule::Constant.rates(0.1, 7, 10), Rates { lr: 0.1, momentum: None });
    }
}
