//! A connected socket. TLS stands on it; nothing above knows which kind it is.
//!
//! The runtime waits; bytes are then moved by system calls that do not. So no buffer is ever lent to the kernel for as long
//! as a client takes. A wait that is given up (a timeout) stays with the kernel, and keeps the descriptor, until it ends. A
//! socket that is dropped is shut down, which ends them all.

#![expect(unsafe_code, reason = "monoio's sockets and systemd know raw descriptors only")]

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use monoio::net::{TcpStream, UnixStream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use rustix::param::page_size;

use crate::io::optional::nothing;
use crate::io::runtime::{Driver, current};
use crate::io::syscalls;

/// The other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A host.
    Tcp(SocketAddr),
    /// A process on this machine.
    Unix,
}

impl Peer {
    /// Its address, if it has one.
    pub const fn address(self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{}:{}", address.ip().to_canonical(), address.port()),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// Takes a descriptor that systemd left open for this process (`sd_listen_fds(3)`).
pub(super) fn inherited(raw: RawFd) -> OwnedFd {
    // SAFETY: systemd opened it for this process and nothing else here knows of it; `listener` takes each one once.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// Pages of `count` bytes from `offset` of a file that are not in the page cache, as `cachestat(2)` says. Those that are
/// still being read count as there. None where the kernel does not tell: before Linux 6.5, or of a file of somebody else.
pub(super) fn missing_pages(file: &OwnedFd, offset: u64, count: u64) -> Option<u64> {
    /// Its number on x86-64 and aarch64, for which libc has none; where it is another, the kernel knows no such call.
    const SYS_CACHESTAT: libc::c_long = 451;
    if !syscalls::found().cachestat {
        return None;
    }
    let page = page_size() as u64;
    let pages = (offset + count).div_ceil(page) - offset / page;
    let range = [offset, count];
    // The pages that are there; then those that are dirty, under writeback, evicted, and evicted not long ago.
    let mut found = [0_u64; 5];
    // SAFETY: the kernel reads two and writes five integers of 64 bits, which live through the call; the descriptor is open.
    let done = unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), range.as_ptr(), found.as_mut_ptr(), 0 as libc::c_uint)
    };
    (done == 0).then(|| pages.saturating_sub(found[0]))
}

/// Tries cachestat(2). Whatever it says, this process lives on, or does not.
pub(super) fn probe_cachestat() -> bool {
    nothing().is_ok_and(|file| missing_pages(&file.into(), 0, 1).is_some())
}

/// One connection.
pub struct Socket {
    stream: Stream,
    peer: Peer,
    /// Whether a system call on it returns at once. Operations of the ring wait all the same.
    nonblocking: Cell<bool>,
    /// It lives on in another descriptor.
    detached: bool,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection that belongs to no runtime, on its way to another worker.
pub struct Detached {
    fd: OwnedFd,
    peer: Peer,
}

impl Detached {
    /// Registers it with the calling worker's runtime.
    pub fn attach(self) -> io::Result<Socket> {
        rustix::io::ioctl_fionbio(&self.fd, current() == Driver::Epoll)?;
        Ok(match self.peer {
            Peer::Tcp(_) => Socket::tcp(TcpStream::from_std(self.fd.into())?, self.peer),
            Peer::Unix => Socket::unix(UnixStream::from_std(self.fd.into())?),
        })
    }
}

impl Socket {
    pub(super) const fn tcp(stream: TcpStream, peer: Peer) -> Self {
        Self { stream: Stream::Tcp(stream), peer, nonblocking: Cell::new(false), detached: false }
    }

    pub(super) const fn unix(stream: UnixStream) -> Self {
        Self {
            stream: Stream::Unix(stream),
            peer: Peer::Unix,
            nonblocking: Cell::new(false),
            detached: false,
        }
    }

    /// Takes it out of the calling worker's runtime. Nothing may be waited for on it.
    pub fn detach(mut self) -> io::Result<Detached> {
        let fd = self.fd().try_clone_to_owned()?;
        self.detached = true;
        Ok(Detached { fd, peer: self.peer })
    }

    /// The other end.
    pub const fn peer(&self) -> Peer {
        self.peer
    }

