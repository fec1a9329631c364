//! A gate that parties share: it lets in so many at once, and of each party no more than places are left free then. So one
//! alone gets half of them, two a third each, and who comes new finds room whatever the others do (the "dynamic threshold"
//! by which switches share their buffers). Those who wait have turns, by party.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{PoisonError, Weak};

use event_listener::Event;

use crate::io::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::io::sync::{Mutex, MutexGuard};
use crate::io::wake::until;

// A weak one is needed, which loom does not have.
use std::sync::Arc;

/// Parties that are kept in mind before those that are gone are looked for.
const MANY_PARTIES: usize = 1024;

/// The gate. `K` names a party.
pub struct Shares<K> {
    gate: Arc<Gate>,
    parties: Mutex<HashMap<K, Weak<Party>>>,
}

/// How many places one party has.
#[derive(Default)]
pub struct Party(AtomicUsize);

struct Gate {
    limit: usize,
    taken: AtomicUsize,
    /// How many wait, to be seen without the lock.
    waiting: AtomicUsize,
    line: Mutex<Line>,
}

type Line = VecDeque<(Arc<Party>, VecDeque<Arc<Waiter>>)>;

#[derive(Default)]
struct Waiter {
    granted: AtomicBool,
    event: Event,
}

impl<K: Hash + Eq> Shares<K> {
    /// A gate for so many.
    pub fn new(limit: usize) -> Self {
        let gate =
            Gate { limit, taken: AtomicUsize::new(0), waiting: AtomicUsize::new(0), line: Mutex::default() };
        Self { gate: Arc::new(gate), parties: Mutex::default() }
    }

    /// Most at once.
    pub fn limit(&self) -> usize {
        self.gate.limit
    }

    /// Whether no more than a quarter of the places are taken.
    pub fn has_plenty(&self) -> bool {
        self.gate.taken.load(Ordering::SeqCst) <= self.gate.limit / 4
    }

    /// The party of this name, to be asked for once and kept.
    pub fn party(&self, name: K) -> Arc<Party> {
        let mut parties = self.parties.lock().unwrap_or_else(PoisonError::into_inner);
        if parties.len() >= MANY_PARTIES {
            parties.retain(|_, party| party.strong_count() > 0);
        }
        let known = parties.get(&name).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let party = Arc::default();
            parties.insert(name, Arc::downgrade(&party));
            party
        })
    }

    /// A place, if nobody waits and the party may have one more.
    pub fn try_enter(&self, party: &Arc<Party>) -> Option<Place> {
        let free = self.gate.waiting.load(Ordering::SeqCst) == 0 && self.gate.take(party);
        free.then(|| self.place(party))
    }

    /// Waits for a place.
    pub async fn enter(&self, party: &Arc<Party>) -> Place {
        let ticket = Ticket::new(&self.gate, party);
        until(&ticket.waiter.event, || ticket.waiter.granted.load(Ordering::SeqCst).then_some(())).await;
        ticket.waiter.granted.store(false, Ordering::SeqCst);
        self.place(party)
    }

    fn place(&self, party: &Arc<Party>) -> Place {
        Place { gate: Arc::clone(&self.gate), party: Arc::clone(party) }
    }
}

impl Gate {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more of a party. Whoever is refused must wait in line: others may have been refused for its sake meanwhile, and
    /// the line is looked at again then.
    fn take(&self, party: &Party) -> bool {
        let held = party.0.fetch_add(1, Ordering::SeqCst) + 1;
        let taken = self.taken.fetch_add(1, Ordering::SeqCst) + 1;
        let free = self.limit.checked_sub(taken);
        let may = free.is_some_and(|free| held == 1 || held <= free);
        if !may {
            self.put_back(party);
        }
        may
    }

    fn put_back(&self, party: &Party) {
        party.0.fetch_sub(1, Ordering::SeqCst);
        self.taken.fetch_sub(1, Ordering::SeqCst);
    }

