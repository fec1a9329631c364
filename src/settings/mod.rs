//! What the operator wants: flags → [`Settings`]. Knows nothing of the parts that are built from them.

use std::path::PathBuf;
use std::time::Duration;

use crate::types::ListenAddress;

pub mod args;
pub mod cpus;

/// The settings of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one a switch of the command line")]
pub struct Settings {
    /// The data folder.
    pub path: PathBuf,
    /// The server's own folder.
    pub state_dir: PathBuf,
    /// Where to listen; not empty.
    pub listen: Vec<ListenAddress>,
    /// The password file; none lets everybody in.
    pub htpasswd: Option<PathBuf>,
    /// Nothing but locks can be removed.
    pub append_only: bool,
    /// Files and folders are for the group too.
    pub group_accessible: bool,
    /// Whether an upload's bytes must hash to its name.
    pub verify: bool,
    /// Whether every request is logged, not refusals alone.
    pub debug: bool,
    /// Folders that a repository's path may have.
    pub max_folder_depth: usize,
    /// Bytes kept free for locks; none is the default.
    pub min_free: Option<u64>,
    /// How many workers, and where.
    pub workers: Workers,
    /// How they wait for the kernel.
    pub io_driver: IoDriver,
    /// How long in-flight requests may take after the signal to stop.
    pub drain: Duration,
    /// The time limits of connections.
    pub timeouts: Timeouts,
}

/// The threads that serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One a core that the process may use.
    Auto,
    /// So many.
    Count(usize),
    /// One pinned to each of these processors.
    Pinned(Vec<usize>),
}

/// How workers wait for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum IoDriver {
    /// io_uring if it can be had, else epoll.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

/// The time limits of connections; see `http::Limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a request head.
    pub head: Duration,
    /// For a connection without a request.
    pub idle: Duration,
    /// For one receive or send without a byte.
    pub stall: Duration,
    /// Slowest body in bytes per second.
    pub min_rate: u64,
    /// Time a body may be slower, and over which the rate is averaged.
    pub grace: Duration,
}
