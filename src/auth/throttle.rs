//! How long the answer to a wrong login is held back. Right and remembered ones never are.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::types::{ClientNetwork, UserName};

/// Networks, and users of networks, that are kept in mind.
const MAX_ENTRIES: usize = 65_536;
/// How often those that are forgiven are looked for when there are too many.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// A failure is forgotten after this time: the count falls by one.
const FORGIVEN_AFTER: Duration = Duration::from_secs(30);
/// Failures of one user from one network that are answered at once: a mistyped password is no attack.
const FREE_OF_USER: u32 = 3;
/// Failures of one network.
const FREE_OF_NETWORK: u32 = 20;
/// The delay after the free ones; it doubles with every further failure.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// The longest. restic gives up on a silent server after minutes only.
const LONGEST_DELAY: Duration = Duration::from_secs(8);

/// The network of a client; this machine's own if it has no address.
pub(super) fn network(address: Option<IpAddr>) -> ClientNetwork {
    address.unwrap_or(Ipv6Addr::LOCALHOST.into()).into()
}

struct Strikes {
    count: u32,
    last: Instant,
}

impl Strikes {
    /// One more; returns how many count now.
    fn add(&mut self, now: Instant) -> u32 {
        let forgiven = now.duration_since(self.last).as_secs() / FORGIVEN_AFTER.as_secs();
        self.count = self.count.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX)).saturating_add(1);
        self.last = now;
        self.count
    }

    fn is_forgiven(&self, now: Instant) -> bool {
        now.duration_since(self.last) > FORGIVEN_AFTER * self.count
    }
}

/// Failed logins of late, by network, and by network and user.
#[derive(Default)]
pub(super) struct Throttle {
    /// Names come from clients and may be long: what is kept is a hash with a key of this process.
    hasher: RandomState,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    strikes: HashMap<u64, Strikes>,
    /// When the forgiven ones were last thrown out.
    swept: Option<Instant>,
}

impl Throttle {
    /// Counts a failure; returns how long its answer is to be held back.
    pub(super) fn note_failure(&self, address: Option<IpAddr>, user: &UserName) -> Duration {
        self.note(network(address), user, Instant::now())
    }

    fn note(&self, network: ClientNetwork, user: &UserName, now: Instant) -> Duration {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let All { strikes, swept } = &mut *all;
        let rested = swept.is_none_or(|swept| now.duration_since(swept) >= SWEEP_EVERY);
        if strikes.len() + 2 > MAX_ENTRIES && rested {
            *swept = Some(now);
            strikes.retain(|_, strikes| !strikes.is_forgiven(now));
        }
        if strikes.len() + 2 > MAX_ENTRIES {
            // An attack from everywhere: all wrong logins are slow until it is over.
            return LONGEST_DELAY;
        }
        let mut count = |key: u64| strikes.entry(key).or_insert(Strikes { count: 0, last: now }).add(now);
        let of_user = count(self.hasher.hash_one((network, Some(user))));
        let of_network = count(self.hasher.hash_one((network, None::<&UserName>)));
        delay(of_user, FREE_OF_USER).max(delay(of_network, FREE_OF_NETWORK))
    }
}

fn delay(count: u32, free: u32) -> Duration {
    match count.checked_sub(free + 1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST_DELAY.saturating_mul(1 << doublings.min(16)).min(LONGEST_DELAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_cost_more_and_more_and_are_forgiven() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let here = network(Some([10, 0, 0, 1].into()));
        let fail =
            |user: &str, after| throttle.note(here, &UserName::new(user), start + Duration::from_secs(after));
        let delays: Vec<_> = (0..10).map(|_| fail("a", 0).as_millis()).collect();
        assert_eq!(delays, [0, 0, 0, 250, 500, 1000, 2000, 4000, 8000, 8000]);
        assert_eq!(fail("b", 0), Duration::ZERO, "another user of the same network");
        for n in 0..9 {
            assert_eq!(fail(&format!("c{n}"), 0), Duration::ZERO);
        }
        assert_eq!(fail("d", 0), FIRST_DELAY, "the network's budget is used up");
        assert_eq!(fail("a", 3600), Duration::ZERO);
        let other = throttle.note(network(Some([10, 0, 0, 2].into())), &UserName::new("a"), start);
        assert_eq!(other, Duration::ZERO);
    }
}
