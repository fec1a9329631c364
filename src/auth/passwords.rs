//! Logins by password (RFC 7617).
//!
//! A password hash is never computed on a worker: it goes to few threads of low priority with a bounded queue. Credentials
//! that were verified once are found in a table that is read without a lock, under a MAC with a secret of this process:
//! the password itself is kept nowhere. Equal attempts at the same time cost one hash.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use event_listener::Event;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::hmac;

use crate::auth::AuthError;
use crate::auth::htpasswd::Htpasswd;
use crate::auth::remember::{Mac, Remembered};
use crate::auth::throttle::{Throttle, network};
use crate::io::blocking::Pool;
use crate::io::runtime::sleep;
use crate::io::sync::{Arc as Counted, ArcSwap, Mutex, MutexGuard};
use crate::io::wake::until;
use crate::logging::{self, limit};
use crate::metrics::LoginCounters;
use crate::types::{ClientNetwork, UserName};

/// Logins that may wait for their password to be hashed: about 4 s of work at bcrypt's cost 10.
const HASH_QUEUE: usize = 64;
/// Of those, from one network: nobody can fill the queue alone.
const HASH_QUEUE_PER_NETWORK: usize = 16;

/// What can change while the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a verified login is remembered after its last use.
    pub remember: Duration,
    /// How long at most.
    pub remember_max: Duration,
    /// Whether wrong logins are slowed down.
    pub throttle: bool,
}

/// The users, and which credentials are known to be right or wrong. A reload replaces all of it.
struct Table {
    users: Htpasswd,
    remembered: Remembered,
}

/// A password that is being hashed.
struct Attempt {
    /// The users that it is compared with.
    table: Arc<Table>,
    right: OnceLock<bool>,
    done: Event,
}

/// It is let go of by whoever is last: loom is to see that.
type Running = Counted<Attempt>;

impl Attempt {
    /// Whether the outcome says something about `user` by this table, too.
    fn holds_for(&self, table: &Arc<Table>, user: &str) -> bool {
        Arc::ptr_eq(&self.table, table) || self.table.users.same_entry(&table.users, user)
    }
}

#[derive(Default)]
struct Waiting {
    attempts: HashMap<Mac, Running>,
    networks: HashMap<ClientNetwork, usize>,
}

/// Checks passwords against a file. Shared by all shards.
pub struct Passwords {
    table: ArcSwap<Table>,
    options: ArcSwap<Options>,
    secret: hmac::Key,
    hashing: Pool,
    waiting: Arc<Mutex<Waiting>>,
    throttle: Throttle,
    counters: Arc<LoginCounters>,
    hasher: RandomState,
}

impl Passwords {
    /// Checks against these users, on `threads` threads, and counts logins.
    ///
    /// # Errors
    /// The threads can't be started.
    pub fn new(
        users: Htpasswd,
        threads: usize,
        options: Options,
        counters: Arc<LoginCounters>,
    ) -> io::Result<Self> {
        let random = ring::rand::SystemRandom::new();
        let secret = hmac::Key::generate(hmac::HMAC_SHA256, &random)
            .map_err(|_unspecified| io::Error::other("the system has no randomness"))?;
        let hashing = Pool::low_priority("password", threads, HASH_QUEUE)?;
        Ok(Self {
            table: ArcSwap::from_pointee(Table { users, remembered: Remembered::default() }),
            options: ArcSwap::from_pointee(options),
            secret,
            hashing,
            waiting: Arc::default(),
            throttle: Throttle::default(),
            counters,
            hasher: RandomState::new(),
        })
    }

    /// Number of users.
    pub fn users(&self) -> usize {
        self.table.load().users.len()
    }

    /// Takes new users. Who changed or vanished is out at once, the others stay logged in.
    pub fn replace(&self, users: Htpasswd, options: Options) {
        self.options.store(Arc::new(options));
        let old = self.table.load_full();
        let remembered = old.remembered.keep(|user| old.users.same_entry(&users, user.as_str()));
        self.table.store(Arc::new(Table { users, remembered }));
    }

