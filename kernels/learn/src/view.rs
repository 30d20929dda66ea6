//! From voxels to network input: canvas, crop, window, scale.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How a volume or an image is shown to a network. Cheap to change and never baked into stored volumes; it travels in
/// the weights.
///
/// The steps are: pad or crop about the centre to `canvas`, crop, clip to the window, scale linearly. Sizes are in
/// voxels along x, y, z; an image has one slice. Values are Hounsfield units, or grey values from 0 (black) to 65535.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct View {
    /// Lowest and highest value; those outside are clipped.
    pub window: [f32; 2],
    /// What the two ends of the window become.
    pub scale: [f32; 2],
    /// The value outside the volume or image.
    pub pad: f32,
    /// Size to pad or crop to about the centre; none keeps the volume's own.
    pub canvas: Option<[usize; 3]>,
    /// Size of the crop out of the canvas; none takes all of it.
    pub crop: Option<[usize; 3]>,
}

impl Default for View {
    /// Window -1000 to 200 HU onto -1 to 1, padded with air, without canvas or crop.
    fn default() -> Self {
        Self { window: [-1000.0, 200.0], scale: [-1.0, 1.0], pad: -1000.0, canvas: None, crop: None }
    }
}

/// Where a crop lies in its canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crop {
    /// In the middle; an odd voxel remains at the high end.
    Centre,
    /// With its low corner at this voxel x, y, z of the canvas, moved inward as far as needed to fit. Along an axis
    /// where the canvas is not larger than the crop, the crop is centred.
    At([usize; 3]),
}

impl View {
    /// Network input from a volume: values `(D, H, W)` with D, H, W = z, y, x, and their shape.
    ///
    /// `voxels` holds the volume x fastest and `shape` its size in voxels x, y, z. Where volume and canvas, or
    /// canvas and crop, differ by an odd number, the odd voxel is lost or added at the high end. What lies outside
    /// the volume is `pad`, which is clipped and scaled like every other value. With the window `[l, h]` and the
    /// scale `[a, b]` a value v becomes `a + (clip(v, l, h) - l) (b - a) / (h - l)`.
    ///
    /// # Panics
    /// If `voxels` does not hold the number of voxels that `shape` says.
    pub fn apply<T: Copy + Into<f32>>(
        &self,
        voxels: &[T],
        shape: [usize; 3],
        crop: Crop,
    ) -> (Vec<f32>, [usize; 3]) {
        let [width, height, depth] = shape;
        assert_eq!(
            voxels.len(),
            width * height * depth,
            "the number of voxels differs from the shape {shape:?}"
        );
        let size = self.crop_size(shape);
        let start: [isize; 3] = std::array::from_fn(|axis| self.start(axis, shape[axis], size[axis], crop));
        let mut values = vec![self.scaled(self.pad); size.iter().product()];
        let x = overlap(start[0], size[0], width);
        if !x.is_empty() {
            for (line, values) in values.chunks_exact_mut(size[0]).enumerate() {
                let (y, z) = (line % size[1], line / size[1]);
                let (Some(y), Some(z)) = (inside(start[1], y, height), inside(start[2], z, depth)) else {
                    continue;
                };
                let line = &voxels[(z * height + y) * width..][..width];
                let source = &line[(start[0] + x.start as isize) as usize..][..x.len()];
                for (value, &voxel) in values[x.clone()].iter_mut().zip(source) {
                    *value = self.scaled(voxel.into());
                }
            }
        }
        (values, [size[2], size[1], size[0]])
    }

    /// Whether the settings can work.
    ///
    /// # Errors
    /// If the window is empty, a number is not finite, a size is zero, or the crop is larger than the canvas.
    pub fn check(&self) -> Result<(), Error> {
        let [low, high] = self.window;
        let numbers = [low, high, self.scale[0], self.scale[1], self.pad];
        let problem = if !numbers.iter().all(|number| number.is_finite()) {
            format!("the view has {numbers:?} for window, scale and padding, expected finite numbers")
        } else if low >= high {
            format!("the window is {low} to {high}, expected the lower end first")
        } else if self.scale[0] == self.scale[1] {
            format!("the scale is {} at both ends, expected two values", self.scale[0])
        } else if self.canvas.iter().chain(&self.crop).flatten().any(|&size| size == 0) {
            format!("the canvas is {:?} and the crop {:?}, expected sizes above zero", self.canvas, self.crop)
        } else if let (Some(canvas), Some(crop)) = (self.canvas, self.crop)
            && (0..3).any(|axis| crop[axis] > canvas[axis])
        {
            format!("the crop {crop:?} is larger than the canvas {canvas:?}, expected it to fit inside")
        } else {
            return Ok(());
        };
        Err(Error::Setting(problem))
    }

    /// Size of the canvas for a volume of `shape`, x, y, z.
    pub(crate) fn canvas_size(&self, shape: [usize; 3]) -> [usize; 3] {
        self.canvas.unwrap_or(shape)
    }

    /// Size of the crop for a volume of `shape`, x, y, z.
    pub(crate) fn crop_size(&self, shape: [usize; 3]) -> [usize; 3] {
        self.crop.unwrap_or(self.canvas_size(shape))
    }

