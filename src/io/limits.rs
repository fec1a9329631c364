//! What the process may use: descriptors, and the modes that new files get.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

/// Raises the soft limit on open files to the hard one and returns the limit that holds now.
pub fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // A refusal leaves the soft limit as it was, which is then the answer.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok();
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Number of descriptors that the process has open.
pub fn open_descriptors() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(16, |entries| entries.count() as u64)
}

/// Sets the file-mode mask once, so that the modes packhouse asks for are the modes it gets: nothing for others,
/// and nothing for the group unless `group`.
pub fn set_umask(group: bool) {
    umask(if group { Mode::from_raw_mode(0o007) } else { Mode::from_raw_mode(0o077) });
}
