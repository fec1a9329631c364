//! System calls that packhouse can do without, by the names that they have in rustix: where a system call filter kills for
//! one, it is not made, and answers as a kernel that does not know it (ENOSYS).

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, FallocateFlags, FlockOperation, RenameFlags, XattrFlags};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::io::names::Named;
use crate::io::syscalls::found;

/// Makes the call if no filter kills for it.
fn if_allowed<T>(allowed: bool, call: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    if allowed { call() } else { Err(Errno::NOSYS) }
}

pub(super) fn flock(file: impl AsFd, how: FlockOperation) -> Result<(), Errno> {
    if_allowed(found().flock, || fs::flock(file, how))
}

pub(super) fn fallocate(file: impl AsFd, flags: FallocateFlags, offset: u64, len: u64) -> Result<(), Errno> {
    if_allowed(found().fallocate, || fs::fallocate(file, flags, offset, len))
}

pub(super) fn linkat(
    from_dir: impl AsFd,
    from: impl AsRef<OsStr>,
    to_dir: impl AsFd,
    to: impl AsRef<OsStr>,
    flags: AtFlags,
) -> Result<(), Errno> {
    let (from, to) = (Path::new(from.as_ref()), Path::new(to.as_ref()));
    if_allowed(found().link, || fs::linkat(from_dir, from, to_dir, to, flags))
}

/// renameat2(2) that never replaces.
pub(super) fn rename_noreplace(from: Named<'_>, to: Named<'_>) -> Result<(), Errno> {
    if_allowed(found().renameat2, || fs::renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE))
}

pub(super) fn fgetxattr(file: impl AsFd, name: impl AsRef<OsStr>, value: &mut [u8]) -> Result<usize, Errno> {
    if_allowed(found().attributes, || fs::fgetxattr(file, Path::new(name.as_ref()), value))
}

pub(super) fn flistxattr(file: impl AsFd, names: &mut [u8]) -> Result<usize, Errno> {
    if_allowed(found().attributes, || fs::flistxattr(file, names))
}

pub(super) fn fsetxattr(file: impl AsFd, name: impl AsRef<OsStr>, value: &[u8]) -> Result<(), Errno> {
    if_allowed(found().attributes, || {
        fs::fsetxattr(file, Path::new(name.as_ref()), value, XattrFlags::empty())
    })
}

/// A file of this process on which no call has an effect.
pub(super) fn nothing() -> io::Result<std::fs::File> {
    std::fs::File::open("/proc/self/status")
}

/// Tries preadv2(2). What the kernel answers is of no interest: this process lives on, or does not. So it is with the others.
pub(super) fn probe_preadv2() -> bool {
    let read = |file| preadv2(&file, &mut [io::IoSliceMut::new(&mut [0])], 0, ReadWriteFlags::NOWAIT).is_ok();
    nothing().is_ok_and(read)
}

/// Tries sendfile(2). The errno of a filter, of which there is no way around where the call is made, is not that of the kernel,
/// to whom this file can't be written to.
pub(super) fn probe_sendfile() -> bool {
    let send = |file| fs::sendfile(&file, &file, Some(&mut 0), 1);
    !matches!(nothing().map(send), Ok(Err(Errno::PERM | Errno::ACCESS | Errno::NOSYS)))
}

/// Tries flock(2).
pub(super) fn probe_flock() -> bool {
    nothing().is_ok_and(|file| fs::flock(file, FlockOperation::NonBlockingLockShared).is_ok())
}

pub(super) fn probe_fallocate() -> bool {
    nothing().is_ok_and(|file| fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, 1).is_ok())
}

pub(super) fn probe_link() -> bool {
    fs::linkat(CWD, "", CWD, "", AtFlags::empty()).is_ok()
}

pub(super) fn probe_renameat2() -> bool {
    fs::renameat_with(CWD, "", CWD, "", RenameFlags::NOREPLACE).is_ok()
}

pub(super) fn probe_attributes() -> bool {
    let Ok(file) = nothing() else { return false };
    let read = fs::fgetxattr(&file, "", &mut [0_u8; 1][..]).is_ok();
    let listed = fs::flistxattr(&file, &mut [0_u8; 1][..]).is_ok();
    fs::fsetxattr(&file, "", &[], XattrFlags::empty()).is_ok() && read && listed
}
