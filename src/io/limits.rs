//! What the process may use: descriptors, memory, and the modes that new files get.

use std::io;
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use rustix::fs::Mode;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::umask;

use crate::io::syscalls;

/// Raises the soft limit on open files to the hard one and returns the limit that holds now.
pub fn raise_descriptors() -> u64 {
    if syscalls::found().limits {
        // A refusal leaves the soft limit as it was, which is then the answer.
        raise_by_call().ok();
    }
    max_descriptors()
}

/// Raises the soft limit by setrlimit(2).
pub(super) fn raise_by_call() -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// Lifts the limit on locked memory, where the process may: before Linux 5.12 rings count into it, unless their process has a
/// capability that is about to be given up.
pub fn lift_locked_memory() {
    if syscalls::found().limits {
        // Where it can't be lifted a ring may not fit, which says so.
        setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).ok();
    }
}

/// The soft limit on open files.
fn max_descriptors() -> u64 {
    /// What a process may have that asks for nothing.
    const USUAL: u64 = 1024;
    if syscalls::found().limits
        && let Ok((now, _)) = getrlimit(Resource::RLIMIT_NOFILE)
    {
        return now;
    }
    // The same system call reads and sets: where it is forbidden, proc(5) knows.
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(USUAL)
}

/// Number of descriptors that the process has open.
pub fn open_descriptors() -> u64 {
    let folder = "/proc/self/fd";
    // The folder's size says it since Linux 6.2; to list it takes long where there are many.
    match std::fs::metadata(folder).map(|folder| folder.len()) {
        Ok(count @ 1..) => count,
        _ => std::fs::read_dir(folder).map_or(16, |entries| entries.count() as u64),
    }
}

/// Bytes of memory that the process may use: the least limit of its cgroups, of version 1 and 2, or what the machine has.
/// `u64::MAX` where neither is told.
pub fn memory_limit() -> u64 {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_groups = groups.lines().filter_map(least_of_group).min();
    let machine = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = machine.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let total = total.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let of_machine = total.map_or(u64::MAX, |kib| kib.saturating_mul(1024));
    of_groups.unwrap_or(u64::MAX).min(of_machine)
}

/// The least limit of one cgroup and those above it; `line` is one of `/proc/self/cgroup`. In a container without a cgroup
/// namespace the path is that of the host, and only the root, which is the container's, is there.
fn least_of_group(line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (root, file) = if controllers.is_empty() {
        (Path::new("/sys/fs/cgroup"), "memory.max")
    } else if controllers.split(',').any(|name| name == "memory") {
        (Path::new("/sys/fs/cgroup/memory"), "memory.limit_in_bytes")
    } else {
        return None;
    };
    let group = root.join(path.trim_start_matches('/'));
    let groups = group.ancestors().take_while(|folder| folder.starts_with(root));
    // `max` is no number, and no limit.
    groups.filter_map(|folder| std::fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()).min()
}

/// Sets the file-mode mask once, so that the modes packhouse asks for are the modes it gets: nothing for others,
/// and nothing for the group unless `group`.
pub fn set_umask(group: bool) {
    umask(if group { Mode::from_raw_mode(0o007) } else { Mode::from_raw_mode(0o077) });
}

/// What the process has used.
#[derive(Clone, Copy, Debug)]
pub struct ProcessFigures {
    /// Processor time, of all threads.
    pub cpu: Duration,
    /// Since its start.
    pub age: Duration,
    /// Bytes of memory in use.
    pub resident: u64,
    /// Bytes of address space.
    pub virtual_memory: u64,
    /// Descriptors that are open.
    pub open_descriptors: u64,
    /// Descriptors that may be open.
    pub max_descriptors: u64,
}

/// What this process has used (proc(5)). None where /proc is not there.
pub fn process_figures() -> Option<ProcessFigures> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // What stands before is the name of the program, in which anything may be.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<u64> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    let ticks =
        |count: u64| Duration::from_millis(count.saturating_mul(1000) / clock_ticks_per_second().max(1));
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    Some(ProcessFigures {
        cpu: ticks(fields.get(11)? + fields.get(12)?),
        age: Duration::try_from_secs_f64(uptime).ok()?.saturating_sub(ticks(*fields.get(19)?)),
        virtual_memory: *fields.get(20)?,
        resident: fields.get(21)?.saturating_mul(page_size() as u64),
        open_descriptors: open_descriptors(),
        max_descriptors: max_descriptors(),
    })
}
