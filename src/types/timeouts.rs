//! The clocks of a connection.

use std::time::Duration;

/// The time limits of a connection, settable on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For a request head, from its first byte.
    pub head: Duration,
    /// For a connection without a request.
    pub idle: Duration,
    /// For one receive or send without a byte.
    pub stall: Duration,
    /// Slowest body in bytes per second, averaged over `grace`, once `grace` has passed.
    pub min_rate: u64,
    /// See `min_rate`.
    pub grace: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            // restic keeps idle connections for 90 s; ours must not be the side that closes first.
            idle: Duration::from_mins(2),
            // restic itself gives up after five minutes without progress: ours must not be the side that closes first. With
            // `--limit-upload 1` (1 KiB/s) each of its five connections sends 32 KiB every 160 s.
            stall: Duration::from_mins(6),
            min_rate: 64,
            grace: Duration::from_mins(2),
        }
    }
}
