//! HTTP/1.1 (RFC 9110, RFC 9112) as bytes: heads, bodies, ranges, dates, and the connection that moves them.
//!
//! Knows no route and no user. `head`, `chunked`, `pace` and `range` are pure: bytes in, decision out.
//! Invariant: whatever two parsers could read in two ways is refused with 400 and the connection is closed.

pub mod body;
pub mod chunked;
pub mod condition;
pub mod conn;
pub mod date;
pub mod forwarded;
pub mod head;
pub mod limits;
pub mod pace;
pub mod proxy;
pub mod range;
pub mod response;

pub use body::{Body, BodyError};
pub use conn::Conn;
pub use head::{Expect, Framing, Head, HeadError};
pub use response::ResponseHead;
