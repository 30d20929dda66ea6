//! The contrastive loss of paired samples.

/// The symmetric cross-entropy of a matrix of similarities and its gradient.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Contrast {
    /// In nats.
    pub(crate) loss: f64,
    /// One value per similarity.
    pub(crate) gradient: Vec<f32>,
}

/// `(CE(S, i) + CE(Sᵀ, i)) / 2` over the rows of the square matrix `similarities` `(n, n)`, where row i is an image, column
/// j a text, and the pairs lie on the diagonal (Radford et al., 2021, arXiv:2103.00020). Computed in f64.
///
/// `group` numbers the texts: a pair that is not on the diagonal but whose texts have one number is no counterexample, and
/// is left out of both sums.
pub(crate) fn contrast(similarities: &[f32], group: &[usize]) -> Contrast {
    let n = group.len();
    assert_eq!(similarities.len(), n * n, "a square of similarities");
    let mut gradient = vec![0.0f64; n * n];
    let mut loss = 0.0;
    for own in 0..n {
        for [row_step, column_step] in [[0, 1], [1, 0]] {
            // The row of an image, then the column of a text.
            let place = |other: usize| {
                (own + row_step * other - row_step * own) * n + own + column_step * other - column_step * own
            };
            let counts = |other: &usize| *other == own || group[*other] != group[own];
            let values: Vec<(usize, f64)> = (0..n)
                .filter(counts)
                .map(|other| (place(other), f64::from(similarities[place(other)])))
                .collect();
            let largest = values.iter().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = values.iter().map(|(_, value)| (value - largest).exp()).sum();
            let diagonal = own * n + own;
            loss += largest + sum.ln() - f64::from(similarities[diagonal]);
            for (place, value) in values {
                gradient[place] += (value - largest).exp() / sum;
            }
            gradient[diagonal] -= 1.0;
        }
    }
    let share = 1.0 / (2 * n) as f64;
    Contrast {
        loss: loss * share,
        gradient: gradient.into_iter().map(|value| (value * share) as f32).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pairs_by_hand() {
        // Both rows and both columns are a softmax of two values that differ by 2 and by 1.
        let found = contrast(&[2.0, 0.0, 1.0, 2.0], &[0, 1]);
        let softplus = |x: f64| x.exp().ln_1p();
        let expected = (softplus(-2.0) + softplus(-1.0) + softplus(-1.0) + softplus(-2.0)) / 4.0;
        assert!((found.loss - expected).abs() < 1e-12, "{found:?}");
        let total: f32 = found.gradient.iter().sum();
        assert!(total.abs() < 1e-7, "a shift of all similarities changes nothing: {found:?}");
    }

    #[test]
    fn the_gradient_is_the_finite_difference() {
        let similarities: Vec<f32> = (0..16).map(|i| (i as f32 * 0.7).sin() * 2.0).collect();
        for group in [[0, 1, 2, 3], [0, 1, 0, 3]] {
            let found = contrast(&similarities, &group);
            for place in 0..16 {
                let moved = |step: f32| {
                    let mut other = similarities.clone();
                    other[place] += step;
                    contrast(&other, &group).loss
                };
                let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                assert!((difference - f64::from(found.gradient[place])).abs() < 1e-4, "{place}");
            }
        }
    }

    #[test]
    fn an_equal_text_is_no_counterexample() {
        let found = contrast(&[1.0, 9.0, 9.0, 1.0], &[0, 0]);
        assert_eq!((found.loss, found.gradient), (0.0, vec![0.0; 4]));
    }

    #[test]
    fn large_similarities_do_not_overflow() {
        let found = contrast(&[1e4, 0.0, 0.0, 1e4], &[0, 1]);
        assert_eq!(found.loss, 0.0);
    }
}
