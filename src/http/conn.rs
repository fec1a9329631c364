//! One connection: waits for requests, reads heads, sends bytes, and closes so that the client reads the last answer.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::http::body::Body;
use crate::http::head::{self, Head, HeadError, Scanner};
use crate::http::limits::{MAX_HEAD_BYTES, MAX_LINGER, MAX_LINGER_BYTES, MAX_LINGER_SILENCE};
use crate::http::pace::{Pace, TooSlow};
use crate::io::BufferPool;
use crate::io::budget::{ByteShare, STEP_BYTES};
use crate::io::file::{File, Sent};
use crate::io::runtime::{Elapsed, now, timeout, turn};
use crate::tls::Stream;
use crate::types::{ByteRange, Timeouts};

/// Bytes asked for at a time while a head is read: restic's heads fit. No more than a step of the budget for them.
const HEAD_READ_BYTES: usize = STEP_BYTES / 2;
/// Bytes read at a time to be forgotten.
const DISCARD_BYTES: usize = 16 * 1024;

/// Why no request came.
#[derive(Debug, Error)]
pub enum NoRequest {
    /// The client closed or reset the connection, or was silent for the idle time.
    #[error("the connection ended")]
    Closed,
    /// The head can't be served.
    #[error(transparent)]
    Refused(#[from] HeadError),
    /// The head was not complete in time: 408.
    #[error("the request head did not arrive in time")]
    TimedOut,
}

/// What a wait for a request ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// One begins to arrive.
    Request,
    /// Nothing came.
    Silent,
    /// The client closed or reset the connection.
    Closed,
}

/// Why bytes could not be sent or received.
#[derive(Debug, Error)]
pub enum TransferError {
    /// The connection is gone.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The client stalled or was below the least rate.
    #[error("the client was too slow")]
    TooSlow,
}

impl From<Elapsed> for TransferError {
    fn from(_: Elapsed) -> Self {
        Self::TooSlow
    }
}

impl From<TooSlow> for TransferError {
    fn from(_: TooSlow) -> Self {
        Self::TooSlow
    }
}

/// A connection and what was received on it but not used yet. Dropped, it ends at once: a client sees that an answer
/// without its end is not whole.
pub struct Conn {
    pub(super) stream: Stream,
    pub(super) received: Vec<u8>,
    pub(super) limits: Timeouts,
    pub(super) buffers: BufferPool,
    /// What the heads of a client count into until it logs in.
    bytes: Arc<ByteShare>,
}

impl Conn {
    /// Takes over a stream. `buffers` are for request bodies; heads count into `bytes`.
    pub const fn new(stream: Stream, limits: Timeouts, buffers: BufferPool, bytes: Arc<ByteShare>) -> Self {
        Self { stream, received: Vec::new(), limits, buffers, bytes }
    }

    /// Waits for at most `limit` until a request begins to arrive; holds no memory meanwhile.
    pub async fn wait(&mut self, limit: Duration) -> Waited {
        if !self.received.is_empty() {
            return Waited::Request;
        }
        self.received = Vec::new();
        let deadline = now() + limit;
        loop {
            self.bytes.hold(self.stream.held());
            let left = deadline.saturating_duration_since(now());
            match timeout(left, self.readable()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Waited::Closed,
                Err(Elapsed) => return Waited::Silent,
            }
            match self.receive() {
                Ok(Some(0)) | Err(_) => return Waited::Closed,
                Ok(Some(_)) => return Waited::Request,
                // Part of a record of TLS.
                Ok(None) => {}
            }
        }
    }

    /// Whether it can move to another worker: see [`Stream::detach`].
    pub const fn is_idle(&self) -> bool {
        self.received.is_empty() && self.stream.is_idle()
    }

    /// The stream, to move it.
    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// Waits until something has come, and there is room for it.
    async fn readable(&mut self) -> io::Result<()> {
        self.stream.readable().await?;
        self.room().await;
        Ok(())
    }

    /// Waits for room to receive once.
    async fn room(&self) {
        self.bytes.reach(self.received.len() + self.stream.held() + STEP_BYTES).await;
    }

    /// Receives some bytes of a head. None if nothing has come; 0 bytes at the end of the stream.
    fn receive(&mut self) -> io::Result<Option<usize>> {
        let filled = self.received.len();
        // A vector that grows by itself takes twice as much as is in it.
        self.received.reserve_exact(HEAD_READ_BYTES);
        self.received.resize(filled + HEAD_READ_BYTES, 0);
        let read = self.stream.read(self.received.get_mut(filled..).unwrap_or_default());
        let count = read.as_ref().map_or(0, |read| read.unwrap_or(0));
        self.received.truncate(filled + count);
        read
    }

