//! What threads share, in every order in which they can meet at it: `tests/interleavings`.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use loom::future::block_on;
use loom::thread;

use crate::auth::htpasswd::Htpasswd;
use crate::auth::passwords::{Options, Passwords};
use crate::io::blocking::Pool;
use crate::io::gate::Gate;
use crate::io::signal::Latch;
use crate::io::sync::atomic::{AtomicUsize, Ordering};
use crate::quota::{Amount, Ledger, Limits, Place, QuotaError};
use crate::types::{BLOCK_BYTES, BlobId, BlobType, Handle, Object};

/// With so many preemptions, or `LOOM_MAX_PREEMPTIONS` of them: as many as take less than a minute.
fn every_order(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.check(test);
}

/// Runs `job` on a thread beside this one.
fn beside<T: Send + Sync + 'static, R: 'static>(
    shared: &Arc<T>,
    job: impl FnOnce(&Arc<T>) -> R + 'static,
) -> thread::JoinHandle<R> {
    let shared = Arc::clone(shared);
    thread::spawn(move || job(&shared))
}

#[test]
fn a_stop_reaches_all_who_wait() {
    every_order(3, || {
        let flag = Arc::new(Latch::default());
        let waiting = [(); 2].map(|()| beside(&flag, |flag| block_on(flag.wait())));
        flag.raise();
        waiting.into_iter().for_each(|thread| thread.join().expect("no panic"));
    });
}

#[test]
fn a_gate_lets_in_as_many_as_it_says_and_forgets_nobody() {
    every_order(3, || {
        let (gate, inside) = (Arc::new(Gate::new(1)), Arc::new(AtomicUsize::new(0)));
        let pass = {
            let (gate, inside) = (Arc::clone(&gate), Arc::clone(&inside));
            move || {
                let permit = block_on(gate.enter());
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                inside.fetch_sub(1, Ordering::SeqCst);
                drop(permit);
            }
        };
        let others = [thread::spawn(pass.clone()), thread::spawn(pass.clone())];
        pass();
        others.into_iter().for_each(|thread| thread.join().expect("no panic"));
    });
}

#[test]
fn a_pool_does_every_job_and_ends() {
    every_order(3, || {
        let pool = Arc::new(Pool::new("pool", 1, 1).expect("a thread"));
        let other = beside(&pool, |pool| block_on(pool.run(|| 1)));
        let (mine, other) = (block_on(pool.run(|| 2)), other.join().expect("no panic"));
        // One place and one thread: somebody may have to be told that it is full.
        assert!(mine.is_ok_and(|n| n == 2) || other.is_ok_and(|n| n == 1));
    });
}

fn handle(n: u8) -> Handle {
    let object = Object::Blob(BlobType::Data, BlobId::from_digest([n; 32]));
    Handle { repo: "/a/".parse().expect("a path"), object }
}

/// A ledger with room for so many blocks.
fn ledger(blocks: u64, folder: &std::path::Path) -> Arc<Ledger> {
    let limits = Limits { total: Some(blocks * BLOCK_BYTES), ..Limits::default() };
    let ledger = Arc::new(Ledger::open(limits, Some(folder)).expect("opens"));
    assert!(block_on(ledger.end_counts()));
    ledger
}

fn store(ledger: &Arc<Ledger>, n: u8, blocks: u64) -> Result<(), QuotaError> {
    let bytes = blocks * BLOCK_BYTES;
    let mut claim = block_on(ledger.claim(&handle(n), Some(bytes)))?;
    let changing = ledger.changing(&handle(n));
    claim.published(bytes);
    drop(changing);
    Ok(())
}

#[test]
fn a_ledger_admits_to_the_block_and_its_journal_is_never_behind() {
    every_order(2, || {
        let dir = tempfile::tempdir().expect("a folder");
        let ledger = ledger(10, dir.path());
        let other = beside(&ledger, |ledger| store(ledger, 1, 6));
        let stored = [store(&ledger, 2, 6), other.join().expect("no panic")];
        let is_full = |stored: &Result<(), QuotaError>| matches!(stored, Err(QuotaError::Full(_)));
        assert!(stored.contains(&Ok(())) && stored.iter().any(is_full), "{stored:?}");
        assert_eq!(store(&ledger, 3, 4), Ok(()));
        // After a crash what is stored is within what the journal allows for: nothing more is admitted.
        drop(ledger);
        let limits = Limits { total: Some(10 * BLOCK_BYTES), ..Limits::default() };
        let again = Arc::new(Ledger::open(limits, Some(dir.path())).expect("opens"));
        assert_eq!(store(&again, 4, 1), Err(QuotaError::Counting));
    });
}

#[test]
fn a_count_is_exact_or_says_that_it_is_not() {
    every_order(3, || {
        let dir = tempfile::tempdir().expect("a folder");
        let ledger = ledger(10, dir.path());
        // What is really there: a file in whose place the other thread's removal leaves none.
        assert_eq!(store(&ledger, 1, 6), Ok(()));
        let there = Arc::new(AtomicUsize::new(6));
        let remover = {
            let there = Arc::clone(&there);
            beside(&ledger, move |ledger| {
                let changing = ledger.changing(&handle(1));
                there.store(0, Ordering::SeqCst);
                changing.removed(6 * BLOCK_BYTES);
            })
        };
        let place = Place::of(handle(1).object);
        if let Some(ticket) = ledger.begin_folder(&handle(1).repo, place) {
            let seen = there.load(Ordering::SeqCst) as u64;
            let seen = Amount { bytes: seen * BLOCK_BYTES, objects: u64::from(seen > 0) };
            ledger.end_folder(&handle(1).repo, ticket, seen);
        }
        remover.join().expect("no panic");
        assert_eq!(store(&ledger, 2, 10), Ok(()), "the removed bytes are free");
        assert!(matches!(store(&ledger, 3, 1), Err(QuotaError::Full(_))), "and counted once");
    });
}

const OPTIONS: Options =
    Options { remember: Duration::from_hours(1), remember_max: Duration::from_hours(1), throttle: false };
/// The password is "secret".
const USERS: &str = "bob:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n";

fn users(text: &str) -> Htpasswd {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    Htpasswd::load(file.path()).expect("loads")
}

fn login(passwords: &Passwords, password: &str) -> bool {
    let mut headers = HeaderMap::new();
    let value = format!("Basic {}", STANDARD.encode(format!("bob:{password}")));
    headers.insert(AUTHORIZATION, value.parse().expect("a value"));
    block_on(passwords.login(&headers, None, &std::future::pending::<()>)).is_ok()
}

fn passwords() -> Arc<Passwords> {
    Arc::new(Passwords::new(users(USERS), 1, OPTIONS, Arc::default()).expect("threads"))
}

#[test]
fn nobody_who_was_removed_gets_in_once_the_reload_is_over() {
    every_order(1, || {
        let passwords = passwords();
        let early = beside(&passwords, |passwords| login(passwords, "secret"));
        passwords.replace(users("eve:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n"), OPTIONS);
        assert!(!login(&passwords, "secret"));
        // Before or after: both may be.
        early.join().expect("no panic");
        assert!(!login(&passwords, "secret"));
    });
}

#[test]
fn equal_logins_at_once_are_all_answered() {
    every_order(1, || {
        let passwords = passwords();
        let other = beside(&passwords, |passwords| login(passwords, "secret"));
        assert!(login(&passwords, "secret"));
        assert!(other.join().expect("no panic"));
        assert!(login(&passwords, "secret") && !login(&passwords, "wrong"));
    });
}
