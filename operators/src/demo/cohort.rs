//! Who is in the demo cohort: patients, their scans and reconstructions, and which findings each scan shows.
//!
//! Everything here is made up. A scan's findings are decided first; the phantom draws them and the narrative
//! tells them, so the findings of a [`Scan`] are the truth that a labeller and a classifier can be scored with.

use std::collections::BTreeSet;

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The scans of `patients` made-up patients, in the order of patient and date.
///
/// The same arguments give the same scans on every machine. Patient *k* depends on `seed` alone, never on
/// `patients`, so a cohort can grow without changing the scans that it already has. Of every 20 consecutive
/// patients a fixed number (25 to 35 %, see [`Finding`]) begins with each finding, independently of the others.
pub(super) fn scans(patients: usize, seed: u64) -> Vec<Scan> {
    (0..patients).flat_map(|index| patient_scans(index, seed)).collect()
}

/// One examination of one patient: what was found, how it looks and how it was reconstructed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scan {
    /// The patient, `demo_1`.
    pub(super) patient: String,
    /// The scan, `demo_1_a`: the patient and a letter by date.
    pub(super) scan: String,
    /// One or two volumes of the same acquisition; the second differs in slice thickness, kernel and matrix.
    pub(super) reconstructions: Vec<Reconstruction>,
    /// What is drawn into the voxels, and nothing else is.
    pub(super) findings: BTreeSet<Finding>,
    /// Absent findings that the report nevertheless does not rule out ("cannot be excluded"). They are not in
    /// `findings`: a labeller that reads uncertain as present is wrong about them.
    pub(super) hedged: BTreeSet<Finding>,
    /// The findings of the patient's scan before this one; `None` for the first.
    pub(super) previous: Option<BTreeSet<Finding>>,
    /// How the findings look, which the phantom and the report share; it has no meaning for absent findings.
    pub(super) appearance: Appearance,
}

/// One of the demo's findings: eight of the eighteen of CT-RATE.
///
/// Findings begin in 5 to 7 of every 20 patients, and mostly stay from scan to scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Finding {
    /// Pacemaker, port catheter or sternotomy wires.
    MedicalMaterial,
    /// Calcified plaque in the wall of the thoracic aorta.
    ArterialWallCalcification,
    /// An enlarged heart: a cardiothoracic ratio above 0.5.
    Cardiomegaly,
    /// Stomach above the diaphragm, behind the heart.
    HiatalHernia,
    /// Patches of destroyed lung, mostly in the upper lobes.
    Emphysema,
    /// Twenty to thirty-two solid nodules in both lungs, as metastases look.
    LungNodule,
    /// Fluid that settles in the dependent pleural space.
    PleuralEffusion,
    /// Airless lung around open bronchi.
    Consolidation,
}

impl Finding {
    /// All findings of the demo, in the order of CT-RATE's label columns.
    pub(super) const ALL: [Finding; 8] = [
        Finding::MedicalMaterial,
        Finding::ArterialWallCalcification,
        Finding::Cardiomegaly,
        Finding::HiatalHernia,
        Finding::Emphysema,
        Finding::LungNodule,
        Finding::PleuralEffusion,
        Finding::Consolidation,
    ];

