//! One connection: request after request. The only place that writes responses and logs requests: one request, one line.

use std::rc::Rc;
use std::time::Instant;

use http::{Method, StatusCode};
use thiserror::Error;

use crate::api::list::ListBody;
use crate::api::{self, Answer, Content};
use crate::http::conn::{NoRequest, TransferError};
use crate::http::head::Target;
use crate::http::pace::Pace;
use crate::http::response::Ending;
use crate::http::{Conn, Head, ResponseHead};
use crate::io::runtime::{Either, now, race};
use crate::io::socket::{Peer, Socket};
use crate::server::shard::{RequestId, Shard};
use crate::store::{self, Download, Listing, Store};
use crate::types::{ByteRange, Principal};

/// Why a response did not get to its end.
#[derive(Debug, Error)]
enum Broken {
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("the object is shorter than it was when it was opened")]
    Shrunk,
}

/// Serves a connection to its end. What takes room is boxed, so that an idle connection holds little.
pub async fn serve<S: Store>(shard: Rc<Shard<S>>, socket: Socket) {
    let mut conn = Conn::new(socket, shard.limits, shard.receive_buffers.clone());
    loop {
        let Either::Right(true) = race(shard.shared.stopping.wait(), conn.wait()).await else { return };
        let start = now();
        let next = match conn.read_head().await {
            Ok(head) => Box::pin(exchange(&shard, &mut conn, &head, start)).await,
            Err(NoRequest::Closed) => Next::Abort,
            Err(refused) => Box::pin(refuse_head(&shard, &mut conn, &refused, start)).await,
        };
        match next {
            Next::Request => {}
            Next::Linger => return Box::pin(conn.linger()).await,
            Next::Abort => return,
        }
    }
}

/// What becomes of a connection after an answer.
enum Next {
    Request,
    Linger,
    Abort,
}

/// Answers one request.
async fn exchange<S: Store>(shard: &Shard<S>, conn: &mut Conn, request: &Head, start: Instant) -> Next {
    let entry = Entry { peer: conn.peer(), request: Some(request), id: shard.next_request_id(), start };
    let mut body = conn.body(request);
    let Answer { head, content, who, reason, hang_up } = api::handle(&shard.live, request, &mut body).await;
    let ending = ending(&content, request);
    let keep = request.keep_alive && !hang_up && ending != Ending::Close && body.may_keep_alive();
    let keep = keep && !shard.shared.stopping.is_raised();
    let head_bytes = head.encode(ending, keep, request.is_1_1);
    let content = Some(content).filter(|_| request.method != Method::HEAD);
    let sent = write(shard, body.conn(), head_bytes, content, ending).await;
    entry.log(shard, who.as_ref(), head.status, reason.as_deref(), &sent);
    match sent {
        Err(_) => Next::Abort,
        Ok(_) if keep && body.settle().await => Next::Request,
        Ok(_) => Next::Linger,
    }
}

/// How the end of an answer's body is told.
fn ending<S: Store>(content: &Content<S>, request: &Head) -> Ending {
    match content {
        Content::Text(text) => Ending::Length(text.len() as u64),
        Content::Length(length) => Ending::Length(*length),
        Content::Object(_, range) => Ending::Length(range.len()),
        Content::List(_) if request.is_1_1 => Ending::Chunked,
        Content::List(_) => Ending::Close,
    }
}

/// Writes one response; returns the bytes of its body.
async fn write<S: Store>(
    shard: &Shard<S>,
    conn: &mut Conn,
    mut head: Vec<u8>,
    content: Option<Content<S>>,
    ending: Ending,
) -> Result<u64, Broken> {
    let mut pace = Pace::default();
    if let Some(Content::Text(text)) = &content {
        head.extend(text.as_bytes());
    }
    conn.send(head, &mut pace).await?;
    match content {
        Some(Content::Object(object, range)) => {
            write_object(shard, conn, &object, range, &mut pace).await?;
            Ok(range.len())
        }
        Some(Content::List(list)) => write_list(conn, list, ending, &mut pace).await,
        Some(Content::Text(text)) => Ok(text.len() as u64),
        Some(Content::Length(_)) | None => Ok(0),
    }
}

