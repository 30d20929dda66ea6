//! 3D convolution by cuDNN, channels-last.
//!
//! For each shape, cuDNN's algorithms are timed once on the data of the first call, and the fastest one is kept that
//! gives the same sum every time and needs at most [`WORKSPACE_BYTES`] beside it. Two runs may choose differently, and
//! then differ in rounding. A shape for which there is none is left to the caller.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::rc::Rc;

use candle_core::cuda_backend::{DeviceId, WrapErr, gemm_reduced_precision_f32};
use candle_core::{CudaDevice, Result, bail};
use cudarc::cudnn::{CudnnDataType, result, sys};
use cudarc::driver::{CudaSlice, CudaView, DevicePtr, DevicePtrMut};

use crate::conv::Geometry;
use crate::conv_cuda::Part;
use crate::storage_cuda::{Element, int};

/// An element type of feature maps that cuDNN knows.
pub(crate) trait CudnnElement: Element + CudnnDataType {}

impl<T: Element + CudnnDataType> CudnnElement for T {}

/// Memory that an algorithm may use beside its operands.
const WORKSPACE_BYTES: usize = 1 << 30;

/// cuDNN on one device, for one thread.
pub(crate) struct Cudnn {
    handle: sys::cudnnHandle_t,
    /// Nothing for a shape that cuDNN has no algorithm for.
    plans: HashMap<Key, Option<Rc<Plan>>>,
    /// Grows to what the largest plan needs. The work of a stream is done in order, so that all can share it.
    workspace: Option<CudaSlice<u8>>,
}

/// What a plan was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    part: Part,
    geometry: Geometry,
    element: &'static str,
    reduced_precision: bool,
}

impl Key {
    /// Whether products are to be those of f32.
    fn exact(&self) -> bool {
        self.element == f32::NAME && !self.reduced_precision
    }
}

thread_local! {
    /// By device; nothing where cuDNN cannot be opened. A handle belongs to one thread at a time.
    static OPENED: RefCell<HashMap<DeviceId, Option<Cudnn>>> = RefCell::default();
}

impl Cudnn {
    /// Whether cuDNN can be opened on a device.
    pub(crate) fn is_there(device: &CudaDevice) -> bool {
        OPENED.with_borrow_mut(|opened| {
            opened.entry(device.id()).or_insert_with(|| Self::open(device).ok()).is_some()
        })
    }

    /// Computes one part of a convolution, if cuDNN has an algorithm for its shape, and says whether it has;
    /// `operands` are in the order of the operation.
    ///
    /// # Errors
    /// If cuDNN is not there, or if it fails.
    pub(crate) fn run<T: CudnnElement>(
        device: &CudaDevice,
        part: Part,
        geometry: &Geometry,
        operands: [&CudaView<T>; 2],
        output: &mut CudaSlice<T>,
    ) -> Result<bool> {
        OPENED.with_borrow_mut(|opened| {
            match opened.entry(device.id()).or_insert_with(|| Self::open(device).ok()) {
                Some(cudnn) => cudnn.convolve(device, part, geometry, operands, output),
                None => bail!("conv3d: cuDNN cannot be opened, expected libcudnn.so.9"),
            }
        })
    }

    #[expect(unsafe_code, reason = "cuDNN is told its stream")]
    fn open(device: &CudaDevice) -> Result<Self> {
        let stream = device.cuda_stream();
        stream.context().bind_to_thread().w()?;
        let cudnn = Self {
            handle: checked("cudnnCreate", result::create_handle())?,
            plans: HashMap::new(),
            workspace: None,
        };
        // SAFETY: the handle is the one just created, and the stream that of the device, which outlives all work.
        checked("cudnnSetStream", unsafe { result::set_stream(cudnn.handle, stream.cu_stream().cast()) })?;
        Ok(cudnn)
    }

