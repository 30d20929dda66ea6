//! The gradients of a step: by the names of their variables, summed over batches, and clipped.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Storage, Tensor, Var, bail};
use rayon::prelude::*;

use crate::error::Error;
use crate::storage::contiguous_slice;
use crate::vectorised::vectorised;

/// Gradients by the names of their variables, f32, with one factor for all.
#[derive(Clone, Debug)]
pub struct Gradients {
    tensors: BTreeMap<String, Tensor>,
    factor: f32,
}

impl Gradients {
    /// Those of `variables`.
    ///
    /// # Errors
    /// [`Error::NoGradient`] with all variables that have none.
    pub fn of(variables: &BTreeMap<String, Var>, store: &GradStore) -> Result<Self, Error> {
        let missed = variables.iter().filter(|(_, var)| store.get(var).is_none());
        let missed: Vec<String> = missed.map(|(name, _)| name.clone()).collect();
        if !missed.is_empty() {
            return Err(Error::NoGradient { variables: missed });
        }
        let mut tensors = BTreeMap::new();
        for (name, var) in variables {
            if let Some(gradient) = store.get(var) {
                tensors.insert(name.clone(), gradient.contiguous()?);
            }
        }
        Ok(Self { tensors, factor: 1.0 })
    }

    /// Adds the gradients of another batch, on the CPU in the memory of this one's.
    ///
    /// # Errors
    /// If they are of other variables.
    pub fn accumulate(&mut self, other: &Self) -> Result<(), Error> {
        if !self.tensors.keys().eq(other.tensors.keys()) {
            return Err(Error::Data("gradients of other variables, expected those summed so far".into()));
        }
        for (sum, term) in self.tensors.values_mut().zip(other.tensors.values()) {
            if sum.device().is_cpu() {
                sum.inplace_op2(term, &AddScaled { factors: [self.factor, other.factor] })?;
            } else {
                *sum = scaled_sum(sum, self.factor, term, other.factor)?;
            }
        }
        self.factor = 1.0;
        Ok(())
    }

    /// Multiplies all, for example by one over the number of batches summed. It costs nothing: the optimiser does it.
    pub fn scale(&mut self, factor: f64) {
        self.factor = (f64::from(self.factor) * factor) as f32;
    }

    /// The Euclidean norm over all variables. The squares are added in f64, in an order that the shapes decide; on
    /// another device than the CPU, those of each row of a variable are added there, in f32.
    ///
    /// # Errors
    /// If the device fails.
    pub fn norm(&self) -> Result<f64, Error> {
        let (mut sum, mut elsewhere) = (0.0, Vec::new());
        for tensor in self.tensors.values() {
            if tensor.device().is_cpu() {
                sum += with_values(tensor, |values| Ok(sum_of_squares(values)))?;
            } else {
                elsewhere.push(row_sums_of_squares(tensor)?);
            }
        }
        if !elsewhere.is_empty() {
            // One wait for the device, not one for each variable.
            let rows: Vec<f32> = Tensor::cat(&elsewhere, 0)?.to_vec1()?;
            sum += rows.into_iter().map(f64::from).sum::<f64>();
        }
        Ok(sum.sqrt() * f64::from(self.factor))
    }

    /// Scales the gradients so that their norm is at most `max_norm`, and says what it was: the factor is
    /// `max_norm / (norm + 1e-6)` where that is below one, as in PyTorch's `clip_grad_norm_`.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if the norm is no number.
    pub fn clip(&mut self, max_norm: f64) -> Result<f64, Error> {
        let norm = self.norm()?;
        if !norm.is_finite() {
            return Err(Error::NotFinite { what: "the norm of the gradient".into(), samples: Vec::new() });
        }
        self.scale((max_norm / (norm + 1e-6)).min(1.0));
        Ok(norm)
    }

    /// What each element is to be multiplied with.
    pub(crate) fn factor(&self) -> f32 {
        self.factor
    }

