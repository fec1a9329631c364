//! What the server counts. Every worker counts for itself, without a lock; who scrapes adds up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::types::HandshakeFailure;

pub mod blobs;
pub mod render;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds some.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The methods that are told apart.
pub const METHODS: [&str; 5] = ["GET", "HEAD", "POST", "DELETE", "other"];
/// The statuses that are told apart; 0 is any other.
pub const STATUSES: [u16; 22] = [
    200, 206, 304, 400, 401, 403, 404, 405, 408, 412, 413, 414, 416, 417, 429, 431, 500, 501, 503, 505, 507,
    0,
];
/// Upper ends of the classes of durations, in milliseconds.
pub const DURATIONS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 1000, 5000, 30_000, 120_000];

/// Why requests are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Malformed, or not a path or method of the protocol.
    Request,
    /// Not logged in.
    Login,
    /// No right to do that.
    Right,
    /// There is nothing of that name.
    Missing,
    /// Too large, too many, too slow.
    Limit,
    /// Quota or disk full.
    Space,
    /// The bytes are not what the name says, or not those stored.
    Content,
    /// The server's own fault.
    Server,
}

impl Refusal {
    /// All reasons with their names.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Request, "request"),
        (Self::Login, "login"),
        (Self::Right, "right"),
        (Self::Missing, "missing"),
        (Self::Limit, "limit"),
        (Self::Space, "space"),
        (Self::Content, "content"),
        (Self::Server, "server"),
    ];
}

/// What one worker counts from its start on.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: Counter,
    /// Connections that have ended.
    pub connections_ended: Counter,
    /// Requests answered, by method and status.
    pub requests: [[Counter; STATUSES.len()]; METHODS.len()],
    /// Requests by how long they took; the last class is open.
    pub durations: [Counter; DURATIONS_MS.len() + 1],
    /// How long they took in all, in microseconds.
    pub duration_us: Counter,
    /// Refused requests by reason.
    pub refusals: [Counter; Refusal::ALL.len()],
    /// Uploads whose bytes do not hash to their name.
    pub verification_failures: Counter,
    /// Connections that ended in a panic.
    pub panics: Counter,
    /// Turns of a worker that took longer than `io::runtime::STALL`.
    pub stalls: Counter,
    /// Accepts that failed for want of descriptors.
    pub accept_failures: Counter,
    /// Connections refused because their address has too many.
    pub crowded: Counter,
    /// TLS handshakes that failed, by reason.
    pub handshakes: [Counter; HandshakeFailure::ALL.len()],
    /// Requests that had to wait because as many ran as there are descriptors for.
    pub waits: Counter,
}

impl Counters {
    /// Counts one answered request.
    pub fn note_request(&self, method: &str, status: u16, took: Duration) {
        let row = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1);
        let column = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len() - 1);
        if let Some(counter) = self.requests.get(row).and_then(|row| row.get(column)) {
            counter.increment();
        }
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let class = DURATIONS_MS.iter().position(|end| ms < *end).unwrap_or(DURATIONS_MS.len());
        if let Some(counter) = self.durations.get(class) {
            counter.increment();
        }
        self.duration_us.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts a refusal.
    pub fn note_refusal(&self, why: Refusal) {
        let at = Refusal::ALL.iter().position(|(known, _)| *known == why);
        if let Some(counter) = at.and_then(|at| self.refusals.get(at)) {
            counter.increment();
        }
    }

    /// Counts a TLS handshake that failed.
    pub fn note_handshake(&self, why: HandshakeFailure) {
        let at = HandshakeFailure::ALL.iter().position(|(known, _)| *known == why);
        if let Some(counter) = at.and_then(|at| self.handshakes.get(at)) {
            counter.increment();
        }
    }

    /// All requests answered.
    pub fn all_requests(&self) -> u64 {
        self.requests.iter().flatten().map(Counter::get).sum()
    }

    /// All refusals.
    pub fn all_refusals(&self) -> u64 {
        self.refusals.iter().map(Counter::get).sum()
    }
}

/// What was verified of what is stored.
#[derive(Debug, Default)]
pub struct ScrubCounters {
    /// Objects looked at.
    pub objects: Counter,
    /// Bytes read.
    pub bytes: Counter,
    /// Damaged objects put into quarantine.
    pub quarantined: Counter,
    /// When the last pass ended, in seconds since 1970; 0 if none has.
    ended: AtomicU64,
}

impl ScrubCounters {
    /// A pass has ended, at so many seconds since 1970.
    pub fn pass_ended(&self, at: u64) {
        self.ended.store(at, Ordering::Relaxed);
    }

    /// When the last pass ended.
    pub fn last_end(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }
}

/// Logins that had to be checked; remembered ones are not among them.
#[derive(Debug, Default)]
pub struct LoginCounters {
    /// Right ones.
    pub right: Counter,
    /// Wrong ones.
    pub wrong: Counter,
    /// Not checked, because too many were waiting.
    pub overloaded: Counter,
}
