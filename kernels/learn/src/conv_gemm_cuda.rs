//! 3D convolution on a GPU without cuDNN: tiles of rows unfolded into a matrix (im2col), and cuBLAS.
//!
//! The gradient of the input is unfolded in the same way from that of the output, so that nothing is added up in
//! memory but the gradient of the weight, over tiles in their order and in f32.

use std::any::TypeId;
use std::ffi::{c_int, c_void};
use std::ops::Range;

use candle_core::cuda_backend::{WrapErr, gemm_reduced_precision_f32};
use candle_core::{CudaDevice, Result};
use cudarc::cublas::{result, sys};
use cudarc::driver::{CudaSlice, CudaView, DevicePtr, DevicePtrMut, DeviceRepr, PushKernelArg};

use crate::conv::Geometry;
use crate::conv_cuda::Part;
use crate::storage_cuda::{Element, for_each, int, kernel, launched, uninitialised};

/// Bytes of an unfolded tile.
const TILE_BYTES: usize = 256 << 20;

/// Computes one part of a convolution; `operands` are in the order of the operation, all channels-last.
pub(crate) fn run<T: Element>(
    device: &CudaDevice,
    part: Part,
    g: &Geometry,
    [a, b]: [&CudaView<T>; 2],
    output: &mut CudaSlice<T>,
) -> Result<()> {
    match part {
        Part::Forward => forward(device, g, a, b, output),
        Part::BackwardData => backward_data(device, g, a, b, output),
        Part::BackwardFilter => backward_filter(device, g, a, b, output),
    }
}

/// For each tile of output positions, `y = columns wᵀ`.
fn forward<T: Element>(
    device: &CudaDevice,
    g: &Geometry,
    x: &CudaView<T>,
    w: &CudaView<T>,
    y: &mut CudaSlice<T>,
) -> Result<()> {
    let unfolding = Unfolding::forward(g)?;
    let width = g.taps() * g.in_channels;
    let mut tile = Tile::new(device, g.output_voxels(), width)?;
    for sample in 0..g.batch {
        let x = x.slice(sample * g.input_voxels() * g.in_channels..);
        for rows in tile.ranges() {
            tile.unfold(device, "unfold", unfolding, &rows, &x)?;
            let start = (sample * g.output_voxels() + rows.start) * g.out_channels;
            let product = Product { m: g.out_channels, n: rows.len(), k: width, transposed: [true, false] };
            product.run(device, [w, &tile.columns.slice(..)], &mut y.slice_mut(start..), 0.0)?;
        }
    }
    Ok(())
}

/// For each tile of input positions, `dx = columns w'`, with the columns unfolded from the gradient of the output and
/// the weight's rows ordered by tap, then output channel.
fn backward_data<T: Element>(
    device: &CudaDevice,
    g: &Geometry,
    dy: &CudaView<T>,
    w: &CudaView<T>,
    dx: &mut CudaSlice<T>,
) -> Result<()> {
    let unfolding = Unfolding::transposed(g)?;
    let width = g.taps() * g.out_channels;
    let weight = by_tap(device, g, w)?;
    let mut tile = Tile::new(device, g.input_voxels(), width)?;
    for sample in 0..g.batch {
        let dy = dy.slice(sample * g.output_voxels() * g.out_channels..);
        for rows in tile.ranges() {
            tile.unfold(device, "unfold_transposed", unfolding, &rows, &dy)?;
            let start = (sample * g.input_voxels() + rows.start) * g.in_channels;
            let product = Product { m: g.in_channels, n: rows.len(), k: width, transposed: [false, false] };
            let operands = [&weight.slice(..), &tile.columns.slice(..)];
            product.run(device, operands, &mut dx.slice_mut(start..), 0.0)?;
        }
    }
    Ok(())
}

