//! TLS 1.2 and 1.3 with rustls on ring: certificates that are read anew while connections go on, and a stream that moves
//! large pieces. Knows no request and no user but the name in a client's certificate.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use thiserror::Error;

use crate::io::budget::ByteShare;
use crate::io::runtime::timeout;
use crate::io::socket::Socket;
use crate::types::{HandshakeFailure, UNASKED_PROXY_HEADER};

pub mod material;
pub mod peer;
pub mod stream;

pub use material::{Files, Material, StaleList};
pub use stream::{DetachedStream, PIECE_BYTES, Stream};

use stream::TlsSocket;

/// Why certificates and keys can't be used. Every text names the file and the remedy.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{}: {cause}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file has not what it should.
    #[error("{}: {what}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// rustls refuses.
    #[error("TLS can't be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Why a connection has no TLS.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The client was too slow.
    #[error("the TLS handshake took too long")]
    TooSlow,
    /// The client went away before it had said anything: a check whether the port is open, no handshake.
    #[error("the client said nothing")]
    Silent,
    /// The client speaks HTTP without TLS.
    #[error("the client sent an HTTP request to an HTTPS server")]
    PlainHttp,
    /// A proxy speaks first.
    #[error("{UNASKED_PROXY_HEADER}")]
    ProxyHeader,
    /// It failed.
    #[error("the TLS handshake failed: {0}")]
    Failed(io::Error),
}

impl HandshakeError {
    /// An error of the connection while nothing has come.
    fn before_first_byte(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::ConnectionReset { Self::Silent } else { Self::Failed(e) }
    }

    /// What to count it as; none if it is no failure.
    pub fn reason(&self) -> Option<HandshakeFailure> {
        Some(match self {
            Self::Silent => return None,
            Self::TooSlow => HandshakeFailure::TooSlow,
            Self::PlainHttp => HandshakeFailure::PlainHttp,
            Self::ProxyHeader => HandshakeFailure::Protocol,
            Self::Failed(e) => {
                let cause = e.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
                cause.map_or(HandshakeFailure::Connection, reason_of)
            }
        })
    }
}

/// What an error of rustls is about.
fn reason_of(e: &rustls::Error) -> HandshakeFailure {
    use rustls::{AlertDescription as Alert, CertificateError, Error, PeerIncompatible};

    match e {
        Error::NoCertificatesPresented => HandshakeFailure::NoCertificate,
        Error::InvalidCertificate(CertificateError::Revoked) => HandshakeFailure::Revoked,
        // A signature that does not fit is that of another authority with the same name.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            HandshakeFailure::UnknownAuthority
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            HandshakeFailure::Expired
        }
        Error::InvalidCertificate(_) => HandshakeFailure::Certificate,
        Error::AlertReceived(
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::UnsupportedCertificate
            | Alert::UnrecognisedName,
        ) => HandshakeFailure::Distrusted,
        Error::AlertReceived(Alert::ProtocolVersion)
        | Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            // Every client since TLS 1.2 has it.
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
        ) => HandshakeFailure::Version,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => HandshakeFailure::Incompatible,
        _ => HandshakeFailure::Protocol,
    }
}

/// Accepts TLS connections. Shared by all workers.
pub struct Acceptor {
    material: ArcSwap<Material>,
    /// How often clients' certificates were to be looked at anew.
    generation: AtomicU64,
}

impl Acceptor {
    /// Accepts with this material.
    pub fn new(material: Material) -> Self {
        Self { material: ArcSwap::from_pointee(material), generation: AtomicU64::new(0) }
    }

    /// Takes other material, for the connections that come from now on.
    pub fn replace(&self, material: Material) {
        let is_other = self.material.load().judges != material.judges;
        self.material.store(Arc::new(material));
        self.generation.fetch_add(u64::from(is_other), Ordering::SeqCst);
    }

    /// Another number whenever clients' certificates are looked at by other authorities or revocations. Read before a handshake it is not newer than what that went by.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// When the certificates end, by file, in seconds since 1970.
    pub fn ends(&self) -> Vec<(String, i64)> {
        self.material.load().ends()
    }

    /// See [`Material::list_end`].
    pub fn list_end(&self) -> Option<(String, i64)> {
        self.material.load().list_end()
    }

    /// See [`Material::stale_list`].
    pub fn stale_list(&self) -> Option<StaleList> {
        self.material.load().stale_list()
    }

    /// Shakes hands with a client. What it sends for that counts into `bytes`.
    pub async fn accept(
        &self,
        socket: Socket,
        limit: Duration,
        bytes: &ByteShare,
    ) -> Result<Stream, HandshakeError> {
        let config = self.material.load().config();
        match timeout(limit, TlsSocket::accept(socket, config, bytes)).await {
            Ok(accepted) => accepted.map(|socket| Stream::Tls(Box::new(socket))),
            Err(_) => Err(HandshakeError::TooSlow),
        }
    }
}
