//! Random variations of training samples, drawn from the seed, the epoch and the sample alone.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How training samples are varied. The default crops at random and does nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Whether crops lie at random in the canvas, where it is larger; else in the centre.
    pub random_crop: bool,
    /// Axes x, y, z along which a sample is mirrored with probability one half.
    pub flip: [bool; 3],
    /// The largest angle of a rotation in the plane of x and y, in degrees; both directions are as likely.
    pub rotate_degrees: f64,
    /// How often a sample is rotated.
    pub rotate_probability: f64,
    /// The smallest and the largest factor by which a sample is magnified about its centre.
    pub zoom: [f64; 2],
    /// How often a sample is magnified.
    pub zoom_probability: f64,
    /// The largest shift of all values, as a share of the span of the view's scale.
    pub brightness: f64,
    /// The largest relative change of the distance of all values from their mean.
    pub contrast: f64,
    /// The standard deviation of noise that is added to each value, as a share of the span of the view's scale.
    pub noise: f64,
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            random_crop: true,
            flip: [false; 3],
            rotate_degrees: 0.0,
            rotate_probability: 1.0,
            zoom: [1.0; 2],
            zoom_probability: 1.0,
            brightness: 0.0,
            contrast: 0.0,
            noise: 0.0,
        }
    }
}

/// What was drawn for one sample, apart from its noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Draw {
    /// The low corner of the crop in the canvas, x, y, z; none: the centre.
    pub(crate) corner: Option<[usize; 3]>,
    mirror: [bool; 3],
    angle: f64,
    zoom: f64,
    shift: f64,
    contrast: f64,
}

impl Augment {
    /// Whether the settings can work.
    ///
    /// # Errors
    /// What cannot.
    pub fn check(&self) -> Result<(), Error> {
        let share = |value: f64| value.is_finite() && (0.0..=1.0).contains(&value);
        let [low, high] = self.zoom;
        let problem = if !(self.rotate_degrees.is_finite() && (0.0..=180.0).contains(&self.rotate_degrees)) {
            format!("samples are rotated by up to {} degrees, expected 0 to 180", self.rotate_degrees)
        } else if ![self.rotate_probability, self.zoom_probability].into_iter().all(share) {
            format!(
                "samples are rotated with probability {} and magnified with {}, expected 0 to 1",
                self.rotate_probability, self.zoom_probability
            )
        } else if !(low.is_finite() && high.is_finite() && 0.1 <= low && low <= high && high <= 10.0) {
            format!(
                "samples are magnified by {low} to {high}, expected factors from 0.1 to 10, the lower first"
            )
        } else if ![self.brightness, self.contrast, self.noise].into_iter().all(share) {
            format!(
                "brightness {}, contrast {} and noise {}, expected 0 to 1",
                self.brightness, self.contrast, self.noise
            )
        } else {
            return Ok(());
        };
        Err(Error::Setting(problem))
    }

    /// Draws for a sample whose crop of `size` may lie anywhere in `canvas`, both x, y, z.
    ///
    /// All draws are made, wanted or not, so that one setting does not shift the random numbers of another.
    pub(crate) fn draw(&self, random: &mut ChaCha8Rng, canvas: [usize; 3], size: [usize; 3]) -> Draw {
        let corner = std::array::from_fn(|axis| {
            random.random_range(0..=canvas[axis].saturating_sub(size[axis]) as u64) as usize
        });
        let mirror = std::array::from_fn(|axis| random.random::<bool>() && self.flip[axis]);
        let mut within = |largest: f64| largest * random.random_range(-1.0..=1.0f64);
        let (angle, shift, contrast) =
            (within(self.rotate_degrees), within(self.brightness), 1.0 + within(self.contrast));
        let zoom = self.zoom[0] + (self.zoom[1] - self.zoom[0]) * random.random::<f64>();
        let rotates = random.random::<f64>() < self.rotate_probability;
        let zooms = random.random::<f64>() < self.zoom_probability;
        Draw {
            corner: self.random_crop.then_some(corner),
            mirror,
            angle: if rotates { angle.to_radians() } else { 0.0 },
            zoom: if zooms { zoom } else { 1.0 },
            shift,
            contrast,
        }
    }

