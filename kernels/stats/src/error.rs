//! What callers can get wrong.

use std::fmt;

/// Why a statistic was not computed. Data that merely leave a statistic undefined are no error: they give `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StatsError {
    /// Two columns that describe the same rows have different lengths.
    LengthMismatch {
        /// Number of rows of the first column.
        left: usize,
        /// Number of rows of the second column.
        right: usize,
    },
    /// A score is NaN, so it has no place in an order.
    NotANumber {
        /// Index of the first such row.
        row: usize,
    },
    /// A score that must be a probability lies outside 0 to 1.
    NotAProbability {
        /// Index of the first such row.
        row: usize,
        /// The score found there.
        score: f64,
    },
    /// A confidence level lies outside the open interval from 0 to 1.
    Level {
        /// The level asked for.
        level: f64,
    },
    /// A proportion counts more successes than trials.
    MoreSuccessesThanTrials {
        /// Number of successes.
        successes: u64,
        /// Number of trials.
        trials: u64,
    },
    /// A table of two labellers does not have as many columns as rows.
    NotSquare {
        /// Number of rows.
        rows: usize,
        /// Number of columns of the first row that differs.
        columns: usize,
    },
    /// A row of counts differs from the others in its number of labellers or of categories, or has one labeller.
    UnevenRow {
        /// Index of the first such row.
        row: usize,
    },
    /// A vector has another length than those that it is compared with.
    Dimension {
        /// Index of the first such vector.
        row: usize,
        /// Its length.
        found: usize,
        /// The length of the others.
        expected: usize,
    },
    /// A vector holds NaN or an infinity.
    VectorNotFinite {
        /// Index of the first such vector.
        row: usize,
    },
    /// A vector of zeros, whose direction is asked for.
    ZeroVector {
        /// Index of the first such vector.
        row: usize,
    },
    /// A similarity is NaN or infinite: its vectors are too long for their numbers.
    SimilarityNotFinite {
        /// Index of the query.
        query: usize,
    },
    /// A query has nothing that it could find.
    NoTarget {
        /// Index of the first such query.
        query: usize,
    },
    /// A finding has no pair of prompts.
    NoPrompts,
    /// A bootstrap was asked for no draws.
    NoDraws,
    /// A bootstrapped statistic was NaN or infinite instead of undefined (`None`).
    StatisticNotFinite {
        /// Index of the first such draw.
        draw: usize,
    },
}

impl fmt::Display for StatsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LengthMismatch { left, right } => {
                write!(
                    f,
                    "columns of {left} and {right} rows, expected equal lengths; join them by key first"
                )
            }
            Self::NotANumber { row } => {
                write!(f, "the score of row {row} is NaN, expected a number; leave rows without a score out")
            }
            Self::NotAProbability { row, score } => {
                write!(
                    f,
                    "the score of row {row} is {score}, expected a probability from 0 to 1; calibrate first"
                )
            }
            Self::Level { level } => {
                write!(f, "confidence level {level}, expected a fraction between 0 and 1 such as 0.95")
            }
            Self::MoreSuccessesThanTrials { successes, trials } => {
                write!(
                    f,
                    "{successes} successes in {trials} trials, expected at most as many successes as trials"
                )
            }
            Self::NotSquare { rows, columns } => {
                write!(f, "a table of {rows} rows and {columns} columns, expected as many columns as rows")
            }
            Self::UnevenRow { row } => {
                write!(
                    f,
                    "row {row} has another number of labellers or categories than the first, or one labeller; \
                     expected the same of every row, and two labellers at least"
                )
            }
            Self::Dimension { row, found, expected } => {
                write!(f, "vector {row} has {found} numbers, expected {expected} as the others have")
            }
            Self::VectorNotFinite { row } => {
                write!(f, "vector {row} holds NaN or an infinity, expected finite numbers; leave it out")
            }
            Self::ZeroVector { row } => {
                write!(
                    f,
                    "vector {row} is all zeros, expected one with a direction; compare by the dot product, or leave it out"
                )
            }
            Self::SimilarityNotFinite { query } => {
                write!(
                    f,
                    "a similarity of vector {query} is not finite, expected a number; compare by the cosine"
                )
            }
            Self::NoTarget { query } => {
                write!(f, "query {query} has no target in the gallery, expected one at least; leave it out")
            }
            Self::NoPrompts => f.write_str("0 pairs of prompts, expected at least 1"),
            Self::NoDraws => f.write_str("0 bootstrap draws, expected at least 1; 2000 are usual"),
            Self::StatisticNotFinite { draw } => {
                write!(
                    f,
                    "the statistic of draw {draw} is not finite, expected a number or None for undefined"
                )
            }
        }
    }
}

impl std::error::Error for StatsError {}

/// Checks that two columns describe the same rows.
pub(crate) fn equal_lengths(left: usize, right: usize) -> Result<(), StatsError> {
    if left == right { Ok(()) } else { Err(StatsError::LengthMismatch { left, right }) }
}

/// Checks that each score can be ordered; infinities can.
pub(crate) fn numbers(scores: &[f64]) -> Result<(), StatsError> {
    match scores.iter().position(|score| score.is_nan()) {
        Some(row) => Err(StatsError::NotANumber { row }),
        None => Ok(()),
    }
}

/// Checks that each score is a probability; NaN is reported as such.
pub(crate) fn probabilities(scores: &[f64]) -> Result<(), StatsError> {
    numbers(scores)?;
    match scores.iter().position(|score| !(0.0..=1.0).contains(score)) {
        Some(row) => Err(StatsError::NotAProbability { row, score: scores[row] }),
        None => Ok(()),
    }
}
