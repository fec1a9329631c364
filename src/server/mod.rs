//! Composition: the settings become parts, the parts become threads, and the threads are stopped.

pub mod assemble;
pub mod banner;
pub mod connection;
pub mod control;
pub mod drain;
pub mod error;
pub mod gate;
pub mod shard;

pub use assemble::run;
pub use error::StartError;
