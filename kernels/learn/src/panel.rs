//! The product that convolutions are made of: a panel, whose rows are a few registers wide and follow each other in
//! memory, with rows that lie as they are. Nothing is copied or packed here.

use candle_core::WithDType;
use pulp::{Arch, Simd, WithSimd};

/// An element that the processor's vectors hold.
pub(crate) trait Real: WithDType {
    /// A register of these elements.
    type Vector<S: Simd>: Copy;

    /// The vectors of a slice, whose length is a multiple of theirs.
    fn vectors<S: Simd>(slice: &[Self]) -> &[Self::Vector<S>];

    /// As [`Self::vectors`].
    fn vectors_mut<S: Simd>(slice: &mut [Self]) -> &mut [Self::Vector<S>];

    /// The same value in all lanes.
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;

    /// `a + b`.
    fn plus<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;

    /// `a * b + c`, rounded once where the processor can.
    fn multiply_add<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        c: Self::Vector<S>,
    ) -> Self::Vector<S>;

    /// Elements in a register.
    fn lanes<S: Simd>() -> usize {
        size_of::<Self::Vector<S>>() / size_of::<Self>()
    }
}

macro_rules! real {
    ($real:ty, $vector:ident, $as_simd:ident, $as_mut_simd:ident, $splat:ident, $add:ident, $multiply_add:ident) => {
        impl Real for $real {
            type Vector<S: Simd> = S::$vector;

            #[inline(always)]
            fn vectors<S: Simd>(slice: &[Self]) -> &[S::$vector] {
                S::$as_simd(slice).0
            }

            #[inline(always)]
            fn vectors_mut<S: Simd>(slice: &mut [Self]) -> &mut [S::$vector] {
                S::$as_mut_simd(slice).0
            }

            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: Self) -> S::$vector {
                simd.$splat(value)
            }

            #[inline(always)]
            fn plus<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(a, b)
            }

            #[inline(always)]
            fn multiply_add<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                simd.$multiply_add(a, b, c)
            }
        }
    };
}
real!(f32, f32s, as_simd_f32s, as_mut_simd_f32s, splat_f32s, add_f32s, mul_add_e_f32s);
real!(f64, f64s, as_simd_f64s, as_mut_simd_f64s, splat_f64s, add_f64s, mul_add_e_f64s);

/// `out = rows * panel`, or `out += rows * panel` with `accumulate`.
///
/// Each element of the product is a sum over the panel's rows in their order, whatever else is computed with it.
pub(crate) struct Product<'a, T> {
    /// `(depth, width)`, dense; the width is a multiple of the vectors' lanes and at most that of [`Widths`].
    pub(crate) panel: &'a [T],
    pub(crate) width: usize,
    /// `count` rows of `depth` elements, which start `row_stride` elements apart.
    pub(crate) rows: &'a [T],
    pub(crate) row_stride: usize,
    pub(crate) count: usize,
    /// `(count, width)`, dense.
    pub(crate) out: &'a mut [T],
    pub(crate) accumulate: bool,
}

/// How wide panels are on this processor, in elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Widths {
    /// Elements in a register.
    pub(crate) lanes: usize,
    /// The widest panel, which is the best one.
    pub(crate) panel: usize,
}

impl Widths {
    /// For elements `T`.
    pub(crate) fn of<T: Real>() -> Self {
        struct Ask<T>(std::marker::PhantomData<T>);
        impl<T: Real> WithSimd for Ask<T> {
            type Output = Widths;

            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> Widths {
                let lanes = T::lanes::<S>();
                Widths { lanes, panel: lanes * vectors_in_panel::<S>() }
            }
        }
        Arch::new().dispatch(Ask::<T>(std::marker::PhantomData))
    }

    /// The narrowest panel with `columns` columns.
    pub(crate) fn fitting(self, columns: usize) -> usize {
        columns.next_multiple_of(self.lanes)
    }
}

/// Rows that are multiplied at once. With the vectors of a panel they fill the registers with sums.
const ROWS: usize = 6;

const fn vectors_in_panel<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 4 } else { 2 }
}

