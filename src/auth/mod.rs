//! Who are you: credentials → [`Principal`].
//!
//! A password hash is never computed on a worker: it goes to one thread with a bounded queue. Credentials that were
//! verified once are found in a table that is read without a lock, under a MAC with a secret of this process: the
//! password itself is kept nowhere.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::hmac;
use thiserror::Error;

use crate::io::blocking::Pool;
use crate::types::{Principal, UserName};

pub mod htpasswd;

use htpasswd::{Htpasswd, LoadError};

/// Logins that may wait for their password to be hashed: about 4 s of work at bcrypt's cost 10.
const HASH_QUEUE: usize = 64;

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
    /// Too many logins wait to be checked.
    #[error("too many logins at once")]
    Overloaded,
}

type Mac = [u8; 32];

/// The users, and which of their credentials were verified. A reload replaces both.
struct Table {
    users: Arc<Htpasswd>,
    verified: ArcSwap<HashMap<Mac, UserName>>,
}

impl Table {
    fn new(users: Htpasswd) -> Self {
        Self { users: Arc::new(users), verified: ArcSwap::default() }
    }
}

/// Checks the credentials of requests. Shared by all shards.
pub struct Authenticator {
    path: PathBuf,
    table: ArcSwap<Table>,
    secret: hmac::Key,
    hashing: Pool,
}

impl Authenticator {
    /// Checks against the password file at `path`.
    ///
    /// # Errors
    /// The file can't be read, or the hashing thread not started.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let users = Htpasswd::load(path)?;
        let random = ring::rand::SystemRandom::new();
        let secret = hmac::Key::generate(hmac::HMAC_SHA256, &random)
            .map_err(|_unspecified| io::Error::other("the system has no randomness"))?;
        let hashing = Pool::new("password", 1, HASH_QUEUE)?;
        Ok(Self { path: path.into(), table: ArcSwap::from_pointee(Table::new(users)), secret, hashing })
    }

    /// Number of users.
    pub fn users(&self) -> usize {
        self.table.load().users.len()
    }

    /// Reads the file anew. All credentials are verified again then.
    ///
    /// # Errors
    /// The old users stay.
    pub fn reload(&self) -> Result<usize, LoadError> {
        let users = Htpasswd::load(&self.path)?;
        let count = users.len();
        self.table.store(Arc::new(Table::new(users)));
        Ok(count)
    }

    /// Whom a request speaks for.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, AuthError> {
        let header = headers.get(AUTHORIZATION).ok_or(AuthError::Missing)?;
        let (user, password) = basic(header.as_bytes()).ok_or(AuthError::Malformed)?;
        let table = self.table.load_full();
        let mac = self.mac(&user, &password);
        if let Some(user) = table.verified.load().get(&mac) {
            return Ok(Principal::User(user.clone()));
        }
        let users = Arc::clone(&table.users);
        let name = UserName::new(&user);
        let right = self
            .hashing
            .run(move || users.verify(&user, &password))
            .await
            .map_err(|_full| AuthError::Overloaded)?;
        if !right {
            return Err(AuthError::Wrong);
        }
        table.verified.rcu(|verified| {
            // A user has one password, so there are never more entries than users.
            let mut verified = HashMap::clone(verified);
            verified.insert(mac, name.clone());
            verified
        });
        Ok(Principal::User(name))
    }

    fn mac(&self, user: &str, password: &[u8]) -> Mac {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(user.as_bytes());
        context.update(b":");
        context.update(password);
        context.sign().as_ref().try_into().unwrap_or_default()
    }
}

/// User and password of `Basic` credentials (RFC 7617).
fn basic(header: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, rest) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut decoded = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let password = decoded.split_off(colon + 1);
    decoded.pop();
    Some((String::from_utf8(decoded).ok()?, password))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::runtime::{Driver, block_on};

    #[test]
    fn basic_credentials() {
        assert_eq!(basic(b"Basic YTpiOmM="), Some(("a".into(), b"b:c".to_vec())));
        assert_eq!(basic(b"bAsIc YTo="), Some(("a".into(), vec![])));
        for bad in [&b"Bearer YTpi"[..], b"Basic", b"Basic ", b"Basic YQ==", b"Basic ???", b"Basic /zph"] {
            assert_eq!(basic(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_login_is_hashed_once_and_forgotten_by_a_reload() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        // The password of both is "secret".
        let hash = bcrypt::hash("secret", 4).expect("a hash");
        std::fs::write(file.path(), format!("bob:{hash}\nsha:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=\n"))
            .expect("written");
        let auth = Authenticator::open(file.path()).expect("loads");
        assert_eq!(auth.users(), 2);
        let login = |who: &str| {
            let mut headers = HeaderMap::new();
            let value = format!("Basic {}", STANDARD.encode(who));
            headers.insert(AUTHORIZATION, value.parse().expect("a value"));
            block_on(Driver::Epoll, auth.authenticate(&headers)).expect("a runtime")
        };
        for who in ["bob:secret", "sha:secret", "bob:secret"] {
            assert_eq!(login(who).map(|p| p.to_string()), Ok(who.split(':').next().expect("a name").into()));
        }
        assert_eq!(auth.table.load().verified.load().len(), 2);
        for who in ["bob:wrong", "nobody:secret", "sha:wrong", "bob:", ":"] {
            assert_eq!(login(who), Err(AuthError::Wrong), "{who}");
        }
        std::fs::write(file.path(), format!("eve:{hash}\n")).expect("written");
        assert_eq!(auth.reload().expect("loads"), 1);
        assert_eq!(login("bob:secret"), Err(AuthError::Wrong));
        assert!(login("eve:secret").is_ok());
        std::fs::remove_file(file.path()).expect("removed");
        assert!(auth.reload().is_err());
        assert!(login("eve:secret").is_ok(), "the old users stay");
    }
}