    fn convolve<T: CudnnElement>(
        &mut self,
        device: &CudaDevice,
        part: Part,
        geometry: &Geometry,
        [a, b]: [&CudaView<T>; 2],
        output: &mut CudaSlice<T>,
    ) -> Result<bool> {
        let stream = device.cuda_stream();
        stream.context().bind_to_thread().w()?;
        let (a, _reading_a) = a.device_ptr(&stream);
        let (b, _reading_b) = b.device_ptr(&stream);
        let (output, _writing) = output.device_ptr_mut(&stream);
        let pointers = Pointers { a: a as _, b: b as _, output: output as _ };
        let key = Key {
            part,
            geometry: *geometry,
            element: T::NAME,
            reduced_precision: gemm_reduced_precision_f32(),
        };
        let plan = match self.plans.get(&key) {
            Some(plan) => plan.clone(),
            None => {
                let workspace =
                    self.workspace(device, WORKSPACE_BYTES).or_else(|_| self.workspace(device, 0))?;
                let plan = Plan::fastest::<T>(self.handle, key, pointers, workspace)?.map(Rc::new);
                // What the trial of a new shape took is given back; the plans ask for what they need.
                self.workspace = None;
                self.plans.insert(key, plan.clone());
                plan
            }
        };
        let Some(plan) = plan else { return Ok(false) };
        let needed = self.plans.values().flatten().map(|plan| plan.workspace_bytes).max().unwrap_or(0);
        let workspace = self.workspace(device, needed)?;
        plan.launch(self.handle, pointers, workspace)?;
        Ok(true)
    }

    /// The shapes that were asked for and left to the caller, as text.
    #[cfg(test)]
    pub(crate) fn left_out(device: &CudaDevice) -> Vec<String> {
        OPENED.with_borrow(|opened| match opened.get(&device.id()) {
            Some(Some(cudnn)) => {
                let left_out = cudnn.plans.iter().filter(|(_, plan)| plan.is_none());
                left_out.map(|(key, _)| format!("{key:?}")).collect()
            }
            _ => Vec::new(),
        })
    }

    /// The shared workspace, of at least `bytes`.
    fn workspace(&mut self, device: &CudaDevice, bytes: usize) -> Result<Workspace> {
        if self.workspace.as_ref().is_none_or(|workspace| workspace.len() < bytes) {
            self.workspace = None;
            // One byte more than nothing: an empty allocation is an error.
            self.workspace = Some(allocate_bytes(device, bytes.max(1))?);
        }
        let Some(workspace) = &mut self.workspace else { bail!("conv3d: the workspace is missing") };
        let bytes = workspace.len();
        let stream = device.cuda_stream();
        let (pointer, _writing) = workspace.device_ptr_mut(&stream);
        Ok(Workspace { pointer: pointer as _, bytes })
    }
}

