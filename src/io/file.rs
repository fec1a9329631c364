//! Files: positioned reads and writes, preallocation, flushes.
//!
//! Large writes go past the page cache, through the ring where there is one. Others go through the page cache on the
//! blocking pool: the ring would only leave them to threads of its own. What is in memory anyway needs neither.

use std::cell::{Cell, OnceCell};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use monoio::buf::IoBuf;
use rustix::fs::{
    Advice, AtFlags, FallocateFlags, OFlags, StatxFlags, fadvise, fcntl_getfl, fcntl_setfl, fdatasync, fstat,
    ftruncate, statx,
};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwrite};
use rustix::param::page_size;

use crate::io::buffer::{ALIGNMENT, Buffer, BufferPool};
use crate::io::flush::Flushed;
use crate::io::node::{Node, Site};
use crate::io::optional::{fallocate, fgetxattr, fsetxattr};
use crate::io::runtime::{Driver, current};
use crate::io::socket::{Socket, missing_pages};
use crate::io::syscalls;
use crate::types::DirectIo;

/// The extended attribute with the user that a file belongs to.
const OWNER: &str = "user.packhouse.owner";
/// Longest name that is read back.
const MAX_OWNER_BYTES: usize = 1024;

/// Most bytes that are sent by one system call. More would lie unsent in the socket, and a slow reader would look like one
/// that does not read.
const SEND_BYTES: u64 = 128 * 1024;
/// Distance of the places where a file is looked at before it is sent.
const SAMPLE_BYTES: u64 = 64 * 1024;

/// What became of [`File::send_cached`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// So many bytes were sent; none at the end of the file.
    Bytes(usize),
    /// The socket takes nothing now.
    Full,
    /// The bytes are not in memory.
    Cold,
}

/// An open file.
pub struct File {
    node: Node,
    /// A second descriptor of the same file, for the ring, once it is needed.
    ring: OnceCell<monoio::fs::File>,
    /// It may be written past the page cache.
    may_bypass: Cell<bool>,
    /// What is written now bypasses it: `O_DIRECT` is set.
    bypasses: Cell<bool>,
}

impl File {
    pub(super) fn new(fd: OwnedFd, site: Arc<Site>) -> io::Result<Self> {
        let (ring, may_bypass, bypasses) = (OnceCell::new(), Cell::new(false), Cell::new(false));
        Ok(Self { node: Node::new(fd, site)?, ring, may_bypass, bypasses })
    }

    /// The file for the ring; none where there is no ring, or nothing to wait for.
    fn ring(&self) -> io::Result<Option<&monoio::fs::File>> {
        if self.node.volatile {
            return Ok(None);
        }
        if self.ring.get().is_none() && current() == Driver::Uring {
            let second = monoio::fs::File::from_std(self.node.fd.try_clone()?.into())?;
            // It was empty, and nobody else is here.
            self.ring.set(second).ok();
        }
        Ok(self.ring.get())
    }

    /// Closes the file on the pool. The last close of a file without a name frees its blocks, which waits for the
    /// journal: not for a worker.
    pub async fn close(mut self) -> io::Result<()> {
        if let Some(ring) = self.ring.take() {
            ring.close().await?;
        }
        let Node { fd, site, .. } = self.node;
        site.pools.writes.discard(fd);
        Ok(())
    }

    /// Sees to it that reads are of the device, as far as that can be: past the page cache, which keeps what others have
    /// there. Where that can't be, what the cache has is let go, now and when this is called again after the last read.
    pub fn bypass_memory(&self) {
        let can = || takes_direct_io(&self.node.fd, DirectIo::Auto);
        let bypasses = self.bypasses.get() || can() && self.bypass_cache(true).is_ok();
        if !bypasses {
            // An advice: if it is not taken, that costs nothing but a test of memory in place of the disk.
            fadvise(&self.node.fd, 0, None, Advice::DontNeed).ok();
        }
    }

    /// Whether nobody has written to it for so long. Answered from memory: the file is open.
    pub fn is_older_than(&self, age: Duration) -> io::Result<bool> {
        Ok(is_older_than(fstat(&self.node.fd)?.st_mtime, age))
    }

