//! A connection with or without TLS. Nothing above knows which.
//!
//! rustls is used without its own buffers: records are decrypted where they were received, up to `RECEIVE_BYTES` a
//! system call, and encrypted into one piece that is sent whole. A connection that is silent holds no buffer.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};

use crate::io::socket::Socket;
use crate::io::{Buffer, Bytes};
use crate::tls::peer;

/// Most bytes that are received at once: what a connection holds that waits for a buffer.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Most bytes that may be received and not be understood yet: the longest message of a handshake, in pieces.
const MAX_PENDING_BYTES: usize = 256 * 1024;
/// The first piece of a handshake.
const HELLO_BYTES: usize = 4 * 1024;
/// Most bytes that are encrypted at once.
const SEND_BYTES: usize = 128 * 1024;
/// What a record of at most 16 KiB adds to what is in it, at the most.
const RECORD_BYTES: usize = 16 * 1024;
const RECORD_OVERHEAD: usize = 64;

/// A connection.
pub enum Stream {
    /// Without TLS.
    Plain(Socket),
    /// With TLS.
    Tls(Box<TlsSocket>),
}

/// What rustls wants next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    /// More from the client.
    Input,
    /// Nothing: data can be sent.
    Nothing,
}

/// A socket with TLS.
pub struct TlsSocket {
    socket: Socket,
    tls: UnbufferedServerConnection,
    /// Received and not decrypted.
    incoming: Vec<u8>,
    /// Decrypted and not read.
    plain: Vec<u8>,
    /// Encrypted and not sent, from `sent` on.
    outgoing: Vec<u8>,
    sent: usize,
    /// The client said that it sends nothing more.
    ended: bool,
}

