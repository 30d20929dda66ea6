//! What steps need to themselves while they run: processors, GPUs by device index, memory, an endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::available_parallelism;

use crate::diagnostic::Diagnostic;
use crate::spec::Step;

/// What a machine offers to the steps of one run.
#[derive(Debug, Clone)]
pub struct Resources {
    /// How many processors steps may ask for together; a step that asks for none takes one.
    pub jobs: u32,
    /// Memory that steps may ask for together, in GiB; a step that asks for none is not counted.
    pub memory_gb: u32,
    /// The indices of the GPUs that this program can use.
    pub gpus: Vec<usize>,
    /// Why there is none, where there is none.
    pub without_gpus: String,
}

impl Default for Resources {
    /// This machine's processors and memory, and no GPU.
    fn default() -> Resources {
        let jobs = available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        let without_gpus = "this argent was built without GPU support".to_owned();
        Resources { jobs, memory_gb: machine_memory_gb(), gpus: Vec::new(), without_gpus }
    }
}

impl Resources {
    /// What a step with these `needs` lacks here; none where it can run.
    pub fn lack(&self, needs: &BTreeMap<String, u32>) -> Option<String> {
        Pools::new(self).refusal(&Demand::new(needs, Vec::new()))
    }
}

/// What a step asks for: the names under `needs`, and what only one step may use at a time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Demand {
    cpu: u32,
    gpu: u32,
    memory_gb: u32,
    alone: Vec<String>,
}

/// What a running step holds.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    demand: Demand,
    /// The GPUs that are the step's own.
    pub(crate) gpus: Vec<usize>,
}

/// What is free.
#[derive(Debug)]
pub(crate) struct Pools {
    all: Resources,
    jobs: u32,
    memory_gb: u32,
    gpus: BTreeSet<usize>,
    taken: BTreeSet<String>,
}

/// The names that `needs` understands.
pub(crate) const NEEDS: [&str; 3] = ["cpu", "gpu", "memory_gb"];

impl Demand {
    pub(crate) fn new(needs: &BTreeMap<String, u32>, alone: Vec<String>) -> Demand {
        let of = |name: &str| needs.get(name).copied().unwrap_or(0);
        Demand { cpu: of("cpu").max(1), gpu: of("gpu"), memory_gb: of("memory_gb"), alone }
    }
}

impl Pools {
    pub(crate) fn new(all: &Resources) -> Pools {
        Pools {
            jobs: all.jobs,
            memory_gb: all.memory_gb,
            gpus: all.gpus.iter().copied().collect(),
            taken: BTreeSet::new(),
            all: all.clone(),
        }
    }

    /// Why a step can never run here, if it cannot.
    pub(crate) fn refusal(&self, demand: &Demand) -> Option<String> {
        let gpus = u32::try_from(self.all.gpus.len()).unwrap_or(u32::MAX);
        if demand.gpu > gpus {
            let there = if gpus == 0 { self.all.without_gpus.clone() } else { format!("there are {gpus}") };
            return Some(format!(
                "the step needs {} gpu, and {there}; it does not fall back to the CPU",
                demand.gpu
            ));
        }
        let lack = |asked: u32, there: u32, what: &str| {
            (asked > there).then(|| format!("the step needs {asked} {what}, and there are {there}"))
        };
        lack(demand.cpu, self.all.jobs.max(1), "cpu")
            .map(|text| format!("{text} (--jobs)"))
            .or_else(|| lack(demand.memory_gb, self.all.memory_gb, "memory_gb"))
    }

    /// Takes what a step asks for, if all of it is free.
    pub(crate) fn take(&mut self, demand: &Demand) -> Option<Slot> {
        let free = demand.cpu <= self.jobs
            && demand.memory_gb <= self.memory_gb
            && demand.gpu as usize <= self.gpus.len()
            && !demand.alone.iter().any(|name| self.taken.contains(name));
        if !free {
            return None;
        }
        self.jobs -= demand.cpu;
        self.memory_gb -= demand.memory_gb;
        self.taken.extend(demand.alone.iter().cloned());
        let gpus: Vec<usize> = self.gpus.iter().copied().take(demand.gpu as usize).collect();
        self.gpus.retain(|gpu| !gpus.contains(gpu));
        Some(Slot { demand: demand.clone(), gpus })
    }

    /// Gives back what a step held.
    pub(crate) fn give(&mut self, slot: Slot) {
        self.jobs += slot.demand.cpu;
        self.memory_gb += slot.demand.memory_gb;
        self.gpus.extend(slot.gpus);
        self.taken.retain(|name| !slot.demand.alone.contains(name));
    }
}

/// What is wrong with a step's `needs`.
pub(crate) fn check_needs(step: &Step) -> Vec<Diagnostic> {
    let unknown = step.needs.keys().filter(|name| !NEEDS.contains(&name.as_str()));
    let told = unknown.map(|name| {
        let place = step.needs_span(name);
        Diagnostic::error(place, format!("`needs` knows no `{name}`"))
            .label(place, String::new())
            .help(crate::operator::nearest(name, &NEEDS, "needs"))
    });
    told.collect()
}

/// The machine's memory in whole GiB; where the system does not tell, as much as anyone asks for.
fn machine_memory_gb() -> u32 {
    let total_kib = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    total_kib.and_then(|kib| u32::try_from(kib.div_ceil(1 << 20)).ok()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(needs: &[(&str, u32)], alone: &[&str]) -> Demand {
        let needs = needs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        Demand::new(&needs, alone.iter().map(|n| (*n).to_owned()).collect())
    }

    fn pools() -> Pools {
        Pools::new(&Resources { jobs: 2, memory_gb: 8, gpus: vec![0, 1], ..Resources::default() })
    }

    #[test]
    fn a_step_waits_until_all_that_it_needs_is_free() {
        let mut pools = pools();
        let first = pools.take(&demand(&[("gpu", 1), ("memory_gb", 6)], &[])).unwrap();
        assert_eq!(first.gpus, [0]);
        assert!(pools.take(&demand(&[("memory_gb", 3)], &[])).is_none(), "6 of 8 GiB are taken");
        let second = pools.take(&demand(&[("gpu", 1)], &[])).unwrap();
        assert_eq!(second.gpus, [1], "each has a device of its own");
        assert!(pools.take(&demand(&[], &[])).is_none(), "both processors are taken");
        pools.give(first);
        assert!(pools.take(&demand(&[("memory_gb", 8)], &[])).is_some());
    }

    #[test]
    fn an_endpoint_serves_one_step_at_a_time() {
        let mut pools = pools();
        let first = pools.take(&demand(&[], &["http://a"])).unwrap();
        assert!(pools.take(&demand(&[], &["http://a"])).is_none());
        let other = pools.take(&demand(&[], &["http://b"])).unwrap();
        pools.give(first);
        pools.give(other);
        assert!(pools.take(&demand(&[], &["http://a"])).is_some());
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let pools = Pools::new(&Resources { jobs: 2, memory_gb: 8, ..Resources::default() });
        let said = |needs: &[(&str, u32)]| pools.refusal(&demand(needs, &[])).unwrap_or_default();
        assert_eq!(
            said(&[("gpu", 1)]),
            "the step needs 1 gpu, and this argent was built without GPU support; it does not fall back to the CPU"
        );
        assert_eq!(said(&[("cpu", 4)]), "the step needs 4 cpu, and there are 2 (--jobs)");
        assert_eq!(said(&[("memory_gb", 9)]), "the step needs 9 memory_gb, and there are 8");
        assert_eq!(said(&[("memory_gb", 8), ("cpu", 2)]), "");
    }
}
