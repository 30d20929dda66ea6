//! What the rest will come to, from a few that were measured and something known of all.

use crate::error::StatsError;
use crate::interval::Interval;
use crate::student::student_standard_errors;

/// A total that was predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatioTotal {
    /// The predicted total.
    pub total: f64,
    /// Its prediction interval; none where fewer than two rows were measured, or the bounds would be the same because
    /// every row has the same ratio.
    pub interval: Option<Interval>,
}

/// Predicts the total of `measured` over rows that were not measured, from rows that were and a size known of each: the
/// ratio estimator under the model that a row's expectation and its variance are proportional to its size (Royall,
/// Biometrika 57 (1970) 377–387). With `R = Σy / Σx` over the measured rows and `X` the sizes of the rest, the total is
/// `R·X` and the variance of its error `σ²·X·(X + Σx) / Σx`, where `σ² = Σ(y − R·x)²/x / (n − 1)`; the interval takes
/// Student's distribution with `n − 1` degrees of freedom and does not go below 0, since costs do not.
///
/// `None` without a measured row of a size above 0. Rows of size 0 say nothing of a ratio and are left out.
///
/// # Errors
/// Columns of different lengths, and a level outside 0 to 1.
pub fn ratio_total(
    sizes: &[f64],
    measured: &[f64],
    rest: f64,
    level: f64,
) -> Result<Option<RatioTotal>, StatsError> {
    if sizes.len() != measured.len() {
        return Err(StatsError::LengthMismatch { left: sizes.len(), right: measured.len() });
    }
    let rows: Vec<(f64, f64)> =
        sizes.iter().copied().zip(measured.iter().copied()).filter(|(size, _)| *size > 0.0).collect();
    let (size, value) = rows.iter().fold((0.0, 0.0), |(x, y), row| (x + row.0, y + row.1));
    if rows.is_empty() {
        return Ok(None);
    }
    let ratio = value / size;
    let total = ratio * rest;
    if rows.len() < 2 {
        return Ok(Some(RatioTotal { total, interval: None }));
    }
    let degrees = rows.len() - 1;
    let spread: f64 = rows.iter().map(|(x, y)| (y - ratio * x).powi(2) / x).sum::<f64>() / degrees as f64;
    let error = (spread * rest * (rest + size) / size).sqrt() * student_standard_errors(level, degrees)?;
    // Sums of equal ratios differ by their rounding alone.
    let interval = (error > total * 1e-9).then(|| Interval {
        low: (total - error).max(0.0),
        high: total + error,
        level,
    });
    Ok(Some(RatioTotal { total, interval }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_follows_sizes_and_its_interval_the_spread_around_them() {
        // R = 33/30 = 1.1; residuals 1, -1, 0 (x = 10 each): spread (0.1 + 0.1 + 0) / 2 = 0.1.
        let found = ratio_total(&[10.0, 10.0, 10.0], &[12.0, 10.0, 11.0], 60.0, 0.95).unwrap().unwrap();
        assert!((found.total - 66.0).abs() < 1e-12);
        // Variance 0.1 · 60 · 90 / 30 = 18; Student's quantile at 2 degrees of freedom is 4.30265272974946.
        let error = 18.0_f64.sqrt() * 4.302_652_729_749_46;
        let interval = found.interval.unwrap();
        assert!(
            (interval.low - (66.0 - error)).abs() < 1e-9 && (interval.high - (66.0 + error)).abs() < 1e-9
        );
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        assert_eq!(ratio_total(&[], &[], 10.0, 0.95).unwrap(), None);
        assert_eq!(ratio_total(&[0.0], &[1.0], 10.0, 0.95).unwrap(), None);
        let one = ratio_total(&[2.0], &[1.0], 10.0, 0.95).unwrap().unwrap();
        assert_eq!(one, RatioTotal { total: 5.0, interval: None });
        let same = ratio_total(&[1.0, 3.0], &[0.1, 0.3], 10.0, 0.95).unwrap().unwrap();
        assert_eq!(same.interval, None);
        let wide = ratio_total(&[1.0, 1.0], &[0.0, 2.0], 10.0, 0.95).unwrap().unwrap();
        assert!(wide.interval.unwrap().low.abs() < f64::EPSILON, "costs are not below 0");
        assert!(ratio_total(&[1.0], &[], 10.0, 0.95).is_err());
        assert!(ratio_total(&[1.0, 2.0], &[1.0, 3.0], 10.0, 1.0).is_err());
    }
}
