//! The operations of transformers, each with a gradient.
//!
//! candle has fused forms of the normalisation and the softmax (`candle_nn::LayerNorm`, `ops::softmax_last_dim`), whose
//! results carry no gradient, without an error. These are made of operations that have one, on every device.

use candle_core::{D, DType, Result, Tensor, bail};

/// `softmax(q kᵀ / sqrt(d)) v` for each head (Vaswani et al., 2017, arXiv:1706.03762).
///
/// `query` is `(N, L, heads * d)`, `key` and `value` are `(N, S, heads * d)`, with the heads one behind the other; the
/// result is `(N, L, heads * d)`. `mask` `(N, S)`, of the same type, is 1 for a position that may be looked at and 0
/// for padding. Where a mask is 0 throughout, all positions weigh the same.
///
/// # Errors
/// If the shapes do not fit together or the last axis is no multiple of `heads`.
pub fn attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    let (batch, length, size) = query.dims3()?;
    let (key_batch, positions, key_size) = key.dims3()?;
    if key.shape() != value.shape() || (key_batch, key_size) != (batch, size) {
        bail!(
            "attention: query {:?}, key {:?}, value {:?}, expected (N, L, size) and twice (N, S, size)",
            query.dims(),
            key.dims(),
            value.dims()
        );
    }
    if heads == 0 || !size.is_multiple_of(heads) {
        bail!("attention: {size} values for {heads} heads, expected a multiple");
    }
    let split = |tensor: &Tensor, length: usize| {
        tensor.reshape((batch, length, heads, size / heads))?.transpose(1, 2)?.contiguous()
    };
    let scale = 1.0 / ((size / heads) as f64).sqrt();
    let (query, key, value) =
        ((split(query, length)? * scale)?, split(key, positions)?, split(value, positions)?);
    let mut scores = query.matmul(&key.t()?)?;
    if let Some(mask) = mask {
        // Far below every score, and small enough for bf16; minus infinity would make a row of padding NaN.
        let penalty = mask.affine(1e30, -1e30)?.reshape((batch, 1, 1, positions))?;
        scores = scores.broadcast_add(&penalty)?;
    }
    softmax(&scores)?.matmul(&value)?.transpose(1, 2)?.reshape((batch, length, size))
}

/// `exp(x) / sum(exp(x))` over the last axis.
///
/// # Errors
/// If `x` has no axis.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    // The shift by the largest value cancels out, and so does its gradient, which is therefore not followed.
    let largest = x.detach().max_keepdim(D::Minus1)?;
    let exponentials = x.broadcast_sub(&largest)?.exp()?;
    exponentials.broadcast_div(&exponentials.sum_keepdim(D::Minus1)?)
}

