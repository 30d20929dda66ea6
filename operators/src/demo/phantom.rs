//! Draws a made-up scan as a small CT volume: a body, its organs and the findings, in Hounsfield units.
//!
//! A phantom, not a simulation: shapes of ordinary size and attenuation with soft edges and white noise. The body
//! depends on the patient, its posture on the scan, and the grid and noise on the reconstruction, so that both
//! reconstructions of a scan show the same body.
//!
//! World coordinates are NIfTI's: millimetres to the right, to the front and to the head (RAS+), with the origin
//! in the middle of the chest. Only additions, multiplications, divisions and square roots are used, which IEEE
//! 754 rounds alike on every machine: the same arguments give the same bytes.

mod anatomy;
mod lesions;
mod shapes;

use rand::Rng;

use self::anatomy::Anatomy;
use self::shapes::{Over, Solid};
use super::cohort::{Reconstruction, Scan, stream};

/// A drawn volume.
#[derive(Debug, Clone, PartialEq)]
pub struct Phantom {
    /// Voxels along each axis, fastest first.
    pub shape: [usize; 3],
    /// From voxel indices (of voxel centres) to RAS+ world coordinates in mm, by rows.
    pub affine: [[f64; 4]; 4],
    /// Attenuation in HU, first axis fastest, within the 12 bits from -1024 to 3071 that scanners store.
    pub hounsfield: Vec<i16>,
}

/// Draws `reconstruction` of `scan`. The same `seed` as the cohort's is usual, though any will do.
pub fn draw(scan: &Scan, reconstruction: &Reconstruction, seed: u64) -> Phantom {
    let anatomy = Anatomy::of(scan, seed);
    let grid = Grid::of(reconstruction, anatomy.field_centre_mm);
    let mut hounsfield = grid.tissue(&anatomy);
    for solid in anatomy.organs().iter().chain(&lesions::solids(scan, &anatomy, seed)) {
        grid.paint(solid, &mut hounsfield);
    }
    let mut rng = stream(seed, &format!("{}/noise", reconstruction.id));
    let noise_hu = reconstruction.kernel.noise_hu();
    Phantom {
        shape: grid.shape,
        affine: grid.affine(),
        hounsfield: hounsfield.iter().map(|hu| stored(hu + noise_hu * standard_normal(&mut rng))).collect(),
    }
}

/// A voxel grid whose axes run along the world's.
struct Grid {
    shape: [usize; 3],
    /// World coordinates of the centre of voxel (0, 0, 0), in mm.
    origin_mm: [f64; 3],
    /// For each voxel axis the world axis that it runs along.
    world: [usize; 3],
    /// The signed step along that world axis, in mm.
    step_mm: [f64; 3],
}

impl Grid {
    fn of(reconstruction: &Reconstruction, centre_mm: [f64; 3]) -> Self {
        let Reconstruction { shape, spacing_mm, orientation, .. } = reconstruction;
        let axes = orientation.axes();
        let step_mm = [0, 1, 2].map(|axis| axes[axis].1 * spacing_mm[axis]);
        let mut origin_mm = centre_mm;
        for axis in 0..3 {
            origin_mm[axes[axis].0] -= step_mm[axis] * (shape[axis] as f64 - 1.0) / 2.0;
        }
        Grid { shape: *shape, origin_mm, world: axes.map(|(world, _)| world), step_mm }
    }

    fn affine(&self) -> [[f64; 4]; 4] {
        let mut affine = [[0.0; 4]; 4];
        for axis in 0..3 {
            affine[self.world[axis]][axis] = self.step_mm[axis];
            affine[axis][3] = self.origin_mm[axis];
        }
        affine[3][3] = 1.0;
        affine
    }

    /// The world coordinate along voxel axis `axis` at voxel `index`.
    fn coordinate_mm(&self, axis: usize, index: usize) -> f64 {
        self.origin_mm[self.world[axis]] + self.step_mm[axis] * index as f64
    }

