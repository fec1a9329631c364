//! Whether a path still names the folder that was opened by it: one that was moved, removed or mounted over takes files that
//! nobody will find again.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{fstat, fstatfs, stat};
use rustix::io::Errno;

/// An open folder and the path by which it was opened.
pub struct Place {
    path: PathBuf,
    device: u64,
    /// None where the file system may number a folder anew (FUSE).
    inode: Option<u64>,
}

impl Place {
    /// Of the folder `fd`, which was opened by `path`.
    pub(super) fn of(fd: &OwnedFd, path: &Path) -> io::Result<Self> {
        const FUSE_MAGIC: i64 = 0x6573_5546;

        let open = fstat(fd)?;
        let is_fuse = fstatfs(fd).is_ok_and(|stat| stat.f_type == FUSE_MAGIC);
        Ok(Self {
            path: std::path::absolute(path)?,
            device: open.st_dev,
            inode: (!is_fuse).then_some(open.st_ino),
        })
    }

    /// Looks. Blocks, for as long as the disk does not answer.
    ///
    /// # Errors
    /// It is another folder, or none.
    pub fn check(&self) -> io::Result<()> {
        let is_other = match stat(&self.path) {
            Ok(named) => named.st_dev != self.device || self.inode.is_some_and(|inode| inode != named.st_ino),
            // A user who may not look at the folders above learns nothing.
            Err(e) => e == Errno::NOENT,
        };
        if is_other {
            return Err(io::Error::other(format!(
                "{} is another folder by now, or none: restart the server",
                self.path.display()
            )));
        }
        Ok(())
    }
}
