//! Slices through a volume in the three planes of the body, as radiologists look at them: the patient's right at the
//! image's left, seen from the feet and from the front; in sagittal planes the front at the left.

use super::canvas::{Edge, Sheet};
use super::{CenterWidth, rounded};
use crate::image::resize::{Source, resize};
use crate::orientation::{Orientation, orient};
use crate::volume::Volume;

/// A plane of the body, by the axes of a volume in LPS order.
struct Plane {
    name: &'static str,
    /// The axis that runs to the right in the picture, the one that runs down, and the one through the slices.
    axes: [usize; 3],
    /// Whether the picture's top is the far end of its axis.
    is_upside_down: bool,
    /// Letters at the left, the right, the top and the bottom.
    letters: [&'static str; 4],
    /// Where the slices run to, and where from.
    positions: [&'static str; 2],
}

/// In LPS, columns run to the patient's left, rows to the back, and slices to the head.
const PLANES: [Plane; 3] = [
    Plane {
        name: "axial",
        axes: [0, 1, 2],
        is_upside_down: false,
        letters: ["R", "L", "A", "P"],
        positions: ["S", "I"],
    },
    Plane {
        name: "coronal",
        axes: [0, 2, 1],
        is_upside_down: true,
        letters: ["R", "L", "S", "I"],
        positions: ["P", "A"],
    },
    Plane {
        name: "sagittal",
        axes: [1, 2, 0],
        is_upside_down: true,
        letters: ["A", "P", "S", "I"],
        positions: ["L", "R"],
    },
];

/// Pixels of the longest side of the body in a picture.
const LONGEST: usize = 230;

/// A volume under its caption: some slices of each plane, once for each window, windows beside each other.
///
/// All slices have one scale, that of the volume's spacing, so that proportions are those of the body. A slice says where
/// it lies in mm, from the origin of the volume's world to the patient's Left or Right, Anterior or Posterior, Superior
/// or Inferior. A volume whose axes are oblique is drawn along them, under the letters that are nearest.
pub fn slices(volume: &Volume, caption: &str, windows: &[CenterWidth], count: usize) -> Sheet {
    let drawing = Drawing::of(volume, LONGEST);
    let half = |window: &CenterWidth| {
        let row = |plane: &Plane| {
            let depth = drawing.volume.geometry.shape[plane.axes[2]];
            let at = |number: usize| (2 * number + 1) * depth / (2 * count);
            // The first slice is at the head, at the front, or at the patient's right.
            let order = |number: usize| if plane.axes[2] == 2 { count - 1 - number } else { number };
            let pictures = (0..count).map(|number| drawing.picture(plane, at(order(number)), *window));
            Sheet::beside(pictures.collect())
        };
        let title = Sheet::text(&format!("window {window} HU"));
        Sheet::below(std::iter::once(title).chain(PLANES.iter().map(row)).collect())
    };
    let halves = Sheet::beside(windows.iter().map(half).collect());
    halves.captioned(&[caption, &drawing.told])
}

/// A volume in one row under its caption: the middle slice of each plane, once for each window.
pub fn strip(volume: &Volume, caption: &str, windows: &[CenterWidth]) -> Sheet {
    let drawing = Drawing::of(volume, LONGEST);
    let middle = |plane: &Plane, window: CenterWidth| {
        drawing.picture(plane, drawing.volume.geometry.shape[plane.axes[2]] / 2, window)
    };
    let pictures = windows.iter().flat_map(|window| PLANES.iter().map(|plane| middle(plane, *window)));
    let names: Vec<String> = windows.iter().map(|window| format!("{window} HU")).collect();
    let told = format!("{}; windows {}", drawing.told, names.join(" and "));
    Sheet::beside(pictures.collect()).captioned(&[caption, &told])
}

/// A volume that is being drawn.
struct Drawing {
    /// In LPS order.
    volume: Volume,
    mm_per_pixel: f64,
    /// Its size, spacing and orientation as it came.
    told: String,
}

impl Drawing {
    fn of(volume: &Volume, longest: usize) -> Drawing {
        let ([nx, ny, nz], spacing_mm) = (volume.geometry.shape, volume.geometry.spacing_mm());
        let [dx, dy, dz] = spacing_mm.map(rounded);
        let tilted = if volume.geometry.sheared() { ", tilted slices drawn upright" } else { "" };
        let orientation = volume.geometry.orientation();
        let told = format!("{nx} x {ny} x {nz} voxels of {dx} x {dy} x {dz} mm, {orientation}{tilted}");
        let volume = orient(volume, Orientation::LPS);
        let mm_per_pixel = extent_mm(&volume).into_iter().fold(0.0, f64::max) / longest as f64;
        Drawing { volume, mm_per_pixel, told }
    }

    /// One slice with its letters.
    fn picture(&self, plane: &Plane, slice: usize, window: CenterWidth) -> Sheet {
        let [across, down, through] = plane.axes;
        let shape = self.volume.geometry.shape;
        let stride = [1, shape[0], shape[0] * shape[1]];
        let mut values = Vec::with_capacity(shape[across] * shape[down]);
        for row in 0..shape[down] {
            let row = if plane.is_upside_down { shape[down] - 1 - row } else { row };
            let start = slice * stride[through] + row * stride[down];
            values.extend((0..shape[across]).map(|column| {
                // Values from -32768 on become values from 0 on.
                self.volume.hounsfield[start + column * stride[across]] as u16 ^ 0x8000
            }));
        }
        let extent = extent_mm(&self.volume);
        let pixels = |axis: usize| ((extent[axis] / self.mm_per_pixel).round() as usize).max(1);
        let size = [pixels(across), pixels(down)];
        let [low, high] = window.ends();
        let shades: Vec<f32> = (i16::MIN..=i16::MAX)
            .map(|hu| (255.0 * ((f64::from(hu) - low) / (high - low)).clamp(0.0, 1.0)) as f32)
            .collect();
        let source = Source {
            pixels: &values,
            stride: shape[across],
            start: [0, 0],
            size: [shape[across], shape[down]],
            values: &shades,
        };
        let shades = resize(&source, size).into_iter().map(|shade| shade.round() as u8).collect();
        let mut picture = Sheet::of(size[0], size[1], shades);
        let [left, right, top, bottom] = plane.letters;
        for (letter, edge) in
            [(left, Edge::Left), (right, Edge::Right), (top, Edge::Top), (bottom, Edge::Bottom)]
        {
            picture.mark(letter, edge);
        }
        picture.mark(&self.position(plane, slice), Edge::BottomLeft);
        picture.mark(plane.name, Edge::TopLeft);
        picture.draw_scale(self.mm_per_pixel);
        picture
    }

    /// Where a slice lies, such as `S 12`: its middle, in mm from the world's origin.
    fn position(&self, plane: &Plane, slice: usize) -> String {
        let geometry = &self.volume.geometry;
        let mut index = geometry.shape.map(|voxels| (voxels as f64 - 1.0) / 2.0);
        index[plane.axes[2]] = slice as f64;
        let ras = geometry.index_to_world(index)[plane.axes[2]];
        // World coordinates run to the right, the front and the head; LPS runs the other way along two axes.
        let along = if plane.axes[2] == 2 { ras } else { -ras };
        let [to, from] = plane.positions;
        format!("{} {:.0}", if along >= 0.0 { to } else { from }, along.abs())
    }
}

fn extent_mm(volume: &Volume) -> [f64; 3] {
    let spacing_mm = volume.geometry.spacing_mm();
    std::array::from_fn(|axis| volume.geometry.shape[axis] as f64 * spacing_mm[axis])
}