    /// The descriptor, kept open for a job of the pool.
    pub(super) fn share(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.node.fd)
    }

    /// Reads at most a buffer's capacity from `offset`; 0 bytes at the end of the file.
    pub async fn read_at(&self, mut buffer: Buffer, offset: u64) -> (io::Result<usize>, Buffer) {
        buffer.truncate(0);
        match self.ring() {
            Ok(Some(ring)) => return ring.read_at(buffer, offset).await,
            Ok(None) => {}
            Err(e) => return (Err(e), buffer),
        }
        let mut memory = buffer.lend();
        let job = move |fd: &OwnedFd| {
            let read = rustix::io::retry_on_intr(|| rustix::io::pread(fd, memory.spare(), offset));
            memory.advance(read.unwrap_or(0));
            Ok((read, memory))
        };
        match self.node.reading(job).await {
            Ok((read, memory)) => {
                buffer.restore(memory);
                (read.map_err(Into::into), buffer)
            }
            Err(e) => (Err(e), buffer),
        }
    }

    /// Sends of the file what the socket takes now, at most `count` bytes from `offset`, if they are in memory: then it
    /// costs no copy and no wait.
    pub fn send_cached(&self, socket: &Socket, offset: u64, count: u64) -> io::Result<Sent> {
        // Up to the end of a page, so that the next piece has whole ones.
        let count = count.min(SEND_BYTES - offset % page_size() as u64);
        if !syscalls::found().sendfile || !self.is_cached(offset, count) {
            return Ok(Sent::Cold);
        }
        let sent = socket.send_file(&self.node.fd, offset, usize::try_from(count).unwrap_or(usize::MAX))?;
        Ok(sent.map_or(Sent::Full, Sent::Bytes))
    }

    /// Appends `count` bytes from `offset` to `into` if they are in memory. False, and nothing appended, if not all are there.
    pub fn read_cached(&self, into: &mut Vec<u8>, offset: u64, count: usize) -> bool {
        if !syscalls::found().preadv2 {
            return false;
        }
        let before = into.len();
        into.resize(before + count, 0);
        let flags = if self.node.volatile { ReadWriteFlags::empty() } else { ReadWriteFlags::NOWAIT };
        let spare = into.get_mut(before..).unwrap_or_default();
        let read = preadv2(&self.node.fd, &mut [io::IoSliceMut::new(spare)], offset, flags);
        let all = read == Ok(count);
        if !all {
            into.truncate(before);
        }
        all
    }

    /// Whether a part of the file is in memory. What is still being read the samples find: the kernel reads ahead in larger
    /// pieces.
    fn is_cached(&self, offset: u64, count: u64) -> bool {
        if self.node.volatile {
            return true;
        }
        if !syscalls::found().preadv2 {
            return false;
        }
        let mut byte = [0];
        let (mut at, end) = (offset, offset + count);
        while at < end {
            at = end.min(at + SAMPLE_BYTES);
            let mut parts = [io::IoSliceMut::new(&mut byte)];
            // The last byte: it is the last to come.
            if preadv2(&self.node.fd, &mut parts, at - 1, ReadWriteFlags::NOWAIT).is_err() {
                return false;
            }
        }
        missing_pages(&self.node.fd, offset, count).is_none_or(|missing| missing == 0)
    }

    /// Writes all of the buffer at `offset`. One write at a time.
    pub async fn write_all_at(&self, buffer: Buffer, offset: u64) -> (io::Result<()>, Buffer) {
        let (written, buffer) = self.write_directly(buffer, offset).await;
        match written {
            Ok(count) => self.write_cached(buffer, count, offset).await,
            Err(e) => (Err(e), buffer),
        }
    }

    /// Writes what can be written past the page cache, and returns how much that was.
    async fn write_directly(&self, buffer: Buffer, offset: u64) -> (io::Result<usize>, Buffer) {
        let whole = buffer.len() / ALIGNMENT * ALIGNMENT;
        if whole == 0 || !offset.is_multiple_of(ALIGNMENT as u64) || !self.may_bypass.get() {
            return (Ok(0), buffer);
        }
        if let Err(e) = self.bypass_cache(true) {
            self.may_bypass.set(false);
            log::debug!("no direct I/O here: {e}");
            return (Ok(0), buffer);
        }
        let (written, buffer) = match self.ring() {
            Ok(Some(ring)) => {
                let (written, slice) = ring.write_at(buffer.slice(..whole), offset).await;
                (written, slice.into_inner())
            }
            Ok(None) => self.write_blocking(buffer, 0..whole, offset).await,
            Err(e) => (Err(e), buffer),
        };
        match written {
            // It can't be done here after all, or something was not aligned as this disk wants it.
            Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::INVAL | Errno::OPNOTSUPP)) => {
                self.may_bypass.set(false);
                (Ok(0), buffer)
            }
            other => (other, buffer),
        }
    }

    /// Sees to it that what is written from now on bypasses the page cache, or does not.
    fn bypass_cache(&self, wanted: bool) -> io::Result<()> {
        if self.bypasses.get() != wanted {
            let mut flags = fcntl_getfl(&self.node.fd)?;
            flags.set(OFlags::DIRECT, wanted);
            fcntl_setfl(&self.node.fd, flags)?;
            self.bypasses.set(wanted);
        }
        Ok(())
    }

    /// Writes `buffer[from..]` through the page cache.
    async fn write_cached(
        &self,
        mut buffer: Buffer,
        mut from: usize,
        offset: u64,
    ) -> (io::Result<()>, Buffer) {
        if from < buffer.len()
            && let Err(e) = self.bypass_cache(false)
        {
            return (Err(e), buffer);
        }
        while from < buffer.len() {
            let range = from..buffer.len();
            let (written, back) = self.write_blocking(buffer, range, offset + from as u64).await;
            buffer = back;
            match written {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
                Ok(count) => from += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return (Err(e), buffer),
            }
        }
        (Ok(()), buffer)
    }

    /// One write of a part of the buffer.
    async fn write_blocking(
        &self,
        mut buffer: Buffer,
        range: Range<usize>,
        offset: u64,
    ) -> (io::Result<usize>, Buffer) {
        let memory = buffer.lend();
        let job = move |fd: &OwnedFd| {
            let written = pwrite(fd, memory.filled().get(range).unwrap_or_default(), offset);
            Ok((written, memory))
        };
        match self.node.writing(job).await {
            Ok((written, memory)) => {
                buffer.restore(memory);
                (written.map_err(Into::into), buffer)
            }
            Err(e) => (Err(e), buffer),
        }
    }

    /// Reserves `len` bytes from `offset` on and moves the end of the file there, so that writes need no more of the file
    /// system than their data: they may go past the page cache then. False where the file system can't.
    pub async fn preallocate(&self, offset: u64, len: u64, direct: DirectIo) -> io::Result<bool> {
        if self.node.volatile {
            return Ok(false);
        }
        let job = move |fd: &OwnedFd| match fallocate(fd, FallocateFlags::empty(), offset, len) {
            Ok(()) => Ok(Some(direct != DirectIo::Off && takes_direct_io(fd, direct))),
            // Each file system has its own way to say that it can't.
            Err(
                Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM | Errno::NODEV | Errno::NOTTY,
            ) => Ok(None),
            Err(e) => Err(e.into()),
        };
        let reserved = self.node.writing(job).await?;
        if reserved == Some(true) {
            self.may_bypass.set(true);
        }
        Ok(reserved.is_some())
    }

    /// Whether an empty file takes a block past the page cache: writes one.
    pub async fn probe_direct_io(&self) -> io::Result<bool> {
        let mut block = BufferPool::new(1).take().await;
        block.append(&[0; ALIGNMENT]);
        if !self.preallocate(0, ALIGNMENT as u64, DirectIo::On).await? {
            return Ok(false);
        }
        self.write_all_at(block, 0).await.0?;
        Ok(self.may_bypass.get())
    }

    /// Notes who the file belongs to, in an extended attribute. Nothing happens where the file system has none.
    pub async fn set_owner(&self, owner: &str) -> io::Result<()> {
        let owner = owner.to_owned();
        self.node.writing(move |fd| note_owner(fd, &owner)).await
    }

    /// Who the file belongs to, if that is known.
    pub async fn owner(&self) -> io::Result<Option<String>> {
        self.node
            .reading(move |fd| {
                let mut name = vec![0; MAX_OWNER_BYTES];
                match fgetxattr(fd, OWNER, &mut name) {
                    Ok(length) => {
                        name.truncate(length);
                        Ok(String::from_utf8(name).ok())
                    }
                    // None is kept, or none can be.
                    Err(_) => Ok(None),
                }
            })
            .await
    }

    /// Cuts the file, or extends it with a hole.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        self.node.writing(move |fd| Ok(ftruncate(fd, len)?)).await
    }

    /// Makes the content durable. On the pool also where there is a ring: its own threads for what waits are four a
    /// processor (8 on two), and the disk's cache is flushed once for as many as wait together.
    pub async fn sync_data(&self) -> io::Result<()> {
        let site = Arc::clone(&self.node.site);
        self.node.writing(move |fd| site.flushes.run(Flushed::File, || fdatasync(fd))).await
    }
}