    /// The id in the finding pack, for example `pleural_effusion`.
    pub(super) fn id(self) -> &'static str {
        match self {
            Finding::MedicalMaterial => "medical_material",
            Finding::ArterialWallCalcification => "arterial_wall_calcification",
            Finding::Cardiomegaly => "cardiomegaly",
            Finding::HiatalHernia => "hiatal_hernia",
            Finding::Emphysema => "emphysema",
            Finding::LungNodule => "lung_nodule",
            Finding::PleuralEffusion => "pleural_effusion",
            Finding::Consolidation => "consolidation",
        }
    }

    /// CT-RATE's column name, for example `Pleural effusion`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Finding::MedicalMaterial => "Medical material",
            Finding::ArterialWallCalcification => "Arterial wall calcification",
            Finding::Cardiomegaly => "Cardiomegaly",
            Finding::HiatalHernia => "Hiatal hernia",
            Finding::Emphysema => "Emphysema",
            Finding::LungNodule => "Lung nodule",
            Finding::PleuralEffusion => "Pleural effusion",
            Finding::Consolidation => "Consolidation",
        }
    }

    /// How many of [`BLOCK_PATIENTS`] consecutive patients have the finding on their first scan.
    fn first_scans_per_block(self) -> usize {
        match self {
            Finding::Cardiomegaly | Finding::ArterialWallCalcification | Finding::LungNodule => 7,
            Finding::PleuralEffusion | Finding::Consolidation | Finding::Emphysema => 6,
            Finding::HiatalHernia | Finding::MedicalMaterial => 5,
        }
    }

    /// The probability that a finding of one scan is there on the next. What is anatomical or degenerative does
    /// not heal; fluid and infection often do.
    fn persists(self) -> f64 {
        match self {
            Finding::ArterialWallCalcification | Finding::Emphysema | Finding::HiatalHernia => 1.0,
            Finding::Cardiomegaly | Finding::MedicalMaterial => 0.96,
            Finding::LungNodule => 0.9,
            Finding::PleuralEffusion | Finding::Consolidation => 0.65,
        }
    }

    /// The probability that a finding absent from one scan is there on the next.
    fn appears(self) -> f64 {
        match self {
            Finding::PleuralEffusion | Finding::Consolidation => 0.12,
            Finding::LungNodule | Finding::MedicalMaterial => 0.05,
            _ => 0.02,
        }
    }
}

/// How a patient's findings look.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Appearance {
    /// Transverse diameter of an enlarged heart over the inner diameter of the thorax; above 0.5 is enlarged
    /// (Danzer, Am J Med Sci 1919).
    pub(super) cardiothoracic_ratio: f64,
    /// Where pleural fluid lies.
    pub(super) effusion_side: Side,
    /// Greatest thickness of the fluid layer, in mm.
    pub(super) effusion_depth_mm: f64,
    /// Where consolidation lies.
    pub(super) consolidation_lobe: Lobe,
    /// Where the largest nodule lies; the others are in any lobe.
    pub(super) nodule_lobe: Lobe,
    /// Diameters of the nodules in mm, the largest first.
    pub(super) nodule_diameters_mm: Vec<f64>,
    /// What medical material there is.
    pub(super) device: Device,
}

/// A side of the chest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The patient's right.
    Right,
    /// The patient's left.
    Left,
    /// Both sides.
    Both,
}

/// A lobe of the lungs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lobe {
    /// Right upper lobe.
    RightUpper,
    /// Right middle lobe.
    RightMiddle,
    /// Right lower lobe.
    RightLower,
    /// Left upper lobe.
    LeftUpper,
    /// Left lower lobe.
    LeftLower,
}

impl Lobe {
    /// All lobes.
    pub(super) const ALL: [Lobe; 5] =
        [Lobe::RightUpper, Lobe::RightMiddle, Lobe::RightLower, Lobe::LeftUpper, Lobe::LeftLower];
}

/// A piece of medical material.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    /// A generator below the left clavicle and its lead in the right heart.
    Pacemaker,
    /// A chamber below the right clavicle and its catheter in the superior vena cava.
    PortCatheter,
    /// Wires that close the sternum after open heart surgery.
    SternotomyWires,
}

impl Device {
    const ALL: [Device; 3] = [Device::Pacemaker, Device::PortCatheter, Device::SternotomyWires];
}

/// One volume of a scan: its name and its grid.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reconstruction {
    /// The reconstruction, `demo_1_a_1`: the scan and a number.
    pub(super) id: String,
    /// Voxels along each axis, fastest first.
    pub(super) shape: [usize; 3],
    /// Distance between voxel centres along each axis, in mm.
    pub(super) spacing_mm: [f64; 3],
    /// Where the axes point.
    pub(super) orientation: Orientation,
    /// How noisy the volume is.
    pub(super) kernel: Kernel,
}

