//! Directories and the path operations on them: every one names a directory descriptor and one component, so that
//! no path can leave the root, and none follows a symbolic link (openat2(2), `RESOLVE_BENEATH | NO_SYMLINKS`).
//!
//! What the kernel can answer from its caches is answered inline (`RESOLVE_CACHED`); the rest goes to the pool.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{
    Access, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, ResolveFlags, StatVfs, StatxFlags,
    accessat, fcntl_setfl, fstat, fstatfs, fstatvfs, fsync, mkdirat, openat, openat2, statat, statvfs, statx,
    unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::io::Fault;
use crate::io::blocking::Pools;
use crate::io::file::{File, is_older_than};
use crate::io::flush::{Flushed, Flushes};
use crate::io::listing::DirReader;
use crate::io::names::{
    lacks_locks, link_unnamed, make_unnamed, rename_atomically, rename_by_link, rename_if_alone, take_turn,
};
use crate::io::node::{Node, Site};
use crate::io::optional::flock;
use crate::io::place::Place;

pub(super) const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
const OPEN_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// The rights that a folder needs: to list it, and to make entries in it.
const USABLE: Access = Access::READ_OK.union(Access::WRITE_OK).union(Access::EXEC_OK);
/// Where a disk has no locks, a file with a temporary name counts as left over when nobody has written to it for so long.
const UNLOCKED_AGE: Duration = Duration::from_hours(24);

/// What stands under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A socket, a pipe, a device.
    Other,
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Dir,
            FileType::Symlink => Self::Symlink,
            _ => Self::Other,
        }
    }
}

/// What an entry is, and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// Bytes; 0 where it was not asked for.
    pub size: u64,
    /// Which file it is, whatever it is called.
    pub inode: u64,
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all; 0 where the file system counts none.
    pub bytes: u64,
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// Inodes in all; 0 where the file system counts none.
    pub inodes: u64,
    /// Inodes that this user may still make.
    pub free_inodes: u64,
}

/// Which directory this is, whatever it is called. Inodes are used again, so the time of birth belongs to it (where the
/// file system keeps none it is 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DirId {
    /// The file system.
    pub device: u64,
    /// The directory in it.
    pub inode: u64,
    /// Nanoseconds.
    pub born: i128,
}

/// Which folder of which file system something is, across restarts of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The file system's own number (`statfs(2)`), which of ext4 and btrfs comes of their UUID; 0 where it has none.
    file_system: u64,
    /// The folder in it.
    inode: u64,
    /// When it was made, in nanoseconds since 1970; 0 where the file system does not keep that.
    born: i64,
}

impl Identity {
    /// Of the folder at `path`.
    pub fn of(path: &Path) -> io::Result<Self> {
        let fd = openat(CWD, path, OPEN_DIR, Mode::empty())?;
        let DirId { inode, born, .. } = dir_id(&fd)?;
        let born = i64::try_from(born).unwrap_or(0);
        Ok(Self { file_system: fstatvfs(&fd).map_or(0, |stat| stat.f_fsid), inode, born })
    }

    /// Whether two may be the same file system: a disk may get another number when the machine starts (xfs takes that of
    /// the device), and a folder may have been moved within one.
    pub fn may_be(&self, other: &Self) -> bool {
        let same_file_system = self.file_system != 0 && self.file_system == other.file_system;
        same_file_system || (self.inode, self.born) == (other.inode, other.born)
    }
}

/// An open directory.
#[derive(Clone)]
pub struct Dir {
    pub(super) node: Node,
    /// Which one it is, once that was asked: it stays the same while it is open.
    id: OnceCell<DirId>,
}

impl Dir {
    /// Opens the root of all paths. Blocks: for the start of the process.
    ///
    /// # Errors
    /// Also when the kernel or its seccomp filter knows no openat2 (Linux 5.6).
    pub fn open_root(path: &Path, pools: Arc<Pools>, flushes: Arc<Flushes>, alone: bool) -> io::Result<Self> {
        let fd = openat(CWD, path, OPEN_DIR, Mode::empty())?;
        drop(openat2(&fd, ".", OPEN_DIR, Mode::empty(), BENEATH)?);
        let volatile = if is_volatile(&fd) { Some(fstat(&fd)?.st_dev) } else { None };
        let inodes_unknown = AtomicBool::new(false);
        let place = Arc::new(Place::of(&fd, path)?);
        Self::new(fd, Arc::new(Site { pools, volatile, flushes, inodes_unknown, alone, place }))
    }

