//! The same operation on the CPU and on a GPU.
//!
//! The CPU computes in f64 from the values that the GPU is given, so that what is compared is the GPU's error alone:
//! f32 within 2e-5 of the largest value (sums of up to 10^5 products), bf16 within 2^-7 (eight bits, and one rounding
//! of the result). Where there is no GPU, these tests say so and pass; with `ARGENT_GPU=required` (`just gpu`) they
//! fail.

use std::collections::BTreeMap;

use candle_core::{DType, Device as Opened, Tensor, Var};

use crate::batch_norm::BatchNorm;
use crate::bert::BertConfig;
use crate::channels::Channels;
use crate::conv::conv3d;
use crate::conv_cuda::{Route, convolve};
use crate::conv_cudnn::Cudnn;
use crate::device::{Device, gpus};
use crate::goldens::{assert_close, values, wave_var};
use crate::gradients::Gradients;
use crate::model::{Axes, ModelKind};
use crate::network::{Mode, Network};
use crate::optimiser::{AdamW, AdamWSettings, Optimiser, Sgd, SgdSettings};
use crate::parameters::Builder;
use crate::pool::{average_pool3d, average_pool3d_channels_last, max_pool3d, max_pool3d_channels_last};
use crate::pool_cuda::{Pooling, pool3d_channels_last};
use crate::residual::add_relu;
use crate::schedule::Rates;
use crate::text_encoder::TextEncoder;
use crate::vocabulary::Vocabulary;

