//! One connection: waits for requests, reads heads, sends bytes, and closes so that the client reads the last answer.

use std::future::Future;
use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::http::body::Body;
use crate::http::head::{self, Head, HeadError, Scanner};
use crate::http::limits::{MAX_LINGER, MAX_LINGER_BYTES, MAX_LINGER_SILENCE};
use crate::http::pace::{Pace, TooSlow};
use crate::io::file::{File, Sent};
use crate::io::runtime::{Elapsed, now, timeout};
use crate::io::{BufferPool, Bytes};
use crate::tls::Stream;
use crate::types::{ByteRange, Timeouts};

/// Bytes asked for at a time while a head is read: restic's heads fit.
const HEAD_READ_BYTES: usize = 2 * 1024;

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
}

impl Conn {
    /// Takes over a stream. `buffers` are for request bodies.
    pub const fn new(stream: Stream, limits: Timeouts, buffers: BufferPool) -> Self {
        Self { stream, received: Vec::new(), limits, buffers }
    }

    /// Waits until a request begins to arrive; holds no memory meanwhile. False if none comes in the idle time.
    pub async fn wait(&mut self) -> bool {
        if !self.received.is_empty() {
            return true;
        }
        self.received = Vec::new();
        let input = async {
            loop {
                self.stream.readable().await?;
                if self.stream.has_input() {
                    return io::Result::Ok(());
                }
            }
        };
        matches!(timeout(self.limits.idle, input).await, Ok(Ok(())))
    }

    /// Reads one request head.
    ///
    /// # Errors
    /// After any of them the connection can only be closed.
    pub async fn read_head(&mut self) -> Result<Head, NoRequest> {
        let deadline = now() + self.limits.head;
        let mut scanner = Scanner::default();
        loop {
            let empty = head::skip_empty_lines(&self.received);
            if empty > 0 {
                self.received.drain(..empty);
                scanner = Scanner::default();
            }
            if let Some(end) = scanner.find_end(&self.received)? {
                let head = head::parse(self.received.get(..end).unwrap_or_default())?;
                self.received.drain(..end);
                return Ok(head);
            }
            let left = deadline.saturating_duration_since(now());
            let received = std::mem::take(&mut self.received);
            let started = !received.is_empty();
            let read = timeout(left, self.stream.read_more(received, HEAD_READ_BYTES)).await;
            let Ok((read, received)) = read else { return Err(NoRequest::TimedOut) };
            self.received = received;
            match read {
                Ok(0) if started => return Err(HeadError::Bad("the request head is cut short").into()),
                Ok(0) | Err(_) => return Err(NoRequest::Closed),
                Ok(_) => {}
            }
        }
    }

    /// The body of the request with this head.
    pub fn body(&mut self, head: &Head) -> Body<'_> {
        Body::new(self, head)
    }

    /// Sends all of `bytes`. `pace` watches the client's rate over one response.
    pub async fn send<B: Bytes>(&mut self, mut bytes: B, pace: &mut Pace) -> Result<B, TransferError> {
        let mut sent = 0;
        while sent < bytes.as_ref().len() {
            let (written, back) = self.write(bytes, sent, pace).await?;
            bytes = back;
            sent += written;
        }
        self.push(pace).await?;
        Ok(bytes)
    }

    /// Waits until the client can take something, so that no buffer is held for one that does not read.
    pub async fn writable(&mut self, pace: &mut Pace) -> Result<(), TransferError> {
        self.push(pace).await?;
        let writable = async { (self.stream.writable().await.map(|()| 0), ()) };
        Self::transfer(&self.limits, pace, writable).await?;
        Ok(())
    }

    /// Sends of `bytes` what the client takes now, and returns how much that was: for a buffer that is not to be held
    /// until a slow client has taken all of it. [`Self::push`] sends what may be left of it.
    pub async fn send_some<B: Bytes>(&mut self, bytes: B, pace: &mut Pace) -> Result<usize, TransferError> {
        self.write(bytes, 0, pace).await.map(|(written, _)| written)
    }

    /// Sends of a file what the client takes now, if the stream is not encrypted and the bytes are in memory. None if it
    /// must be read and sent by other means.
    pub fn send_file(
        &self,
        file: &File,
        range: ByteRange,
        pace: &mut Pace,
    ) -> Result<Option<usize>, TransferError> {
        let Stream::Plain(socket) = &self.stream else { return Ok(None) };
        match file.send_cached(socket, range.start, range.len())? {
            Sent::Bytes(count) => {
                pace.note(&self.limits, Duration::ZERO, count)?;
                Ok(Some(count))
            }
            Sent::Full => Ok(Some(0)),
            Sent::Cold => Ok(None),
        }
    }

    /// Sends what was taken and is not sent.
    pub async fn push(&mut self, pace: &mut Pace) -> Result<(), TransferError> {
        while self.stream.has_unsent() {
            let push = async { (self.stream.push().await, ()) };
            Self::transfer(&self.limits, pace, push).await?;
        }
        Ok(())
    }

    /// Writes of `bytes[from..]` what the stream takes now, at least one byte.
    async fn write<B: Bytes>(
        &mut self,
        bytes: B,
        from: usize,
        pace: &mut Pace,
    ) -> Result<(usize, B), TransferError> {
        self.push(pace).await?;
        let (written, back) = Self::transfer(&self.limits, pace, self.stream.write(bytes, from)).await?;
        if written == 0 { Err(io::Error::from(io::ErrorKind::WriteZero).into()) } else { Ok((written, back)) }
    }

    /// Ends the connection so that the client still reads the answer: says that nothing more comes, then throws away
    /// what the client goes on sending, within bounds (RFC 9112 section 9.6).
    pub async fn linger(mut self) {
        let discard = async {
            self.stream.finish().await;
            let mut discarded = 0;
            while discarded < MAX_LINGER_BYTES {
                match self.discard_some(MAX_LINGER_SILENCE).await {
                    Some(count) if count > 0 => discarded += count,
                    _ => break,
                }
            }
        };
        timeout(MAX_LINGER, discard).await.ok();
    }

    /// Reads and forgets; none on silence or error, 0 at the end.
    async fn discard_some(&mut self, silence: Duration) -> Option<u64> {
        timeout(silence, self.stream.readable()).await.ok()?.ok()?;
        let buffer = self.buffers.take().await;
        let room = buffer.capacity();
        let (read, _) = timeout(silence, self.stream.read_upto(buffer, room)).await.ok()?;
        read.ok().map(|count| count as u64)
    }

    /// Waits for `work` as long as the clock for one receive or send allows, and counts the time into `pace`.
    pub(super) async fn transfer<T>(
        limits: &Timeouts,
        pace: &mut Pace,
        work: impl Future<Output = (io::Result<usize>, T)>,
    ) -> Result<(usize, T), TransferError> {
        let start = now();
        let (read, back) = timeout(limits.stall, work).await?;
        let read = read?;
        pace.note(limits, start.elapsed(), read)?;
        Ok((read, back))
    }
}