    /// One gradient, without the factor.
    pub(crate) fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }
}

/// Lends the elements of an f32 tensor on the CPU.
pub(crate) fn with_values<T>(
    tensor: &Tensor,
    f: impl FnOnce(&[f32]) -> candle_core::Result<T>,
) -> candle_core::Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        bail!("a gradient is on another device, expected the CPU");
    };
    f(contiguous_slice("gradient", storage, layout)?)
}

/// Elements per task.
const CHUNK: usize = 1 << 14;

fn sum_of_squares(values: &[f32]) -> f64 {
    let chunk = |values: &[f32]| {
        vectorised(
            #[inline(always)]
            || {
                // Lanes that a processor adds at once; their order is fixed.
                let mut lanes = [0.0f64; 16];
                let (blocks, rest) = values.as_chunks::<16>();
                for block in blocks {
                    for (lane, &value) in lanes.iter_mut().zip(block) {
                        *lane += f64::from(value) * f64::from(value);
                    }
                }
                let rest: f64 = rest.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
                lanes.iter().sum::<f64>() + rest
            },
        )
    };
    let sums: Vec<f64> = values.par_chunks(CHUNK).map(chunk).collect();
    sums.iter().sum()
}

/// The sums over all axes but the first of the squares, by operations that every device has.
fn row_sums_of_squares(tensor: &Tensor) -> candle_core::Result<Tensor> {
    let rows = tensor.dims().first().copied().unwrap_or(1);
    tensor.detach().to_dtype(DType::F32)?.sqr()?.reshape((rows, ()))?.sum(1)
}

/// `a of_a + b of_b`, by operations that every device has.
fn scaled_sum(a: &Tensor, of_a: f32, b: &Tensor, of_b: f32) -> candle_core::Result<Tensor> {
    (a.detach() * f64::from(of_a))? + (b.detach() * f64::from(of_b))?
}

/// `a = a * factors[0] + b * factors[1]`.
struct AddScaled {
    factors: [f32; 2],
}

