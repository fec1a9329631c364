//! How many connections there may be at once: as many as there are descriptors for. Shared by all shards.

use std::sync::Arc;

use event_listener::Event;

use crate::io::limits::{open_descriptors, raise_descriptors};
use crate::io::sync::atomic::{AtomicUsize, Ordering};
use crate::io::wake::until;

/// Descriptors that one connection may need: its socket, a folder, and a file with its second descriptor for the ring.
const DESCRIPTORS_EACH: u64 = 4;
/// Descriptors kept for what the process itself opens later: a ring and its event for each worker, and some to spare.
const RESERVE: u64 = 8;
const RESERVE_PER_WORKER: u64 = 4;

/// Counts connections.
pub struct Gate {
    limit: usize,
    live: AtomicUsize,
    freed: Event,
}

impl Gate {
    /// As many as the limit on open files allows, which is raised first; at least `least`.
    pub fn for_descriptors(workers: usize, least: usize) -> Self {
        let limit = raise_descriptors();
        let used = open_descriptors() + RESERVE + RESERVE_PER_WORKER * workers as u64;
        let room = limit.saturating_sub(used) / DESCRIPTORS_EACH;
        Self::new(usize::try_from(room).unwrap_or(usize::MAX).max(least))
    }

    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, live: AtomicUsize::new(0), freed: Event::new() }
    }

    /// Most connections at once.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Waits for room for one more.
    pub async fn enter(self: &Arc<Self>) -> Permit {
        until(&self.freed, || self.try_enter().then(|| Permit(Arc::clone(self)))).await
    }

    fn try_enter(&self) -> bool {
        let more = |live: usize| (live < self.limit).then_some(live + 1);
        self.live.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }
}

/// Room for one connection; given back when dropped.
pub struct Permit(Arc<Gate>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::SeqCst);
        // Not `notify(1)`: see `io::buffer`.
        self.0.freed.notify_additional(1);
    }
}