    /// Varies the values `(D, H, W)` of a sample. What comes from outside it is `outside`, and `span` is the length of
    /// the view's scale.
    pub(crate) fn apply(
        &self,
        draw: &Draw,
        values: &mut Vec<f32>,
        shape: [usize; 3],
        outside: f32,
        span: f64,
        random: &mut ChaCha8Rng,
    ) {
        if draw.angle != 0.0 || draw.zoom != 1.0 {
            *values = turned(values, shape, draw.angle, draw.zoom, outside);
        }
        mirror(values, shape, draw.mirror);
        if self.brightness > 0.0 || self.contrast > 0.0 {
            let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64;
            let (factor, offset) = (draw.contrast, draw.shift * span);
            for value in values.iter_mut() {
                *value = ((f64::from(*value) - mean) * factor + mean + offset) as f32;
            }
        }
        if self.noise > 0.0 {
            let deviation = self.noise * span;
            for value in values.iter_mut() {
                *value += (random.sample::<f64, _>(StandardNormal) * deviation) as f32;
            }
        }
    }
}

/// The values rotated by `angle` (radians, from the x axis towards the y axis) and magnified by `zoom` about the
/// centre, on the same grid, with linear interpolation.
fn turned(values: &[f32], shape: [usize; 3], angle: f64, zoom: f64, outside: f32) -> Vec<f32> {
    let [depth, height, width] = shape;
    let centre = shape.map(|size| (size as f64 - 1.0) / 2.0);
    let (sine, cosine) = (angle.sin() / zoom, angle.cos() / zoom);
    // One slice has nothing beside it to come nearer.
    let along_depth = if depth == 1 { 1.0 } else { 1.0 / zoom };
    let mut turned = Vec::with_capacity(values.len());
    for z in 0..depth {
        let from_z = centre[0] + (z as f64 - centre[0]) * along_depth;
        for y in 0..height {
            let dy = y as f64 - centre[1];
            for x in 0..width {
                let dx = x as f64 - centre[2];
                let from = [from_z, centre[1] - sine * dx + cosine * dy, centre[2] + cosine * dx + sine * dy];
                turned.push(interpolated(values, shape, from, outside));
            }
        }
    }
    turned
}

/// The value at a position between voxels.
fn interpolated(values: &[f32], shape: [usize; 3], position: [f64; 3], outside: f32) -> f32 {
    let low = position.map(f64::floor);
    let share: [f64; 3] = std::array::from_fn(|axis| position[axis] - low[axis]);
    let mut sum = 0.0;
    for corner in 0..8usize {
        let step = [corner >> 2 & 1, corner >> 1 & 1, corner & 1];
        let weight: f64 = (0..3).map(|a| if step[a] == 1 { share[a] } else { 1.0 - share[a] }).product();
        if weight == 0.0 {
            continue;
        }
        let at: [f64; 3] = std::array::from_fn(|axis| low[axis] + step[axis] as f64);
        let inside = (0..3).all(|axis| at[axis] >= 0.0 && at[axis] < shape[axis] as f64);
        let value = match inside {
            true => {
                let [z, y, x] = at.map(|position| position as usize);
                values[(z * shape[1] + y) * shape[2] + x]
            }
            false => outside,
        };
        sum += weight * f64::from(value);
    }
    sum as f32
}

/// Mirrors `(D, H, W)` values along the chosen axes x, y, z.
fn mirror(values: &mut [f32], [_, height, width]: [usize; 3], [x, y, z]: [bool; 3]) {
    if x {
        values.chunks_exact_mut(width).for_each(<[f32]>::reverse);
    }
    if y {
        values.chunks_exact_mut(height * width).for_each(|plane| reverse_blocks(plane, width));
    }
    if z {
        reverse_blocks(values, height * width);
    }
}

