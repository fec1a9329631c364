//! Who may do what: logins, certificates, proxies, rights, quotas, limits, settings, over real connections.
#![allow(clippy::pedantic, clippy::restriction, unreachable_pub, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/pki.rs"]
mod pki;

mod attacks;
mod calls;
mod confine;
mod limits;
mod logins;
mod metrics;
mod proxies;
mod quotas;
mod reload;
mod rights;
mod sockets;
mod tls;
mod trust;
mod users;