impl InplaceOp2 for AddScaled {
    fn name(&self) -> &'static str {
        "add_scaled"
    }

    fn cpu_fwd(
        &self,
        a: &mut CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> candle_core::Result<()> {
        let b = contiguous_slice::<f32>(self.name(), b, lb)?;
        let (CpuStorage::F32(a), Some((start, end))) = (a, la.contiguous_offsets()) else {
            bail!("{}: the sum is not contiguous f32, expected that", self.name());
        };
        let a = &mut a[start..end];
        if a.len() != b.len() {
            bail!("{}: {} and {} elements, expected the same", self.name(), a.len(), b.len());
        }
        let [of_a, of_b] = self.factors;
        a.par_chunks_mut(CHUNK).zip(b.par_chunks(CHUNK)).for_each(|(a, b)| {
            a.iter_mut().zip(b).for_each(|(a, &b)| *a = *a * of_a + b * of_b);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{assert_close, numbers, step_golden, values, wave};
    use candle_core::Device;

    /// Gradients of the given values: those of `sum(variable * values)`.
    pub(crate) fn gradients_of(named: &[(&str, Vec<f64>)]) -> Gradients {
        let mut variables = BTreeMap::new();
        let mut loss = Tensor::zeros((), candle_core::DType::F32, &Device::Cpu).unwrap();
        for (name, values) in named {
            let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
            let var = Var::zeros(values.len(), candle_core::DType::F32, &Device::Cpu).unwrap();
            let term = (var.as_tensor() * Tensor::new(values, &Device::Cpu).unwrap()).unwrap();
            loss = (loss + term.sum_all().unwrap()).unwrap();
            variables.insert((*name).to_owned(), var);
        }
        Gradients::of(&variables, &loss.backward().unwrap()).unwrap()
    }

    fn all(gradients: &Gradients) -> Vec<f64> {
        let factor = f64::from(gradients.factor);
        gradients.tensors.values().flat_map(values).map(|value| value * factor).collect()
    }

    #[test]
    fn clipping_of_the_reference() {
        for case in step_golden("clipping").as_array().unwrap() {
            let mut gradients = gradients_of(&[("a", wave(7, 0.4, 1.0)), ("b", wave(5, 1.4, 1.0))]);
            let norm = gradients.clip(case["max_norm"].as_f64().unwrap()).unwrap();
            assert_close("norm", &[norm], &[case["norm"].as_f64().unwrap()], 1e-6);
            assert_close("clipped", &all(&gradients), &numbers(&case["clipped"]), 1e-6);
        }
    }

    #[test]
    fn batches_add_up_with_their_factors() {
        let mut sum = gradients_of(&[("a", vec![1.0, 2.0]), ("b", vec![3.0])]);
        let mut second = gradients_of(&[("a", vec![10.0, 20.0]), ("b", vec![30.0])]);
        second.scale(0.5);
        sum.accumulate(&second).unwrap();
        sum.scale(0.25);
        assert_eq!(all(&sum), [1.5, 3.0, 4.5]);
        assert_eq!(sum.norm().unwrap(), (1.5f64 * 1.5 + 9.0 + 4.5 * 4.5).sqrt());
        let error = sum.accumulate(&gradients_of(&[("c", vec![1.0])])).unwrap_err().to_string();
        assert_eq!(error, "gradients of other variables, expected those summed so far");
    }

    /// What a GPU does, on the CPU.
    #[test]
    fn operations_that_every_device_has_give_the_same() {
        let tensor = |phase| {
            let values: Vec<f32> =
                wave(2 * 3 * 4, phase, 1.0).into_iter().map(|value| value as f32).collect();
            Tensor::from_vec(values, (2, 3, 4), &Device::Cpu).unwrap()
        };
        let (a, b) = (tensor(0.4), tensor(1.4));
        let rows = values(&row_sums_of_squares(&a).unwrap());
        let expected: Vec<f64> =
            values(&a).chunks(12).map(|row| row.iter().map(|value| value * value).sum()).collect();
        assert_close("rows", &rows, &expected, 1e-6);
        let scalar = Tensor::new(3f32, &Device::Cpu).unwrap();
        assert_eq!(values(&row_sums_of_squares(&scalar).unwrap()), [9.0]);
        let sum = scaled_sum(&a, 0.5, &b, 2.0).unwrap();
        a.inplace_op2(&b, &AddScaled { factors: [0.5, 2.0] }).unwrap();
        assert_close("sum", &values(&sum), &values(&a), 1e-7);
    }

    #[test]
    fn the_norm_is_the_same_with_any_number_of_threads() {
        let gradients = gradients_of(&[("a", wave(3 * CHUNK + 5, 0.4, 1.0))]);
        let norm = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| gradients.norm().unwrap())
        };
        assert_eq!(norm(1), norm(5));
        let expected = values(&gradients.tensors["a"]).iter().map(|value| value * value).sum::<f64>().sqrt();
        assert_close("norm", &[norm(1)], &[expected], 1e-13);
    }

    #[test]
    fn a_norm_that_is_no_number_is_an_error() {
        let error = gradients_of(&[("a", vec![f64::NAN])]).clip(1.0).unwrap_err().to_string();
        assert!(error.starts_with("the norm of the gradient"), "{error}");
    }

    #[test]
    fn all_variables_without_gradient_are_named() {
        let var = || Var::zeros(1, candle_core::DType::F32, &Device::Cpu).unwrap();
        let variables =
            BTreeMap::from([("a".to_owned(), var()), ("b".to_owned(), var()), ("c".to_owned(), var())]);
        let store = variables["b"].sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let error = Gradients::of(&variables, &store).unwrap_err().to_string();
        assert!(error.starts_with("no gradient reaches a, c,"), "{error}");
    }
}