    /// Where the crop starts in the volume along one axis; negative in the padding.
    fn start(&self, axis: usize, volume: usize, size: usize, crop: Crop) -> isize {
        let canvas = self.canvas.map_or(volume, |canvas| canvas[axis]);
        let in_canvas = match crop {
            Crop::At(corner) if canvas > size => corner[axis].min(canvas - size) as isize,
            _ => centred(canvas, size),
        };
        centred(volume, canvas) + in_canvas
    }

    /// What the network sees outside the volume.
    pub(crate) fn outside(&self) -> f32 {
        self.scaled(self.pad)
    }

    fn scaled(&self, value: f32) -> f32 {
        let ([low, high], [from, to]) = (self.window, self.scale);
        from + (value.clamp(low, high) - low) * ((to - from) / (high - low))
    }
}

/// Where a centred part of `inner` voxels starts in `outer`; negative where it is larger.
fn centred(outer: usize, inner: usize) -> isize {
    if outer >= inner { ((outer - inner) / 2) as isize } else { -(((inner - outer) / 2) as isize) }
}

/// The positions of a crop that lie inside a volume of `volume` voxels.
fn overlap(start: isize, size: usize, volume: usize) -> std::ops::Range<usize> {
    let first = (-start).clamp(0, size as isize) as usize;
    let end = (volume as isize - start).clamp(first as isize, size as isize) as usize;
    first..end
}

/// The voxel of the volume at a position of the crop, if there is one.
fn inside(start: isize, position: usize, volume: usize) -> Option<usize> {
    usize::try_from(start + position as isize).ok().filter(|&voxel| voxel < volume)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A volume whose voxel x, y, z holds 100 z + 10 y + x.
    fn counted([nx, ny, nz]: [usize; 3]) -> Vec<i16> {
        let voxel = |i: usize| (100 * (i / (nx * ny)) + 10 * (i / nx % ny) + i % nx) as i16;
        (0..nx * ny * nz).map(voxel).collect()
    }

    fn identity() -> View {
        View { window: [-2000.0, 2000.0], scale: [-2000.0, 2000.0], pad: -1.0, canvas: None, crop: None }
    }

    #[test]
    fn window_and_scale() {
        let view = View::default();
        let (values, shape) = view.apply(&[-2000i16, -1000, -400, 200, 3000], [5, 1, 1], Crop::Centre);
        // (hu + 400) / 600 within the window -1000 to 200, the form published for chest CT.
        assert_eq!(values, [-1.0, -1.0, 0.0, 1.0, 1.0]);
        assert_eq!(shape, [1, 1, 5]);
    }

    #[test]
    fn pads_and_crops_about_the_centre() {
        let volume = counted([5, 2, 3]);
        // x: 5 to 2 drops one voxel low and two high; y: 2 to 5 adds one low and two high; z stays.
        let view = View { canvas: Some([2, 5, 3]), ..identity() };
        let (values, shape) = view.apply(&volume, [5, 2, 3], Crop::Centre);
        assert_eq!(shape, [3, 5, 2]);
        let plane = |z: f32| [-1., -1., z + 1., z + 2., z + 11., z + 12., -1., -1., -1., -1.];
        assert_eq!(values, [plane(0.0), plane(100.0), plane(200.0)].concat());
    }

    #[test]
    fn crops_at_a_corner_of_the_canvas() {
        let volume = counted([4, 4, 4]);
        let view = View { canvas: Some([6, 4, 2]), crop: Some([2, 2, 2]), ..identity() };
        // The canvas starts at x = -1, y = 0, z = 1 of the volume; z cannot move, x is clamped to 4.
        let (values, shape) = view.apply(&volume, [4, 4, 4], Crop::At([9, 1, 0]));
        assert_eq!(shape, [2, 2, 2]);
        assert_eq!(values, [113., -1., 123., -1., 213., -1., 223., -1.]);
        let (values, _) = view.apply(&volume, [4, 4, 4], Crop::Centre);
        assert_eq!(values, [111., 112., 121., 122., 211., 212., 221., 222.]);
    }

    #[test]
    fn a_crop_larger_than_the_volume_is_padded() {
        let view = View { crop: Some([3, 1, 4]), ..identity() };
        let (values, shape) = view.apply(&counted([1, 1, 2]), [1, 1, 2], Crop::At([5, 5, 5]));
        assert_eq!(shape, [4, 1, 3]);
        assert_eq!(values, [-1., -1., -1., -1., 0., -1., -1., 100., -1., -1., -1., -1.]);
    }

    #[test]
    fn settings_that_cannot_work() {
        let check = |view: View| view.check().unwrap_err().to_string();
        assert!(View::default().check().is_ok());
        assert_eq!(
            check(View { window: [200.0, -1000.0], ..View::default() }),
            "the window is 200 to -1000, expected the lower end first"
        );
        assert_eq!(
            check(View { canvas: Some([8, 8, 8]), crop: Some([8, 9, 8]), ..View::default() }),
            "the crop [8, 9, 8] is larger than the canvas [8, 8, 8], expected it to fit inside"
        );
        assert!(check(View { crop: Some([0, 1, 1]), ..View::default() }).contains("above zero"));
        assert!(check(View { pad: f32::NAN, ..View::default() }).contains("finite"));
        assert!(check(View { scale: [1.0, 1.0], ..View::default() }).contains("two values"));
    }
}
