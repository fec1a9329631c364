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

    /// What it means, in words.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::PlainHttp => "give the client a URL with https://",
            Self::Version => "the client speaks no version of TLS that is spoken here: see --tls-min-ver",
            Self::Incompatible => "the client offers no cipher, key exchange or protocol that is known here",
            Self::NoCertificate => {
                "the client shows no certificate (restic: --tls-client-cert): see --tls-client-optional"
            }
            Self::UnknownAuthority => "the client's certificate is not of the authority of --tls-client-ca",
            Self::Expired => "the client's certificate has expired",
            Self::Revoked => "the client's certificate is on the list of --tls-client-crl",
            Self::Certificate => "the client's certificate can't be used",
            Self::Distrusted => {
                "the client does not trust this server's certificate (restic: --cacert), or it is for another name"
            }
            Self::TooSlow => "see --handshake-timeout",
            Self::Connection => "the client broke the connection",
            Self::Protocol => "the client does not speak TLS, or wrongly",
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(known, _)| *known == self).map_or("", |(_, name)| name)
    }
}
