//! The store on a file system: one folder a repository, one file an object.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::hash::{self, Engine, Sha256};
use crate::io::dir::{Kind, Meta};
use crate::io::file::File;
use crate::io::{Buffer, BufferPool, Fault};
use crate::store::disk::Disk;
use crate::store::error::Step;
use crate::store::fresh::Fresh;
use crate::store::hashing::{Hashing, read_back};
use crate::store::health::Health;
use crate::store::list::FsListing;
use crate::store::repeat::Repeat;
use crate::store::small::Small;
use crate::store::spelling::Spellings;
use crate::store::sync::DirSyncs;
use crate::store::upload::{FsUpload, Target};
use crate::store::{Download, Error, Store, census, layout};
use crate::types::{BLOCK_BYTES, BlobType, FolderName, Handle, Object, RepoPath, UserName};

/// Buffers a worker has for reading stored objects back while an upload is compared with them.
const COMPARE_BUFFERS: usize = 8;

/// How a store on a file system behaves.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Options {
    /// Whether an upload's bytes must hash to its name.
    pub verify: bool,
    /// Whether uploads are hashed side by side, where that is faster.
    pub hash_lanes: bool,
    /// Whether a small object is stored in one go, so that the journal of the file system commits many at once.
    pub group_commit: bool,
    /// Whether files without a name can be made and linked here; else uploads have a temporary name.
    pub unnamed_temps: bool,
}

/// A store on a file system, one a worker.
#[derive(Clone)]
pub struct FsStore<D: Disk>(pub(super) Rc<Shared<D>>);

pub(super) struct Shared<D: Disk> {
    pub disk: D,
    pub options: Options,
    pub health: Arc<Health>,
    pub syncs: DirSyncs<D>,
    pub spellings: Spellings,
    pub hashing: Rc<Hashing>,
    pub compare: BufferPool,
    /// Devices on which a file without a name can't be linked.
    pub cannot_link: RefCell<HashSet<u64>>,
}

impl<D: Disk> FsStore<D> {
    /// A store on `disk`.
    pub fn new(disk: D, options: Options, health: Arc<Health>) -> Self {
        let syncs = DirSyncs::new(disk.clone());
        let engine = if options.hash_lanes { Engine::fastest() } else { Engine::one_by_one() };
        Self(Rc::new(Shared {
            disk,
            options,
            health,
            syncs,
            spellings: Spellings::default(),
            hashing: Hashing::new(engine),
            compare: BufferPool::new(COMPARE_BUFFERS),
            cannot_link: RefCell::default(),
        }))
    }

    /// Begins to store a new object in a folder, or below it.
    async fn begin(
        &self,
        target: Target<D>,
        handle: &Handle,
        length: Option<u64>,
        owner: Option<&UserName>,
    ) -> Result<FsUpload<D>, Error> {
        let shared = &self.0;
        let owner = owner.filter(|_| handle.object.is_lock());
        if let Some(length) = length
            && Small::suits(shared, &target.dir, length)?
        {
            return Ok(FsUpload::Small(Small::begin(shared, target, handle, length, owner)));
        }
        Ok(FsUpload::Fresh(Fresh::begin(shared, target, handle, length, owner).await?))
    }

    /// Begins to store the first object of a folder that is missing: nothing is made before all of the object has come and is
    /// right. Copies of repositories lose their empty folders.
    async fn upload_first(
        &self,
        handle: &Handle,
        length: Option<u64>,
        owner: Option<&UserName>,
    ) -> Result<FsUpload<D>, Error> {
        if !self.exists(&handle.repo).await? {
            return Err(Error::NoRepository);
        }
        let (dir, missing) = self.nearest_dir(&layout::object_dir(handle)).await?;
        let mut target =
            Target { dir, is_above: true, missing, with_shards: self.is_first_pack(handle).await? };
        // A lock needs room above no reserve, and nor does its folder.
        if !handle.object.is_lock() {
            let take = async |folders| self.0.take_room(&target.dir, folders * BLOCK_BYTES, folders).await;
            if target.with_shards && take(target.folders()).await.is_err() {
                target.with_shards = false;
            }
            if !target.with_shards {
                self.0.take_room(&target.dir, missing * BLOCK_BYTES, missing).await?;
            }
        }
        self.0.make_room(&target.dir, handle.object, length.unwrap_or(0)).await?;
        self.begin(target, handle, length, owner).await
    }

