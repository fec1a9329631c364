//! A gate that lets in so many at once, shared by all threads.

use std::sync::Arc;

use event_listener::Event;

use crate::io::sync::atomic::{AtomicUsize, Ordering};
use crate::io::wake::until;

/// Lets in so many at once; others wait.
pub struct Gate {
    limit: usize,
    live: AtomicUsize,
    freed: Event,
}

impl Gate {
    /// One for so many.
    pub fn new(limit: usize) -> Self {
        Self { limit, live: AtomicUsize::new(0), freed: Event::new() }
    }

    /// Most at once.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Waits for room for one more.
    pub async fn enter(self: &Arc<Self>) -> Permit {
        until(&self.freed, || self.try_enter()).await
    }

    /// Room for one more, if there is some now.
    pub fn try_enter(self: &Arc<Self>) -> Option<Permit> {
        let more = |live: usize| (live < self.limit).then_some(live + 1);
        let entered = self.live.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
        entered.is_ok().then(|| Permit(Arc::clone(self)))
    }

    /// Whether the next one would have to wait.
    pub fn is_full(&self) -> bool {
        self.live.load(Ordering::SeqCst) >= self.limit
    }
}

/// Room for one; given back when dropped.
pub struct Permit(Arc<Gate>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::SeqCst);
        // Not `notify(1)`: see `io::buffer`.
        self.0.freed.notify_additional(1);
    }
}
