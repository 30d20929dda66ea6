//! AdamW with a saved state, and the learning rate over the steps.

use std::cell::RefCell;
use std::collections::BTreeMap;
#[cfg(feature = "cuda")]
use std::collections::btree_map::Entry;
use std::f64::consts::PI;

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor, Var, backprop::GradStore, bail};
use rayon::prelude::*;

use crate::error::Error;
#[cfg(feature = "cuda")]
use crate::optimiser_cuda::{self, DeviceMoments};

/// AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, 2019, arXiv:1711.05101), with beta 0.9 and 0.999
/// and epsilon 1e-8.
#[derive(Clone, Debug)]
pub(crate) struct AdamW {
    weight_decay: f64,
    pub(crate) step: usize,
    moments: BTreeMap<String, Moments>,
    /// The moments of variables on a GPU, from their first step on; those above are then of an earlier time.
    #[cfg(feature = "cuda")]
    device_moments: BTreeMap<String, DeviceMoments>,
}

/// Running averages of the gradient and of its square, for one variable.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    pub(crate) first: Vec<f32>,
    pub(crate) second: Vec<f32>,
}

impl AdamW {
    /// An optimiser before its first step.
    pub(crate) fn new(variables: &BTreeMap<String, Var>, weight_decay: f64) -> Self {
        let zeros =
            |var: &Var| Moments { first: vec![0.0; var.elem_count()], second: vec![0.0; var.elem_count()] };
        let moments = variables.iter().map(|(name, var)| (name.clone(), zeros(var))).collect();
        Self {
            weight_decay,
            step: 0,
            moments,
            #[cfg(feature = "cuda")]
            device_moments: BTreeMap::new(),
        }
    }

    /// A copy of the moments, for a checkpoint.
    ///
    /// # Errors
    /// If those on a GPU cannot be read back.
    pub(crate) fn moments(&self) -> Result<BTreeMap<String, Moments>, Error> {
        #[cfg_attr(not(feature = "cuda"), expect(unused_mut, reason = "a GPU has newer ones"))]
        let mut moments = self.moments.clone();
        #[cfg(feature = "cuda")]
        for (name, newer) in &self.device_moments {
            moments.insert(name.clone(), newer.download()?);
        }
        Ok(moments)
    }

    /// Goes on behind step `step` with saved moments.
    ///
    /// # Errors
    /// If they belong to other variables.
    pub(crate) fn resume(&mut self, step: usize, moments: BTreeMap<String, Moments>) -> Result<(), Error> {
        let sizes = |moments: &BTreeMap<String, Moments>| -> Vec<(String, usize)> {
            moments.iter().map(|(name, moments)| (name.clone(), moments.first.len())).collect()
        };
        if sizes(&moments) != sizes(&self.moments) {
            return Err(Error::Format(
                "the optimiser state is of other variables, expected those of the model".into(),
            ));
        }
        (self.step, self.moments) = (step, moments);
        #[cfg(feature = "cuda")]
        self.device_moments.clear();
        Ok(())
    }

    /// Moves every variable against its gradient, in place.
    ///
    /// # Errors
    /// If a variable has no gradient.
    pub(crate) fn step(
        &mut self,
        variables: &BTreeMap<String, Var>,
        gradients: &GradStore,
        lr: f64,
    ) -> Result<(), Error> {
        self.step += 1;
        let correction = |beta: f64| 1.0 - beta.powf(self.step as f64);
        let coefficients = Coefficients {
            decay: (1.0 - lr * self.weight_decay) as f32,
            rate: (lr / correction(BETA_FIRST)) as f32,
            deviation: (1.0 / correction(BETA_SECOND).sqrt()) as f32,
        };
        for (name, var) in variables {
            let Some(gradient) = gradients.get(var) else {
                return Err(Error::NoGradient { variables: vec![name.clone()] });
            };
            let Some(moments) = self.moments.get_mut(name) else {
                return Err(Error::Format(format!(
                    "the optimiser state lacks `{name}`, expected its moments"
                )));
            };
            let gradient = gradient.contiguous()?;
            #[cfg(feature = "cuda")]
            if var.device().is_cuda() {
                let moments = match self.device_moments.entry(name.clone()) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => entry.insert(DeviceMoments::upload(var, moments)?),
                };
                optimiser_cuda::update(var, &gradient, moments, coefficients)?;
                continue;
            }
            var.inplace_op1(&Update { gradient: &gradient, moments: RefCell::new(moments), coefficients })?;
        }
        Ok(())
    }
}

pub(crate) const BETA_FIRST: f64 = 0.9;
pub(crate) const BETA_SECOND: f64 = 0.999;
pub(crate) const EPSILON: f32 = 1e-8;

/// What a step does to every element alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coefficients {
    /// Factor of the weight.
    pub(crate) decay: f32,
    /// Learning rate, corrected for the first moment's start at zero.
    pub(crate) rate: f32,
    /// Factor of the root of the second moment, for the same reason.
    pub(crate) deviation: f32,
}