impl TlsSocket {
    /// Shakes hands.
    pub(super) async fn accept(socket: Socket, config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let (incoming, plain, outgoing) = (Vec::new(), Vec::new(), Vec::new());
        let mut new = Self { socket, tls, incoming, plain, outgoing, sent: 0, ended: false };
        loop {
            if new.turn().await? == Wants::Nothing {
                return Ok(new);
            }
            if new.receive(HELLO_BYTES).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Receives up to `room` bytes; 0 at the end.
    async fn receive(&mut self, room: usize) -> io::Result<usize> {
        if self.incoming.len() > MAX_PENDING_BYTES {
            return Err(invalid("a TLS message without an end"));
        }
        let (read, incoming) = self.socket.read_more(std::mem::take(&mut self.incoming), room).await;
        self.incoming = incoming;
        read
    }

    /// Lets rustls work on what was received until it wants something.
    fn advance(&mut self) -> io::Result<Wants> {
        let mut done = 0;
        let wants = loop {
            let rest = self.incoming.get_mut(done..).unwrap_or_default();
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(rest);
            let next = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut self.outgoing, |room| data.encode(room))?;
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    // It is in `outgoing`, and goes out before anything else.
                    data.done();
                    None
                }
                Ok(ConnectionState::ReadTraffic(mut data)) => {
                    while let Some(record) = data.next_record() {
                        let record = record.map_err(invalid)?;
                        discard += record.discard;
                        self.plain.extend_from_slice(record.payload);
                    }
                    None
                }
                Ok(ConnectionState::BlockedHandshake) => Some(Ok(Wants::Input)),
                Ok(ConnectionState::WriteTraffic(_)) => Some(Ok(Wants::Nothing)),
                Ok(ConnectionState::PeerClosed) => {
                    self.ended = true;
                    None
                }
                Ok(ConnectionState::Closed) => {
                    self.ended = true;
                    Some(Ok(Wants::Nothing))
                }
                Ok(_) => Some(Err(invalid("TLS early data"))),
                Err(e) => {
                    self.forget(done + discard);
                    self.encode_alert();
                    return Err(invalid(e));
                }
            };
            done += discard;
            if let Some(wants) = next {
                break wants;
            }
        };
        self.forget(done);
        wants
    }

    /// Lets go of what was decrypted, and of its memory.
    fn forget(&mut self, count: usize) {
        if count > 0 {
            self.incoming = self.incoming.get(count..).unwrap_or_default().to_vec();
        }
    }

    /// After an error rustls has something left to send, without which a client would not know why. It is asked for no
    /// more than that: it would stumble over the same input again.
    fn encode_alert(&mut self) {
        while self.tls.wants_write() {
            // It is given what is left of the input, because it has noted how far it got in it.
            let UnbufferedStatus { state, .. } = self.tls.process_tls_records(&mut self.incoming);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { return };
            if encode(&mut self.outgoing, |room| data.encode(room)).is_err() {
                return;
            }
        }
    }

    /// Lets rustls write, which it does once it has nothing to say itself.
    fn write_with<T>(
        &mut self,
        write: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>) -> Result<T, EncryptError>,
    ) -> io::Result<T> {
        let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut self.incoming);
        let written = match state.map_err(invalid)? {
            ConnectionState::WriteTraffic(mut writer) => write(&mut writer).map_err(invalid),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        };
        self.forget(discard);
        written
    }

    /// Encrypts of `bytes` as much as goes out in one piece.
    fn encrypt(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Something may have come meanwhile that must be seen first.
        self.advance()?;
        let taken = bytes.len().min(SEND_BYTES);
        let piece = bytes.get(..taken).unwrap_or_default();
        let room = taken + (taken / RECORD_BYTES + 1) * RECORD_OVERHEAD;
        let mut out = vec![0; room];
        let written = self.write_with(|writer| writer.encrypt(piece, &mut out))?;
        out.truncate(written);
        if self.outgoing.is_empty() {
            self.outgoing = out;
        } else {
            self.outgoing.extend_from_slice(&out);
        }
        Ok(taken)
    }

    fn has_unsent(&self) -> bool {
        self.sent < self.outgoing.len()
    }

    /// Sends some of what waits to be sent.
    async fn push(&mut self) -> io::Result<usize> {
        let (written, outgoing) = self.socket.write(std::mem::take(&mut self.outgoing), self.sent).await;
        self.outgoing = outgoing;
        let written = written?;
        self.sent += written;
        if !self.has_unsent() {
            (self.outgoing, self.sent) = (Vec::new(), 0);
        }
        Ok(written)
    }

    /// Waits until there is something decrypted, or the end.
    async fn fill(&mut self) -> io::Result<()> {
        while self.plain.is_empty() && !self.ended {
            self.fill_once().await?;
        }
        Ok(())
    }

    /// Receives and decrypts once. What came may be no data: a ticket, a key update.
    async fn fill_once(&mut self) -> io::Result<()> {
        // Without a close_notify the stream may have been cut. HTTP tells the ends of its messages itself, so that no
        // part is taken for the whole.
        self.ended |= self.receive(RECEIVE_BYTES).await? == 0;
        self.turn().await.map(drop)
    }

    /// Lets rustls work and sends what it has to say: also an alert that tells the client what was wrong.
    async fn turn(&mut self) -> io::Result<Wants> {
        let advanced = self.advance();
        while self.has_unsent() {
            self.push().await?;
        }
        advanced
    }

    /// Moves decrypted bytes out, at most `room`.
    fn take_plain(&mut self, room: usize) -> Vec<u8> {
        if self.plain.len() <= room {
            return std::mem::take(&mut self.plain);
        }
        let rest = self.plain.split_off(room);
        std::mem::replace(&mut self.plain, rest)
    }

    async fn readable(&mut self) -> io::Result<()> {
        if self.plain.is_empty() && !self.ended {
            self.socket.readable().await?;
            self.fill_once().await?;
        }
        Ok(())
    }

    async fn finish(&mut self) {
        let mut notify = [0; RECORD_OVERHEAD];
        if let Ok(written) = self.write_with(|writer| writer.queue_close_notify(&mut notify)) {
            self.outgoing.extend_from_slice(notify.get(..written).unwrap_or_default());
        }
        while self.has_unsent() {
            if self.push().await.is_err() {
                return;
            }
        }
        self.socket.finish();
    }
}

