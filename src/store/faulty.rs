//! A disk that fails when it is told to, for tests.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::io::dir::{DirId, Meta, Space};
use crate::io::file::File;
use crate::io::listing::Entry;
use crate::io::spelling::Spelling;
use crate::io::{Buffer, Fault};
use crate::store::disk::Disk;

/// The operations that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Opening a directory or a file, or asking for its size.
    Open,
    /// Making a directory.
    MakeDir,
    /// Making a file.
    Create,
    /// Reading a directory.
    ReadDir,
    /// Reading a file.
    Read,
    /// Writing.
    Write,
    /// Reserving room.
    Preallocate,
    /// Flushing a file.
    SyncData,
    /// Flushing a directory.
    SyncDir,
    /// Linking or renaming.
    Publish,
    /// Removing.
    Unlink,
}

/// Looks at every operation before it is done. Clones are the same.
#[expect(async_fn_in_trait, reason = "one thread a core: futures are not Send on purpose")]
pub trait Watch: Clone + 'static {
    /// An operation is about to be done; with an error it is not.
    async fn before(&self, op: Op) -> io::Result<()>;
}

/// What is to fail, and what was done. Clones are the same plan; it may be held by another thread.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Default)]
struct Plan {
    fault: Option<(Op, Fault)>,
    /// Calls of its operation that the fault still lets pass.
    spared: usize,
    panic: Option<Op>,
    calls: Vec<Op>,
}

impl Faults {
    /// From now on every `op` fails in this way; none lets all pass.
    pub fn fail(&self, fault: Option<(Op, Fault)>) {
        let mut plan = self.plan();
        (plan.fault, plan.spared) = (fault, 0);
    }

    /// After `count` more calls every `op` fails with a device error.
    pub fn fail_after(&self, op: Op, count: usize) {
        let mut plan = self.plan();
        (plan.fault, plan.spared) = (Some((op, Fault::Device)), count);
    }

    /// The next `op` panics.
    pub fn panic_once(&self, op: Op) {
        self.plan().panic = Some(op);
    }