    /// The same error of an object's folder or of the object itself, see [`Self::explain`].
    async fn explain_object<T>(&self, handle: &Handle, done: Result<T, Error>) -> Result<T, Error> {
        match done {
            Err(Error::NotDir) => self.explain(&handle.repo, &layout::object_dir(handle), done).await,
            other => other,
        }
    }

    /// Tells damage from absence where a component of `folder` is no folder. One of a repository's own folders that is a
    /// file is damage, and is named; a file where the repository itself would be is none: certificates may lie there.
    pub(super) async fn explain<T>(
        &self,
        repo: &RepoPath,
        folder: &Path,
        done: Result<T, Error>,
    ) -> Result<T, Error> {
        let Err(Error::NotDir) = done else { return done };
        let disk = &self.0.disk;
        let own = layout::repo_dir(repo).components().count();
        let mut path = PathBuf::new();
        for (level, name) in folder.iter().enumerate() {
            path.push(name);
            match disk.stat(&disk.root(), &path).await.step("look at a folder") {
                Ok(Meta { kind: Kind::Dir, .. }) => {}
                Ok(_) | Err(Error::NotDir) if level >= own => return Err(Error::NoFolder { path }),
                Ok(_) | Err(Error::NotDir) => return Err(Error::NotFound),
                Err(e) => return Err(e),
            }
        }
        // Somebody has mended it meanwhile: the client's next try will do.
        Err(Error::Busy)
    }

    /// Removes one file and makes that durable; none there is fine. Returns its bytes.
    async fn remove(
        &self,
        dir: &D::Dir,
        name: &OsStr,
        only_of: Option<&UserName>,
    ) -> Result<Option<u64>, Error> {
        let shared = &*self.0;
        let mut removed = None;
        match shared.disk.stat(dir, name.as_ref()).await.step("look for an object") {
            Ok(Meta { kind: Kind::File, .. }) => {
                if let Some(user) = only_of {
                    self.check_owner(dir, name, user).await?;
                }
                match shared.wrote(shared.disk.unlink(dir, name).await) {
                    Err(e) if Fault::of(&e) == Fault::Missing => {}
                    other => removed = Some(other.step("delete an object")?),
                }
            }
            Err(Error::NotFound) => {}
            Ok(_) => return Err(Error::NoFile { path: name.into() }),
            Err(e) => return Err(e),
        }
        shared.sync_dir(dir).await?;
        Ok(removed)
    }

