//! A request's body: piece by piece, with back-pressure, in buffers of the worker's pool.

use std::time::Duration;

use thiserror::Error;

use crate::http::chunked::{Decoder, Malformed};
use crate::http::conn::{Conn, TransferError};
use crate::http::head::{Expect, Framing, Head};
use crate::http::limits::{MAX_DRAIN_BYTES, MAX_HEAD_BYTES};
use crate::http::pace::Pace;
use crate::io::Buffer;
use crate::io::buffer::{ALIGNMENT, BUFFER_BYTES};
use crate::io::runtime::{now, sleep, timeout};

/// How long a buffer that is not full waits for more of the body, if there are enough others. Full ones cost the least to
/// hash and to write.
const MAX_FILL_WAIT: Duration = Duration::from_millis(50);

/// Most bytes that are waited for at once: no more than any socket holds.
const MAX_WAKE_BYTES: usize = 64 * 1024;

/// How often it is looked whether a client that waits for an answer has gone.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Who takes longer to send so many would not fill a buffer in time.
const SLOW: Duration = Duration::from_millis(6);

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
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Body<'c> {
    conn: &'c mut Conn,
    rest: Rest,
    /// Bytes handed out, and most of a piece.
    taken: u64,
    most: usize,
    /// The client waits for `100 Continue` before it sends.
    awaited: bool,
    /// The client did not fill the last buffer in time.
    slow: bool,
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
        let (most, pace) = (BUFFER_BYTES, Pace::default());
        Self { conn, rest, taken: 0, most, awaited, slow: false, broken: false, crowded: false, pace }
    }

    /// Comes in pieces of at most a quarter of a buffer from now on.
    pub const fn in_small_pieces(&mut self) {
        self.most = BUFFER_BYTES / 4;
    }

    /// The announced length in bytes; none if the body is chunked.
    pub const fn announced(head: &Head) -> Option<u64> {
        match head.framing {
            Framing::Empty => Some(0),
            Framing::Length(bytes) => Some(bytes),
            Framing::Chunked => None,
        }
    }

    /// Waits until the client sends no more, of this body or anything else: it has gone, or only waits for the answer.
    pub async fn gone(&self) {
        loop {
            sleep(LOOK_EVERY).await;
            if self.conn.stream.has_ended() {
                return;
            }
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
                self.conn.send(b"HTTP/1.1 100 Continue\r\n\r\n", &mut self.pace).await?;
            }
            let piece = match self.rest {
                Rest::Length(left) => self.receive_counted(left).await?,
                Rest::Chunked(_) => self.receive_chunked().await?,
            };
            self.taken += piece.len() as u64;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// Some of the `left` bytes of a body whose length was announced: a full buffer, unless the client is slow.
    async fn receive_counted(&mut self, left: u64) -> Result<Buffer, BodyError> {
        // Pieces begin at multiples of what direct I/O asks for, again after one that was not full.
        let misplaced = usize::try_from(self.taken % ALIGNMENT as u64).unwrap_or(0);
        let whole = usize::try_from(left).unwrap_or(usize::MAX).min(self.most - misplaced);
        if self.slow {
            self.gather(whole).await?;
        }
        let mut piece = self.receive(whole).await?;
        let mut deadline = None;
        while piece.len() < whole {
            let missing = whole - piece.len();
            match self.conn.stream.read(piece.spare()) {
                Ok(Some(0)) => break,
                Ok(Some(count)) => self.note(&mut piece, count)?,
                Ok(None) if self.slow || !self.conn.buffers.has_plenty() => break,
                Ok(None) => {
                    let left = deadline
                        .get_or_insert_with(|| now() + MAX_FILL_WAIT)
                        .saturating_duration_since(now());
                    if self.wait_for(missing, left).await?.is_none() {
                        self.slow = true;
                        break;
                    }
                }
                Err(e) => return Err(TransferError::from(e).into()),
            }
        }
        self.rest = Rest::Length(left - piece.len() as u64);
        Ok(piece)
    }

    /// Lets a slow client send what is worth a buffer before it gets one: many such would take them all from fast ones.
    async fn gather(&mut self, whole: usize) -> Result<(), BodyError> {
        let waited = self.wait_for(whole, MAX_FILL_WAIT).await?;
        self.slow = waited.is_none_or(|waited| waited > SLOW);
        Ok(())
    }

    /// Waits until `missing` bytes have come, as far as a socket can tell, and returns how long that took. None if that was
    /// longer than `most`.
    async fn wait_for(&mut self, missing: usize, most: Duration) -> Result<Option<Duration>, BodyError> {
        let start = now();
        self.conn.stream.wake_at(missing.min(MAX_WAKE_BYTES));
        let came = timeout(most, self.conn.stream.readable()).await;
        self.conn.stream.wake_at(1);
        let waited = now().duration_since(start);
        self.pace.note(&self.conn.limits, waited, 0).map_err(TransferError::from)?;
        match came {
            Ok(readable) => readable.map(|()| Some(waited)).map_err(|e| TransferError::from(e).into()),
            Err(_elapsed) => Ok(None),
        }
    }

    /// Some data of a chunked body; none if only its coding came.
    async fn receive_chunked(&mut self) -> Result<Buffer, BodyError> {
        let mut piece = self.receive(self.most).await?;
        let Rest::Chunked(decoder) = &mut self.rest else { return Ok(piece) };
        let (data, next) = decoder.decode(piece.filled_mut())?;
        let next_request = piece.get(next..).unwrap_or_default();
        self.crowded |= next_request.len() > MAX_HEAD_BYTES;
        self.conn.received.splice(..0, next_request.iter().copied());
        piece.truncate(data);
        Ok(piece)
    }

    /// Some bytes of the body as they came, at most `limit`. No buffer is held while there are none.
    async fn receive(&mut self, limit: usize) -> Result<Buffer, BodyError> {
        if !self.conn.received.is_empty() {
            let mut buffer = self.conn.buffers.take().await;
            buffer.limit(limit);
            let count = buffer.append(&self.conn.received);
            self.conn.received.drain(..count);
            return Ok(buffer);
        }
        loop {
            // Every piece of a TLS record is a sign of life.
            Conn::transfer(&self.conn.limits, &mut self.pace, self.conn.stream.readable()).await?;
            let mut buffer = self.conn.buffers.take().await;
            // What belongs to the next request stays in the socket, as far as that can be told beforehand.
            buffer.limit(limit);
            match self.conn.stream.read(buffer.spare()) {
                Ok(Some(0)) => return Err(BodyError::Truncated),
                Ok(Some(count)) => {
                    self.note(&mut buffer, count)?;
                    return Ok(buffer);
                }
                Ok(None) => {}
                Err(e) => return Err(TransferError::from(e).into()),
            }
        }
    }

    /// Counts what was read into a buffer.
    fn note(&mut self, buffer: &mut Buffer, count: usize) -> Result<(), BodyError> {
        buffer.advance(count);
        Ok(self.pace.note(&self.conn.limits, Duration::ZERO, count).map_err(TransferError::from)?)
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