/// Reverses the order of the blocks of `size` values, each kept as it is.
fn reverse_blocks(values: &mut [f32], size: usize) {
    let count = values.len() / size;
    for block in 0..count / 2 {
        let (low, high) = values.split_at_mut((count - 1 - block) * size);
        low[block * size..][..size].swap_with_slice(&mut high[..size]);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn mirrors_along_each_axis() {
        let values: Vec<f32> = (0..12).map(|value| value as f32).collect();
        let mirrored = |axes| {
            let mut values = values.clone();
            mirror(&mut values, [2, 3, 2], axes);
            values
        };
        assert_eq!(mirrored([true, false, false])[..6], [1., 0., 3., 2., 5., 4.]);
        assert_eq!(mirrored([false, true, false])[..6], [4., 5., 2., 3., 0., 1.]);
        assert_eq!(mirrored([false, false, true])[..6], [6., 7., 8., 9., 10., 11.]);
    }

    #[test]
    fn a_quarter_turn_moves_each_pixel_to_its_place() {
        // From the x axis towards the y axis: what was right of the centre is below it.
        let image = [0., 1., 2., 3., 4., 5., 6., 7., 8.];
        let turned = turned(&image, [1, 3, 3], std::f64::consts::FRAC_PI_2, 1.0, -1.0);
        let expected = [6., 3., 0., 7., 4., 1., 8., 5., 2.];
        for (value, expected) in turned.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-5, "{turned:?}");
        }
    }

    #[test]
    fn magnified_about_the_centre_and_filled_from_outside() {
        let line = [0., 1., 2., 3., 4.];
        assert_eq!(turned(&line, [1, 1, 5], 0.0, 2.0, -1.0), [1.0, 1.5, 2.0, 2.5, 3.0]);
        assert_eq!(turned(&line, [1, 1, 5], 0.0, 0.5, -1.0), [-1.0, 0.0, 2.0, 4.0, -1.0]);
        // Slices come nearer too, where there are several.
        assert_eq!(turned(&line, [5, 1, 1], 0.0, 2.0, -1.0), [1.0, 1.5, 2.0, 2.5, 3.0]);
    }

    #[test]
    fn a_setting_does_not_shift_the_draws_of_another() {
        let draw = |augment: &Augment| augment.draw(&mut ChaCha8Rng::seed_from_u64(3), [9, 9, 9], [5, 5, 5]);
        let plain = draw(&Augment::default());
        let all = Augment { rotate_degrees: 15.0, zoom: [1.0, 1.3], contrast: 0.2, ..Augment::default() };
        let varied = draw(&all);
        assert_eq!((varied.corner, varied.mirror), (plain.corner, plain.mirror));
        assert_eq!(varied.angle, draw(&Augment { rotate_degrees: 15.0, ..Augment::default() }).angle);
        assert!(varied.angle.abs() <= 15f64.to_radians() && (1.0..=1.3).contains(&varied.zoom));
        assert_eq!((plain.angle, plain.zoom, plain.shift, plain.contrast), (0.0, 1.0, 0.0, 1.0));
    }

    #[test]
    fn brightness_contrast_and_noise() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let augment = Augment { brightness: 0.5, contrast: 0.5, ..Augment::default() };
        let plain = Augment::default().draw(&mut random, [2, 1, 1], [2, 1, 1]);
        let mut values = vec![1.0, 3.0];
        let draw = Draw { shift: 0.25, contrast: 0.5, mirror: [false; 3], ..plain };
        augment.apply(&draw, &mut values, [1, 1, 2], 0.0, 2.0, &mut random);
        assert_eq!(values, [2.0, 3.0]);
        let noisy = Augment { noise: 0.1, ..Augment::default() };
        let mut values = vec![0.0; 10_000];
        noisy.apply(&plain, &mut values, [1, 100, 100], 0.0, 2.0, &mut random);
        let variance = values.iter().map(|value| f64::from(value * value)).sum::<f64>() / 1e4;
        // The sample variance of ten thousand draws scatters by 1.4 %.
        assert!((variance.sqrt() - 0.2).abs() < 0.01, "{variance}");
    }

    #[test]
    fn settings_that_cannot_work() {
        let check = |augment: Augment| augment.check().unwrap_err().to_string();
        assert!(Augment::default().check().is_ok());
        let wrong = Augment { zoom: [1.3, 1.0], ..Augment::default() };
        assert_eq!(
            check(wrong),
            "samples are magnified by 1.3 to 1, expected factors from 0.1 to 10, the lower first"
        );
        assert!(check(Augment { rotate_degrees: 200.0, ..Augment::default() }).contains("200 degrees"));
        assert!(check(Augment { noise: -0.1, ..Augment::default() }).contains("noise -0.1"));
    }
}