impl<T: Real> Product<'_, T> {
    /// Computes on the calling thread only.
    pub(crate) fn compute(self) {
        let depth = self.panel.len() / self.width;
        assert_eq!(self.panel.len(), depth * self.width, "the panel has another size");
        assert!((self.count - 1) * self.row_stride + depth <= self.rows.len(), "the rows end early");
        assert_eq!(self.out.len(), self.count * self.width, "the product has another size");
        Arch::new().dispatch(self);
    }

    #[inline(always)]
    fn all_rows<S: Simd, const VECTORS: usize>(mut self, simd: S) {
        let mut first = 0;
        while first + ROWS <= self.count {
            self.some_rows::<S, VECTORS, ROWS>(simd, first);
            first += ROWS;
        }
        match self.count - first {
            1 => self.some_rows::<S, VECTORS, 1>(simd, first),
            2 => self.some_rows::<S, VECTORS, 2>(simd, first),
            3 => self.some_rows::<S, VECTORS, 3>(simd, first),
            4 => self.some_rows::<S, VECTORS, 4>(simd, first),
            5 => self.some_rows::<S, VECTORS, 5>(simd, first),
            _ => {}
        }
    }

    #[inline(always)]
    fn some_rows<S: Simd, const VECTORS: usize, const COUNT: usize>(&mut self, simd: S, first: usize) {
        let panel = T::vectors::<S>(self.panel).as_chunks::<VECTORS>().0;
        let depth = panel.len();
        let rows: [&[T]; COUNT] =
            std::array::from_fn(|row| &self.rows[(first + row) * self.row_stride..][..depth]);
        let mut sums = [[T::splat(simd, T::zero()); VECTORS]; COUNT];
        for (k, panel) in panel.iter().enumerate() {
            for (sums, row) in sums.iter_mut().zip(rows) {
                let factor = T::splat(simd, row[k]);
                for (sum, &vector) in sums.iter_mut().zip(panel) {
                    *sum = T::multiply_add(simd, factor, vector, *sum);
                }
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            let out = T::vectors_mut::<S>(&mut self.out[(first + row) * self.width..][..self.width]);
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = if self.accumulate { T::plus(simd, *out, sum) } else { sum };
            }
        }
    }
}

impl<T: Real> WithSimd for Product<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let vectors = self.width / T::lanes::<S>();
        assert!(
            self.width.is_multiple_of(T::lanes::<S>()) && vectors <= vectors_in_panel::<S>(),
            "a panel of another width"
        );
        match vectors {
            1 => self.all_rows::<S, 1>(simd),
            2 => self.all_rows::<S, 2>(simd),
            3 => self.all_rows::<S, 3>(simd),
            _ => self.all_rows::<S, 4>(simd),
        }
    }
}

/// `length` elements of `buffer` that begin where a register's load crosses no cache line; they hold anything.
pub(crate) fn aligned<T: Real>(buffer: &mut Vec<T>, length: usize) -> &mut [T] {
    const LINE_BYTES: usize = 64;
    let spare = LINE_BYTES / size_of::<T>();
    if buffer.len() < length + spare {
        buffer.resize(length + spare, T::zero());
    }
    let start = buffer.as_ptr().align_offset(LINE_BYTES).min(spare);
    &mut buffer[start..start + length]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{assert_close, wave};

    /// Every number of vectors and of rows that are left over, against sums written out.
    #[test]
    fn products_of_all_shapes() {
        let widths = Widths::of::<f64>();
        for width in (widths.lanes..=widths.panel).step_by(widths.lanes) {
            for count in 1..=2 * ROWS {
                let (depth, row_stride) = (9, 11);
                let panel = wave(depth * width, 0.1, 1.0);
                let rows = wave(count * row_stride - 2, 0.4, 1.0);
                let mut out = vec![1.0; count * width];
                let term =
                    |i: usize, k: usize| rows[i / width * row_stride + k] * panel[k * width + i % width];
                let product: Vec<f64> =
                    (0..out.len()).map(|i| (0..depth).map(|k| term(i, k)).sum::<f64>()).collect();
                for (accumulate, times) in [(false, 1.0), (true, 2.0)] {
                    let (panel, rows, out) = (&panel, &rows, &mut out);
                    Product { panel, width, rows, row_stride, count, out, accumulate }.compute();
                    let expected: Vec<f64> = product.iter().map(|value| value * times).collect();
                    assert_close(&format!("{count} rows, {width} wide"), out, &expected, 1e-14);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "the rows end early")]
    fn rows_outside_their_slice() {
        let (panel, width) = (&vec![0.0f32; 2 * Widths::of::<f32>().lanes], Widths::of::<f32>().lanes);
        let out = &mut vec![0.0; 2 * width];
        Product { panel, width, rows: &[0.0; 4], row_stride: 3, count: 2, out, accumulate: false }.compute();
    }
}
