//! Whether two decisions on the same rows differ, and what many such tests together allow to be said.

use crate::error::{StatsError, probabilities};

/// McNemar's test for two decisions on the same rows, from the rows on which only one of them is right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct McNemar {
    /// Two-sided exact p-value: the binomial test of equal odds (McNemar, Psychometrika 12 (1947) 153–157, in its
    /// exact form). Conservative when few rows are discordant.
    pub exact: f64,
    /// Two-sided mid-p value: the exact one less the probability of the outcome itself (Fagerland, Lydersen and
    /// Laake, BMC Medical Research Methodology 13 (2013) 91), which keeps its level and loses little power.
    pub mid_p: f64,
}

/// McNemar's test, from the numbers of rows on which only the first and only the second decision is right.
///
/// Both p-values are 1 when there is no such row: nothing speaks for a difference.
pub fn mcnemar(only_first_right: u64, only_second_right: u64) -> McNemar {
    let n = only_first_right + only_second_right;
    let fewer = only_first_right.min(only_second_right);
    let outcome = half_binomial(fewer, n);
    // From the outcome towards 0, because each term follows from the one above it.
    let (mut term, mut tail) = (outcome, outcome);
    for k in (1..=fewer).rev() {
        term *= k as f64 / (n - k + 1) as f64;
        tail += term;
    }
    McNemar { exact: (2.0 * tail).min(1.0), mid_p: (2.0 * tail - outcome).min(1.0) }
}

/// The probability of `k` heads in `n` tosses of a fair coin.
fn half_binomial(k: u64, n: u64) -> f64 {
    let ways: f64 = (1..=k).map(|i| ((n - k + i) as f64 / i as f64).ln()).sum();
    (ways - n as f64 * std::f64::consts::LN_2).exp()
}

/// P-values of a family of tests, adjusted so that the chance of any false rejection is at most the level that they
/// are compared with (Holm, Scandinavian Journal of Statistics 6 (1979) 65–70), in the order given.
///
/// # Errors
/// A p-value that is NaN or outside 0 to 1.
pub fn holm(p_values: &[f64]) -> Result<Vec<f64>, StatsError> {
    probabilities(p_values)?;
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&left, &right| p_values[left].total_cmp(&p_values[right]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut largest = 0.0_f64;
    for (rank, &place) in order.iter().enumerate() {
        largest = largest.max((p_values.len() - rank) as f64 * p_values[place]).min(1.0);
        adjusted[place] = largest;
    }
    Ok(adjusted)
}
