//! Composition: the settings become parts, the parts become threads, and the threads are stopped.

pub mod assemble;
pub mod balance;
pub mod banner;
pub mod check;
pub mod confine;
pub mod connection;
pub mod control;
pub mod count;
pub mod crowd;
pub mod door;
pub mod drain;
pub mod error;
pub mod folders;
pub mod gate;
pub mod inventory;
pub mod listen;
pub mod memory;
pub mod notify;
pub mod probe;
pub mod reload;
pub mod rules;
pub mod scrub;
pub mod shard;
pub mod upkeep;
pub mod warnings;
pub mod watch;

pub use assemble::run;
pub use check::check;
pub use confine::{confine, service_user};
pub use error::StartError;
