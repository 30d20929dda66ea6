//! What a volume's values say of themselves, above all whether they are Hounsfield units.

use rayon::prelude::*;

use crate::volume::HOUNSFIELD_RANGE;

/// The distribution of a volume's values.
#[derive(Debug, Clone, PartialEq)]
pub struct HounsfieldStatistics {
    /// Smallest value in HU.
    pub min: i16,
    /// Largest value in HU.
    pub max: i16,
    /// Mean in HU; NaN for a volume without voxels.
    pub mean: f64,
    /// Population standard deviation in HU.
    pub std: f64,
    /// Centre in HU of the fullest bin (8 HU wide) below -500 HU, values below -1024 counted as -1024; `None`
    /// when fewer than 0.1 % of the voxels lie there.
    pub air_peak_hu: Option<i16>,
    /// Centre in HU of the fullest bin (8 HU wide) from -500 to 3071 HU: fat or soft tissue; `None` when
    /// fewer than 0.1 % of the voxels lie there.
    pub body_peak_hu: Option<i16>,
    /// Share of voxels below -900 HU: air around the patient, airways, padding. 0.2 to 0.7 in a chest.
    pub air_fraction: f64,
    /// Share of voxels from -150 to 250 HU: fat, muscle, blood, organs. Above 0.1 in a chest.
    pub soft_tissue_fraction: f64,
    /// Whether the values look as if the rescale slope and intercept had been applied twice: air and body
    /// have both sunk below -500 HU and next to nothing is left at soft tissue.
    pub double_rescale_suspected: bool,
    /// Why the values do not look like a chest CT in HU, in words to act on; `None` when they do.
    pub suspicion: Option<String>,
}

/// Where the air peak of a calibrated scanner lies, in HU. Air is -1000 by definition.
const AIR_PEAK_RANGE_HU: (i16, i16) = (-1100, -850);
/// What lies below counts towards air and lung, the rest towards the body.
const AIR_BELOW_HU: i16 = -500;
/// Where the body's peak lies, in HU: fat is near -100, muscle and blood near 50.
const BODY_PEAK_RANGE_HU: (i16, i16) = (-150, 150);
const BIN_HU: usize = 8;
const SOFT_TISSUE_HU: (i16, i16) = (-150, 250);
/// Fewer voxels than this share make no peak to judge by.
const LEAST_PEAK_FRACTION: f64 = 0.001;
/// After a second intercept of -1000 or so only dense bone is left near soft tissue, a fraction of a per
/// cent.
const DOUBLE_RESCALE_TISSUE_FRACTION: f64 = 0.02;
const DOUBLE_RESCALE_BELOW_FRACTION: f64 = 0.9;

impl HounsfieldStatistics {
    /// Statistics of values in HU, clipped or not.
    pub(crate) fn of(hounsfield: &[i16]) -> HounsfieldStatistics {
        HounsfieldStatistics::of_histogram(&Histogram::of(hounsfield))
    }

    /// Statistics of the values that were counted. Exact: everything is drawn from the full histogram.
    pub fn of_histogram(histogram: &Histogram) -> HounsfieldStatistics {
        let (min, max) = histogram.extremes();
        let (mean, std) = histogram.moments();
        let mut statistics = HounsfieldStatistics {
            min,
            max,
            mean,
            std,
            air_peak_hu: histogram.peak_hu(HOUNSFIELD_RANGE.0, AIR_BELOW_HU - 1),
            body_peak_hu: histogram.peak_hu(AIR_BELOW_HU, HOUNSFIELD_RANGE.1),
            air_fraction: histogram.fraction(i16::MIN, -901),
            soft_tissue_fraction: histogram.fraction(SOFT_TISSUE_HU.0, SOFT_TISSUE_HU.1),
            double_rescale_suspected: false,
            suspicion: None,
        };
        let below = histogram.fraction(i16::MIN, AIR_BELOW_HU - 1);
        statistics.double_rescale_suspected = below > DOUBLE_RESCALE_BELOW_FRACTION
            && statistics.soft_tissue_fraction < DOUBLE_RESCALE_TISSUE_FRACTION;
        statistics.suspicion = statistics.suspicion_in_words(below);
        statistics
    }

