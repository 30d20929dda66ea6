//! Optimisers whose state can be saved: AdamW, and gradient descent with momentum.

use std::cell::RefCell;
use std::collections::BTreeMap;
#[cfg(feature = "cuda")]
use std::collections::btree_map::Entry;

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor, Var, bail};
use rayon::prelude::*;

use crate::error::Error;
use crate::gradients::{Gradients, with_values};
#[cfg(feature = "cuda")]
use crate::optimiser_cuda::{self, DeviceArray};
use crate::schedule::Rates;
use crate::vectorised::vectorised;

/// An optimiser and its state.
#[derive(Clone, Debug)]
pub enum Optimiser {
    /// Adam with decoupled weight decay.
    AdamW(AdamW),
    /// Gradient descent with momentum.
    Sgd(Sgd),
}

/// What an optimiser carries from step to step, besides the variables.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimiserState {
    /// Steps done.
    pub step: usize,
    /// By `KIND/VARIABLE`, as long as the variable: `first` and `second` of AdamW, `momentum` of gradient descent.
    pub arrays: BTreeMap<String, Vec<f32>>,
}

impl Optimiser {
    /// Moves every variable against its gradient, in place.
    ///
    /// # Errors
    /// If a variable has no gradient, or is not f32 on the CPU or a GPU.
    pub fn step(
        &mut self,
        variables: &BTreeMap<String, Var>,
        gradients: &Gradients,
        rates: Rates,
    ) -> Result<(), Error> {
        match self {
            Self::AdamW(adamw) => adamw.step(variables, gradients, rates),
            Self::Sgd(sgd) => sgd.step(variables, gradients, rates),
        }
    }

    /// Steps done.
    pub fn steps_done(&self) -> usize {
        match self {
            Self::AdamW(adamw) => adamw.step,
            Self::Sgd(sgd) => sgd.step,
        }
    }

    /// A copy of the state.
    ///
    /// # Errors
    /// If what is on a GPU cannot be read back.
    pub fn state(&self) -> Result<OptimiserState, Error> {
        let arrays = match self {
            Self::AdamW(adamw) => adamw
                .moments()?
                .into_iter()
                .flat_map(|(name, moments)| {
                    [(format!("first/{name}"), moments.first), (format!("second/{name}"), moments.second)]
                })
                .collect(),
            Self::Sgd(sgd) => {
                let named = |(name, values): (String, Vec<f32>)| (format!("momentum/{name}"), values);
                sgd.momenta()?.into_iter().map(named).collect()
            }
        };
        Ok(OptimiserState { step: self.steps_done(), arrays })
    }

    /// Goes on with a saved state.
    ///
    /// # Errors
    /// If it is of another optimiser or of other variables.
    pub fn resume(&mut self, mut state: OptimiserState) -> Result<(), Error> {
        let shape = |arrays: &BTreeMap<String, Vec<f32>>| -> Vec<(String, usize)> {
            arrays.iter().map(|(name, values)| (name.clone(), values.len())).collect()
        };
        if shape(&state.arrays) != shape(&self.state()?.arrays) {
            return Err(other_variables());
        }
        let mut take = |kind: &str, name: &str| state.arrays.remove(&format!("{kind}/{name}"));
        match self {
            Self::AdamW(adamw) => {
                adamw.step = state.step;
                for (name, moments) in &mut adamw.moments {
                    moments.first = take("first", name).ok_or_else(other_variables)?;
                    moments.second = take("second", name).ok_or_else(other_variables)?;
                }
                #[cfg(feature = "cuda")]
                adamw.on_gpu.clear();
            }
            Self::Sgd(sgd) => {
                sgd.step = state.step;
                for (name, momentum) in &mut sgd.momenta {
                    *momentum = take("momentum", name).ok_or_else(other_variables)?;
                }
                #[cfg(feature = "cuda")]
                sgd.on_gpu.clear();
            }
        }
        Ok(())
    }
}

fn other_variables() -> Error {
    Error::Format("the optimiser state is of other variables, expected those of the model".into())
}

/// AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, 2019, arXiv:1711.05101).
#[derive(Clone, Debug)]
pub struct AdamW {
    settings: AdamWSettings,
    step: usize,
    moments: BTreeMap<String, Moments>,
    /// First and second moments of variables on a GPU, from their first step on; those above are then of an earlier
    /// time.
    #[cfg(feature = "cuda")]
    on_gpu: BTreeMap<String, [DeviceArray; 2]>,
}

/// The settings of [`AdamW`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWSettings {
    /// What remains of the first moment in each step, where the schedule says nothing of it.
    pub beta_first: f64,
    /// What remains of the second moment in each step.
    pub beta_second: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Share of the weight that is taken away in each step, over the learning rate.
    pub weight_decay: f64,
}

impl Default for AdamWSettings {
    /// Beta 0.9 and 0.999, epsilon 1e-8, no weight decay.
    fn default() -> Self {
        Self { beta_first: 0.9, beta_second: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// Running averages of the gradient and of its square, for one variable.
#[derive(Clone, Debug)]
struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
}

impl AdamW {
    /// An optimiser before its first step.
    pub fn new(variables: &BTreeMap<String, Var>, settings: AdamWSettings) -> Self {
        let zeros =
            |var: &Var| Moments { first: vec![0.0; var.elem_count()], second: vec![0.0; var.elem_count()] };
        let moments = variables.iter().map(|(name, var)| (name.clone(), zeros(var))).collect();
        Self {
            settings,
            step: 0,
            moments,
            #[cfg(feature = "cuda")]
            on_gpu: BTreeMap::new(),
        }
    }

    /// A copy of the moments.
    fn moments(&self) -> Result<BTreeMap<String, Moments>, Error> {
        #[cfg_attr(not(feature = "cuda"), expect(unused_mut, reason = "a GPU has newer ones"))]
        let mut moments = self.moments.clone();
        #[cfg(feature = "cuda")]
        for (name, [first, second]) in &self.on_gpu {
            let newer = Moments {
                first: optimiser_cuda::download(first)?,
                second: optimiser_cuda::download(second)?,
            };
            moments.insert(name.clone(), newer);
        }
        Ok(moments)
    }

    fn step(
        &mut self,
        variables: &BTreeMap<String, Var>,
        gradients: &Gradients,
        rates: Rates,
    ) -> Result<(), Error> {
        self.step += 1;
        let AdamWSettings { beta_first, beta_second, epsilon, weight_decay } = self.settings;
        let beta_first = rates.momentum.unwrap_or(beta_first);
        let correction = |beta: f64| 1.0 - beta.powf(self.step as f64);
        let coefficients = AdamWCoefficients {
            gradient: gradients.factor(),
            first: [beta_first as f32, (1.0 - beta_first) as f32],
            second: [beta_second as f32, (1.0 - beta_second) as f32],
            decay: (1.0 - rates.lr * weight_decay) as f32,
            rate: (rates.lr / correction(beta_first)) as f32,
            deviation: (1.0 / correction(beta_second).sqrt()) as f32,
            epsilon: epsilon as f32,
        };
        for (name, var) in variables {
            let gradient = gradient_of(gradients, name)?;
            let moments = self.moments.get_mut(name).ok_or_else(other_variables)?;
            #[cfg(feature = "cuda")]
            if var.device().is_cuda() {
                let moments = match self.on_gpu.entry(name.clone()) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => {
                        let [first, second] = [&moments.first, &moments.second];
                        entry.insert([
                            optimiser_cuda::upload(var, first)?,
                            optimiser_cuda::upload(var, second)?,
                        ])
                    }
                };
                optimiser_cuda::adamw(var, gradient, moments, coefficients)?;
                continue;
            }
            move_against(var, gradient, |weights, gradient| {
                adamw(weights, gradient, moments, coefficients);
            })?;
        }
        Ok(())
    }
}

/// What a step of AdamW does to every element alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamWCoefficients {
    /// Factor of the gradient.
    pub(crate) gradient: f32,
    /// What remains of the first moment, and the share of the gradient.
    pub(crate) first: [f32; 2],
    /// What remains of the second moment, and the share of the gradient's square.
    pub(crate) second: [f32; 2],
    /// Factor of the weight.
    pub(crate) decay: f32,
    /// Learning rate, corrected for the first moment's start at zero.
    pub(crate) rate: f32,
    /// Factor of the root of the second moment, for the same reason.
    pub(crate) deviation: f32,
    pub(crate) epsilon: f32,
}

