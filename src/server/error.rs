//! Why a server can't start. Every text says what to do.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::io::runtime::NoUring;
use crate::types::ListenAddress;

/// A start that failed; exit code 3.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data folder.
    #[error("the data folder {} can't be used: {cause}. Give --path a folder that this user may read and write; packhouse needs openat2 (Linux 5.6, not hidden by a seccomp profile).", path.display())]
    DataFolder {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The server's own folder.
    #[error("the state folder {} can't be used: {cause}. Give --state-dir a folder that this user may write.", path.display())]
    StateFolder {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The service user.
    #[error(
        "cannot run as {name}: {cause}. Give --user a user of this machine, and start packhouse as root or as that user."
    )]
    User {
        /// Which.
        name: String,
        /// Why.
        cause: io::Error,
    },
    /// Files that the settings name.
    #[error("{}", .0.join("\n"))]
    Files(Vec<String>),
    /// The log of requests.
    #[error("the log {} can't be written: {cause}. Give --log a file in a folder that this user may write.", path.display())]
    Log {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// An address is taken or not ours.
    #[error(
        "cannot listen on {address}: {cause}. Stop what listens there, or choose another address with --listen."
    )]
    Listen {
        /// Which.
        address: ListenAddress,
        /// Why.
        cause: io::Error,
    },
    /// io_uring was demanded.
    #[error("{0} Or run without it: --io-driver epoll.")]
    NoUring(#[from] NoUring),
    /// `--cpus` names one that the process may not use.
    #[error("processor {0} of --cpus is not among those that this process may use (see `taskset -cp $$`).")]
    Cpu(usize),
    /// Anything else.
    #[error("{step}: {cause}. This machine lacks a resource; see `ulimit -a`.")]
    System {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        cause: io::Error,
    },
}
