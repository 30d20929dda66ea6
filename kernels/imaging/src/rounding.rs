//! Rounding half to even without a call per value.
//!
//! Adding and taking away 1.5 * 2^(mantissa bits) leaves a float rounded by the hardware's own rounding mode.
//! Baseline x86-64 has no rounding instruction, so `round_ties_even` calls libm there and keeps a loop from
//! being vectorised.

/// Rounds half to even. Right for values of magnitude below 2^22, as every Hounsfield unit is.
pub(crate) fn round_half_even_f32(value: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 * 2^23
    (value + SHIFT) - SHIFT
}

/// Rounds half to even. Right for values of magnitude below 2^51.
pub(crate) fn round_half_even_f64(value: f64) -> f64 {
    const SHIFT: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
    (value + SHIFT) - SHIFT
}

#[cfg(test)]
mod tests {
    use super::{round_half_even_f32, round_half_even_f64};

    #[test]
    fn both_agree_with_the_standard_library() {
        for step in -131_072..=131_072 {
            let value = f64::from(step) / 4.0 + 1e-4 * f64::from(step % 3);
            assert_eq!(round_half_even_f64(value), value.round_ties_even());
            let narrow = value as f32;
            assert_eq!(round_half_even_f32(narrow), narrow.round_ties_even());
        }
    }
}
