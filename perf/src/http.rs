//! Just enough of an HTTP/1.1 client to load a server without costing much itself.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// Longest wait for any one answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where a server is, and how it is spoken to.
#[derive(Clone)]
pub enum Target {
    Tcp(SocketAddr),
    Tls(SocketAddr, Arc<ClientConfig>),
    Unix(PathBuf),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A connection.
pub struct Conn {
    stream: Stream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// What came back.
pub struct Answer {
    pub status: u16,
    /// Bytes of the body.
    pub bytes: u64,
    /// Time from the request to the first byte of the answer.
    pub first: Duration,
}

impl Conn {
    pub fn open(target: &Target) -> io::Result<Self> {
        Self::open_from(target, None)
    }

    /// From another of this machine's addresses.
    pub fn open_from(target: &Target, source: Option<IpAddr>) -> io::Result<Self> {
        let tcp = |address: &SocketAddr| -> io::Result<TcpStream> {
            let socket =
                socket2::Socket::new(socket2::Domain::for_address(*address), socket2::Type::STREAM, None)?;
            if let Some(source) = source {
                socket.bind(&SocketAddr::new(source, 0).into())?;
            }
            socket.connect(&(*address).into())?;
            let stream = TcpStream::from(socket);
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let stream = match target {
            Target::Tcp(address) => Stream::Tcp(tcp(address)?),
            Target::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Stream::Unix(stream)
            }
            Target::Tls(address, config) => {
                let name = "localhost".try_into().map_err(io::Error::other)?;
                let tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                Stream::Tls(Box::new(StreamOwned::new(tls, tcp(address)?)))
            }
        };
        Ok(Self { stream, buffer: vec![0; 256 * 1024], start: 0, end: 0 })
    }

    /// One request, its body sent in one go.
    pub fn request(&mut self, head: &str, body: &[u8], keep: Option<&mut Vec<u8>>) -> io::Result<Answer> {
        let start = Instant::now();
        if body.len() <= 16 * 1024 {
            self.send(&[head.as_bytes(), body].concat())?;
        } else {
            self.send(head.as_bytes())?;
            self.send(body)?;
        }
        self.answer(!head.starts_with("HEAD"), keep, start)
    }

    /// Sends bytes and waits for no answer.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes),
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let room = &mut self.buffer[self.end..];
        let count = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(room)?,
            Stream::Unix(stream) => stream.read(room)?,
            Stream::Tls(stream) => stream.read(room)?,
        };
        self.end += count;
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            let held = &self.buffer[self.start..self.end];
            if let Some(at) = held.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&held[..at]).into_owned();
                self.start += at + 2;
                return Ok(line);
            }
            if self.end == self.buffer.len() {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            self.fill()?;
        }
    }

    fn answer(
        &mut self,
        has_body: bool,
        mut keep: Option<&mut Vec<u8>>,
        start: Instant,
    ) -> io::Result<Answer> {
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let line = self.line()?;
        let first = start.elapsed();
        let status = line.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or_else(bad)?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(text) = line.strip_prefix("content-length:") {
                length = text.trim().parse().map_err(|_| bad())?;
            }
            chunked |= line.starts_with("transfer-encoding:") && line.contains("chunked");
        }
        let mut bytes = 0;
        if has_body && chunked {
            loop {
                let size = u64::from_str_radix(self.line()?.trim(), 16).map_err(|_| bad())?;
                self.take(size, keep.as_deref_mut())?;
                self.line()?;
                bytes += size;
                if size == 0 {
                    break;
                }
            }
        } else if has_body {
            self.take(length, keep)?;
            bytes = length;
        }
        Ok(Answer { status, bytes, first })
    }

    fn take(&mut self, mut count: u64, mut keep: Option<&mut Vec<u8>>) -> io::Result<()> {
        while count > 0 {
            if self.start == self.end {
                self.fill()?;
            }
            let some = (self.end - self.start).min(usize::try_from(count).unwrap_or(usize::MAX));
            if let Some(keep) = &mut keep {
                keep.extend_from_slice(&self.buffer[self.start..self.start + some]);
            }
            self.start += some;
            count -= some as u64;
        }
        Ok(())
    }
}