    /// Reads one request head.
    ///
    /// # Errors
    /// After any of them the connection can only be closed.
    pub async fn read_head(&mut self) -> Result<Head, NoRequest> {
        let deadline = now() + self.limits.head;
        let (mut scanner, mut skipped) = (Scanner::default(), 0);
        loop {
            let empty = head::skip_empty_lines(&self.received);
            if empty > 0 {
                skipped += empty;
                if skipped > MAX_HEAD_BYTES {
                    return Err(HeadError::TooLarge.into());
                }
                self.received.drain(..empty);
                scanner = Scanner::default();
            }
            if let Some(end) = scanner.find_end(&self.received)? {
                let head = head::parse(self.received.get(..end).unwrap_or_default())?;
                // No room is kept for as long as the request takes.
                self.received = self.received.split_off(end);
                self.bytes.note_whole_head();
                return Ok(head);
            }
            let left = deadline.saturating_duration_since(now());
            if timeout(left, self.room()).await.is_err() {
                return Err(NoRequest::TimedOut);
            }
            match self.receive() {
                Ok(Some(0)) if !self.received.is_empty() => {
                    return Err(HeadError::Bad("the request head is cut short").into());
                }
                Ok(Some(0)) | Err(_) => return Err(NoRequest::Closed),
                Ok(Some(_)) => {}
                Ok(None) => {
                    let left = deadline.saturating_duration_since(now());
                    match timeout(left, self.stream.readable()).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return Err(NoRequest::Closed),
                        Err(Elapsed) => return Err(NoRequest::TimedOut),
                    }
                }
            }
        }
    }

    /// The body of the request with this head.
    pub fn body(&mut self, head: &Head) -> Body<'_> {
        Body::new(self, head)
    }

    /// Sends all of `bytes`. `pace` watches the client's rate over one response.
    pub async fn send(&mut self, bytes: &[u8], pace: &mut Pace) -> Result<(), TransferError> {
        self.send_before(bytes, false, pace).await
    }

    /// The same, where `more` is to follow at once.
    pub async fn send_before(
        &mut self,
        bytes: &[u8],
        more: bool,
        pace: &mut Pace,
    ) -> Result<(), TransferError> {
        let mut sent = 0;
        while let Some(rest @ [_, ..]) = bytes.get(sent..) {
            match self.write(rest, more, pace)? {
                0 => self.writable(pace).await?,
                count => sent += count,
            }
        }
        self.push(pace).await
    }

    /// Waits until the client can take something, so that no buffer is held for one that does not read.
    pub async fn writable(&self, pace: &mut Pace) -> Result<(), TransferError> {
        Self::transfer(&self.limits, pace, self.stream.writable()).await
    }

    /// Sends of `bytes` what the client takes now, and returns how much that was. [`Self::push`] sends what may be left
    /// of it.
    pub fn send_some(&mut self, bytes: &[u8], pace: &mut Pace) -> Result<usize, TransferError> {
        self.write(bytes, false, pace)
    }

    /// See [`Stream::piece_bytes`].
    pub fn piece_bytes(&self) -> usize {
        self.stream.piece_bytes()
    }

    fn write(&mut self, bytes: &[u8], more: bool, pace: &mut Pace) -> Result<usize, TransferError> {
        let count = self.stream.write(bytes, more)?.unwrap_or(0);
        pace.note(&self.limits, Duration::ZERO, count)?;
        Ok(count)
    }

    /// Sends of a file what the client takes now, if the bytes are in memory and need no encryption.
    pub fn send_file(&self, file: &File, range: ByteRange, pace: &mut Pace) -> Result<Sent, TransferError> {
        let Stream::Plain(socket) = &self.stream else { return Ok(Sent::Cold) };
        let sent = file.send_cached(socket, range.start, range.len())?;
        if let Sent::Bytes(count) = sent {
            pace.note(&self.limits, Duration::ZERO, count)?;
        }
        Ok(sent)
    }

    /// Sends what was taken and is not sent.
    pub async fn push(&mut self, pace: &mut Pace) -> Result<(), TransferError> {
        while !self.stream.push()? {
            self.writable(pace).await?;
        }
        Ok(())
    }

    /// Ends the connection so that the client still reads the answer: says that nothing more comes, then throws away
    /// what the client goes on sending, within bounds (RFC 9112 section 9.6).
    pub async fn linger(mut self) {
        self.received = Vec::new();
        self.bytes.hold(0);
        let discard = async {
            self.stream.finish().await?;
            let mut discarded = 0;
            while discarded < MAX_LINGER_BYTES {
                match self.discard()? {
                    Some(0) => break,
                    Some(count) => {
                        discarded += count as u64;
                        // Who sends fast would leave no others a turn.
                        turn().await;
                    }
                    None => match timeout(MAX_LINGER_SILENCE, self.stream.readable()).await {
                        Ok(readable) => readable?,
                        Err(Elapsed) => break,
                    },
                }
            }
            io::Result::Ok(())
        };
        timeout(MAX_LINGER, discard).await.ok();
    }

    /// Reads and forgets.
    fn discard(&mut self) -> io::Result<Option<usize>> {
        self.stream.read(&mut [0; DISCARD_BYTES])
    }

    /// Waits for the client as long as the clock for one receive or send allows, and counts the time into `pace`.
    pub(super) async fn transfer(
        limits: &Timeouts,
        pace: &mut Pace,
        ready: impl Future<Output = io::Result<()>>,
    ) -> Result<(), TransferError> {
        let start = now();
        timeout(limits.stall, ready).await??;
        Ok(pace.note(limits, start.elapsed(), 0)?)
    }
}