/// Elements per task.
const CHUNK: usize = 1 << 14;

/// One pass over a variable, its gradient and its moments.
fn adamw(weights: &mut [f32], gradient: &[f32], moments: &mut Moments, c: AdamWCoefficients) {
    let chunks = weights
        .par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks(CHUNK))
        .zip(moments.first.par_chunks_mut(CHUNK))
        .zip(moments.second.par_chunks_mut(CHUNK));
    chunks.for_each(|(((weights, gradient), first), second)| {
        vectorised(
            #[inline(always)]
            || {
                let elements = weights.iter_mut().zip(gradient).zip(&mut *first).zip(&mut *second);
                for (((weight, &gradient), first), second) in elements {
                    let gradient = gradient * c.gradient;
                    *first = c.first[0] * *first + c.first[1] * gradient;
                    *second = c.second[0] * *second + c.second[1] * gradient * gradient;
                    *weight = *weight * c.decay - c.rate * *first / (second.sqrt() * c.deviation + c.epsilon);
                }
            },
        );
    });
}

/// Gradient descent with momentum (Sutskever et al., 2013), in the form of PyTorch's `SGD` without dampening: the weight
/// decay is added to the gradient, and the learning rate multiplies the momentum.
#[derive(Clone, Debug)]
pub struct Sgd {
    settings: SgdSettings,
    step: usize,
    momenta: BTreeMap<String, Vec<f32>>,
    /// Those of variables on a GPU, from their first step on; those above are then of an earlier time.
    #[cfg(feature = "cuda")]
    on_gpu: BTreeMap<String, DeviceArray>,
}

/// The settings of [`Sgd`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdSettings {
    /// What remains of the momentum in each step, where the schedule says nothing of it; zero for plain descent.
    pub momentum: f64,
    /// Whether to move by the gradient and the momentum after it (Nesterov's form).
    pub nesterov: bool,
    /// Share of the weight that is added to the gradient.
    pub weight_decay: f64,
}

impl Sgd {
    /// An optimiser before its first step.
    pub fn new(variables: &BTreeMap<String, Var>, settings: SgdSettings) -> Self {
        let zeros = |(name, var): (&String, &Var)| (name.clone(), vec![0.0; var.elem_count()]);
        Self {
            settings,
            step: 0,
            momenta: variables.iter().map(zeros).collect(),
            #[cfg(feature = "cuda")]
            on_gpu: BTreeMap::new(),
        }
    }

    /// A copy of the momenta.
    fn momenta(&self) -> Result<BTreeMap<String, Vec<f32>>, Error> {
        #[cfg_attr(not(feature = "cuda"), expect(unused_mut, reason = "a GPU has newer ones"))]
        let mut momenta = self.momenta.clone();
        #[cfg(feature = "cuda")]
        for (name, newer) in &self.on_gpu {
            momenta.insert(name.clone(), optimiser_cuda::download(newer)?);
        }
        Ok(momenta)
    }

    fn step(
        &mut self,
        variables: &BTreeMap<String, Var>,
        gradients: &Gradients,
        rates: Rates,
    ) -> Result<(), Error> {
        self.step += 1;
        let coefficients = SgdCoefficients {
            gradient: gradients.factor(),
            decay: self.settings.weight_decay as f32,
            momentum: rates.momentum.unwrap_or(self.settings.momentum) as f32,
            nesterov: self.settings.nesterov,
            rate: rates.lr as f32,
        };
        for (name, var) in variables {
            let gradient = gradient_of(gradients, name)?;
            let momentum = self.momenta.get_mut(name).ok_or_else(other_variables)?;
            #[cfg(feature = "cuda")]
            if var.device().is_cuda() {
                let momentum = match self.on_gpu.entry(name.clone()) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => entry.insert(optimiser_cuda::upload(var, momentum)?),
                };
                optimiser_cuda::sgd(var, gradient, momentum, coefficients)?;
                continue;
            }
            move_against(var, gradient, |weights, gradient| sgd(weights, gradient, momentum, coefficients))?;
        }
        Ok(())
    }
}

