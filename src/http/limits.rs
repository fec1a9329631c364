//! Every bound on a connection, in one place.

use std::time::Duration;

/// Largest request head, request line included. restic's are below 1 KiB; a proxy may add cookies and traces.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most header lines in a head.
pub const MAX_HEADERS: usize = 64;
/// Longest request target: two folders of 255 bytes, percent-encoded, and a query fit five times over.
pub const MAX_TARGET_BYTES: usize = 8 * 1024;
/// An unread request body up to this size is read and thrown away to keep the connection (as Go's server does).
pub const MAX_DRAIN_BYTES: u64 = 256 * 1024;
/// Most bytes thrown away before a connection is closed on a client that goes on sending.
pub const MAX_LINGER_BYTES: u64 = 32 * 1024 * 1024;
/// Longest time for the same.
pub const MAX_LINGER: Duration = Duration::from_secs(30);
/// Longest silence while lingering.
pub const MAX_LINGER_SILENCE: Duration = Duration::from_secs(2);

/// The time limits of a connection, settable on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
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

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            // restic keeps idle connections for 90 s; ours must not be the side that closes first.
            idle: Duration::from_mins(2),
            stall: Duration::from_mins(1),
            // `restic --limit-upload 1` (1 KiB/s over five connections) still gets 204 B/s on each.
            min_rate: 64,
            grace: Duration::from_mins(2),
        }
    }
}