async fn write_object<S: Store>(
    shard: &Shard<S>,
    conn: &mut Conn,
    object: &S::Download,
    range: ByteRange,
    pace: &mut Pace,
) -> Result<(), Broken> {
    let mut at = range.start;
    while at < range.end {
        conn.writable(pace).await?;
        let mut buffer = object.read(at, shard.send_buffers.take().await).await?;
        buffer.truncate(usize::try_from(range.end - at).unwrap_or(usize::MAX));
        if buffer.is_empty() {
            return Err(Broken::Shrunk);
        }
        at += conn.send_some(buffer, pace).await? as u64;
    }
    Ok(())
}

async fn write_list<L: Listing>(
    conn: &mut Conn,
    mut list: ListBody<L>,
    ending: Ending,
    pace: &mut Pace,
) -> Result<u64, Broken> {
    let mut count = 0;
    while let Some(piece) = list.next().await? {
        count += piece.len() as u64;
        let piece = if ending == Ending::Chunked { chunk(&piece) } else { piece };
        conn.send(piece, pace).await?;
    }
    if ending == Ending::Chunked {
        conn.send(b"0\r\n\r\n".as_slice(), pace).await?;
    }
    Ok(count)
}

fn chunk(piece: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
}

/// Answers a head that can't be served.
async fn refuse_head<S: Store>(
    shard: &Shard<S>,
    conn: &mut Conn,
    refused: &NoRequest,
    start: Instant,
) -> Next {
    let status = match refused {
        NoRequest::Refused(error) => error.status(),
        NoRequest::Closed | NoRequest::TimedOut => StatusCode::REQUEST_TIMEOUT,
    };
    let text = format!("{refused}\n");
    let head = ResponseHead::new(status).with("Content-Type", "text/plain; charset=utf-8");
    let mut bytes = head.encode(Ending::Length(text.len() as u64), false, true);
    bytes.extend(text.as_bytes());
    let entry = Entry { peer: conn.peer(), request: None, id: shard.next_request_id(), start };
    let sent = conn.send(bytes, &mut Pace::default()).await;
    let sent = sent.map(|_| text.len() as u64).map_err(Broken::from);
    entry.log(shard, None, status, Some(&refused.to_string()), &sent);
    Next::Linger
}

/// What the log says about a request.
struct Entry<'r> {
    peer: Peer,
    request: Option<&'r Head>,
    id: RequestId,
    start: Instant,
}

impl Entry<'_> {
    fn log<S>(
        &self,
        shard: &Shard<S>,
        who: Option<&Principal>,
        status: StatusCode,
        reason: Option<&str>,
        sent: &Result<u64, Broken>,
    ) {
        let counters = &shard.shared.counters;
        counters.requests.increment();
        let level = match status.as_u16() {
            500.. => log::Level::Error,
            400.. => log::Level::Info,
            _ if sent.is_err() => log::Level::Info,
            _ => log::Level::Debug,
        };
        if status.as_u16() >= 400 {
            counters.refusals.increment();
        }
        if !log::log_enabled!(level) {
            return;
        }
        let method = self.request.map_or("-", |request| request.method.as_str());
        let target = self.request.map_or_else(|| "-".into(), |request| shown(&request.target));
        let who = who.map_or_else(|| "-".into(), ToString::to_string);
        let took = self.start.elapsed().as_secs_f64() * 1000.0;
        let named = |reason: &str| format!(" reason=\"{}\"", reason.escape_default());
        let reason = reason.map(named).unwrap_or_default();
        let aborted =
            sent.as_ref().err().map(|broken| named(&format!("aborted: {broken}"))).unwrap_or_default();
        let (Self { peer, id, .. }, status, bytes) = (self, status.as_u16(), sent.as_ref().unwrap_or(&0));
        log::log!(
            level,
            "{peer} user={who} \"{method} {target}\" status={status} bytes={bytes} ms={took:.1} id={id}{reason}{aborted}"
        );
    }
}

/// The target as the client wrote it, with everything but printable ASCII escaped: no line of the log can be forged.
fn shown(target: &Target) -> String {
    match target {
        Target::Asterisk => "*".into(),
        Target::Path { path, query } if query.is_empty() => path.escape_ascii().to_string(),
        Target::Path { path, query } => format!("{}?{}", path.escape_ascii(), query.escape_ascii()),
    }
}
