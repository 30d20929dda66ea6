//! What a training step of the 18-layer 3D ResNet costs on a CPU: seconds of each step, forward and backward pass and
//! optimiser apart, as wall and as processor time.
//!
//! `cargo run --release -p argent-learn --example training_step -- 10 2` does ten steps with two threads, behind one
//! that is not counted. Linux only: the processor time comes from `/proc`. `benches/learning.py` runs it beside PyTorch.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Instant;

use argent_learn::batch_norm::BatchNorm;
use argent_learn::conv::conv3d;
use argent_learn::gradients::Gradients;
use argent_learn::optimiser::{AdamW, AdamWSettings, Optimiser};
use argent_learn::pool::global_average_pool;
use argent_learn::residual::add_relu;
use argent_learn::schedule::Schedule;
use candle_core::{DType, Device, Result, Tensor, Var};

/// N, C, D, H, W.
const INPUT: [usize; 5] = [2, 1, 32, 64, 64];
const CLASSES: usize = 18;

fn main() -> std::result::Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [steps, threads] = arguments.as_slice() else {
        return Err("expected a number of steps and a number of threads".into());
    };
    let (steps, threads): (usize, usize) = (steps.parse()?, threads.parse()?);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    pool.install(|| measure(steps))
}

fn measure(steps: usize) -> std::result::Result<(), Box<dyn Error + Send + Sync>> {
    let mut variables = Variables::default();
    let network = Network::new(&mut variables)?;
    let mut optimiser = Optimiser::AdamW(AdamW::new(&variables.0, AdamWSettings::default()));
    let rates = Schedule::Constant.rates(1e-4, 0, 1);
    let input = wave(&INPUT, 1.0)?;
    println!("pass_wall pass_cpu optimiser_wall optimiser_cpu loss");
    for step in 0..=steps {
        let start = Clock::now()?;
        let logits = network.forward(&input)?;
        let loss = logits.sqr()?.mean_all()?;
        let gradients = loss.backward()?;
        let passed = Clock::now()?;
        optimiser.step(&variables.0, &Gradients::of(&variables.0, &gradients)?, rates)?;
        let moved = Clock::now()?;
        if step > 0 {
            let ([pass_wall, pass_cpu], [wall, cpu]) = (passed.since(&start), moved.since(&passed));
            println!("{pass_wall:.4} {pass_cpu:.4} {wall:.4} {cpu:.4} {:.6}", loss.to_scalar::<f32>()?);
        }
    }
    Ok(())
}

/// Wall and processor time.
struct Clock {
    wall: Instant,
    cpu_seconds: f64,
}

impl Clock {
    fn now() -> std::io::Result<Self> {
        Ok(Self { wall: Instant::now(), cpu_seconds: cpu_seconds()? })
    }

    fn since(&self, earlier: &Self) -> [f64; 2] {
        [(self.wall - earlier.wall).as_secs_f64(), self.cpu_seconds - earlier.cpu_seconds]
    }
}

/// Processor time of all threads of this process, of which the scheduler keeps count in nanoseconds.
fn cpu_seconds() -> std::io::Result<f64> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let statistics = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let spent = statistics.split_whitespace().next().and_then(|field| field.parse::<f64>().ok());
        nanoseconds += spent.ok_or_else(|| std::io::Error::other("schedstat holds no number"))?;
    }
    Ok(nanoseconds * 1e-9)
}

/// The variables by name, as the optimiser takes them.
#[derive(Default)]
struct Variables(BTreeMap<String, Var>);

impl Variables {
    /// Values of the size that Kaiming's initialisation draws.
    fn weight(&mut self, shape: &[usize]) -> Result<Var> {
        let inputs: usize = shape[1..].iter().product();
        self.add(wave(shape, (6.0 / inputs as f64).sqrt())?)
    }

    fn constant(&mut self, value: f32, channels: usize) -> Result<Var> {
        self.add(Tensor::full(value, channels, &Device::Cpu)?)
    }

    fn add(&mut self, values: Tensor) -> Result<Var> {
        let var = Var::from_tensor(&values)?;
        self.0.insert(format!("variable {:03}", self.0.len()), var.clone());
        Ok(var)
    }
}

/// `scale * sin(0.7 i) cos(0.13 i)` over the flat index i.
fn wave(shape: &[usize], scale: f64) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    let value = |i: usize| (scale * (0.7 * i as f64).sin() * (0.13 * i as f64).cos()) as f32;
    Tensor::from_vec((0..count).map(value).collect::<Vec<f32>>(), shape, &Device::Cpu)
}

/// The form of `resnet3d-18`, out of the layers that the crate offers.
struct Network {
    stem: ConvNorm,
    blocks: Vec<[Option<ConvNorm>; 3]>,
    head: [Var; 2],
}

impl Network {
    fn new(variables: &mut Variables) -> Result<Self> {
        let stem = ConvNorm::new(variables, [1, 64], 2, 2, 0)?;
        let mut blocks = Vec::new();
        let mut inputs = 64;
        for outputs in [64, 128, 256, 512] {
            for block in 0..2 {
                let stride = if outputs > 64 && block == 0 { 2 } else { 1 };
                let first = ConvNorm::new(variables, [inputs, outputs], 3, stride, 1)?;
                let second = ConvNorm::new(variables, [outputs, outputs], 3, 1, 1)?;
                let shortcut = match stride {
                    1 => None,
                    _ => Some(ConvNorm::new(variables, [inputs, outputs], 1, stride, 0)?),
                };
                blocks.push([Some(first), Some(second), shortcut]);
                inputs = outputs;
            }
        }
        let head = [variables.weight(&[CLASSES, inputs])?, variables.constant(0.0, CLASSES)?];
        Ok(Self { stem, blocks, head })
    }

    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let mut features = self.stem.forward(input, true)?;
        for [first, second, shortcut] in &self.blocks {
            let layer = |layer: &Option<ConvNorm>, input: &Tensor, relu| match layer {
                Some(layer) => layer.forward(input, relu),
                None => Ok(input.clone()),
            };
            let residual = layer(second, &layer(first, &features, true)?, false)?;
            features = add_relu(&residual, &layer(shortcut, &features, false)?)?;
        }
        let [weight, bias] = &self.head;
        global_average_pool(&features)?.matmul(&weight.t()?)?.broadcast_add(bias)
    }
}

struct ConvNorm {
    weight: Var,
    stride: usize,
    padding: usize,
    norm: BatchNorm,
}

impl ConvNorm {
    fn new(
        variables: &mut Variables,
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Result<Self> {
        let weight = variables.weight(&[outputs, inputs, kernel, kernel, kernel])?;
        let norm = BatchNorm {
            gamma: variables.constant(1.0, outputs)?,
            beta: variables.constant(0.0, outputs)?,
            running_mean: Var::zeros(outputs, DType::F32, &Device::Cpu)?,
            running_variance: Var::ones(outputs, DType::F32, &Device::Cpu)?,
        };
        Ok(Self { weight, stride, padding, norm })
    }

    fn forward(&self, input: &Tensor, relu: bool) -> Result<Tensor> {
        self.norm.train(&conv3d(input, &self.weight, [self.stride; 3], [self.padding; 3])?, relu)
    }
}
