//! Pooling with its gradients: over windows, and over the whole volume.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

#[cfg(feature = "cuda")]
use crate::pool_cuda::{Pooling, pool3d_channels_last};
use crate::storage::{contiguous_slice, with_float};

/// The largest value of each window of `input` `(N, C, D, H, W)`, f32 or f64, on a GPU f32 or bf16; what lies outside
/// the input is left out. Triples are in voxels along D, H, W; the result is `(N, C, D', H', W')` with
/// `D' = (D + 2 padding - kernel) / stride + 1`, rounded down, and so on.
///
/// The gradient of a window goes to its first largest value in the order of memory. A NaN is the largest value.
///
/// # Errors
/// If the windows do not fit: more padding than half the kernel, a kernel larger than the padded input, or a size of
/// zero.
pub fn max_pool3d(
    input: &Tensor,
    kernel: [usize; 3],
    stride: [usize; 3],
    padding: [usize; 3],
) -> Result<Tensor> {
    let windows = Windows::new("max_pool3d", input.dims(), kernel, stride, padding)?;
    #[cfg(feature = "cuda")]
    if input.device().is_cuda() {
        let channels_last = input.permute((0, 2, 3, 4, 1))?;
        let output = pool3d_channels_last(&channels_last, Pooling::Max, kernel, stride, padding)?;
        return output.permute((0, 4, 1, 2, 3));
    }
    input.contiguous()?.apply_op1(MaxPool { windows })
}

/// The mean of each window of `input`, with the sizes of [`max_pool3d`]. The padding counts as zeros, so that every
/// sum is divided by the size of the kernel (PyTorch's `count_include_pad`).
///
/// # Errors
/// As for [`max_pool3d`].
pub fn average_pool3d(
    input: &Tensor,
    kernel: [usize; 3],
    stride: [usize; 3],
    padding: [usize; 3],
) -> Result<Tensor> {
    let windows = Windows::new("average_pool3d", input.dims(), kernel, stride, padding)?;
    #[cfg(feature = "cuda")]
    if input.device().is_cuda() {
        let channels_last = input.permute((0, 2, 3, 4, 1))?;
        let output = pool3d_channels_last(&channels_last, Pooling::Average, kernel, stride, padding)?;
        return output.permute((0, 4, 1, 2, 3));
    }
    input.contiguous()?.apply_op1(AveragePool { windows })
}

/// As [`max_pool3d`] for `input` `(N, D, H, W, C)`, the order of memory that a GPU is fastest in: `(N, D', H', W', C)`.
///
/// # Errors
/// As for [`max_pool3d`].
pub fn max_pool3d_channels_last(
    input: &Tensor,
    kernel: [usize; 3],
    stride: [usize; 3],
    padding: [usize; 3],
) -> Result<Tensor> {
    let channels_first = input.permute((0, 4, 1, 2, 3))?;
    #[cfg(feature = "cuda")]
    if input.device().is_cuda() {
        Windows::new("max_pool3d", channels_first.dims(), kernel, stride, padding)?;
        return pool3d_channels_last(input, Pooling::Max, kernel, stride, padding);
    }
    let output = max_pool3d(&channels_first, kernel, stride, padding)?;
    output.permute((0, 2, 3, 4, 1))?.contiguous()
}

/// As [`average_pool3d`] for `input` `(N, D, H, W, C)`: `(N, D', H', W', C)`.
///
/// # Errors
/// As for [`max_pool3d`].
pub fn average_pool3d_channels_last(
    input: &Tensor,
    kernel: [usize; 3],
    stride: [usize; 3],
    padding: [usize; 3],
) -> Result<Tensor> {
    let channels_first = input.permute((0, 4, 1, 2, 3))?;
    #[cfg(feature = "cuda")]
    if input.device().is_cuda() {
        Windows::new("average_pool3d", channels_first.dims(), kernel, stride, padding)?;
        return pool3d_channels_last(input, Pooling::Average, kernel, stride, padding);
    }
    let output = average_pool3d(&channels_first, kernel, stride, padding)?;
    output.permute((0, 2, 3, 4, 1))?.contiguous()
}

/// The mean over D, H and W: `(N, C, D, H, W)` to `(N, C)`.
///
/// # Errors
/// If `input` has fewer than three axes.
pub fn global_average_pool(input: &Tensor) -> Result<Tensor> {
    input.flatten_from(2)?.mean(D::Minus1)
}

