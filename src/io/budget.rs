//! Memory for bytes of clients that have not logged in: one budget, shared by all workers. A connection that the budget
//! has no room for leaves its bytes in the socket and waits; the connection that holds bytes for the longest is closed.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;

use crate::io::runtime::{now, timeout};
use crate::io::signal::Latch;
use crate::io::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::io::sync::{Mutex, MutexGuard};
use crate::io::wake::until;

/// Bytes are counted in steps of this size. A connection receives at most one step at a time until its client logs in.
pub const STEP_BYTES: usize = 4 * 1024;
/// A `ClientHello` with post-quantum keys has 2 KiB, a request head of restic 1 KiB: a client that is not an attacker needs no
/// more than this. The last quarter of the budget is for connections that hold no more.
const SMALL_BYTES: usize = 2 * STEP_BYTES;
/// A connection may hold bytes for this long before it can be closed to make room.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often a connection that waits for room looks whether another one has become old enough to be closed.
const PAUSE: Duration = Duration::from_millis(50);

/// The budget.
pub struct ByteBudget {
    limit: usize,
    holders: Mutex<Holders>,
    freed: Event,
}

#[derive(Default)]
struct Holders {
    last: u64,
    used: usize,
    /// Of those, the bytes of connections that are told to close and have not closed yet.
    doomed: usize,
    by_age: BTreeMap<u64, Holder>,
}

struct Holder {
    bytes: usize,
    since: Instant,
    closed: Arc<Latch>,
    is_doomed: bool,
}

impl Holders {
    fn held(&self, number: u64) -> usize {
        self.by_age.get(&number).map_or(0, |holder| holder.bytes)
    }

    /// Lowers what one holds to `bytes`; returns how much it gives back.
    fn lower(&mut self, number: u64, bytes: usize) -> usize {
        let Some(holder) = self.by_age.get_mut(&number) else { return 0 };
        let less = holder.bytes.saturating_sub(bytes);
        holder.bytes -= less;
        self.used -= less;
        if holder.is_doomed {
            self.doomed -= less;
        }
        if bytes == 0 {
            self.by_age.remove(&number);
        }
        less
    }

    /// Closes the connections that hold bytes for the longest, until `missing` bytes are about to be given back.
    fn make_room(&mut self, missing: usize, now: Instant) {
        for holder in self.by_age.values_mut() {
            if self.doomed >= missing || now.duration_since(holder.since) < PATIENCE {
                return;
            }
            if !holder.is_doomed {
                holder.is_doomed = true;
                self.doomed += holder.bytes;
                holder.closed.raise();
            }
        }
    }
}

impl ByteBudget {
    /// A budget of `limit` bytes, at least 1 MiB: no connection may need more than three quarters of it.
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.max(1 << 20), holders: Mutex::default(), freed: Event::new() }
    }

    fn holders(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Raises what a share holds to `bytes`, or closes others so that it can be raised soon.
    fn raise(&self, share: &ByteShare, bytes: usize, now: Instant) -> bool {
        let mut all = self.holders();
        let number = share.number.load(Ordering::SeqCst);
        let more = bytes.saturating_sub(all.held(number));
        let limit = if bytes <= SMALL_BYTES { self.limit } else { self.limit - self.limit / 4 };
        let over = (all.used + more).saturating_sub(limit);
        if more > 0 && over > 0 {
            all.make_room(over, now);
            return false;
        }
        all.used += more;
        if let Some(holder) = all.by_age.get_mut(&number) {
            holder.bytes += more;
            if holder.is_doomed {
                all.doomed += more;
            }
        } else if more > 0 {
            all.last += 1;
            let number = all.last;
            let closed = Arc::clone(&share.closed);
            all.by_age.insert(number, Holder { bytes: more, since: now, closed, is_doomed: false });
            share.number.store(number, Ordering::SeqCst);
        }
        true
    }
}

/// What one connection holds of a budget; given back when dropped. Only the connection itself may call its methods.
pub struct ByteShare {
    budget: Arc<ByteBudget>,
    /// Its key among the holders; 0 while it holds nothing.
    number: AtomicU64,
    /// Raised when the connection is to close.
    closed: Arc<Latch>,
    is_exempt: AtomicBool,
}

impl ByteShare {
    /// A share that holds nothing. `closed` is raised when the connection has to make room.
    pub fn new(budget: Arc<ByteBudget>, closed: Arc<Latch>) -> Self {
        Self { budget, number: AtomicU64::new(0), closed, is_exempt: AtomicBool::new(false) }
    }