    /// Whether the other end sends no more: it has gone, or waits for an answer alone.
    pub fn has_ended(&self) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.fd(), PollFlags::RDHUP)];
        let now = Some(&Timespec { tv_sec: 0, tv_nsec: 0 });
        // What can't be asked has not ended.
        poll(&mut fds, now).is_ok_and(|ready| ready > 0)
    }

    /// Waits until there is something to read, or the end. Holds no buffer.
    pub async fn readable(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.readable(false).await,
            Stream::Unix(stream) => stream.readable(false).await,
        }
    }

    /// Lets [`Self::readable`] wait for `count` bytes, or the end: a client that sends fast wakes the worker once for many
    /// packets. Whoever asks for more than one must be ready for fewer, and set it back.
    pub fn wake_at(&self, count: usize) {
        let count = libc::c_int::try_from(count).unwrap_or(1);
        let size = libc::socklen_t::try_from(size_of_val(&count)).unwrap_or(0);
        // SAFETY: the option's value is an int, which lives through the call; the descriptor is open.
        let done = unsafe {
            libc::setsockopt(
                self.fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                (&raw const count).cast(),
                size,
            )
        };
        // Unix sockets know no such thing.
        debug_assert!(done == 0 || self.peer == Peer::Unix, "SO_RCVLOWAT");
    }

    /// Bytes for which the socket's buffer has room, about: the kernel counts its own overhead, too. `usize::MAX` where it does
    /// not tell.
    pub fn send_room(&self) -> usize {
        /// Its number on x86-64 and aarch64, for which libc has none; where it is another, the size of the answer is, too.
        const SO_MEMINFO: libc::c_int = 55;
        let mut figures = [0_u32; 9];
        let bytes = size_of_val(&figures);
        let mut size = libc::socklen_t::try_from(bytes).unwrap_or(0);
        // SAFETY: the kernel writes at most `size` bytes into the array, which lives through the call; the descriptor is open.
        let done = unsafe {
            libc::getsockopt(
                self.fd().as_raw_fd(),
                libc::SOL_SOCKET,
                SO_MEMINFO,
                figures.as_mut_ptr().cast(),
                &raw mut size,
            )
        };
        if done != 0 || usize::try_from(size).ok() != Some(bytes) {
            return usize::MAX;
        }
        // In the order of `linux/sock_diag.h`: SK_MEMINFO_SNDBUF, SK_MEMINFO_WMEM_QUEUED.
        let [_, _, _, most, _, queued, ..] = figures;
        usize::try_from(most.saturating_sub(queued)).unwrap_or(usize::MAX)
    }

    /// Waits until something can be written. Holds no buffer.
    pub async fn writable(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.writable(false).await,
            Stream::Unix(stream) => stream.writable(false).await,
        }
    }

    /// Receives what has arrived. None if nothing has; 0 bytes at the end of the stream.
    pub fn receive(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::net::recv(self.fd(), into, RecvFlags::DONTWAIT) {
            Ok((read, _)) => Ok(Some(read)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Looks at what has arrived, which stays there. None if nothing has; 0 bytes at the end of the stream.
    pub fn peek(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::net::recv(self.fd(), into, RecvFlags::DONTWAIT | RecvFlags::PEEK) {
            Ok((read, _)) => Ok(Some(read)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Sends of `bytes` what the socket takes now. None if it takes nothing. If `more` is to follow at once, the kernel waits
    /// for it, to send both together.
    pub fn send(&self, bytes: &[u8], more: bool) -> io::Result<Option<usize>> {
        let more = if more { SendFlags::MORE } else { SendFlags::empty() };
        match rustix::net::send(self.fd(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL | more) {
            Ok(sent) => Ok(Some(sent)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Says that nothing more will be sent; the other end may still send.
    pub fn finish(&self) {
        self.shutdown(Shutdown::Write);
    }

    fn shutdown(&self, how: Shutdown) {
        // The only error is that the connection has gone already.
        rustix::net::shutdown(self.fd(), how).ok();
    }

    /// Sends of a file what the socket takes now, without the bytes passing through this process. None if it takes
    /// nothing now. What is not cached the calling thread waits for.
    pub(super) fn send_file(
        &self,
        file: &OwnedFd,
        mut offset: u64,
        count: usize,
    ) -> io::Result<Option<usize>> {
        if !self.nonblocking.replace(true) {
            rustix::io::ioctl_fionbio(self.fd(), true)?;
        }
        match rustix::fs::sendfile(self.fd(), file, Some(&mut offset), count) {
            Ok(sent) => Ok(Some(sent)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        let raw = match &self.stream {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
        };
        // SAFETY: `self.stream` owns the descriptor and outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(raw) }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.detached {
            self.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Advice, fadvise};
    use rustix::io::{ReadWriteFlags, preadv2};

    use super::*;

    #[test]
    fn a_page_that_is_missing_between_others_is_seen() {
        let page = page_size() as u64;
        // Not in the folder for temporary files, which may be memory.
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        // A page at a time, so that each can go on its own.
        (0..32).for_each(|_| io::Write::write_all(&mut &file, &vec![1; page_size()]).unwrap());
        file.sync_all().unwrap();
        let fd = OwnedFd::from(file);
        let before = missing_pages(&fd, 0, 32 * page);
        fadvise(&fd, 7 * page, std::num::NonZero::new(page), Advice::DontNeed).unwrap();
        // What is asked for is counted to the borders of its pages.
        let parts = [(7 * page, 1), (8 * page - 1, 1), (7 * page, page)];
        let missing = parts.map(|(offset, count)| missing_pages(&fd, offset, count));
        let of_all = missing_pages(&fd, 0, 32 * page);
        // Only now: this lets it come back.
        let mut byte = [0];
        let there = preadv2(&fd, &mut [io::IoSliceMut::new(&mut byte)], 7 * page, ReadWriteFlags::NOWAIT);
        // An overlay counts no page, a file system in memory lets go of none.
        if before.is_none_or(|before| before == 32) || there.is_ok() && missing[0] == Some(0) {
            assert!(std::env::var_os("TEST_STRICT").is_none(), "{before:?} {there:?}");
            return eprintln!("\n*** SKIPPED: no cachestat(2), or no disk: {before:?} {there:?} ***\n");
        }
        assert_eq!(missing, [Some(1); 3]);
        assert!(of_all.is_some_and(|missing| missing > 0));
    }
}
