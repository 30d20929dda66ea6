//! The findings that are solids, and the vessels that make a nodule hard to see.
//!
//! Cardiomegaly and pleural effusion change the body itself and are drawn with it.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::anatomy::Anatomy;
use super::shapes::{Shape, Solid};
use crate::demo::cohort::{Device, Finding, Lobe, Scan, pick, stream};

/// What a scan's findings add to its body, in the order in which later solids replace earlier ones.
///
/// A finding is drawn from the patient's own random stream, so it looks alike from scan to scan.
pub(super) fn solids(scan: &Scan, anatomy: &Anatomy, seed: u64) -> Vec<Solid> {
    let mut solids = vessels(anatomy, &mut stream(seed, &format!("{}/vessels", scan.patient)));
    for finding in &scan.findings {
        let mut rng = stream(seed, &format!("{}/{}", scan.patient, finding.id()));
        solids.extend(match finding {
            Finding::MedicalMaterial => medical_material(scan.appearance.device, anatomy),
            Finding::ArterialWallCalcification => calcification(anatomy, &mut rng),
            Finding::HiatalHernia => hiatal_hernia(anatomy, &mut rng),
            Finding::Emphysema => emphysema(anatomy, &mut rng),
            Finding::LungNodule => nodules(scan, anatomy, &mut rng),
            Finding::Consolidation => consolidation(scan.appearance.consolidation_lobe, anatomy, &mut rng),
            Finding::Cardiomegaly | Finding::PleuralEffusion => Vec::new(),
        });
    }
    solids
}

/// Branches that taper from each hilum to the periphery.
fn vessels(anatomy: &Anatomy, rng: &mut ChaCha8Rng) -> Vec<Solid> {
    let mut solids = Vec::new();
    for lobe in Lobe::ALL {
        let hilum = match lobe {
            Lobe::RightUpper | Lobe::RightMiddle | Lobe::RightLower => [34.0, -8.0, 12.0],
            Lobe::LeftUpper | Lobe::LeftLower => [-36.0, -10.0, 14.0],
        };
        for _ in 0..4 {
            let to = anatomy.in_lobe(lobe, [(); 3].map(|()| rng.random_range(-1.1..1.1)));
            let radii = [rng.random_range(1.8..2.8), 1.0];
            solids.push(Solid::in_lung(Shape::Capsule { from: hilum, to, radii }, VESSEL_HU));
        }
    }
    solids
}

/// Spheres of solid tissue: the largest in its lobe, the others in any.
fn nodules(scan: &Scan, anatomy: &Anatomy, rng: &mut ChaCha8Rng) -> Vec<Solid> {
    let mut lobe = scan.appearance.nodule_lobe;
    let mut solids = Vec::new();
    for diameter_mm in &scan.appearance.nodule_diameters_mm {
        let radius_mm = diameter_mm / 2.0;
        let centre = aerated_point(anatomy, lobe, radius_mm + 3.0, rng);
        solids.push(Solid::new(Shape::sphere(centre, radius_mm), NODULE_HU));
        lobe = pick(rng, &Lobe::ALL);
    }
    solids
}

/// Overlapping balls of airless lung with open bronchi through them (air bronchograms).
fn consolidation(lobe: Lobe, anatomy: &Anatomy, rng: &mut ChaCha8Rng) -> Vec<Solid> {
    let middle = aerated_point(anatomy, lobe, 14.0, rng);
    let mut around = |spread_mm: f64| {
        let offset = [(); 3].map(|()| rng.random_range(-spread_mm..spread_mm));
        [0, 1, 2].map(|axis| middle[axis] + offset[axis])
    };
    let mut solids: Vec<Solid> =
        (0..12).map(|_| Solid::in_lung(Shape::sphere(around(32.0), 27.0), CONSOLIDATION_HU)).collect();
    solids.extend((0..3).map(|_| {
        let bronchus = Shape::Capsule { from: around(6.0), to: around(24.0), radii: [3.5, 2.0] };
        Solid::new(bronchus, BRONCHUS_HU)
    }));
    solids
}

/// Patches of destroyed lung, most of them in the upper lobes (centrilobular emphysema).
fn emphysema(anatomy: &Anatomy, rng: &mut ChaCha8Rng) -> Vec<Solid> {
    let upper_first = [
        Lobe::RightUpper,
        Lobe::LeftUpper,
        Lobe::RightUpper,
        Lobe::LeftUpper,
        Lobe::RightLower,
        Lobe::LeftLower,
    ];
    (0..60)
        .map(|_| {
            let radius_mm = rng.random_range(11.0..20.0);
            let lobe = pick(rng, &upper_first);
            let centre = anatomy.in_lobe(lobe, [(); 3].map(|()| rng.random_range(-1.4..1.4)));
            Solid::in_lung(Shape::sphere(centre, radius_mm), EMPHYSEMA_HU)
        })
        .collect()
}

