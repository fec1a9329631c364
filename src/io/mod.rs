//! The machine: rings, threads, files, sockets, buffers, clocks.
//!
//! The only folder that names monoio, io-uring or rustix. Everything above reaches time, spawning, randomness and
//! the file system through it, so that the store can later run on a seeded executor.
//!
//! Invariant: nothing here that may wait on a disk or a journal runs inline on a worker. It goes to the ring or
//! to the bounded [`blocking::Pool`].

pub mod affinity;
pub mod blocking;
pub mod budget;
pub mod buffer;
pub mod dir;
pub mod errno;
pub mod file;
pub mod filter;
pub mod flush;
pub mod gate;
pub mod limits;
pub mod listener;
pub mod listing;
pub mod names;
mod node;
mod optional;
pub mod place;
pub mod privileges;
pub mod records;
pub mod ring;
pub mod runtime;
pub mod sandbox;
pub mod shares;
pub mod signal;
pub mod small;
pub mod socket;
pub mod spelling;
pub mod state;
pub mod sync;
pub mod syscalls;
pub mod user;
pub mod wake;

pub use buffer::{Buffer, BufferPool};
pub use errno::Fault;
