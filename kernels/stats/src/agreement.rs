//! How far labellers agree, beyond chance.

use crate::confusion::Confusion;
use crate::error::StatsError;
use crate::interval::{Interval, standard_errors};

/// Cohen's kappa of two labellers with its asymptotic uncertainty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kappa {
    /// Agreement beyond chance: 1 is perfect, 0 what chance gives (Cohen, Educational and Psychological Measurement
    /// 20 (1960) 37–46).
    pub kappa: f64,
    /// Its standard error (Fleiss, Cohen and Everitt, Psychological Bulletin 72 (1969) 323–327). It trusts large
    /// numbers; for few or rare positives a bootstrap is the safer interval.
    pub standard_error: f64,
    /// `kappa ± z · standard_error`.
    pub interval: Interval,
}

/// Cohen's kappa from a square table of counts: `table[i][j]` rows that the first labeller calls `i` and the second
/// `j`. `level` is the coverage of the interval as a fraction, such as 0.95.
///
/// `None` without rows, and when chance alone agrees always (both labellers use one and the same category only).
///
/// # Errors
/// A table that is not square, and a level outside 0 to 1.
pub fn cohen_kappa(table: &[Vec<u64>], level: f64) -> Result<Option<Kappa>, StatsError> {
    let z = standard_errors(level)?;
    let Some(shares) = Shares::of(table)? else { return Ok(None) };
    let (observed, expected) = (shares.observed(), shares.expected());
    if 1.0 - expected <= f64::EPSILON {
        return Ok(None);
    }
    let kappa = (observed - expected) / (1.0 - expected);
    let mut agreed = 0.0;
    let mut differed = 0.0;
    for (i, row) in shares.cells.iter().enumerate() {
        for (j, share) in row.iter().enumerate() {
            if i == j {
                agreed += share * (1.0 - (shares.rows[i] + shares.columns[i]) * (1.0 - kappa)).powi(2);
            } else {
                differed += share * (shares.columns[i] + shares.rows[j]).powi(2);
            }
        }
    }
    let constant = (kappa - expected * (1.0 - kappa)).powi(2);
    let variance =
        (agreed + (1.0 - kappa).powi(2) * differed - constant) / ((1.0 - expected).powi(2) * shares.total);
    // A perfect table has variance 0, which rounding may put below it.
    let standard_error = variance.max(0.0).sqrt();
    let interval = Interval { low: kappa - z * standard_error, high: kappa + z * standard_error, level };
    Ok(Some(Kappa { kappa, standard_error, interval }))
}

/// Gwet's AC1 from a square table of counts (Gwet, British Journal of Mathematical and Statistical Psychology 61
/// (2008) 29–48): agreement beyond a chance that does not grow when one category is rare, as kappa's does.
///
/// `None` without rows and with fewer than two categories.
///
/// # Errors
/// A table that is not square.
pub fn gwet_ac1(table: &[Vec<u64>]) -> Result<Option<f64>, StatsError> {
    let Some(shares) = Shares::of(table)? else { return Ok(None) };
    let categories = table.len() as f64;
    if table.len() < 2 {
        return Ok(None);
    }
    let means = shares.rows.iter().zip(&shares.columns).map(|(row, column)| (row + column) / 2.0);
    let chance = means.map(|mean| mean * (1.0 - mean)).sum::<f64>() / (categories - 1.0);
    Ok(Some((shares.observed() - chance) / (1.0 - chance)))
}

impl Confusion {
    /// The counts as a square table: the reference standard down, the decision across, negative first.
    pub fn table(&self) -> Vec<Vec<u64>> {
        vec![vec![self.tn, self.fp], vec![self.fn_, self.tp]]
    }

    /// Gwet's AC1 of decision and reference standard; see [`gwet_ac1`]. `None` without rows.
    pub fn ac1(&self) -> Option<f64> {
        gwet_ac1(&self.table()).ok()?
    }
}

/// A square table of counts as fractions of all rows.
struct Shares {
    total: f64,
    cells: Vec<Vec<f64>>,
    rows: Vec<f64>,
    columns: Vec<f64>,
}

