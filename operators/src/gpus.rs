//! The GPUs of this machine, for steps that need one.

use argent_engine::operator::Condition;
use argent_engine::{Io, Resources};
use argent_learn::device::{self, Device, Gpu};

/// What this machine offers to the steps of a run, with the GPUs that this program can use.
pub fn resources() -> Resources {
    let mut resources = Resources::default();
    match device::gpus() {
        Ok(gpus) if gpus.is_empty() => resources.without_gpus = "the driver shows none".to_owned(),
        Ok(gpus) => resources.gpus = gpus.iter().map(|gpu| gpu.index).collect(),
        Err(error) => resources.without_gpus = error.to_string(),
    }
    resources
}

/// What each GPU is, for a look before a run; why there is none is in [`resources`].
pub fn conditions() -> Vec<Condition> {
    let gpus = device::gpus().unwrap_or_default();
    gpus.iter().map(|gpu| Condition::met(format!("gpu {}", gpu.index), told(gpu))).collect()
}

fn told(gpu: &Gpu) -> String {
    let Gpu { name, memory_bytes, compute_capability: [major, minor], cudnn, .. } = gpu;
    let memory_gib = *memory_bytes as f64 / f64::from(1 << 30);
    let convolutions = match cudnn {
        Some(version) => format!("convolutions by cuDNN {version}"),
        None => "without cuDNN (libcudnn.so.9 does not open), so that convolutions are slower".to_owned(),
    };
    format!("{name}, {memory_gib:.0} GiB, compute capability {major}.{minor}; {convolutions}")
}

/// Where a step's network computes: on the GPU that is the step's own by `needs`, otherwise on the CPU.
pub(crate) fn device_of(io: &Io) -> Device {
    io.gpus().first().map_or(Device::Cpu, |&index| Device::Cuda(index))
}

/// What `CUDA_VISIBLE_DEVICES` must say so that a program sees these GPUs alone. Indices count those that this program
/// sees, which the same variable may have chosen.
pub(crate) fn visible_devices(gpus: &[usize]) -> String {
    named_devices(gpus, &std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default())
}

fn named_devices(gpus: &[usize], seen: &str) -> String {
    let seen: Vec<&str> = seen.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let name = |&gpu: &usize| seen.get(gpu).map_or_else(|| gpu.to_string(), ToString::to_string);
    gpus.iter().map(name).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_gpu() {
        let mut gpu = Gpu {
            index: 0,
            name: "NVIDIA H100 80GB HBM3".into(),
            memory_bytes: 85_520_809_984,
            compute_capability: [9, 0],
            cudnn: Some("9.19.0".into()),
        };
        let same = "NVIDIA H100 80GB HBM3, 80 GiB, compute capability 9.0; ";
        assert_eq!(told(&gpu), format!("{same}convolutions by cuDNN 9.19.0"));
        gpu.cudnn = None;
        let without = "without cuDNN (libcudnn.so.9 does not open), so that convolutions are slower";
        assert_eq!(told(&gpu), format!("{same}{without}"));
    }

    #[test]
    fn a_program_sees_the_gpus_of_its_step() {
        assert_eq!(named_devices(&[0, 2], ""), "0,2");
        assert_eq!(named_devices(&[1], "5, GPU-8a3f"), "GPU-8a3f");
    }
}
