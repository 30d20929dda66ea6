//! Which source voxels each sample of one axis reads, and how much of each.

/// For every sample the same number of neighbouring source voxels, some with weight zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Taps {
    /// Source voxels along the axis.
    source_voxels: usize,
    /// Voxels read per sample.
    width: usize,
    /// The first source voxel of each sample.
    first: Vec<usize>,
    /// `width` weights per sample.
    weights: Vec<f32>,
}

/// A position this close to a voxel centre is on it: what f64 leaves of an exact ratio. Worth 0.0004 HU at
/// most.
const ON_CENTRE: f64 = 1e-7;

impl Taps {
    /// Linear interpolation at each position, the edge voxel's value beyond the outermost centres.
    pub(super) fn linear(positions: impl Iterator<Item = f64>, source_voxels: usize) -> Taps {
        Taps::collect(source_voxels, positions, |position| {
            let below = position.floor();
            let above = position - below;
            if above == 0.0 {
                return vec![(below as usize, 1.0)];
            }
            vec![(below as usize, 1.0 - above), (below as usize + 1, above)]
        })
    }

    /// A triangle of half-width `step` voxels around each position, cut off at the edges and normalised.
    pub(super) fn triangle(positions: impl Iterator<Item = f64>, source_voxels: usize, step: f64) -> Taps {
        Taps::collect(source_voxels, positions, |position| {
            let from = (position - step).ceil().max(0.0) as usize;
            let to = ((position + step).floor() as usize).min(source_voxels - 1);
            let weight = |voxel: usize| (1.0 - (voxel as f64 - position).abs() / step).max(0.0);
            let total: f64 = (from..=to).map(weight).sum();
            (from..=to).map(|voxel| (voxel, weight(voxel) / total)).collect()
        })
    }

    /// The voxel nearest to each position.
    pub(super) fn nearest(positions: impl Iterator<Item = f64>, source_voxels: usize) -> Taps {
        Taps::collect(source_voxels, positions, |position| {
            vec![(((position + 0.5).floor() as usize).min(source_voxels - 1), 1.0)]
        })
    }

    /// Lays out what `tap` says for every position, held to the range of voxel centres.
    fn collect(
        source_voxels: usize,
        positions: impl Iterator<Item = f64>,
        tap: impl Fn(f64) -> Vec<(usize, f64)>,
    ) -> Taps {
        let last = (source_voxels - 1) as f64;
        let on_centre = |position: f64| {
            let centre = position.round();
            if (position - centre).abs() < ON_CENTRE { centre } else { position }
        };
        let samples: Vec<Vec<(usize, f64)>> =
            positions.map(|position| tap(on_centre(position).clamp(0.0, last))).collect();
        let width = samples.iter().map(Vec::len).max().unwrap_or(0);
        let mut taps =
            Taps { source_voxels, width, first: Vec::new(), weights: vec![0.0; samples.len() * width] };
        for (sample, read) in samples.iter().enumerate() {
            // A short sample at the far end starts earlier, so that all its places exist.
            let first = read[0].0.min(source_voxels - width);
            taps.first.push(first);
            for &(voxel, weight) in read {
                taps.weights[sample * width + voxel - first] = weight as f32;
            }
        }
        taps
    }

    /// The same samples of an axis stored the other way round.
    pub(super) fn reversed(mut self) -> Taps {
        for first in &mut self.first {
            *first = self.source_voxels - *first - self.width;
        }
        for weights in self.weights.chunks_mut(self.width) {
            weights.reverse();
        }
        self
    }

    /// Number of samples.
    pub(super) fn len(&self) -> usize {
        self.first.len()
    }

    /// Voxels read per sample.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The first source voxel of every sample.
    pub(super) fn firsts(&self) -> &[usize] {
        &self.first
    }

    /// All weights, [`Taps::width`] per sample.
    pub(super) fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// The source voxels that a sample reads, with their weights, zeros left out.
    pub(super) fn of(&self, sample: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        let weights = &self.weights[sample * self.width..(sample + 1) * self.width];
        weights
            .iter()
            .enumerate()
            .filter(|&(_, &weight)| weight != 0.0)
            .map(move |(place, &weight)| (self.first[sample] + place, weight))
    }

    /// How much of source voxel `voxel` a sample reads.
    pub(super) fn weight(&self, sample: usize, voxel: usize) -> f32 {
        match voxel.checked_sub(self.first[sample]) {
            Some(place) if place < self.width => self.weights[sample * self.width + place],
            _ => 0.0,
        }
    }
}
