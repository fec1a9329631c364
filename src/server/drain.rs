//! The thread that waits for the end: announces that the server is up, passes signals on, and counts the workers out.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use sd_notify::NotifyState;

use crate::io::signal::Signal;
use crate::logging::PLAIN;
use crate::metrics::{Counter, Counters};
use crate::quota::Ledger;
use crate::server::confine::seal;
use crate::server::control::Event;
use crate::server::folders::DataLock;
use crate::server::listen::Listening;
use crate::server::notify::notify;
use crate::server::reload::Job;
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

/// The thread that waits for the end, and what it looks after.
pub struct Supervisor {
    /// What happens to the server.
    pub happened: Receiver<Event>,
    /// The bound sockets: a unix socket's file goes with them.
    pub listeners: Vec<Listening>,
    /// What the shards share.
    pub shared: Arc<Shared>,
    /// What every worker counts.
    pub counters: Vec<Arc<Counters>>,
    /// What takes new settings, on a thread of its own: a file that it reads may lie on a disk that does not answer.
    pub reloads: Sender<Job>,
    /// How long requests in flight may take after the signal to stop.
    pub drain: Duration,
    /// The ledger of quotas, closed at the end.
    pub ledger: Arc<Ledger>,
    /// The data folder, held to the end.
    pub data_lock: DataLock,
}

impl Supervisor {
    /// Waits until all workers have drained, or one has failed. With `sandbox` gives up what only the start needed, once all
    /// workers are ready.
    pub fn run(self, sandbox: bool) -> Outcome {
        let (mut ready, mut drained, mut cut) = (0, 0, 0);
        while drained < self.counters.len() {
            match self.next() {
                Ok(Event::Ready) => {
                    ready += 1;
                    self.announce(ready, sandbox);
                }
                // What came of it is in the log.
                Ok(Event::Signal(Signal::Reload)) => self.leave(Job::Reload(None)),
                Ok(Event::Reload(reply)) => self.leave(Job::Reload(Some(reply))),
                Ok(Event::Signal(Signal::Reopen)) => self.leave(Job::Reopen),
                Ok(Event::FilesChanged) => self.leave(Job::Files),
                Ok(Event::TryFilesAgain) => self.leave(Job::FailedFiles),
                Ok(Event::Signal(Signal::Stop)) if self.shared.stopping.is_raised() => {
                    log::warn!("stopped at once by a second signal");
                    return Outcome::StoppedAtOnce;
                }
                Ok(Event::Signal(Signal::Stop)) => {
                    log::info!("stopping: requests in flight have {} s", self.drain.as_secs());
                    notify(&[NotifyState::Stopping]);
                    self.shared.stopping.raise();
                    self.listeners.iter().for_each(|listening| listening.listener.close());
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

    /// Leaves a job to the thread that reloads, which lives as long as this.
    fn leave(&self, job: Job) {
        self.reloads.send(job).ok();
    }

    /// A worker that does not answer any more must not keep the process alive.
    fn next(&self) -> Result<Event, RecvTimeoutError> {
        if self.shared.stopping.is_raised() {
            self.happened.recv_timeout(self.drain.saturating_add(GRACE))
        } else {
            self.happened.recv().map_err(Into::into)
        }
    }

    fn announce(&self, ready: usize, sandbox: bool) {
        if ready < self.counters.len() {
            return;
        }
        if sandbox {
            seal();
        }
        for Listening { listener, door } in &self.listeners {
            let what = if door.admin { "start admin server on" } else { "start server on" };
            log::info!(target: PLAIN, "{what} {}", listener.address());
        }
        notify(&[NotifyState::Ready]);
    }

    fn farewell(&self, cut: usize) {
        if let Some(log) = &self.shared.access_log {
            log.flush();
        }
        if cut > 0 {
            log::warn!("{cut} connections were cut: their requests did not end in time");
        } else {
            // Nothing is in flight: what is stored is known exactly.
            self.ledger.close();
        }
        let sum = |pick: &dyn Fn(&Counters) -> u64| self.counters.iter().map(|c| pick(c)).sum::<u64>();
        let get = |pick: fn(&Counters) -> &Counter| sum(&|counters| pick(counters).get());
        log::info!(
            "shutdown cleanly: {} connections, {} requests, {} refusals, {} panics, {} failed accepts",
            get(|c| &c.connections),
            sum(&Counters::all_requests),
            sum(&Counters::all_refusals),
            get(|c| &c.panics),
            get(|c| &c.accept_failures)
        );
    }
}
