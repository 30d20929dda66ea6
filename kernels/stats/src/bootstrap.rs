//! An interval for any statistic, by resampling.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::error::StatsError;
use crate::interval::{Interval, check_level};

/// What a bootstrap found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// The percentile interval over the draws on which the statistic is defined.
    pub interval: Interval,
    /// Number of draws on which it is not, such as those without a positive row. Show it when it is not 0: the
    /// interval then speaks only of samples like the others.
    pub undefined_draws: usize,
}

/// Percentile interval of `statistic` over `draws` resamples of whole clusters (Davison and Hinkley, Bootstrap
/// Methods and their Application, 1997, sections 3.8 and 5.3).
///
/// `clusters` names the cluster of each row: the report when many cells share one text, better the patient. Each
/// draw takes as many clusters as there are, with replacement, and hands `statistic` the indices of all their
/// rows; a row appears as often as its cluster was drawn. For a paired difference, compute both sides on the same
/// indices. Percentiles are interpolated linearly between order statistics (NumPy's default, type 7 of Hyndman
/// and Fan).
///
/// Draw `i` has its own stream `i` of ChaCha8 seeded by `seed`, so the result does not depend on the number of
/// threads, and more draws repeat the first ones. `level` is the coverage as a fraction, such as 0.95.
///
/// `None` without rows, and when the statistic is undefined on at least half of the draws.
///
/// # Errors
/// No draws, a level outside 0 to 1, and a statistic that is NaN or infinite instead of `None`.
pub fn cluster_bootstrap(
    clusters: &[u32],
    draws: usize,
    seed: u64,
    level: f64,
    statistic: impl Fn(&[usize]) -> Option<f64> + Sync,
) -> Result<Option<Bootstrap>, StatsError> {
    check_level(level)?;
    if draws == 0 {
        return Err(StatsError::NoDraws);
    }
    if clusters.is_empty() {
        return Ok(None);
    }
    let rows_by_cluster = rows_by_cluster(clusters);
    let statistics: Vec<Option<f64>> = (0..draws)
        .into_par_iter()
        .map_init(Vec::new, |rows, draw| {
            resample(&rows_by_cluster, seed, draw as u64, rows);
            statistic(rows)
        })
        .collect();
    if let Some(draw) = statistics.iter().position(|value| value.is_some_and(|value| !value.is_finite())) {
        return Err(StatsError::StatisticNotFinite { draw });
    }
    let mut defined: Vec<f64> = statistics.into_iter().flatten().collect();
    if 2 * defined.len() <= draws {
        return Ok(None);
    }
    defined.sort_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    let interval =
        Interval { low: percentile(&defined, tail), high: percentile(&defined, 1.0 - tail), level };
    Ok(Some(Bootstrap { interval, undefined_draws: draws - defined.len() }))
}

/// The rows of each cluster, clusters in the order of their numbers.
fn rows_by_cluster(clusters: &[u32]) -> Vec<Vec<usize>> {
    let mut rows: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (row, &cluster) in clusters.iter().enumerate() {
        rows.entry(cluster).or_default().push(row);
    }
    rows.into_values().collect()
}

/// Writes the rows of one draw into `rows`.
fn resample(rows_by_cluster: &[Vec<usize>], seed: u64, draw: u64, rows: &mut Vec<usize>) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(draw);
    rows.clear();
    for _ in 0..rows_by_cluster.len() {
        // As u64, so that the draw does not depend on the machine's word size.
        let cluster = random.random_range(0..rows_by_cluster.len() as u64);
        rows.extend_from_slice(&rows_by_cluster[cluster as usize]);
    }
}

/// The value below which a fraction of the sorted values lies, interpolated linearly.
fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let position = fraction * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = position.ceil() as usize;
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
}