/// `gamma (x - mean) / sqrt(variance + epsilon) + beta` with mean and biased variance over the last axis (Ba et al.,
/// 2016, arXiv:1607.06450); `gamma` and `beta` are of the size of that axis.
///
/// # Errors
/// If the sizes do not fit.
pub fn layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, epsilon: f64) -> Result<Tensor> {
    // bf16 has too few digits for a mean; candle's slow form, which has a gradient, has an epsilon of f32.
    let wide = match x.dtype() {
        DType::F16 | DType::BF16 => DType::F32,
        dtype => dtype,
    };
    let input = x.to_dtype(wide)?;
    let centred = input.broadcast_sub(&input.mean_keepdim(D::Minus1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + epsilon)?.sqrt()?;
    let normalised = centred.broadcast_div(&deviation)?.to_dtype(x.dtype())?;
    normalised.broadcast_mul(gamma)?.broadcast_add(beta)
}

/// `x Φ(x)` with the exact normal distribution function Φ (Hendrycks and Gimpel, 2016, arXiv:1606.08415).
///
/// # Errors
/// If the type has no error function.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    // candle's own has the factor of its gradient to six digits only.
    let distribution = (x * std::f64::consts::FRAC_1_SQRT_2)?.erf()?.affine(0.5, 0.5)?;
    x * distribution
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{
        assert_gradients_match_differences, assert_is_case, torch_golden, values, wave_var,
    };
    use candle_core::{Device, Var};

    fn inputs() -> [Var; 3] {
        [
            wave_var(&[2, 4, 6], 0.1, 2.0, 0.0),
            wave_var(&[2, 5, 6], 0.4, 2.0, 0.0),
            wave_var(&[2, 5, 6], 0.7, 1.0, 0.0),
        ]
    }

    fn mask() -> Tensor {
        Tensor::new(&[[1.0f64, 1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 1.0, 1.0]], &Device::Cpu).unwrap()
    }

    #[test]
    fn values_and_gradients_of_pytorch() {
        let golden = torch_golden("transformer");
        let x = wave_var(&[2, 3, 8], 0.2, 1.0, 3.0);
        let (gamma, beta) = (wave_var(&[8], 1.1, 1.0, 1.5), wave_var(&[8], 2.2, 0.3, 0.0));
        assert_is_case("layer norm", &golden["layer_norm"], &[&x, &gamma, &beta], || {
            layer_norm(&x, &gamma, &beta, 1e-5).unwrap()
        });
        let x = wave_var(&[3, 7], 0.3, 8.0, 0.0);
        assert_is_case("softmax", &golden["softmax"], &[&x], || softmax(&x).unwrap());
        let x = wave_var(&[40], 0.3, 4.0, 0.0);
        assert_is_case("gelu", &golden["gelu"], &[&x], || gelu(&x).unwrap());
        let [q, k, v] = inputs();
        assert_is_case("attention", &golden["attention"], &[&q, &k, &v], || {
            attention(&q, &k, &v, 2, None).unwrap()
        });
        assert_is_case("masked attention", &golden["masked_attention"], &[&q, &k, &v], || {
            attention(&q, &k, &v, 3, Some(&mask())).unwrap()
        });
    }

    #[test]
    fn gradients_are_the_finite_differences() {
        let x = wave_var(&[2, 3, 8], 0.2, 1.0, 3.0);
        let (gamma, beta) = (wave_var(&[8], 1.1, 1.0, 1.5), wave_var(&[8], 2.2, 0.3, 0.0));
        assert_gradients_match_differences(&[&x, &gamma, &beta], || {
            layer_norm(&x, &gamma, &beta, 1e-5).unwrap()
        });
        assert_gradients_match_differences(&[&x], || softmax(&x).unwrap());
        assert_gradients_match_differences(&[&x], || gelu(&(x.as_tensor() - 3.0).unwrap()).unwrap());
        let [q, k, v] = inputs();
        assert_gradients_match_differences(&[&q, &k, &v], || {
            attention(&q, &k, &v, 3, Some(&mask())).unwrap()
        });
    }

    /// What candle's own forms would do to a training, and why they are not used. If this fails because a gradient is
    /// there, the fused form can be.
    #[test]
    fn the_fused_forms_of_candle_have_no_gradient() {
        let x = wave_var(&[2, 3, 8], 0.2, 1.0, 0.0);
        let (gamma, beta) = (wave_var(&[8], 1.1, 1.0, 1.5), wave_var(&[8], 2.2, 0.3, 0.0));
        let x = Var::from_tensor(&x.to_dtype(DType::F32).unwrap()).unwrap();
        let [gamma, beta] = [gamma, beta].map(|var| var.to_dtype(DType::F32).unwrap());
        let reaches = |y: Tensor| y.sqr().unwrap().sum_all().unwrap().backward().unwrap().get(&x).is_some();
        assert!(!reaches(candle_nn::ops::softmax_last_dim(&x).unwrap()));
        assert!(!reaches(candle_nn::ops::layer_norm(&x, &gamma, &beta, 1e-5).unwrap()));
        assert!(reaches(softmax(&x).unwrap()));
        assert!(reaches(layer_norm(&x, &gamma, &beta, 1e-5).unwrap()));
    }

    /// Each operation of candle that the networks are trained through.
    #[test]
    fn candle_operations_in_training_have_a_gradient() {
        let x = wave_var(&[2, 3, 4], 0.2, 1.0, 0.0);
        let other = wave_var(&[2, 3, 4], 0.5, 1.0, 0.0);
        let row = wave_var(&[4], 0.5, 1.0, 0.0);
        let ids = Tensor::new(&[0u32, 1, 1], &Device::Cpu).unwrap();
        let operations: [(&str, &dyn Fn() -> Result<Tensor>); 16] = [
            ("add", &|| x.add(&other)),
            ("broadcast_add", &|| x.broadcast_add(&row)),
            ("broadcast_mul", &|| x.broadcast_mul(&row)),
            ("broadcast_as", &|| x.narrow(0, 0, 1)?.broadcast_as((5, 3, 4))),
            ("cat", &|| Tensor::cat(&[x.as_tensor(), &other], 1)),
            ("embedding", &|| x.flatten_to(1)?.embedding(&ids)),
            ("erf", &|| x.erf()),
            ("flatten", &|| x.flatten_from(1)),
            ("matmul", &|| x.matmul(&other.t()?)),
            ("mean", &|| x.mean(D::Minus1)),
            ("narrow", &|| x.narrow(1, 0, 2)),
            ("reshape", &|| x.reshape((6, 4))),
            ("squeeze", &|| x.narrow(1, 0, 1)?.squeeze(1)),
            ("sum_keepdim", &|| x.sum_keepdim(D::Minus1)),
            ("to_dtype", &|| x.to_dtype(DType::F32)?.to_dtype(DType::F64)),
            ("transpose", &|| x.transpose(1, 2)?.contiguous()),
        ];
        for (name, operation) in operations {
            // Used twice, so that a gradient that overwrites another one would show.
            let loss = || {
                let sum = operation()?.sqr()?.sum_all()?;
                sum.add(&(x.as_tensor() * 10.0)?.sum_all()?)
            };
            let gradients = loss().unwrap().backward().unwrap();
            let gradient = values(gradients.get(&x).unwrap());
            let (step, original) = (1e-5, values(&x));
            let at = |change: f64| {
                let mut moved = original.clone();
                moved[0] += change;
                x.set(&Tensor::from_vec(moved, x.dims(), &Device::Cpu).unwrap()).unwrap();
                loss().unwrap().to_scalar::<f64>().unwrap()
            };
            let difference = (at(step) - at(-step)) / (2.0 * step);
            at(0.0);
            // Central differences are good to some 1e-8, and to 1e-2 through a rounding to f32.
            let tolerance = if name == "to_dtype" { 3e-2 } else { 1e-7 };
            assert!((gradient[0] - difference).abs() < tolerance, "{name}: {} and {difference}", gradient[0]);
            assert!(gradient[0] != 10.0, "{name}: the operation has no gradient");
        }
    }

    #[test]
    fn a_row_of_padding_is_finite_and_shapes_must_fit() {
        let [q, k, v] = inputs();
        let nothing = mask().zeros_like().unwrap();
        let y = attention(&q, &k, &v, 2, Some(&nothing)).unwrap();
        assert!(values(&y).iter().all(|value| value.is_finite()));
        let error = attention(&q, &k, &v, 4, None).unwrap_err().to_string();
        assert!(error.contains("6 values for 4 heads, expected a multiple"), "{error}");
        let error = attention(&q, &k, &q, 2, None).unwrap_err().to_string();
        assert!(error.contains("expected (N, L, size) and twice (N, S, size)"), "{error}");
    }
}
