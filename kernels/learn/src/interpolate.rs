//! Interpolation along D, H and W with its gradient, which candle's own lacks or gets wrong where its input is used
//! twice.

use candle_core::{Result, Tensor, bail};

/// Which points of the two grids lie on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// The outer corners of the outermost voxels (PyTorch's `align_corners=False`).
    Corners,
    /// The centres of the outermost voxels (`align_corners=True`).
    Centres,
}

/// Trilinear interpolation of `(N, C, D, H, W)` to `size` voxels along D, H, W; bilinear where an axis stays as it is.
/// Beyond the outermost centres the outermost value is repeated. There is no smoothing before a reduction.
///
/// Each axis is a product with a constant matrix, whose gradient is exact.
///
/// # Errors
/// If the input has not five axes or a size is zero.
pub fn interpolate_linear(input: &Tensor, size: [usize; 3], alignment: Alignment) -> Result<Tensor> {
    if input.rank() != 5 || size.contains(&0) || input.elem_count() == 0 {
        bail!("interpolate: {:?} to {size:?}, expected (N, C, D, H, W) and no size of zero", input.dims());
    }
    let mut output = input.clone();
    for (axis, &to) in size.iter().enumerate() {
        let from = input.dim(2 + axis)?;
        if from == to {
            continue;
        }
        let matrix = Tensor::from_vec(weights(from, to, alignment), (to, from), input.device())?;
        let matrix = matrix.to_dtype(input.dtype())?.t()?;
        let lines = output.transpose(2 + axis, 4)?.contiguous()?;
        let shape = [&lines.dims()[..4], &[to]].concat();
        let product = lines.reshape(((), from))?.matmul(&matrix)?;
        output = product.reshape(shape)?.transpose(2 + axis, 4)?;
    }
    output.contiguous()
}

/// Every voxel of `(N, C, D, H, W)` repeated `factors` times along D, H, W: nearest-neighbour interpolation by whole
/// factors.
///
/// # Errors
/// If the input has not five axes.
pub fn repeat_nearest(input: &Tensor, factors: [usize; 3]) -> Result<Tensor> {
    let (n, c, d, h, w) = input.dims5()?;
    let [fd, fh, fw] = factors;
    let repeated =
        input.reshape(&[n * c, d, 1, h, 1, w, 1][..])?.broadcast_as(&[n * c, d, fd, h, fh, w, fw][..])?;
    repeated.contiguous()?.reshape((n, c, d * fd, h * fh, w * fw))
}

/// Row-major `(to, from)`: the share of every value of a line of `from` in each of `to`.
fn weights(from: usize, to: usize, alignment: Alignment) -> Vec<f64> {
    let mut weights = vec![0.0; to * from];
    for (index, row) in weights.chunks_exact_mut(from).enumerate() {
        let position = match alignment {
            Alignment::Corners => (index as f64 + 0.5) * from as f64 / to as f64 - 0.5,
            Alignment::Centres => index as f64 * (from - 1) as f64 / (to - 1).max(1) as f64,
        };
        let position = position.clamp(0.0, (from - 1) as f64);
        let low = position as usize;
        let share = position - low as f64;
        row[low] += 1.0 - share;
        row[(low + 1).min(from - 1)] += share;
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{
        assert_gradients_match_differences, assert_is_case, sizes, torch_golden, values, wave_var,
    };

    #[test]
    fn values_and_gradients_of_pytorch() {
        let golden = torch_golden("interpolate");
        let x = wave_var(&[1, 2, 4, 5, 6], 0.1, 1.0, 0.0);
        for case in golden["linear"].as_array().unwrap() {
            let alignment = match case["aligned"].as_bool().unwrap() {
                true => Alignment::Centres,
                false => Alignment::Corners,
            };
            assert_is_case("linear", case, &[&x], || {
                interpolate_linear(&x, sizes(&case["size"]), alignment).unwrap()
            });
        }
        assert_is_case("nearest", &golden["nearest"], &[&x], || repeat_nearest(&x, [1, 2, 3]).unwrap());
    }

    #[test]
    fn gradients_are_the_finite_differences() {
        let x = wave_var(&[1, 2, 2, 3, 2], 0.1, 1.0, 0.0);
        for alignment in [Alignment::Corners, Alignment::Centres] {
            assert_gradients_match_differences(&[&x], || {
                interpolate_linear(&x, [3, 2, 5], alignment).unwrap()
            });
        }
        assert_gradients_match_differences(&[&x], || repeat_nearest(&x, [2, 1, 2]).unwrap());
    }

    /// candle's own nearest interpolation overwrites the gradient of the other use.
    #[test]
    fn a_repeated_tensor_that_is_used_elsewhere_gets_both_gradients() {
        let x = wave_var(&[1, 1, 1, 3, 3], 0.1, 1.0, 0.0);
        let loss = repeat_nearest(&x, [1, 2, 2]).unwrap().sum_all().unwrap();
        let loss = loss.add(&x.sum_all().unwrap()).unwrap();
        let gradients = loss.backward().unwrap();
        assert_eq!(values(gradients.get(&x).unwrap()), [5.0; 9]);
    }

    #[test]
    fn sizes_that_cannot_work() {
        let x = wave_var(&[1, 1, 2, 3, 3], 0.1, 1.0, 0.0);
        let error = interpolate_linear(&x, [0, 3, 3], Alignment::Corners).unwrap_err().to_string();
        assert!(error.contains("expected (N, C, D, H, W) and no size of zero"), "{error}");
    }
}
