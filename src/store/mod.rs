//! Bytes at rest, behind two seams.
//!
//! Above, [`Store`]: announce name and length, stream, commit; download from an offset; list in pages. Nothing above it
//! knows a path on disk, so that an object store or a sealing layer can stand in its place. Below, [`disk::Disk`]: the few
//! file-system operations that [`fs::FsStore`] is made of, so that its logic runs on a model disk too.
//!
//! Invariants: a repository answers to its stored spelling alone; what a call acknowledged is durable, idempotent repeats
//! included; what has no commit is never visible; a name that exists is never replaced.

use crate::hash::Digest;
use crate::io::Buffer;
use crate::io::file::File;
use crate::types::{BlobId, BlobType, FolderName, Handle, RepoPath, UserName};

pub mod census;
pub mod disk;
pub mod error;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
mod folders;
pub mod fresh;
pub mod fs;
mod hashing;
pub mod health;
pub mod layout;
pub mod list;
pub mod local;
#[cfg(any(test, feature = "testing"))]
pub mod model;
pub mod repeat;
pub mod scrub;
pub mod small;
mod spelling;
pub mod sweep;
pub mod sync;
mod temp;
pub mod upload;

pub use error::Error;

/// Objects of many repositories.
#[expect(async_fn_in_trait, reason = "one thread a core: futures are not Send on purpose")]
pub trait Store: Clone + 'static {
    /// An object on its way in.
    type Upload: Upload;
    /// An open object.
    type Download: Download;
    /// A listing in progress.
    type Listing: Listing;

    /// Makes a repository's folders, those that are missing, but for the shards of `data`, which come with the first pack.
    /// Durable when it returns, also if all were there. `made` is told how many, as soon as they are there.
    ///
    /// # Errors
    /// [`Error::OtherSpelling`], here and everywhere, if the disk takes the path for that of another folder.
    async fn create_repo(&self, repo: &RepoPath, made: impl FnMut(u64)) -> Result<(), Error>;

    /// How many folders are missing in a repository that [`create_repo`](Self::create_repo) makes. What they lie in is not
    /// counted, and nor is it when it is made.
    async fn missing_folders(&self, repo: &RepoPath) -> Result<u64, Error>;

    /// How many repositories there are below a first folder, itself among them, at most `depth` folders deep.
    async fn count_repos(&self, first: &FolderName, depth: usize) -> u64;

    /// Fails if a lock of somebody who may not remove the locks of others would take what is kept for those who may: a prune
    /// needs one before it can free anything.
    async fn check_lock_room(&self, repo: &RepoPath) -> Result<(), Error>;

    /// Begins an upload of `length` bytes, if that is known. The folders that are missing in a repository are made when the object
    /// is committed. A lock is kept with its owner, if there is one.
    ///
    /// # Errors
    /// Everything that can be known before the first byte: [`Error::NoRepository`], [`Error::Conflict`] if the object exists with another length,
    /// no space, a store that takes no writes.
    async fn upload(
        &self,
        handle: &Handle,
        length: Option<u64>,
        owner: Option<&UserName>,
    ) -> Result<Self::Upload, Error>;

    /// Opens an object.
    async fn download(&self, handle: &Handle) -> Result<Self::Download, Error>;

    /// Bytes of an object.
    async fn size(&self, handle: &Handle) -> Result<u64, Error>;

    /// Removes an object, with `only_of` one that this user owns. Durable when it returns; no error if there was none.
    /// Returns the bytes that it had, if there was one.
    ///
    /// # Errors
    /// [`Error::NotOwner`]
    async fn delete(&self, handle: &Handle, only_of: Option<&UserName>) -> Result<Option<u64>, Error>;

    /// Whether there is anything of a repository.
    async fn exists(&self, repo: &RepoPath) -> Result<bool, Error>;

    /// Fails, with the reason, if an upload could not be stored now.
    async fn check_ready(&self) -> Result<(), Error>;

    /// Whether what is acknowledged survives a power cut: not on a disk that is memory, or that lacks flushes.
    fn is_durable(&self) -> bool;

    /// Bytes that are free, and bytes in all.
    async fn space(&self) -> Result<(u64, u64), Error>;

    /// Begins a list of all blobs of one type, with their sizes if `sizes`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such repository; a missing type folder is an empty list.
    async fn list(&self, repo: &RepoPath, kind: BlobType, sizes: bool) -> Result<Self::Listing, Error>;
}

/// What an upload changes when it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// So many folders were made.
    Folders(u64),
    /// The object can be seen: its bytes are there, come what may.
    Published,
}

/// An object on its way in. Dropped before it is committed, it leaves nothing behind.
#[expect(async_fn_in_trait, reason = "one thread a core: futures are not Send on purpose")]
pub trait Upload {
    /// Whether nothing had this name when the upload began.
    fn is_new(&self) -> bool;

    /// How many folders its commit is to make.
    fn folders(&self) -> u64;

    /// Makes of these only what it needs itself, and not those that others will need.
    fn spare_folders(&mut self);

    /// Room on the disk may be held for it up to byte `upto`, and none beyond.
    async fn hold(&mut self, upto: u64) -> Result<(), Error>;

    /// Takes the next bytes.
    async fn write(&mut self, piece: Buffer) -> Result<(), Error>;

    /// Verifies, makes durable and visible. If the object exists with the same bytes, that is success. `changed` is told what
    /// is there now, as soon as it is.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the object exists with other bytes, or [`Error::Damaged`] if these bytes are right and the stored
    /// ones are not; [`Error::Mismatch`] else if the bytes don't hash to the name.
    async fn commit(self, changed: impl FnMut(Change)) -> Result<(), Error>;
}

/// An open object. It stays readable if the object is deleted meanwhile.
#[expect(async_fn_in_trait, reason = "one thread a core: futures are not Send on purpose")]
pub trait Download {
    /// Bytes of the whole object.
    fn size(&self) -> u64;

    /// The SHA-256 of the whole object. For small ones: all of it is read.
    async fn digest(&self) -> Result<Digest, Error>;

    /// The file that holds the bytes as they are, if one does.
    fn file(&self) -> Option<&File>;

    /// Fills `buffer` from `offset` on, to its capacity or the object's end.
    async fn read(&self, offset: u64, buffer: Buffer) -> Result<Buffer, Error>;
}

/// A listing in progress.
#[expect(async_fn_in_trait, reason = "one thread a core: futures are not Send on purpose")]
pub trait Listing {
    /// Whether to read more than is asked for, which is faster and takes memory while the client does not read.
    fn read_ahead(&mut self, _is_ahead: bool) {}

    /// The next entries in no order; none at the end.
    ///
    /// # Errors
    /// The list is not whole: what came before must not be taken for it.
    async fn page(&mut self) -> Result<Vec<Listed>, Error>;
}

/// An entry of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The blob's name.
    pub id: BlobId,
    /// Its size in bytes; 0 if sizes were not asked for.
    pub size: u64,
}
