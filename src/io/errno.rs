//! What an operating-system error means to the layers above, which never name an errno.

use std::io;

use rustix::io::Errno;

/// The kinds of failure that the store tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No such entry.
    Missing,
    /// A path component is no directory: a file stands where a folder must be. That is damage, not absence.
    NotDir,
    /// The name is taken.
    Exists,
    /// A symbolic link stands where none may.
    Symlink,
    /// No bytes or no inodes left, over a disk quota, or over a limit of the process on the size of files.
    NoSpace,
    /// The file system is mounted read-only.
    ReadOnly,
    /// The device failed: EIO, or what only the block layer says, to whoever reads past the page cache (ENODATA of a sector that
    /// can't be read, EREMOTEIO, EILSEQ), and the file system of its own blocks (EUCLEAN, EBADMSG). What may be the way to
    /// the device alone (ETIMEDOUT, ENOLINK) is not meant.
    Device,
    /// No descriptor left, in the process or in the system.
    NoDescriptors,
    /// The blocking pool's queue is full.
    Busy,
    /// The file and the name would lie on different file systems: an overlay says so of an unnamed file.
    CrossDevice,
    /// Permission denied.
    Denied,
    /// The name is longer than the file system takes.
    NameTooLong,
    /// The file system, the kernel or a system call filter does not know this operation: EOPNOTSUPP, ENOSYS, and EINVAL,
    /// which fsync(2), renameat2(2) and others return for an operation that a file system lacks.
    Unsupported,
    /// Anything else.
    Other,
}

impl Fault {
    /// Classifies an error.
    pub fn of(error: &io::Error) -> Self {
        let Some(code) = error.raw_os_error() else {
            return match error.kind() {
                io::ErrorKind::NotFound => Self::Missing,
                io::ErrorKind::AlreadyExists => Self::Exists,
                io::ErrorKind::WouldBlock => Self::Busy,
                _ => Self::Other,
            };
        };
        match Errno::from_raw_os_error(code) {
            Errno::NOENT => Self::Missing,
            Errno::NOTDIR => Self::NotDir,
            Errno::EXIST => Self::Exists,
            Errno::LOOP => Self::Symlink,
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Self::NoSpace,
            Errno::ROFS => Self::ReadOnly,
            Errno::IO | Errno::NODATA | Errno::REMOTEIO | Errno::ILSEQ | Errno::UCLEAN | Errno::BADMSG => {
                Self::Device
            }
            Errno::MFILE | Errno::NFILE => Self::NoDescriptors,
            Errno::AGAIN => Self::Busy,
            Errno::XDEV => Self::CrossDevice,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            Errno::NAMETOOLONG => Self::NameTooLong,
            Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => Self::Unsupported,
            _ => Self::Other,
        }
    }

    /// An error of this kind, as the operating system would give it. For the model and the fault-injecting disk.
    pub fn to_error(self) -> io::Error {
        let errno = match self {
            Self::Missing => Errno::NOENT,
            Self::NotDir => Errno::NOTDIR,
            Self::Exists => Errno::EXIST,
            Self::Symlink => Errno::LOOP,
            Self::NoSpace => Errno::NOSPC,
            Self::ReadOnly => Errno::ROFS,
            Self::Device => Errno::IO,
            Self::NoDescriptors => Errno::MFILE,
            Self::Busy => Errno::AGAIN,
            Self::CrossDevice => Errno::XDEV,
            Self::Denied => Errno::ACCESS,
            Self::NameTooLong => Errno::NAMETOOLONG,
            Self::Unsupported => Errno::OPNOTSUPP,
            Self::Other => Errno::NXIO,
        };
        errno.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_of_one_kind_are_one_fault() {
        for (errno, fault) in [
            (Errno::DQUOT, Fault::NoSpace),
            (Errno::NOSPC, Fault::NoSpace),
            (Errno::FBIG, Fault::NoSpace),
            (Errno::NOTDIR, Fault::NotDir),
            (Errno::INVAL, Fault::Unsupported),
            (Errno::NOSYS, Fault::Unsupported),
            (Errno::NFILE, Fault::NoDescriptors),
            (Errno::ROFS, Fault::ReadOnly),
            (Errno::IO, Fault::Device),
            (Errno::NODATA, Fault::Device),
        ] {
            assert_eq!(Fault::of(&errno.into()), fault, "{errno:?}");
        }
    }
}
