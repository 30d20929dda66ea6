//! Reference values for the tests, from the scripts in `goldens/`, and checks against them and against finite differences.

use candle_core::{Device, Tensor, Var};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::parameters::{Array, Arrays};

/// One entry of `goldens/layers.json`, made with JAX.
pub(crate) fn golden(key: &str) -> Value {
    entry(include_str!("../goldens/layers.json"), key)
}

/// One entry of `goldens/layers_torch.json`, made with PyTorch.
pub(crate) fn torch_golden(key: &str) -> Value {
    entry(include_str!("../goldens/layers_torch.json"), key)
}

/// One entry of `goldens/networks_torch.json`, made with torchvision, MONAI and transformers.
pub(crate) fn network_golden(key: &str) -> Value {
    entry(include_str!("../goldens/networks_torch.json"), key)
}

fn entry(text: &str, key: &str) -> Value {
    let all: Value = serde_json::from_str(text).unwrap();
    all[key].clone()
}

/// One entry of `goldens/steps_torch.json`, made with PyTorch.
pub(crate) fn step_golden(key: &str) -> Value {
    entry(include_str!("../goldens/steps_torch.json"), key)
}

/// Arrays as a file that says nothing of itself, as others publish them.
pub(crate) fn published_file(arrays: &Arrays) -> Vec<u8> {
    let bytes = |array: &Array| array.values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let bytes: Vec<Vec<u8>> = arrays.values().map(bytes).collect();
    let view = |((name, array), bytes): ((_, &Array), _)| {
        (name, TensorView::new(Dtype::F32, array.shape.clone(), bytes).unwrap())
    };
    safetensors::serialize(arrays.iter().zip(bytes.iter().map(Vec::as_slice)).map(view), None).unwrap()
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

/// Asserts that the result of `f` of `inputs`, and the gradients of `sum(f() * wave)`, are the stored ones, which are
/// f64 rounded to twelve digits.
pub(crate) fn assert_is_case(what: &str, case: &Value, inputs: &[&Var], f: impl Fn() -> Tensor) {
    let y = f();
    let shape: Vec<u64> = y.dims().iter().map(|&size| size as u64).collect();
    assert_eq!(case["y_shape"], Value::from(shape), "{what}");
    assert_close(what, &values(&y), &numbers(&case["y"]), 1e-11);
    let upstream = wave_var(y.dims(), 0.9, 1.0, 0.0);
    let gradients = (y * upstream.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
    for (index, input) in inputs.iter().enumerate() {
        let gradient = gradients.get(input).unwrap_or_else(|| panic!("{what}: no gradient of input {index}"));
        let expected = numbers(&case["gradients"][index]);
        assert_close(&format!("{what}: gradient of input {index}"), &values(gradient), &expected, 1e-11);
    }
}

/// The values that the scripts give the trainable variables of a network, by their order of names: a wave, scaled as
/// weights of its shape are, about 1 for the factors of normalisations.
pub(crate) fn fill<'a>(variables: impl Iterator<Item = (&'a String, &'a mut Vec<f32>, Vec<usize>)>) {
    for (index, (name, values, shape)) in variables.enumerate() {
        let factor = shape.len() == 1 && name.ends_with("weight");
        let inputs: usize = shape[1..].iter().product();
        let scale = if shape.len() == 1 { 0.1 } else { 1.0 / (inputs as f64).sqrt() };
        let offset = if factor { 1.0 } else { 0.0 };
        let wave = wave(values.len(), 0.3 * index as f64, scale);
        *values = wave.into_iter().map(|value| (value + offset) as f32).collect();
    }
}

/// Asserts that the gradients of `variables` have the stored norms and first values, within `tolerance` of the norm or,
/// where that is next to nothing, of the largest norm.
pub(crate) fn assert_gradients<'a>(
    what: &str,
    case: &Value,
    variables: impl Iterator<Item = (&'a String, &'a Var)>,
    gradients: &candle_core::backprop::GradStore,
    tolerance: f64,
) {
    let norm = |case: &Value| case["norm"].as_f64().unwrap();
    let cases = case.as_object().unwrap();
    let largest = cases.values().map(norm).fold(0.0, f64::max);
    let mut seen = 0;
    for (name, var) in variables {
        let case = cases.get(name).unwrap_or_else(|| panic!("{what}: the reference has no {name}"));
        let gradient = gradients.get(var).unwrap_or_else(|| panic!("{what}: no gradient of {name}"));
        let gradient = values(gradient);
        let bound = tolerance * norm(case).max(1e-3 * largest);
        for (part, found, expected) in [
            ("norm", gradient.iter().map(|value| value * value).sum::<f64>().sqrt(), norm(case)),
            ("first value", gradient[0], case["first"].as_f64().unwrap()),
        ] {
            let difference = (found - expected).abs();
            assert!(
                difference <= bound,
                "{what}: {part} of {name} is {found}, expected {expected} within {bound}"
            );
        }
        seen += 1;
    }
    assert_eq!(seen, cases.len(), "{what}: the reference has other variables");
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
