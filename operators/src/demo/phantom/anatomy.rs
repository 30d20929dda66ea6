//! The body of a patient on the day of a scan.
//!
//! Sizes and attenuations are round textbook figures for adults (Prokop and Galanski, Spiral and Multislice CT of
//! the Body; fat -100, water 0, soft tissue 40 to 60, inflated lung -850 HU), varied from patient to patient.

use rand::Rng;

use super::shapes::{Shape, Solid};
use crate::demo::cohort::{Finding, Lobe, Scan, Side, stream};

/// What varies between bodies. Lengths are in mm; a pair is half a width (to the side) and half a depth.
pub(super) struct Anatomy {
    /// Where the field of view is centred.
    pub(super) field_centre_mm: [f64; 3],
    skin_mm: [f64; 2],
    fat_mm: f64,
    /// Inside the ribs; lungs and upper abdomen fill it.
    cavity_mm: [f64; 2],
    /// From the middle of the cavity, [`CAVITY_CENTRE_Z_MM`], to its apex.
    cavity_height_mm: f64,
    /// The tops of the right and the left diaphragm.
    domes_z_mm: [f64; 2],
    mediastinum_mm: f64,
    heart_centre_mm: [f64; 3],
    heart_mm: [f64; 3],
    aorta_radius_mm: f64,
    arch_z_mm: f64,
    lung_hu: f64,
    bone_hu: f64,
    /// Between ribs, from one to the next.
    rib_pitch_mm: f64,
    /// Depth of the breasts; 0 for men.
    breast_mm: f64,
    /// The horizontal surface of the fluid on the right and on the left; below the back where there is none.
    fluid_y_mm: [f64; 2],
}

/// The middle of the thoracic cavity, below that of the field of view.
const CAVITY_CENTRE_Z_MM: f64 = -20.0;

/// How much squarer than an ellipse the body is in cross-section; see [`squarish`].
const SQUARENESS: f64 = 0.4;

impl Anatomy {
    /// The body of `scan.patient` at the time of `scan`.
    pub(super) fn of(scan: &Scan, seed: u64) -> Self {
        let mut patient = stream(seed, &format!("{}/body", scan.patient));
        let mut posture = stream(seed, &format!("{}/posture", scan.scan));
        let skin_mm = [patient.random_range(144.0..168.0), patient.random_range(97.0..116.0)];
        let fat_mm = patient.random_range(8.0..22.0);
        let cavity_mm = [skin_mm[0] - fat_mm - 14.0, skin_mm[1] - 0.7 * fat_mm - 17.0];
        // Drawn either way, so that the rest of the body does not depend on the finding.
        let normal_ratio = patient.random_range(0.40..0.48);
        let enlarged = scan.findings.contains(&Finding::Cardiomegaly);
        let ratio = if enlarged { scan.appearance.cardiothoracic_ratio } else { normal_ratio };
        let heart = ratio * cavity_mm[0];
        let heart_z_mm = patient.random_range(-48.0..-38.0);
        let inspiration_mm = posture.random_range(-7.0..7.0);
        let dome_z_mm = patient.random_range(-78.0..-62.0) + inspiration_mm;
        let mut anatomy = Anatomy {
            field_centre_mm: [
                posture.random_range(-6.0..6.0),
                posture.random_range(-14.0..-4.0),
                posture.random_range(-8.0..8.0),
            ],
            skin_mm,
            fat_mm,
            cavity_mm,
            cavity_height_mm: patient.random_range(132.0..148.0),
            domes_z_mm: [dome_z_mm, dome_z_mm - patient.random_range(6.0..16.0)],
            mediastinum_mm: patient.random_range(26.0..34.0),
            heart_centre_mm: [-0.34 * heart, patient.random_range(8.0..18.0), heart_z_mm],
            heart_mm: [heart, (0.80 * heart).min(0.66 * cavity_mm[1]), 0.78 * heart],
            aorta_radius_mm: patient.random_range(12.0..15.5),
            arch_z_mm: patient.random_range(48.0..64.0),
            lung_hu: patient.random_range(-860.0..-825.0),
            bone_hu: patient.random_range(250.0..380.0),
            rib_pitch_mm: patient.random_range(24.0..29.0),
            breast_mm: if patient.random_bool(0.5) { patient.random_range(18.0..32.0) } else { 0.0 },
            fluid_y_mm: [f64::NEG_INFINITY; 2],
        };
        if scan.findings.contains(&Finding::PleuralEffusion) {
            anatomy.settle_fluid(scan.appearance.effusion_side, scan.appearance.effusion_depth_mm);
        }
        anatomy
    }