/// What a step of gradient descent does to every element alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SgdCoefficients {
    /// Factor of the gradient.
    pub(crate) gradient: f32,
    /// Share of the weight that is added to the gradient.
    pub(crate) decay: f32,
    pub(crate) momentum: f32,
    pub(crate) nesterov: bool,
    pub(crate) rate: f32,
}

/// One pass over a variable, its gradient and its momentum.
fn sgd(weights: &mut [f32], gradient: &[f32], momentum: &mut [f32], c: SgdCoefficients) {
    let chunks =
        weights.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK)).zip(momentum.par_chunks_mut(CHUNK));
    chunks.for_each(|((weights, gradient), momentum)| {
        vectorised(
            #[inline(always)]
            || {
                for ((weight, &gradient), momentum) in weights.iter_mut().zip(gradient).zip(&mut *momentum) {
                    let gradient = gradient * c.gradient + c.decay * *weight;
                    *momentum = c.momentum * *momentum + gradient;
                    let step = if c.nesterov { gradient + c.momentum * *momentum } else { *momentum };
                    *weight -= c.rate * step;
                }
            },
        );
    });
}

fn gradient_of<'a>(gradients: &'a Gradients, name: &str) -> Result<&'a Tensor, Error> {
    gradients.get(name).ok_or_else(|| Error::NoGradient { variables: vec![name.to_owned()] })
}

/// Changes the elements of a variable, in place, with those of its gradient.
fn move_against(
    var: &Var,
    gradient: &Tensor,
    step: impl FnOnce(&mut [f32], &[f32]),
) -> candle_core::Result<()> {
    with_values(gradient, |gradient| {
        var.inplace_op1(&Update { step: RefCell::new(Some(|weights: &mut [f32]| step(weights, gradient))) })
    })
}