/// The windows of one pooling. Triples are along D, H, W.
#[derive(Clone, Debug)]
struct Windows {
    batch: usize,
    channels: usize,
    input: [usize; 3],
    output: [usize; 3],
    /// The voxels of the input that each position of the output looks at, per axis.
    ranges: [Vec<Range<usize>>; 3],
    /// Voxels in a window, padding included.
    taps: usize,
}

impl Windows {
    fn new(
        op: &str,
        shape: &[usize],
        kernel: [usize; 3],
        stride: [usize; 3],
        padding: [usize; 3],
    ) -> Result<Self> {
        let &[batch, channels, d, h, w] = shape else {
            bail!("{op}: the input is {shape:?}, expected (N, C, D, H, W)");
        };
        let input = [d, h, w];
        if shape.iter().chain(&kernel).chain(&stride).any(|&size| size == 0) {
            bail!("{op}: input {shape:?}, kernel {kernel:?}, stride {stride:?}, expected no size of zero");
        }
        let mut ranges = [const { Vec::new() }; 3];
        for axis in 0..3 {
            let (size, kernel, padding) = (input[axis], kernel[axis], padding[axis]);
            if 2 * padding > kernel {
                bail!("{op}: {padding} voxels of padding, expected at most half the kernel of {kernel}");
            }
            if size + 2 * padding < kernel {
                bail!("{op}: the kernel of {kernel} is larger than the input {input:?} padded by {padding}");
            }
            let count = (size + 2 * padding - kernel) / stride[axis] + 1;
            ranges[axis] = (0..count)
                .map(|index| {
                    let start = index * stride[axis];
                    start.saturating_sub(padding)..(start + kernel).saturating_sub(padding).min(size)
                })
                .collect();
        }
        let output = std::array::from_fn(|axis| ranges[axis].len());
        Ok(Self { batch, channels, input, output, ranges, taps: kernel.iter().product() })
    }

    fn input_voxels(&self) -> usize {
        self.input.iter().product()
    }

    fn output_voxels(&self) -> usize {
        self.output.iter().product()
    }

    fn output_shape(&self) -> Shape {
        let [d, h, w] = self.output;
        Shape::from((self.batch, self.channels, d, h, w))
    }

    fn input_shape(&self) -> Shape {
        let [d, h, w] = self.input;
        Shape::from((self.batch, self.channels, d, h, w))
    }

    /// Calls `f` with each position of the output plane and the lines of its window: ranges of voxels of the input
    /// plane that lie side by side, in the order of memory.
    fn for_each(&self, mut f: impl FnMut(usize, &mut dyn Iterator<Item = Range<usize>>)) {
        let [_, height, width] = self.input;
        let mut position = 0;
        for depths in &self.ranges[0] {
            for rows in &self.ranges[1] {
                for columns in &self.ranges[2] {
                    let mut lines =
                        depths.clone().flat_map(|d| rows.clone().map(move |h| (d, h))).map(|(d, h)| {
                            let line = (d * height + h) * width;
                            line + columns.start..line + columns.end
                        });
                    f(position, &mut lines);
                    position += 1;
                }
            }
        }
    }

    /// Runs `f` on every plane of the result beside the plane of `operand` that belongs to it. Planes hold
    /// `lengths` values: of the result, of the operand.
    fn planes<T: WithDType>(
        &self,
        operand: &[T],
        lengths: [usize; 2],
        f: impl Fn(&mut [T], &[T]) + Sync,
    ) -> CpuStorage {
        let mut result = vec![T::zero(); self.batch * self.channels * lengths[0]];
        let planes = result.par_chunks_mut(lengths[0]).zip(operand.par_chunks(lengths[1]));
        planes.for_each(|(result, operand)| f(result, operand));
        T::to_cpu_storage_owned(result)
    }

    fn maximum<T: WithDType>(&self, x: &[T]) -> CpuStorage {
        self.planes(x, [self.output_voxels(), self.input_voxels()], |y, x| {
            self.for_each(|position, lines| y[position] = largest(x, lines).1);
        })
    }

