//! Listening sockets: bound once, accepted by every worker.
//!
//! One socket an address, so that a second process on the same port fails ("address in use") where `SO_REUSEPORT`
//! would let it steal connections.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use rustix::process::umask;
use socket2::SockRef;

use crate::io::dir::check_access;
use crate::io::records::folder_of;
use crate::io::runtime::{Driver, current};
use crate::io::socket::{Peer, Socket, inherited};
use crate::types::ListenAddress;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// How often, and after what pause each, an address that is in use is tried again.
const BIND_TRIES: u32 = 20;
const BIND_PAUSE: Duration = Duration::from_millis(50);
/// Bytes that may wait in the kernel, not sent yet, on one connection.
const UNSENT_BYTES: u32 = 128 * 1024;

/// A bound socket, before it is handed to the workers. A unix socket's file is removed when this is dropped.
pub struct Listener {
    socket: Bound,
    /// It is systemd's, which listens on when this process has ended.
    inherited: bool,
}

enum Bound {
    Tcp(TcpListener),
    Unix { socket: UnixListener, path: PathBuf, inode: u64 },
}

impl Listener {
    /// Binds; `mode` are the permissions of a unix socket. Blocks for up to a second: for the start of the process.
    ///
    /// # Errors
    /// `AddrInUse` if another process listens there. A unix socket's file that nobody listens on is replaced.
    pub fn bind(address: &ListenAddress, mode: u32) -> io::Result<Self> {
        // The ring of a process that was killed a moment ago lets go of its listening socket only when the kernel has
        // cleaned up behind it: a restart must not fail for that.
        for _ in 0..BIND_TRIES {
            match Self::try_bind(address, mode) {
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => thread::sleep(BIND_PAUSE),
                other => return other,
            }
        }
        Self::try_bind(address, mode)
    }

    fn try_bind(address: &ListenAddress, mode: u32) -> io::Result<Self> {
        let socket = match address {
            ListenAddress::Host(host, port) => Bound::Tcp(listening(bind_tcp(resolve(host, *port)?)?)?),
            ListenAddress::AnyHost(port) => Bound::Tcp(listening(bind_any(*port)?)?),
            ListenAddress::Unix(path) => bind_unix(path, mode)?,
            ListenAddress::Systemd(_) => return Err(io::Error::other("systemd has passed no such socket")),
        };
        Ok(Self { socket, inherited: false })
    }

    /// Whether an address could be bound by this process, while it is not in use: for a check beside a running server. A socket
    /// that does not listen keeps nobody else from the address.
    ///
    /// # Errors
    /// It is none of this machine's, or not for this user, or no socket can have this path.
    pub fn check(address: &ListenAddress) -> io::Result<()> {
        let bound = match address {
            ListenAddress::Host(host, port) => bind_tcp(resolve(host, *port)?).map(drop),
            ListenAddress::AnyHost(port) => bind_any(*port).map(drop),
            ListenAddress::Unix(path) => return check_unix(path),
            ListenAddress::Systemd(_) => Ok(()),
        };
        bound.or_else(|e| if e.kind() == io::ErrorKind::AddrInUse { Ok(()) } else { Err(e) })
    }

    /// The address with its real port, as a user would write it.
    pub fn address(&self) -> String {
        match &self.socket {
            Bound::Tcp(socket) => socket.local_addr().map_or_else(|_| "?".into(), |a| a.to_string()),
            Bound::Unix { path, .. } => format!("unix:{}", path.display()),
        }
    }

    /// The file of a unix socket that this process has made, if it is still there.
    pub fn file(&self) -> Option<&Path> {
        match &self.socket {
            Bound::Unix { path, inode, .. } => {
                let is_ours = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == *inode);
                is_ours.then_some(path.as_path())
            }
            Bound::Tcp(_) => None,
        }
    }

    /// Whether it is a unix socket.
    pub const fn is_unix(&self) -> bool {
        matches!(self.socket, Bound::Unix { .. })
    }

    /// Whether hosts elsewhere can reach it.
    pub fn is_public(&self) -> bool {
        match &self.socket {
            Bound::Tcp(socket) => socket.local_addr().is_ok_and(|a| !a.ip().is_loopback()),
            Bound::Unix { .. } => false,
        }
    }

    /// Takes no more connections: who comes now is refused at once, and not left waiting for a server that ends. On a
    /// socket of systemd's who comes now waits for the next process.
    pub fn close(&self) {
        if self.inherited {
            return;
        }
        let closed = match &self.socket {
            Bound::Tcp(socket) => rustix::net::shutdown(socket, Shutdown::Both),
            Bound::Unix { socket, .. } => rustix::net::shutdown(socket, Shutdown::Both),
        };
        // The only error is that it was closed before.
        closed.ok();
    }

    /// Another handle on the same socket, for one worker.
    pub fn share(&self) -> io::Result<Shared> {
        Ok(Shared(match &self.socket {
            Bound::Tcp(socket) => SharedSocket::Tcp(socket.try_clone()?),
            Bound::Unix { socket, .. } => SharedSocket::Unix(socket.try_clone()?),
        }))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Only if the file is still ours: another server may have taken the place.
        if let Some(path) = self.file() {
            std::fs::remove_file(path).ok();
        }
    }
}

