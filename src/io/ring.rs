//! What a ring may be asked for. A filter of system calls does not see what goes through a ring, so that every ring of a worker is
//! held to the operations in use (`IORING_REGISTER_RESTRICTIONS` of `io_uring_register(2)`, Linux 5.10): sockets are waited
//! for and accepted, open files read, written and closed. Nothing is opened, made, connected or sent by a ring.

#![expect(unsafe_code, reason = "io_uring_register(2) of a ring that is monoio's has no safe form")]

use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use io_uring::opcode;
use io_uring::register::Restriction;

/// The operations in use: monoio waits with them (on a socket, or on the event by which other threads wake it), and before
/// Linux 5.11 measures time; `file` reads and writes. Not `Send`, which takes an address since Linux 6.2.
pub const OPERATIONS: [u8; 7] = [
    opcode::PollAdd::CODE,
    opcode::Accept::CODE,
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::Close::CODE,
    opcode::Timeout::CODE,
    opcode::AsyncCancel::CODE,
];

/// Codes of `io_uring_register(2)`.
const REGISTER_RESTRICTIONS: libc::c_uint = 11;
const REGISTER_ENABLE_RINGS: libc::c_uint = 12;

/// Held while there is a ring that is disabled: there must be no other one.
static BUILDING: Mutex<()> = Mutex::new(());
static HAS_UNLIMITED: AtomicBool = AtomicBool::new(false);

/// Takes what `build` makes, with a ring that is disabled (`setup_r_disabled`), and enables that ring for the operations in use.
///
/// # Errors
/// Those of `build`; the kernel knows no limits (before Linux 5.10), or /proc is not there.
pub(super) fn limited<T>(build: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let _alone = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let made = build()?;
    limit_disabled()?;
    Ok(made)
}

/// Limits the ring of this process that is disabled, and enables it for the calling thread. monoio does not tell the descriptor of
/// its ring; all others are enabled, and the kernel limits none that is.
///
/// # Errors
/// There is none that can be limited, or /proc is not there.
pub fn limit_disabled() -> io::Result<()> {
    let mut limits: Vec<Restriction> = OPERATIONS.into_iter().map(Restriction::sqe_op).collect();
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        // Descriptors come and go meanwhile: those of other threads.
        let is_ring =
            std::fs::read_link(entry.path()).is_ok_and(|target| target == Path::new("anon_inode:[io_uring]"));
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()).filter(|_| is_ring)
        else {
            continue;
        };
        match register(fd, REGISTER_RESTRICTIONS, &mut limits) {
            Ok(()) => return register(fd, REGISTER_ENABLE_RINGS, &mut []),
            Err(e) => failed = e,
        }
    }
    Err(failed)
}

fn register(fd: RawFd, what: libc::c_uint, limits: &mut [Restriction]) -> io::Result<()> {
    let count = libc::c_uint::try_from(limits.len()).map_err(io::Error::other)?;
    let limits = if limits.is_empty() { std::ptr::null_mut() } else { limits.as_mut_ptr() };
    // SAFETY: the kernel reads `count` limits, which live through the call, and writes nothing. Of a descriptor that is no
    // ring any more it says so. A ring that is limited or enabled touches no memory but its own.
    let done = unsafe { libc::syscall(libc::SYS_io_uring_register, fd, what, limits, count) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Notes that a worker has a ring without limits.
pub(super) fn note_unlimited(why: &io::Error) {
    if !HAS_UNLIMITED.swap(true, Ordering::Relaxed) {
        log::debug!("a ring can't be held to the operations in use: {why}");
    }
}

/// Whether every ring that was built is held to the operations in use.
pub fn are_limited() -> bool {
    !HAS_UNLIMITED.load(Ordering::Relaxed)
}
