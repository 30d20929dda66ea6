//! Reference values for the tests, from `goldens/make.py` and `goldens/make_torch.py`, and checks against them and against finite differences.

use candle_core::{Device, Tensor, Var};
use serde_json::Value;

/// One entry of `goldens/layers.json`.
pub(crate) fn golden(key: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../goldens/layers.json")).unwrap();
    all[key].clone()
}

/// One entry of `goldens/torch.json`.
pub(crate) fn torch_golden(key: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../goldens/torch.json")).unwrap();
    all[key].clone()
}

pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

pub(crate) fn sizes<const N: usize>(value: &Value) -> [usize; N] {
    let sizes: Vec<usize> =
        value.as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect();
    sizes.try_into().unwrap()
}

/// The inputs of the reference values: `scale * sin(0.7 i + phase) * cos(0.13 i)` over the flat index i.
pub(crate) fn wave(count: usize, phase: f64, scale: f64) -> Vec<f64> {
    (0..count).map(|i| scale * (0.7 * i as f64 + phase).sin() * (0.13 * i as f64).cos()).collect()
}

/// An f64 variable that holds a wave plus `offset`.
pub(crate) fn wave_var(shape: &[usize], phase: f64, scale: f64, offset: f64) -> Var {
    let values: Vec<f64> =
        wave(shape.iter().product(), phase, scale).into_iter().map(|v| v + offset).collect();
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(candle_core::DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Asserts equal lengths and a largest difference of `tolerance` times the largest expected magnitude.
pub(crate) fn assert_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: another number of values");
    let magnitude = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        // A NaN fails too: no comparison with it holds.
        assert!(
            (found - expected).abs() <= tolerance * magnitude,
            "{what}[{index}]: {found}, expected {expected} within {tolerance} of {magnitude}"
        );
    }
}

/// Asserts that the gradients of `sum(f() * wave)` with respect to `variables` are its central differences, with step
/// 1e-5 in f64, within 1e-7 of the largest component. `f` must read the variables anew.
pub(crate) fn assert_gradients_match_differences(variables: &[&Var], f: impl Fn() -> Tensor) {
    const STEP: f64 = 1e-5;
    let objective = || {
        let y = f();
        let upstream = wave_var(y.dims(), 0.9, 1.0, 0.0);
        (y * upstream.as_tensor()).unwrap().sum_all().unwrap()
    };
    let gradients = objective().backward().unwrap();
    for (index, var) in variables.iter().enumerate() {
        let original = values(var);
        let at = |position: usize, change: f64| {
            let mut moved = original.clone();
            moved[position] += change;
            var.set(&Tensor::from_vec(moved, var.dims(), &Device::Cpu).unwrap()).unwrap();
            let value = objective().to_scalar::<f64>().unwrap();
            var.set(&Tensor::from_slice(&original, var.dims(), &Device::Cpu).unwrap()).unwrap();
            value
        };
        let differences: Vec<f64> =
            (0..original.len()).map(|i| (at(i, STEP) - at(i, -STEP)) / (2.0 * STEP)).collect();
        let gradient = values(gradients.get(var).unwrap());
        assert_close(&format!("gradient of variable {index}"), &gradient, &differences, 1e-7);
    }
}
