//! How many uploads a user has at once, and how many bytes a second they bring. Pure but for a lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::policy::ahead::{Ahead, Unsent};
use crate::types::{Principal, UserName};

/// What a user who was idle may send at once, in seconds of the rate.
const BURST: Duration = Duration::from_secs(1);
/// Uploads at once of a user with a rate and no such bound: each waits for its turn, and takes a place among all requests.
const MANY_UPLOADS: usize = 1000;
/// Users that are kept in mind before idle ones are forgotten.
const MANY_USERS: usize = 1024;

/// What one user may take. None is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Uploads at once.
    pub uploads: Option<usize>,
    /// Bytes a second, all uploads together.
    pub rate: Option<u64>,
    /// Repositories.
    pub repos: Option<u64>,
}

/// What users may take.
#[derive(Clone, Debug, Default)]
pub struct Allowances {
    /// Of everybody who is not named.
    pub general: Allowance,
    /// Of single users.
    pub users: HashMap<UserName, Allowance>,
}

impl Allowances {
    /// What this user may take.
    pub fn of(&self, who: &Principal) -> Allowance {
        who.user().and_then(|user| self.users.get(user)).copied().unwrap_or(self.general)
    }
}

struct Meter {
    uploads: usize,
    /// When all that was taken is paid for.
    paid: Instant,
}

/// What users take. Shared by all shards.
#[derive(Default)]
pub struct Rates {
    meters: Mutex<HashMap<Principal, Meter>>,
    unsent: Arc<Unsent>,
}

impl Rates {
    /// Begins an upload. None if the user has too many already.
    pub fn begin(self: &Arc<Self>, who: &Principal, allowance: Allowance, now: Instant) -> Option<Slot> {
        let slot =
            |counted| Slot { rates: Arc::clone(self), who: who.clone(), rate: allowance.rate, counted };
        if allowance.uploads.is_none() && allowance.rate.is_none() {
            return Some(slot(false));
        }
        let mut meters = self.meters();
        if meters.len() >= MANY_USERS {
            meters.retain(|_, meter| meter.uploads > 0 || meter.paid > now);
        }
        let meter = meters.entry(who.clone()).or_insert(Meter { uploads: 0, paid: now });
        let most = allowance.uploads.or(allowance.rate.map(|_| MANY_UPLOADS));
        if most.is_some_and(|most| meter.uploads >= most) {
            return None;
        }
        meter.uploads += 1;
        Some(slot(true))
    }

    fn meters(&self) -> MutexGuard<'_, HashMap<Principal, Meter>> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One upload of a user; it ends when this is dropped.
pub struct Slot {
    rates: Arc<Rates>,
    who: Principal,
    rate: Option<u64>,
    counted: bool,
}

impl Slot {
    /// The room that it may hold ahead of what has arrived.
    pub fn ahead(&self, now: Instant) -> Ahead {
        Ahead::new(&self.rates.unsent, &self.who, now)
    }

    /// Whether bytes have to wait.
    pub const fn is_limited(&self) -> bool {
        self.rate.is_some()
    }

    /// Takes `bytes` bytes that came; returns how long to wait before more is read. The connections of a user wait in
    /// turn, so that they share the rate.
    pub fn take(&self, bytes: usize, now: Instant) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let mut meters = self.rates.meters();
        let Some(meter) = meters.get_mut(&self.who) else { return Duration::ZERO };
        let cost = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / rate.max(1));
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        meter.paid = meter.paid.max(earliest) + cost;
        meter.paid.saturating_duration_since(now)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.counted
            && let Some(meter) = self.rates.meters().get_mut(&self.who)
        {
            meter.uploads -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_at_once() {
        let rates = Arc::new(Rates::default());
        let who = Principal::User(UserName::new("a"));
        let begin =
            || rates.begin(&who, Allowance { uploads: Some(2), ..Allowance::default() }, Instant::now());
        let (one, two) = (begin(), begin());
        assert!(one.is_some() && two.is_some() && begin().is_none());
        drop(one);
        assert!(begin().is_some());
        let limited = Principal::User(UserName::new("b"));
        let begin =
            || rates.begin(&limited, Allowance { rate: Some(1), ..Allowance::default() }, Instant::now());
        let many: Vec<_> = (0..MANY_UPLOADS).map(|_| begin()).collect();
        assert!(many.iter().all(Option::is_some) && begin().is_none());
        assert!(rates.begin(&Principal::Anonymous, Allowance::default(), Instant::now()).is_some());
    }

    #[test]
    fn bytes_a_second_are_shared() {
        let rates = Arc::new(Rates::default());
        let (who, start) = (Principal::User(UserName::new("a")), Instant::now());
        let begin = || {
            rates.begin(&who, Allowance { rate: Some(1000), ..Allowance::default() }, start).expect("a slot")
        };
        let (one, two) = (begin(), begin());
        // Ten seconds of two connections that send 100 bytes whenever they may.
        let (mut sent, mut next) = ([0usize; 2], [start; 2]);
        while let Some(turn) =
            (0..2).filter(|n| next[*n] < start + Duration::from_secs(10)).min_by_key(|n| next[*n])
        {
            let wait = [&one, &two][turn].take(100, next[turn]);
            sent[turn] += 100;
            next[turn] += wait.max(Duration::from_millis(1));
        }
        let all = sent[0] + sent[1];
        assert!((10_000..=11_500).contains(&all), "{sent:?}");
        assert!(sent[0].abs_diff(sent[1]) <= 1200, "{sent:?}");
    }
}
