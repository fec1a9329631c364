//! How much room is held for an upload ahead of what has arrived, in quotas and on the disk: who announces much and sends little
//! holds little. Pure but for a lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::types::{AHEAD_BYTES, Principal};

/// What one user may hold ahead, all uploads together, in bytes: 64 packs of 16 MiB at once.
const MOST_OF_USER: u64 = 1 << 30;
/// What each upload may hold even so.
pub const LEAST: u64 = 1 << 20;
/// In so long an upload shows what it needs: from then on no more is held ahead than came in such a time.
pub const STALL: Duration = Duration::from_secs(30);

/// What users hold ahead. Shared by all shards.
#[derive(Default)]
pub struct Unsent(Mutex<HashMap<Principal, u64>>);

impl Unsent {
    fn all(&self) -> MutexGuard<'_, HashMap<Principal, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one upload holds ahead.
pub struct Ahead {
    unsent: Arc<Unsent>,
    who: Principal,
    /// Bytes of the upload for which room may be held, of them ahead when that was last asked.
    upto: u64,
    held: u64,
    /// When what comes began to be watched, and how much had come by then.
    since: (Instant, u64),
    /// What came in the last time that was watched.
    came: Option<u64>,
}

impl Ahead {
    /// Of an upload of a user that begins now.
    pub(super) fn new(unsent: &Arc<Unsent>, who: &Principal, now: Instant) -> Self {
        Self { unsent: Arc::clone(unsent), who: who.clone(), upto: 0, held: 0, since: (now, 0), came: None }
    }

    /// Up to which byte room may be held once `received` bytes have come and `left` are still announced, if that is another
    /// one than before.
    pub fn look(&mut self, received: u64, left: u64, now: Instant) -> Option<u64> {
        let (since, before) = self.since;
        let passed = now.duration_since(since) >= STALL;
        if passed {
            self.came = Some(received - before);
            self.since = (now, received);
        }
        if !passed && self.upto > received {
            return None;
        }
        let wanted = received.saturating_add(AHEAD_BYTES).min(self.came.unwrap_or(u64::MAX)).min(left);
        let mut all = self.unsent.all();
        let of_user = all.entry(self.who.clone()).or_default();
        let others = *of_user - self.held;
        self.held = wanted.min(MOST_OF_USER.saturating_sub(others).max(LEAST));
        *of_user = others + self.held;
        drop(all);
        self.upto = received + self.held;
        Some(self.upto)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let mut all = self.unsent.all();
        if let Entry::Occupied(mut of_user) = all.entry(self.who.clone()) {
            *of_user.get_mut() -= self.held;
            if *of_user.get() == 0 {
                of_user.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::UserName;

    #[test]
    fn what_is_held_follows_what_comes() {
        let (unsent, start) = (Arc::new(Unsent::default()), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let begin = |name: &str| Ahead::new(&unsent, &Principal::User(UserName::new(name)), start);
        let mut fast = begin("a");
        let (gib, mib) = (1_u64 << 30, 1_u64 << 20);
        assert_eq!(fast.look(0, gib, start), Some(AHEAD_BYTES));
        assert_eq!(fast.look(AHEAD_BYTES - 1, gib, start), None);
        assert_eq!(fast.look(AHEAD_BYTES, gib, start), Some(3 * AHEAD_BYTES), "twice what came, and more");
        assert_eq!(
            fast.look(3 * AHEAD_BYTES, 5, start),
            Some(3 * AHEAD_BYTES + 5),
            "no more than is announced"
        );
        let mut slow = begin("b");
        assert_eq!(slow.look(0, gib, start), Some(AHEAD_BYTES));
        assert_eq!(slow.look(64 * 29, gib, after(29)), None);
        assert_eq!(slow.look(64 * 30, gib, after(30)), Some(2 * 64 * 30), "the rest is given back");
        assert_eq!(slow.look(64 * 30, gib, after(90)), Some(64 * 30), "nothing came");
        drop(fast);
        let mut many: Vec<_> = (0..40).map(|_| begin("a")).collect();
        let held: u64 = many.iter_mut().filter_map(|ahead| ahead.look(0, gib, start)).sum();
        assert_eq!(held, gib + 8 * mib);
        drop((many, slow));
        assert!(unsent.all().is_empty());
    }
}