/// Over all tiles of output positions, `dw = sum of dyᵀ columns`.
#[expect(unsafe_code, reason = "a kernel is launched")]
fn backward_filter<T: Element>(
    device: &CudaDevice,
    g: &Geometry,
    x: &CudaView<T>,
    dy: &CudaView<T>,
    dw: &mut CudaSlice<T>,
) -> Result<()> {
    let unfolding = Unfolding::forward(g)?;
    let width = g.taps() * g.in_channels;
    let mut sum = uninitialised::<f32>(device, dw.len())?;
    let mut tile = Tile::new(device, g.output_voxels(), width)?;
    for sample in 0..g.batch {
        let x = x.slice(sample * g.input_voxels() * g.in_channels..);
        for rows in tile.ranges() {
            tile.unfold(device, "unfold", unfolding, &rows, &x)?;
            let start = (sample * g.output_voxels() + rows.start) * g.out_channels;
            let product = Product { m: width, n: g.out_channels, k: rows.len(), transposed: [false, true] };
            let first = sample == 0 && rows.start == 0;
            let operands = [&tile.columns.slice(..), &dy.slice(start..)];
            product.run(device, operands, &mut sum.slice_mut(..), if first { 0.0 } else { 1.0 })?;
        }
    }
    let count = dw.len();
    let function = kernel::<T>(device, "round")?;
    let mut launch = function.builder();
    launch.arg(&count).arg(&sum).arg(dw);
    // SAFETY: the kernel takes a count, as many f32 and as many elements of T, which it sets.
    launched(unsafe { launch.launch(for_each(count)) })
}

/// The sizes of one unfolding, as `Unfolding` in `cuda/kernels.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Unfolding {
    target: [c_int; 3],
    source: [c_int; 3],
    kernel: [c_int; 3],
    stride: [c_int; 3],
    padding: [c_int; 3],
    channels: c_int,
}

#[expect(unsafe_code, reason = "a structure is handed to a kernel by value")]
// SAFETY: it is C's structure of sixteen 32-bit integers on both sides.
unsafe impl DeviceRepr for Unfolding {}

impl Unfolding {
    /// Of the input, for output positions.
    fn forward(g: &Geometry) -> Result<Self> {
        let triple = |sizes: [usize; 3]| -> Result<[c_int; 3]> {
            Ok([int("conv3d", sizes[0])?, int("conv3d", sizes[1])?, int("conv3d", sizes[2])?])
        };
        Ok(Self {
            target: triple(g.output)?,
            source: triple(g.input)?,
            kernel: triple(g.kernel)?,
            stride: triple(g.stride)?,
            padding: triple(g.padding)?,
            channels: int("conv3d", g.in_channels)?,
        })
    }

    /// Of the gradient of the output, for input positions.
    fn transposed(g: &Geometry) -> Result<Self> {
        let forward = Self::forward(g)?;
        Ok(Self {
            target: forward.source,
            source: forward.target,
            channels: int("conv3d", g.out_channels)?,
            ..forward
        })
    }
}

/// Rows that are unfolded together.
struct Tile<T> {
    columns: CudaSlice<T>,
    length: usize,
    rows: usize,
}

impl<T: Element> Tile<T> {
    /// Room for tiles of `rows` rows of `width` elements.
    fn new(device: &CudaDevice, rows: usize, width: usize) -> Result<Self> {
        let length = (TILE_BYTES / (width * size_of::<T>())).clamp(1, rows);
        Ok(Self { columns: uninitialised(device, length * width)?, length, rows })
    }

    fn ranges(&self) -> Vec<Range<usize>> {
        (0..self.rows).step_by(self.length).map(|start| start..self.rows.min(start + self.length)).collect()
    }

    #[expect(unsafe_code, reason = "a kernel is launched")]
    fn unfold(
        &mut self,
        device: &CudaDevice,
        name: &str,
        unfolding: Unfolding,
        rows: &Range<usize>,
        source: &CudaView<T>,
    ) -> Result<()> {
        let (first, count) = (rows.start, rows.len());
        let config = for_each(self.columns.len());
        let function = kernel::<T>(device, name)?;
        let mut launch = function.builder();
        launch.arg(&unfolding).arg(&first).arg(&count).arg(source).arg(&mut self.columns);
        // SAFETY: `columns` has room for the longest tile, whose rows the kernel sets up to `count`; the source is one
        // sample with the sizes of `unfolding`, outside of which the kernel reads nothing.
        launched(unsafe { launch.launch(config) })
    }
}

