//! A request's body: piece by piece, with back-pressure, in buffers of the worker's pool.

use thiserror::Error;

use crate::http::chunked::{Decoder, Malformed};
use crate::http::conn::{Conn, TransferError};
use crate::http::head::{Expect, Framing, Head};
use crate::http::limits::{MAX_DRAIN_BYTES, MAX_HEAD_BYTES};
use crate::http::pace::Pace;
use crate::io::Buffer;

/// Why a body could not be read to its end. The connection can't be used on.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The client ended the connection in mid body.
    #[error("the request body is cut short")]
    Truncated,
    /// The chunked coding is broken.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The connection broke, or the client was too slow.
    #[error(transparent)]
    Transfer(#[from] TransferError),
}

enum Rest {
    Length(u64),
    Chunked(Decoder),
}

/// The body of one request.
pub struct Body<'c> {
    conn: &'c mut Conn,
    rest: Rest,
    /// The client waits for `100 Continue` before it sends.
    awaited: bool,
    broken: bool,
    /// More was sent behind a chunked body than a connection may keep.
    crowded: bool,
    pace: Pace,
}

impl<'c> Body<'c> {
    pub(super) fn new(conn: &'c mut Conn, head: &Head) -> Self {
        let rest = match head.framing {
            Framing::Empty => Rest::Length(0),
            Framing::Length(bytes) => Rest::Length(bytes),
            Framing::Chunked => Rest::Chunked(Decoder::default()),
        };
        let awaited = head.expect != Expect::Nothing;
        Self { conn, rest, awaited, broken: false, crowded: false, pace: Pace::default() }
    }

    /// The announced length in bytes; none if the body is chunked.
    pub const fn announced(head: &Head) -> Option<u64> {
        match head.framing {
            Framing::Empty => Some(0),
            Framing::Length(bytes) => Some(bytes),
            Framing::Chunked => None,
        }
    }

    fn is_done(&self) -> bool {
        match &self.rest {
            Rest::Length(left) => *left == 0,
            Rest::Chunked(decoder) => decoder.is_done(),
        }
    }

    /// The next piece, never empty; none at the end. The first call answers `Expect: 100-continue`, so it must come
    /// after every refusal that the head allows.
    ///
    /// # Errors
    /// After an error the connection must be closed, see [`Self::settle`].
    pub async fn next(&mut self) -> Result<Option<Buffer>, BodyError> {
        let next = self.advance().await;
        self.broken |= next.is_err();
        next
    }

    async fn advance(&mut self) -> Result<Option<Buffer>, BodyError> {
        while !self.is_done() {
            if std::mem::take(&mut self.awaited) {
                self.conn.send(b"HTTP/1.1 100 Continue\r\n\r\n".as_slice(), &mut self.pace).await?;
            }
            let mut piece = self.receive().await?;
            let next_request = match &mut self.rest {
                Rest::Length(left) => take_length(left, &mut piece),
                Rest::Chunked(decoder) => decoder.decode(&mut piece)?,
            };
            self.crowded |= next_request.len() > MAX_HEAD_BYTES;
            if !next_request.is_empty() {
                self.conn.received.splice(..0, next_request);
            }
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// Some bytes of the body as they came. No buffer is held while there are none.
    async fn receive(&mut self) -> Result<Buffer, BodyError> {
        let conn = &mut *self.conn;
        if !conn.received.is_empty() {
            let mut buffer = conn.buffers.take().await;
            let count = conn.received.len().min(buffer.capacity());
            buffer.extend(conn.received.drain(..count));
            return Ok(buffer);
        }
        // Every piece of a TLS record is a sign of life.
        loop {
            let readable = async { (conn.stream.readable().await.map(|()| 0), ()) };
            Conn::transfer(&conn.limits, &mut self.pace, readable).await?;
            if conn.stream.has_input() {
                break;
            }
        }
        let buffer = conn.buffers.take().await;
        // What belongs to the next request stays in the socket, as far as that can be told beforehand.
        let room = match &self.rest {
            Rest::Length(left) => usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.capacity()),
            Rest::Chunked(_) => buffer.capacity(),
        };
        let read = conn.stream.read_upto(buffer, room);
        let (read, buffer) = Conn::transfer(&conn.limits, &mut self.pace, read).await?;
        if read == 0 { Err(BodyError::Truncated) } else { Ok(buffer) }
    }

    /// The connection, to send the response on.
    pub const fn conn(&mut self) -> &mut Conn {
        self.conn
    }

    /// Whether the connection can carry another request once [`Self::settle`] has run: to be told in the response.
    pub const fn may_keep_alive(&self) -> bool {
        let short = match &self.rest {
            Rest::Length(left) => *left <= MAX_DRAIN_BYTES,
            Rest::Chunked(_) => true,
        };
        // A client that still waits for 100 may or may not send its body now: where the next request begins is unknown.
        !self.broken && !self.crowded && short && (!self.awaited || matches!(self.rest, Rest::Length(0)))
    }

    /// Reads and forgets what the handler left of the body. False if the connection can't carry another request.
    pub async fn settle(mut self) -> bool {
        let mut drained = 0;
        while self.may_keep_alive() && drained <= MAX_DRAIN_BYTES {
            match self.next().await {
                Ok(None) => return true,
                Ok(Some(piece)) => drained += piece.len() as u64,
                Err(_) => return false,
            }
        }
        false
    }
}

/// Leaves in `piece` what belongs to a body of `left` more bytes and returns what follows it.
fn take_length(left: &mut u64, piece: &mut Buffer) -> Vec<u8> {
    let used = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len());
    *left -= used as u64;
    let rest = piece.get(used..).unwrap_or_default().to_vec();
    piece.truncate(used);
    rest
}
