//! Uploads: a fresh one is written to a file that gets its name when all of it is right and durable; one whose name
//! exists is compared with what is stored.

use std::rc::Rc;

use crate::hash::Digest;
use crate::io::dir::Meta;
use crate::io::{Buffer, Fault};
use crate::store::disk::Disk;
use crate::store::error::Step;
use crate::store::fs::Shared;
use crate::store::hashing::Hasher;
use crate::store::temp::Temp;
use crate::store::{Error, Upload, layout};
use crate::types::{BlobType, Handle, Object, UserName};

/// Room reserved ahead of what has arrived: enough that a full disk is known before the body, not so much that idle
/// clients could reserve a disk.
const PREALLOCATE_BYTES: u64 = 128 << 20;
/// Shorter objects are not worth a reservation.
const PREALLOCATE_FROM: u64 = 1 << 20;

/// An object on its way into a file system.
pub enum FsUpload<D: Disk> {
    /// The name is free.
    Fresh(Fresh<D>),
    /// The name is taken.
    Repeat(Repeat<D>),
}

impl<D: Disk> Upload for FsUpload<D> {
    fn is_new(&self) -> bool {
        matches!(self, Self::Fresh(_))
    }

    async fn write(&mut self, piece: Buffer) -> Result<(), Error> {
        match self {
            Self::Fresh(upload) => upload.write(piece).await,
            Self::Repeat(upload) => upload.write(piece).await,
        }
    }

    async fn commit(self, published: impl FnOnce()) -> Result<(), Error> {
        match self {
            Self::Fresh(upload) => upload.commit(published).await,
            Self::Repeat(upload) => upload.commit().await,
        }
    }
}

/// What both kinds of upload know.
struct Common<D: Disk> {
    shared: Rc<Shared<D>>,
    dir: D::Dir,
    handle: Handle,
    /// Runs only if the bytes must hash to the name.
    hasher: Option<Hasher>,
    /// Bytes that have come.
    offset: u64,
}

impl<D: Disk> Common<D> {
    fn new(shared: &Rc<Shared<D>>, dir: D::Dir, handle: &Handle) -> Self {
        let verify = shared.options.verify && handle.object.digest().is_some();
        Self {
            shared: Rc::clone(shared),
            dir,
            handle: handle.clone(),
            hasher: verify.then(|| Hasher::new(&shared.hashing)),
            offset: 0,
        }
    }

    /// Hashes a piece, if that is needed.
    async fn hash(&mut self, piece: Buffer) -> Result<Buffer, Error> {
        match &mut self.hasher {
            Some(hasher) => hasher.update(piece).await.step("hash an object"),
            None => Ok(piece),
        }
    }

    /// The digest of what came, if it runs, and whether it is the right one.
    fn verify(&mut self) -> Verdict {
        match self.hasher.take().and_then(Hasher::finish) {
            None => Verdict::Unknown,
            Some(digest) if Some(&digest) == self.handle.object.digest() => Verdict::Right(digest),
            Some(_) => Verdict::Wrong,
        }
    }

    /// The stored bytes are not those that came: whose fault that is depends on which of them hash to the name.
    fn differs(&self, came: Verdict) -> Error {
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

    /// Makes the stored object and its name durable, whoever stored it: a repeat is acknowledged as firmly as the first
    /// upload.
    async fn acknowledge(&self, stored: &D::File, meta: Meta) -> Result<(), Error> {
        self.shared.sync_data(stored).await?;
        self.shared.sync_dir(&self.dir).await?;
        // A delete may have come between: then the name is gone or another file's, and the client is to try again.
        let name = layout::object_name(self.handle.object);
        match self.shared.disk.stat(&self.dir, &name).await.step("look for an object") {
            Ok(now) if now.inode == meta.inode => Ok(()),
            Ok(_) | Err(Error::NotFound) => Err(Error::Busy),
            Err(e) => Err(e),
        }
    }
}

#[derive(Clone, Copy)]
enum Verdict {
    Right(Digest),
    Wrong,
    Unknown,
}

/// A new object.
pub struct Fresh<D: Disk> {
    common: Common<D>,
    temp: Temp<D>,
    /// Bytes of room reserved, where the file ends then, and announced bytes for which none is yet.
    reserved: u64,
    unreserved: u64,
    /// The length was not announced: every piece is to fit above what `--min-free` keeps.
    metered: bool,
}

impl<D: Disk> Fresh<D> {
    /// Of `length` bytes, if that is known; a lock may have an owner.
    pub(super) async fn begin(
        shared: &Rc<Shared<D>>,
        dir: D::Dir,
        handle: &Handle,
        length: Option<u64>,
        owner: Option<&UserName>,
    ) -> Result<Self, Error> {
        let temp = shared.wrote(Temp::create(shared, &dir, handle.object).await).step("make a file")?;
        if let (Some(owner), Object::Blob(BlobType::Locks, _)) = (owner, handle.object) {
            let noted = shared.disk.set_owner(&temp.file, owner.as_str()).await;
            shared.wrote(noted).step("note the owner of a lock")?;
        }
        let unreserved = length.filter(|length| *length >= PREALLOCATE_FROM).unwrap_or(0);
        let common = Common::new(shared, dir, handle);
        let metered = length.is_none();
        let mut upload = Self { common, temp, reserved: 0, unreserved, metered };
        upload.reserve(1).await?;
        Ok(upload)
    }

