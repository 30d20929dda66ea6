//! A confidence interval.

use crate::error::StatsError;
use crate::normal::normal_quantile;

/// A two-sided confidence interval, in the unit of the quantity that it bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
    /// Nominal coverage as a fraction, such as 0.95.
    pub level: f64,
}

/// The number of standard errors on either side of a two-sided normal interval: 1.96 for level 0.95.
pub(crate) fn standard_errors(level: f64) -> Result<f64, StatsError> {
    check_level(level)?;
    // From the small tail, which keeps its digits when the level is close to 1.
    Ok(-normal_quantile((1.0 - level) / 2.0))
}

/// Checks that a level is a fraction strictly between 0 and 1 (NaN is not).
pub(crate) fn check_level(level: f64) -> Result<(), StatsError> {
    if level > 0.0 && level < 1.0 { Ok(()) } else { Err(StatsError::Level { level }) }
}
