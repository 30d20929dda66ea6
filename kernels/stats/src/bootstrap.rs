//! An interval for any statistic, by resampling.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::error::StatsError;
use crate::interval::{Interval, check_level};
use crate::normal::{normal_below, normal_quantile};

/// What a bootstrap found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// The interval over the draws on which the statistic is defined.
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
/// rows; a row appears as often as its cluster was drawn. For a difference, see [`paired_cluster_bootstrap`].
/// Percentiles are interpolated linearly between order statistics (NumPy's default, type 7 of Hyndman and Fan).
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
    let defined = drawn(&rows_by_cluster(clusters), draws, seed, level, &statistic)?;
    Ok(defined.map(|defined| Bootstrap {
        interval: percentile_interval(&defined, level),
        undefined_draws: draws - defined.len(),
    }))
}

/// The same for several statistics at once, each on the same draws: `statistics` answers with as many as `count`.
///
/// `None` in the place of a statistic for which [`cluster_bootstrap`] has none.
///
/// # Errors
/// As [`cluster_bootstrap`]; and another number of statistics than `count`.
pub fn cluster_bootstrap_each(
    clusters: &[u32],
    draws: usize,
    seed: u64,
    level: f64,
    count: usize,
    statistics: impl Fn(&[usize]) -> Vec<Option<f64>> + Sync,
) -> Result<Vec<Option<Bootstrap>>, StatsError> {
    check_level(level)?;
    let rows_by_cluster = rows_by_cluster(clusters);
    let drawn = each_draw(&rows_by_cluster, draws, seed, &statistics)?;
    let of_statistic = |at: usize| {
        let values: Vec<Option<f64>> = drawn.iter().map(|values| values[at]).collect();
        let defined = defined(values)?;
        Ok(defined.map(|defined| Bootstrap {
            interval: percentile_interval(&defined, level),
            undefined_draws: draws - defined.len(),
        }))
    };
    if let Some(other) = drawn.iter().find(|values| values.len() != count) {
        return Err(StatsError::LengthMismatch { left: count, right: other.len() });
    }
    (0..count).map(of_statistic).collect()
}

/// The same draws, read by [`bca_interval`] instead of their percentiles: better coverage for skewed statistics such
/// as an F1 near 1, for one more evaluation of the statistic per cluster.
///
/// `None` also where [`bca_interval`] is.
///
/// # Errors
/// As [`cluster_bootstrap`].
pub fn cluster_bootstrap_bca(
    clusters: &[u32],
    draws: usize,
    seed: u64,
    level: f64,
    statistic: impl Fn(&[usize]) -> Option<f64> + Sync,
) -> Result<Option<Bootstrap>, StatsError> {
    let rows_by_cluster = rows_by_cluster(clusters);
    let Some(defined) = drawn(&rows_by_cluster, draws, seed, level, &statistic)? else { return Ok(None) };
    let all: Vec<usize> = (0..clusters.len()).collect();
    let (Some(estimate), Some(left_out)) = (statistic(&all), jackknife(&rows_by_cluster, &statistic)) else {
        return Ok(None);
    };
    let interval = bca_interval(estimate, &defined, &left_out, level)?;
    Ok(interval.map(|interval| Bootstrap { interval, undefined_draws: draws - defined.len() }))
}

/// A difference of two statistics on the same rows, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedBootstrap {
    /// The first statistic less the second, on all rows.
    pub difference: f64,
    /// Its interval and the draws on which it is undefined.
    pub bootstrap: Bootstrap,
    /// Two-sided p-value: twice the smaller share of draws on either side of 0, the sample itself counted among
    /// them, so that it is never 0 (Davison and Hinkley, section 4.2.5 and equation 4.11).
    pub p_value: f64,
}

/// Percentile interval of the difference of two statistics, both computed on the same draws of whole clusters, so
/// that what is common to them cancels. See [`cluster_bootstrap`].
///
/// `None` where a side is undefined on all rows, or the difference on at least half of the draws.
///
/// # Errors
/// As [`cluster_bootstrap`].
pub fn paired_cluster_bootstrap(
    clusters: &[u32],
    draws: usize,
    seed: u64,
    level: f64,
    first: impl Fn(&[usize]) -> Option<f64> + Sync,
    second: impl Fn(&[usize]) -> Option<f64> + Sync,
) -> Result<Option<PairedBootstrap>, StatsError> {
    let difference = |rows: &[usize]| Some(first(rows)? - second(rows)?);
    let Some(defined) = drawn(&rows_by_cluster(clusters), draws, seed, level, &difference)? else {
        return Ok(None);
    };
    let all: Vec<usize> = (0..clusters.len()).collect();
    let Some(found) = difference(&all) else { return Ok(None) };
    let share = |count: usize| (count + 1) as f64 / (defined.len() + 1) as f64;
    let below = share(defined.iter().filter(|value| **value <= 0.0).count());
    let above = share(defined.iter().filter(|value| **value >= 0.0).count());
    let interval = percentile_interval(&defined, level);
    Ok(Some(PairedBootstrap {
        difference: found,
        bootstrap: Bootstrap { interval, undefined_draws: draws - defined.len() },
        p_value: (2.0 * below.min(above)).min(1.0),
    }))
}

