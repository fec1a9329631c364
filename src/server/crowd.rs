//! Connections whose client was never let in: in the order in which they came, and how many each address has. Who was let in
//! counts no more. Shared by all shards.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::io::signal::Latch;
use crate::types::ClientNetwork;

/// All newcomers.
#[derive(Default)]
pub struct Crowd(Mutex<Newcomers>);

#[derive(Default)]
struct Newcomers {
    next: u64,
    by_age: BTreeMap<u64, Arc<Latch>>,
    networks: HashMap<ClientNetwork, usize>,
}

impl Crowd {
    /// One more connection.
    pub fn welcome(self: &Arc<Self>) -> Newcomer {
        let closed = Arc::<Latch>::default();
        let mut all = self.all();
        let number = all.next;
        all.next += 1;
        all.by_age.insert(number, Arc::clone(&closed));
        drop(all);
        Newcomer { crowd: Arc::clone(self), number, network: None, closed, is_in: Cell::new(false) }
    }

    /// Makes room: the connection that has been here for the longest without being let in is to end.
    pub fn close_oldest(&self) {
        if let Some((_, oldest)) = self.all().by_age.pop_first() {
            oldest.raise();
        }
    }

    fn all(&self) -> MutexGuard<'_, Newcomers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection; it counts until its client is let in, or this is dropped.
pub struct Newcomer {
    crowd: Arc<Crowd>,
    number: u64,
    network: Option<ClientNetwork>,
    closed: Arc<Latch>,
    is_in: Cell<bool>,
}

impl Newcomer {
    /// Counts it for an address, unless that has `most` already.
    pub fn count(&mut self, address: IpAddr, most: usize) -> bool {
        let network = ClientNetwork::from(address);
        let mut all = self.crowd.all();
        let count = all.networks.entry(network).or_default();
        if *count >= most {
            return false;
        }
        *count += 1;
        self.network = Some(network);
        true
    }

    /// Its client is let in: it counts no more.
    pub fn let_in(&self) {
        if !self.is_in.replace(true) {
            let mut all = self.crowd.all();
            all.by_age.remove(&self.number);
            if let Some(network) = self.network
                && let Some(count) = all.networks.get_mut(&network)
            {
                *count -= 1;
                if *count == 0 {
                    all.networks.remove(&network);
                }
            }
        }
    }

    /// Raised when the connection is to make room for others.
    pub fn closed(&self) -> Arc<Latch> {
        Arc::clone(&self.closed)
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.let_in();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_of_those_who_are_not_let_in() {
        let crowd = Arc::new(Crowd::default());
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut first = crowd.welcome();
        assert!(first.count(one, 1));
        assert!(!crowd.welcome().count(one, 1) && crowd.welcome().count(other, 1));
        first.let_in();
        assert!(crowd.welcome().count(one, 1));
        assert!(crowd.all().networks.is_empty() && crowd.all().by_age.is_empty());
    }

    #[test]
    fn the_oldest_that_was_never_let_in_makes_room() {
        let crowd = Arc::new(Crowd::default());
        let all: Vec<_> = (0..3).map(|_| crowd.welcome()).collect();
        all[0].let_in();
        crowd.close_oldest();
        let closed: Vec<_> = all.iter().map(|newcomer| newcomer.closed().is_raised()).collect();
        assert_eq!(closed, [false, true, false]);
        crowd.close_oldest();
        crowd.close_oldest();
        assert!(!all[0].closed().is_raised() && all[2].closed().is_raised());
    }
}
