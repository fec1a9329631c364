//! Bytes over a socket, with or without TLS.
//!
//! rustls is used without its own buffers. Records are decrypted and encrypted in one piece of memory that all connections
//! of a worker share, up to `PIECE_BYTES` a system call; a connection keeps only what is not whole yet or was not sent yet.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};

use crate::io::budget::{ByteShare, STEP_BYTES};
use crate::io::buffer::copy;
use crate::io::socket::{Detached, Socket};
use crate::tls::{HandshakeError, peer};

/// Most bytes that are received, or encrypted and sent, at once.
pub const PIECE_BYTES: usize = 128 * 1024;
/// Most bytes that may be received and not be understood yet: the longest message of a handshake that rustls takes is 64 KiB,
/// and records of no less than 32 bytes add up to a sixth. A client that sends smaller records sends shorter messages.
const MAX_PENDING_BYTES: usize = 80 * 1024;
/// The least that is encrypted at once: records of a few bytes would cost more than they carry.
const MIN_PIECE_BYTES: usize = 4 * 1024;
/// A record of at most 16 KiB, and what it adds to what is in it at the most.
const RECORD_BYTES: usize = 16 * 1024;
const RECORD_OVERHEAD: usize = 64;
/// The largest piece, encrypted.
const ENCRYPTED_BYTES: usize = PIECE_BYTES + (PIECE_BYTES / RECORD_BYTES + 1) * RECORD_OVERHEAD;

/// Bytes that tell HTTP from TLS.
const PEEK_BYTES: usize = 5;
const PLAIN_HTTP_ANSWER: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// Whether a connection begins like a request of HTTP/1 or the preface of HTTP/2: a record of TLS begins with a byte below 32.
fn is_http(begin: [u8; PEEK_BYTES]) -> bool {
    [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"DELET", b"OPTIO", b"PATCH", b"CONNE", b"TRACE", b"PRI *"]
        .contains(&&begin)
}