    /// The operations since the last call, in order.
    pub fn take_calls(&self) -> Vec<Op> {
        std::mem::take(&mut self.plan().calls)
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch for Faults {
    #[expect(clippy::panic, reason = "asked for, to see what a bug does")]
    async fn before(&self, op: Op) -> io::Result<()> {
        let mut plan = self.plan();
        plan.calls.push(op);
        if plan.panic.take_if(|at| *at == op).is_some() {
            drop(plan);
            std::panic::panic_any("on purpose");
        }
        match plan.fault {
            Some((at, fault)) if at == op && plan.spared == 0 => return Err(fault.to_error()),
            Some((at, _)) if at == op => plan.spared -= 1,
            _ => {}
        }
        Ok(())
    }
}

/// `D` with injected faults.
#[derive(Clone)]
pub struct FaultyDisk<D, W = Faults> {
    disk: D,
    watch: W,
}

impl<D, W: Watch> FaultyDisk<D, W> {
    /// `disk`, failing as `watch` says.
    pub const fn new(disk: D, watch: W) -> Self {
        Self { disk, watch }
    }

    async fn check(&self, op: Op) -> io::Result<()> {
        self.watch.before(op).await
    }
}

impl<D: Disk, W: Watch> Disk for FaultyDisk<D, W> {
    type Dir = D::Dir;
    type File = D::File;
    type Reader = D::Reader;

    fn root(&self) -> D::Dir {
        self.disk.root()
    }

    fn dir_id(&self, dir: &D::Dir) -> io::Result<DirId> {
        self.disk.dir_id(dir)
    }

    async fn open_dir(&self, path: &Path) -> io::Result<D::Dir> {
        self.check(Op::Open).await?;
        self.disk.open_dir(path).await
    }

    async fn make_dirs(&self, dir: &D::Dir, names: Vec<OsString>) -> io::Result<Vec<bool>> {
        self.check(Op::MakeDir).await?;
        self.disk.make_dirs(dir, names).await
    }

    async fn spelling(&self, path: &Path) -> io::Result<Spelling> {
        self.disk.spelling(path).await
    }

    async fn keeps_names(&self, dir: &D::Dir, names: Vec<OsString>) -> io::Result<bool> {
        self.disk.keeps_names(dir, names).await
    }

    async fn sync_dir(&self, dir: &D::Dir) -> io::Result<()> {
        self.check(Op::SyncDir).await?;
        self.disk.sync_dir(dir).await
    }

    async fn space(&self, dir: &D::Dir) -> io::Result<Space> {
        self.disk.space(dir).await
    }

    async fn read_dir(&self, dir: &D::Dir) -> io::Result<D::Reader> {
        self.check(Op::ReadDir).await?;
        self.disk.read_dir(dir).await
    }

    async fn next_page(
        &self,
        reader: &mut D::Reader,
        limit: usize,
        sizes: bool,
        wanted: fn(&[u8]) -> bool,
    ) -> io::Result<Vec<Entry>> {
        self.check(Op::ReadDir).await?;
        self.disk.next_page(reader, limit, sizes, wanted).await
    }

    async fn stat(&self, dir: &D::Dir, path: &Path) -> io::Result<Meta> {
        self.check(Op::Open).await?;
        self.disk.stat(dir, path).await
    }

    async fn open_file(&self, dir: &D::Dir, path: &Path) -> io::Result<(D::File, Meta)> {
        self.check(Op::Open).await?;
        self.disk.open_file(dir, path).await
    }

    async fn create_unnamed(&self, dir: &D::Dir) -> io::Result<D::File> {
        self.check(Op::Create).await?;
        self.disk.create_unnamed(dir).await
    }

    async fn create_locked(&self, dir: &D::Dir, name: &OsStr) -> io::Result<D::File> {
        self.check(Op::Create).await?;
        self.disk.create_locked(dir, name).await
    }

    async fn link(&self, file: &D::File, dir: &D::Dir, name: &OsStr) -> io::Result<()> {
        self.check(Op::Publish).await?;
        self.disk.link(file, dir, name).await
    }

    async fn rename(&self, dir: &D::Dir, from: &OsStr, into: &D::Dir, to: &OsStr) -> io::Result<()> {
        self.check(Op::Publish).await?;
        self.disk.rename(dir, from, into, to).await
    }

    async fn set_aside(&self, dir: &D::Dir, from: &OsStr, to: &OsStr, inode: u64) -> io::Result<bool> {
        self.check(Op::Publish).await?;
        self.disk.set_aside(dir, from, to, inode).await
    }

    async fn unlink(&self, dir: &D::Dir, name: &OsStr) -> io::Result<u64> {
        self.check(Op::Unlink).await?;
        self.disk.unlink(dir, name).await
    }

    async fn unlink_if_old(&self, dir: &D::Dir, name: &OsStr, age: Duration) -> io::Result<bool> {
        self.check(Op::Unlink).await?;
        self.disk.unlink_if_old(dir, name, age).await
    }

    async fn unlink_if_unlocked(&self, dir: &D::Dir, name: &OsStr) -> io::Result<bool> {
        self.check(Op::Unlink).await?;
        self.disk.unlink_if_unlocked(dir, name).await
    }

    fn local<'f>(&self, _: &'f D::File) -> Option<&'f File> {
        None
    }

    async fn read_at(&self, file: &D::File, buffer: Buffer, offset: u64) -> (io::Result<usize>, Buffer) {
        match self.check(Op::Read).await {
            Ok(()) => self.disk.read_at(file, buffer, offset).await,
            Err(e) => (Err(e), buffer),
        }
    }

    async fn write_all_at(&self, file: &D::File, buffer: Buffer, offset: u64) -> (io::Result<()>, Buffer) {
        match self.check(Op::Write).await {
            Ok(()) => self.disk.write_all_at(file, buffer, offset).await,
            Err(e) => (Err(e), buffer),
        }
    }

    async fn preallocate(&self, file: &D::File, offset: u64, len: u64) -> io::Result<bool> {
        self.check(Op::Preallocate).await?;
        self.disk.preallocate(file, offset, len).await
    }

    async fn set_owner(&self, file: &D::File, owner: &str) -> io::Result<()> {
        self.check(Op::Write).await?;
        self.disk.set_owner(file, owner).await
    }

    async fn owner(&self, file: &D::File) -> io::Result<Option<String>> {
        self.check(Op::Read).await?;
        self.disk.owner(file).await
    }

    async fn set_len(&self, file: &D::File, len: u64) -> io::Result<()> {
        self.check(Op::Write).await?;
        self.disk.set_len(file, len).await
    }

    async fn sync_data(&self, file: &D::File) -> io::Result<()> {
        self.check(Op::SyncData).await?;
        self.disk.sync_data(file).await
    }

    fn is_older_than(&self, file: &D::File, age: Duration) -> io::Result<bool> {
        self.disk.is_older_than(file, age)
    }

    fn bypass_memory(&self, file: &D::File) {
        self.disk.bypass_memory(file);
    }

    async fn close(&self, file: D::File) -> io::Result<()> {
        self.disk.close(file).await
    }
}