/// Where the voxel axes of a volume point, in NIfTI's letters: the first letter is the direction in which the
/// first voxel index grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Orientation {
    /// Axial slices, stored as in CT-RATE: to the left, to the back, to the head.
    Lps,
    /// Axial slices along NIfTI's own axes.
    Ras,
    /// Coronal slices from front to back, as a workstation reformats them.
    Lip,
}

impl Orientation {
    /// For each voxel axis the world axis that it runs along (0 right, 1 anterior, 2 superior) and its sign.
    pub(super) fn axes(self) -> [(usize, f64); 3] {
        match self {
            Orientation::Lps => [(0, -1.0), (1, -1.0), (2, 1.0)],
            Orientation::Ras => [(0, 1.0), (1, 1.0), (2, 1.0)],
            Orientation::Lip => [(0, -1.0), (2, -1.0), (1, -1.0)],
        }
    }
}

/// The filter of a reconstruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    /// For the mediastinum: little noise.
    Soft,
    /// For the lungs: more noise.
    Sharp,
}

impl Kernel {
    /// Standard deviation of the noise within uniform tissue, in HU. Typical figures for thin-slice chest CT;
    /// not those of a particular scanner.
    pub(super) fn noise_hu(self) -> f64 {
        match self {
            Kernel::Soft => 12.0,
            Kernel::Sharp => 35.0,
        }
    }
}

/// A random stream of its own for `name` under `seed`, so that what is drawn for one thing never shifts another.
///
/// The 64-bit FNV-1a digest of the name fills the second 8 bytes of ChaCha8's key, the seed the first 8.
pub(super) fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    let digest = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&digest.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// One of `choices`, each equally likely. `choices` must not be empty.
pub(super) fn pick<T: Copy>(rng: &mut impl Rng, choices: &[T]) -> T {
    choices[rng.random_range(0..choices.len())]
}

/// Patients are given findings by blocks of this size, so that even a small cohort has cases of each finding.
const BLOCK_PATIENTS: usize = 20;

/// How often a report does not rule out what is absent. Rare: the reports stay close to the truth.
const HEDGED: f64 = 0.02;

/// How many scans a patient has: 1, 2 or 3, on average 1.8.
const SCANS_PER_PATIENT: [usize; 10] = [1, 1, 1, 1, 2, 2, 2, 2, 3, 3];

/// How often a scan has a second reconstruction.
const SECOND_RECONSTRUCTION: f64 = 0.35;

fn patient_scans(index: usize, seed: u64) -> Vec<Scan> {
    let patient = format!("demo_{}", index + 1);
    let mut rng = stream(seed, &format!("{patient}/scans"));
    let appearance = appearance(&mut rng);
    let mut findings = first_findings(index, seed);
    let mut previous = None;
    let mut scans = Vec::new();
    for letter in ('a'..).take(pick(&mut rng, &SCANS_PER_PATIENT)) {
        if previous.is_some() {
            findings = next_findings(&mut rng, &findings);
        }
        let scan = format!("{patient}_{letter}");
        scans.push(Scan {
            reconstructions: reconstructions(&mut rng, &scan),
            patient: patient.clone(),
            scan,
            hedged: hedged(&mut rng, &findings),
            findings: findings.clone(),
            previous: previous.replace(findings.clone()),
            appearance: appearance.clone(),
        });
    }
    scans
}

/// The findings of the first scan of the patient at `index`: each finding is dealt to a fixed number of the
/// patients of a block.
fn first_findings(index: usize, seed: u64) -> BTreeSet<Finding> {
    let block = index / BLOCK_PATIENTS;
    let dealt_to = |finding: &Finding| {
        let mut seats: Vec<usize> = (0..BLOCK_PATIENTS).collect();
        seats.shuffle(&mut stream(seed, &format!("{}/block {block}", finding.id())));
        seats[..finding.first_scans_per_block()].contains(&(index % BLOCK_PATIENTS))
    };
    Finding::ALL.into_iter().filter(dealt_to).collect()
}

