//! Flushes to disk, on disks that may not have any.
//!
//! A flush that *fails* has lost data: the kernel has thrown the dirty pages away. A flush that the disk *does not have*
//! (fsync(2) of a folder is EINVAL on some network file systems, EOPNOTSUPP or ENOSYS on some FUSE ones) has lost nothing,
//! but nothing is durable there either. The operator is told once, and decides with `--require-durable`.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::io::Fault;

/// The two kinds of flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// The content of a file.
    File,
    /// The names in a folder.
    Folder,
}

/// What the flushes of one tree are worth. Shared by all workers.
#[derive(Debug, Default)]
pub struct Flushes {
    /// A flush that the disk does not have is an error.
    required: bool,
    /// The disk, or one below the data folder, lacks the flush of files.
    lacks_files: AtomicBool,
    lacks_folders: AtomicBool,
}

impl Flushes {
    /// Forgives flushes that a disk lacks, unless they are `required`.
    pub fn new(required: bool) -> Arc<Self> {
        Arc::new(Self { required, ..Self::default() })
    }

    /// Whether some disk of the tree was found to lack a flush.
    pub fn are_missing(&self) -> bool {
        self.lacks_files.load(Ordering::Relaxed) || self.lacks_folders.load(Ordering::Relaxed)
    }

    /// Flushes a file or a folder of the tree. Blocks.
    pub(super) fn run<E: Into<io::Error>>(
        &self,
        what: Flushed,
        flush: impl Fn() -> Result<(), E>,
    ) -> io::Result<()> {
        let Some(missing) = attempt(|| flush().map_err(Into::into))? else { return Ok(()) };
        let (known, name) = match what {
            Flushed::File => (&self.lacks_files, "file"),
            Flushed::Folder => (&self.lacks_folders, "folder"),
        };
        if !known.swap(true, Ordering::Relaxed) {
            log::warn!(
                "this disk can't flush a {name} ({missing}): acknowledged objects may not survive a power cut here"
            );
        }
        if self.required { Err(Fault::Unsupported.to_error()) } else { Ok(()) }
    }
}

/// Makes the content of a file of the server's own durable, as far as its disk can. Blocks.
pub fn file(file: &File) -> io::Result<()> {
    attempt(|| file.sync_all()).map(drop)
}

/// The same without what is not needed to read it again, such as its time.
pub fn data(file: &File) -> io::Result<()> {
    attempt(|| file.sync_data()).map(drop)
}

/// Makes the names in a folder durable, as far as its disk can. Blocks.
pub fn folder(path: &Path) -> io::Result<()> {
    let folder = File::open(path)?;
    attempt(|| folder.sync_all()).map(drop)
}

/// Flushes. The error that says that the disk has no such flush, if it has none.
///
/// # Errors
/// What was written may be lost. The errno does not always tell: fsync(2) reports that of a page that could not be written,
/// which may be EOPNOTSUPP or EINVAL too, but it reports that once. A disk that has no flush says so again.
fn attempt(flush: impl Fn() -> io::Result<()>) -> io::Result<Option<io::Error>> {
    let Err(e) = flush() else { return Ok(None) };
    if !says_missing(&e) {
        return Err(e);
    }
    match flush() {
        Err(again) if says_missing(&again) => Ok(Some(again)),
        _ => {
            log::error!("a flush failed ({e}) and did not fail again: what was written is lost");
            Err(Fault::Device.to_error())
        }
    }
}

/// Whether an errno may say that there is no such flush: file systems and system call filters have many. fsync(2) has none
/// of its own for rights.
fn says_missing(e: &io::Error) -> bool {
    /// ENOTSUPP of the kernel, which some file systems let out.
    const NOTSUPP: i32 = 524;
    let odd = [Errno::NOTTY, Errno::PERM, Errno::ACCESS].map(Errno::raw_os_error);
    let other = e.raw_os_error().is_some_and(|errno| errno == NOTSUPP || odd.contains(&errno));
    other || Fault::of(e) == Fault::Unsupported
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_missing_flush_is_forgiven_unless_required_and_a_failed_one_never() {
        for fault in [Fault::Unsupported, Fault::Device] {
            for required in [false, true] {
                let flushes = Flushes::new(required);
                let lacks = fault == Fault::Unsupported;
                let outcome = flushes.run(Flushed::File, || Err::<(), _>(fault.to_error()));
                assert_eq!(outcome.is_ok(), lacks && !required);
                assert_eq!(flushes.are_missing(), lacks);
            }
        }
        assert!(attempt(|| Err(Fault::Device.to_error())).is_err());
    }

    #[test]
    fn pages_that_were_lost_with_the_errno_of_a_missing_flush_are_no_missing_flush() {
        let calls = Cell::new(0);
        let once = || match calls.replace(calls.get() + 1) {
            0 => Err(Fault::Unsupported.to_error()),
            _ => Ok(()),
        };
        let flushes = Flushes::new(false);
        let lost = flushes.run(Flushed::File, once).expect_err("lost");
        assert_eq!((Fault::of(&lost), flushes.are_missing()), (Fault::Device, false));
    }
}
