//! The thread that waits for the end: announces that the server is up, passes signals on, and counts the workers out.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError};

use crate::auth::Authenticator;
use crate::io::listener::Listener;
use crate::io::signal::Signal;
use crate::logging::PLAIN;
use crate::metrics::Counters;
use crate::server::control::Event;
use crate::server::shard::Shared;

/// Time that workers have beyond the drain limit to say that they are done.
const GRACE: Duration = Duration::from_secs(5);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stopped by a signal, requests in flight had their time.
    Stopped,
    /// Stopped at once by a second signal.
    StoppedAtOnce,
    /// A worker failed.
    Failed,
}

/// What the waiting thread looks after.
pub struct Watch {
    /// What happens to the server.
    pub happened: Receiver<Event>,
    /// Number of workers.
    pub workers: usize,
    /// The bound sockets: a unix socket's file goes with them.
    pub listeners: Vec<Listener>,
    /// What the shards share.
    pub shared: Arc<Shared>,
    /// The users, to be read anew on SIGHUP.
    pub auth: Option<Arc<Authenticator>>,
    /// How long requests in flight may take after the signal to stop.
    pub drain: Duration,
}

impl Watch {
    /// Waits until all workers have drained, or one has failed.
    pub fn until_the_end(self) -> Outcome {
        let (mut ready, mut drained, mut cut) = (0, 0, 0);
        while drained < self.workers {
            match self.next() {
                Ok(Event::Ready) => {
                    ready += 1;
                    self.announce(ready);
                }
                Ok(Event::Signal(Signal::Reload)) => self.reload(),
                Ok(Event::Signal(Signal::Stop)) if self.shared.stopping.is_raised() => {
                    log::warn!("stopped at once by a second signal");
                    return Outcome::StoppedAtOnce;
                }
                Ok(Event::Signal(Signal::Stop)) => {
                    log::info!("stopping: requests in flight have {} s", self.drain.as_secs());
                    self.shared.stopping.raise();
                    self.listeners.iter().for_each(Listener::close);
                }
                Ok(Event::Drained(left)) => (drained, cut) = (drained + 1, cut + left),
                Ok(Event::Failed(why)) => {
                    log::error!("a worker failed: {why}");
                    return Outcome::Failed;
                }
                Err(_) => {
                    log::error!("a worker did not end in time");
                    return Outcome::Failed;
                }
            }
        }
        self.farewell(cut);
        Outcome::Stopped
    }

    /// A worker that does not answer any more must not keep the process alive.
    fn next(&self) -> Result<Event, RecvTimeoutError> {
        if self.shared.stopping.is_raised() {
            self.happened.recv_timeout(self.drain.saturating_add(GRACE))
        } else {
            self.happened.recv().map_err(Into::into)
        }
    }

    fn announce(&self, ready: usize) {
        if ready == self.workers {
            for listener in &self.listeners {
                log::info!(target: PLAIN, "start server on {}", listener.address());
            }
        }
    }

    fn reload(&self) {
        match self.auth.as_ref().map(|auth| auth.reload()) {
            None => log::info!("nothing to reload: authentication is off"),
            Some(Ok(users)) => log::info!("reloaded the password file: {users} users"),
            Some(Err(e)) => log::error!("the password file was not reloaded, the old users stay: {e}"),
        }
    }

    fn farewell(&self, cut: usize) {
        let Counters { connections, requests, refusals, panics, stalls, accept_failures } =
            &self.shared.counters;
        if cut > 0 {
            log::warn!("{cut} connections were cut: their requests did not end in time");
        }
        log::info!(
            "shutdown cleanly: {} connections, {} requests, {} refusals, {} panics, {} stalls, {} failed accepts",
            connections.get(),
            requests.get(),
            refusals.get(),
            panics.get(),
            stalls.get(),
            accept_failures.get()
        );
    }
}