    /// Sees to it that room is reserved up to the byte `upto`, as far as the length was announced.
    async fn reserve(&mut self, upto: u64) -> Result<(), Error> {
        if upto <= self.reserved || self.unreserved == 0 {
            return Ok(());
        }
        let (shared, object) = (&self.common.shared, self.common.handle.object);
        let next = PREALLOCATE_BYTES.min(self.unreserved);
        if self.reserved > 0 {
            // The answer that let the whole length in is old by now.
            shared.make_room(&self.common.dir, object, next).await?;
        }
        let can = shared
            .wrote(shared.disk.preallocate(&self.temp.file, self.reserved, next).await)
            .step("reserve room for an object")?;
        if can {
            (self.reserved, self.unreserved) = (self.reserved + next, self.unreserved - next);
        } else {
            // A file system that can't is not asked again.
            self.unreserved = 0;
        }
        Ok(())
    }

    async fn write(&mut self, piece: Buffer) -> Result<(), Error> {
        let length = piece.len() as u64;
        if self.metered {
            let (shared, object) = (&self.common.shared, self.common.handle.object);
            shared.make_room(&self.common.dir, object, length).await?;
        }
        let piece = self.common.hash(piece).await?;
        // While a piece is written the next one is received and hashed.
        self.settle().await?;
        self.reserve(self.common.offset + length).await?;
        let begun = self.temp.begin_write(piece, self.common.offset).await;
        self.common.shared.wrote(begun).step("write an object")?;
        self.common.offset += length;
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), Error> {
        let written = self.temp.settle().await;
        self.common.shared.wrote(written).step("write an object")
    }

    async fn commit(mut self, published: impl FnOnce()) -> Result<(), Error> {
        self.settle().await?;
        let came = self.common.verify();
        if let Verdict::Wrong = came {
            return Err(Error::Mismatch);
        }
        let shared = &self.common.shared;
        if self.reserved > self.common.offset {
            // Less came than was announced.
            let cut = shared.disk.set_len(&self.temp.file, self.common.offset).await;
            shared.wrote(cut).step("cut an object to its length")?;
        }
        shared.sync_data(&self.temp.file).await?;
        let name = layout::object_name(self.common.handle.object);
        match shared.wrote(self.temp.publish(&name).await) {
            Err(e) if Fault::of(&e) == Fault::Exists => self.compare_with_winner(came).await,
            // The store has learnt; the client's next try will do.
            Err(e) if Fault::of(&e) == Fault::CrossDevice => Err(Error::Busy),
            Err(e) => Err(Error::from_io("name an object", e)),
            Ok(()) => {
                published();
                shared.sync_dir(&self.common.dir).await
            }
        }
    }

    /// Another upload of the same name was first.
    async fn compare_with_winner(&self, came: Verdict) -> Result<(), Error> {
        let shared = &self.common.shared;
        let name = layout::object_name(self.common.handle.object);
        let (stored, meta) = match shared.disk.open_file(&self.common.dir, &name).await.step("open an object")
        {
            // It was deleted at once: the client's next try will do.
            Err(Error::NotFound) => return Err(Error::Busy),
            other => other?,
        };
        let ours = match came {
            Verdict::Right(digest) => digest,
            Verdict::Wrong | Verdict::Unknown => shared.digest_of(&self.temp.file).await?,
        };
        let same = meta.size == self.common.offset && shared.digest_of(&stored).await? == ours;
        if same { self.common.acknowledge(&stored, meta).await } else { Err(self.common.differs(came)) }
    }
}

/// An upload whose name exists.
pub struct Repeat<D: Disk> {
    common: Common<D>,
    stored: D::File,
    meta: Meta,
    /// All that came was equal so far.
    same: bool,
}

impl<D: Disk> Repeat<D> {
    /// Of the object in the file `stored`.
    pub(super) fn begin(
        shared: &Rc<Shared<D>>,
        dir: D::Dir,
        handle: &Handle,
        stored: D::File,
        meta: Meta,
    ) -> Self {
        Self { common: Common::new(shared, dir, handle), stored, meta, same: true }
    }

    async fn write(&mut self, piece: Buffer) -> Result<(), Error> {
        let piece = self.common.hash(piece).await?;
        let end = self.common.offset + piece.len() as u64;
        self.same = self.same && end <= self.meta.size && self.is_stored(&piece).await?;
        self.common.offset = end;
        // What else comes can change nothing, unless it is the stored bytes that are wrong.
        if self.same || self.common.hasher.is_some() { Ok(()) } else { Err(Error::Conflict) }
    }

    /// Whether the stored bytes at the current offset are these.
    async fn is_stored(&self, piece: &[u8]) -> Result<bool, Error> {
        let shared = &self.common.shared;
        let mut buffer = shared.compare.take().await;
        let mut compared = 0;
        while let Some(rest @ [_, ..]) = piece.get(compared..) {
            let (read, back) =
                shared.disk.read_at(&self.stored, buffer, self.common.offset + compared as u64).await;
            buffer = back;
            let count = read.step("read an object back")?.min(rest.len());
            if count == 0 || rest.get(..count) != buffer.get(..count) {
                return Ok(false);
            }
            compared += count;
        }
        Ok(true)
    }

    async fn commit(mut self) -> Result<(), Error> {
        let came = self.common.verify();
        if !self.same || self.common.offset != self.meta.size {
            return Err(self.common.differs(came));
        }
        // Equal, but not what the name says: stored without verification, or damaged. Not to be acknowledged again.
        if let Verdict::Wrong = came {
            return Err(Error::Mismatch);
        }
        self.common.acknowledge(&self.stored, self.meta).await
    }
}
