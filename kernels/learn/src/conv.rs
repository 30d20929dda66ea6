//! 3D convolution with its gradients, for candle.
//!
//! This file holds the operations as candle sees them; the arithmetic on CPU slices is in `conv_cpu`.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use crate::conv_cpu;
use crate::storage::{contiguous_slice, with_float};

/// Cross-correlation of `input` `(N, C, D, H, W)` with `weight` `(O, C, kd, kh, kw)`, without bias:
/// `out[n, o, d, h, w] = sum over c, i, j, k of input[n, c, d*s0 - p0 + i, h*s1 - p1 + j, w*s2 - p2 + k] *
/// weight[o, c, i, j, k]`, zero outside the input. `stride` and `padding` are in voxels along D, H, W.
///
/// Both tensors are f32 or f64; on a GPU the input is f32 or bf16 and the weight f32. The result is
/// `(N, O, D', H', W')` with `D' = (D + 2 p0 - kd) / s0 + 1` (rounded down), and so on. It has gradients for both
/// operands.
///
/// # Errors
/// If the shapes do not fit together or the kernel is larger than the padded input.
pub fn conv3d(input: &Tensor, weight: &Tensor, stride: [usize; 3], padding: [usize; 3]) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if input.device().is_cuda() {
        let channels_last = input.permute((0, 2, 3, 4, 1))?;
        let output = crate::conv_cuda::conv3d_channels_last(&channels_last, weight, stride, padding)?;
        return output.permute((0, 4, 1, 2, 3));
    }
    let geometry = Geometry::new(input.dims(), weight.dims(), stride, padding)?;
    input.contiguous()?.apply_op2(&weight.contiguous()?, Forward { geometry })
}

/// As [`conv3d`] for `input` `(N, D, H, W, C)`, the order of memory that a GPU is fastest in: `(N, D', H', W', O)`.
///
/// # Errors
/// As for [`conv3d`].
pub fn conv3d_channels_last(
    input: &Tensor,
    weight: &Tensor,
    stride: [usize; 3],
    padding: [usize; 3],
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if input.device().is_cuda() {
        return crate::conv_cuda::conv3d_channels_last(input, weight, stride, padding);
    }
    let output = conv3d(&input.permute((0, 4, 1, 2, 3))?, weight, stride, padding)?;
    output.permute((0, 2, 3, 4, 1))?.contiguous()
}

/// The sizes of one convolution. Triples are along D, H, W.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) input: [usize; 3],
    pub(crate) kernel: [usize; 3],
    pub(crate) output: [usize; 3],
    pub(crate) stride: [usize; 3],
    pub(crate) padding: [usize; 3],
}

impl Geometry {
    pub(crate) fn new(
        input: &[usize],
        weight: &[usize],
        stride: [usize; 3],
        padding: [usize; 3],
    ) -> Result<Self> {
        let (&[batch, in_channels, d, h, w], &[out_channels, weight_channels, kd, kh, kw]) = (input, weight)
        else {
            bail!(
                "conv3d: the input is {input:?} and the weight {weight:?}, expected (N, C, D, H, W) and (O, C, kd, kh, kw)"
            );
        };
        if in_channels != weight_channels {
            bail!(
                "conv3d: the input has {in_channels} channels and the weight {weight_channels}, expected the same"
            );
        }
        if input.iter().chain(weight).chain(&stride).any(|&size| size == 0) {
            bail!("conv3d: input {input:?}, weight {weight:?}, stride {stride:?}, expected no size of zero");
        }
        let (input, kernel) = ([d, h, w], [kd, kh, kw]);
        let mut output = [0; 3];
        for axis in 0..3 {
            let padded = input[axis] + 2 * padding[axis];
            if padded < kernel[axis] {
                bail!(
                    "conv3d: the kernel {kernel:?} is larger than the input {input:?} padded by {padding:?}"
                );
            }
            output[axis] = (padded - kernel[axis]) / stride[axis] + 1;
        }
        Ok(Self { batch, in_channels, out_channels, input, kernel, output, stride, padding })
    }

    pub(crate) fn input_voxels(&self) -> usize {
        self.input.iter().product()
    }

    pub(crate) fn output_voxels(&self) -> usize {
        self.output.iter().product()
    }

    /// Weights per pair of an input and an output channel.
    pub(crate) fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    fn input_shape(&self) -> Shape {
        let [d, h, w] = self.input;
        Shape::from((self.batch, self.in_channels, d, h, w))
    }

    fn weight_shape(&self) -> Shape {
        let [d, h, w] = self.kernel;
        Shape::from((self.out_channels, self.in_channels, d, h, w))
    }

    fn output_shape(&self) -> Shape {
        let [d, h, w] = self.output;
        Shape::from((self.batch, self.out_channels, d, h, w))
    }
}

struct Forward {
    geometry: Geometry,
}

