//! Which processors threads run on, and whether they give way to others.

use std::io;
use std::thread;

use rustix::process::nice;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

use crate::io::syscalls;

/// How many workers to run when nobody says: what the affinity mask and the cgroup's quota leave to the process.
pub fn available() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The first of `cpus` that the process may not run on.
pub fn first_forbidden(cpus: &[usize]) -> io::Result<Option<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok(cpus.iter().copied().find(|cpu| *cpu >= CpuSet::MAX_CPU || !allowed.is_set(*cpu)))
}

/// Tries what [`pin`] does, and changes nothing.
pub(super) fn probe_pin() -> io::Result<()> {
    Ok(sched_setaffinity(None, &sched_getaffinity(None)?)?)
}

/// Pins the calling thread to one processor.
pub fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// What nice(2) adds to a thread that gives way: about a tenth of a processor is left to it when all others are busy, so
/// that nobody who comes new waits for long.
const GIVE_WAY: i32 = 10;

/// Lets the calling thread give way to others, which on Linux is a matter of this thread alone.
pub(super) fn give_way() -> io::Result<()> {
    Ok(nice(GIVE_WAY).map(drop)?)
}

/// Lets the calling thread, and those that it will start, have only what nobody else wants: the processor by `SCHED_IDLE`,
/// and the disk too, because the class of its I/O follows from that (`ioprio_set(2)`).
///
/// # Errors
/// It goes on as an ordinary thread.
pub fn idle() -> io::Result<()> {
    if !syscalls::found().idle {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy)
        .map_err(|e| io::Error::other(format!("{e:?}")))
}