/// Flecks in the wall of the arch and of the descending aorta.
fn calcification(anatomy: &Anatomy, rng: &mut ChaCha8Rng) -> Vec<Solid> {
    let aorta = anatomy.aorta();
    let wall_mm = anatomy.aorta_radius_mm() - 1.0;
    (0..rng.random_range(26..=38))
        .map(|_| {
            // Segments 2 to 4 are the arch, 5 is the descending aorta, of which the lowest part is not scanned.
            let segment = rng.random_range(2..=5_usize);
            let share = rng.random_range(0.0..if segment == 5 { 0.75 } else { 1.0 });
            let outwards = unit_vector(rng);
            let centre = [0, 1, 2].map(|axis| {
                let (from, to) = (aorta[segment][axis], aorta[segment + 1][axis]);
                from + share * (to - from) + wall_mm * outwards[axis]
            });
            let semi_axes = [(); 3].map(|()| rng.random_range(4.0..6.5));
            Solid::new(Shape::Ellipsoid { centre, semi_axes }, rng.random_range(900.0..1500.0))
        })
        .collect()
}

/// A pouch of stomach behind the heart, with gas in front of its contents.
fn hiatal_hernia(anatomy: &Anatomy, rng: &mut ChaCha8Rng) -> Vec<Solid> {
    let radius_mm = rng.random_range(26.0..34.0);
    let [x, y, z] = anatomy.hiatus_mm();
    let pouch =
        Shape::Ellipsoid { centre: [x, y, z], semi_axes: [1.15 * radius_mm, radius_mm, 1.1 * radius_mm] };
    let gas = Shape::Ellipsoid {
        centre: [x, y + 0.42 * radius_mm, z + 2.0],
        semi_axes: [0.75 * radius_mm, 0.4 * radius_mm, 0.75 * radius_mm],
    };
    vec![Solid::new(pouch, STOMACH_HU), Solid::new(gas, GAS_HU)]
}

/// Metal, as thick as it looks with its blooming.
fn medical_material(device: Device, anatomy: &Anatomy) -> Vec<Solid> {
    let wire =
        |from: [f64; 3], to: [f64; 3]| Solid::new(Shape::Capsule { from, to, radii: [2.6; 2] }, METAL_HU);
    let heart = anatomy.heart_centre_mm();
    match device {
        Device::Pacemaker => {
            let pocket = anatomy.pectoral_pocket_mm(-1.0);
            let generator = Shape::Cuboid { centre: pocket, half_edges: [22.0, 6.0, 20.0] };
            let vein = [-10.0, 12.0, 98.0];
            vec![
                Solid::new(generator, METAL_HU),
                wire(pocket, vein),
                wire(vein, [20.0, 6.0, 84.0]),
                wire([20.0, 6.0, 84.0], [24.0, 4.0, heart[2] + 10.0]),
                wire([24.0, 4.0, heart[2] + 10.0], [heart[0], heart[1] + 10.0, heart[2] - 18.0]),
            ]
        }
        Device::PortCatheter => {
            let pocket = anatomy.pectoral_pocket_mm(1.0);
            let chamber = Shape::Ellipsoid { centre: pocket, semi_axes: [14.0, 7.0, 14.0] };
            vec![
                Solid::new(chamber, METAL_HU),
                wire(pocket, [36.0, 14.0, 104.0]),
                wire([36.0, 14.0, 104.0], [21.0, 5.0, 84.0]),
                wire([21.0, 5.0, 84.0], [23.0, 4.0, 8.0]),
            ]
        }
        Device::SternotomyWires => (0..6)
            .map(|loop_number| {
                let [x, y, z] = anatomy.sternum_mm(-38.0 + 23.0 * f64::from(loop_number));
                wire([x - 16.0, y, z], [x + 16.0, y, z])
            })
            .collect(),
    }
}

const VESSEL_HU: f64 = 40.0;
const NODULE_HU: f64 = 35.0;
const CONSOLIDATION_HU: f64 = 30.0;
const BRONCHUS_HU: f64 = -900.0;
const EMPHYSEMA_HU: f64 = -985.0;
const STOMACH_HU: f64 = 30.0;
const GAS_HU: f64 = -900.0;
const METAL_HU: f64 = 3000.0;

/// A point of `lobe` with aerated lung within `margin_mm`, or as much of it as effusion and a large heart leave.
///
/// The room asked for is lessened step by step, so that a finding lies as freely as it can.
fn aerated_point(anatomy: &Anatomy, lobe: Lobe, margin_mm: f64, rng: &mut ChaCha8Rng) -> [f64; 3] {
    let mut any_point = || anatomy.in_lobe(lobe, [(); 3].map(|()| rng.random_range(-1.0..1.0)));
    for lessened_mm in [0.0, 3.0, 6.0, 9.0] {
        for _ in 0..200 {
            let point = any_point();
            if anatomy.is_aerated(point, margin_mm - lessened_mm) {
                return point;
            }
        }
    }
    any_point()
}

/// A direction, all equally likely: a point in the unit ball (von Neumann's rejection) moved out to its surface.
fn unit_vector(rng: &mut ChaCha8Rng) -> [f64; 3] {
    loop {
        let point = [(); 3].map(|()| rng.random_range(-1.0..1.0));
        let length = point.iter().map(|x: &f64| x * x).sum::<f64>().sqrt();
        if (0.1..1.0).contains(&length) {
            return point.map(|x| x / length);
        }
    }
}
