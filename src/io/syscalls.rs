//! Which of the system calls that packhouse can do without are to be had here.
//!
//! A system call filter may answer with an errno, or kill the process (systemd's `SystemCallFilter=` does that unless
//! `SystemCallErrorNumber=` is set). So each call is tried in a child process first: if the child is killed, the call does
//! not exist here.

#![expect(unsafe_code, reason = "fork(2) has no safe form")]

use std::io;
use std::sync::OnceLock;

use io_uring::{IoUring, opcode};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::io::runtime::{self, Driver};
use crate::io::sandbox::{Reach, restrict};
use crate::io::{affinity, filter, limits, optional, privileges, socket};

/// Optional system calls, in the groups in which they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a system call of its own")]
pub struct Syscalls {
    /// landlock(7)
    pub landlock: bool,
    /// seccomp(2)
    pub seccomp: bool,
    /// capset(2), with which capabilities are given up.
    pub capset: bool,
    /// `io_uring(7)`
    pub io_uring: bool,
    /// cachestat(2)
    pub cachestat: bool,
    /// preadv2(2), with which is looked what is in memory.
    pub preadv2: bool,
    /// sendfile(2)
    pub sendfile: bool,
    /// setpriority(2), with which threads give way to others.
    pub nice: bool,
    /// `sched_setattr(2)`, for threads that run when nobody else does.
    pub idle: bool,
    /// setrlimit(2), for more open files.
    pub limits: bool,
    /// `sched_setaffinity(2)`, for `--cpus`.
    pub pin: bool,
    /// flock(2), against a second server.
    pub flock: bool,
    /// fallocate(2), which reserves room.
    pub fallocate: bool,
    /// linkat(2), which gives unnamed files their names.
    pub link: bool,
    /// `renameat2(2)`, which never replaces.
    pub renameat2: bool,
    /// fgetxattr(2) and the like: who a lock belongs to.
    pub attributes: bool,
    /// openat2(2). The only one without which there is no server: paths could leave the data folder.
    pub openat2: bool,
}

impl Syscalls {
    /// Everything is tried, and an errno is dealt with where it comes.
    const ALL: Self = Self {
        landlock: true,
        seccomp: true,
        capset: true,
        io_uring: true,
        cachestat: true,
        preadv2: true,
        sendfile: true,
        nice: true,
        idle: true,
        limits: true,
        pin: true,
        flock: true,
        fallocate: true,
        link: true,
        renameat2: true,
        attributes: true,
        openat2: true,
    };

    /// Tries every call in a child process. To be called before there is another thread.
    fn probe() -> Self {
        Self {
            landlock: survives(|| {
                let reach = Reach { read: vec!["/".into()], ..Reach::default() };
                restrict(&reach).is_ok()
            }),
            seccomp: survives(|| filter::install().is_ok()),
            // Where there is nothing to give up, the call is not made.
            capset: !privileges::has_more() || survives(|| privileges::give_up().is_ok()),
            io_uring: survives(|| {
                runtime::probe_uring().is_ok() && runtime::block_on(Driver::Uring, async {}).is_ok()
            }),
            cachestat: survives(socket::probe_cachestat),
            preadv2: survives(optional::probe_preadv2),
            sendfile: works(optional::probe_sendfile),
            nice: survives(|| affinity::give_way().is_ok()),
            idle: survives(|| affinity::idle().is_ok()),
            limits: survives(|| limits::raise_by_call().is_ok()),
            pin: survives(|| affinity::probe_pin().is_ok()),
            flock: survives(optional::probe_flock),
            fallocate: survives(optional::probe_fallocate),
            link: survives(optional::probe_link),
            renameat2: survives(optional::probe_renameat2),
            attributes: survives(optional::probe_attributes),
            openat2: survives(|| crate::io::dir::probe_openat2().is_ok()),
        }
    }

