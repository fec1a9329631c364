//! The PROXY protocol, version 2: the address of the client, told by a proxy before the first byte of the client.

use std::io;
use std::net::IpAddr;

use ppp::v2::{Addresses, Command, Header};
use thiserror::Error;

use crate::io::socket::Socket;

/// The fixed part of a header.
const FIXED_BYTES: usize = 16;
/// The most that may follow: addresses and what proxies add to them.
const MAX_REST_BYTES: usize = 4096;

/// Why there is no client behind a proxy.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// The connection broke or ended.
    #[error("the connection ended before it was complete")]
    Io(#[from] io::Error),
    /// Something else came.
    #[error("it is missing or malformed: the proxy must send version 2 (see --proxy-protocol)")]
    Malformed,
    /// Nothing came in time.
    #[error("it did not arrive in time")]
    TooSlow,
}

/// Reads a header. None if the proxy speaks for itself: a health check.
pub async fn read(socket: &Socket) -> Result<Option<IpAddr>, ProxyError> {
    let fixed = exactly(socket, Vec::new(), FIXED_BYTES).await?;
    let length = match fixed.get(FIXED_BYTES - 2..) {
        Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
        _ => return Err(ProxyError::Malformed),
    };
    if !fixed.starts_with(ppp::v2::PROTOCOL_PREFIX) || length > MAX_REST_BYTES {
        return Err(ProxyError::Malformed);
    }
    let all = exactly(socket, fixed, length).await?;
    let header = Header::try_from(all.as_slice()).map_err(|_parse| ProxyError::Malformed)?;
    Ok(match (header.command, header.addresses) {
        (Command::Proxy, Addresses::IPv4(ends)) => Some(ends.source_address.into()),
        (Command::Proxy, Addresses::IPv6(ends)) => Some(ends.source_address.to_canonical()),
        (Command::Local, _) => None,
        // A client without an address must not pass for the proxy itself.
        (Command::Proxy, _) => return Err(ProxyError::Malformed),
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
