//! The operations of transformers, each with a gradient.
//!
//! candle has fused forms of the normalisation and the softmax (`candle_nn::LayerNorm`, `ops::softmax_last_dim`), whose
//! results carry no gradient, without an error. These are made of operations that have one, on every device.

use candle_core::{D, Result, Tensor, bail};

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
    candle_nn::ops::layer_norm_slow(x, gamma, beta, epsilon as f32)
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