impl CustomOp2 for Forward {
    fn name(&self) -> &'static str {
        "conv3d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let output = with_float!(self.name(), x, T => conv_cpu::forward::<T>(
            &self.geometry,
            contiguous_slice(self.name(), x, lx)?,
            contiguous_slice(self.name(), w, lw)?,
        ));
        Ok((output, self.geometry.output_shape()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let geometry = self.geometry;
        // The network's input needs no gradient, and it would be the most expensive one.
        let input_gradient = match input.track_op() {
            true => Some(gradient.apply_op2_no_bwd(weight, &BackwardData { geometry })?),
            false => None,
        };
        let weight_gradient = match weight.track_op() {
            true => Some(input.apply_op2_no_bwd(&gradient, &BackwardFilter { geometry })?),
            false => None,
        };
        Ok((input_gradient, weight_gradient))
    }
}

/// The gradient of the input from the gradient of the output and the weight.
struct BackwardData {
    geometry: Geometry,
}

impl CustomOp2 for BackwardData {
    fn name(&self) -> &'static str {
        "conv3d_backward_data"
    }

    fn cpu_fwd(
        &self,
        g: &CpuStorage,
        lg: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let gradient = with_float!(self.name(), g, T => conv_cpu::backward_data::<T>(
            &self.geometry,
            contiguous_slice(self.name(), g, lg)?,
            contiguous_slice(self.name(), w, lw)?,
        ));
        Ok((gradient, self.geometry.input_shape()))
    }
}

/// The gradient of the weight from the input and the gradient of the output.
struct BackwardFilter {
    geometry: Geometry,
}

