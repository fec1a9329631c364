//! The folders of repositories: opened, and made when something is to lie in them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::io::Fault;
use crate::io::dir::Kind;
use crate::io::spelling::Spelling;
use crate::store::disk::Disk;
use crate::store::error::Step;
use crate::store::fs::FsStore;
use crate::store::{Error, layout};
use crate::types::{BlobType, Handle, Object, RepoPath};

/// Locks that a repository may have. A fleet that shares one has one a host.
const MAX_LOCKS: usize = 10_000;

impl<D: Disk> FsStore<D> {
    /// Opens the folder at `path`, a repository's or one in it, making what is missing; the folder itself is durable when this
    /// returns.
    pub(super) async fn require_dir(
        &self,
        repo: &RepoPath,
        path: &Path,
        made: &mut impl FnMut(u64),
    ) -> Result<D::Dir, Error> {
        let shared = &*self.0;
        let dir = match shared.disk.open_dir(path).await {
            Err(e) if Fault::of(&e) == Fault::Missing => self.make_dirs(repo, path, made).await?,
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

    /// Who may only read makes locks, too: beside the quotas, their number in a repository has a bound of its own.
    pub(super) async fn check_locks(&self, dir: &D::Dir, object: Object) -> Result<(), Error> {
        if !object.is_lock() {
            return Ok(());
        }
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

    /// Whether an object is the first pack of its repository: with it come all shards of `data`. The shards of a repository
    /// that has no pack are 256 folders for nothing; where one is there, a missing one is made alone.
    pub(super) async fn is_first_pack(&self, handle: &Handle) -> Result<bool, Error> {
        let Object::Blob(BlobType::Data, _) = handle.object else { return Ok(false) };
        let disk = &self.0.disk;
        let path = layout::type_dir(&handle.repo, BlobType::Data);
        let data = match disk.open_dir(&path).await.step("open a folder") {
            Err(Error::NotFound) => return Ok(true),
            other => self.explain(&handle.repo, &path, other).await?,
        };
        let mut reader = disk.read_dir(&data).await.step("read a folder")?;
        let page = disk.next_page(&mut reader, 1, false, layout::is_shard).await.step("read a folder")?;
        Ok(page.is_empty())
    }

    /// Makes the folder of an object, durably, and the shards beside it if it is to come with them: in one flush.
    pub(super) async fn make_object_dir(
        &self,
        handle: &Handle,
        with_shards: bool,
        made: &mut impl FnMut(u64),
    ) -> Result<D::Dir, Error> {
        let repo = &handle.repo;
        if with_shards {
            let path = layout::type_dir(repo, BlobType::Data);
            let data = self.explain(repo, &path, self.require_dir(repo, &path, made).await).await?;
            self.require_sub_dirs(&data, &path, layout::shards().map(Into::into).collect(), made).await?;
        }
        let path = layout::object_dir(handle);
        self.explain(repo, &path, self.require_dir(repo, &path, made).await).await
    }

    /// Makes a folder with those above it. What lies above the repository belongs to nobody.
    async fn make_dirs(
        &self,
        repo: &RepoPath,
        path: &Path,
        made: &mut impl FnMut(u64),
    ) -> Result<D::Dir, Error> {
        let shared = &*self.0;
        let mut dir = shared.disk.root();
        let mut reached = PathBuf::new();
        for (level, name) in (1..).zip(path) {
            let is_new = shared.wrote(shared.disk.make_dir(&dir, name).await).step("make a folder")?;
            if is_new && level > repo.folders().len() {
                made(1);
            }
            reached.push(name);
            // Another request may have made it meanwhile, in another spelling: its folder is not ours to make one in.
            if !is_new
                && level <= repo.folders().len()
                && shared.disk.spelling(&reached).await.step("look at a folder")? == Spelling::Other
            {
                return Err(Error::OtherSpelling);
            }
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
        made: &mut impl FnMut(u64),
    ) -> Result<(), Error> {
        let shared = &*self.0;
        let are_new = shared.wrote(shared.disk.make_dirs(dir, names.clone()).await).step("make a folder")?;
        made(are_new.iter().filter(|is_new| **is_new).count() as u64);
        for (name, _) in names.iter().zip(are_new).filter(|(_, is_new)| !is_new) {
            match shared.disk.stat(dir, name.as_ref()).await.step("look at a folder")?.kind {
                Kind::Dir => {}
                _ => return Err(Error::NoFolder { path: path.join(name) }),
            }
        }
        Ok(())
    }
}
