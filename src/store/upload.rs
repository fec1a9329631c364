//! Uploads: what is new and what exists, and what all of them know.

use std::rc::Rc;

use crate::hash::Digest;
use crate::io::Buffer;
use crate::io::dir::Meta;
use crate::store::disk::Disk;
use crate::store::error::Step;
use crate::store::fresh::Fresh;
use crate::store::fs::{FsStore, Shared};
use crate::store::hashing::{Hashed, Hasher};
use crate::store::repeat::Repeat;
use crate::store::small::Small;
use crate::store::{Change, Error, Upload, layout};
use crate::types::Handle;

/// An object on its way into a file system.
pub enum FsUpload<D: Disk> {
    /// The name is free, and the object small.
    Small(Small<D>),
    /// The name is free.
    Fresh(Fresh<D>),
    /// The name is taken.
    Repeat(Repeat<D>),
}

impl<D: Disk> Upload for FsUpload<D> {
    fn is_new(&self) -> bool {
        !matches!(self, Self::Repeat(_))
    }

    fn folders(&self) -> u64 {
        self.common().target.folders()
    }

    fn spare_folders(&mut self) {
        match self {
            Self::Small(upload) => upload.common.target.with_shards = false,
            Self::Fresh(upload) => upload.common.target.with_shards = false,
            Self::Repeat(_) => {}
        }
    }

    async fn hold(&mut self, upto: u64) -> Result<(), Error> {
        match self {
            Self::Fresh(upload) => upload.hold(upto).await,
            Self::Small(_) | Self::Repeat(_) => Ok(()),
        }
    }

    async fn write(&mut self, piece: Buffer) -> Result<(), Error> {
        match self {
            Self::Small(upload) => {
                if let Some(fresh) = upload.write(piece).await? {
                    *self = Self::Fresh(fresh);
                }
                Ok(())
            }
            Self::Fresh(upload) => upload.write(piece).await,
            Self::Repeat(upload) => upload.write(piece).await,
        }
    }

    async fn commit(self, mut changed: impl FnMut(Change)) -> Result<(), Error> {
        match self {
            Self::Small(upload) => upload.commit(&mut changed).await,
            Self::Fresh(upload) => upload.commit(&mut changed).await,
            Self::Repeat(upload) => upload.commit().await,
        }
    }
}

impl<D: Disk> FsUpload<D> {
    const fn common(&self) -> &Common<D> {
        match self {
            Self::Small(upload) => &upload.common,
            Self::Fresh(upload) => &upload.common,
            Self::Repeat(upload) => &upload.common,
        }
    }
}

/// Where an object is to lie.
#[derive(Clone)]
pub(super) struct Target<D: Disk> {
    /// Its folder, or the nearest above it that is there.
    pub dir: D::Dir,
    /// It is one above, or was when the upload began: a folder is made when an object is to lie in it, and not for one that
    /// is refused.
    pub is_above: bool,
    /// Folders that are missing below it.
    pub missing: u64,
    /// It is the first pack of its repository: with its shard come all others.
    pub with_shards: bool,
}

impl<D: Disk> Target<D> {
    /// In a folder that is there.
    pub(super) const fn of(dir: D::Dir) -> Self {
        Self { dir, is_above: false, missing: 0, with_shards: false }
    }

    /// Folders that are to be made.
    pub(super) fn folders(&self) -> u64 {
        if self.with_shards { self.missing.max(1) + layout::SHARDS - 1 } else { self.missing }
    }
}

/// What every upload knows.
pub(super) struct Common<D: Disk> {
    pub shared: Rc<Shared<D>>,
    pub target: Target<D>,
    pub handle: Handle,
    /// Runs only if the bytes must hash to the name.
    pub hasher: Option<Hasher>,
    /// Bytes that have come.
    pub offset: u64,
}

