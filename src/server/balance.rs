//! Which worker serves which connection. The kernel hands a new one to whoever asks first; here it moves on to the worker
//! with the fewest that are busy, and a kept-alive one may move again between two requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam::queue::SegQueue;
use crossbeam::utils::CachePadded;
use event_listener::Event;

use crate::io::gate::Permit;
use crate::io::socket::Detached;
use crate::io::wake::until;
use crate::server::door::{Door, Visitor};
use crate::tls::DetachedStream;

/// A connection that was silent for so long does not count as busy.
pub const BUSY_FOR: Duration = Duration::from_secs(1);
/// A connection moves if its worker has so many more than the one it moves to.
const WORTH_MOVING: usize = 2;

/// A connection between two workers.
pub struct Moving {
    /// What there is of it.
    pub what: Parcel,
    /// Its place among all.
    pub permit: Permit,
    /// Its place with the worker.
    pub seat: Seat,
}

/// What is moved.
pub enum Parcel {
    /// Just accepted, by a listener that is for this.
    New(Detached, Door),
    /// Between two requests.
    Known(Box<Visitor<DetachedStream>>),
}

#[derive(Default)]
struct Desk {
    busy: AtomicUsize,
    arriving: SegQueue<Moving>,
    arrived: Event,
}

/// The workers and what they have to do. Shared by all shards.
pub struct Balance {
    desks: Vec<CachePadded<Desk>>,
    enabled: bool,
}

/// A busy connection; it counts for its worker until this is dropped.
pub struct Seat {
    balance: Arc<Balance>,
    worker: usize,
}

impl Balance {
    /// Of so many workers; none moves anything unless `enabled`.
    pub fn new(workers: usize, enabled: bool) -> Self {
        Self { desks: (0..workers).map(|_| CachePadded::default()).collect(), enabled }
    }

    /// Counts one more busy connection for a worker.
    pub fn sit(self: &Arc<Self>, worker: usize) -> Seat {
        if let Some(desk) = self.desks.get(worker) {
            desk.busy.fetch_add(1, Ordering::Relaxed);
        }
        Seat { balance: Arc::clone(self), worker }
    }

    fn busy(&self, worker: usize) -> usize {
        self.desks.get(worker).map_or(0, |desk| desk.busy.load(Ordering::Relaxed))
    }

    /// The worker that a new connection of `worker` is to go to: itself, unless another has less to do.
    pub fn of_new(&self, worker: usize) -> usize {
        self.better_by(1, worker).unwrap_or(worker)
    }

    /// The worker that a busy connection of `worker` is to move to, if that is worth it.
    pub fn better(&self, worker: usize) -> Option<usize> {
        self.better_by(WORTH_MOVING, worker)
    }

    fn better_by(&self, least: usize, worker: usize) -> Option<usize> {
        if !self.enabled {
            return None;
        }
        let other = (0..self.desks.len()).min_by_key(|other| self.busy(*other))?;
        (self.busy(worker) >= self.busy(other) + least).then_some(other)
    }

    /// Sends a connection to the worker that its seat is with.
    pub fn send(&self, moving: Moving) {
        if let Some(desk) = self.desks.get(moving.seat.worker) {
            desk.arriving.push(moving);
            desk.arrived.notify_additional(1);
        }
    }

    /// Waits for a connection that is sent to `worker`.
    pub async fn receive(&self, worker: usize) -> Moving {
        match self.desks.get(worker) {
            Some(desk) => until(&desk.arrived, || desk.arriving.pop()).await,
            None => std::future::pending().await,
        }
    }
}

impl Seat {
    /// The worker that it counts for.
    pub const fn worker(&self) -> usize {
        self.worker
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(desk) = self.balance.desks.get(self.worker) {
            desk.busy.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_there_are_fewest_and_stay_where_it_is_even() {
        let balance = Arc::new(Balance::new(3, true));
        let mut seats = Vec::new();
        for _ in 0..9 {
            seats.push(balance.sit(balance.of_new(0)));
        }
        assert_eq!([0, 1, 2].map(|worker| balance.busy(worker)), [3, 3, 3]);
        assert_eq!(balance.better(0), None);
        seats.retain(|seat| seat.worker() != 2);
        assert_eq!((balance.busy(2), balance.better(0)), (0, Some(2)));
        seats.push(balance.sit(2));
        seats.push(balance.sit(2));
        assert_eq!(balance.better(0), None, "three and two are even");
        let off = Arc::new(Balance::new(2, false));
        let _one = off.sit(0);
        assert_eq!((off.of_new(0), off.better(0)), (0, None));
    }
}