    fn suspicion_in_words(&self, below: f64) -> Option<String> {
        let percent = |fraction: f64| fraction * 100.0;
        if self.mean.is_nan() {
            return Some("the volume has no voxels".to_owned());
        }
        if self.min == self.max {
            return Some(format!(
                "every voxel is {} HU; expected a range of tissues: the source is blank, or its intercept pushed \
                 everything out of range",
                self.min
            ));
        }
        if self.double_rescale_suspected {
            return Some(format!(
                "{:.1} % of the voxels lie below {AIR_BELOW_HU} HU and {:.1} % at soft tissue ({} to {} HU); a chest \
                 has more than 10 % there: slope and intercept were probably applied twice, so read the voxels as \
                 already in HU",
                percent(below),
                percent(self.soft_tissue_fraction),
                SOFT_TISSUE_HU.0,
                SOFT_TISSUE_HU.1
            ));
        }
        let Some(peak) = self.air_peak_hu else {
            return Some(format!(
                "{:.2} % of the voxels lie below {AIR_BELOW_HU} HU, too few to find air, and the smallest value is {}; \
                 expected air near -1000 HU: the rescale intercept was probably not applied, or the volume shows no air",
                percent(below),
                self.min
            ));
        };
        let within = |(low, high): (i16, i16), peak: i16| (low..=high).contains(&peak);
        // A crop without the air around the patient peaks at lung, near -800 HU; its body then vouches for
        // it.
        let body_in_place = self.body_peak_hu.is_some_and(|body| within(BODY_PEAK_RANGE_HU, body));
        (!within(AIR_PEAK_RANGE_HU, peak) && !body_in_place).then(|| {
            let body = self.body_peak_hu.map_or("nowhere".to_owned(), |body| format!("at {body} HU"));
            format!(
                "air peaks at {peak} HU and the body {body}; expected air from {} to {} and the body from {} to {}: slope or \
                 intercept is probably wrong, by about {} HU in air",
                AIR_PEAK_RANGE_HU.0,
                AIR_PEAK_RANGE_HU.1,
                BODY_PEAK_RANGE_HU.0,
                BODY_PEAK_RANGE_HU.1,
                peak + 1000
            )
        })
    }
}

/// Counts of all 65536 values.
pub struct Histogram {
    counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; 1 << 16] }
    }
}

impl Histogram {
    /// Counts more values in HU, such as those of the next slice.
    pub fn add(&mut self, hounsfield: &[i16]) {
        for &value in hounsfield {
            self.counts[bin(value)] += 1;
        }
    }

    fn of(hounsfield: &[i16]) -> Histogram {
        let count = |mut histogram: Histogram, chunk: &[i16]| {
            histogram.add(chunk);
            histogram
        };
        let both = |mut one: Histogram, other: Histogram| {
            one.counts.iter_mut().zip(other.counts).for_each(|(total, more)| *total += more);
            one
        };
        let parts = hounsfield.par_chunks(1 << 20).fold(Histogram::default, count);
        parts.reduce(Histogram::default, both)
    }

    fn filled(&self) -> impl DoubleEndedIterator<Item = (i16, u64)> + '_ {
        (i16::MIN..=i16::MAX)
            .zip(&self.counts)
            .filter(|&(_, &count)| count > 0)
            .map(|(value, &count)| (value, count))
    }

    fn extremes(&self) -> (i16, i16) {
        let first = self.filled().next();
        let last = self.filled().next_back();
        (first.map_or(0, |(value, _)| value), last.map_or(0, |(value, _)| value))
    }

    fn moments(&self) -> (f64, f64) {
        let total = self.total() as f64;
        let weighted = |of: &dyn Fn(f64) -> f64| {
            self.filled().map(|(value, count)| of(f64::from(value)) * count as f64).sum::<f64>() / total
        };
        let mean = weighted(&|value| value);
        (mean, weighted(&|value| (value - mean) * (value - mean)).sqrt())
    }

    fn fraction(&self, from: i16, to: i16) -> f64 {
        self.counts[bin(from)..=bin(to)].iter().sum::<u64>() as f64 / self.total() as f64
    }

    fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Centre of the fullest bin from `from` to `to`, the lower one where two are equal. What lies outside
    /// the stored range counts at its ends, so that clipped and unclipped volumes give one answer.
    fn peak_hu(&self, from: i16, to: i16) -> Option<i16> {
        let mut bins = vec![0_u64; (to - from) as usize / BIN_HU + 1];
        for (value, count) in self.filled() {
            let value = value.clamp(HOUNSFIELD_RANGE.0, HOUNSFIELD_RANGE.1);
            if (from..=to).contains(&value) {
                bins[(value - from) as usize / BIN_HU] += count;
            }
        }
        let enough = bins.iter().sum::<u64>() as f64 >= LEAST_PEAK_FRACTION * self.total() as f64;
        let fullest = (0..bins.len()).rev().max_by_key(|&bin| bins[bin])?;
        let centre = from + (fullest * BIN_HU + BIN_HU / 2) as i16;
        (enough && bins[fullest] > 0).then_some(centre)
    }
}