/// The weight `(O, taps, C)` as `(taps, O, C)`.
#[expect(unsafe_code, reason = "a kernel is launched")]
fn by_tap<T: Element>(device: &CudaDevice, g: &Geometry, w: &CudaView<T>) -> Result<CudaSlice<T>> {
    let sizes = [g.out_channels, g.taps(), g.in_channels];
    let [outputs, taps, channels] =
        [int("conv3d", sizes[0])?, int("conv3d", sizes[1])?, int("conv3d", sizes[2])?];
    let mut ordered = uninitialised::<T>(device, sizes.iter().product())?;
    let function = kernel::<T>(device, "by_tap")?;
    let mut launch = function.builder();
    launch.arg(&outputs).arg(&taps).arg(&channels).arg(w).arg(&mut ordered);
    // SAFETY: both arrays have the product of the three sizes as elements of T, and all of the second are set.
    launched(unsafe { launch.launch(for_each(w.len())) })?;
    Ok(ordered)
}

/// A product of column-major matrices, `C (m, n) = op(A) op(B) + beta C`, each as dense as its operation allows.
/// A row-major matrix is the transpose of the column-major one in the same memory.
struct Product {
    m: usize,
    n: usize,
    k: usize,
    transposed: [bool; 2],
}

impl Product {
    #[expect(unsafe_code, reason = "cuBLAS is called")]
    fn run<A: Element, C: Element>(
        &self,
        device: &CudaDevice,
        [a, b]: [&CudaView<A>; 2],
        c: &mut cudarc::driver::CudaViewMut<C>,
        beta: f32,
    ) -> Result<()> {
        let stream = device.cuda_stream();
        let Self { m, n, k, transposed } = *self;
        let leading = [if transposed[0] { k } else { m }, if transposed[1] { n } else { k }];
        let operation = transposed.map(|transposed| match transposed {
            true => sys::cublasOperation_t::CUBLAS_OP_T,
            false => sys::cublasOperation_t::CUBLAS_OP_N,
        });
        let [m_int, n_int, k_int, lda, ldb] =
            [m, n, k, leading[0], leading[1]].map(|size| int("conv3d", size));
        let compute = match gemm_reduced_precision_f32() && TypeId::of::<A>() == TypeId::of::<f32>() {
            true => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            false => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        assert!(a.len() >= m * k && b.len() >= k * n && c.len() >= m * n, "the operands hold the matrices");
        let (a, _reading_a) = a.device_ptr(&stream);
        let (b, _reading_b) = b.device_ptr(&stream);
        let (c, _writing) = c.device_ptr_mut(&stream);
        let alpha = 1.0f32;
        // SAFETY: the operands hold matrices of those sizes and types, as was checked, and the factors are f32 as the
        // compute type wants.
        unsafe {
            result::gemm_ex(
                *device.cublas_handle().handle(),
                operation[0],
                operation[1],
                m_int?,
                n_int?,
                k_int?,
                (&raw const alpha).cast::<c_void>(),
                a as *const c_void,
                data_type::<A>(),
                lda?,
                b as *const c_void,
                data_type::<A>(),
                ldb?,
                (&raw const beta).cast::<c_void>(),
                c as *mut c_void,
                data_type::<C>(),
                int("conv3d", m)?,
                compute,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .w()
    }
}

fn data_type<T: Element>() -> sys::cudaDataType {
    match TypeId::of::<T>() == TypeId::of::<f32>() {
        true => sys::cudaDataType::CUDA_R_32F,
        false => sys::cudaDataType::CUDA_R_16BF,
    }
}
