//! The `view` parameter: how a model sees a volume or an image. It travels with the weights, so that prediction cannot
//! differ from training.

use argent_engine::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sights::Sight;

/// How a model sees a volume on the grid that it lies on, or a prepared image: window, scale, padding and crop.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// Of volumes: Hounsfield units outside this range count as its ends; left out, -1000 to 1000.
    #[serde(default)]
    pub window_hu: Option<[f32; 2]>,
    /// What the ends of the window become; of images, black and white.
    #[serde(default = "scale")]
    pub scale: [f32; 2],
    /// Of volumes: what is put around one that is smaller than the canvas, in Hounsfield units; left out, air.
    #[serde(default)]
    pub pad_hu: Option<f32>,
    /// Voxels along x, y, z that every volume is centred on, by padding and cropping; of images, columns and rows.
    #[schemars(length(min = 2, max = 3))]
    pub canvas: Vec<usize>,
    /// Voxels along x, y, z that are cut from the canvas: at random in training, from the centre otherwise; of images,
    /// columns and rows. Left out, the whole canvas.
    #[serde(default)]
    #[schemars(length(min = 2, max = 3))]
    pub crop: Option<Vec<usize>>,
}

/// Of volumes, where nothing else is said.
const WINDOW_HU: [f32; 2] = [-1000.0, 1000.0];
const PAD_HU: f32 = -1000.0;

/// Grey values from black to white.
const GREY: [f32; 2] = [0.0, 65535.0];

fn scale() -> [f32; 2] {
    [-1.0, 1.0]
}

impl View {
    /// What is wrong with the view, if anything.
    pub(crate) fn problems(&self, sight: Sight) -> Vec<Problem> {
        let at = |name: &'static str, message: String| Problem::at(["with", "view", name], message);
        let mut problems = Vec::new();
        if self.window_hu.is_some_and(|[low, high]| low >= high) {
            problems.push(at("window_hu", "the window's lower end must lie below its upper end".into()));
        }
        if sight == Sight::Images {
            let given = [("window_hu", self.window_hu.is_some()), ("pad_hu", self.pad_hu.is_some())];
            for (name, _) in given.into_iter().filter(|(_, given)| *given) {
                let problem = at(name, "images have grey values, not Hounsfield units".into());
                problems.push(problem.help("images.prepare has chosen their window; take it away"));
            }
        }
        let axes = if sight == Sight::Images { 2 } else { 3 };
        let crop = self.crop.as_deref();
        for (name, size) in [("canvas", Some(&self.canvas[..])), ("crop", crop)] {
            if let Some(size) = size.filter(|size| size.len() != axes) {
                let message = format!("{} numbers, expected {axes}, one for each axis", size.len());
                problems.push(at(name, message));
            }
        }
        if self.canvas.contains(&0) {
            problems.push(at("canvas", "a canvas has at least one voxel along each axis".into()));
        }
        if crop.is_some_and(|crop| crop.iter().zip(&self.canvas).any(|(c, canvas)| *c == 0 || c > canvas)) {
            problems.push(at("crop", "a crop lies inside the canvas along each axis".into()));
        }
        problems
    }

    /// The same view for the learning kernel.
    pub(crate) fn kernel(&self, sight: Sight) -> argent_learn::view::View {
        let size = |axes: &[usize]| [axes[0], axes[1], axes.get(2).copied().unwrap_or(1)];
        let (window, pad) = match sight {
            Sight::Volumes => (self.window_hu.unwrap_or(WINDOW_HU), self.pad_hu.unwrap_or(PAD_HU)),
            Sight::Images => (GREY, GREY[0]),
        };
        argent_learn::view::View {
            window,
            scale: self.scale,
            pad,
            canvas: Some(size(&self.canvas)),
            crop: self.crop.as_deref().map(size),
        }
    }
}