/// One pass over a variable, its gradient and its moments.
struct Update<'a> {
    gradient: &'a Tensor,
    moments: RefCell<&'a mut Moments>,
    coefficients: Coefficients,
}

impl InplaceOp1 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (gradient, gradient_layout) = self.gradient.storage_and_layout();
        let candle_core::Storage::Cpu(gradient) = &*gradient else {
            bail!("adamw: the gradient is on another device than the variable, expected the CPU");
        };
        let gradient = crate::storage::contiguous_slice::<f32>(self.name(), gradient, gradient_layout)?;
        let (CpuStorage::F32(weights), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("adamw: the variable is not contiguous f32, expected that");
        };
        let moments = &mut *self.moments.borrow_mut();
        update(&mut weights[start..end], gradient, moments, self.coefficients);
        Ok(())
    }
}

/// Elements per task.
const CHUNK: usize = 1 << 14;

fn update(weights: &mut [f32], gradient: &[f32], moments: &mut Moments, c: Coefficients) {
    let (beta_first, beta_second) = (BETA_FIRST as f32, BETA_SECOND as f32);
    let chunks = weights
        .par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks(CHUNK))
        .zip(moments.first.par_chunks_mut(CHUNK))
        .zip(moments.second.par_chunks_mut(CHUNK));
    chunks.for_each(|(((weights, gradient), first), second)| {
        let elements = weights.iter_mut().zip(gradient).zip(first).zip(second);
        for (((weight, &gradient), first), second) in elements {
            *first = beta_first * *first + (1.0 - beta_first) * gradient;
            *second = beta_second * *second + (1.0 - beta_second) * gradient * gradient;
            *weight = *weight * c.decay - c.rate * *first / (second.sqrt() * c.deviation + EPSILON);
        }
    });
}

/// The learning rate at step `step` (from 0) of `steps`: linear from `lr / warmup_steps` to `lr`, then half a cosine
/// to [`FINAL_LR`] (Loshchilov and Hutter, 2017, arXiv:1608.03983, without restarts).
pub fn cosine_lr(lr: f64, step: usize, steps: usize, warmup_steps: usize) -> f64 {
    if step < warmup_steps {
        return lr * (step + 1) as f64 / warmup_steps as f64;
    }
    let progress = (step - warmup_steps) as f64 / (steps - warmup_steps).max(1) as f64;
    FINAL_LR + (lr - FINAL_LR) * (1.0 + (PI * progress).cos()) / 2.0
}

/// Where the cosine ends, after the last step.
pub const FINAL_LR: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{assert_close, golden, numbers, values, wave};
    use candle_core::Device;

    fn floats(values: Vec<f64>) -> Tensor {
        let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn five_steps_of_the_reference() {
        let weight = Var::from_tensor(&floats(wave(12, 0.5, 1.0))).unwrap();
        let variables = BTreeMap::from([("weight".to_owned(), weight.clone())]);
        let mut optimiser = AdamW::new(&variables, 0.1);
        for step in 0..5 {
            // The gradient of sum(weight * upstream) is the upstream.
            let upstream = floats(wave(12, 0.3 * f64::from(step), 0.1));
            let gradients = (weight.as_tensor() * upstream).unwrap().sum_all().unwrap().backward().unwrap();
            optimiser.step(&variables, &gradients, 1e-2).unwrap();
        }
        assert_close("weight", &values(&weight), &numbers(&golden("adamw")["weight"]), 1e-6);
    }

    #[test]
    fn a_variable_without_gradient_is_an_error() {
        let var = || Var::from_tensor(&floats(vec![1.0])).unwrap();
        let variables = BTreeMap::from([("reached".to_owned(), var()), ("missed".to_owned(), var())]);
        let gradients = variables["reached"].sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let error = AdamW::new(&variables, 0.0).step(&variables, &gradients, 0.1).unwrap_err().to_string();
        assert!(error.starts_with("no gradient reaches missed,"), "{error}");
    }

    #[test]
    fn schedule_of_the_reference_after_a_linear_rise() {
        let expected = numbers(&golden("schedule")["lr"]);
        let found: Vec<f64> = (0..=50).map(|step| cosine_lr(1e-4, step, 50, 0)).collect();
        // optax computes the schedule in f32 steps.
        assert_close("lr", &found, &expected, 1e-6);
        let rise: Vec<f64> = (0..4).map(|step| cosine_lr(1e-4, step, 54, 4)).collect();
        assert_close("rise", &rise, &[0.25e-4, 0.5e-4, 0.75e-4, 1e-4], 1e-12);
        assert_eq!(cosine_lr(1e-4, 4 + 20, 54, 4), cosine_lr(1e-4, 20, 50, 0));
    }
}
