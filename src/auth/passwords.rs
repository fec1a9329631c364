//! Logins by password (RFC 7617).
//!
//! A password hash is never computed on a worker: it goes to few threads of low priority, by a line that is fair and bounded. Credentials
//! that were verified once are found in a table that is read without a lock, under a MAC with a secret of this process:
//! the password itself is kept nowhere. Equal attempts at the same time cost one hash.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use event_listener::Event;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::hmac;

use crate::auth::AuthError;
use crate::auth::attempt::{Attempt, Job, Outcome, Running, Table, Waiting, Waits, hash_next};
use crate::auth::htpasswd::Htpasswd;
use crate::auth::line::{Line, Rank};
use crate::auth::remember::{Mac, Remembered, lock};
use crate::auth::throttle::{Throttle, network};
use crate::io::blocking::Pool;
use crate::io::runtime::{Either, now, race, sleep};
use crate::io::sync::atomic::{AtomicUsize, Ordering};
use crate::io::sync::{ArcSwap, Mutex};
use crate::io::wake::until;
use crate::logging::{self, limit};
use crate::metrics::LoginCounters;
use crate::types::{ClientNetwork, UserName};

/// So many may wait whose client sends no more: most of those have gone, others only wait for the answer.
const MOST_ENDED: usize = 8;
/// How long the answer to a login that found no place is held back: as long as it takes to see that a password is wrong which
/// came before strangers, or who is told so at once is known to be a stranger.
const HOLD: Duration = Duration::from_millis(500);

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