    /// Waits until the connection may hold `bytes`.
    pub async fn reach(&self, bytes: usize) {
        let bytes = bytes.next_multiple_of(STEP_BYTES);
        if !self.try_reach(bytes) {
            // Boxed: nearly every attempt succeeds, and an idle connection is not to hold room for a timer.
            Box::pin(self.wait_for(bytes)).await;
        }
    }

    fn try_reach(&self, bytes: usize) -> bool {
        self.is_exempt.load(Ordering::SeqCst) || self.budget.raise(self, bytes, now())
    }

    async fn wait_for(&self, bytes: usize) {
        loop {
            let reached = until(&self.budget.freed, || self.try_reach(bytes).then_some(()));
            if timeout(PAUSE, reached).await.is_ok() {
                return;
            }
        }
    }

    /// The connection holds no more than `bytes` now.
    pub fn hold(&self, bytes: usize) {
        let number = self.number.load(Ordering::SeqCst);
        if number == 0 {
            return;
        }
        if bytes == 0 {
            self.number.store(0, Ordering::SeqCst);
        }
        let freed = self.budget.holders().lower(number, bytes.next_multiple_of(STEP_BYTES));
        // No more than can go on: in a flood thousands wait. One that is woken in vain is woken in the place of another, which
        // looks again after `PAUSE`.
        if freed > 0 {
            self.budget.freed.notify_additional(freed / STEP_BYTES);
        }
    }

    /// A whole request head was received. While a small one waits for its login to be checked, the connection is not one
    /// that others may close: the queue of logins has a bound of its own.
    pub fn note_whole_head(&self) {
        let number = self.number.load(Ordering::SeqCst);
        if number != 0 && self.budget.holders().held(number) <= SMALL_BYTES {
            self.hold(0);
        }
    }

    /// The client has logged in: from now on nothing is counted.
    pub fn exempt(&self) {
        self.is_exempt.store(true, Ordering::SeqCst);
        self.hold(0);
    }
}

impl Drop for ByteShare {
    fn drop(&mut self) {
        self.hold(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::runtime::{Driver, block_on};

    const MIB: usize = 1 << 20;

    fn share(budget: &Arc<ByteBudget>) -> ByteShare {
        ByteShare::new(Arc::clone(budget), Arc::default())
    }

    #[test]
    fn large_shares_leave_the_last_quarter_to_small_ones() {
        let budget = Arc::new(ByteBudget::new(MIB));
        let now = now();
        let large: Vec<_> = (0..13).map(|_| share(&budget)).collect();
        let raised = large.iter().filter(|share| budget.raise(share, 64 << 10, now)).count();
        assert_eq!(raised, 12, "three quarters of 1 MiB");
        let small = share(&budget);
        assert!(budget.raise(&small, SMALL_BYTES, now) && !budget.raise(&small, SMALL_BYTES + 1, now));
        assert!(large.iter().all(|share| !share.closed.is_raised()), "they may be about to log in");
        small.exempt();
        drop(large);
        assert_eq!(budget.holders().used, 0);
        assert!(budget.holders().by_age.is_empty());
    }

    #[test]
    fn the_oldest_holder_makes_room_and_no_other() {
        let budget = Arc::new(ByteBudget::new(MIB));
        let start = now();
        let all: Vec<_> = (0..13).map(|_| share(&budget)).collect();
        let (last, first) = all.split_last().unwrap();
        assert!(first.iter().all(|share| budget.raise(share, 64 << 10, start)));
        let later = start + PATIENCE;
        for _ in 0..3 {
            assert!(!budget.raise(last, 64 << 10, later));
        }
        assert_eq!(first.iter().filter(|share| share.closed.is_raised()).count(), 1);
        assert!(first[0].closed.is_raised());
        // It was about to be closed for others: what it gives back is no longer expected of it.
        first[0].hold(0);
        assert_eq!(budget.holders().doomed, 0);
        assert!(budget.raise(last, 64 << 10, later));
    }

    #[test]
    fn whoever_waits_goes_on_when_bytes_are_given_back() {
        let work = async {
            let budget = Arc::new(ByteBudget::new(MIB));
            let (one, other) = (share(&budget), share(&budget));
            one.reach(768 << 10).await;
            assert!(timeout(Duration::from_millis(5), other.reach(64 << 10)).await.is_err());
            one.note_whole_head();
            assert!(timeout(Duration::from_millis(5), other.reach(64 << 10)).await.is_err());
            one.hold(512 << 10);
            other.reach(64 << 10).await;
            other.note_whole_head();
            other.hold(SMALL_BYTES);
            other.note_whole_head();
            assert_eq!(budget.holders().used, 512 << 10);
        };
        block_on(Driver::Epoll, work).expect("a runtime");
    }
}