impl CustomOp2 for BackwardFilter {
    fn name(&self) -> &'static str {
        "conv3d_backward_filter"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        g: &CpuStorage,
        lg: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let gradient = with_float!(self.name(), x, T => conv_cpu::backward_filter::<T>(
            &self.geometry,
            contiguous_slice(self.name(), x, lx)?,
            contiguous_slice(self.name(), g, lg)?,
        ));
        Ok((gradient, self.geometry.weight_shape()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{
        assert_close, assert_gradients_match_differences, golden, numbers, sizes, values, wave_var,
    };
    use candle_core::{DType, Device, Var};

    #[test]
    fn values_and_gradients_of_the_reference() {
        for case in golden("conv").as_array().unwrap() {
            let (stride, padding) = (sizes(&case["stride"]), sizes(&case["padding"]));
            let x = wave_var(&sizes::<5>(&case["x"]), 0.1, 1.0, 0.0);
            let w = wave_var(&sizes::<5>(&case["w"]), 0.4, 1.0, 0.0);
            // f64 up to the twelve digits of the stored values, f32 up to its rounding.
            for (dtype, tolerance) in [(DType::F64, 1e-11), (DType::F32, 2e-6)] {
                let x = Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap();
                let w = Var::from_tensor(&w.to_dtype(dtype).unwrap()).unwrap();
                let y = conv3d(&x, &w, stride, padding).unwrap();
                assert_eq!(y.dims(), sizes::<5>(&case["y_shape"]));
                assert_close("y", &values(&y), &numbers(&case["y"]), tolerance);
                let upstream = wave_var(y.dims(), 0.9, 1.0, 0.0).to_dtype(dtype).unwrap();
                let gradients = (y * upstream).unwrap().sum_all().unwrap().backward().unwrap();
                assert_close("dx", &values(gradients.get(&x).unwrap()), &numbers(&case["dx"]), tolerance);
                assert_close("dw", &values(gradients.get(&w).unwrap()), &numbers(&case["dw"]), tolerance);
            }
        }
    }

    #[test]
    fn gradients_are_the_finite_differences() {
        for (stride, padding) in [([1, 1, 1], [1, 1, 1]), ([2, 2, 2], [1, 1, 1]), ([1, 2, 3], [0, 2, 1])] {
            let x = wave_var(&[2, 2, 3, 4, 5], 0.1, 1.0, 0.0);
            let w = wave_var(&[3, 2, 3, 3, 3], 0.4, 1.0, 0.0);
            assert_gradients_match_differences(&[&x, &w], || conv3d(&x, &w, stride, padding).unwrap());
        }
    }

    /// Value and gradients by the definition, for the upstream gradient `dy`.
    fn written_out(g: &Geometry, x: &[f64], w: &[f64], dy: &[f64]) -> [Vec<f64>; 3] {
        let mut y = vec![0.0; g.batch * g.out_channels * g.output_voxels()];
        let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
        let axes = |index: usize, [_, h, w]: [usize; 3]| [index / (h * w), index / w % h, index % w];
        for (at, y) in y.iter_mut().enumerate() {
            let (row, voxel) = (at / g.output_voxels(), axes(at % g.output_voxels(), g.output));
            let (sample, o) = (row / g.out_channels, row % g.out_channels);
            for k in 0..g.in_channels * g.taps() {
                let (c, tap) = (k / g.taps(), axes(k % g.taps(), g.kernel));
                let inside = |axis: usize| {
                    let padded = voxel[axis] * g.stride[axis] + tap[axis];
                    padded.checked_sub(g.padding[axis]).filter(|&position| position < g.input[axis])
                };
                let (Some(d), Some(h), Some(v)) = (inside(0), inside(1), inside(2)) else { continue };
                let source = (sample * g.in_channels + c) * g.input_voxels();
                let source = source + (d * g.input[1] + h) * g.input[2] + v;
                let weight = o * g.in_channels * g.taps() + k;
                *y += x[source] * w[weight];
                dx[source] += w[weight] * dy[at];
                dw[weight] += x[source] * dy[at];
            }
        }
        [y, dx, dw]
    }

    /// More positions than a panel has columns, with its end inside a line and inside a sample; more channels than are
    /// unfolded or transposed at once; lines longer than a panel; residues that no tap meets; padding beyond the kernel.
    #[test]
    fn panels_and_blocks_of_all_kinds() {
        for (x, w, stride, padding) in [
            ([2, 5, 5, 6, 7], [70, 5, 3, 3, 3], [1, 1, 1], [1, 1, 1]),
            ([2, 5, 5, 6, 7], [70, 5, 3, 3, 3], [2, 2, 2], [1, 1, 1]),
            ([1, 70, 4, 5, 6], [3, 70, 3, 3, 3], [1, 1, 1], [1, 1, 1]),
            ([2, 34, 4, 6, 8], [9, 34, 3, 3, 3], [2, 2, 2], [1, 1, 1]),
            ([1, 3, 2, 3, 150], [7, 3, 3, 3, 3], [1, 1, 1], [1, 1, 1]),
            ([3, 4, 5, 6, 7], [5, 4, 1, 1, 1], [2, 2, 2], [0, 0, 0]),
            ([2, 3, 6, 5, 9], [4, 3, 2, 3, 4], [2, 1, 3], [0, 2, 1]),
            ([1, 2, 4, 5, 6], [3, 2, 2, 1, 3], [3, 1, 2], [3, 2, 4]),
            ([5, 1, 4, 4, 4], [64, 1, 2, 2, 2], [2, 2, 2], [0, 0, 0]),
        ] {
            let g = Geometry::new(&x, &w, stride, padding).unwrap();
            let (x, w) = (wave_var(&x, 0.1, 1.0, 0.0), wave_var(&w, 0.4, 1.0, 0.0));
            let dy = wave_var(g.output_shape().dims(), 0.9, 1.0, 0.0);
            let expected = written_out(&g, &values(&x), &values(&w), &values(&dy));
            for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 5e-6)] {
                let var = |var: &Var| Var::from_tensor(&var.to_dtype(dtype).unwrap()).unwrap();
                let (x, w) = (var(&x), var(&w));
                let y = conv3d(&x, &w, stride, padding).unwrap();
                let gradients = (&y * var(&dy).as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
                let found = [&y, gradients.get(&x).unwrap(), gradients.get(&w).unwrap()];
                for ((name, found), expected) in ["y", "dx", "dw"].into_iter().zip(found).zip(&expected) {
                    assert_close(&format!("{name} of {g:?}"), &values(found), expected, tolerance);
                }
            }
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let run = |threads: usize, x: &Var, w: &Var, stride: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let y = conv3d(x, w, [stride; 3], [1; 3]).unwrap();
                let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                [&y, gradients.get(x).unwrap(), gradients.get(w).unwrap()]
                    .map(|tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap())
            })
        };
        let var = |shape: &[usize], phase| {
            Var::from_tensor(&wave_var(shape, phase, 1.0, 0.0).to_dtype(DType::F32).unwrap()).unwrap()
        };
        // The second has so few positions that the channels are divided among the threads.
        for (x, w) in [([3, 18, 12, 13, 14], [20, 18, 3, 3, 3]), ([2, 30, 2, 4, 4], [200, 30, 3, 3, 3])] {
            let (x, w) = (var(&x, 0.1), var(&w, 0.4));
            for stride in [1, 2] {
                let one = run(1, &x, &w, stride);
                for threads in [2, 5] {
                    let some = run(threads, &x, &w, stride);
                    assert!(one == some, "stride {stride}: one and {threads} threads differ");
                }
            }
        }
    }

    #[test]
    fn shapes_that_do_not_fit() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let error =
            |x: &[usize], w: &[usize]| conv3d(&zeros(x), &zeros(w), [1; 3], [0; 3]).unwrap_err().to_string();
        assert!(error(&[1, 2, 4, 4, 4], &[3, 1, 1, 1, 1]).contains("2 channels and the weight 1"));
        assert!(error(&[1, 1, 2, 2, 2], &[3, 1, 3, 3, 3]).contains("larger than the input"));
        assert!(error(&[1, 4, 4, 4], &[3, 1, 1, 1, 1]).contains("expected (N, C, D, H, W)"));
    }
}