    fn new(fd: OwnedFd, site: Arc<Site>) -> io::Result<Self> {
        Ok(Self { node: Node::new(fd, site)?, id: OnceCell::new() })
    }

    /// Whether what is stored here is lost when the machine goes down: tmpfs or ramfs.
    pub fn is_volatile(&self) -> bool {
        self.node.site.volatile.is_some()
    }

    /// Whether a flush was found that its disk does not have.
    pub fn lacks_flushes(&self) -> bool {
        self.node.site.flushes.are_missing()
    }

    /// Whether this user may list the directory and make entries in it.
    ///
    /// # Errors
    /// `Denied`, or `ReadOnly` of a file system that takes no writes.
    pub async fn check_access(&self) -> io::Result<()> {
        self.node.reading(move |fd| Ok(forgive_unknown(accessat(fd, ".", USABLE, AtFlags::empty()))?)).await
    }

    /// Where the root of this tree is.
    pub fn place(&self) -> Arc<Place> {
        Arc::clone(&self.node.site.place)
    }

    /// Whether the root is still what its path names.
    ///
    /// # Errors
    /// It is not.
    pub async fn check_in_place(&self) -> io::Result<()> {
        let place = self.place();
        self.node.reading(move |_root| place.check()).await
    }

    /// Opens a directory beneath this one; `path` has plain components only, and none opens this one again.
    pub async fn open_dir(&self, path: &Path) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let fd = self.open_cached(path, OPEN_DIR).await?;
        Self::new(fd, Arc::clone(&self.node.site))
    }

    /// Opens a regular file beneath this directory for reading; `path` has plain components only.
    pub async fn open_file(&self, path: &Path) -> io::Result<(File, Meta)> {
        // NONBLOCK: opening a planted pipe must not hang.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Reading writes nothing: the time of the last access would wait for the journal of a slow disk, and the worker with it.
        let (fd, mode) = match self.open_cached(path, flags | OFlags::NOATIME).await {
            // Somebody else's file.
            Err(e) if Errno::from_io_error(&e) == Some(Errno::PERM) => {
                (self.open_cached(path, flags).await?, OFlags::empty())
            }
            opened => (opened?, OFlags::NOATIME),
        };
        let meta = meta_of(&fd)?;
        if meta.kind == Kind::File {
            // The ring would not wait for a cold read of a file that is not to block.
            fcntl_setfl(&fd, mode)?;
        }
        Ok((File::new(fd, Arc::clone(&self.node.site))?, meta))
    }

    /// Size and kind of what is at `path`, which has plain components only. A symbolic link is an error.
    pub async fn stat(&self, path: &Path) -> io::Result<Meta> {
        let fd = self.open_cached(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC).await?;
        meta_of(&fd)
    }

    async fn open_cached(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        match openat2(&self.node.fd, path, flags, Mode::empty(), BENEATH | ResolveFlags::CACHED) {
            // INVAL: Linux before 5.12 does not know RESOLVE_CACHED.
            Err(Errno::AGAIN | Errno::INVAL) => {
                let path = path.to_owned();
                self.node.reading(move |fd| Ok(openat2(fd, path, flags, Mode::empty(), BENEATH)?)).await
            }
            other => Ok(other?),
        }
    }

    /// Makes directories, in one go. True for those that are new, false where something of that name was there.
    pub async fn make_dirs(&self, names: Vec<OsString>, mode: u32) -> io::Result<Vec<bool>> {
        let make = move |fd: &OwnedFd, name: &OsString| match mkdirat(fd, name, Mode::from_raw_mode(mode)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(e) => Err(e.into()),
        };
        self.node.writing(move |fd| names.iter().map(|name| make(fd, name)).collect()).await
    }

    /// Makes a file without a name (`O_TMPFILE`), to be written and then published here with [`Self::link`].
    ///
    /// # Errors
    /// `Other` where the file system has none, and on btrfs: before Linux 6.16 it logs no file that has no link, so that
    /// after a power cut the name could be there and the flushed content not.
    pub async fn create_unnamed(&self, mode: u32) -> io::Result<File> {
        File::new(self.node.writing(move |fd| make_unnamed(fd, mode)).await?, Arc::clone(&self.node.site))
    }

    /// Makes a file of this name, which must be free, and holds a lock on it for as long as it is open.
    pub async fn create_locked(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let name = name.to_owned();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let job = move |fd: &OwnedFd| {
            let file = openat(fd, &name, flags, Mode::from_raw_mode(mode))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                // The disk has no locks: a leftover is known by its age instead.
                Err(e) if lacks_locks(e) => {}
                Err(e) => {
                    // A name without a lock would stay until the next start.
                    unlinkat(fd, &name, AtFlags::empty()).unwrap_or_default();
                    return Err(e.into());
                }
            }
            Ok(file)
        };
        File::new(self.node.writing(job).await?, Arc::clone(&self.node.site))
    }

    /// Gives an unnamed file its name. Never replaces: `Exists` if the name is taken.
    pub async fn link(&self, file: &File, name: &OsStr) -> io::Result<()> {
        let (name, file) = (name.to_owned(), file.share());
        self.node.writing(move |fd| link_unnamed(&*file, fd, &name)).await
    }

    /// Renames an entry of this directory to one of `into`, on the same file system. Never replaces: `Exists` if the new name is
    /// taken.
    pub async fn rename(&self, from: &OsStr, into: &Self, to: &OsStr) -> io::Result<()> {
        let (from, to, alone) = (from.to_owned(), to.to_owned(), self.node.site.alone);
        let into = Arc::clone(&into.node.fd);
        let job = move |fd: &OwnedFd| {
            let (from, to) = ((fd, &*from), (&*into, &*to));
            if rename_atomically(from, to)? || rename_by_link(from, to)? {
                return Ok(());
            }
            let _turn = take_turn(to.1);
            rename_if_alone(alone, from, to)
        };
        self.node.writing(job).await
    }

    /// Gives the file `inode` another name, which must be free, if it is the one that is called `from`. False if it is not.
    ///
    /// # Errors
    /// Also where the file system can't rename without replacing and other processes may write here: there is no other
    /// way that is safe for a live name.
    pub async fn set_aside(&self, from: &OsStr, to: &OsStr, inode: u64) -> io::Result<bool> {
        let (from, to, alone) = (from.to_owned(), to.to_owned(), self.node.site.alone);
        // The caller holds the turn of `from`; no other task knows `to`. A link and a removal would not do: another process
        // may store an object called `from` in between.
        let rename = move |fd: &OwnedFd, from: &OsStr, to: &OsStr| {
            let (from, to) = ((fd, from), (fd, to));
            if rename_atomically(from, to)? { Ok(()) } else { rename_if_alone(alone, from, to) }
        };
        let is_it = move |fd: &OwnedFd, name: &OsStr| {
            statat(fd, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat.st_ino == inode)
        };
        self.node
            .writing(move |fd| {
                let _turn = take_turn(&from);
                match is_it(fd, &from) {
                    Ok(true) => rename(fd, &from, &to)?,
                    Ok(false) | Err(Errno::NOENT) => return Ok(false),
                    Err(e) => return Err(e.into()),
                }
                if is_it(fd, &to)? {
                    return Ok(true);
                }
                // Another process has deleted it and stored another one in between.
                rename(fd, &to, &from)?;
                Ok(false)
            })
            .await
    }

    /// Removes a file; returns the bytes that it had.
    pub async fn unlink(&self, name: &OsStr) -> io::Result<u64> {
        let name = name.to_owned();
        self.node
            .writing(move |fd| {
                let _turn = take_turn(&name);
                let stat = statat(fd, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                unlinkat(fd, name, AtFlags::empty())?;
                Ok(stat.st_size.unsigned_abs())
            })
            .await
    }

    /// Removes a file that nobody has written to for so long. True if it is gone.
    pub async fn unlink_if_old(&self, name: &OsStr, age: Duration) -> io::Result<bool> {
        let name = name.to_owned();
        self.node
            .writing(move |fd| {
                let stat = statat(fd, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                if !is_older_than(stat.st_mtime, age) {
                    return Ok(false);
                }
                Ok(unlinkat(fd, name, AtFlags::empty()).map(|()| true)?)
            })
            .await
    }

    /// Removes a file unless some process holds a lock on it. True if it is gone.
    pub async fn unlink_if_unlocked(&self, name: &OsStr) -> io::Result<bool> {
        let name = name.to_owned();
        self.node
            .writing(move |fd| {
                let file =
                    openat(fd, &name, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => Ok(unlinkat(fd, &name, AtFlags::empty()).map(|()| true)?),
                    Err(Errno::WOULDBLOCK) => Ok(false),
                    Err(e) if lacks_locks(e) => {
                        if !is_older_than(fstat(&file)?.st_mtime, UNLOCKED_AGE) {
                            return Ok(false);
                        }
                        Ok(unlinkat(fd, &name, AtFlags::empty()).map(|()| true)?)
                    }
                    Err(e) => Err(e.into()),
                }
            })
            .await
    }

    /// Makes the entries of this directory durable.
    pub async fn sync(&self) -> io::Result<()> {
        let site = Arc::clone(&self.node.site);
        self.node.writing(move |fd| site.flushes.run(Flushed::Folder, || fsync(fd))).await
    }

    /// Room on the file system of this directory, all 0 where it counts none.
    pub async fn space(&self) -> io::Result<Space> {
        let space = self.node.reading(|fd| space_of(fstatvfs(fd))).await?;
        if self.node.site.inodes_unknown.load(Ordering::Relaxed) && space.free_inodes == 0 {
            return Ok(Space { inodes: 0, ..space });
        }
        Ok(space)
    }

    /// A file could be made here although no inode is free, by the file system's own word (rclone's mounts say so): from now
    /// on that is not believed.
    pub fn doubt_free_inodes(&self) {
        self.node.site.inodes_unknown.store(true, Ordering::Relaxed);
    }

    /// Which directory this is. Answered from memory: the directory is open.
    pub fn id(&self) -> io::Result<DirId> {
        if let Some(id) = self.id.get() {
            return Ok(*id);
        }
        let id = dir_id(&self.node.fd)?;
        Ok(*self.id.get_or_init(|| id))
    }

    /// Starts reading the entries.
    pub fn read(&self) -> DirReader {
        DirReader::new(self.clone())
    }
}

/// Room on the file system of the folder at `path`. Blocks.
pub fn room(path: &Path) -> io::Result<Space> {
    space_of(statvfs(path))
}

/// All 0 where the file system counts nothing, or a system call filter hides it.
fn space_of(answer: Result<StatVfs, Errno>) -> io::Result<Space> {
    let s = match answer.map_err(io::Error::from) {
        Ok(s) => s,
        Err(e) if matches!(Fault::of(&e), Fault::Unsupported | Fault::Denied) => {
            return Ok(Space { bytes: 0, free_bytes: 0, inodes: 0, free_inodes: 0 });
        }
        Err(e) => return Err(e),
    };
    Ok(Space {
        bytes: s.f_blocks.saturating_mul(s.f_frsize),
        free_bytes: s.f_bavail.saturating_mul(s.f_frsize),
        inodes: s.f_files,
        free_inodes: s.f_favail,
    })
}

fn dir_id(dir: &OwnedFd) -> io::Result<DirId> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let Ok(stat) = statx(dir, "", flags, StatxFlags::INO | StatxFlags::BTIME) else {
        // Filters of older container engines do not know statx(2), the only call that tells when something was made.
        let stat = fstat(dir)?;
        return Ok(DirId { device: stat.st_dev, inode: stat.st_ino, born: 0 });
    };
    let born = i128::from(stat.stx_btime.tv_sec) * 1_000_000_000 + i128::from(stat.stx_btime.tv_nsec);
    let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
    Ok(DirId { device, inode: stat.stx_ino, born })
}

