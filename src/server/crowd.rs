//! Connections whose client was never let in: in the order in which they came, and how many each address has. Who was let in
//! counts no more. Shared by all shards.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::io::budget::{ByteBudget, ByteShare};
use crate::io::runtime::now;
use crate::io::signal::Latch;
use crate::types::ClientNetwork;

/// Every connection has this long to be let in before it can be closed to make room.
const PATIENCE: Duration = Duration::from_millis(500);

/// All newcomers.
pub struct Crowd {
    newcomers: Mutex<Newcomers>,
    /// For what they send.
    bytes: Arc<ByteBudget>,
}

#[derive(Default)]
struct Newcomers {
    next: u64,
    by_age: BTreeMap<u64, (Instant, Arc<Latch>)>,
    networks: HashMap<ClientNetwork, usize>,
}

impl Crowd {
    /// Nobody yet. All newcomers together may have sent `bytes` bytes that are not served yet.
    pub fn new(bytes: usize) -> Self {
        Self { newcomers: Mutex::default(), bytes: Arc::new(ByteBudget::new(bytes)) }
    }

    /// One more connection.
    pub fn welcome(self: &Arc<Self>) -> Newcomer {
        let closed = Arc::<Latch>::default();
        let mut all = self.all();
        let number = all.next;
        all.next += 1;
        all.by_age.insert(number, (now(), Arc::clone(&closed)));
        drop(all);
        Newcomer {
            crowd: Arc::clone(self),
            number,
            network: Cell::new(None),
            bytes: Arc::new(ByteShare::new(Arc::clone(&self.bytes), Arc::clone(&closed))),
            closed,
            is_in: Cell::new(false),
            has_asked: Cell::new(false),
        }
    }

    /// Makes room: the connection that has been here for the longest without being let in is to end.
    pub fn close_oldest(&self) {
        self.close(now());
    }

    fn close(&self, now: Instant) {
        let mut all = self.all();
        if let Some(oldest) = all.by_age.first_entry()
            && now.duration_since(oldest.get().0) >= PATIENCE
        {
            oldest.remove().1.raise();
        }
    }

    fn all(&self) -> MutexGuard<'_, Newcomers> {
        self.newcomers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection; it counts until its client is let in, or this is dropped.
pub struct Newcomer {
    crowd: Arc<Crowd>,
    number: u64,
    network: Cell<Option<ClientNetwork>>,
    bytes: Arc<ByteShare>,
    closed: Arc<Latch>,
    is_in: Cell<bool>,
    has_asked: Cell<bool>,
}

impl Newcomer {
    /// Counts it for an address, unless that has `most` already.
    pub fn count(&self, address: IpAddr, most: usize) -> bool {
        let network = ClientNetwork::from(address);
        let mut all = self.crowd.all();
        let count = all.networks.entry(network).or_default();
        if *count >= most {
            return false;
        }
        *count += 1;
        drop(all);
        self.network.set(Some(network));
        true
    }

    /// Its client is let in and makes no more room; false if it is to do so already. A user counts for no address any more.
    pub fn let_in(&self, is_user: bool) -> bool {
        if is_user {
            self.uncount();
        }
        // Every request comes here, and only the first one takes the locks.
        if self.is_in.replace(true) {
            return true;
        }
        let was_there = self.crowd.all().by_age.remove(&self.number).is_some();
        self.bytes.exempt();
        // The budget for bytes may have closed it, too.
        was_there && !self.closed.is_raised()
    }

    /// It counts for no address any more.
    fn uncount(&self) {
        let Some(network) = self.network.take() else { return };
        let mut all = self.crowd.all();
        if let Some(count) = all.networks.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                all.networks.remove(&network);
            }
        }
    }

    /// Notes that it asks for something.
    pub fn asks(&self) {
        self.has_asked.set(true);
    }

    /// Whether it has asked for something.
    pub const fn has_asked(&self) -> bool {
        self.has_asked.get()
    }

    /// Its share of the memory for what newcomers send.
    pub fn bytes(&self) -> Arc<ByteShare> {
        Arc::clone(&self.bytes)
    }

    /// Raised when the connection is to make room for others.
    pub fn closed(&self) -> Arc<Latch> {
        Arc::clone(&self.closed)
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.let_in(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_of_those_who_are_not_let_in() {
        let crowd = Arc::new(Crowd::new(0));
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let first = crowd.welcome();
        assert!(first.count(one, 1));
        assert!(!crowd.welcome().count(one, 1) && crowd.welcome().count(other, 1));
        assert!(first.let_in(false) && !crowd.welcome().count(one, 1), "who has no name still counts");
        assert!(first.let_in(true) && first.let_in(true) && crowd.welcome().count(one, 1));
        assert!(crowd.all().networks.is_empty() && crowd.all().by_age.is_empty());
    }

    #[test]
    fn the_oldest_that_was_never_let_in_makes_room() {
        let crowd = Arc::new(Crowd::new(0));
        let all: Vec<_> = (0..3).map(|_| crowd.welcome()).collect();
        assert!(all[0].let_in(true));
        crowd.close(now());
        assert!(!all[1].closed().is_raised(), "it may be about to log in");
        let later = now() + PATIENCE;
        crowd.close(later);
        let closed: Vec<_> = all.iter().map(|newcomer| newcomer.closed().is_raised()).collect();
        assert_eq!(closed, [false, true, false]);
        crowd.close(later);
        crowd.close(later);
        assert!(!all[0].closed().is_raised() && all[2].closed().is_raised());
        assert!(!all[1].let_in(true), "too late");
        // An address loses those of its connections that made room.
        let counted = crowd.welcome();
        assert!(counted.count([10, 0, 0, 1].into(), 1));
        crowd.close(now() + PATIENCE);
        drop(counted);
        assert!(crowd.all().networks.is_empty());
    }
}
