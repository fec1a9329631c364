//! restic's REST protocol over TCP, black box. The numbers are those of the conformance cases that the design lists; every
//! test runs on both I/O drivers.
#![allow(clippy::pedantic, clippy::restriction, unreachable_pub, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod blobs;
mod conditions;
mod create;
mod disk;
mod flushes;
mod framing;
mod hostile;
mod lifecycle;
mod lists;
mod logins;
mod modes;
mod paths;
mod ranges;
mod scrub;
mod timing;
