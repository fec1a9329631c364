//! wip
#![allow(missing_docs)]
pub mod api;
pub mod auth;
pub mod cli;
pub mod hash;
pub mod http;
pub mod io;
pub mod logging;
pub mod metrics;
pub mod policy;
pub mod server;
pub mod settings;
pub mod store;
pub mod types;