    /// Names are hashes: another file of this name, made meanwhile, would be the same lock.
    async fn check_owner(&self, dir: &D::Dir, name: &OsStr, user: &UserName) -> Result<(), Error> {
        let disk = &self.0.disk;
        match disk.open_file(dir, name.as_ref()).await.step("open an object") {
            Ok((file, _)) => match disk.owner(&file).await.step("ask for the owner of a lock")? {
                Some(owner) if owner == user.as_str() => Ok(()),
                _ => Err(Error::NotOwner),
            },
            Err(Error::NotFound) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

impl<D: Disk> Shared<D> {
    /// Lets the health see an error of a step that writes.
    pub(super) fn wrote<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|e| self.health.note_write(e))
    }

    /// Lets the health see an error of a flush. After one has failed none succeeds any more: what it was to make durable
    /// may have been part of what was lost.
    pub(super) fn flushed<T>(&self, step: &'static str, result: io::Result<T>) -> Result<T, Error> {
        let done = match result.inspect_err(|e| self.health.note_flush(e)) {
            Err(e) if Fault::of(&e) == Fault::Unsupported => return Err(Error::NotDurable),
            other => other.step(step)?,
        };
        self.health.check_not_suspended()?;
        Ok(done)
    }

    /// Whether a file without a name can be linked into a folder, as far as is known.
    pub(super) fn links_unnamed(&self, dir: &D::Dir) -> io::Result<bool> {
        let device = self.disk.dir_id(dir)?.device;
        Ok(self.options.unnamed_temps && !self.cannot_link.borrow().contains(&device))
    }

    /// Looks at an error of a link. If it says that files without a name can't be linked where they were made, on a file
    /// system below the root (the root's own was probed at the start), uploads have temporary names there from now on.
    pub(super) async fn note_link(&self, dir: &D::Dir, e: &io::Error) -> bool {
        let cannot = match Fault::of(e) {
            Fault::CrossDevice | Fault::Unsupported => true,
            // EPERM, unless it is this one folder that may not be written to.
            Fault::Denied => self.disk.check_access(dir).await.is_ok(),
            _ => false,
        };
        if !cannot {
            return false;
        }
        if let Ok(id) = self.disk.dir_id(dir) {
            log::warn!(
                "a file system below the data folder can't link files without a name: using temporary names there"
            );
            self.cannot_link.borrow_mut().insert(id.device);
        }
        true
    }

    /// Makes the entries of a folder durable.
    pub(super) async fn sync_dir(&self, dir: &D::Dir) -> Result<(), Error> {
        self.flushed("sync a folder", self.syncs.sync(dir).await)
    }

    /// Makes the content of a file durable.
    pub(super) async fn sync_data(&self, file: &D::File) -> Result<(), Error> {
        self.flushed("flush an object", self.disk.sync_data(file).await)
    }

    /// Takes room for `length` more bytes of an object out of what the reserve leaves.
    pub(super) async fn make_room(&self, dir: &D::Dir, object: Object, length: u64) -> Result<(), Error> {
        // The reserve is there so that locks still fit: a prune needs one before it can free anything.
        if object.is_lock() { Ok(()) } else { self.take_room(dir, length, 1).await }
    }

    /// The same for `inodes` files or folders of `length` bytes in all.
    async fn take_room(&self, dir: &D::Dir, length: u64, inodes: u64) -> Result<(), Error> {
        let device = self.disk.dir_id(dir).step("look at a folder")?.device;
        if self.health.take_space(device, length, inodes).is_ok() {
            return Ok(());
        }
        let space = self.disk.space(dir).await.step("ask for free space")?;
        self.health.set_space(device, space);
        self.health.take_space(device, length, inodes)
    }

    /// The SHA-256 of a file's content.
    pub(super) async fn digest_of(&self, file: &D::File) -> Result<hash::Digest, Error> {
        let (_, digest) = read_back(&self.disk, file, &self.compare, &mut |_| Duration::ZERO).await;
        digest.step("read an object back")
    }
}

impl<D: Disk> Store for FsStore<D> {
    type Upload = FsUpload<D>;
    type Download = FsDownload<D>;
    type Listing = FsListing<D>;

    async fn create_repo(&self, repo: &RepoPath, mut made: impl FnMut(u64)) -> Result<(), Error> {
        let shared = &*self.0;
        shared.health.check_not_suspended()?;
        let path = layout::repo_dir(repo);
        match self.check_spelling_anew(repo).await {
            Err(Error::NotFound) => {}
            other => other?,
        }
        let missing = self.missing_folders(repo).await?;
        if missing > 0 {
            let (above, levels) = self.nearest_dir(&path).await?;
            shared.take_room(&above, missing * BLOCK_BYTES, missing).await?;
            self.check_new_spelling(&above, repo, levels).await?;
        }
        let dir = self.explain(repo, &path, self.require_dir(repo, &path, &mut made).await).await?;
        // Another request may have made the folder first, in another spelling.
        self.check_spelling_anew(repo).await?;
        let types = BlobType::ALL.iter().map(|kind| kind.as_str().into()).collect();
        self.require_sub_dirs(&dir, &path, types, &mut made).await?;
        shared.sync_dir(&dir).await
    }

