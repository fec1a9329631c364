//! Files: positioned reads and writes, preallocation, flushes. Data goes through the ring where there is one, else
//! to the blocking pool.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use monoio::buf::IoBuf;
use rustix::fs::{FallocateFlags, XattrFlags, fallocate, fdatasync, fgetxattr, fsetxattr, ftruncate};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::io::blocking::Pool;
use crate::io::buffer::Buffer;
use crate::io::runtime::{Driver, current};
use crate::io::socket::Socket;

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
    /// Shared with the jobs of the pool, which may outlive the file.
    fd: Arc<OwnedFd>,
    /// A second descriptor of the same file, for the ring.
    ring: Option<monoio::fs::File>,
    pool: Arc<Pool>,
}

impl File {
    pub(super) fn new(fd: OwnedFd, pool: Arc<Pool>) -> io::Result<Self> {
        let second = match current() {
            Driver::Uring => Some(fd.try_clone()?),
            Driver::Epoll => None,
        };
        Self::from_pair(fd, second, pool)
    }

    /// The same with a second descriptor that was made already, if there is a ring.
    pub(super) fn from_pair(fd: OwnedFd, second: Option<OwnedFd>, pool: Arc<Pool>) -> io::Result<Self> {
        let ring = second.map(|second| monoio::fs::File::from_std(second.into())).transpose()?;
        Ok(Self { fd: Arc::new(fd), ring, pool })
    }

    /// Closes the file on the pool. The last close of a file without a name frees its blocks, which waits for the
    /// journal: not for a worker.
    pub async fn close(self) -> io::Result<()> {
        if let Some(ring) = self.ring {
            ring.close().await?;
        }
        let fd = self.fd;
        self.pool.run(move || drop(fd)).await
    }

    /// The descriptor, kept open for a job of the pool.
    pub(super) fn share(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    /// Reads at most a buffer's capacity from `offset`; 0 bytes at the end of the file.
    pub async fn read_at(&self, mut buffer: Buffer, offset: u64) -> (io::Result<usize>, Buffer) {
        buffer.clear();
        if let Some(ring) = &self.ring {
            return ring.read_at(buffer, offset).await;
        }
        let mut bytes = buffer.lend();
        bytes.resize(bytes.capacity(), 0);
        let job = move |fd: &OwnedFd| {
            let read = rustix::io::retry_on_intr(|| rustix::io::pread(fd, bytes.as_mut_slice(), offset));
            bytes.truncate(read.unwrap_or(0));
            Ok((read, bytes))
        };
        match self.blocking(job).await {
            Ok((read, bytes)) => {
                buffer.restore(bytes);
                (read.map_err(Into::into), buffer)
            }
            Err(e) => (Err(e), buffer),
        }
    }

    /// Sends of the file what the socket takes now, at most `count` bytes from `offset`, if they are in memory: then it
    /// costs no copy and no wait.
    pub fn send_cached(&self, socket: &Socket, offset: u64, count: u64) -> io::Result<Sent> {
        let count = count.min(SEND_BYTES);
        if !self.is_cached(offset, count) {
            return Ok(Sent::Cold);
        }
        let sent = socket.send_file(&self.fd, offset, usize::try_from(count).unwrap_or(usize::MAX))?;
        Ok(sent.map_or(Sent::Full, Sent::Bytes))
    }

    /// Whether a part of the file is in memory, as far as samples tell: the kernel reads ahead in larger pieces.
    fn is_cached(&self, offset: u64, count: u64) -> bool {
        let mut byte = [0];
        let mut at = offset;
        while at < offset + count {
            let mut parts = [io::IoSliceMut::new(&mut byte)];
            if preadv2(&self.fd, &mut parts, at, ReadWriteFlags::NOWAIT).is_err() {
                return false;
            }
            at += SAMPLE_BYTES;
        }
        true
    }

    /// Writes all of the buffer at `offset`.
    pub async fn write_all_at(&self, mut buffer: Buffer, offset: u64) -> (io::Result<()>, Buffer) {
        if let Some(ring) = &self.ring {
            return write_through(ring, buffer, offset).await;
        }
        let bytes = buffer.lend();
        let job = move |fd: &OwnedFd| {
            let mut written = 0;
            let mut result = Ok(());
            while let (Ok(()), Some(rest @ [_, ..])) = (&result, bytes.get(written..)) {
                match rustix::io::pwrite(fd, rest, offset + written as u64) {
                    Ok(0) => result = Err(io::Error::from(io::ErrorKind::WriteZero)),
                    Ok(count) => written += count,
                    Err(Errno::INTR) => {}
                    Err(e) => result = Err(e.into()),
                }
            }
            Ok((result, bytes))
        };
        match self.blocking(job).await {
            Ok((result, bytes)) => {
                buffer.restore(bytes);
                (result, buffer)
            }
            Err(e) => (Err(e), buffer),
        }
    }

    /// Reserves `len` bytes from `offset` on, beyond the end of the file without moving it. False where the file
    /// system can't.
    pub async fn preallocate(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.blocking(move |fd| match fallocate(fd, FallocateFlags::KEEP_SIZE, offset, len) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(e) => Err(e.into()),
        })
        .await
    }

    /// Notes who the file belongs to, in an extended attribute. Nothing happens where the file system has none.
    pub async fn set_owner(&self, owner: &str) -> io::Result<()> {
        let owner = owner.to_owned();
        self.blocking(move |fd| match fsetxattr(fd, OWNER, owner.as_bytes(), XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(e) => Err(e.into()),
        })
        .await
    }

    /// Who the file belongs to, if that is known.
    pub async fn owner(&self) -> io::Result<Option<String>> {
        self.blocking(move |fd| {
            let mut name = vec![0; MAX_OWNER_BYTES];
            match fgetxattr(fd, OWNER, name.as_mut_slice()) {
                Ok(length) => {
                    name.truncate(length);
                    Ok(String::from_utf8(name).ok())
                }
                Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS | Errno::RANGE) => Ok(None),
                Err(e) => Err(e.into()),
            }
        })
        .await
    }

    /// Cuts the file, or extends it with a hole.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        self.blocking(move |fd| Ok(ftruncate(fd, len)?)).await
    }

    /// Makes the content durable.
    pub async fn sync_data(&self) -> io::Result<()> {
        match &self.ring {
            Some(ring) => ring.sync_data().await,
            None => self.blocking(|fd| Ok(fdatasync(fd)?)).await,
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce(&OwnedFd) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let fd = self.share();
        self.pool.run(move || job(&fd)).await?
    }
}

/// Writes all of the buffer at `offset` through the ring.
async fn write_through(ring: &monoio::fs::File, mut buffer: Buffer, offset: u64) -> (io::Result<()>, Buffer) {
    let mut written = 0;
    while written < buffer.len() {
        let (result, slice) = ring.write_at(buffer.slice(written..), offset + written as u64).await;
        buffer = slice.into_inner();
        match result {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
            Ok(count) => written += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (Err(e), buffer),
        }
    }
    (Ok(()), buffer)
}
