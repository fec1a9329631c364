//! The [`Disk`] of this machine. Files go through the worker's ring or to the blocking pool: `io::file` decides.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::io::Buffer;
use crate::io::dir::{Dir, DirId, Meta, Space};
use crate::io::file::File;
use crate::io::listing::{DirReader, Entry};
use crate::io::small::SmallError;
use crate::io::spelling::Spelling;
use crate::store::disk::Disk;
use crate::types::DirectIo;

/// The modes of what is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    /// Of directories.
    pub dir: u32,
    /// Of files.
    pub file: u32,
}

impl Modes {
    /// For the server's user alone.
    pub const PRIVATE: Self = Self { dir: 0o700, file: 0o600 };
    /// For its group too (`--group-accessible-repos`).
    pub const GROUP: Self = Self { dir: 0o770, file: 0o660 };
}

/// A folder of this machine.
#[derive(Clone)]
pub struct LocalDisk {
    root: Dir,
    modes: Modes,
    direct: DirectIo,
}

impl LocalDisk {
    /// Everything below `root`.
    pub const fn new(root: Dir, modes: Modes, direct: DirectIo) -> Self {
        Self { root, modes, direct }
    }
}

impl Disk for LocalDisk {
    type Dir = Dir;
    type File = File;
    type Reader = DirReader;

    fn root(&self) -> Dir {
        self.root.clone()
    }

    fn dir_id(&self, dir: &Dir) -> io::Result<DirId> {
        dir.id()
    }

    async fn open_dir(&self, path: &Path) -> io::Result<Dir> {
        self.root.open_dir(path).await
    }

    async fn make_dirs(&self, dir: &Dir, names: Vec<OsString>) -> io::Result<Vec<bool>> {
        dir.make_dirs(names, self.modes.dir).await
    }

    async fn spelling(&self, path: &Path) -> io::Result<Spelling> {
        self.root.spelling(path).await
    }

    async fn keeps_names(&self, dir: &Dir, names: Vec<OsString>) -> io::Result<bool> {
        dir.keeps_names(names).await
    }

    async fn sync_dir(&self, dir: &Dir) -> io::Result<()> {
        dir.sync().await
    }

    async fn space(&self, dir: &Dir) -> io::Result<Space> {
        dir.space().await
    }

    async fn check_access(&self, dir: &Dir) -> io::Result<()> {
        dir.check_access().await
    }

    async fn check_in_place(&self) -> io::Result<()> {
        self.root.check_in_place().await
    }

    fn is_durable(&self) -> bool {
        !self.root.is_volatile() && !self.root.lacks_flushes()
    }

    async fn read_dir(&self, dir: &Dir) -> io::Result<DirReader> {
        Ok(dir.read())
    }

    async fn next_page(
        &self,
        reader: &mut DirReader,
        limit: usize,
        sizes: bool,
        wanted: fn(&[u8]) -> bool,
    ) -> io::Result<Vec<Entry>> {
        reader.page(limit, sizes, wanted).await
    }

    async fn stat(&self, dir: &Dir, path: &Path) -> io::Result<Meta> {
        dir.stat(path).await
    }

    async fn open_file(&self, dir: &Dir, path: &Path) -> io::Result<(File, Meta)> {
        dir.open_file(path).await
    }

    async fn create_unnamed(&self, dir: &Dir) -> io::Result<File> {
        dir.create_unnamed(self.modes.file).await
    }

    async fn create_locked(&self, dir: &Dir, name: &OsStr) -> io::Result<File> {
        dir.create_locked(name, self.modes.file).await
    }

    async fn link(&self, file: &File, dir: &Dir, name: &OsStr) -> io::Result<()> {
        dir.link(file, name).await
    }

    async fn rename(&self, dir: &Dir, from: &OsStr, into: &Dir, to: &OsStr) -> io::Result<()> {
        dir.rename(from, into, to).await
    }

    async fn store_small(
        &self,
        dir: &Dir,
        name: &OsStr,
        content: Buffer,
        owner: Option<&str>,
    ) -> (Result<(), SmallError>, Buffer) {
        dir.store_small(name, content, self.modes.file, owner).await
    }

    async fn set_aside(&self, dir: &Dir, from: &OsStr, to: &OsStr, inode: u64) -> io::Result<bool> {
        dir.set_aside(from, to, inode).await
    }

    async fn unlink(&self, dir: &Dir, name: &OsStr) -> io::Result<u64> {
        dir.unlink(name).await
    }

    async fn unlink_if_old(&self, dir: &Dir, name: &OsStr, age: Duration) -> io::Result<bool> {
        dir.unlink_if_old(name, age).await
    }

    async fn unlink_if_unlocked(&self, dir: &Dir, name: &OsStr) -> io::Result<bool> {
        dir.unlink_if_unlocked(name).await
    }

    fn local<'f>(&self, file: &'f File) -> Option<&'f File> {
        Some(file)
    }

    async fn read_at(&self, file: &File, buffer: Buffer, offset: u64) -> (io::Result<usize>, Buffer) {
        file.read_at(buffer, offset).await
    }

    async fn write_all_at(&self, file: &File, buffer: Buffer, offset: u64) -> (io::Result<()>, Buffer) {
        file.write_all_at(buffer, offset).await
    }

    async fn preallocate(&self, file: &File, offset: u64, len: u64) -> io::Result<bool> {
        file.preallocate(offset, len, self.direct).await
    }

    async fn set_owner(&self, file: &File, owner: &str) -> io::Result<()> {
        file.set_owner(owner).await
    }

    async fn owner(&self, file: &File) -> io::Result<Option<String>> {
        file.owner().await
    }

    async fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len).await
    }

    async fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data().await
    }

    fn is_older_than(&self, file: &File, age: Duration) -> io::Result<bool> {
        file.is_older_than(age)
    }

    fn bypass_memory(&self, file: &File) {
        file.bypass_memory();
    }

    async fn close(&self, file: File) -> io::Result<()> {
        file.close().await
    }
}
