//! Signals, on a thread of their own, and the latch that they set.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use event_listener::Event;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::io::sync::atomic::{AtomicBool, Ordering};
use crate::io::wake::until;

/// Time that the process has to end by itself after a second signal to stop.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// The exit code of a process that was stopped at once.
const AT_ONCE: i32 = 1;

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

/// Signals that were caught and wait to be listened to.
pub struct Caught(Signals);

/// Catches the signals that would end a process which does not expect them, before it does anything else: a reload that comes
/// while it starts waits, and a file that would be larger than `ulimit -f` is an error (EFBIG).
///
/// # Errors
/// They can't be caught.
pub fn catch() -> io::Result<Caught> {
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    Ok(Caught(Signals::new([SIGHUP, SIGUSR1])?))
}

/// Calls `on_signal` for every signal that comes, and those that have come, on a thread of its own.
///
/// A second signal to stop ends the process, whatever it waits for by then, should nobody have ended it in the meantime.
#[expect(clippy::exit, reason = "the process is told to end, and its other threads do not answer")]
pub fn listen(caught: Caught, on_signal: impl Fn(Signal) + Send + 'static) -> io::Result<()> {
    let Caught(mut signals) = caught;
    let handle = signals.handle();
    [SIGTERM, SIGINT].into_iter().try_for_each(|signal| handle.add_signal(signal))?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut stops = 0;
        for signal in signals.forever() {
            let signal = match signal {
                SIGHUP => Signal::Reload,
                SIGUSR1 => Signal::Reopen,
                _ => Signal::Stop,
            };
            on_signal(signal);
            stops += u32::from(signal == Signal::Stop);
            if stops > 1 {
                thread::sleep(LAST_WAIT);
                std::process::exit(AT_ONCE);
            }
        }
    })?;
    Ok(())
}
