//! Response heads.

use std::borrow::Cow;
use std::io::Write;

use http::StatusCode;

use crate::http::date::with_date;

/// The `Server` header.
pub const SERVER: &str = concat!("packhouse/", env!("CARGO_PKG_VERSION"));

/// How the end of a response's body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// `Content-Length`, in bytes. To HEAD it tells what GET would send.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// By closing the connection: HTTP/1.0.
    Close,
}

/// Status and headers of a response; length, date and connection are added when it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The headers. Values must be free of CR and LF: they are our own words and numbers, never a client's.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
}

impl ResponseHead {
    /// A head without headers.
    pub fn new(status: StatusCode) -> Self {
        // As many as an object's.
        Self { status, headers: Vec::with_capacity(5) }
    }

    /// A head for plain text, which no browser is to take for anything else.
    pub fn text(status: StatusCode) -> Self {
        Self::new(status)
            .with("Content-Type", "text/plain; charset=utf-8")
            .with("X-Content-Type-Options", "nosniff")
            .with("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The bytes of the head. `keep_alive` says whether the connection stays open, `is_1_1` what the client speaks.
    pub fn encode(&self, ending: Ending, keep_alive: bool, is_1_1: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        let reason = self.status.canonical_reason().unwrap_or("Unknown");
        // Writing to a vector can't fail.
        write!(out, "HTTP/1.1 {} {reason}\r\nServer: {SERVER}\r\n", self.status.as_u16()).ok();
        with_date(|date| write!(out, "Date: {date}\r\n").ok());
        for (name, value) in &self.headers {
            for part in [name, ": ", value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        match ending {
            Ending::Length(bytes) => write!(out, "Content-Length: {bytes}\r\n").ok(),
            Ending::Chunked => write!(out, "Transfer-Encoding: chunked\r\n").ok(),
            Ending::Close => None,
        };
        match (keep_alive, is_1_1) {
            (false, _) => out.extend(b"Connection: close\r\n"),
            (true, false) => out.extend(b"Connection: keep-alive\r\n"),
            (true, true) => {}
        }
        out.extend(b"\r\n");
        out
    }
}