    /// Those that a filter kills for, by their names, for the operator.
    pub fn forbidden(&self) -> Vec<&'static str> {
        let all = [
            (self.landlock, "landlock_create_ruleset (no sandbox)"),
            (self.seccomp, "seccomp (a flaw in this server could use system calls that it does without)"),
            (self.capset, "capset (a flaw in this server would have all capabilities of root)"),
            (self.io_uring, "io_uring_setup (epoll instead, which is slower)"),
            (self.cachestat, "cachestat (a cold read may hold up a worker)"),
            (self.preadv2, "preadv2 (downloads are read by threads)"),
            (self.sendfile, "sendfile (downloads are copied through this process)"),
            (self.nice, "setpriority (password hashing does not give way)"),
            (self.idle, "sched_setscheduler (background verification does not give way)"),
            (self.flock, "flock (a second server would not be noticed)"),
            (self.fallocate, "fallocate (no room is reserved for uploads)"),
            (self.link, "linkat (files have temporary names while they are written)"),
            (self.renameat2, "renameat2 (a name is looked for before it is given)"),
            (self.attributes, "fsetxattr (locks have no owners)"),
            (self.limits, "setrlimit (the soft limit on open files stays)"),
        ];
        all.into_iter().filter_map(|(is_there, name)| (!is_there).then_some(name)).collect()
    }
}

static FOUND: OnceLock<Syscalls> = OnceLock::new();

/// Finds out, once. To be called at the start of a process, while it has one thread.
pub fn find_out() -> Syscalls {
    *FOUND.get_or_init(Syscalls::probe)
}

/// What was found; all of them where nobody has looked.
pub fn found() -> Syscalls {
    FOUND.get().copied().unwrap_or(Syscalls::ALL)
}

/// Lets the kernel do nothing, through a ring: a filter may forbid one of its three calls alone.
pub(super) fn enter(ring: &mut IoUring) -> io::Result<()> {
    // SAFETY: the operation has no arguments that would have to live.
    unsafe { ring.submission().push(&opcode::Nop::new().build()) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1).map(drop)
}

/// Whether a child process that runs `work` is not killed for it. An errno is not of interest here: the caller of the
/// system call knows what to do about it.
fn survives(work: impl FnOnce() -> bool) -> bool {
    !matches!(attempt(work), Ended::Killed)
}

/// Whether `work` succeeds in a child process: of a call whose errno has no way around it where it comes.
fn works(work: impl FnOnce() -> bool) -> bool {
    !matches!(attempt(work), Ended::Killed | Ended::Code(1..))
}

/// Tries `work` in a child process. If there can be no child, callers take the call for available: then the threads of the
/// server can't be had either.
fn attempt(work: impl FnOnce() -> bool) -> Ended {
    in_child(|| {
        // A core dump of every start would be too much.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
        u8::from(!work())
    })
}

/// How a child process ended.
enum Ended {
    Code(u8),
    Killed,
    /// There could be none.
    NoChild,
}

/// Runs `work` in a child process, which ends with the code that it returns.
fn in_child(work: impl FnOnce() -> u8) -> Ended {
    // Where whoever started this process ignores the ends of children, the kernel would not tell how this one ended.
    // SAFETY: no handler is set, and none is replaced: this runs before the server sets its own.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.ok();
    // SAFETY: this process has one thread (see `find_out`), so that no lock is held by another one that the child lacks.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            let code = work();
            // SAFETY: `_exit` is always safe to call; unlike `exit` it runs no handlers of the parent's.
            unsafe { libc::_exit(code.into()) }
        }
        Ok(ForkResult::Parent { child }) => loop {
            match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, code)) => {
                    return u8::try_from(code).map_or(Ended::Killed, Ended::Code);
                }
                Err(nix::errno::Errno::EINTR) | Ok(WaitStatus::StillAlive) => {}
                Ok(_) => return Ended::Killed,
                Err(_) => return Ended::NoChild,
            }
        },
        Err(_) => Ended::NoChild,
    }
}

/// Runs `work`, which speaks to the user itself, in a child process that becomes another user first. To be called while
/// this process has one thread.
///
/// # Errors
/// There is no child, or it was killed.
pub fn as_other_user(
    become_it: impl FnOnce() -> io::Result<()>,
    work: impl FnOnce(io::Result<()>) -> u8,
) -> io::Result<u8> {
    match in_child(|| work(become_it())) {
        Ended::Code(code) => Ok(code),
        Ended::Killed => Err(io::Error::other("the child process was killed")),
        Ended::NoChild => Err(io::Error::other("a child process could not be had")),
    }
}
