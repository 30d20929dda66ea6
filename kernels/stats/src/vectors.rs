//! Vectors of one length, and how alike two of them are.

use crate::error::StatsError;

/// How many sums of products run side by side. It is fixed, so that a similarity is the same number on every processor
/// and wherever its two vectors lie: only then are equal vectors tied.
pub(crate) const LANES: usize = 8;

/// How alike two vectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Similarity {
    /// The cosine of the angle between them, from -1 to 1.
    Cosine,
    /// Their dot product.
    Dot,
}

/// Vectors of one length, such as the embeddings of volumes or of reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    dimension: usize,
    /// Numbers from the beginning of a vector to that of the next: the dimension, filled up with zeros to whole lanes.
    stride: usize,
    values: Vec<f32>,
}

impl Vectors {
    /// Copies vectors, one per row.
    ///
    /// # Errors
    /// A vector of another length than the first, or with a number that is NaN or infinite.
    pub fn new<'a>(rows: impl IntoIterator<Item = &'a [f32]>) -> Result<Self, StatsError> {
        let mut vectors = Self { dimension: 0, stride: 0, values: Vec::new() };
        for (row, vector) in rows.into_iter().enumerate() {
            if row == 0 {
                vectors.dimension = vector.len();
                vectors.stride = vector.len().next_multiple_of(LANES).max(LANES);
            }
            if vector.len() != vectors.dimension {
                let (found, expected) = (vector.len(), vectors.dimension);
                return Err(StatsError::Dimension { row, found, expected });
            }
            if vector.iter().any(|value| !value.is_finite()) {
                return Err(StatsError::VectorNotFinite { row });
            }
            vectors.values.extend_from_slice(vector);
            vectors.values.resize((row + 1) * vectors.stride, 0.0);
        }
        Ok(vectors)
    }

    /// The same vectors as a similarity compares them by their dot product: for the cosine, divided by their lengths.
    ///
    /// # Errors
    /// For the cosine, a vector of zeros, which has no direction.
    pub fn prepared(mut self, similarity: Similarity) -> Result<Self, StatsError> {
        if similarity == Similarity::Dot || self.values.is_empty() {
            return Ok(self);
        }
        for (row, vector) in self.values.chunks_exact_mut(self.stride).enumerate() {
            let length = vector.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt();
            if length == 0.0 {
                return Err(StatsError::ZeroVector { row });
            }
            for value in vector {
                *value = (f64::from(*value) / length) as f32;
            }
        }
        Ok(self)
    }

    /// The vectors of these rows, in this order.
    pub fn select(&self, rows: &[usize]) -> Self {
        let values = rows.iter().flat_map(|row| self.padded(*row)).copied().collect();
        Self { dimension: self.dimension, stride: self.stride, values }
    }

    /// How many vectors there are.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.stride).unwrap_or(0)
    }

    /// Whether there is no vector.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// How many numbers a vector has; 0 where there is no vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The numbers of one vector.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.padded(row)[..self.dimension]
    }

    /// The numbers of one vector and the zeros behind them.
    pub(crate) fn padded(&self, row: usize) -> &[f32] {
        &self.values[row * self.stride..(row + 1) * self.stride]
    }
}
