//! wip
#![allow(missing_docs)]
pub mod types;
pub mod io;
pub mod hash;
pub mod http;
pub mod store;
pub mod auth;
pub mod logging;
pub mod metrics;
pub mod policy;
pub mod api;
pub mod settings;
pub mod server;
pub mod cli;