fn next_findings(rng: &mut impl Rng, findings: &BTreeSet<Finding>) -> BTreeSet<Finding> {
    let present = |finding: &Finding| {
        rng.random_bool(if findings.contains(finding) { finding.persists() } else { finding.appears() })
    };
    Finding::ALL.into_iter().filter(present).collect()
}

fn hedged(rng: &mut impl Rng, findings: &BTreeSet<Finding>) -> BTreeSet<Finding> {
    Finding::ALL
        .into_iter()
        .filter(|finding| rng.random_bool(HEDGED) && !findings.contains(finding))
        .collect()
}

fn appearance(rng: &mut impl Rng) -> Appearance {
    // Large and many, so that a small network sees them on a grid of 8 mm; above 30 mm it would be a mass.
    let mut nodule_diameters_mm = vec![f64::from(rng.random_range(25..=29_u32))];
    for _ in 0..rng.random_range(19..=31) {
        nodule_diameters_mm.push(f64::from(rng.random_range(15..=24_u32)));
    }
    nodule_diameters_mm[1..].sort_by(|a, b| b.total_cmp(a));
    Appearance {
        cardiothoracic_ratio: f64::from(rng.random_range(56..=66_u32)) / 100.0,
        effusion_side: pick(rng, &[Side::Right, Side::Left, Side::Both]),
        effusion_depth_mm: f64::from(rng.random_range(22..=50_u32)),
        consolidation_lobe: pick(rng, &Lobe::ALL),
        nodule_lobe: pick(rng, &Lobe::ALL),
        nodule_diameters_mm,
        device: pick(rng, &Device::ALL),
    }
}

/// One or two reconstructions over the same field of view: a square one in the axial plane, and a height.
fn reconstructions(rng: &mut impl Rng, scan: &str) -> Vec<Reconstruction> {
    let field_mm = f64::from(4 * rng.random_range(84..=94_u32));
    let height_mm = f64::from(5 * rng.random_range(56..=60_u32));
    let first = Reconstruction::over(
        field_mm,
        height_mm,
        Grid {
            matrix: pick(rng, &[52, 56, 60, 64]),
            thickness_mm: pick(rng, &[5.0, 6.0, 7.0]),
            orientation: pick(rng, &[Orientation::Lps, Orientation::Lps, Orientation::Lps, Orientation::Ras]),
            kernel: pick(rng, &[Kernel::Soft, Kernel::Soft, Kernel::Sharp]),
        },
        format!("{scan}_1"),
    );
    if !rng.random_bool(SECOND_RECONSTRUCTION) {
        return vec![first];
    }
    let second = Reconstruction::over(
        field_mm,
        height_mm,
        Grid {
            matrix: pick(rng, &[48, 56]),
            thickness_mm: 8.0,
            orientation: pick(rng, &[Orientation::Lps, Orientation::Lps, Orientation::Lip]),
            kernel: if first.kernel == Kernel::Soft { Kernel::Sharp } else { Kernel::Soft },
        },
        format!("{scan}_2"),
    );
    vec![first, second]
}

/// What a reconstruction chooses for itself.
struct Grid {
    matrix: u32,
    thickness_mm: f64,
    orientation: Orientation,
    kernel: Kernel,
}

