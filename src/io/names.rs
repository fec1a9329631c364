//! How files get their names: each step as one or two system calls that block, with what to do on disks that lack the best one.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstatfs, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::io::optional::{linkat, rename_noreplace};
use crate::io::runtime::random;

/// A name for what a trial makes and removes again. The dot in front keeps clients and the sweep away.
pub fn probe_name() -> String {
    format!(".packhouse-probe-{:016x}", random())
}

/// A name in a directory.
pub(super) type Named<'n> = (&'n OwnedFd, &'n OsStr);

/// Renames an entry in one step that never replaces. False, and nothing has happened, where the file system has
/// no such step. Blocks.
pub(super) fn rename_atomically(from: Named<'_>, to: Named<'_>) -> io::Result<bool> {
    match rename_noreplace(from, to) {
        Ok(()) => Ok(true),
        Err(e) if is_of_the_moment(e) || e == Errno::IO => Err(e.into()),
        // File systems and system call filters say in many ways that they have no such step (INVAL, NOSYS, PERM, XDEV). If it
        // is about this user's rights, the way that the caller takes instead fails, too.
        Err(_) => Ok(false),
    }
}

/// The same in two steps, of which the first never replaces: only for a name `from` that no other process knows, since it is
/// removed whatever it stands for by then. False where the file system has no links. Blocks.
pub(super) fn rename_by_link(from: Named<'_>, to: Named<'_>) -> io::Result<bool> {
    match linkat(from.0, from.1, to.0, to.1, AtFlags::empty()) {
        // link(2) refuses to replace, too.
        Ok(()) => Ok(unlinkat(from.0, from.1, AtFlags::empty()).map(|()| true)?),
        Err(e) if is_of_the_moment(e) => Err(e.into()),
        // exfat, vfat and many FUSE file systems have no links, and each says so in its own way: PERM, OPNOTSUPP, NOSYS, or
        // (rclone) IO. A disk that really fails says so again, to the plain rename that comes next.
        Err(_) => Ok(false),
    }
}

/// Whether an error is about this name or this moment, and not about what the file system can.
const fn is_of_the_moment(e: Errno) -> bool {
    matches!(e, Errno::EXIST | Errno::NOENT | Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::INTR)
}

/// The same, after a look whether the name is free: safe only while this process holds the data folder alone and the caller has taken the turn of
/// the name that others know. Blocks.
fn rename_looking(from: Named<'_>, to: Named<'_>) -> io::Result<()> {
    match statat(to.0, to.1, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(renameat(from.0, from.1, to.0, to.1)?),
        Ok(_) => Err(Errno::EXIST.into()),
        Err(e) => Err(e.into()),
    }
}

/// The last way: after a look, and only while this process is `alone`.
pub(super) fn rename_if_alone(alone: bool, from: Named<'_>, to: Named<'_>) -> io::Result<()> {
    if alone { rename_looking(from, to) } else { Err(Errno::OPNOTSUPP.into()) }
}

/// Whether an error of flock(2) says that the disk has no locks: with any errno but those of a lock that another process has
/// and of a disk that fails. BADF: NFS locks only what is open for writing.
pub(super) const fn lacks_locks(e: Errno) -> bool {
    !matches!(e, Errno::WOULDBLOCK | Errno::INTR | Errno::NOMEM | Errno::IO)
}

/// No two changes of one name at once in this process: what is looked at must be what is changed, and nothing but such a
/// change can put another file in its place. Blocks.
pub(super) fn take_turn(name: &OsStr) -> Option<MutexGuard<'static, ()>> {
    static TURNS: [Mutex<()>; 64] = [const { Mutex::new(()) }; 64];
    let sum: usize = name.as_bytes().iter().map(|byte| usize::from(*byte)).sum();
    TURNS.get(sum % TURNS.len()).map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Makes a file without a name. Blocks.
pub(super) fn make_unnamed(dir: &OwnedFd, mode: u32) -> io::Result<OwnedFd> {
    const BTRFS_MAGIC: i64 = 0x9123_683e;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match fstatfs(dir).map(|stat| stat.f_type) {
        Ok(BTRFS_MAGIC) => Err(Errno::OPNOTSUPP.into()),
        // What does not tell what it is is not btrfs.
        _ => Ok(openat(dir, ".", flags, Mode::from_raw_mode(mode))?),
    }
}

/// Gives a file without a name one. Blocks.
pub(super) fn link_unnamed(file: &impl AsRawFd, dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, unnamed, dir, name, AtFlags::SYMLINK_FOLLOW)?)
}
