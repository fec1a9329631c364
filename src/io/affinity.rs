//! Which processors the workers run on.

use std::io;
use std::thread;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How many workers to run when nobody says: what the affinity mask and the cgroup's quota leave to the process.
pub fn available() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The first of `cpus` that the process may not run on.
pub fn first_forbidden(cpus: &[usize]) -> io::Result<Option<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok(cpus.iter().copied().find(|cpu| *cpu >= CpuSet::MAX_CPU || !allowed.is_set(*cpu)))
}

/// Pins the calling thread to one processor.
pub fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}