    /// The gradient of the input: that of each window goes to its largest voxel.
    fn maximum_gradient<T: WithDType>(&self, x: &[T], dy: &[T]) -> CpuStorage {
        let (inputs, outputs) = (self.input_voxels(), self.output_voxels());
        let mut dx = vec![T::zero(); x.len()];
        let planes = dx.par_chunks_mut(inputs).zip(x.par_chunks(inputs)).zip(dy.par_chunks(outputs));
        planes.for_each(|((dx, x), dy)| {
            self.for_each(|position, lines| dx[largest(x, lines).0] += dy[position]);
        });
        T::to_cpu_storage_owned(dx)
    }

    fn mean<T: WithDType>(&self, x: &[T]) -> CpuStorage {
        let share = T::from_f64(1.0 / self.taps as f64);
        self.planes(x, [self.output_voxels(), self.input_voxels()], |y, x| {
            self.for_each(|position, lines| {
                let mut sum = T::zero();
                for line in lines {
                    for &value in &x[line] {
                        sum += value;
                    }
                }
                y[position] = sum * share;
            });
        })
    }

    /// The gradient of the input: every voxel of a window gets its share.
    fn mean_gradient<T: WithDType>(&self, dy: &[T]) -> CpuStorage {
        let share = T::from_f64(1.0 / self.taps as f64);
        self.planes(dy, [self.input_voxels(), self.output_voxels()], |dx, dy| {
            self.for_each(|position, lines| {
                for line in lines {
                    for value in &mut dx[line] {
                        *value += dy[position] * share;
                    }
                }
            });
        })
    }
}

/// The index of the first largest value of a window, and the value.
fn largest<T: WithDType>(x: &[T], lines: &mut dyn Iterator<Item = Range<usize>>) -> (usize, T) {
    let is_nan = |value: T| value.partial_cmp(&value).is_none();
    let mut best: Option<(usize, T)> = None;
    for line in lines {
        for index in line {
            let value = x[index];
            // A NaN wins, and then stays.
            let wins = best.is_none_or(|(_, best)| value > best || (is_nan(value) && !is_nan(best)));
            if wins {
                best = Some((index, value));
            }
        }
    }
    // A window holds a voxel: the padding is at most half the kernel.
    best.unwrap_or((0, T::zero()))
}

struct MaxPool {
    windows: Windows,
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool3d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let output = with_float!(self.name(), x, T => {
            self.windows.maximum::<T>(contiguous_slice(self.name(), x, lx)?)
        });
        Ok((output, self.windows.output_shape()))
    }

    fn bwd(&self, input: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let op = MaxPoolGradient { windows: self.windows.clone() };
        Ok(Some(input.apply_op2_no_bwd(&gradient.contiguous()?, &op)?))
    }
}

struct MaxPoolGradient {
    windows: Windows,
}

impl CustomOp2 for MaxPoolGradient {
    fn name(&self) -> &'static str {
        "max_pool3d_gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        g: &CpuStorage,
        lg: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let gradient = with_float!(self.name(), x, T => self.windows.maximum_gradient::<T>(
            contiguous_slice(self.name(), x, lx)?,
            contiguous_slice(self.name(), g, lg)?,
        ));
        Ok((gradient, self.windows.input_shape()))
    }
}

struct AveragePool {
    windows: Windows,
}

impl CustomOp1 for AveragePool {
    fn name(&self) -> &'static str {
        "average_pool3d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let output = with_float!(self.name(), x, T => {
            self.windows.mean::<T>(contiguous_slice(self.name(), x, lx)?)
        });
        Ok((output, self.windows.output_shape()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let op = AveragePoolGradient { windows: self.windows.clone() };
        Ok(Some(gradient.contiguous()?.apply_op1_no_bwd(&op)?))
    }
}

struct AveragePoolGradient {
    windows: Windows,
}