/// Who wants to log in, as far as the line is concerned.
struct Client<'c> {
    user: &'c str,
    network: ClientNetwork,
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
        let hashing = Pool::low_priority("password", threads, Line::<Job>::MOST)?;
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

    /// Whose credentials a request has. A refusal may take its time; it need not be waited for when the client has `gone`.
    pub async fn login(
        &self,
        headers: &HeaderMap,
        address: Option<IpAddr>,
        gone: &impl AsyncFn(),
    ) -> Result<UserName, AuthError> {
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
        let client = Client { user: &user, network: network(address) };
        let begun = now();
        match self.check(mac, &password, &client, gone).await {
            Ok(true) => {
                self.counters.right.increment();
                return Ok(name);
            }
            Ok(false) => self.counters.wrong.increment(),
            Err(e) => {
                self.counters.overloaded.increment();
                sleep(HOLD.saturating_sub(now().duration_since(begun))).await;
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
        password: &[u8],
        client: &Client<'_>,
        gone: &impl AsyncFn(),
    ) -> Result<bool, AuthError> {
        let user = client.user;
        loop {
            let table = self.table.load_full();
            if table.remembered.is_wrong(&mac) {
                return Ok(false);
            }
            let (was_right, is_user) = (table.remembered.was_right(&mac), table.users.has(user));
            let rank = lock(&self.waiting).line.rank(was_right, is_user);
            let attempt = self.attempt(&table, mac, Some(password), client, rank)?;
            let right = self.outcome(&mac, &attempt, gone).await?;
            let now = self.table.load();
            // A reload came between: what was verified may hold no longer.
            if !attempt.holds_for(&now, user) {
                continue;
            }
            if right {
                now.remembered.add(mac, UserName::new(user), &self.options.load());
                return Ok(true);
            }
            drop(now);
            if rank != Rank::Stranger {
                // It is told as late as a stranger would be: else a flood shows which users there are.
                let turn = self.attempt(&table, mac, None, client, Rank::Stranger)?;
                self.outcome(&mac, &turn, gone).await?;
            }
            let now = self.table.load();
            if attempt.holds_for(&now, user) {
                now.remembered.add_wrong(mac);
                return Ok(false);
            }
        }
    }

    /// Waits until an attempt is right or wrong.
    async fn outcome(&self, mac: &Mac, attempt: &Running, gone: &impl AsyncFn()) -> Result<bool, AuthError> {
        let mut waits = Waits { waiting: &self.waiting, mac, attempt, is_over: false };
        loop {
            let done = until(&attempt.done, || attempt.outcome.get().copied());
            match race(done, gone()).await {
                Either::Left(outcome) => {
                    waits.is_over = true;
                    return match outcome {
                        Outcome::PushedOut => Err(AuthError::Overloaded),
                        outcome => Ok(outcome == Outcome::Right),
                    };
                }
                // It has gone, or only waits for the answer: which of both can't be told. Where many wait, it makes room.
                Either::Right(()) if lock(&self.waiting).line.len() > MOST_ENDED => {
                    return Err(AuthError::Overloaded);
                }
                Either::Right(()) => {}
            }
        }
    }

    /// The attempt of these credentials: one that runs already, or a new one. Without a password it only waits for its turn.
    fn attempt(
        &self,
        table: &Arc<Table>,
        mac: Mac,
        password: Option<&[u8]>,
        client: &Client<'_>,
        rank: Rank,
    ) -> Result<Running, AuthError> {
        let mut waiting = lock(&self.waiting);
        if let Some(running) =
            waiting.attempts.get(&mac).filter(|running| running.holds_for(table, client.user))
        {
            running.clients.fetch_add(1, Ordering::Relaxed);
            return Ok(Running::clone(running));
        }
        let attempt = Running::new(Attempt {
            table: Arc::clone(table),
            outcome: OnceLock::new(),
            done: Event::new(),
            clients: AtomicUsize::new(1),
        });
        let credentials = password.map(|password| (client.user.to_owned(), password.to_vec()));
        let job = Job { mac, credentials, attempt: Running::clone(&attempt) };
        let pushed_out = waiting.line.push(rank, client.network, client.user, job);
        if let Some(out) = pushed_out.map_err(|_job| AuthError::Overloaded)? {
            waiting.forget(&out.mac, &out.attempt);
            out.attempt.end(Outcome::PushedOut);
        }
        waiting.attempts.insert(mac, Running::clone(&attempt));
        if waiting.told < waiting.line.len() {
            waiting.told += 1;
            let shared = Arc::clone(&self.waiting);
            // The pool has room for as many as can wait.
            self.hashing.submit(move || hash_next(&shared)).ok();
        }
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

    /// A client that waits as long as it takes.
    const STAYS: fn() -> std::future::Pending<()> = std::future::pending;
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
        let login = passwords.login(&headers, None, &STAYS);
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

    fn client(user: &str, network: ClientNetwork) -> Client<'_> {
        Client { user, network }
    }

    #[test]
    fn an_attempt_from_before_a_reload_lets_nobody_in() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let line = |password| format!("bob:{}\n", bcrypt::hash(password, 10).expect("a hash"));
        std::fs::write(file.path(), line("old")).expect("written");
        let auth = open(file.path());
        let all = async {
            let table = auth.table.load_full();
            let (mac, bob) = (auth.mac("bob", b"old"), client("bob", network(None)));
            let running = auth.attempt(&table, mac, Some(b"old"), &bob, Rank::Known).expect("room");
            std::fs::write(file.path(), line("new")).expect("written");
            auth.replace(Htpasswd::load(file.path()).expect("loads"), OPTIONS);
            let (old, new) = (header("bob:old"), header("bob:new"));
            let login = async |header| auth.login(header, None, &STAYS).await;
            assert_eq!(login(&old).await.err(), Some(AuthError::Wrong));
            assert_eq!(auth.outcome(&mac, &running, &STAYS).await, Ok(true), "by the old file it was right");
            assert_eq!(login(&old).await.err(), Some(AuthError::Wrong));
            assert!(login(&new).await.is_ok());
        };
        block_on(Driver::Epoll, all).expect("a runtime");
    }

    #[test]
    fn equal_attempts_share_a_hash_and_who_was_right_before_waits_for_no_other() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), format!("bob:{}\n", bcrypt::hash("secret", 12).expect("a hash")))
            .expect("written");
        let auth = open(file.path());
        let here = network(None);
        let all = async {
            let table = auth.table.load_full();
            let begin = |user: &str, password: &[u8], rank| {
                auth.attempt(&table, auth.mac(user, password), Some(password), &client(user, here), rank)
            };
            let first = begin("bob", b"x", Rank::Known).expect("room");
            assert!(Running::ptr_eq(&first, &begin("bob", b"x", Rank::Known).expect("the same")));
            let strangers: Vec<_> = (0..100).map(|n| begin(&format!("u{n}"), b"x", Rank::Stranger)).collect();
            assert!(strangers.iter().any(|attempt| attempt.as_ref().err() == Some(&AuthError::Overloaded)));
            let right = begin("bob", b"secret", Rank::Before).expect("room");
            assert_eq!(auth.outcome(&[0; 32], &right, &STAYS).await, Ok(true));
            assert!(strangers.iter().flatten().filter(|attempt| attempt.outcome.get().is_some()).count() < 2);
            assert_eq!(auth.outcome(&[0; 32], &first, &STAYS).await, Ok(false));
            // Clients that have gone make room.
            let (mac, before) = (auth.mac("u40", b"x"), lock(&auth.waiting).line.len());
            let left = strangers.get(40).and_then(|attempt| attempt.as_ref().ok()).expect("it waits");
            assert_eq!(auth.outcome(&mac, left, &async || {}).await, Err(AuthError::Overloaded));
            assert!(lock(&auth.waiting).line.len() < before);
        };
        block_on(Driver::Epoll, all).expect("a runtime");
    }
}
