//! The `view` parameter: how a model sees a volume. It travels with the weights, so that prediction cannot
//! differ from training.

use argent_engine::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a model sees a volume: window, scale, padding and crop, on the grid that it lies on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// Hounsfield units outside this range count as its ends.
    #[serde(default = "window")]
    pub window_hu: [f32; 2],
    /// What the ends of the window become.
    #[serde(default = "scale")]
    pub scale: [f32; 2],
    /// What is put around a volume that is smaller than the canvas, in Hounsfield units.
    #[serde(default = "pad")]
    pub pad_hu: f32,
    /// Voxels along x, y, z that every volume is centred on, by padding and cropping.
    pub canvas: [usize; 3],
    /// Voxels along x, y, z that are cut from the canvas: at random in training, from the centre otherwise;
    /// left out, the whole canvas.
    #[serde(default)]
    pub crop: Option<[usize; 3]>,
}

fn window() -> [f32; 2] {
    [-1000.0, 1000.0]
}

fn scale() -> [f32; 2] {
    [-1.0, 1.0]
}

fn pad() -> f32 {
    -1000.0
}

impl View {
    /// What is wrong with the view, if anything.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.window_hu[0] >= self.window_hu[1] {
            problems.push(Problem::at(
                ["with", "view", "window_hu"],
                "the window's lower end must lie below its upper end",
            ));
        }
        if self.canvas.contains(&0) {
            problems.push(Problem::at(
                ["with", "view", "canvas"],
                "a canvas has at least one voxel along each axis",
            ));
        }
        if let Some(crop) = self.crop
            && (0..3).any(|axis| crop[axis] == 0 || crop[axis] > self.canvas[axis])
        {
            problems
                .push(Problem::at(["with", "view", "crop"], "a crop lies inside the canvas along each axis"));
        }
        problems
    }

    /// The same view for the learning kernel.
    pub fn kernel(&self) -> argent_learn::view::View {
        argent_learn::view::View {
            window_hu: self.window_hu,
            scale: self.scale,
            pad_hu: self.pad_hu,
            canvas: Some(self.canvas),
            crop: self.crop,
        }
    }
}