    fn give_back(&self, party: &Party) {
        self.put_back(party);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.grant(&mut self.line());
        }
    }

    /// Lets in whoever may, in turn.
    fn grant(&self, line: &mut Line) {
        let mut refused = 0;
        while refused < line.len() && self.taken.load(Ordering::SeqCst) < self.limit {
            let Some((party, mut waiters)) = line.pop_front() else { return };
            if self.take(&party) {
                refused = 0;
                if let Some(waiter) = waiters.pop_front() {
                    self.waiting.fetch_sub(1, Ordering::SeqCst);
                    waiter.granted.store(true, Ordering::SeqCst);
                    waiter.event.notify(usize::MAX);
                }
            } else {
                refused += 1;
            }
            if !waiters.is_empty() {
                line.push_back((party, waiters));
            }
        }
    }
}

/// Somebody in the line.
struct Ticket<'g> {
    gate: &'g Gate,
    party: &'g Arc<Party>,
    waiter: Arc<Waiter>,
}

impl<'g> Ticket<'g> {
    fn new(gate: &'g Gate, party: &'g Arc<Party>) -> Self {
        let waiter = Arc::<Waiter>::default();
        let mut line = gate.line();
        gate.waiting.fetch_add(1, Ordering::SeqCst);
        match line.iter_mut().find(|(other, _)| Arc::ptr_eq(other, party)) {
            Some((_, waiters)) => waiters.push_back(Arc::clone(&waiter)),
            None => line.push_back((Arc::clone(party), VecDeque::from([Arc::clone(&waiter)]))),
        }
        gate.grant(&mut line);
        drop(line);
        Self { gate, party, waiter }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut line = self.gate.line();
        for (_, waiters) in line.iter_mut() {
            let before = waiters.len();
            waiters.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
            self.gate.waiting.fetch_sub(before - waiters.len(), Ordering::SeqCst);
        }
        line.retain(|(_, waiters)| !waiters.is_empty());
        drop(line);
        // Granted, and not taken.
        if self.waiter.granted.load(Ordering::SeqCst) {
            self.gate.give_back(self.party);
        }
    }
}

/// A place; given back when dropped.
pub struct Place {
    gate: Arc<Gate>,
    party: Arc<Party>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.give_back(&self.party);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::runtime::{Driver, block_on, timeout};
    use std::time::Duration;

    #[test]
    fn one_alone_has_half_and_who_comes_new_finds_room() {
        let shares = Shares::new(8);
        let [a, b, c] = ["a", "b", "c"].map(|name| shares.party(name));
        let all = |party| std::iter::from_fn(|| shares.try_enter(party)).collect::<Vec<_>>();
        let mut of_a = all(&a);
        let (of_b, of_c) = (all(&b), all(&c));
        assert_eq!((of_a.len(), of_b.len(), of_c.len()), (4, 2, 1));
        assert!(Arc::ptr_eq(&a, &shares.party("a")));
        of_a.truncate(1);
        assert_eq!(all(&b).len(), 1, "of eight one is a's, three are b's, one is c's, three are free");
    }

    #[test]
    fn who_waits_has_turns_and_who_gives_up_leaves_nothing() {
        let shares = Shares::new(2);
        let [a, b] = ["a", "b"].map(|name| shares.party(name));
        let work = async {
            let first = shares.try_enter(&a).expect("room");
            let second = timeout(Duration::from_millis(5), shares.enter(&a)).await;
            assert!(second.is_err(), "a has its share");
            assert_eq!(shares.gate.waiting.load(Ordering::SeqCst), 0);
            let other = shares.try_enter(&b).expect("room for another");
            let mut waiting = std::pin::pin!(shares.enter(&a));
            assert!(timeout(Duration::from_millis(5), waiting.as_mut()).await.is_err());
            assert!(shares.try_enter(&b).is_none());
            drop(first);
            let again = timeout(Duration::from_secs(5), waiting).await.expect("granted");
            drop((again, other));
            // Granted and not looked at.
            let held = (shares.enter(&a).await, shares.enter(&b).await);
            let ticket = Ticket::new(&shares.gate, &b);
            drop(held);
            assert!(ticket.waiter.granted.load(Ordering::SeqCst));
            drop(ticket);
            assert_eq!(shares.gate.taken.load(Ordering::SeqCst), 0);
        };
        block_on(Driver::Epoll, work).expect("a runtime");
    }
}