impl Drop for Cudnn {
    #[expect(unsafe_code, reason = "the handle is given back")]
    fn drop(&mut self) {
        // SAFETY: the handle was created by `open` and is not used behind this. An error is of no use: at the end of
        // the program the driver may be gone already.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

#[expect(unsafe_code, reason = "memory of a GPU comes without values")]
fn allocate_bytes(device: &CudaDevice, bytes: usize) -> Result<CudaSlice<u8>> {
    // SAFETY: only cuDNN uses it, which writes before it reads.
    unsafe { device.alloc(bytes) }
}

/// The operands and the output of one call, in the order of the operation.
#[derive(Clone, Copy)]
struct Pointers {
    a: *const c_void,
    b: *const c_void,
    output: *mut c_void,
}

#[derive(Clone, Copy)]
struct Workspace {
    pointer: *mut c_void,
    bytes: usize,
}

/// An algorithm for one shape.
struct Plan {
    descriptors: Descriptors,
    algorithm: Algorithm,
    workspace_bytes: usize,
}

#[derive(Clone, Copy)]
enum Algorithm {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    BackwardData(sys::cudnnConvolutionBwdDataAlgo_t),
    BackwardFilter(sys::cudnnConvolutionBwdFilterAlgo_t),
}

/// Times all algorithms with one of cuDNN's three functions, whose arguments are alike but for their order, and takes
/// the fastest deterministic one: the algorithm, its math type and the bytes that it needs.
macro_rules! fastest {
    ($find:path, $perf:ty, $workspace:expr, $($argument:expr),*) => {{
        const MOST: usize = 16;
        // SAFETY: the results are plain numbers, for which zero is a value; cuDNN sets those that it counts. Handle,
        // descriptors and pointers are those of the call that is planned, and the output may be overwritten.
        let mut found: [$perf; MOST] = unsafe { std::mem::zeroed() };
        let mut count: c_int = 0;
        let status = unsafe {
            $find($($argument,)* MOST as c_int, &mut count, found.as_mut_ptr(), $workspace.pointer, $workspace.bytes)
        };
        // A shape that cuDNN does not know at all is told by one of a family of statuses.
        let count = match format!("{status:?}").starts_with("CUDNN_STATUS_NOT_SUPPORTED") {
            true => 0,
            false => {
                checked(stringify!($find), status.result())?;
                count
            }
        };
        let usable = found.iter().take(count as usize).find(|found| {
            found.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                && found.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC
        });
        usable.map(|found| (found.algo, found.mathType, found.memory))
    }};
}

impl Plan {
    #[expect(unsafe_code, reason = "cuDNN is called")]
    fn fastest<T: CudnnElement>(
        handle: sys::cudnnHandle_t,
        key: Key,
        Pointers { a, b, output }: Pointers,
        workspace: Workspace,
    ) -> Result<Option<Self>> {
        let descriptors = Descriptors::new::<T>(&key)?;
        let &Descriptors { input: x, weight: w, output: y, convolution: c } = &descriptors;
        let found = match key.part {
            Part::Forward => fastest!(
                sys::cudnnFindConvolutionForwardAlgorithmEx,
                sys::cudnnConvolutionFwdAlgoPerf_t,
                workspace,
                handle,
                x,
                a,
                w,
                b,
                c,
                y,
                output
            )
            .map(|(algorithm, math, bytes)| (Algorithm::Forward(algorithm), math, bytes)),
            Part::BackwardData => fastest!(
                sys::cudnnFindConvolutionBackwardDataAlgorithmEx,
                sys::cudnnConvolutionBwdDataAlgoPerf_t,
                workspace,
                handle,
                w,
                b,
                y,
                a,
                c,
                x,
                output
            )
            .map(|(algorithm, math, bytes)| (Algorithm::BackwardData(algorithm), math, bytes)),
            Part::BackwardFilter => fastest!(
                sys::cudnnFindConvolutionBackwardFilterAlgorithmEx,
                sys::cudnnConvolutionBwdFilterAlgoPerf_t,
                workspace,
                handle,
                x,
                a,
                y,
                b,
                c,
                w,
                output
            )
            .map(|(algorithm, math, bytes)| (Algorithm::BackwardFilter(algorithm), math, bytes)),
        };
        let Some((algorithm, math, workspace_bytes)) = found else { return Ok(None) };
        // Exact products of f32 stay exact, whatever was timed.
        if !key.exact() {
            // SAFETY: the descriptor is the plan's own.
            checked("cudnnSetConvolutionMathType", unsafe { result::set_convolution_math_type(c, math) })?;
        }
        Ok(Some(Self { descriptors, algorithm, workspace_bytes }))
    }

    #[expect(unsafe_code, reason = "cuDNN is called")]
    fn launch(
        &self,
        handle: sys::cudnnHandle_t,
        Pointers { a, b, output }: Pointers,
        workspace: Workspace,
    ) -> Result<()> {
        // The factors of the new and the old value of the output: f32 for f32 and bf16 alike.
        let (one, zero) = (1.0f32, 0.0f32);
        let (one, zero) = ((&raw const one).cast::<c_void>(), (&raw const zero).cast::<c_void>());
        let Workspace { pointer, bytes } = workspace;
        let &Descriptors { input: x, weight: w, output: y, convolution: c } = &self.descriptors;
        // SAFETY: the pointers are to contiguous arrays of the shapes that the descriptors hold, because the plan was
        // made for the same key; the workspace has at least the bytes that the algorithm asked for.
        let result = unsafe {
            match self.algorithm {
                Algorithm::Forward(algorithm) => result::convolution_forward(
                    handle, one, x, a, w, b, c, algorithm, pointer, bytes, zero, y, output,
                ),
                Algorithm::BackwardData(algorithm) => result::convolution_backward_data(
                    handle, one, w, b, y, a, c, algorithm, pointer, bytes, zero, x, output,
                ),
                Algorithm::BackwardFilter(algorithm) => result::convolution_backward_filter(
                    handle, one, x, a, y, b, c, algorithm, pointer, bytes, zero, w, output,
                ),
            }
        };
        checked("a convolution of cuDNN", result)
    }
}

/// Shapes and types of a convolution, in cuDNN's words.
struct Descriptors {
    input: sys::cudnnTensorDescriptor_t,
    weight: sys::cudnnFilterDescriptor_t,
    output: sys::cudnnTensorDescriptor_t,
    convolution: sys::cudnnConvolutionDescriptor_t,
}

impl Drop for Descriptors {
    #[expect(unsafe_code, reason = "descriptors are given back")]
    fn drop(&mut self) {
        // SAFETY: they were created by `new` and are not used behind this. Errors are of no use here.
        unsafe {
            let _ = result::destroy_tensor_descriptor(self.input);
            let _ = result::destroy_filter_descriptor(self.weight);
            let _ = result::destroy_tensor_descriptor(self.output);
            let _ = result::destroy_convolution_descriptor(self.convolution);
        }
    }
}

impl Descriptors {
    #[expect(unsafe_code, reason = "cuDNN is called")]
    fn new<T: CudnnElement>(key: &Key) -> Result<Self> {
        let g = &key.geometry;
        let descriptors = Self {
            input: tensor::<T>(g.batch, g.in_channels, g.input)?,
            weight: checked("cudnnCreateFilterDescriptor", result::create_filter_descriptor())?,
            output: tensor::<T>(g.batch, g.out_channels, g.output)?,
            convolution: checked(
                "cudnnCreateConvolutionDescriptor",
                result::create_convolution_descriptor(),
            )?,
        };
        let [d, h, w] = g.kernel;
        let kernel = ints([g.out_channels, g.in_channels, d, h, w])?;
        let (padding, stride, dilation) = (ints(g.padding)?, ints(g.stride)?, [1; 3]);
        let math = match key.exact() {
            // The default would round f32 to TF32.
            true => sys::cudnnMathType_t::CUDNN_FMA_MATH,
            false => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
        };
        // SAFETY: the descriptors were just created, and the arrays have as many numbers as is said.
        unsafe {
            let format = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
            let set = result::set_filternd_descriptor(
                descriptors.weight,
                T::DATA_TYPE,
                format,
                kernel.len() as c_int,
                kernel.as_ptr(),
            );
            checked("cudnnSetFilterNdDescriptor", set)?;
            let set = result::set_convolutionnd_descriptor(
                descriptors.convolution,
                padding.len() as c_int,
                padding.as_ptr(),
                stride.as_ptr(),
                dilation.as_ptr(),
                sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
                sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            );
            checked("cudnnSetConvolutionNdDescriptor", set)?;
            let set = result::set_convolution_math_type(descriptors.convolution, math);
            checked("cudnnSetConvolutionMathType", set)?;
        }
        Ok(descriptors)
    }
}

/// The descriptor of `(N, D, H, W, C)`, which cuDNN names in the order N, C, D, H, W.
#[expect(unsafe_code, reason = "cuDNN is called")]
fn tensor<T: CudnnElement>(
    batch: usize,
    channels: usize,
    [d, h, w]: [usize; 3],
) -> Result<sys::cudnnTensorDescriptor_t> {
    let descriptor = checked("cudnnCreateTensorDescriptor", result::create_tensor_descriptor())?;
    let sizes = ints([batch, channels, d, h, w])?;
    let strides = ints([d * h * w * channels, 1, h * w * channels, w * channels, channels])?;
    // SAFETY: the descriptor was just created, and both arrays have as many numbers as is said.
    let set = unsafe {
        result::set_tensornd_descriptor(
            descriptor,
            T::DATA_TYPE,
            sizes.len() as c_int,
            sizes.as_ptr(),
            strides.as_ptr(),
        )
    };
    checked("cudnnSetTensorNdDescriptor", set)?;
    Ok(descriptor)
}

fn ints<const N: usize>(sizes: [usize; N]) -> Result<[c_int; N]> {
    let mut ints = [0; N];
    for (int_, size) in ints.iter_mut().zip(sizes) {
        *int_ = int("conv3d", size)?;
    }
    Ok(ints)
}

fn checked<R>(call: &str, result: std::result::Result<R, result::CudnnError>) -> Result<R> {
    match result {
        Ok(value) => Ok(value),
        Err(error) => bail!("{call} failed: {error}"),
    }
}