/// A change of a variable's elements, which is made once.
struct Update<F> {
    step: RefCell<Option<F>>,
}

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Update<F> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(weights), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("update: the variable is not contiguous f32, expected that");
        };
        if let Some(step) = self.step.take() {
            step(&mut weights[start..end]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goldens::{assert_close, golden, numbers, step_golden, values, wave};
    use crate::schedule::Schedule;
    use candle_core::Device;

    fn floats(values: Vec<f64>) -> Tensor {
        let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    fn variables(count: usize) -> BTreeMap<String, Var> {
        let weight = Var::from_tensor(&floats(wave(count, 0.5, 1.0))).unwrap();
        BTreeMap::from([("weight".to_owned(), weight)])
    }

    /// One step; the gradient of sum(weight * upstream) is the upstream.
    fn step(optimiser: &mut Optimiser, variables: &BTreeMap<String, Var>, rates: Rates) {
        let weight = variables["weight"].as_tensor();
        let phase = 0.3 * optimiser.steps_done() as f64;
        let upstream = floats(wave(weight.elem_count(), phase, 0.1));
        let store = (weight * upstream).unwrap().sum_all().unwrap().backward().unwrap();
        optimiser.step(variables, &Gradients::of(variables, &store).unwrap(), rates).unwrap();
    }

    fn moved(
        make: impl Fn(&BTreeMap<String, Var>) -> Optimiser,
        rates: impl Fn(usize) -> Rates,
        steps: usize,
    ) -> Vec<f64> {
        let variables = variables(12);
        let mut optimiser = make(&variables);
        (0..steps).for_each(|number| step(&mut optimiser, &variables, rates(number)));
        values(&variables["weight"])
    }

    fn adamw(variables: &BTreeMap<String, Var>, settings: AdamWSettings) -> Optimiser {
        Optimiser::AdamW(AdamW::new(variables, settings))
    }

    #[test]
    fn adamw_of_the_references() {
        let constant = |_| Schedule::Constant.rates(1e-2, 0, 1);
        let decay = AdamWSettings { weight_decay: 0.1, ..AdamWSettings::default() };
        let five = moved(|variables| adamw(variables, decay), constant, 5);
        assert_close("optax", &five, &numbers(&golden("adamw")["weight"]), 1e-6);
        let betas = AdamWSettings { beta_first: 0.8, beta_second: 0.99, epsilon: 1e-3, weight_decay: 0.1 };
        for (name, settings) in [("adamw", decay), ("adamw_betas", betas)] {
            let six = moved(|variables| adamw(variables, settings), constant, 6);
            assert_close(name, &six, &numbers(&step_golden(name)), 1e-6);
        }
        let cycle = |step| Schedule::OneCycle.rates(1e-2, step, 6);
        let six = moved(|variables| adamw(variables, decay), cycle, 6);
        assert_close("one cycle", &six, &numbers(&step_golden("adamw_one_cycle")), 1e-6);
    }

    #[test]
    fn descent_of_the_reference() {
        let constant = |_| Schedule::Constant.rates(1e-1, 0, 1);
        let cases = [
            ("sgd", SgdSettings { momentum: 0.0, nesterov: false, weight_decay: 0.0 }),
            ("sgd_momentum", SgdSettings { momentum: 0.9, nesterov: false, weight_decay: 0.05 }),
            ("sgd_nesterov", SgdSettings { momentum: 0.9, nesterov: true, weight_decay: 0.05 }),
        ];
        for (name, settings) in cases {
            let six = moved(|variables| Optimiser::Sgd(Sgd::new(variables, settings)), constant, 6);
            assert_close(name, &six, &numbers(&step_golden(name)), 1e-6);
        }
        let settings = SgdSettings { momentum: 0.9, nesterov: true, weight_decay: 0.0 };
        let cycle = |step| Schedule::OneCycle.rates(1e-2, step, 6);
        let six = moved(|variables| Optimiser::Sgd(Sgd::new(variables, settings)), cycle, 6);
        assert_close("one cycle", &six, &numbers(&step_golden("sgd_one_cycle")), 1e-6);
    }

    /// Both optimisers, stopped after three steps: bit for bit what six steps give.
    #[test]
    fn a_saved_state_goes_on_where_it_was() {
        let rates = |step| Schedule::OneCycle.rates(1e-2, step, 6);
        let descent = |variables: &BTreeMap<String, Var>| {
            let settings = SgdSettings { momentum: 0.9, nesterov: true, weight_decay: 0.1 };
            Optimiser::Sgd(Sgd::new(variables, settings))
        };
        let adam = |variables: &BTreeMap<String, Var>| adamw(variables, AdamWSettings::default());
        type Make = fn(&BTreeMap<String, Var>) -> Optimiser;
        let kinds: [Make; 2] = [adam, descent];
        for make in kinds {
            let variables = variables(12);
            let mut optimiser = make(&variables);
            (0..3).for_each(|number| step(&mut optimiser, &variables, rates(number)));
            let state = optimiser.state().unwrap();
            assert_eq!(state.step, 3);
            let mut resumed = make(&variables);
            resumed.resume(state).unwrap();
            (3..6).for_each(|number| step(&mut resumed, &variables, rates(number)));
            assert_eq!(values(&variables["weight"]), moved(make, rates, 6));
        }
    }

    #[test]
    fn a_state_of_another_optimiser_or_model_is_an_error() {
        let settings = SgdSettings { momentum: 0.9, nesterov: false, weight_decay: 0.0 };
        let state = Optimiser::Sgd(Sgd::new(&variables(3), settings)).state().unwrap();
        for mut other in [
            adamw(&variables(3), AdamWSettings::default()),
            Optimiser::Sgd(Sgd::new(&variables(4), settings)),
        ] {
            let error = other.resume(state.clone()).unwrap_err().to_string();
            assert_eq!(error, "the optimiser state is of other variables, expected those of the model");
        }
    }

    #[test]
    fn steps_do_not_depend_on_the_number_of_threads() {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let variables = variables(3 * CHUNK + 7);
                let mut optimiser = adamw(&variables, AdamWSettings::default());
                step(&mut optimiser, &variables, Rates { lr: 1e-2, momentum: None });
                values(&variables["weight"])
            })
        };
        assert!(run(1) == run(5), "one and five threads differ");
    }
}
