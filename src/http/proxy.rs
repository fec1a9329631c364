//! The PROXY protocol, versions 1 and 2 (haproxy's `proxy-protocol.txt`): the address of the client, told by a proxy before the first byte of the client.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use ppp::v2::{Addresses, Command, Header};
use ppp::{v1, v2};
use thiserror::Error;

use crate::http::forwarded::is_nobodys;
use crate::io::socket::Socket;

/// What tells the versions apart: the signature of version 2, which is shorter than the shortest line of version 1.
const SIGNATURE_BYTES: usize = 12;
/// The fixed part of a header of version 2.
const FIXED_BYTES: usize = 16;
/// The longest line of version 1.
const MAX_LINE_BYTES: usize = 107;
/// The most that may follow: addresses and what proxies add to them.
const MAX_REST_BYTES: usize = 4096;

/// The cause where a header fits no version.
const WRONG: &str = "malformed";
/// A client that has none, behind a unix socket of the proxy's: it must not pass for the proxy itself.
const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Why there is no client behind a proxy.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// The connection broke or ended.
    #[error("the connection ended before it was complete")]
    Io(#[from] io::Error),
    /// Something else came.
    #[error(
        "it is {0}: with --proxy-protocol the proxy must send one (haproxy: send-proxy-v2, nginx: proxy_protocol on)"
    )]
    Malformed(&'static str),
    /// Nothing came in time.
    #[error("it did not arrive in time")]
    TooSlow,
}

/// Reads a header. None if the proxy speaks for itself: a health check.
pub async fn read(socket: &Socket) -> Result<Option<IpAddr>, ProxyError> {
    let begin = exactly(socket, Vec::new(), SIGNATURE_BYTES).await?;
    if begin.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        return read_line(socket, begin).await;
    }
    if !begin.starts_with(v2::PROTOCOL_PREFIX) {
        return Err(ProxyError::Malformed("missing"));
    }
    let fixed = exactly(socket, begin, FIXED_BYTES - SIGNATURE_BYTES).await?;
    let length = match fixed.get(FIXED_BYTES - 2..) {
        Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
        _ => return Err(ProxyError::Malformed(WRONG)),
    };
    if length > MAX_REST_BYTES {
        return Err(ProxyError::Malformed("longer than 4 KiB"));
    }
    let all = exactly(socket, fixed, length).await?;
    let header = Header::try_from(all.as_slice()).map_err(|_parse| ProxyError::Malformed(WRONG))?;
    Ok(match (header.command, header.addresses) {
        (Command::Proxy, Addresses::IPv4(ends)) => Some(told(ends.source_address.into())),
        (Command::Proxy, Addresses::IPv6(ends)) => Some(told(ends.source_address.into())),
        (Command::Local, _) => None,
        (Command::Proxy, Addresses::Unspecified | Addresses::Unix(_)) => Some(NO_ADDRESS),
    })
}

/// The address of a client as its proxy tells it. The proxy's own machine is not ours, whose clients have other rules.
fn told(address: IpAddr) -> IpAddr {
    if is_nobodys(address) { NO_ADDRESS } else { address.to_canonical() }
}

/// Reads the rest of a line of version 1: byte by byte, because what follows it is the client's.
async fn read_line(socket: &Socket, mut line: Vec<u8>) -> Result<Option<IpAddr>, ProxyError> {
    while !line.ends_with(b"\n") {
        if line.len() == MAX_LINE_BYTES {
            return Err(ProxyError::Malformed("longer than a line of version 1 may be"));
        }
        line = exactly(socket, line, 1).await?;
    }
    let header = v1::Header::try_from(line.as_slice()).map_err(|_parse| ProxyError::Malformed(WRONG))?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(ends) => Some(told(ends.source_address.into())),
        v1::Addresses::Tcp6(ends) => Some(told(ends.source_address.into())),
        // A health check of haproxy, or a client without an address: which of them can't be told.
        v1::Addresses::Unknown => Some(NO_ADDRESS),
    })
}

/// Reads `count` bytes to the end of `bytes`, and none beyond.
async fn exactly(socket: &Socket, mut bytes: Vec<u8>, count: usize) -> io::Result<Vec<u8>> {
    let mut filled = bytes.len();
    bytes.resize(filled + count, 0);
    while let Some(missing @ [_, ..]) = bytes.get_mut(filled..) {
        match socket.receive(missing)? {
            Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(read) => filled += read,
            None => socket.readable().await?,
        }
    }
    Ok(bytes)
}
