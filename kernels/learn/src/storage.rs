//! Access to the raw slices of candle's CPU storage.

use candle_core::{CpuStorage, Layout, Result, WithDType, bail};

/// Runs `$body` with the type alias `$T` for the element type of a CPU storage; other types than f32 and f64 are
/// errors that name the operation `$op`.
macro_rules! with_float {
    ($op:expr, $storage:expr, $T:ident => $body:expr) => {{
        use candle_core::{DType, backend::BackendStorage};
        match $storage.dtype() {
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::F64 => {
                type $T = f64;
                $body
            }
            other => candle_core::bail!("{}: the type is {other:?}, expected f32 or f64", $op),
        }
    }};
}
pub(crate) use with_float;

/// The elements of a contiguous tensor. `op` names the caller in the error.
pub(crate) fn contiguous_slice<'a, T: WithDType>(
    op: &str,
    storage: &'a CpuStorage,
    layout: &Layout,
) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&T::cpu_storage_as_slice(storage)?[start..end]),
        None => bail!("{op}: the strides are {:?}, expected a contiguous tensor", layout.stride()),
    }
}
