//! Pooling over the whole volume.

use candle_core::{D, Result, Tensor};

/// The mean over D, H and W: `(N, C, D, H, W)` to `(N, C)`.
///
/// # Errors
/// If `input` has fewer than three axes.
pub fn global_average_pool(input: &Tensor) -> Result<Tensor> {
    input.flatten_from(2)?.mean(D::Minus1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn mean_and_its_gradient() {
        let input = Var::from_tensor(
            &Tensor::arange(0f64, 16., &Device::Cpu).unwrap().reshape((1, 2, 2, 2, 2)).unwrap(),
        );
        let input = input.unwrap();
        let pooled = global_average_pool(&input).unwrap();
        assert_eq!(pooled.to_vec2::<f64>().unwrap(), [[3.5, 11.5]]);
        let gradients = pooled.sum_all().unwrap().backward().unwrap();
        let gradient = gradients.get(&input).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(gradient, [0.125; 16]);
    }
}
