//! What a training step of the 18-layer 3D ResNet takes on a GPU: seconds of each step, of volumes that are in memory.
//!
//! `gpu_training STEPS BATCH D H W` trains on the first GPU, in bf16, as `train.classifier` does; the first steps, in
//! which algorithms are chosen, are printed too. `benches/training_gpu.py` runs it beside PyTorch.

use std::error::Error;

use argent_learn::batches::Voxels;
use argent_learn::classifier::{ClassifierConfig, ClassifierData, Sampling, train};
use argent_learn::device::Device;
use argent_learn::history::{Answer, Part, Progress};
use argent_learn::model::ModelKind;
use argent_learn::settings::Settings;

const CLASSES: usize = 18;

fn main() -> Result<(), Box<dyn Error>> {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|word| word.parse()).collect::<Result<_, _>>()?;
    let &[steps, batch, depth, height, width] = numbers.as_slice() else {
        return Err("expected five numbers: steps, batch, depth, height, width".into());
    };
    let config = ClassifierConfig {
        model: ModelKind::ResNet3d18,
        classes: (0..CLASSES).map(|class| format!("class {class}")).collect(),
        positive_weight: Vec::new(),
        sampling: Sampling::Natural,
        settings: Settings { epochs: 1, batch, ..Settings::default() },
    };
    let volumes: Vec<Vec<i16>> =
        (0..2 * batch).map(|number| volume(number, depth * height * width)).collect();
    let samples = steps * batch;
    let data = ClassifierData {
        targets: (0..samples * CLASSES).map(|index| if index % 3 == 0 { 1.0 } else { 0.0 }).collect(),
        weights: vec![1.0; samples * CLASSES],
        parts: vec![Part::Train; samples],
        load: Box::new(|sample| {
            let voxels = volumes[sample % volumes.len()].clone();
            Ok((Voxels::Hounsfield(voxels), [width, height, depth]))
        }),
    };
    println!("seconds loss");
    train(&config, &data, None, Device::Cuda(0), None, &mut |progress| {
        if let Progress::Step { record, .. } = progress {
            println!("{:.5} {:.5}", record.seconds, record.loss);
        }
        Answer::GoOn
    })?;
    Ok(())
}

/// Noise between air and soft tissue, another one for each number.
fn volume(number: usize, voxels: usize) -> Vec<i16> {
    let mut state = number as u32 + 1;
    let mut voxel = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 22) as i16 - 900
    };
    (0..voxels).map(|_| voxel()).collect()
}