impl Shares {
    fn of(table: &[Vec<u64>]) -> Result<Option<Shares>, StatsError> {
        if let Some(row) = table.iter().find(|row| row.len() != table.len()) {
            return Err(StatsError::NotSquare { rows: table.len(), columns: row.len() });
        }
        let total = table.iter().flatten().sum::<u64>();
        if total == 0 {
            return Ok(None);
        }
        let total = total as f64;
        let cells: Vec<Vec<f64>> =
            table.iter().map(|row| row.iter().map(|count| *count as f64 / total).collect()).collect();
        let rows = cells.iter().map(|row| row.iter().sum()).collect();
        let columns = (0..table.len()).map(|j| cells.iter().map(|row| row[j]).sum()).collect();
        Ok(Some(Shares { total, cells, rows, columns }))
    }

    fn observed(&self) -> f64 {
        self.cells.iter().enumerate().map(|(i, row)| row[i]).sum()
    }

    fn expected(&self) -> f64 {
        self.rows.iter().zip(&self.columns).map(|(row, column)| row * column).sum()
    }
}

/// Fleiss' kappa of three or more labellers (Fleiss, Psychological Bulletin 76 (1971) 378–382): `counts[row][k]`
/// labellers call the row `k`; each row has the same number of labellers, at least two.
///
/// `None` without rows, and when all labels of all rows are one and the same category.
///
/// # Errors
/// Rows with different numbers of labellers or of categories, or with fewer than two labellers.
pub fn fleiss_kappa(counts: &[Vec<u64>]) -> Result<Option<f64>, StatsError> {
    let Some(first) = counts.first() else { return Ok(None) };
    let labellers: u64 = first.iter().sum();
    for (row, of_row) in counts.iter().enumerate() {
        if of_row.len() != first.len() || of_row.iter().sum::<u64>() != labellers || labellers < 2 {
            return Err(StatsError::UnevenRow { row });
        }
    }
    let (rows, m) = (counts.len() as f64, labellers as f64);
    let pairs = |of_row: &Vec<u64>| of_row.iter().map(|c| (c * c.saturating_sub(1)) as f64).sum::<f64>();
    let observed = counts.iter().map(|of_row| pairs(of_row) / (m * (m - 1.0))).sum::<f64>() / rows;
    let share = |k: usize| counts.iter().map(|of_row| of_row[k]).sum::<u64>() as f64 / (rows * m);
    let expected: f64 = (0..first.len()).map(|k| share(k).powi(2)).sum();
    if 1.0 - expected <= f64::EPSILON {
        return Ok(None);
    }
    Ok(Some((observed - expected) / (1.0 - expected)))
}

/// Krippendorff's alpha for nominal labels (Krippendorff, Content Analysis, 2004, chapter 11): any number of
/// labellers, of whom some may have no label for a row. `counts[row][k]` labellers call the row `k`; rows with
/// fewer than two labels say nothing of agreement and have no part.
///
/// `None` when no row has two labels, and when all labels are one and the same category.
///
/// # Errors
/// Rows with different numbers of categories.
pub fn krippendorff_alpha(counts: &[Vec<u64>]) -> Result<Option<f64>, StatsError> {
    let categories = counts.first().map_or(0, Vec::len);
    if let Some(row) = counts.iter().position(|of_row| of_row.len() != categories) {
        return Err(StatsError::UnevenRow { row });
    }
    let paired = || counts.iter().map(|of_row| (of_row, of_row.iter().sum::<u64>())).filter(|(_, n)| *n >= 2);
    let totals: Vec<f64> =
        (0..categories).map(|k| paired().map(|(of_row, _)| of_row[k] as f64).sum()).collect();
    let n: f64 = totals.iter().sum();
    let disagreeing = |of_row: &Vec<u64>, n: u64| {
        let agreeing: u64 = of_row.iter().map(|c| c * c).sum();
        (n * n - agreeing) as f64 / (n - 1) as f64
    };
    let observed: f64 = paired().map(|(of_row, n)| disagreeing(of_row, n)).sum();
    let expected = n * n - totals.iter().map(|total| total * total).sum::<f64>();
    if expected <= 0.0 {
        return Ok(None);
    }
    Ok(Some(1.0 - (n - 1.0) * observed / expected))
}