    /// The body without its solids, in HU, one value for each voxel.
    fn tissue(&self, anatomy: &Anatomy) -> Vec<f64> {
        // Edges as wide as a voxel stand for the partial volume effect.
        let edge_mm = self.step_mm.iter().map(|step| step.abs()).sum::<f64>() / 3.0;
        let mut hounsfield = Vec::with_capacity(self.shape.iter().product());
        let mut point = [0.0; 3];
        for k in 0..self.shape[2] {
            point[self.world[2]] = self.coordinate_mm(2, k);
            for j in 0..self.shape[1] {
                point[self.world[1]] = self.coordinate_mm(1, j);
                for i in 0..self.shape[0] {
                    point[self.world[0]] = self.coordinate_mm(0, i);
                    hounsfield.push(anatomy.tissue_hu(point, edge_mm));
                }
            }
        }
        hounsfield
    }

    /// Mixes a solid into the voxels that it touches, by the share of the voxel that it fills.
    fn paint(&self, solid: &Solid, hounsfield: &mut [f64]) {
        let half_diagonal_mm = self.step_mm.iter().map(|step| step * step).sum::<f64>().sqrt() / 2.0;
        let [i_range, j_range, k_range] = self.touched(solid);
        let mut point = [0.0; 3];
        for k in k_range {
            point[self.world[2]] = self.coordinate_mm(2, k);
            for j in j_range.clone() {
                point[self.world[1]] = self.coordinate_mm(1, j);
                for i in i_range.clone() {
                    point[self.world[0]] = self.coordinate_mm(0, i);
                    let voxel = &mut hounsfield[i + self.shape[0] * (j + self.shape[1] * k)];
                    if solid.over == Over::Air && *voxel > AIRY_HU {
                        continue;
                    }
                    let distance_mm = solid.shape.distance_mm(point);
                    if distance_mm < half_diagonal_mm {
                        let share =
                            if distance_mm < -half_diagonal_mm { 1.0 } else { self.filled(solid, point) };
                        *voxel += share * (solid.hounsfield - *voxel);
                    }
                }
            }
        }
    }

    /// The voxel indices along each axis that the bounding box of a solid touches.
    fn touched(&self, solid: &Solid) -> [std::ops::Range<usize>; 3] {
        let [low_mm, high_mm] = solid.shape.bounds_mm();
        std::array::from_fn(|axis| {
            let world = self.world[axis];
            let at = |mm: f64| (mm - self.origin_mm[world]) / self.step_mm[axis];
            let (first, last) = (at(low_mm[world]), at(high_mm[world]));
            // Float to integer casts saturate, so a box outside the grid gives an empty range.
            let start = (first.min(last) - 1.0).ceil() as usize;
            let end = ((first.max(last) + 1.0).floor() + 1.0) as usize;
            start..end.min(self.shape[axis])
        })
    }

    /// The share of the voxel at `centre` that `solid` fills, from the middles of its eight octants.
    fn filled(&self, solid: &Solid, centre: [f64; 3]) -> f64 {
        let mut quarter_mm = [0.0; 3];
        for axis in 0..3 {
            quarter_mm[self.world[axis]] = self.step_mm[axis] / 4.0;
        }
        let middle = |octant: u8| {
            [0, 1, 2].map(|axis| {
                let forward = octant >> axis & 1 == 1;
                centre[axis] + if forward { quarter_mm[axis] } else { -quarter_mm[axis] }
            })
        };
        let inside = (0..8).filter(|&octant| solid.shape.distance_mm(middle(octant)) < 0.0).count();
        inside as f64 / 8.0
    }
}

/// What is below this is mostly air: lung, bowel gas or room.
const AIRY_HU: f64 = -400.0;

/// The number that a scanner stores for `hu`.
fn stored(hu: f64) -> i16 {
    hu.round().clamp(-1024.0, 3071.0) as i16
}

/// Nearly a standard normal number: four uniform ones added up (Irwin-Hall), which needs no logarithm and so is
/// the same on every machine. Its tails end at 3.5 standard deviations.
fn standard_normal(rng: &mut impl Rng) -> f64 {
    let bits: u64 = rng.random();
    let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xffff).sum();
    // A uniform 16-bit number u has mean 65535 / 2 and variance (65536² - 1) / 12.
    (sum as f64 - 2.0 * 65535.0) / 37837.0
}