/// The bias-corrected and accelerated interval (Efron, Journal of the American Statistical Association 82 (1987)
/// 171–185): percentiles of the `draws`, moved by how often they lie below the `estimate` and by the skewness of
/// `left_out`, the statistics with one cluster left out each.
///
/// `None` without draws, with fewer than two clusters, when all draws lie on one side of the estimate, and when no
/// cluster matters: the corrections are then undefined.
///
/// # Errors
/// A level outside 0 to 1.
pub fn bca_interval(
    estimate: f64,
    draws: &[f64],
    left_out: &[f64],
    level: f64,
) -> Result<Option<Interval>, StatsError> {
    check_level(level)?;
    if draws.is_empty() || left_out.len() < 2 {
        return Ok(None);
    }
    let below = draws.iter().filter(|draw| **draw < estimate).count();
    let not_above = draws.iter().filter(|draw| **draw <= estimate).count();
    let bias = normal_quantile((below + not_above) as f64 / (2 * draws.len()) as f64);
    let mean = left_out.iter().sum::<f64>() / left_out.len() as f64;
    let power = |exponent: i32| left_out.iter().map(|value| (mean - value).powi(exponent)).sum::<f64>();
    let acceleration = power(3) / (6.0 * power(2).powf(1.5));
    if !bias.is_finite() || !acceleration.is_finite() {
        return Ok(None);
    }
    let mut sorted = draws.to_vec();
    sorted.sort_by(f64::total_cmp);
    let bound = |tail: f64| {
        let z = bias + normal_quantile(tail);
        percentile(&sorted, normal_below(bias + z / (1.0 - acceleration * z)))
    };
    let tail = (1.0 - level) / 2.0;
    Ok(Some(Interval { low: bound(tail), high: bound(1.0 - tail), level }))
}

/// The statistic on each draw on which it is defined, in ascending order; none where these are at most half of the
/// draws.
fn drawn(
    rows_by_cluster: &[Vec<usize>],
    draws: usize,
    seed: u64,
    level: f64,
    statistic: &(impl Fn(&[usize]) -> Option<f64> + Sync),
) -> Result<Option<Vec<f64>>, StatsError> {
    check_level(level)?;
    defined(each_draw(rows_by_cluster, draws, seed, statistic)?)
}

/// What is computed of the rows of each draw; nothing where there are no rows.
fn each_draw<T: Send>(
    rows_by_cluster: &[Vec<usize>],
    draws: usize,
    seed: u64,
    compute: &(impl Fn(&[usize]) -> T + Sync),
) -> Result<Vec<T>, StatsError> {
    if draws == 0 {
        return Err(StatsError::NoDraws);
    }
    if rows_by_cluster.is_empty() {
        return Ok(Vec::new());
    }
    let of_draw = |rows: &mut Vec<usize>, draw: usize| {
        resample(rows_by_cluster, seed, draw as u64, rows);
        compute(rows)
    };
    Ok((0..draws).into_par_iter().map_init(Vec::new, of_draw).collect())
}

/// The values of the draws on which a statistic is defined, in ascending order; none where these are at most half of
/// them.
fn defined(values: Vec<Option<f64>>) -> Result<Option<Vec<f64>>, StatsError> {
    if let Some(draw) = values.iter().position(|value| value.is_some_and(|value| !value.is_finite())) {
        return Err(StatsError::StatisticNotFinite { draw });
    }
    let draws = values.len();
    let mut defined: Vec<f64> = values.into_iter().flatten().collect();
    defined.sort_by(f64::total_cmp);
    Ok((2 * defined.len() > draws).then_some(defined))
}

/// The statistic with each cluster left out in turn; none where it is undefined or not finite without one of them.
fn jackknife(
    rows_by_cluster: &[Vec<usize>],
    statistic: &(impl Fn(&[usize]) -> Option<f64> + Sync),
) -> Option<Vec<f64>> {
    let without = |left_out: usize| {
        let kept = rows_by_cluster.iter().enumerate().filter(|(cluster, _)| *cluster != left_out);
        let rows: Vec<usize> = kept.flat_map(|(_, rows)| rows.iter().copied()).collect();
        statistic(&rows).filter(|value| value.is_finite())
    };
    (0..rows_by_cluster.len()).into_par_iter().map(without).collect()
}

/// The percentiles of sorted draws that leave out the same share on both sides.
fn percentile_interval(sorted: &[f64], level: f64) -> Interval {
    let tail = (1.0 - level) / 2.0;
    Interval { low: percentile(sorted, tail), high: percentile(sorted, 1.0 - tail), level }
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