/// Appends what rustls encodes.
fn encode(
    out: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> io::Result<()> {
    let start = out.len();
    let needed = match encode(&mut []) {
        Ok(_) => return Ok(()),
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        Err(e) => return Err(invalid(e)),
    };
    out.resize(start + needed, 0);
    let written = encode(out.get_mut(start..).unwrap_or_default()).map_err(invalid)?;
    out.truncate(start + written);
    Ok(())
}

fn invalid(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}

impl Stream {
    /// Whom the client's certificate names, if it showed one.
    pub fn user(&self) -> Option<String> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.tls.peer_certificates().and_then(|chain| peer::user(chain.first()?)),
        }
    }

    /// Whether it is encrypted.
    pub const fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Waits until something has come: [`Self::has_input`] tells whether it is something to read, or the end. Holds no
    /// buffer while there is nothing.
    pub async fn readable(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.readable().await,
            // Boxed, as below: a plain connection is not to hold room for TLS.
            Self::Tls(tls) => Box::pin(tls.readable()).await,
        }
    }

    /// Whether a read gives something at once, after [`Self::readable`].
    pub fn has_input(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(tls) => !tls.plain.is_empty() || tls.ended,
        }
    }

    /// Waits until something can be written. Nothing may be unsent.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.writable().await,
            Self::Tls(tls) => tls.socket.writable().await,
        }
    }

    /// Whether bytes that were taken by [`Self::write`] still wait for [`Self::push`].
    pub fn has_unsent(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.has_unsent())
    }

    /// Sends some of what is unsent; returns how many bytes.
    pub async fn push(&mut self) -> io::Result<usize> {
        match self {
            Self::Plain(_) => Ok(0),
            Self::Tls(tls) => Box::pin(tls.push()).await,
        }
    }

    /// Reads what there is into an empty buffer, at most `limit` bytes; 0 bytes at the end of the stream.
    pub async fn read_upto(&mut self, mut buffer: Buffer, limit: usize) -> (io::Result<usize>, Buffer) {
        match self {
            Self::Plain(socket) => socket.read_upto(buffer, limit).await,
            Self::Tls(tls) => {
                if let Err(e) = Box::pin(tls.fill()).await {
                    return (Err(e), buffer);
                }
                let bytes = tls.take_plain(limit.min(buffer.capacity()));
                buffer.clear();
                buffer.extend_from_slice(&bytes);
                (Ok(bytes.len()), buffer)
            }
        }
    }

    /// Reads what there is, at most `room` bytes, to the end of `bytes`.
    pub async fn read_more(&mut self, mut bytes: Vec<u8>, room: usize) -> (io::Result<usize>, Vec<u8>) {
        match self {
            Self::Plain(socket) => socket.read_more(bytes, room).await,
            Self::Tls(tls) => {
                if let Err(e) = Box::pin(tls.fill()).await {
                    return (Err(e), bytes);
                }
                let more = tls.take_plain(room);
                bytes.extend_from_slice(&more);
                (Ok(more.len()), bytes)
            }
        }
    }

    /// Takes of `bytes[from..]` what goes out in one piece, and sends some of it; the rest is unsent. Nothing may be
    /// unsent before.
    pub async fn write<B: Bytes>(&mut self, bytes: B, from: usize) -> (io::Result<usize>, B) {
        match self {
            Self::Plain(socket) => socket.write(bytes, from).await,
            Self::Tls(tls) => match tls.encrypt(bytes.as_ref().get(from..).unwrap_or_default()) {
                Ok(taken) => (Box::pin(tls.push()).await.map(|_| taken), bytes),
                Err(e) => (Err(e), bytes),
            },
        }
    }

    /// Says that nothing more will be sent; the other end may still send.
    pub async fn finish(&mut self) {
        match self {
            Self::Plain(socket) => socket.finish(),
            Self::Tls(tls) => Box::pin(tls.finish()).await,
        }
    }
}
