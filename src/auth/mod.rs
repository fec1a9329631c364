//! Who are you: what a request shows → [`Principal`].
//!
//! One way at a time: a client certificate, the word of a trusted proxy, a password, or nothing at all (`--no-auth`).

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use thiserror::Error;

use crate::io::runtime::is_past;
use crate::types::{Principal, UserName};

mod attempt;
pub mod edit;
pub mod htpasswd;
mod line;
pub mod passwords;
mod remember;
mod throttle;

pub use passwords::{Options, Passwords};

/// Longest user name that a proxy or a certificate may give, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AuthError {
    /// No `Authorization` header.
    #[error("no credentials were given")]
    Missing,
    /// Not Basic, or not to be decoded.
    #[error("the credentials are malformed")]
    Malformed,
    /// No such user, or another password.
    #[error("the user name or the password is wrong")]
    Wrong,
    /// The client's certificate has expired since the connection, or the session that it goes on with, began.
    #[error("the client's certificate has expired")]
    Expired,
    /// What the request was let in by was taken away before it ended.
    #[error(
        "the login ended before the upload did: the user, the password or the certificate is not what it was"
    )]
    Ended,
    /// Authorities or revocations were read anew: the certificate is looked at when the client shows it again.
    #[error("the client's certificate must be looked at anew: connect again")]
    Anew,
    /// Which of them counts, others could see otherwise.
    #[error("there are several Authorization headers")]
    Twice,
    /// Too many logins wait to be checked.
    #[error("too many logins at once")]
    Overloaded,
    /// The header with the user's name comes from somebody who is not to be believed.
    #[error("the client is no trusted proxy: see --trusted-proxy")]
    Untrusted,
    /// A proxy names no user.
    #[error("the proxy named no user, or not one")]
    NoUser,
}

/// The certificate that a client has shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Whom it names.
    pub user: UserName,
    /// The generation of the certificates and authorities by which it was looked at.
    pub generation: u64,
    /// When it ends, in seconds since 1970.
    pub end: i64,
}

/// What is known about a client beside its request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The address of the other end of the connection, if it has one.
    pub peer: Option<IpAddr>,
    /// The address, if it has one: that of the client, not of a trusted proxy.
    pub address: Option<IpAddr>,
    /// Whether the other end of the connection is believed about who its users are.
    pub trusted: bool,
    /// Its certificate.
    pub certificate: Option<Shown>,
}

/// What somebody was let in by, to be compared with what is there later: the entry of the password file, in short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trust(Option<u64>);

/// How users are known.
#[derive(Clone)]
pub enum Authenticator {
    /// Everybody is let in.
    Nobody,
    /// By a header of a trusted proxy.
    Proxy(HeaderName),
    /// By a certificate alone.
    Certificate,
    /// By a password, or a certificate where there is one.
    Passwords(Arc<Passwords>),
}

impl Authenticator {
    /// Whom a request speaks for. The answer is of no use when its client has `gone`.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        caller: &Caller,
        gone: &impl AsyncFn(),
    ) -> Result<Principal, AuthError> {
        match &caller.certificate {
            Some(shown) if is_past(shown.end) => return Err(AuthError::Expired),
            Some(shown) => return Ok(Principal::User(shown.user.clone())),
            None => {}
        }
        match self {
            Self::Nobody => Ok(Principal::Anonymous),
            Self::Certificate => Err(AuthError::Missing),
            Self::Proxy(_) if !caller.trusted => Err(AuthError::Untrusted),
            Self::Proxy(header) => named_by_proxy(headers, header).map(Principal::User),
            Self::Passwords(passwords) => {
                passwords.login(headers, caller.address, gone).await.map(Principal::User)
            }
        }
    }

    /// What `who` was let in by just now.
    pub fn trust(&self, who: &Principal, caller: &Caller) -> Trust {
        match (self, who.user()) {
            (Self::Passwords(passwords), Some(user)) if caller.certificate.is_none() => {
                Trust(passwords.entry(user))
            }
            _ => Trust::default(),
        }
    }

    /// Fails if what `who` was let in by is no longer there. By the rules of now: whether the other end of the connection is
    /// `trusted`, and the `generation` of the authorities and revocations.
    pub fn check_again(
        &self,
        who: &Principal,
        caller: &Caller,
        trust: &Trust,
        (trusted, generation): (bool, Option<u64>),
    ) -> Result<(), AuthError> {
        let holds = match (&caller.certificate, self) {
            (Some(shown), _) if generation != Some(shown.generation) => return Err(AuthError::Anew),
            (Some(shown), _) => !is_past(shown.end),
            (None, Self::Nobody) => true,
            (None, Self::Certificate) => false,
            (None, Self::Proxy(_)) => trusted,
            (None, Self::Passwords(_)) => trust.0.is_some() && self.trust(who, caller) == *trust,
        };
        if holds { Ok(()) } else { Err(AuthError::Ended) }
    }
}

fn named_by_proxy(headers: &HeaderMap, header: &HeaderName) -> Result<UserName, AuthError> {
    let mut values = headers.get_all(header).iter();
    // Two values would be the proxy's and one that the client smuggled in.
    let (Some(value), None) = (values.next(), values.next()) else { return Err(AuthError::NoUser) };
    let name = str::from_utf8(value.as_bytes()).ok().filter(|name| is_name(name));
    name.map(UserName::new).ok_or(AuthError::NoUser)
}

/// Whether a name from outside can be a user's.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && !name.chars().any(char::is_control)
        && !name.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::runtime::{Driver, block_on};

    #[test]
    fn a_proxy_is_believed_if_it_is_trusted() {
        let proxy = Authenticator::Proxy(HeaderName::from_static("x-user"));
        let ask = |values: &[&[u8]], trusted| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-user", http::HeaderValue::from_bytes(value).expect("a value"));
            }
            let caller = Caller { peer: None, address: None, trusted, certificate: None };
            block_on(Driver::Epoll, proxy.authenticate(&headers, &caller, &std::future::pending::<()>))
                .expect("a runtime")
        };
        assert_eq!(ask(&[b"alice"], true).map(|p| p.to_string()), Ok("alice".into()));
        assert_eq!(ask(&[b"alice"], false), Err(AuthError::Untrusted));
        let none: Vec<&[u8]> = Vec::new();
        for bad in [none, vec![b""], vec![b"alice", b"bob"], vec![b"\xff"], vec![b"a:b"]] {
            assert_eq!(ask(&bad, true), Err(AuthError::NoUser), "{bad:?}");
        }
    }
}