/// Notes who a file belongs to. Blocks. A disk that keeps no attributes says so in many ways (OPNOTSUPP, PERM, with rclone
/// IO); without its owner only the right to delete removes a lock, which is better than no lock.
pub(super) fn note_owner(fd: impl AsFd, owner: &str) -> io::Result<()> {
    match fsetxattr(fd, OWNER, owner.as_bytes()) {
        Err(e @ (Errno::NOSPC | Errno::DQUOT | Errno::ROFS)) => Err(e.into()),
        _ => Ok(()),
    }
}

/// Whether a file can be written past the page cache in pieces that are aligned as buffers are.
fn takes_direct_io(fd: &OwnedFd, wanted: DirectIo) -> bool {
    let stat = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok();
    let Some(stat) = stat.filter(|stat| stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0) else {
        // Linux before 6.1, or a file system or a system call filter that does not tell.
        return wanted == DirectIo::On;
    };
    let fits = |alignment: u32| (1..=ALIGNMENT).contains(&(alignment as usize));
    fits(stat.stx_dio_mem_align) && fits(stat.stx_dio_offset_align)
}

/// Whether a time of last change, in seconds since 1970, is so long ago. A time in the future is not.
pub(super) fn is_older_than(modified: i64, age: Duration) -> bool {
    let written = Duration::from_secs(modified.max(0).unsigned_abs());
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    now.checked_sub(written).is_some_and(|since| since >= age)
}