    /// The attenuation at `point` of what is not a [`Solid`]: room, table, fat, muscle, ribs, lungs with pleural
    /// fluid, mediastinum and abdomen. Surfaces are `edge_mm` thick.
    pub(super) fn tissue_hu(&self, point: [f64; 3], edge_mm: f64) -> f64 {
        let below_skin_mm = -self.outside_skin_mm(point);
        if below_skin_mm < -edge_mm {
            return self.table_hu(point, edge_mm);
        }
        let mut hu = AIR_HU;
        let mut mix = |material_hu: f64, depth_mm: f64| {
            hu += (depth_mm / edge_mm + 0.5).clamp(0.0, 1.0) * (material_hu - hu);
        };
        mix(FAT_HU, below_skin_mm);
        mix(MUSCLE_HU, below_skin_mm - self.fat_mm);
        let inside_cavity_mm = -self.outside_cavity_mm(point);
        let rib_depth_mm = (-1.5 - inside_cavity_mm).min(inside_cavity_mm + 10.0);
        mix(self.bone_hu + 120.0, rib_depth_mm.min(self.inside_rib_mm(point)));
        if inside_cavity_mm > -edge_mm {
            // The abdominal fat is what organs leave of the cavity below the diaphragm.
            mix(FAT_HU, inside_cavity_mm);
            let in_lungs_mm = inside_cavity_mm.min(self.above_diaphragm_mm(point));
            mix(self.inflated_hu(point), in_lungs_mm);
            mix(EFFUSION_HU, in_lungs_mm.min(self.below_fluid_mm(point)));
            let above_mm = self.above_diaphragm_mm(point);
            mix(MEDIASTINUM_HU, inside_cavity_mm.min(above_mm).min(-self.outside_mediastinum_mm(point)));
        }
        hu
    }

    /// Whether there is aerated lung within `margin_mm` around `point`.
    pub(super) fn is_aerated(&self, point: [f64; 3], margin_mm: f64) -> bool {
        let heart = Shape::Ellipsoid { centre: self.heart_centre_mm, semi_axes: self.heart_mm };
        self.outside_cavity_mm(point) < -margin_mm
            && self.above_diaphragm_mm(point) > margin_mm
            && self.below_fluid_mm(point) < -margin_mm
            && self.outside_mediastinum_mm(point) > margin_mm
            && heart.distance_mm(point) > margin_mm + EPICARDIAL_FAT_MM
            && point[2] + margin_mm < SCANNED_TO_Z_MM
    }

    /// Whether `point` is inside the ribs, in chest or upper abdomen.
    pub(super) fn is_in_cavity(&self, point: [f64; 3]) -> bool {
        self.outside_cavity_mm(point) < 0.0
    }

    /// A point in `lobe`, `share` of the way from its middle to its border along each axis (-1 to 1).
    pub(super) fn in_lobe(&self, lobe: Lobe, share: [f64; 3]) -> [f64; 3] {
        let (side, y, z) = match lobe {
            Lobe::RightUpper => (1.0, 0.0, 70.0),
            Lobe::RightMiddle => (1.0, 0.45, -12.0),
            Lobe::RightLower => (1.0, -0.42, -18.0),
            Lobe::LeftUpper => (-1.0, 0.1, 65.0),
            Lobe::LeftLower => (-1.0, -0.42, -20.0),
        };
        [
            (side * 0.58 + 0.25 * share[0]) * self.cavity_mm[0],
            (y + 0.30 * share[1]) * self.cavity_mm[1],
            z + 32.0 * share[2],
        ]
    }

    /// Points along the middle of the aorta from the heart over the arch down to the diaphragm.
    pub(super) fn aorta(&self) -> [[f64; 3]; 7] {
        let (z, back) = (self.arch_z_mm, -0.36 * self.cavity_mm[1]);
        [
            [8.0, 14.0, self.heart_centre_mm[2] + 15.0],
            [12.0, 16.0, z - 18.0],
            [8.0, 12.0, z - 4.0],
            [-6.0, 0.0, z],
            [-17.0, back + 10.0, z - 5.0],
            [-21.0, back, z - 20.0],
            [-16.0, back - 4.0, -160.0],
        ]
    }

