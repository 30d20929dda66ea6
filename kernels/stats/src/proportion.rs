//! Intervals of proportions.

use crate::error::StatsError;
use crate::interval::{Interval, standard_errors};

/// Wilson's score interval of a proportion of `successes` in `trials` (Wilson, Journal of the American
/// Statistical Association 22 (1927) 209–212), without continuity correction.
///
/// `level` is the coverage as a fraction, such as 0.95. `None` for 0 trials. The bound next to 0 successes is
/// exactly 0 and the one next to no failures exactly 1.
///
/// # Errors
/// More successes than trials, and a level outside 0 to 1.
pub fn wilson(successes: u64, trials: u64, level: f64) -> Result<Option<Interval>, StatsError> {
    let z = standard_errors(level)?;
    if successes > trials {
        return Err(StatsError::MoreSuccessesThanTrials { successes, trials });
    }
    if trials == 0 {
        return Ok(None);
    }
    let n = trials as f64;
    let proportion = successes as f64 / n;
    let shrink = 1.0 + z * z / n;
    let centre = (proportion + z * z / (2.0 * n)) / shrink;
    let half_width = z / shrink * (proportion * (1.0 - proportion) / n + z * z / (4.0 * n * n)).sqrt();
    let low = if successes == 0 { 0.0 } else { centre - half_width };
    let high = if successes == trials { 1.0 } else { centre + half_width };
    Ok(Some(Interval { low, high, level }))
}