impl Reconstruction {
    /// A grid that covers `field_mm` from side to side and from back to front and `height_mm` from foot to head.
    fn over(field_mm: f64, height_mm: f64, grid: Grid, id: String) -> Self {
        let in_plane_mm = field_mm / f64::from(grid.matrix);
        let spacing_mm = [in_plane_mm, in_plane_mm, grid.thickness_mm];
        let axes = grid.orientation.axes();
        let shape = std::array::from_fn(|axis| {
            let extent_mm = if axes[axis].0 == 2 { height_mm } else { field_mm };
            (extent_mm / spacing_mm[axis]).round() as usize
        });
        Reconstruction { id, shape, spacing_mm, orientation: grid.orientation, kernel: grid.kernel }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_cohort_begins_with_the_smaller_one() {
        let small = scans(7, 3);
        assert_eq!(small, scans(33, 3)[..small.len()]);
        assert_ne!(small, scans(7, 4));
    }

    #[test]
    fn every_finding_is_neither_rare_nor_common() {
        for seed in 0..5 {
            let scans = scans(100, seed);
            for finding in Finding::ALL {
                let cases = scans.iter().filter(|scan| scan.findings.contains(&finding)).count();
                let prevalence = cases as f64 / scans.len() as f64;
                assert!((0.2..0.45).contains(&prevalence), "{}: {prevalence}", finding.id());
            }
        }
    }

    #[test]
    fn findings_mostly_persist_and_are_independent_of_each_other() {
        let scans = scans(1000, 11);
        let (mut same, mut pairs) = (0, 0);
        for scan in &scans {
            if let Some(previous) = &scan.previous {
                pairs += Finding::ALL.len();
                same +=
                    Finding::ALL.iter().filter(|f| previous.contains(f) == scan.findings.contains(f)).count();
            }
        }
        assert!(same as f64 / pairs as f64 > 0.9, "{same} of {pairs}");

        let first: Vec<_> = scans.iter().filter(|scan| scan.previous.is_none()).collect();
        let share =
            |has: &dyn Fn(&&&Scan) -> bool| first.iter().filter(has).count() as f64 / first.len() as f64;
        for (index, &a) in Finding::ALL.iter().enumerate() {
            for &b in &Finding::ALL[index + 1..] {
                let (p, q) =
                    (share(&|scan| scan.findings.contains(&a)), share(&|scan| scan.findings.contains(&b)));
                let both = share(&|scan| scan.findings.contains(&a) && scan.findings.contains(&b));
                // The phi coefficient; 4 standard deviations at n = 1000 are 0.126.
                let phi = (both - p * q) / (p * (1.0 - p) * q * (1.0 - q)).sqrt();
                assert!(phi.abs() < 0.126, "{} and {}: {phi}", a.id(), b.id());
            }
        }
    }

    #[test]
    fn names_are_split_patient_scan_reconstruction() {
        for scan in scans(30, 5) {
            assert!(scan.scan.strip_prefix(&scan.patient).is_some_and(|rest| rest.len() == 2));
            for (index, reconstruction) in scan.reconstructions.iter().enumerate() {
                assert_eq!(reconstruction.id, format!("{}_{}", scan.scan, index + 1));
            }
        }
    }

    #[test]
    fn hedged_findings_are_absent_and_rare() {
        let scans = scans(1000, 2);
        let hedged: usize = scans.iter().map(|scan| scan.hedged.len()).sum();
        assert!(scans.iter().all(|scan| scan.hedged.is_disjoint(&scan.findings)));
        let absent: usize = scans.iter().map(|scan| Finding::ALL.len() - scan.findings.len()).sum();
        let share = hedged as f64 / absent as f64;
        assert!((0.01..0.03).contains(&share), "{share}");
    }

    #[test]
    fn second_reconstructions_cover_the_same_field_with_other_slices() {
        let scans = scans(100, 9);
        assert!(scans.iter().any(|scan| scan.reconstructions.len() == 2));
        for scan in scans.iter().filter(|scan| scan.reconstructions.len() == 2) {
            let extent = |r: &Reconstruction| {
                let mut extent_mm = [0.0; 3];
                for (axis, (world, _)) in r.orientation.axes().into_iter().enumerate() {
                    extent_mm[world] = r.shape[axis] as f64 * r.spacing_mm[axis];
                }
                extent_mm
            };
            let [first, second] = [&scan.reconstructions[0], &scan.reconstructions[1]];
            assert_ne!(first.spacing_mm[2], second.spacing_mm[2]);
            for (a, b) in extent(first).into_iter().zip(extent(second)) {
                assert!((a - b).abs() <= 8.0, "{a} and {b} mm");
            }
        }
    }
}
