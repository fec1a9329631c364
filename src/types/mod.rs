//! The vocabulary: what restic and this server talk about. No I/O, no async, no runtime.
//!
//! Any layer may use it. Invariant: a value of one of these types is already valid, so nothing below
//! `api::route` ever sees a raw path or an unparsed name.

pub mod blob;
pub mod blocks;
pub mod direct;
pub mod handshake;
pub mod listen;
pub mod network;
pub mod overlap;
pub mod range;
pub mod repo;
pub mod right;
pub mod timeouts;
pub mod user;

pub use blob::{BlobId, BlobType, Handle, Object};
pub use blocks::{BLOCK_BYTES, on_disk};
pub use direct::DirectIo;
pub use handshake::HandshakeFailure;
pub use listen::ListenAddress;
pub use network::ClientNetwork;
pub use range::ByteRange;
pub use repo::{FolderName, RepoPath, escaped};
pub use right::{PathPattern, Right};
pub use timeouts::Timeouts;
pub use user::{Principal, UserName};

/// Room that is held for an upload ahead of what has arrived, in bytes: a pack's, so that a full disk is known before most
/// bodies come. As much again as has arrived is added to it.
pub const AHEAD_BYTES: u64 = 32 << 20;

/// Says that a connection begins with a PROXY header, where none is expected.
pub const UNASKED_PROXY_HEADER: &str =
    "a PROXY header, and none is expected from there: see --proxy-protocol and --trusted-proxy";
