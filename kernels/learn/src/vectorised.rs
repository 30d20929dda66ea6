//! Loops compiled for the processor that they run on.

use pulp::{Arch, Simd, WithSimd};

/// Runs `work` in code that is compiled for the widest vectors of this processor; mark the closure `#[inline(always)]`,
/// and what it calls.
///
/// The loops are vectorised as they would be elsewhere: no product is fused with a sum, so that all processors give the
/// same bits.
#[inline(always)]
pub(crate) fn vectorised<R>(work: impl FnMut() -> R) -> R {
    struct Task<F>(F);
    impl<F: FnMut() -> R, R> WithSimd for Task<F> {
        type Output = R;

        // By reference: a closure that is called by value goes through a function that is not inlined.
        #[inline(always)]
        fn with_simd<S: Simd>(mut self, _: S) -> R {
            (self.0)()
        }
    }
    Arch::new().dispatch(Task(work))
}
