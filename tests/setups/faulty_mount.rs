//! A disk that lacks something: a FUSE file system that shows a folder at another place, and answers chosen operations there
//! with chosen errors. It needs root and `/dev/fuse`, but neither libfuse nor fusermount.
//!
//! Everything else passes through to the folder: its inode numbers, owners, locks. The kernel caches no names and no
//! attributes, so what a test changes in the folder shows at once. Look at the folder for what a server has left there.
//!
//! What differs from the folder:
//! - `O_TMPFILE` always fails with `EOPNOTSUPP`: fuser has no unnamed files.
//! - `O_DIRECT` works whatever the alignment, and is no longer direct beneath. An append takes its end from the kernel.
//! - syncfs(2) and locks by fcntl(2) are the kernel's own affair, and nothing fails them.
//! - flock(2) locks in the folder, so it excludes others there too. No signal ends the wait for a lock.
//! - One thread does one thing after the other. Only waits for locks hold up nobody.

use std::collections::{HashMap, hash_map::Entry};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, Session,
    SessionACL, TimeOrNow, WriteFlags,
};
use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FlockOperation, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags,
};

use crate::common::{is_root, skip};

/// The most that Linux takes for an extended attribute, and for the list of them.
const XATTR_SIZE_MAX: usize = 64 << 10;
/// In the place of an errno: no answer, until something else is set.
pub const HANG: i32 = 0;
/// When the kernel is to forget some, lest the descriptors run out.
const MANY_NODES: usize = 256;
const FLAGS: MsFlags = MsFlags::MS_NODEV.union(MsFlags::MS_NOSUID);
const NONE: Option<&str> = None;

/// What can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// open(2) of a new file.
    Create,
    Fallocate,
    /// flock(2), also to unlock. What a close unlocks can't fail.
    Flock,
    /// fsync(2) and fdatasync(2) of a file, and the writes of one opened with `O_SYNC`.
    Fsync,
    FsyncDir,
    /// To read extended attributes, or the list of them. The kernel does that too before it writes, but ignores errors.
    GetXattr,
    Link,
    Mkdir,
    /// mknod(2), and bind(2) of a unix socket.
    Mknod,
    /// open(2) of a file that is there.
    Open,
    Read,
    ReadDir,
    /// A rename that may replace a file.
    Rename,
    /// A rename with `RENAME_NOREPLACE`. If something is in the way, the kernel answers `EEXIST` without asking.
    RenameNoReplace,
    /// To set or remove an extended attribute.
    SetXattr,
    Statfs,
    Unlink,
    Write,
}

/// The errors to answer with, by number. Clones share them.
///
/// Callers get just these numbers, up to 511, except for `ENOSYS`: from that the kernel learns that this file system never
/// has some of the operations, and does not ask again until it is unmounted.
/// - `Fsync` and `FsyncDir` then succeed.
/// - `Fallocate`, `GetXattr` and `SetXattr` fail with `EOPNOTSUPP`, `RenameNoReplace` with `EINVAL`, `Link` with `EPERM`
///   (on Linux 6.18).
/// - `Create` becomes `Mknod` and `Open`. `Open` succeeds, but then nothing can be read or written.
#[derive(Clone, Default)]
pub struct Faults {
    errnos: Arc<Mutex<HashMap<Op, i32>>>,
    folds: bool,
}

impl Faults {
    pub fn none() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn with(self, op: Op, errno: i32) -> Self {
        self.set(op, Some(errno));
        self
    }

    /// Names that differ by the case of ASCII letters, or by the form of an `é`, are one. What is made keeps its spelling.
    #[must_use]
    pub fn folding(self) -> Self {
        Self { folds: true, ..self }
    }

    /// Makes an operation fail from now on, or work again.
    pub fn set(&self, op: Op, errno: Option<i32>) {
        let mut errnos = self.errnos.lock().unwrap();
        match errno {
            Some(errno) => errnos.insert(op, errno),
            None => errnos.remove(&op),
        };
    }