fn bind_any(port: u16) -> io::Result<OwnedFd> {
    match bind_tcp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
        // A machine without IPv6.
        Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)) => {
            bind_tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }
        other => other,
    }
}

fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let address = (host, port).to_socket_addrs()?.next();
    address.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host name has no address"))
}

fn listening(socket: OwnedFd) -> io::Result<TcpListener> {
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn bind_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // All IPv6 addresses means all IPv4 addresses too, as in Go and nginx.
        sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    // Accepted sockets inherit it. Without it a socket counts as writable only when a third of its send buffer, which may
    // be megabytes, has drained: a slow but steady reader would look like one that does not read.
    SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_BYTES)?;
    bind(&socket, &address)?;
    Ok(socket)
}

fn check_unix(path: &Path) -> io::Result<()> {
    // The path fits into an address.
    std::os::unix::net::SocketAddr::from_pathname(path)?;
    check_access(folder_of(path))?;
    if path.symlink_metadata().is_ok() && !is_socket(path) { Err(Errno::ADDRINUSE.into()) } else { Ok(()) }
}

fn is_socket(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.file_type().is_socket())
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<Bound> {
    if is_socket(path)
        && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    // Not by a chmod afterwards: in a folder of others the name may stand for something else by then.
    let before = umask(Mode::from_raw_mode(0o777 & !mode));
    let socket = UnixListener::bind(path);
    umask(before);
    let socket = socket?;
    let inode = std::fs::symlink_metadata(path)?.ino();
    Ok(Bound::Unix { socket, path: path.into(), inode })
}

/// The sockets that systemd passes to this process, with their names. To be called once.
///
/// # Errors
/// One of them is neither a listening TCP nor a listening unix socket.
pub fn from_systemd() -> io::Result<Vec<(String, Listener)>> {
    // An empty variable, which scripts leave behind, passes no sockets.
    if std::env::var_os("LISTEN_PID").is_none_or(|pid| pid.is_empty()) {
        return Ok(Vec::new());
    }
    let take = |(raw, name)| adopt(inherited(raw)).map(|socket| (name, Listener { socket, inherited: true }));
    sd_notify::listen_fds_with_names()?.map(take).collect()
}

fn adopt(fd: OwnedFd) -> io::Result<Bound> {
    let socket = socket2::Socket::from(fd);
    if !socket.is_listener()? {
        return Err(io::Error::other("a socket that systemd passes does not listen (it needs Accept=no)"));
    }
    if socket.domain()? == socket2::Domain::UNIX {
        let socket = UnixListener::from(OwnedFd::from(socket));
        let address = socket.local_addr()?;
        // systemd removes the file, not we: an inode that no file has.
        return Ok(Bound::Unix {
            socket,
            path: address.as_pathname().unwrap_or(Path::new("")).into(),
            inode: 0,
        });
    }
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    Ok(Bound::Tcp(TcpListener::from(OwnedFd::from(socket))))
}

/// A worker's handle on a listening socket, before the worker's runtime runs.
pub struct Shared(SharedSocket);

enum SharedSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Shared {
    /// Registers the socket with the calling worker's runtime.
    pub fn register(self) -> io::Result<Acceptor> {
        let nonblocking = current() == Driver::Epoll;
        Ok(match self.0 {
            SharedSocket::Tcp(socket) => {
                socket.set_nonblocking(nonblocking)?;
                Acceptor::Tcp(monoio::net::TcpListener::from_std(socket)?)
            }
            SharedSocket::Unix(socket) => {
                socket.set_nonblocking(nonblocking)?;
                Acceptor::Unix(monoio::net::UnixListener::from_std(socket)?)
            }
        })
    }
}

/// Accepts connections for one worker.
pub enum Acceptor {
    /// On TCP.
    Tcp(monoio::net::TcpListener),
    /// On a unix socket.
    Unix(monoio::net::UnixListener),
}

impl Acceptor {
    /// Waits for the next connection.
    pub async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Socket::tcp(stream, Peer::Tcp(address)))
            }
            Self::Unix(listener) => Ok(Socket::unix(listener.accept().await?.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_systemd_listens_on_when_this_process_takes_no_more() {
        for inherited in [false, true] {
            let socket = listening(bind_any(0).expect("a socket")).expect("it listens");
            let systemds = socket.try_clone().expect("another handle");
            let socket = adopt(socket.into()).expect("it listens");
            Listener { socket, inherited }.close();
            assert_eq!(adopt(systemds.into()).is_ok(), inherited);
        }
    }
}