    /// The entry of a user, in short: another one says something else.
    pub fn entry(&self, user: &UserName) -> Option<u64> {
        self.table.load().users.entry(user.as_str()).map(|entry| self.hasher.hash_one(entry))
    }

    /// Whose credentials a request has. A refusal may take its time.
    pub async fn login(&self, headers: &HeaderMap, address: Option<IpAddr>) -> Result<UserName, AuthError> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let header = match (values.next(), values.next()) {
            (Some(header), None) => header,
            (None, _) => return Err(AuthError::Missing),
            (Some(_), Some(_)) => return Err(AuthError::Twice),
        };
        let (user, mut password) = basic(header.as_bytes()).ok_or(AuthError::Malformed)?;
        let options = **self.options.load();
        let mac = {
            let table = self.table.load();
            table.users.cut(&user, &mut password);
            let mac = self.mac(&user, &password);
            if let Some(user) = table.remembered.find(&mac, &options) {
                return Ok(user);
            }
            mac
        };
        let name = UserName::new(&user);
        let right = self.check(mac, user, password, address).await;
        match right {
            Ok(true) => {
                self.counters.right.increment();
                return Ok(name);
            }
            Ok(false) => self.counters.wrong.increment(),
            Err(e) => {
                self.counters.overloaded.increment();
                return Err(e);
            }
        }
        // One stable line, for fail2ban and its like.
        let shown = address.map_or_else(|| "unix".into(), |address| address.to_string());
        if limit::admits_login(address) {
            let name: String = name.to_string().chars().take(logging::MAX_FIELD_BYTES).collect();
            log::warn!("login failed: address={shown} user=\"{name}\"");
        }
        if options.throttle {
            sleep(self.throttle.note_failure(address, &name)).await;
        }
        Err(AuthError::Wrong)
    }

    /// Whether the password is right, by the users of now.
    async fn check(
        &self,
        mac: Mac,
        user: String,
        password: Vec<u8>,
        address: Option<IpAddr>,
    ) -> Result<bool, AuthError> {
        loop {
            let table = self.table.load_full();
            if table.remembered.is_wrong(&mac) {
                return Ok(false);
            }
            let attempt = self.attempt(&table, mac, &user, &password, address)?;
            let right = until(&attempt.done, || attempt.right.get().copied()).await;
            let now = self.table.load();
            // A reload came between: what was verified may hold no longer.
            if attempt.holds_for(&now, &user) {
                if right {
                    now.remembered.add(mac, UserName::new(&user), &self.options.load());
                } else {
                    now.remembered.add_wrong(mac);
                }
                return Ok(right);
            }
        }
    }

    /// The attempt of these credentials: one that runs already, or a new one.
    fn attempt(
        &self,
        table: &Arc<Table>,
        mac: Mac,
        user: &str,
        password: &[u8],
        address: Option<IpAddr>,
    ) -> Result<Running, AuthError> {
        let network = network(address);
        let mut waiting = lock(&self.waiting);
        let Waiting { attempts, networks } = &mut *waiting;
        let slot = match attempts.entry(mac) {
            Entry::Occupied(running) if running.get().holds_for(table, user) => {
                return Ok(Running::clone(running.get()));
            }
            slot => slot,
        };
        let of_network = networks.entry(network).or_default();
        if *of_network >= HASH_QUEUE_PER_NETWORK {
            return Err(AuthError::Overloaded);
        }
        let attempt =
            Running::new(Attempt { table: Arc::clone(table), right: OnceLock::new(), done: Event::new() });
        let job = {
            let (attempt, waiting) = (Running::clone(&attempt), Arc::clone(&self.waiting));
            let (user, password) = (user.to_owned(), password.to_vec());
            move || {
                // Also should the hash panic: nobody may wait for ever.
                let _end = End { waiting, mac, network, attempt: Running::clone(&attempt) };
                attempt.right.set(attempt.table.users.verify(&user, &password)).ok();
            }
        };
        if self.hashing.submit(job).is_err() {
            if *of_network == 0 {
                networks.remove(&network);
            }
            return Err(AuthError::Overloaded);
        }
        *of_network += 1;
        slot.insert_entry(Running::clone(&attempt));
        Ok(attempt)
    }

    fn mac(&self, user: &str, password: &[u8]) -> Mac {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(user.as_bytes());
        context.update(b":");
        context.update(password);
        context.sign().as_ref().try_into().unwrap_or_default()
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of an attempt, however it ends.
struct End {
    waiting: Arc<Mutex<Waiting>>,
    mac: Mac,
    network: ClientNetwork,
    attempt: Running,
}

impl Drop for End {
    fn drop(&mut self) {
        self.attempt.right.set(false).ok();
        let mut waiting = lock(&self.waiting);
        // A reload may have put another attempt in its place.
        if waiting.attempts.get(&self.mac).is_some_and(|held| Running::ptr_eq(held, &self.attempt)) {
            waiting.attempts.remove(&self.mac);
        }
        if let Entry::Occupied(mut count) = waiting.networks.entry(self.network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        drop(waiting);
        self.attempt.done.notify(usize::MAX);
    }
}

/// User and password of `Basic` credentials.
fn basic(header: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, rest) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut decoded = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let password = decoded.split_off(colon + 1);
    decoded.pop();
    // bcrypt ends a password with NUL and begins again: `secret\0secret` would be `secret`.
    if password.contains(&0) {
        return None;
    }
    Some((String::from_utf8(decoded).ok()?, password))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::runtime::{Driver, block_on};

    const OPTIONS: Options =
        Options { remember: Duration::from_mins(1), remember_max: Duration::from_mins(2), throttle: false };

    #[test]
    fn basic_credentials() {
        assert_eq!(basic(b"Basic YTpiOmM="), Some(("a".into(), b"b:c".to_vec())));
        assert_eq!(basic(b"bAsIc YTo="), Some(("a".into(), vec![])));
        for bad in [&b"Bearer YTpi"[..], b"Basic", b"Basic ", b"Basic YQ==", b"Basic ???", b"Basic /zph"] {
            assert_eq!(basic(bad), None, "{}", bad.escape_ascii());
        }
    }

    fn open(path: &std::path::Path) -> Passwords {
        let users = Htpasswd::load(path).expect("loads");
        Passwords::new(users, 1, OPTIONS, Arc::default()).expect("threads")
    }

    fn header(who: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = format!("Basic {}", STANDARD.encode(who));
        headers.insert(AUTHORIZATION, value.parse().expect("a value"));
        headers
    }

    fn login(passwords: &Passwords, who: &str) -> Result<String, AuthError> {
        let headers = header(who);
        let login = passwords.login(&headers, None);
        block_on(Driver::Epoll, login).expect("a runtime").map(|user| user.to_string())
    }

    #[test]
    fn a_reload_forgets_exactly_who_changed() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let hash = |password| bcrypt::hash(password, 4).expect("a hash");
        let (bob, eve) = (hash("secret"), hash("other"));
        // The password is "secret".
        let sha = "sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
        std::fs::write(file.path(), format!("bob:{bob}\n{sha}\neve:{eve}\n")).expect("written");
        let auth = open(file.path());
        assert_eq!(auth.users(), 3);
        for who in ["bob:secret", "sha:secret", "eve:other", "bob:secret"] {
            assert_eq!(login(&auth, who), Ok(who.split(':').next().expect("a name").into()));
        }
        assert_eq!(auth.table.load().remembered.len(), 3);
        for who in ["bob:wrong", "nobody:secret", "sha:wrong", "bob:", ":", "bob:wrong"] {
            assert_eq!(login(&auth, who), Err(AuthError::Wrong), "{who}");
        }
        std::fs::write(file.path(), format!("{sha}\neve:{}\n", hash("third"))).expect("written");
        auth.replace(Htpasswd::load(file.path()).expect("loads"), OPTIONS);
        assert_eq!(auth.table.load().remembered.len(), 1, "sha stays logged in");
        assert_eq!(login(&auth, "bob:secret"), Err(AuthError::Wrong));
        assert_eq!(login(&auth, "eve:other"), Err(AuthError::Wrong));
        assert!(login(&auth, "eve:third").is_ok());
        for broken in ["no colon\n", "\u{0}:x\n"] {
            std::fs::write(file.path(), broken).expect("written");
            assert!(Htpasswd::load(file.path()).is_err(), "{broken:?}");
        }
        std::fs::write(file.path(), "a:b:c\n").expect("written");
        assert!(Htpasswd::load(file.path()).is_ok_and(|users| users.is_empty()), "a bad hash costs its user");
    }

    #[test]
    fn a_password_that_is_longer_than_bcrypt_looks_is_remembered_in_one_form() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let long = "x".repeat(72);
        std::fs::write(file.path(), format!("bob:{}\n", bcrypt::hash(&long, 4).expect("a hash")))
            .expect("written");
        let auth = open(file.path());
        for tail in ["", "a", "another"] {
            assert_eq!(login(&auth, &format!("bob:{long}{tail}")), Ok("bob".into()));
        }
        assert_eq!((auth.table.load().remembered.len(), auth.counters.right.get()), (1, 1));
        assert_eq!(login(&auth, &format!("bob:{}", "x".repeat(71))), Err(AuthError::Wrong));
    }

    #[test]
    fn an_attempt_from_before_a_reload_lets_nobody_in() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let line = |password| format!("bob:{}\n", bcrypt::hash(password, 10).expect("a hash"));
        std::fs::write(file.path(), line("old")).expect("written");
        let auth = open(file.path());
        let all = async {
            let table = auth.table.load_full();
            let running = auth.attempt(&table, auth.mac("bob", b"old"), "bob", b"old", None).expect("room");
            std::fs::write(file.path(), line("new")).expect("written");
            auth.replace(Htpasswd::load(file.path()).expect("loads"), OPTIONS);
            let (old, new) = (header("bob:old"), header("bob:new"));
            assert_eq!(auth.login(&old, None).await.err(), Some(AuthError::Wrong));
            assert!(
                until(&running.done, || running.right.get().copied()).await,
                "by the old file it was right"
            );
            assert_eq!(auth.login(&old, None).await.err(), Some(AuthError::Wrong));
            assert!(auth.login(&new, None).await.is_ok());
        };
        block_on(Driver::Epoll, all).expect("a runtime");
    }

    #[test]
    fn equal_attempts_share_a_hash_and_a_network_has_its_share_of_the_queue() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), format!("bob:{}\n", bcrypt::hash("secret", 12).expect("a hash")))
            .expect("written");
        let auth = open(file.path());
        let address: Option<IpAddr> = Some([10, 0, 0, 1].into());
        let all = async {
            let table = auth.table.load_full();
            let begin = |user: &str, address| auth.attempt(&table, auth.mac(user, b"x"), user, b"x", address);
            let first = begin("bob", address).expect("room");
            assert!(Running::ptr_eq(&first, &begin("bob", address).expect("the same")));
            for n in 1..HASH_QUEUE_PER_NETWORK {
                assert!(begin(&format!("u{n}"), address).is_ok());
            }
            assert_eq!(begin("more", address).err(), Some(AuthError::Overloaded));
            assert!(begin("more", Some([10, 0, 0, 2].into())).is_ok());
            assert!(!until(&first.done, || first.right.get().copied()).await);
        };
        block_on(Driver::Epoll, all).expect("a runtime");
    }
}
