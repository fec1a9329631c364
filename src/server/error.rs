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
    #[error("the data folder {} can't be used: {cause}. Give --path a folder that this user may read and write.", path.display())]
    DataFolder {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A system call without which paths could leave the data folder.
    #[error(
        "openat2(2) can't be had: {0}. packhouse needs Linux 5.6, and a system call filter (seccomp profile, SystemCallFilter=) that allows it."
    )]
    NoOpenat2(io::Error),
    /// Another server.
    #[error("another packhouse serves {}: stop it first. If several servers are to share the folder, start each with --shared-folder; quotas are not exact then.", .0.display())]
    InUse(PathBuf),
    /// `--require-mount`
    #[error("the data folder {} lies on the file system of /: its disk is not mounted, or a folder of / is mounted there (bind). Mount the disk, or start without --require-mount.", .0.display())]
    NotMounted(PathBuf),
    /// The state folder remembers another one.
    #[error("the data folder {} is not the one of the last start: is its disk mounted? If another one is meant, remove {}.", path.display(), record.display())]
    OtherFolder {
        /// The folder.
        path: PathBuf,
        /// What remembers.
        record: PathBuf,
    },
    /// `--require-durable`
    #[error("the data folder {} {why}, and --require-durable is set. Put it on a disk that can flush, or start without --require-durable: acknowledged objects may then not survive a power cut.", path.display())]
    NotDurable {
        /// The folder.
        path: PathBuf,
        /// What it lacks.
        why: &'static str,
    },
    /// `--shared-folder` on a disk that can't give a name to a file without perhaps replacing another's.
    #[error("the data folder {} can't be shared: its file system can neither rename without replacing nor link. Start one server, without --shared-folder.", .0.display())]
    NotShareable(PathBuf),
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
    /// An address can't be listened on.
    #[error("cannot listen on {address}: {cause}. {}", listen_remedy(address, cause))]
    Listen {
        /// Which.
        address: ListenAddress,
        /// Why.
        cause: io::Error,
    },
    /// io_uring was demanded.
    #[error("{0} Or run without it: --io-driver epoll.")]
    NoUring(#[from] NoUring),
    /// `--cpus` can't pin.
    #[error(
        "a system call filter forbids sched_setaffinity: start without --cpus, or allow it (systemd: SystemCallFilter=@resources)."
    )]
    NoPinning,
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

/// What to do about an address that can't be listened on, by its cause.
fn listen_remedy(address: &ListenAddress, cause: &io::Error) -> &'static str {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, InvalidInput, NotFound, PermissionDenied};

    match (address, cause.kind()) {
        (ListenAddress::Unix(_), AddrInUse) => {
            "Stop what listens there, or remove the file if it is no socket, or choose another one with --listen."
        }
        (_, AddrInUse) => {
            "Stop what listens there (`ss -ltnp` names it), or choose another port with --listen."
        }
        (ListenAddress::Unix(_), NotFound) => {
            "Make the folder of the socket (systemd: RuntimeDirectory=), or choose another one with --listen."
        }
        (ListenAddress::Unix(_), PermissionDenied) => {
            "Give this user the right to write to the folder of the socket, or choose another one with --listen."
        }
        (ListenAddress::Unix(_), InvalidInput) => {
            "The path of a unix socket has at most 107 bytes: choose a shorter one."
        }
        (ListenAddress::AnyHost(port) | ListenAddress::Host(_, port), PermissionDenied)
            if (1..1024).contains(port) =>
        {
            "Ports below 1024 are for root: choose another one with --listen, let systemd pass the socket, give the program the right (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE), or start it as root with --user."
        }
        (_, PermissionDenied) => "A security module or a system call filter forbids it: see its log.",
        (ListenAddress::Host(..), AddrNotAvailable) => {
            "It is no address of this machine (`ip address` lists them): choose one of its own, or :PORT for all."
        }
        (ListenAddress::Systemd(_), _) => {
            "Add it to the .socket unit (FileDescriptorName= gives it a name), or listen on an address of its own with --listen."
        }
        (ListenAddress::Host(host, _), InvalidInput) if host.starts_with("fe80:") && !host.contains('%') => {
            "A link-local address needs its interface, such as [fe80::1%eth0]:8000."
        }
        (ListenAddress::Host(..), _) => {
            "Is the name of the host right, and can this machine resolve it? An address needs no name."
        }
        _ => "Choose another address with --listen.",
    }
}
