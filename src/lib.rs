//! packhouse: a restic REST server. This page is the map of its source.
//!
//! One io_uring runtime and one accept loop a core ([`server::shard`]); requests are read by [`http`], answered by
//! [`api`], and their bytes end in [`store`]. To follow one upload, read `server/connection.rs`, `api/mod.rs`,
//! `store/fs.rs` and `store/upload.rs`, in this order.
//!
//! Imports go down only; `tests/tidy.rs` holds the table.
//!
//! | layer | module | what it knows |
//! |---|---|---|
//! | 0 | [`types`] | the vocabulary: blob, repository, user, range. No I/O |
//! | 1 | [`io`] | the machine: rings, threads, files, sockets. The only one that names monoio, io-uring, rustix |
//! | 1 | [`hash`] | SHA-256 of what streams through, of many messages side by side |
//! | 1 | [`http`] | HTTP/1.1 as bytes; no route, no user |
//! | 1 | [`tls`] | certificates, and a stream that may be encrypted |
//! | 1 | [`metrics`], [`logging`] | counters; the logs |
//! | 2 | [`auth`] | who are you |
//! | 2 | [`policy`] | may you |
//! | 2 | [`quota`] | how much is stored, and may be |
//! | 2 | [`store`] | bytes at rest, behind the seams [`store::Store`] and [`store::disk::Disk`] |
//! | 3 | [`api`] | restic's protocol: route, authenticate, decide, store, respond |
//! | 4 | [`settings`] | what the operator wants |
//! | 4 | [`server`] | settings become parts, parts become threads |
//! | 4 | [`cli`] | commands and exit codes |

pub mod api;
pub mod auth;
pub mod cli;
pub mod hash;
pub mod http;
#[cfg(all(test, loom))]
mod interleavings;
pub mod io;
pub mod logging;
pub mod metrics;
pub mod policy;
pub mod quota;
pub mod server;
pub mod settings;
pub mod store;
pub mod tls;
pub mod types;