    async fn missing_folders(&self, repo: &RepoPath) -> Result<u64, Error> {
        let mut missing = BlobType::ALL.len() as u64;
        let dir = match self.0.disk.open_dir(&layout::repo_dir(repo)).await.step("open a repository") {
            // One that can't be made is refused when it is made.
            Err(Error::NotFound | Error::NotDir) => return Ok(missing),
            other => other?,
        };
        for kind in BlobType::ALL {
            match self.0.disk.stat(&dir, kind.as_str().as_ref()).await.step("look into a repository") {
                Err(Error::NotFound) => {}
                other => missing -= other.map(|_there| 1)?,
            }
        }
        Ok(missing)
    }

    async fn count_repos(&self, first: &FolderName, depth: usize) -> u64 {
        census::count_below(&self.0.disk, first, depth).await
    }

    async fn check_lock_room(&self, repo: &RepoPath) -> Result<(), Error> {
        let (dir, _) = self.nearest_dir(&layout::type_dir(repo, BlobType::Locks)).await?;
        let space = self.0.disk.space(&dir).await.step("ask for free space")?;
        self.0.health.check_lock_room(&space)
    }

    async fn upload(
        &self,
        handle: &Handle,
        length: Option<u64>,
        owner: Option<&UserName>,
    ) -> Result<FsUpload<D>, Error> {
        let shared = &self.0;
        shared.health.check_not_suspended()?;
        match self.check_spelling(&handle.repo).await {
            Err(Error::NotFound) => return Err(Error::NoRepository),
            other => other?,
        }
        let path = layout::object_dir(handle);
        // Where a repository could be there may be other folders.
        if handle.object == Object::Config && !self.exists(&handle.repo).await? {
            return Err(Error::NoRepository);
        }
        let dir = match shared.disk.open_dir(&path).await {
            Err(e) if Fault::of(&e) == Fault::Missing => {
                return Box::pin(self.upload_first(handle, length, owner)).await;
            }
            other => self.explain(&handle.repo, &path, other.step("open a folder")).await?,
        };
        shared.flushed("sync the parents of a folder", shared.syncs.ensure_durable(&path, &dir).await)?;
        let name = layout::object_name(handle.object);
        match shared.disk.open_file(&dir, name.as_ref()).await.step("look for an object") {
            Ok((stored, meta)) => {
                let size = size_of_file(handle, meta)?;
                if length.is_some_and(|length| length != size) {
                    return Err(Error::Conflict);
                }
                Ok(FsUpload::Repeat(Repeat::begin(shared, dir, handle, stored, meta)))
            }
            Err(Error::NotFound) => {
                shared.make_room(&dir, handle.object, length.unwrap_or(0)).await?;
                self.check_locks(&dir, handle.object).await?;
                self.begin(Target::of(dir), handle, length, owner).await
            }
            Err(e) => Err(e),
        }
    }

    async fn download(&self, handle: &Handle) -> Result<FsDownload<D>, Error> {
        self.check_spelling(&handle.repo).await?;
        let disk = &self.0.disk;
        let opened = disk.open_file(&disk.root(), &layout::object_path(handle)).await.step("open an object");
        let (file, meta) = self.explain_object(handle, opened).await?;
        Ok(FsDownload { shared: Rc::clone(&self.0), file, size: size_of_file(handle, meta)? })
    }

    async fn size(&self, handle: &Handle) -> Result<u64, Error> {
        self.check_spelling(&handle.repo).await?;
        let disk = &self.0.disk;
        let found = disk.stat(&disk.root(), &layout::object_path(handle)).await.step("look for an object");
        size_of_file(handle, self.explain_object(handle, found).await?)
    }

