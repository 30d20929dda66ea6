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
use self::shapes::{Region, Solid};
use super::cohort::{Reconstruction, Scan, stream};

/// A drawn volume.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Phantom {
    /// Voxels along each axis, fastest first.
    pub(super) shape: [usize; 3],
    /// From voxel indices (of voxel centres) to RAS+ world coordinates in mm, by rows.
    pub(super) affine: [[f64; 4]; 4],
    /// Attenuation in HU, first axis fastest, within the 12 bits from -1024 to 3071 that scanners store.
    pub(super) hounsfield: Vec<i16>,
}

/// Draws `reconstruction` of `scan`. The same `seed` as the cohort's is usual, though any will do.
pub(super) fn draw(scan: &Scan, reconstruction: &Reconstruction, seed: u64) -> Phantom {
    let anatomy = Anatomy::of(scan, seed);
    let grid = Grid::of(reconstruction, anatomy.field_centre_mm);
    let mut hounsfield = grid.tissue(&anatomy);
    let mut regions = grid.regions(&anatomy, &hounsfield);
    for organ in anatomy.organs() {
        grid.paint(&organ, &regions, &mut hounsfield);
    }
    // Lung that an organ has taken is lung no more. The findings overlap each other, so they see the lung as it
    // is now: else a voxel half filled by one would be closed to the next.
    for (region, hu) in regions.iter_mut().zip(&hounsfield) {
        if *hu > AIRY_HU {
            *region = Region::Tissue;
        }
    }
    for lesion in lesions::solids(scan, &anatomy, seed) {
        grid.paint(&lesion, &regions, &mut hounsfield);
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

    /// Where each voxel is, by its attenuation and its place.
    fn regions(&self, anatomy: &Anatomy, hounsfield: &[f64]) -> Vec<Region> {
        let [width, height, _] = self.shape;
        let region = |(voxel, &hu): (usize, &f64)| {
            if hu > AIRY_HU {
                return Region::Tissue;
            }
            let index = [voxel % width, voxel / width % height, voxel / (width * height)];
            let mut point = [0.0; 3];
            for axis in 0..3 {
                point[self.world[axis]] = self.coordinate_mm(axis, index[axis]);
            }
            if anatomy.is_in_cavity(point) { Region::Lung } else { Region::Room }
        };
        hounsfield.iter().enumerate().map(region).collect()
    }

    /// Mixes a solid into the voxels that it touches and may replace, by the share of the voxel that it fills.
    fn paint(&self, solid: &Solid, regions: &[Region], hounsfield: &mut [f64]) {
        let half_diagonal_mm = self.step_mm.iter().map(|step| step * step).sum::<f64>().sqrt() / 2.0;
        let [i_range, j_range, k_range] = self.touched(solid);
        let mut point = [0.0; 3];
        for k in k_range {
            point[self.world[2]] = self.coordinate_mm(2, k);
            for j in j_range.clone() {
                point[self.world[1]] = self.coordinate_mm(1, j);
                for i in i_range.clone() {
                    point[self.world[0]] = self.coordinate_mm(0, i);
                    let voxel = i + self.shape[0] * (j + self.shape[1] * k);
                    if solid.only_in.is_some_and(|region| region != regions[voxel]) {
                        continue;
                    }
                    let distance_mm = solid.shape.distance_mm(point);
                    if distance_mm < half_diagonal_mm {
                        let share =
                            if distance_mm < -half_diagonal_mm { 1.0 } else { self.filled(solid, point) };
                        hounsfield[voxel] += share * (solid.hounsfield - hounsfield[voxel]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::cohort::{Finding, Kernel, Orientation, scans};

    #[test]
    fn a_volume_is_a_function_of_its_arguments() {
        let scan = &scans(1, 7)[0];
        let volume = draw(scan, &scan.reconstructions[0], 7);
        assert_eq!(volume, draw(scan, &scan.reconstructions[0], 7));
        assert_ne!(volume.hounsfield, draw(scan, &scan.reconstructions[0], 8).hounsfield);
    }

    #[test]
    fn the_affine_has_the_spacing_the_axes_and_a_centre_in_the_chest() {
        for scan in scans(4, 3) {
            for reconstruction in &scan.reconstructions {
                let Phantom { shape, affine, hounsfield } = draw(&scan, reconstruction, 3);
                assert_eq!(shape, reconstruction.shape);
                assert_eq!(hounsfield.len(), shape.iter().product::<usize>());
                for (axis, (world, sign)) in reconstruction.orientation.axes().into_iter().enumerate() {
                    let column = [affine[0][axis], affine[1][axis], affine[2][axis]];
                    let mut expected = [0.0; 3];
                    expected[world] = sign * reconstruction.spacing_mm[axis];
                    assert_eq!(column, expected);
                    let middle_mm = (shape[axis] as f64 - 1.0) / 2.0 * column[world] + affine[world][3];
                    assert!(middle_mm.abs() < 15.0, "{middle_mm}");
                }
            }
        }
    }

    /// For each finding, of the voxels that it changes by more than 60 HU: the range in HU of the median, and the
    /// least volume in ml.
    fn expected(finding: Finding) -> (std::ops::Range<i16>, f64) {
        match finding {
            Finding::MedicalMaterial => (300..3072, 5.0),
            Finding::ArterialWallCalcification => (130..1300, 4.0),
            Finding::Cardiomegaly => (-150..80, 200.0),
            Finding::HiatalHernia => (-1000..80, 30.0),
            Finding::Emphysema => (-1000..-900, 300.0),
            Finding::LungNodule => (-550..80, 30.0),
            Finding::PleuralEffusion => (-100..40, 200.0),
            Finding::Consolidation => (-100..80, 100.0),
        }
    }

    #[test]
    fn every_finding_is_drawn() {
        let mut drawn = [0; Finding::ALL.len()];
        for scan in scans(10, 7) {
            let reconstruction = &scan.reconstructions[0];
            let voxel_ml = reconstruction.spacing_mm.iter().product::<f64>() / 1000.0;
            let with = draw(&scan, reconstruction, 7);
            for (index, finding) in Finding::ALL.into_iter().enumerate() {
                if !scan.findings.contains(&finding) {
                    continue;
                }
                let mut healed = scan.clone();
                healed.findings.remove(&finding);
                let without = draw(&healed, reconstruction, 7);
                let mut changed: Vec<i16> = std::iter::zip(&with.hounsfield, &without.hounsfield)
                    .filter(|(a, b)| a.abs_diff(**b) > 60)
                    .map(|(a, _)| *a)
                    .collect();
                changed.sort_unstable();
                let (attenuation, least_ml) = expected(finding);
                let volume_ml = changed.len() as f64 * voxel_ml;
                assert!(volume_ml > least_ml, "{} of {}: {volume_ml} ml", finding.id(), scan.scan);
                let median_hu = changed[changed.len() / 2];
                assert!(
                    attenuation.contains(&median_hu),
                    "{} of {}: {median_hu} HU",
                    finding.id(),
                    scan.scan
                );
                drawn[index] += 1;
            }
        }
        assert!(drawn.iter().all(|&scans| scans >= 2), "{drawn:?}");
    }

    #[test]
    fn lungs_have_an_ordinary_volume() {
        for scan in scans(8, 2).iter().filter(|scan| !scan.findings.contains(&Finding::PleuralEffusion)) {
            // The sharp kernel's noise would make lung of the room's air.
            let reconstruction = &Reconstruction { kernel: Kernel::Soft, ..scan.reconstructions[0].clone() };
            let voxels = draw(scan, reconstruction, 2)
                .hounsfield
                .iter()
                .filter(|hu| (-960..-600).contains(*hu))
                .count();
            let litres = voxels as f64 * reconstruction.spacing_mm.iter().product::<f64>() / 1e6;
            // Total lung capacity of adults on CT, with room for edges and emphysema.
            assert!((2.5..7.5).contains(&litres), "{}: {litres} l", scan.scan);
        }
    }

    /// The value of the voxel nearest to a world point, if the volume covers it.
    fn nearest(volume: &Phantom, point: [f64; 3]) -> Option<f64> {
        let mut index = [0; 3];
        for (axis, voxel) in index.iter_mut().enumerate() {
            let world = (0..3).find(|&world| volume.affine[world][axis] != 0.0)?;
            let at = ((point[world] - volume.affine[world][3]) / volume.affine[world][axis]).round();
            if !(0.0..volume.shape[axis] as f64).contains(&at) {
                return None;
            }
            *voxel = at as usize;
        }
        let [i, j, k] = index;
        Some(f64::from(volume.hounsfield[i + volume.shape[0] * (j + volume.shape[1] * k)]))
    }

    #[test]
    fn two_reconstructions_show_the_same_body() {
        let mut orientations = Vec::new();
        for scan in scans(10, 7).iter().filter(|scan| scan.reconstructions.len() == 2) {
            let [first, second] = [0, 1].map(|index| draw(scan, &scan.reconstructions[index], 7));
            let mut pairs = Vec::new();
            for step in 0..28 * 28 * 24 {
                let point =
                    [step % 28 * 12 - 162, step / 28 % 28 * 12 - 162, step / 784 * 11 - 121].map(f64::from);
                if let (Some(a), Some(b)) = (nearest(&first, point), nearest(&second, point)) {
                    pairs.push((a, b));
                }
            }
            let r = correlation(&pairs);
            assert!(pairs.len() > 10_000 && r > 0.93, "{}: r = {r} at {} points", scan.scan, pairs.len());
            orientations.push(scan.reconstructions[1].orientation);
        }
        assert!(orientations.contains(&Orientation::Lps) && orientations.contains(&Orientation::Lip));
    }

    /// Pearson's correlation of pairs.
    fn correlation(pairs: &[(f64, f64)]) -> f64 {
        let n = pairs.len() as f64;
        let (mean_a, mean_b) = (
            pairs.iter().map(|pair| pair.0).sum::<f64>() / n,
            pairs.iter().map(|pair| pair.1).sum::<f64>() / n,
        );
        let product = |left: &dyn Fn(&(f64, f64)) -> f64, right: &dyn Fn(&(f64, f64)) -> f64| {
            pairs.iter().map(|pair| left(pair) * right(pair)).sum::<f64>()
        };
        let (a, b) = (|pair: &(f64, f64)| pair.0 - mean_a, |pair: &(f64, f64)| pair.1 - mean_b);
        product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()
    }

    #[test]
    fn noise_has_the_spread_of_its_kernel() {
        let mut rng = stream(1, "noise");
        let drawn: Vec<f64> = (0..100_000).map(|_| standard_normal(&mut rng)).collect();
        let mean = drawn.iter().sum::<f64>() / 1e5;
        let variance = drawn.iter().map(|z| (z - mean) * (z - mean)).sum::<f64>() / 1e5;
        // Standard errors at n = 100,000 are 0.0032 and 0.0041; the kurtosis is 2.7.
        assert!(mean.abs() < 0.013 && (variance - 1.0).abs() < 0.016, "{mean} {variance}");

        let mut scan = scans(1, 7).remove(0);
        let mut reconstruction = scan.reconstructions.remove(0);
        let mut spread = |kernel: Kernel| {
            reconstruction.kernel = kernel;
            let volume = draw(&scan, &reconstruction, 7);
            // Inside the liver, which is uniform: right, middle, low.
            let values: Vec<f64> = (0..5 * 5 * 3)
                .filter_map(|step| {
                    let point =
                        [40 + step % 5 * 7, step / 5 % 5 * 7 - 14, step / 25 * 8 - 128].map(f64::from);
                    nearest(&volume, point)
                })
                .collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            (values.iter().map(|hu| (hu - mean) * (hu - mean)).sum::<f64>() / values.len() as f64).sqrt()
        };
        let (soft_hu, sharp_hu) = (spread(Kernel::Soft), spread(Kernel::Sharp));
        assert!((8.0..16.0).contains(&soft_hu) && (25.0..45.0).contains(&sharp_hu), "{soft_hu} {sharp_hu}");
    }
}
