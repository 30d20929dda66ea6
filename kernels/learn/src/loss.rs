//! Binary cross-entropy on logits, with masks and positive weights.

/// A loss and its gradient with respect to the logits.
#[derive(Clone, Debug, PartialEq)]
pub struct LossAndGradient {
    /// The weighted mean loss, in nats.
    pub loss: f64,
    /// The gradient of `loss`, one value per logit.
    pub gradient: Vec<f32>,
}

/// Binary cross-entropy with logits, `sum(w l) / sum(w)` over all `n * classes` entries with
/// `l = -(p t log s(x) + (1 - t) log(1 - s(x)))`, s the sigmoid, t the target, w the weight of the entry and p the
/// positive weight of its class.
///
/// All slices are row-major `(n, classes)`; `positive_weight` has one value per class, or is empty for 1. An entry of
/// weight zero is masked: its target is not read. Computed in f64 in the form that neither overflows nor cancels,
/// `(1 - t) x + (1 + (p - 1) t) (log(1 + exp(-|x|)) + max(-x, 0))`. With all weights 1 it is the mean over entries.
///
/// `None` where no entry has weight: there is no loss to speak of.
pub fn binary_cross_entropy(
    logits: &[f32],
    targets: &[f32],
    weights: &[f32],
    positive_weight: &[f32],
) -> Option<LossAndGradient> {
    assert_eq!(logits.len(), targets.len(), "one target per logit");
    assert_eq!(logits.len(), weights.len(), "one weight per logit");
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    if total <= 0.0 {
        return None;
    }
    let mut loss = 0.0;
    let mut gradient = vec![0.0; logits.len()];
    for (index, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        let positive = match positive_weight {
            [] => 1.0,
            per_class => f64::from(per_class[index % per_class.len()]),
        };
        let (x, target) = (f64::from(logits[index]), f64::from(targets[index]));
        let share = f64::from(weight) / total;
        let scale = 1.0 + (positive - 1.0) * target;
        loss += share * ((1.0 - target) * x + scale * ((-x.abs()).exp().ln_1p() + (-x).max(0.0)));
        gradient[index] = (share * ((1.0 - target) - scale * sigmoid(-x))) as f32;
    }
    Some(LossAndGradient { loss, gradient })
}

/// `1 / (1 + exp(-x))`, without overflow.
pub(crate) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{assert_close, golden, numbers};

    fn floats(value: &serde_json::Value) -> Vec<f32> {
        numbers(value).into_iter().map(|number| number as f32).collect()
    }

    #[test]
    fn value_and_gradient_of_the_reference() {
        let case = golden("loss");
        let (logits, targets) = (floats(&case["logits"]), floats(&case["targets"]));
        let (weights, positive) = (floats(&case["weights"]), floats(&case["positive"]));
        let found = binary_cross_entropy(&logits, &targets, &weights, &positive).unwrap();
        // The logits were rounded to f32.
        assert_close("loss", &[found.loss], &[case["loss"].as_f64().unwrap()], 1e-6);
        let gradient: Vec<f64> = found.gradient.iter().map(|&value| f64::from(value)).collect();
        assert_close("gradient", &gradient, &numbers(&case["gradient"]), 1e-6);
    }

    #[test]
    fn large_logits_neither_overflow_nor_cancel() {
        let found = binary_cross_entropy(&[500.0, -500.0, 500.0], &[1.0, 0.0, 0.0], &[1.0; 3], &[]).unwrap();
        assert_eq!(found.loss, 500.0 / 3.0);
        assert_eq!(found.gradient, [0.0, 0.0, 1.0 / 3.0]);
    }

    #[test]
    fn masked_targets_are_not_read() {
        let masked = binary_cross_entropy(&[0.3, 2.0], &[1.0, f32::NAN], &[1.0, 0.0], &[]).unwrap();
        let alone = binary_cross_entropy(&[0.3], &[1.0], &[1.0], &[]).unwrap();
        assert_eq!(
            (masked.loss, masked.gradient[0], masked.gradient[1]),
            (alone.loss, alone.gradient[0], 0.0)
        );
        assert_eq!(binary_cross_entropy(&[0.3], &[1.0], &[0.0], &[]), None);
    }

    #[test]
    fn a_bad_logit_is_not_hidden() {
        assert!(binary_cross_entropy(&[f32::NAN], &[1.0], &[1.0], &[]).unwrap().loss.is_nan());
    }
}