/// The first GPU, or nothing where there is none and none is required.
fn gpu() -> Option<Opened> {
    match Device::Cuda(0).open() {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("ARGENT_GPU").is_some_and(|value| value == "required") => {
            panic!("a GPU is required: {error}")
        }
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// Types of feature maps on a GPU, each with its tolerance relative to the largest value.
const TYPES: [(DType, f64); 2] = [(DType::F32, 2e-5), (DType::BF16, 1.0 / 128.0)];

/// A variable on the GPU in `dtype`, and the same values on the CPU in f64.
fn twins(device: &Opened, shape: &[usize], phase: f64, scale: f64, offset: f64, dtype: DType) -> [Var; 2] {
    let rounded = wave_var(shape, phase, scale, offset).to_dtype(dtype).unwrap();
    let var = |tensor: Tensor| Var::from_tensor(&tensor).unwrap();
    [var(rounded.to_device(device).unwrap()), var(rounded.to_dtype(DType::F64).unwrap())]
}

/// Values of a tensor of any device and type.
fn numbers(tensor: &Tensor) -> Vec<f64> {
    values(&tensor.to_device(&Opened::Cpu).unwrap().to_dtype(DType::F64).unwrap().contiguous().unwrap())
}

/// The difference between two lists of values, as a share of the largest one.
fn assert_within(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    let (found, expected) = (numbers(found), numbers(expected));
    assert_eq!(found.len(), expected.len(), "{what}: values");
    let largest = expected.iter().fold(0.0f64, |most, value| most.max(value.abs()));
    let worst = found.iter().zip(&expected).fold(0.0f64, |most, (a, b)| most.max((a - b).abs()));
    // A NaN is not below anything.
    assert!(
        worst <= tolerance * largest,
        "{what}: off by {worst:e} of {largest:e}, expected {tolerance:e} of it"
    );
}

/// The gradients of `sum(y upstream)` for both of two twins.
fn gradients(y: [&Tensor; 2], upstream: [&Var; 2]) -> [candle_core::backprop::GradStore; 2] {
    [0, 1].map(|side| (y[side] * upstream[side].as_tensor()).unwrap().sum_all().unwrap().backward().unwrap())
}

/// Shapes of input and weight, stride and padding.
type Case = ([usize; 5], [usize; 5], [usize; 3], [usize; 3]);

#[test]
fn convolutions_by_both_routes() {
    let Some(device) = gpu() else { return };
    // A stem of one channel, odd sizes with a stride that skips voxels, channels that are no multiple of eight, and a
    // layer of the size that is trained.
    let cases: [Case; 5] = [
        ([2, 1, 16, 18, 20], [16, 1, 2, 2, 2], [2; 3], [0; 3]),
        ([2, 3, 5, 6, 7], [5, 3, 3, 2, 1], [1, 2, 3], [1, 0, 2]),
        ([1, 16, 9, 10, 11], [32, 16, 3, 3, 3], [2; 3], [1; 3]),
        ([3, 16, 8, 8, 8], [24, 16, 1, 1, 1], [2; 3], [0; 3]),
        ([2, 64, 12, 14, 16], [64, 64, 3, 3, 3], [1; 3], [1; 3]),
    ];
    let routes = [Route::of(device.as_cuda_device().unwrap()), Route::Unfold];
    if routes[0] == Route::Unfold {
        eprintln!("skipped: cuDNN is not there");
    }
    for (x_shape, w_shape, stride, padding) in cases {
        for (dtype, tolerance) in TYPES {
            for route in routes {
                let what =
                    |name: &str| format!("{name} of {x_shape:?} by {w_shape:?} in {dtype:?} by {route:?}");
                let [x, x_cpu] = twins(&device, &x_shape, 0.1, 1.0, 0.0, dtype);
                let [w, w_cpu] = twins(&device, &w_shape, 0.4, 1.0, 0.0, dtype);
                let last = x.permute((0, 2, 3, 4, 1)).unwrap().contiguous().unwrap();
                let y =
                    convolve(&last, &w, stride, padding, route).unwrap().permute((0, 4, 1, 2, 3)).unwrap();
                let y_cpu = conv3d(&x_cpu, &w_cpu, stride, padding).unwrap();
                assert_within(&what("y"), &y, &y_cpu, tolerance);
                let [up, up_cpu] = twins(&device, y.dims(), 0.9, 1.0, 0.0, dtype);
                let [gpu, cpu] = gradients([&y, &y_cpu], [&up, &up_cpu]);
                for (name, var, var_cpu) in [("dx", &x, &x_cpu), ("dw", &w, &w_cpu)] {
                    let pair = [gpu.get(var).unwrap(), cpu.get(var_cpu).unwrap()];
                    assert_within(&what(name), pair[0], pair[1], tolerance);
                }
            }
        }
    }
    // Otherwise both routes would be one.
    let left_out = Cudnn::left_out(device.as_cuda_device().unwrap());
    assert!(!left_out.iter().any(|key| key.contains("in_channels: 64")), "{left_out:#?}");
    left_out.iter().for_each(|key| eprintln!("cuDNN has no algorithm for {key}"));
}

#[test]
fn a_bf16_convolution_gives_f32_weights_an_f32_gradient() {
    let Some(device) = gpu() else { return };
    let [x, _] = twins(&device, &[1, 4, 4, 4, 8], 0.1, 1.0, 0.0, DType::BF16);
    let [w, _] = twins(&device, &[8, 8, 3, 3, 3], 0.4, 1.0, 0.0, DType::F32);
    let y = Channels::Last.conv3d(&x, &w, [1; 3], [1; 3]).unwrap();
    let gradients = y.to_dtype(DType::F32).unwrap().sum_all().unwrap().backward().unwrap();
    assert_eq!((y.dtype(), gradients.get(&w).unwrap().dtype()), (DType::BF16, DType::F32));
}

/// The variables of a normalisation of `channels`, on the GPU in f32 and on the CPU in f64.
fn norms(device: &Opened, channels: usize) -> [BatchNorm; 2] {
    let parts = [(1.1, 1.0, 1.5), (2.2, 0.3, 0.0), (0.5, 0.2, 3.0), (0.6, 0.1, 0.4)];
    let parts =
        parts.map(|(phase, scale, offset)| twins(device, &[channels], phase, scale, offset, DType::F32));
    [0, 1].map(|side| {
        let [gamma, beta, running_mean, running_variance] = parts.each_ref().map(|twins| twins[side].clone());
        BatchNorm { gamma, beta, running_mean, running_variance }
    })
}

#[test]
fn batch_norm_and_its_gradients() {
    let Some(device) = gpu() else { return };
    // The channels are a multiple of neither width of a load, of four, of eight; and more than one block takes.
    for shape in [[2, 5, 3, 4, 5], [2, 12, 6, 7, 8], [3, 64, 10, 11, 12], [2, 520, 2, 3, 4]] {
        for (dtype, tolerance) in TYPES {
            for (train, relu) in [(true, false), (true, true), (false, false), (false, true)] {
                let what =
                    |name: &str| format!("{name} of {shape:?} in {dtype:?}, train {train}, relu {relu}");
                let [x, x_cpu] = twins(&device, &shape, 0.2, 1.0, 3.0, dtype);
                let [norm, norm_cpu] = norms(&device, shape[1]);
                let y = |norm: &BatchNorm, x: &Var| {
                    if train { norm.train(x, relu) } else { norm.eval(x, relu) }.unwrap()
                };
                let pair = [y(&norm, &x), y(&norm_cpu, &x_cpu)];
                assert_within(&what("y"), &pair[0], &pair[1], tolerance);
                let [up, up_cpu] = twins(&device, &shape, 0.7, 1.0, 0.0, dtype);
                let [gpu, cpu] = gradients([&pair[0], &pair[1]], [&up, &up_cpu]);
                let variables = [
                    ("dx", &x, &x_cpu),
                    ("dgamma", &norm.gamma, &norm_cpu.gamma),
                    ("dbeta", &norm.beta, &norm_cpu.beta),
                ];
                for (name, var, var_cpu) in variables {
                    let pair = [gpu.get(var).unwrap(), cpu.get(var_cpu).unwrap()];
                    assert_within(&what(name), pair[0], pair[1], tolerance);
                }
                let running = [
                    ("running mean", &norm.running_mean, &norm_cpu.running_mean),
                    ("running variance", &norm.running_variance, &norm_cpu.running_variance),
                ];
                for (name, var, var_cpu) in running {
                    assert_within(&what(name), var, var_cpu, 2e-5);
                }
            }
        }
    }
}

#[test]
fn variance_far_from_zero() {
    let Some(device) = gpu() else { return };
    // 1000 +- 1: squares of the values themselves would lose the variance, which is 1.
    let values: Vec<f32> = (0..4096).map(|i| if i % 2 == 0 { 999.0 } else { 1001.0 }).collect();
    let x = Tensor::from_vec(values, (1, 1, 16, 16, 16), &device).unwrap();
    let one = |value: f32| Var::new(&[value], &device).unwrap();
    let norm =
        BatchNorm { gamma: one(1.0), beta: one(0.0), running_mean: one(0.0), running_variance: one(1.0) };
    let y = numbers(&norm.train(&x, false).unwrap());
    assert!((y[0] + 1.0).abs() < 1e-5 && (y[1] - 1.0).abs() < 1e-5, "{} {}", y[0], y[1]);
}

#[test]
fn the_rectified_sum_and_its_gradient() {
    let Some(device) = gpu() else { return };
    for shape in [[2, 3, 4, 5, 7], [2, 8, 4, 5, 8]] {
        for (dtype, tolerance) in TYPES {
            let [a, a_cpu] = twins(&device, &shape, 0.1, 1.0, 0.0, dtype);
            let [b, b_cpu] = twins(&device, &shape, 0.8, 1.0, 0.0, dtype);
            let pair = [add_relu(&a, &b).unwrap(), add_relu(&a_cpu, &b_cpu).unwrap()];
            assert_within("sum", &pair[0], &pair[1], tolerance);
            let [up, up_cpu] = twins(&device, &shape, 0.7, 1.0, 0.0, dtype);
            let [gpu, cpu] = gradients([&pair[0], &pair[1]], [&up, &up_cpu]);
            assert_within("da", gpu.get(&a).unwrap(), cpu.get(&a_cpu).unwrap(), tolerance);
            assert_within("db", gpu.get(&b).unwrap(), cpu.get(&b_cpu).unwrap(), tolerance);
        }
    }
    let nan = Tensor::new(&[f32::NAN, -1.0], &device).unwrap();
    let kept = numbers(&add_relu(&nan, &nan).unwrap());
    assert!(kept[0].is_nan() && kept[1] == 0.0, "a NaN must not become a zero");
}

/// Windows written out: of one channel, 2 x 3 x 4 voxels counted upward, and the gradients of their sum.
#[test]
fn pools_and_their_gradients() {
    let Some(device) = gpu() else { return };
    let x = Tensor::arange(0f32, 24.0, &device).unwrap().reshape((1, 2, 3, 4, 1)).unwrap();
    let x = Var::from_tensor(&x).unwrap();
    let pool = |pooling, kernel, stride, padding| {
        let y = pool3d_channels_last(&x, pooling, kernel, stride, padding).unwrap();
        let gradients = y.sum_all().unwrap().backward().unwrap();
        (numbers(&y), numbers(gradients.get(&x).unwrap()))
    };
    let (y, dx) = pool(Pooling::Max, [1, 3, 3], [1, 2, 2], [0, 1, 1]);
    assert_eq!(y, [5.0, 7.0, 9.0, 11.0, 17.0, 19.0, 21.0, 23.0]);
    let largest: Vec<usize> = (0..24).filter(|&voxel| dx[voxel] == 1.0).collect();
    assert_eq!((largest, dx.iter().sum::<f64>()), (vec![5, 7, 9, 11, 17, 19, 21, 23], 8.0));
    let (y, dx) = pool(Pooling::Average, [2, 2, 2], [2, 2, 2], [0, 0, 0]);
    assert_eq!(y, [8.5, 10.5]);
    assert_eq!(dx[..12], [0.125, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125, 0.0, 0.0, 0.0, 0.0]);
    let (y, dx) = pool(Pooling::Average, [1, 2, 2], [1, 2, 2], [0, 1, 1]);
    assert_eq!(y[..6], [0.0, 0.75, 0.75, 3.0, 7.5, 4.5]);
    assert_eq!(dx, [0.25; 24]);
    let nan = Tensor::new(&[f32::NAN, 1.0], &device).unwrap().reshape((1, 1, 1, 2, 1)).unwrap();
    let kept = numbers(&pool3d_channels_last(&nan, Pooling::Max, [1, 1, 2], [1; 3], [0; 3]).unwrap());
    assert!(kept[0].is_nan(), "a NaN must not be hidden");
}

/// Pools as networks call them, in both orders of axes.
#[test]
fn pools_of_both_orders() {
    let Some(device) = gpu() else { return };
    let (kernel, stride, padding) = ([3, 3, 3], [2, 2, 2], [1, 1, 1]);
    for (dtype, tolerance) in TYPES {
        let [x, x_cpu] = twins(&device, &[2, 5, 7, 8, 9], 0.1, 1.0, 0.0, dtype);
        let last = x.permute((0, 2, 3, 4, 1)).unwrap().contiguous().unwrap();
        let first_again = |y: Tensor| y.permute((0, 4, 1, 2, 3)).unwrap();
        let pairs = [
            ("max", max_pool3d(&x, kernel, stride, padding), max_pool3d(&x_cpu, kernel, stride, padding)),
            (
                "max, channels last",
                max_pool3d_channels_last(&last, kernel, stride, padding).map(first_again),
                max_pool3d(&x_cpu, kernel, stride, padding),
            ),
            (
                "average",
                average_pool3d(&x, kernel, stride, padding),
                average_pool3d(&x_cpu, kernel, stride, padding),
            ),
            (
                "average, channels last",
                average_pool3d_channels_last(&last, kernel, stride, padding).map(first_again),
                average_pool3d(&x_cpu, kernel, stride, padding),
            ),
        ];
        for (name, y, y_cpu) in pairs {
            let pair = [y.unwrap(), y_cpu.unwrap()];
            assert_within(name, &pair[0], &pair[1], tolerance);
            let [up, up_cpu] = twins(&device, pair[0].dims(), 0.7, 1.0, 0.0, dtype);
            let [gpu, cpu] = gradients([&pair[0], &pair[1]], [&up, &up_cpu]);
            assert_within(name, gpu.get(&x).unwrap(), cpu.get(&x_cpu).unwrap(), 2.0 * tolerance);
        }
    }
}

/// The gradients of `sum(variable * wave)` for variables of two shapes, on a device.
fn waves(device: &Opened, phase: f64) -> (BTreeMap<String, Var>, Gradients) {
    let wave = |shape: &[usize], phase: f64| {
        wave_var(shape, phase, 1.0, 0.0).to_dtype(DType::F32).unwrap().to_device(device).unwrap()
    };
    let var = |shape: &[usize]| Var::from_tensor(&wave(shape, 0.5)).unwrap();
    let variables =
        BTreeMap::from([("bias".to_owned(), var(&[7])), ("weight".to_owned(), var(&[10, 4, 25]))]);
    let mut loss = Tensor::zeros((), DType::F32, device).unwrap();
    for var in variables.values() {
        loss = (loss + (var.as_tensor() * wave(var.dims(), phase)).unwrap().sum_all().unwrap()).unwrap();
    }
    let gradients = Gradients::of(&variables, &loss.backward().unwrap()).unwrap();
    (variables, gradients)
}

#[test]
fn gradients_are_summed_and_clipped() {
    let Some(device) = gpu() else { return };
    let clipped = |device: &Opened| {
        let (variables, mut sum) = waves(device, 0.3);
        let (_, mut more) = waves(device, 1.3);
        more.scale(0.5);
        sum.accumulate(&more).unwrap();
        let norm = sum.clip(1.0).unwrap();
        let all = variables.keys().flat_map(|name| numbers(sum.get(name).unwrap()));
        [vec![norm, f64::from(sum.factor())], all.collect()]
    };
    let (gpu, cpu) = (clipped(&device), clipped(&Opened::Cpu));
    assert_close("norm and factor", &gpu[0], &cpu[0], 1e-6);
    assert_close("sums", &gpu[1], &cpu[1], 1e-6);
}

/// AdamW and descent; what a checkpoint keeps goes on as if nothing had been.
#[test]
fn five_steps_of_each_optimiser() {
    let Some(device) = gpu() else { return };
    let adamw = |variables: &BTreeMap<String, Var>| {
        let settings = AdamWSettings { weight_decay: 0.1, ..AdamWSettings::default() };
        Optimiser::AdamW(AdamW::new(variables, settings))
    };
    let descent = |variables: &BTreeMap<String, Var>| {
        let settings = SgdSettings { momentum: 0.9, nesterov: true, weight_decay: 0.1 };
        Optimiser::Sgd(Sgd::new(variables, settings))
    };
    let plain = |variables: &BTreeMap<String, Var>| {
        let settings = SgdSettings { momentum: 0.5, nesterov: false, weight_decay: 0.0 };
        Optimiser::Sgd(Sgd::new(variables, settings))
    };
    type Make = fn(&BTreeMap<String, Var>) -> Optimiser;
    let kinds: [(&str, Make); 3] = [("adamw", adamw), ("nesterov", descent), ("momentum", plain)];
    for (name, make) in kinds {
        let step = |device: &Opened| {
            let (variables, _) = waves(device, 0.0);
            let mut optimiser = make(&variables);
            for step in 0..5 {
                if step == 3 {
                    let state = optimiser.state().unwrap();
                    optimiser = make(&variables);
                    optimiser.resume(state).unwrap();
                }
                let (_, mut gradients) = waves(device, 0.3 * f64::from(step));
                gradients.scale(0.25);
                optimiser.step(&variables, &gradients, Rates { lr: 1e-2, momentum: None }).unwrap();
            }
            let state = optimiser.state().unwrap().arrays.into_values().flatten().map(f64::from);
            [variables.values().flat_map(|var| numbers(var)).collect(), state.collect::<Vec<_>>()]
        };
        let (gpu, cpu) = (step(&device), step(&Opened::Cpu));
        assert_close(&format!("variables of {name}"), &gpu[0], &cpu[0], 1e-6);
        assert_close(&format!("state of {name}"), &gpu[1], &cpu[1], 1e-6);
    }
}

/// A whole step of each small network: logits and the direction of every gradient, on the GPU beside f32 on the CPU.
/// Convolutional networks compute in bf16 there, transformers in f32.
#[test]
fn networks_and_their_gradients() {
    let Some(device) = gpu() else { return };
    for kind in [
        ModelKind::ResNet3dTiny,
        ModelKind::DenseNet3dTiny,
        ModelKind::Vit3dTiny,
        ModelKind::ResNetTiny,
        ModelKind::DenseNetTiny,
        ModelKind::VitTiny,
    ] {
        let step = |device: &Opened| {
            let network = Network::build(kind, 3, Builder::seeded(3).on(device)).unwrap();
            let depth = if kind.axes() == Axes::Image { 1 } else { 32 };
            let input = wave_var(&[4, 1, depth, 40, 48], 0.3, 1.0, 0.0).to_dtype(DType::F32).unwrap();
            let pooled = network.embed(&input.to_device(device).unwrap(), Mode::Train).unwrap();
            let logits = network.classify(&pooled).unwrap();
            let gradients = logits.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let trainable = network.parameters.trainable.iter();
            let gradients: Vec<(String, Vec<f64>)> =
                trainable.map(|(name, var)| (name.clone(), numbers(gradients.get(var).unwrap()))).collect();
            (logits, gradients)
        };
        let ((logits, gpu), (logits_cpu, cpu)) = (step(&device), step(&Opened::Cpu));
        let (tolerance, least) = if kind.name().starts_with("vit") { (1e-4, 0.9999) } else { (0.05, 0.98) };
        assert_within(&format!("logits of {kind}"), &logits, &logits_cpu, tolerance);
        for ((name, a), (_, b)) in gpu.iter().zip(&cpu) {
            let cosine = cosine(a, b);
            assert!(
                cosine > least,
                "{kind}, {name}: the gradients' directions have the cosine {cosine}, expected {least}"
            );
        }
    }
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// A text encoder that was made on the CPU and is trained on the GPU.
#[test]
fn a_text_encoder_and_its_gradients() {
    let Some(device) = gpu() else { return };
    let texts = ["no pleural effusion", "a small nodule in the left lower lobe"];
    let step = |device: &Opened| {
        let vocabulary = Vocabulary::learn(&texts, 200).unwrap();
        let config = BertConfig::small(vocabulary.size());
        let encoder = TextEncoder::seeded(config, vocabulary, 5).unwrap().on(device).unwrap();
        let embedding = encoder.encode(&encoder.tokenise(&texts).unwrap()).unwrap();
        let gradients = embedding.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let words = &encoder.parameters.trainable["embeddings.word_embeddings.weight"];
        let gradient = numbers(gradients.get(words).unwrap());
        (embedding, gradient)
    };
    let ((found, gpu), (expected, cpu)) = (step(&device), step(&Opened::Cpu));
    assert_within("embeddings", &found, &expected, 1e-4);
    assert!(cosine(&gpu, &cpu) > 0.9999);
}

#[test]
fn the_gpu_is_described_and_another_is_refused() {
    if gpu().is_none() {
        return;
    }
    let all = gpus().unwrap();
    assert!(all[0].memory_bytes > 1 << 30 && !all[0].name.is_empty(), "{all:?}");
    let error = Device::Cuda(all.len()).open().unwrap_err().to_string();
    assert!(error.starts_with(&format!("there is no GPU {}: there", all.len())), "{error}");
}