    /// The radius of the aorta.
    pub(super) fn aorta_radius_mm(&self) -> f64 {
        self.aorta_radius_mm
    }

    /// The middle of the heart.
    pub(super) fn heart_centre_mm(&self) -> [f64; 3] {
        self.heart_centre_mm
    }

    /// The middle of the front of the sternum at the height `z_mm`.
    pub(super) fn sternum_mm(&self, z_mm: f64) -> [f64; 3] {
        [0.0, self.cavity_mm[1] + 9.0, z_mm]
    }

    /// Where a device lies below the skin under the clavicle, on the right for `side` 1 and on the left for -1.
    pub(super) fn pectoral_pocket_mm(&self, side: f64) -> [f64; 3] {
        let x = 0.46 * self.skin_mm[0];
        // The skin's surface in front of x, from the equation in `squarish`.
        let u = (x / self.skin_mm[0]) * (x / self.skin_mm[0]);
        let v = (1.0 - u) / (1.0 - SQUARENESS * u);
        [side * x, self.skin_mm[1] * v.sqrt() - 13.0, 78.0]
    }

    /// The oesophageal hiatus, where stomach can slip through the diaphragm behind the heart.
    pub(super) fn hiatus_mm(&self) -> [f64; 3] {
        [-4.0, -0.40 * self.cavity_mm[1], self.domes_z_mm[1] + 14.0]
    }

    /// The organs that every body has, in the order in which later ones replace earlier ones.
    pub(super) fn organs(&self) -> Vec<Solid> {
        let mut solids = self.breasts();
        solids.extend(self.abdomen());
        solids.extend(self.skeleton());
        solids.extend(self.heart_and_vessels());
        solids.extend(self.airways());
        solids
    }

    fn breasts(&self) -> Vec<Solid> {
        let breast = |side: f64| Shape::Ellipsoid {
            centre: [side * 0.48 * self.skin_mm[0], 0.86 * self.skin_mm[1], -15.0],
            semi_axes: [52.0, self.breast_mm, 46.0],
        };
        if self.breast_mm == 0.0 {
            return Vec::new();
        }
        vec![Solid::in_room(breast(1.0), FAT_HU + 20.0), Solid::in_room(breast(-1.0), FAT_HU + 20.0)]
    }

    /// Liver, spleen and stomach, below the diaphragm. The stomach's gas is in front of its fluid, for the patient
    /// lies on the back.
    fn abdomen(&self) -> Vec<Solid> {
        let [width, depth] = self.cavity_mm;
        let [right_z, left_z] = self.domes_z_mm;
        let organ =
            |centre, semi_axes, hounsfield| Solid::new(Shape::Ellipsoid { centre, semi_axes }, hounsfield);
        vec![
            organ([0.44 * width, 2.0, right_z - 68.0], [0.53 * width, 0.86 * depth, 66.0], 58.0),
            organ([-0.05 * width, 0.35 * depth, right_z - 60.0], [0.4 * width, 0.45 * depth, 45.0], 58.0),
            organ([-0.62 * width, -0.45 * depth, left_z - 45.0], [0.26 * width, 0.38 * depth, 42.0], 50.0),
            organ([-0.45 * width, 0.22 * depth, left_z - 42.0], [0.30 * width, 0.42 * depth, 38.0], 18.0),
            organ([-0.45 * width, 0.42 * depth, left_z - 38.0], [0.22 * width, 0.2 * depth, 28.0], -850.0),
        ]
    }

