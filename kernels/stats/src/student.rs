//! Student's distribution: how far a mean of few values may be off.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

use crate::error::StatsError;
use crate::interval::check_level;

/// The number of standard errors on either side of a two-sided interval with so many degrees of freedom: 2.776 for
/// level 0.95 and 4 degrees.
///
/// Found by bisection of [`within`], to the last digits of an `f64`.
///
/// # Errors
/// A level outside 0 to 1.
pub(crate) fn student_standard_errors(level: f64, degrees: usize) -> Result<f64, StatsError> {
    check_level(level)?;
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    for _ in 0..80 {
        let middle = f64::midpoint(low, high);
        if within(middle, degrees) < level { low = middle } else { high = middle }
    }
    Ok(low.tan() * (degrees as f64).sqrt())
}

/// The probability that Student's t lies within ±t, where `angle = atan(t / √degrees)`: Abramowitz and Stegun 26.7.3 for
/// odd and 26.7.4 for even degrees of freedom, a finite sum.
fn within(angle: f64, degrees: usize) -> f64 {
    let (sine, cosine) = angle.sin_cos();
    let odd = degrees % 2 == 1;
    if degrees == 1 {
        return FRAC_2_PI * angle;
    }
    let (mut term, mut sum) = if odd { (cosine, cosine) } else { (1.0, 1.0) };
    let mut power = if odd { 1 } else { 0 };
    while power + 2 <= degrees - 2 {
        term *= cosine * cosine * (power + 1) as f64 / (power + 2) as f64;
        sum += term;
        power += 2;
    }
    if odd { FRAC_2_PI * (angle + sine * sum) } else { sine * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The quantiles of Student's distribution as printed tables have them, with more digits.
    #[test]
    fn quantiles_are_those_of_the_tables() {
        let expected = [
            (0.95, 1, 12.706_204_736_174_7),
            (0.95, 2, 4.302_652_729_749_46),
            (0.95, 3, 3.182_446_305_284_26),
            (0.95, 4, 2.776_445_105_197_79),
            (0.95, 5, 2.570_581_835_636_31),
            (0.95, 9, 2.262_157_162_798_2),
            (0.95, 30, 2.042_272_456_301_24),
            (0.99, 10, 3.169_272_672_616_95),
        ];
        for (level, degrees, quantile) in expected {
            let found = student_standard_errors(level, degrees).unwrap();
            assert!((found - quantile).abs() < 1e-9 * quantile, "{level} {degrees}: {found}");
        }
        assert!(student_standard_errors(1.0, 4).is_err());
    }
}