impl<D: Disk> Common<D> {
    pub(super) fn new(shared: &Rc<Shared<D>>, target: Target<D>, handle: &Handle) -> Self {
        let verify = shared.options.verify && handle.object.digest().is_some();
        Self {
            shared: Rc::clone(shared),
            target,
            handle: handle.clone(),
            hasher: verify.then(|| Hasher::new(&shared.hashing)),
            offset: 0,
        }
    }

    /// Makes the folder that the object is to lie in, if it is missing.
    pub(super) async fn settle_in(&mut self, changed: &mut impl FnMut(Change)) -> Result<(), Error> {
        if self.target.is_above {
            let store = FsStore(Rc::clone(&self.shared));
            let mut made = |count| changed(Change::Folders(count));
            let made = store.make_object_dir(&self.handle, self.target.with_shards, &mut made);
            self.target = Target::of(Box::pin(made).await?);
        }
        Ok(())
    }

    /// Begins to hash a piece, if that is needed.
    pub(super) fn begin_hash(&self, piece: Buffer) -> Hashed {
        match &self.hasher {
            Some(hasher) => hasher.begin(piece),
            None => Hashed::Done(piece),
        }
    }

    /// Hashes a piece, if that is needed.
    pub(super) fn hash(&self, piece: &[u8]) {
        if let Some(hasher) = &self.hasher {
            hasher.update(piece);
        }
    }

    /// The digest of what came, if it runs, and whether it is the right one.
    pub(super) fn verify(&mut self) -> Verdict {
        match self.hasher.take().map(Hasher::finish) {
            None => Verdict::Unknown,
            Some(digest) if Some(&digest) == self.handle.object.digest() => Verdict::Right(digest),
            Some(_) => Verdict::Wrong,
        }
    }

    /// The stored bytes are not those that came: whose fault that is depends on which of them hash to the name.
    pub(super) fn differs(&self, came: Verdict) -> Error {
        if let Verdict::Right(_) = came {
            self.shared.health.note_damaged();
            log::error!(
                "{}: the stored object is damaged: verified bytes of this name came and differ from it",
                self.handle
            );
            return Error::Damaged;
        }
        Error::Conflict
    }

    /// Another upload of the same name was first; the bytes of this one hash to `ours`.
    pub(super) async fn compare_with_winner(&self, came: Verdict, ours: Digest) -> Result<(), Error> {
        let shared = &self.shared;
        let name = layout::object_name(self.handle.object);
        let (stored, meta) =
            match shared.disk.open_file(&self.target.dir, name.as_ref()).await.step("open an object") {
                // It was deleted at once: the client's next try will do.
                Err(Error::NotFound) => return Err(Error::Busy),
                other => other?,
            };
        let same = meta.size == self.offset && shared.digest_of(&stored).await? == ours;
        if same { self.acknowledge(&stored, meta).await } else { Err(self.differs(came)) }
    }

    /// Makes the stored object and its name durable, whoever stored it: a repeat is acknowledged as firmly as the first
    /// upload.
    pub(super) async fn acknowledge(&self, stored: &D::File, meta: Meta) -> Result<(), Error> {
        self.shared.sync_data(stored).await?;
        self.shared.sync_dir(&self.target.dir).await?;
        // A delete may have come between: then the name is gone or another file's, and the client is to try again.
        let name = layout::object_name(self.handle.object);
        match self.shared.disk.stat(&self.target.dir, name.as_ref()).await.step("look for an object") {
            Ok(now) if now.inode == meta.inode => Ok(()),
            Ok(_) | Err(Error::NotFound) => Err(Error::Busy),
            Err(e) => Err(e),
        }
    }
}

/// Whether the bytes that came hash to the name.
#[derive(Clone, Copy)]
pub(super) enum Verdict {
    Right(Digest),
    Wrong,
    Unknown,
}

impl Verdict {
    /// What they hash to, if that is the name.
    pub(super) const fn digest(self) -> Option<Digest> {
        match self {
            Self::Right(digest) => Some(digest),
            Self::Wrong | Self::Unknown => None,
        }
    }
}
