//! Set-ups that break servers: filters that kill, disks without locks, links or flushes, folders that are not there, files
//! that come and go, and what an operator is told about them.
#![allow(clippy::pedantic, clippy::restriction, unreachable_pub, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/pki.rs"]
mod pki;

mod checks;
mod disks;
mod faulty_mount;
mod files;
mod filters;
mod folders;
mod ground;
mod readiness;
mod spellings;
mod words;
