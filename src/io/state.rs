//! Folders that one process holds: the server's own, and the data folder. Held by flock(2), which ends with the process.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::io::Fault;
use crate::io::names::lacks_locks;
use crate::io::optional::flock;
use crate::io::records::{folder_of, own};

/// What became of an attempt to lock.
#[derive(Debug)]
pub enum Lock {
    /// This process holds it until the file is dropped.
    Held(File),
    /// Another process holds it.
    Taken,
    /// The disk has no locks: another process would not be noticed.
    Unsupported,
}

impl Lock {
    /// Locks the data folder itself, which needs no right to write there; `shared` with others that share it, too.
    ///
    /// # Errors
    /// The folder can't be opened.
    pub fn folder(path: &Path, shared: bool) -> io::Result<Self> {
        Self::of(File::open(path)?, shared)
    }

    fn of(file: File, shared: bool) -> io::Result<Self> {
        let how = if shared {
            FlockOperation::NonBlockingLockShared
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        match flock(&file, how) {
            Ok(()) => Ok(Self::Held(file)),
            Err(Errno::WOULDBLOCK) => Ok(Self::Taken),
            Err(e) if lacks_locks(e) => Ok(Self::Unsupported),
            Err(e) => Err(e.into()),
        }
    }
}

/// The state folder, held by this process until it is dropped.
pub struct StateDir {
    path: PathBuf,
    /// None where the disk has no locks.
    lock: Option<File>,
}

impl StateDir {
    /// Makes the folder if it is missing (0700), but no parents of it, and takes its lock. None if another process holds
    /// it. Blocks: for the start of the process.
    ///
    /// # Errors
    /// It can't be made or written to.
    pub fn acquire(path: &Path) -> io::Result<Option<Self>> {
        if !path.is_dir() {
            DirBuilder::new().mode(0o700).create(path)?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path.join("lock"))?;
        Ok(match Lock::of(lock, false)? {
            Lock::Held(lock) => Some(Self { path: path.into(), lock: Some(lock) }),
            Lock::Unsupported => Some(Self { path: path.into(), lock: None }),
            Lock::Taken => None,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether another process would be noticed.
    pub const fn is_locked(&self) -> bool {
        self.lock.is_some()
    }
}

/// Waits for the lock of the file at `path`, for tools that replace it: the file that has this name once the lock is
/// taken. Where the disk has no locks, tools are on their own. With `make`, a missing file is made, with mode 0600 and the
/// owner of its folder: root makes it for the server, which could not read it otherwise.
///
/// # Errors
/// Also if this is root and the name is a symbolic link that a user has made: it may lead to a file of root's.
pub fn lock_file(path: &Path, make: bool) -> io::Result<File> {
    loop {
        if let Ok(link) = std::fs::symlink_metadata(path)
            && link.is_symlink()
            && geteuid().is_root()
            && link.uid() != 0
        {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("a symbolic link of user {}: name the file behind it instead", link.uid()),
            ));
        }
        // NFS locks only what is open for writing.
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(e) if matches!(Fault::of(&e), Fault::Denied | Fault::ReadOnly) => File::open(path)?,
            Err(e) if make && e.kind() == io::ErrorKind::NotFound => match make_for_owner_of_folder(path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.exists() => continue,
                other => other?,
            },
            other => other?,
        };
        match flock(&file, FlockOperation::LockExclusive) {
            Ok(()) => {}
            Err(e) if lacks_locks(e) => return Ok(file),
            Err(Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        // Another tool may have put a new file in its place while this one waited.
        let (held, now) = (file.metadata()?, std::fs::metadata(path));
        if now.is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino())) {
            return Ok(file);
        }
    }
}

/// Makes an empty file; follows no symbolic link, also none to nothing.
fn make_for_owner_of_folder(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    let owner = std::fs::metadata(folder_of(path))?;
    // Only root may, and only for root does it matter.
    own(&file, &owner).ok();
    Ok(file)
}
