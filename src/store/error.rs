//! What a store can fail with.

use std::io;
use std::path::PathBuf;

use thiserror::Error as ThisError;

use crate::io::Fault;
use crate::types::escaped;

/// A store's failure. `api::error` gives each its status.
#[derive(Debug, ThisError)]
pub enum Error {
    /// There is no such object or repository.
    #[error("there is no such object")]
    NotFound,
    /// An upload names a repository that does not exist.
    #[error(
        "there is no repository here: make it first (`restic init`, or POST with the query ?create=true)"
    )]
    NoRepository,
    /// The disk finds a folder under this name that is stored in another spelling, or would keep the name in another.
    #[error(
        "the disk takes this name for another one: write the path as it is stored, or choose a name that differs by more than case, accents or dots at its end"
    )]
    OtherSpelling,
    /// Somebody makes locks and removes none.
    #[error("the repository has too many locks: remove those that are left over (`restic unlock`)")]
    TooManyLocks,
    /// The object exists with other bytes; it stays as it is.
    #[error("the object exists with other bytes")]
    Conflict,
    /// The uploaded bytes hash to the name, the stored ones do not. They stay as they are.
    #[error("the stored object is damaged: its bytes do not hash to its name, those uploaded do")]
    Damaged,
    /// Somebody else's, or of nobody who is known.
    #[error("the lock is another user's")]
    NotOwner,
    /// The uploaded bytes do not hash to the name.
    #[error("the SHA-256 of the body is not the name of the object")]
    Mismatch,
    /// No bytes, no inodes or no disk quota left.
    #[error("the disk is full")]
    NoSpace,
    /// Less than `--min-free` would be left.
    #[error("the disk is full but for the reserve that --min-free keeps for locks and deletes")]
    Reserved,
    /// The file system is mounted read-only.
    #[error("the file system is read-only")]
    ReadOnly,
    /// A flush failed: nothing is written until the operator has looked at the disk.
    #[error(
        "a flush to disk has failed, the store takes no writes: check the disk, then `packhouse repo resume` or restart"
    )]
    Suspended,
    /// The data folder's path names another folder by now: what is stored would not be found again.
    #[error(
        "the data folder was moved, removed or mounted over since the start: nothing is stored until it is back or the server is restarted"
    )]
    Displaced,
    /// A symbolic link stands in the path.
    #[error("a symbolic link stands in the path: packhouse follows none, use a bind mount")]
    Symlink,
    /// Out of descriptors, or the queue of file work is full.
    #[error("too much at once")]
    Busy,
    /// The disk does not have the flush that `--require-durable` asks for.
    #[error(
        "this disk can't make anything durable, and --require-durable is set: put the data folder on another"
    )]
    NotDurable,
    /// A path component is no folder. [`NoFolder`](Self::NoFolder) once it is known which, and that it is one of a
    /// repository's.
    #[error("a file stands where a folder must be")]
    NotDir,
    /// A file stands where a folder of a repository must be: what was in it is not absent, but out of reach.
    #[error(
        "{}: a file stands where a folder must be: move it away, then run `packhouse repo verify`",
        escaped(path)
    )]
    NoFolder {
        /// Below the data folder.
        path: PathBuf,
    },
    /// Something else stands where an object must be: what was stored there is not absent, but out of reach.
    #[error(
        "{}: what stands there is no file: move it away, then run `packhouse repo verify`",
        escaped(path)
    )]
    NoFile {
        /// Below the data folder.
        path: PathBuf,
    },
    /// A name is longer than the file system takes.
    #[error("a name is too long for the file system")]
    NameTooLong,
    /// Anything else that the operating system said.
    #[error("{step}: {cause}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        cause: io::Error,
    },
}

impl Error {
    /// The one translation of an operating-system error, met while doing `step`.
    pub fn from_io(step: &'static str, cause: io::Error) -> Self {
        match Fault::of(&cause) {
            Fault::Missing => Self::NotFound,
            Fault::Exists => Self::Conflict,
            Fault::Symlink => Self::Symlink,
            Fault::NoSpace => Self::NoSpace,
            Fault::ReadOnly => Self::ReadOnly,
            Fault::NoDescriptors | Fault::Busy => Self::Busy,
            Fault::NameTooLong => Self::NameTooLong,
            Fault::NotDir => Self::NotDir,
            Fault::Device | Fault::CrossDevice | Fault::Denied | Fault::Unsupported | Fault::Other => {
                Self::Io { step, cause }
            }
        }
    }
}

/// Names the step that an I/O error interrupted.
pub(super) trait Step<T> {
    /// Turns the error into a store's.
    fn step(self, step: &'static str) -> Result<T, Error>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, step: &'static str) -> Result<T, Error> {
        self.map_err(|cause| Error::from_io(step, cause))
    }
}
