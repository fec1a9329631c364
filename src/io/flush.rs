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

use crate::io::Fault;

/// What the flushes of one tree are worth. Shared by all workers.
#[derive(Debug, Default)]
pub struct Flushes {
    /// A flush that the disk does not have is an error.
    required: bool,
    /// The disk, or one below the data folder, lacks a flush.
    missing: AtomicBool,
}

impl Flushes {
    /// Forgives flushes that a disk lacks, unless they are `required`.
    pub fn new(required: bool) -> Arc<Self> {
        Arc::new(Self { required, missing: AtomicBool::new(false) })
    }

    /// Whether some disk of the tree was found to lack a flush.
    pub fn are_missing(&self) -> bool {
        self.missing.load(Ordering::Relaxed)
    }

    /// Takes the result of a flush of a file or a folder, `what`.
    pub(super) fn check(&self, what: &str, result: io::Result<()>) -> io::Result<()> {
        let Err(e) = result else { return Ok(()) };
        if Fault::of(&e) != Fault::Unsupported {
            return Err(e);
        }
        if !self.missing.swap(true, Ordering::Relaxed) {
            log::warn!(
                "this disk can't flush a {what} ({e}): acknowledged objects may not survive a power cut here"
            );
        }
        if self.required { Err(e) } else { Ok(()) }
    }
}

/// Makes the content of a file of the server's own durable, as far as its disk can. Blocks.
pub fn file(file: &File) -> io::Result<()> {
    forgive(file.sync_all())
}

/// The same without what is not needed to read it again, such as its time.
pub fn data(file: &File) -> io::Result<()> {
    forgive(file.sync_data())
}

/// Makes the names in a folder durable, as far as its disk can. Blocks.
pub fn folder(path: &Path) -> io::Result<()> {
    forgive(File::open(path)?.sync_all())
}

fn forgive(flushed: io::Result<()>) -> io::Result<()> {
    match flushed {
        Err(e) if Fault::of(&e) == Fault::Unsupported => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_flush_is_forgiven_unless_required_and_a_failed_one_never() {
        for fault in [Fault::Unsupported, Fault::Device] {
            for required in [false, true] {
                let flushes = Flushes::new(required);
                let lacks = fault == Fault::Unsupported;
                assert_eq!(flushes.check("file", Err(fault.to_error())).is_ok(), lacks && !required);
                assert_eq!(flushes.are_missing(), lacks);
            }
        }
        assert!(forgive(Err(Fault::Device.to_error())).is_err());
    }
}
