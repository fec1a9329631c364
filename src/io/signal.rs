//! Signals, on a thread of their own, and the latch that they set.

use std::io;
use std::thread;

use event_listener::Event;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::io::sync::atomic::{AtomicBool, Ordering};
use crate::io::wake::until;

/// A latch that is raised once and can be waited for by every worker.
#[derive(Default)]
pub struct Latch {
    raised: AtomicBool,
    event: Event,
}

impl Latch {
    /// Raises the latch and wakes all who wait for it.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
        self.event.notify(usize::MAX);
    }

    /// Whether the latch is up.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    /// Waits until the latch is up.
    pub async fn wait(&self) {
        until(&self.event, || self.is_raised().then_some(())).await;
    }
}

/// A signal that asks something of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// SIGUSR1: the log was rotated.
    Reopen,
}

/// Calls `on_signal` for every signal that comes, on a thread of its own.
pub fn listen(on_signal: impl Fn(Signal) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            on_signal(match signal {
                SIGHUP => Signal::Reload,
                SIGUSR1 => Signal::Reopen,
                _ => Signal::Stop,
            });
        }
    })?;
    Ok(())
}