thread_local! {
    /// Where records are decrypted and encrypted.
    static WORKSPACE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A connection.
pub enum Stream {
    /// Without TLS.
    Plain(Socket),
    /// With TLS.
    Tls(Box<TlsSocket>),
}

/// A connection on its way to another worker.
pub struct DetachedStream {
    socket: Detached,
    tls: Option<Box<UnbufferedServerConnection>>,
}

impl DetachedStream {
    /// Registers it with the calling worker's runtime.
    pub fn attach(self) -> io::Result<Stream> {
        let socket = self.socket.attach()?;
        Ok(match self.tls {
            None => Stream::Plain(socket),
            Some(tls) => Stream::Tls(Box::new(TlsSocket::new(socket, *tls))),
        })
    }
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
    /// Received and not decrypted: the begin of a record.
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
    fn new(socket: Socket, tls: UnbufferedServerConnection) -> Self {
        let (incoming, plain, outgoing) = (Vec::new(), Vec::new(), Vec::new());
        Self { socket, tls, incoming, plain, outgoing, sent: 0, ended: false }
    }

    /// Nothing of it is under way.
    const fn is_idle(&self) -> bool {
        self.incoming.is_empty() && self.plain.is_empty() && self.outgoing.is_empty() && !self.ended
    }

    /// Shakes hands.
    pub(super) async fn accept(
        socket: Socket,
        config: Arc<ServerConfig>,
        bytes: &ByteShare,
    ) -> Result<Self, HandshakeError> {
        // A check whether the port is open may end with a reset.
        socket.readable().await.map_err(HandshakeError::before_first_byte)?;
        let mut begin = [0; PEEK_BYTES];
        match socket.peek(&mut begin).map_err(HandshakeError::before_first_byte)? {
            Some(0) => return Err(HandshakeError::Silent),
            Some(_) if is_http(begin) => {
                // Go's answer, and so rest-server's: to an alert of TLS such a client has nothing to say to its user.
                socket.send(PLAIN_HTTP_ANSWER, false).ok();
                socket.finish();
                // Bytes that are not read when the socket is closed would reset the connection, and the answer might be lost.
                socket.receive(&mut [0; 4096]).ok();
                return Err(HandshakeError::PlainHttp);
            }
            // The begins of both versions.
            Some(_) if [b"PROXY", b"\r\n\r\n\0"].contains(&&begin) => {
                return Err(HandshakeError::ProxyHeader);
            }
            _ => {}
        }
        let tls = UnbufferedServerConnection::new(config)
            .map_err(|e| HandshakeError::Failed(io::Error::other(e)))?;
        let mut new = Self::new(socket, tls);
        new.shake_hands(bytes).await.map_err(HandshakeError::Failed)?;
        Ok(new)
    }

    async fn shake_hands(&mut self, bytes: &ByteShare) -> io::Result<()> {
        loop {
            self.socket.readable().await?;
            bytes.reach(self.held() + STEP_BYTES).await;
            let received = self.receive(&mut []);
            while !self.push()? {
                self.socket.writable().await?;
            }
            // A client that has an answer, and nothing but its next message to send, holds nothing.
            bytes.hold(self.held());
            match received? {
                Some((_, Wants::Nothing)) => return Ok(()),
                _ if self.ended => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
    }

    /// As many bytes as the socket has room for. What is encrypted and not sent has to be kept for as long as the client does
    /// not read, and many a socket's buffer has less room than `PIECE_BYTES`.
    fn piece_bytes(&self) -> usize {
        self.socket.send_room().clamp(MIN_PIECE_BYTES, PIECE_BYTES)
    }

    /// Bytes that were received and not read, or not sent yet.
    const fn held(&self) -> usize {
        self.incoming.len() + self.plain.len() + self.outgoing.len()
    }

    /// Receives once and decrypts, `into` as far as there is room. Returns how much that was; none if nothing has come.
    /// What is received at once is no more than `into` takes, or one step: the rest would have to be kept, up to a piece for
    /// every client that sends a body behind a head that waits for its login.
    fn receive(&mut self, into: &mut [u8]) -> io::Result<Option<(usize, Wants)>> {
        if self.incoming.len() > MAX_PENDING_BYTES {
            return Err(invalid("a TLS message without an end"));
        }
        WORKSPACE.with_borrow_mut(|space| {
            let pending = self.incoming.len();
            if space.len() < pending + PIECE_BYTES {
                space.resize(pending + PIECE_BYTES, 0);
            }
            let (begin, room) = space.split_at_mut(pending);
            begin.copy_from_slice(&self.incoming);
            let room = room.get_mut(..into.len().clamp(STEP_BYTES, PIECE_BYTES)).unwrap_or_default();
            let Some(received) = self.socket.receive(room)? else { return Ok(None) };
            self.incoming = Vec::new();
            // Without a close_notify the stream may have been cut. HTTP tells the ends of its messages itself, so that no
            // part is taken for the whole.
            self.ended |= received == 0;
            let input = space.get_mut(..pending + received).unwrap_or_default();
            let advanced = self.advance(input, into);
            if advanced.is_err() {
                // Whatever is to be told to the client goes out now or never.
                self.push().ok();
            }
            advanced.map(Some)
        })
    }

    /// Lets rustls work on what was received until it wants something; keeps what it can't use yet. Returns how much was
    /// decrypted `into` where it was asked for; what has no room there is for who reads next.
    fn advance(&mut self, input: &mut [u8], into: &mut [u8]) -> io::Result<(usize, Wants)> {
        let (mut done, mut filled) = (0, 0);
        let wants = loop {
            let rest = input.get_mut(done..).unwrap_or_default();
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
                        let count = copy(record.payload, into.get_mut(filled..).unwrap_or_default());
                        filled += count;
                        self.plain.extend_from_slice(record.payload.get(count..).unwrap_or_default());
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
                    self.keep(input, done + discard);
                    self.encode_alert();
                    return Err(invalid(e));
                }
            };
            done += discard;
            if let Some(wants) = next {
                break wants;
            }
        };
        self.keep(input, done);
        wants.map(|wants| (filled, wants))
    }

    /// Keeps what is not decrypted yet.
    fn keep(&mut self, input: &[u8], done: usize) {
        self.incoming = input.get(done..).unwrap_or_default().to_vec();
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
        let mut input = std::mem::take(&mut self.incoming);
        let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut input);
        let written = match state.map_err(invalid)? {
            ConnectionState::WriteTraffic(mut writer) => write(&mut writer).map_err(invalid),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        };
        self.keep(&input, discard);
        written
    }

    /// Encrypts of `bytes` as much as goes out in one piece, and sends what the socket takes. None if something is unsent
    /// that was taken before.
    fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<Option<usize>> {
        if !self.push()? {
            return Ok(None);
        }
        let piece = bytes.get(..self.piece_bytes()).unwrap_or(bytes);
        WORKSPACE.with_borrow_mut(|space| {
            if space.len() < ENCRYPTED_BYTES {
                space.resize(ENCRYPTED_BYTES, 0);
            }
            let written = self.write_with(|writer| writer.encrypt(piece, space))?;
            let encrypted = space.get(..written).unwrap_or_default();
            let sent = self.socket.send(encrypted, more)?.unwrap_or(0);
            self.outgoing.extend_from_slice(encrypted.get(sent..).unwrap_or_default());
            Ok(Some(piece.len()))
        })
    }

    /// Sends what waits to be sent. False if something still does.
    fn push(&mut self) -> io::Result<bool> {
        while let Some(rest @ [_, ..]) = self.outgoing.get(self.sent..) {
            let Some(sent) = self.socket.send(rest, false)? else { return Ok(false) };
            self.sent += sent;
        }
        (self.outgoing, self.sent) = (Vec::new(), 0);
        Ok(true)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        if self.plain.is_empty() {
            if self.ended {
                return Ok(Some(0));
            }
            let received = self.receive(into)?.map_or(0, |(filled, _)| filled);
            let over = self.ended && received == 0 && self.plain.is_empty();
            return Ok((received > 0 || over).then_some(received));
        }
        let count = copy(&self.plain, into);
        self.plain = self.plain.split_off(count);
        Ok(Some(count))
    }

    async fn readable(&mut self) -> io::Result<()> {
        while !self.push()? {
            self.socket.writable().await?;
        }
        if self.plain.is_empty() && !self.ended {
            self.socket.readable().await?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        let mut notify = [0; RECORD_OVERHEAD];
        if let Ok(written) = self.write_with(|writer| writer.queue_close_notify(&mut notify)) {
            self.outgoing.extend_from_slice(notify.get(..written).unwrap_or_default());
        }
        while !self.push()? {
            self.socket.writable().await?;
        }
        self.socket.finish();
        Ok(())
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
    /// Whom the client's certificate names, if it showed one, and when that ends, in seconds since 1970. A session that is
    /// resumed has that of its first connection.
    pub fn user(&self) -> Option<(String, i64)> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => {
                let certificate = tls.tls.peer_certificates()?.first()?;
                Some((peer::user(certificate)?, peer::end(certificate)?))
            }
        }
    }

    /// Whether it is encrypted.
    pub const fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Bytes that [`Self::write`] takes at the most now.
    pub fn piece_bytes(&self) -> usize {
        match self {
            Self::Plain(_) => PIECE_BYTES,
            Self::Tls(tls) => tls.piece_bytes(),
        }
    }

    /// Bytes that it holds: received and not read, or encrypted and not sent.
    pub const fn held(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(tls) => tls.held(),
        }
    }

    /// Whether it can be detached: nothing that was received or is to be sent is held.
    pub const fn is_idle(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(tls) => tls.is_idle(),
        }
    }

    /// Takes it out of the calling worker's runtime. It must be idle, and nothing may be waited for on it.
    pub fn detach(self) -> io::Result<DetachedStream> {
        Ok(match self {
            Self::Plain(socket) => DetachedStream { socket: socket.detach()?, tls: None },
            Self::Tls(tls) => {
                let TlsSocket { socket, tls, .. } = *tls;
                DetachedStream { socket: socket.detach()?, tls: Some(Box::new(tls)) }
            }
        })
    }

    /// See [`Socket::has_ended`].
    pub fn has_ended(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.has_ended(),
            Self::Tls(tls) => tls.socket.has_ended(),
        }
    }

    /// Waits until something has come. It may turn out to be nothing to read: part of a record.
    pub async fn readable(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.readable().await,
            // Boxed, as below: a plain connection is not to hold room for TLS.
            Self::Tls(tls) => Box::pin(tls.readable()).await,
        }
    }

    /// See [`Socket::wake_at`].
    pub fn wake_at(&self, count: usize) {
        match self {
            Self::Plain(socket) => socket.wake_at(count),
            // Part of that is here already: the begin of a record, of which no more may come than its rest.
            Self::Tls(tls) => tls.socket.wake_at(count.saturating_sub(tls.incoming.len()).max(1)),
        }
    }

    /// Waits until something can be written.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.writable().await,
            Self::Tls(tls) => tls.socket.writable().await,
        }
    }

    /// Reads what has come. None if that is nothing; 0 bytes at the end of the stream.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Plain(socket) => socket.receive(into),
            Self::Tls(tls) => tls.read(into),
        }
    }

    /// Takes of `bytes` what goes out in one piece, and sends of that what the socket takes now; [`Self::push`] sends the
    /// rest. None if nothing can be taken. If `more` is to follow at once, it may go out together with it.
    pub fn write(&mut self, bytes: &[u8], more: bool) -> io::Result<Option<usize>> {
        match self {
            Self::Plain(socket) => socket.send(bytes, more),
            Self::Tls(tls) => tls.write(bytes, more),
        }
    }

    /// Sends of what was taken what the socket takes now. True if nothing is left.
    pub fn push(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Tls(tls) => tls.push(),
        }
    }

    /// Says that nothing more will be sent; the other end may still send.
    pub async fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => {
                socket.finish();
                Ok(())
            }
            Self::Tls(tls) => Box::pin(tls.finish()).await,
        }
    }
}