    fn skeleton(&self) -> Vec<Solid> {
        let [width, depth] = self.cavity_mm;
        let spine_y = -0.70 * depth;
        let column = |x: f64, y: f64, radius: f64, hu: f64| {
            let (from, to) = ([x, y, -180.0], [x, y, 180.0]);
            Solid::new(Shape::Capsule { from, to, radii: [radius; 2] }, hu)
        };
        let mut solids = vec![column(0.0, spine_y, 16.0, 85.0)];
        for vertebra in -7..=6 {
            let z = f64::from(vertebra) * 25.0 + 5.0;
            let body = Shape::Ellipsoid { centre: [0.0, spine_y, z], semi_axes: [20.0, 17.0, 13.5] };
            let spinous = Shape::Capsule {
                from: [0.0, spine_y - 28.0, z],
                to: [0.0, spine_y - 44.0, z - 12.0],
                radii: [5.0, 4.0],
            };
            let transverse = Shape::Capsule {
                from: [-32.0, spine_y - 22.0, z + 2.0],
                to: [32.0, spine_y - 22.0, z + 2.0],
                radii: [5.5; 2],
            };
            solids.extend([body, spinous, transverse].map(|shape| Solid::new(shape, self.bone_hu)));
        }
        solids.push(column(0.0, spine_y - 22.0, 8.5, 25.0));
        let sternum = Shape::Cuboid { centre: [0.0, depth + 5.0, 25.0], half_edges: [17.0, 5.5, 75.0] };
        solids.push(Solid::new(sternum, 0.6 * self.bone_hu));
        for side in [1.0, -1.0] {
            let scapula = Shape::Capsule {
                from: [side * 0.80 * width, -0.86 * depth, 150.0],
                to: [side * 0.66 * width, -1.10 * depth, 20.0],
                radii: [7.0, 4.0],
            };
            let clavicle = Shape::Capsule {
                from: [side * 20.0, depth + 2.0, 108.0],
                to: [side * width, 0.35 * depth, 150.0],
                radii: [7.0; 2],
            };
            solids.extend([scapula, clavicle].map(|shape| Solid::new(shape, self.bone_hu)));
        }
        solids
    }

    fn heart_and_vessels(&self) -> Vec<Solid> {
        let heart = |rim_mm: f64| Shape::Ellipsoid {
            centre: self.heart_centre_mm,
            semi_axes: self.heart_mm.map(|mm| mm + rim_mm),
        };
        let vessel = |from: [f64; 3], to: [f64; 3], radius: f64| {
            Solid::new(Shape::Capsule { from, to, radii: [radius; 2] }, BLOOD_HU)
        };
        let [_, y, z] = self.heart_centre_mm;
        let mut solids = vec![
            Solid::in_lung(heart(EPICARDIAL_FAT_MM), FAT_HU + 15.0),
            Solid::new(heart(0.0), BLOOD_HU),
            vessel([24.0, 4.0, z], [20.0, 6.0, 125.0], 9.0),
            vessel([-12.0, y + 12.0, z + 25.0], [-16.0, 4.0, 22.0], 13.0),
            vessel([-16.0, 4.0, 22.0], [34.0, -8.0, 14.0], 10.0),
            vessel([-16.0, 4.0, 22.0], [-36.0, -10.0, 18.0], 10.0),
        ];
        let aorta = self.aorta();
        solids.extend(aorta.windows(2).map(|ends| vessel(ends[0], ends[1], self.aorta_radius_mm)));
        solids
    }

    /// Trachea and main bronchi, and the gullet behind them.
    fn airways(&self) -> Vec<Solid> {
        let back = -0.42 * self.cavity_mm[1];
        let tube = |from: [f64; 3], to: [f64; 3], radii: [f64; 2], hounsfield: f64| {
            Solid::new(Shape::Capsule { from, to, radii }, hounsfield)
        };
        vec![
            tube([-2.0, back - 2.0, 160.0], [-4.0, back, -150.0], [7.0; 2], 35.0),
            tube([2.0, -4.0, 160.0], [2.0, -16.0, 42.0], [9.0, 8.5], AIR_HU),
            tube([2.0, -16.0, 42.0], [36.0, -18.0, 18.0], [7.0, 5.5], AIR_HU),
            tube([2.0, -16.0, 42.0], [-38.0, -20.0, 14.0], [6.5, 5.0], AIR_HU),
        ]
    }

    fn outside_skin_mm(&self, [x, y, _]: [f64; 3]) -> f64 {
        let relative = squarish(x / self.skin_mm[0], y / self.skin_mm[1]).sqrt();
        if relative < 0.1 { -self.skin_mm[1] } else { (x * x + y * y).sqrt() * (1.0 - 1.0 / relative) }
    }

    /// The cavity is squarish in cross-section, and its walls are upright nearly up to the apex.
    fn outside_cavity_mm(&self, [x, y, z]: [f64; 3]) -> f64 {
        let height = (z - CAVITY_CENTRE_Z_MM) / self.cavity_height_mm;
        let taper = height * height * height * height;
        let relative = (squarish(x / self.cavity_mm[0], y / self.cavity_mm[1]) + taper).sqrt();
        if relative < 0.1 {
            return -self.cavity_mm[1];
        }
        let apex = z - CAVITY_CENTRE_Z_MM;
        (x * x + y * y + taper * apex * apex).sqrt() * (1.0 - 1.0 / relative)
    }

