//! How the values of an image are distributed.

/// The counts of all 65536 values of an image.
#[derive(Debug, Clone)]
pub struct Percentiles {
    counts: Vec<u64>,
    total: u64,
}

impl Percentiles {
    /// Those of these values.
    pub(super) fn of(pixels: &[u16]) -> Percentiles {
        let mut counts = vec![0_u64; 1 << 16];
        for &value in pixels {
            counts[usize::from(value)] += 1;
        }
        Percentiles { counts, total: pixels.len() as u64 }
    }

    /// The value below which `percent` of the pixels lie, from 0 to 100, linear between neighbouring ranks as
    /// `numpy.percentile` finds it. Exact: it is drawn from the full histogram.
    pub fn at(&self, percent: f64) -> f64 {
        let rank = percent.clamp(0.0, 100.0) / 100.0 * self.total.saturating_sub(1) as f64;
        let (lower, upper) = (self.ranked(rank.floor() as u64), self.ranked(rank.ceil() as u64));
        f64::from(lower) + (f64::from(upper) - f64::from(lower)) * rank.fract()
    }

    /// The value of this rank, counted from 0.
    fn ranked(&self, rank: u64) -> u16 {
        let mut below = 0;
        let place = self.counts.iter().position(|&count| {
            below += count;
            below > rank
        });
        place.unwrap_or(0) as u16
    }
}
