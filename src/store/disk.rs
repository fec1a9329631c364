//! The lower seam: what [`FsStore`](super::fs::FsStore) asks of a file system.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::io::Buffer;
use crate::io::dir::{DirId, Meta, Space};
use crate::io::file::File;
use crate::io::listing::Entry;
use crate::io::small::SmallError;
use crate::io::spelling::Spelling;

/// A file system below one root. Every operation on a name is told an open directory, follows no symbolic link, and
/// replaces nothing; what makes or removes an entry takes one component.
#[expect(async_fn_in_trait, reason = "one thread a core: futures are not Send on purpose")]
pub trait Disk: Clone + 'static {
    /// An open directory.
    type Dir: Clone + 'static;
    /// An open file.
    type File: 'static;
    /// A directory being read.
    type Reader: 'static;

    /// The data folder.
    fn root(&self) -> Self::Dir;
    /// Which directory this is.
    fn dir_id(&self, dir: &Self::Dir) -> io::Result<DirId>;
    /// Opens the directory at `path` (plain components; none of them is the root) beneath the root.
    async fn open_dir(&self, path: &Path) -> io::Result<Self::Dir>;
    /// Makes directories, in one go; false where the name is taken.
    async fn make_dirs(&self, dir: &Self::Dir, names: Vec<OsString>) -> io::Result<Vec<bool>>;
    /// Makes a directory; false if the name is taken.
    async fn make_dir(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<bool> {
        Ok(self.make_dirs(dir, vec![name.to_owned()]).await?.contains(&true))
    }
    /// How `path` (plain components) beneath the root is spelled. Most disks have one name for each folder.
    async fn spelling(&self, _path: &Path) -> io::Result<Spelling> {
        Ok(Spelling::Stored)
    }
    /// Whether directories of these names, made in `dir`, are stored as they are spelled, and none is found under a word of
    /// restic's protocol.
    async fn keeps_names(&self, _dir: &Self::Dir, _names: Vec<OsString>) -> io::Result<bool> {
        Ok(true)
    }
    /// Makes the entries of a directory durable.
    async fn sync_dir(&self, dir: &Self::Dir) -> io::Result<()>;
    /// Room on the directory's file system.
    async fn space(&self, dir: &Self::Dir) -> io::Result<Space>;
    /// Whether this user may list a directory and make entries in it: `Denied` or `ReadOnly` if not.
    async fn check_access(&self, _dir: &Self::Dir) -> io::Result<()> {
        Ok(())
    }
    /// Whether the root is still what its path names.
    async fn check_in_place(&self) -> io::Result<()> {
        Ok(())
    }
    /// Whether what is flushed is durable, as far as is known.
    fn is_durable(&self) -> bool {
        true
    }
    /// Starts reading a directory.
    async fn read_dir(&self, dir: &Self::Dir) -> io::Result<Self::Reader>;
    /// The next entries whose names `wanted` accepts, about `limit`; none at the end.
    async fn next_page(
        &self,
        reader: &mut Self::Reader,
        limit: usize,
        sizes: bool,
        wanted: fn(&[u8]) -> bool,
    ) -> io::Result<Vec<Entry>>;

    /// Size and kind of what is at `path` (plain components) beneath `dir`; a symbolic link is an error.
    async fn stat(&self, dir: &Self::Dir, path: &Path) -> io::Result<Meta>;
    /// Opens what is at `path` (plain components) beneath `dir` for reading.
    async fn open_file(&self, dir: &Self::Dir, path: &Path) -> io::Result<(Self::File, Meta)>;
    /// Makes a file without a name. `Other` if the file system has none.
    async fn create_unnamed(&self, dir: &Self::Dir) -> io::Result<Self::File>;
    /// Makes a file with a name, locked while it is open.
    async fn create_locked(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<Self::File>;
    /// Gives an unnamed file its name; `Exists` if it is taken.
    async fn link(&self, file: &Self::File, dir: &Self::Dir, name: &OsStr) -> io::Result<()>;
    /// Renames an entry of `dir` to one of `into`, on the same file system; `Exists` if the new name is taken.
    async fn rename(&self, dir: &Self::Dir, from: &OsStr, into: &Self::Dir, to: &OsStr) -> io::Result<()>;
    /// Stores a small file whole, without a name until all of it is durable. `content` comes back, unless it could not be written.
    async fn store_small(
        &self,
        dir: &Self::Dir,
        name: &OsStr,
        content: Buffer,
        owner: Option<&str>,
    ) -> (Result<(), SmallError>, Buffer) {
        let file = match self.create_unnamed(dir).await {
            Ok(file) => file,
            Err(e) => return (Err(SmallError::Make(e)), content),
        };
        let (written, content) = self.write_all_at(&file, content, 0).await;
        let rest = async {
            written.map_err(SmallError::Write)?;
            if let Some(owner) = owner {
                self.set_owner(&file, owner).await.map_err(SmallError::Write)?;
            }
            self.sync_data(&file).await.map_err(SmallError::Flush)?;
            self.link(&file, dir, name).await.map_err(SmallError::Name)?;
            self.sync_dir(dir).await.map_err(SmallError::FlushName)
        };
        (rest.await, content)
    }
    /// Gives the file `inode` another name if it is the one that is called `from`; false if it is not.
    async fn set_aside(&self, dir: &Self::Dir, from: &OsStr, to: &OsStr, inode: u64) -> io::Result<bool>;
    /// Removes a file; returns the bytes that this very file had.
    async fn unlink(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<u64>;
    /// Removes a file that nobody has written to for so long; true if it is gone.
    async fn unlink_if_old(&self, dir: &Self::Dir, name: &OsStr, age: Duration) -> io::Result<bool>;
    /// Removes a file that no process holds locked; true if it is gone.
    async fn unlink_if_unlocked(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<bool>;

    /// The file of this machine that it is, if it is one.
    fn local<'f>(&self, file: &'f Self::File) -> Option<&'f File>;
    /// Reads from `offset` what there is, at most the buffer's capacity.
    async fn read_at(&self, file: &Self::File, buffer: Buffer, offset: u64) -> (io::Result<usize>, Buffer);
    /// Writes all of the buffer. One write at a time.
    async fn write_all_at(&self, file: &Self::File, buffer: Buffer, offset: u64) -> (io::Result<()>, Buffer);
    /// Reserves room and moves the end of the file behind it; false, and nothing is changed, if the file system can't.
    async fn preallocate(&self, file: &Self::File, offset: u64, len: u64) -> io::Result<bool>;
    /// Notes who a file belongs to; nothing happens where the file system can't.
    async fn set_owner(&self, file: &Self::File, owner: &str) -> io::Result<()>;
    /// Who a file belongs to, if that is known.
    async fn owner(&self, file: &Self::File) -> io::Result<Option<String>>;
    /// Cuts or extends.
    async fn set_len(&self, file: &Self::File, len: u64) -> io::Result<()>;
    /// Makes the content durable.
    async fn sync_data(&self, file: &Self::File) -> io::Result<()>;
    /// Whether nobody has written to a file for so long.
    fn is_older_than(&self, file: &Self::File, age: Duration) -> io::Result<bool>;
    /// Sees to it that reads of a file are of the device, as far as that can be; to be called again after the last of them.
    fn bypass_memory(&self, file: &Self::File);
    /// Closes a file whose last close may take time.
    async fn close(&self, file: Self::File) -> io::Result<()>;
}
