//! The named variables of a network: drawn from a seed or taken from stored arrays.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use crate::error::Error;

/// A dense f32 array, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl Array {
    pub(crate) fn from_tensor(tensor: &Tensor) -> Result<Self, Error> {
        let values = tensor.flatten_all()?.to_vec1()?;
        Ok(Self { shape: tensor.dims().to_vec(), values })
    }
}

/// Arrays by the name of their variable; the order of the names is the order in files.
pub(crate) type Arrays = BTreeMap<String, Array>;

/// How a variable starts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Init {
    /// The same value everywhere.
    Constant(f32),
    /// Normal with standard deviation `sqrt(2 / (in_channels * taps))` (He et al., 2015, arXiv:1502.01852).
    KaimingFanIn,
    /// Normal with standard deviation `sqrt(2 / (out_channels * taps))`, the other form of the same source.
    KaimingFanOut,
    /// Normal with this standard deviation.
    Normal { deviation: f64 },
    /// Uniform within `sqrt(6 / (inputs + outputs))` (Glorot and Bengio, 2010), for a matrix `(outputs, inputs)`.
    XavierUniform,
    /// Uniform within `1 / sqrt(inputs)`.
    Uniform { inputs: usize },
}

/// The variables of a network by name, in two kinds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters {
    /// What the optimiser moves.
    pub(crate) trainable: BTreeMap<String, Var>,
    /// Running statistics.
    pub(crate) buffers: BTreeMap<String, Var>,
}

impl Parameters {
    /// Gives every variable its value from `arrays`.
    ///
    /// # Errors
    /// If they are those of another network.
    pub(crate) fn set(&self, mut arrays: Arrays) -> Result<(), Error> {
        for (name, var) in self.trainable.iter().chain(&self.buffers) {
            let shape = var.dims();
            let Some(array) = arrays.remove(name).filter(|array| array.shape == shape) else {
                return Err(Error::Format(format!("the weights lack `{name}`, expected shape {shape:?}")));
            };
            var.set(&Tensor::from_vec(array.values, shape, var.device())?)?;
        }
        match arrays.keys().next() {
            Some(name) => Err(Error::Format(format!(
                "the weights hold {} arrays that the model lacks, first `{name}`",
                arrays.len()
            ))),
            None => Ok(()),
        }
    }

    /// A copy of all values.
    pub(crate) fn arrays(&self) -> Result<Arrays, Error> {
        let all = self.trainable.iter().chain(&self.buffers);
        all.map(|(name, var)| Ok((name.clone(), Array::from_tensor(var)?))).collect()
    }
}

/// Makes the variables of a network as its layers ask for them.
pub(crate) struct Builder {
    source: Source,
    device: Device,
    parameters: Parameters,
}

enum Source {
    Zeros,
    Seed(Box<ChaCha8Rng>),
    Stored(Arrays),
}

impl Builder {
    /// Variables drawn from `seed`, in the order in which they are asked for.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self {
            source: Source::Seed(Box::new(ChaCha8Rng::seed_from_u64(seed))),
            device: Device::Cpu,
            parameters: Parameters::default(),
        }
    }

    /// Variables of zeros: the shapes of a network whose values come from elsewhere.
    pub(crate) fn zeroed() -> Self {
        Self { source: Source::Zeros, device: Device::Cpu, parameters: Parameters::default() }
    }

    /// Variables taken from `arrays`, each of which must be asked for once.
    pub(crate) fn stored(arrays: Arrays) -> Self {
        Self { source: Source::Stored(arrays), device: Device::Cpu, parameters: Parameters::default() }
    }

    /// The same variables, in the memory of `device`.
    pub(crate) fn on(self, device: &Device) -> Self {
        Self { device: device.clone(), ..self }
    }

    pub(crate) fn trainable(&mut self, name: String, shape: &[usize], init: Init) -> Result<Var, Error> {
        let var = self.variable(&name, shape, init)?;
        self.parameters.trainable.insert(name, var.clone());
        Ok(var)
    }

    pub(crate) fn buffer(&mut self, name: String, shape: &[usize], init: Init) -> Result<Var, Error> {
        let var = self.variable(&name, shape, init)?;
        self.parameters.buffers.insert(name, var.clone());
        Ok(var)
    }

    /// All variables that were asked for.
    ///
    /// # Errors
    /// If stored arrays are left over: they belong to another network.
    pub(crate) fn finish(self) -> Result<Parameters, Error> {
        if let Source::Stored(left) = &self.source
            && let Some(name) = left.keys().next()
        {
            let count = left.len();
            return Err(Error::Format(format!(
                "the weights hold {count} arrays that the model lacks, first `{name}`"
            )));
        }
        Ok(self.parameters)
    }

    fn variable(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Var, Error> {
        let values = match &mut self.source {
            Source::Zeros => vec![0.0; shape.iter().product()],
            Source::Seed(rng) => draw(rng, shape, init),
            Source::Stored(arrays) => {
                let Some(array) = arrays.remove(name) else {
                    return Err(Error::Format(format!(
                        "the weights lack `{name}`, expected shape {shape:?}"
                    )));
                };
                if array.shape != shape {
                    let found = array.shape;
                    return Err(Error::Format(format!("`{name}` has shape {found:?}, expected {shape:?}")));
                }
                array.values
            }
        };
        Ok(Var::from_vec(values, shape, &self.device)?)
    }
}

fn draw(rng: &mut ChaCha8Rng, shape: &[usize], init: Init) -> Vec<f32> {
    let count = shape.iter().product();
    // Of a convolution's weight, (out_channels, in_channels, …).
    let fan = |axis: usize| (shape[axis] * shape[2..].iter().product::<usize>()) as f64;
    match init {
        Init::Constant(value) => vec![value; count],
        Init::KaimingFanIn => normal(rng, count, (2.0 / fan(1)).sqrt()),
        Init::KaimingFanOut => normal(rng, count, (2.0 / fan(0)).sqrt()),
        Init::Normal { deviation } => normal(rng, count, deviation),
        Init::XavierUniform => uniform(rng, count, (6.0 / (fan(0) + fan(1))).sqrt()),
        Init::Uniform { inputs } => uniform(rng, count, 1.0 / (inputs as f64).sqrt()),
    }
}

fn normal(rng: &mut ChaCha8Rng, count: usize, deviation: f64) -> Vec<f32> {
    (0..count).map(|_| (rng.sample::<f64, _>(StandardNormal) * deviation) as f32).collect()
}

fn uniform(rng: &mut ChaCha8Rng, count: usize, bound: f64) -> Vec<f32> {
    (0..count).map(|_| rng.random_range(-bound..bound) as f32).collect()
}