    async fn delete(&self, handle: &Handle, only_of: Option<&UserName>) -> Result<Option<u64>, Error> {
        self.0.health.check_not_suspended()?;
        match self.check_spelling(&handle.repo).await {
            Err(Error::NotFound) => return Ok(None),
            other => other?,
        }
        let opened = self.0.disk.open_dir(&layout::object_dir(handle)).await.step("open a folder");
        match self.explain_object(handle, opened).await {
            Ok(dir) => self.remove(&dir, &layout::object_name(handle.object), only_of).await,
            Err(Error::NotFound) => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn exists(&self, repo: &RepoPath) -> Result<bool, Error> {
        match self.check_spelling(repo).await {
            Err(Error::NotFound) => return Ok(false),
            other => other?,
        }
        let dir = match self.0.disk.open_dir(&layout::repo_dir(repo)).await.step("open a repository") {
            Err(Error::NotFound | Error::NotDir) => return Ok(false),
            other => other?,
        };
        for mark in layout::repo_marks() {
            match self.0.disk.stat(&dir, Path::new(mark)).await.step("look into a repository") {
                Err(Error::NotFound) => {}
                other => return other.map(|_| true),
            }
        }
        Ok(false)
    }

    async fn check_ready(&self) -> Result<(), Error> {
        let Shared { disk, health, .. } = &*self.0;
        health.check_writable()?;
        let root = disk.open_dir(Path::new("")).await.step("open the data folder")?;
        disk.check_access(&root).await.step("write to the data folder")?;
        disk.check_in_place().await.step("find the data folder")?;
        health.check_room(&disk.space(&root).await.step("ask for free space")?)
    }

    fn is_durable(&self) -> bool {
        self.0.disk.is_durable()
    }

    async fn space(&self) -> Result<(u64, u64), Error> {
        let space = self.0.disk.space(&self.0.disk.root()).await.step("ask for free space")?;
        Ok((space.free_bytes, space.bytes))
    }

    async fn list(&self, repo: &RepoPath, kind: BlobType, sizes: bool) -> Result<FsListing<D>, Error> {
        self.check_spelling(repo).await?;
        let disk = &self.0.disk;
        let path = layout::type_dir(repo, kind);
        let opened = disk.open_dir(&path).await.step("open a folder");
        match self.explain(repo, &path, opened).await {
            Ok(_) if kind == BlobType::Data => Ok(FsListing::sharded(disk.clone(), &path, sizes)),
            Ok(_) => Ok(FsListing::flat(disk.clone(), path, sizes)),
            Err(Error::NotFound) if self.exists(repo).await? => Ok(FsListing::empty(disk.clone())),
            Err(e) => Err(e),
        }
    }
}

fn size_of_file(handle: &Handle, meta: Meta) -> Result<u64, Error> {
    if meta.kind == Kind::File {
        Ok(meta.size)
    } else {
        Err(Error::NoFile { path: layout::object_path(handle) })
    }
}

/// An open file.
pub struct FsDownload<D: Disk> {
    shared: Rc<Shared<D>>,
    file: D::File,
    size: u64,
}

impl<D: Disk> Download for FsDownload<D> {
    fn size(&self) -> u64 {
        self.size
    }

    async fn digest(&self) -> Result<hash::Digest, Error> {
        /// The bytes, if they are in memory and were read inline.
        const SHORT: u64 = 64 << 10;
        let mut content = Vec::new();
        let count = usize::try_from(self.size).unwrap_or(usize::MAX);
        let is_cached = |file: &File| file.read_cached(&mut content, 0, count);
        if self.size <= SHORT && self.file().is_some_and(is_cached) {
            return Ok(Sha256::of(&content));
        }
        self.shared.digest_of(&self.file).await
    }

    fn file(&self) -> Option<&File> {
        self.shared.disk.local(&self.file)
    }

    async fn read(&self, offset: u64, buffer: Buffer) -> Result<Buffer, Error> {
        let (read, buffer) = self.shared.disk.read_at(&self.file, buffer, offset).await;
        read.step("read an object").map(|_| buffer)
    }
}