    fn check(&self, op: Op) -> io::Result<()> {
        loop {
            match self.errnos.lock().unwrap().get(&op) {
                None => return Ok(()),
                Some(&HANG) => {}
                Some(errno) => return Err(io::Error::from_raw_os_error(*errno)),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A folder shown at another place until this is dropped, whoever may still use it.
pub struct FaultyMount {
    faults: Faults,
    point: PathBuf,
    session: JoinHandle<()>,
}

impl FaultyMount {
    /// Makes an operation fail from now on, or work again.
    pub fn set(&self, op: Op, errno: Option<i32>) {
        self.faults.set(op, errno);
    }
}

impl Drop for FaultyMount {
    fn drop(&mut self) {
        nix::mount::umount2(&self.point, MntFlags::MNT_DETACH).ok();
        // The end of the session closes the folder. It does not come while somebody uses the mount.
        let start = Instant::now();
        while !self.session.is_finished() && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Shows a folder at another place, or over itself. None, and loudly so, if that can't be done here.
pub fn mount(folder: &Path, point: &Path, faults: Faults) -> Option<FaultyMount> {
    if !is_root() {
        skip("mounting a file system needs root");
        return None;
    }
    let (tell, told) = mpsc::channel();
    let (folder, at, shared) = (folder.to_path_buf(), point.to_path_buf(), faults.clone());
    let session = std::thread::spawn(move || match start(&folder, &at, shared) {
        Ok(session) => {
            tell.send(Ok(())).unwrap();
            session.run().unwrap();
        }
        Err(e) => tell.send(Err(e)).unwrap(),
    });
    match told.recv().unwrap() {
        Ok(()) => Some(FaultyMount { faults, point: point.into(), session }),
        Err(e) => {
            skip(&format!("FUSE: {e}"));
            None
        }
    }
}

/// Mounts, in the thread that is to serve the mount.
///
/// This thread and those that it starts have a table of descriptors apart. If the process is killed while another of its
/// threads waits for the mount, the last of these closes `/dev/fuse`, which ends the wait. With one table for all, the wait
/// keeps `/dev/fuse` open and so never ends. Hence nothing that holds a descriptor may go from here to other threads.
fn start(folder: &Path, point: &Path, faults: Faults) -> io::Result<Session<Passthrough>> {
    nix::sched::unshare(CloneFlags::CLONE_FILES | CloneFlags::CLONE_FS)?;
    // The new table is a copy, which would keep pipes and sockets of others open.
    let copied = std::fs::read_dir("/proc/thread-self/fd")?;
    let copied: Vec<RawFd> =
        copied.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for fd in copied.into_iter().filter(|fd| *fd > 2) {
        nix::unistd::close(fd).ok();
    }
    // The kernel has applied the umask of who asks.
    rustix::process::umask(Mode::empty());

    let root = open(CWD, folder, OFlags::PATH | OFlags::DIRECTORY, 0)?;
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let fd = device.as_raw_fd();
    let options = format!("fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions");
    nix::mount::mount(Some("faulty"), point, Some("fuse"), FLAGS, Some(options.as_str()))?;
    let files = Passthrough {
        faults,
        point: point.into(),
        device: root.metadata()?.dev(),
        nodes: Mutex::new(HashMap::from([(INodeNo::ROOT, Node { file: Arc::new(root), lookups: 1 })])),
        handles: Mutex::default(),
        next_handle: AtomicU64::new(1),
    };
    Session::from_fd(files, OwnedFd::from(device), SessionACL::All, Config::default()).inspect_err(|_| {
        nix::mount::umount2(point, MntFlags::MNT_DETACH).ok();
    })
}

/// What the kernel knows: an `O_PATH` descriptor, which renames and deletions leave alone, and how often it was told.
struct Node {
    file: Arc<File>,
    lookups: u64,
}

/// What somebody has opened.
struct Handle {
    file: File,
    /// What a folder had in it when somebody began to read it.
    entries: Mutex<Vec<(INodeNo, FileType, OsString)>>,
}

struct Passthrough {
    faults: Faults,
    point: PathBuf,
    /// The number of the device that the folder is on.
    device: u64,
    nodes: Mutex<HashMap<INodeNo, Node>>,
    handles: Mutex<HashMap<FileHandle, Arc<Handle>>>,
    next_handle: AtomicU64,
}

/// A path to an open file, wherever it is by now.
fn path(file: impl AsFd) -> PathBuf {
    // In /proc/self/fd there are the descriptors of the main thread.
    format!("/proc/thread-self/fd/{}", file.as_fd().as_raw_fd()).into()
}

fn open(
    folder: impl AsFd,
    name: impl rustix::path::Arg,
    flags: OFlags,
    mode: u32,
) -> rustix::io::Result<File> {
    rustix::fs::openat(folder, name, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode)).map(File::from)
}

/// What is the same for names that are one.
fn folded(name: &OsStr) -> Vec<u8> {
    name.to_string_lossy().replace("e\u{301}", "\u{e9}").to_ascii_lowercase().into_bytes()
}

/// With which flags to open a file here.
fn passed_on(flags: i32) -> OFlags {
    // The kernel tells where to append, gives buffers of any alignment, and path() is a link.
    OFlags::from_bits_retain(flags.cast_unsigned()) - (OFlags::APPEND | OFlags::DIRECT | OFlags::NOFOLLOW)
}

impl Passthrough {
    fn node(&self, ino: INodeNo) -> io::Result<Arc<File>> {
        let nodes = self.nodes.lock().unwrap();
        nodes.get(&ino).map(|node| Arc::clone(&node.file)).ok_or(io::Error::from_raw_os_error(libc::ESTALE))
    }

    /// The same, unless what is to be done with it shall fail.
    fn node_to(&self, op: Op, ino: INodeNo) -> io::Result<Arc<File>> {
        self.faults.check(op).and_then(|()| self.node(ino))
    }

    /// What is open, unless what is to be done with it shall fail.
    fn handle_to(&self, op: Op, fh: FileHandle) -> io::Result<Arc<Handle>> {
        self.faults.check(op)?;
        let handles = self.handles.lock().unwrap();
        handles.get(&fh).map(Arc::clone).ok_or(io::Error::from_raw_os_error(libc::EBADF))
    }

    fn open(&self, node: Arc<File>, flags: OpenFlags) -> io::Result<FileHandle> {
        Ok(self.keep(open(CWD, path(&node), passed_on(flags.0), 0)?))
    }

    fn keep(&self, file: File) -> FileHandle {
        let fh = FileHandle(self.next_handle.fetch_add(1, Ordering::Relaxed));
        self.handles.lock().unwrap().insert(fh, Arc::new(Handle { file, entries: Mutex::default() }));
        fh
    }

    fn attributes(&self, file: &File) -> io::Result<FileAttr> {
        let data = file.metadata()?;
        let since_epoch = Duration::new(data.ctime().try_into().unwrap_or(0), data.ctime_nsec() as u32);
        Ok(FileAttr {
            // Files on other devices, such as the layers of overlayfs, must not have the numbers of this one's.
            ino: INodeNo(data.ino() ^ ((data.dev() ^ self.device) << 40)),
            size: data.size(),
            blocks: data.blocks(),
            atime: data.accessed()?,
            mtime: data.modified()?,
            ctime: UNIX_EPOCH + since_epoch,
            crtime: UNIX_EPOCH,
            kind: FileType::from_std(data.file_type()).ok_or(io::ErrorKind::Unsupported)?,
            perm: (data.mode() & 0o7777) as u16,
            nlink: data.nlink() as u32,
            uid: data.uid(),
            gid: data.gid(),
            rdev: data.rdev() as u32,
            blksize: data.blksize() as u32,
            flags: 0,
        })
    }

    /// The name by which something is stored, where several names are one; of what is not there, the name itself.
    fn stored(&self, folder: &File, name: &OsStr) -> io::Result<OsString> {
        if self.faults.folds {
            for entry in std::fs::read_dir(path(folder))? {
                let stored = entry?.file_name();
                if folded(&stored) == folded(name) {
                    return Ok(stored);
                }
            }
        }
        Ok(name.to_owned())
    }

    /// Finds a name for the kernel, which knows the node from then on.
    fn find(&self, folder: &File, name: &OsStr) -> io::Result<FileAttr> {
        let file = open(folder, self.stored(folder, name)?, OFlags::PATH | OFlags::NOFOLLOW, 0)?;
        let found = self.attributes(&file)?;
        let mut nodes = self.nodes.lock().unwrap();
        let before = nodes.len();
        nodes.entry(found.ino).or_insert(Node { file: Arc::new(file), lookups: 0 }).lookups += 1;
        if nodes.len() > before && nodes.len().is_multiple_of(MANY_NODES) {
            self.prune();
        }
        Ok(found)
    }

    /// Makes the kernel forget what nobody uses. By itself it would only when memory runs out, but a remount does it too.
    fn prune(&self) {
        let point = self.point.clone();
        // Not in this thread, which must answer if the remount asks for something.
        std::thread::spawn(move || nix::mount::mount(NONE, &point, NONE, MsFlags::MS_REMOUNT | FLAGS, NONE));
    }

    /// Makes something for who asks, and finds it.
    fn make<T>(
        &self,
        op: Op,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        make: impl FnOnce(&File, &OsStr) -> rustix::io::Result<T>,
    ) -> io::Result<(FileAttr, T)> {
        let folder = self.node_to(op, parent)?;
        let stored = self.stored(&folder, name)?;
        let name = stored.as_os_str();
        let made = make(&folder, name)?;
        let inherits = folder.metadata()?.mode() & libc::S_ISGID != 0;
        let (user, group) = (Uid::from_raw(request.uid()), Gid::from_raw(request.gid()));
        let group = (!inherits).then_some(group);
        rustix::fs::chownat(&*folder, name, Some(user), group, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((self.find(&folder, name)?, made))
    }

    fn remove(&self, folder: io::Result<Arc<File>>, name: &OsStr, flags: AtFlags) -> io::Result<()> {
        let folder = folder?;
        Ok(rustix::fs::unlinkat(&folder, self.stored(&folder, name)?, flags)?)
    }

    fn sync(&self, op: Op, fh: FileHandle, data_only: bool) -> io::Result<()> {
        let handle = self.handle_to(op, fh)?;
        if data_only { handle.file.sync_data() } else { handle.file.sync_all() }
    }

    fn list(&self, fh: FileHandle, from: u64, reply: &mut ReplyDirectory) -> io::Result<()> {
        let handle = self.handle_to(Op::ReadDir, fh)?;
        let mut entries = handle.entries.lock().unwrap();
        if from == 0 {
            entries.clear();
            for entry in std::fs::read_dir(path(&handle.file))? {
                let entry = entry?;
                let kind = FileType::from_std(entry.file_type()?).ok_or(io::ErrorKind::Unsupported)?;
                entries.push((INodeNo(entry.ino()), kind, entry.file_name()));
            }
        }
        for (next, (ino, kind, name)) in (1..).zip(&*entries).skip(from as usize) {
            if reply.add(*ino, next, *kind, name) {
                break;
            }
        }
        Ok(())
    }
}

fn time(time: Option<TimeOrNow>) -> Timespec {
    let (tv_sec, tv_nsec) = match time {
        None => (0, rustix::fs::UTIME_OMIT),
        Some(TimeOrNow::Now) => (0, rustix::fs::UTIME_NOW),
        Some(TimeOrNow::SpecificTime(time)) => {
            let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            (time.as_secs() as i64, time.subsec_nanos().into())
        }
    };
    Timespec { tv_sec, tv_nsec }
}

/// Sends what comes of some work, or its error.
macro_rules! answer {
    ($reply:ident, $work:expr, $value:pat => $send:expr) => {
        match (|| -> io::Result<_> { Ok($work?) })() {
            Ok($value) => $send,
            Err(e) => $reply.error(e.into()),
        }
    };
}

/// Sends what a call puts into a buffer, or how much that is.
fn send_sized(reply: ReplyXattr, size: u32, call: impl FnOnce(&mut [u8]) -> io::Result<usize>) {
    let mut value = vec![0; XATTR_SIZE_MAX];
    answer!(reply, call(&mut value), len => match size as usize {
        0 => reply.size(len as u32),
        size if size < len => reply.error(Errno::ERANGE),
        _ => reply.data(&value[..len]),
    });
}

// By hand, since each of fuser's lists of arguments would fill a page.
#[rustfmt::skip]
impl Filesystem for Passthrough {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Else the kernel would lock by itself, and not notice what changes in the folder's files.
        let wanted = InitFlags::FUSE_FLOCK_LOCKS | InitFlags::FUSE_AUTO_INVAL_DATA;
        config.add_capabilities(wanted).map_err(|_| io::ErrorKind::Unsupported.into())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.find(&*self.node(parent)?, name), found => reply.entry(&Duration::ZERO, &found, Generation(0)));
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        if let Entry::Occupied(mut node) = self.nodes.lock().unwrap().entry(ino) {
            node.get_mut().lookups -= lookups;
            if node.get().lookups == 0 {
                node.remove();
            }
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.attributes(&*self.node(ino)?), found => reply.attr(&Duration::ZERO, &found));
    }

    fn setattr(
        &self, _: &Request, ino: INodeNo, mode: Option<u32>, uid: Option<u32>, gid: Option<u32>,
        size: Option<u64>, atime: Option<TimeOrNow>, mtime: Option<TimeOrNow>, _: Option<SystemTime>,
        _: Option<FileHandle>, _: Option<SystemTime>, _: Option<SystemTime>, _: Option<SystemTime>,
        _: Option<BsdFileFlags>, reply: ReplyAttr,
    ) {
        let change = || -> io::Result<_> {
            let file = self.node(ino)?;
            if uid.is_some() || gid.is_some() {
                let (user, group) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                rustix::fs::chownat(&*file, "", user, group, AtFlags::EMPTY_PATH)?;
            }
            if let Some(mode) = mode {
                std::fs::set_permissions(path(&file), Permissions::from_mode(mode))?;
            }
            if let Some(size) = size {
                File::options().write(true).open(path(&file))?.set_len(size)?;
            }
            let times = Timestamps { last_access: time(atime), last_modification: time(mtime) };
            rustix::fs::utimensat(CWD, path(&file), &times, AtFlags::empty())?;
            self.attributes(&file)
        };
        answer!(reply, change(), found => reply.attr(&Duration::ZERO, &found));
    }

    fn mknod(
        &self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, device: u32, reply: ReplyEntry,
    ) {
        let (kind, mode) = (rustix::fs::FileType::from_raw_mode(mode), Mode::from_raw_mode(mode));
        let mknod = |folder: &File, name: &OsStr| rustix::fs::mknodat(folder, name, kind, mode, device.into());
        let made = self.make(Op::Mknod, request, parent, name, mknod);
        answer!(reply, made, (made, ()) => reply.entry(&Duration::ZERO, &made, Generation(0)));
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let mkdir = |folder: &File, name: &OsStr| rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(mode));
        let made = self.make(Op::Mkdir, request, parent, name, mkdir);
        answer!(reply, made, (made, ()) => reply.entry(&Duration::ZERO, &made, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.remove(self.node_to(Op::Unlink, parent), name, AtFlags::empty()), () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.remove(self.node(parent), name, AtFlags::REMOVEDIR), () => reply.ok());
    }

    fn rename(
        &self, _: &Request, parent: INodeNo, name: &OsStr, new_parent: INodeNo, new_name: &OsStr,
        flags: RenameFlags, reply: ReplyEmpty,
    ) {
        let careful = flags.contains(RenameFlags::RENAME_NOREPLACE);
        let op = if careful { Op::RenameNoReplace } else { Op::Rename };
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let rename = || -> io::Result<_> {
            let (from, to) = (self.node_to(op, parent)?, self.node(new_parent)?);
            let (name, new_name) = (self.stored(&from, name)?, self.stored(&to, new_name)?);
            Ok(rustix::fs::renameat_with(from, name, to, new_name, flags)?)
        };
        answer!(reply, rename(), () => reply.ok());
    }

    fn link(&self, _: &Request, ino: INodeNo, new_parent: INodeNo, new_name: &OsStr, reply: ReplyEntry) {
        let link = || -> io::Result<_> {
            let (file, folder) = (self.node_to(Op::Link, ino)?, self.node(new_parent)?);
            let new_name = self.stored(&folder, new_name)?;
            rustix::fs::linkat(CWD, path(&file), &folder, &new_name, AtFlags::SYMLINK_FOLLOW)?;
            self.find(&folder, &new_name)
        };
        answer!(reply, link(), found => reply.entry(&Duration::ZERO, &found, Generation(0)));
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.open(self.node_to(Op::Open, ino)?, flags), fh => reply.opened(fh, FopenFlags::empty()));
    }

    fn create(
        &self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, flags: i32, reply: ReplyCreate,
    ) {
        let create = |folder: &File, name: &OsStr| open(folder, name, passed_on(flags), mode);
        let made = self.make(Op::Create, request, parent, name, create);
        answer!(reply, made, (made, file) => {
            reply.created(&Duration::ZERO, &made, Generation(0), self.keep(file), FopenFlags::empty());
        });
    }

    fn read(
        &self, _: &Request, _: INodeNo, fh: FileHandle, offset: u64, size: u32, _: OpenFlags,
        _: Option<LockOwner>, reply: ReplyData,
    ) {
        let mut data = vec![0; size as usize];
        answer!(reply, self.handle_to(Op::Read, fh)?.file.read_at(&mut data, offset), len => reply.data(&data[..len]));
    }

    fn write(
        &self, _: &Request, _: INodeNo, fh: FileHandle, offset: u64, data: &[u8], _: WriteFlags, _: OpenFlags,
        _: Option<LockOwner>, reply: ReplyWrite,
    ) {
        answer!(reply, self.handle_to(Op::Write, fh)?.file.write_at(data, offset), len => reply.written(len as u32));
    }

    fn release(
        &self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, _: Option<LockOwner>, _: bool,
        reply: ReplyEmpty,
    ) {
        self.handles.lock().unwrap().remove(&fh);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, data_only: bool, reply: ReplyEmpty) {
        answer!(reply, self.sync(Op::Fsync, fh, data_only), () => reply.ok());
    }

    fn fallocate(
        &self, _: &Request, _: INodeNo, fh: FileHandle, offset: u64, len: u64, mode: i32, reply: ReplyEmpty,
    ) {
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let handle = self.handle_to(Op::Fallocate, fh);
        answer!(reply, rustix::fs::fallocate(&handle?.file, mode, offset, len), () => reply.ok());
    }

    fn opendir(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.open(self.node(ino)?, flags), fh => reply.opened(fh, FopenFlags::empty()));
    }

    fn readdir(&self, _: &Request, _: INodeNo, fh: FileHandle, from: u64, mut reply: ReplyDirectory) {
        answer!(reply, self.list(fh, from, &mut reply), () => reply.ok());
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.handles.lock().unwrap().remove(&fh);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, fh: FileHandle, data_only: bool, reply: ReplyEmpty) {
        answer!(reply, self.sync(Op::FsyncDir, fh, data_only), () => reply.ok());
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        answer!(reply, rustix::fs::fstatvfs(self.node_to(Op::Statfs, ino)?), disk => {
            let (block, name, fragment) = (disk.f_bsize as u32, disk.f_namemax as u32, disk.f_frsize as u32);
            let (free, available) = (disk.f_bfree, disk.f_bavail);
            reply.statfs(disk.f_blocks, free, available, disk.f_files, disk.f_ffree, block, name, fragment);
        });
    }

    fn setxattr(
        &self, _: &Request, ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, _: u32, reply: ReplyEmpty,
    ) {
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        answer!(reply, rustix::fs::setxattr(path(&self.node_to(Op::SetXattr, ino)?), name, value, flags), () => reply.ok());
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, rustix::fs::removexattr(path(&self.node_to(Op::SetXattr, ino)?), name), () => reply.ok());
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let file = self.node_to(Op::GetXattr, ino);
        send_sized(reply, size, |value| Ok(rustix::fs::getxattr(path(&file?), name, value)?));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let file = self.node_to(Op::GetXattr, ino);
        send_sized(reply, size, |names| Ok(rustix::fs::listxattr(path(&file?), names)?));
    }

    // Only for flock(2): the kernel keeps the locks of fcntl(2) to itself unless told otherwise.
    fn setlk(
        &self, _: &Request, _: INodeNo, fh: FileHandle, _: LockOwner, _: u64, _: u64, kind: i32, _: u32,
        wait: bool, reply: ReplyEmpty,
    ) {
        let handle = self.handle_to(Op::Flock, fh);
        let how = match (kind, wait) {
            (libc::F_RDLCK, false) => FlockOperation::NonBlockingLockShared,
            (libc::F_RDLCK, true) => FlockOperation::LockShared,
            (libc::F_WRLCK, false) => FlockOperation::NonBlockingLockExclusive,
            (libc::F_WRLCK, true) => FlockOperation::LockExclusive,
            _ => FlockOperation::Unlock,
        };
        let lock = move || answer!(reply, rustix::fs::flock(&handle?.file, how), () => reply.ok());
        if wait {
            // Who holds the lock must be served meanwhile.
            std::thread::spawn(lock);
        } else {
            lock();
        }
    }
}