    fn outside_mediastinum_mm(&self, [x, y, _]: [f64; 3]) -> f64 {
        let (u, v) = (x / self.mediastinum_mm, (y + 6.0) / (self.cavity_mm[1] + 4.0));
        ((u * u + v * v).sqrt() - 1.0) * self.mediastinum_mm
    }

    /// The diaphragm falls from its two domes to the chest wall, steeper at the back.
    fn above_diaphragm_mm(&self, [x, y, z]: [f64; 3]) -> f64 {
        let side = if x > 0.0 { 0 } else { 1 };
        let [width, depth] = self.cavity_mm;
        let (u, v) = ((x.abs() - 0.42 * width) / (0.62 * width), (y - 0.15 * depth) / depth);
        z - self.domes_z_mm[side] + 42.0 * (u * u + v * v)
    }

    fn below_fluid_mm(&self, [x, y, z]: [f64; 3]) -> f64 {
        let level_mm = self.fluid_y_mm[if x > 0.0 { 0 } else { 1 }];
        // The fluid creeps up the chest wall (a meniscus), and the lung's own weight keeps its layer thin above.
        let lateral = (x.abs() / self.cavity_mm[0]).max(0.5) - 0.5;
        let above = (z / 90.0).clamp(0.0, 1.0);
        level_mm + 50.0 * lateral * lateral - 30.0 * above - y
    }

    /// Lets fluid lie `depth_mm` deep in the back of one or both sides.
    fn settle_fluid(&mut self, side: Side, depth_mm: f64) {
        let level_mm = depth_mm - 0.93 * self.cavity_mm[1];
        match side {
            Side::Right => self.fluid_y_mm[0] = level_mm,
            Side::Left => self.fluid_y_mm[1] = level_mm,
            Side::Both => self.fluid_y_mm = [level_mm; 2],
        }
    }

    /// Inflated lung is denser where it lies: blood and weight raise it by some 40 HU from front to back.
    fn inflated_hu(&self, [_, y, _]: [f64; 3]) -> f64 {
        self.lung_hu - 20.0 * y / self.cavity_mm[1]
    }

    /// Ribs slope down from the spine to the side and on to the front, and their cartilage up again to the sternum;
    /// the depth is measured along the body.
    fn inside_rib_mm(&self, [x, y, z]: [f64; 3]) -> f64 {
        let turns = (z + 0.45 * y + 0.35 * x.abs()) / self.rib_pitch_mm;
        let from_middle = (turns - turns.floor() - 0.5).abs();
        (0.21 - from_middle) * self.rib_pitch_mm
    }

    /// A thin curved table behind the back, and the room.
    fn table_hu(&self, [x, y, _]: [f64; 3], edge_mm: f64) -> f64 {
        let surface_mm = -self.skin_mm[1] - 9.0 + 0.0009 * x * x;
        let depth_mm = 4.0 - (y - surface_mm + 4.0).abs();
        let share = if x.abs() > 190.0 { 0.0 } else { (depth_mm / edge_mm + 0.5).clamp(0.0, 1.0) };
        AIR_HU + share * (TABLE_HU - AIR_HU)
    }
}

const AIR_HU: f64 = -1000.0;
const TABLE_HU: f64 = -250.0;
const FAT_HU: f64 = -100.0;
const MEDIASTINUM_HU: f64 = -60.0;
const MUSCLE_HU: f64 = 52.0;
const BLOOD_HU: f64 = 42.0;
/// A simple effusion is nearly water.
const EFFUSION_HU: f64 = 10.0;
const EPICARDIAL_FAT_MM: f64 = 4.0;
/// No lesion is put higher, so that every field of view shows it.
const SCANNED_TO_Z_MM: f64 = 118.0;

/// Below 1 inside a closed curve through (1, 0) and (0, 1), squarer than the ellipse of the same half-axes as a
/// trunk is.
fn squarish(x: f64, y: f64) -> f64 {
    let (u, v) = (x * x, y * y);
    u + v - SQUARENESS * u * v
}
