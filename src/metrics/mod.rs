//! Counters that the shards share. A name each here; a scrape format comes when there is something to scrape them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the server counts from its start on.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: Counter,
    /// Requests answered.
    pub requests: Counter,
    /// Of those, answered with a status of 400 or above.
    pub refusals: Counter,
    /// Connections that ended in a panic.
    pub panics: Counter,
    /// Turns of a worker that took longer than `io::runtime::STALL`.
    pub stalls: Counter,
    /// Accepts that failed for want of descriptors.
    pub accept_failures: Counter,
}