/// The place of a value among the counts.
fn bin(value: i16) -> usize {
    (i32::from(value) - i32::from(i16::MIN)) as usize
}

#[cfg(test)]
mod tests {
    use super::HounsfieldStatistics;
    use crate::nifti::read_file;
    use crate::reference::{folder, golden};
    use crate::volume::HOUNSFIELD_RANGE;

    /// A chest in miniature: 40 % air around -1000 HU, 20 % lung, 35 % soft tissue, 5 % bone.
    fn chest() -> Vec<i16> {
        let parts = [(40, -1000, 12), (20, -820, 60), (35, 40, 40), (5, 600, 200)];
        parts
            .iter()
            .flat_map(|&(share, mean, spread)| {
                (0..share * 97).map(move |n| mean + (n % (2 * spread + 1)) - spread)
            })
            .collect()
    }

    fn clipped(values: &[i16], change: impl Fn(i32) -> i32) -> Vec<i16> {
        let (low, high) = HOUNSFIELD_RANGE;
        values
            .iter()
            .map(|&value| change(i32::from(value)).clamp(i32::from(low), i32::from(high)) as i16)
            .collect()
    }

    #[test]
    fn a_chest_in_hounsfield_units_raises_no_suspicion() {
        let statistics = HounsfieldStatistics::of(&chest());
        assert_eq!(statistics.suspicion, None);
        assert!((statistics.air_peak_hu.unwrap() + 1000).abs() < 16);
        assert!((statistics.air_fraction - 0.4).abs() < 0.03, "{}", statistics.air_fraction);
        assert!((statistics.soft_tissue_fraction - 0.35).abs() < 0.01);
    }

    #[test]
    fn every_real_chest_passes_and_every_mistaken_rescale_does_not() {
        let Some(folder) = folder() else { return };
        for (file, entry) in golden::read(&folder)["nifti"].as_object().unwrap() {
            if !file.starts_with("nifti_ct/") {
                continue;
            }
            let nifti = read_file(&folder.join(file)).unwrap();
            let unclipped: Vec<i16> = nifti.to_f32().iter().map(|&value| value as i16).collect();
            let raw = HounsfieldStatistics::of(&unclipped);
            let golden = |name: &str| entry["canonical"][name].as_f64().unwrap();
            assert_eq!((f64::from(raw.min), f64::from(raw.max)), (golden("min"), golden("max")), "{file}");
            assert!(
                (raw.mean - golden("mean")).abs() < 1e-6 && (raw.std - golden("std")).abs() < 1e-6,
                "{file}"
            );

            let stored = nifti.hounsfield_i16().0;
            let statistics = HounsfieldStatistics::of(&stored);
            println!("{file}: {statistics:?}");
            assert_eq!(statistics.suspicion, None, "{file}");
            for intercept in [-1000, -1024, -8192] {
                let twice = HounsfieldStatistics::of(&clipped(&stored, |hu| hu + intercept));
                assert!(twice.double_rescale_suspected, "{file} {intercept}: {twice:?}");
                let unclipped: Vec<i16> = stored.iter().map(|&hu| hu + intercept as i16).collect();
                assert!(HounsfieldStatistics::of(&unclipped).double_rescale_suspected, "{file} {intercept}");
            }
            let never = HounsfieldStatistics::of(&clipped(&stored, |hu| hu + 1024));
            assert!(never.suspicion.unwrap().contains("not applied"), "{file}");
        }
    }

    #[test]
    fn a_shifted_air_peak_is_named() {
        let shifted = HounsfieldStatistics::of(&clipped(&chest(), |hu| hu + 250));
        let words = shifted.suspicion.unwrap();
        assert!(words.starts_with("air peaks at -7") && !shifted.double_rescale_suspected, "{words}");
    }

    #[test]
    fn a_blank_volume_is_named() {
        let words = HounsfieldStatistics::of(&[-1024; 100]).suspicion.unwrap();
        assert!(words.starts_with("every voxel is -1024 HU"), "{words}");
        assert!(HounsfieldStatistics::of(&[]).suspicion.is_some());
    }

    #[test]
    fn moments_of_a_few_values() {
        let statistics = HounsfieldStatistics::of(&[-1, 0, 1, 2]);
        assert_eq!((statistics.min, statistics.max, statistics.mean), (-1, 2, 0.5));
        assert!((statistics.std - 1.25_f64.sqrt()).abs() < 1e-12);
        assert_eq!(statistics.air_peak_hu, None);
    }
}
