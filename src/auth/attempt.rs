//! One password that is being hashed: from the line through a thread to all who wait for it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use event_listener::Event;

use crate::auth::htpasswd::Htpasswd;
use crate::auth::line::Line;
use crate::auth::remember::{Mac, Remembered, lock};
use crate::io::sync::atomic::{AtomicUsize, Ordering};
use crate::io::sync::{Arc as Counted, Mutex};

/// The users, and which credentials are known to be right or wrong. A reload replaces all of it.
pub(super) struct Table {
    pub(super) users: Htpasswd,
    pub(super) remembered: Remembered,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Right,
    Wrong,
    /// It lost its place to others.
    PushedOut,
}

/// A password that is being hashed.
pub(super) struct Attempt {
    /// The users that it is compared with.
    pub(super) table: Arc<Table>,
    pub(super) outcome: OnceLock<Outcome>,
    pub(super) done: Event,
    /// Clients that wait for it.
    pub(super) clients: AtomicUsize,
}

/// It is let go of by whoever is last: loom is to see that.
pub(super) type Running = Counted<Attempt>;

impl Attempt {
    /// Ends it, unless it has ended otherwise.
    pub(super) fn end(&self, outcome: Outcome) {
        self.outcome.set(outcome).ok();
        self.done.notify(usize::MAX);
    }

    /// Whether the outcome says something about `user` by this table, too.
    pub(super) fn holds_for(&self, table: &Arc<Table>, user: &str) -> bool {
        Arc::ptr_eq(&self.table, table) || self.table.users.same_entry(&table.users, user)
    }
}

/// One that waits for a thread.
pub(super) struct Job {
    pub(super) mac: Mac,
    /// The user and the password; none waits for its turn alone.
    pub(super) credentials: Option<(String, Vec<u8>)>,
    pub(super) attempt: Running,
}

#[derive(Default)]
pub(super) struct Waiting {
    pub(super) attempts: HashMap<Mac, Running>,
    pub(super) line: Line<Job>,
    /// How often the threads were told to take one out of the line.
    pub(super) told: usize,
}

impl Waiting {
    /// An attempt has ended.
    pub(super) fn forget(&mut self, mac: &Mac, attempt: &Running) {
        // A reload may have put another attempt in its place.
        if self.attempts.get(mac).is_some_and(|held| Running::ptr_eq(held, attempt)) {
            self.attempts.remove(mac);
        }
    }
}

/// A client that waits for an attempt. One that is given up before its end makes room for others.
pub(super) struct Waits<'w> {
    pub(super) waiting: &'w Mutex<Waiting>,
    pub(super) mac: &'w Mac,
    pub(super) attempt: &'w Running,
    pub(super) is_over: bool,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut waiting = lock(self.waiting);
        if self.attempt.clients.fetch_sub(1, Ordering::Relaxed) == 1
            && waiting.line.remove(|job| Running::ptr_eq(&job.attempt, self.attempt)).is_some()
        {
            waiting.forget(self.mac, self.attempt);
        }
    }
}

/// Hashes the password of whoever is next.
pub(super) fn hash_next(waiting: &Mutex<Waiting>) {
    let next = {
        let mut waiting = lock(waiting);
        waiting.told -= 1;
        waiting.line.pop()
    };
    // Others may have left the line since.
    if let Some(job) = next {
        hash(waiting, job);
    }
}

fn hash(waiting: &Mutex<Waiting>, Job { mac, credentials, attempt }: Job) {
    // Also should the hash panic: nobody may wait for ever.
    let end = End { waiting, mac, attempt };
    let users = &end.attempt.table.users;
    let right = credentials.is_some_and(|(user, password)| {
        if users.has(&user) {
            return users.verify(&user, &password);
        }
        users.verify_stranger(&password, || {
            while let Some(job) = { lock(waiting).line.pop_user() } {
                hash(waiting, job);
            }
        });
        false
    });
    end.attempt.outcome.set(if right { Outcome::Right } else { Outcome::Wrong }).ok();
}

/// The end of an attempt, however it ends.
struct End<'w> {
    waiting: &'w Mutex<Waiting>,
    mac: Mac,
    attempt: Running,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        lock(self.waiting).forget(&self.mac, &self.attempt);
        self.attempt.end(Outcome::Wrong);
    }
}
