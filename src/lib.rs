//! wip
#![allow(missing_docs)]
pub mod types;
pub mod io;
pub mod hash;
pub mod http;
pub mod store;
