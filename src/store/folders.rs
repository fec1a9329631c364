//! The folders of repositories: opened, and made when something is to lie in them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::io::Fault;
use crate::io::dir::Kind;
use crate::store::disk::Disk;
use crate::store::error::Step;
use crate::store::fs::FsStore;
use crate::store::{Error, layout};
use crate::types::{BlobType, Handle, Object};

/// Locks that a repository may have. A fleet that shares one has one a host.
const MAX_LOCKS: usize = 10_000;

impl<D: Disk> FsStore<D> {
    /// Opens the folder at `path`, making what is missing; the folder itself is durable when this returns.
    pub(super) async fn require_dir(&self, path: &Path) -> Result<D::Dir, Error> {
        let shared = &*self.0;
        let dir = match shared.disk.open_dir(path).await {
            Err(e) if Fault::of(&e) == Fault::Missing => self.make_dirs(path).await?,
            other => other.step("open a folder")?,
        };
        shared.flushed("sync the parents of a folder", shared.syncs.ensure_durable(path, &dir).await)?;
        Ok(dir)
    }

    /// The folder at `path`, or the nearest above it that is there, and how many are missing.
    pub(super) async fn nearest_dir(&self, path: &Path) -> Result<(D::Dir, u64), Error> {
        for (missing, folder) in (0..).zip(path.ancestors()) {
            match self.0.disk.open_dir(folder).await.step("open a folder") {
                Err(Error::NotFound | Error::NotDir) => {}
                other => return Ok((other?, missing)),
            }
        }
        Ok((self.0.disk.root(), path.components().count() as u64))
    }

    /// Locks are in nobody's quota, and who may only read makes them: their number has a bound of its own.
    pub(super) async fn check_locks(&self, dir: &D::Dir, object: Object) -> Result<(), Error> {
        let Object::Blob(BlobType::Locks, _) = object else { return Ok(()) };
        let disk = &self.0.disk;
        let mut reader = disk.read_dir(dir).await.step("read a folder")?;
        let mut count = 0;
        loop {
            let page =
                disk.next_page(&mut reader, MAX_LOCKS, false, |_any| true).await.step("read a folder")?;
            count += page.len();
            match page.len() {
                0 => return Ok(()),
                _ if count >= MAX_LOCKS => return Err(Error::TooManyLocks),
                _ => {}
            }
        }
    }

    /// Makes the folder of an object, durably.
    pub(super) async fn make_object_dir(&self, handle: &Handle) -> Result<D::Dir, Error> {
        let path = layout::object_dir(handle);
        self.explain(&handle.repo, &path, self.require_dir(&path).await).await
    }

    async fn make_dirs(&self, path: &Path) -> Result<D::Dir, Error> {
        let shared = &*self.0;
        let mut dir = shared.disk.root();
        let mut reached = PathBuf::new();
        for name in path {
            shared.wrote(shared.disk.make_dir(&dir, name).await).step("make a folder")?;
            reached.push(name);
            dir = shared.disk.open_dir(&reached).await.step("open a folder")?;
        }
        Ok(dir)
    }

    /// Makes those of the folders `names` in `dir`, which lies at `path`, that are missing.
    pub(super) async fn require_sub_dirs(
        &self,
        dir: &D::Dir,
        path: &Path,
        names: Vec<OsString>,
    ) -> Result<(), Error> {
        let shared = &*self.0;
        let made = shared.wrote(shared.disk.make_dirs(dir, names.clone()).await).step("make a folder")?;
        for (name, _) in names.iter().zip(made).filter(|(_, is_new)| !is_new) {
            match shared.disk.stat(dir, name.as_ref()).await.step("look at a folder")?.kind {
                Kind::Dir => {}
                _ => return Err(Error::NoFolder { path: path.join(name) }),
            }
        }
        Ok(())
    }
}
