//! Single-threaded matrix products on slices, by the `gemm` crate.

use candle_core::{DType, WithDType};

/// A read-only matrix in a slice, with free strides.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// A row-major matrix whose rows start `row_stride` elements apart; the last row may end early.
    pub(crate) fn new(data: &'a [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(
            rows > 0 && columns > 0,
            "a matrix has {rows} rows and {columns} columns, expected at least one"
        );
        let end = (rows - 1) * row_stride + columns;
        assert!(end <= data.len(), "a matrix ends at {end} in a slice of {}", data.len());
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The transpose, without a copy.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// `out = lhs * rhs`, or `out += lhs * rhs` with `accumulate`; `out` is row-major and dense.
///
/// Runs on the calling thread only, so that the order of the additions is a function of the shapes.
/// `T` is f32 or f64; anything else panics, and the callers dispatch on exactly these two.
#[expect(unsafe_code, reason = "the gemm crate takes raw pointers")]
pub(crate) fn multiply_into<T: WithDType>(out: &mut [T], lhs: Matrix<T>, rhs: Matrix<T>, accumulate: bool) {
    assert!(matches!(T::DTYPE, DType::F32 | DType::F64), "a product of {:?}, expected f32 or f64", T::DTYPE);
    assert_eq!(lhs.columns, rhs.rows, "the inner sizes of a matrix product differ");
    assert_eq!(out.len(), lhs.rows * rhs.columns, "the result of a matrix product has another size");
    // SAFETY: `Matrix` can only be made (and transposed) so that its last element lies inside its slice, `out` was
    // just checked to hold rows x columns dense elements and is borrowed mutably, hence overlaps neither operand;
    // T is one of the types gemm is written for. The strides are slice offsets and so fit isize.
    unsafe {
        gemm::gemm(
            lhs.rows,
            rhs.columns,
            lhs.columns,
            out.as_mut_ptr(),
            1,
            rhs.columns as isize,
            accumulate,
            lhs.data.as_ptr(),
            lhs.column_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.column_stride as isize,
            rhs.row_stride as isize,
            T::one(),
            T::one(),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_of_a_strided_and_a_transposed_matrix() {
        // [[1, 2], [3, 4]] inside rows of three, times the transpose of [[5, 6], [7, 8]], by hand.
        let lhs = [1.0, 2.0, -1.0, 3.0, 4.0];
        let rhs = [5.0, 6.0, 7.0, 8.0];
        let mut out = vec![100.0; 4];
        let product = (Matrix::new(&lhs, 2, 2, 3), Matrix::new(&rhs, 2, 2, 2).transposed());
        multiply_into::<f64>(&mut out, product.0, product.1, false);
        assert_eq!(out, [17.0, 23.0, 39.0, 53.0]);
        multiply_into::<f64>(&mut out, product.0, product.1, true);
        assert_eq!(out, [34.0, 46.0, 78.0, 106.0]);
    }

    #[test]
    #[should_panic(expected = "a matrix ends at 5 in a slice of 4")]
    fn matrix_outside_its_slice() {
        Matrix::new(&[0.0f32; 4], 2, 2, 3);
    }
}
