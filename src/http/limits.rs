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
