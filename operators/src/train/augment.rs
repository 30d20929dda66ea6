//! The `augment` parameter: how training samples are varied.

use std::collections::BTreeSet;

use argent_engine::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sights::Sight;

/// How training samples are varied at random, each time that they are seen. Nothing of it touches other samples.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Whether the view's crop lies anywhere in the canvas; else in its centre.
    pub crop: bool,
    /// Axes along which samples are mirrored, each with probability one half; only where a mirrored body means the same.
    pub flip: BTreeSet<Axis>,
    /// Degrees by which samples are rotated at most, in the plane of x and y.
    pub rotate_degrees: f64,
    /// How often a sample is rotated.
    pub rotate_probability: f64,
    /// The smallest and the largest factor by which samples are magnified.
    pub zoom: [f64; 2],
    /// How often a sample is magnified.
    pub zoom_probability: f64,
    /// How far all values of a sample move at most, as a share of the view's scale.
    pub brightness: f64,
    /// How much values move at most from their mean or towards it, as a share of their distance.
    pub contrast: f64,
    /// The standard deviation of noise on each value, as a share of the view's scale.
    pub noise: f64,
}

/// An axis of the grid that volumes or images lie on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// The first axis: right to left, or left to right.
    X,
    /// The second axis: front to back, or back to front; of an image, top to bottom.
    Y,
    /// The third axis: feet to head, or head to feet.
    Z,
}

impl Default for Augment {
    fn default() -> Augment {
        let argent_learn::augment::Augment {
            random_crop,
            rotate_degrees,
            rotate_probability,
            zoom,
            zoom_probability,
            brightness,
            contrast,
            noise,
            ..
        } = argent_learn::augment::Augment::default();
        Augment {
            crop: random_crop,
            flip: BTreeSet::new(),
            rotate_degrees,
            rotate_probability,
            zoom,
            zoom_probability,
            brightness,
            contrast,
            noise,
        }
    }
}

impl Augment {
    /// What is wrong with it, if anything.
    pub(crate) fn problems(&self, sight: Sight) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Err(error) = self.kernel().check() {
            problems.push(Problem::at(["with", "augment"], error.to_string()));
        }
        if sight == Sight::Images && self.flip.contains(&Axis::Z) {
            problems.push(Problem::at(["with", "augment", "flip"], "an image has no axis z"));
        }
        problems
    }

    /// The same for the learning kernel.
    pub(crate) fn kernel(&self) -> argent_learn::augment::Augment {
        argent_learn::augment::Augment {
            random_crop: self.crop,
            flip: [Axis::X, Axis::Y, Axis::Z].map(|axis| self.flip.contains(&axis)),
            rotate_degrees: self.rotate_degrees,
            rotate_probability: self.rotate_probability,
            zoom: self.zoom,
            zoom_probability: self.zoom_probability,
            brightness: self.brightness,
            contrast: self.contrast,
            noise: self.noise,
        }
    }
}
