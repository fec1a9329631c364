//! Why TLS handshakes fail, as far as an operator acts on it.

/// A kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The client speaks HTTP without TLS.
    PlainHttp,
    /// No common version of TLS.
    Version,
    /// No common cipher, group, signature or protocol.
    Incompatible,
    /// The client shows no certificate, and one is asked for.
    NoCertificate,
    /// The client's certificate is of an authority that is not trusted here.
    UnknownAuthority,
    /// The client's certificate has expired.
    Expired,
    /// The client's certificate is revoked.
    Revoked,
    /// The client's certificate is wrong in another way.
    Certificate,
    /// The client does not trust the server's certificate.
    Distrusted,
    /// The client took too long.
    TooSlow,
    /// The connection broke or ended.
    Connection,
    /// The client's messages are wrong.
    Protocol,
}

impl HandshakeFailure {
    /// All kinds with the names that metrics give them.
    pub const ALL: [(Self, &'static str); 12] = [
        (Self::PlainHttp, "plain_http"),
        (Self::Version, "version"),
        (Self::Incompatible, "incompatible"),
        (Self::NoCertificate, "no_certificate"),
        (Self::UnknownAuthority, "unknown_authority"),
        (Self::Expired, "certificate_expired"),
        (Self::Revoked, "certificate_revoked"),
        (Self::Certificate, "certificate"),
        (Self::Distrusted, "distrusted_by_client"),
        (Self::TooSlow, "timeout"),
        (Self::Connection, "connection"),
        (Self::Protocol, "protocol"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(known, _)| *known == self).map_or("", |(_, name)| name)
    }
}