/// Whether this user may list the folder at `path` and make entries in it.
pub fn check_access(path: &Path) -> io::Result<()> {
    Ok(forgive_unknown(accessat(CWD, path, USABLE, AtFlags::empty()))?)
}

/// Where a system call filter answers in the place of faccessat(2), who tries to write will see. The kernel itself says EACCES or
/// EROFS of a folder.
const fn forgive_unknown(answer: Result<(), Errno>) -> Result<(), Errno> {
    match answer {
        Err(Errno::PERM | Errno::NOSYS) => Ok(()),
        other => other,
    }
}

/// Tries openat2(2).
pub(super) fn probe_openat2() -> io::Result<()> {
    Ok(openat2(CWD, ".", OPEN_DIR, Mode::empty(), ResolveFlags::NO_MAGICLINKS).map(drop)?)
}

fn is_volatile(fd: &OwnedFd) -> bool {
    const RAMFS_MAGIC: i64 = 0x8584_58f6;
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    fstatfs(fd).is_ok_and(|stat| matches!(stat.f_type, RAMFS_MAGIC | TMPFS_MAGIC))
}

fn meta_of(fd: &OwnedFd) -> io::Result<Meta> {
    let stat = fstat(fd)?;
    let kind = Kind::from(FileType::from_raw_mode(stat.st_mode));
    // An O_PATH descriptor can be had of a symbolic link itself.
    if kind == Kind::Symlink {
        Err(Errno::LOOP.into())
    } else {
        Ok(Meta { kind, size: stat.st_size.unsigned_abs(), inode: stat.st_ino })
    }
}