impl CustomOp1 for AveragePoolGradient {
    fn name(&self) -> &'static str {
        "average_pool3d_gradient"
    }

    fn cpu_fwd(&self, g: &CpuStorage, lg: &Layout) -> Result<(CpuStorage, Shape)> {
        let gradient = with_float!(self.name(), g, T => {
            self.windows.mean_gradient::<T>(contiguous_slice(self.name(), g, lg)?)
        });
        Ok((gradient, self.windows.input_shape()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{
        assert_gradients_match_differences, assert_is_case, sizes, torch_golden, values, wave_var,
    };
    use candle_core::{DType, Device, Var};

    /// Kernel, stride and padding: a stem's, a transition's, an image's, and one that leaves voxels out.
    const FORMS: [[[usize; 3]; 3]; 4] = [
        [[3; 3], [2; 3], [1; 3]],
        [[2; 3], [2; 3], [0; 3]],
        [[1, 3, 3], [1, 2, 2], [0, 1, 1]],
        [[2, 1, 3], [3, 2, 1], [1, 0, 0]],
    ];

    #[test]
    fn windows_written_out() {
        let x = Tensor::arange(0f64, 12.0, &Device::Cpu).unwrap().reshape((1, 1, 1, 3, 4)).unwrap();
        let largest = max_pool3d(&x, [1, 3, 3], [1, 2, 2], [0, 1, 1]).unwrap();
        assert_eq!(largest.dims(), [1, 1, 1, 2, 2]);
        assert_eq!(values(&largest), [5.0, 7.0, 9.0, 11.0]);
        let mean = average_pool3d(&x, [1, 2, 2], [1, 2, 2], [0, 0, 0]).unwrap();
        assert_eq!(values(&mean), [2.5, 4.5]);
        let padded = average_pool3d(&x, [1, 2, 2], [1, 2, 2], [0, 1, 1]).unwrap();
        assert_eq!(values(&padded), [0.0, 0.75, 0.75, 12.0 / 4.0, 30.0 / 4.0, 18.0 / 4.0]);
    }

    #[test]
    fn values_and_gradients_of_pytorch() {
        for case in torch_golden("pool").as_array().unwrap() {
            let [kernel, stride, padding] = ["kernel", "stride", "padding"].map(|key| sizes(&case[key]));
            let x = wave_var(&[1, 2, 4, 5, 6], 0.1, 1.0, 0.0);
            assert_is_case("maximum", &case["maximum"], &[&x], || {
                max_pool3d(&x, kernel, stride, padding).unwrap()
            });
            assert_is_case("mean", &case["mean"], &[&x], || {
                average_pool3d(&x, kernel, stride, padding).unwrap()
            });
        }
    }

    #[test]
    fn gradients_are_the_finite_differences() {
        for [kernel, stride, padding] in FORMS {
            let x = wave_var(&[2, 2, 4, 5, 6], 0.1, 1.0, 0.0);
            assert_gradients_match_differences(&[&x], || max_pool3d(&x, kernel, stride, padding).unwrap());
            assert_gradients_match_differences(&[&x], || {
                average_pool3d(&x, kernel, stride, padding).unwrap()
            });
        }
    }

    #[test]
    fn the_first_of_equal_values_gets_the_gradient_and_a_nan_stays() {
        let x = Var::new(&[2.0f64, 5.0, 5.0, f64::NAN, 1.0, 9.0], &Device::Cpu).unwrap();
        let y = max_pool3d(&x.reshape((1, 1, 1, 1, 6)).unwrap(), [1, 1, 3], [1, 1, 3], [0; 3]).unwrap();
        let found = values(&y);
        assert_eq!(found[0], 5.0);
        assert!(found[1].is_nan(), "a NaN must not be lost among numbers");
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(values(gradients.get(&x).unwrap()), [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn windows_that_do_not_fit() {
        let x = Tensor::zeros((1, 1, 2, 4, 4), DType::F32, &Device::Cpu).unwrap();
        let error = |kernel, padding| max_pool3d(&x, kernel, [1; 3], padding).unwrap_err().to_string();
        assert!(error([3; 3], [0; 3]).contains("the kernel of 3 is larger than the input [2, 4, 4]"));
        assert!(error([3; 3], [2; 3]).contains("2 voxels of padding, expected at most half the kernel of 3"));
        let flat = x.flatten_all().unwrap();
        let error = average_pool3d(&flat, [1; 3], [1; 3], [0; 3]).unwrap_err().to_string();
        assert!(error.contains("expected (N, C, D, H, W)"), "{error}");
    }

    #[test]
    fn mean_over_the_volume_and_its_gradient() {
        let input = Var::from_tensor(
            &Tensor::arange(0f64, 16., &Device::Cpu).unwrap().reshape((1, 2, 2, 2, 2)).unwrap(),
        );
        let input = input.unwrap();
        let pooled = global_average_pool(&input).unwrap();
        assert_eq!(pooled.to_vec2::<f64>().unwrap(), [[3.5, 11.5]]);
        let gradients = pooled.sum_all().unwrap().backward().unwrap();
        assert_eq!(values(gradients.get(&input).unwrap()), [0.125; 16]);
    }
}
