//! How many connections each address has. Shared by all shards.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::types::ClientNetwork;

/// Counts connections by address.
#[derive(Default)]
pub struct Crowd(Mutex<HashMap<ClientNetwork, usize>>);

impl Crowd {
    /// Counts one more connection, unless the address has `most` already.
    pub fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Place> {
        let network = ClientNetwork::from(address);
        let mut counts = self.counts();
        let count = counts.entry(network).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { crowd: Arc::clone(self), network })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<ClientNetwork, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection; it counts until this is dropped.
pub struct Place {
    crowd: Arc<Crowd>,
    network: ClientNetwork,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts();
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share() {
        let crowd = Arc::new(Crowd::default());
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let first = crowd.enter(one, 1);
        assert!(first.is_some() && crowd.enter(one, 1).is_none() && crowd.enter(other, 1).is_some());
        drop(first);
        assert!(crowd.enter(one, 1).is_some());
        assert!(crowd.counts().is_empty());
    }
}
