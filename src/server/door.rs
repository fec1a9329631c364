//! From an accepted socket to a connection that can be served: PROXY header, share of the address, TLS handshake.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

use crate::api::{Origin, Rules};
use crate::auth::Shown;
use crate::http::proxy::{self, ProxyError};
use crate::io::runtime::timeout;
use crate::io::socket::{Peer, Socket};
use crate::server::crowd::Newcomer;
use crate::tls::{Acceptor, DetachedStream, HandshakeError, Stream};
use crate::types::{Timeouts, UserName};

/// What a listening socket is for.
#[derive(Clone)]
pub struct Door {
    /// Health and metrics alone.
    pub admin: bool,
    /// Encrypts connections.
    pub tls: Option<Arc<Acceptor>>,
}

/// Why a connection is not served.
#[derive(Debug, Error)]
pub enum Turned {
    /// The PROXY header is missing, malformed or late.
    #[error("the PROXY header: {0}")]
    Proxy(#[from] ProxyError),
    /// The address has too many connections.
    #[error("the address has too many connections: see --max-connections-per-address")]
    Crowded,
    /// No TLS.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

/// Proxies and what is wrong with their headers, so that it is told once of each.
#[derive(Default)]
pub struct MuteProxies(Mutex<HashSet<(Option<IpAddr>, &'static str)>>);

impl MuteProxies {
    /// Pairs of a proxy and a cause that are remembered at most.
    const MOST: usize = 64;

    /// Notes what is wrong with the headers of one. True if that is news.
    pub fn note(&self, peer: Peer, what: &'static str) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.len() < Self::MOST && known.insert((peer.address(), what))
    }
}

/// A connection that can be served.
pub struct Visitor<S = Stream> {
    /// To talk with it.
    pub stream: S,
    /// Where it comes from.
    pub origin: Origin,
    /// Its clocks.
    pub limits: Timeouts,
    /// Its place among those who were never let in.
    pub newcomer: Newcomer,
}

impl Visitor<DetachedStream> {
    /// Registers it with the calling worker's runtime.
    pub fn attach(self) -> io::Result<Visitor> {
        let Self { stream, origin, limits, newcomer } = self;
        Ok(Visitor { stream: stream.attach()?, origin, limits, newcomer })
    }
}

/// Lets a connection in.
pub async fn enter(
    door: &Door,
    rules: &Rules,
    newcomer: Newcomer,
    socket: Socket,
) -> Result<Visitor, Turned> {
    let mut address = socket.peer().address();
    if rules.proxy_protocol && !door.admin && rules.trusts(address) {
        let read = timeout(rules.limits.head, proxy::read(&socket)).await;
        // A health check of the proxy itself has no other address.
        address = read.map_err(|_elapsed| ProxyError::TooSlow)??.or(address);
    }
    let limited = address.filter(|_| !door.admin && !rules.is_of_many(address));
    if let (Some(most), Some(address)) = (rules.max_connections, limited)
        && !newcomer.count(address, most)
    {
        return Err(Turned::Crowded);
    }
    if door.admin {
        newcomer.let_in(false);
    }
    let generation = door.tls.as_ref().map_or(0, |tls| tls.generation());
    let stream = match &door.tls {
        None => Stream::Plain(socket),
        Some(tls) => tls.accept(socket, rules.limits.handshake, &newcomer.bytes()).await?,
    };
    let origin = Origin {
        address,
        certificate: stream.user().map(|(name, end)| Shown { user: UserName::new(&name), generation, end }),
        admin: door.admin,
        encrypted: stream.is_encrypted(),
    };
    Ok(Visitor { stream, origin, limits: rules.limits, newcomer })
}
